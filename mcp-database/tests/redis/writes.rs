//! Changes of keys, their conditions, and their trials.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mcp_database::redis::Redis;
use mcp_database::redis::error::{Error, Refusal};
use mcp_database::redis::write::{Condition, End, Ttl, Write, Written};
use mcp_database::source::Mode;
use redis::Value;

use crate::support::{call, send, servers, unique};

fn set(key: &str, value: &str, condition: Condition) -> Write {
    Write::Set {
        key: key.into(),
        value: value.into(),
        condition,
        ttl: Ttl::Forever,
    }
}

async fn write(redis: &Redis, write: &Write) -> Result<Written, Error> {
    redis.write(write, false, call()).await
}

fn text(text: &str) -> Value {
    Value::BulkString(text.into())
}

#[tokio::test]
async fn a_condition_that_does_not_hold_changes_nothing() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let redis = server.source("app", Mode::Write)?;
        let key = format!("app:{}", unique("conditions"));
        for (condition, new, held) in [
            (Condition::IfPresent, "a", None),
            (Condition::IfEquals(Some("x".into())), "b", None),
            (Condition::IfEquals(None), "1", Some("1")),
            (Condition::IfAbsent, "c", Some("1")),
            (Condition::IfEquals(None), "d", Some("1")),
            (Condition::IfEquals(Some("2".into())), "e", Some("1")),
            (Condition::IfEquals(Some("1".into())), "5", Some("5")),
            (Condition::IfPresent, "6", Some("6")),
            (Condition::Always, "7", Some("7")),
        ] {
            let change = set(&key, new, condition);
            let written = write(&redis, &change).await?;
            assert_eq!(written.applied, held == Some(new), "{change:?}");
            let there = send(&mut bare, &format!("GET {key}")).await?;
            assert_eq!(there, held.map_or(Value::Nil, text), "{change:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn of_many_who_compare_and_set_one_wins_each_round() -> Result<()> {
    for server in servers()? {
        let redis = Arc::new(server.source("app", Mode::Write)?);
        let key = format!("app:{}", unique("race"));
        write(&redis, &set(&key, "0", Condition::Always)).await?;
        for round in 0..10 {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    let (redis, key) = (Arc::clone(&redis), key.clone());
                    tokio::spawn(async move {
                        let expected = Condition::IfEquals(Some(round.to_string().as_str().into()));
                        let next = (round + 1).to_string();
                        write(&redis, &set(&key, &next, expected)).await
                    })
                })
                .collect();
            let mut won = 0;
            for attempt in tries {
                won += usize::from(attempt.await??.applied);
            }
            assert_eq!(won, 1, "round {round}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_change_is_made_and_counted() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let redis = server.source("app", Mode::Write)?;
        let prefix = format!("app:{}", unique("changes"));
        let key = |name: &str| format!("{prefix}:{name}");
        let blob = |name: &str| key(name).as_str().into();
        for (change, changed) in [
            (
                Write::HashSet {
                    key: blob("h"),
                    fields: vec![("a".into(), "1".into()), ("b".into(), "2".into())],
                },
                2,
            ),
            (
                Write::HashDelete {
                    key: blob("h"),
                    fields: vec!["a".into(), "x".into()],
                },
                1,
            ),
            (
                Write::ListPush {
                    key: blob("l"),
                    values: vec!["a".into(), "b".into()],
                    end: End::Last,
                },
                2,
            ),
            (
                Write::ListPush {
                    key: blob("l"),
                    values: vec!["c".into()],
                    end: End::First,
                },
                3,
            ),
            (
                Write::SetAdd {
                    key: blob("s"),
                    members: vec!["a".into(), "a".into(), "b".into()],
                },
                2,
            ),
            (
                Write::SetRemove {
                    key: blob("s"),
                    members: vec!["a".into()],
                },
                1,
            ),
            (
                Write::SortedAdd {
                    key: blob("z"),
                    members: vec![(f64::INFINITY, "a".into()), (-0.5, "b".into())],
                },
                2,
            ),
            (
                Write::Expire {
                    key: blob("l"),
                    after: Duration::from_hours(1),
                },
                1,
            ),
            (Write::Persist { key: blob("l") }, 1),
            (Write::Persist { key: blob("l") }, 0),
            (
                Write::Delete {
                    keys: vec![blob("h"), blob("missing"), blob("s")],
                },
                2,
            ),
        ] {
            let written = write(&redis, &change).await?;
            assert_eq!(written.changed, changed, "{change:?}");
        }
        let list = send(&mut bare, &format!("LRANGE {} 0 -1", key("l"))).await?;
        assert_eq!(list, Value::Array(vec![text("c"), text("a"), text("b")]));
        let left = send(&mut bare, &format!("EXISTS {} {}", key("h"), key("s"))).await?;
        assert_eq!(left, Value::Int(0));
    }
    Ok(())
}

#[tokio::test]
async fn a_trial_tells_what_is_there_and_changes_nothing() -> Result<()> {
    for server in servers()? {
        let redis = server.source("app", Mode::Write)?;
        let key = format!("app:{}", unique("trial"));
        let push = Write::ListPush {
            key: key.as_str().into(),
            values: vec!["a".into(), "b".into()],
            end: End::Last,
        };
        write(&redis, &push).await?;
        let delete = Write::Delete {
            keys: vec![
                key.as_str().into(),
                format!("{key}:missing").as_str().into(),
            ],
        };
        let trial = redis.write(&delete, true, call()).await?;
        assert_eq!((trial.applied, trial.existing), (false, Some(1)));
        let kinds: Vec<_> = trial
            .before
            .iter()
            .map(|state| (state.kind.as_deref(), state.length))
            .collect();
        assert_eq!(kinds, [(Some("list"), Some(2)), (None, None)]);
        assert_eq!(write(&redis, &delete).await?.changed, 1);
    }
    Ok(())
}

#[tokio::test]
async fn case_50_a_refused_write_says_why() -> Result<()> {
    for server in servers()? {
        let redis = server.source("app", Mode::Write)?;
        let key = format!("app:{}", unique("refused"));
        write(&redis, &set(&key, "1", Condition::Always)).await?;
        let wrong = Write::SetAdd {
            key: key.as_str().into(),
            members: vec!["a".into()],
        };
        for (change, refusal) in [
            (wrong, Refusal::WrongType),
            (set("other", "1", Condition::Always), Refusal::NoPerm),
            (
                set("other", "1", Condition::IfEquals(None)),
                Refusal::NoPerm,
            ),
        ] {
            let error = write(&redis, &change).await.err().context("written")?;
            assert_eq!(error.refusal(), Some(refusal), "{error}");
        }
        let read = server.source("app", Mode::Read)?;
        let error = write(&read, &set(&key, "2", Condition::Always)).await.err();
        assert!(matches!(error, Some(Error::ReadOnlySource(_))));
        write(&redis, &set(&key, "3", Condition::Always)).await?;
    }
    Ok(())
}
