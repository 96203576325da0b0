//! What a broken way, a broken server, or one in a bad way does to a call, and that the next one works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mcp_database::redis::error::{Error, Refusal};
use mcp_database::redis::read::Read;
use mcp_database::redis::scan::Scan;
use mcp_database::redis::write::{Condition, Ttl, Write};
use mcp_database::redis::{Call, Redis};
use mcp_database::source::Mode;
use mcp_database::table::Truncation;
use redis::Value;
use shared::tool_error::ToolError;

use crate::fake::fake;
use crate::proxy::{Fault, Proxy};
use crate::support::{call, send, servers, settings, unique};

/// A call that waits for nothing for long.
fn brief() -> Call {
    Call {
        timeout: Duration::from_millis(300),
        ..call()
    }
}

fn read(key: &str) -> Read {
    Read {
        keys: vec![key.into()],
        ..Read::default()
    }
}

fn scan() -> Scan {
    Scan {
        pattern: "no such key".into(),
        kind: None,
    }
}

fn open(port: u16) -> Result<Redis> {
    let url = format!("redis://admin@127.0.0.1:{port}");
    Ok(Redis::open(&settings(&url, Mode::Write)?)?)
}

fn name(error: Option<&Error>) -> &'static str {
    match error {
        None => "ok",
        Some(Error::Connection { .. } | Error::Lost { .. }) => "connection",
        Some(Error::Timeout { .. }) => "timeout",
        Some(Error::Protocol { .. }) => "protocol",
        Some(Error::TooLarge { .. }) => "too large",
        Some(Error::Server { .. }) => "server",
        Some(_) => "other",
    }
}

