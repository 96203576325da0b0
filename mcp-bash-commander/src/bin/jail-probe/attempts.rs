//! The attempts, by name: each is one thing a jailed command must not be able to do.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr as LocalAddress, UnixStream};

use serde::Deserialize;

use crate::raw::{Attempt, address, apart, attempt, call, int80_getpid, room, text};

/// What there is outside to be reached.
#[derive(Deserialize)]
pub(crate) struct Context {
    /// A file outside every grant, by its absolute path.
    canary: String,
    /// A symbolic link to it, and a path to it with `..`, both in the working directory.
    link: String,
    detour: String,
    /// A local socket of the host, and an abstract one.
    socket: String,
    abstract_socket: String,
    /// TCP and UDP listeners of the host.
    tcp: u16,
    udp: u16,
    /// The process id of the server.
    server: i32,
    /// The process id of init; for the control, of a process that stands for it.
    init: i32,
    /// Key of a System V shared memory segment.
    shared_memory: i32,
}

type Action = fn(&Context) -> Attempt;

/// Makes every attempt in a process of its own. 0 is success, a positive number the error, a negative one the signal that ended it.
pub(crate) fn all(context: &Context) -> BTreeMap<&'static str, i32> {
    ATTEMPTS
        .iter()
        .map(|(name, action)| (*name, apart(|| action(context))))
        .collect()
}

