//! Whether a PostgreSQL server is well, from its statistics; nothing is measured that would load it.

use std::time::Duration;

use super::connect::Connection;
use super::error::Error;
use crate::finding::{Check, Status};
use crate::source::Mode;

/// A check: its name, its query (one row: value as text, 0 to 2 for how bad it is), from where on it is bad, and what to do.
struct Look {
    name: &'static str,
    sql: &'static str,
    threshold: &'static str,
    advice: &'static str,
}

/// How bad a number is against two limits, as SQL.
const LOOKS: [Look; 10] = [
    Look {
        name: "connections",
        sql: "SELECT format('%s of %s', u, m), CASE WHEN u > 0.95 * m THEN 2 WHEN u > 0.8 * m THEN 1 ELSE 0 END FROM \
              (SELECT count(*) AS u, current_setting('max_connections')::int8 AS m FROM pg_stat_activity WHERE backend_type = 'client backend') s",
        threshold: "80 %",
        advice: "look in pg_stat_activity for who holds them; put a pooler before the server or raise max_connections",
    },
    Look {
        name: "long transactions",
        sql: "SELECT COALESCE(format('%s, oldest %s s (pid %s)', count(*), max(s)::int8, (array_agg(pid ORDER BY s DESC))[1]), 'none'), \
              CASE WHEN max(s) > 3600 THEN 2 WHEN max(s) > 300 THEN 1 ELSE 0 END FROM (SELECT pid, extract(epoch FROM now() - xact_start) AS s \
              FROM pg_stat_activity WHERE xact_start IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()) x WHERE s > 60",
        threshold: "300 s",
        advice: "they keep vacuum from cleaning up; find the application of the pid, or pg_terminate_backend it",
    },
    Look {
        name: "waiting for locks",
        sql: "SELECT COALESCE(format('%s sessions, blocked by %s', count(*), string_agg(DISTINCT b::text, ', ')), 'none'), \
              CASE WHEN count(*) > 5 THEN 2 WHEN count(*) > 0 THEN 1 ELSE 0 END FROM (SELECT pid, unnest(pg_blocking_pids(pid)) AS b \
              FROM pg_stat_activity WHERE wait_event_type = 'Lock') w",
        threshold: "1",
        advice: "the blocking pids hold what others wait for",
    },
    Look {
        name: "cache hits",
        sql: "SELECT COALESCE(round(100.0 * h / NULLIF(h + r, 0), 2)::text || ' %', 'nothing read yet'), \
              CASE WHEN h + r > 100000 AND h < 0.9 * (h + r) THEN 1 ELSE 0 END FROM \
              (SELECT blks_hit AS h, blks_read AS r FROM pg_stat_database WHERE datname = current_database()) s",
        threshold: "90 %",
        advice: "shared_buffers may be too small for what is read, or queries read whole tables: pg_explain",
    },
    Look {
        name: "dead rows",
        sql: "SELECT COALESCE(string_agg(format('%s: %s dead of %s', t, d, d + l), '; '), 'none of note'), \
              CASE WHEN max(d::float8 / NULLIF(d + l, 0)) > 0.5 THEN 2 WHEN count(*) > 0 THEN 1 ELSE 0 END FROM \
              (SELECT relid::regclass::text AS t, n_dead_tup AS d, n_live_tup AS l FROM pg_stat_user_tables \
              WHERE n_dead_tup > 10000 AND n_dead_tup > 0.2 * n_live_tup ORDER BY n_dead_tup DESC LIMIT 5) b",
        threshold: "20 % of a table and over 10000",
        advice: "VACUUM (ANALYZE) these tables; if it comes back, lower autovacuum_vacuum_scale_factor for them",
    },
    Look {
        name: "never analyzed",
        sql: "SELECT COALESCE(string_agg(t, ', '), 'none'), CASE WHEN count(*) > 0 THEN 1 ELSE 0 END FROM \
              (SELECT relid::regclass::text AS t FROM pg_stat_user_tables WHERE n_live_tup > 1000 AND last_analyze IS NULL \
              AND last_autoanalyze IS NULL ORDER BY n_live_tup DESC LIMIT 5) a",
        threshold: "1",
        advice: "ANALYZE them: the planner guesses without it",
    },
    Look {
        name: "unused indexes",
        sql: "SELECT COALESCE(string_agg(format('%s (%s)', i, pg_size_pretty(b)), ', '), 'none of note'), CASE WHEN count(*) > 0 THEN 1 ELSE 0 END \
              FROM (SELECT s.indexrelid::regclass::text AS i, pg_relation_size(s.indexrelid) AS b FROM pg_stat_user_indexes s \
              JOIN pg_index x ON x.indexrelid = s.indexrelid WHERE s.idx_scan = 0 AND NOT x.indisunique \
              AND pg_relation_size(s.indexrelid) > 1048576 ORDER BY 2 DESC LIMIT 5) u",
        threshold: "1 MiB, never read since the statistics were reset",
        advice: "if no replica reads them either, drop them",
    },
    Look {
        name: "invalid indexes",
        sql: "SELECT COALESCE(string_agg(indexrelid::regclass::text, ', '), 'none'), CASE WHEN count(*) > 0 THEN 2 ELSE 0 END \
              FROM (SELECT indexrelid FROM pg_index WHERE NOT indisvalid LIMIT 10) x",
        threshold: "1",
        advice: "a CREATE INDEX CONCURRENTLY failed: drop and build them again",
    },
    Look {
        name: "transaction ids",
        sql: "SELECT format('%s of 2 billion', max(age(datfrozenxid))), CASE WHEN max(age(datfrozenxid)) > 1500000000 THEN 2 \
              WHEN max(age(datfrozenxid)) > 500000000 THEN 1 ELSE 0 END FROM pg_database",
        threshold: "500 million",
        advice: "vacuum does not keep up; at 2 billion the server takes no writes: VACUUM (FREEZE) the oldest tables",
    },
    Look {
        name: "replication",
        sql: "SELECT CASE WHEN pg_is_in_recovery() THEN COALESCE(format('replica, %s s behind', \
              extract(epoch FROM now() - pg_last_xact_replay_timestamp())::int8), 'replica') ELSE \
              (SELECT COALESCE(format('%s inactive slots: %s', count(*), string_agg(slot_name::text, ', ')), 'no inactive slots') \
              FROM pg_replication_slots WHERE NOT active HAVING count(*) > 0) END, \
              CASE WHEN pg_is_in_recovery() THEN CASE WHEN now() - pg_last_xact_replay_timestamp() > interval '5 minutes' THEN 1 ELSE 0 END \
              WHEN EXISTS (SELECT FROM pg_replication_slots WHERE NOT active) THEN 1 ELSE 0 END",
        threshold: "5 minutes behind, or a slot that nobody reads",
        advice: "an inactive slot keeps WAL until the disk is full: drop it, or let its reader run",
    },
];

