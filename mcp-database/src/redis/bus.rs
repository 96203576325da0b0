//! A message bus on streams: what is published stays until a group has taken and acknowledged it, and what nobody can work off ends in a
//! stream of dead letters.

pub mod claim;
pub mod groups;

use std::time::Duration;

use redis::{Cmd, Value, cmd};
use serde::Serialize;

use super::connection::{Deadline, Line};
use super::error::{Error, Refusal};
use super::read::fields_of;
use super::value::{self, Blob, Room, elements, integer};
use super::{Call, Redis};
use crate::table::{Answer, Cell, Column, Rows};

/// How long a read may wait for a message.
pub const LONGEST_BLOCK: Duration = Duration::from_secs(20);
/// Messages of one call.
pub const MOST_MESSAGES: usize = 1_000;
/// What a stream keeps where the publisher does not say.
const MAX_LENGTH: u64 = 100_000;
/// Bytes of the name of a stream, a group, or a consumer.
const LONGEST_NAME: usize = 500;

/// A message that may not be sent or taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// The operator has named no streams.
    #[error("source `{0}` has no streams for messages; the operator names them with `streams`")]
    NoStreams(String),
    /// A stream or a channel that is not one of the operator's.
    #[error("`{name}` is none of this source's streams and channels: {}", allowed.join(", "))]
    Unlisted {
        /// As asked.
        name: String,
        /// What is allowed.
        allowed: Vec<String>,
    },
    /// A name that is none.
    #[error("`{0}` is no name for a group or a consumer; give 1 to 500 bytes")]
    Name(String),
    /// Too long to wait.
    #[error("a read may wait for 20000 ms at most, not for {} ms", .0.as_millis())]
    Block(Duration),
    /// No message, or too many.
    #[error("give 1 to 1000 {what}, not {given}")]
    Count {
        /// Of what.
        what: &'static str,
        /// As asked.
        given: usize,
    },
    /// No id.
    #[error("`{0}` is no id of a message; ids are like `1700000000000-0`")]
    Id(String),
    /// No such subscription, or somebody else's, or one that nobody asked for too long.
    #[error("there is no subscription `{0}`; one that is not polled for 120 s is closed")]
    Handle(String),
    /// Too many.
    #[error("there are {0} subscriptions already; close one first")]
    TooManySubscriptions(usize),
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The message's id.
    pub id: String,
    /// Messages that the stream has now.
    pub length: i64,
}

/// A member of a group; each message goes to one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// Who of it asks.
    pub consumer: String,
    /// Make the group if it is missing, and have it begin here.
    pub create: Option<Beginning>,
}

/// Where a new group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// With the first message that is there.
    First,
    /// With the next one that comes.
    Next,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// The stream.
    pub stream: String,
    /// For a group; without one nothing is changed, and everybody reads everything.
    pub member: Option<Membership>,
    /// Only messages behind this id. Without a group from the first one, or `$` for those that come from now on. With a group: those
    /// that this consumer was given before and has not acknowledged, from `0` on, instead of new ones.
    pub after: Option<String>,
    /// Messages at most.
    pub count: usize,
    /// How long it is waited for the first one.
    pub block: Duration,
}

impl Redis {
    /// Publishes a message; the stream keeps about `max_length` of them.
    ///
    /// # Errors
    /// Refused streams, and what the server says.
    pub async fn publish(
        &self,
        stream: &str,
        fields: &[(Blob, Blob)],
        max_length: Option<u64>,
        call: Call,
    ) -> Result<Published, Error> {
        self.check_writable()?;
        self.check_stream(stream)?;
        // Dead letters are made by claiming alone.
        if stream.ends_with(claim::DEAD) {
            return Err(BusError::Unlisted {
                name: stream.to_owned(),
                allowed: self.inner.streams.clone(),
            }
            .into());
        }
        check_count("fields", fields.len())?;
        let deadline = Deadline::after(call.timeout);
        let mut add = cmd("XADD");
        add.arg(stream).arg("MAXLEN").arg("~");
        add.arg(max_length.unwrap_or(MAX_LENGTH)).arg("*");
        for (field, value) in fields {
            add.arg(field).arg(value);
        }
        let id = self.lines().ask(&add, deadline).await?;
        let length = self.lines().ask(cmd("XLEN").arg(stream), deadline).await?;
        Ok(Published {
            id: value::text(id).unwrap_or_default(),
            length: integer(&length).unwrap_or_default(),
        })
    }

