//! System calls that reach around every other rule, or into the machine.

use crate::raw::{address, attempt, call, int80_getpid, room, text};

use super::{Named, perf_attributes, reached};

pub(super) const ATTEMPTS: &[Named] = &[
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
            &[libc::EBADF, libc::EINVAL],
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
    ("fanotify_init", |_| {
        attempt(libc::SYS_fanotify_init, &[0x200, 0])
    }),
    ("keyctl", |_| attempt(libc::SYS_keyctl, &[0, -3, 0])),
    ("add_key", |_| {
        attempt(
            libc::SYS_add_key,
            &[text("user"), text("probe"), text("x"), 1, -2],
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
    ("personality", |_| {
        attempt(libc::SYS_personality, &[0x0040_0000])
    }),
    ("kexec_load", |_| {
        reached(call(libc::SYS_kexec_load, &[0, 99, 0, 0]), &[libc::EINVAL])
    }),
    ("kexec_file_load", |_| {
        reached(
            call(libc::SYS_kexec_file_load, &[-1, -1, 0, 0, 0xFFFF]),
            &[libc::EINVAL],
        )
    }),
    ("init_module", |_| {
        reached(
            call(libc::SYS_init_module, &[0, 0, 0]),
            &[libc::EFAULT, libc::ENOEXEC],
        )
    }),
    ("finit_module", |_| {
        reached(
            call(libc::SYS_finit_module, &[-1, text(""), 0]),
            &[libc::EBADF],
        )
    }),
    ("delete_module", |_| {
        reached(
            call(libc::SYS_delete_module, &[text("no-such-module"), 0x800]),
            &[libc::ENOENT],
        )
    }),
    // Without the two magic numbers the kernel restarts nothing.
    ("reboot", |_| {
        reached(call(libc::SYS_reboot, &[0, 0, 0, 0]), &[libc::EINVAL])
    }),
    ("swapon", |_| {
        reached(
            call(libc::SYS_swapon, &[text("/no/such/file"), 0]),
            &[libc::ENOENT],
        )
    }),
    ("swapoff", |_| {
        reached(
            call(libc::SYS_swapoff, &[text("/no/such/file")]),
            &[libc::ENOENT],
        )
    }),
    ("acct", |_| {
        reached(
            call(libc::SYS_acct, &[text("/no/such/file")]),
            &[libc::ENOENT],
        )
    }),
    ("syslog", |_| attempt(libc::SYS_syslog, &[10, 0, 0])),
    ("quotactl", |_| {
        attempt(libc::SYS_quotactl, &[SYNC_QUOTAS, 0, 0, 0])
    }),
    // A time that is none, and a clock that is none.
    ("settimeofday", |_| {
        reached(
            call(libc::SYS_settimeofday, &[address(&[0_i64, 2_000_000]), 0]),
            &[libc::EINVAL],
        )
    }),
    ("clock_settime", |_| {
        reached(
            call(libc::SYS_clock_settime, &[77, address(&[0_i64, 0])]),
            &[libc::EINVAL],
        )
    }),
    // Asked for nothing to be changed, it only tells.
    ("adjtimex", |_| {
        attempt(libc::SYS_adjtimex, &[room(&[0; 208])])
    }),
    ("sethostname", |_| {
        reached(
            call(libc::SYS_sethostname, &[text(""), -1]),
            &[libc::EINVAL],
        )
    }),
    ("setdomainname", |_| {
        reached(
            call(libc::SYS_setdomainname, &[text(""), -1]),
            &[libc::EINVAL],
        )
    }),
    ("iopl", |_| attempt(IOPL, &[0])),
    ("ioperm", |_| attempt(IOPERM, &[0x80, 1, 0])),
    ("modify_ldt", |_| {
        attempt(MODIFY_LDT, &[0, room(&[0; 16]), 16])
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
    ("TIOCSETD", |_| {
        reached(
            call(libc::SYS_ioctl, &[0, 0x5423, room(&[0; 4])]),
            &[libc::ENOTTY],
        )
    }),
    ("TIOCCONS", |_| {
        reached(call(libc::SYS_ioctl, &[0, 0x541D, 0]), &[libc::ENOTTY])
    }),
    ("int 0x80", |_| int80_getpid()),
    ("x32 getpid", |_| attempt(0x4000_0000 + 39, &[])),
];

/// `Q_SYNC` for users; of no file system, so of all: what is written is what was to be written anyway.
const SYNC_QUOTAS: i64 = 0x8000_0100;

/// Calls of one architecture only; elsewhere there is none of this number.
const IOPL: i64 = of_x86(172);
const IOPERM: i64 = of_x86(173);
const MODIFY_LDT: i64 = of_x86(154);

const fn of_x86(number: i64) -> i64 {
    if cfg!(target_arch = "x86_64") {
        number
    } else {
        -1
    }
}
