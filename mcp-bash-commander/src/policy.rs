//! What the jail may see and use: the built-in strict policy, or a TOML file that says otherwise. No tool can change it.

mod environment;
mod error;
mod explain;
mod hidden;
mod placement;
mod reach;
pub mod rules;
mod size;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::digest::Digest;

pub use environment::{EnvironmentError, EnvironmentRules};
pub use error::{PolicyError, RootFrom};
pub use explain::Explanation;
pub use hidden::Hidden;
pub use placement::{Placed, PlacementError, check_placement};
pub use reach::{NetworkMode, NetworkRules};
use rules::{RuleTable, Rules};
use size::Size;

use crate::jail::{self, Mode};
use crate::network::{Reachable, Secret, Secrets, WrittenSecret};
use crate::workspace::changes::Protected;

/// A policy file is a page of text; more is a mistake.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The mode bits of group and others that may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Most commands that may run or be remembered at once, whatever the file says.
const MOST_SESSIONS: usize = 1024;

/// The containers that jails may be made in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerRules {
    /// The image by its digest, as in `debian@sha256:…` or `sha256:…`.
    pub image: String,
    /// Where the engine listens, as in `unix:///var/run/docker.sock`, which it is if `DOCKER_HOST` says nothing else.
    pub engine: Option<String>,
    /// The engine's runtime, as in `runsc`, where it is not its default.
    pub runtime: Option<String>,
}

/// Whether the workspace may be changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Read only.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Read and write.
    #[default]
    #[serde(rename = "rw")]
    ReadWrite,
}

/// What becomes of files of the workspace that have names outside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HardLinks {
    /// Commands read them and never change them.
    #[default]
    Protect,
    /// They are like all others.
    Allow,
}

/// Upper bounds of one command and of all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Longest time any command may run, in milliseconds; none where absent.
    pub wall_ms: Option<u64>,
    /// CPU seconds of each process.
    pub cpu_s: u64,
    /// Bytes of memory of each process and, where a control group can be had, of all of a jail together.
    pub memory_bytes: u64,
    /// Processes and threads of one command.
    pub pids: u64,
    /// Bytes of the largest file a command may write.
    pub fsize_bytes: u64,
    /// Open files of each process.
    pub nofile: u64,
    /// Bytes in the private `/tmp`.
    pub tmp_bytes: u64,
    /// Bytes kept of each output stream of a command.
    pub output_bytes: u64,
    /// Commands that may run at once.
    pub sessions: usize,
    /// Whether commands are refused where no control group bounds a jail as a whole.
    pub require_cgroup: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let jail = jail::Limits::default();
        Self {
            wall_ms: None,
            cpu_s: jail.cpu_seconds,
            memory_bytes: jail.memory_bytes,
            pids: jail.processes,
            fsize_bytes: jail.file_bytes,
            nofile: jail.open_files,
            tmp_bytes: jail.tmp_bytes,
            output_bytes: 64 << 20,
            sessions: 32,
            require_cgroup: jail.require_cgroup,
        }
    }
}

impl Limits {
    /// What the jail itself enforces.
    pub fn of_jail(&self) -> jail::Limits {
        jail::Limits {
            cpu_seconds: self.cpu_s,
            memory_bytes: self.memory_bytes,
            processes: self.pids,
            file_bytes: self.fsize_bytes,
            open_files: self.nofile,
            tmp_bytes: self.tmp_bytes,
            require_cgroup: self.require_cgroup,
        }
    }

    /// Longest time any command may run.
    pub fn wall(&self) -> Option<Duration> {
        self.wall_ms.map(Duration::from_millis)
    }
}

