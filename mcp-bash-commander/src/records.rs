//! What the call log says of a command: a line before it is started, and one when it has ended, whenever that is.

mod hide;

use std::sync::Arc;

use serde_json::{Value, json};
use shared::budget::{head, json_bytes};
use shared::call_log::{CallLog, CallLogError, Details, Outcome, Record};
use shared::digest::Digest;

pub use hide::Hider;
use hide::Hiding;

use crate::session::{Killed, Session, SessionError, SessionId, Stream, Violation};

/// Most bytes of a command, or of its arguments together, that are recorded.
const MOST_COMMAND: usize = 4096;
/// Most bytes of either as JSON, in which a character may take six times as many: there must be room for all else in its line.
const MOST_JSON: usize = 12 * 1024;
/// Most bytes of any other text.
const MOST_TEXT: usize = 256;
/// Most names of variables, most bytes of one, and of all as JSON.
const MOST_NAMES: usize = 64;
const MOST_NAME: usize = 64;
const MOST_NAMES_JSON: usize = 4096;
/// Most violations.
const MOST_VIOLATIONS: usize = 16;

/// What a call asks to run.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// For a shell; else `argv`.
    pub command: Option<&'a str>,
    /// Program and arguments.
    pub argv: &'a [String],
    /// Where.
    pub cwd: &'a str,
    /// Names of the variables that the call sets.
    pub env: &'a [&'a str],
    /// The kept session.
    pub session: Option<&'a str>,
    /// How much of a network.
    pub network: &'a str,
    /// The policy.
    pub policy: &'a Digest,
    /// What its rules say.
    pub decision: &'a str,
    /// The rule that decided, counted from 1.
    pub rule: Option<usize>,
    /// Who let it run: `rule`, `client_elicitation`, `plan`, or `none` where nobody had to.
    pub approved_by: &'a str,
    /// What the client calls itself that was asked.
    pub client: Option<&'a str>,
}

impl Asked<'_> {
    /// As details of a line, without secrets.
    pub fn details(&self, hider: &Hider) -> Details {
        let hiding = hider.now();
        let mut details = Details::new();
        let mut say = |name: &str, value: Value| drop(details.insert(name.to_owned(), value));
        if let Some(command) = self.command {
            let hidden = hiding.text(command);
            let kept = fitting(&hidden, MOST_COMMAND, MOST_JSON);
            say("command", json!(kept));
            if kept.len() < hidden.len() {
                say("command_bytes", json!(command.len()));
            }
        } else {
            let (argv, is_cut) = cut(hiding.arguments(self.argv));
            say("argv", json!(argv));
            if is_cut {
                say("arguments", json!(self.argv.len()));
            }
        }
        say("cwd", json!(short(&hiding.text(self.cwd))));
        let mut room = MOST_NAMES_JSON;
        let names = self.env.iter().take(MOST_NAMES);
        let names = names.map(|name| head(name, MOST_NAME).text);
        let names = names.take_while(|name| {
            let bytes = json_bytes(name);
            let fits = bytes <= room;
            room = room.saturating_sub(bytes + 1);
            fits
        });
        say("env", names.collect());
        if let Some(session) = self.session {
            say("session", json!(session));
        }
        say("network", json!(self.network));
        say("policy", json!(self.policy));
        say("decision", json!(self.decision));
        if let Some(rule) = self.rule {
            say("rule", json!(rule));
        }
        say("approved_by", json!(self.approved_by));
        if let Some(client) = self.client {
            say("client", json!(short(client)));
        }
        details
    }
}

/// The record of a command that is about to be started.
#[derive(Debug)]
pub struct Recording {
    log: CallLog,
    /// What its lines have in common; the details are those of the first.
    line: Record,
    hider: Arc<Hider>,
}

impl Recording {
    /// A record in this log.
    pub fn new(log: CallLog, line: Record, hider: Arc<Hider>) -> Self {
        Self { log, line, hider }
    }

