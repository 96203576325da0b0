//! Starts the server, or does what the command line says instead.

use std::process::ExitCode;

use mcp_database::config::{Config, ENVIRONMENT};

fn main() -> ExitCode {
    shared::config::exit_code(run())
}

fn run() -> anyhow::Result<ExitCode> {
    shared::telemetry::start(ENVIRONMENT, "warn");
    let config: Config = shared::config::parse(ENVIRONMENT);
    shared::serve::block_on(mcp_database::run(config))?
}
