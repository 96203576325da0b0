//! SOCKS5.

use std::net::Ipv6Addr;

use super::*;
use crate::network::ConnectFailure;

const GREETING: [u8; 3] = [5, 1, 0];
const CONNECT: u8 = 1;

/// A whole request, greeting included.
fn request(command: u8, kind: u8, address: &[u8], port: u16) -> Vec<u8> {
    let mut request = GREETING.to_vec();
    request.extend([5, command, 0, kind]);
    request.extend(address);
    request.extend(port.to_be_bytes());
    request
}

fn request_by_address(command: u8, address: [u8; 4]) -> Vec<u8> {
    request(command, 1, &address, 80)
}

fn by_name(name: &[u8], port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    request(CONNECT, 3, &[&[length], name].concat(), port)
}

#[tokio::test]
async fn names_and_addresses_are_tunnelled_to() -> anyhow::Result<()> {
    let (listener, address) = listen().await?;
    let port = address.port();
    let listener6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await?;
    let address6 = listener6.local_addr()?;
    let mut network = Network::to_loopback(&[
        private("static.example.org", port),
        private("127.0.0.1", port),
        private("[::1]", address6.port()),
    ])?;
    for (request, listener, host, address) in [
        (
            by_name(b"static.EXAMPLE.org", port),
            &listener,
            "static.example.org",
            address,
        ),
        (by_name(b"127.0.0.1", port), &listener, "127.0.0.1", address),
        (
            request(CONNECT, 1, &[127, 0, 0, 1], port),
            &listener,
            "127.0.0.1",
            address,
        ),
        (
            request(CONNECT, 4, &Ipv6Addr::LOCALHOST.octets(), address6.port()),
            &listener6,
            "[::1]",
            address6,
        ),
    ] {
        let mut client = network.connect().await?;
        // Nothing is waited for: what follows the request is for the destination.
        client.write_all(&[&request[..], b"early"].concat()).await?;
        let (mut upstream, _) = listener.accept().await?;
        let mut early = [0; 5];
        upstream.read_exact(&mut early).await?;
        assert_eq!(&early, b"early");
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await?;
        assert_eq!(answer, [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        check_tunnel(client, upstream).await?;
        let connected = network.connected().await?;
        assert_eq!(
            (connected.host.as_str(), connected.address),
            (host, address)
        );
    }
    Ok(())
}

/// Sends a request with more behind it, and expects this refusal.
async fn check_refusal(
    network: &mut Network,
    request: Vec<u8>,
    code: u8,
    host: &str,
    reason: Reason,
) -> anyhow::Result<()> {
    let answer = network.exchange(&[&request[..], b"more"].concat()).await?;
    let what = request.escape_ascii();
    assert_eq!(answer, [5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0], "{what}");
    let refusal = network.refusal().await?;
    assert_eq!(
        (refusal.host.as_str(), refusal.reason),
        (host, reason),
        "{what}"
    );
    Ok(())
}

#[tokio::test]
async fn a_destination_that_is_not_reached_is_answered_with_its_code() -> anyhow::Result<()> {
    let closed = closed_port().await?;
    let mut network = Network::start(
        &[
            private("static.example.org", closed),
            "public.example.org:443".into(),
            "nowhere.example.org:443".into(),
        ],
        Answers::new(&[&[LOOPBACK], &[LOOPBACK], &[]]),
    )?;
    let refused = Reason::Unreachable {
        cause: ConnectFailure::Refused,
    };
    let private = Reason::PrivateAddress { address: LOOPBACK };
    for (name, port, code, reason) in [
        ("static.example.org", closed, 5, refused),
        ("public.example.org", 443, 2, private),
        ("nowhere.example.org", 443, 4, Reason::NotResolved),
        ("evil.test", 443, 2, Reason::NotAllowed),
        ("127.1", 443, 2, Reason::Malformed),
        ("[::1]", 443, 2, Reason::Malformed),
        ("::1", 443, 2, Reason::Malformed),
        ("", 443, 2, Reason::Malformed),
        ("static.example.org", 0, 2, Reason::Malformed),
        ("static.example.org:443", 443, 2, Reason::Malformed),
    ] {
        let request = by_name(name.as_bytes(), port);
        check_refusal(&mut network, request, code, name, reason).await?;
    }
    let with_nul = by_name(b"evil.test\0.example.org", 443);
    let quoted = "evil.test\\x00.example.org";
    check_refusal(&mut network, with_nul, 2, quoted, Reason::Malformed).await?;
    let metadata = request_by_address(CONNECT, [169, 254, 169, 254]);
    check_refusal(
        &mut network,
        metadata,
        2,
        "169.254.169.254",
        Reason::NotAllowed,
    )
    .await?;
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
    let mapped = request(CONNECT, 4, &mapped, 80);
    check_refusal(
        &mut network,
        mapped,
        2,
        "::ffff:127.0.0.1",
        Reason::Malformed,
    )
    .await
}

#[tokio::test]
async fn commands_and_kinds_of_address_that_are_not_supported_are_refused() -> anyhow::Result<()> {
    let mut network = Network::to_loopback(&["1.1.1.1:80".into()])?;
    for command in [0, 2, 3, 255] {
        let request = request_by_address(command, [1, 1, 1, 1]);
        check_refusal(&mut network, request, 7, "1.1.1.1", Reason::Unsupported).await?;
    }
    let unknown = request(CONNECT, 9, &[1, 1, 1, 1], 80);
    check_refusal(&mut network, unknown, 8, "", Reason::Unsupported).await
}

#[tokio::test]
async fn users_and_older_versions_are_refused() -> anyhow::Result<()> {
    let mut network = Network::to_loopback(&[])?;
    for (sent, answer) in [
        (&[5, 1, 2][..], &[5, 0xff][..]),
        (&[5, 0], &[5, 0xff]),
        (
            &[4, 1, 0, 80, 1, 1, 1, 1, b'm', b'e', 0],
            &[0, 0x5b, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        assert_eq!(network.exchange(sent).await?, answer);
        assert_eq!(network.refusal().await?.reason, Reason::Unsupported);
    }
    assert_eq!(
        network.exchange(&[5, 1, 0, 4, 1, 0, 1]).await?,
        [5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(network.refusal().await?.reason, Reason::Malformed);
    Ok(())
}
