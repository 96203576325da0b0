//! What the targets ask of the parser of request heads.

use super::super::refusal::Reason;
use super::head::{Head, NotHttp, authority, length, target};

/// Where the request at the beginning of `received` is to go: nothing while its head is not all there.
///
/// # Errors
/// No reason where it is no HTTP, else why it goes nowhere.
pub fn destination(received: &[u8]) -> Result<Option<String>, Option<Reason>> {
    // For reports these read whatever came.
    assert!(authority(target(received)).len() <= received.len());
    let Some(length) = length(received).map_err(|NotHttp| None)? else {
        return Ok(None);
    };
    let head = Head::parse(&received[..length]).map_err(|NotHttp| None)?;
    assert_eq!(head.length, length);
    assert_eq!(head.target, target(received));
    let wanted = head.wanted().map_err(Some)?;
    Ok(Some(wanted.destination().to_string()))
}
