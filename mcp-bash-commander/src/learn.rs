//! `learn`: what a command needs of this host that the policy does not grant, found by running it in the jail again and again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;

use crate::config::Config;
use crate::confine::{self, Changes};
use crate::jail::{Exit, JailedProcess, Launcher, Lookups, Mode, Output};
use crate::policy::Policy;
use crate::workspace::Workspace;

/// How often the command is run; toolchains find their parts step by step.
const MOST_RUNS: usize = 12;
/// Bytes of the command's output that are shown.
const SHOWN_BYTES: usize = 4000;

/// Names that secrets have. What is below a folder of such a name is one, too.
const SECRET_NAMES: [&str; 28] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".git-credentials",
    ".gitconfig",
    ".bash_history",
    ".vault-token",
    ".password-store",
    "gcloud",
    "gh",
    "keyrings",
    "shadow",
    "gshadow",
    "sudoers",
    "credentials",
    "credentials.toml",
    ".env",
    "pip.conf",
    ".condarc",
    ".curlrc",
    ".wgetrc",
];

/// Folders that every jail has of its own.
const OWN: [&str; 5] = ["/proc", "/dev", "/tmp", "/sys", "/run"];

/// Files that every jail has of its own, whatever the host has there.
const OWN_FILES: [&str; 6] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
];

