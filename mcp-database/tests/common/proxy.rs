//! What stands between client and server, and damages what the server says.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What becomes of what the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It arrives.
    None,
    /// The connection ends instead.
    Cut,
    /// So many bytes arrive, and then the connection ends.
    CutAfter(usize),
    /// Nothing arrives.
    Stall,
    /// This arrives instead.
    Garbage(&'static [u8]),
}

/// A proxy before a server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    fault: Arc<Mutex<Fault>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let fault = Arc::new(Mutex::new(Fault::None));
        let seen = Arc::clone(&fault);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server, Arc::clone(&seen)));
            }
        });
        Ok(Self { port, fault, task })
    }

    /// From now on, also for connections that are open.
    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

async fn forward(
    mut client: TcpStream,
    server: u16,
    fault: Arc<Mutex<Fault>>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let answering = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = from_server.read(&mut buffer).await?;
            if length == 0 {
                return Ok::<(), std::io::Error>(());
            }
            let now = *fault.lock().unwrap_or_else(PoisonError::into_inner);
            match now {
                Fault::None => to_client.write_all(&buffer[..length]).await?,
                Fault::Cut => return Ok(()),
                Fault::CutAfter(bytes) => {
                    to_client.write_all(&buffer[..length.min(bytes)]).await?;
                    return Ok(());
                }
                Fault::Stall => {}
                Fault::Garbage(bytes) => to_client.write_all(bytes).await?,
            }
        }
    };
    tokio::select! {
        outcome = answering => outcome,
        outcome = tokio::io::copy(&mut from_client, &mut to_server) => outcome.map(drop),
    }
}
