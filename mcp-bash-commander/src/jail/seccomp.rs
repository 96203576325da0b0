//! The stacked system-call filters: a guard of the calling convention, calls answered as unknown, calls denied.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use seccompiler::BpfProgram;

use super::Network;
use super::filter::{self, Condition, FAIL_WITH, TELL, Treatment};
use super::order::{Order, Surroundings};
use super::sys;

/// The filters of all jails, compiled once.
///
/// The guard of the calling convention is applied to the launcher, and every jail inherits it. All denials stand in one filter, since
/// the kernel lets a process have one listener only; each init applies it when the jail stands, and its commands inherit it.
#[derive(Debug)]
pub(super) struct Filters {
    guard: BpfProgram,
    guard_applied: bool,
    /// The denials, answered with an error by the kernel itself.
    silent: BpfProgram,
    /// The same, each told to a listener, which answers.
    reported: BpfProgram,
    /// The same, with every look at a file told too.
    observing: BpfProgram,
}

impl Filters {
    pub(super) fn compile() -> Self {
        let mut observed = treatments(denied(), TELL);
        observed.extend(LOOKS.map(|call| (number(call), Treatment::Always(TELL))));
        Self {
            guard: filter::calling_convention_guard(),
            guard_applied: false,
            silent: filter::program(ARCHITECTURE, &treatments(denied(), SILENTLY)),
            reported: filter::program(ARCHITECTURE, &treatments(denied(), TELL)),
            observing: filter::program(ARCHITECTURE, &observed),
        }
    }

    /// Applies to this process what all its jails inherit. Where that fails, each jail tries again and says that it cannot.
    pub(super) fn confine_launcher(&mut self) {
        self.guard_applied = seccompiler::apply_filter(&self.guard).is_ok();
    }

    /// Applies to this thread all filters that it has not inherited; `no_new_privs` must be set. Returns the listener that is told of
    /// each denial and must answer it, unless somebody around the jail has one already.
    pub(super) fn confine(&self, order: &Order) -> Result<Option<OwnedFd>, seccompiler::Error> {
        if !self.guard_applied {
            seccompiler::apply_filter(&self.guard)?;
        }
        let on_host =
            if let Surroundings::Host { .. } = order.surroundings {
                let rules = denied_on_host(order);
                Some([TELL, SILENTLY].map(|verdict| {
                    filter::program(ARCHITECTURE, &treatments(rules.clone(), verdict))
                }))
            } else {
                None
            };
        let (told, silent) = match &on_host {
            Some([told, silent]) => (told, silent),
            None if order.observed => (&self.observing, &self.silent),
            None => (&self.reported, &self.silent),
        };
        match sys::apply_reporting_filter(told) {
            Ok(listener) => Ok(Some(listener)),
            Err(_) => seccompiler::apply_filter(silent).map(|()| None),
        }
    }
}

/// The verdict on a denied call that nobody is told of.
const SILENTLY: u32 = FAIL_WITH | libc::EPERM.cast_unsigned();

/// A system call and the alternatives of arguments that make it match; none of them: it always matches.
type Rule = (i64, Vec<Vec<Condition>>);

use Condition::{Any, Bits, BitsNot, Has, Is, IsNot};

/// Calls that a program must take for missing, so that it falls back to one the filters can judge: their flags stand in memory, where
/// a filter cannot look.
const UNKNOWN_CALLS: [i64; 2] = [libc::SYS_clone3, libc::SYS_openat2];

/// Calls no jailed program may make, and that init never makes once the jail stands: it would wait for its own answer.
fn denied() -> Vec<Rule> {
    // Of other processes only init could be reached.
    denied_with(refused_sockets(), |argument| vec![Is(argument, 1)])
}

