//! CONNECT and plain requests.

use super::*;
use crate::network::ConnectFailure;

/// Takes one connection, reads a request up to `end`, and answers it.
async fn serve_once(listener: &TcpListener, end: &[u8], answer: &[u8]) -> io::Result<String> {
    let (mut upstream, _) = listener.accept().await?;
    let mut request = Vec::new();
    while !request.ends_with(end) {
        request.push(upstream.read_u8().await?);
    }
    upstream.write_all(answer).await?;
    upstream.shutdown().await?;
    // Whatever else would come belongs to the request too.
    upstream.read_to_end(&mut request).await?;
    Ok(String::from_utf8_lossy(&request).into_owned())
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let mut network = Network::to_loopback(&[private("static.example.org", address.port())])?;
    let mut client = network.connect().await?;
    let head = format!(
        "CONNECT Static.Example.org.:{} HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        address.port()
    );
    client.write_all(head.as_bytes()).await?;
    let (upstream, _) = listener.accept().await?;
    let mut answer = [0; 39];
    client.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"HTTP/1.1 200 Connection established\r\n\r\n");
    check_tunnel(client, upstream).await?;
    assert_eq!(
        network.connected().await?,
        Connected {
            host: "static.example.org".to_owned(),
            port: address.port(),
            address
        }
    );
    Ok(())
}

#[tokio::test]
async fn bytes_sent_right_behind_a_connect_reach_the_destination_untouched() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let network = Network::to_loopback(&[private("static.example.org", address.port())])?;
    let sent = format!(
        "CONNECT static.example.org:{} HTTP/1.1\r\n\r\nGET http://evil.test/ HTTP/1.1\n\0\r\n\r\n",
        address.port()
    );
    let (answer, received) = tokio::join!(
        network.exchange(sent.as_bytes()),
        serve_once(&listener, b"\0\r\n\r\n", b"bye")
    );
    assert!(answer?.ends_with(b"\r\n\r\nbye"));
    assert_eq!(received?, "GET http://evil.test/ HTTP/1.1\n\0\r\n\r\n");
    Ok(())
}

#[tokio::test]
async fn a_plain_request_is_passed_on_for_the_host_of_its_target_alone() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let network = Network::to_loopback(&[private("static.example.org", address.port())])?;
    let port = address.port();
    let sent = format!(
        "GET http://STATIC.example.org:{port}/a/../b?c=%00 HTTP/1.1\r\nHost: evil.test\r\nAccept: */*\r\n\
         Connection: keep-alive, X-Hop\r\n\
         X-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: trailers\r\n\
         Upgrade: websocket\r\n\r\nGET http://evil.test/pipelined HTTP/1.1\r\n\r\njunk"
    );
    let (answer, received) = tokio::join!(
        network.exchange(sent.as_bytes()),
        serve_once(
            &listener,
            b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nKeep-Alive: 9\r\nX-Real: 1\r\nContent-Length: 5\r\n\r\nhello"
        )
    );
    assert_eq!(
        received?,
        format!(
            "GET /a/../b?c=%00 HTTP/1.1\r\nhost: static.example.org:{port}\r\naccept: */*\r\nconnection: close\r\n\r\n"
        )
    );
    let answer = String::from_utf8(answer?)?.to_ascii_lowercase();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    assert_eq!(body, "hello");
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    assert!(head.contains("x-real: 1") && head.contains("connection: close"));
    assert!(!head.contains("keep-alive"));
    Ok(())
}

