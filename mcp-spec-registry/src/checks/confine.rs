//! How the measuring process shuts itself in: nothing to write, no privileges to gain, no files, only the ports of its round.

use landlock::{
    ABI, Access, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
};
use rustix::process::{Resource, Rlimit, Signal};

use super::job::Confinement;

/// Open files: the three standard ones, one connection, and what resolving a name needs.
const MOST_OPEN_FILES: u64 = 32;
/// Processor time, in seconds, for a whole round of tests.
const MOST_CPU_SECONDS: u64 = 600;
/// Address space; a body of 4 MiB and its text are far below.
const MOST_MEMORY_BYTES: u64 = 1024 * 1024 * 1024;

/// The limits that need no knowledge of the round; dies with the parent.
pub(super) fn limit() -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    for (resource, most) in [
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Nofile, MOST_OPEN_FILES),
        (Resource::Cpu, MOST_CPU_SECONDS),
        (Resource::As, MOST_MEMORY_BYTES),
    ] {
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: Some(most),
                maximum: Some(most),
            },
        )?;
    }
    Ok(())
}

/// Gives up the file system and every port but these, as far as the kernel can enforce it.
pub(super) fn shut_in(ports: impl Iterator<Item = u16>) -> anyhow::Result<Confinement> {
    let abi = ABI::V5;
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .create()?;
    for port in ports {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    let landlock = match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => "enforced",
        RulesetStatus::PartiallyEnforced => "partly",
        RulesetStatus::NotEnforced => "unavailable",
    };
    Ok(Confinement {
        landlock: landlock.to_owned(),
        limited: true,
    })
}
