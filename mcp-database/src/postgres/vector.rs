//! The rows nearest to a vector, by pgvector: the question, with every name quoted by the server and every value a parameter.

use serde_json::{Map, Value, json};

use super::error::Error;
use super::read::Ask;
use crate::table::{Answer, Budget};

/// Most rows that are looked for.
pub const MOST_NEIGHBOURS: usize = 500;

/// How far two vectors are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// One less the cosine of their angle.
    Cosine,
    /// Euclid's.
    L2,
    /// Less the inner product.
    InnerProduct,
}

impl Metric {
    fn operator(self) -> &'static str {
        match self {
            Self::Cosine => "<=>",
            Self::L2 => "<->",
            Self::InnerProduct => "<#>",
        }
    }
}

/// To what rows are to be near.
#[derive(Debug, Clone)]
pub enum Near {
    /// A vector.
    Vector(Vec<f32>),
    /// The row that has these values; it is left out of the answer.
    Row(Map<String, Value>),
}

/// A search.
#[derive(Debug, Clone)]
pub struct VectorSearch {
    /// The table, perhaps with its schema.
    pub table: String,
    /// The column; the only one of its kind where it is not said.
    pub column: Option<String>,
    /// What is near.
    pub near: Near,
    /// How many.
    pub k: usize,
    /// By which distance.
    pub metric: Metric,
    /// Column and value, or column and `{operator: value}` with `eq`, `ne`, `gt`, `gte`, `lt`, `lte`, `in`, `like`.
    pub filter: Map<String, Value>,
    /// A column of text and words, by which rows are ranked as well (reciprocal rank fusion).
    pub hybrid: Option<(String, String)>,
    /// How much an index looks at (`hnsw.ef_search`).
    pub ef_search: Option<u32>,
}

/// What the catalog says of a table; the question for it.
pub(super) fn look(table: &str) -> Ask {
    let mut ask = Ask::new(
        "SELECT c.oid::regclass::text, a.attname::text, quote_ident(a.attname), t.typname::text, a.atttypmod, \
         EXISTS (SELECT FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam \
         WHERE x.indrelid = c.oid AND a.attnum = ANY (x.indkey) AND m.amname IN ('hnsw', 'ivfflat')), \
         GREATEST(c.reltuples, 0)::int8, \
         (SELECT quote_ident(n.nspname) FROM pg_namespace n WHERE n.oid = t.typnamespace) \
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid \
         WHERE c.oid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    );
    ask.parameters = vec![json!(table)];
    ask
}

/// How much of a look is needed.
pub(super) const LOOK_BUDGET: Budget = Budget {
    rows: 1_700,
    bytes: 1 << 20,
};

struct Described {
    name: String,
    quoted: String,
    kind: String,
    dimensions: i64,
    has_index: bool,
    namespace: String,
}

/// The question, and what should be known about its answer.
pub(super) fn question(search: &VectorSearch, looked: Answer) -> Result<(Ask, Vec<String>), Error> {
    let rows = looked.rows.into_rows();
    let text = |row: &[Value], at: usize| row[at].as_str().unwrap_or_default().to_owned();
    let Some(first) = rows.first() else {
        return Err(Error::Search(format!(
            "there is no table `{}`",
            search.table
        )));
    };
    let (table, size) = (text(first, 0), first[6].as_i64().unwrap_or_default());
    let columns: Vec<Described> = rows
        .iter()
        .map(|row| Described {
            name: text(row, 1),
            quoted: text(row, 2),
            kind: text(row, 3),
            dimensions: row[4].as_i64().unwrap_or(-1),
            has_index: row[5] == json!(true),
            namespace: text(row, 7),
        })
        .collect();
    let is_vector =
        |column: &Described| matches!(column.kind.as_str(), "vector" | "halfvec" | "sparsevec");
    let column = match &search.column {
        Some(name) => find(&columns, &table, name)?,
        None => {
            let mut vectors = columns.iter().filter(|column| is_vector(column));
            match (vectors.next(), vectors.next()) {
                (Some(only), None) => only,
                (None, _) => {
                    return Err(Error::Search(format!("{table} has no column of vectors")));
                }
                _ => {
                    let names: Vec<&str> = columns
                        .iter()
                        .filter(|column| is_vector(column))
                        .map(|column| column.name.as_str())
                        .collect();
                    return Err(Error::Search(format!(
                        "{table} has several columns of vectors; name one of {}",
                        names.join(", ")
                    )));
                }
            }
        }
    };
    if !is_vector(column) {
        return Err(Error::Search(format!(
            "`{}` is {}, no vector",
            column.name, column.kind
        )));
    }
    let mut question = Question::default();
    let cast = format!("{}.{}", column.namespace, column.kind);
    let near = match &search.near {
        Near::Vector(vector) => {
            check(vector, column, search.metric)?;
            let numbers: Vec<String> = vector.iter().map(ToString::to_string).collect();
            let parameter = question.parameter(json!(format!("[{}]", numbers.join(","))));
            format!("{parameter}::{cast}")
        }
        Near::Row(keys) => {
            let mut is_it = Vec::new();
            for (name, value) in keys {
                let key = find(&columns, &table, name)?;
                let parameter = question.parameter(value.clone());
                is_it.push(format!("{} = {parameter}", key.quoted));
            }
            if is_it.is_empty() {
                return Err(Error::Search("`like` names no column".to_owned()));
            }
            let is_it = is_it.join(" AND ");
            question.conditions.push(format!("NOT ({is_it})"));
            format!(
                "(SELECT {} FROM {table} WHERE {is_it} LIMIT 1)",
                column.quoted
            )
        }
    };
    for (name, value) in &search.filter {
        let filtered = find(&columns, &table, name)?;
        question.filter(&filtered.quoted, name, value)?;
    }
    let shown: Vec<&str> = columns
        .iter()
        .filter(|column| !is_vector(column))
        .map(|column| column.quoted.as_str())
        .collect();
    let operator = format!(
        "OPERATOR({}.{})",
        column.namespace,
        search.metric.operator()
    );
    let distance = format!("{} {operator} {near}", column.quoted);
    question
        .conditions
        .push(format!("{} IS NOT NULL", column.quoted));
    let conditions = question.conditions.join(" AND ");
    let k = search.k;
    let sql = match &search.hybrid {
        None => format!(
            "SELECT {}, {distance} AS distance FROM {table} WHERE {conditions} ORDER BY {distance} LIMIT {k}",
            shown.join(", ")
        ),
        Some((name, words)) => {
            let ranked = find(&columns, &table, name)?;
            let words = question.parameter(json!(words));
            let document = if ranked.kind == "tsvector" {
                ranked.quoted.clone()
            } else {
                format!("to_tsvector({}::text)", ranked.quoted)
            };
            // Reciprocal rank fusion with the constant 60 of Cormack, Clarke and Büttcher (SIGIR 2009).
            format!(
                "WITH near AS (SELECT ctid AS place, row_number() OVER () AS rank FROM (SELECT ctid FROM {table} WHERE {conditions} \
                 ORDER BY {distance} LIMIT {k} * 4) n), \
                 worded AS (SELECT ctid AS place, row_number() OVER () AS rank FROM (SELECT ctid FROM {table} WHERE {conditions} \
                 AND {document} @@ websearch_to_tsquery({words}) \
                 ORDER BY ts_rank_cd({document}, websearch_to_tsquery({words})) DESC LIMIT {k} * 4) w), \
                 fused(\" place\", \" score\") AS (SELECT place, sum(1.0 / (60 + rank))::float8 AS score FROM (TABLE near UNION ALL TABLE worded) u \
                 GROUP BY place ORDER BY score DESC LIMIT {k}) \
                 SELECT {}, {distance} AS distance, \" score\" AS score FROM fused JOIN {table} ON {table}.ctid = \" place\" ORDER BY \" score\" DESC",
                shown.join(", ")
            )
        }
    };
    let mut notices = Vec::new();
    if !column.has_index && size > 10_000 {
        notices.push(format!(
            "`{}` has no index for vectors, so all of some {size} rows are read; CREATE INDEX ON {table} USING hnsw ({} …)",
            column.name, column.quoted
        ));
    }
    let mut ask = Ask::new(sql);
    ask.parameters = question.parameters;
    if column.has_index {
        // A filter must not leave fewer than are asked for while the index has more.
        ask.local = "SET LOCAL hnsw.iterative_scan = strict_order".to_owned();
        if let Some(ef_search) = search.ef_search {
            ask.local = format!("{}; SET LOCAL hnsw.ef_search = {ef_search}", ask.local);
        }
    }
    Ok((ask, notices))
}

fn find<'c>(columns: &'c [Described], table: &str, name: &str) -> Result<&'c Described, Error> {
    columns
        .iter()
        .find(|column| column.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = columns
                .iter()
                .map(|column| column.name.as_str())
                .take(20)
                .collect();
            Error::Search(format!(
                "{table} has no column `{name}`; it has {}",
                names.join(", ")
            ))
        })
}

