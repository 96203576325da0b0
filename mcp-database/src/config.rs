//! The command line and its environment variables.

use std::path::PathBuf;

use shared::call_log::AuditCommand;
use shared::effect::args::EnforceArgs;
use shared::serve::ServeArgs;

use crate::source::{Mode, Password};
use crate::sources::{self, Sources, SourcesError};

/// Prefix of the environment variables: `--sources` is `DATABASE_SOURCES`. (`DATABASE_URL` is what other programs read, and often has a
/// password in it: `--url` is `MCP_DATABASE_URL`.)
pub const ENVIRONMENT: &str = "DATABASE";
/// Where the password of `--url` is, if no file is named.
const PASSWORD: &str = "DATABASE_PASSWORD";

/// Databases as an MCP server: PostgreSQL, Redis, MongoDB and Neo4j, with reads that can only read.
///
/// Serves MCP over stdio, or over HTTP with --http. One database is named with --url; several, and everything else there is to say of
/// one, in a file: --sources. Nothing is connected to before a call needs it. The password of --url is read from --password-file or
/// from `DATABASE_PASSWORD` in the environment.
#[derive(Debug, clap::Parser)]
#[command(name = "mcp-database", version, mut_args(|argument| argument.global(true)))]
pub struct Config {
    /// How the server is reached and as whom.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// The databases (TOML): [[source]] entries with id and url.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub sources: Option<PathBuf>,
    /// One database, named `main`: postgres://, redis://, mongodb:// or neo4j://, without a password in it.
    #[arg(long, env = "MCP_DATABASE_URL", value_name = "URL")]
    pub url: Option<String>,
    /// File with the password for --url.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub password_file: Option<PathBuf>,
    /// Let --url be changed, too, not only read.
    #[arg(long, requires = "url")]
    pub write: bool,
    /// Enforced mode.
    #[command(flatten)]
    pub enforce: EnforceArgs,
    /// Check everything that is read at start, say what it comes to, and end. Connects to nothing.
    #[arg(long)]
    pub check_config: bool,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be done instead of serving.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Connect to every source and look at what its credential may do; names what is wrong and how to mend it.
    Doctor {
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// The call log.
    #[command(subcommand)]
    Audit(AuditCommand),
}

impl Config {
    /// The sources that are to be served.
    ///
    /// # Errors
    /// None, or what of them cannot be used.
    pub fn served(&self) -> Result<Sources, SourcesError> {
        match (&self.sources, &self.url) {
            (Some(file), _) => sources::of_file(file),
            (None, Some(url)) => {
                let mode = if self.write { Mode::Write } else { Mode::Read };
                let password = match &self.password_file {
                    Some(file) => Some(Password::File(file.clone())),
                    None => {
                        std::env::var_os(PASSWORD).map(|_| Password::Variable(PASSWORD.to_owned()))
                    }
                };
                sources::of_url(url, password, mode)
            }
            (None, None) => Err(SourcesError::None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> Result<Config, clap::Error> {
        let line = std::iter::once(&"mcp-database").chain(arguments);
        shared::config::parse_from("DATABASE_TEST", line)
    }

    #[test]
    fn one_database_needs_no_file() -> anyhow::Result<()> {
        let config = line(&[
            "--url",
            "postgres://reader@localhost/shop",
            "--password-file",
            "p",
        ])?;
        let settings = config.served()?.sources;
        assert_eq!(settings[0].id, "main");
        assert_eq!(settings[0].mode, Mode::Read);
        assert_eq!(settings[0].password, Some(Password::File("p".into())));
        Ok(())
    }

    #[test]
    fn a_file_and_a_url_exclude_each_other_and_neither_is_an_error() -> anyhow::Result<()> {
        assert!(line(&["--url", "redis://localhost", "--sources", "s"]).is_err());
        assert!(line(&["--write"]).is_err());
        assert!(line(&[])?.served().is_err());
        Ok(())
    }
}
