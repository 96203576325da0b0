//! Runs one changing statement of an agent in a transaction of its own, which is committed or, as a trial, rolled back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map as Object, Value as Json};

use super::bolt::{Access, Query, QueryType, Value, get};
use super::cell;
use super::client::{Neo4j, within};
use super::cypher::gate::{Purpose, Statement, explained};
use super::error::GraphError;
use super::parameter::parameters;
use super::pool::Session;
use super::read::{columns, told};
use crate::table::{Answer, Budget, Rows};

/// How long a commit may take before it is unknown what came of it.
const COMMITTING: Duration = Duration::from_secs(15);

/// Parts of a plan that find by a key, or neither find nor change more than they are given.
const KEYED: [&str; 17] = [
    "Argument",
    "CacheProperties",
    "DirectedRelationshipByElementIdSeek",
    "Distinct",
    "Eager",
    "EmptyResult",
    "Filter",
    "Limit",
    "NodeByElementIdSeek",
    "NodeByIdSeek",
    "NodeUniqueIndexSeek",
    "NodeUniqueIndexSeek(Locking)",
    "ProduceResults",
    "Projection",
    "RelationshipUniqueIndexSeek",
    "SetProperty",
    "UndirectedRelationshipByElementIdSeek",
];

/// A change and what its answer may take.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// One statement of Cypher: of the graph, or of its schema.
    pub cypher: &'a str,
    /// Its parameters, without the `$`.
    pub parameters: &'a Object<String, Json>,
    /// What the reply may hold.
    pub budget: Budget,
    /// How long it may take; the source's own limits apply.
    pub timeout: Option<Duration>,
    /// Whether it is rolled back, and only told what it would do.
    pub dry_run: bool,
    /// How many changes it is to make ([`Changed::total`]); with any other number nothing is changed.
    pub expected: Option<u64>,
}

/// Why a statement takes away more than what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Destruction {
    /// It drops an index or a constraint.
    DropsSchema,
    /// It deletes what it does not find by a unique key or an element id alone.
    DeletesWithoutKey,
    /// It sets or removes properties or labels of all that a scan finds.
    ChangesAll,
}

impl Destruction {
    /// What the statement does, behind "it".
    pub fn told(self) -> &'static str {
        match self {
            Self::DropsSchema => "drops an index or a constraint",
            Self::DeletesWithoutKey => {
                "deletes what it does not find by a unique key or an element id alone"
            }
            Self::ChangesAll => "changes all that has a label, or everything",
        }
    }
}

/// What a statement would do by its plan; nothing has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// `r`, `rw`, `w` or `s`.
    pub kind: &'static str,
    /// Why it takes a confirmation, if it does.
    pub destruction: Option<Destruction>,
    /// What the server says about the statement.
    pub notices: Vec<String>,
}

impl Plan {
    /// Whether it takes away more than what it names.
    pub fn is_destructive(&self) -> bool {
        self.destruction.is_some()
    }
}

/// A change that was made, or tried.
#[derive(Debug)]
pub struct Changed {
    /// What the plan said.
    pub plan: Plan,
    /// What was changed by the server's own names, such as `nodes-created`; empty if nothing.
    pub counters: BTreeMap<String, i64>,
    /// What the statement returns.
    pub answer: Answer,
    /// Whether it is in the database now.
    pub is_committed: bool,
}

impl Changed {
    /// How many changes there are of all kinds.
    pub fn total(&self) -> u64 {
        self.counters
            .values()
            .map(|count| count.unsigned_abs())
            .sum()
    }
}

impl Neo4j {
    /// Tells what a statement would do, without running it.
    ///
    /// # Errors
    /// What may not be done, or is no statement.
    pub async fn plan(&self, change: Change<'_>) -> Result<Plan, GraphError> {
        let (statement, query) = self.prepared(change)?;
        let limit = self.limit(change.timeout);
        within(limit, async {
            let mut session = self.session().await?;
            planned(&mut session, &statement, &query, limit).await
        })
        .await
    }

    /// Makes a change, or tries it.
    ///
    /// # Errors
    /// Why nothing was changed; [`GraphError::Unknown`] if that is not known.
    pub async fn write(&self, change: Change<'_>) -> Result<Changed, GraphError> {
        let (statement, query) = self.prepared(change)?;
        let limit = self.limit(change.timeout);
        let (session, mut changed) = within(limit, async {
            let mut session = self.session().await?;
            let plan = planned(&mut session, &statement, &query, limit).await?;
            let options = session.options(Access::Write, limit);
            let connection = session.connection()?;
            connection.begin(&options).await.map_err(GraphError::of)?;
            let most = u32::try_from(change.budget.rows.saturating_add(1)).unwrap_or(u32::MAX);
            let (started, batch) = connection
                .run_and_pull(&query, &options, most.min(1_000))
                .await
                .map_err(GraphError::of)?;
            let summary = match batch.summary {
                Some(summary) => summary,
                None => connection.discard().await.map_err(GraphError::of)?,
            };
            let columns = columns(started.fields, &batch.records);
            let mut rows = Rows::new(change.budget);
            for record in &batch.records {
                let cells = record.iter().map(|value| cell::cell(value, false));
                if rows.push(cells.collect()).is_err() {
                    break;
                }
            }
            let changed = Changed {
                plan,
                counters: summary.counters,
                answer: Answer { columns, rows },
                is_committed: !change.dry_run,
            };
            Ok((session, changed))
        })
        .await?;
        let total = changed.total();
        if let Some(expected) = change.expected.filter(|expected| *expected != total) {
            finish(session, true).await?;
            return Err(GraphError::Unexpected { expected, total });
        }
        finish(session, change.dry_run).await?;
        changed.is_committed = !change.dry_run;
        Ok(changed)
    }