fn check(vector: &[f32], column: &Described, metric: Metric) -> Result<(), Error> {
    let given = i64::try_from(vector.len()).unwrap_or(i64::MAX);
    if column.dimensions > 0 && given != column.dimensions {
        return Err(Error::Search(format!(
            "the vector has {given} numbers, and `{}` has {}",
            column.name, column.dimensions
        )));
    }
    if vector.iter().any(|number| !number.is_finite()) {
        return Err(Error::Search(
            "the vector has a number that is not finite".to_owned(),
        ));
    }
    if metric == Metric::Cosine && vector.iter().all(|number| *number == 0.0) {
        return Err(Error::Search(
            "a vector of zeros has no direction, so nothing is near to it by cosine".to_owned(),
        ));
    }
    Ok(())
}

#[derive(Default)]
struct Question {
    parameters: Vec<Value>,
    conditions: Vec<String>,
}

impl Question {
    fn parameter(&mut self, value: Value) -> String {
        self.parameters.push(value);
        format!("${}", self.parameters.len())
    }

    fn filter(&mut self, column: &str, name: &str, value: &Value) -> Result<(), Error> {
        let Value::Object(tests) = value else {
            return self.test(column, name, "eq", value);
        };
        tests
            .iter()
            .try_for_each(|(operator, value)| self.test(column, name, operator, value))
    }

    fn test(
        &mut self,
        column: &str,
        name: &str,
        operator: &str,
        value: &Value,
    ) -> Result<(), Error> {
        let sign = match operator {
            "eq" if value.is_null() => {
                self.conditions.push(format!("{column} IS NULL"));
                return Ok(());
            }
            "ne" if value.is_null() => {
                self.conditions.push(format!("{column} IS NOT NULL"));
                return Ok(());
            }
            "in" => {
                let parameter = self.parameter(value.clone());
                self.conditions
                    .push(format!("{column} = ANY ({parameter})"));
                return Ok(());
            }
            "eq" => "=",
            "ne" => "<>",
            "gt" => ">",
            "gte" => ">=",
            "lt" => "<",
            "lte" => "<=",
            "like" => "LIKE",
            other => {
                return Err(Error::Search(format!(
                    "`{other}` in the filter of `{name}` is none of eq, ne, gt, gte, lt, lte, in, like"
                )));
            }
        };
        let parameter = self.parameter(value.clone());
        self.conditions.push(format!("{column} {sign} {parameter}"));
        Ok(())
    }
}
