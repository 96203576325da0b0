//! `read_output`

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::error::invalid;
use super::view::{StateView, StreamView, headline, quote, state_view};
use crate::server::BashCommander;
use crate::session::{Session, Stream, cut_to_characters};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("read_output", "Read a command's output", EffectClass::Read);

/// Clients give a call up after 60 seconds.
const LONGEST_WAIT_MS: u64 = 50_000;
const MOST_BYTES: u32 = 131_072;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadOutputParams {
    /// From exec.
    id: String,
    /// Which one.
    #[serde(default)]
    stream: StreamName,
    /// First byte; default 0.
    #[serde(default)]
    cursor: Option<u64>,
    /// Instead of `cursor`: so many bytes from the end.
    #[serde(default)]
    tail: Option<u32>,
    /// 1 to 131072.
    #[serde(default = "default_bytes")]
    max_bytes: u32,
    /// What to wait for first.
    #[serde(default)]
    wait: Wait,
    /// `base64` gives every byte as it is.
    #[serde(default)]
    encoding: Encoding,
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

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Wait {
    /// `output`: for bytes behind the cursor. `exit`: for the command's end.
    #[serde(default)]
    until: Until,
    /// Longest wait, at most and by default 50000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Until {
    #[default]
    None,
    Output,
    Exit,
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
}

#[tool_router(router = read_output_router, vis = "pub(super)")]
impl BashCommander {
    /// Reads what a command wrote on one stream, by byte position; can wait for more of it or for the command's end.
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
        let session = self
            .state()
            .sessions
            .find(&params.id, &principal::of(&context)?.name)?;
        wait(&session, stream, &params, &context).await;
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
        let text = match params.encoding {
            Encoding::Text => {
                cut_to_characters(&mut reading.piece, reading.is_end);
                String::from_utf8_lossy(&reading.piece.bytes).into_owned()
            }
            Encoding::Base64 => STANDARD.encode(&reading.piece.bytes),
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
            end: reading.is_end,
        };
        let mut text = format!(
            "{}; bytes {start} to {cursor} of {}",
            headline(&session, &state),
            result.bytes
        );
        if params.encoding == Encoding::Text {
            quote(&mut text, "output", &shown);
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
    if let Some(ms) = params.wait.ms.filter(|ms| *ms > LONGEST_WAIT_MS) {
        return Err(invalid(
            format!("`wait.ms` is {ms}"),
            "give at most 50000, and call again if that was not enough",
        ));
    }
    Ok(())
}

async fn wait(
    session: &Session,
    stream: Stream,
    params: &ReadOutputParams,
    context: &RequestContext<RoleServer>,
) {
    let limit = Duration::from_millis(params.wait.ms.unwrap_or(LONGEST_WAIT_MS));
    let reached = async {
        match params.wait.until {
            Until::None => {}
            Until::Exit => {
                session.ended().await;
            }
            Until::Output => {
                let seen = params.cursor.unwrap_or_else(|| session.written(stream));
                session.more_output(stream, seen).await;
            }
        }
    };
    tokio::select! {
        () = reached => {}
        () = tokio::time::sleep(limit) => {}
        () = context.ct.cancelled() => {}
    }
}
