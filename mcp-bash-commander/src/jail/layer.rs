//! The layers of a strict jail, by name, and what to do where a host lacks one.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use super::Mode;

/// One step of making a jail. All of them but [`Layer::Cgroup`] succeed, or the command does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Layer {
    /// A user namespace, mapped to one kernel uid that is not 0.
    UserNs,
    /// A mount namespace of its own.
    MntNs,
    /// A process-id namespace with our init as process 1.
    PidNs,
    /// System V and POSIX message queues, shared memory and semaphores of its own.
    IpcNs,
    /// A host name of its own.
    UtsNs,
    /// A network with nothing but a loopback interface.
    NetNs,
    /// A cgroup view of its own.
    CgroupNs,
    /// A control group that bounds memory and processes of the whole jail. Not every host lets a server make one; the command starts
    /// without it unless [`Limits::require_cgroup`](super::Limits::require_cgroup) asks for it.
    Cgroup,
    /// A root of its own: toolchain read-only, private `/tmp`, minimal `/dev`, fresh `/proc`.
    PrivateRoot,
    /// The workspace, without setuid and devices; for a root server through an id-mapped mount.
    Workspace,
    /// Every change of the workspace is kept aside.
    Overlay,
    /// Read-only files with exactly the bytes that were hashed.
    PinnedInputs,
    /// Resource limits.
    Limits,
    /// Every capability set empty, the bounding set too, secure bits locked.
    Capabilities,
    /// `no_new_privs`.
    NoNewPrivs,
    /// Landlock rules equal to the mounts, scoped signals and abstract sockets, TCP only on published ports.
    Landlock,
    /// System-call filters.
    Seccomp,
    /// Each denied system call is told; without it they are denied all the same.
    DenialReports,
    /// Not a layer: descriptors, session and reporting between the processes of the jail.
    Plumbing,
    /// Not a layer: entering the working directory.
    WorkingDirectory,
    /// Not a layer: starting the program.
    Program,
}

impl Layer {
    /// Every layer a strict jail has; the steps that are none are left out.
    pub const STRICT: [Self; 18] = [
        Self::UserNs,
        Self::MntNs,
        Self::PidNs,
        Self::IpcNs,
        Self::UtsNs,
        Self::NetNs,
        Self::CgroupNs,
        Self::Cgroup,
        Self::PrivateRoot,
        Self::Workspace,
        Self::Overlay,
        Self::PinnedInputs,
        Self::Limits,
        Self::Capabilities,
        Self::NoNewPrivs,
        Self::Landlock,
        Self::Seccomp,
        Self::DenialReports,
    ];

