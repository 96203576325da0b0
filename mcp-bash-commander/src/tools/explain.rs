//! `explain`

use rmcp::handler::server::wrapper::Parameters;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;
use shared::visible;

use super::error::invalid;
use crate::confine;
use crate::policy::Explanation;
use crate::server::BashCommander;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("explain", "Explain the policy", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainParams {
    /// A shell command.
    #[serde(default)]
    command: Option<String>,
    /// A path, as commands see it.
    #[serde(default)]
    path: Option<String>,
    /// `host:port`.
    #[serde(default)]
    host: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExplainResult {
    /// `allow`, `ask` or `deny`.
    decision: String,
    /// Who decides: `rules`, `private_root`, `workspace`, `network`.
    layer: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<usize>,
}

#[tool_router(router = explain_router, vis = "pub(super)")]
impl BashCommander {
    /// Says what the policy decides about one of these, and why, without running anything.
    #[tool]
    async fn explain(
        &self,
        Parameters(params): Parameters<ExplainParams>,
    ) -> Result<Json<ExplainResult>, ToolError> {
        let policy = &self.state().policy;
        let explanation = match (params.command, params.path, params.host) {
            (Some(command), None, None) => policy.explain_command(&command),
            (None, Some(path), None) => {
                let workspace = &self.state().workspace;
                let explanation = policy.explain_path(path.as_ref());
                if confine::is_linked(workspace, &path).await {
                    policy.explain_linked(explanation)
                } else if confine::is_in_the_way(policy, workspace, &path) {
                    Explanation {
                        reason: "it can be read; a path that workspace.protect names would be below it, so it may not be changed".to_owned(),
                        ..explanation
                    }
                } else {
                    explanation
                }
            }
            (None, None, Some(host)) => policy.explain_host(&host),
            _ => {
                return Err(invalid(
                    "none or several of `command`, `path` and `host` are given",
                    "give one of them",
                ));
            }
        };
        let Explanation {
            decision,
            layer,
            reason,
            rule,
        } = explanation;
        let text = format!("{decision} by {layer}: {}", visible::prose(&reason));
        let result = ExplainResult {
            decision: decision.to_string(),
            layer: layer.to_owned(),
            reason,
            rule,
        };
        Ok(structured(result, text))
    }
}
