//! Reads the command line and does what it says.

use std::process::ExitCode;

use mcp_spec_registry::config::{Config, ENVIRONMENT};

fn main() -> ExitCode {
    shared::telemetry::start(ENVIRONMENT, "warn");
    let config: Config = shared::config::parse(ENVIRONMENT);
    shared::config::exit_code(mcp_spec_registry::run(config))
}
