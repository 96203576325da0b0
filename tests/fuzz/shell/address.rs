//! What the targets ask of the parser of hosts.

use super::address::Destination;

/// The canonical `host:port` of a destination, if it has one meaning.
pub fn canonical(text: &[u8]) -> Option<String> {
    let destination = Destination::parse(text, None).ok()?;
    Some(destination.to_string())
}