    /// Writes the line that says that it is started.
    ///
    /// # Errors
    /// A disk that does not take it, where the policy wants every command recorded.
    pub(crate) async fn start(mut self, id: SessionId) -> Result<Recorded, CallLogError> {
        let details = self.line.details.take().unwrap_or_default();
        self.line.details = Some(named(id, details));
        let recorded = Recorded {
            recording: Some(self),
            id,
        };
        let Some(Recording { log, line, .. }) = &recorded.recording else {
            return Ok(recorded);
        };
        match log.add_written(line).await {
            Err(error) if log.is_required() => {
                recorded.not_started("AUDIT_UNAVAILABLE");
                return Err(error);
            }
            Err(error) => tracing::error!(%error, exec = %id, "a command is not recorded"),
            Ok(_) => {}
        }
        Ok(recorded)
    }
}

/// A command whose start is recorded. Its end will be, whatever becomes of it, unless the server is killed.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Until its end is recorded.
    recording: Option<Recording>,
    id: SessionId,
}

impl Recorded {
    /// Records why it was not started after all.
    pub(crate) fn not_started(mut self, code: &str) {
        self.note_not_started(code);
    }

    /// Waits for the end and records it.
    pub(crate) async fn end(mut self, session: Arc<Session>) {
        session.over().await;
        session.ended().await;
        let Some(Recording { log, line, hider }) = self.recording.take() else {
            return;
        };
        let ended = Record {
            outcome: Outcome::Ended,
            ms: milliseconds(session.wall()),
            details: Some(named(self.id, end_of(&session, &hider))),
            ..line
        };
        if let Err(error) = log.add_written_with_next(&ended).await {
            tracing::error!(%error, exec = %self.id, "the end of a command waits to be recorded");
        }
    }

    fn note_not_started(&mut self, code: &str) {
        let Some(Recording { log, line, .. }) = self.recording.take() else {
            return;
        };
        let details = Details::from_iter([("state".to_owned(), json!("not_started"))]);
        let ended = Record {
            outcome: Outcome::Ended,
            code: Some(code.to_owned()),
            details: Some(named(self.id, details)),
            ..line
        };
        if let Err(error) = log.note(&ended) {
            tracing::error!(%error, exec = %self.id, "that a command was not started is not recorded");
        }
    }
}

/// Whoever waited for the start has gone: the call was cancelled.
impl Drop for Recorded {
    fn drop(&mut self) {
        self.note_not_started("CANCELLED");
    }
}

/// What a command that could not be started is recorded with.
pub(crate) fn code_of(error: &SessionError) -> &'static str {
    match error {
        SessionError::Jail(_) => "JAIL",
        SessionError::Ending => "ENDING",
        SessionError::RunEnded => "RUN_STOPPED",
        SessionError::OtherTerms { .. } => "SESSION_DIFFERS",
        SessionError::Full(_) => "TOO_MANY_SESSIONS",
        SessionError::Proxy(_) => "NETWORK_UNUSABLE",
        SessionError::Publish { .. } => "PORT_NOT_PUBLISHED",
        SessionError::Unrecorded(_) => "AUDIT_UNAVAILABLE",
        SessionError::Unknown(_) => "UNKNOWN_SESSION",
    }
}

fn end_of(session: &Session, hider: &Hider) -> Details {
    let state = session.state();
    let mut details = Details::new();
    let mut say = |name: &str, value: Value| {
        if !value.is_null() {
            details.insert(name.to_owned(), value);
        }
    };
    if let Some(ended) = state.ended {
        let killed = ended.killed.map(|killed| match killed {
            Killed::TimedOut => "timed_out",
            Killed::Stopped => "stopped",
            Killed::Cancelled => "cancelled",
            Killed::RunEnded => "run_ended",
            Killed::ServerEnded => "server_ended",
        });
        let is_killed = ended.killed.is_some();
        say("state", json!(if is_killed { "killed" } else { "exited" }));
        say("exit_code", json!(ended.exit.code.filter(|_| !is_killed)));
        say("signal", json!(ended.exit.signal));
        say("killed", json!(killed));
        say("timed_out", json!(ended.killed == Some(Killed::TimedOut)));
        say("oom", json!(ended.out_of_memory));
        say("cpu_ms", json!(milliseconds(ended.exit.cpu)));
        say("max_rss_bytes", json!(ended.exit.max_rss_bytes));
    }
    for (name, stream) in [("stdout", Stream::Stdout), ("stderr", Stream::Stderr)] {
        let (bytes, digest) = session.sum(stream);
        say(name, json!({ "bytes": bytes, "sha256": digest }));
    }
    if state.output_open() {
        say("output_open", json!(true));
    }
    let violations = session.violations();
    let (kept, hiding) = (violations.iter().take(MOST_VIOLATIONS), hider.now());
    say(
        "violations",
        kept.map(|one| violation(one, &hiding)).collect(),
    );
    if violations.len() > MOST_VIOLATIONS {
        say("more_violations", json!(violations.len() - MOST_VIOLATIONS));
    }
    let isolation = session.isolation();
    say(
        "isolation",
        json!({ "mode": isolation.mode, "layers": isolation.layers, "missing": isolation.missing }),
    );
    details
}

