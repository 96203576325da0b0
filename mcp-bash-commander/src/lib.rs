//! A jailed shell as an MCP server: sessions, policy and tools around a strict jail.

pub mod check;
pub mod config;
mod confine;
pub mod doctor;
pub mod enforce;
pub mod jail;
mod learn;
pub mod network;
pub mod policy;
pub mod publish;
pub mod records;
pub mod server;
pub mod session;
mod tools;
pub mod workspace;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use config::{Command, Config};
use jail::Launcher;
use server::BashCommander;
use shared::metrics::Metrics;

/// How long the end of the server may wait for that of the jails.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Does what the command line says, until it is done or the server ends.
///
/// # Errors
/// A configuration that cannot be used, or serving that failed.
pub async fn run(config: Config, launcher: Launcher) -> anyhow::Result<ExitCode> {
    match &config.command {
        Some(Command::Audit(command)) => {
            shared::call_log::audit(server::NAME, config.serve.state_dir.as_deref(), command)
        }
        Some(Command::Doctor { json }) => {
            let report = doctor::of_configuration(&config, launcher).await;
            let text = if *json {
                report.to_json() + "\n"
            } else {
                report.to_string()
            };
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(ExitCode::from(report.exit_code()))
        }
        Some(Command::Learn { argv }) => learn::learn(&config, launcher, argv).await,
        None if config.check_config => {
            let server = BashCommander::new(&config, launcher, Metrics::new())?;
            config.serve.http.check()?;
            writeln!(std::io::stdout(), "{}", server.summary())?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let shutdown = shared::serve::shutdown_on_signals()?;
            let metrics = Metrics::new();
            let server = BashCommander::new(&config, launcher.clone(), metrics.clone())?;
            server.work_for_registry(&shutdown);
            let result =
                shared::serve::serve(server.clone(), &config.serve, metrics, shutdown).await;
            server.end().await;
            launcher.end(LAST_WAIT);
            result?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
