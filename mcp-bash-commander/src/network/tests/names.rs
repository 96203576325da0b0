//! The name that is decided about is the one that is resolved, and the address that is checked the one that is dialled.

use super::*;
use crate::network::address::{Destination, Host};
use crate::network::gate::Gate;

#[tokio::test]
async fn a_name_that_changes_its_address_reaches_none_that_was_not_checked() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let public = format!("public.example.org:{}", address.port());
    let metadata: IpAddr = "169.254.169.254".parse()?;
    let answers = Answers::new(&[&[metadata], &[LOOPBACK], &["::ffff:127.0.0.1".parse()?]]);
    let mut network = Network::start(&[public.as_str().into()], answers)?;
    let head = format!("CONNECT {public} HTTP/1.1\r\n\r\n");
    for first in [metadata, LOOPBACK, "::ffff:127.0.0.1".parse()?] {
        network.exchange(head.as_bytes()).await?;
        assert_eq!(
            network.refusal().await?.reason,
            Reason::PrivateAddress { address: first }
        );
        assert_eq!(network.resolver.asked(), ["public.example.org"], "once");
    }

    let private = [private("index.internal", address.port())];
    let mut network = Network::start(&private, Answers::new(&[&[LOOPBACK], &[metadata]]))?;
    let mut client = network.connect().await?;
    let head = format!("CONNECT index.internal:{} HTTP/1.1\r\n\r\n", address.port());
    client.write_all(head.as_bytes()).await?;
    listener.accept().await?;
    assert_eq!(network.connected().await?.address, address);
    assert_eq!(network.resolver.asked(), ["index.internal"], "once");
    Ok(())
}

#[tokio::test]
async fn the_addresses_of_a_name_are_tried_in_order() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let nobody: IpAddr = "127.0.0.2".parse()?;
    let mut network = Network::start(
        &[private("index.internal", address.port())],
        Answers::new(&[&[nobody, LOOPBACK, "127.0.0.3".parse()?]]),
    )?;
    let mut client = network.connect().await?;
    let head = format!("CONNECT index.internal:{} HTTP/1.1\r\n\r\n", address.port());
    client.write_all(head.as_bytes()).await?;
    listener.accept().await?;
    assert_eq!(network.connected().await?.address, address);
    Ok(())
}

#[tokio::test]
async fn a_name_that_the_command_chose_is_looked_up_as_complete() -> anyhow::Result<()> {
    let mut network = Network::start(&["*.example.org:443".into()], Answers::new(&[]))?;
    network
        .exchange(b"CONNECT A.b.example.org:443 HTTP/1.1\r\n\r\n")
        .await?;
    assert_eq!(network.resolver.asked(), ["a.b.example.org."]);
    let refusal = network.refusal().await?;
    assert_eq!(
        (refusal.host.as_str(), refusal.reason),
        ("a.b.example.org", Reason::NotResolved)
    );
    Ok(())
}

#[tokio::test]
async fn the_host_resolves_names_of_its_own() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let socket = std::net::TcpListener::bind((LOOPBACK, 0))?;
    let allow = AllowList::new(&[private("localhost", address.port())])?;
    let proxy = Proxy::start(socket.into(), allow, |_| ())?;
    let mut client = TcpStream::connect(proxy.address()).await?;
    let head = format!("CONNECT localhost:{} HTTP/1.1\r\n\r\n", address.port());
    client.write_all(head.as_bytes()).await?;
    let (upstream, _) = listener.accept().await?;
    let mut answer = [0; 39];
    client.read_exact(&mut answer).await?;
    check_tunnel(client, upstream).await
}

/// Hosts close to an allowed one, with bytes put in, taken out and exchanged.
fn mutated(seed: &mut u64) -> Vec<u8> {
    const BYTES: &[u8] = b".-_:@%/\\#?[]*\0\r\n\t ax09AX.\xff\xc3";
    let mut next = |below: usize| {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*seed >> 33).unwrap_or(0) % below
    };
    let start: &[u8] = [
        &b"static.example.org"[..],
        b"a.example.org",
        b"1.1.1.1",
        b"evil.test",
        b"",
    ][next(5)];
    let mut host = start.to_vec();
    for _ in 0..next(4) {
        let (at, byte) = (next(host.len() + 1), BYTES[next(BYTES.len())]);
        match next(3) {
            0 if at < host.len() => host[at] = byte,
            1 if at < host.len() => drop(host.remove(at)),
            _ => host.insert(at, byte),
        }
    }
    host
}

#[tokio::test]
async fn whatever_is_sent_as_a_host_is_refused_or_resolved_as_what_was_decided_about()
-> anyhow::Result<()> {
    let resolver = Answers::new(&[]);
    let (sender, mut events) = unbounded_channel();
    let allow = AllowList::new(&["static.example.org:443".into(), "*.example.org:443".into()])?;
    let gate = Gate::new(
        allow.into(),
        Box::new(resolver.clone()),
        Box::new(move |event| drop(sender.send(event))),
    );
    let (mut seed, mut lookups) = (1, 0);
    for _ in 0..20_000 {
        let sent = mutated(&mut seed);
        let plain = String::from_utf8_lossy(&sent).to_ascii_lowercase();
        let plain = plain.strip_suffix('.').unwrap_or(&plain);
        let what = sent.escape_ascii();
        let Ok(host) = Host::parse(&sent) else {
            continue;
        };
        assert_eq!(host.to_string(), plain, "{what}");
        assert!(gate.open(&Destination::new(host, 443)?).await.is_err());
        let Some(Event::Refused(refusal)) = events.recv().await else {
            anyhow::bail!("{what} is not refused");
        };
        assert_eq!(refusal.host, plain, "{what}");
        let is_allowed = plain.ends_with(".example.org");
        let asked = resolver.asked();
        assert_eq!(asked.len(), usize::from(is_allowed), "{what}");
        for name in asked {
            lookups += 1;
            assert_eq!(name.trim_end_matches('.'), plain, "{what}");
            assert_eq!(refusal.reason, Reason::NotResolved, "{what}");
        }
    }
    assert!(lookups > 1000, "only {lookups} hosts were allowed");
    Ok(())
}
