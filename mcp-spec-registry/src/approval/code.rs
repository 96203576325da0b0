//! The short code at the end of what a human reads: whoever types it has at least reached the end.

use hmac::{Hmac, Mac};
use sha2::{Digest as _, Sha256};
use shared::digest::Digest;
use subtle::ConstantTimeEq;

/// Characters of a code.
pub const LENGTH: usize = 6;

const BLOCK_BYTES: usize = 64;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Six Crockford base-32 characters, an HMAC-SHA256 over the nonce, the revision and what is decided about.
///
/// It changes with every revision, so a code read off one plan never fits another.
pub fn code(key: &[u8], nonce: &str, revision: u32, subject: &Digest) -> String {
    let mut mac = Hmac::<Sha256>::new(&key_block(key).into());
    mac.update(format!("spec-driven-ai code\n{nonce}\n{revision}\n{subject}\n").as_bytes());
    let tag = mac.finalize().into_bytes();
    let bits = tag
        .iter()
        .take(4)
        .fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte));
    (0..LENGTH)
        .map(|place| symbol(bits >> (32 - 5 * (place + 1))))
        .collect()
}

/// Whether the typed code is this one, in time that does not depend on how much of it is right.
///
/// Case, blanks and hyphens do not count; O is read as 0, I and L as 1.
pub fn matches(expected: &str, typed: &str) -> bool {
    let typed = normalized(typed);
    let expected = normalized(expected);
    expected.len() == LENGTH && bool::from(expected.as_slice().ct_eq(typed.as_slice()))
}

/// A key as HMAC pads it, so that a key of any length will do.
fn key_block(key: &[u8]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    if key.len() > BLOCK_BYTES {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    block
}

fn symbol(bits: u32) -> char {
    char::from(ALPHABET[(bits & 31) as usize])
}

fn normalized(code: &str) -> Vec<u8> {
    code.bytes()
        .filter(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'-'))
        .map(|byte| match byte.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            upper => upper,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_depends_on_the_key_the_nonce_the_revision_and_the_subject() {
        let (plan, other) = (Digest::of("plan"), Digest::of("other plan"));
        let first = code(b"key", "n1", 1, &plan);
        assert_eq!(first, code(b"key", "n1", 1, &plan));
        assert_eq!(first.len(), LENGTH);
        assert!(
            first.bytes().all(|byte| ALPHABET.contains(&byte)),
            "{first}"
        );
        for different in [
            code(b"another key", "n1", 1, &plan),
            code(b"key", "n2", 1, &plan),
            code(b"key", "n1", 2, &plan),
            code(b"key", "n1", 1, &other),
        ] {
            assert_ne!(first, different);
        }
    }

    #[test]
    fn the_tag_is_the_hmac_of_rfc_2104_for_keys_of_any_length() -> anyhow::Result<()> {
        for key in [&b"short"[..], &[7; 64], &[7; 65], &[7; 200]] {
            let mut ours = Hmac::<Sha256>::new(&key_block(key).into());
            let mut theirs = Hmac::<Sha256>::new_from_slice(key)?;
            ours.update(b"text");
            theirs.update(b"text");
            assert_eq!(ours.finalize().into_bytes(), theirs.finalize().into_bytes());
        }
        Ok(())
    }

    #[test]
    fn a_code_may_be_typed_the_way_people_read_it() {
        assert!(matches("K01Q1Z", "k01q1z"));
        assert!(matches("K01Q1Z", " kOi-QlZ "));
        for wrong in ["", "K01Q1", "K01Q1Y", "K01Q1ZZ", "K01Q1Z0"] {
            assert!(!matches("K01Q1Z", wrong), "{wrong}");
        }
    }

    #[test]
    fn an_empty_code_never_matches() {
        assert!(!matches("", ""));
    }
}