#[tokio::test]
async fn a_target_without_a_path_is_for_the_root() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let network = Network::to_loopback(&[private("static.example.org", address.port())])?;
    for (path, passed_on) in [("", "/"), ("?a=b", "/?a=b"), ("/#c", "/")] {
        let sent = format!(
            "GET http://static.example.org:{}{path} HTTP/1.1\r\n\r\n",
            address.port()
        );
        let (answer, received) = tokio::join!(
            network.exchange(sent.as_bytes()),
            serve_once(&listener, b"\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nhello")
        );
        let received = received?;
        let expected = format!("GET {passed_on} HTTP/1.1\r\n");
        assert!(received.starts_with(&expected), "{path}: {received}");
        let answer = String::from_utf8(answer?)?;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("hello"), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_body_is_passed_on_and_what_follows_it_is_not() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let network = Network::to_loopback(&[private("static.example.org", address.port())])?;
    for (framing, end) in [
        ("Content-Length: 5\r\n\r\nhello", "hello"),
        (
            "Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "0\r\n\r\n",
        ),
    ] {
        let sent = format!(
            "POST http://static.example.org:{}/ HTTP/1.1\r\nExpect: 100-continue\r\n{framing}\
             GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            address.port()
        );
        let (answer, received) = tokio::join!(
            network.exchange(sent.as_bytes()),
            serve_once(
                &listener,
                end.as_bytes(),
                b"HTTP/1.1 204 No Content\r\n\r\n"
            )
        );
        let received = received?;
        assert!(received.starts_with("POST / HTTP/1.1\r\n"), "{received}");
        assert!(
            received.contains("lo") && received.ends_with(end),
            "{received}"
        );
        assert!(!received.contains("evil.test"), "{received}");
        let answer = String::from_utf8(answer?)?;
        assert!(answer.contains("HTTP/1.1 204 No Content\r\n"), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_was_cut_off_does_not_look_whole() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let network = Network::to_loopback(&[private("static.example.org", address.port())])?;
    let sent = format!(
        "GET http://static.example.org:{}/ HTTP/1.0\r\n\r\n",
        address.port()
    );
    let (answer, received) = tokio::join!(
        network.exchange(sent.as_bytes()),
        serve_once(
            &listener,
            b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"
        )
    );
    received?;
    assert_eq!(
        answer.map_err(|error| error.kind()),
        Err(io::ErrorKind::ConnectionReset)
    );
    Ok(())
}

#[tokio::test]
async fn a_destination_that_does_not_speak_http_is_a_bad_gateway() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let network = Network::to_loopback(&[private("static.example.org", address.port())])?;
    let sent = format!(
        "GET http://static.example.org:{}/ HTTP/1.1\r\n\r\n",
        address.port()
    );
    for spoken in [
        &b"SSH-2.0-OpenSSH\r\n"[..],
        b"",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        let (answer, received) = tokio::join!(
            network.exchange(sent.as_bytes()),
            serve_once(&listener, b"\r\n\r\n", spoken)
        );
        received?;
        let answer = String::from_utf8(answer?)?;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
    Ok(())
}

/// Sends a request line and a body that nobody asked for, which must not take the answer back; expects this refusal.
async fn check_refusal(
    network: &mut Network,
    line: &str,
    status: u16,
    host: &str,
    reason: Reason,
) -> anyhow::Result<()> {
    let sent = format!("{line} HTTP/1.1\r\n\r\n{}", "x".repeat(100_000));
    let answer = String::from_utf8(network.exchange(sent.as_bytes()).await?)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let expected = format!("HTTP/1.1 {status} ");
    assert!(head.starts_with(&expected), "{line}: {head}");
    let is_explained = body.contains(host) && body.contains("[network] allow");
    assert!(is_explained, "{line}: {body}");
    assert_eq!(body.matches('\n').count(), 1, "{line}: {body}");
    let refusal = network.refusal().await?;
    assert_eq!(
        (refusal.host.as_str(), refusal.reason),
        (host, reason),
        "{line}"
    );
    Ok(())
}

#[tokio::test]
async fn what_is_not_allowed_is_answered_recorded_and_never_dialled() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let closed = closed_port().await?;
    let allow = [
        format!("public.example.org:{}", address.port())
            .as_str()
            .into(),
        private("static.example.org", closed),
    ];
    let mut network = Network::to_loopback(&allow)?;
    let private = Reason::PrivateAddress { address: LOOPBACK };
    for (target, host, reason) in [
        ("CONNECT evil.test:", "evil.test", Reason::NotAllowed),
        ("CONNECT localhost:", "localhost", Reason::NotAllowed),
        ("CONNECT 127.0.0.1:", "127.0.0.1", Reason::NotAllowed),
        ("GET http://evil.test:", "evil.test", Reason::NotAllowed),
        (
            "CONNECT public.example.org:",
            "public.example.org",
            private.clone(),
        ),
        (
            "PUT http://public.example.org:",
            "public.example.org",
            private,
        ),
    ] {
        let line = format!("{target}{}", address.port());
        check_refusal(&mut network, &line, 403, host, reason).await?;
    }
    assert_eq!(
        network.resolver.asked(),
        ["public.example.org", "public.example.org"],
        "only allowed names are resolved"
    );
    tokio::select! {
        biased;
        _ = listener.accept() => anyhow::bail!("something was dialled"),
        () = tokio::task::yield_now() => {}
    }

    let refused = Reason::Unreachable {
        cause: ConnectFailure::Refused,
    };
    let line = format!("CONNECT static.example.org:{closed}");
    check_refusal(&mut network, &line, 502, "static.example.org", refused).await
}

#[tokio::test]
async fn a_client_may_still_be_sending_when_it_is_refused() -> anyhow::Result<()> {
    let network = Network::to_loopback(&[])?;
    let mut client = network.connect().await?;
    client
        .write_all(b"POST http://evil.test/ HTTP/1.1\r\nContent-Length: 100000\r\n\r\n")
        .await?;
    let mut status = [0; 12];
    client.read_exact(&mut status).await?;
    assert_eq!(&status, b"HTTP/1.1 403");
    for _ in 0..2 {
        client.write_all("x".repeat(50_000).as_bytes()).await?;
    }
    let mut rest = String::new();
    client.read_to_string(&mut rest).await?;
    assert!(rest.contains("evil.test:80"), "{rest}");
    Ok(())
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_with_the_host_it_named() -> anyhow::Result<()> {
    let mut network = Network::to_loopback(&[private("a.test", 443), private("a.test", 80)])?;
    for (line, host) in [
        ("CONNECT x@a.test:443", "x@a.test:443"),
        ("CONNECT a.test@evil.test:443", "a.test@evil.test:443"),
        ("GET http://x@a.test/", "x@a.test"),
        ("CONNECT 2130706433:443", "2130706433:443"),
        ("CONNECT [::ffff:7f00:1]:443", "[::ffff:7f00:1]:443"),
        (
            "CONNECT evil.test\0.a.test:443",
            "evil.test\\x00.a.test:443",
        ),
        ("CONNECT evil.test:443\nHost: a.test", "evil.test:443"),
        ("CONNECT a.test:443 evil.test:443", "a.test:443"),
        ("CONNECT \u{e9}.a.test:443", "\\xc3\\xa9.a.test:443"),
        ("\u{16}\u{3}\u{1}\0\0", ""),
    ] {
        check_refusal(&mut network, line, 400, host, Reason::Malformed).await?;
    }
    for (line, host) in [("GET https://a.test/", "a.test"), ("GET /", "")] {
        check_refusal(&mut network, line, 501, host, Reason::Unsupported).await?;
    }
    assert!(network.resolver.asked().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_smuggled_request_is_refused_before_anything_is_dialled() -> anyhow::Result<()> {
    let mut network = Network::to_loopback(&[private("static.example.org", 80)])?;
    for headers in [
        "Host: static.example.org\r\nHost: evil.test",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "A: b\r\n Transfer-Encoding: chunked",
        "A: b\nTransfer-Encoding: chunked",
    ] {
        let sent = format!(
            "POST http://static.example.org/ HTTP/1.1\r\n{headers}\r\n\r\n0\r\n\r\nGET http://static.example.org/ HTTP/1.1\r\n\r\n"
        );
        let answer = String::from_utf8(network.exchange(sent.as_bytes()).await?)?;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 400").count(),
            1,
            "{headers}: {answer}"
        );
        assert_eq!(network.refusal().await?.host, "static.example.org");
    }
    assert!(network.resolver.asked().is_empty());
    Ok(())
}
