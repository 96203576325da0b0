//! Secrets that are added to requests, over loopback without encryption.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::network::{Secrets, WrittenSecret};

const SECRET: &str = "canary-5127";

/// A proxy that adds a secret to requests for `host`, which is allowed as well as `other.example.org` is, and the secret's file.
fn adding(
    host: &str,
    port: u16,
    answers: Answers,
) -> anyhow::Result<(Network, tempfile::NamedTempFile)> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), SECRET)?;
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600))?;
    let written: WrittenSecret = toml::from_str(&format!(
        "from_file = \"{}\"\ninject = {{ host = \"{host}\", port = {port}, tls = false, header = \"Authorization\", \
         value = \"Bearer {{}}\" }}",
        file.path().display()
    ))?;
    let allow = AllowList::new(&[private(host, port), private("other.example.org", port)])?;
    let secrets = Secrets::new([("gh".to_owned(), written)].into(), &allow)?;
    let network = Network::serving(Reachable { allow, secrets }, answers)?;
    Ok((network, file))
}

/// Answers one connection, and gives what was asked.
async fn answer_once(listener: &TcpListener, answer: &str) -> anyhow::Result<String> {
    let (mut upstream, _) = listener.accept().await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(upstream.read_u8().await?);
    }
    upstream.write_all(answer.as_bytes()).await?;
    upstream.shutdown().await?;
    upstream.read_to_end(&mut request).await?;
    Ok(String::from_utf8(request)?)
}

#[tokio::test]
async fn a_secret_takes_the_place_of_what_the_command_sent() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let port = address.port();
    let loopback = Answers::new(&[&[LOOPBACK]]);
    let (network, _file) = adding("api.example.org", port, loopback)?;
    let sent = |host: &str| {
        format!(
            "GET http://{host}:{port}/a?b HTTP/1.1\r\nHost: evil.test\r\nAuthorization: mine\r\nauthorization: mine too\r\n\
             Connection: Authorization\r\nAccept-Encoding: gzip\r\nRange: bytes=0-3\r\nX-Kept: 1\r\n\r\n\
             GET http://{host}:{port}/pipelined HTTP/1.1\r\n\r\n"
        )
    };
    let answer = "HTTP/1.1 204 No Content\r\n\r\n";
    let request = sent("API.example.org.");
    let (_, received) = tokio::join!(
        network.exchange(request.as_bytes()),
        answer_once(&listener, answer)
    );
    assert_eq!(
        received?,
        format!(
            "GET /a?b HTTP/1.1\r\nhost: api.example.org:{port}\r\nx-kept: 1\r\nconnection: close\r\n\
             accept-encoding: identity\r\nauthorization: Bearer {SECRET}\r\n\r\n"
        )
    );

    // The control: another host that is allowed gets nothing of it.
    let request = sent("other.example.org");
    let (_, received) = tokio::join!(
        network.exchange(request.as_bytes()),
        answer_once(&listener, answer)
    );
    let received = received?;
    assert!(received.contains("range: bytes=0-3"), "{received}");
    assert!(!received.contains(SECRET), "{received}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_gives_the_secret_back_is_not_passed_on_with_it() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let loopback = Answers::new(&[&[LOOPBACK]]);
    let (network, _file) = adding("api.example.org", address.port(), loopback)?;
    let head = |host: &str| format!("GET http://{host}:{}/ HTTP/1.1\r\n\r\n", address.port());
    let echo = format!(
        "HTTP/1.1 200 {SECRET}\r\nX-Echo: Bearer {SECRET}\r\nX-{SECRET}: 1\r\nX-Kept: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
         8\r\nx canary\r\n7\r\n-5127 y\r\n0\r\n\r\n"
    );
    let request = head("api.example.org");
    let (answer, received) = tokio::join!(
        network.exchange(request.as_bytes()),
        answer_once(&listener, &echo)
    );
    assert!(received?.contains(SECRET), "the control");
    let answer = String::from_utf8(answer?)?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("x-echo: Bearer ***********\r\n"),
        "{answer}"
    );
    assert!(answer.contains("x-kept: 1\r\n"), "{answer}");
    assert!(!answer.contains("canary"), "{answer}");
    // The body: `x ***********` and ` y`, however it is cut.
    assert!(
        answer.contains("***") && answer.contains(" y\r\n"),
        "{answer}"
    );

    let request = head("other.example.org");
    let (answer, received) = tokio::join!(
        network.exchange(request.as_bytes()),
        answer_once(&listener, &echo)
    );
    received?;
    let answer = String::from_utf8(answer?)?;
    assert_eq!(answer.matches(SECRET).count(), 3, "the control: {answer}");
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_the_clients_to_follow() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let loopback = Answers::new(&[&[LOOPBACK]]);
    let (mut network, _file) = adding("api.example.org", address.port(), loopback)?;
    let head = format!(
        "GET http://api.example.org:{}/ HTTP/1.1\r\n\r\n",
        address.port()
    );
    let redirect =
        "HTTP/1.1 302 Found\r\nLocation: http://other.example.org/\r\nContent-Length: 0\r\n\r\n";
    let (answer, received) = tokio::join!(
        network.exchange(head.as_bytes()),
        answer_once(&listener, redirect)
    );
    received?;
    let answer = String::from_utf8(answer?)?;
    assert!(answer.starts_with("HTTP/1.1 302 Found\r\n"), "{answer}");
    assert!(
        answer.contains("location: http://other.example.org/\r\n"),
        "{answer}"
    );
    assert_eq!(network.connected().await?.host, "api.example.org");
    assert!(
        network.events.try_recv().is_err(),
        "nothing else was dialled"
    );
    Ok(())
}

#[tokio::test]
async fn without_its_secret_a_request_is_not_sent() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let loopback = Answers::new(&[&[LOOPBACK]]);
    let (mut network, file) = adding("api.example.org", address.port(), loopback)?;
    file.close()?;
    let head = format!(
        "GET http://api.example.org:{}/ HTTP/1.1\r\n\r\n",
        address.port()
    );
    let answer = String::from_utf8(network.exchange(head.as_bytes()).await?)?;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("secret `gh`"), "{answer}");
    assert_eq!(
        network.refusal().await?,
        Refusal {
            host: "api.example.org".to_owned(),
            port: Some(address.port()),
            reason: Reason::NoSecret {
                secret: "gh".to_owned()
            },
        }
    );
    assert!(network.resolver.asked().is_empty());
    tokio::select! {
        biased;
        _ = listener.accept() => anyhow::bail!("something was dialled"),
        () = tokio::task::yield_now() => {}
    }
    Ok(())
}

#[tokio::test]
async fn a_secret_does_not_travel_unencrypted() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let public: IpAddr = "1.1.1.1".parse()?;
    let head = format!(
        "GET http://api.example.org:{}/ HTTP/1.1\r\n\r\n",
        address.port()
    );
    let (mut network, _file) = adding(
        "api.example.org",
        address.port(),
        Answers::new(&[&[public]]),
    )?;
    let answer = String::from_utf8(network.exchange(head.as_bytes()).await?)?;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(
        network.refusal().await?.reason,
        Reason::Unencrypted {
            secret: "gh".to_owned(),
            address: public
        }
    );

    let both = Answers::new(&[&[public, LOOPBACK]]);
    let (mut network, _file) = adding("api.example.org", address.port(), both)?;
    let (answer, received) = tokio::join!(
        network.exchange(head.as_bytes()),
        answer_once(&listener, "HTTP/1.1 204 No Content\r\n\r\n")
    );
    answer?;
    assert!(received?.contains(SECRET));
    assert_eq!(network.connected().await?.address, address);
    Ok(())
}