#[tokio::test]
async fn whatever_happens_on_the_way_is_told_and_the_next_call_works() -> Result<()> {
    for server in servers()? {
        let proxy = Proxy::before(server.port).await?;
        let redis = open(proxy.port)?;
        for (fault, expected) in [
            (Fault::Cut, "connection"),
            (Fault::CutAfter(3), "connection"),
            (Fault::Stall, "timeout"),
            (
                Fault::Garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
                "protocol",
            ),
            (Fault::Garbage(b"\x15\x03\x03\0\x02\x02\x16"), "protocol"),
            (Fault::Garbage(b"$-"), "timeout"),
            (Fault::Garbage(b":1x\r\n"), "protocol"),
            (Fault::Garbage(b"-ERR \xff\r\n"), "protocol"),
        ] {
            // Both the connection that all share and a line of one's own are open when it happens.
            redis.scan(&scan(), call()).await?;
            redis.read(&read("missing"), call()).await?;
            proxy.set(fault);
            let error = redis.scan(&scan(), brief()).await.err();
            assert_eq!(name(error.as_ref()), expected, "{fault:?} {error:?}");
            // Of several commands at once the library only says that the connection is gone.
            let error = redis.read(&read("missing"), brief()).await.err();
            let of_several = match expected {
                "protocol" => "connection",
                expected => expected,
            };
            assert_eq!(name(error.as_ref()), of_several, "{fault:?} {error:?}");
            proxy.set(Fault::None);
            redis.scan(&scan(), call()).await?;
            redis.read(&read("missing"), call()).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn of_a_write_that_was_cut_it_is_told_that_nobody_knows() -> Result<()> {
    for server in servers()? {
        let proxy = Proxy::before(server.port).await?;
        let redis = open(proxy.port)?;
        let key = unique("cut");
        redis.read(&read("missing"), call()).await?;
        proxy.set(Fault::Cut);
        let write = Write::Set {
            key: key.as_str().into(),
            value: "1".into(),
            condition: Condition::Always,
            ttl: Ttl::Forever,
        };
        let error = redis.write(&write, false, call()).await.err();
        assert_eq!(name(error.as_ref()), "connection");
        let mut bare = server.bare().await?;
        let held = send(&mut bare, &format!("GET {key}")).await?;
        assert_eq!(held, Value::BulkString(b"1".to_vec()));
    }
    Ok(())
}

#[tokio::test]
async fn case_54_what_a_server_in_a_bad_way_says_is_told_apart() -> Result<()> {
    for (said, expected) in [
        (
            "-READONLY You can't write against a read only replica.",
            Refusal::ReadOnlyReplica,
        ),
        (
            "-LOADING Redis is loading the dataset in memory",
            Refusal::Loading,
        ),
        (
            "-OOM command not allowed when used memory > 'maxmemory'.",
            Refusal::OutOfMemory,
        ),
        ("-MOVED 3999 127.0.0.1:6381", Refusal::Moved),
        ("-NOPERM this user has no permissions", Refusal::NoPerm),
        ("-NOAUTH Authentication required.", Refusal::NoAuth),
        ("-BUSY Redis is busy running a script.", Refusal::Busy),
        (
            "-MISCONF Errors writing to the AOF file",
            Refusal::NotPersisted,
        ),
        ("-WRONGTYPE Operation against a key", Refusal::WrongType),
        ("-ERR unknown command 'UNLINK'", Refusal::UnknownCommand),
        ("-SOMETHING new", Refusal::Other),
    ] {
        let (port, server) = fake(move |_| format!("{said}\r\n").into_bytes()).await?;
        let redis = open(port)?;
        let delete = Write::Delete {
            keys: vec!["a".into()],
        };
        let error = redis
            .write(&delete, false, call())
            .await
            .err()
            .context("written")?;
        assert_eq!(error.refusal(), Some(expected), "{said}");
        let told = ToolError::from(error);
        assert_eq!(told.hint.is_some(), expected != Refusal::Other, "{said}");
        server.abort();
    }
    Ok(())
}

#[tokio::test]
async fn case_52_a_scan_that_never_ends_is_left_and_can_be_gone_on_with() -> Result<()> {
    // Cursors that no JSON reader would keep, and never zero.
    let next = Arc::new(AtomicU64::new(1 << 60));
    let (port, _server) = fake(move |command| {
        if command.starts_with("DBSIZE") {
            return b":5\r\n".to_vec();
        }
        let cursor = next.fetch_add(1, Ordering::Relaxed).to_string();
        format!("*2\r\n${}\r\n{cursor}\r\n*0\r\n", cursor.len()).into_bytes()
    })
    .await?;
    let scanned = open(port)?.scan(&scan(), call()).await?;
    assert_eq!(scanned.answer.rows.truncated(), Some(Truncation::Time));
    assert!(scanned.rest.is_some());
    Ok(())
}

#[tokio::test]
async fn case_52_a_cursor_that_comes_back_is_the_end() -> Result<()> {
    let (port, _server) = fake(|command| {
        let answer: &[u8] = match command.split(' ').next() {
            Some("TYPE") => b"+hash\r\n",
            Some("PTTL") => b":-1\r\n",
            Some("HLEN" | "DBSIZE") => b":0\r\n",
            // As Dragonfly does for a key that is gone meanwhile, and the same for SCAN.
            _ => b"*2\r\n$1\r\n7\r\n*0\r\n",
        };
        answer.to_vec()
    })
    .await?;
    let redis = open(port)?;
    let window = mcp_database::redis::read::Window {
        start: Some("7.0".to_owned()),
        count: None,
    };
    let hash = Read {
        window,
        ..read("gone")
    };
    let rows = redis.read(&hash, call()).await?.rows.into_rows();
    assert!(rows[0][5].is_null());
    let scanned = redis.scan(&scan(), call()).await?;
    assert!(scanned.rest.is_none());
    Ok(())
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut_off() -> Result<()> {
    let (port, _server) = fake(|command| {
        let answer: &[u8] = match command.split(' ').next() {
            Some("TYPE") => b"+string\r\n",
            Some("PTTL") => b":-1\r\n",
            Some("STRLEN") => b":1\r\n",
            _ => b"",
        };
        if answer.is_empty() {
            let mut endless = b"$500000000\r\n".to_vec();
            endless.resize(20 * 1024 * 1024, b'x');
            return endless;
        }
        answer.to_vec()
    })
    .await?;
    let error = open(port)?.read(&read("huge"), call()).await.err();
    assert_eq!(name(error.as_ref()), "too large", "{error:?}");
    Ok(())
}

#[tokio::test]
async fn case_70_many_calls_at_once_all_get_their_own_answer() -> Result<()> {
    for server in servers()? {
        let redis = server.source("admin", Mode::Write)?;
        let key = unique("many");
        let calls: Vec<_> = (0..100)
            .map(|number| {
                let (redis, key) = (redis.clone(), format!("{key}:{number}"));
                tokio::spawn(async move {
                    let write = Write::Set {
                        key: key.as_str().into(),
                        value: key.as_str().into(),
                        condition: Condition::Always,
                        ttl: Ttl::Forever,
                    };
                    redis.write(&write, false, call()).await?;
                    let rows = redis.read(&read(&key), call()).await?.rows.into_rows();
                    anyhow::Ok((rows[0][4].clone(), key))
                })
            })
            .collect();
        for call in calls {
            let (held, key) = call.await??;
            assert_eq!(held, key.as_str());
        }
    }
    Ok(())
}
