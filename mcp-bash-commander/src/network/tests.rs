//! The proxy end to end, over loopback with real destinations.

mod http;
mod limits;
mod names;
mod secrets;
mod socks;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    AllowList, Connected, Event, Proxy, Reachable, Reason, Refusal, Resolve, WrittenEntry,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A resolver that answers in turn, repeats its last answer, and remembers what it was asked.
#[derive(Clone)]
struct Answers {
    answers: Arc<Mutex<VecDeque<Vec<IpAddr>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Answers {
    fn new(answers: &[&[IpAddr]]) -> Self {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        Self {
            answers: Arc::new(Mutex::new(answers)),
            asked: Arc::default(),
        }
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut asked)
    }
}

impl Resolve for Answers {
    fn lookup(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(name);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        };
        let answer = answer.ok_or_else(|| io::Error::other("no such name"));
        Box::pin(async { answer })
    }
}

/// A proxy with an allow list, answers to names, and a record of what it did.
struct Network {
    proxy: Proxy,
    resolver: Answers,
    events: UnboundedReceiver<Event>,
}

impl Network {
    fn start(allow: &[WrittenEntry], resolver: Answers) -> anyhow::Result<Self> {
        Self::serving(AllowList::new(allow)?.into(), resolver)
    }

    fn serving(reachable: Reachable, resolver: Answers) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((LOOPBACK, 0))?;
        let (sender, events) = unbounded_channel();
        let report = move |event| drop(sender.send(event));
        let proxy = Proxy::with_resolver(listener.into(), reachable, resolver.clone(), report)?;
        Ok(Self {
            proxy,
            resolver,
            events,
        })
    }

    /// One whose names all resolve to loopback.
    fn to_loopback(allow: &[WrittenEntry]) -> anyhow::Result<Self> {
        Self::start(allow, Answers::new(&[&[LOOPBACK]]))
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.proxy.address()).await
    }

    /// Sends all of `bytes`, and reads until the proxy ends the connection.
    async fn exchange(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut client = self.connect().await?;
        client.write_all(bytes).await?;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await?;
        Ok(answer)
    }

    async fn refusal(&mut self) -> anyhow::Result<Refusal> {
        match self.events.recv().await {
            Some(Event::Refused(refusal)) => Ok(refusal),
            other => anyhow::bail!("no refusal but {other:?}"),
        }
    }

    async fn connected(&mut self) -> anyhow::Result<Connected> {
        match self.events.recv().await {
            Some(Event::Connected(connected)) => Ok(connected),
            other => anyhow::bail!("no connection but {other:?}"),
        }
    }
}

fn private(host: &str, port: u16) -> WrittenEntry {
    WrittenEntry {
        host: format!("{host}:{port}"),
        private: true,
    }
}

async fn listen() -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((LOOPBACK, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A port where nobody listens.
async fn closed_port() -> anyhow::Result<u16> {
    Ok(listen().await?.1.port())
}

/// Passes `there` and `back` along a tunnel, then ends one direction after the other.
async fn check_tunnel(mut client: TcpStream, mut upstream: TcpStream) -> anyhow::Result<()> {
    let there: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let (sent, received) = tokio::join!(
        async {
            client.write_all(&there).await?;
            client.shutdown().await
        },
        async {
            let mut received = Vec::new();
            upstream.read_to_end(&mut received).await.map(|_| received)
        }
    );
    sent?;
    assert!(received? == there);
    upstream.write_all(b"all of it").await?;
    drop(upstream);
    let mut back = Vec::new();
    client.read_to_end(&mut back).await?;
    assert_eq!(back, b"all of it");
    Ok(())
}

#[test]
fn every_way_to_name_a_proxy_is_in_the_environment() -> anyhow::Result<()> {
    let variables = super::environment("127.0.0.1:3128".parse()?);
    assert_eq!(
        variables.map(|(name, value)| format!("{name}={value}")),
        [
            "HTTP_PROXY=http://127.0.0.1:3128",
            "http_proxy=http://127.0.0.1:3128",
            "HTTPS_PROXY=http://127.0.0.1:3128",
            "https_proxy=http://127.0.0.1:3128",
            "ALL_PROXY=socks5h://127.0.0.1:3128",
            "all_proxy=socks5h://127.0.0.1:3128",
            "NO_PROXY=localhost,127.0.0.1,::1",
            "no_proxy=localhost,127.0.0.1,::1",
        ]
    );
    Ok(())
}

#[test]
fn events_are_written_with_their_reasons() -> anyhow::Result<()> {
    let refusal = Refusal {
        host: "a.example".to_owned(),
        port: Some(443),
        reason: Reason::PrivateAddress { address: LOOPBACK },
    };
    assert_eq!(
        serde_json::to_string(&Event::Refused(refusal))?,
        r#"{"event":"refused","host":"a.example","port":443,"reason":{"kind":"private_address","address":"127.0.0.1"}}"#
    );
    Ok(())
}
