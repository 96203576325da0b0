//! `write_file`

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

use super::error::invalid;
use crate::server::BashCommander;
use crate::session::SessionError;
use crate::workspace::Expected;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("write_file", "Write a file", EffectClass::Write).idempotent();

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteFileParams {
    /// Relative to the workspace; missing folders are made.
    path: String,
    /// The whole new content.
    content: String,
    /// Write only over this digest, or `absent`: only a new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect_sha256: Option<String>,
    /// Make it executable.
    #[serde(default)]
    executable: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WriteFileResult {
    /// Relative to the workspace.
    path: String,
    sha256: Digest,
    bytes: u64,
    /// It is new.
    created: bool,
}

#[tool_router(router = write_file_router, vis = "pub(super)")]
impl BashCommander {
    /// Writes a whole text file of the workspace, at once or not at all. An existing file is replaced and keeps its mode.
    #[tool]
    async fn write_file(
        &self,
        Parameters(params): Parameters<WriteFileParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<WriteFileResult>, ToolError> {
        let expected = expected(params.expect_sha256.as_deref())
            .and_then(|expected| {
                self.check_unprotected(&params.path)?;
                Ok(expected)
            })
            .inspect_err(|_| shared::call::was_refused(&context))?;
        let result = match self.begin(&context, EFFECT.tool(), &params).await? {
            None => self.write(params, expected).await?,
            Some(action) => {
                let result = match action.pinned_inputs(&self.state().workspace).await {
                    Err(changed) => Err(changed),
                    Ok(_) if self.state().sessions.is_stopped(&action.origin()) => {
                        Err(SessionError::RunEnded.into())
                    }
                    Ok(_) => self.write(params, expected).await,
                };
                action.end(result, report).await?
            }
        };
        let what = if result.created { "made" } else { "replaced" };
        let text = format!("{what} the file: {} bytes, {}", result.bytes, result.sha256);
        Ok(structured(result, text))
    }
}

impl BashCommander {
    /// Not interrupted by a cancelled call: half a write would be neither done nor undone.
    async fn write(
        &self,
        params: WriteFileParams,
        expected: Option<Expected>,
    ) -> Result<WriteFileResult, ToolError> {
        let workspace = Arc::clone(&self.state().workspace);
        let written = tokio::task::spawn_blocking(move || {
            workspace.write(
                &params.path,
                params.content.as_bytes(),
                expected.as_ref(),
                params.executable,
            )
        })
        .await
        .map_err(|error| ToolError::internal(&error))??;
        Ok(WriteFileResult {
            path: written.path.to_string_lossy().into_owned(),
            sha256: written.sha256,
            bytes: written.bytes,
            created: written.created,
        })
    }
}

fn expected(given: Option<&str>) -> Result<Option<Expected>, ToolError> {
    match given {
        None => Ok(None),
        Some("absent") => Ok(Some(Expected::Absent)),
        Some(digest) => match digest.parse() {
            Ok(digest) => Ok(Some(Expected::Content(digest))),
            Err(error) => Err(invalid(
                format!("`expect_sha256`: {error}"),
                "give the sha256 that read_file returned, or `absent`",
            )),
        },
    }
}

fn report(result: &WriteFileResult, report: &mut EndReport) {
    report.artefacts = vec![PinnedInput {
        path: result.path.clone(),
        sha256: result.sha256.clone(),
    }];
}
