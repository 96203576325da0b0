//! `search`

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::budget;
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;
use shared::visible;

use super::view::counted;
use crate::server::BashCommander;
use crate::workspace::{self, Bound, Breadth, Found, Query, Snippet};

pub(super) const EFFECT: ToolEffect = ToolEffect::new("search", "Search files", EffectClass::Read);

/// Clients give a call up after 60 seconds; what was found by then is better than nothing.
const LONGEST: Duration = Duration::from_secs(40);
/// Bytes of the matches that also stand in the text.
const TEXT_BYTES: usize = 8000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchParams {
    /// Regular expression, line by line.
    pattern: String,
    /// It is plain text.
    #[serde(default)]
    literal: bool,
    /// Of letters.
    #[serde(default)]
    ignore_case: bool,
    /// Folder or file; default all.
    #[serde(default)]
    path: Option<String>,
    /// Like `*.rs` or `src/**/*.ts`.
    #[serde(default)]
    glob: Option<String>,
    /// Lines around each match, to 5.
    #[serde(default)]
    context: usize,
    /// Names of files only.
    #[serde(default)]
    files_only: bool,
    /// Hidden, or ignored ones too.
    #[serde(default)]
    include: Include,
    /// To 1000.
    #[serde(default = "default_results")]
    max: usize,
}

fn default_results() -> usize {
    100
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Include {
    #[default]
    Visible,
    Hidden,
    All,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SearchResult {
    matches: Vec<MatchView>,
    files: Vec<String>,
    /// Those not returned included.
    total: u64,
    files_searched: u64,
    /// Should have been searched and could not.
    skipped: u64,
    /// Hidden or ignored.
    left_out: u64,
    /// Bounds that were met; there may be more.
    truncated: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct MatchView {
    path: String,
    line: usize,
    column: usize,
    text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    before: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<String>,
}

#[tool_router(router = search_router, vis = "pub(super)")]
impl BashCommander {
    /// Searches the workspace's text files. Hidden and git-ignored ones are left out, but counted.
    #[tool]
    async fn search(
        &self,
        Parameters(params): Parameters<SearchParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<SearchResult>, ToolError> {
        let query = Query {
            pattern: params.pattern,
            literal: params.literal,
            ignore_case: params.ignore_case,
            path: params.path,
            glob: params.glob,
            breadth: match params.include {
                Include::Visible => Breadth::Visible,
                Include::Hidden => Breadth::Hidden,
                Include::All => Breadth::All,
            },
            report: if params.files_only {
                workspace::Report::Files
            } else {
                workspace::Report::Lines {
                    context: params.context,
                }
            },
            most: params.max,
        };
        let (workspace, state) = (Arc::clone(&self.state().workspace), self.clone());
        let (cancelled, started) = (context.ct.clone(), Instant::now());
        let found = tokio::task::spawn_blocking(move || {
            let denied = |path: &Path| state.state().policy.denies_reading(path);
            let over = || cancelled.is_cancelled() || started.elapsed() > LONGEST;
            workspace.search(&query, &denied, &over)
        })
        .await
        .map_err(|error| ToolError::internal(&error))??;
        let result = view(found);
        let text = told(&result);
        Ok(structured(result, text))
    }
}

fn view(found: Found) -> SearchResult {
    let texts = |snippets: Vec<Snippet>| snippets.into_iter().map(shown).collect();
    let matches = found.matches.into_iter().map(|found| MatchView {
        path: found.path,
        line: found.line,
        column: found.column,
        text: shown(found.text),
        before: texts(found.before),
        after: texts(found.after),
    });
    let skipped = found.skipped;
    SearchResult {
        matches: matches.collect(),
        files: found.files,
        total: found.total,
        files_searched: found.files_searched,
        skipped: skipped.binary + skipped.too_large + skipped.unreadable + skipped.not_utf8_name,
        left_out: found.left_out.ignored
            + found.left_out.hidden
            + found.left_out.links
            + found.left_out.other_mounts,
        truncated: found
            .truncated
            .into_iter()
            .map(|bound| bound_name(bound).to_owned())
            .collect(),
    }
}

fn shown(snippet: Snippet) -> String {
    let Snippet {
        text,
        cut_before,
        cut_after,
    } = snippet;
    let (before, after) = (
        if cut_before { "…" } else { "" },
        if cut_after { "…" } else { "" },
    );
    format!("{before}{text}{after}")
}

fn bound_name(bound: Bound) -> &'static str {
    match bound {
        Bound::Results => "max",
        Bound::Bytes => "bytes",
        Bound::Entries => "entries",
        Bound::Depth => "depth",
        Bound::Cancelled => "time",
    }
}

fn told(result: &SearchResult) -> String {
    let mut text = format!(
        "{} in {} searched; {} could not be searched, {} hidden or ignored left out",
        counted(result.total, "result", "results"),
        counted(result.files_searched, "file", "files"),
        result.skipped,
        result.left_out
    );
    if !result.truncated.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, "; ended early by {}", result.truncated.join(", "));
    }
    let mut lines = String::new();
    for file in &result.files {
        let _ = write!(lines, "\n{file}");
    }
    for found in &result.matches {
        quote(&mut lines, found);
    }
    text.push_str(&visible::prose(&budget::ends(&lines, TEXT_BYTES)));
    text
}

/// A match as `grep -C` has it: its lines with `-` behind the number where they do not match themselves, and `--` in front of them all.
fn quote(lines: &mut String, found: &MatchView) {
    let MatchView {
        path,
        before,
        after,
        ..
    } = found;
    if !before.is_empty() || !after.is_empty() {
        lines.push_str("\n--");
    }
    let first = found.line.saturating_sub(before.len());
    // Writing to a String cannot fail.
    for (line, text) in (first..).zip(before) {
        let _ = write!(lines, "\n{path}-{line}- {text}");
    }
    let _ = write!(lines, "\n{path}:{}: {}", found.line, found.text);
    for (line, text) in (found.line + 1..).zip(after) {
        let _ = write!(lines, "\n{path}-{line}- {text}");
    }
}
