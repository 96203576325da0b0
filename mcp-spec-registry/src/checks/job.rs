//! What passes between the registry and the process that measures: lines of JSON with numbers, never a body.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use shared::digest::Digest;

use super::http::Failure;
use crate::plan::HttpExpectation;

/// Longest time for one request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for all requests of one test.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_mins(1);

/// The first line that a worker gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Setup {
    /// Addresses of this round, `HOST:PORT`; it dials no others.
    pub(super) addresses: Vec<String>,
    /// Addresses beyond loopback that the operator allows.
    pub(super) allowed: Vec<String>,
}

/// The first line that a worker answers: how it is shut in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Confinement {
    /// Landlock: `enforced`, `partly` or `unavailable`.
    pub(super) landlock: String,
    /// It can gain no privileges and write no files.
    pub(super) limited: bool,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Job {
    /// GET requests, one after the other.
    Http {
        address: String,
        path: String,
        samples: u32,
        expect: HttpExpectation,
    },
    /// A connection.
    Tcp { address: String },
    /// GET requests until one succeeds.
    Wait {
        address: String,
        path: String,
        within_ms: u64,
    },
}

/// The answer to a [`Job`]. Tagged from outside: an inner tag would make texts of the status codes that count as keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Measured {
    Http(HttpMeasured),
    Tcp {
        took_us: Option<u64>,
        failure: Option<Failure>,
    },
    Wait {
        took_us: Option<u64>,
        attempts: u32,
        failure: Option<Failure>,
        status: Option<u16>,
    },
    /// The job was refused: an address that may not be dialled, a path that is none.
    Refused {
        message: String,
    },
}

/// What many requests found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpMeasured {
    /// Requests made; fewer than asked for if the time was up.
    pub(super) requests: u32,
    /// Latency of each whole answer, in microseconds, in the order of the requests.
    pub(super) latencies_us: Vec<u64>,
    /// How often each status came.
    pub(super) statuses: BTreeMap<u16, u32>,
    /// Requests without a whole answer, by what was wrong.
    pub(super) failures: BTreeMap<Failure, u32>,
    /// Answers with a status of 200 to 299.
    pub(super) successes: u32,
    /// Answers with the expected status; all of them if none is stated.
    pub(super) status_matched: u32,
    /// Answers with each expected header.
    pub(super) headers_matched: BTreeMap<String, u32>,
    /// Answers with the expected text, if one is stated.
    pub(super) text_matched: Option<u32>,
    /// Answers that were as expected in everything.
    pub(super) matched: u32,
    /// Size of the smallest and of the largest body.
    pub(super) body_bytes: Option<(u64, u64)>,
    /// Digest of the first whole body.
    pub(super) body_sha256: Option<Digest>,
}
