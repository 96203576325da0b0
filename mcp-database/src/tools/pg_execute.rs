//! `pg_execute`

use std::time::{Duration, Instant};

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::digest::Digest;
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Shown, shown};
use crate::database::{Database, Wanted};
use crate::postgres::change::Change;
use crate::postgres::execute::Changes;
use crate::postgres::{Error, Postgres};
use crate::server::DatabaseServer;
use crate::source::Mode;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("pg_execute", "Change PostgreSQL", EffectClass::Irreversible);

/// Statements of one call.
const MOST_STATEMENTS: usize = 50;

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PgExecuteParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// One statement.
    sql: String,
    /// Values of $1, $2 …
    #[serde(default)]
    params: Vec<Value>,
    /// More statements of the same transaction.
    #[serde(default)]
    then: Vec<Step>,
    /// Rolls back, and tells what would be affected.
    #[serde(default)]
    dry_run: bool,
    /// Another number of affected rows changes nothing.
    #[serde(default)]
    expect_rows: Option<u64>,
    /// From `CONFIRM_REQUIRED`.
    #[serde(default)]
    confirm_token: Option<String>,
    /// Of each statement.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Step {
    sql: String,
    #[serde(default)]
    params: Vec<Value>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PgExecuteResult {
    committed: bool,
    /// Rows, of all statements.
    affected: u64,
    /// Rows, of each.
    each: Vec<u64>,
    /// What the last one returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    returned: Option<Shown>,
    elapsed_ms: u64,
    untrusted: bool,
}

#[tool_router(router = pg_execute_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Changes data or definitions: statements in one transaction, all or none. What destroys needs the `confirm_token` of its refusal.
    #[tool]
    async fn pg_execute(
        &self,
        Parameters(params): Parameters<PgExecuteParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<PgExecuteResult>, ToolError> {
        let since = Instant::now();
        let (database, postgres) = self.state().databases.postgres(params.source.as_deref())?;
        let mut recorded = Recorded::of_sql(&database.settings.id, &params.sql);
        recorded.with("statements", json!(1 + params.then.len()));
        record::note(&context, recorded);
        if database.settings.mode != Mode::Write {
            let error = Error::ReadOnly(database.settings.id.clone());
            return Err(record::refusal(&context, error));
        }
        let changes = changes(database, &params).map_err(|error| match error {
            Ok(error) => record::refusal(&context, error),
            Err(error) => error,
        })?;
        let action = self.begin(&context, "pg_execute", &params).await?;
        let done = self
            .execute(&context, database, postgres, changes, &params, since)
            .await;
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
    async fn execute(
        &self,
        context: &RequestContext<RoleServer>,
        database: &Database,
        postgres: &Postgres,
        mut changes: Changes,
        params: &PgExecuteParams,
        since: Instant,
    ) -> Result<(PgExecuteResult, String), ToolError> {
        let owner = &principal::of(context)?.name;
        let is_approved = self.is_enforced() || changes.is_trial;
        let destroys = changes
            .steps
            .iter()
            .find_map(|(change, _)| change.destroys());
        changes.may_empty = is_approved || destroys.is_some() || params.confirm_token.is_some();
        let mut why_unconfirmed = None;
        if !is_approved && let Some(token) = params.confirm_token.as_deref() {
            let digest = digest(database, params)?;
            changes.expected = Some(self.confirmed(token, owner, &digest)?);
        } else if let Some(why) = destroys.filter(|_| !is_approved) {
            changes.is_trial = true;
            why_unconfirmed = Some((why, digest(database, params)?));
        }
        let is_trial = changes.is_trial;
        let _slot = database.slot().await?;
        let work = told(context, "the change", postgres.execute(changes));
        let executed = tokio::select! {
            biased;
            executed = work => match executed {
                Ok(executed) => executed,
                Err(Error::Empties { tables, affected }) => {
                    let message = format!(
                        "nothing was changed yet: it would leave no row of {tables}. Tried and rolled back, it affects {affected} rows"
                    );
                    return Err(self.unconfirmed(message, owner, digest(database, params)?, affected));
                }
                Err(error) => return Err(record::refusal(context, error)),
            },
            () = context.ct.cancelled() => {
                return Err(ToolError::new(code::CANCELLED, "the call was cancelled, and the change rolled back unless it was just being committed"));
            }
        };
        if let Some((why, digest)) = why_unconfirmed {
            let affected = executed.total();
            let message = format!(
                "nothing was changed yet: {why}. Tried and rolled back, it affects {affected} rows"
            );
            return Err(self.unconfirmed(message, owner, digest, affected));
        }
        let affected = executed.total();
        let each = executed.affected;
        let returned = shown(executed.returned)?;
        let mut text = if is_trial {
            format!("a trial, rolled back: {affected} rows would be affected")
        } else {
            format!("committed: {affected} rows affected")
        };
        let returned = returned.map(|(returned, table)| {
            text = format!("{text}\n{table}");
            returned
        });
        let result = PgExecuteResult {
            committed: !is_trial,
            affected,
            each,
            returned,
            elapsed_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            untrusted: true,
        };
        Ok((result, text))
    }
}

/// The changes that a call asks for; the outer error is for the model, the inner one a refusal.
fn changes(
    database: &Database,
    params: &PgExecuteParams,
) -> Result<Changes, Result<Error, ToolError>> {
    if params.then.len() >= MOST_STATEMENTS {
        let many = params.then.len() + 1;
        let error = ToolError::new(
            code::INVALID_ARGUMENTS,
            format!("there are {many} statements"),
        );
        return Err(Err(
            error.with_hint(format!("give at most {MOST_STATEMENTS} in one call"))
        ));
    }
    let wanted = Wanted {
        timeout_ms: params.timeout_ms,
        ..Wanted::default()
    };
    let timeout: Duration = database.timeout(wanted).map_err(Err)?;
    let first = (params.sql.as_str(), &params.params);
    let more = params
        .then
        .iter()
        .map(|step| (step.sql.as_str(), &step.params));
    let mut steps = Vec::with_capacity(1 + params.then.len());
    for (sql, values) in std::iter::once(first).chain(more) {
        let change = Change::of(sql).map_err(|error| Ok(error.into()))?;
        steps.push((change, values.clone()));
    }
    Ok(Changes {
        steps,
        is_trial: params.dry_run,
        may_empty: false,
        expected: params.expect_rows,
        timeout,
        budget: database.settings.limits.reply,
    })
}

/// What a token is bound to.
fn digest(database: &Database, params: &PgExecuteParams) -> Result<Digest, ToolError> {
    let change = json!([
        database.settings.id,
        params.sql,
        params.params,
        params.then,
        params.expect_rows
    ]);
    Digest::of_json(&change).map_err(|error| ToolError::internal(&error))
}