    /// The name in results, logs and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserNs => "user_ns",
            Self::MntNs => "mnt_ns",
            Self::PidNs => "pid_ns",
            Self::IpcNs => "ipc_ns",
            Self::UtsNs => "uts_ns",
            Self::NetNs => "net_ns",
            Self::CgroupNs => "cgroup_ns",
            Self::Cgroup => "cgroup",
            Self::PrivateRoot => "private_root",
            Self::Workspace => "workspace",
            Self::Overlay => "overlay",
            Self::PinnedInputs => "pinned_inputs",
            Self::Limits => "limits",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivs => "no_new_privs",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::DenialReports => "denial_reports",
            Self::Plumbing => "plumbing",
            Self::WorkingDirectory => "working_directory",
            Self::Program => "program",
        }
    }

    pub(super) fn from_code(code: u8) -> Self {
        Self::STRICT
            .into_iter()
            .chain([Self::WorkingDirectory, Self::Program])
            .find(|layer| *layer as u8 == code)
            .unwrap_or(Self::Plumbing)
    }

    /// Does a failure with `errno` mean that this host forbids the namespaces of a strict jail?
    pub(super) fn is_forbidden_by(self, errno: i32) -> bool {
        match self {
            Self::UserNs => matches!(
                errno,
                libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EINVAL | libc::ENOSYS
            ),
            Self::MntNs
            | Self::PidNs
            | Self::IpcNs
            | Self::UtsNs
            | Self::NetNs
            | Self::CgroupNs
            | Self::PrivateRoot
            | Self::Capabilities => matches!(errno, libc::EPERM | libc::EACCES),
            _ => false,
        }
    }

    /// What an operator can do where this layer fails with `errno`.
    pub fn hint(self, errno: i32) -> String {
        match (self, errno) {
            (Self::UserNs, libc::ENOSPC) => {
                "raise the limit of user namespaces: `sysctl -w user.max_user_namespaces=15000`".to_owned()
            }
            (Self::UserNs, libc::EINVAL) => {
                "the kernel lacks user namespaces (CONFIG_USER_NS): use a distribution's kernel".to_owned()
            }
            // AppArmor lets the namespaces be made, and then refuses every right inside them.
            (Self::UserNs, _)
            | (Self::UtsNs | Self::NetNs | Self::Capabilities, libc::EPERM | libc::EACCES) => {
                USER_NAMESPACE_HINT.to_owned()
            }
            (Self::MntNs | Self::PrivateRoot, libc::EPERM | libc::EACCES) => format!(
                "inside a container /proc must not be masked (Docker: `--security-opt systempaths=unconfined`); \
                 on Ubuntu 24.04 and later: {USER_NAMESPACE_HINT}"
            ),
            (Self::PrivateRoot, libc::ENOENT) => {
                "name only paths that exist on this host as read-only toolchain".to_owned()
            }
            (Self::Workspace, libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS) => {
                "the workspace's file system cannot be id-mapped: run the server as the workspace's owner instead of \
                 root, or move the workspace to ext4, XFS or Btrfs"
                    .to_owned()
            }
            (Self::Workspace, libc::ESTALE) => {
                "it was replaced since it was looked at: the session has ended, begin a new one; if that fails too, start the server again".to_owned()
            }
            (Self::Workspace, libc::ELOOP) => {
                "a protected path is a symbolic link, which could be turned: put a file or folder in its place, or take it out of \
                 workspace.protect"
                    .to_owned()
            }
            (Self::Workspace, _) => {
                "an ordinary user must own the workspace (chown -R), and the server's user be able to reach it".to_owned()
            }
            (Self::Landlock, _) => {
                "Landlock with ABI 6 or newer is needed: Linux 6.12 or newer, with `landlock` in the boot \
                 parameter `lsm=`"
                    .to_owned()
            }
            (Self::Cgroup, _) => CGROUP_HINT.to_owned(),
            (Self::Seccomp, _) => {
                "the kernel must have CONFIG_SECCOMP_FILTER, and an outer container must allow seccomp(2)".to_owned()
            }
            (Self::Limits, _) => {
                "a limit is above the hard limit of the server: raise that, or lower the policy's".to_owned()
            }
            (Self::Overlay | Self::PrivateRoot | Self::NetNs, libc::EOPNOTSUPP) => {
                "only a jail of mode `strict` has that; leave it out of the call, or see `doctor` for what this host lacks".to_owned()
            }
            (Self::Overlay, _) => {
                "the state directory must lie on a file system that an overlay can keep changes on (ext4, XFS, Btrfs, tmpfs; no \
                 overlay, NFS or FUSE), and the kernel must allow overlays in user namespaces (Linux 5.11)"
                    .to_owned()
            }
            (Self::PinnedInputs, _) => {
                "a pinned input must be a regular file of the workspace, reached without symbolic links".to_owned()
            }
            _ => "run `mcp-bash-commander doctor`; it tries each layer and names what is missing".to_owned(),
        }
    }
}

/// How unprivileged user namespaces are allowed where a host forbids them.
pub(super) const USER_NAMESPACE_HINT: &str = "allow this program user namespaces: install the AppArmor profile \
    `mcp-bash-commander/apparmor/mcp-bash-commander` (copy it to /etc/apparmor.d and run `apparmor_parser -r` on it), or \
    `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`; on older Debian \
    `sysctl -w kernel.unprivileged_userns_clone=1`; in a container allow clone(CLONE_NEWUSER) in its seccomp profile";

