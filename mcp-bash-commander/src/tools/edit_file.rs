//! `edit_file`

use std::sync::Arc;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::digest::Digest;
use shared::effect::class::EffectClass;
use shared::effect::client::EndReport;
use shared::effect::protocol::PinnedInput;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;
use shared::visible;

use super::error::invalid;
use crate::server::BashCommander;
use crate::session::SessionError;
use crate::workspace::{Edit, Occurrences};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("edit_file", "Edit a file", EffectClass::Write);

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditFileParams {
    /// Relative to the workspace.
    path: String,
    /// Made in order, all or none.
    edits: Vec<EditParams>,
    /// Edit only a file with this digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect_sha256: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct EditParams {
    /// Literal text, there exactly once.
    old: String,
    new: String,
    /// Every occurrence.
    #[serde(default)]
    all: bool,
}

impl From<EditParams> for Edit {
    fn from(EditParams { old, new, all }: EditParams) -> Self {
        let occurrences = if all {
            Occurrences::All
        } else {
            Occurrences::One
        };
        Self {
            old,
            new,
            occurrences,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EditFileResult {
    /// Relative to the workspace.
    path: String,
    sha256_before: Digest,
    sha256: Digest,
    bytes: u64,
    replacements: usize,
    /// Unified.
    diff: String,
    diff_cut: bool,
}

#[tool_router(router = edit_file_router, vis = "pub(super)")]
impl BashCommander {
    /// Replaces text in a file of the workspace, atomically, and answers with the diff.
    #[tool]
    async fn edit_file(
        &self,
        Parameters(params): Parameters<EditFileParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<EditFileResult>, ToolError> {
        let expected = params
            .expect_sha256
            .as_deref()
            .map(str::parse::<Digest>)
            .transpose()
            .map_err(|error| {
                invalid(
                    format!("`expect_sha256`: {error}"),
                    "give the sha256 that read_file returned",
                )
            })
            .and_then(|expected| {
                self.check_readable(&params.path)?;
                self.check_unprotected(&params.path)?;
                Ok(expected)
            })
            .inspect_err(|_| shared::call::was_refused(&context))?;
        let result = match self.begin(&context, EFFECT.tool(), &params).await? {
            None => self.edit(params, expected).await?,
            Some(action) => {
                let result = match action.pinned_inputs(&self.state().workspace).await {
                    Err(changed) => Err(changed),
                    Ok(_) if self.state().sessions.is_stopped(&action.origin()) => {
                        Err(SessionError::RunEnded.into())
                    }
                    Ok(_) => self.edit(params, expected).await,
                };
                action.end(result, report).await?
            }
        };
        let mut text = format!(
            "{} replacements; {} bytes, {}\n",
            result.replacements, result.bytes, result.sha256
        );
        text.push_str(&visible::prose(&result.diff));
        Ok(structured(result, text))
    }
}

impl BashCommander {
    /// Not interrupted by a cancelled call: half an edit would be neither done nor undone.
    async fn edit(
        &self,
        params: EditFileParams,
        expected: Option<Digest>,
    ) -> Result<EditFileResult, ToolError> {
        let workspace = Arc::clone(&self.state().workspace);
        let edits: Vec<Edit> = params.edits.into_iter().map(Edit::from).collect();
        let edited = tokio::task::spawn_blocking(move || {
            workspace.edit(&params.path, &edits, expected.as_ref())
        })
        .await
        .map_err(|error| ToolError::internal(&error))??;
        Ok(EditFileResult {
            path: edited.path.to_string_lossy().into_owned(),
            sha256_before: edited.sha256_before,
            sha256: edited.sha256_after,
            bytes: edited.bytes,
            replacements: edited.replacements,
            diff: edited.diff,
            diff_cut: edited.diff_cut,
        })
    }
}

fn report(result: &EditFileResult, report: &mut EndReport) {
    report.artefacts = vec![PinnedInput {
        path: result.path.clone(),
        sha256: result.sha256.clone(),
    }];
}
