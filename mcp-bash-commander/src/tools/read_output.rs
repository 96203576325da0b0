//! `read_output`

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::bytes::{Regex, RegexBuilder};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::error::invalid;
use super::view::{
    ScreenView, StateView, StreamView, headline, quote, quote_violations, state_view,
};
use super::wait::{Until, Wait, Waited};
use crate::server::BashCommander;
use crate::session::{Reading, Stream, Violation, cut_to_characters};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("read_output", "Read a command's output", EffectClass::Read);

/// Clients give a call up after 60 seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(50);
const MOST_BYTES: u32 = 131_072;
/// Bytes a compiled pattern may take.
const PATTERN_SIZE: usize = 1 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadOutputParams {
    /// From exec.
    id: String,
    /// Which.
    #[serde(default)]
    stream: StreamName,
    /// First byte; default 0.
    #[serde(default)]
    cursor: Option<u64>,
    /// Bytes from the end, without `cursor`.
    #[serde(default)]
    tail: Option<u32>,
    /// 1 to 131072.
    #[serde(default = "default_bytes")]
    max_bytes: u32,
    /// As of exec, at most 50000 ms; default `none`.
    #[serde(default)]
    #[schemars(with = "Map<String, Value>")]
    wait: Wait,
    /// `base64` gives every byte as it is.
    #[serde(default)]
    encoding: Encoding,
    /// Only lines that match, with positions.
    #[serde(default)]
    grep: Option<String>,
    /// Add what its terminal shows.
    #[serde(default)]
    screen: bool,
}

fn default_bytes() -> u32 {
    30_000
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum StreamName {
    #[default]
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Encoding {
    #[default]
    Text,
    Base64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReadOutputResult {
    id: String,
    state: StateView,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    text: String,
    /// Position of the first byte shown.
    start: u64,
    /// Read on from here.
    cursor: u64,
    /// Written so far.
    bytes: u64,
    /// Between the cursor asked for and `start`: no longer kept.
    lost: u64,
    /// Nothing more will ever come.
    end: bool,
    waited: Waited,
    awaiting_input: bool,
    violations: Vec<Violation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    screen: Option<ScreenView>,
}

#[tool_router(router = read_output_router, vis = "pub(super)")]
impl BashCommander {
    /// Reads one stream of a command by byte position; can wait for more.
    #[tool]
    async fn read_output(
        &self,
        Parameters(params): Parameters<ReadOutputParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<ReadOutputResult>, ToolError> {
        let stream = match params.stream {
            StreamName::Stdout => Stream::Stdout,
            StreamName::Stderr => Stream::Stderr,
        };
        check(&params)?;
        let pattern = params.grep.as_deref().map(line_pattern).transpose()?;
        let condition = params.wait.checked(Until::None)?.within(LONGEST_WAIT);
        let session = self
            .state()
            .sessions
            .find(&params.id, &principal::of(&context)?.name)?;
        let seen = params.cursor.unwrap_or_else(|| session.written(stream));
        let seen = match stream {
            Stream::Stdout => [seen, session.written(Stream::Stderr)],
            Stream::Stderr => [session.written(Stream::Stdout), seen],
        };
        let waited = condition
            .reached(&session, seen, stream, &context)
            .await
            .unwrap_or(Waited::None);
        let most = params
            .tail
            .unwrap_or(params.max_bytes)
            .min(params.max_bytes);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let from = if params.tail.is_some() {
            None
        } else {
            Some(params.cursor.unwrap_or(0))
        };
        let mut reading = session
            .read(stream, from, most)
            .map_err(|error| ToolError::internal(&error))?;
        let text = match (params.encoding, &pattern) {
            (_, Some(pattern)) => matching_lines(&mut reading, pattern),
            (Encoding::Text, None) => {
                cut_to_characters(&mut reading.piece, reading.is_end);
                String::from_utf8_lossy(&reading.piece.bytes).into_owned()
            }
            (Encoding::Base64, None) => STANDARD.encode(&reading.piece.bytes),
        };
        let state = session.state();
        let exit = state.ended.map(|ended| ended.exit);
        let (start, cursor) = (reading.piece.start, reading.piece.end());
        let shown = StreamView {
            text: text.clone(),
            bytes: cursor - start,
            omitted: 0,
            cursor,
        };
        let result = ReadOutputResult {
            id: session.id().to_string(),
            state: state_view(&state),
            exit_code: exit.and_then(|exit| exit.code),
            signal: exit.and_then(|exit| exit.signal),
            text,
            start,
            cursor,
            bytes: reading.written,
            lost: start.saturating_sub(from.unwrap_or(start)),
            end: reading.is_end && cursor == reading.written,
            waited,
            awaiting_input: session.awaits_input(),
            violations: session.violations(),
            screen: session
                .screen()
                .filter(|_| params.screen)
                .map(ScreenView::from),
        };
        let mut text = format!(
            "{}; bytes {start} to {cursor} of {}",
            headline(&session, &state),
            result.bytes
        );
        quote_violations(&mut text, &result.violations);
        let what = match params.encoding {
            Encoding::Text => "output",
            Encoding::Base64 => "output, as base64",
        };
        quote(&mut text, what, &shown);
        if let Some(screen) = &result.screen {
            screen.quote(&mut text);
        }
        Ok(structured(result, text))
    }
}

fn check(params: &ReadOutputParams) -> Result<(), ToolError> {
    if !(1..=MOST_BYTES).contains(&params.max_bytes) {
        return Err(invalid(
            format!("`max_bytes` is {}", params.max_bytes),
            "give 1 to 131072",
        ));
    }
    if params.cursor.is_some() && params.tail.is_some() {
        return Err(invalid(
            "both `cursor` and `tail` are given",
            "give one of them",
        ));
    }
    if params.grep.is_some() && params.encoding == Encoding::Base64 {
        return Err(invalid(
            "`grep` and `base64` do not go together",
            "leave one of them out",
        ));
    }
    Ok(())
}

fn line_pattern(pattern: &str) -> Result<Regex, ToolError> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_SIZE)
        .dfa_size_limit(PATTERN_SIZE)
        .build()
        .map_err(|error| {
            invalid(
                format!("`grep` is no regular expression: {error}"),
                "escape what is meant literally, for instance \\$ or \\(",
            )
        })
}

/// The lines that match, each with the position of its first byte. What is left of the piece ends with a line, so that none is cut in
/// two by the next reading, unless one alone is longer than a reading.
fn matching_lines(reading: &mut Reading, pattern: &Regex) -> String {
    let piece = &mut reading.piece;
    if !reading.is_end
        && let Some(last) = piece.bytes.iter().rposition(|byte| *byte == b'\n')
    {
        piece.bytes.truncate(last + 1);
    }
    let mut text = String::new();
    let mut position = piece.start;
    for line in piece.bytes.split_inclusive(|byte| *byte == b'\n') {
        if pattern.is_match(line.strip_suffix(b"\n").unwrap_or(line)) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{position}:{}", String::from_utf8_lossy(line));
            if !line.ends_with(b"\n") {
                text.push('\n');
            }
        }
        position += line.len() as u64;
    }
    text
}
