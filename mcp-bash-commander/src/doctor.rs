//! What a command needs on this host and from this configuration, looked at for real, each lack with its remedy.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use shared::config::Doctor;
use shared::digest::Digest;
use shared::effect::args::owner_of_socket;
use shared::effect::client::EffectClient;
use shared::metrics::Metrics;
use shared::state_dir;

use crate::config::Config;
use crate::confine;
use crate::jail::{Isolation, Launcher, LayerStatus, Mode, probe_layers, probe_mode};
use crate::policy::{Access, HardLinks, Limits, NetworkMode, NetworkRules, Policy};
use crate::server::{self, BashCommander, NAME};
use crate::workspace::Workspace;

/// What is looked at.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// What commands may see and use.
    pub policy: &'a Policy,
    /// Its digest.
    pub policy_digest: &'a Digest,
    /// The pinned workspace.
    pub workspace: &'a Workspace,
    /// Who makes jails.
    pub launcher: &'a Launcher,
    /// Where state is or will be.
    pub state_dir: &'a Path,
    /// The registry and its socket, in enforced mode.
    pub registry: Option<(&'a EffectClient, &'a Path)>,
}

/// The report on a command line; what keeps the server from starting is its first failure.
pub async fn of_configuration(config: &Config, launcher: Launcher) -> Doctor {
    match BashCommander::new(config, launcher.clone(), Metrics::new()) {
        Ok(server) => server::examine(server.state()).await,
        Err(error) => {
            let mut report = Doctor::new();
            report.fail(
                "configuration",
                format!("{error:#}"),
                "change what it names, then run doctor again",
            );
            examine_jail(&mut report, &launcher, None, false).await;
            report
        }
    }
}

/// The report on a server.
pub async fn examine(subject: Subject<'_>) -> Doctor {
    let mut report = Doctor::new();
    let limits = &subject.policy.limits;
    let modes: Vec<&str> = subject
        .policy
        .modes()
        .iter()
        .map(|mode| mode.name())
        .collect();
    let modes = modes.join(" or ");
    report.ok("policy", format!("{modes}, {}", subject.policy_digest));
    examine_workspace(&mut report, subject.policy);
    report.ok("limits", told_limits(limits));
    examine_network(&mut report, &subject.policy.network);
    examine_links(&mut report, subject.policy, subject.workspace).await;
    examine_secrets(&mut report, subject.policy);
    if !subject.policy.audit.required {
        report.warn(
            "audit",
            "commands run although they cannot be recorded",
            "write required = true under [audit] of the policy, or leave it out",
        );
    }
    let (launcher, workspace) = (subject.launcher, subject.workspace);
    let modes = subject.policy.modes();
    let degraded = degraded_mode(&mut report, launcher, workspace, modes).await;
    if !degraded {
        let require_cgroup = limits.require_cgroup;
        examine_jail(&mut report, launcher, Some(workspace), require_cgroup).await;
    }
    examine_state(&mut report, subject.state_dir);
    examine_registry(&mut report, subject.registry).await;
    report
}

fn examine_workspace(report: &mut Doctor, policy: &Policy) {
    const CHECK: &str = "workspace";
    let place = policy.workspace.display();
    if policy.access == Access::ReadOnly {
        return report.ok(CHECK, format!("{place}, read-only"));
    }
    let Some(why) = unwritable(policy) else {
        return report.ok(CHECK, format!("{place}, writable"));
    };
    let uid = rustix::process::geteuid().as_raw();
    report.warn(
        CHECK,
        format!("{place}, writable by the policy, but not for commands, which run as uid {uid}: {why}"),
        format!(
            "give a directory that uid {uid} can write with --workspace, let this one belong to it, or write access = \"ro\" under \
             [workspace] of the policy"
        ),
    );
}

/// Why commands cannot make files in the workspace, where this process can tell: under a root server, and in a container, they run as
/// the workspace's owner.
fn unwritable(policy: &Policy) -> Option<std::io::Error> {
    let run_as_server =
        !rustix::process::geteuid().is_root() && !policy.modes().contains(&Mode::Container);
    let rights = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let may = rustix::fs::accessat(CWD, &policy.workspace, rights, AtFlags::EACCESS);
    let refused = |errno: &Errno| matches!(*errno, Errno::ACCESS | Errno::PERM | Errno::ROFS);
    may.err()
        .filter(|errno| run_as_server && refused(errno))
        .map(std::io::Error::from)
}

