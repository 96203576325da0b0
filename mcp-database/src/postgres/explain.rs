//! How the server would answer a query, or does: its plan, where it guesses wrong, and which indexes would help.

use serde_json::Value;
use tokio_postgres::Transaction;

use super::change::Change;
use super::connect::Connection;
use super::error::Error;
use super::functions::{self, Scope};
use super::read::{Ask, catalog, parameters};
use super::statement::Query;
use super::tokens::{Kind, tokens};
use crate::source::Mode;
use crate::table::{Answer, Budget, Cell, Column, Rows};

/// By how much rows may differ from the estimate before it is told.
const MISESTIMATE: f64 = 10.0;
/// Rows of a table from which on reading all of it is told.
const LARGE_TABLE: f64 = 10_000.0;
/// Indexes that are tried.
const MOST_CANDIDATES: usize = 12;
/// By how much a query must become cheaper for an index to be advised.
const WORTH: f64 = 0.9;
/// Nodes of a plan that are told.
const MOST_NODES: usize = 200;

/// What is asked about a query.
#[derive(Debug, Clone)]
pub struct Explain {
    /// The query.
    pub ask: Ask,
    /// Whether it is run, to tell what is so from what was guessed.
    pub is_run: bool,
    /// `CREATE INDEX …` statements; the plan is made as if there were these, too. Needs the extension hypopg.
    pub indexes: Vec<String>,
    /// Whether indexes are looked for that would help.
    pub is_advised: bool,
}

/// A plan.
#[derive(Debug)]
pub struct Explained {
    /// A row for each node, from the top.
    pub plan: Answer,
    /// What stands out, and what would help.
    pub notices: Vec<String>,
}

/// Asks for a plan in a READ ONLY transaction. Hypothetical indexes are left in the session, which is not to be used again.
pub(super) async fn explain(
    connection: &mut Connection,
    explain: &Explain,
    allowed: &[String],
    has_hypopg: bool,
) -> Result<Explained, Error> {
    let query = Query::of(&explain.ask.sql)?;
    if !has_hypopg && !explain.indexes.is_empty() {
        return Err(Error::Missing(
            "the extension hypopg, which hypothetical indexes need",
        ));
    }
    if has_hypopg && (explain.is_advised || !explain.indexes.is_empty()) {
        connection.spoil();
    }
    if explain.indexes.len() > MOST_CANDIDATES {
        let many = explain.indexes.len();
        return Err(Error::Index(format!(
            "{many} indexes; {MOST_CANDIDATES} are taken"
        )));
    }
    let failed = |error: tokio_postgres::Error| Error::outside(&error);
    let timeout = explain.ask.timeout;
    let transaction = connection.transaction(Mode::Read, timeout).await?;
    let names: Vec<&str> = query.called().map(|called| called.name.as_str()).collect();
    let known = catalog(&transaction, &names).await.map_err(failed)?;
    functions::check(query.called(), &known, allowed, Scope::Read)?;
    let mut notices = Vec::new();
    if !explain.indexes.is_empty() {
        let before = plan(&transaction, &query, &explain.ask.parameters, false).await?;
        for index in &explain.indexes {
            let index = Change::of(index)?;
            let names: Vec<&str> = index.called().map(|called| called.name.as_str()).collect();
            let known = catalog(&transaction, &names).await.map_err(failed)?;
            functions::check(index.called(), &known, allowed, Scope::Read)?;
            imagine(&transaction, index.text()).await?;
        }
        let after = plan(&transaction, &query, &explain.ask.parameters, false).await?;
        notices.push(format!(
            "with the hypothetical indexes the cost is {:.0} instead of {:.0}",
            cost(&after),
            cost(&before)
        ));
    }
    let is_run = explain.is_run && explain.indexes.is_empty();
    let told = plan(&transaction, &query, &explain.ask.parameters, is_run).await?;
    let mut nodes = Vec::new();
    flatten(&told["Plan"], 0, &mut nodes);
    stands_out(&nodes, &mut notices);
    if is_run && let Some(ms) = told["Execution Time"].as_f64() {
        notices.push(format!("it ran for {ms:.1} ms"));
    }
    if explain.is_advised {
        advise(
            &transaction,
            &query,
            &explain.ask.parameters,
            &told,
            has_hypopg,
            &mut notices,
        )
        .await?;
    }
    Ok(Explained {
        plan: rows(&nodes, is_run),
        notices,
    })
}

