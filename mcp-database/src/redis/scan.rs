//! Finds keys by a pattern, step by step: each key once, and never the whole keyspace in one go.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value, cmd};

use super::connection::{Deadline, Lines};
use super::error::Error;
use super::read::step_of;
use super::value::{self, Blob, integer, shown};
use super::{Call, Redis};
use crate::cursor::{NextPart, Rest};
use crate::table::{Answer, Budget, Cell, Column, Rows};

/// Keys that a step looks at.
const STEP: usize = 1_000;
/// Steps of one call: a server that never comes to an end is left after so many.
const MOST_STEPS: usize = 1_000;
/// Keys that are remembered so as not to be given twice; beyond, one that comes again is given again.
const REMEMBERED: usize = 200_000;

/// Which keys are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// What their names are like: `*` any rest, `?` any byte, `[ab]` one of them, `\` before what stands for itself.
    pub pattern: Blob,
    /// Only of this type: string, list, set, zset, hash, stream, or a module's.
    pub kind: Option<String>,
}

/// What was found.
pub struct Scanned {
    /// A row for each key: `key`, `type`, `ttl_ms` (null for a key that stays).
    pub answer: Answer,
    /// Keys that were found so far: there are at least so many.
    pub at_least: u64,
    /// Keys that the database has at all.
    pub keys_in_database: Option<i64>,
    /// Goes on; `None` when all keys were looked at.
    pub rest: Option<Box<dyn Rest>>,
}

impl Redis {
    /// Finds keys. A key that is there all the while is found; one that comes or goes meanwhile may be.
    ///
    /// # Errors
    /// What the server says.
    pub async fn scan(&self, scan: &Scan, call: Call) -> Result<Scanned, Error> {
        let deadline = Deadline::after(call.timeout);
        let mut found = Found {
            lines: Arc::clone(self.lines()),
            scan: scan.clone(),
            prefix: self.prefix().cloned(),
            timeout: call.timeout,
            cursor: Some(0),
            waiting: VecDeque::new(),
            seen: HashSet::new(),
            hasher: RandomState::new(),
            count: 0,
        };
        let size = self.lines().ask(&cmd("DBSIZE"), deadline).await;
        let size = match size {
            Ok(size) => integer(&size),
            Err(Error::Server { .. }) => None,
            Err(error) => return Err(error),
        };
        let answer = found.take(call.budget, deadline).await?;
        Ok(Scanned {
            answer,
            at_least: found.count,
            keys_in_database: size,
            rest: (!found.is_over()).then(|| Box::new(found) as Box<dyn Rest>),
        })
    }
}

/// A search for keys on its way.
struct Found {
    lines: Arc<Lines>,
    scan: Scan,
    prefix: Option<Blob>,
    timeout: Duration,
    /// Where the server goes on; `None` at the end.
    cursor: Option<u64>,
    /// Keys that are found and not given yet.
    waiting: VecDeque<Blob>,
    seen: HashSet<u64>,
    hasher: RandomState,
    count: u64,
}

impl Found {
    fn is_over(&self) -> bool {
        self.cursor.is_none() && self.waiting.is_empty()
    }

    async fn take(&mut self, budget: Budget, deadline: Deadline) -> Result<Answer, Error> {
        let mut rows = Rows::new(budget);
        for _ in 0..MOST_STEPS {
            while !self.waiting.is_empty() && !rows.goes_on() {
                self.give(&mut rows, budget, deadline).await?;
            }
            if rows.goes_on() || self.cursor.is_none() || deadline.is_near() {
                break;
            }
            self.step(deadline).await?;
        }
        if !self.is_over() && !rows.goes_on() {
            rows.out_of_time();
        }
        let columns = [("key", "text"), ("type", "text"), ("ttl_ms", "integer")];
        let columns = columns.map(|(name, kind)| Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
        });
        Ok(Answer {
            columns: columns.into(),
            rows,
        })
    }

    async fn step(&mut self, deadline: Deadline) -> Result<(), Error> {
        let Some(cursor) = self.cursor else {
            return Ok(());
        };
        let mut ask = cmd("SCAN");
        ask.arg(cursor).arg("MATCH").arg(&self.scan.pattern);
        ask.arg("COUNT").arg(STEP);
        if let Some(kind) = &self.scan.kind {
            ask.arg("TYPE").arg(kind);
        }
        let (after, keys) = step_of(self.lines.ask(&ask, deadline).await?);
        self.cursor = (after != 0 && after != cursor).then_some(after);
        for key in keys {
            let Some(key) = value::bytes(key).map(Blob::from) else {
                continue;
            };
            let outside = self
                .prefix
                .as_ref()
                .is_some_and(|prefix| !key.0.starts_with(&prefix.0));
            if outside || !self.is_new(&key) {
                continue;
            }
            self.count += 1;
            self.waiting.push_back(key);
        }
        Ok(())
    }

    fn is_new(&mut self, key: &Blob) -> bool {
        let hash = self.hasher.hash_one(key);
        if self.seen.len() >= REMEMBERED {
            return !self.seen.contains(&hash);
        }
        self.seen.insert(hash)
    }

    /// Gives keys that are waiting, with what there is to know of them; those that are gone meanwhile are left out.
    async fn give(
        &mut self,
        rows: &mut Rows,
        budget: Budget,
        deadline: Deadline,
    ) -> Result<(), Error> {
        // One more than fits tells whether there are more.
        let room = budget.rows.saturating_sub(rows.len()).saturating_add(1);
        let some = self.waiting.len().min(STEP).min(room);
        let mut ask = Pipeline::new();
        for key in self.waiting.iter().take(some) {
            ask.cmd("TYPE").arg(key).cmd("PTTL").arg(key);
        }
        let told = self.lines.ask_all(&ask, deadline).await?;
        for pair in told.chunks_exact(2) {
            let Some(key) = self.waiting.front() else {
                break;
            };
            let kind = match &pair[0] {
                // A user may know of keys that it may not read.
                Value::ServerError(_) => None,
                kind => value::text(kind.clone()),
            };
            if kind.as_deref() != Some("none") {
                let row = vec![
                    shown(key.0.clone()),
                    kind.map_or_else(Cell::null, Cell::text),
                    integer(&pair[1])
                        .filter(|ttl| *ttl >= 0)
                        .map_or_else(Cell::null, Cell::integer),
                ];
                if rows.push(row).is_err() {
                    break;
                }
            }
            self.waiting.pop_front();
        }
        Ok(())
    }
}

impl Rest for Found {
    fn next(&mut self, budget: Budget) -> NextPart<'_> {
        let deadline = Deadline::after(self.timeout);
        Box::pin(async move { Ok(self.take(budget, deadline).await?) })
    }

    fn outlives_time(&self) -> bool {
        !self.is_over()
    }
}