fn told_limits(limits: &Limits) -> String {
    let mut told = format!(
        "{} commands at once; each: {} processes, {} MiB memory, {} CPU s, {} MiB /tmp, {} MiB kept of each output",
        limits.sessions,
        limits.pids,
        limits.memory_bytes >> 20,
        limits.cpu_s,
        limits.tmp_bytes >> 20,
        limits.output_bytes >> 20
    );
    if let Some(wall_ms) = limits.wall_ms {
        // Writing to a String cannot fail.
        let _ = write!(told, ", ended after {wall_ms} ms");
    }
    told
}

fn examine_network(report: &mut Doctor, network: &NetworkRules) {
    const CHECK: &str = "network";
    let allowed = network.allow.entries().len();
    let hosts = if allowed == 1 { "host" } else { "hosts" };
    let told = format!("at most {}, {allowed} {hosts} allowed", network.mode);
    if allowed > 0 && network.mode < NetworkMode::Allowlist {
        report.warn(
            CHECK,
            format!("{told}, which no command reaches"),
            "write mode = \"allowlist\" under [network] of the policy, or leave allow out",
        );
    } else {
        report.ok(CHECK, told);
    }
}

/// Tells of files that a command could write outside the workspace through.
async fn examine_links(report: &mut Doctor, policy: &Policy, workspace: &Workspace) {
    const CHECK: &str = "hard links";
    if policy.access == Access::ReadOnly {
        return;
    }
    let looked = confine::look_through(workspace, Workspace::linked_outside_now).await;
    let found = match looked {
        Ok(found) => found,
        Err(error) if policy.hard_links == HardLinks::Allow => {
            return report.warn(
                CHECK,
                format!("{error}; commands can change them"),
                "write hard_links = \"protect\" under [workspace] of the policy",
            );
        }
        Err(error) => {
            return report.fail(
                CHECK,
                format!("commands that change the workspace are refused: {error}"),
                "outside the jail, make copies of them (cp -r WORKSPACE COPY; git clone --no-hardlinks), give a smaller workspace, or write \
                 hard_links = \"allow\" under [workspace] of the policy",
            );
        }
    };
    let mut named: Vec<String> = found
        .iter()
        .take(3)
        .map(|path| path.display().to_string())
        .collect();
    if found.len() > named.len() {
        named.push("\u{2026}".to_owned());
    }
    let (count, named) = (found.len(), named.join(", "));
    let what = if policy.modes().contains(&Mode::NoUserns) {
        "commands cannot change them, or in mode no_userns are told of when they did"
    } else {
        "commands cannot change them"
    };
    match (count, policy.hard_links) {
        (0, _) => report.ok(CHECK, "no file of the workspace has a name outside it"),
        (_, HardLinks::Protect) => report.warn(
            CHECK,
            format!("files with names outside the workspace, {count}: {named}; {what}"),
            "outside the jail: cp -p FILE COPY && mv COPY FILE, if commands are to change them here alone",
        ),
        (_, HardLinks::Allow) => report.warn(
            CHECK,
            format!("files with names outside the workspace, {count}: {named}; commands change them there too"),
            "write hard_links = \"protect\" under [workspace] of the policy",
        ),
    }
}

fn examine_secrets(report: &mut Doctor, policy: &Policy) {
    for secret in policy.secrets.all() {
        let check = format!("secret {}", secret.name());
        match secret.read() {
            Ok(_) => report.ok(check, secret.explanation()),
            Err(unusable) => report.warn(
                check,
                format!("requests that it is added to are refused: {unusable}"),
                "start the server with it; a file is read again for each request",
            ),
        }
    }
}

