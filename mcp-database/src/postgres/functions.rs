//! Which functions a read may call: the catalog of the server says what each may do, and a list what it says too much of.
//!
//! A function marked VOLATILE may have effects, and many built-in ones have some that no read-only transaction stops: files, locks
//! that outlive the transaction, signals to other sessions. A few are harmless, and a few that are not marked so run a text as SQL.

use super::statement::Called;

/// Gives a row for each function of the names `$1`: schema, name, whether a name without schema finds it, volatility, the least
/// number of arguments it takes, and whether a column has that name.
pub const LOOK_UP: &str = "\
SELECT n.nspname::text, p.proname::text, n.nspname = ANY (pg_catalog.current_schemas(true)), p.provolatile::text, \
(p.pronargs - p.pronargdefaults)::int4, \
EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attname = p.proname AND a.attnum > 0 AND NOT a.attisdropped) \
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.proname = ANY ($1) \
AND NOT 'pg_catalog.internal'::pg_catalog.regtype = ANY (p.proargtypes)";

/// Volatile functions of `pg_catalog` without effects.
const HARMLESS: [&str; 22] = [
    "clock_timestamp",
    "currval",
    "gen_random_uuid",
    "lastval",
    "pg_blocking_pids",
    "pg_database_size",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_is_wal_replay_paused",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_relation_size",
    "pg_safe_snapshot_blocking_pids",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "random",
    "random_normal",
    "timeofday",
    "uuidv4",
    "uuidv7",
];

/// Functions that run a text as SQL, read whole schemas or read a cursor, whatever their volatility and wherever they are: those of
/// `pg_catalog`, and of the extensions tablefunc, xml2 and dblink.
const RUN_TEXT: [&str; 33] = [
    "connectby",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "crosstab_hash",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "dblink",
    "dblink_build_sql_delete",
    "dblink_build_sql_insert",
    "dblink_build_sql_update",
    "dblink_connect",
    "dblink_connect_u",
    "dblink_exec",
    "dblink_fetch",
    "dblink_open",
    "dblink_send_query",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
    "xpath_table",
];

/// Volatile functions of `pg_catalog` whose effects end with the transaction, or are what a change is made of.
const PART_OF_CHANGES: [&str; 7] = [
    "nextval",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_notify",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "setseed",
];

/// What a statement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// It reads.
    Read,
    /// It changes what is in the database; functions of the database's own users are part of that.
    Change,
}

/// What the catalog says of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether a name without a schema can mean it.
    pub is_visible: bool,
    /// Whether it is marked VOLATILE.
    pub is_volatile: bool,
    /// How many arguments it takes at least.
    pub least_arguments: i32,
    /// Whether some column has its name.
    pub is_column: bool,
}

/// A function that a read may not call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    /// It may have effects.
    #[error("`{0}` is a volatile function, which may have effects")]
    Volatile(String),
    /// It runs texts.
    #[error("`{0}` runs a text as SQL or reads more than it is given")]
    RunsText(String),
}

impl FunctionError {
    /// The function, with its schema.
    pub fn function(&self) -> &str {
        match self {
            Self::Volatile(function) | Self::RunsText(function) => function,
        }
    }
}

/// Checks what a statement calls against what the catalog has under these names; `allowed` are functions, with their schemas, that
/// the operator vouches for. A name that the catalog does not have is a key word, or the server's to refuse.
///
/// # Errors
/// The first function that may not be called.
pub fn check<'a>(
    called: impl Iterator<Item = &'a Called>,
    catalog: &[Function],
    allowed: &[String],
    scope: Scope,
) -> Result<(), FunctionError> {
    for called in called {
        for function in catalog {
            if !may_mean(called, function) {
                continue;
            }
            let full_name = format!("{}.{}", function.schema, function.name);
            if allowed.contains(&full_name) {
                continue;
            }
            let is_built_in = function.schema == "pg_catalog";
            let name = function.name.as_str();
            if RUN_TEXT.contains(&name) {
                return Err(FunctionError::RunsText(full_name));
            }
            let is_changing =
                scope == Scope::Change && (!is_built_in || PART_OF_CHANGES.contains(&name));
            let is_harmless = is_built_in && HARMLESS.contains(&name);
            if function.is_volatile && !is_harmless && !is_changing {
                return Err(FunctionError::Volatile(full_name));
            }
        }
    }
    Ok(())
}

