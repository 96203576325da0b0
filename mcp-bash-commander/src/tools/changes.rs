//! `changes`

use std::fmt::Write as _;
use std::sync::Arc;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::digest::Digest;
use shared::effect::class::EffectClass;
use shared::effect::client::EndReport;
use shared::effect::protocol::PinnedInput;
use shared::principal;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;
use shared::visible;

use super::error::invalid;
use super::view::counted;
use crate::server::BashCommander;
use crate::session::{Changes, SessionError};
use crate::workspace::Workspace;
use crate::workspace::changes::{Change, ChangesError, Commit, Committed, Overlay, Protected};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("changes", "See or commit changes", EffectClass::Write);

/// Most changes of one answer.
const MOST: usize = 200;
const DIFF_BYTES: usize = 30_000;
const MOST_PATHS: usize = 1000;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangesParams {
    /// A session, or a command from exec.
    id: String,
    /// What to do.
    action: Act,
    /// Only these and what is below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paths: Option<Vec<String>>,
    /// The `digest` of `list` or `diff` for the same `paths`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Act {
    List,
    Diff,
    Commit,
    Discard,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct ChangesResult {
    changes: Vec<Value>,
    /// Not in the answer.
    omitted: usize,
    /// Of all these changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
    /// Carried over.
    applied: Vec<Value>,
    /// Not carried over, and why.
    skipped: Vec<Value>,
    discarded: u64,
}

#[tool_router(router = changes_router, vis = "pub(super)")]
impl BashCommander {
    /// What was changed behind an overlay: list, unified diff, commit into the workspace, discard.
    #[tool]
    async fn changes(
        &self,
        Parameters(params): Parameters<ChangesParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<ChangesResult>, ToolError> {
        let expected = checked(&params).inspect_err(|_| shared::call::was_refused(&context))?;
        let owner = &principal::of(&context)?.name;
        let changes = self.changes_of(&params.id, owner)?;
        if params.action != Act::Commit {
            let result = look(changes, params).await?;
            let text = told(&result);
            return Ok(structured(result, text));
        }
        let protected = self.state().policy.protected.clone();
        let result = match self.begin(&context, EFFECT.tool(), &params).await? {
            None => commit(changes, params, expected, protected).await?,
            Some(action) => {
                let result = if self.state().sessions.is_stopped(&action.origin()) {
                    Err(SessionError::RunEnded.into())
                } else {
                    commit(changes, params, expected, protected).await
                };
                action.end(result, report).await?
            }
        };
        let text = told(&result);
        Ok(structured(result, text))
    }
}

impl BashCommander {
    fn changes_of(&self, id: &str, owner: &str) -> Result<Arc<Changes>, ToolError> {
        let sessions = &self.state().sessions;
        let changes = match sessions.find_kept(id, owner) {
            Some(kept) => kept.changes(),
            None => sessions.find(id, owner)?.changes(),
        };
        changes.ok_or_else(|| {
            ToolError::new("NO_OVERLAY", "it worked on the workspace itself")
                .with_hint("run it with workspace `overlay` to keep changes aside")
        })
    }
}

fn checked(params: &ChangesParams) -> Result<Option<Digest>, ToolError> {
    if params
        .paths
        .as_ref()
        .is_some_and(|paths| paths.len() > MOST_PATHS || paths.is_empty())
    {
        return Err(invalid(
            "`paths` has none or more than 1000",
            "name folders, or leave it out",
        ));
    }
    let expected = params.expect.as_deref().map(str::parse).transpose();
    expected.map_err(|error| {
        invalid(
            format!("`expect`: {error}"),
            "give the digest that `list` or `diff` returned for the same `paths`",
        )
    })
}

async fn look(changes: Arc<Changes>, params: ChangesParams) -> Result<ChangesResult, ToolError> {
    let done = tokio::task::spawn_blocking(move || {
        let workspace = changes.workspace();
        let mut overlay = changes.overlay();
        let paths = params.paths.as_deref();
        let mut result = ChangesResult::default();
        match params.action {
            Act::Diff => {
                result.digest = digest_if_possible(&overlay, workspace, paths)?;
                let diff = overlay.diff(workspace, paths.unwrap_or_default(), DIFF_BYTES)?;
                result.omitted = diff.cut;
                result.diff = Some(diff.text);
            }
            Act::Discard => result.discarded = overlay.discard(workspace, paths)?.entries,
            Act::List | Act::Commit => {
                // First, so that what changes while this looks is listed and not under the digest: a commit refuses it then.
                result.digest = Some(overlay.digest(workspace, paths)?);
                let listing = overlay.list(workspace, paths, MOST)?;
                result.omitted = listing.omitted;
                result.changes = values(&listing.changes);
            }
        }
        Ok::<_, ToolError>(result)
    });
    done.await.map_err(|error| ToolError::internal(&error))?
}

/// More changes than can be hashed can be looked at all the same, in parts.
fn digest_if_possible(
    overlay: &Overlay,
    workspace: &Workspace,
    paths: Option<&[String]>,
) -> Result<Option<Digest>, ChangesError> {
    match overlay.digest(workspace, paths) {
        Err(ChangesError::TooMuch { .. }) => Ok(None),
        digest => digest.map(Some),
    }
}

/// Not interrupted by a cancelled call: half a commit would be neither done nor undone.
async fn commit(
    changes: Arc<Changes>,
    params: ChangesParams,
    expected: Option<Digest>,
    protected: Protected,
) -> Result<ChangesResult, ToolError> {
    let done = tokio::task::spawn_blocking(move || {
        let workspace = changes.workspace();
        let mut overlay = changes.overlay();
        let commit = Commit {
            paths: params.paths.as_deref(),
            protected: &protected,
            expect: expected.as_ref(),
            force: false,
        };
        let Committed { applied, skipped } =
            overlay.commit(workspace, &commit, |_: &Change| Ok(()))?;
        if skipped.is_empty() && params.paths.is_none() {
            // What was carried over would hide what happens in the workspace later.
            overlay.discard(workspace, None)?;
        }
        Ok::<_, ToolError>(ChangesResult {
            applied: values(&applied),
            skipped: values(&skipped),
            ..ChangesResult::default()
        })
    });
    done.await.map_err(|error| ToolError::internal(&error))?
}

fn values<T: Serialize>(items: &[T]) -> Vec<Value> {
    items
        .iter()
        .map(|item| serde_json::to_value(item).unwrap_or(json!({})))
        .collect()
}

fn told(result: &ChangesResult) -> String {
    let changes = |number: usize, what: &str| {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        format!("{}{what}", counted(number, "change", "changes"))
    };
    let mut text = if let Some(diff) = &result.diff {
        let lines = counted(diff.lines().count() as u64, "line", "lines");
        let digest = result.digest.as_ref();
        let digest = digest.map_or_else(
            || "too much for a digest".to_owned(),
            |digest| format!("all together {digest}"),
        );
        format!("a diff of {lines}, {digest}")
    } else if let Some(digest) = &result.digest {
        let all = changes(result.changes.len() + result.omitted, "");
        format!("{all}, all together {digest}")
    } else if result.discarded > 0 || result.applied.is_empty() && result.skipped.is_empty() {
        format!(
            "{} discarded",
            counted(result.discarded, "entry", "entries")
        )
    } else {
        let applied = changes(result.applied.len(), " carried over");
        format!("{applied}, {} skipped", result.skipped.len())
    };
    if result.omitted > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, "; {} not shown", result.omitted);
    }
    let field = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    for item in result.changes.iter().chain(&result.applied).take(50) {
        let line = format!(
            "{} {} {}",
            field(item, "kind"),
            field(item, "what"),
            field(item, "path")
        );
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{}", visible::prose(&line));
    }
    for item in result.skipped.iter().take(50) {
        let line = format!("skipped {}: {}", field(item, "path"), field(item, "reason"));
        let _ = write!(text, "\n{}", visible::prose(&line));
    }
    if let Some(diff) = &result.diff {
        text.push('\n');
        text.push_str(&visible::prose(diff));
    }
    text
}

fn report(result: &ChangesResult, report: &mut EndReport) {
    let artefact = |item: &Value| {
        Some(PinnedInput {
            path: item["path"].as_str()?.to_owned(),
            sha256: item["sha256"].as_str()?.parse().ok()?,
        })
    };
    report.artefacts = result.applied.iter().filter_map(artefact).collect();
    if !result.skipped.is_empty() {
        report.error_code = Some(code::INVALID_ARGUMENTS.to_owned());
    }
}
