//! The registry's audit: entries chained by hash, heads signed, payloads apart from what is chained so that a secret in
//! one can be taken out without breaking the chain.

mod database;
mod verify;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use shared::{digest::Digest, effect::protocol::SignedHead};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::keys::{self, Keys};

pub use database::verify_database;
pub use verify::{Against, FirstBad, Summary, Verifier, VerifyError};

/// Every entry with a number divisible by this has a signed head of its own.
pub const SIGNED_EVERY: u64 = 100;

/// The action of an entry that records that a payload was taken out; its subject is `audit:<seq>`.
pub const REDACTED: &str = "audit.redacted";

/// Separates leaves from everything else that is hashed, as in RFC 6962.
const LEAF: u8 = 0;

/// What is to be recorded; the store numbers and chains it.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryDraft {
    /// Principal who did it, or `registry`.
    pub actor: String,
    /// What was done, such as `run.claimed`.
    pub action: String,
    /// What it was done to, such as a run id.
    pub subject: String,
    /// Everything else worth knowing; never a secret.
    pub payload: Value,
}

/// A recorded entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// 1, 2, 3 … without gaps.
    pub seq: u64,
    /// When, RFC 3339, UTC.
    pub at: String,
    /// Principal who did it, or `registry`.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// Digest of the payload with its salt.
    pub payload_sha256: Digest,
    /// Hash of the entry before; 64 zeros before the first.
    pub prev: Digest,
    /// SHA-256 of a zero byte and the canonical JSON of everything above.
    pub hash: Digest,
    /// Absent when it was taken out.
    pub payload: Option<Payload>,
}

/// What an entry says beyond who, what and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// 128 random bits, hex: after redaction the digest tells nothing, not even to one who guesses the text.
    pub salt: String,
    /// Canonical JSON.
    pub json: String,
}

/// An entry that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The payload is no JSON.
    #[error("the payload of `{action}` cannot be written as JSON: {source}")]
    Payload {
        /// What was to be recorded.
        action: String,
        /// Why.
        source: serde_json::Error,
    },
    /// No random bytes for the salt.
    #[error(transparent)]
    Randomness(#[from] keys::KeyError),
    /// A time that cannot be written.
    #[error("the time of an entry cannot be written: {0}")]
    Time(#[from] time::error::Format),
}

impl Payload {
    fn new(value: &Value) -> Result<Self, PayloadError> {
        let salt = shared::digest::hex(&keys::random::<16>()?);
        Ok(Self {
            salt,
            json: serde_json_canonicalizer::to_string(value)?,
        })
    }

    /// What stands in an entry for this payload.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(&self.salt);
        hash.update(b"\n");
        hash.update(&self.json);
        Digest::from_array(&hash.finalize().into())
    }

    /// The payload itself; `null` if it cannot be read.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.json).unwrap_or_default()
    }
}

enum PayloadError {
    Json(serde_json::Error),
    Randomness(keys::KeyError),
}

impl From<serde_json::Error> for PayloadError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl From<keys::KeyError> for PayloadError {
    fn from(error: keys::KeyError) -> Self {
        Self::Randomness(error)
    }
}

/// What an entry's hash covers.
#[derive(Serialize)]
struct Leaf<'a> {
    seq: u64,
    at: &'a str,
    actor: &'a str,
    action: &'a str,
    subject: &'a str,
    payload_sha256: &'a Digest,
    prev: &'a Digest,
}

impl AuditEntry {
    /// The entry that follows `previous`, the number and hash of the newest one.
    ///
    /// # Errors
    /// A payload or time that cannot be written, or no random bytes.
    pub fn following(
        previous: Option<&(u64, Digest)>,
        draft: &EntryDraft,
        at: OffsetDateTime,
    ) -> Result<Self, EntryError> {
        let payload = Payload::new(&draft.payload).map_err(|error| match error {
            PayloadError::Json(source) => EntryError::Payload {
                action: draft.action.clone(),
                source,
            },
            PayloadError::Randomness(error) => error.into(),
        })?;
        let mut entry = Self {
            seq: previous.map_or(0, |(seq, _)| *seq) + 1,
            at: at.to_offset(time::UtcOffset::UTC).format(&Rfc3339)?,
            actor: draft.actor.clone(),
            action: draft.action.clone(),
            subject: draft.subject.clone(),
            payload_sha256: payload.digest(),
            prev: previous.map_or_else(genesis, |(_, hash)| hash.clone()),
            hash: genesis(),
            payload: Some(payload),
        };
        entry.hash = entry.computed_hash();
        Ok(entry)
    }

    /// What the entry's hash should be.
    pub fn computed_hash(&self) -> Digest {
        let Self {
            seq,
            at,
            actor,
            action,
            subject,
            payload_sha256,
            prev,
            ..
        } = self;
        let leaf = Leaf {
            seq: *seq,
            at,
            actor,
            action,
            subject,
            payload_sha256,
            prev,
        };
        let mut hash = Sha256::new();
        hash.update([LEAF]);
        // Strings and one integer: this cannot fail, and if it did the hash would match no entry.
        hash.update(serde_json_canonicalizer::to_vec(&leaf).unwrap_or_default());
        Digest::from_array(&hash.finalize().into())
    }
}

/// The hash that the first entry has before it.
pub fn genesis() -> Digest {
    Digest::from_array(&[0; 32])
}

/// The head of the audit at an entry, signed.
pub fn sign_head(keys: &Keys, seq: u64, hash: &Digest) -> SignedHead {
    let signature = keys.sign(&SignedHead::signed_bytes(seq, hash));
    SignedHead {
        seq,
        hash: hash.clone(),
        signature,
    }
}

#[cfg(test)]
mod tests;