/// Everything a command may see and use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// How jails are made.
    pub mode: Mode,
    /// How else they may be made, where this host does not allow that: the first that it allows.
    pub allow_degraded: Vec<Mode>,
    /// What jails in containers are made of.
    pub container: Option<ContainerRules>,
    /// The directory commands work in, absolute, without links.
    pub workspace: PathBuf,
    /// Whether they may change it.
    pub access: Access,
    /// What of it nobody may read.
    pub deny_read: Hidden,
    /// What of it commands may read and never change: what programs of the host run or obey later.
    pub protected: Protected,
    /// What becomes of files that are outside as well.
    pub hard_links: HardLinks,
    /// Further paths of the host that commands may read.
    pub toolchain: Vec<PathBuf>,
    /// What commands may reach over a network.
    pub network: NetworkRules,
    /// What the proxy adds to requests.
    pub secrets: Secrets,
    /// Commands that are to be asked about or denied.
    pub rules: Rules,
    /// What stands in a command's environment.
    pub environment: EnvironmentRules,
    /// Upper bounds.
    pub limits: Limits,
    /// How commands are recorded.
    pub audit: AuditRules,
}

/// The `[audit]` table of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditRules {
    /// Whether what cannot be recorded is not done.
    pub required: bool,
}

impl Default for AuditRules {
    fn default() -> Self {
        Self { required: true }
    }
}

impl Policy {
    /// The built-in strict policy, or that of a file; `workspace` wins over the file's, which wins over the current directory.
    ///
    /// # Errors
    /// A file that others can change or that is no policy, or a workspace that cannot be one.
    pub fn load(file: Option<&Path>, workspace: Option<&Path>) -> Result<Self, PolicyError> {
        let document = match file {
            Some(path) => Document::read(path)?,
            None => Document::default(),
        };
        document.into_policy(workspace)
    }

    /// Names this policy: the digest of all it says, the workspace included.
    ///
    /// # Errors
    /// None in practice: a policy is plain data.
    pub fn digest(&self) -> Result<Digest, serde_json::Error> {
        Digest::of_json(self)
    }

    /// How jails may be made, the best first.
    pub fn modes(&self) -> Vec<Mode> {
        let degraded = self.allow_degraded.iter().copied();
        std::iter::once(self.mode).chain(degraded).collect()
    }

    /// Whether a path below the workspace, or a folder above it, may not be read.
    pub fn denies_reading(&self, path: &Path) -> bool {
        self.deny_read.covers(path)
    }

    /// Whom the proxy lets through, and what it adds to what commands send there.
    pub fn reachable(&self) -> Reachable {
        Reachable {
            allow: self.network.allow.clone(),
            secrets: self.secrets.clone(),
        }
    }

    /// Paths whose content commands can see, with whether they can change it.
    pub fn grants(&self) -> impl Iterator<Item = (&Path, Access)> {
        let toolchain = self
            .toolchain
            .iter()
            .map(|path| (path.as_path(), Access::ReadOnly));
        std::iter::once((self.workspace.as_path(), self.access)).chain(toolchain)
    }
}