const ATTEMPTS: &[(&str, Action)] = &[
    ("read canary", |context| read(&context.canary)),
    ("read canary by link", |context| read(&context.link)),
    ("read canary by detour", |context| read(&context.detour)),
    ("read canary by /proc/self/root", |context| {
        read(&format!("/proc/self/root{}", context.canary))
    }),
    ("read canary by /proc/self/cwd", |context| {
        read(&format!("/proc/self/cwd/{}", context.detour))
    }),
    ("stat canary", |context| {
        os(fs::metadata(&context.canary).map(drop))
    }),
    ("chmod canary", |context| {
        os(fs::set_permissions(
            &context.canary,
            fs::Permissions::from_mode(0o600),
        ))
    }),
    ("set times of canary", |context| {
        attempt(
            libc::SYS_utimensat,
            &[AT_FDCWD, text(&context.canary), 0, 0],
        )
    }),
    ("set attribute of canary", |context| {
        let name = "user.probe";
        attempt(
            libc::SYS_setxattr,
            &[text(&context.canary), text(name), text("x"), 1, 0],
        )
    }),
    ("chown canary", |context| {
        // To whom it belongs already; only the owner may even do that.
        attempt(
            libc::SYS_fchownat,
            &[AT_FDCWD, text(&context.canary), -1, -1, 0],
        )
    }),
    ("write canary", |context| {
        os(OpenOptions::new()
            .append(true)
            .open(&context.canary)
            .map(drop))
    }),
    ("see the server's root", |context| {
        os(fs::read_link(format!("/proc/{}/root", context.server)).map(drop))
    }),
    ("see the server's command line", |context| {
        read(&format!("/proc/{}/cmdline", context.server))
    }),
    ("see the server's environment", |context| {
        read(&format!("/proc/{}/environ", context.server))
    }),
    ("see memory of init", |context| {
        os(fs::File::open(format!("/proc/{}/mem", context.init)).map(drop))
    }),
    ("see root of init", |context| {
        os(fs::read_link(format!("/proc/{}/root", context.init)).map(drop))
    }),
    ("signal the server", |context| {
        attempt(libc::SYS_kill, &[context.server.into(), 0])
    }),
    ("signal init", |context| {
        attempt(libc::SYS_kill, &[context.init.into(), 0])
    }),
    ("trace init", |context| {
        attempt(libc::SYS_ptrace, &[PTRACE_SEIZE, context.init.into(), 0, 0])
    }),
    ("read init's memory", |context| read_memory(context.init)),
    ("take init's descriptor", |context| {
        let init = call(libc::SYS_pidfd_open, &[context.init.into(), 0])?;
        attempt(libc::SYS_pidfd_getfd, &[init, 1, 0])
    }),
    ("pin init to a processor", |context| {
        attempt(
            libc::SYS_sched_setaffinity,
            &[context.init.into(), 8, address(&[0xFF_u64])],
        )
    }),
    ("slow init down", |context| {
        // To the priority it has: any other would slow down the control.
        let priority = 20 - call(libc::SYS_getpriority, &[0, context.init.into()])?;
        attempt(libc::SYS_setpriority, &[0, context.init.into(), priority])
    }),
    ("limit init", |context| {
        attempt(
            libc::SYS_prlimit64,
            &[
                context.init.into(),
                libc::RLIMIT_NOFILE.into(),
                0,
                room(&[0; 16]),
            ],
        )
    }),
    ("limit the server", |context| {
        attempt(
            libc::SYS_prlimit64,
            &[
                context.server.into(),
                libc::RLIMIT_NOFILE.into(),
                0,
                room(&[0; 16]),
            ],
        )
    }),
    ("trace the server", |context| {
        attempt(
            libc::SYS_ptrace,
            &[PTRACE_SEIZE, context.server.into(), 0, 0],
        )
    }),
    ("trace oneself", |_| {
        attempt(libc::SYS_ptrace, &[0, 0, 0, 0])
    }),
    ("read the server's memory", |context| {
        read_memory(context.server)
    }),
    ("take the server's descriptor", |context| {
        let server = call(libc::SYS_pidfd_open, &[context.server.into(), 0])?;
        attempt(libc::SYS_pidfd_getfd, &[server, 1, 0])
    }),
    ("pin the server to a processor", |context| {
        attempt(
            libc::SYS_sched_setaffinity,
            &[context.server.into(), 8, address(&[0xFF_u64])],
        )
    }),
    // Outside these must do nothing: they fail behind the check of rights, on names that do not fit.
    ("mount", |_| {
        reached(
            call(
                libc::SYS_mount,
                &[
                    text("none"),
                    text("/tmp"),
                    text("no-such-file-system"),
                    0,
                    0,
                ],
            ),
            &[libc::ENODEV],
        )
    }),
    ("remount", |_| {
        reached(
            call(libc::SYS_mount, &[0, text("/usr/bin"), 0, 0x1020, 0]),
            &[libc::EINVAL],
        )
    }),
    ("unmount", |_| {
        reached(
            call(libc::SYS_umount2, &[text("/usr/bin"), 0]),
            &[libc::EINVAL],
        )
    }),
    ("pivot_root", |_| {
        reached(
            call(libc::SYS_pivot_root, &[text("/"), text("/tmp")]),
            &[libc::EBUSY, libc::EINVAL],
        )
    }),
    ("chroot", |_| attempt(libc::SYS_chroot, &[text("/tmp")])),
    ("fsopen", |_| attempt(libc::SYS_fsopen, &[text("tmpfs"), 0])),
    ("open_tree", |_| {
        attempt(libc::SYS_open_tree, &[AT_FDCWD, text("/"), 0])
    }),
    ("unshare a user namespace", |_| {
        attempt(libc::SYS_unshare, &[i64::from(libc::CLONE_NEWUSER)])
    }),
    ("clone a user namespace", |_| {
        attempt_clone(libc::CLONE_NEWUSER)
    }),
    ("clone3 a user namespace", |_| {
        let arguments = [
            u64::from(libc::CLONE_NEWUSER.cast_unsigned()),
            0,
            0,
            0,
            17,
            0,
            0,
            0,
        ];
        match call(libc::SYS_clone3, &[address(&arguments), 64])? {
            0 => Ok(()),
            child => {
                call(libc::SYS_wait4, &[child, 0, 0, 0])?;
                Ok(())
            }
        }
    }),
    ("setns", |_| {
        let namespace = call(libc::SYS_open, &[text("/proc/self/ns/uts"), 0])?;
        reached(call(libc::SYS_setns, &[namespace, 0]), &[])
    }),
    ("mknod", |_| {
        let _ = fs::remove_file("probe-device");
        attempt(
            libc::SYS_mknodat,
            &[AT_FDCWD, text("probe-device"), 0o20_600, 0x103],
        )
    }),
    ("make a setuid file", |_| {
        let _ = fs::remove_file("probe-setuid");
        attempt(
            libc::SYS_openat,
            &[AT_FDCWD, text("probe-setuid"), 0o102, 0o4755],
        )
    }),
    ("chmod to setuid", |_| {
        fs::write("probe-chmod", "x").map_err(|error| error.raw_os_error().unwrap_or(0))?;
        os(fs::set_permissions(
            "probe-chmod",
            fs::Permissions::from_mode(0o4755),
        ))
    }),
    (
        "open /dev/mem",
        |_| os(fs::File::open("/dev/mem").map(drop)),
    ),
    ("write core_pattern", |_| {
        open_to_write("/proc/sys/kernel/core_pattern")
    }),
    ("write sysrq-trigger", |_| {
        open_to_write("/proc/sysrq-trigger")
    }),
    ("look into /sys", |_| {
        os(fs::read_dir("/sys/kernel").map(drop))
    }),
    ("write the toolchain", |_| {
        os(OpenOptions::new()
            .append(true)
            .open("/usr/bin/env")
            .map(drop))
    }),
    ("io_uring_setup", |_| {
        attempt(libc::SYS_io_uring_setup, &[1, room(&[0; 120])])
    }),
    // These have nothing to work on; EBADF comes from behind the filter.
    ("io_uring_enter", |_| {
        reached(
            call(libc::SYS_io_uring_enter, &[-1, 0, 0, 0, 0, 0]),
            &[libc::EBADF],
        )
    }),
    ("io_uring_register", |_| {
        reached(
            call(libc::SYS_io_uring_register, &[-1, 0, 0, 0]),
            &[libc::EBADF],
        )
    }),
    ("move_mount", |_| {
        reached(
            call(
                libc::SYS_move_mount,
                &[AT_FDCWD, text("/usr/bin"), AT_FDCWD, text("/usr/bin"), 0],
            ),
            &[libc::EINVAL, libc::ELOOP],
        )
    }),
    ("mount_setattr", |_| {
        reached(
            call(
                libc::SYS_mount_setattr,
                &[AT_FDCWD, text("/usr/bin"), 0, address(&[0_u8; 32]), 32],
            ),
            &[libc::EINVAL],
        )
    }),
    ("finit_module", |_| {
        reached(
            call(libc::SYS_finit_module, &[-1, text(""), 0]),
            &[libc::EBADF],
        )
    }),
    ("request_key", |_| {
        reached(
            call(
                libc::SYS_request_key,
                &[text("user"), text("no-such-key"), 0, 0],
            ),
            &[libc::ENOKEY],
        )
    }),
    ("open_by_handle_at", |_| {
        let handle = [&8_u32.to_ne_bytes()[..], &[0; 12]].concat();
        reached(
            call(libc::SYS_open_by_handle_at, &[AT_FDCWD, room(&handle), 0]),
            &[libc::ESTALE, libc::EINVAL],
        )
    }),
    ("bpf", |_| {
        reached(
            call(libc::SYS_bpf, &[0, address(&[0_u8; 72]), 72]),
            &[libc::EINVAL, libc::E2BIG],
        )
    }),
    ("perf_event_open", |_| {
        attempt(
            libc::SYS_perf_event_open,
            &[address(&perf_attributes()), 0, -1, -1, 0],
        )
    }),
    ("userfaultfd", |_| attempt(libc::SYS_userfaultfd, &[1])),
    ("keyctl", |_| attempt(libc::SYS_keyctl, &[0, -3, 0])),
    ("add_key", |_| {
        attempt(
            libc::SYS_add_key,
            &[text("user"), text("probe"), text("x"), 1, -2],
        )
    }),
    ("personality", |_| {
        attempt(libc::SYS_personality, &[0x0040_0000])
    }),
    ("name_to_handle_at", |_| {
        let handle = [&128_u32.to_ne_bytes()[..], &[0; 136]].concat();
        attempt(
            libc::SYS_name_to_handle_at,
            &[AT_FDCWD, text("."), room(&handle), room(&[0; 8]), 0],
        )
    }),
    ("kexec_load", |_| {
        reached(call(libc::SYS_kexec_load, &[0, 99, 0, 0]), &[libc::EINVAL])
    }),
    ("init_module", |_| {
        reached(
            call(libc::SYS_init_module, &[0, 0, 0]),
            &[libc::EFAULT, libc::ENOEXEC],
        )
    }),
    ("TIOCSTI", |_| {
        reached(
            call(libc::SYS_ioctl, &[0, 0x5412, address(b"x")]),
            &[libc::ENOTTY],
        )
    }),
    ("TIOCSTI with high bits", |_| {
        reached(
            call(libc::SYS_ioctl, &[0, 0x5412 | (1 << 32), address(b"x")]),
            &[libc::ENOTTY],
        )
    }),
    ("TIOCLINUX", |_| {
        reached(
            call(libc::SYS_ioctl, &[0, 0x541C, address(b"x")]),
            &[libc::ENOTTY],
        )
    }),
    ("TIOCLINUX with high bits", |_| {
        reached(
            call(libc::SYS_ioctl, &[0, 0x541C | (3 << 40), address(b"x")]),
            &[libc::ENOTTY],
        )
    }),
    ("int 0x80", |_| int80_getpid()),
    ("connect a local socket", |context| {
        os(UnixStream::connect(&context.socket).map(drop))
    }),
    ("connect an abstract socket", |context| {
        os(LocalAddress::from_abstract_name(&context.abstract_socket)
            .and_then(|name| UnixStream::connect_addr(&name))
            .map(drop))
    }),
    ("bind a socket in the workspace", |_| {
        let _ = fs::remove_file("probe-socket");
        os(std::os::unix::net::UnixListener::bind("probe-socket").map(drop))
    }),
    ("TCP", |context| {
        let mut stream = TcpStream::connect(("127.0.0.1", context.tcp))
            .map_err(|error| error.raw_os_error().unwrap_or(0))?;
        os(stream.write_all(b"TCP"))
    }),
    ("TCP fast open", |context| {
        send_to(libc::SOCK_STREAM, 0, context.tcp, 0x2000_0000)
    }),
    ("MPTCP", |context| {
        send_to(libc::SOCK_STREAM, 262, context.tcp, 0)
    }),
    ("UDP", |context| {
        let socket =
            UdpSocket::bind("0.0.0.0:0").map_err(|error| error.raw_os_error().unwrap_or(0))?;
        os(socket
            .send_to(b"UDP", SocketAddr::from(([127, 0, 0, 1], context.udp)))
            .map(drop))?;
        // In the jail's own network the bytes go nowhere and nobody says so at once; an error comes back with the next call.
        socket
            .connect(("127.0.0.1", context.udp))
            .map_err(|error| error.raw_os_error().unwrap_or(0))?;
        os(socket.send(b"UDP").map(drop))?;
        os(socket.send(b"UDP").map(drop))
    }),
    ("SCTP", |_| {
        reached(
            call(libc::SYS_socket, &[2, 1, 132]),
            &[libc::EPROTONOSUPPORT],
        )
    }),
    ("raw socket", |_| attempt(libc::SYS_socket, &[2, 3, 1])),
    ("packet socket", |_| attempt(libc::SYS_socket, &[17, 3, 0])),
    ("ICMP socket", |_| {
        reached(
            call(libc::SYS_socket, &[2, 2, 1]),
            // Who may have one is a setting of the host.
            &[libc::EACCES],
        )
    }),
    ("netlink", |_| attempt(libc::SYS_socket, &[16, 3, 0])),
    ("vsock", |_| {
        reached(call(libc::SYS_socket, &[40, 1, 0]), &[libc::EAFNOSUPPORT])
    }),
    ("AF_ALG", |_| {
        reached(call(libc::SYS_socket, &[38, 5, 0]), &[libc::EAFNOSUPPORT])
    }),
    ("TIPC pair", |_| {
        reached(
            call(libc::SYS_socketpair, &[30, 1, 0, room(&[0; 8])]),
            &[libc::EAFNOSUPPORT],
        )
    }),
    ("attach shared memory", |context| {
        attempt(libc::SYS_shmget, &[context.shared_memory.into(), 0, 0])
    }),
];

