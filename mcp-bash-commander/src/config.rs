//! The command line and its environment variables.

use std::path::PathBuf;

use shared::call_log::AuditCommand;
use shared::effect::args::EnforceArgs;
use shared::serve::ServeArgs;

/// Prefix of the environment variables: `--workspace` is `BASH_COMMANDER_WORKSPACE`.
pub const ENVIRONMENT: &str = "BASH_COMMANDER";

/// A jailed shell as an MCP server.
///
/// Commands run in jails: namespaces, a private root, Landlock, seccomp; a jail of its own for each, or one that is kept for a session
/// of them. There is no network but what the policy allows. Serves MCP over stdio, or over HTTP with --http. Without --policy the
/// workspace is writable, the system's programs are readable, nothing else exists, and where a layer is missing nothing runs; a policy
/// may name a Docker engine, or jails without namespaces, for such hosts.
#[derive(Debug, clap::Parser)]
#[command(name = "mcp-bash-commander", version, mut_args(|argument| argument.global(true)))]
pub struct Config {
    /// How the server is reached and as whom.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// The directory commands work in; nothing else of yours can be seen [default: the current directory].
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// What commands may see and use (TOML); not writable by others [default: the built-in strict policy].
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Enforced mode.
    #[command(flatten)]
    pub enforce: EnforceArgs,
    /// Check everything that is read at start, say what it comes to, and end.
    #[arg(long)]
    pub check_config: bool,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be done instead of serving.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Try every layer of the jail and look at everything else a command needs; names what is missing and how to mend it.
    Doctor {
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a command in the jail, see which files of this host it looks for in vain, and print a policy that grants them.
    ///
    /// Runs it again with what was found until nothing is missing. Read the policy before you use it: what it grants, every command can
    /// read. Files that look like credentials are named and never granted.
    Learn {
        /// The command and its arguments, as in: learn -- cargo --version
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<String>,
    },
    /// The call log.
    #[command(subcommand)]
    Audit(AuditCommand),
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn line(arguments: &[&str]) -> Result<Config, clap::Error> {
        shared::config::parse_from(
            "BASH_COMMANDER_TEST",
            std::iter::once(&"mcp-bash-commander").chain(arguments),
        )
    }

    #[test]
    fn flags_stand_before_or_behind_a_command() -> anyhow::Result<()> {
        for arguments in [
            ["--workspace", "/w", "doctor", "--json"],
            ["doctor", "--json", "--workspace", "/w"],
        ] {
            let config = line(&arguments)?;
            assert_eq!(config.workspace.as_deref(), Some(Path::new("/w")));
            assert!(matches!(
                config.command,
                Some(Command::Doctor { json: true })
            ));
        }
        let config = line(&["audit", "verify", "--against", "x", "--state-dir", "/s"])?;
        assert_eq!(config.serve.state_dir.as_deref(), Some(Path::new("/s")));
        Ok(())
    }
}
