//! Outcome specifications, the RAVGV cycle with human checkpoints, and its audit, as an MCP server.

pub mod approval;
pub mod audit;
pub mod checks;
pub mod client_config;
pub mod config;
pub mod daemon;
mod doctor;
mod effect_plane;
pub mod keys;
pub mod plan;
mod prompts;
pub mod registry;
mod resources;
pub mod run;
mod server;
pub mod specification;
pub mod store;
mod tools;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use zeroize::Zeroizing;

use config::{AuditCommand, Command, Config};

pub use server::SpecRegistry;

/// Name of this server's state directory.
pub const SERVER: &str = "mcp-spec-registry";

/// Does what the command line says.
///
/// # Errors
/// What keeps it from doing so.
pub fn run(config: Config) -> anyhow::Result<ExitCode> {
    let Config {
        state_dir,
        socket_dir,
        pipe,
        check_config,
        command,
    } = config;
    // It measures with nothing but its stdin and stdout.
    if let Some(Command::CheckWorker) = command {
        checks::worker::main()?;
        return Ok(ExitCode::SUCCESS);
    }
    let given = state_dir.as_deref();
    match command {
        Some(Command::Doctor { json }) => return doctor::run(given, socket_dir, json),
        Some(Command::ClientConfig {
            client,
            workspace,
            shell_token,
        }) => {
            let program = std::env::current_exe()?;
            let given = given.map(std::path::absolute).transpose()?;
            let workspace = workspace.map(std::path::absolute).transpose()?;
            let token = shell_token.map(std::path::absolute).transpose()?;
            let beside = program.with_file_name("mcp-bash-commander");
            let shell = workspace.as_deref().map(|workspace| client_config::Shell {
                program: &beside,
                workspace,
                token: token.as_deref(),
            });
            let config = client_config::client_config(client, &program, given.as_deref(), shell);
            say(&config)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let state_dir = shared::state_dir::open(SERVER, given)?;
    if check_config {
        say(&checked(&state_dir, socket_dir, &pipe, command.as_ref())?)?;
        return Ok(ExitCode::SUCCESS);
    }
    match command.unwrap_or(Command::Stdio) {
        Command::Stdio => {
            let token = pipe.token_file.as_deref().map(read_token).transpose()?;
            let socket = pipe
                .connect
                .as_deref()
                .map(|address| address.strip_prefix("unix:").ok_or(address));
            match socket.transpose() {
                Ok(socket) => daemon::pipe::run(
                    &state_dir,
                    socket_dir,
                    socket.map(Path::new),
                    pipe.agent,
                    token,
                )?,
                Err(url) => daemon::bridge::run(url, token)?,
            }
        }
        Command::Serve(serve) => {
            if serve.detached {
                daemon::launch::detach()?;
            }
            shared::serve::block_on(daemon::serve(state_dir, socket_dir, serve))??;
        }
        Command::Approval(command) => return approval::cli::run(command, &state_dir, socket_dir),
        Command::Audit(AuditCommand::Verify { against }) => {
            return verify_audit(&state_dir, against.as_deref());
        }
        Command::CheckWorker | Command::Doctor { .. } | Command::ClientConfig { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads all that a start would read, and says what it comes to.
fn checked(
    state_dir: &Path,
    socket_dir: Option<PathBuf>,
    pipe: &config::PipeArgs,
    command: Option<&Command>,
) -> anyhow::Result<String> {
    let folder = daemon::sockets::folder(state_dir, socket_dir);
    daemon::sockets::check(&folder)?;
    if let Some(path) = &pipe.token_file {
        read_token(path)?;
    }
    if let Some(Command::Serve(serve)) = command {
        daemon::check(serve)?;
    }
    // A first start makes the keys; those that are there must be whole.
    let keys = state_dir.join("keys");
    let keys = if keys.exists() {
        keys::Keys::open(&keys)?;
        "whole"
    } else {
        "made by the first start"
    };
    Ok(format!(
        "state directory {}\nsockets         {}\nkeys            {keys}",
        state_dir.display(),
        folder.display()
    ))
}

/// An agent's token: the file that `token add` wrote, or the bare token.
fn read_token(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    #[derive(serde::Deserialize)]
    struct TokenFile {
        token: String,
    }
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.with_context(|| format!("failed to read the token file {}", path.display()))?;
    if !text.contains('=') {
        return Ok(Zeroizing::new(text.trim().to_owned()));
    }
    // The parser's message would quote the file.
    let file: TokenFile = toml::from_str(&text).ok().with_context(|| {
        format!(
            "{} is no token file; `token add --kind agent` writes one",
            path.display()
        )
    })?;
    Ok(Zeroizing::new(file.token))
}

fn verify_audit(state_dir: &Path, against: Option<&str>) -> anyhow::Result<ExitCode> {
    let database = state_dir.join("registry.sqlite");
    anyhow::ensure!(
        database.exists(),
        "there is no registry in `{}` to verify; give --state-dir the directory of one. If there was one, it was removed",
        state_dir.display()
    );
    let keys = keys::Keys::open(&state_dir.join("keys"))?;
    let against = against.map(audit::Against::read).transpose()?;
    match audit::verify_database(&database, keys.verifying(), against.as_ref()) {
        Ok(summary) => {
            let head = summary.head.map_or_else(String::new, |head| {
                format!(", signed head {} {}", head.seq, head.hash)
            });
            say(&format!(
                "{} entries, the chain holds{head}",
                summary.entries
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(audit::VerifyError::Bad(bad)) => {
            say(&format!("entry {}: {}", bad.seq, bad.reason))?;
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

/// Prints a command's answer.
pub(crate) fn say(text: &str) -> std::io::Result<()> {
    use std::io::Write;

    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}
