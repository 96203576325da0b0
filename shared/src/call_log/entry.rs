//! One line of the log, and how it is chained.

use std::{fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    budget::{head, json_bytes},
    canonical,
    digest::hex,
};

/// The hash that the first line has before it.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Most bytes of a line's details, as JSON: with all else a line stays below what `verify` reads.
const MAX_DETAILS: usize = 32 * 1024;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what was asked.
    Ok,
    /// It failed; `code` says how.
    Error,
    /// It was refused before it did anything; `code` says why.
    Refused,
    /// It was cancelled, or ran into its deadline.
    Cancelled,
    /// Something begins that a call asked for and that may go on when the call is over; `details` say what.
    Started,
    /// It came to its end, or was not begun after all; `details` say how.
    Ended,
    /// Not a call: a line that a crash tore is accounted for.
    Recovered,
}

/// What goes with a line besides: plain values, without secrets.
pub type Details = Map<String, Value>;

/// What the log keeps of a call: the digest of its arguments, and what its tool says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who called.
    pub principal: String,
    /// Which tool.
    pub tool: String,
    /// SHA-256 over the arguments' canonical JSON, 64 hex digits.
    pub arguments_sha256: String,
    /// The run it belonged to.
    pub run: Option<String>,
    /// The action it was, as the registry numbers it.
    pub action: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// The error's code.
    pub code: Option<String>,
    /// How long it took.
    pub ms: u64,
    /// What the tool says of it.
    pub details: Option<Details>,
}

/// A line as it is in the file. Its hash is SHA-256 over the canonical JSON (RFC 8785) of everything else in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// 1, 2, 3 …
    pub seq: u64,
    /// When the call ended, RFC 3339, UTC.
    pub ts: String,
    /// The hash of the line before; zeros before the first.
    pub prev: String,
    /// Who called.
    pub principal: String,
    /// Which tool.
    pub tool: String,
    /// SHA-256 over the arguments' canonical JSON; of a `recovered` line, over the torn bytes.
    pub arguments_sha256: String,
    /// The run it belonged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The action it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// The error's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How long it took; of a `recovered` line, 0.
    pub ms: u64,
    /// What the tool says of it; `too_long` names what was left out for its length, with its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// SHA-256 over the rest of this line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

/// The line that a record becomes behind `before`, with its newline, and the head it makes.
pub(super) fn line(before: &Head, ts: &str, record: &Record) -> (Vec<u8>, Head) {
    let mut unhashed = Unhashed::next(before, ts, record);
    let mut line = unhashed.canonical();
    let fitting;
    if line.len() > MAX_DETAILS
        && let Some(details) = unhashed.details
        && json_bytes(details) > MAX_DETAILS
    {
        fitting = without_the_longest(details.clone());
        unhashed.details = Some(&fitting);
        line = unhashed.canonical();
    }
    let head = Head {
        seq: unhashed.seq,
        hash: hex(&Sha256::digest(&line)),
    };
    close(&mut line, &head.hash);
    line.push(b'\n');
    (line, head)
}

/// Makes canonical JSON a line by its hash, which stands behind all else.
fn close(line: &mut Vec<u8>, hash: &str) {
    line.pop();
    line.extend_from_slice(b",\"hash\":\"");
    line.extend_from_slice(hash.as_bytes());
    line.extend_from_slice(b"\"}");
}

/// Details with room for all else: one long member must not take the others along.
fn without_the_longest(mut details: Details) -> Details {
    let mut left_out = Details::new();
    while json_bytes(&details) > MAX_DETAILS {
        let longest = details.iter().max_by_key(|(_, value)| json_bytes(value));
        let Some((name, bytes)) = longest.map(|(name, value)| (name.clone(), json_bytes(value)))
        else {
            break;
        };
        details.remove(&name);
        left_out.insert(name, json!(bytes));
    }
    details.insert("too_long".to_owned(), Value::Object(left_out));
    details
}

/// The line that accounts for bytes a crash left behind.
pub(super) fn recovery(before: &Head, ts: &str, torn: &[u8]) -> (Vec<u8>, Head) {
    let record = Record {
        principal: String::new(),
        tool: String::new(),
        arguments_sha256: hex(&Sha256::digest(torn)),
        run: None,
        action: None,
        outcome: Outcome::Recovered,
        code: None,
        ms: 0,
        details: None,
    };
    line(before, ts, &record)
}

impl Entry {
    /// The entry in a line, if it is written there to the byte: what says the same in another way could be read as something else by
    /// other programs.
    pub(super) fn intact(line: &[u8]) -> Option<Self> {
        let entry: Self = serde_json::from_slice(line).ok()?;
        (entry.written() == line).then_some(entry)
    }

    /// The line for it, with the hash it should carry.
    pub(super) fn written(&self) -> Vec<u8> {
        let mut line = Unhashed::of(self).canonical();
        let hash = hex(&Sha256::digest(&line));
        close(&mut line, &hash);
        line
    }

    pub(super) fn head(&self) -> Head {
        Head {
            seq: self.seq,
            hash: self.hash.clone(),
        }
    }
}

