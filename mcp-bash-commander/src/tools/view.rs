//! Sessions and their output as results show them.

use std::fmt::Write;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Serialize;
use shared::budget;
use shared::tool_error::ToolError;
use shared::visible;

use crate::session::{
    Excerpt, Killed, Screen, Session, Source, State, Stream, Violation, cut_to_characters,
};

/// Bytes of each stream that also stand in the text of a result.
const TEXT_BYTES: usize = 2000;
/// Bytes of a screen that also stand there.
const SCREEN_BYTES: usize = 8000;

// No doc comments where the name says it: every client pays for each on every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum StateView {
    Running,
    Exited,
    Killed,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct StreamView {
    /// All, or beginning and end.
    pub(super) text: String,
    pub(super) bytes: u64,
    /// Bytes not in the text.
    pub(super) omitted: u64,
    /// First byte not shown; read on from here.
    pub(super) cursor: u64,
}

impl From<Excerpt> for StreamView {
    fn from(excerpt: Excerpt) -> Self {
        let Excerpt {
            text,
            bytes,
            omitted,
            cursor,
            ..
        } = excerpt;
        Self {
            text,
            bytes,
            omitted,
            cursor,
        }
    }
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct PortView {
    pub(super) port: u16,
    /// On the host.
    pub(super) address: String,
}

pub(super) fn ports(session: &Session) -> Vec<PortView> {
    port_views(session.published())
}

pub(super) fn port_views(published: &[(u16, SocketAddr)]) -> Vec<PortView> {
    let port = |(port, address): &(u16, SocketAddr)| PortView {
        port: *port,
        address: address.to_string(),
    };
    published.iter().map(port).collect()
}

/// Each denial as a line of the text.
pub(super) fn quote_violations(text: &mut String, violations: &[Violation]) {
    for violation in violations {
        let by = match violation.source {
            Source::Kernel => "the jail",
            Source::Proxy => "the network policy",
            Source::Workspace => "the server",
        };
        let Violation {
            what, why, times, ..
        } = violation;
        let times = counted(*times, "time", "times");
        let line = format!("denied by {by}: {what} ({why}), {times}");
        text.push('\n');
        text.push_str(&visible::prose(&line));
    }
}

/// A number with its noun.
pub(super) fn counted(count: impl Into<u64>, one: &str, many: &str) -> String {
    let count = count.into();
    format!("{count} {}", if count == 1 { one } else { many })
}

pub(super) fn state_view(state: &State) -> StateView {
    match state.ended {
        None => StateView::Running,
        Some(ended) if ended.killed.is_some() => StateView::Killed,
        Some(_) => StateView::Exited,
    }
}

pub(super) fn stream_view(
    session: &Session,
    stream: Stream,
    budget: usize,
) -> Result<StreamView, ToolError> {
    session
        .excerpt(stream, budget)
        .map(StreamView::from)
        .map_err(|error| ToolError::internal(&error))
}

/// What was written on a stream from a position on.
pub(super) fn stream_from(
    session: &Session,
    stream: Stream,
    from: u64,
    most: usize,
) -> Result<StreamView, ToolError> {
    let reading = session
        .read(stream, Some(from), most)
        .map_err(|error| ToolError::internal(&error))?;
    let mut piece = reading.piece;
    cut_to_characters(&mut piece, reading.is_end);
    Ok(StreamView {
        text: String::from_utf8_lossy(&piece.bytes).into_owned(),
        bytes: reading.written.saturating_sub(from),
        omitted: reading.written.saturating_sub(piece.end()),
        cursor: piece.end(),
    })
}

/// A terminal as a person would see it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(inline)]
pub(super) struct ScreenView {
    text: String,
    rows: u16,
    cols: u16,
    cursor_row: u16,
    cursor_col: u16,
    /// It fills the screen, as editors do.
    alternate: bool,
    title: String,
}

impl From<Screen> for ScreenView {
    fn from(screen: Screen) -> Self {
        Self {
            text: screen.text,
            rows: screen.rows,
            cols: screen.columns,
            cursor_row: screen.cursor_row,
            cursor_col: screen.cursor_column,
            alternate: screen.alternate,
            title: screen.title,
        }
    }
}

impl ScreenView {
    pub(super) fn quote(&self, text: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(text, "\nscreen, {} by {}:", self.rows, self.cols);
        for line in visible::prose(&budget::ends(&self.text, SCREEN_BYTES)).lines() {
            let _ = write!(text, "\n| {line}");
        }
    }
}

/// `x1 exited with 0 after 12 ms`.
pub(super) fn headline(session: &Session, state: &State) -> String {
    let (id, wall) = (session.id(), session.wall().as_millis());
    let Some(ended) = state.ended else {
        return format!("{id} is running since {wall} ms");
    };
    let how = match (ended.killed, ended.exit.code, ended.exit.signal) {
        (Some(Killed::TimedOut), ..) => "was killed because its time was up".to_owned(),
        (Some(Killed::Stopped), ..) => "was stopped".to_owned(),
        (Some(Killed::Cancelled), ..) => "was killed because the call was cancelled".to_owned(),
        (Some(Killed::RunEnded), ..) => "was killed because its run or step ended".to_owned(),
        (Some(Killed::ServerEnded), ..) => "was killed because the server ends".to_owned(),
        (None, Some(code), _) => format!("exited with {code}"),
        (None, None, signal) => format!("was ended by signal {}", signal.unwrap_or(0)),
    };
    let memory = if ended.out_of_memory == Some(true) {
        "; memory ran out"
    } else {
        ""
    };
    format!("{id} {how} after {wall} ms{memory}")
}

/// The beginning and end of a stream, each line marked as the command's, invisible characters shown by name.
pub(super) fn quote(text: &mut String, name: &str, stream: &StreamView) {
    if stream.bytes == 0 {
        return;
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{name}, {} bytes:", stream.bytes);
    for line in visible::prose(&budget::ends(&stream.text, TEXT_BYTES)).lines() {
        let _ = write!(text, "\n| {line}");
    }
}
