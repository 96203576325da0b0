//! `graph_write`

use std::collections::BTreeMap;
use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::digest::Digest;
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::graph;
use super::progress::told;
use super::record;
use super::reply::{Shown, shown};
use crate::database::{Database, Wanted};
use crate::neo4j::Neo4j;
use crate::neo4j::error::GraphError;
use crate::neo4j::write::{Change, Changed, Destruction};
use crate::server::DatabaseServer;
use crate::source::Mode;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("graph_write", "Change Neo4j", EffectClass::Irreversible);

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphWriteParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// One statement.
    cypher: String,
    /// Values of $name.
    #[serde(default)]
    params: Map<String, Value>,
    /// Rolls back.
    #[serde(default)]
    dry_run: bool,
    /// From `CONFIRM_REQUIRED`.
    #[serde(default)]
    confirm_token: Option<String>,
    /// Default 30000.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GraphWriteResult {
    committed: bool,
    /// Changes of all kinds.
    changes: u64,
    /// Changes by kind, such as `nodes-created`.
    counters: BTreeMap<String, i64>,
    /// Why it takes a confirmation outside of a trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    destroys: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    returned: Option<Shown>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<String>,
    elapsed_ms: u64,
    untrusted: bool,
}

#[tool_router(router = graph_write_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Changes the graph or its schema. What destroys needs the `confirm_token` of its refusal.
    #[tool]
    async fn graph_write(
        &self,
        Parameters(params): Parameters<GraphWriteParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<GraphWriteResult>, ToolError> {
        let since = Instant::now();
        let (database, neo4j) = self.state().databases.neo4j(params.source.as_deref())?;
        let recorded = graph::recorded(&database.settings.id, &params.cypher);
        record::note(&context, recorded);
        if database.settings.mode != Mode::Write {
            let error = GraphError::ReadOnly(database.settings.id.clone());
            return Err(graph::refusal(&context, error));
        }
        let wanted = Wanted {
            timeout_ms: params.timeout_ms,
            ..Wanted::default()
        };
        let change = Change {
            cypher: &params.cypher,
            parameters: &params.params,
            budget: database.settings.limits.reply,
            timeout: Some(database.timeout(wanted)?),
            dry_run: params.dry_run,
            expected: None,
        };
        let action = self.begin(&context, "graph_write", &params).await?;
        let token = params.confirm_token.as_deref();
        let done = self
            .write_graph(&context, database, neo4j, change, token)
            .await
            .and_then(|changed| result(changed, since));
        let (result, text) = match done {
            Ok((result, text)) => (Ok(result), text),
            Err(error) => (Err(error), String::new()),
        };
        let result = match action {
            Some(action) => action.end(result, |_, _| {}).await,
            None => result,
        };
        Ok(structured(result?, text))
    }
}

impl DatabaseServer {
    async fn write_graph(
        &self,
        context: &RequestContext<RoleServer>,
        database: &Database,
        neo4j: &Neo4j,
        mut change: Change<'_>,
        token: Option<&str>,
    ) -> Result<Changed, ToolError> {
        let owner = &principal::of(context)?.name;
        let digest = digest(&database.settings.id, change)?;
        let needs_approval = !self.is_enforced() && !change.dry_run;
        if let Some(token) = token.filter(|_| needs_approval) {
            let seen = self.confirmed(token, owner, &digest)?;
            change.expected = Some(seen);
        }
        let asks = needs_approval && token.is_none();
        let _slot = database.slot().await?;
        let work = async {
            let mut unconfirmed = None;
            if asks {
                unconfirmed = neo4j.plan(change).await?.destruction;
                change.dry_run = unconfirmed.is_some();
            }
            Ok((neo4j.write(change).await?, unconfirmed))
        };
        let work = told(context, "the change", Box::pin(work));
        let (changed, unconfirmed) = graph::unless_cancelled(context, work).await?;
        match unconfirmed {
            Some(why) => {
                let (why, counted) = (why.told(), counted(&changed));
                let message = format!(
                    "nothing was changed yet: the statement {why}. Tried and rolled back, it makes {counted}"
                );
                Err(self.unconfirmed(message, owner, digest, changed.total()))
            }
            None => Ok(changed),
        }
    }
}

fn result(changed: Changed, since: Instant) -> Result<(GraphWriteResult, String), ToolError> {
    let how = if changed.is_committed {
        "committed"
    } else {
        "a trial, rolled back"
    };
    let mut text = format!("{how}: {}", counted(&changed));
    let total = changed.total();
    let destroys = changed.plan.destruction.filter(|_| !changed.is_committed);
    let notices = graph::notices(&changed.plan.notices);
    for notice in &notices {
        text = format!("{text}\n{notice}");
    }
    let returned = shown(changed.answer)?.map(|(returned, table)| {
        text = format!("{text}\n{table}");
        returned
    });
    let result = GraphWriteResult {
        committed: changed.is_committed,
        changes: total,
        counters: changed.counters,
        destroys: destroys.map(Destruction::told),
        returned,
        notices,
        elapsed_ms: graph::elapsed(since),
        untrusted: true,
    };
    Ok((result, text))
}

/// `3 changes (nodes-deleted 1, relationships-deleted 2)`
fn counted(changed: &Changed) -> String {
    let kinds: Vec<String> = changed
        .counters
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    match (changed.total(), kinds.join(", ")) {
        (0, _) => "no changes".to_owned(),
        (1, kind) => format!("1 change ({kind})"),
        (total, kinds) => format!("{total} changes ({kinds})"),
    }
}

/// What a token is bound to.
fn digest(source: &str, change: Change<'_>) -> Result<Digest, ToolError> {
    let change = json!([source, change.cypher, change.parameters]);
    Digest::of_json(&change).map_err(|error| ToolError::internal(&error))
}
