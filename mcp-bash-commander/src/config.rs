//! The command line and its environment variables.

use std::path::PathBuf;

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
    /// Make changes only where a plan approved by a human allows them: each changing call needs a grant of the registry.
    #[arg(long, requires = "registry_token")]
    pub enforced: bool,
    /// The registry's effect socket, as unix:PATH [default: that of a registry with default directories].
    #[arg(long, value_name = "unix:PATH", requires = "enforced")]
    pub registry: Option<String>,
    /// Credential of this server, as written by `mcp-spec-registry token add --kind service`.
    #[arg(long, value_name = "FILE", requires = "enforced")]
    pub registry_token: Option<PathBuf>,
    /// Uid the registry runs as, if it is neither root's nor this server's.
    #[arg(long, value_name = "UID", requires = "enforced")]
    pub registry_uid: Option<u32>,
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

/// What can be done with the call log.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Check the chain of every call log in the state directory: 0 and a summary, or 1 and the first bad line.
    Verify {
        /// A head noted earlier (SEQ:HASH, or a file that holds it): also finds a cut-off end.
        #[arg(long, value_name = "HEAD|FILE")]
        against: Option<String>,
    },
}

/// A value on the command line that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--registry` is no socket.
    #[error("--registry is `{0}`; write unix:PATH, the registry's effect socket")]
    Registry(String),
    /// There is no default for `--registry`.
    #[error(
        "there is no default place for the registry's socket here ({0}); give --registry unix:PATH"
    )]
    NoRegistry(#[from] shared::state_dir::StateDirError),
}

impl Config {
    /// The registry's effect socket.
    ///
    /// # Errors
    /// A `--registry` that is no `unix:PATH`, or none and no home to derive it from.
    pub fn registry_socket(&self) -> Result<PathBuf, ConfigError> {
        match &self.registry {
            Some(given) => match given.strip_prefix("unix:") {
                Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
                _ => Err(ConfigError::Registry(given.clone())),
            },
            None => default_registry_socket(),
        }
    }
}

/// Where a registry with default directories has its effect socket.
fn default_registry_socket() -> Result<PathBuf, ConfigError> {
    let state = shared::state_dir::default_path("mcp-spec-registry")?;
    let folder = shared::state_dir::socket_folder(&state);
    Ok(folder.join("effect/effect.sock"))
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

    #[test]
    fn enforcing_needs_a_credential() {
        assert!(line(&["--enforced"]).is_err());
        assert!(line(&["--registry", "unix:/x"]).is_err());
        assert!(line(&["--enforced", "--registry-token", "t"]).is_ok());
    }

    #[test]
    fn the_registry_is_a_unix_socket() -> anyhow::Result<()> {
        let of = |registry| {
            line(&[
                "--enforced",
                "--registry-token",
                "t",
                "--registry",
                registry,
            ])
        };
        assert_eq!(
            of("unix:/run/x.sock")?.registry_socket()?,
            Path::new("/run/x.sock")
        );
        for wrong in ["/run/x.sock", "http://localhost", "unix:"] {
            assert!(of(wrong)?.registry_socket().is_err(), "{wrong}");
        }
        Ok(())
    }
}