    fn prepared(&self, change: Change<'_>) -> Result<(Statement, Query), GraphError> {
        self.check_writable()?;
        let statement = Statement::of(change.cypher, Purpose::Write, self.allowed())?;
        let query = Query {
            text: statement.text().to_owned(),
            parameters: parameters(change.parameters)?,
        };
        Ok((statement, query))
    }
}

/// Commits what a session has open, or rolls it back.
pub(super) async fn finish(mut session: Session, roll_back: bool) -> Result<(), GraphError> {
    let connection = session.connection()?;
    if roll_back {
        return connection.rollback().await.map_err(GraphError::of);
    }
    match tokio::time::timeout(COMMITTING, connection.commit()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => match GraphError::of(error) {
            GraphError::Connection(reason) => Err(GraphError::Unknown(reason)),
            refused => Err(refused),
        },
        Err(_) => Err(GraphError::Unknown(format!(
            "the commit was not answered within {} s",
            COMMITTING.as_secs()
        ))),
    }
}

async fn planned(
    session: &mut Session,
    statement: &Statement,
    query: &Query,
    limit: Duration,
) -> Result<Plan, GraphError> {
    let explain = Query {
        text: explained(&query.text),
        parameters: query.parameters.clone(),
    };
    // Nothing runs, so that reading is enough.
    let options = session.options(Access::Read, limit);
    let connection = session.connection()?;
    let (_, planned) = connection
        .run_and_pull(&explain, &options, 1)
        .await
        .map_err(GraphError::of_explained)?;
    let summary = planned.summary.unwrap_or_default();
    let kind = match summary.query_type {
        Some(QueryType::Read) => "r",
        Some(QueryType::ReadWrite) => "rw",
        Some(QueryType::Write) => "w",
        Some(QueryType::Schema) => "s",
        None => "?",
    };
    let operators = summary.plan.as_ref().map(operators).unwrap_or_default();
    Ok(Plan {
        kind,
        destruction: destruction(statement, &operators),
        notices: told(&summary.notifications),
    })
}

/// The names of all parts of a plan, without the database behind the `@`.
fn operators(plan: &Value) -> Vec<String> {
    let mut names = Vec::new();
    let mut waiting = vec![plan];
    while let Some(part) = waiting.pop() {
        let entries = part.as_map().unwrap_or_default();
        if let Some(name) = get(entries, "operatorType").and_then(Value::as_str) {
            let name = name.split('@').next().unwrap_or(name);
            names.push(name.to_owned());
        }
        let children = get(entries, "children").and_then(Value::as_list);
        waiting.extend(children.unwrap_or_default());
    }
    names
}

fn destruction(statement: &Statement, operators: &[String]) -> Option<Destruction> {
    if statement.first_word().as_deref() == Some("DROP") {
        return Some(Destruction::DropsSchema);
    }
    let some = |found: &dyn Fn(&str) -> bool| operators.iter().any(|name| found(name));
    let deletes = |name: &str| name.contains("Delete");
    let is_keyed = |name: &str| KEYED.contains(&name) || deletes(name);
    // A `FOREACH` does not show in the plan what it deletes.
    if statement.has_word("DELETE") || some(&deletes) {
        let all_keyed = !operators.is_empty() && operators.iter().all(|name| is_keyed(name));
        return (!all_keyed).then_some(Destruction::DeletesWithoutKey);
    }
    let changes_all = some(&|name| name.starts_with("Set") || name.starts_with("Remove"))
        && some(&|name| name.ends_with("Scan"))
        && !some(&|name| name.contains("Filter") || name.contains("Seek"));
    changes_all.then_some(Destruction::ChangesAll)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(cypher: &str, operators: &[&str]) -> anyhow::Result<Option<Destruction>> {
        let operators: Vec<String> = operators.iter().map(|name| (*name).to_owned()).collect();
        Ok(destruction(&Statement::unchecked(cypher)?, &operators))
    }

    #[test]
    fn what_is_found_by_a_key_may_be_deleted() -> anyhow::Result<()> {
        let delete = "MATCH (n:A {id: 1}) DETACH DELETE n";
        let keyed = [
            "ProduceResults",
            "EmptyResult",
            "DetachDelete",
            "NodeUniqueIndexSeek(Locking)",
        ];
        assert_eq!(verdict(delete, &keyed)?, None);
        let by_range = ["DetachDelete", "NodeUniqueIndexSeekByRange"];
        for operators in [
            &by_range[..],
            &["DetachDelete", "Filter", "NodeByLabelScan"],
            &[
                "DetachDelete",
                "VarLengthExpand(All)",
                "NodeUniqueIndexSeek",
            ],
            &[],
        ] {
            assert_eq!(
                verdict(delete, operators)?,
                Some(Destruction::DeletesWithoutKey),
                "{operators:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn drops_and_changes_of_everything_take_a_confirmation() -> anyhow::Result<()> {
        assert_eq!(
            verdict("drop index a", &[])?,
            Some(Destruction::DropsSchema)
        );
        let scan = ["SetProperty", "NodeByLabelScan"];
        let set = "MATCH (n:A) SET n.x = 1";
        assert_eq!(verdict(set, &scan)?, Some(Destruction::ChangesAll));
        assert_eq!(
            verdict(set, &["SetProperty", "Filter", "NodeByLabelScan"])?,
            None
        );
        assert_eq!(verdict("CREATE (n:DELETE {drop: 1})", &["Create"])?, None);
        Ok(())
    }
}
