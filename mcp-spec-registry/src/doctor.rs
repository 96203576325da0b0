//! Looks at everything the registry needs, and at what its checkpoints are worth.

use std::{
    os::unix::fs::MetadataExt,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
};

use shared::config::Doctor;

use crate::{SERVER, daemon::sockets, keys::Keys, say, store::Store, store::sqlite::SqliteStore};

/// Prints the report.
pub(crate) fn run(
    state_dir: Option<&Path>,
    socket_dir: Option<PathBuf>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let report = examine(state_dir, socket_dir);
    let text = if json {
        report.to_json()
    } else {
        report.to_string()
    };
    say(&text)?;
    Ok(ExitCode::from(report.exit_code()))
}

fn examine(given: Option<&Path>, socket_dir: Option<PathBuf>) -> Doctor {
    let mut report = Doctor::new();
    let state_dir = match shared::state_dir::open(SERVER, given) {
        Ok(state_dir) => state_dir,
        Err(error) => {
            report.fail(
                "state directory",
                error.to_string(),
                "make it yours alone: chown it and chmod 700",
            );
            return report;
        }
    };
    report.ok("state directory", state_dir.display().to_string());
    match Keys::of_state(&state_dir) {
        Ok(keys) => {
            report.ok(
                "keys",
                format!(
                    "readable by this uid alone; public key {}",
                    keys.public_key()
                ),
            );
            examine_store(&state_dir, keys, &mut report);
        }
        Err(error) => report.fail(
            "keys",
            error.to_string(),
            "restore keys/ from a backup; records signed by other keys are refused",
        ),
    }
    examine_sockets(&state_dir, socket_dir, &mut report);
    let uid = rustix::process::geteuid().as_raw();
    report.warn(
        "separation",
        format!("this runs as uid {uid}; agents, effect servers and deciding sessions of the same uid make runs advisory"),
        "run `mcp-spec-registry serve --agent-group GROUP` under a uid of its own, and decide from another login than the agent's",
    );
    report
}

fn examine_store(state_dir: &Path, keys: Keys, report: &mut Doctor) {
    let opened = SqliteStore::open(state_dir, std::sync::Arc::new(keys));
    let approvers = match opened.and_then(|store| Ok((store.approvers()?, store.audit_head()?))) {
        Ok((approvers, head)) => {
            let entries = head.map_or(0, |(seq, _)| seq);
            report.ok(
                "store",
                format!("registry.sqlite, {entries} audit entries; `audit verify` checks them all"),
            );
            approvers
        }
        Err(error) => {
            report.fail(
                "store",
                error.to_string(),
                "restore registry.sqlite from a backup, or use another --state-dir",
            );
            return;
        }
    };
    if approvers.is_empty() {
        report.warn(
            "approvers",
            "nobody is enrolled, so no plan can be submitted",
            "mcp-spec-registry enrol --name NAME",
        );
    } else if approvers.iter().any(|approver| approver.is_test) {
        report.warn(
            "approvers",
            "only test approvers are enrolled; their decisions prove nothing",
            "unenrol them and enrol a person",
        );
    } else {
        let names: Vec<String> = approvers
            .into_iter()
            .map(|approver| approver.name)
            .collect();
        report.ok("approvers", names.join(", "));
    }
}

fn examine_sockets(state_dir: &Path, socket_dir: Option<PathBuf>, report: &mut Doctor) {
    let folder = sockets::folder(state_dir, socket_dir);
    let agent = sockets::path(&folder, "agent");
    match UnixStream::connect(&agent) {
        Ok(_) => report.ok("registry", format!("listens at {}", agent.display())),
        Err(_) => report.ok(
            "registry",
            "does not run; the first client or command starts it",
        ),
    }
    for plane in ["agent", "effect", "approval"] {
        let own = folder.join(plane);
        let Ok(metadata) = std::fs::symlink_metadata(&own) else {
            continue;
        };
        let mode = metadata.mode() & 0o777;
        let allowed = if plane == "approval" { 0o700 } else { 0o750 };
        if mode & !allowed != 0 {
            report.fail(
                format!("{plane} socket"),
                format!("{} has mode {mode:o}", own.display()),
                format!("chmod {allowed:o} {}", own.display()),
            );
        }
    }
}
