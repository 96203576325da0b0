//! Makes tokens and writes them to files that only their owner can read; none is ever printed.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    TokenCommand,
    client::Client,
    terminal::{Style, Terminal},
};
use crate::{
    approval::api::{AddToken, AddedToken},
    store::TokenKind,
};

/// A token file, as servers and the pipe read it.
#[derive(Serialize)]
struct TokenFile<'a> {
    principal: &'a str,
    kind: TokenKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    token: &'a str,
    /// A service checks the registry's audit heads with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_key: Option<&'a str>,
}

pub(super) async fn run(
    client: &Client,
    terminal: Terminal,
    command: TokenCommand,
) -> anyhow::Result<()> {
    match command {
        TokenCommand::Add {
            kind,
            name,
            server,
            out,
        } => {
            let kind = TokenKind::from(kind);
            anyhow::ensure!(
                (kind == TokenKind::Service) == server.is_some(),
                "a service token names its program with --server, an agent token does not"
            );
            // Before the token exists, so that none is lost to a file that cannot be made.
            let mut file = create_private(&out)?;
            let asked = AddToken { kind, name, server };
            let added: AddedToken = match client.post("/v1/tokens", &asked).await {
                Ok(added) => added,
                Err(error) => {
                    // It is empty and ours.
                    let _ = std::fs::remove_file(&out);
                    return Err(error.into());
                }
            };
            let text = Zeroizing::new(toml::to_string(&TokenFile {
                principal: &added.principal,
                kind: added.kind,
                server: added.server.as_deref(),
                token: &added.token,
                registry_key: (added.kind == TokenKind::Service).then_some(&added.registry_key),
            })?);
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            terminal.say(
                Style::Good,
                &format!(
                    "the token of {} is in {} and nowhere else",
                    added.principal,
                    out.display()
                ),
            )?;
        }
        TokenCommand::Export { out } => {
            let text = client
                .send(
                    hyper::Method::GET,
                    "/v1/tokens",
                    hyper::body::Bytes::new(),
                    "application/json",
                )
                .await?;
            match out {
                None => std::io::stdout().lock().write_all(&text)?,
                Some(out) => {
                    let mut file = create_private(&out)?;
                    file.write_all(&text)?;
                    file.sync_all()?;
                    terminal.say(
                        Style::Good,
                        &format!("names and token hashes are in {}", out.display()),
                    )?;
                }
            }
        }
    }
    Ok(())
}

fn create_private(path: &Path) -> anyhow::Result<std::fs::File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| {
            anyhow::anyhow!(
                "failed to create `{}`: {error}; it must be a new file",
                path.display()
            )
        })
}
