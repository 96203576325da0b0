//! `write_input`

use std::num::NonZeroU16;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::error::invalid;
use super::view::{
    ScreenView, StateView, StreamView, headline, quote, quote_violations, state_view, stream_from,
};
use super::wait::{Until, Wait, Waited};
use crate::jail::TerminalSize;
use crate::server::BashCommander;
use crate::session::{Session, SessionError, Stream, Violation};

pub(super) const EFFECT: ToolEffect = ToolEffect::new(
    "write_input",
    "Write to a command",
    EffectClass::Irreversible,
);

const LONGEST_TEXT: usize = 64 * 1024;
const MOST_KEYS: usize = 100;
/// Clients give a call up after 60 seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(50);
const OUTPUT_BYTES: usize = 16_000;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteInputParams {
    /// From exec, started with `tty` or `stdin_open`.
    id: String,
    /// As it is; end a line with \n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// After the text: `enter`, `escape`, `up`, `page_down`, `f1`, `ctrl-c`, `alt-x` and the like.
    #[serde(default)]
    keys: Vec<String>,
    /// Ends the input; in a terminal as Ctrl-D does.
    #[serde(default)]
    eof: bool,
    /// Of the terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resize: Option<Size>,
    /// As of exec; default `idle`.
    #[serde(default)]
    #[schemars(with = "Map<String, Value>")]
    wait: Wait,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Size {
    pub(super) rows: u16,
    pub(super) cols: u16,
}

impl Size {
    pub(super) fn checked(self) -> Result<TerminalSize, ToolError> {
        let number = |number: u16| {
            NonZeroU16::new(number)
                .filter(|number| number.get() <= 500)
                .ok_or_else(|| {
                    invalid(
                        format!("a terminal of {} rows and {} cols", self.rows, self.cols),
                        "give 1 to 500 of each, for instance 24 and 80",
                    )
                })
        };
        Ok(TerminalSize {
            rows: number(self.rows)?,
            columns: number(self.cols)?,
        })
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WriteInputResult {
    id: String,
    state: StateView,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    waited: Waited,
    awaiting_input: bool,
    violations: Vec<Violation>,
    /// Written since the call.
    stdout: StreamView,
    stderr: StreamView,
    /// Of a terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    screen: Option<ScreenView>,
}

#[tool_router(router = write_input_router, vis = "pub(super)")]
impl BashCommander {
    /// Writes text or presses keys in a running command, then answers with what it wrote and its screen.
    #[tool]
    async fn write_input(
        &self,
        Parameters(params): Parameters<WriteInputParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<WriteInputResult>, ToolError> {
        let refused = |_: &ToolError| shared::call::was_refused(&context);
        let condition = params
            .wait
            .checked(Until::Idle)
            .inspect_err(refused)?
            .within(LONGEST_WAIT);
        let bytes = bytes(&params).inspect_err(refused)?;
        let size = params
            .resize
            .map(Size::checked)
            .transpose()
            .inspect_err(refused)?;
        let owner = &principal::of(&context)?.name;
        let session = self
            .state()
            .sessions
            .find(&params.id, owner)
            .map_err(ToolError::from)
            .inspect_err(refused)?;
        let action = self.begin(&context, EFFECT.tool(), &params).await?;
        let from = [
            session.written(Stream::Stdout),
            session.written(Stream::Stderr),
        ];
        let is_stopped = action
            .as_ref()
            .is_some_and(|action| self.state().sessions.is_stopped(&action.origin()));
        let done = async {
            if is_stopped {
                return Err(SessionError::RunEnded.into());
            }
            if let Some(action) = &action {
                belongs(&session, &action.origin().run_id)?;
            }
            write(&session, &bytes, size, params.eof).await?;
            let waited = condition
                .reached(&session, from, Stream::Stdout, &context)
                .await
                .ok_or_else(cancelled)?;
            result(&session, from, waited)
        };
        let done = done.await;
        let result = match action {
            Some(action) => action.end(done, |_, _| {}).await?,
            None => done?,
        };
        let mut text = headline(&session, &session.state());
        if let Some(screen) = &result.screen {
            screen.quote(&mut text);
        } else {
            quote_violations(&mut text, &result.violations);
            quote(&mut text, "stdout", &result.stdout);
            quote(&mut text, "stderr", &result.stderr);
        }
        Ok(structured(result, text))
    }
}

/// A command that another run started is none of this one's.
fn belongs(session: &Session, run_id: &str) -> Result<(), ToolError> {
    match session.origin() {
        Some(origin) if origin.run_id == run_id => Ok(()),
        _ => Err(
            ToolError::new("OTHER_RUN", "the command was not started in this run")
                .with_hint("write only to what a step of the same run started"),
        ),
    }
}

async fn write(
    session: &Session,
    bytes: &[u8],
    size: Option<TerminalSize>,
    eof: bool,
) -> Result<(), ToolError> {
    if let Some(size) = size {
        session.resize(size).await?;
    }
    if !bytes.is_empty() {
        session.write(bytes).await?;
    }
    if eof {
        session.end_input().await?;
    }
    Ok(())
}

fn result(
    session: &Session,
    from: [u64; 2],
    waited: Waited,
) -> Result<WriteInputResult, ToolError> {
    let state = session.state();
    Ok(WriteInputResult {
        id: session.id().to_string(),
        state: state_view(&state),
        exit_code: state.ended.and_then(|ended| ended.exit.code),
        waited,
        awaiting_input: session.awaits_input(),
        violations: session.violations(),
        stdout: stream_from(session, Stream::Stdout, from[0], OUTPUT_BYTES)?,
        stderr: stream_from(session, Stream::Stderr, from[1], OUTPUT_BYTES)?,
        screen: session.screen().map(ScreenView::from),
    })
}

fn cancelled() -> ToolError {
    ToolError::new(
        code::CANCELLED,
        "the call was cancelled after it was written; the command runs on",
    )
}

fn bytes(params: &WriteInputParams) -> Result<Vec<u8>, ToolError> {
    let text = params.text.as_deref().unwrap_or_default();
    if text.len() > LONGEST_TEXT || params.keys.len() > MOST_KEYS {
        return Err(invalid(
            "`text` is longer than 64 KiB or `keys` more than 100",
            "write it in several calls",
        ));
    }
    let mut bytes = text.as_bytes().to_vec();
    for key in &params.keys {
        let pressed = key_bytes(key).ok_or_else(|| {
            let key: String = key.chars().take(40).collect();
            invalid(
                format!("there is no key `{key}`"),
                "give names as listed, ctrl-<letter>, alt-<character>, or write `text`",
            )
        })?;
        bytes.extend(pressed);
    }
    if bytes.is_empty() && !params.eof && params.resize.is_none() {
        return Err(invalid(
            "there is nothing to write",
            "give `text`, `keys`, `eof` or `resize`; to look at a command use read_output",
        ));
    }
    Ok(bytes)
}

/// What a terminal of the `xterm` family sends for a key.
fn key_bytes(name: &str) -> Option<Vec<u8>> {
    let named = match name {
        "enter" => "\r",
        "tab" => "\t",
        "escape" => "\x1b",
        "space" => " ",
        "backspace" => "\x7f",
        "up" => "\x1b[A",
        "down" => "\x1b[B",
        "right" => "\x1b[C",
        "left" => "\x1b[D",
        "home" => "\x1b[H",
        "end" => "\x1b[F",
        "insert" => "\x1b[2~",
        "delete" => "\x1b[3~",
        "page_up" => "\x1b[5~",
        "page_down" => "\x1b[6~",
        "f1" => "\x1bOP",
        "f2" => "\x1bOQ",
        "f3" => "\x1bOR",
        "f4" => "\x1bOS",
        "f5" => "\x1b[15~",
        "f6" => "\x1b[17~",
        "f7" => "\x1b[18~",
        "f8" => "\x1b[19~",
        "f9" => "\x1b[20~",
        "f10" => "\x1b[21~",
        "f11" => "\x1b[23~",
        "f12" => "\x1b[24~",
        _ => return chord(name),
    };
    Some(named.as_bytes().to_vec())
}

fn chord(name: &str) -> Option<Vec<u8>> {
    let (modifier, key) = name.split_once('-')?;
    let mut characters = key.chars();
    let (character, None) = (characters.next()?, characters.next()) else {
        return None;
    };
    match modifier {
        "ctrl" => {
            let letter = u8::try_from(character.to_ascii_uppercase()).ok()?;
            // As terminals do: the key's code without its two upper bits.
            (b'@'..=b'_').contains(&letter).then(|| vec![letter & 0x1F])
        }
        "alt" if character.is_ascii_graphic() => Some(format!("\x1b{character}").into_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_terminals_send() {
        for (name, bytes) in [
            ("ctrl-c", &b"\x03"[..]),
            ("ctrl-C", b"\x03"),
            ("ctrl-[", b"\x1b"),
            ("ctrl-@", b"\0"),
            ("alt-x", b"\x1bx"),
            ("enter", b"\r"),
            ("up", b"\x1b[A"),
        ] {
            assert_eq!(key_bytes(name).as_deref(), Some(bytes), "{name}");
        }
        for wrong in [
            "", "Enter", "ctrl-", "ctrl-cc", "ctrl-é", "alt-\x1b", "hyper-x", "f13",
        ] {
            assert_eq!(key_bytes(wrong), None, "{wrong}");
        }
    }
}
