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
         (SELECT quote_ident(n.nspname) FROM pg_namespace n WHERE n.oid = t.typnamespace), \
         (SELECT e.extversion !~ '^0\\.[0-7](\\.|$)' FROM pg_extension e WHERE e.extname = 'vector') \
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

/// A table as a search has to know it.
struct Table {
    /// As SQL names it.
    name: String,
    /// About how many rows it has.
    size: i64,
    /// Whether its server goes on to scan an index until it has rows enough, as pgvector does since 0.8.
    scans_on: bool,
    columns: Vec<Described>,
}

impl Table {
    fn of(looked: Answer) -> Option<Self> {
        let rows = looked.rows.into_rows();
        let text = |row: &[Value], at: usize| row[at].as_str().unwrap_or_default().to_owned();
        let first = rows.first()?;
        Some(Self {
            name: text(first, 0),
            size: first[6].as_i64().unwrap_or_default(),
            scans_on: first[8] == json!(true),
            columns: rows
                .iter()
                .map(|row| Described {
                    name: text(row, 1),
                    quoted: text(row, 2),
                    kind: text(row, 3),
                    dimensions: row[4].as_i64().unwrap_or(-1),
                    has_index: row[5] == json!(true),
                    namespace: text(row, 7),
                })
                .collect(),
        })
    }

    fn column(&self, name: &str) -> Result<&Described, Error> {
        let column = self.columns.iter().find(|column| column.name == name);
        column.ok_or_else(|| {
            let names = self.columns.iter().map(|column| column.name.as_str());
            let names: Vec<&str> = names.take(20).collect();
            let (table, names) = (&self.name, names.join(", "));
            Error::Search(format!("{table} has no column `{name}`; it has {names}"))
        })
    }

    /// The column of vectors that is meant: the named one, or the only one.
    fn vectors(&self, named: Option<&str>) -> Result<&Described, Error> {
        if let Some(name) = named {
            let column = self.column(name)?;
            if !column.is_vector() {
                let (name, kind) = (&column.name, &column.kind);
                return Err(Error::Search(format!("`{name}` is {kind}, no vector")));
            }
            return Ok(column);
        }
        let mut vectors = self.columns.iter().filter(|column| column.is_vector());
        let table = &self.name;
        match (vectors.next(), vectors.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(Error::Search(format!("{table} has no column of vectors"))),
            (Some(_), Some(_)) => Err(Error::Search(format!(
                "{table} has several columns of vectors; name one"
            ))),
        }
    }
}

impl Described {
    fn is_vector(&self) -> bool {
        matches!(self.kind.as_str(), "vector" | "halfvec" | "sparsevec")
    }
}