const AT_FDCWD: i64 = -100;
const PTRACE_SEIZE: i64 = 0x4206;

/// An address that is not mapped: EFAULT says that the call came through.
fn read_memory(pid: i32) -> Attempt {
    let (local, remote) = ([room(&[0; 8]), 8], [0x1000_i64, 8]);
    reached(
        call(
            libc::SYS_process_vm_readv,
            &[pid.into(), address(&local), 1, address(&remote), 1, 0],
        ),
        &[libc::EFAULT],
    )
}

fn os(result: std::io::Result<()>) -> Attempt {
    result.map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))
}

fn read(path: &str) -> Attempt {
    os(fs::File::open(path)
        .and_then(|mut file| file.read(&mut [0; 1]))
        .map(drop))
}

fn open_to_write(path: &str) -> Attempt {
    os(OpenOptions::new().write(true).open(path).map(drop))
}

/// Success also for errors that only the code behind every check can give.
fn reached(result: Result<i64, i32>, behind: &[i32]) -> Attempt {
    match result {
        Err(errno) if !behind.contains(&errno) => Err(errno),
        _ => Ok(()),
    }
}

fn attempt_clone(flags: i32) -> Attempt {
    match call(
        libc::SYS_clone,
        &[i64::from(flags | libc::SIGCHLD), 0, 0, 0, 0],
    )? {
        0 => Ok(()),
        child => attempt(libc::SYS_wait4, &[child, 0, 0, 0]),
    }
}

/// A software event of this process.
fn perf_attributes() -> [u32; 32] {
    let mut attributes = [0; 32];
    attributes[0] = 1;
    attributes[1] = 128;
    attributes
}

/// Sends a few bytes to a port of 127.0.0.1, connecting first unless the flags do that.
fn send_to(kind: i32, protocol: i64, port: u16, flags: i64) -> Attempt {
    let [high, low] = port.to_be_bytes();
    let name = [2, 0, high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0_u8];
    let socket = call(libc::SYS_socket, &[2, kind.into(), protocol])?;
    if flags == 0 {
        attempt(libc::SYS_connect, &[socket, address(&name), 16])?;
        return attempt(libc::SYS_write, &[socket, text("sent"), 4]);
    }
    attempt(
        libc::SYS_sendto,
        &[socket, text("sent"), 4, flags, address(&name), 16],
    )
}