const CGROUP_HINT: &str = "give the server a control group of its own: `Delegate=yes` in its systemd unit, or start it by \
    `systemd-run --user --scope -p Delegate=yes mcp-bash-commander \u{2026}`; in a container mount /sys/fs/cgroup writable. Where the \
    policy does not say `require_cgroup = true` under `[limits]`, commands run without one";

impl fmt::Display for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Which of the kernel's two kinds of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CgroupVersion {
    V1,
    V2,
}

/// Some of the layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LayerSet(pub(super) u32);

impl LayerSet {
    pub(super) fn insert(&mut self, layer: Layer) {
        self.0 |= 1 << layer as u8;
    }

    pub(super) fn remove(&mut self, layer: Layer) {
        self.0 &= !(1 << layer as u8);
    }

    pub(super) fn contains(self, layer: Layer) -> bool {
        self.0 & (1 << layer as u8) != 0
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Layer> for LayerSet {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Self {
        let mut set = Self::default();
        layers.into_iter().for_each(|layer| set.insert(layer));
        set
    }
}

/// What stands around a running command, as every result tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Isolation {
    /// How the jail was made.
    pub mode: Mode,
    /// Names of the layers that were applied; Landlock with the ABI of the kernel, as in `landlock:7`, `cgroup` with its version.
    pub layers: Vec<Cow<'static, str>>,
    /// Names of the layers that are missing; in mode `strict` at most `cgroup` and what the policy leaves out.
    pub missing: Vec<Cow<'static, str>>,
    /// Version of the kernel's Landlock.
    pub landlock_abi: u32,
    /// The uid the kernel sees; never 0.
    pub kernel_uid: u32,
}

impl Isolation {
    pub(super) fn of(
        mode: Mode,
        applied: LayerSet,
        asked: LayerSet,
        cgroup: Option<CgroupVersion>,
        landlock_abi: u32,
        kernel_uid: u32,
    ) -> Self {
        let name = |layer: Layer| match (layer, cgroup) {
            (Layer::Cgroup, Some(CgroupVersion::V1)) => Cow::Borrowed("cgroup:v1"),
            (Layer::Cgroup, Some(CgroupVersion::V2)) => Cow::Borrowed("cgroup:v2"),
            (Layer::Landlock, _) => Cow::Owned(format!("landlock:{landlock_abi}")),
            (other, _) => Cow::Borrowed(other.name()),
        };
        let is_applied =
            |layer: Layer| applied.contains(layer) || layer == Layer::Cgroup && cgroup.is_some();
        let (layers, missing): (Vec<Layer>, Vec<Layer>) = Layer::STRICT
            .into_iter()
            .filter(|layer| asked.contains(*layer) || is_applied(*layer))
            .partition(|layer| is_applied(*layer));
        Self {
            mode,
            layers: layers.into_iter().map(name).collect(),
            missing: missing
                .into_iter()
                .map(|layer| Cow::Borrowed(layer.name()))
                .collect(),
            landlock_abi,
            kernel_uid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_keeps_its_name_over_the_wire() {
        for layer in Layer::STRICT {
            assert_eq!(Layer::from_code(layer as u8), layer);
        }
    }

    #[test]
    fn what_was_not_applied_is_listed_as_missing() {
        let mut applied = LayerSet::default();
        applied.insert(Layer::Landlock);
        let mut asked = applied;
        asked.insert(Layer::Cgroup);
        asked.insert(Layer::Seccomp);
        let isolation = Isolation::of(Mode::Strict, applied, asked, None, 7, 65534);
        assert_eq!(isolation.layers, ["landlock:7"]);
        assert_eq!(isolation.missing, ["cgroup", "seccomp"]);
        let grouped = Isolation::of(
            Mode::Strict,
            applied,
            asked,
            Some(CgroupVersion::V1),
            7,
            65534,
        );
        assert_eq!(grouped.layers, ["cgroup:v1", "landlock:7"]);
        assert_eq!(grouped.missing, ["seccomp"]);
    }
}
