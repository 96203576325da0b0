//! What the proxy bounds, and how it ends.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::network::proxy::MAX_CONNECTIONS;

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_finish_its_request_is_cut_off() -> anyhow::Result<()> {
    let mut network = Network::to_loopback(&[])?;
    for (sent, answer) in [
        (&b""[..], &b""[..]),
        (
            b"CONNECT evil.test:443 HTTP/1.1\r\nA: b\r\n",
            b"HTTP/1.1 408 ",
        ),
        (&[5], b""),
        (&[5, 1, 0, 5, 1, 0, 3, 200, b'a'], &[5, 0]),
    ] {
        let started = Instant::now();
        // Cut off with bytes unread, the connection may end in a reset: what matters is that it ends.
        let mut client = network.connect().await?;
        client.write_all(sent).await?;
        let mut received = Vec::new();
        let _ = client.read_to_end(&mut received).await;
        assert!(received.starts_with(answer), "{}", received.escape_ascii());
        let took = started.elapsed();
        assert!(
            (Duration::from_secs(10)..Duration::from_secs(12)).contains(&took),
            "{took:?}"
        );
    }
    let refusal = network.refusal().await?;
    assert_eq!(
        (refusal.host.as_str(), refusal.reason),
        ("evil.test:443", Reason::Malformed)
    );
    Ok(())
}

#[tokio::test]
async fn a_head_without_an_end_is_refused() -> anyhow::Result<()> {
    let mut network = Network::to_loopback(&[])?;
    let head = format!("GET http://evil.test/{} HTTP/1.1\r\n", "a".repeat(100_000));
    let answer = String::from_utf8(network.exchange(head.as_bytes()).await?)?;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(network.refusal().await?.host, "evil.test");
    Ok(())
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_others_to_end() -> anyhow::Result<()> {
    let network = Network::to_loopback(&[])?;
    let greet = async || -> io::Result<TcpStream> {
        let mut client = network.connect().await?;
        client.write_all(&[5, 1, 0]).await?;
        Ok(client)
    };
    let mut answer = [0; 2];
    let mut served = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut client = greet().await?;
        client.read_exact(&mut answer).await?;
        served.push(client);
    }
    let mut waiting = greet().await?;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        waiting.try_read(&mut answer).map_err(|error| error.kind()),
        Err(io::ErrorKind::WouldBlock)
    );
    served.pop();
    waiting.read_exact(&mut answer).await?;
    assert_eq!(answer, [5, 0]);
    Ok(())
}

#[tokio::test]
async fn dropping_the_proxy_cuts_every_tunnel_and_closes_the_port() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let network = Network::to_loopback(&[private("static.example.org", address.port())])?;
    let proxy = network.proxy.address();
    let mut client = network.connect().await?;
    let head = format!(
        "CONNECT static.example.org:{} HTTP/1.1\r\n\r\n",
        address.port()
    );
    client.write_all(head.as_bytes()).await?;
    let (mut upstream, _) = listener.accept().await?;
    let mut answer = [0; 39];
    client.read_exact(&mut answer).await?;
    upstream.write_all(b"x").await?;
    client.read_u8().await?;

    drop(network);
    for end in [&mut client, &mut upstream] {
        assert_eq!(
            end.read_u8().await.map_err(|error| error.kind()),
            Err(io::ErrorKind::ConnectionReset)
        );
    }
    assert_eq!(
        TcpStream::connect(proxy)
            .await
            .err()
            .map(|error| error.kind()),
        Some(io::ErrorKind::ConnectionRefused)
    );
    Ok(())
}

#[tokio::test]
async fn only_a_listening_socket_can_be_served() -> anyhow::Result<()> {
    let (_listener, address) = listen().await?;
    let connected = std::net::TcpStream::connect(address)?;
    let started = Proxy::start(connected.into(), AllowList::default(), |_| ());
    assert_eq!(
        started.err().map(|error| error.kind()),
        Some(io::ErrorKind::InvalidInput)
    );
    Ok(())
}
