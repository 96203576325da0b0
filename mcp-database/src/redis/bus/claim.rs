//! Takes over messages of consumers that do not come back, and buries those that nobody can work off.

use std::time::Duration;

use redis::{Pipeline, Value, cmd};
use serde::Serialize;

use super::{check_count, check_name, message, shown_fields};
use crate::redis::connection::{Deadline, Line};
use crate::redis::error::Error;
use crate::redis::value::{self, elements, integer};
use crate::redis::{Call, Redis};
use crate::table::{Answer, Budget, Cell, Column, Rows};

/// What the name of a stream of dead letters has at its end.
pub const DEAD: &str = ":dead";
/// Dead letters that are kept, about.
const DEAD_KEPT: u32 = 10_000;
/// Deliveries after which a message is given up where the call does not say.
pub const MAX_DELIVERIES: u32 = 5;

/// What is taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    /// Who takes over.
    pub consumer: String,
    /// Only messages that nobody has touched for so long.
    pub min_idle: Duration,
    /// Messages at most.
    pub count: usize,
    /// Where it goes on: the `next` of the claim before.
    pub start: Option<String>,
    /// Messages that were delivered more often than this become dead letters.
    pub max_deliveries: u32,
}

/// What was taken over.
#[derive(Debug)]
pub struct Claimed {
    /// A row for each message: `id`, `fields`, `deliveries` (this one counts).
    pub answer: Answer,
    /// Where the next claim goes on; `None` when all were looked at.
    pub next: Option<String>,
    /// Messages that are in the stream of dead letters now.
    pub dead: Vec<Dead>,
    /// Messages that were pending and are deleted; they are no more pending.
    pub deleted: Vec<String>,
}

/// A message that nobody could work off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dead {
    /// Its id in its own stream.
    pub id: String,
    /// Its id in the stream of dead letters.
    pub dead_id: String,
    /// How often it was delivered.
    pub deliveries: i64,
}

impl Redis {
    /// Takes over messages that were delivered and not acknowledged. Those that did not fit the budget are the consumer's all the
    /// same: read them again.
    ///
    /// # Errors
    /// Refused streams, and what the server says.
    pub async fn claim(&self, claim: &Claim, call: Call) -> Result<Claimed, Error> {
        self.check_writable()?;
        self.check_stream(&claim.stream)?;
        check_name(&claim.group)?;
        check_name(&claim.consumer)?;
        check_count("messages", claim.count)?;
        if let Some(start) = &claim.start {
            super::check_id(start)?;
        }
        let deadline = Deadline::after(call.timeout);
        let mut line = self.lines().line(deadline).await?;
        let outcome = claimed(&mut line, claim, call.budget, deadline).await;
        // After a failure a transaction may still be open on it.
        if outcome.is_ok() {
            line.release();
        }
        outcome
    }
}

async fn claimed(
    line: &mut Line,
    claim: &Claim,
    budget: Budget,
    deadline: Deadline,
) -> Result<Claimed, Error> {
    let mut ask = cmd("XAUTOCLAIM");
    ask.arg(&claim.stream)
        .arg(&claim.group)
        .arg(&claim.consumer);
    ask.arg(u64::try_from(claim.min_idle.as_millis()).unwrap_or(u64::MAX / 2));
    ask.arg(claim.start.as_deref().unwrap_or("0-0"));
    ask.arg("COUNT").arg(claim.count);
    let mut parts = elements(line.ask(&ask, deadline).await?)
        .unwrap_or_default()
        .into_iter();
    let next = parts.next().and_then(value::text);
    let next = next.filter(|next| next != "0-0");
    let entries = parts.next().and_then(elements).unwrap_or_default();
    let deleted = parts.next().and_then(elements).unwrap_or_default();
    let mut deleted: Vec<String> = deleted.into_iter().filter_map(value::text).collect();
    let mut found = Vec::new();
    for entry in entries {
        match message(entry) {
            // Older servers give deleted messages like this.
            Some((id, Value::Nil)) => deleted.push(id),
            Some(entry) => found.push(entry),
            None => {}
        }
    }
    let mut ask = Pipeline::new();
    for (id, _) in &found {
        ask.cmd("XPENDING").arg(&claim.stream).arg(&claim.group);
        ask.arg(id).arg(id).arg(1);
    }
    let pending = if found.is_empty() {
        Vec::new()
    } else {
        line.ask_all(&ask, deadline).await?
    };
    let mut rows = Rows::new(budget);
    let mut dead = Vec::new();
    for ((id, fields), pending) in found.into_iter().zip(pending) {
        if let Value::ServerError(error) = &pending {
            return Err(Error::of_server(error));
        }
        // Acknowledged by another one just now: nothing is left to do.
        let Some(deliveries) = deliveries(pending) else {
            continue;
        };
        if deliveries > i64::from(claim.max_deliveries) {
            let dead_id = bury(line, claim, &id, fields, deliveries, deadline).await?;
            dead.push(Dead {
                id,
                dead_id,
                deliveries,
            });
            continue;
        }
        let row = vec![
            Cell::text(id),
            shown_fields(fields, budget.bytes),
            Cell::integer(deliveries),
        ];
        // What follows is still to be looked at: dead letters are among it.
        drop(rows.push(row));
    }
    let columns = [("id", "text"), ("fields", "any"), ("deliveries", "integer")];
    let columns = columns.map(|(name, kind)| Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
    });
    Ok(Claimed {
        answer: Answer {
            columns: columns.into(),
            rows,
        },
        next,
        dead,
        deleted,
    })
}

/// How often a message was delivered, from the one line of XPENDING about it.
fn deliveries(pending: Value) -> Option<i64> {
    let line = elements(pending)?.into_iter().next()?;
    integer(elements(line)?.get(3)?)
}

/// Puts a message among the dead letters and takes it from the group, as one.
async fn bury(
    line: &mut Line,
    claim: &Claim,
    id: &str,
    fields: Value,
    deliveries: i64,
    deadline: Deadline,
) -> Result<String, Error> {
    let reason = format!(
        "delivered {deliveries} times, and {} are allowed",
        claim.max_deliveries
    );
    let mut transaction = Pipeline::new();
    transaction
        .cmd("MULTI")
        .cmd("XADD")
        .arg(format!("{}{DEAD}", claim.stream))
        .arg("MAXLEN")
        .arg("~")
        .arg(DEAD_KEPT)
        .arg("*");
    for (name, value) in [
        ("dead.reason", reason.as_str()),
        ("dead.stream", &claim.stream),
        ("dead.group", &claim.group),
        ("dead.id", id),
    ] {
        transaction.arg(name).arg(value);
    }
    for part in elements(fields).unwrap_or_default() {
        transaction.arg(value::bytes(part).unwrap_or_default());
    }
    transaction
        .cmd("XACK")
        .arg(&claim.stream)
        .arg(&claim.group)
        .arg(id)
        .cmd("EXEC");
    let mut last = Value::Nil;
    for answer in line.ask_all(&transaction, deadline).await? {
        match answer {
            Value::ServerError(error) => return Err(Error::of_server(&error)),
            answer => last = answer,
        }
    }
    match elements(last).unwrap_or_default().into_iter().next() {
        Some(Value::ServerError(error)) => Err(Error::of_server(&error)),
        answer => Ok(answer.and_then(value::text).unwrap_or_default()),
    }
}
