//! What a command tried and was not allowed: exact, from who denied it, never guessed from its output.

use serde::Serialize;

use super::{Session, lock};
use crate::jail::JailedCommand;

/// Most kinds that are kept for one command.
const MOST: usize = 100;

/// Who denied it and knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The kernel, by a system-call filter.
    Kernel,
    /// The server's proxy.
    Proxy,
}

/// One kind of attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Who denied it.
    pub source: Source,
    /// What was tried: a system call, or a host and port.
    pub what: String,
    /// What the command was told.
    pub why: String,
    /// How often.
    pub times: u64,
}

impl Session {
    /// What was denied to it so far.
    pub fn violations(&self) -> Vec<Violation> {
        let running = lock(&self.running).clone();
        if let Some(running) = running {
            self.note_denials(&running.command);
        }
        lock(&self.violations).clone()
    }

    /// Takes over what the jail knows by now.
    pub(super) fn note_denials(&self, command: &JailedCommand) {
        let mut violations = lock(&self.violations);
        let room = MOST.saturating_sub(violations.len());
        let mut added = 0;
        for denied in command.denied() {
            let known = violations
                .iter_mut()
                .find(|known| known.source == Source::Kernel && known.what == denied.call);
            match known {
                Some(known) => known.times = denied.times,
                None if added < room => {
                    added += 1;
                    violations.push(Violation {
                        source: Source::Kernel,
                        what: denied.call,
                        why: "EPERM".to_owned(),
                        times: denied.times,
                    });
                }
                None => {}
            }
        }
    }

    /// Notes what the proxy refused.
    pub fn note_refusal(&self, what: String, why: String) {
        let mut violations = lock(&self.violations);
        let is_full = violations.len() >= MOST;
        let known = violations
            .iter_mut()
            .find(|known| known.source == Source::Proxy && known.what == what && known.why == why);
        match known {
            Some(known) => known.times += 1,
            None if !is_full => violations.push(Violation {
                source: Source::Proxy,
                what,
                why,
                times: 1,
            }),
            None => {}
        }
    }
}
