//! What jailed commands may reach: an allow list of hosts and ports, and the proxy that is their only way out.
//!
//! The allow list decides about `host:port` and nothing finer: what is said to an allowed destination is not looked at, unless a
//! secret is added to it.

mod address;
mod allow;
mod gate;
mod http;
mod proxy;
mod range;
mod reachable;
mod refusal;
mod secrets;
mod socks;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;

pub use address::AddressError;
pub use allow::{AllowList, AllowListError, Decision, Entry, WrittenEntry};
pub use gate::{Resolve, SystemResolver};
pub use proxy::Proxy;
pub use reachable::Reachable;
pub use refusal::{ConnectFailure, Connected, Event, Reason, Refusal};
pub use secrets::{
    KnownSecrets, Secret, SecretError, SecretValue, Secrets, Unusable, WrittenSecret,
};

/// The ports of `http://` and `https://` without one.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// What needs no proxy, as programs read it.
const LOCAL: &str = "localhost,127.0.0.1,::1";

/// The variables that lead a command's programs to the proxy at `address`, as the jail sees it; the jail's own loopback interface they
/// reach without it. They are a courtesy: a program that ignores them has no route at all.
pub fn environment(address: SocketAddr) -> [(&'static str, String); 8] {
    let http = format!("http://{address}");
    let socks = format!("socks5h://{address}");
    [
        ("HTTP_PROXY", http.clone()),
        ("http_proxy", http.clone()),
        ("HTTPS_PROXY", http.clone()),
        ("https_proxy", http),
        ("ALL_PROXY", socks.clone()),
        ("all_proxy", socks),
        ("NO_PROXY", LOCAL.to_owned()),
        ("no_proxy", LOCAL.to_owned()),
    ]
}
