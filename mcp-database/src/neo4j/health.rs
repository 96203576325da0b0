//! How a database does: its indexes, what runs for long or waits, the memory of its server.

use std::time::{Duration, Instant};

use super::bolt::{Access, Map, TransactionOptions, Value, get};
use super::client::{Neo4j, within};
use super::error::{GraphError, Refusal};
use super::pool::Session;
use crate::finding::{Check, Status};

/// Seconds after which a transaction is long.
const LONG: i64 = 60;
/// Seconds after which it is too long.
const TOO_LONG: i64 = 600;
/// Per cent of the heap in use from which on it is little.
const HEAP: i64 = 90;
/// Names of one check that are told.
const TOLD: usize = 10;

impl Neo4j {
    /// Checks the database; `wanted` names some of the checks, and nothing all of them.
    ///
    /// # Errors
    /// Why the server did not answer; a check that it refuses to answer is left out.
    pub async fn health(
        &self,
        wanted: &[String],
        timeout: Option<Duration>,
    ) -> Result<Vec<Check>, GraphError> {
        let limit = self.limit(timeout);
        within(limit, async {
            let begun = Instant::now();
            let mut session = self.session().await?;
            let options = session.options(Access::Read, limit);
            let mut checks = vec![answering(&mut session, &options, begun).await?];
            checks.extend(
                told(indexes(&mut session, &options).await)?
                    .into_iter()
                    .flatten(),
            );
            checks.extend(told(unused(&mut session, &options).await)?);
            checks.extend(told(constraints(&mut session, &options).await)?);
            checks.extend(
                told(transactions(&mut session, &options).await)?
                    .into_iter()
                    .flatten(),
            );
            checks.extend(told(size(&mut session, &options).await)?);
            checks.extend(told(heap(&mut session, &options).await)?);
            checks.extend(told(caches(&mut session, &options).await)?);
            checks.retain(|check| wanted.is_empty() || wanted.contains(&check.check));
            Ok(checks)
        })
        .await
    }
}

/// A check, with its advice unless it is as it should be.
fn check(name: &str, status: Status, value: String, threshold: &str, advice: &str) -> Check {
    let is_advised = status != Status::Ok;
    Check {
        check: name.to_owned(),
        status,
        value,
        threshold: Some(threshold.to_owned()),
        advice: is_advised.then(|| advice.to_owned()),
    }
}

/// Leaves out what the server refuses to tell this user.
fn told<T>(outcome: Result<T, GraphError>) -> Result<Option<T>, GraphError> {
    match outcome {
        Ok(checks) => Ok(Some(checks)),
        Err(GraphError::Server { refusal, .. }) if refusal != Refusal::TimedOut => Ok(None),
        Err(error) => Err(error),
    }
}

async fn rows(
    session: &mut Session,
    options: &TransactionOptions,
    text: &str,
) -> Result<Vec<Vec<Value>>, GraphError> {
    session.rows(text, Map::new(), options, 10_000).await
}

async fn answering(
    session: &mut Session,
    options: &TransactionOptions,
    begun: Instant,
) -> Result<Check, GraphError> {
    rows(session, options, "RETURN 1").await?;
    let took = begun.elapsed();
    let status = if took < Duration::from_secs(1) {
        Status::Ok
    } else {
        Status::Warn
    };
    let agent = session.connection()?.server_agent().to_owned();
    let value = format!("{agent} in {} ms", took.as_millis());
    Ok(check(
        "answer",
        status,
        value,
        "1 s with connecting",
        "look at the load of the server and the way to it",
    ))
}

async fn indexes(
    session: &mut Session,
    options: &TransactionOptions,
) -> Result<Vec<Check>, GraphError> {
    let text = "SHOW INDEXES YIELD name, state, populationPercent RETURN name, state, populationPercent ORDER BY name";
    let all = rows(session, options, text).await?;
    let (mut failed, mut filling) = (Vec::new(), Vec::new());
    for row in &all {
        let [name, state, percent] = &row[..] else {
            continue;
        };
        let name = name.as_str().unwrap_or_default();
        match state.as_str() {
            Some("ONLINE") => {}
            Some("POPULATING") => {
                let percent = match percent {
                    Value::Float(percent) => *percent,
                    _ => 0.0,
                };
                filling.push(format!("{name} {percent:.0} %"));
            }
            _ => failed.push(name.to_owned()),
        }
    }
    let status = if failed.is_empty() {
        Status::Ok
    } else {
        Status::Fail
    };
    let failed = check(
        "indexes_failed",
        status,
        counted(&failed, all.len()),
        "0",
        "SHOW INDEXES YIELD name, failureMessage tells why; drop and create them again",
    );
    let status = if filling.is_empty() {
        Status::Ok
    } else {
        Status::Warn
    };
    let filling = check(
        "indexes_filling",
        status,
        counted(&filling, all.len()),
        "0",
        "queries do not use them yet; wait, or CALL db.awaitIndexes()",
    );
    Ok(vec![failed, filling])
}

async fn unused(session: &mut Session, options: &TransactionOptions) -> Result<Check, GraphError> {
    let text = "SHOW INDEXES YIELD name, type, readCount, owningConstraint, trackedSince \
        WHERE type <> 'LOOKUP' AND owningConstraint IS NULL AND readCount = 0 \
        AND trackedSince < datetime() - duration('P7D') RETURN name ORDER BY name";
    let names = names(&rows(session, options, text).await?);
    let status = if names.is_empty() {
        Status::Ok
    } else {
        Status::Warn
    };
    Ok(check(
        "indexes_unused",
        status,
        counted(&names, names.len()),
        "not read for 7 days of counting",
        "each costs every write; drop those that nobody needs",
    ))
}

