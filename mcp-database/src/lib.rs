//! Databases as an MCP server: one contract for their answers, reads that can only read, changes that were allowed.

pub mod config;
pub mod confirm;
pub mod cursor;
mod database;
mod doctor;
pub mod embedder;
pub mod fence;
pub mod finding;
mod fingerprint;
pub mod mongodb;
pub mod neo4j;
pub mod postgres;
pub mod redis;
pub mod server;
pub mod source;
pub mod sources;
pub mod table;
pub mod tls;
mod tools;

use std::io::Write as _;
use std::process::ExitCode;

use config::{Command, Config};
use server::DatabaseServer;
use shared::metrics::Metrics;

/// Does what the command line says, until it is done or the server ends.
///
/// # Errors
/// A configuration that cannot be used, or serving that failed.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    match &config.command {
        Some(Command::Audit(command)) => {
            shared::call_log::audit(server::NAME, config.serve.state_dir.as_deref(), command)
        }
        Some(Command::Doctor { json }) => {
            let report = doctor::of_configuration(&config).await;
            let text = if *json {
                report.to_json() + "\n"
            } else {
                report.to_string()
            };
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(ExitCode::from(report.exit_code()))
        }
        None if config.check_config => {
            let server = DatabaseServer::new(&config, Metrics::new())?;
            config.serve.http.check()?;
            writeln!(std::io::stdout(), "{}", server.summary())?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let shutdown = shared::serve::shutdown_on_signals()?;
            let metrics = Metrics::new();
            let server = DatabaseServer::new(&config, metrics.clone())?;
            server.work_for_registry(&shutdown);
            let result =
                shared::serve::serve(server.clone(), &config.serve, metrics, shutdown).await;
            server.end();
            result?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
