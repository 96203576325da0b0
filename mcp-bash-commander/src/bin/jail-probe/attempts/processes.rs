//! Other processes: the server, the jail's init, and the namespaces around them.

use std::fs;

use crate::raw::{address, attempt, call, room, text};

use super::{
    Named, PTRACE_SEIZE, attempt_clone, open_to_write, os, reached, read, read_memory, unshare,
};

pub(super) const ATTEMPTS: &[Named] = &[
    ("see the server's root", |context| {
        os(fs::read_link(format!("/proc/{}/root", context.server)).map(drop))
    }),
    ("see the server's command line", |context| {
        read(&format!("/proc/{}/cmdline", context.server))
    }),
    ("see the server's environment", |context| {
        read(&format!("/proc/{}/environ", context.server))
    }),
    ("see the server's directory", |context| {
        os(fs::metadata(format!("/proc/{}", context.server)).map(drop))
    }),
    ("see the server's memory map", |context| {
        read(&format!("/proc/{}/maps", context.server))
    }),
    ("see memory of init", |context| {
        os(fs::File::open(format!("/proc/{}/mem", context.init)).map(drop))
    }),
    ("see root of init", |context| {
        os(fs::read_link(format!("/proc/{}/root", context.init)).map(drop))
    }),
    ("see the environment of init", |context| {
        read(&format!("/proc/{}/environ", context.init))
    }),
    ("have init killed first", |context| {
        open_to_write(&format!("/proc/{}/oom_score_adj", context.init))
    }),
    ("hold the server", |context| {
        attempt(libc::SYS_pidfd_open, &[context.server.into(), 0])
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
    ("schedule init otherwise", |context| {
        // The ordinary way it is scheduled already.
        attempt(
            libc::SYS_sched_setscheduler,
            &[context.init.into(), 0, address(&0_i32)],
        )
    }),
    ("slow all processes of the user down", |_| {
        let priority = 20 - call(libc::SYS_getpriority, &[2, 0])?;
        attempt(libc::SYS_setpriority, &[2, 0, priority])
    }),
    ("slow init's input and output down", |context| {
        let priority = call(libc::SYS_ioprio_get, &[1, context.init.into()])?;
        attempt(libc::SYS_ioprio_set, &[1, context.init.into(), priority])
    }),
    ("move init's memory", |context| {
        attempt(libc::SYS_move_pages, &[context.init.into(), 0, 0, 0, 0, 0])
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
    ("advise another process's memory", |_| {
        reached(
            call(libc::SYS_process_madvise, &[-1, 0, 0, 20, 0]),
            &[libc::EBADF],
        )
    }),
    ("compare processes", |_| {
        let own = std::process::id().into();
        attempt(libc::SYS_kcmp, &[own, own, 1, 0, 0])
    }),
    ("unshare a user namespace", |_| {
        attempt(libc::SYS_unshare, &[i64::from(libc::CLONE_NEWUSER)])
    }),
    ("unshare the mounts", |_| unshare(libc::CLONE_NEWNS)),
    ("unshare the network", |_| unshare(libc::CLONE_NEWNET)),
    ("unshare the time", |_| unshare(libc::CLONE_NEWTIME)),
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
];
