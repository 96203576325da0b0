//! The command line of enforced mode, the same for every effect server.

use std::path::{Path, PathBuf};

use crate::state_dir::{self, StateDirError};

/// Enforced mode; flattened into an effect server's own arguments.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct EnforceArgs {
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
}

/// A value on the command line that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// `--registry` is no socket.
    #[error("--registry is `{0}`; write unix:PATH, the registry's effect socket")]
    Registry(String),
    /// There is no default for `--registry`.
    #[error(
        "there is no default place for the registry's socket here ({0}); give --registry unix:PATH"
    )]
    NoRegistry(#[from] StateDirError),
}

impl EnforceArgs {
    /// The registry's effect socket; `None` where nothing is enforced.
    ///
    /// # Errors
    /// A `--registry` that is no `unix:PATH`, or none and no home to derive it from.
    pub fn socket(&self) -> Result<Option<PathBuf>, EnforceError> {
        if !self.enforced {
            return Ok(None);
        }
        Ok(Some(match &self.registry {
            Some(given) => match given.strip_prefix("unix:") {
                Some(path) if !path.is_empty() => PathBuf::from(path),
                _ => return Err(EnforceError::Registry(given.clone())),
            },
            None => default_socket()?,
        }))
    }
}

/// Where a registry with default directories has its effect socket.
fn default_socket() -> Result<PathBuf, StateDirError> {
    let state = state_dir::default_path("mcp-spec-registry")?;
    Ok(state_dir::socket_folder(&state).join("effect/effect.sock"))
}

/// The uid that owns the registry's socket, if it is there.
pub fn owner_of_socket(socket: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    socket.metadata().ok().map(|metadata| metadata.uid())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        enforce: EnforceArgs,
    }

    fn line(arguments: &[&str]) -> Result<EnforceArgs, clap::Error> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(arguments))?;
        Ok(line.enforce)
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
        let socket = of("unix:/run/x.sock")?.socket()?;
        assert_eq!(socket.as_deref(), Some(Path::new("/run/x.sock")));
        for wrong in ["/run/x.sock", "http://localhost", "unix:"] {
            assert!(of(wrong)?.socket().is_err(), "{wrong}");
        }
        assert_eq!(line(&[])?.socket()?, None);
        Ok(())
    }
}
