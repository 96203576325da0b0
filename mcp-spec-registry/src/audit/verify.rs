//! Checks a sequence of audit entries and names the first that is not as it was written.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use serde::Serialize;
use serde_json::Value;
use shared::{digest::Digest, effect::protocol::SignedHead};

use super::{AuditEntry, REDACTED, SIGNED_EVERY, genesis};
use crate::keys::VerifyingKeys;

const MAX_HEAD_FILE_BYTES: u64 = 1024 * 1024;

/// What an audit that verifies holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many entries.
    pub entries: u64,
    /// How many of them had their payload taken out, as other entries record.
    pub redacted: u64,
    /// How many signed heads were checked.
    pub signed_heads: u64,
    /// The newest head; absent when nothing was recorded yet.
    pub head: Option<SignedHead>,
}

/// The first entry that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("entry {seq}: {reason}")]
pub struct FirstBad {
    /// Its number.
    pub seq: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// An audit that does not verify, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Someone changed it.
    #[error(transparent)]
    Bad(#[from] FirstBad),
    /// It cannot be read.
    #[error("failed to read the audit in `{path}`: {cause}")]
    Unreadable {
        /// The database.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A head to compare with that is none.
    #[error("`{0}` is neither a head (SEQ:sha256:…) nor a file that holds one")]
    NoHead(String),
    /// The file with the head cannot be read.
    #[error("failed to read the head in `{path}`: {source}")]
    HeadFile {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A head that was kept elsewhere: the audit must still contain it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Against {
    /// Number of an entry.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
    /// Signature over both, if it was kept too.
    pub signature: Option<String>,
}

impl Against {
    /// A head as `SEQ:sha256:…`, or a file that holds one in this form, a signed head as JSON, or a receipt.
    ///
    /// # Errors
    /// A text that is neither, or a file that cannot be read.
    pub fn read(head_or_file: &str) -> Result<Self, VerifyError> {
        if let Some(head) = Self::parse(head_or_file) {
            return Ok(head);
        }
        let unreadable = |source| VerifyError::HeadFile {
            path: head_or_file.to_owned(),
            source,
        };
        let size = fs::metadata(head_or_file).map_err(unreadable)?.len();
        if size > MAX_HEAD_FILE_BYTES {
            return Err(VerifyError::NoHead(head_or_file.to_owned()));
        }
        let text = fs::read_to_string(head_or_file).map_err(unreadable)?;
        Self::parse(text.trim())
            .or_else(|| Self::find(&serde_json::from_str(&text).ok()?))
            .ok_or_else(|| VerifyError::NoHead(head_or_file.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (seq, hash) = text.split_once(':')?;
        Some(Self {
            seq: seq.parse().ok()?,
            hash: hash.parse().ok()?,
            signature: None,
        })
    }

    /// The signed head that this is, or that stands in it as `audit_head`.
    fn find(json: &Value) -> Option<Self> {
        let head = json.get("audit_head").unwrap_or(json);
        serde_json::from_value::<SignedHead>(head.clone())
            .ok()
            .map(Self::from)
    }
}

impl From<SignedHead> for Against {
    fn from(
        SignedHead {
            seq,
            hash,
            signature,
        }: SignedHead,
    ) -> Self {
        Self {
            seq,
            hash,
            signature: Some(signature),
        }
    }
}

/// Takes entries one by one, oldest first.
#[derive(Debug)]
pub struct Verifier<'a> {
    keys: &'a VerifyingKeys,
    against: Option<&'a Against>,
    head: (u64, Digest),
    signed_heads: u64,
    /// Entries without a payload.
    without_payload: BTreeSet<u64>,
    /// Entries whose payload was taken out, as later ones record.
    redacted: BTreeSet<u64>,
}

impl<'a> Verifier<'a> {
    /// A check with these keys, and against a head that was kept elsewhere.
    ///
    /// # Errors
    /// A head to compare with that no key of the registry signed.
    pub fn new(keys: &'a VerifyingKeys, against: Option<&'a Against>) -> Result<Self, FirstBad> {
        if let Some(Against {
            seq,
            hash,
            signature: Some(signature),
        }) = against
            && !keys.verify(&SignedHead::signed_bytes(*seq, hash), signature)
        {
            let reason = "the head to compare with was not signed by this registry".to_owned();
            return Err(FirstBad { seq: *seq, reason });
        }
        let head = (0, genesis());
        Ok(Self {
            keys,
            against,
            head,
            signed_heads: 0,
            without_payload: BTreeSet::new(),
            redacted: BTreeSet::new(),
        })
    }

    /// The next entry, with the signed head kept for it, if there is one.
    ///
    /// # Errors
    /// It was edited, deleted, added or moved, or its signature is missing or wrong.
    pub fn entry(
        &mut self,
        entry: &AuditEntry,
        signed: Option<&SignedHead>,
    ) -> Result<(), FirstBad> {
        let expected = self.head.0 + 1;
        if entry.seq != expected {
            return bad(
                expected,
                format!(
                    "entry {} stands in its place: it was deleted or moved",
                    entry.seq
                ),
            );
        }
        if entry.prev != self.head.1 {
            return bad(
                expected,
                "it does not follow the entry before it: one of them was replaced",
            );
        }
        if entry.hash != entry.computed_hash() {
            return bad(expected, "it was edited");
        }
        self.payload(entry)?;
        match signed {
            Some(signed) => self.signed(entry, signed)?,
            None if entry.seq.is_multiple_of(SIGNED_EVERY) => {
                return bad(expected, "its signed head is missing");
            }
            None => {}
        }
        if let Some(against) = self.against.filter(|against| against.seq == entry.seq)
            && against.hash != entry.hash
        {
            return bad(
                expected,
                "it is not the entry in the head to compare with: the audit was rewritten",
            );
        }
        self.head = (entry.seq, entry.hash.clone());
        Ok(())
    }

    /// All entries were given; `tip` is the signature kept for the newest.
    ///
    /// # Errors
    /// The tail was cut, the newest entry is not signed, or a payload is missing that nobody took out.
    pub fn finish(self, tip: Option<&SignedHead>) -> Result<Summary, FirstBad> {
        let (last, hash) = &self.head;
        if let Some(against) = self.against.filter(|against| against.seq > *last) {
            let reason = format!(
                "the audit ends at {last}, but had {} entries: its tail was cut off",
                against.seq
            );
            return bad(last + 1, reason);
        }
        match tip {
            Some(tip) if tip.seq > *last => {
                return bad(
                    last + 1,
                    format!(
                        "the audit ends at {last}, but {} is signed: its tail was cut off",
                        tip.seq
                    ),
                );
            }
            Some(tip) if tip.seq < *last || tip.hash != *hash || !self.is_signed(tip) => {
                return bad(*last, "the newest head was not signed by this registry");
            }
            None if *last > 0 => return bad(*last, "the newest head's signature is missing"),
            _ => {}
        }
        if let Some(seq) = self.without_payload.difference(&self.redacted).next() {
            return bad(
                *seq,
                "its payload is missing, and no entry records that it was taken out",
            );
        }
        let redacted = u64::try_from(self.without_payload.len()).unwrap_or(u64::MAX);
        Ok(Summary {
            entries: *last,
            redacted,
            signed_heads: self.signed_heads,
            head: tip.cloned(),
        })
    }

    fn payload(&mut self, entry: &AuditEntry) -> Result<(), FirstBad> {
        if let Some(redacted) = redacted_by(entry) {
            self.redacted.insert(redacted);
        }
        match &entry.payload {
            Some(payload) if payload.digest() != entry.payload_sha256 => {
                bad(entry.seq, "its payload was edited")
            }
            Some(_) => Ok(()),
            None => {
                self.without_payload.insert(entry.seq);
                Ok(())
            }
        }
    }

    fn signed(&mut self, entry: &AuditEntry, signed: &SignedHead) -> Result<(), FirstBad> {
        if signed.hash != entry.hash {
            return bad(
                entry.seq,
                "it is not the entry that was signed: the audit was rewritten",
            );
        }
        if !self.is_signed(signed) {
            return bad(entry.seq, "its head was not signed by this registry");
        }
        self.signed_heads += 1;
        Ok(())
    }

    fn is_signed(&self, head: &SignedHead) -> bool {
        self.keys.verify(
            &SignedHead::signed_bytes(head.seq, &head.hash),
            &head.signature,
        )
    }
}

/// The entry whose payload was taken out, if that is what this entry records.
pub(crate) fn redacted_by(entry: &AuditEntry) -> Option<u64> {
    (entry.action == REDACTED)
        .then(|| entry.subject.strip_prefix("audit:")?.parse().ok())
        .flatten()
}

fn bad<T>(seq: u64, reason: impl Into<String>) -> Result<T, FirstBad> {
    Err(FirstBad {
        seq,
        reason: reason.into(),
    })
}
