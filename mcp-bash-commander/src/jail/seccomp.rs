//! The stacked system-call filters: a guard of the calling convention, calls answered as unknown, calls denied.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// The filters of all jails, compiled once. Those that no part of the launcher minds are applied to the launcher, and every jail
/// inherits them: the kernel takes longer to load a filter than for most of what else a jail costs.
#[derive(Debug)]
pub(super) struct Filters {
    everywhere: Vec<BpfProgram>,
    everywhere_applied: bool,
    commands: Vec<BpfProgram>,
}

impl Filters {
    pub(super) fn compile() -> Result<Self, seccompiler::BackendError> {
        Ok(Self {
            everywhere: vec![
                calling_convention_guard(),
                compile(&denied_everywhere(), libc::EPERM)?,
            ],
            everywhere_applied: false,
            commands: vec![
                compile(&unknown_calls(), libc::ENOSYS)?,
                compile(&denied_to_commands(), libc::EPERM)?,
            ],
        })
    }

    /// Applies to this process what all its jails inherit. Where that fails, each jail tries again and says that it cannot.
    pub(super) fn confine_launcher(&mut self) {
        self.everywhere_applied = apply(&self.everywhere).is_ok();
    }

    /// Applies to this thread all filters that it has not inherited; `no_new_privs` must be set.
    pub(super) fn confine_command(&self) -> Result<(), seccompiler::Error> {
        if !self.everywhere_applied {
            apply(&self.everywhere)?;
        }
        apply(&self.commands)
    }
}

fn apply(programs: &[BpfProgram]) -> Result<(), seccompiler::Error> {
    programs
        .iter()
        .try_for_each(|program| seccompiler::apply_filter(program))
}

/// A system call and the alternatives of arguments that make it match; none of them: it always matches.
type Rule = (i64, Vec<Vec<Condition>>);

/// A test of the lower 32 bits of one argument. No call judged here has a wider meaning, and the kernel ignores the upper bits of
/// these arguments, so a filter must too.
#[derive(Debug, Clone, Copy)]
enum Condition {
    Is(u8, u32),
    IsNot(u8, u32),
    /// All of these bits are set.
    Has(u8, u32),
    /// The bits of the mask have this value.
    Bits(u8, u32, u32),
}

use Condition::{Bits, Has, Is, IsNot};

/// Calls that a program must take for missing, so that it falls back to one the filters can judge.
fn unknown_calls() -> Vec<Rule> {
    // Their flags stand in memory, where a filter cannot look.
    vec![always(libc::SYS_clone3), always(libc::SYS_openat2)]
}

/// Calls no jailed program may make and the launcher and init never do. That these are data, and that there is one verdict for all,
/// lets a supervisor be told of each denial instead.
fn denied_everywhere() -> Vec<Rule> {
    let mut rules: Vec<Rule> = DENIED_EVERYWHERE.iter().copied().map(always).collect();
    rules.push((
        libc::SYS_ioctl,
        [TIOCSTI, TIOCLINUX, TIOCSETD, TIOCCONS]
            .map(|request| vec![Is(1, request)])
            .to_vec(),
    ));
    rules.push((libc::SYS_socket, refused_sockets()));
    // A pair of any other family would be made, and its module loaded, before the kernel says no.
    rules.push((libc::SYS_socketpair, vec![vec![IsNot(0, LOCAL)]]));
    rules.push((libc::SYS_sendto, vec![vec![Has(3, MSG_FASTOPEN)]]));
    rules.push((libc::SYS_sendmsg, vec![vec![Has(2, MSG_FASTOPEN)]]));
    rules.push((libc::SYS_sendmmsg, vec![vec![Has(3, MSG_FASTOPEN)]]));
    rules.push((
        libc::SYS_setsockopt,
        vec![vec![Is(1, IPPROTO_TCP), Is(2, TCP_FASTOPEN_CONNECT)]],
    ));
    rules.push((
        libc::SYS_unshare,
        NAMESPACES
            .into_iter()
            .chain([CLONE_NEWTIME])
            .map(|flag| vec![Has(0, flag)])
            .collect(),
    ));
    // 0 is the ordinary personality, all ones asks for the present one.
    rules.push((
        libc::SYS_personality,
        vec![vec![IsNot(0, 0), IsNot(0, u32::MAX)]],
    ));
    rules.extend(setuid_files());
    rules.extend(INIT_IS_NOT_YOURS.iter().map(|(call, argument)| {
        let mut refused = vec![vec![Is(*argument, 1)]];
        // By user they would reach init too, which has the same one.
        match *call {
            libc::SYS_setpriority => refused.push(vec![Is(0, PRIO_USER)]),
            libc::SYS_ioprio_set => refused.push(vec![Is(0, IOPRIO_WHO_USER)]),
            _ => {}
        }
        (*call, refused)
    }));
    rules
}