    /// Reads messages: a row for each with `id`, `fields` (null for a message that was deleted before it was acknowledged) and
    /// `deleted`. What a group was given and did not fit the budget stays with the consumer: read it again with `after`.
    ///
    /// It may take as long as the call's timeout and `block` together. When it is dropped, the server stops waiting.
    ///
    /// # Errors
    /// Refused streams, and what the server says.
    pub async fn take(&self, take: &Take, call: Call) -> Result<Answer, Error> {
        self.check_stream(&take.stream)?;
        check_count("messages", take.count)?;
        if take.block > LONGEST_BLOCK {
            return Err(BusError::Block(take.block).into());
        }
        if let Some(after) = take.after.as_deref().filter(|after| *after != "$") {
            check_id(after)?;
        }
        if let Some(member) = &take.member {
            self.check_writable()?;
            check_name(&member.group)?;
            check_name(&member.consumer)?;
        }
        let deadline = Deadline::after(call.timeout + take.block);
        let mut line = self.lines().line(deadline).await?;
        let outcome = taken(&mut line, take, deadline).await;
        if !outcome.as_ref().is_err_and(Error::is_final) {
            line.release();
        }
        Ok(messages(outcome?, call.budget))
    }

    /// Acknowledges messages; returns how many of them were pending.
    ///
    /// # Errors
    /// Refused streams, and what the server says.
    pub async fn acknowledge(
        &self,
        stream: &str,
        group: &str,
        ids: &[String],
        call: Call,
    ) -> Result<i64, Error> {
        self.check_writable()?;
        self.check_stream(stream)?;
        check_name(group)?;
        check_count("ids", ids.len())?;
        for id in ids {
            check_id(id)?;
        }
        let mut acknowledge = cmd("XACK");
        acknowledge.arg(stream).arg(group).arg(ids);
        let deadline = Deadline::after(call.timeout);
        let answer = self.lines().ask(&acknowledge, deadline).await?;
        Ok(integer(&answer).unwrap_or_default())
    }

    /// Refuses a stream or a channel that the operator has not named.
    pub(super) fn check_stream(&self, name: &str) -> Result<(), Error> {
        let allowed = &self.inner.streams;
        if allowed.is_empty() {
            return Err(BusError::NoStreams(self.id().to_owned()).into());
        }
        if name.len() > LONGEST_NAME || !is_listed(allowed, name) {
            return Err(BusError::Unlisted {
                name: shared::budget::head(name, LONGEST_NAME).text.to_owned(),
                allowed: allowed.clone(),
            }
            .into());
        }
        self.check_key(&Blob::from(name))
    }
}

/// Whether one of the patterns has the name; a stream's dead letters go with it.
pub(super) fn is_listed(patterns: &[String], name: &str) -> bool {
    let is_one = |name: &str| {
        patterns
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == pattern,
            })
    };
    !name.is_empty() && (is_one(name) || name.strip_suffix(claim::DEAD).is_some_and(is_one))
}

