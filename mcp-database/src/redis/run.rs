//! Sends a command as an agent wrote it, after everything that stands between the two has let it through.

use std::collections::VecDeque;

use redis::Value;

use super::command::{Class, Command, GateError};
use super::connection::Deadline;
use super::error::Error;
use super::value::{self, Blob, Room};
use super::{Call, Redis};
use crate::cursor::{NextPart, Rest};
use crate::source::Mode;
use crate::table::{Answer, Budget, Cell, Column, Rows};

/// What the server says of a command that is nothing for agents.
const FORBIDDEN: [&str; 5] = ["admin", "dangerous", "scripting", "blocking", "pubsub"];
/// Elements that an answer may have: they are held in memory until the last page.
const MOST_ELEMENTS: usize = 100_000;

/// Which of the layers that stand before a command are in place; all, but where a test shows what one of them is good for.
#[derive(Debug, Clone, Copy)]
pub struct Layers {
    /// Only commands that are known by their full name.
    pub list: bool,
    /// The server is asked what the command does.
    pub flags: bool,
    /// The keys must have the source's prefix, if it has one.
    pub prefix: bool,
}

impl Layers {
    /// Every layer.
    pub const ALL: Self = Self {
        list: true,
        flags: true,
        prefix: true,
    };
}

impl Redis {
    /// Sends a command: its name, its subcommand if it has one, and its arguments. An answer that is a list has a row for each of its
    /// elements (`value`), one that is a map for each of its fields (`field`, `value`), any other one row.
    ///
    /// # Errors
    /// [`Error::Gate`] where it may not be sent; [`GateError::Unconfirmed`] where it may once somebody has `confirmed` it.
    pub async fn command(
        &self,
        argv: &[Blob],
        confirmed: bool,
        call: Call,
    ) -> Result<(Answer, Option<Box<dyn Rest>>), Error> {
        self.command_within(argv, confirmed, Layers::ALL, call)
            .await
    }

    /// The same with only some of the layers.
    ///
    /// # Errors
    /// As [`Redis::command`].
    pub async fn command_within(
        &self,
        argv: &[Blob],
        confirmed: bool,
        layers: Layers,
        call: Call,
    ) -> Result<(Answer, Option<Box<dyn Rest>>), Error> {
        let deadline = Deadline::after(call.timeout);
        let command = Command::of(argv)?;
        if layers.list {
            command.check(self.mode() == Mode::Write, confirmed)?;
        }
        if layers.prefix && self.prefix().is_some() {
            let keys = command.keys(argv);
            let keys = keys.ok_or_else(|| GateError::Keyless(command.shown()))?;
            for key in keys {
                self.check_key(key)?;
            }
        }
        if layers.flags {
            self.check_flags(&command, deadline).await?;
        }
        let mut sent = redis::Cmd::new();
        for argument in argv {
            sent.arg(argument);
        }
        let mut line = self.lines().line(deadline).await?;
        let answer = line.ask(&sent, deadline).await;
        if !answer.as_ref().is_err_and(Error::is_final) {
            line.release();
        }
        Ok(Elements::of(answer?)?.page(call.budget))
    }

    /// Asks the server what it thinks the command does. Where it cannot tell, the list has to do.
    async fn check_flags(&self, command: &Command, deadline: Deadline) -> Result<(), Error> {
        let parent = command.name.split('|').next().unwrap_or_default();
        let mut ask = redis::cmd("COMMAND");
        ask.arg("INFO").arg(&command.name).arg(parent);
        let told = match self.lines().ask(&ask, deadline).await {
            Ok(told) => value::elements(told).unwrap_or_default(),
            Err(Error::Server { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let known = told
            .into_iter()
            .find_map(|entry| value::elements(entry).filter(|entry| entry.len() >= 6));
        let Some(entry) = known else {
            return Ok(());
        };
        let mut said: Vec<String> = Vec::new();
        for at in [2, 6] {
            let words = entry.get(at).cloned().and_then(value::elements);
            said.extend(
                words
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(value::text),
            );
        }
        let refused = |said: &str| GateError::Flags {
            name: command.shown(),
            said: said.to_owned(),
        };
        let forbidden = said
            .iter()
            .find(|word| FORBIDDEN.contains(&word.trim_start_matches('@')));
        if let Some(word) = forbidden {
            return Err(refused(word).into());
        }
        let says = |flag: &str| said.iter().any(|word| word == flag);
        let may_write = self.mode() == Mode::Write && command.class != Class::Read;
        if command.is_about_no_data() || says("readonly") || may_write && says("write") {
            return Ok(());
        }
        Err(refused(if says("write") { "write" } else { "" }).into())
    }
}

/// What is left of an answer.
struct Elements {
    columns: Vec<Column>,
    left: VecDeque<Vec<Value>>,
}

impl Elements {
    fn of(answer: Value) -> Result<Self, Error> {
        let column = |name: &str| Column {
            name: name.to_owned(),
            kind: "any".to_owned(),
        };
        let (columns, rows): (_, Vec<Vec<Value>>) = match answer {
            Value::Array(values) | Value::Set(values) => (
                vec![column("value")],
                values.into_iter().map(|value| vec![value]).collect(),
            ),
            Value::Map(pairs) => (
                vec![column("field"), column("value")],
                pairs
                    .into_iter()
                    .map(|(field, value)| vec![field, value])
                    .collect(),
            ),
            value => (vec![column("value")], vec![vec![value]]),
        };
        if rows.len() > MOST_ELEMENTS {
            return Err(Error::TooMany {
                limit: MOST_ELEMENTS,
            });
        }
        Ok(Self {
            columns,
            left: rows.into(),
        })
    }

    fn page(mut self, budget: Budget) -> (Answer, Option<Box<dyn Rest>>) {
        let answer = self.take(budget);
        let rest = (!self.left.is_empty()).then(|| Box::new(self) as Box<dyn Rest>);
        (answer, rest)
    }

    fn take(&mut self, budget: Budget) -> Answer {
        let mut rows = Rows::new(budget);
        while let Some(row) = self.left.front() {
            let cells: Vec<Cell> = row
                .iter()
                .map(|value| Room::new(budget.bytes).cell(value.clone()))
                .collect();
            if rows.push(cells).is_err() {
                break;
            }
            self.left.pop_front();
        }
        Answer {
            columns: self.columns.clone(),
            rows,
        }
    }
}

impl Rest for Elements {
    fn next(&mut self, budget: Budget) -> NextPart<'_> {
        let answer = self.take(budget);
        Box::pin(async move { Ok(answer) })
    }
}