/// Runs the command until it finds everything it looks for, and prints the policy on standard output; what it did and what it still
/// lacks on standard error.
pub(crate) async fn learn(
    config: &Config,
    launcher: Launcher,
    argv: &[String],
) -> anyhow::Result<ExitCode> {
    let mut policy = Arc::new(Policy::load(
        config.policy.as_deref(),
        config.workspace.as_deref(),
    )?);
    let mut learnt = Learnt::default();
    let mut last = None;
    for _ in 0..MOST_RUNS {
        let (exit, lookups, output) = run(&policy, &launcher, argv).await?;
        last = Some((exit, output));
        if !learnt.take(&lookups, Arc::make_mut(&mut policy)) {
            break;
        }
    }
    let mut told = String::new();
    if let Some((exit, output)) = &last {
        let how = exit.code.map_or_else(
            || format!("was ended by signal {}", exit.signal.unwrap_or(0)),
            |code| format!("exited with {code}"),
        );
        writeln!(
            told,
            "`{}` {how} in the jail with what is granted below:",
            argv.join(" ")
        )?;
        for line in output.lines() {
            writeln!(told, "| {}", shared::visible::prose(line))?;
        }
    }
    for path in &learnt.secrets {
        writeln!(
            told,
            "not granted, it looks like a secret: {}",
            path.display()
        )?;
    }
    std::io::stderr().write_all(told.as_bytes())?;
    std::io::stdout().write_all(learnt.policy(&policy, argv)?.as_bytes())?;
    let is_done = last.is_some_and(|(exit, _)| exit.code == Some(0));
    Ok(if is_done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run(
    policy: &Arc<Policy>,
    launcher: &Launcher,
    argv: &[String],
) -> anyhow::Result<(Exit, BTreeMap<PathBuf, u64>, String)> {
    let workspace = Arc::new(Workspace::open(&policy.workspace, policy.access)?);
    let lookups = Lookups::default();
    let mut jail = confine::jail(policy, &workspace, argv, &BTreeMap::new(), Changes::Made)?;
    jail.masked = confine::closed(policy, &workspace).await?;
    for name in ["PATH", "HOME"] {
        if let Some(value) = std::env::var_os(name) {
            jail.command.env.retain(|(known, _)| known != name);
            jail.command.env.push((name.into(), value));
        }
    }
    jail.observe = Some(lookups.clone());
    // Elsewhere it would look at other files than those of the policy.
    jail.modes = vec![Mode::Strict];
    if let Some(program) = argv.first() {
        // Not left to the jail's own search: that program is looked for by us, before anyone observes.
        jail.command.argv = search_all(program, argv);
    }
    let JailedProcess {
        stdout,
        stderr,
        command,
        jail: _jail,
        ..
    } = launcher.run(jail).await?;
    let (out, err) = tokio::join!(beginning(Some(stdout)), beginning(stderr));
    let exit = command.wait().await;
    Ok((exit, lookups.all(), out + &err))
}

/// The command by way of a shell, which looks for it in every folder of the path and says so when there is none.
fn search_all(program: &str, argv: &[String]) -> Vec<OsString> {
    if program.contains('/') {
        return argv.iter().map(OsString::from).collect();
    }
    ["/bin/sh", "-c", "exec \"$@\"", "learn"]
        .into_iter()
        .map(OsString::from)
        .chain(argv.iter().map(OsString::from))
        .collect()
}

/// The beginning of an output; the rest is read and dropped.
async fn beginning(output: Option<Output>) -> String {
    let Some(mut output) = output else {
        return String::new();
    };
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    while let Ok(read) = output.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        let room = SHOWN_BYTES.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// What was found over all runs.
#[derive(Debug, Default)]
struct Learnt {
    granted: Vec<PathBuf>,
    secrets: Vec<PathBuf>,
}

impl Learnt {
    /// Adds to the policy what was looked for, is on this host and not in the jail; whether there was anything.
    fn take(&mut self, lookups: &BTreeMap<PathBuf, u64>, policy: &mut Policy) -> bool {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let before = self.granted.len();
        for path in lookups.keys() {
            let is_known = OWN_FILES.iter().any(|own| path == Path::new(own))
                || OWN.iter().any(|own| path.starts_with(own))
                || policy
                    .grants()
                    .any(|(granted, _)| path.starts_with(granted));
            if is_known || path.symlink_metadata().is_err() {
                continue;
            }
            if is_secret(path) {
                if !self.secrets.contains(path) {
                    self.secrets.push(path.clone());
                }
                continue;
            }
            for grant in grants_for(path, home.as_deref()) {
                if !policy
                    .grants()
                    .any(|(granted, _)| grant.starts_with(granted))
                {
                    self.granted.push(grant.clone());
                    policy.toolchain.push(grant);
                }
            }
        }
        self.granted.len() > before
    }

    /// The policy as a file, with what each grant is for.
    fn policy(&self, policy: &Policy, argv: &[String]) -> anyhow::Result<String> {
        let mut text = format!(
            "# Learnt from: {}\nversion = 1\n\n[toolchain]\nread = [\n",
            argv.join(" ")
        );
        let all = &policy.toolchain;
        let is_covered = |path: &PathBuf| {
            all.iter()
                .any(|other| other != path && path.starts_with(other))
        };
        for path in all.iter().filter(|path| !is_covered(path)) {
            let note = if self.granted.contains(path) {
                " # learnt"
            } else {
                ""
            };
            writeln!(
                text,
                "  {},{note}",
                toml::Value::from(path.to_string_lossy().into_owned())
            )?;
        }
        text.push_str("]\n\n[env]\npass = [\"PATH\", \"HOME\"]\n");
        Ok(text)
    }
}

fn is_secret(path: &Path) -> bool {
    path.components().any(|component| {
        let Component::Normal(name) = component else {
            return false;
        };
        let name = name.to_string_lossy().to_lowercase();
        SECRET_NAMES.contains(&name.as_str())
            || name.starts_with("id_")
            || ["token", "secret", "password"]
                .iter()
                .any(|word| name.contains(word))
    })
}

/// What is granted for one path: of a tool in a home directory its folder two levels down, as `.rustup/toolchains`; elsewhere the first
/// folder below `/opt` and the like, or the file itself. Where the host has a link on the way, what it leads to as well.
fn grants_for(path: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let grant = match home.and_then(|home| Some((home, path.strip_prefix(home).ok()?))) {
        Some((home, below)) => {
            let folder: PathBuf = home.join(below.components().take(2).collect::<PathBuf>());
            if below.components().count() >= 2 {
                folder
            } else {
                path.to_owned()
            }
        }
        None if path.starts_with("/etc") || path.starts_with("/var") => path.to_owned(),
        None => path.components().take(3).collect(),
    };
    // The whole of a home, or of the file system, is never meant.
    let is_too_much = |path: &Path| Some(path) == home || path.components().count() < 3;
    let real = grant.canonicalize().ok().filter(|real| *real != grant);
    [Some(grant), real]
        .into_iter()
        .flatten()
        .filter(|path| !is_too_much(path) && !is_secret(path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_is_granted_and_neither_a_home_nor_a_secret() {
        let home = Some(Path::new("/home/ana"));
        let of = |path: &str| grants_for(Path::new(path), home);
        assert_eq!(
            of("/home/ana/.rustup/toolchains/stable/bin/cargo"),
            [Path::new("/home/ana/.rustup/toolchains")]
        );
        assert_eq!(of("/opt/go/bin/go"), [Path::new("/opt/go")]);
        assert_eq!(of("/etc/localtime/x"), [Path::new("/etc/localtime/x")]);
        assert_eq!(of("/home/ana"), [""; 0].map(PathBuf::from));
        assert_eq!(of("/home"), [""; 0].map(PathBuf::from));
        for secret in [
            "/home/ana/.ssh/config",
            "/home/ana/.cargo/credentials.toml",
            "/home/ana/.config/gh/hosts.yml",
            "/etc/shadow",
            "/home/ana/x/api_token",
        ] {
            assert!(is_secret(Path::new(secret)), "{secret}");
        }
        assert!(!is_secret(Path::new("/home/ana/.nvm/versions/node/v20")));
    }
}
