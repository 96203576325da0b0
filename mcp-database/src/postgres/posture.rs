//! What the role of a source may do, and what its server has: looked at once, before the first statement.

use serde::Serialize;

use super::connect::Connection;
use super::error::Error;
use crate::finding::{Finding, Severity};
use crate::source::{Mode, Settings};

/// One row about the server and the role.
const LOOK: &str = "\
SELECT current_setting('server_version'), r.rolname::text, r.rolsuper, \
pg_catalog.pg_is_in_recovery(), \
ARRAY(SELECT g.name FROM unnest(ARRAY['pg_write_server_files', 'pg_execute_server_program', 'pg_read_server_files', \
'pg_signal_backend', 'pg_write_all_data', 'pg_read_all_data', 'pg_checkpoint', 'pg_maintain']) AS g(name) \
WHERE EXISTS (SELECT FROM pg_roles m WHERE m.rolname = g.name AND pg_has_role(r.oid, m.oid, 'MEMBER')))::text[], \
ARRAY(SELECT e.extname::text FROM pg_extension e ORDER BY 1), \
(SELECT count(*) FROM (SELECT FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace NOT IN \
(SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema') OR nspname LIKE 'pg\\_toast%' OR nspname LIKE 'pg\\_temp%') \
AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') LIMIT 1000) w), \
(SELECT count(*) FROM (SELECT FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relowner = r.oid LIMIT 1000) o), \
r.rolcreatedb OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls, \
has_database_privilege(current_database(), 'CREATE'), \
current_database()::text \
FROM pg_roles r WHERE r.rolname = current_user";

/// Roles of the server that reach beyond its data.
const REACHES_OUT: [&str; 4] = [
    "pg_write_server_files",
    "pg_execute_server_program",
    "pg_read_server_files",
    "pg_signal_backend",
];

/// What there is.
#[derive(Debug, Clone, Serialize)]
pub struct Posture {
    /// `18.6`
    pub version: String,
    /// Who we are there.
    pub role: String,
    /// The database.
    pub database: String,
    /// Whether it is a replica.
    pub is_replica: bool,
    /// Its extensions.
    pub extensions: Vec<String>,
    /// What the role may do that it need not.
    pub findings: Vec<Finding>,
    is_superuser: bool,
}

/// Asks the server.
pub(super) async fn look(
    connection: &mut Connection,
    settings: &Settings,
) -> Result<Posture, Error> {
    let failed = |error: tokio_postgres::Error| Error::outside(&error);
    let is_shared = connection.is_shared();
    let timeout = settings.limits.timeout;
    let transaction = connection.transaction(Mode::Read, timeout).await?;
    let row = transaction.query_one(LOOK, &[]).await.map_err(failed)?;
    transaction.rollback().await.map_err(failed)?;
    let role: String = row.try_get(1).map_err(failed)?;
    let is_superuser: bool = row.try_get(2).map_err(failed)?;
    let member_of: Vec<String> = row.try_get(4).map_err(failed)?;
    let writable: i64 = row.try_get(6).map_err(failed)?;
    let owned: i64 = row.try_get(7).map_err(failed)?;
    let may_more: bool = row.try_get(8).map_err(failed)?;
    let may_create: bool = row.try_get(9).map_err(failed)?;
    let mut findings = Vec::new();
    let mut find = |severity, finding: String, advice: String| {
        findings.push(Finding {
            severity,
            finding,
            advice,
        });
    };
    if is_superuser {
        find(
            Severity::High,
            format!(
                "role `{role}` is a superuser: it reads and writes files of the server and runs programs there"
            ),
            reader_role(settings),
        );
    }
    for name in &member_of {
        if is_superuser {
            break;
        }
        if REACHES_OUT.contains(&name.as_str()) {
            find(
                Severity::High,
                format!("role `{role}` is a member of {name}, which reaches beyond the data"),
                format!("REVOKE {name} FROM \"{role}\""),
            );
        } else if name == "pg_read_all_data" {
            find(
                Severity::Medium,
                format!(
                    "role `{role}` is a member of pg_read_all_data, which also reads the hashes of passwords"
                ),
                "GRANT USAGE ON SCHEMA … and GRANT SELECT ON ALL TABLES IN SCHEMA … instead"
                    .to_owned(),
            );
        }
    }
    if settings.mode == Mode::Read && !is_superuser {
        if writable > 0 || owned > 0 {
            find(
                Severity::Medium,
                format!(
                    "the source only reads, but role `{role}` may write {writable} tables and owns {owned} relations; only this server's READ ONLY transactions keep it from that"
                ),
                reader_role(settings),
            );
        }
        if may_more || may_create {
            find(
                Severity::Medium,
                format!(
                    "role `{role}` may create databases, roles or schemas, replicate, or pass over row security"
                ),
                reader_role(settings),
            );
        }
    }
    if is_shared {
        find(
            Severity::Low,
            "what stands before the server (a pooler) takes no options, so sessions do not begin READ ONLY; each transaction still is".to_owned(),
            "connect to the server itself, or write default_transaction_read_only = on into the role: ALTER ROLE … SET …".to_owned(),
        );
    }
    Ok(Posture {
        version: row.try_get(0).map_err(failed)?,
        database: row.try_get(10).map_err(failed)?,
        is_replica: row.try_get(3).map_err(failed)?,
        extensions: row.try_get(5).map_err(failed)?,
        role,
        findings,
        is_superuser,
    })
}

/// How to make a role that only reads.
fn reader_role(settings: &Settings) -> String {
    let id = settings.id.replace('"', "");
    format!(
        "CREATE ROLE \"{id}_reader\" LOGIN PASSWORD '…'; GRANT USAGE ON SCHEMA public TO \"{id}_reader\"; \
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{id}_reader\"; and name it in the url"
    )
}

impl Posture {
    /// Refuses a source that only reads to a superuser, unless the operator allows it.
    pub(super) fn admit(&self, settings: &Settings) -> Result<(), Error> {
        if self.is_superuser && settings.mode == Mode::Read && !settings.special.allow_superuser {
            return Err(Error::TooPowerful(format!(
                "`{}` is a superuser",
                self.role
            )));
        }
        Ok(())
    }

    /// Whether the server has an extension.
    pub fn has(&self, extension: &str) -> bool {
        self.extensions.iter().any(|name| name == extension)
    }
}
