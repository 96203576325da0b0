//! Keys of every type, whole and in windows, and keys by a pattern.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mcp_database::redis::error::{Error, Refusal};
use mcp_database::redis::read::{Read, Window};
use mcp_database::redis::scan::Scan;
use mcp_database::redis::value::Blob;
use mcp_database::redis::{Call, Redis};
use mcp_database::source::Mode;
use mcp_database::table::{Budget, Truncation};
use serde_json::{Value, json};

use crate::support::{call, one, send, server, servers, settings, unique};

fn read(key: &str) -> Read {
    Read {
        keys: vec![key.into()],
        window: Window::default(),
    }
}

fn window(key: &str, start: Option<&str>, count: usize) -> Read {
    Read {
        keys: vec![key.into()],
        window: Window {
            start: start.map(str::to_owned),
            count: Some(count),
        },
    }
}

#[tokio::test]
async fn case_57_every_type_is_read_the_same_by_both_protocols() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let prefix = unique("types");
        let key = |name: &str| format!("{prefix}:{name}");
        for line in [
            format!("SET {} text", key("string")),
            format!("HSET {} a 1 b 2", key("hash")),
            format!("RPUSH {} a b a", key("list")),
            format!("SADD {} m", key("set")),
            format!("ZADD {} 1.5 a inf b -inf c", key("zset")),
            format!("XADD {} 5-1 f v g w", key("stream")),
            format!("PEXPIRE {} 100000000", key("list")),
        ] {
            send(&mut bare, &line).await?;
        }
        for protocol in [2, 3] {
            let url = format!(
                "redis://reader@127.0.0.1:{}?protocol={protocol}",
                server.port
            );
            let redis = Redis::open(&settings(&url, Mode::Read)?)?;
            for (name, kind, length, value) in [
                ("string", "string", 4, json!("text")),
                ("hash", "hash", 2, json!([["a", "1"], ["b", "2"]])),
                ("list", "list", 3, json!(["a", "b", "a"])),
                ("set", "set", 1, json!(["m"])),
                (
                    "zset",
                    "zset",
                    3,
                    json!([["c", "-Infinity"], ["a", 1.5], ["b", "Infinity"]]),
                ),
                (
                    "stream",
                    "stream",
                    1,
                    json!([{ "id": "5-1", "fields": { "f": "v", "g": "w" } }]),
                ),
            ] {
                let row = one(redis.read(&read(&key(name)), call()).await?)?;
                let ttl = row[2].as_i64();
                assert_eq!(ttl.is_some_and(|ttl| ttl > 99_000_000), name == "list");
                assert_eq!(
                    [&row[1], &row[3], &row[4], &row[5]],
                    [&json!(kind), &json!(length), &value, &Value::Null],
                    "{name} {protocol} {}",
                    server.flavor
                );
            }
            let row = one(redis.read(&read(&key("missing")), call()).await?)?;
            assert_eq!(row[1..], vec![Value::Null; 5]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn case_49_binary_keys_and_values_arrive_as_they_are() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let redis = server.source("reader", Mode::Read)?;
        let prefix = unique("binary");
        for (name, value) in [
            (&b"a b\r\n c"[..], &b"\0\xff\r\n"[..]),
            (b"\xff\0", "ü\n".as_bytes()),
            (b"empty", b""),
        ] {
            let key = Blob([prefix.as_bytes(), name].concat());
            let set = redis::cmd("SET").arg(&key.0).arg(value).to_owned();
            set.query_async::<()>(&mut bare).await?;
            let hash = Blob([&key.0, &b":hash"[..]].concat());
            let set = redis::cmd("HSET")
                .arg(&hash.0)
                .arg(value)
                .arg(value)
                .to_owned();
            set.query_async::<()>(&mut bare).await?;
            let asked = Read {
                keys: vec![key.clone(), hash.clone()],
                window: Window::default(),
            };
            let rows = redis.read(&asked, call()).await?.rows.into_rows();
            assert_eq!(Blob::from_json(&rows[0][0])?, key);
            assert_eq!(Blob::from_json(&rows[0][4])?.0, value);
            assert_eq!(Blob::from_json(&rows[1][4][0][0])?.0, value);
            assert_eq!(Blob::from_json(&rows[1][4][0][1])?.0, value);
        }
    }
    Ok(())
}

