//! `graph_upsert`

use std::collections::BTreeSet;
use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::graph;
use super::progress::told;
use super::record::{self, Recorded};
use crate::database::{Database, Wanted};
use crate::neo4j::Neo4j;
use crate::neo4j::error::GraphError;
use crate::neo4j::upsert::{Count, Node, NodeKey, Relationship, Upsert, Upserted};
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
    /// Needed where there are several.
    #[serde(default)]
    source: Option<String>,
    /// `key` tells a node from others of its label; `props` are set, null removes.
    #[serde(default)]
    nodes: Vec<NodeView>,
    /// Both ends exist or are in `nodes`.
    #[serde(default)]
    relationships: Vec<RelationshipView>,
    /// Rolls back.
    #[serde(default)]
    dry_run: bool,
    /// Default 30000.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct NodeView {
    label: String,
    key: Map<String, Value>,
    #[serde(default)]
    props: Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct RelationshipView {
    r#type: String,
    from: EndView,
    to: EndView,
    /// Tells it from others between the same nodes.
    #[serde(default)]
    key: Map<String, Value>,
    #[serde(default)]
    props: Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct EndView {
    label: String,
    key: Map<String, Value>,
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
    /// Makes or updates nodes and relationships found by their keys, all or none; calling it again changes nothing more.
    #[tool]
    async fn graph_upsert(
        &self,
        Parameters(params): Parameters<GraphUpsertParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<GraphUpsertResult>, ToolError> {
        let since = Instant::now();
        let (database, neo4j) = self.state().databases.neo4j(params.source.as_deref())?;
        record::note(&context, recorded(database, &params));
        if database.settings.mode != Mode::Write {
            let error = GraphError::ReadOnly(database.settings.id.clone());
            return Err(graph::refusal(&context, error));
        }
        let action = self.begin(&context, "graph_upsert", &params).await?;
        let result = upsert(&context, database, neo4j, &params).await;
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

async fn upsert(
    context: &RequestContext<RoleServer>,
    database: &Database,
    neo4j: &Neo4j,
    params: &GraphUpsertParams,
) -> Result<Upserted, ToolError> {
    let wanted = Wanted {
        timeout_ms: params.timeout_ms,
        ..Wanted::default()
    };
    let nodes: Vec<Node> = params.nodes.iter().cloned().map(Node::from).collect();
    let relationships = params.relationships.iter().cloned();
    let relationships: Vec<Relationship> = relationships.map(Relationship::from).collect();
    let upsert = Upsert {
        nodes: &nodes,
        relationships: &relationships,
        timeout: Some(database.timeout(wanted)?),
        dry_run: params.dry_run,
    };
    let _slot = database.slot().await?;
    let work = told(context, "the change", neo4j.upsert(upsert));
    graph::unless_cancelled(context, work).await
}

fn recorded(database: &Database, params: &GraphUpsertParams) -> Recorded {
    let mut recorded = Recorded::of(&database.settings.id);
    let (nodes, relationships) = (&params.nodes, &params.relationships);
    recorded.with("nodes", json!(nodes.len()));
    recorded.with("relationships", json!(relationships.len()));
    let labels = nodes.iter().map(|node| node.label.as_str());
    let types = relationships.iter().map(|one| one.r#type.as_str());
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

impl From<NodeView> for Node {
    fn from(NodeView { label, key, props }: NodeView) -> Self {
        Self { label, key, props }
    }
}

impl From<EndView> for NodeKey {
    fn from(EndView { label, key }: EndView) -> Self {
        Self { label, key }
    }
}

impl From<RelationshipView> for Relationship {
    fn from(view: RelationshipView) -> Self {
        Self {
            kind: view.r#type,
            from: view.from.into(),
            to: view.to.into(),
            key: view.key,
            props: view.props,
        }
    }
}

impl From<Count> for CountView {
    fn from(Count { created, matched }: Count) -> Self {
        Self { created, matched }
    }
}