pub(super) fn check_name(name: &str) -> Result<(), BusError> {
    if name.is_empty() || name.len() > LONGEST_NAME {
        let shown = shared::budget::head(name, 100).text;
        return Err(BusError::Name(shown.to_owned()));
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), BusError> {
    let is_number = |text: &str| text.parse::<u64>().is_ok() && !text.starts_with('+');
    let is_id = match id.split_once('-') {
        Some((time, number)) => is_number(time) && is_number(number),
        None => is_number(id),
    };
    if is_id {
        Ok(())
    } else {
        let shown = shared::budget::head(id, 100).text;
        Err(BusError::Id(shown.to_owned()))
    }
}

pub(super) fn check_count(what: &'static str, given: usize) -> Result<(), BusError> {
    if (1..=MOST_MESSAGES).contains(&given) {
        Ok(())
    } else {
        Err(BusError::Count { what, given })
    }
}

async fn taken(line: &mut Line, take: &Take, deadline: Deadline) -> Result<Value, Error> {
    let read = read_command(take);
    match line.ask(&read, deadline).await {
        Err(error) if error.refusal() == Some(Refusal::NoGroup) => {
            let Some((member, beginning)) = take
                .member
                .as_ref()
                .and_then(|member| Some((member, member.create?)))
            else {
                return Err(error);
            };
            let from = match beginning {
                Beginning::First => "0",
                Beginning::Next => "$",
            };
            let mut create = cmd("XGROUP");
            create.arg("CREATE").arg(&take.stream).arg(&member.group);
            create.arg(from).arg("MKSTREAM");
            match line.ask(&create, deadline).await {
                // Somebody else was faster.
                Err(error) if error.refusal() != Some(Refusal::GroupExists) => Err(error),
                _ => line.ask(&read, deadline).await,
            }
        }
        outcome => outcome,
    }
}

fn read_command(take: &Take) -> Cmd {
    let mut read = match &take.member {
        Some(member) => {
            let mut read = cmd("XREADGROUP");
            read.arg("GROUP").arg(&member.group).arg(&member.consumer);
            read
        }
        None => cmd("XREAD"),
    };
    read.arg("COUNT").arg(take.count);
    // Zero would be for ever.
    if take.block >= Duration::from_millis(1) {
        let block = u64::try_from(take.block.as_millis()).unwrap_or_default();
        read.arg("BLOCK").arg(block);
    }
    let first = if take.member.is_some() { ">" } else { "0" };
    let after = take.after.as_deref().unwrap_or(first);
    read.arg("STREAMS").arg(&take.stream).arg(after);
    read
}

/// The messages of the one stream in an answer, in either shape of the protocol.
fn entries(answer: Value) -> Vec<Value> {
    let found = match answer {
        Value::Map(streams) => streams.into_iter().next().map(|(_, entries)| entries),
        answer => elements(answer)
            .and_then(|streams| streams.into_iter().next())
            .and_then(elements)
            .and_then(|stream| stream.into_iter().nth(1)),
    };
    found.and_then(elements).unwrap_or_default()
}

/// An id and the fields, which are nil where the message was deleted.
fn message(entry: Value) -> Option<(String, Value)> {
    let mut parts = elements(entry)?.into_iter();
    let id = value::text(parts.next()?)?;
    Some((id, parts.next().unwrap_or(Value::Nil)))
}

fn messages(answer: Value, budget: crate::table::Budget) -> Answer {
    let mut rows = Rows::new(budget);
    for entry in entries(answer) {
        let Some((id, fields)) = message(entry) else {
            continue;
        };
        let deleted = fields == Value::Nil;
        let row = vec![
            Cell::text(id),
            shown_fields(fields, budget.bytes),
            Cell::json(deleted.into()),
        ];
        if rows.push(row).is_err() {
            break;
        }
    }
    let columns = [("id", "text"), ("fields", "any"), ("deleted", "boolean")];
    let columns = columns.map(|(name, kind)| Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
    });
    Answer {
        columns: columns.into(),
        rows,
    }
}

fn shown_fields(fields: Value, room: usize) -> Cell {
    let cell = Room::for_messages(room).cell(fields);
    let is_cut = cell.is_cut();
    Cell::nested(fields_of(cell.into_value()), is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_streams_and_their_dead_letters_are_there() {
        let patterns = ["app:*".to_owned(), "jobs".to_owned()];
        for name in ["app:", "app:a", "jobs", "jobs:dead", "app:a:dead"] {
            assert!(is_listed(&patterns, name), "{name}");
        }
        for name in [
            "",
            "app",
            "jobs2",
            "xjobs",
            "jobs:dead:dead",
            "other:dead",
            ":dead",
        ] {
            assert!(!is_listed(&patterns, name), "{name}");
        }
    }

    #[test]
    fn an_id_is_two_numbers() {
        for id in ["0", "1-0", "18446744073709551615-18446744073709551615"] {
            assert_eq!(check_id(id), Ok(()), "{id}");
        }
        for id in [
            "",
            "-",
            "1-",
            "a",
            "1-1-1",
            "+1",
            ">",
            "*",
            "1 0",
            "18446744073709551616",
        ] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_read_waits_only_if_it_is_asked_to() {
        let mut take = Take {
            stream: "s".to_owned(),
            member: None,
            after: None,
            count: 1,
            block: Duration::from_micros(10),
        };
        let sent = |take: &Take| {
            String::from_utf8_lossy(&read_command(take).get_packed_command()).into_owned()
        };
        assert!(!sent(&take).contains("BLOCK"));
        take.block = Duration::from_millis(5);
        assert!(sent(&take).contains("BLOCK"));
    }

    #[test]
    fn both_shapes_of_the_protocol_have_the_same_messages() {
        let text = |text: &str| Value::BulkString(text.into());
        let entry = || Value::Array(vec![text("1-0"), Value::Nil]);
        let list = Value::Array(vec![Value::Array(vec![
            text("s"),
            Value::Array(vec![entry()]),
        ])]);
        let map = Value::Map(vec![(text("s"), Value::Array(vec![entry()]))]);
        assert_eq!(entries(list), [entry()]);
        assert_eq!(entries(map), [entry()]);
        assert!(entries(Value::Nil).is_empty());
        assert_eq!(message(entry()), Some(("1-0".to_owned(), Value::Nil)));
    }
}