async fn constraints(
    session: &mut Session,
    options: &TransactionOptions,
) -> Result<Check, GraphError> {
    let text = "SHOW CONSTRAINTS YIELD name, type RETURN name + ' ' + type ORDER BY name";
    let names = names(&rows(session, options, text).await?);
    let found = rows(session, options, "MATCH (n) RETURN count(n)").await?;
    let nodes = found
        .first()
        .and_then(|row| row.first())
        .and_then(Value::as_integer);
    let has_none = names.is_empty() && nodes.unwrap_or_default() > 0;
    let status = if has_none { Status::Warn } else { Status::Ok };
    Ok(check(
        "constraints",
        status,
        counted(&names, names.len()),
        "at least 1 where there are nodes",
        "a constraint for each key keeps nodes from being there twice, and finds them at once",
    ))
}

async fn transactions(
    session: &mut Session,
    options: &TransactionOptions,
) -> Result<Vec<Check>, GraphError> {
    let text = "SHOW TRANSACTIONS YIELD transactionId, username, elapsedTime, status, currentQuery \
        RETURN transactionId, username, elapsedTime.seconds, status, left(currentQuery, 80)";
    let all = rows(session, options, text).await?;
    let (mut longest, mut long, mut blocked) = (0, Vec::new(), Vec::new());
    for row in &all {
        let [id, user, seconds, status, query] = &row[..] else {
            continue;
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let seconds = seconds.as_integer().unwrap_or_default();
        let line = format!(
            "{} of {} for {seconds} s: {}",
            text(id),
            text(user),
            text(query)
        );
        if text(status).starts_with("Blocked") {
            blocked.push(line.clone());
        }
        if seconds >= LONG {
            longest = longest.max(seconds);
            long.push(line);
        }
    }
    let status = match longest {
        TOO_LONG.. => Status::Fail,
        LONG.. => Status::Warn,
        _ => Status::Ok,
    };
    let long = check(
        "long_transactions",
        status,
        counted(&long, all.len()),
        "60 s, 600 s",
        "find out who runs them; the operator can end them by TERMINATE TRANSACTIONS, and bound them by db.transaction.timeout",
    );
    let status = if blocked.is_empty() {
        Status::Ok
    } else {
        Status::Warn
    };
    let blocked = check(
        "waiting_for_locks",
        status,
        counted(&blocked, all.len()),
        "0",
        "the long transactions hold what these wait for",
    );
    Ok(vec![long, blocked])
}

async fn size(session: &mut Session, options: &TransactionOptions) -> Result<Check, GraphError> {
    let text = "RETURN COUNT { () }, COUNT { ()-->() }";
    let all = rows(session, options, text).await?;
    let number = |place: usize| {
        let value = all.first().and_then(|row| row.get(place));
        value.and_then(Value::as_integer).unwrap_or_default()
    };
    // Bytes of the store are told by metrics of Enterprise alone.
    let value = format!("{} nodes, {} relationships", number(0), number(1));
    Ok(check(
        "size",
        Status::Ok,
        value,
        "none; bytes of the store are not told over Bolt",
        "",
    ))
}

async fn heap(session: &mut Session, options: &TransactionOptions) -> Result<Check, GraphError> {
    let text = "CALL dbms.queryJmx('java.lang:type=Memory') YIELD attributes \
        RETURN attributes.HeapMemoryUsage.value.properties";
    let all = rows(session, options, text).await?;
    let usage = all
        .first()
        .and_then(|row| row.first())
        .and_then(Value::as_map)
        .unwrap_or_default();
    let bytes = |name: &str| {
        get(usage, name)
            .and_then(Value::as_integer)
            .unwrap_or_default()
    };
    let (used, most) = (bytes("used"), bytes("max"));
    if most <= 0 {
        return Ok(check("heap", Status::Ok, "not told".to_owned(), "90 %", ""));
    }
    let percent = used.saturating_mul(100) / most;
    let status = if percent >= HEAP {
        Status::Warn
    } else {
        Status::Ok
    };
    let mebibytes = |bytes: i64| bytes / (1024 * 1024);
    let value = format!(
        "{percent} % of {} MiB, {} MiB in use",
        mebibytes(most),
        mebibytes(used)
    );
    Ok(check(
        "heap",
        status,
        value,
        "90 %",
        "raise server.memory.heap.max_size, or bound queries by dbms.memory.transaction.total.max",
    ))
}

async fn caches(session: &mut Session, options: &TransactionOptions) -> Result<Check, GraphError> {
    let text = "SHOW SETTINGS YIELD name, value WHERE name IN ['server.memory.pagecache.size', \
        'dbms.memory.transaction.total.max', 'db.transaction.timeout'] RETURN name + '=' + coalesce(value, '') ORDER BY name";
    let settings = names(&rows(session, options, text).await?);
    let unlimited = |name: &str| settings.iter().any(|setting| setting == name);
    let is_open = unlimited("db.transaction.timeout=0s");
    let status = if is_open { Status::Warn } else { Status::Ok };
    Ok(check(
        "limits",
        status,
        settings.join(", "),
        "a limit for the time of transactions",
        "set db.transaction.timeout, so that what a lost client leaves behind ends; calls from here always say their own",
    ))
}

fn names(rows: &[Vec<Value>]) -> Vec<String> {
    rows.iter()
        .filter_map(|row| row.first().and_then(Value::as_str))
        .map(str::to_owned)
        .collect()
}

/// `2 of 7: a, b`
fn counted(names: &[String], all: usize) -> String {
    let told: Vec<&str> = names.iter().take(TOLD).map(String::as_str).collect();
    let more = if names.len() > TOLD { ", …" } else { "" };
    match names {
        [] => format!("0 of {all}"),
        _ => format!("{} of {all}: {}{more}", names.len(), told.join(", ")),
    }
}
