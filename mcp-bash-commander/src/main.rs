//! Starts the jails' launcher, then the server: what is open or running before the launcher could reach a jail.

use std::process::ExitCode;

use mcp_bash_commander::config::{Config, ENVIRONMENT};
use mcp_bash_commander::jail::Launcher;

fn main() -> ExitCode {
    shared::config::exit_code(run())
}

fn run() -> anyhow::Result<ExitCode> {
    let launcher = Launcher::start()?;
    shared::telemetry::start(ENVIRONMENT, "warn");
    let config: Config = shared::config::parse(ENVIRONMENT);
    shared::serve::block_on(mcp_bash_commander::run(config, launcher))?
}
