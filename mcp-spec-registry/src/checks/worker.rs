//! The process that measures: without keys, store or files it dials what it is told to and answers with numbers.

use std::{
    io::{self, BufRead, Read, Write},
    thread,
    time::{Duration, Instant},
};

use shared::digest::Digest;

use super::{
    confine,
    dial::{Destination, Destinations},
    http::{self, Failure, Response},
    job::{HttpMeasured, Job, Measured, REQUEST_TIMEOUT, Setup, TEST_TIMEOUT},
};
use crate::plan::HttpExpectation;

/// Longest line of a job.
const LONGEST_LINE: u64 = 256 * 1024;
/// Most requests of one job.
const MOST_SAMPLES: u32 = 500;
/// Pause between two tries while a service restarts.
const PAUSE: Duration = Duration::from_millis(10);

/// The whole of the hidden command `check-worker`: reads jobs from stdin, a line each, until it ends, and answers on stdout.
///
/// # Errors
/// A parent that speaks otherwise, or a confinement that the kernel knows but refuses.
pub fn main() -> anyhow::Result<()> {
    confine::limit()?;
    let mut jobs = io::stdin().lock();
    let mut answers = io::stdout().lock();
    let Some(setup) = line::<Setup>(&mut jobs)? else {
        return Ok(());
    };
    let destinations = Destinations::resolve(&setup.addresses, &setup.allowed);
    answer(&mut answers, &confine::shut_in(destinations.ports())?)?;
    while let Some(job) = line::<Job>(&mut jobs)? {
        answer(&mut answers, &carry_out(&job, &destinations))?;
    }
    Ok(())
}

fn line<T: serde::de::DeserializeOwned>(from: &mut impl BufRead) -> anyhow::Result<Option<T>> {
    let mut bytes = Vec::new();
    from.take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&bytes)?))
}

fn answer(to: &mut impl Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    to.write_all(&bytes)?;
    to.flush()?;
    Ok(())
}

/// Measures. Takes at most a little more than its bound on time.
pub(super) fn carry_out(job: &Job, destinations: &Destinations) -> Measured {
    let (Job::Http { address, .. } | Job::Tcp { address } | Job::Wait { address, .. }) = job;
    if let Job::Http { path, .. } | Job::Wait { path, .. } = job
        && !http::is_path(path)
    {
        return Measured::Refused {
            message: "the path must begin with / and have only visible ASCII characters".to_owned(),
        };
    }
    let destination = match destinations.find(address) {
        Ok(destination) => destination,
        Err(message) => return Measured::Refused { message },
    };
    match job {
        Job::Http {
            path,
            samples,
            expect,
            ..
        } => Measured::Http(many(destination, path, *samples, expect)),
        Job::Tcp { .. } => connect(destination),
        Job::Wait {
            path, within_ms, ..
        } => wait(destination, path, Duration::from_millis(*within_ms)),
    }
}

fn many(
    destination: &Destination,
    path: &str,
    samples: u32,
    expect: &HttpExpectation,
) -> HttpMeasured {
    let end = Instant::now() + TEST_TIMEOUT;
    let mut measured = HttpMeasured {
        headers_matched: expect
            .headers
            .keys()
            .map(|name| (name.clone(), 0))
            .collect(),
        text_matched: expect.text.as_ref().map(|_| 0),
        ..HttpMeasured::default()
    };
    for _ in 0..samples.clamp(1, MOST_SAMPLES) {
        let now = Instant::now();
        if now >= end {
            break;
        }
        measured.requests += 1;
        let deadline = end.min(now + REQUEST_TIMEOUT);
        match http::get(destination.address, &destination.host, path, deadline) {
            Ok(response) => measured.add(&response, expect),
            Err(failure) => *measured.failures.entry(failure).or_default() += 1,
        }
    }
    measured
}

impl HttpMeasured {
    fn add(&mut self, response: &Response, expect: &HttpExpectation) {
        // Rounded up, so that a limit is never met by rounding.
        let took = response.took.as_nanos().div_ceil(1000);
        self.latencies_us
            .push(u64::try_from(took).unwrap_or(u64::MAX));
        *self.statuses.entry(response.status).or_default() += 1;
        if (200..300).contains(&response.status) {
            self.successes += 1;
        }
        let mut matches = expect.status.is_none_or(|status| status == response.status);
        self.status_matched += u32::from(matches);
        for (name, text) in &expect.headers {
            let has_text = response.headers.iter().any(|(known, value)| {
                known.eq_ignore_ascii_case(name) && value.contains(text.as_str())
            });
            *self.headers_matched.entry(name.clone()).or_default() += u32::from(has_text);
            matches &= has_text;
        }
        if let Some(text) = &expect.text {
            let has_text = String::from_utf8_lossy(&response.body).contains(text.as_str());
            self.text_matched = self.text_matched.map(|count| count + u32::from(has_text));
            matches &= has_text;
        }
        self.matched += u32::from(matches);
        let bytes = response.body.len() as u64;
        self.body_bytes = Some(match self.body_bytes {
            Some((least, most)) => (least.min(bytes), most.max(bytes)),
            None => (bytes, bytes),
        });
        if self.body_sha256.is_none() {
            self.body_sha256 = Some(Digest::of(&response.body));
        }
    }
}

fn connect(destination: &Destination) -> Measured {
    let began = Instant::now();
    match http::connect(destination.address, began + REQUEST_TIMEOUT) {
        Ok(_) => Measured::Tcp {
            took_us: Some(microseconds(began.elapsed())),
            failure: None,
        },
        Err(failure) => Measured::Tcp {
            took_us: None,
            failure: Some(failure),
        },
    }
}

fn wait(destination: &Destination, path: &str, within: Duration) -> Measured {
    let began = Instant::now();
    let end = began + within.min(TEST_TIMEOUT);
    let mut attempts = 0;
    let (mut failure, mut status) = (None, None);
    while Instant::now() < end {
        attempts += 1;
        let deadline = end.min(Instant::now() + REQUEST_TIMEOUT);
        match http::get(destination.address, &destination.host, path, deadline) {
            Ok(response) => {
                (failure, status) = (None, Some(response.status));
                if (200..300).contains(&response.status) {
                    let took_us = Some(microseconds(began.elapsed()));
                    return Measured::Wait {
                        took_us,
                        attempts,
                        failure,
                        status,
                    };
                }
            }
            Err(failed) => failure = Some(failed),
        }
        thread::sleep(PAUSE.min(end.saturating_duration_since(Instant::now())));
    }
    let failure = failure.or(Some(Failure::TimedOut));
    Measured::Wait {
        took_us: None,
        attempts,
        failure,
        status,
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}