/// The windows of a key one after the other, as far as `next` leads.
async fn windows(redis: &Redis, key: &str, count: usize) -> Result<Vec<Value>> {
    let (mut windows, mut next) = (Vec::new(), None);
    loop {
        anyhow::ensure!(windows.len() < 10_000, "the windows never end");
        let row = one(redis
            .read(&window(key, next.as_deref(), count), call())
            .await?)?;
        windows.push(row[4].clone());
        match &row[5] {
            Value::Null => return Ok(windows),
            start => next = Some(start.as_str().context("a start")?.to_owned()),
        }
    }
}

#[tokio::test]
async fn windows_put_together_are_the_whole_value() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let redis = server.source("reader", Mode::Read)?;
        let prefix = unique("windows");
        // Few elements are kept in another way than many.
        for size in [50_usize, 1_000] {
            for (name, add) in [
                ("list", "RPUSH"),
                ("set", "SADD"),
                ("hash", "HSET"),
                ("zset", "ZADD"),
            ] {
                let key = format!("{prefix}:{size}:{name}");
                let mut command = redis::cmd(add);
                command.arg(&key);
                for number in 0..size {
                    if matches!(name, "hash" | "zset") {
                        command.arg(number);
                    }
                    command.arg(number);
                }
                command.query_async::<()>(&mut bare).await?;
                let windows = windows(&redis, &key, 7).await?;
                let elements: Vec<&Value> = windows
                    .iter()
                    .filter_map(Value::as_array)
                    .flatten()
                    .collect();
                let distinct: HashSet<String> = elements.iter().map(ToString::to_string).collect();
                assert_eq!(distinct.len(), size, "{key} {}", server.flavor);
                assert!(
                    windows
                        .iter()
                        .all(|w| w.as_array().is_some_and(|w| w.len() <= 7))
                );
                if matches!(name, "list" | "zset") {
                    assert_eq!(elements.len(), size);
                }
            }
        }
        let key = format!("{prefix}:stream");
        for number in 1..=20 {
            send(&mut bare, &format!("XADD {key} {number}-0 n {number}")).await?;
        }
        assert_eq!(windows(&redis, &key, 6).await?.len(), 4);
        let key = format!("{prefix}:text");
        let text = "ü1ß".repeat(1_000);
        redis::cmd("SET")
            .arg(&key)
            .arg(&text)
            .query_async::<()>(&mut bare)
            .await?;
        let parts = windows(&redis, &key, 333).await?;
        let together: Option<String> = parts.iter().map(Value::as_str).collect();
        assert_eq!(together.context("no texts")?, text);
    }
    Ok(())
}

