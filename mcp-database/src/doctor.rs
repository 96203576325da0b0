//! Whether every source can be reached as the configuration says, and what its credential may do that it need not.

use shared::config::Doctor;
use shared::metrics::Metrics;
use shared::state_dir;

use crate::config::Config;
use crate::database::Database;
use crate::finding::{Finding, Severity};
use crate::server::{DatabaseServer, NAME};

/// The report on a command line; what keeps the server from starting is its first failure.
pub(crate) async fn of_configuration(config: &Config) -> Doctor {
    let mut report = Doctor::new();
    let server = match DatabaseServer::new(config, Metrics::new()) {
        Ok(server) => server,
        Err(error) => {
            report.fail(
                "configuration",
                format!("{error:#}"),
                "change what it names, then run doctor again",
            );
            return report;
        }
    };
    for database in server.state().databases.iter() {
        examine(&mut report, database).await;
    }
    let state = state_dir::open(NAME, Some(&server.state().directory));
    match state {
        Ok(path) => report.ok("state directory", path.display().to_string()),
        Err(error) => report.fail(
            "state directory",
            error.to_string(),
            "give another one with --state-dir",
        ),
    }
    server.examine_registry(&mut report).await;
    report
}

async fn examine(report: &mut Doctor, database: &Database) {
    let check = format!("source {}", database.settings.id);
    match database.look().await {
        Ok(looked) => {
            let version = looked.version.as_deref().unwrap_or("of unknown version");
            let role = looked.role.as_deref().unwrap_or("nobody");
            let engine = database.settings.engine;
            let told = format!("{engine} {version}, as {role}");
            match &looked.refusal {
                None => report.ok(&check, told),
                Some(refusal) => report.fail(
                    &check,
                    format!("{told}: {}", refusal.message),
                    refusal.hint.as_deref().unwrap_or("give another role"),
                ),
            }
            findings(report, &check, &looked.findings);
        }
        Err(error) => report.fail(
            &check,
            error.message,
            "look at url, password and tls of the source, and whether the server runs",
        ),
    }
}

fn findings(report: &mut Doctor, check: &str, findings: &[Finding]) {
    for Finding {
        severity,
        finding,
        advice,
    } in findings
    {
        if *severity == Severity::Low {
            report.ok(check, finding);
        } else {
            report.warn(check, finding, advice);
        }
    }
}