/// The same for a jail that shares the host's processes, network and file system.
fn denied_on_host(order: &Order) -> Vec<Rule> {
    const IPV4: u32 = 2;
    const KIND: u32 = 0xF;
    const STREAM: u32 = 1;
    const DATAGRAM: u32 = 2;
    let sockets = match order.network {
        // A local socket could reach any of the host's by its path.
        Network::Host => [vec![vec![Is(0, LOCAL)]], refused_sockets()].concat(),
        // Landlock says which ports may be bound and that none is connected to; of other kinds of sockets it knows nothing.
        _ if !order.published.is_empty() => vec![
            vec![IsNot(0, IPV4)],
            vec![BitsNot(1, KIND, STREAM)],
            vec![IsNot(2, 0), IsNot(2, IPPROTO_TCP)],
        ],
        _ => Vec::new(),
    };
    let mut rules = denied_with(sockets, |argument| vec![IsNot(argument, 0)]);
    // One of a pair of datagram sockets reaches any other of the host's by its path.
    let pairs = [vec![IsNot(0, LOCAL)], vec![Bits(1, KIND, DATAGRAM)]];
    for (call, alternatives) in &mut rules {
        if *call == libc::SYS_socketpair {
            *alternatives = pairs.to_vec();
        }
    }
    rules.extend(SHARED_WITH_HOST.iter().map(|(_, call)| always(*call)));
    rules
}

