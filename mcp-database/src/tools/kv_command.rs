//! `kv_command`

use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::call;
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::error::redis::refusal;
use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Format, Left, Reply, reply};
use crate::database::Wanted;
use crate::redis::Call;
use crate::redis::command::{Class, Command};
use crate::redis::value::Blob;
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect = ToolEffect::new("kv_command", "Ask Redis", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KvCommandParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// ["ZRANGE", "board", 0, 9]
    #[schemars(with = "Vec<Value>")]
    argv: Vec<Blob>,
    /// Default 100.
    #[serde(default)]
    max_rows: Option<usize>,
}

#[tool_router(router = kv_command_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Sends one command that reads, for what `kv_read` cannot; others are refused.
    #[tool]
    async fn kv_command(
        &self,
        Parameters(params): Parameters<KvCommandParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let (database, redis) = self.state().databases.redis(params.source.as_deref())?;
        let wanted = Wanted {
            rows: params.max_rows,
            ..Wanted::default()
        };
        let asked = Call {
            budget: database.budget(wanted)?,
            timeout: database.timeout(wanted)?,
        };
        let command = Command::of(&params.argv).map_err(|error| refusal(&context, error))?;
        let mut recorded = Recorded::of(&database.settings.id);
        if command.class != Class::Never {
            recorded.with("statement", json!(command.shown()));
        }
        if matches!(command.class, Class::Write | Class::Destructive) {
            record::note(&context, recorded);
            call::was_refused(&context);
            let message = format!("{} changes data, and this tool only reads", command.shown());
            return Err(ToolError::new("NOT_A_QUERY", message)
                .with_hint("changes are kv_write's, on a source with mode = \"write\""));
        }
        let _slot = database.slot().await?;
        let work = Box::pin(redis.command(&params.argv, false, asked));
        let answered = told(&context, "the command", work).await;
        recorded.rows(answered.as_ref().ok().map(|(answer, _)| answer.rows.len()));
        record::note(&context, recorded);
        let (answer, rest) = answered.map_err(|error| refusal(&context, error))?;
        let left = Left {
            rest,
            source: database.settings.id.clone(),
            budget: asked.budget,
            notices: Vec::new(),
        };
        let cursors = &self.state().cursors;
        reply(&context, cursors, answer, left, Format::Rows, since)
    }
}
