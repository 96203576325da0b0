//! `graph_upsert`

use std::collections::BTreeSet;
use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::effect::class::EffectClass;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::graph;
use super::progress::told;
use super::record::{self, Recorded};
use crate::database::{Database, Wanted};
use crate::neo4j::Neo4j;
use crate::neo4j::error::GraphError;
use crate::neo4j::upsert::{Count, Node, Relationship, Upsert, Upserted};
use crate::server::DatabaseServer;
use crate::source::Mode;

pub(super) const EFFECT: ToolEffect = ToolEffect::new(
    "graph_upsert",
    "Bring into Neo4j",
    EffectClass::Irreversible,
)
.idempotent();

/// Labels and types of a call that are recorded.
const MOST_RECORDED: usize = 20;

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphUpsertParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// `{label, key, props}`: found by `key`; `props` are set, null removes.
    #[serde(default)]
    nodes: Vec<Map<String, Value>>,
    /// `{type, from: {label, key}, to: {label, key}, key, props}`; `key` only among several.
    #[serde(default)]
    relationships: Vec<Map<String, Value>>,
    /// Rolls back.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GraphUpsertResult {
    committed: bool,
    nodes: CountView,
    relationships: CountView,
    /// Keys that no constraint holds unique.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<String>,
    elapsed_ms: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct CountView {
    created: u64,
    /// Were there, or were named before in the call.
    matched: u64,
}

#[tool_router(router = graph_upsert_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Makes or updates nodes and relationships by their keys, all or none; ends that are missing are named.
    #[tool]
    async fn graph_upsert(
        &self,
        Parameters(params): Parameters<GraphUpsertParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<GraphUpsertResult>, ToolError> {
        let since = Instant::now();
        let (database, neo4j) = self.state().databases.neo4j(params.source.as_deref())?;
        let nodes: Vec<Node> = read("nodes", &params.nodes)?;
        let relationships: Vec<Relationship> = read("relationships", &params.relationships)?;
        let recorded = recorded(&database.settings.id, &nodes, &relationships);
        record::note(&context, recorded);
        if database.settings.mode != Mode::Write {
            let error = GraphError::ReadOnly(database.settings.id.clone());
            return Err(graph::refusal(&context, error));
        }
        let wanted = Wanted {
            ..Wanted::default()
        };
        let upsert = Upsert {
            nodes: &nodes,
            relationships: &relationships,
            timeout: Some(database.timeout(wanted)?),
            dry_run: params.dry_run,
        };
        let action = self.begin(&context, "graph_upsert", &params).await?;
        let result = bring_in(&context, database, neo4j, upsert).await;
        let result = match action {
            Some(action) => action.end(result, |_, _| {}).await,
            None => result,
        };
        let upserted = result?;
        let text = text(&upserted);
        let result = GraphUpsertResult {
            committed: upserted.is_committed,
            nodes: upserted.nodes.into(),
            relationships: upserted.relationships.into(),
            notices: upserted.notices,
            elapsed_ms: graph::elapsed(since),
        };
        Ok(structured(result, text))
    }
}

async fn bring_in(
    context: &RequestContext<RoleServer>,
    database: &Database,
    neo4j: &Neo4j,
    upsert: Upsert<'_>,
) -> Result<Upserted, ToolError> {
    let _slot = database.slot().await?;
    let work = told(context, "the change", Box::pin(neo4j.upsert(upsert)));
    graph::unless_cancelled(context, work).await
}

/// The elements of a list; the schema leaves out what they hold, as it costs every request.
fn read<T: DeserializeOwned>(
    list: &str,
    given: &[Map<String, Value>],
) -> Result<Vec<T>, ToolError> {
    let read = |(index, element): (usize, &Map<String, Value>)| {
        T::deserialize(element).map_err(|error| {
            let message = format!("{list}[{index}]: {error}");
            ToolError::new(code::INVALID_ARGUMENTS, message).with_hint(
                "a node is {\"label\": …, \"key\": {…}, \"props\": {…}}, a relationship {\"type\": …, \"from\": {\"label\": …, \"key\": {…}}, \"to\": {…}}",
            )
        })
    };
    given.iter().enumerate().map(read).collect()
}

fn recorded(source: &str, nodes: &[Node], relationships: &[Relationship]) -> Recorded {
    let mut recorded = Recorded::of(source);
    recorded.with("nodes", json!(nodes.len()));
    recorded.with("relationships", json!(relationships.len()));
    let labels = nodes.iter().map(|node| node.label.as_str());
    let types = relationships.iter().map(|one| one.kind.as_str());
    let kinds: BTreeSet<&str> = labels.chain(types).collect();
    let kinds = kinds.into_iter().take(MOST_RECORDED);
    let kinds: Vec<&str> = kinds
        .map(|kind| shared::budget::head(kind, 100).text)
        .collect();
    recorded.with("kinds", json!(kinds));
    recorded
}

fn text(upserted: &Upserted) -> String {
    let how = if upserted.is_committed {
        "committed"
    } else {
        "a trial, rolled back"
    };
    let told = |Count { created, matched }| format!("{created} made, {matched} were there");
    let mut text = format!(
        "{how}: nodes: {}; relationships: {}",
        told(upserted.nodes),
        told(upserted.relationships)
    );
    for notice in &upserted.notices {
        text = format!("{text}\n{notice}");
    }
    text
}

impl From<Count> for CountView {
    fn from(Count { created, matched }: Count) -> Self {
        Self { created, matched }
    }
}
