//! Changes keys, one kind of change at a time, and tells beforehand what is there.

use std::time::Duration;

use redis::{Cmd, Pipeline, Value, cmd};
use serde::Serialize;

use super::connection::{Deadline, Line};
use super::error::Error;
use super::value::{self, Blob, integer};
use super::{Call, Redis};

/// Keys, fields, or members of one call.
pub const MOST_PARTS: usize = 10_000;

/// A write that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum WriteError {
    /// Nothing to write.
    #[error("there is nothing to write; give at least one of {0}")]
    Empty(&'static str),
    /// Too much at once.
    #[error("{0} are too many at once; give at most 10000")]
    TooMany(usize),
    /// No time.
    #[error("a key cannot live for {0:?}; give from 1 ms to 100 years")]
    Ttl(Duration),
    /// No number.
    #[error("`{0}` is no score; give a number, or an infinite one")]
    Score(f64),
}

/// When a value is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// If the key is missing.
    IfAbsent,
    /// If the key is there.
    IfPresent,
    /// If the key holds this value; `None`: if it is missing. Compared and set as one.
    IfEquals(Option<Blob>),
}

/// What becomes of the time a key has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// The key stays for good.
    Forever,
    /// It keeps what it has.
    Keep,
    /// It is deleted after this time.
    After(Duration),
}

/// The end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Index 0.
    First,
    /// Index -1.
    Last,
}

/// A change.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Sets a string.
    Set {
        /// Key.
        key: Blob,
        /// Value.
        value: Blob,
        /// When.
        condition: Condition,
        /// How long.
        ttl: Ttl,
    },
    /// Deletes keys of any type.
    Delete {
        /// Keys.
        keys: Vec<Blob>,
    },
    /// Has a key deleted after a time.
    Expire {
        /// Key.
        key: Blob,
        /// Time.
        after: Duration,
    },
    /// Has a key stay for good.
    Persist {
        /// Key.
        key: Blob,
    },
    /// Sets fields of a hash.
    HashSet {
        /// Key.
        key: Blob,
        /// Fields and values.
        fields: Vec<(Blob, Blob)>,
    },
    /// Deletes fields of a hash.
    HashDelete {
        /// Key.
        key: Blob,
        /// Fields.
        fields: Vec<Blob>,
    },
    /// Adds elements to a list.
    ListPush {
        /// Key.
        key: Blob,
        /// Elements; each is put at the end after the one before.
        values: Vec<Blob>,
        /// Where.
        end: End,
    },
    /// Adds members to a set.
    SetAdd {
        /// Key.
        key: Blob,
        /// Members.
        members: Vec<Blob>,
    },
    /// Removes members of a set.
    SetRemove {
        /// Key.
        key: Blob,
        /// Members.
        members: Vec<Blob>,
    },
    /// Adds members to a sorted set, or gives them other scores.
    SortedAdd {
        /// Key.
        key: Blob,
        /// Scores and members.
        members: Vec<(f64, Blob)>,
    },
}

/// A key as it is before a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// Key.
    pub key: Blob,
    /// Its type; `None` where it is missing.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Time it has left, in milliseconds; `None` where it stays.
    pub ttl_ms: Option<i64>,
    /// Bytes or elements.
    pub length: Option<i64>,
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Whether it was made; `false` for a trial, and where a condition did not hold.
    pub applied: bool,
    /// Keys, fields or members that are new or gone, or the length of the list; 0 or 1 for a string or a time.
    pub changed: i64,
    /// For a trial: the keys as they are, the first 100 of them.
    pub before: Vec<State>,
    /// For a trial: how many of the keys are there.
    pub existing: Option<usize>,
}

impl Write {
    fn keys(&self) -> &[Blob] {
        match self {
            Self::Delete { keys } => keys,
            Self::Set { key, .. }
            | Self::Expire { key, .. }
            | Self::Persist { key }
            | Self::HashSet { key, .. }
            | Self::HashDelete { key, .. }
            | Self::ListPush { key, .. }
            | Self::SetAdd { key, .. }
            | Self::SetRemove { key, .. }
            | Self::SortedAdd { key, .. } => std::slice::from_ref(key),
        }
    }

    fn check(&self) -> Result<(), WriteError> {
        let (parts, name) = match self {
            Self::Delete { keys } => (keys.len(), "keys"),
            Self::HashSet { fields, .. } => (fields.len(), "fields"),
            Self::HashDelete { fields, .. } => (fields.len(), "fields"),
            Self::ListPush { values, .. } => (values.len(), "values"),
            Self::SetAdd { members, .. } | Self::SetRemove { members, .. } => {
                (members.len(), "members")
            }
            Self::SortedAdd { members, .. } => (members.len(), "members"),
            Self::Set { .. } | Self::Expire { .. } | Self::Persist { .. } => (1, ""),
        };
        match parts {
            0 => return Err(WriteError::Empty(name)),
            1..=MOST_PARTS => {}
            _ => return Err(WriteError::TooMany(parts)),
        }
        match self {
            Self::Set {
                ttl: Ttl::After(after),
                ..
            }
            | Self::Expire { after, .. } => milliseconds(*after).map(drop),
            Self::SortedAdd { members, .. } => members
                .iter()
                .find(|(score, _)| score.is_nan())
                .map_or(Ok(()), |(score, _)| Err(WriteError::Score(*score))),
            _ => Ok(()),
        }
    }