/// The question, and what should be known about its answer.
pub(super) fn question(search: &VectorSearch, looked: Answer) -> Result<(Ask, Vec<String>), Error> {
    let Some(table) = Table::of(looked) else {
        let named = &search.table;
        return Err(Error::Search(format!("there is no table `{named}`")));
    };
    let column = table.vectors(search.column.as_deref())?;
    let mut question = Question::default();
    let near = question.near(search, &table, column)?;
    for (name, value) in &search.filter {
        question.filter(&table.column(name)?.quoted, name, value)?;
    }
    let quoted = &column.quoted;
    question.conditions.push(format!("{quoted} IS NOT NULL"));
    let operator = search.metric.operator();
    let distance = format!("{quoted} OPERATOR({}.{operator}) {near}", column.namespace);
    let mut ask = Ask::new(question.statement(search, &table, &distance)?);
    ask.parameters = question.parameters;
    let mut notices = Vec::new();
    if column.has_index {
        let mut settings = Vec::new();
        if table.scans_on {
            // A filter must not leave fewer than are asked for while the index has more.
            settings.push("SET LOCAL hnsw.iterative_scan = strict_order".to_owned());
        }
        if let Some(ef_search) = search.ef_search {
            settings.push(format!("SET LOCAL hnsw.ef_search = {ef_search}"));
        }
        ask.local = settings.join("; ");
    } else if table.size > 10_000 {
        let (name, table, size) = (&column.name, &table.name, table.size);
        notices.push(format!(
            "`{name}` has no index for vectors, so all of some {size} rows are read; CREATE INDEX ON {table} USING hnsw ({quoted} …)"
        ));
    }
    Ok((ask, notices))
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

    /// What rows are to be near to, as SQL.
    fn near(
        &mut self,
        search: &VectorSearch,
        table: &Table,
        column: &Described,
    ) -> Result<String, Error> {
        match &search.near {
            Near::Vector(vector) => {
                check(vector, column, search.metric)?;
                let numbers: Vec<String> = vector.iter().map(ToString::to_string).collect();
                let parameter = self.parameter(json!(format!("[{}]", numbers.join(","))));
                let (namespace, kind) = (&column.namespace, &column.kind);
                // Sparse ones are written in another way, and made of full ones.
                Ok(format!(
                    "{parameter}::{namespace}.vector::{namespace}.{kind}"
                ))
            }
            Near::Row(keys) => {
                let mut is_it = Vec::new();
                for (name, value) in keys {
                    let key = table.column(name)?;
                    let parameter = self.parameter(value.clone());
                    is_it.push(format!("{} = {parameter}", key.quoted));
                }
                if is_it.is_empty() {
                    return Err(Error::Search("`like` names no column".to_owned()));
                }
                let is_it = is_it.join(" AND ");
                // A key may be NULL in other rows.
                self.conditions.push(format!("({is_it}) IS NOT TRUE"));
                let (vectors, table) = (&column.quoted, &table.name);
                let example = format!(
                    "(SELECT {vectors} FROM {table} WHERE {is_it} AND {vectors} IS NOT NULL LIMIT 1)"
                );
                // Without an example nothing is near to it.
                self.conditions.push(format!("{example} IS NOT NULL"));
                if search.metric == Metric::Cosine {
                    // One of zeros has no direction: it is at no distance from itself.
                    let itself = format!("{example} OPERATOR({}.<=>) {example}", column.namespace);
                    self.conditions
                        .push(format!("({itself}) <> 'NaN'::pg_catalog.float8"));
                }
                Ok(example)
            }
        }
    }

    fn statement(
        &mut self,
        search: &VectorSearch,
        table: &Table,
        distance: &str,
    ) -> Result<String, Error> {
        let shown = table.columns.iter().filter(|column| !column.is_vector());
        let shown: Vec<&str> = shown.map(|column| column.quoted.as_str()).collect();
        let (shown, k) = (shown.join(", "), search.k);
        let conditions = self.conditions.join(" AND ");
        let Some((name, words)) = &search.hybrid else {
            let table = &table.name;
            return Ok(format!(
                "SELECT {shown}, {distance} AS distance FROM {table} WHERE {conditions} ORDER BY {distance} LIMIT {k}"
            ));
        };
        let ranked = table.column(name)?;
        let words = self.parameter(json!(words));
        let document = if ranked.kind == "tsvector" {
            ranked.quoted.clone()
        } else {
            format!("to_tsvector({}::text)", ranked.quoted)
        };
        let table = &table.name;
        // Reciprocal rank fusion with the constant 60 of Cormack, Clarke and Büttcher (SIGIR 2009).
        Ok(format!(
            "WITH \" near\" AS (SELECT part, place, row_number() OVER () AS rank FROM (SELECT tableoid AS part, ctid AS place FROM {table} \
             WHERE {conditions} ORDER BY {distance} LIMIT {k} * 4) n), \
             \" worded\" AS (SELECT part, place, row_number() OVER () AS rank FROM (SELECT tableoid AS part, ctid AS place FROM {table} \
             WHERE {conditions} AND {document} @@ websearch_to_tsquery({words}) \
             ORDER BY ts_rank_cd({document}, websearch_to_tsquery({words})) DESC LIMIT {k} * 4) w), \
             \" fused\"(\" part\", \" place\", \" score\") AS (SELECT part, place, sum(1.0 / (60 + rank))::float8 AS score \
             FROM (TABLE \" near\" UNION ALL TABLE \" worded\") u GROUP BY part, place ORDER BY score DESC LIMIT {k}) \
             SELECT {shown}, {distance} AS distance, \" score\" AS score FROM \" fused\" JOIN {table} \
             ON {table}.ctid = \" place\" AND {table}.tableoid = \" part\" ORDER BY \" score\" DESC"
        ))
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
