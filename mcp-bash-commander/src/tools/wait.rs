//! When a call about a command answers: shared by `exec`, `read_output` and `write_input`.

use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use rmcp::RoleServer;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::tool_error::ToolError;

use super::error::invalid;
use crate::session::{self, Reached, Session, Stream};

/// A command that wrote nothing for so long is taken for idle.
const QUIET: Duration = Duration::from_millis(500);
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Bytes of new output that come with a report of progress.
const PROGRESS_BYTES: usize = 1000;
const LONGEST_PATTERN: usize = 1000;
/// Bytes a compiled pattern may take.
const PATTERN_SIZE: usize = 1 << 20;
const LONGEST_MS: u64 = 86_400_000;

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Wait {
    /// At its end, when it wrote `pattern`, is silent or reads input, at its next output, or at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Until>,
    /// Regular expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pattern: Option<String>,
    /// Longest wait; then the command runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Until {
    Exit,
    Pattern,
    Idle,
    Output,
    None,
}

/// What came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Waited {
    Exit,
    Pattern,
    Idle,
    Input,
    Output,
    None,
    Time,
}

/// A wait that was checked.
pub(super) struct Condition {
    until: Until,
    pattern: Option<Regex>,
    limit: Option<Duration>,
}

impl Wait {
    /// The condition, `default` where the call names none.
    pub(super) fn checked(&self, default: Until) -> Result<Condition, ToolError> {
        if let Some(ms) = self.ms.filter(|ms| !(1..=LONGEST_MS).contains(ms)) {
            return Err(invalid(
                format!("`wait.ms` is {ms}"),
                "give 1 to 86400000 milliseconds",
            ));
        }
        let pattern = self.pattern.as_deref().map(compiled).transpose()?;
        let until = match (self.until, &pattern) {
            (None, Some(_)) => Until::Pattern,
            (until, _) => until.unwrap_or(default),
        };
        match (until, &pattern) {
            (Until::Pattern, None) => {
                return Err(invalid(
                    "`wait.until` is `pattern`, and `wait.pattern` is missing",
                    "give the regular expression to wait for in `wait.pattern`",
                ));
            }
            (Until::Pattern, Some(_)) | (_, None) => {}
            (_, Some(_)) => {
                return Err(invalid(
                    "`wait.pattern` has no use with this `wait.until`",
                    "leave `until` out, or give `pattern` there",
                ));
            }
        }
        Ok(Condition {
            until,
            pattern,
            limit: self.ms.map(Duration::from_millis),
        })
    }
}

fn compiled(pattern: &str) -> Result<Regex, ToolError> {
    let wrong = |reason: String| {
        invalid(
            format!("`wait.pattern` is no regular expression: {reason}"),
            "escape what is meant literally, for instance \\$ or \\(",
        )
    };
    if pattern.len() > LONGEST_PATTERN {
        return Err(wrong(format!("longer than {LONGEST_PATTERN} bytes")));
    }
    RegexBuilder::new(pattern)
        .multi_line(true)
        .size_limit(PATTERN_SIZE)
        .dfa_size_limit(PATTERN_SIZE)
        .build()
        .map_err(|error| wrong(error.to_string()))
}

impl Condition {
    /// Is the command's end waited for?
    pub(super) fn is_for_the_end(&self) -> bool {
        self.until == Until::Exit
    }

    /// A limit for where the call gives none, and none longer.
    pub(super) fn within(mut self, longest: Duration) -> Self {
        self.limit = Some(self.limit.unwrap_or(longest).min(longest));
        self
    }