    /// The one command that does it.
    fn command(&self) -> Result<Cmd, WriteError> {
        Ok(match self {
            Self::Set {
                key,
                value,
                condition,
                ttl,
            } => {
                let mut set = cmd("SET");
                set.arg(key).arg(value);
                match condition {
                    Condition::IfAbsent => set.arg("NX"),
                    Condition::IfPresent => set.arg("XX"),
                    Condition::Always | Condition::IfEquals(_) => &mut set,
                };
                match ttl {
                    Ttl::Forever => {}
                    Ttl::Keep => {
                        set.arg("KEEPTTL");
                    }
                    Ttl::After(after) => {
                        set.arg("PX").arg(milliseconds(*after)?);
                    }
                }
                set
            }
            Self::Delete { keys } => with(cmd("UNLINK"), keys),
            Self::Expire { key, after } => {
                let mut expire = cmd("PEXPIRE");
                expire.arg(key).arg(milliseconds(*after)?);
                expire
            }
            Self::Persist { key } => with(cmd("PERSIST"), [key]),
            Self::HashSet { key, fields } => {
                let mut set = cmd("HSET");
                set.arg(key);
                for (field, value) in fields {
                    set.arg(field).arg(value);
                }
                set
            }
            Self::HashDelete { key, fields } => with(with(cmd("HDEL"), [key]), fields),
            Self::ListPush { key, values, end } => {
                let name = match end {
                    End::First => "LPUSH",
                    End::Last => "RPUSH",
                };
                with(with(cmd(name), [key]), values)
            }
            Self::SetAdd { key, members } => with(with(cmd("SADD"), [key]), members),
            Self::SetRemove { key, members } => with(with(cmd("SREM"), [key]), members),
            Self::SortedAdd { key, members } => {
                let mut add = cmd("ZADD");
                add.arg(key);
                for (score, member) in members {
                    // Redis reads `inf`, as Rust writes it.
                    add.arg(score.to_string()).arg(member);
                }
                add
            }
        })
    }
}

fn with<'a>(mut command: Cmd, arguments: impl IntoIterator<Item = &'a Blob>) -> Cmd {
    for argument in arguments {
        command.arg(argument);
    }
    command
}

fn milliseconds(time: Duration) -> Result<i64, WriteError> {
    const CENTURY: i64 = 100 * 366 * 24 * 3_600 * 1_000;
    i64::try_from(time.as_millis())
        .ok()
        .filter(|time| (1..=CENTURY).contains(time))
        .ok_or(WriteError::Ttl(time))
}

impl Redis {
    /// Changes keys, or with `dry_run` only tells what is there.
    ///
    /// # Errors
    /// [`Error::ReadOnlySource`], refused keys, and what the server says: then nothing is changed. After [`Error::Timeout`] and
    /// [`Error::Lost`] it is unknown whether something is.
    pub async fn write(&self, write: &Write, dry_run: bool, call: Call) -> Result<Written, Error> {
        self.check_writable()?;
        write.check()?;
        for key in write.keys() {
            self.check_key(key)?;
        }
        let deadline = Deadline::after(call.timeout);
        let mut line = self.lines().line(deadline).await?;
        let outcome = if dry_run {
            states(&mut line, write.keys(), deadline).await
        } else if let Write::Set {
            key,
            condition: Condition::IfEquals(expected),
            ..
        } = write
        {
            set_if_equal(
                &mut line,
                key,
                expected.as_ref(),
                &write.command()?,
                deadline,
            )
            .await
        } else {
            let command = write.command()?;
            line.ask(&command, deadline).await.map(|answer| Written {
                applied: answer != Value::Nil,
                changed: integer(&answer).unwrap_or_default(),
                before: Vec::new(),
                existing: None,
            })
        };
        // After a failure something may still be watched on it.
        if outcome.is_ok() {
            line.release();
        }
        outcome
    }
}

