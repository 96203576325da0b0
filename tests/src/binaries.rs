//! The servers' programs: built once for all who ask, in the profile this program was built in.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use tokio::sync::OnceCell;

/// A server of this workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// `mcp-spec-registry`
    SpecRegistry,
    /// `mcp-bash-commander`
    BashCommander,
    /// `mcp-database`
    Database,
}

impl Server {
    /// Every server there is, for tests that hold of each.
    pub const ALL: [Self; 3] = [Self::BashCommander, Self::Database, Self::SpecRegistry];

    /// The name of its package and program.
    pub fn name(self) -> &'static str {
        match self {
            Self::SpecRegistry => "mcp-spec-registry",
            Self::BashCommander => "mcp-bash-commander",
            Self::Database => "mcp-database",
        }
    }

    /// The path of its program, which is up to date with the sources.
    ///
    /// # Errors
    /// Cargo cannot be run or the workspace does not compile.
    pub async fn program(self) -> anyhow::Result<PathBuf> {
        static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
        let folder = FOLDER
            .get_or_try_init(|| async { tokio::task::spawn_blocking(build).await? })
            .await?;
        Ok(folder.join(self.name()))
    }
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Builds all servers and returns the folder they are in.
fn build() -> anyhow::Result<PathBuf> {
    // The whole workspace at once: a smaller selection would resolve other features and compile everything again.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .args(["build", "--workspace", "--bins", "--quiet"]);
    // What cargo sets for the program it runs would look like a changed environment to build scripts, which then run again.
    for (name, _) in std::env::vars_os() {
        let of_this_package = [
            "CARGO_MANIFEST_",
            "CARGO_PKG_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ];
        let name = name.to_string_lossy().into_owned();
        if of_this_package.iter().any(|start| name.starts_with(start)) {
            cargo.env_remove(name);
        }
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.status().context("cargo cannot be run")?;
    if !status.success() {
        bail!("the servers do not compile");
    }
    let own = std::env::current_exe()?;
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| folder.join(Server::ALL[0].name()).is_file());
    folder
        .map(Path::to_owned)
        .with_context(|| format!("no servers beside {}", own.display()))
}
