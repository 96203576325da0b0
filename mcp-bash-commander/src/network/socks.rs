//! The SOCKS5 face of the proxy: CONNECT without a user, by name or address.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::address::{AddressError, Destination, Host, readable};
use super::gate::Gate;
use super::proxy::{finish, tunnel};
use super::refusal::{ConnectFailure, Reason, Refusal};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
/// The refusal of SOCKS4, whose every request has an answer of eight bytes.
const SOCKS4_REFUSED: [u8; 8] = [0, 0x5b, 0, 0, 0, 0, 0, 0];

/// The codes of replies to a request.
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const CONNECTION_REFUSED: u8 = 5;
const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_TYPE_NOT_SUPPORTED: u8 = 8;

/// What the client said up to its request.
enum Asked {
    /// To be connected.
    For(Destination),
    /// Something else, which is answered with these bytes.
    Otherwise(Refusal, Vec<u8>),
}

pub(super) async fn serve(mut client: TcpStream, gate: &Gate, deadline: Instant) -> io::Result<()> {
    let asked = timeout_at(deadline, read_request(&mut client)).await??;
    let answer = match asked {
        Asked::For(destination) => match gate.open(&destination).await {
            Ok(upstream) => {
                client.write_all(&reply(SUCCEEDED)).await?;
                return tunnel(client, upstream).await;
            }
            Err(refusal) => reply(code(&refusal.reason)),
        },
        Asked::Otherwise(refusal, answer) => {
            gate.refuse(refusal);
            answer
        }
    };
    client.write_all(&answer).await?;
    finish(client).await
}

/// Takes no byte more than the request has: what follows belongs to the destination.
async fn read_request(client: &mut TcpStream) -> io::Result<Asked> {
    let unread = |reason, answer| Ok(Asked::Otherwise(Refusal::unread(b"", None, reason), answer));
    if client.read_u8().await? != VERSION {
        return unread(Reason::Unsupported, SOCKS4_REFUSED.to_vec());
    }
    let mut methods = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut methods).await?;
    if !methods.contains(&NO_AUTHENTICATION) {
        return unread(Reason::Unsupported, vec![VERSION, NO_ACCEPTABLE_METHOD]);
    }
    client.write_all(&[VERSION, NO_AUTHENTICATION]).await?;

    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let [VERSION, command, 0, kind] = request else {
        return unread(Reason::Malformed, reply(GENERAL_FAILURE));
    };
    let (host, sent) = match kind {
        IPV4 => {
            let mut octets = [0; 4];
            client.read_exact(&mut octets).await?;
            of_address(octets.into())
        }
        IPV6 => {
            let mut octets = [0; 16];
            client.read_exact(&mut octets).await?;
            of_address(octets.into())
        }
        NAME => {
            let mut name = vec![0; client.read_u8().await?.into()];
            client.read_exact(&mut name).await?;
            // Brackets are for where a port follows; here an IPv6 address has a type of its own.
            let host = if name.contains(&b'[') {
                Err(AddressError::Ipv6(readable(&name)))
            } else {
                Host::parse(&name)
            };
            (host, name)
        }
        _ => return unread(Reason::Unsupported, reply(ADDRESS_TYPE_NOT_SUPPORTED)),
    };
    let port = client.read_u16().await?;
    let refused = |reason, code| {
        let refusal = Refusal::unread(&sent, Some(port), reason);
        Ok(Asked::Otherwise(refusal, reply(code)))
    };
    if command != CONNECT {
        return refused(Reason::Unsupported, COMMAND_NOT_SUPPORTED);
    }
    match host.and_then(|host| Destination::new(host, port)) {
        Ok(destination) => Ok(Asked::For(destination)),
        Err(_) => refused(Reason::Malformed, NOT_ALLOWED),
    }
}

fn of_address(address: IpAddr) -> (Result<Host, AddressError>, Vec<u8>) {
    (Host::of_address(address), address.to_string().into_bytes())
}

/// A reply; the address the proxy dials from is nothing a command needs to know.
fn reply(code: u8) -> Vec<u8> {
    vec![VERSION, code, 0, IPV4, 0, 0, 0, 0, 0, 0]
}

fn code(reason: &Reason) -> u8 {
    match reason {
        Reason::NotAllowed
        | Reason::PrivateAddress { .. }
        | Reason::Malformed
        | Reason::NoSecret { .. }
        | Reason::Unencrypted { .. } => NOT_ALLOWED,
        Reason::Unreachable {
            cause: ConnectFailure::Refused,
        } => CONNECTION_REFUSED,
        Reason::NotResolved | Reason::Unreachable { .. } => HOST_UNREACHABLE,
        Reason::Unsupported => COMMAND_NOT_SUPPORTED,
    }
}
