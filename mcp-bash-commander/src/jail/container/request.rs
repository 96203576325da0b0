//! What the engine is asked for: everything a strict jail has that an engine can give.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount, MountBindOptions, MountType,
};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::files::Files;
use super::left::LABEL;
use super::program::Program;
use super::{ContainerSettings, failed};
use crate::jail::cgroup::OWN_MEMORY;
use crate::jail::contained::SOCKET;
use crate::jail::order::{NAMESPACES, Surroundings};
use crate::jail::owner::Owner;
use crate::jail::pinned::{Watched, require_no_link};
use crate::jail::{
    Access, JailError, JailSpec, Layer, Limits, Masked, Network, Workspace, system_toolchain,
};

/// Most bytes of a container's `/dev/shm`, which the memory limit bounds too.
const MOST_SHARED_MEMORY: u64 = 64 << 20;

/// What is asked, and what init is to find.
pub(super) struct Asked {
    pub(super) body: ContainerCreateBody,
    pub(super) surroundings: Surroundings,
}

/// The uid and gid of the container's processes: the workspace's owner, never root.
pub(super) fn user(spec: &JailSpec) -> Result<(u32, u32), JailError> {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        let user = (rustix::process::geteuid(), rustix::process::getegid());
        return Ok((user.0.as_raw(), user.1.as_raw()));
    }
    let Some(workspace) = &spec.workspace else {
        return Ok((NOBODY, NOBODY));
    };
    let owner = rustix::fs::fstat(&workspace.directory)
        .map_err(JailError::errno("look at the workspace"))?;
    if owner.st_uid != 0 {
        return Ok((owner.st_uid, owner.st_gid));
    }
    if workspace.access == Access::ReadOnly {
        return Ok((NOBODY, NOBODY));
    }
    let what = format!("{} belongs to root", workspace.source.display());
    Err(JailError::lacks(Layer::Workspace, Errno::PERM, what))
}

pub(super) fn of(
    settings: &ContainerSettings,
    spec: &JailSpec,
    files: &Files,
    program: &Program,
    owner: &Owner,
    (uid, gid): (u32, u32),
) -> Result<Asked, JailError> {
    let mut mounts = Mounts::default();
    mounts.read_only(&files.socket_folder(), parent_of_socket())?;
    for (source, target) in &program.files {
        mounts.read_only(source, target)?;
    }
    let own = system_toolchain();
    let granted = spec.read_only.iter();
    for path in granted.filter(|path| !own.iter().any(|own| path.starts_with(own))) {
        mounts.read_only(path, text(path)?)?;
    }
    if let Some(workspace) = &spec.workspace {
        mounts.workspace(workspace, spec, files)?;
    }
    let outside = NAMESPACES
        .iter()
        .map(|(name, _)| Ok(std::fs::metadata(Path::new("/proc/self/ns").join(name))?.ino()))
        .collect::<std::io::Result<Vec<u64>>>()
        .map_err(JailError::io("look at the server's namespaces"))?;
    let Mounts { list, watched } = mounts;
    let body = ContainerCreateBody {
        image: Some(settings.image.clone()),
        entrypoint: Some(program.command.clone()),
        cmd: Some(Vec::new()),
        user: Some(format!("{uid}:{gid}")),
        hostname: (spec.network != Network::Host).then(|| "jail".to_owned()),
        working_dir: Some("/".to_owned()),
        labels: Some(HashMap::from([(LABEL.to_owned(), owner.to_string())])),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(HostConfig {
            mounts: Some(list),
            runtime: settings.runtime.clone(),
            ..hardened(&spec.limits, spec.network, (uid, gid))
        }),
        ..ContainerCreateBody::default()
    };
    Ok(Asked {
        body,
        surroundings: Surroundings::Container { outside, watched },
    })
}

fn hardened(limits: &Limits, network: Network, (uid, gid): (u32, u32)) -> HostConfig {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let has_own_network = network != Network::Host;
    let tmp = format!(
        // By its owner it can be written, whatever mode runtimes take over from the image's own folder.
        "rw,nosuid,nodev,exec,mode=1777,uid={uid},gid={gid},size={},nr_inodes={}",
        limits.tmp_bytes.max(4096),
        (limits.tmp_bytes / 4096).clamp(64, 1 << 20)
    );
    HostConfig {
        auto_remove: Some(true),
        network_mode: Some(if has_own_network { "none" } else { "host" }.to_owned()),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        // Init is one more.
        pids_limit: Some(signed(limits.processes.saturating_add(1))),
        memory: Some(signed(limits.memory_bytes.saturating_add(OWN_MEMORY))),
        // The sum of memory and swap: no swap.
        memory_swap: Some(signed(limits.memory_bytes.saturating_add(OWN_MEMORY))),
        shm_size: Some(signed(limits.tmp_bytes.clamp(4096, MOST_SHARED_MEMORY))),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), tmp)])),
        // Which ports may be bound at all, the jail's own rules say.
        sysctls: has_own_network.then(|| {
            let lowest = "net.ipv4.ip_unprivileged_port_start".to_owned();
            HashMap::from([(lowest, "0".to_owned())])
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        ..HostConfig::default()
    }
}