/// The server's plan, as its JSON.
async fn plan(
    transaction: &Transaction<'_>,
    query: &Query,
    given: &[Value],
    is_run: bool,
) -> Result<Value, Error> {
    let options = if is_run {
        "EXPLAIN (FORMAT JSON, ANALYZE, BUFFERS) "
    } else {
        "EXPLAIN (FORMAT JSON) "
    };
    let failed = |error: tokio_postgres::Error| {
        Error::of(&error, |place| {
            query.position(place.saturating_sub(options.len()))
        })
    };
    let statement = [options, query.text()].concat();
    let statement = transaction.prepare(&statement).await.map_err(failed)?;
    let parameters = parameters(&statement, given)?;
    let rows = transaction
        .query_raw(&statement, parameters)
        .await
        .map_err(failed)?;
    let rows: Vec<tokio_postgres::Row> = futures_util::TryStreamExt::try_collect(rows)
        .await
        .map_err(failed)?;
    let unreadable = || Error::Lost("the server's plan is no JSON".to_owned());
    let row = rows.first().ok_or_else(unreadable)?;
    let text: super::value::Raw<'_> = row.try_get(0).map_err(failed)?;
    let plans: Value = text
        .bytes()
        .and_then(|bytes| serde_json::from_slice(bytes).ok())
        .ok_or_else(unreadable)?;
    Ok(plans.get(0).cloned().unwrap_or_default())
}

/// Has the planner believe that there is an index.
async fn imagine(transaction: &Transaction<'_>, index: &str) -> Result<(), Error> {
    if !is_index(index) {
        return Err(Error::Index(index.chars().take(80).collect()));
    }
    transaction
        .query("SELECT indexrelid FROM hypopg_create_index($1)", &[&index])
        .await
        .map(drop)
        .map_err(|error| Error::outside(&error))
}

/// Whether a text is one `CREATE INDEX`.
fn is_index(text: &str) -> bool {
    let Ok(words) = tokens(text) else {
        return false;
    };
    let is_word = |at: usize, word: &str| matches!(words.get(at).map(|token| &token.kind), Some(Kind::Name { name, is_quoted: false }) if name == word);
    let is_one = !words.iter().any(|token| token.kind == Kind::Other(';'));
    is_one
        && is_word(0, "create")
        && (is_word(1, "index") || is_word(1, "unique") && is_word(2, "index"))
}

fn cost(plan: &Value) -> f64 {
    plan["Plan"]["Total Cost"].as_f64().unwrap_or_default()
}

/// A node of a plan and how deep it lies.
struct Node<'p> {
    depth: usize,
    node: &'p Value,
}

impl Node<'_> {
    fn text(&self, key: &str) -> &str {
        self.node[key].as_str().unwrap_or_default()
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.node[key].as_f64()
    }

    /// `Index Scan using by_org on users u`
    fn name(&self) -> String {
        let mut name = self.text("Node Type").to_owned();
        for (word, key) in [("using", "Index Name"), ("on", "Relation Name")] {
            let value = self.text(key);
            if !value.is_empty() {
                name = format!("{name} {word} {value}");
            }
        }
        let (alias, relation) = (self.text("Alias"), self.text("Relation Name"));
        if !alias.is_empty() && alias != relation && !relation.is_empty() {
            name = format!("{name} {alias}");
        }
        name
    }

    /// Conditions and keys.
    fn conditions(&self) -> String {
        let keys = [
            "Index Cond",
            "Hash Cond",
            "Merge Cond",
            "Join Filter",
            "Recheck Cond",
            "Filter",
        ];
        let told = keys.iter().filter_map(|key| {
            let value = self.node[*key].as_str()?;
            Some(format!("{key}: {value}"))
        });
        let lists = ["Sort Key", "Group Key"].iter().filter_map(|key| {
            let values: Vec<&str> = self.node[*key]
                .as_array()?
                .iter()
                .filter_map(Value::as_str)
                .collect();
            Some(format!("{key}: {}", values.join(", ")))
        });
        told.chain(lists).collect::<Vec<_>>().join("; ")
    }

    /// Rows of all loops together, where it was run.
    fn actual_rows(&self) -> Option<f64> {
        Some(self.number("Actual Rows")? * self.number("Actual Loops").unwrap_or(1.0))
    }

    /// By how much more or fewer rows came than was guessed.
    fn misestimate(&self) -> Option<f64> {
        let (actual, guessed) = (
            self.number("Actual Rows")?.max(1.0),
            self.number("Plan Rows")?.max(1.0),
        );
        let factor = (actual / guessed).max(guessed / actual);
        (factor >= MISESTIMATE).then_some(factor)
    }
}