/// Denied whatever their arguments.
const DENIED_EVERYWHERE: &[i64] = &[
    // Ways around every other rule.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Keyrings are not separated by namespaces.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Mounts and namespaces, but for those in `DENIED_TO_COMMANDS`.
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_fspick,
    SYS_OPEN_TREE_ATTR,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // Files by handle go around paths.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Calls that make a jail, denied to the command in it.
fn denied_to_commands() -> Vec<Rule> {
    let mut rules: Vec<Rule> = DENIED_TO_COMMANDS.iter().copied().map(always).collect();
    rules.push((
        libc::SYS_clone,
        NAMESPACES.map(|flag| vec![Has(0, flag)]).to_vec(),
    ));
    rules
}

const DENIED_TO_COMMANDS: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_sethostname,
];

/// Calls on another process, with the argument that names it. Init has the same user, so the kernel would let the jail starve it.
const INIT_IS_NOT_YOURS: &[(i64, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_migrate_pages, 0),
    (libc::SYS_move_pages, 0),
];

const PRIO_USER: u32 = 2;
const IOPRIO_WHO_USER: u32 = 3;
const SYS_OPEN_TREE_ATTR: i64 = 467;
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;
const TIOCCONS: u32 = 0x541D;
const TIOCSETD: u32 = 0x5423;
const MSG_FASTOPEN: u32 = 0x2000_0000;
const IPPROTO_TCP: u32 = 6;
const TCP_FASTOPEN_CONNECT: u32 = 30;
const CLONE_NEWTIME: u32 = 0x80;
/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`. `NEWTIME` shares its bit with the exit signal of
/// clone(2) and can only be asked of unshare(2) and clone3(2).
const NAMESPACES: [u32; 7] = [
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];

/// `AF_UNIX`.
const LOCAL: u32 = 1;

/// Sockets are plain TCP and UDP of the jail's own network, and local ones; no other family, kind or protocol.
fn refused_sockets() -> Vec<Vec<Condition>> {
    const IPV4: u32 = 2;
    const IPV6: u32 = 10;
    const KIND: u32 = 0xF;
    const SEQPACKET: u32 = 5;
    let mut refused = vec![
        vec![IsNot(0, LOCAL), IsNot(0, IPV4), IsNot(0, IPV6)],
        // By number: 0 is the kind's own, 6 TCP, 17 UDP. So no MPTCP, SCTP, ICMP.
        vec![IsNot(0, LOCAL), IsNot(2, 0), IsNot(2, 6), IsNot(2, 17)],
        vec![IsNot(0, LOCAL), Bits(1, KIND, SEQPACKET)],
    ];
    // The kinds that are neither stream (1), datagram (2) nor sequenced packets.
    let others = (0..=KIND).filter(|kind| ![1, 2, SEQPACKET].contains(kind));
    refused.extend(others.map(|kind| vec![Bits(1, KIND, kind)]));
    refused
}

/// Files of the workspace are files of the host: no program of the jail may leave one there that runs with its owner's rights.
fn setuid_files() -> Vec<Rule> {
    const SET_USER: u32 = 0o4000;
    const SET_GROUP: u32 = 0o2000;
    const CREATE: u32 = 0o100;
    const TEMPORARY: u32 = 0o20_000_000;
    let mode = |argument: u8| {
        vec![
            vec![Has(argument, SET_USER)],
            vec![Has(argument, SET_GROUP)],
        ]
    };
    let opened = |flags: u8| {
        [CREATE, TEMPORARY]
            .into_iter()
            .flat_map(|create| {
                [SET_USER, SET_GROUP].map(|bit| vec![Has(flags, create), Has(flags + 1, bit)])
            })
            .collect::<Vec<_>>()
    };
    vec![
        (libc::SYS_fchmod, mode(1)),
        (libc::SYS_fchmodat, mode(2)),
        (libc::SYS_fchmodat2, mode(2)),
        (libc::SYS_mknodat, mode(2)),
        (libc::SYS_openat, opened(2)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_chmod, mode(1)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_creat, mode(1)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_mknod, mode(1)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, opened(1)),
    ]
}

fn always(call: i64) -> Rule {
    (call, Vec::new())
}

fn compile(rules: &[Rule], errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut compiled = BTreeMap::new();
    for (call, alternatives) in rules {
        let alternatives = alternatives
            .iter()
            .map(|conditions| {
                let conditions = conditions
                    .iter()
                    .map(Condition::compile)
                    .collect::<Result<_, _>>()?;
                SeccompRule::new(conditions)
            })
            .collect::<Result<Vec<_>, _>>()?;
        compiled.insert(*call, alternatives);
    }
    SeccompFilter::new(
        compiled,
        SeccompAction::Allow,
        SeccompAction::Errno(errno.cast_unsigned()),
        ARCHITECTURE,
    )?
    .try_into()
}

impl Condition {
    fn compile(&self) -> Result<SeccompCondition, seccompiler::BackendError> {
        let (argument, operator, value) = match *self {
            Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
            IsNot(argument, value) => (argument, SeccompCmpOp::Ne, value),
            Has(argument, bits) => (argument, SeccompCmpOp::MaskedEq(bits.into()), bits),
            Bits(argument, mask, value) => (argument, SeccompCmpOp::MaskedEq(mask.into()), value),
        };
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
    }
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// Answers calls of the x32 convention as unknown: they carry numbers of their own, which the other filters do not know. Calls of
/// another architecture (`int 0x80`) kill the process in the filters that follow.
fn calling_convention_guard() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7FFF_0000;
    const ERRNO: u32 = 0x0005_0000;
    const X32_BIT: u32 = 0x4000_0000;
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        instruction(LOAD_WORD, 0, 0, 0),
        instruction(JUMP_IF_GREATER_OR_EQUAL, 0, 1, X32_BIT),
        instruction(RETURN, 0, 0, ERRNO | libc::ENOSYS.cast_unsigned()),
        instruction(RETURN, 0, 0, ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_system_call_stands_in_two_rules_where_the_later_would_replace_the_earlier() {
        let rules = [unknown_calls(), denied_everywhere(), denied_to_commands()].concat();
        let mut calls: Vec<i64> = rules.iter().map(|(call, _)| *call).collect();
        calls.sort_unstable();
        let all = calls.len();
        calls.dedup();
        assert_eq!(calls.len(), all);
    }

    #[test]
    fn a_call_with_the_x32_bit_is_answered_as_unknown() {
        // A guard that only loads, compares and returns can be followed by hand.
        let verdict = |number: u32| {
            let program = calling_convention_guard();
            let (mut at, mut loaded) = (0, 0);
            loop {
                let instruction = &program[at];
                at += 1;
                match instruction.code {
                    0x20 if instruction.k == 0 => loaded = number,
                    0x35 if loaded >= instruction.k => at += usize::from(instruction.jt),
                    0x35 => at += usize::from(instruction.jf),
                    0x06 => return instruction.k,
                    other => panic!("instruction {other:#x}"),
                }
            }
        };
        let (unknown, allowed) = (0x0005_0000 | libc::ENOSYS.cast_unsigned(), 0x7FFF_0000);
        for number in [0, 39, 467, 0x3FFF_FFFF] {
            assert_eq!(verdict(number), allowed, "{number:#x}");
        }
        for number in [0x4000_0000, 0x4000_0027, u32::MAX] {
            assert_eq!(verdict(number), unknown, "{number:#x}");
        }
    }

    #[test]
    fn the_filters_compile_and_stay_small() -> anyhow::Result<()> {
        let filters = Filters::compile()?;
        let instructions = |programs: &[BpfProgram]| programs.iter().map(Vec::len).sum::<usize>();
        let (once, each) = (
            instructions(&filters.everywhere),
            instructions(&filters.commands),
        );
        assert!(once < 1500, "{once} instructions in the launcher");
        assert!(each < 150, "{each} instructions in each jail");
        Ok(())
    }
}
