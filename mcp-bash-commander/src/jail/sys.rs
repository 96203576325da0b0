//! System calls that no safe wrapper offers, each as small as it can be.
#![expect(
    unsafe_code,
    reason = "raw system calls of the jail; every block says why it is sound"
)]

use std::ffi::CString;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use rustix::io::{Errno, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::protocol::Consumed;

/// Which side of a [`clone_process`] this is.
pub(super) enum Side {
    /// The new process.
    Child,
    /// The old one, with the new one's id and pidfd.
    Parent { pid: i32, pidfd: OwnedFd },
}

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Makes a process with the namespaces of `flags`. Only for a process with a single thread.
pub(super) fn clone_process(flags: libc::c_int) -> Result<Side> {
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArguments {
        flags: u64::from((flags | libc::CLONE_PIDFD).cast_unsigned()),
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    // SAFETY: the structure is the first version of `struct clone_args`, alive during the call; without CLONE_VM the
    // child has a copy of all memory, and the caller has one thread, so no lock is held by a thread the child lacks.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            ptr::from_mut(&mut arguments),
            size_of::<CloneArguments>(),
        )
    };
    match result {
        -1 => Err(last_error()),
        0 => Ok(Side::Child),
        // SAFETY: the kernel has just opened this descriptor for us.
        pid => Ok(Side::Parent {
            pid: i32::try_from(pid).unwrap_or(i32::MAX),
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Makes the control group of this process the topmost one it sees.
pub(super) fn unshare_cgroups() -> Result<()> {
    // SAFETY: this namespace concerns neither memory nor descriptors.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP) }
}

/// Runs `work` as a new process on this one's memory, as vfork(2) does, and returns its id once it has become a program or has ended:
/// to copy the memory would take longer than all that the process does before it becomes one. Only for a process with a single thread.
pub(super) fn start_program<F: FnOnce() -> std::convert::Infallible>(work: F) -> Result<i32> {
    const STACK: usize = 1 << 20;
    extern "C" fn enter<F: FnOnce() -> std::convert::Infallible>(
        work: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: it is the `work` of `start_program`, which waits, and nobody else takes it.
        let work = unsafe { (*work.cast::<Option<F>>()).take() };
        // A panic must not unwind out of the process.
        let _ = catch_unwind(AssertUnwindSafe(|| work.map(|work| work())));
        exit_now(101)
    }
    /// Made once: each new process is through with it before another can be started.
    static KEPT: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());
    let mut stack = KEPT.load(Ordering::Relaxed);
    if stack.is_null() {
        // SAFETY: a new private mapping, which only the new processes use as their stack.
        stack = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                STACK,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::PRIVATE
                    | rustix::mm::MapFlags::STACK
                    | rustix::mm::MapFlags::NORESERVE,
            )
        }?;
        KEPT.store(stack, Ordering::Relaxed);
    }
    let mut work = Some(work);
    // SAFETY: CLONE_VFORK keeps this thread, the only one of its memory, from running while the new process does, so nothing is
    // used by both at once; the stack has its size and grows down from its aligned end; descriptors, signal actions, credentials
    // and the working directory are copies, because the flags share none of them.
    let pid = unsafe {
        libc::clone(
            enter::<F>,
            stack.byte_add(STACK),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            ptr::from_mut(&mut work).cast(),
        )
    };
    if pid == -1 {
        Err(last_error())
    } else {
        Ok(pid)
    }
}

/// Ends this process at once, without running destructors of a copied parent.
pub(super) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Makes `number` refer to the same open file as `from`, kept on exec.
pub(super) fn duplicate_to(from: impl AsFd, number: RawFd) -> Result<()> {
    // SAFETY: dup2 touches no memory; the caller owns what `number` means in this process.
    check(unsafe { libc::dup2(from.as_fd().as_raw_fd(), number) }).map(drop)
}

/// Closes every descriptor from `first` to `last`.
pub(super) fn close_range(first: RawFd, last: RawFd) -> Result<()> {
    close_range_with(first, last, 0)
}

/// Marks every descriptor from `first` on as closed on exec.
pub(super) fn close_on_exec_from(first: RawFd) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    close_range_with(first, RawFd::MAX, CLOSE_RANGE_CLOEXEC)
}