/// Whether a call can come out at this function; which of several of a name is called depends on types, which nobody here knows.
fn may_mean(called: &Called, function: &Function) -> bool {
    if called.name != function.name {
        return false;
    }
    if called.as_attribute {
        // `value.name` gives the value as the only argument. Where a column has the name it is taken for the column, unless the
        // function is built in: no built-in one with effects may hide behind a column of somebody's table.
        let is_built_in = function.schema == "pg_catalog";
        return function.is_visible
            && function.least_arguments <= 1
            && (is_built_in || !function.is_column);
    }
    match &called.schema {
        Some(schema) => *schema == function.schema,
        None => function.is_visible,
    }
}

#[cfg(test)]
mod tests {
    use super::super::statement::Query;
    use super::*;

    fn function(schema: &str, name: &str, volatility: char) -> Function {
        Function {
            schema: schema.to_owned(),
            name: name.to_owned(),
            is_visible: schema != "hidden",
            is_volatile: volatility == 'v',
            least_arguments: 1,
            is_column: name == "total",
        }
    }

    fn verdict(sql: &str, allowed: &[&str]) -> anyhow::Result<Option<String>> {
        let catalog = [
            function("pg_catalog", "lower", 'i'),
            function("pg_catalog", "pg_read_file", 'v'),
            function("pg_catalog", "random", 'v'),
            function("pg_catalog", "ts_rewrite", 's'),
            function("public", "random", 'v'),
            function("public", "total", 'v'),
            function("public", "note", 'v'),
            function("hidden", "note2", 'v'),
            function("hidden", "lower", 'v'),
        ];
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let checked = check(
            Query::of(sql)?.called(),
            &catalog[..],
            &allowed,
            Scope::Read,
        );
        Ok(checked.err().map(|error| error.function().to_owned()))
    }

    #[test]
    fn functions_with_effects_are_refused_however_they_are_called() -> anyhow::Result<()> {
        for sql in [
            "select pg_read_file('x')",
            "select * from pg_catalog.\"pg_read_file\"('x')",
            "select ('x'::text).pg_read_file",
        ] {
            assert_eq!(
                verdict(sql, &[])?.as_deref(),
                Some("pg_catalog.pg_read_file"),
                "{sql}"
            );
        }
        let rewrites = verdict("select ts_rewrite('a'::tsquery, 'select b, c from d')", &[])?;
        assert_eq!(rewrites.as_deref(), Some("pg_catalog.ts_rewrite"));
        Ok(())
    }

    #[test]
    fn harmless_and_unknown_names_pass() -> anyhow::Result<()> {
        for sql in [
            "select lower('A'), coalesce(a, 1), a in (1, 2) from t",
            "select pg_catalog.random()",
            "select note2(1)",
        ] {
            assert_eq!(verdict(sql, &[])?, None, "{sql}");
        }
        Ok(())
    }

    #[test]
    fn a_function_in_the_shadow_of_a_built_in_one_counts() -> anyhow::Result<()> {
        assert_eq!(
            verdict("select random()", &[])?.as_deref(),
            Some("public.random")
        );
        assert_eq!(
            verdict("select hidden.lower('A')", &[])?.as_deref(),
            Some("hidden.lower")
        );
        Ok(())
    }

    #[test]
    fn a_column_of_the_name_is_a_column() -> anyhow::Result<()> {
        assert_eq!(verdict("select t.total from t", &[])?, None);
        assert_eq!(
            verdict("select total(t) from t", &[])?.as_deref(),
            Some("public.total")
        );
        assert_eq!(
            verdict("select t.note from t", &[])?.as_deref(),
            Some("public.note")
        );
        Ok(())
    }

    #[test]
    fn the_operator_can_vouch_for_a_function() -> anyhow::Result<()> {
        assert_eq!(verdict("select note(1)", &["public.note"])?, None);
        assert!(verdict("select note(1)", &["note"])?.is_some());
        Ok(())
    }
}
