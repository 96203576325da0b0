//! What can be done around commands where a host forbids namespaces: they see the host, and the layers of a process have to hold alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::child::Failure;
use super::layer::LayerSet;
use super::order::{CommandOrder, InputOrder, Order};
use super::pinned::Watched;
use super::{Layer, Network};

/// Files of the host that everybody may read and that programs fail without when they exist, those of them that do. In a root of its own
/// the others would not be there; here they are, and closed.
pub(super) const SETTINGS: [&str; 29] = [
    "/etc/bash.bashrc",
    "/etc/bashrc",
    "/etc/debian_version",
    "/etc/gai.conf",
    "/etc/gitconfig",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/perl",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/protocols",
    "/etc/python3",
    "/etc/services",
    "/etc/shells",
    "/etc/terminfo",
    "/etc/timezone",
    "/etc/vim",
];

/// Does what needs no namespace. Whatever the order asks for that does need one refuses the jail.
pub(super) fn surround(
    order: &Order,
    tmp: &Path,
    pinned: &[OwnedFd],
    inputs: &[OwnedFd],
) -> Result<(LayerSet, Vec<Watched>), Failure> {
    let failed = |layer: Layer, what: &str| {
        let what = what.to_owned();
        move |errno| Failure::new(layer, errno, what)
    };
    refuse_what_needs_namespaces(order)?;
    let mut applied = LayerSet::default();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Whatever descends from a command and loses its parent comes to this process, which ends it with the jail.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(failed(Layer::Plumbing, "adopt orphans"))?;
    fs::DirBuilder::new()
        .mode(0o700)
        .create(tmp)
        .map_err(|error| failed(Layer::Plumbing, &tmp.display().to_string())(errno_of(&error)))?;
    let mut watched = Vec::new();
    if let (Some(workspace), Some(pinned)) = (&order.workspace, pinned.first()) {
        let root = Watched::like(workspace.target.clone(), pinned)
            .map_err(failed(Layer::Workspace, "look at the workspace"))?;
        if !root.is_intact() {
            return Err(failed(Layer::Workspace, "it is not what it was")(
                Errno::STALE,
            ));
        }
        watched.push(root);
        applied.insert(Layer::Workspace);
        for path in order.protected.iter().chain(&order.linked) {
            let path = workspace.target.join(path);
            watched.push(Watched::stamped(path.clone()).map_err(|errno| {
                Failure::new(Layer::Workspace, errno, format!("watch {}", path.display()))
            })?);
        }
    }
    for (input, sealed) in order.inputs.iter().zip(inputs) {
        let failed =
            |errno| failed(Layer::PinnedInputs, &input.target.display().to_string())(errno);
        if !has_bytes(input, sealed).map_err(|error| failed(errno_of(&error)))? {
            return Err(failed(Errno::STALE));
        }
        watched.push(Watched::stamped(input.target.clone()).map_err(failed)?);
    }
    // The bounding set and the secure bits can be changed with a capability only; `no_new_privs` stands for them.
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::clear_ambient_capability_set()
        .and_then(|()| rustix::thread::set_capabilities(None, none))
        .map_err(failed(Layer::Capabilities, "drop the capability sets"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed(Layer::NoNewPrivs, "no_new_privs"))?;
    applied.insert(Layer::NoNewPrivs);
    Ok((applied, watched))
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn refuse_what_needs_namespaces(order: &Order) -> Result<(), Failure> {
    let refused = |layer: Layer, what: String| Err(Failure::new(layer, Errno::OPNOTSUPP, what));
    if let Some(closed) = order.masked.first() {
        let what = format!("close {}, which deny_read names", closed.path.display());
        return refused(Layer::PrivateRoot, what);
    }
    if matches!(order.network, Network::Loopback | Network::Proxy) {
        let what = "a loopback interface of the jail's own".to_owned();
        return refused(Layer::NetNs, what);
    }
    match &order.workspace {
        Some(workspace) if workspace.overlay.is_some() => {
            refused(Layer::Overlay, "keep changes aside".to_owned())
        }
        Some(workspace) if workspace.target != workspace.source => {
            let what = format!("show the workspace at {}", workspace.target.display());
            refused(Layer::PrivateRoot, what)
        }
        _ => Ok(()),
    }
}

/// Whether the file in the workspace has exactly the sealed bytes.
fn has_bytes(input: &InputOrder, sealed: &OwnedFd) -> std::io::Result<bool> {
    let mut file = File::from(rustix::fs::open(
        &input.target,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    let sealed = File::from(sealed.try_clone()?);
    if !file.metadata()?.is_file() || file.metadata()?.len() != input.length {
        return Ok(false);
    }
    let (mut here, mut there) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut offset = 0;
    loop {
        let read = file.read(&mut here)?;
        if read == 0 {
            return Ok(offset == input.length);
        }
        if offset + read as u64 > input.length {
            return Ok(false);
        }
        sealed.read_exact_at(&mut there[..read], offset)?;
        if here[..read] != there[..read] {
            return Ok(false);
        }
        offset += read as u64;
    }
}

/// Puts the directory that stands for `/tmp` into a command's environment and place.
pub(super) fn take_tmp(command: &mut CommandOrder, tmp: &Path) {
    let as_variable = |name: &str| {
        let value = [name.as_bytes(), tmp.as_os_str().as_encoded_bytes()].concat();
        std::ffi::CString::new(value).ok()
    };
    let is_set = |name: &[u8]| {
        command
            .env
            .iter()
            .any(|pair| pair.as_bytes().starts_with(name))
    };
    let adds = !is_set(b"TMPDIR=");
    for pair in &mut command.env {
        if pair.as_bytes() == b"HOME=/tmp"
            && let Some(home) = as_variable("HOME=")
        {
            *pair = home;
        }
    }
    if adds {
        command.env.extend(as_variable("TMPDIR="));
    }
    if command.cwd == Path::new("/tmp") {
        tmp.clone_into(&mut command.cwd);
    }
}

/// Processes and threads of the user `uid` on this host.
pub(super) fn processes_of(uid: u32) -> u64 {
    let mut count = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_process = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_process {
            continue;
        }
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let fields: BTreeMap<&str, &str> = status
            .lines()
            .filter_map(|line| line.split_once(':'))
            .collect();
        let number = |name: &str| {
            fields
                .get(name)?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        };
        if number("Uid") == Some(u64::from(uid)) {
            count += number("Threads").unwrap_or(1);
        }
    }
    count
}

/// What of the host commands may look into, beside what the order grants.
pub(super) fn settings(network: Network) -> Vec<PathBuf> {
    let resolver = (network == Network::Host).then_some("/etc/resolv.conf");
    let paths = SETTINGS.into_iter().chain(resolver).map(PathBuf::from);
    paths.filter(|path| path.exists()).collect()
}
