//! `vector_search`

use std::time::{Duration, Instant};

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::effect::class::EffectClass;
use shared::tool_error::{ToolError, code};
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Format, Left, Reply, reply};
use crate::database::{Client, Wanted};
use crate::mongodb::{self, Mongodb};
use crate::neo4j::{self, Neo4j};
use crate::postgres::Postgres;
use crate::postgres::vector::{MOST_NEIGHBOURS, Metric, Near, VectorSearch};
use crate::redis::{self, Redis};
use crate::server::DatabaseServer;
use crate::source::Engine;
use crate::table::{Answer, Budget, Cell, Column, Rows};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("vector_search", "Search by meaning", EffectClass::Read).open_world();

/// Numbers of a vector.
const MOST_DIMENSIONS: usize = 16_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VectorSearchParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// Table; Redis, Neo4j: index; MongoDB: db.collection.
    #[serde(default)]
    target: String,
    /// Of the vectors, if there are several; MongoDB: their path.
    #[serde(default)]
    column: Option<String>,
    /// Near to a text.
    #[serde(default)]
    text: Option<String>,
    /// Near to what is there: {"id": 7} of a row, {"key": …} of Redis, {"id": …} of a node.
    #[serde(default)]
    like: Option<Map<String, Value>>,
    /// Near to a vector.
    #[serde(default)]
    vector: Option<Vec<f32>>,
    /// By words, alone or as well.
    #[serde(default)]
    words: Option<String>,
    /// Column of the words; MongoDB: search index.
    #[serde(default)]
    words_column: Option<String>,
    /// How many; default 10.
    #[serde(default)]
    k: Option<usize>,
    /// Of PostgreSQL.
    #[serde(default)]
    metric: MetricName,
    /// {"column": value or {"gte": value}}; Redis: a tree of tag, number, text; Neo4j {"label"}.
    #[serde(default)]
    filter: Option<Map<String, Value>>,
    /// Of HNSW.
    #[serde(default)]
    ef_search: Option<u32>,
    /// Neo4j: hops around the hits, to 2.
    #[serde(default)]
    expand: usize,
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

/// The arguments that an engine takes beside `source`, each with what it says where no other engine is meant, if that is something else.
pub(super) const fn arguments(engine: Engine) -> &'static [(&'static str, &'static str)] {
    match engine {
        Engine::Postgres => &[
            ("target", "Table."),
            ("column", "Of the vectors, if there are several."),
            ("text", ""),
            ("like", "Near to a row: {\"id\": 7}."),
            ("vector", ""),
            ("words", "By words as well."),
            ("words_column", "Where the words are."),
            ("k", ""),
            ("metric", "Of distance."),
            ("filter", "{\"column\": value or {\"gte\": value}}"),
            ("ef_search", ""),
        ],
        Engine::Redis => &[
            ("target", "Index."),
            ("column", "Of the vectors, if there are several."),
            ("text", ""),
            ("like", "Near to a key: {\"key\": …}."),
            ("vector", ""),
            ("words", ""),
            ("k", ""),
            ("filter", "A tree of tag, number, text, all, any, not."),
        ],
        Engine::Mongodb => &[
            ("target", "db.collection"),
            ("column", "Path of the vectors."),
            ("text", ""),
            ("vector", ""),
            ("words", "By words."),
            ("words_column", "Search index."),
            ("k", ""),
            ("filter", "Conditions."),
        ],
        Engine::Neo4j => &[
            ("target", "Index."),
            ("text", ""),
            ("like", "Near to a node: {\"id\": …}."),
            ("vector", ""),
            ("words", "By words."),
            ("k", ""),
            ("filter", "{\"label\"}"),
            ("expand", "Hops around the hits, to 2."),
        ],
    }
}

/// What is looked for, whatever the engine.
struct Sought {
    /// What is near to it.
    vector: Option<Vec<f32>>,
    /// What is like it.
    like: Option<Map<String, Value>>,
    k: usize,
    budget: Budget,
    timeout: Duration,
}

