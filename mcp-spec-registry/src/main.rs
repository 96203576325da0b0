//! Reads the command line and does what it says.

use std::process::ExitCode;

use mcp_spec_registry::config::{Config, ENVIRONMENT};

fn main() -> anyhow::Result<ExitCode> {
    shared::telemetry::start(ENVIRONMENT, "warn");
    let config: Config = shared::config::parse(ENVIRONMENT);
    mcp_spec_registry::run(config)
}