fn parent_of_socket() -> &'static str {
    SOCKET.rsplit_once('/').map_or("/", |(parent, _)| parent)
}

/// Mounts of the host's files, and what must stand in them. The engine takes paths, which somebody could turn meanwhile: init compares
/// what it finds with what was opened here, which is never a link, for the engine would follow it.
#[derive(Default)]
struct Mounts {
    list: Vec<Mount>,
    watched: Vec<Watched>,
}

impl Mounts {
    fn read_only(&mut self, source: &Path, target: &str) -> Result<(), JailError> {
        self.mount(source, target, true)
    }

    fn mount(&mut self, source: &Path, target: &str, read_only: bool) -> Result<(), JailError> {
        self.list.push(Mount {
            typ: Some(MountType::BIND),
            source: Some(text(source)?.to_owned()),
            target: Some(target.to_owned()),
            read_only: Some(read_only),
            bind_options: Some(MountBindOptions {
                non_recursive: Some(true),
                ..MountBindOptions::default()
            }),
            ..Mount::default()
        });
        Ok(())
    }

    /// Mounts `source` at `target`, where what is `opened` must be found.
    fn guarded(
        &mut self,
        source: &Path,
        target: &Path,
        opened: impl AsFd,
        read_only: bool,
    ) -> Result<(), JailError> {
        require_no_link(&opened).map_err(|errno| refused(target, errno))?;
        self.mount(source, text(target)?, read_only)?;
        let watched = Watched::like(target.to_owned(), opened)
            .map_err(JailError::errno("look at the workspace"))?;
        self.watched.push(watched);
        Ok(())
    }

    fn workspace(
        &mut self,
        workspace: &Workspace,
        spec: &JailSpec,
        files: &Files,
    ) -> Result<(), JailError> {
        let is_read_only = workspace.access == Access::ReadOnly;
        self.guarded(
            &workspace.source,
            &workspace.target,
            &workspace.directory,
            is_read_only,
        )?;
        let masked = spec.masked.iter().map(|masked| masked.path.as_path());
        let inputs = spec
            .inputs
            .iter()
            .filter_map(|input| input.target.strip_prefix(&workspace.target).ok());
        let guarded = masked
            .chain(inputs)
            .chain(spec.protected.iter().map(PathBuf::as_path))
            .chain(spec.linked.iter().map(PathBuf::as_path));
        // A directory above one of these could be moved away, were it no mount.
        let mut above: Vec<&Path> = guarded.flat_map(|path| path.ancestors().skip(1)).collect();
        above.retain(|path| !path.as_os_str().is_empty());
        above.sort_unstable();
        above.dedup();
        for path in above {
            if let Some(opened) = open(workspace, path)? {
                let (source, target) = places(workspace, path);
                self.guarded(&source, &target, opened, is_read_only)?;
            }
        }
        for Masked { path, is_directory } in &spec.masked {
            if open(workspace, path)?.is_some() {
                let nothing = if *is_directory {
                    files.empty_folder()
                } else {
                    files.empty_file()
                };
                let opened = pin(&nothing)?;
                self.guarded(&nothing, &workspace.target.join(path), opened, true)?;
            }
        }
        for path in spec.protected.iter().chain(&spec.linked) {
            let (source, target) = places(workspace, path);
            match open(workspace, path)? {
                Some(opened) => self.guarded(&source, &target, opened, true)?,
                None => self.watched.push(Watched::absent(target)),
            }
        }
        for (number, input) in spec.inputs.iter().enumerate() {
            let inside = input.target.strip_prefix(&workspace.target);
            let place = match inside.map(|inside| open(workspace, inside)) {
                Ok(opened) => opened?,
                Err(_) => None,
            };
            let place = place.ok_or_else(|| refused(&input.target, Errno::NOENT))?;
            let stat = rustix::fs::fstat(&place).map_err(|errno| refused(&input.target, errno))?;
            let copy = files
                .input(number, input, stat.st_mode & 0o111 != 0)
                .map_err(JailError::io("copy a pinned input"))?;
            let opened = pin(&copy)?;
            self.guarded(&copy, &input.target, opened, true)?;
        }
        Ok(())
    }
}

fn places(workspace: &Workspace, inside: &Path) -> (PathBuf, PathBuf) {
    (workspace.source.join(inside), workspace.target.join(inside))
}

/// What stands at `inside` of the workspace, if there is something; never through a link.
fn open(workspace: &Workspace, inside: &Path) -> Result<Option<OwnedFd>, JailError> {
    let opened = rustix::fs::openat2(
        &workspace.directory,
        inside,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    );
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(refused(inside, errno)),
    }
}

fn pin(path: &Path) -> Result<OwnedFd, JailError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(JailError::errno("open the files of a container"))
}

fn refused(path: &Path, errno: Errno) -> JailError {
    JailError::lacks(Layer::Workspace, errno, format!("guard {}", path.display()))
}

/// The path as the engine's interface can carry it.
fn text(path: &Path) -> Result<&str, JailError> {
    path.to_str().ok_or_else(|| {
        failed(format!(
            "{} is not UTF-8, which an engine needs",
            path.display()
        ))
    })
}