fn denied_with(sockets: Vec<Vec<Condition>>, of_another: fn(u8) -> Vec<Condition>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = DENIED.iter().map(|(_, call)| always(*call)).collect();
    rules.push((
        libc::SYS_ioctl,
        [TIOCSTI, TIOCLINUX, TIOCSETD, TIOCCONS]
            .map(|request| vec![Is(1, request)])
            .to_vec(),
    ));
    rules.push((libc::SYS_socket, sockets));
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
        vec![vec![Any(0, NAMESPACES | CLONE_NEWTIME)]],
    ));
    // 0 is the ordinary personality, all ones asks for the present one.
    rules.push((
        libc::SYS_personality,
        vec![vec![IsNot(0, 0), IsNot(0, u32::MAX)]],
    ));
    rules.extend(setuid_files());
    rules.extend(INIT_IS_NOT_YOURS.iter().map(|((_, call), argument)| {
        let mut refused = vec![of_another(*argument)];
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

/// A system call: its name and its number.
type Call = (&'static str, i64);

/// `call!(SYS_mount)` is `("mount", libc::SYS_mount)`; the prefix is taken off where the name is shown.
macro_rules! call {
    ($number:ident) => {
        (stringify!($number), libc::$number)
    };
}

/// Denied whatever their arguments.
const DENIED: &[Call] = &[
    // Ways around every other rule.
    call!(SYS_io_uring_setup),
    call!(SYS_io_uring_enter),
    call!(SYS_io_uring_register),
    call!(SYS_bpf),
    call!(SYS_perf_event_open),
    call!(SYS_userfaultfd),
    call!(SYS_fanotify_init),
    // Other processes' memory and descriptors.
    call!(SYS_ptrace),
    call!(SYS_process_vm_readv),
    call!(SYS_process_vm_writev),
    call!(SYS_process_madvise),
    call!(SYS_pidfd_getfd),
    call!(SYS_kcmp),
    // Keyrings are not separated by namespaces.
    call!(SYS_keyctl),
    call!(SYS_add_key),
    call!(SYS_request_key),
    // Mounts and namespaces, but for those in `MAKING_OF_JAILS`.
    call!(SYS_chroot),
    call!(SYS_setns),
    call!(SYS_fspick),
    ("open_tree_attr", SYS_OPEN_TREE_ATTR),
    call!(SYS_quotactl),
    call!(SYS_quotactl_fd),
    // Files by handle go around paths.
    call!(SYS_name_to_handle_at),
    call!(SYS_open_by_handle_at),
    // The machine.
    call!(SYS_kexec_load),
    call!(SYS_kexec_file_load),
    call!(SYS_init_module),
    call!(SYS_finit_module),
    call!(SYS_delete_module),
    call!(SYS_reboot),
    call!(SYS_swapon),
    call!(SYS_swapoff),
    call!(SYS_acct),
    call!(SYS_syslog),
    call!(SYS_vhangup),
    call!(SYS_settimeofday),
    call!(SYS_clock_settime),
    call!(SYS_clock_adjtime),
    call!(SYS_adjtimex),
    call!(SYS_setdomainname),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_iopl),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_ioperm),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_modify_ldt),
];

/// Objects that outlive their processes and that every process of the same user and IPC namespace reaches.
const SHARED_WITH_HOST: &[Call] = &[
    call!(SYS_shmget),
    call!(SYS_shmat),
    call!(SYS_shmctl),
    call!(SYS_semget),
    call!(SYS_semop),
    call!(SYS_semtimedop),
    call!(SYS_semctl),
    call!(SYS_msgget),
    call!(SYS_msgsnd),
    call!(SYS_msgrcv),
    call!(SYS_msgctl),
    call!(SYS_mq_open),
    call!(SYS_mq_unlink),
];

/// Calls that make a jail, denied in it.
fn making_of_jails() -> Vec<Rule> {
    let mut rules: Vec<Rule> = MAKING_OF_JAILS
        .iter()
        .map(|(_, call)| always(*call))
        .collect();
    rules.push((libc::SYS_clone, vec![vec![Any(0, NAMESPACES)]]));
    rules
}

const MAKING_OF_JAILS: &[Call] = &[
    call!(SYS_mount),
    call!(SYS_umount2),
    call!(SYS_pivot_root),
    call!(SYS_open_tree),
    call!(SYS_move_mount),
    call!(SYS_fsopen),
    call!(SYS_fsconfig),
    call!(SYS_fsmount),
    call!(SYS_mount_setattr),
    call!(SYS_sethostname),
];

/// Calls on another process, with the argument that names it. Init has the same user, so the kernel would let the jail starve it.
const INIT_IS_NOT_YOURS: &[(Call, u8)] = &[
    (call!(SYS_prlimit64), 0),
    (call!(SYS_sched_setaffinity), 0),
    (call!(SYS_sched_setscheduler), 0),
    (call!(SYS_sched_setparam), 0),
    (call!(SYS_sched_setattr), 0),
    (call!(SYS_setpriority), 1),
    (call!(SYS_ioprio_set), 1),
    (call!(SYS_migrate_pages), 0),
    (call!(SYS_move_pages), 0),
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
const NAMESPACES: u32 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;

/// `AF_UNIX`.
const LOCAL: u32 = 1;

/// Sockets are plain TCP and UDP of the jail's own network, and local ones; no other family, kind or protocol.
fn refused_sockets() -> Vec<Vec<Condition>> {
    const IPV4: u32 = 2;
    const IPV6: u32 = 10;
    const KIND: u32 = 0xF;
    const STREAM: u32 = 1;
    const DATAGRAM: u32 = 2;
    const SEQPACKET: u32 = 5;
    vec![
        vec![IsNot(0, LOCAL), IsNot(0, IPV4), IsNot(0, IPV6)],
        // By number: 0 is the kind's own, 6 TCP, 17 UDP. So no MPTCP, SCTP, ICMP.
        vec![IsNot(0, LOCAL), IsNot(2, 0), IsNot(2, 6), IsNot(2, 17)],
        vec![IsNot(0, LOCAL), Bits(1, KIND, SEQPACKET)],
        vec![
            BitsNot(1, KIND, STREAM),
            BitsNot(1, KIND, DATAGRAM),
            BitsNot(1, KIND, SEQPACKET),
        ],
    ]
}

/// Files of the workspace are files of the host: no program of the jail may leave one there that runs with its owner's rights.
fn setuid_files() -> Vec<Rule> {
    const SET_USER_OR_GROUP: u32 = 0o6000;
    const CREATE: u32 = 0o100;
    const TEMPORARY: u32 = 0o20_000_000;
    let mode = |argument: u8| vec![vec![Any(argument, SET_USER_OR_GROUP)]];
    let opened = |flags: u8| {
        vec![vec![
            Any(flags, CREATE | TEMPORARY),
            Any(flags + 1, SET_USER_OR_GROUP),
        ]]
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

/// Every call that is not simply allowed, with `verdict` on those that are denied.
fn treatments(denied: Vec<Rule>, verdict: u32) -> BTreeMap<u32, Treatment> {
    let unknown = Treatment::Always(FAIL_WITH | libc::ENOSYS.cast_unsigned());
    let mut calls = BTreeMap::new();
    for call in UNKNOWN_CALLS {
        calls.insert(number(call), unknown.clone());
    }
    for (call, alternatives) in [denied, making_of_jails()].concat() {
        let treatment = if alternatives.is_empty() {
            Treatment::Always(verdict)
        } else {
            Treatment::If(verdict, alternatives)
        };
        calls.insert(number(call), treatment);
    }
    calls
}

fn number(call: i64) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// `AUDIT_ARCH_X86_64`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
/// `AUDIT_ARCH_AARCH64`.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// Calls that look for a file by its name.
const LOOKS: [i64; 6] = [
    libc::SYS_openat,
    libc::SYS_execve,
    libc::SYS_newfstatat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_statx,
];

/// Where a call that looks for a file has its name: the argument.
pub(super) fn looked_for(call: i64) -> Option<usize> {
    match call {
        libc::SYS_execve => Some(0),
        call if LOOKS.contains(&call) => Some(1),
        _ => None,
    }
}

/// Whether a call that looks for a file is to be denied all the same.
pub(super) fn makes_setuid(call: i64, flags: u64, mode: u64) -> bool {
    const CREATE: u64 = 0o100;
    const TEMPORARY: u64 = 0o20_000_000;
    call == libc::SYS_openat && flags & (CREATE | TEMPORARY) != 0 && mode & 0o6000 != 0
}

/// What a program wanted that was denied, in the words of its source: `socket(AF_NETLINK, 3, 0)`, `mount`.
pub(super) fn describe(call: i64, arguments: [u32; 3]) -> String {
    let name = name_of(call);
    let [first, second, third] = arguments;
    match call {
        libc::SYS_socket | libc::SYS_socketpair => {
            let family = FAMILIES.iter().find(|(_, number)| *number == first);
            let family = family.map_or_else(|| first.to_string(), |(name, _)| (*name).to_owned());
            format!("{name}({family}, {}, {third})", second & 0xF)
        }
        libc::SYS_ioctl => {
            let request = REQUESTS.iter().find(|(_, number)| *number == second);
            let request =
                request.map_or_else(|| format!("{second:#x}"), |(name, _)| (*name).to_owned());
            format!("{name}({first}, {request})")
        }
        libc::SYS_clone | libc::SYS_unshare | libc::SYS_personality => {
            format!("{name}({first:#x})")
        }
        _ => name,
    }
}

fn name_of(call: i64) -> String {
    let listed = DENIED
        .iter()
        .chain(MAKING_OF_JAILS)
        .chain(INIT_IS_NOT_YOURS.iter().map(|(call, _)| call))
        .chain(JUDGED)
        .find(|(_, number)| *number == call);
    listed.map_or_else(
        || format!("system call {call}"),
        |(name, _)| name.trim_start_matches("SYS_").to_owned(),
    )
}

/// The calls that are denied with some arguments only.
const JUDGED: &[Call] = &[
    call!(SYS_ioctl),
    call!(SYS_socket),
    call!(SYS_socketpair),
    call!(SYS_sendto),
    call!(SYS_sendmsg),
    call!(SYS_sendmmsg),
    call!(SYS_setsockopt),
    call!(SYS_unshare),
    call!(SYS_clone),
    call!(SYS_personality),
    call!(SYS_fchmod),
    call!(SYS_fchmodat),
    call!(SYS_fchmodat2),
    call!(SYS_mknodat),
    call!(SYS_openat),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_chmod),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_creat),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_mknod),
    #[cfg(target_arch = "x86_64")]
    call!(SYS_open),
];

const FAMILIES: [(&str, u32); 12] = [
    ("AF_UNIX", 1),
    ("AF_INET", 2),
    ("AF_INET6", 10),
    ("AF_NETLINK", 16),
    ("AF_PACKET", 17),
    ("AF_CAN", 29),
    ("AF_TIPC", 30),
    ("AF_BLUETOOTH", 31),
    ("AF_ALG", 38),
    ("AF_VSOCK", 40),
    ("AF_QIPCRTR", 42),
    ("AF_XDP", 44),
];

const REQUESTS: [(&str, u32); 4] = [
    ("TIOCSTI", TIOCSTI),
    ("TIOCLINUX", TIOCLINUX),
    ("TIOCCONS", TIOCCONS),
    ("TIOCSETD", TIOCSETD),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_system_call_stands_in_two_rules_where_the_later_would_replace_the_earlier() {
        let rules = [denied(), making_of_jails()].concat();
        let mut calls: Vec<i64> = rules
            .iter()
            .map(|(call, _)| *call)
            .chain(UNKNOWN_CALLS)
            .collect();
        calls.sort_unstable();
        let all = calls.len();
        calls.dedup();
        assert_eq!(calls.len(), all);
    }

    #[test]
    fn a_call_with_the_x32_bit_is_answered_as_unknown() {
        let verdict = |number| {
            filter::verdict(
                &filter::calling_convention_guard(),
                ARCHITECTURE,
                number,
                [0; 6],
            )
        };
        for number in [0, 39, 467, 0x3FFF_FFFF] {
            assert_eq!(verdict(number), filter::ALLOW, "{number:#x}");
        }
        for number in [0x4000_0000, 0x4000_0027, u32::MAX] {
            assert_eq!(
                verdict(number),
                FAIL_WITH | libc::ENOSYS.cast_unsigned(),
                "{number:#x}"
            );
        }
    }

    #[test]
    fn the_filter_is_short_and_ends_what_comes_from_another_architecture() {
        let filters = Filters::compile();
        assert_eq!(filters.silent.len(), filters.reported.len());
        let length = filters.reported.len();
        assert!(
            (1..200).contains(&length),
            "{length} instructions in each jail"
        );
        assert_eq!(
            filter::verdict(&filters.reported, 0x4000_0003, 20, [0; 6]),
            0x8000_0000
        );
    }

    /// The same rules compiled by the library, to hold ours against. What it has no word for is said in several.
    fn compiled_by_the_library() -> anyhow::Result<BpfProgram> {
        use seccompiler::{
            SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
            SeccompRule, TargetArch,
        };
        let condition = |condition: &Condition| {
            let (argument, operator, value) = match *condition {
                Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
                IsNot(argument, value) => (argument, SeccompCmpOp::Ne, value),
                Has(argument, bits) => (argument, SeccompCmpOp::MaskedEq(bits.into()), bits),
                Bits(argument, mask, value) | BitsNot(argument, mask, value) => {
                    (argument, SeccompCmpOp::MaskedEq(mask.into()), value)
                }
                Any(argument, _) => (argument, SeccompCmpOp::Eq, 0),
            };
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
        };
        let mut rules = BTreeMap::new();
        for (call, alternatives) in [denied(), making_of_jails()].concat() {
            let alternatives = alternatives
                .iter()
                .flat_map(|all| in_plain_words(all))
                .map(|all| SeccompRule::new(all.iter().map(condition).collect::<Result<_, _>>()?))
                .collect::<Result<Vec<_>, seccompiler::BackendError>>()?;
            rules.insert(call, alternatives);
        }
        let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        #[cfg(target_arch = "x86_64")]
        let target = TargetArch::x86_64;
        #[cfg(target_arch = "aarch64")]
        let target = TargetArch::aarch64;
        Ok(SeccompFilter::new(rules, SeccompAction::Allow, denied, target)?.try_into()?)
    }

    /// The same condition without `Any` and `BitsNot`, as alternatives.
    fn in_plain_words(all: &[Condition]) -> Vec<Vec<Condition>> {
        let mut alternatives = vec![Vec::new()];
        let mut excluded: Option<(u8, u32, Vec<u32>)> = None;
        for condition in all {
            let choices: Vec<Condition> = match *condition {
                Any(argument, bits) => (0..32)
                    .map(|bit| 1 << bit)
                    .filter(|bit| bits & bit != 0)
                    .map(|bit| Has(argument, bit))
                    .collect(),
                BitsNot(argument, mask, value) => {
                    let (_, _, values) = excluded.get_or_insert((argument, mask, Vec::new()));
                    values.push(value);
                    continue;
                }
                plain => vec![plain],
            };
            alternatives = alternatives
                .iter()
                .flat_map(|before| {
                    let with = |choice: &Condition| [&before[..], &[*choice]].concat();
                    choices.iter().map(with).collect::<Vec<_>>()
                })
                .collect();
        }
        let Some((argument, mask, values)) = excluded else {
            return alternatives;
        };
        (0..=mask)
            .filter(|value| !values.contains(value))
            .map(|value| vec![Bits(argument, mask, value)])
            .collect()
    }

    #[test]
    fn the_filter_says_the_same_as_the_librarys_of_the_same_rules() -> anyhow::Result<()> {
        let (ours, theirs) = (Filters::compile().silent, compiled_by_the_library()?);
        assert!(
            ours.len() * 3 < theirs.len() * 2,
            "{} of {}",
            ours.len(),
            theirs.len()
        );
        // Whatever values the rules name, and some beside them.
        let mut values: Vec<u64> =
            vec![0, 1, 2, 3, 6, 10, 16, 17, 100, u64::from(u32::MAX), 1 << 33];
        for (_, alternatives) in [denied(), making_of_jails()].concat() {
            for condition in alternatives.into_iter().flatten() {
                let (Is(_, value)
                | IsNot(_, value)
                | Has(_, value)
                | Any(_, value)
                | Bits(_, _, value)
                | BitsNot(_, _, value)) = condition;
                values.extend([
                    u64::from(value),
                    u64::from(value) + 1,
                    u64::from(value) | (7 << 32),
                ]);
            }
        }
        values.sort_unstable();
        values.dedup();
        let unknown = FAIL_WITH | libc::ENOSYS.cast_unsigned();
        let mut different = 0;
        for call in 0..600_u32 {
            let is_unknown = UNKNOWN_CALLS.contains(&i64::from(call));
            for (index, first) in values.iter().enumerate() {
                for shift in 0..12 {
                    let pick = |by: usize| values[(index * by + shift * 7 + by) % values.len()];
                    let arguments = [*first, pick(1), pick(3), pick(5), pick(11), 0];
                    let expected = filter::verdict(&theirs, ARCHITECTURE, call, arguments);
                    let found = filter::verdict(&ours, ARCHITECTURE, call, arguments);
                    if is_unknown {
                        assert_eq!(found, unknown);
                    } else {
                        assert_eq!(found, expected, "{call} {arguments:x?}");
                        different += usize::from(found != filter::ALLOW);
                    }
                }
            }
        }
        assert!(different > 10_000, "only {different} were denied");
        Ok(())
    }

    #[test]
    fn every_denial_has_a_name_that_a_reader_knows() {
        for (call, _) in [denied(), making_of_jails()].concat() {
            let name = describe(call, [0; 3]);
            assert!(!name.contains("system call"), "{call}");
        }
        assert_eq!(
            describe(libc::SYS_socket, [16, 3 | 0o2_000_000, 0]),
            "socket(AF_NETLINK, 3, 0)"
        );
        assert_eq!(
            describe(libc::SYS_ioctl, [0, 0x5412, 0]),
            "ioctl(0, TIOCSTI)"
        );
        assert_eq!(describe(libc::SYS_mount, [7, 7, 7]), "mount");
    }
}