fn close_range_with(first: RawFd, last: RawFd, flags: libc::c_uint) -> Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: closing touches no memory; the process in question keeps no owner of a closed number (it is a fresh copy
    // that lists what it keeps).
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first.cast_unsigned(),
            last.cast_unsigned(),
            flags,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

/// Lets the runtime watch a descriptor, only for what is waited for: whatever else happens to it would wake the server for nothing.
pub(super) fn watch(descriptor: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one descriptor, the same for as long as it lives, and `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(std::io::Error::from)
}

/// Attributes for [`mount_setattr`], as the kernel lays them out.
#[repr(C)]
#[derive(Default)]
pub(super) struct MountAttributes {
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) propagation: u64,
    pub(super) user_namespace: u64,
}

/// Changes the attributes of a mount, and of those below it if `recursive`.
pub(super) fn mount_setattr(
    mount: impl AsFd,
    recursive: bool,
    attributes: &MountAttributes,
) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path and the attributes live during the call and have the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

const AT_RECURSIVE: libc::c_int = 0x8000;

/// Switches the loopback interface of this network namespace on.
pub(super) fn loopback_up() -> Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero `ifreq` is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives during the call.
    check(unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            ptr::from_ref(&request),
        )
    })
    .map(drop)
}

/// Strings as a new program takes them. Made before the process that becomes the program: what that one allocates in the memory it
/// shares is never freed.
pub(super) struct Strings<'a> {
    pointers: Vec<*const libc::c_char>,
    strings: PhantomData<&'a [CString]>,
}

impl<'a> Strings<'a> {
    pub(super) fn new(strings: &'a [CString]) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr());
        Self {
            pointers: pointers.chain([ptr::null()]).collect(),
            strings: PhantomData,
        }
    }
}

/// Replaces this process by `program`. Returns only the error.
pub(super) fn execute(program: &CString, argv: &Strings<'_>, env: &Strings<'_>) -> Errno {
    // SAFETY: both lists end in a null pointer and their strings outlive the call.
    unsafe {
        libc::execve(
            program.as_ptr(),
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
        )
    };
    last_error()
}

/// Gives every signal its default action but the one of a broken pipe, which stays an error: what was ignored where the server was
/// started, all that descends from this process would ignore.
pub(super) fn reset_signals() {
    for signal in 1..=64 {
        if ![libc::SIGKILL, libc::SIGSTOP, libc::SIGPIPE].contains(&signal) {
            // SAFETY: SIG_DFL is a valid disposition; numbers without a signal only return an error.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

/// What is left of that for a process that becomes a program: the signal of a broken pipe, and none is blocked.
pub(super) fn reset_signals_for_program() {
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: the set is initialised before it is used.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Blocks SIGCHLD and returns a descriptor that becomes readable when a child ended.
pub(super) fn child_signal() -> Result<OwnedFd> {
    // SAFETY: the set is initialised before it is used; the returned descriptor is new and ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const set,
            ptr::null_mut(),
        ))?;
        let number = check(libc::signalfd(
            -1,
            &raw const set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// A child that ended, if one has: its id, wait status, and what it and its descendants used.
pub(super) fn reap() -> Result<Option<(i32, i32, Consumed)>> {
    let mut status = 0;
    // SAFETY: both out-parameters are valid for writes; an all-zero `rusage` is a valid one.
    let (pid, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let pid = libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage);
        (pid, usage)
    };
    match pid {
        0 => Ok(None),
        -1 => Err(last_error()),
        pid => Ok(Some((pid, status, consumed(&usage)))),
    }
}

/// Whether this process has a child, be it one that ended and was not reaped.
pub(super) fn has_children() -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, options), Err(Errno::CHILD))
}

/// What all reaped children and their descendants used.
pub(super) fn children_usage() -> Consumed {
    // SAFETY: the out-parameter is valid for writes; an all-zero `rusage` is a valid one.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        consumed(&usage)
    }
}

fn consumed(usage: &libc::rusage) -> Consumed {
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
            + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    Consumed {
        cpu_micros: micros(usage.ru_utime) + micros(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    }
}

/// Sends `signal` to one process, or to a group if the number is negative.
pub(super) fn signal(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill touches no memory.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Sends `signal` to every process this one may signal but itself: in init, to the whole jail.
pub(super) fn signal_everyone(signal: i32) -> Result<()> {
    // SAFETY: kill touches no memory.
    check(unsafe { libc::kill(-1, signal) }).map(drop)
}

/// Applies a filter to this thread and returns the descriptor on which each call with the verdict `USER_NOTIF` is told. A caller that
/// waits for its answer can be killed.
pub(super) fn apply_reporting_filter(program: &[seccompiler::sock_filter]) -> Result<OwnedFd> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    const NEW_LISTENER: libc::c_ulong = 1 << 3;
    const WAIT_KILLABLE: libc::c_ulong = 1 << 5;
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        // The kernel only reads it; both structures are the kernel's `struct sock_filter`.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: program and its instructions live during the call; the returned descriptor is new and ours.
    unsafe {
        let listener = libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            NEW_LISTENER | WAIT_KILLABLE,
            ptr::from_ref(&program),
        );
        let listener = RawFd::try_from(listener).map_err(|_| Errno::IO)?;
        check(listener).map(|listener| OwnedFd::from_raw_fd(listener))
    }
}

/// A system call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notified {
    id: u64,
    /// The process, as this one sees it.
    pub(super) pid: i32,
    /// Number of the call.
    pub(super) call: i64,
    /// Its arguments.
    pub(super) arguments: [u64; 6],
}

/// The next call that waits. It may have been killed meanwhile: `ENOENT`.
pub(super) fn next_notification(listener: impl AsFd) -> Result<Notified> {
    const RECEIVE: libc::c_ulong = 0xC050_2100;
    // SAFETY: an all-zero `seccomp_notif` is valid, and what the kernel asks for.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes one `seccomp_notif`, which lives during the call.
    check(unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            RECEIVE,
            ptr::from_mut(&mut notification),
        )
    })?;
    Ok(Notified {
        id: notification.id,
        pid: notification.pid.cast_signed(),
        call: notification.data.nr.into(),
        arguments: notification.data.args,
    })
}

/// Lets the call fail with `errno`; it is never made.
pub(super) fn deny(listener: impl AsFd, notified: &Notified, errno: Errno) -> Result<()> {
    respond(listener, notified, -errno.raw_os_error(), 0)
}

/// Lets the call be made as if nobody had been asked.
pub(super) fn let_through(listener: impl AsFd, notified: &Notified) -> Result<()> {
    const CONTINUE: u32 = 1;
    respond(listener, notified, 0, CONTINUE)
}

fn respond(listener: impl AsFd, notified: &Notified, error: i32, flags: u32) -> Result<()> {
    const SEND: libc::c_ulong = 0xC018_2101;
    let answer = libc::seccomp_notif_resp {
        id: notified.id,
        val: 0,
        error,
        flags,
    };
    // SAFETY: the request reads one `seccomp_notif_resp`, which lives during the call.
    check(unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), SEND, ptr::from_ref(&answer)) })
        .map(drop)
}

/// Restricts this thread, and what it executes, to a Landlock ruleset; `no_new_privs` must be set.
pub(super) fn landlock_restrict(ruleset: impl AsFd) -> Result<()> {
    // SAFETY: the call takes a descriptor and no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_restrict_self,
            ruleset.as_fd().as_raw_fd(),
            0_u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

/// The version of the kernel's Landlock.
pub(super) fn landlock_abi() -> Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the kernel takes no structure.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<libc::c_void>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| last_error())
}

fn check(result: libc::c_int) -> Result<libc::c_int> {
    if result < 0 {
        Err(last_error())
    } else {
        Ok(result)
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
