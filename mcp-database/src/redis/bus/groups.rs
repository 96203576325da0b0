//! Tells who reads a stream, how far, and what is waiting for whom.

use redis::{Pipeline, Value, cmd};
use serde::Serialize;

use super::claim::DEAD;
use crate::redis::connection::Deadline;
use crate::redis::error::{Error, Refusal};
use crate::redis::value::{self, elements, integer, member};
use crate::redis::{Call, Redis};

/// Groups that are told in full.
const MOST_GROUPS: usize = 50;
/// Consumers of a group that are told.
const MOST_CONSUMERS: usize = 100;
/// Pending messages of a group that are looked at for whether they are deleted.
const MOST_PENDING: usize = 20;

/// A stream and those that read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Its name.
    pub stream: String,
    /// Messages.
    pub length: i64,
    /// The id of the last message that ever came.
    pub last_id: Option<String>,
    /// Dead letters.
    pub dead: i64,
    /// Its groups, at most 50.
    pub groups: Vec<Group>,
    /// Groups that it has at all.
    pub groups_in_all: usize,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Messages that it has not been given yet; `None` where the server cannot tell.
    pub lag: Option<i64>,
    /// Messages that it was given and has not acknowledged.
    pub pending: i64,
    /// The last message that it was given.
    pub last_delivered: Option<String>,
    /// The oldest of the pending messages.
    pub oldest_pending: Option<Pending>,
    /// Among the first 20 pending messages those that are deleted.
    pub deleted_pending: Vec<String>,
    /// Its consumers, at most 100.
    pub consumers: Vec<Consumer>,
}

/// A message that was given and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// Its id.
    pub id: String,
    /// Who has it.
    pub consumer: String,
    /// Milliseconds since it was given to somebody.
    pub idle_ms: i64,
    /// How often it was given.
    pub deliveries: i64,
}

/// A consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// Messages that it has and has not acknowledged.
    pub pending: i64,
    /// Milliseconds since it last asked.
    pub idle_ms: i64,
}

impl Redis {
    /// Tells of a stream and its groups; one that is missing has none.
    ///
    /// # Errors
    /// Refused streams, and what the server says.
    pub async fn groups(&self, stream: &str, call: Call) -> Result<Overview, Error> {
        self.check_stream(stream)?;
        let deadline = Deadline::after(call.timeout);
        let mut ask = Pipeline::new();
        ask.cmd("XLEN").arg(stream);
        ask.cmd("XLEN").arg(format!("{stream}{DEAD}"));
        ask.cmd("XREVRANGE").arg(stream).arg("+").arg("-");
        ask.arg("COUNT").arg(1);
        let told = self.lines().ask_all(&ask, deadline).await?;
        if let Some(Value::ServerError(error)) = told.first() {
            return Err(Error::of_server(error));
        }
        let last = told.get(2).cloned().and_then(elements).unwrap_or_default();
        let last = last.into_iter().next().and_then(super::message);
        let mut overview = Overview {
            stream: stream.to_owned(),
            length: told.first().and_then(integer).unwrap_or_default(),
            last_id: last.map(|(id, _)| id),
            // A user that may not look there has nothing to see there.
            dead: told.get(1).and_then(integer).unwrap_or_default(),
            groups: Vec::new(),
            groups_in_all: 0,
        };
        let mut ask = cmd("XINFO");
        ask.arg("GROUPS").arg(stream);
        let groups = match self.lines().ask(&ask, deadline).await {
            Ok(groups) => elements(groups).unwrap_or_default(),
            Err(Error::Server {
                refusal: Refusal::Other,
                message,
                ..
            }) if message.contains("no such key") => return Ok(overview),
            Err(error) => return Err(error),
        };
        overview.groups_in_all = groups.len();
        for group in groups.into_iter().take(MOST_GROUPS) {
            overview
                .groups
                .push(self.group(stream, &group, deadline).await?);
        }
        Ok(overview)
    }

    async fn group(&self, stream: &str, told: &Value, deadline: Deadline) -> Result<Group, Error> {
        let name = member(told, "name")
            .and_then(value::bytes)
            .unwrap_or_default();
        let mut ask = Pipeline::new();
        ask.cmd("XINFO").arg("CONSUMERS").arg(stream).arg(&name);
        ask.cmd("XPENDING").arg(stream).arg(&name).arg("-").arg("+");
        ask.arg(MOST_PENDING);
        let mut answers = self.lines().ask_all(&ask, deadline).await?.into_iter();
        let mut list = || answers.next().and_then(elements).unwrap_or_default();
        let number = |told: &Value, name: &str| member(told, name).as_ref().and_then(integer);
        let consumers = list()
            .iter()
            .take(MOST_CONSUMERS)
            .map(|consumer| Consumer {
                name: member(consumer, "name")
                    .and_then(value::text)
                    .unwrap_or_default(),
                pending: number(consumer, "pending").unwrap_or_default(),
                idle_ms: number(consumer, "idle").unwrap_or_default(),
            })
            .collect();
        let pending: Vec<Pending> = list().into_iter().filter_map(pending).collect();
        Ok(Group {
            name: String::from_utf8_lossy(&name).into_owned(),
            lag: number(told, "lag"),
            pending: number(told, "pending").unwrap_or_default(),
            last_delivered: member(told, "last-delivered-id").and_then(value::text),
            deleted_pending: self.deleted(stream, &pending, deadline).await?,
            oldest_pending: pending.into_iter().next(),
            consumers,
        })
    }

    /// Which of the pending messages are no more in the stream.
    async fn deleted(
        &self,
        stream: &str,
        pending: &[Pending],
        deadline: Deadline,
    ) -> Result<Vec<String>, Error> {
        let mut ask = Pipeline::new();
        for pending in pending {
            ask.cmd("XREVRANGE").arg(stream).arg(&pending.id);
            ask.arg(&pending.id).arg("COUNT").arg(1);
        }
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let mut line = self.lines().line(deadline).await?;
        let answers = match line.ask_all(&ask, deadline).await {
            // Whether they are there is not worth reading so much.
            Err(Error::TooLarge { .. }) => return Ok(Vec::new()),
            answers => answers?,
        };
        line.release();
        let found = pending.iter().zip(answers);
        Ok(found
            .filter(|(_, answer)| matches!(answer, Value::Array(list) if list.is_empty()))
            .map(|(pending, _)| pending.id.clone())
            .collect())
    }
}

fn pending(line: Value) -> Option<Pending> {
    let mut parts = elements(line)?.into_iter();
    Some(Pending {
        id: value::text(parts.next()?)?,
        consumer: value::text(parts.next()?)?,
        idle_ms: integer(&parts.next()?)?,
        deliveries: integer(&parts.next()?)?,
    })
}