fn violation(violation: &Violation, hiding: &Hiding<'_>) -> Value {
    let Violation {
        source,
        what,
        why,
        times,
    } = violation;
    json!({ "source": source, "what": short(&hiding.text(what)), "why": short(&hiding.text(why)), "times": times })
}

/// What the line of a call says that started this command.
pub(crate) fn name_of(id: SessionId) -> Details {
    named(id, Details::new())
}

fn named(id: SessionId, mut details: Details) -> Details {
    details.insert("exec".to_owned(), json!(id.to_string()));
    details
}

/// As many arguments as fit, the last of them perhaps not to its end.
fn cut(arguments: Vec<String>) -> (Vec<String>, bool) {
    let (mut room, mut json_room) = (MOST_COMMAND, MOST_JSON);
    let mut kept = Vec::new();
    for argument in arguments {
        if room == 0 || json_room == 0 {
            return (kept, true);
        }
        let fitting = fitting(&argument, room, json_room);
        let is_whole = fitting.len() == argument.len();
        kept.push(fitting.to_owned());
        if !is_whole {
            return (kept, true);
        }
        // Each costs something, empty ones too.
        room = room.saturating_sub(fitting.len() + 4);
        json_room = json_room.saturating_sub(json_bytes(&fitting) + 1);
    }
    (kept, false)
}

/// The beginning of a text: so many bytes at most, and so many as JSON.
fn fitting(text: &str, bytes: usize, json: usize) -> &str {
    let mut kept = head(text, bytes).text;
    while json_bytes(&kept) > json && !kept.is_empty() {
        // A character takes at most six times its bytes.
        let over = json_bytes(&kept) - json;
        kept = head(kept, kept.len().saturating_sub(over.div_ceil(6))).text;
    }
    kept
}

fn short(text: &str) -> String {
    head(text, MOST_TEXT).text.to_owned()
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_of_a_call_has_an_end() -> anyhow::Result<()> {
        let long = "\u{1}".repeat(100_000);
        let argv = vec![long.clone(); 100];
        let names = vec![long.as_str(); 1000];
        let asked = Asked {
            command: None,
            argv: &argv,
            cwd: &long,
            env: &names,
            session: None,
            network: "none",
            policy: &Digest::of(""),
            decision: "allow",
            rule: None,
            approved_by: "none",
            client: Some(&long),
        };
        let hider = Hider::new(crate::network::Secrets::default())?;
        for asked in [
            asked,
            Asked {
                command: Some(&long),
                ..asked
            },
        ] {
            let details = asked.details(&hider);
            let bytes = serde_json::to_string(&details)?.len();
            // With all else in a line below what the log takes of details.
            assert!(bytes < 24 * 1024, "{bytes}");
            assert!(details["policy"].is_string(), "{details:?}");
        }
        assert_eq!(asked.details(&hider)["arguments"], json!(100));
        let (kept, is_cut) = cut(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!((kept.len(), is_cut), (2, false));
        let (kept, is_cut) = cut(vec![String::new(); 10_000]);
        assert!(kept.len() <= MOST_COMMAND / 4 + 1 && is_cut);
        Ok(())
    }
}
