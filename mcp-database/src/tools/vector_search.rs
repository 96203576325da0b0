//! `vector_search`

use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use shared::effect::class::EffectClass;
use shared::tool_error::{ToolError, code};
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Format, Left, Reply, reply};
use crate::database::Wanted;
use crate::postgres::vector::{MOST_NEIGHBOURS, Metric, Near, VectorSearch};
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("vector_search", "Search by meaning", EffectClass::Read).open_world();

/// Numbers of a vector.
const MOST_DIMENSIONS: usize = 16_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VectorSearchParams {
    /// Needed where there are several.
    #[serde(default)]
    source: Option<String>,
    /// The table.
    table: String,
    /// With the vectors; needed where there are several.
    #[serde(default)]
    column: Option<String>,
    /// Near to a text, by the configured embedder.
    #[serde(default)]
    text: Option<String>,
    /// Near to a row: its key, as {"id": 7}.
    #[serde(default)]
    like: Option<Map<String, Value>>,
    /// Near to a vector.
    #[serde(default)]
    vector: Option<Vec<f32>>,
    /// How many; default 10.
    #[serde(default)]
    k: Option<usize>,
    /// Distance.
    #[serde(default)]
    metric: MetricName,
    /// {"column": value} or {"column": {"gte": value}}: eq, ne, gt, gte, lt, lte, in, like.
    #[serde(default)]
    filter: Map<String, Value>,
    /// Also ranked by words in a text column: {"column": …, "words": …}.
    #[serde(default)]
    hybrid: Option<Hybrid>,
    /// How much an HNSW index looks at, to 1000.
    #[serde(default)]
    ef_search: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Hybrid {
    column: String,
    words: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum MetricName {
    #[default]
    Cosine,
    L2,
    InnerProduct,
}

impl From<MetricName> for Metric {
    fn from(name: MetricName) -> Self {
        match name {
            MetricName::Cosine => Self::Cosine,
            MetricName::L2 => Self::L2,
            MetricName::InnerProduct => Self::InnerProduct,
        }
    }
}

#[tool_router(router = vector_search_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Finds the rows nearest in meaning to one of `text`, `like` and `vector`, with their distance.
    #[tool]
    async fn vector_search(
        &self,
        Parameters(params): Parameters<VectorSearchParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let (database, postgres) = self.state().databases.postgres(params.source.as_deref())?;
        let invalid = |message: String, hint: &str| {
            ToolError::new(code::INVALID_ARGUMENTS, message).with_hint(hint)
        };
        let k = params.k.unwrap_or(10);
        if !(1..=MOST_NEIGHBOURS).contains(&k) {
            return Err(invalid(format!("`k` is {k}"), "give 1 to 500"));
        }
        if params
            .ef_search
            .is_some_and(|looks| !(1..=1000).contains(&looks))
        {
            return Err(invalid(
                "`ef_search` is out of range".to_owned(),
                "give 1 to 1000",
            ));
        }
        let near = match (params.text, params.like, params.vector) {
            (Some(text), None, None) => Near::Vector(self.embed(&text).await?),
            (None, Some(keys), None) => Near::Row(keys),
            (None, None, Some(vector)) if vector.len() <= MOST_DIMENSIONS => Near::Vector(vector),
            (None, None, Some(vector)) => {
                let message = format!("`vector` has {} numbers", vector.len());
                return Err(invalid(message, "give `text` or `like`"));
            }
            _ => {
                return Err(invalid(
                    "none or several of `text`, `like` and `vector` are given".to_owned(),
                    "give one of them",
                ));
            }
        };
        let wanted = Wanted {
            rows: Some(k),
            ..Wanted::default()
        };
        let budget = database.budget(wanted)?;
        let search = VectorSearch {
            table: params.table,
            column: params.column,
            near,
            k,
            metric: params.metric.into(),
            filter: params.filter,
            hybrid: params
                .hybrid
                .map(|Hybrid { column, words }| (column, words)),
            ef_search: params.ef_search,
        };
        let mut recorded = Recorded::of(&database.settings.id);
        let _slot = database.slot().await?;
        let timeout = database.timeout(wanted)?;
        let found = told(
            &context,
            "the search",
            postgres.nearest(search, timeout, budget),
        )
        .await;
        recorded.rows(found.as_ref().ok().map(|(answer, _)| answer.rows.len()));
        record::note(&context, recorded);
        let (answer, notices) = found.map_err(|error| record::refusal(&context, error))?;
        let left = Left {
            rest: None,
            source: database.settings.id.clone(),
            budget,
            notices,
        };
        reply(
            &context,
            &self.state().cursors,
            answer,
            left,
            Format::Rows,
            since,
        )
    }
}

impl DatabaseServer {
    /// The vector of a text.
    pub(super) async fn embed(&self, text: &str) -> Result<Vec<f32>, ToolError> {
        let Some(embedder) = &self.state().embedder else {
            return Err(
                ToolError::new("NO_EMBEDDER", "no embedder is configured, so texts have no vectors")
                    .with_hint("give `like` or `vector`; the operator can add [embedder] with url and model to the sources"),
            );
        };
        embedder.embed(text).await.map_err(|error| {
            ToolError::new("EMBEDDER_FAILED", error.to_string())
                .with_hint("give `like` or `vector`, or tell the operator")
        })
    }
}