#[tool_router(router = vector_search_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Finds what is nearest in meaning to `text`, `like` or `vector`, or has `words`, with its distance or score.
    #[tool]
    async fn vector_search(
        &self,
        Parameters(params): Parameters<VectorSearchParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let database = self.state().databases.only_or(params.source.as_deref())?;
        let k = params.k.unwrap_or(10);
        if !(1..=MOST_NEIGHBOURS).contains(&k) {
            return Err(invalid(format!("`k` is {k}"), "give 1 to 500"));
        }
        let given = [
            params.text.is_some(),
            params.like.is_some(),
            params.vector.is_some(),
        ];
        let given = given.into_iter().filter(|is_given| *is_given).count();
        if given > 1 || given == 0 && params.words.is_none() {
            return Err(invalid(
                "none or several of `text`, `like` and `vector` are given",
                "give one of them, or `words`",
            ));
        }
        if let Some(vector) = params
            .vector
            .as_ref()
            .filter(|vector| vector.len() > MOST_DIMENSIONS)
        {
            let message = format!("`vector` has {} numbers", vector.len());
            return Err(invalid(message, "give `text` or `like`"));
        }
        let wanted = Wanted {
            rows: Some(k),
            ..Wanted::default()
        };
        let sought = Sought {
            vector: match &params.text {
                Some(text) => Some(self.embed(text).await?),
                None => params.vector.clone(),
            },
            like: params.like.clone(),
            k,
            budget: database.budget(wanted)?,
            timeout: database.timeout(wanted)?,
        };
        let budget = sought.budget;
        let mut recorded = Recorded::of(&database.settings.id);
        let _slot = database.slot().await?;
        let search = async {
            match &database.client {
                Client::Postgres(postgres) => of_postgres(postgres, params, sought).await,
                Client::Redis(redis) => of_redis(redis, params, sought).await,
                Client::Mongodb(mongo) => of_mongodb(mongo, params, sought).await,
                Client::Neo4j(neo4j) => of_neo4j(neo4j, params, sought).await,
            }
        };
        let found = told(&context, "the search", Box::pin(search)).await;
        recorded.rows(found.as_ref().ok().map(|(answer, _)| answer.rows.len()));
        record::note(&context, recorded);
        let (answer, notices) = found?;
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

type Found = Result<(Answer, Vec<String>), ToolError>;

fn invalid(message: impl Into<String>, hint: &str) -> ToolError {
    ToolError::new(code::INVALID_ARGUMENTS, message.into()).with_hint(hint)
}

async fn of_postgres(postgres: &Postgres, params: VectorSearchParams, sought: Sought) -> Found {
    if params
        .ef_search
        .is_some_and(|looks| !(1..=1000).contains(&looks))
    {
        return Err(invalid("`ef_search` is out of range", "give 1 to 1000"));
    }
    let near = match (sought.vector, sought.like) {
        (Some(vector), _) => Near::Vector(vector),
        (None, Some(keys)) => Near::Row(keys),
        (None, None) => {
            let hint = "ask pg_query with to_tsquery for words alone";
            return Err(invalid(
                "`words` stand without `text`, `like` or `vector`",
                hint,
            ));
        }
    };
    let hybrid = match (params.words_column, params.words) {
        (Some(column), Some(words)) => Some((column, words)),
        (None, None) => None,
        _ => {
            return Err(invalid(
                "`words` and `words_column` belong together",
                "give both",
            ));
        }
    };
    let search = VectorSearch {
        table: params.target,
        column: params.column,
        near,
        k: sought.k,
        metric: params.metric.into(),
        filter: params.filter.unwrap_or_default(),
        hybrid,
        ef_search: params.ef_search,
    };
    Ok(postgres
        .nearest(search, sought.timeout, sought.budget)
        .await?)
}

async fn of_redis(redis: &Redis, params: VectorSearchParams, sought: Sought) -> Found {
    let filter = params
        .filter
        .map(|filter| serde_json::from_value(Value::Object(filter)));
    let filter = filter.transpose().map_err(|error| {
        invalid(
            format!("`filter`: {error}"),
            "give {\"tag\": {\"field\", \"any_of\"}}, number, text, all, any or not",
        )
    })?;
    let like = match &sought.like {
        Some(like) => Some(like.get("key").and_then(Value::as_str).ok_or_else(|| {
            invalid(
                "`like` has no `key`",
                "give {\"key\": the key that hits are like}",
            )
        })?),
        None => None,
    };
    let search = redis::search::Search {
        index: params.target,
        text: params.words,
        vector: sought.vector,
        like_key: like.map(Into::into),
        vector_field: params.column,
        filter,
        count: sought.k,
    };
    let call = redis::Call {
        budget: sought.budget,
        timeout: sought.timeout,
    };
    let found = redis.search(&search, call).await?;
    Ok((
        found.answer,
        vec![format!("the server knows of {} hits", found.total)],
    ))
}

async fn of_mongodb(mongo: &Mongodb, params: VectorSearchParams, sought: Sought) -> Found {
    let Some((db, coll)) = params.target.split_once('.') else {
        return Err(invalid("`target` is no collection", "give db.collection"));
    };
    let wanted = match (sought.vector, params.words) {
        (Some(vector), None) => mongodb::search::Wanted::Vector {
            path: params
                .column
                .ok_or_else(|| invalid("`column` is missing", "give the path of the vectors"))?,
            vector,
        },
        (None, Some(words)) if sought.like.is_none() => mongodb::search::Wanted::Text(words),
        _ => {
            let hint = "give one of `text`, `vector` and `words`";
            return Err(invalid("MongoDB is searched by one thing", hint));
        }
    };
    let search = mongodb::search::Search {
        db: db.to_owned(),
        coll: coll.to_owned(),
        wanted,
        index: params.words_column,
        filter: params.filter.map(Value::Object),
        limit: sought.k as u64,
    };
    let found = mongo.search(&search, sought.budget, sought.timeout).await?;
    Ok((found.answer, found.notices))
}

async fn of_neo4j(neo4j: &Neo4j, params: VectorSearchParams, sought: Sought) -> Found {
    let like = sought.like.as_ref();
    let id = like.map(|like| like.get("id").and_then(Value::as_str));
    let wanted = match (sought.vector, id, params.words) {
        (Some(vector), None, None) => {
            neo4j::search::Sought::Vector(vector.into_iter().map(f64::from).collect())
        }
        (None, Some(Some(id)), None) => {
            neo4j::search::Sought::Like(neo4j::walk::Start::Id(id.to_owned()))
        }
        (None, None, Some(words)) => neo4j::search::Sought::Text(words),
        _ => {
            let hint = "give one of `text`, `vector`, `words` and `like` with the element id";
            return Err(invalid("Neo4j is searched by one thing", hint));
        }
    };
    let label = params
        .filter
        .as_ref()
        .and_then(|filter| filter.get("label"));
    let search = neo4j::search::Search {
        sought: wanted,
        index: Some(params.target).filter(|index| !index.is_empty()),
        label: label.and_then(Value::as_str).map(str::to_owned),
        hits: sought.k,
        hops: params.expand,
        around: sought.budget.rows,
        timeout: Some(sought.timeout),
    };
    let found = neo4j.search(&search).await?;
    let mut rows = Rows::new(Budget {
        rows: sought.k + sought.budget.rows * 2,
        ..sought.budget
    });
    let hits = found
        .hits
        .into_iter()
        .map(|hit| ("hit", hit.score, hit.node));
    let around = found
        .around
        .iter()
        .map(|node| ("around", Value::Null, json!(node)));
    let links = found
        .links
        .iter()
        .map(|link| ("link", Value::Null, json!(link)));
    for (what, score, value) in hits.chain(around).chain(links) {
        let row = vec![
            Cell::text(what.to_owned()),
            Cell::json(score),
            Cell::json(value),
        ];
        // What does not fit is told by the rows themselves.
        if rows.push(row).is_err() {
            break;
        }
    }
    let column = |name: &str, kind: &str| Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
    };
    let columns = vec![
        column("what", "text"),
        column("score", "float"),
        column("value", "map"),
    ];
    let mut notices = found.notices;
    if found.cut.is_some() {
        notices.push("there is more around the hits than is told".to_owned());
    }
    Ok((Answer { columns, rows }, notices))
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