    /// Waits; output and patterns count from these positions of standard output and error on. `None` if the call was cancelled.
    pub(super) async fn reached(
        &self,
        session: &Session,
        from: [u64; 2],
        stream: Stream,
        context: &RequestContext<RoleServer>,
    ) -> Option<Waited> {
        let until = match (self.until, &self.pattern) {
            (Until::None, _) => return Some(Waited::None),
            (Until::Exit, _) => session::Until::Exit,
            (Until::Idle, _) => session::Until::Idle(QUIET),
            (Until::Pattern, Some(pattern)) => session::Until::Pattern(pattern.clone(), from),
            (Until::Output | Until::Pattern, _) => {
                let cursor = match stream {
                    Stream::Stdout => from[0],
                    Stream::Stderr => from[1],
                };
                session::Until::Output(stream, cursor)
            }
        };
        let reached = session.wait_until(&until);
        tokio::pin!(reached);
        let limit = async {
            match self.limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(limit);
        let mut progress = tokio::time::interval(PROGRESS_EVERY);
        progress.tick().await;
        let mut told = [
            session.written(Stream::Stdout),
            session.written(Stream::Stderr),
        ];
        loop {
            tokio::select! {
                biased;
                reached = &mut reached => return Some(self.name(reached)),
                () = &mut limit => return Some(Waited::Time),
                () = context.ct.cancelled() => return None,
                _ = progress.tick() => report_progress(session, &mut told, context).await,
            }
        }
    }

    fn name(&self, reached: Reached) -> Waited {
        match (reached, self.until) {
            (Reached::Ended, _) | (Reached::Condition, Until::Exit) => Waited::Exit,
            (Reached::AwaitsInput, _) => Waited::Input,
            (Reached::Condition, Until::Pattern) => Waited::Pattern,
            (Reached::Condition, Until::Idle) => Waited::Idle,
            (Reached::Condition, Until::Output) => Waited::Output,
            (Reached::Condition, Until::None) => Waited::None,
        }
    }
}

/// Tells a client that asked for it how far the command is, with what it wrote last.
async fn report_progress(
    session: &Session,
    told: &mut [u64; 2],
    context: &RequestContext<RoleServer>,
) {
    let Some(token) = context.meta.get_progress_token() else {
        return;
    };
    let mut message = format!(
        "{} runs; stdout {} bytes, stderr {} bytes",
        session.id(),
        session.written(Stream::Stdout),
        session.written(Stream::Stderr)
    );
    for (stream, told) in [Stream::Stdout, Stream::Stderr].into_iter().zip(told) {
        let written = session.written(stream);
        if written > *told {
            let newest = session.read(stream, None, PROGRESS_BYTES.min(usize_of(written - *told)));
            if let Ok(reading) = newest {
                message.push('\n');
                let text = String::from_utf8_lossy(&reading.piece.bytes);
                message.push_str(&shared::visible::prose(&text));
            }
            *told = written;
        }
    }
    let progress =
        ProgressNotificationParam::new(token, session.wall().as_secs_f64()).with_message(message);
    // A client that is gone ends the call by its own way.
    let _ = context.peer.notify_progress(progress).await;
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(until: Option<Until>, pattern: Option<&str>, ms: Option<u64>) -> Wait {
        Wait {
            until,
            pattern: pattern.map(str::to_owned),
            ms,
        }
    }

    #[test]
    fn a_pattern_alone_is_waited_for_and_one_without_use_is_refused() -> anyhow::Result<()> {
        let condition = wait(None, Some("ready$"), None).checked(Until::Exit)?;
        assert_eq!(condition.until, Until::Pattern);
        for wrong in [
            wait(Some(Until::Exit), Some("x"), None),
            wait(Some(Until::Pattern), None, None),
            wait(None, Some("("), None),
            wait(None, Some(&"x{1000}".repeat(100)), None),
            wait(None, None, Some(0)),
            wait(None, None, Some(u64::MAX)),
        ] {
            assert!(wrong.checked(Until::Exit).is_err(), "{wrong:?}");
        }
        let missing = wait(Some(Until::Pattern), None, None).checked(Until::Exit);
        let told = missing.err().map(|error| error.message);
        assert!(told.is_some_and(|told| told.contains("`wait.pattern` is missing")));
        Ok(())
    }
}
