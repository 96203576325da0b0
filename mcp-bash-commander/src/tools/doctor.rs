//! `doctor`

use rmcp::handler::server::wrapper::Parameters;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::config::Status;
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use crate::server::{self, BashCommander};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("doctor", "Examine the jail", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DoctorParams {}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DoctorResult {
    status: StatusView,
    checks: Vec<CheckView>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum StatusView {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct CheckView {
    check: String,
    status: StatusView,
    detail: String,
    /// For the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[tool_router(router = doctor_router, vis = "pub(super)")]
impl BashCommander {
    /// Tries every layer of the jail; tells limits and policy, and what is missing.
    #[tool]
    async fn doctor(
        &self,
        Parameters(DoctorParams {}): Parameters<DoctorParams>,
    ) -> Result<Json<DoctorResult>, ToolError> {
        let report = server::examine(self.state()).await;
        let text = report.to_string();
        let status = view(report.status());
        let checks = report.checks.into_iter().map(|check| CheckView {
            check: check.check,
            status: view(check.status),
            detail: check.detail,
            fix: check.fix,
        });
        Ok(structured(
            DoctorResult {
                status,
                checks: checks.collect(),
            },
            text,
        ))
    }
}

fn view(status: Status) -> StatusView {
    match status {
        Status::Ok => StatusView::Ok,
        Status::Warn => StatusView::Warn,
        Status::Fail => StatusView::Fail,
    }
}
