//! What a command tried and was not allowed: exact, from who denied it, never guessed from its output.

use std::sync::{Arc, Mutex};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Forbidden, Session, lock};
use crate::jail::{JailedCommand, Mode};
use crate::network::Event;

/// How a violation begins that tells of a guarded path without its guard.
pub const REPLACED: &str = "replaced";

/// Most kinds that are kept for one command.
const MOST: usize = 100;

/// Who denied it and knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Source {
    /// The kernel, by a system-call filter.
    Kernel,
    /// The server's proxy.
    Proxy,
    /// The server, which looked at the workspace when the command had ended.
    Workspace,
}

/// One kind of attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Violation {
    /// Who denied it.
    pub source: Source,
    /// What was tried: a system call, a host and port, or a path.
    pub what: String,
    /// What the command was told.
    pub why: String,
    /// How often.
    pub times: u64,
}

/// What the proxy of a jail refused, for whichever of its commands asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals(Arc<Mutex<Vec<Violation>>>);

impl Refusals {
    /// Notes what the proxy tells.
    pub(super) fn note(&self, event: &Event) {
        let refusal = match event {
            Event::Refused(refusal) => refusal,
            Event::Connected(connected) => {
                tracing::info!(host = %connected.host, port = connected.port, address = %connected.address, "a command was connected");
                return;
            }
        };
        let port = refusal
            .port
            .map_or_else(String::new, |port| format!(":{port}"));
        let (what, why) = (format!("{}{port}", refusal.host), refusal.to_string());
        tracing::info!(%what, %why, "a command was not connected");
        let mut noted = lock(&self.0);
        let is_full = noted.len() >= MOST;
        let known = noted
            .iter_mut()
            .find(|known| known.what == what && known.why == why);
        match known {
            Some(known) => known.times += 1,
            None if !is_full => noted.push(Violation {
                source: Source::Proxy,
                what,
                why,
                times: 1,
            }),
            None => {}
        }
    }

    /// All so far.
    pub(super) fn all(&self) -> Vec<Violation> {
        lock(&self.0).clone()
    }

    /// Those that are not in `before`.
    fn since(&self, before: &[Violation]) -> Vec<Violation> {
        let mut fresh = self.all();
        for violation in &mut fresh {
            let known = before
                .iter()
                .find(|known| known.what == violation.what && known.why == violation.why);
            violation.times -= known.map_or(0, |known| known.times);
        }
        fresh.retain(|violation| violation.times > 0);
        fresh
    }
}

impl Session {
    /// What was denied to it so far. Commands of one session share a proxy; what it refused while they ran is told of each.
    pub fn violations(&self) -> Vec<Violation> {
        let running = lock(&self.running).clone();
        if let Some(running) = running {
            self.take_from_jail(&running.command);
        }
        let mut violations = lock(&self.of_jail).clone();
        let (refusals, before) = &self.refusals;
        violations.extend(refusals.since(before));
        violations.extend(lock(&self.made).iter().cloned());
        violations
    }

    /// Puts away what has come up of protected paths.
    pub(super) fn put_away(&self) {
        let put_away = lock(&self.forbidden).as_ref().map(Forbidden::put_away);
        let mut made = lock(&self.made);
        for entry in put_away.into_iter().flatten() {
            let is_moved = entry.to.is_ok();
            let violation = Violation {
                source: Source::Workspace,
                what: format!("made {}", entry.path.display()),
                why: match entry.to {
                    Ok(_) => "protected: it was moved away, the operator has it".to_owned(),
                    Err(error) => format!("protected: it could not be moved away: {error}"),
                },
                times: 1,
            };
            // What could not be moved is found each time.
            if is_moved || !made.contains(&violation) {
                made.push(violation);
            }
        }
    }

    /// Takes over what the jail knows by now.
    pub(super) fn take_from_jail(&self, command: &JailedCommand) {
        let denied = command.denied().into_iter().take(MOST);
        let denied = denied.map(|denied| Violation {
            source: Source::Kernel,
            what: denied.call,
            why: "EPERM".to_owned(),
            times: denied.times,
        });
        let replaced = command.replaced().into_iter().take(MOST);
        let replaced = replaced.map(|path| Violation {
            source: Source::Workspace,
            what: format!("{REPLACED} {}", path.display()),
            why: match self.isolation.mode {
                Mode::NoUserns => {
                    "it was changed while the command ran, which this mode cannot prevent"
                }
                Mode::Strict | Mode::Container => {
                    "it was removed, or something else put in its place, from outside while the command ran; nothing more runs in that jail"
                }
            }
            .to_owned(),
            times: 1,
        });
        *lock(&self.of_jail) = denied.chain(replaced).collect();
    }
}
