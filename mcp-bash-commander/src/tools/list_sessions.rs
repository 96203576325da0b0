//! `list_sessions`

use std::fmt::Write as _;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::budget;
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;
use time::format_description::well_known::Rfc3339;

use super::view::{PortView, StateView, headline, port_views, ports, state_view};
use crate::server::BashCommander;
use crate::session::{KeptJail, Session, SessionId, Stream};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("list_sessions", "List my commands", EffectClass::Read);

/// Bytes of JSON of one page.
const PAGE_BYTES: usize = 16_000;
/// Lines of the text.
const LINES: usize = 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListSessionsParams {
    /// `next_cursor` of the page before.
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListSessionsResult {
    /// Sessions that are kept.
    kept: Vec<KeptView>,
    /// Commands, newest first.
    sessions: Vec<SessionView>,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct KeptView {
    session: String,
    started_at: String,
    processes: u32,
    published: Vec<PortView>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct SessionView {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    command: String,
    state: StateView,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    started_at: String,
    wall_ms: u64,
    stdout_bytes: u64,
    stderr_bytes: u64,
    published: Vec<PortView>,
}

#[tool_router(router = list_sessions_router, vis = "pub(super)")]
impl BashCommander {
    /// Lists your sessions and commands: those that run, and those that ended in the last 15 minutes.
    #[tool]
    async fn list_sessions(
        &self,
        Parameters(params): Parameters<ListSessionsParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<ListSessionsResult>, ToolError> {
        let before: Option<SessionId> = params.cursor.as_deref().map(str::parse).transpose()?;
        let owner = &principal::of(&context)?.name;
        let mut sessions = self.state().sessions.of_owner(owner);
        sessions.retain(|session| before.is_none_or(|before| session.id() < before));
        sessions.reverse();
        let page = budget::page(
            sessions.iter().map(|session| view(session)),
            PAGE_BYTES,
            |view| view.id.clone(),
        );
        let mut text = format!("{} of your commands", page.items.len());
        for session in sessions.iter().take(page.items.len().min(LINES)) {
            text.push_str("\n- ");
            text.push_str(&headline(session, &session.state()));
        }
        let kept = self.state().sessions.kept_of_owner(owner);
        for kept in &kept {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n- session {} is kept", kept.name());
        }
        let result = ListSessionsResult {
            kept: kept.iter().map(|kept| kept_view(kept)).collect(),
            sessions: page.items,
            truncated: page.truncated,
            next_cursor: page.next_cursor,
        };
        Ok(structured(result, text))
    }
}

fn kept_view(kept: &KeptJail) -> KeptView {
    KeptView {
        session: kept.name().to_owned(),
        started_at: kept.started_at().format(&Rfc3339).unwrap_or_default(),
        processes: kept.processes().unwrap_or(0),
        published: port_views(kept.published()),
    }
}

fn view(session: &Session) -> SessionView {
    let state = session.state();
    let exit = state.ended.map(|ended| ended.exit);
    SessionView {
        id: session.id().to_string(),
        session: session.kept().map(|kept| kept.name().to_owned()),
        command: session.command().to_owned(),
        state: state_view(&state),
        exit_code: exit.and_then(|exit| exit.code),
        signal: exit.and_then(|exit| exit.signal),
        started_at: session.started_at().format(&Rfc3339).unwrap_or_default(),
        wall_ms: u64::try_from(session.wall().as_millis()).unwrap_or(u64::MAX),
        stdout_bytes: session.written(Stream::Stdout),
        stderr_bytes: session.written(Stream::Stderr),
        published: if state.is_over {
            Vec::new()
        } else {
            ports(session)
        },
    }
}