/// Looks at everything, or at what is named. A look that the role may not take is told as such.
pub(super) async fn look(
    connection: &mut Connection,
    timeout: Duration,
    wanted: &[String],
) -> Result<Vec<Check>, Error> {
    let read = |error: tokio_postgres::Error| Error::outside(&error);
    let mut transaction = connection.transaction(Mode::Read, timeout).await?;
    let mut checks = Vec::new();
    for look in &LOOKS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == look.name) {
            continue;
        }
        // One that fails does not end the transaction of the others.
        let savepoint = transaction.transaction().await.map_err(read)?;
        let looked = savepoint.query_one(look.sql, &[]).await;
        savepoint.rollback().await.map_err(read)?;
        let (value, status) = match looked {
            Ok(row) => {
                let value: Option<String> = row.try_get(0).map_err(read)?;
                let status = match row.try_get::<_, i32>(1).map_err(read)? {
                    0 => Status::Ok,
                    1 => Status::Warn,
                    _ => Status::Fail,
                };
                (value.unwrap_or_else(|| "nothing".to_owned()), status)
            }
            Err(error) => match Error::outside(&error) {
                Error::Server(server) => (format!("cannot be looked at: {server}"), Status::Warn),
                lost => return Err(lost),
            },
        };
        let is_well = status == Status::Ok;
        checks.push(Check {
            check: look.name.to_owned(),
            status,
            value,
            threshold: Some(look.threshold.to_owned()),
            advice: (!is_well).then(|| look.advice.to_owned()),
        });
    }
    Ok(checks)
}

/// The names of all checks.
pub fn names() -> Vec<&'static str> {
    LOOKS.iter().map(|look| look.name).collect()
}
