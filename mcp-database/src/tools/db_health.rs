//! `db_health`

use std::fmt::Write as _;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::effect::class::EffectClass;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::progress::told;
use super::record::{self, Recorded};
use crate::fence::fenced;
use crate::finding::{Check, Status};
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("db_health", "Look whether it is well", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DbHealthParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// Some of its checks; default all.
    #[serde(default)]
    checks: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DbHealthResult {
    source: String,
    /// The worst.
    status: &'static str,
    checks: Vec<CheckView>,
    untrusted: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct CheckView {
    check: String,
    status: &'static str,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[tool_router(router = db_health_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Looks whether a database is well, from its own statistics: each check with value, threshold and advice.
    #[tool]
    async fn db_health(
        &self,
        Parameters(params): Parameters<DbHealthParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<DbHealthResult>, ToolError> {
        let database = self.state().databases.only_or(params.source.as_deref())?;
        record::note(&context, Recorded::of(&database.settings.id));
        let _slot = database.slot().await?;
        let checks = told(&context, "the look", database.health(&params.checks)).await?;
        if checks.is_empty() {
            return Err(ToolError::new(
                code::INVALID_ARGUMENTS,
                format!("none of `checks` is one of {}", database.settings.engine),
            )
            .with_hint("leave it out: all are looked at, and named"));
        }
        let worst = checks.iter().map(|check| check.status).max();
        let status = worst.unwrap_or(Status::Ok).name();
        let mut text = String::new();
        for check in &checks {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{}: {}: {}",
                check.status.name(),
                check.check,
                check.value
            );
            if let Some(advice) = &check.advice {
                let _ = writeln!(text, "  {advice}");
            }
        }
        let text = fenced(&text).map_err(|error| ToolError::internal(&error))?;
        let result = DbHealthResult {
            source: database.settings.id.clone(),
            status,
            checks: checks.into_iter().map(CheckView::from).collect(),
            untrusted: true,
        };
        Ok(structured(result, format!("{status}\n{text}")))
    }
}

impl From<Check> for CheckView {
    fn from(check: Check) -> Self {
        Self {
            check: check.check,
            status: check.status.name(),
            value: check.value,
            threshold: check.threshold,
            advice: check.advice,
        }
    }
}
