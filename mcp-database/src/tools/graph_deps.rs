//! `graph_deps`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::effect::class::EffectClass;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::graph;
use super::progress::told;
use super::record::{self, Recorded};
use crate::database::Wanted;
use crate::fence::fenced;
use crate::neo4j::deps::{self, Dependencies, Level, MOST_NODES, Question};
use crate::neo4j::walk::{self, CutReason, Reached, Start};
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("graph_deps", "Follow dependencies", EffectClass::Read);

/// How deep it is looked unless somebody says.
const DEPTH: usize = 5;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphDepsParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// `{label, key}`, or `{id}`: an element id.
    start: Map<String, Value>,
    /// Default down; of impact up.
    #[serde(default)]
    direction: Option<Direction>,
    /// Of relationships; default all.
    #[serde(default)]
    types: Vec<String>,
    /// Default 5, at most 10.
    #[serde(default)]
    depth: Option<usize>,
    /// Default list.
    #[serde(default)]
    mode: Mode,
    /// Default 100, at most 2000.
    #[serde(default)]
    max_nodes: Option<usize>,
}

/// A node; the schema leaves out what it holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartView {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    key: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Direction {
    Down,
    Up,
    Both,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Mode {
    #[default]
    List,
    Tree,
    Cycles,
    Impact,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GraphDepsResult {
    start: NodeView,
    /// Nodes, without the start.
    reached: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tree: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cycles: Vec<Vec<String>>,
    /// Nodes at each depth.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    levels: Vec<LevelView>,
    /// Why: `depth`, `nodes`, `relationships`, `bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<&'static str>,
    /// From which depth on something was not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_at: Option<usize>,
    untrusted: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct NodeView {
    id: String,
    labels: Vec<String>,
    name: String,
    depth: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct LevelView {
    depth: usize,
    count: usize,
    labels: BTreeMap<String, usize>,
}

#[tool_router(router = graph_deps_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Follows relationships from a node: what it depends on (down), or what depends on it (up); impact counts by depth and label.
    #[tool]
    async fn graph_deps(
        &self,
        Parameters(params): Parameters<GraphDepsParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<GraphDepsResult>, ToolError> {
        let (database, neo4j) = self.state().databases.neo4j(params.source.as_deref())?;
        let mut recorded = Recorded::of(&database.settings.id);
        let budget = database.budget(Wanted::default())?;
        let question = question(params, budget.rows, database.timeout(Wanted::default())?)?;
        let _slot = database.slot().await?;
        let found = told(&context, "the walk", neo4j.dependencies(&question)).await;
        recorded.rows(found.as_ref().ok().map(|found| found.reached));
        record::note(&context, recorded);
        let found = found.map_err(|error| graph::refusal(&context, error))?;
        let result = bounded(found, budget.bytes);
        let text = text(&result)?;
        Ok(structured(result, text))
    }
}

fn question(
    params: GraphDepsParams,
    nodes: usize,
    timeout: Duration,
) -> Result<Question, ToolError> {
    let start = start(&params.start)?;
    let nodes = params.max_nodes.unwrap_or(nodes);
    if !(1..=MOST_NODES).contains(&nodes) {
        let error = ToolError::new(code::INVALID_ARGUMENTS, format!("`max_nodes` is {nodes}"));
        return Err(error.with_hint(format!("give 1 to {MOST_NODES}")));
    }
    let direction = match (params.direction, params.mode) {
        (Some(Direction::Both), _) => walk::Direction::Both,
        (Some(Direction::Up), _) | (None, Mode::Impact) => walk::Direction::Up,
        (Some(Direction::Down) | None, _) => walk::Direction::Down,
    };
    Ok(Question {
        start,
        direction,
        types: params.types,
        depth: params.depth.unwrap_or(DEPTH),
        nodes,
        mode: match params.mode {
            Mode::List => deps::Mode::List,
            Mode::Tree => deps::Mode::Tree,
            Mode::Cycles => deps::Mode::Cycles,
            Mode::Impact => deps::Mode::Impact,
        },
        timeout: Some(timeout),
    })
}

fn start(given: &Map<String, Value>) -> Result<Start, ToolError> {
    let refused = |why: &str| {
        ToolError::new(code::INVALID_ARGUMENTS, format!("`start` names no node: {why}"))
            .with_hint("give {\"label\": \"Service\", \"key\": {\"name\": \"billing\"}}, or the element id as {\"id\": …}")
    };
    let start = StartView::deserialize(given).map_err(|error| refused(&error.to_string()))?;
    match start {
        StartView {
            id: Some(id),
            label: None,
            key,
        } if key.is_empty() => Ok(Start::Id(id)),
        StartView {
            id: None,
            label: Some(label),
            key,
        } => Ok(Start::Key { label, key }),
        _ => Err(refused("it has `id`, or `label` and `key`")),
    }
}

/// What of it fits the bytes of a reply.
fn bounded(found: Dependencies, bytes: usize) -> GraphDepsResult {
    let nodes = found.nodes.into_iter().map(NodeView::from);
    let levels = found.levels.into_iter().map(LevelView::from);
    let mut result = GraphDepsResult {
        start: found.start.into(),
        reached: found.reached,
        nodes: nodes.collect(),
        tree: found.tree,
        cycles: found.cycles,
        levels: levels.collect(),
        truncated: found.cut.map(|cut| match cut.reason {
            CutReason::Depth => "depth",
            CutReason::Nodes => "nodes",
            CutReason::Relationships => "relationships",
        }),
        truncated_at: found.cut.map(|cut| cut.depth),
        untrusted: true,
    };
    let mut room = bytes;
    let is_whole = graph::fit(&mut result.levels, &mut room)
        & graph::fit(&mut result.nodes, &mut room)
        & graph::fit(&mut result.tree, &mut room)
        & graph::fit(&mut result.cycles, &mut room);
    if !is_whole {
        result.truncated = Some("bytes");
        result.truncated_at = None;
    }
    result
}

fn text(result: &GraphDepsResult) -> Result<String, ToolError> {
    let mut lines = String::new();
    // Writing to a String cannot fail.
    for level in &result.levels {
        let labels = level.labels.iter();
        let labels: Vec<String> = labels
            .map(|(label, count)| format!("{label} {count}"))
            .collect();
        let _ = writeln!(
            lines,
            "depth {}: {} ({})",
            level.depth,
            level.count,
            labels.join(", ")
        );
    }
    for node in &result.nodes {
        let _ = writeln!(
            lines,
            "{} :{} {}",
            node.depth,
            node.labels.join(":"),
            node.name
        );
    }
    for line in &result.tree {
        let _ = writeln!(lines, "{line}");
    }
    for cycle in &result.cycles {
        let _ = writeln!(lines, "{}", cycle.join(" → "));
    }
    let lines = fenced(lines.trim_end()).map_err(|error| ToolError::internal(&error))?;
    let mut text = format!("nodes reached: {}", result.reached);
    if let Some(reason) = result.truncated {
        let _ = write!(text, "; there is more ({reason})");
    }
    Ok(format!("{text}\n{lines}"))
}

impl From<Reached> for NodeView {
    fn from(node: Reached) -> Self {
        Self {
            id: node.id,
            labels: node.labels,
            name: node.name,
            depth: node.depth,
        }
    }
}

impl From<Level> for LevelView {
    fn from(level: Level) -> Self {
        Self {
            depth: level.depth,
            count: level.count,
            labels: level.labels,
        }
    }
}
