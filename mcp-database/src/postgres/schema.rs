//! What there is in a database, as queries over its catalog; they are asked like any other query, and read on like any other result.

use serde_json::json;

use super::read::Ask;

/// How much is told of each thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Its name, its kind and about how many rows.
    Names,
    /// Also its columns in one line, with keys and references.
    Summary,
    /// A row for each column, index, constraint and trigger.
    Full,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tables, views, materialized views, foreign tables; partitions only where they are asked for by name.
    Relations,
    /// Functions and procedures.
    Functions,
}

/// Schemas of the server itself.
const OWN: &str = "n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'";

/// `relation` of a row, what it is, and about how many rows it has: unknown before it was analyzed.
const RELATION: &str = "\
SELECT n.nspname::text AS schema, c.relname::text AS name, CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' \
WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END AS kind, \
CASE WHEN c.relkind = 'p' THEN (SELECT sum(GREATEST(p.reltuples, 0)) FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid \
WHERE i.inhparent = c.oid)::int8 WHEN c.reltuples < 0 THEN NULL ELSE c.reltuples::int8 END AS about_rows";

/// Which relations: by a pattern over `schema.name` and `name`, in schemas that the role may use.
const RELATIONS: &str = "\
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_schema_privilege(n.oid, 'USAGE') \
AND (c.relname ILIKE $1 OR n.nspname || '.' || c.relname ILIKE $1) \
AND (NOT c.relispartition OR lower(c.relname) = lower($1) OR lower(n.nspname || '.' || c.relname) = lower($1))";

/// A column's key or reference, in short.
const KEY: &str = "\
CASE WHEN EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary AND a.attnum = ANY (x.indkey)) THEN ' pk' \
WHEN EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisunique AND x.indnkeyatts = 1 AND a.attnum = x.indkey[0]) \
THEN ' unique' ELSE '' END || \
COALESCE((SELECT ' -> ' || k.confrelid::regclass::text || '.' || quote_ident(t.attname) FROM pg_constraint k JOIN pg_attribute t \
ON t.attrelid = k.confrelid AND t.attnum = k.confkey[array_position(k.conkey, a.attnum)] \
WHERE k.contype = 'f' AND k.conrelid = c.oid AND a.attnum = ANY (k.conkey) LIMIT 1), '')";

/// The question about everything that a LIKE pattern means.
pub fn ask(pattern: Option<&str>, kind: Kind, detail: Detail) -> Ask {
    let mut ask = Ask::new(match (kind, detail) {
        (Kind::Functions, _) => functions(),
        (Kind::Relations, Detail::Names) => {
            format!("{RELATION} {RELATIONS} AND {OWN} ORDER BY 1, 2")
        }
        (Kind::Relations, Detail::Summary) => format!(
            "{RELATION}, (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod) || {KEY}, ', ' \
             ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns, \
             obj_description(c.oid, 'pg_class') AS comment {RELATIONS} AND {OWN} ORDER BY 1, 2"
        ),
        (Kind::Relations, Detail::Full) => full(),
    });
    ask.parameters = vec![json!(pattern.unwrap_or("%"))];
    ask
}

fn full() -> String {
    format!(
        "SELECT r.schema, r.name, p.part, p.item, p.definition, p.comment FROM \
         (SELECT n.nspname::text AS schema, c.relname::text AS name, c.oid {RELATIONS} AND {OWN}) r, LATERAL (\
         SELECT 0 AS place, 'relation' AS part, r.name AS item, CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid, true) \
         WHEN 'm' THEN pg_get_viewdef(c.oid, true) WHEN 'p' THEN 'PARTITION BY ' || pg_get_partkeydef(c.oid) END AS definition, \
         obj_description(c.oid, 'pg_class') AS comment FROM pg_class c WHERE c.oid = r.oid \
         UNION ALL SELECT a.attnum, 'column', a.attname::text, format_type(a.atttypid, a.atttypmod) || {KEY} || \
         CASE WHEN a.attnotnull THEN ' not null' ELSE '' END || \
         COALESCE(CASE WHEN a.attgenerated <> '' THEN ' generated ' ELSE ' default ' END || pg_get_expr(d.adbin, d.adrelid), ''), \
         col_description(c.oid, a.attnum) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
         LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.oid = r.oid AND a.attnum > 0 AND NOT a.attisdropped \
         UNION ALL SELECT 2000, 'index', i.relname::text, pg_get_indexdef(i.oid), obj_description(i.oid, 'pg_class') \
         FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = r.oid \
         UNION ALL SELECT 2001, 'constraint', k.conname::text, pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint') \
         FROM pg_constraint k WHERE k.conrelid = r.oid \
         UNION ALL SELECT 2002, 'trigger', t.tgname::text, pg_get_triggerdef(t.oid), obj_description(t.oid, 'pg_trigger') \
         FROM pg_trigger t WHERE t.tgrelid = r.oid AND NOT t.tgisinternal) p ORDER BY r.schema, r.name, p.place, p.item"
    )
}

fn functions() -> String {
    format!(
        "SELECT n.nspname::text AS schema, f.proname::text || '(' || pg_get_function_arguments(f.oid) || ')' AS name, \
         CASE f.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' WHEN 'w' THEN 'window function' ELSE 'function' END AS kind, \
         pg_get_function_result(f.oid) AS returns, CASE f.provolatile WHEN 'v' THEN 'volatile' WHEN 's' THEN 'stable' \
         ELSE 'immutable' END AS volatility, obj_description(f.oid, 'pg_proc') AS comment \
         FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace WHERE has_schema_privilege(n.oid, 'USAGE') AND {OWN} \
         AND (f.proname ILIKE $1 OR n.nspname || '.' || f.proname ILIKE $1) ORDER BY 1, 2"
    )
}
