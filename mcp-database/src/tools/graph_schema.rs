//! `graph_schema`

use std::fmt::Write as _;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::graph;
use super::progress::told;
use super::record::{self, Recorded};
use crate::database::Wanted;
use crate::fence::fenced;
use crate::neo4j::schema::{LARGEST_SAMPLE, MOST_KINDS, Schema, SchemaAsk};
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("graph_schema", "Look at the graph", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphSchemaParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// Part of a label or type.
    #[serde(default)]
    r#match: Option<String>,
    /// `full` samples 10000 of each, `summary` 1000.
    #[serde(default)]
    detail: Detail,
    /// Labels and types to pass over.
    #[serde(default)]
    offset: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Detail {
    Names,
    #[default]
    Summary,
    Full,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GraphSchemaResult {
    /// How the marks in the lines are read.
    legend: &'static str,
    /// `(:Service {name string!, tier integer?}) ~1.2k`
    nodes: Vec<String>,
    relationships: Vec<String>,
    indexes: Vec<String>,
    constraints: Vec<String>,
    /// Nodes and relationships of the whole graph.
    node_count: i64,
    relationship_count: i64,
    /// Labels and types that match.
    label_count: usize,
    type_count: usize,
    /// Whether something is left out.
    truncated: bool,
    /// Whether only some of a kind were looked at, so that rare properties and ends may be missing.
    sampled: bool,
    untrusted: bool,
}

#[tool_router(router = graph_schema_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Tells labels, relationship types, their properties and counts, indexes and constraints.
    #[tool]
    async fn graph_schema(
        &self,
        Parameters(params): Parameters<GraphSchemaParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<GraphSchemaResult>, ToolError> {
        let (database, neo4j) = self.state().databases.neo4j(params.source.as_deref())?;
        record::note(&context, Recorded::of(&database.settings.id));
        let default = SchemaAsk::default();
        let (kinds, sample) = match params.detail {
            Detail::Names => (MOST_KINDS, default.sample),
            Detail::Summary => (default.kinds, default.sample),
            Detail::Full => (default.kinds, LARGEST_SAMPLE),
        };
        let ask = SchemaAsk {
            matching: params.r#match,
            kinds,
            skip: params.offset.unwrap_or(0),
            names_only: params.detail == Detail::Names,
            sample,
            bytes: database.settings.limits.reply.bytes,
            timeout: Some(database.timeout(Wanted::default())?),
        };
        let _slot = database.slot().await?;
        let schema = told(&context, "the look", neo4j.schema(&ask)).await;
        let schema = schema.map_err(|error| graph::refusal(&context, error))?;
        let text = text(&schema)?;
        let result = GraphSchemaResult {
            legend: Schema::LEGEND,
            nodes: schema.nodes,
            relationships: schema.relationships,
            indexes: schema.indexes,
            constraints: schema.constraints,
            node_count: schema.node_count,
            relationship_count: schema.relationship_count,
            label_count: schema.label_count,
            type_count: schema.type_count,
            truncated: schema.is_truncated,
            sampled: schema.is_sampled,
            untrusted: true,
        };
        Ok(structured(result, text))
    }
}

fn text(schema: &Schema) -> Result<String, ToolError> {
    let mut lines = String::new();
    for (title, of_it) in [
        ("nodes", &schema.nodes),
        ("relationships", &schema.relationships),
        ("indexes", &schema.indexes),
        ("constraints", &schema.constraints),
    ] {
        if !of_it.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{title}:\n{}", of_it.join("\n"));
        }
    }
    let lines = fenced(lines.trim_end()).map_err(|error| ToolError::internal(&error))?;
    let mut text = format!(
        "nodes: {}, relationships: {}; of what matches, labels: {}, types: {} ({})",
        schema.node_count,
        schema.relationship_count,
        schema.label_count,
        schema.type_count,
        Schema::LEGEND
    );
    if schema.is_truncated {
        text.push_str("\nsomething is left out: give `match`, or go on with `offset`");
    }
    if schema.is_sampled {
        text.push_str(
            "\nonly some of a kind were looked at: rare properties and ends may be missing",
        );
    }
    Ok(format!("{text}\n{lines}"))
}