/// Sets a key if it holds what is expected: the server refuses the transaction if anybody changes the key after it was read.
async fn set_if_equal(
    line: &mut Line,
    key: &Blob,
    expected: Option<&Blob>,
    set: &Cmd,
    deadline: Deadline,
) -> Result<Written, Error> {
    let unchanged = || Written {
        applied: false,
        changed: 0,
        before: Vec::new(),
        existing: None,
    };
    line.ask(cmd("WATCH").arg(key), deadline).await?;
    // A value of another length is not read.
    let is_candidate = match expected {
        None => true,
        Some(expected) => {
            let length = line.ask(cmd("STRLEN").arg(key), deadline).await?;
            integer(&length).and_then(|length| usize::try_from(length).ok())
                == Some(expected.0.len())
        }
    };
    let holds = is_candidate && {
        let held = line.ask(cmd("GET").arg(key), deadline).await?;
        let held = match held {
            Value::Nil => None,
            held => value::bytes(held),
        };
        held.as_deref() == expected.map(|expected| expected.0.as_slice())
    };
    if !holds {
        line.ask(&cmd("UNWATCH"), deadline).await?;
        return Ok(unchanged());
    }
    let mut transaction = Pipeline::new();
    transaction
        .cmd("MULTI")
        .add_command(set.clone())
        .cmd("EXEC");
    let mut last = Value::Nil;
    for answer in line.ask_all(&transaction, deadline).await? {
        match answer {
            Value::ServerError(error) => return Err(Error::of_server(&error)),
            answer => last = answer,
        }
    }
    match last {
        Value::Array(answers) => match answers.into_iter().next() {
            Some(Value::ServerError(error)) => Err(Error::of_server(&error)),
            _ => Ok(Written {
                applied: true,
                changed: 1,
                ..unchanged()
            }),
        },
        _ => Ok(unchanged()),
    }
}

async fn states(line: &mut Line, keys: &[Blob], deadline: Deadline) -> Result<Written, Error> {
    const SHOWN: usize = 100;
    let mut ask = Pipeline::new();
    for key in keys {
        ask.cmd("TYPE").arg(key);
    }
    let kinds = line.ask_all(&ask, deadline).await?;
    let mut before = Vec::new();
    let mut existing = 0;
    for (key, kind) in keys.iter().zip(kinds) {
        if let Value::ServerError(error) = &kind {
            return Err(Error::of_server(error));
        }
        let kind = value::text(kind).filter(|kind| kind != "none");
        existing += usize::from(kind.is_some());
        if before.len() < SHOWN {
            before.push(State {
                key: key.clone(),
                kind,
                ttl_ms: None,
                length: None,
            });
        }
    }
    let mut ask = Pipeline::new();
    for state in &before {
        let length = match state.kind.as_deref() {
            Some("string") => "STRLEN",
            Some("list") => "LLEN",
            Some("hash") => "HLEN",
            Some("set") => "SCARD",
            Some("zset") => "ZCARD",
            Some("stream") => "XLEN",
            // Any question that every key answers.
            _ => "TTL",
        };
        ask.cmd("PTTL").arg(&state.key).cmd(length).arg(&state.key);
    }
    let told = line.ask_all(&ask, deadline).await?;
    for (state, told) in before.iter_mut().zip(told.chunks_exact(2)) {
        let is_counted = matches!(
            state.kind.as_deref(),
            Some("string" | "list" | "hash" | "set" | "zset" | "stream")
        );
        state.ttl_ms = integer(&told[0]).filter(|ttl| *ttl >= 0);
        state.length = integer(&told[1]).filter(|_| is_counted);
    }
    Ok(Written {
        applied: false,
        changed: 0,
        before,
        existing: Some(existing),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(write: &Write) -> anyhow::Result<String> {
        write.check()?;
        let packed = write.command()?.get_packed_command();
        let text = String::from_utf8(packed)?;
        Ok(text
            .split("\r\n")
            .filter(|line| !line.starts_with(['*', '$']))
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn a_change_is_one_command() -> anyhow::Result<()> {
        let key = || Blob::from("k");
        for (write, expected) in [
            (
                Write::Set {
                    key: key(),
                    value: "v".into(),
                    condition: Condition::IfAbsent,
                    ttl: Ttl::After(Duration::from_secs(1)),
                },
                "SET k v NX PX 1000 ",
            ),
            (
                Write::Set {
                    key: key(),
                    value: "v".into(),
                    condition: Condition::IfPresent,
                    ttl: Ttl::Keep,
                },
                "SET k v XX KEEPTTL ",
            ),
            (
                Write::SortedAdd {
                    key: key(),
                    members: vec![(f64::INFINITY, "m".into()), (0.1, "n".into())],
                },
                "ZADD k inf m 0.1 n ",
            ),
            (
                Write::ListPush {
                    key: key(),
                    values: vec!["a".into(), "b".into()],
                    end: End::Last,
                },
                "RPUSH k a b ",
            ),
        ] {
            assert_eq!(sent(&write)?, expected);
        }
        Ok(())
    }

    #[test]
    fn what_makes_no_sense_is_not_sent() {
        let nothing = Write::Delete { keys: Vec::new() };
        assert_eq!(nothing.check(), Err(WriteError::Empty("keys")));
        let many = Write::Delete {
            keys: vec!["k".into(); MOST_PARTS + 1],
        };
        assert_eq!(many.check(), Err(WriteError::TooMany(MOST_PARTS + 1)));
        for after in [Duration::ZERO, Duration::MAX] {
            let expire = Write::Expire {
                key: "k".into(),
                after,
            };
            assert_eq!(expire.check(), Err(WriteError::Ttl(after)));
        }
        let no_number = Write::SortedAdd {
            key: "k".into(),
            members: vec![(f64::NAN, "m".into())],
        };
        assert!(no_number.check().is_err());
    }
}
