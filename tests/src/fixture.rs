//! A server with a folder of its own, started in any of the ways a client may meet it.

use std::ffi::OsString;
use std::path::Path;

use tempfile::TempDir;

use crate::binaries::{Server, workspace};
use crate::client::{Client, Era, HttpEndpoint};
use crate::process::ServerProcess;

/// How a client reaches a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over the standard streams of a process the client starts.
    Stdio,
    /// Over Streamable HTTP on loopback.
    Http,
}

impl Transport {
    /// Both transports, for tests that hold on each.
    pub const ALL: [Self; 2] = [Self::Stdio, Self::Http];
}

/// A server, the client that is connected to it, and all they left on disk. Dropping it kills the server.
pub struct Fixture {
    /// The connected client. Dropping it closes the connection.
    pub client: Client,
    /// The process the client talks to.
    pub process: ServerProcess,
    /// The registry behind the process, where that is only a pipe.
    pub daemon: Option<ServerProcess>,
    /// Holds state, sockets and workspace; gone with the fixture.
    pub folder: TempDir,
}

impl Fixture {
    /// Starts a server in a fresh folder and connects to it.
    ///
    /// # Errors
    /// It does not compile, start or answer; its stderr is quoted.
    pub async fn start(server: Server, transport: Transport, era: Era) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("workspace"))?;
        let mut daemon = None;
        if server == Server::SpecRegistry && transport == Transport::Stdio {
            daemon = Some(registry(folder.path(), &[]).await?);
        }
        let mut process = match (server, transport) {
            (Server::SpecRegistry, Transport::Stdio) => {
                let arguments = ["stdio".into()]
                    .into_iter()
                    .chain(places(server, folder.path()));
                ServerProcess::start(server, folder.path(), arguments).await?
            }
            (Server::SpecRegistry, Transport::Http) => registry(folder.path(), &LOOPBACK).await?,
            (Server::BashCommander | Server::Database, _) => {
                let flags: &[&str] = if transport == Transport::Http {
                    &LOOPBACK
                } else {
                    &[]
                };
                let arguments = flags
                    .iter()
                    .map(Into::into)
                    .chain(places(server, folder.path()));
                ServerProcess::start(server, folder.path(), arguments).await?
            }
        };
        let client = match transport {
            Transport::Stdio => process.client(era).await?,
            Transport::Http => {
                let address = process.http_address().await?;
                Client::http(
                    era,
                    HttpEndpoint {
                        address,
                        token: None,
                    },
                )
                .await?
            }
        };
        Ok(Self {
            client,
            process,
            daemon,
            folder,
        })
    }
}

const LOOPBACK: [&str; 3] = ["--http", "127.0.0.1:0", "--insecure-loopback"];

/// Starts a registry with its state below `folder`, and waits until it accepts connections.
///
/// # Errors
/// It does not compile or start; its stderr is quoted.
pub async fn registry(folder: &Path, flags: &[&str]) -> anyhow::Result<ServerProcess> {
    let arguments = ["serve".into()]
        .into_iter()
        .chain(flags.iter().map(Into::into))
        .chain(places(Server::SpecRegistry, folder));
    let process = ServerProcess::start(Server::SpecRegistry, folder, arguments).await?;
    process.announcement("ready").await?;
    Ok(process)
}

/// The flags that keep a server inside `folder`.
pub fn places(server: Server, folder: &Path) -> Vec<OsString> {
    let place = match server {
        Server::SpecRegistry => ("--socket-dir", folder.join("sockets")),
        Server::BashCommander => ("--workspace", folder.join("workspace")),
        Server::Database => {
            let sources = "tests/src/fixture/sources.toml";
            ("--sources", workspace().join(sources))
        }
    };
    vec![
        "--state-dir".into(),
        folder.join("state").into(),
        place.0.into(),
        place.1.into(),
    ]
}