/// An entry without its hash, its members in the order of canonical JSON.
#[derive(Serialize)]
struct Unhashed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    arguments_sha256: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
    ms: u64,
    outcome: Outcome,
    prev: &'a str,
    principal: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    seq: u64,
    tool: &'a str,
    ts: &'a str,
}

impl<'a> Unhashed<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            action: entry.action.as_deref(),
            arguments_sha256: &entry.arguments_sha256,
            code: entry.code.as_deref(),
            details: entry.details.as_ref(),
            ms: entry.ms,
            outcome: entry.outcome,
            prev: &entry.prev,
            principal: &entry.principal,
            run: entry.run.as_deref(),
            seq: entry.seq,
            tool: &entry.tool,
            ts: &entry.ts,
        }
    }

    fn next(before: &'a Head, ts: &'a str, record: &'a Record) -> Self {
        Self {
            action: record.action.as_deref().map(clipped),
            arguments_sha256: clipped(&record.arguments_sha256),
            code: record.code.as_deref().map(clipped),
            details: record.details.as_ref(),
            ms: record.ms,
            outcome: record.outcome,
            prev: &before.hash,
            principal: clipped(&record.principal),
            run: record.run.as_deref().map(clipped),
            seq: before.seq + 1,
            tool: clipped(&record.tool),
            ts,
        }
    }

    /// Canonical JSON (RFC 8785).
    fn canonical(&self) -> Vec<u8> {
        let is_plain = [self.ms, self.seq].into_iter().all(canonical::is_exact)
            && self.details.is_none_or(canonical::is_plain_object);
        // Plain values whose numbers are below 2^53 always have a canonical form.
        canonical::to_vec(self, is_plain).unwrap_or_default()
    }
}

/// Names are short; what is not, was made up by a caller.
fn clipped(text: &str) -> &str {
    head(text, 256).text
}

/// The end of a log: the number and hash of its last line, written `<seq>:<64 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last line's number; 0 of an empty log.
    pub seq: u64,
    /// The last line's hash.
    pub hash: String,
}

/// A text or file that names no head.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Not in the form.
    #[error("`{0}` is neither a head, <number>:<64 hex digits>, nor a file that holds one")]
    NoHead(String),
    /// The file cannot be read.
    #[error("failed to read the head in `{0}`: {1}")]
    Unreadable(String, std::io::Error),
}

impl Head {
    /// The head of a log without lines.
    pub fn empty() -> Self {
        Self {
            seq: 0,
            hash: GENESIS.to_owned(),
        }
    }

    /// The head that `--against` names: itself, or the first line of a file.
    ///
    /// # Errors
    /// Neither a head nor a file with one.
    pub fn from_argument(argument: &str) -> Result<Self, HeadError> {
        if let Ok(head) = argument.parse() {
            return Ok(head);
        }
        if !Path::new(argument).exists() {
            return Err(HeadError::NoHead(argument.to_owned()));
        }
        let text = std::fs::read_to_string(argument)
            .map_err(|error| HeadError::Unreadable(argument.to_owned(), error))?;
        text.lines()
            .next()
            .unwrap_or_default()
            .trim()
            .parse()
            .map_err(|_| HeadError::NoHead(argument.to_owned()))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let parsed = text.split_once(':').and_then(|(seq, hash)| {
            let lower_hex = hash.len() == 64
                && hash
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            Some(Self {
                seq: seq.parse().ok()?,
                hash: lower_hex.then(|| hash.to_owned())?,
            })
        });
        parsed.ok_or_else(|| HeadError::NoHead(text.chars().take(100).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_simply_written_is_canonical() -> anyhow::Result<()> {
        let all: String = (0..0x3000).filter_map(char::from_u32).collect();
        let details = [
            json!({ "b": [1, { "z": null, "a": true }], "a": all, "A": "\u{1F600}\u{FFFD}", "": {} }),
            json!({ "\u{FB33}": 1, "\u{1F600}": 2, "\u{E9}": 3 }),
            json!({ "n": 1.5, "e": 1e21, "minus": -3, "exact": 9_007_199_254_740_991_u64 }),
        ];
        for details in details.into_iter().map(|value| value.as_object().cloned()) {
            for name in [None, Some("x\u{7F}\u{2028}\"\\/".to_owned())] {
                let record = Record {
                    principal: "uid:0".to_owned(),
                    tool: "exec".to_owned(),
                    arguments_sha256: GENESIS.to_owned(),
                    run: name.clone(),
                    action: name.clone(),
                    outcome: Outcome::Started,
                    code: name.clone(),
                    ms: 7,
                    details: details.clone(),
                };
                let (line, _) = super::line(&Head::empty(), "now", &record);
                let line = line.trim_ascii_end();
                let entry = Entry::intact(line).ok_or_else(|| anyhow::anyhow!("no entry"))?;
                let unhashed = Entry {
                    hash: String::new(),
                    ..entry.clone()
                };
                let canonical = serde_json_canonicalizer::to_vec(&unhashed)?;
                assert_eq!(
                    String::from_utf8(Unhashed::of(&entry).canonical())?,
                    String::from_utf8(canonical)?
                );
            }
        }
        Ok(())
    }
}