fn flatten<'p>(node: &'p Value, depth: usize, nodes: &mut Vec<Node<'p>>) {
    if nodes.len() >= MOST_NODES {
        return;
    }
    nodes.push(Node { depth, node });
    for child in node["Plans"].as_array().into_iter().flatten() {
        flatten(child, depth + 1, nodes);
    }
}

fn rows(nodes: &[Node<'_>], is_run: bool) -> Answer {
    let mut names = vec![("node", "text"), ("cost", "float8"), ("rows", "float8")];
    if is_run {
        names.extend([("actual_rows", "float8"), ("ms", "float8")]);
    }
    names.push(("conditions", "text"));
    let mut rows = Rows::new(Budget {
        rows: MOST_NODES,
        ..Budget::default()
    });
    let number = |value: Option<f64>| value.map_or_else(Cell::null, Cell::float);
    for node in nodes {
        let mut row = vec![
            Cell::text(format!("{}{}", "  ".repeat(node.depth), node.name())),
            number(node.number("Total Cost")),
            number(node.number("Plan Rows")),
        ];
        if is_run {
            let loops = node.number("Actual Loops").unwrap_or(1.0);
            row.push(number(node.actual_rows()));
            row.push(number(
                node.number("Actual Total Time").map(|ms| ms * loops),
            ));
        }
        row.push(Cell::text(node.conditions()));
        // What does not fit is told by the rows themselves.
        if rows.push(row).is_err() {
            break;
        }
    }
    let columns = names.iter().map(|(name, kind)| Column {
        name: (*name).to_owned(),
        kind: (*kind).to_owned(),
    });
    Answer {
        columns: columns.collect(),
        rows,
    }
}

fn stands_out(nodes: &[Node<'_>], notices: &mut Vec<String>) {
    for node in nodes {
        if let Some(factor) = node.misestimate() {
            notices.push(format!(
                "{}: the guess of its rows is off by {factor:.0}; ANALYZE may help",
                node.name()
            ));
        }
        if node.text("Node Type") == "Seq Scan" && reads(node) > LARGE_TABLE {
            notices.push(format!("{}: reads the whole table", node.name()));
        }
        if node.text("Sort Space Type") == "Disk" {
            notices.push(format!(
                "{}: sorts on disk; work_mem is too small for it",
                node.name()
            ));
        }
        if node
            .number("Hash Batches")
            .is_some_and(|batches| batches > 1.0)
        {
            notices.push(format!(
                "{}: hashes on disk; work_mem is too small for it",
                node.name()
            ));
        }
    }
}

/// About how many rows a node reads, with those that its filter drops; where it was not run its cost tells.
fn reads(node: &Node<'_>) -> f64 {
    let kept = node.actual_rows().or_else(|| node.number("Plan Rows"));
    let dropped = node.number("Rows Removed by Filter").unwrap_or_default();
    let by_cost = if node.node["Actual Rows"].is_null() && !node.text("Filter").is_empty() {
        // A row costs 0.01, and comparing it 0.0025 at least.
        node.number("Total Cost").unwrap_or_default() / 0.02
    } else {
        0.0
    };
    (kept.unwrap_or_default() + dropped).max(by_cost)
}

/// An index that might help: a table and its columns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    table: String,
    columns: Vec<String>,
}

impl Candidate {
    fn statement(&self) -> String {
        format!(
            "CREATE INDEX ON {} ({})",
            self.table,
            self.columns.join(", ")
        )
    }
}

/// Tries indexes over what is filtered and sorted where whole tables are read; without hypopg they are only named.
async fn advise(
    transaction: &Transaction<'_>,
    query: &Query,
    given: &[Value],
    told: &Value,
    has_hypopg: bool,
    notices: &mut Vec<String>,
) -> Result<(), Error> {
    let candidates = candidates(transaction, told).await?;
    if candidates.is_empty() {
        notices.push("no index suggests itself: no whole table is read and filtered".to_owned());
        return Ok(());
    }
    if !has_hypopg {
        for candidate in candidates {
            notices.push(format!(
                "might help, untried without the extension hypopg: {}",
                candidate.statement()
            ));
        }
        return Ok(());
    }
    let before = cost(told);
    let failed = |error: tokio_postgres::Error| Error::outside(&error);
    let mut helped = Vec::new();
    for candidate in candidates {
        imagine(transaction, &candidate.statement()).await?;
        let after = cost(&plan(transaction, query, given, false).await?);
        transaction
            .query("SELECT hypopg_reset()", &[])
            .await
            .map_err(failed)?;
        if after < before * WORTH {
            helped.push((after, candidate.statement()));
        }
    }
    helped.sort_by(|one, other| one.0.total_cmp(&other.0));
    if helped.is_empty() {
        notices.push("none of the indexes that suggest themselves makes it cheaper".to_owned());
    }
    for (after, statement) in helped {
        notices.push(format!(
            "cost {after:.0} instead of {before:.0} with {statement}"
        ));
    }
    Ok(())
}

/// Columns of tables that are read whole, by the names in their filters and the sort keys around them.
async fn candidates(transaction: &Transaction<'_>, told: &Value) -> Result<Vec<Candidate>, Error> {
    let mut nodes = Vec::new();
    flatten(&told["Plan"], 0, &mut nodes);
    let sorts: Vec<String> = nodes
        .iter()
        .flat_map(|node| node.node["Sort Key"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .flat_map(names)
        .collect();
    let mut found = Vec::new();
    for node in nodes
        .iter()
        .filter(|node| node.text("Node Type").ends_with("Seq Scan"))
    {
        let relation = node.text("Relation Name");
        let failed = |error: tokio_postgres::Error| Error::outside(&error);
        let columns = "SELECT c.oid::regclass::text, a.attname::text, quote_ident(a.attname) FROM pg_class c JOIN pg_attribute a \
                       ON a.attrelid = c.oid WHERE c.relname = $1 AND a.attnum > 0 AND NOT a.attisdropped AND pg_table_is_visible(c.oid)";
        let known = transaction
            .query(columns, &[&relation])
            .await
            .map_err(failed)?;
        let mut of_table = Vec::new();
        let mut table = String::new();
        for row in &known {
            table = row.try_get(0).map_err(failed)?;
            let column: (String, String) = (
                row.try_get(1).map_err(failed)?,
                row.try_get(2).map_err(failed)?,
            );
            of_table.push(column);
        }
        let quoted = |name: &String| {
            let column = of_table.iter().find(|(column, _)| column == name);
            column.map(|(_, quoted)| quoted.clone())
        };
        let mut filtered: Vec<String> = names(node.text("Filter"))
            .iter()
            .filter_map(quoted)
            .collect();
        let order: Vec<String> = sorts.iter().filter_map(quoted).collect();
        filtered.dedup();
        for columns in combinations(filtered, order) {
            let candidate = Candidate {
                table: table.clone(),
                columns,
            };
            if !found.contains(&candidate) && found.len() < MOST_CANDIDATES {
                found.push(candidate);
            }
        }
    }
    Ok(found)
}

/// Each filtered column alone, all together, and these before what is sorted by.
fn combinations(filtered: Vec<String>, order: Vec<String>) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = filtered.iter().map(|column| vec![column.clone()]).collect();
    if filtered.len() > 1 {
        all.push(filtered.clone());
    }
    let sorted: Vec<String> = order
        .into_iter()
        .filter(|column| !filtered.contains(column))
        .collect();
    if !sorted.is_empty() {
        all.push([filtered, sorted].concat());
    }
    all
}

/// The names in an expression of the server.
fn names(expression: &str) -> Vec<String> {
    let words = tokens(expression).unwrap_or_default();
    words
        .into_iter()
        .filter_map(|word| match word.kind {
            Kind::Name { name, .. } => Some(name.into_owned()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_index_is_imagined_at_a_time() {
        assert!(is_index("CREATE INDEX ON t (a)"));
        assert!(is_index("create unique index i on t (a)"));
        for other in [
            "CREATE TABLE t ()",
            "CREATE INDEX ON t (a); DROP TABLE t",
            "'",
            "",
        ] {
            assert!(!is_index(other), "{other}");
        }
    }

    #[test]
    fn indexes_over_filters_go_before_sorting() {
        let of = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            combinations(of(&["a", "b"]), of(&["b", "c"])),
            [
                of(&["a"]),
                of(&["b"]),
                of(&["a", "b"]),
                of(&["a", "b", "c"])
            ]
        );
        assert!(combinations(of(&[]), of(&[])).is_empty());
    }
}
