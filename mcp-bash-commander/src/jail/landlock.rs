//! The second wall around files, and the first around TCP: Landlock rules that say the same as the mounts.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use rustix::io::Errno;

use super::child::Failure;
use super::order::{Order, Surroundings, WorkspaceOrder};
use super::{Access, Layer, Network, hosted, root, sys};

/// The oldest version with both scopes; its rights were all tried.
const NEEDED: ABI = ABI::V6;
pub(super) const NEEDED_NUMBER: u32 = 6;

/// The rules of a jail, to be applied by each of its commands.
pub(super) struct Rules(OwnedFd);

impl Rules {
    /// Restricts this thread, and what it executes. `no_new_privs` must be set.
    pub(super) fn restrict(&self) -> Result<(), Failure> {
        sys::landlock_restrict(&self.0)
            .map_err(|errno| Failure::new(Layer::Landlock, errno, "restrict".to_owned()))
    }
}

/// The grants of `order` as rules. The private root must be in place.
pub(super) fn rules(order: &Order, kernel_abi: u32) -> Result<Rules, Failure> {
    let failed = |what: String| Failure::new(Layer::Landlock, Errno::INVAL, what);
    if kernel_abi < NEEDED_NUMBER {
        return Err(Failure::new(
            Layer::Landlock,
            Errno::NOSYS,
            format!("the kernel has ABI {kernel_abi}, {NEEDED_NUMBER} is needed"),
        ));
    }
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))
        .and_then(|ruleset| match order.network {
            Network::None => ruleset.handle_access(AccessNet::from_all(NEEDED)),
            // What there is to reach, the network namespace or the host decides.
            Network::Loopback | Network::Proxy | Network::Host => Ok(ruleset),
        })
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEEDED)))
        .and_then(Ruleset::create)
        .map_err(|error| failed(error.to_string()))?;
    for (path, rights) in grants(order) {
        let parent = PathFd::new(&path).map_err(|error| failed(error.to_string()))?;
        let is_directory = path.is_dir();
        let rights = if is_directory {
            rights
        } else {
            rights & AccessFs::from_file(NEEDED)
        };
        ruleset = ruleset
            .add_rule(PathBeneath::new(parent, rights))
            .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    }
    let judged_ports: &[u16] = match order.network {
        Network::None => &order.published,
        Network::Loopback | Network::Proxy | Network::Host => &[],
    };
    for port in judged_ports {
        ruleset = ruleset
            .add_rule(NetPort::new(*port, AccessNet::BindTcp))
            .map_err(|error| failed(format!("port {port}: {error}")))?;
    }
    Option::<OwnedFd>::from(ruleset)
        .map(Rules)
        .ok_or_else(|| failed("the kernel gave no ruleset".to_owned()))
}

/// What may be done below which path; rights of parents and children add up.
fn grants(order: &Order) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
    let look = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = look | AccessFs::Execute;
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock;
    let change = AccessFs::from_all(NEEDED) & !devices & !AccessFs::IoctlDev;
    let use_device = look | AccessFs::WriteFile | AccessFs::IoctlDev;
    // A socket in the workspace could lure a program of the host.
    let change_host = change & !AccessFs::MakeSock;
    // Rights add up from above: what /tmp may do, a workspace below it may too.
    let in_tmp = |workspace: &WorkspaceOrder| workspace.target.starts_with("/tmp");
    let below_tmp = if order.workspace.as_ref().is_some_and(in_tmp) {
        change_host
    } else {
        change
    };
    let toolchain = order.read_only.iter().map(|path| (path.clone(), run));
    let mut grants: Vec<(PathBuf, BitFlags<AccessFs>)> = match &order.surroundings {
        Surroundings::Own => [
            ("/", AccessFs::ReadDir.into()),
            ("/etc", look),
            ("/proc", look),
            ("/dev", use_device),
            ("/tmp", below_tmp),
        ]
        .map(|(path, rights)| (path.into(), rights))
        .into_iter()
        .chain(toolchain)
        .collect(),
        // All that the image holds is there to be used.
        Surroundings::Container { .. } => [("/", run), ("/dev", use_device), ("/tmp", below_tmp)]
            .map(|(path, rights)| (path.into(), rights))
            .to_vec(),
        // Without a root of its own, only what a program needs.
        Surroundings::Host { tmp } => {
            let settings = hosted::settings(order.network).into_iter();
            let devices = root::DEVICES.map(|name| (Path::new("/dev").join(name), use_device));
            let own = [("/proc".into(), look), (tmp.clone(), change_host)];
            let settings = settings.map(|path| (path, look));
            settings
                .chain(devices)
                .chain(own)
                .chain(toolchain)
                .collect()
        }
    };
    grants.extend(order.workspace.iter().map(|workspace| {
        let rights = match workspace.access {
            Access::ReadOnly => run,
            Access::ReadWrite => change_host,
        };
        (workspace.target.clone(), rights)
    }));
    grants
}