#[tokio::test]
async fn case_49_a_huge_value_is_read_by_its_beginning_and_never_as_a_whole() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let redis = server.source("reader", Mode::Read)?;
        let key = unique("huge");
        // 100 MB: the server of the tests has no memory for 512.
        send(&mut bare, &format!("SETRANGE {key} 100000000 end")).await?;
        let row = one(redis.read(&read(&key), call()).await?)?;
        assert_eq!(row[3], 100_000_003);
        assert_eq!(row[5], "2000");
        let row = one(redis
            .read(&window(&key, Some("100000000"), 100), call())
            .await?)?;
        assert_eq!(row[4], "end");
        // As one answer it is more than is taken; that line is closed, and the next call has another one.
        let get = crate::support::argv(&format!("GET {key}"));
        let whole = redis.command(&get, false, call());
        let error = whole.await.err().context("taken")?;
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        assert_eq!(one(redis.read(&read(&key), call()).await?)?[3], 100_000_003);
        send(&mut bare, &format!("DEL {key}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_reply_stays_within_its_budget_and_says_where_it_goes_on() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let redis = server.source("reader", Mode::Read)?;
        let key = unique("budget");
        for _ in 0..100 {
            send(&mut bare, &format!("RPUSH {key} {}", "x".repeat(100))).await?;
        }
        let small = Call {
            budget: Budget {
                rows: 10,
                bytes: 1_000,
            },
            ..call()
        };
        let answer = redis.read(&read(&key), small).await?;
        assert_eq!(answer.rows.truncated(), Some(Truncation::Cells));
        let row = one(answer)?;
        let shown = row[4].as_array().map_or(0, Vec::len);
        assert!((5..12).contains(&shown), "{shown}");
        assert_eq!(row[5], shown.to_string());
        let error = redis.read(&window(&key, Some("x"), 1), call()).await.err();
        assert!(matches!(error, Some(Error::Value(_))), "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_pattern_finds_each_key_once_over_all_pages() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let redis = server.source("reader", Mode::Read)?;
        let prefix = unique("scan");
        let mut fill = redis::pipe();
        for number in 0..2_500 {
            fill.cmd("SET")
                .arg(format!("{prefix}:{number}"))
                .arg(1)
                .ignore();
        }
        fill.cmd("SADD")
            .arg(format!("{prefix}:set"))
            .arg(1)
            .ignore();
        fill.query_async::<()>(&mut bare).await?;
        let scan = Scan {
            pattern: format!("{prefix}:*").as_str().into(),
            kind: Some("string".to_owned()),
        };
        let scanned = redis.scan(&scan, call()).await?;
        assert!(scanned.at_least >= 100 && scanned.keys_in_database >= Some(2_501));
        assert_eq!(scanned.answer.rows.truncated(), Some(Truncation::Rows));
        let mut keys: Vec<Value> = Vec::new();
        let (mut answer, mut rest) = (scanned.answer, scanned.rest);
        loop {
            let goes_on = answer.rows.goes_on();
            for row in answer.rows.into_rows() {
                assert_eq!(row[1..], [json!("string"), Value::Null]);
                keys.push(row[0].clone());
            }
            // Keys come and go meanwhile, so that the server rehashes.
            send(&mut bare, &format!("SET {prefix}:x:{} 1", keys.len())).await?;
            let Some(rest) = rest.as_mut().filter(|_| goes_on) else {
                break;
            };
            answer = rest
                .next(Budget {
                    rows: 700,
                    ..Budget::default()
                })
                .await?;
        }
        keys.retain(|key| key.as_str().is_some_and(|key| !key.contains(":x:")));
        let distinct: HashSet<String> = keys.iter().map(Value::to_string).collect();
        assert_eq!(
            (keys.len(), distinct.len()),
            (2_500, 2_500),
            "{}",
            server.flavor
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_pattern_that_no_key_has_finds_nothing_and_is_over() -> Result<()> {
    for server in servers()? {
        let redis = server.source("reader", Mode::Read)?;
        let scan = Scan {
            pattern: "no such key".into(),
            kind: None,
        };
        let scanned = redis.scan(&scan, call()).await?;
        assert!(scanned.rest.is_none() && scanned.answer.rows.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn keys_outside_the_prefix_are_neither_read_nor_found() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let prefix = unique("jail");
        send(&mut bare, &format!("MSET {prefix}:in:a 1 {prefix}:out:a 2")).await?;
        let mut settings = server.settings("reader", Mode::Read)?;
        let free = Redis::open(&settings)?;
        settings.special.key_prefix = Some(format!("{prefix}:in:"));
        let jailed = Redis::open(&settings)?;
        let inside = one(jailed
            .read(&read(&format!("{prefix}:in:a")), call())
            .await?)?;
        assert_eq!(inside[4], "1");
        let outside = read(&format!("{prefix}:out:a"));
        let error = jailed.read(&outside, call()).await.err();
        assert!(
            matches!(error, Some(Error::OutsidePrefix { .. })),
            "{error:?}"
        );
        assert_eq!(one(free.read(&outside, call()).await?)?[4], "2");
        let scan = Scan {
            pattern: format!("{prefix}:*").as_str().into(),
            kind: None,
        };
        assert_eq!(jailed.scan(&scan, call()).await?.answer.rows.len(), 1);
        assert_eq!(free.scan(&scan, call()).await?.answer.rows.len(), 2);
    }
    Ok(())
}

#[tokio::test]
async fn keys_that_a_user_may_not_read_are_an_error_with_its_name() -> Result<()> {
    for server in servers()? {
        let redis = server.source("app", Mode::Read)?;
        let error = redis.read(&read("other"), call()).await.err();
        assert_eq!(
            error.and_then(|error| error.refusal()),
            Some(Refusal::NoPerm)
        );
        let row = one(redis.read(&read("app:missing"), call()).await?)?;
        assert_eq!(row[1], Value::Null);
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_the_next_one_clean() -> Result<()> {
    let Some(server) = server("redis")? else {
        return Ok(());
    };
    let redis = server.source("reader", Mode::Read)?;
    let key = unique("dropped");
    let read = read(&key);
    for _ in 0..20 {
        let reading = redis.read(&read, call());
        drop(tokio::time::timeout(Duration::from_micros(200), reading).await);
        assert_eq!(one(redis.read(&read, call()).await?)?[0], json!(key));
    }
    Ok(())
}
