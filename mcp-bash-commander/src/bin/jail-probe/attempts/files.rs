//! Files outside the grants, and what controls the machine by a file's name.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;

use crate::raw::{address, attempt, call, room, text};

use super::{AT_FDCWD, Named, errno, open_to_write, os, reached, read};

pub(super) const ATTEMPTS: &[Named] = &[
    ("read canary", |context| read(&context.canary)),
    ("read canary by link", |context| read(&context.link)),
    ("read canary by detour", |context| read(&context.detour)),
    ("read canary by /proc/self/root", |context| {
        read(&format!("/proc/self/root{}", context.canary))
    }),
    ("read canary by /proc/self/cwd", |context| {
        read(&format!("/proc/self/cwd/{}", context.detour))
    }),
    ("read canary by a descriptor of the root", |context| {
        let root = fs::File::open("/").map_err(|error| errno(&error))?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&root);
        read(&format!("/proc/self/fd/{number}{}", context.canary))
    }),
    ("read canary by init's root", |context| {
        read(&format!("/proc/{}/root{}", context.init, context.canary))
    }),
    ("read canary by init's directory", |context| {
        read(&format!("/proc/{}/cwd/{}", context.init, context.detour))
    }),
    ("read canary by the server's root", |context| {
        read(&format!("/proc/{}/root{}", context.server, context.canary))
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
    ("link canary into the workspace", |context| {
        let _ = fs::remove_file("probe-link");
        os(fs::hard_link(&context.canary, "probe-link"))
    }),
    // To the name it has: nothing moves.
    ("rename canary", |context| {
        os(fs::rename(&context.canary, &context.canary))
    }),
    ("make a file beside canary", |context| {
        let beside = format!("{}-beside", context.canary);
        os(fs::write(&beside, "made"))?;
        os(fs::remove_file(beside))
    }),
    ("watch canary", |context| {
        let watch = call(libc::SYS_inotify_init1, &[0])?;
        attempt(
            libc::SYS_inotify_add_watch,
            &[watch, text(&context.canary), 2],
        )
    }),
    ("look into /var/lib", |_| {
        os(fs::read_dir("/var/lib").map(drop))
    }),
    ("read /etc/shadow", |_| read("/etc/shadow")),
    ("write the toolchain", |_| {
        os(OpenOptions::new()
            .append(true)
            .open("/usr/bin/env")
            .map(drop))
    }),
    ("look into /sys", |_| {
        os(fs::read_dir("/sys/kernel").map(drop))
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
        fs::write("probe-chmod", "x").map_err(|error| errno(&error))?;
        os(fs::set_permissions(
            "probe-chmod",
            fs::Permissions::from_mode(0o4755),
        ))
    }),
    (
        "open /dev/mem",
        |_| os(fs::File::open("/dev/mem").map(drop)),
    ),
    (
        "open /dev/kvm",
        |_| os(fs::File::open("/dev/kvm").map(drop)),
    ),
    ("open the kernel's log", |_| {
        os(fs::File::open("/dev/kmsg").map(drop))
    }),
    ("open a disk", |context| {
        os(fs::File::open(&context.disk).map(drop))
    }),
    ("read the kernel's memory", |_| read("/proc/kcore")),
    ("write core_pattern", |_| {
        open_to_write("/proc/sys/kernel/core_pattern")
    }),
    ("write sysrq-trigger", |_| {
        open_to_write("/proc/sysrq-trigger")
    }),
    ("write modprobe", |_| {
        open_to_write("/proc/sys/kernel/modprobe")
    }),
    ("write a setting of the network", |_| {
        open_to_write("/proc/sys/net/ipv4/ip_forward")
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
    ("fsconfig", |_| {
        reached(
            call(libc::SYS_fsconfig, &[-1, 6, 0, 0, 0]),
            &[libc::EINVAL, libc::EBADF],
        )
    }),
    ("fsmount", |_| {
        reached(call(libc::SYS_fsmount, &[-1, 0, 0]), &[libc::EBADF])
    }),
    ("fspick", |_| {
        reached(
            call(libc::SYS_fspick, &[AT_FDCWD, text("/usr/bin"), 0]),
            &[libc::EINVAL],
        )
    }),
    ("open_tree", |_| {
        attempt(libc::SYS_open_tree, &[AT_FDCWD, text("/"), 0])
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
    ("name_to_handle_at", |_| {
        let handle = [&128_u32.to_ne_bytes()[..], &[0; 136]].concat();
        attempt(
            libc::SYS_name_to_handle_at,
            &[AT_FDCWD, text("."), room(&handle), room(&[0; 8]), 0],
        )
    }),
    ("open_by_handle_at", |_| {
        let handle = [&8_u32.to_ne_bytes()[..], &[0; 12]].concat();
        reached(
            call(libc::SYS_open_by_handle_at, &[AT_FDCWD, room(&handle), 0]),
            &[libc::ESTALE, libc::EINVAL],
        )
    }),
];