/// Tells of jails that are not strict, if such are what this host and the policy come to.
async fn degraded_mode(
    report: &mut Doctor,
    launcher: &Launcher,
    workspace: &Workspace,
    modes: Vec<Mode>,
) -> bool {
    if modes == [Mode::Strict] {
        return false;
    }
    let is_strict_allowed = modes.contains(&Mode::Strict);
    match probe_mode(launcher, Some(workspace.for_jail()), modes).await {
        Ok(isolation) if isolation.mode == Mode::Strict => false,
        Ok(Isolation {
            mode,
            layers,
            missing,
            ..
        }) => {
            let told = format!(
                "{mode}: {}; it lacks {}",
                layers.join(" "),
                missing.join(" ")
            );
            if mode == Mode::Container {
                report.ok("jail", told);
            } else {
                let strict = probe_layers(launcher, Some(workspace.for_jail())).await;
                let fix = strict.into_iter().find_map(|layer| layer.fix);
                let fix = fix.filter(|_| is_strict_allowed);
                let write = || "write mode = \"strict\" into the policy".to_owned();
                report.warn("jail", told, fix.unwrap_or_else(write));
            }
            true
        }
        // Where a strict one is allowed, it is told layer by layer what that lacks.
        Err(error) => {
            let hint = error.hint().unwrap_or("see the kernel's log").to_owned();
            report.fail("jail", error.to_string(), hint);
            !is_strict_allowed
        }
    }
}

async fn examine_jail(
    report: &mut Doctor,
    launcher: &Launcher,
    workspace: Option<&Workspace>,
    require_cgroup: bool,
) {
    let layers = probe_layers(launcher, workspace.map(Workspace::for_jail)).await;
    let mut applied = Vec::new();
    for layer in layers {
        match layer.status {
            LayerStatus::Applied => applied.push(layer.layer),
            LayerStatus::Missing | LayerStatus::Absent => {
                let fix = layer
                    .fix
                    .unwrap_or_else(|| "see the kernel's log".to_owned());
                let check = format!("jail: {}", layer.layer);
                if layer.status == LayerStatus::Absent && !require_cgroup {
                    report.warn(check, layer.detail, fix);
                } else {
                    report.fail(check, layer.detail, fix);
                }
            }
            // Without a workspace or inputs there is nothing to try those on.
            LayerStatus::NotTried => {}
        }
    }
    if !applied.is_empty() {
        report.ok("jail", applied.join(" "));
    }
}

fn examine_state(report: &mut Doctor, state_dir: &Path) {
    const CHECK: &str = "state directory";
    if state_dir.symlink_metadata().is_err() {
        report.ok(
            CHECK,
            format!("{} will be made by the first call", state_dir.display()),
        );
        return;
    }
    match state_dir::open(NAME, Some(state_dir)) {
        Ok(path) => report.ok(CHECK, format!("{} is yours alone", path.display())),
        Err(error) => report.fail(
            CHECK,
            error.to_string(),
            "no call that changes something is made until this is mended",
        ),
    }
}

async fn examine_registry(report: &mut Doctor, registry: Option<(&EffectClient, &Path)>) {
    let Some((client, socket)) = registry else {
        report.ok(
            "mode",
            "open: calls need no grant; --enforced asks the registry before each change",
        );
        return;
    };
    match client.look().await {
        Ok(()) => report.ok("registry", format!("reached at {}", socket.display())),
        Err(refusal) => report.fail(
            "registry",
            format!("every changing call is refused: {}", refusal.message),
            refusal.hint,
        ),
    }
    let uid = rustix::process::geteuid().as_raw();
    let owner = owner_of_socket(socket);
    let shares_uid = owner == Some(uid);
    if shares_uid || started_by_same_uid(uid) {
        let with = if shares_uid {
            "the registry"
        } else {
            "the process that started it"
        };
        report.warn(
            "strength",
            format!("advisory: this server shares uid {uid} with {with}; an agent under that uid can get round it"),
            "run registry and effect servers under users of their own, and connect over --http with --tokens",
        );
    } else {
        report.ok(
            "strength",
            format!(
                "uid {uid} is shared neither with the registry nor with whoever started the server"
            ),
        );
    }
}

/// Whether this server's parent, a client over stdio, runs under the same uid.
fn started_by_same_uid(uid: u32) -> bool {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    // A service manager is no client.
    parent.is_some_and(|pid| {
        pid != 1
            && std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == uid)
    })
}