/// The policy file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    version: Option<u32>,
    mode: Mode,
    allow_degraded: Vec<Mode>,
    container: Option<ContainerRules>,
    workspace: WorkspaceTable,
    toolchain: ToolchainTable,
    env: EnvironmentRules,
    network: NetworkRules,
    secrets: BTreeMap<String, WrittenSecret>,
    limits: LimitsTable,
    audit: AuditRules,
    rule: Vec<RuleTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WorkspaceTable {
    root: Option<PathBuf>,
    access: Access,
    deny_read: Hidden,
    protect: Option<Vec<PathBuf>>,
    hard_links: HardLinks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ToolchainTable {
    read: Option<Vec<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsTable {
    wall_ms: Option<u64>,
    cpu_s: Option<u64>,
    memory: Option<Size>,
    pids: Option<u64>,
    fsize: Option<Size>,
    nofile: Option<u64>,
    tmp: Option<Size>,
    output: Option<Size>,
    sessions: Option<usize>,
    require_cgroup: Option<bool>,
}

impl Document {
    fn read(path: &Path) -> Result<Self, PolicyError> {
        let failed = |source| PolicyError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
            return Err(PolicyError::NoPolicyFile(path.to_owned()));
        }
        let uid = rustix::process::geteuid().as_raw();
        let owned = metadata.uid() == uid || metadata.uid() == 0;
        if !owned || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(PolicyError::ChangeableByOthers {
                path: path.to_owned(),
                mode: metadata.mode() & 0o7777,
                owner: metadata.uid(),
            });
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(failed)?;
        let mut document: Self = toml::from_str(&text).map_err(|error| PolicyError::Syntax {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        // A relative root is meant from where the file stands, not from where a client happens to start the server.
        if let (Some(root), Some(folder)) = (&mut document.workspace.root, path.parent()) {
            *root = folder.join(&*root);
        }
        Ok(document)
    }

    fn into_policy(self, workspace: Option<&Path>) -> Result<Policy, PolicyError> {
        if let Some(version) = self.version.filter(|version| *version != 1) {
            return Err(out_of_range("version", &version, "1"));
        }
        let modes = || std::iter::once(&self.mode).chain(&self.allow_degraded);
        if self.container.is_none() && modes().any(|mode| *mode == Mode::Container) {
            let right = "used with an image: name one by its digest in container.image";
            return Err(out_of_range("mode", &Mode::Container, right));
        }
        let toolchain = match self.toolchain.read {
            Some(paths) => granted_paths(paths)?,
            None => jail::system_toolchain(),
        };
        let (root, named) = match (workspace, self.workspace.root) {
            (Some(root), _) => (root.to_owned(), RootFrom::Flag),
            (None, Some(root)) => (root, RootFrom::Policy),
            (None, None) => (PathBuf::from("."), RootFrom::Default),
        };
        Ok(Policy {
            mode: self.mode,
            allow_degraded: self.allow_degraded,
            container: self.container,
            workspace: workspace_root(&root, named)?,
            access: self.workspace.access,
            deny_read: self.workspace.deny_read,
            protected: protected_paths(self.workspace.protect)?,
            hard_links: self.workspace.hard_links,
            toolchain,
            secrets: secrets(self.secrets, &self.network, &self.env)?,
            network: self.network,
            rules: Rules::from_tables(self.rule)?,
            environment: self.env.checked()?,
            limits: self.limits.with_defaults()?,
            audit: self.audit,
        })
    }
}

impl LimitsTable {
    fn with_defaults(self) -> Result<Limits, PolicyError> {
        let default = Limits::default();
        let bytes = |given: Option<Size>, default: u64| given.map_or(default, Size::bytes);
        let limits = Limits {
            wall_ms: self.wall_ms,
            cpu_s: self.cpu_s.unwrap_or(default.cpu_s),
            memory_bytes: bytes(self.memory, default.memory_bytes),
            pids: self.pids.unwrap_or(default.pids),
            fsize_bytes: bytes(self.fsize, default.fsize_bytes),
            nofile: self.nofile.unwrap_or(default.nofile),
            tmp_bytes: bytes(self.tmp, default.tmp_bytes),
            output_bytes: bytes(self.output, default.output_bytes),
            sessions: self.sessions.unwrap_or(default.sessions),
            require_cgroup: self.require_cgroup.unwrap_or(default.require_cgroup),
        };
        let at_least = [
            ("limits.cpu_s", limits.cpu_s, 1, "at least 1 second"),
            (
                "limits.memory",
                limits.memory_bytes,
                1 << 24,
                "at least 16M",
            ),
            ("limits.pids", limits.pids, 4, "at least 4"),
            ("limits.nofile", limits.nofile, 16, "at least 16"),
            (
                "limits.output",
                limits.output_bytes,
                1 << 16,
                "at least 64K",
            ),
            (
                "limits.wall_ms",
                limits.wall_ms.unwrap_or(1),
                1,
                "at least 1 millisecond",
            ),
        ];
        if let Some((field, value, _, right)) = at_least
            .into_iter()
            .find(|(_, value, least, _)| value < least)
        {
            return Err(out_of_range(field, &value, right));
        }
        if !(1..=MOST_SESSIONS).contains(&limits.sessions) {
            return Err(out_of_range(
                "limits.sessions",
                &limits.sessions,
                "between 1 and 1024",
            ));
        }
        Ok(limits)
    }
}

fn out_of_range(
    field: &'static str,
    value: &dyn std::fmt::Display,
    right: &'static str,
) -> PolicyError {
    PolicyError::Value {
        field,
        value: value.to_string(),
        right,
    }
}

fn granted_paths(paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, PolicyError> {
    let wrong = |path: &PathBuf, right| out_of_range("toolchain.read", &path.display(), right);
    for path in &paths {
        let is_all = path.canonicalize().is_ok_and(|real| real == Path::new("/"));
        if !path.is_absolute() || is_all {
            return Err(wrong(path, "absolute paths below `/`"));
        }
        if path.symlink_metadata().is_err() {
            return Err(wrong(path, "paths that exist on this host"));
        }
    }
    Ok(paths)
}

/// The secrets, which only the proxy may use and only the server may have.
fn secrets(
    written: BTreeMap<String, WrittenSecret>,
    network: &NetworkRules,
    environment: &EnvironmentRules,
) -> Result<Secrets, PolicyError> {
    if !written.is_empty() && network.mode < NetworkMode::Allowlist {
        let right = "`allowlist` where there are [secrets]";
        return Err(out_of_range("network.mode", &network.mode, right));
    }
    let secrets = Secrets::new(written, &network.allow)?;
    let is_passed = |variable: &&str| environment.pass.iter().any(|name| name == variable);
    let mut variables = secrets.all().iter().filter_map(Secret::variable);
    match variables.find(is_passed).map(str::to_owned) {
        Some(variable) => Err(out_of_range(
            "env.pass",
            &format!("with `{variable}`"),
            "without what [secrets] keep from commands",
        )),
        None => Ok(secrets),
    }
}

/// What programs of the host run or obey when somebody works in the workspace later.
const PROTECTED: [&str; 7] = [
    ".git/hooks",
    ".git/config",
    ".git/config.worktree",
    // It would have git take configuration and hooks from elsewhere.
    ".git/commondir",
    ".mcp.json",
    ".vscode",
    ".idea",
];

fn protected_paths(given: Option<Vec<PathBuf>>) -> Result<Protected, PolicyError> {
    let paths = given.unwrap_or_else(|| PROTECTED.map(PathBuf::from).to_vec());
    Protected::new(&paths)
        .map_err(|error| out_of_range("workspace.protect", &error, "relative paths without `..`"))
}

fn workspace_root(root: &Path, named: RootFrom) -> Result<PathBuf, PolicyError> {
    let unusable = |reason: String| PolicyError::Workspace {
        named,
        path: root.to_owned(),
        reason,
    };
    let canonical = root
        .canonicalize()
        .map_err(|error| unusable(error.to_string()))?;
    if !canonical.is_dir() {
        return Err(unusable("it is not a directory".to_owned()));
    }
    if canonical == Path::new("/") {
        return Err(unusable("it would be the whole file system".to_owned()));
    }
    Ok(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn policy_of(text: &str) -> anyhow::Result<Result<Policy, PolicyError>> {
        let home = tempfile::tempdir()?;
        let path = home.path().join("policy.toml");
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Policy::load(Some(&path), Some(home.path())))
    }

    #[test]
    fn the_example_of_the_readme_is_a_policy() -> anyhow::Result<()> {
        let readme = include_str!("../README.md");
        let example = readme
            .split_once("```toml\n")
            .and_then(|(_, rest)| rest.split_once("```"))
            .map(|(example, _)| example.replace("root = \"/srv/site\"", "root = \"/tmp\""))
            .unwrap_or_default();
        assert!(!example.is_empty());
        let policy = policy_of(&example)??;
        assert_eq!(policy.limits.memory_bytes, 1 << 30);
        assert_eq!(policy.limits.sessions, 16);
        Ok(())
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() -> anyhow::Result<()> {
        for text in [
            "modus = \"strict\"",
            "[limits]\nmemmory = \"1G\"",
            "[env]\nallow = []",
        ] {
            let refused = policy_of(text)?
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(refused.contains("unknown field"), "{text}: {refused}");
        }
        Ok(())
    }

    #[test]
    fn values_out_of_range_are_named() -> anyhow::Result<()> {
        let wrong = [
            ("version = 2", "version"),
            ("mode = \"open\"", "mode"),
            ("[limits]\nsessions = 0", "limits.sessions"),
            ("[limits]\npids = 1", "limits.pids"),
            ("[limits]\nmemory = \"1K\"", "limits.memory"),
            ("[limits]\nmemory = \"-1\"", "memory"),
            ("[limits]\ncpu_s = nan", "cpu_s"),
            ("[toolchain]\nread = [\"usr\"]", "toolchain.read"),
            ("[toolchain]\nread = [\"/\"]", "toolchain.read"),
            ("[toolchain]\nread = [\"/no/such/path\"]", "toolchain.read"),
            ("[env]\nset = { \"A=B\" = \"\" }", "env"),
            (
                "[secrets.k]\nfrom_env = \"K\"\ninject = { host = \"a.org\", header = \"X-Key\" }",
                "network.mode",
            ),
            (
                "[secrets.k]\nfrom_env = \"K\"\ninject = { host = \"a.org\", header = \"X-Key\" }\n\
                 [network]\nmode = \"allowlist\"",
                "[secrets.k]",
            ),
            (
                "[secrets.k]\nfrom_env = \"K\"\ninject = { host = \"a.org\", header = \"X-Key\" }\n\
                 [network]\nmode = \"allowlist\"\nallow = [\"a.org:443\"]\n[env]\npass = [\"K\"]",
                "env.pass",
            ),
        ];
        for (text, field) in wrong {
            let refused = policy_of(text)?
                .err()
                .map(|error| format!("{:#}", anyhow::Error::from(error)))
                .unwrap_or_default();
            assert!(refused.contains(field), "{text}: {refused}");
        }
        Ok(())
    }

    #[test]
    fn a_policy_that_others_can_write_is_refused() -> anyhow::Result<()> {
        let home = tempfile::tempdir()?;
        let path = home.path().join("policy.toml");
        fs::write(&path, "version = 1")?;
        for (mode, accepted) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            let loaded = Policy::load(Some(&path), Some(home.path()));
            assert_eq!(loaded.is_ok(), accepted, "{mode:o}: {loaded:?}");
        }
        Ok(())
    }

    #[test]
    fn the_digest_changes_with_anything_the_policy_says() -> anyhow::Result<()> {
        let home = tempfile::tempdir()?;
        let policy = Policy::load(None, Some(home.path()))?;
        let mut other = policy.clone();
        other.limits.pids += 1;
        assert_eq!(policy.digest()?, policy.clone().digest()?);
        assert_ne!(policy.digest()?, other.digest()?);
        other = policy.clone();
        other.access = Access::ReadOnly;
        assert_ne!(policy.digest()?, other.digest()?);
        Ok(())
    }

    #[test]
    fn the_whole_file_system_and_a_file_are_no_workspaces() -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        for root in [Path::new("/"), file.path(), Path::new("/no/such/place")] {
            let refused = Policy::load(None, Some(root));
            assert!(
                matches!(refused, Err(PolicyError::Workspace { .. })),
                "{}",
                root.display()
            );
        }
        Ok(())
    }

    #[test]
    fn a_workspace_that_is_none_is_told_with_what_names_it_and_a_cause_once() -> anyhow::Result<()>
    {
        let home = tempfile::tempdir()?;
        let path = home.path().join("policy.toml");
        let file = "[workspace]\nroot = \"gone\"\n[[rule]]\nmatch = [\"ls\"]\ndecision = \"ask\"\n\
                    tests = { miss = [\"ls\"] }";
        fs::write(&path, file)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let missing = home.path().join("missing");
        for (policy, workspace, told) in [
            (Some(&path), None, "workspace.root"),
            (None, Some(missing.as_path()), "--workspace names"),
            (Some(&path), Some(home.path()), "rule 1: `ls`"),
            (Some(&missing), None, "No such file"),
        ] {
            let refused = Policy::load(policy.map(PathBuf::as_path), workspace);
            let error = refused.err().map(anyhow::Error::from);
            let text = error.map_or_else(String::new, |error| format!("{error:#}"));
            assert_eq!(text.matches(told).count(), 1, "{text}");
        }
        Ok(())
    }
}
