//! The gate before raw commands, each of its layers on its own.

use anyhow::{Context as _, Result};
use mcp_database::redis::command::GateError;
use mcp_database::redis::error::{Error, Refusal};
use mcp_database::redis::run::Layers;
use mcp_database::redis::{Call, Redis};
use mcp_database::source::Mode;
use mcp_database::table::Budget;
use serde_json::{Value, json};

use crate::support::{argv, call, one, send, servers, settings, unique};

/// What no source may send, in the ways that it is tried.
const NEVER: [&str; 34] = [
    "KEYS *",
    "keys *",
    "FLUSHALL",
    "FlushDB",
    "EVAL return(1) 0",
    "EVAL_RO return(1) 0",
    "FCALL f 0",
    "CONFIG SET maxmemory 0",
    "CONFIG GET *",
    "DEBUG SLEEP 1",
    "SHUTDOWN NOSAVE",
    "RESET",
    "AUTH default x",
    "HELLO 3",
    "SELECT 1",
    "QUIT",
    "MULTI",
    "MEMORY PURGE",
    "MEMORY DOCTOR",
    "CLIENT REPLY OFF",
    "CLIENT KILL TYPE normal",
    "CLIENT NO-EVICT on",
    "MONITOR",
    "SYNC",
    "PSYNC ? -1",
    "REPLICAOF NO ONE",
    "SAVE",
    "SWAPDB 0 1",
    "ACL SETUSER x on",
    "MODULE LOAD /x",
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "BLPOP a 0",
    "SUBSCRIBE a",
];

#[tokio::test]
async fn case_51_what_may_never_be_sent_is_refused_whoever_asks() -> Result<()> {
    for server in servers()? {
        for mode in [Mode::Read, Mode::Write] {
            let redis = server.source("admin", mode)?;
            for line in NEVER {
                let error = redis.command(&argv(line), true, call()).await.err();
                assert!(
                    matches!(error, Some(Error::Gate(GateError::Never { .. }))),
                    "{line}: {error:?}"
                );
            }
            for line in ["\u{20}KEYS", "GET\0", "config|get", "FLUSHALL\r\n", ""] {
                let error = redis
                    .command(&[line.into(), "*".into()], true, call())
                    .await;
                assert!(
                    matches!(error.err(), Some(Error::Gate(GateError::Name(_)))),
                    "{line:?}"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_servers_own_word_refuses_what_the_list_would_not() -> Result<()> {
    let without_list = Layers {
        list: false,
        ..Layers::ALL
    };
    for server in servers()? {
        let read = server.source("admin", Mode::Read)?;
        let write = server.source("admin", Mode::Write)?;
        for line in NEVER {
            for redis in [&read, &write] {
                let argv = argv(line);
                let sent = redis.command_within(&argv, true, without_list, call());
                let error = sent.await.err();
                assert!(
                    matches!(error, Some(Error::Gate(GateError::Flags { .. }))),
                    "{line}: {error:?}"
                );
            }
        }
        let key = unique("flags");
        let set = argv(&format!("SET {key} 1"));
        let error = read.command_within(&set, true, without_list, call()).await;
        assert!(matches!(
            error.err(),
            Some(Error::Gate(GateError::Flags { .. }))
        ));
        // With neither layer it is done: each of them was what stood before it.
        let neither = Layers {
            list: false,
            flags: false,
            prefix: false,
        };
        read.command_within(&set, true, neither, call()).await?;
        let config = argv("CONFIG GET maxmemory");
        read.command_within(&config, true, neither, call()).await?;
        let mut bare = server.bare().await?;
        assert_eq!(
            send(&mut bare, &format!("GET {key}")).await?,
            redis::Value::BulkString(b"1".to_vec())
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_read_source_reads_and_a_write_source_writes() -> Result<()> {
    for server in servers()? {
        let read = server.source("admin", Mode::Read)?;
        let write = server.source("admin", Mode::Write)?;
        let key = unique("modes");
        let set = argv(&format!("sEt {key} 1"));
        let error = read.command(&set, true, call()).await.err();
        assert!(matches!(error, Some(Error::Gate(GateError::ReadSource(_)))));
        write.command(&set, false, call()).await?;
        let get = argv(&format!("gEt {key}"));
        assert_eq!(one(read.command(&get, false, call()).await?.0)?, ["1"]);
        let delete = argv(&format!("DEL {key}"));
        let error = write.command(&delete, false, call()).await.err();
        assert!(matches!(
            error,
            Some(Error::Gate(GateError::Unconfirmed(_)))
        ));
        let deleted = write.command(&delete, true, call()).await?.0;
        assert_eq!(one(deleted)?, [1]);
    }
    Ok(())
}

#[tokio::test]
async fn every_command_of_the_lists_passes_the_servers_word_or_is_unknown_to_it() -> Result<()> {
    for server in servers()? {
        let read = server.source("admin", Mode::Read)?;
        for line in [
            "PING",
            "ECHO a",
            "TIME",
            "DBSIZE",
            "RANDOMKEY",
            "SCAN 0",
            "EXISTS a",
            "TYPE a",
            "TTL a",
            "GET a",
            "MGET a b",
            "STRLEN a",
            "BITCOUNT a",
            "HGETALL b",
            "HSCAN b 0",
            "LRANGE c 0 1",
            "SMEMBERS d",
            "ZRANGE e 0 1",
            "ZUNION 2 e f",
            "SINTERCARD 2 d g",
            "XLEN h",
            "XRANGE h - +",
            "PFCOUNT i",
            "OBJECT ENCODING a",
            "MEMORY USAGE a",
            "DUMP a",
            "LCS a b",
            "GEOSEARCH j FROMLONLAT 0 0 BYRADIUS 1 m",
            "BITFIELD_RO a GET u8 0",
            "EXPIRETIME a",
        ] {
            let outcome = read.command(&argv(line), false, call()).await;
            match outcome {
                Ok(_) | Err(Error::Server { .. }) => {}
                Err(error) => anyhow::bail!("{line}: {error}"),
            }
        }
        for line in ["XINFO STREAM nosuch", "XINFO GROUPS nosuch"] {
            let error = read.command(&argv(line), false, call()).await.err();
            assert_eq!(
                error.and_then(|e| e.refusal()),
                Some(Refusal::Other),
                "{line}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn keys_of_a_command_have_the_prefix_or_it_is_refused() -> Result<()> {
    for server in servers()? {
        let base = unique("jail");
        let mut settings = server.settings("admin", Mode::Write)?;
        settings.special.key_prefix = Some(format!("{base}:"));
        let redis = Redis::open(&settings)?;
        let fill = argv(&format!("MSET {base}:a 1 {base}:b 2"));
        redis.command(&fill, false, call()).await?;
        for line in [
            "GET other".to_owned(),
            format!("MGET {base}:a other"),
            format!("MSET {base}:a 1 other 2"),
            format!("RENAME {base}:a other"),
            format!("ZUNION 2 {base}:a other"),
            format!("ZUNIONSTORE other 1 {base}:a"),
            format!("BITOP AND {base}:a other"),
            "OBJECT ENCODING other".to_owned(),
            "MEMORY USAGE other".to_owned(),
        ] {
            let error = redis.command(&argv(&line), true, call()).await.err();
            assert!(
                matches!(error, Some(Error::OutsidePrefix { .. })),
                "{line} {error:?}"
            );
        }
        for line in ["SCAN 0", "RANDOMKEY", "ZUNION 3 a b"] {
            let error = redis.command(&argv(line), true, call()).await.err();
            assert!(
                matches!(error, Some(Error::Gate(GateError::Keyless(_)))),
                "{line} {error:?}"
            );
        }
        let without = Layers {
            prefix: false,
            ..Layers::ALL
        };
        let other = argv("GET other");
        redis.command_within(&other, false, without, call()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn answers_have_the_same_rows_in_both_protocols_and_go_on() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let key = unique("rows");
        for number in 0..30 {
            send(&mut bare, &format!("RPUSH {key} {number}")).await?;
        }
        send(&mut bare, &format!("HSET {key}:hash f v")).await?;
        for protocol in [2, 3] {
            let url = format!(
                "redis://reader@127.0.0.1:{}?protocol={protocol}",
                server.port
            );
            let redis = Redis::open(&settings(&url, Mode::Read)?)?;
            let small = Call {
                budget: Budget {
                    rows: 20,
                    bytes: 10_000,
                },
                ..call()
            };
            let range = argv(&format!("LRANGE {key} 0 -1"));
            let (answer, rest) = redis.command(&range, false, small).await?;
            assert!(answer.rows.goes_on());
            let first = answer.rows.into_rows();
            let mut rest = rest.context("nothing is left")?;
            let second = rest.next(small.budget).await?;
            assert!(!second.rows.goes_on());
            let all: Vec<Value> = [first, second.rows.into_rows()].concat().concat();
            let expected: Vec<Value> = (0..30).map(|number| json!(number.to_string())).collect();
            assert_eq!(all, expected);
            let hash = argv(&format!("HGETALL {key}:hash"));
            let rows = redis
                .command(&hash, false, call())
                .await?
                .0
                .rows
                .into_rows();
            assert_eq!(rows.concat(), ["f", "v"]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_tells_nothing_of_commands_leaves_it_to_the_list() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        // As on a server that lacks COMMAND INFO.
        let user = server.user(&mut bare, "~* +@all -command").await?;
        let redis = server.source(&user, Mode::Read)?;
        redis.command(&argv("GET a"), false, call()).await?;
        let error = redis.command(&argv("CONFIG GET *"), false, call()).await;
        assert!(matches!(
            error.err(),
            Some(Error::Gate(GateError::Never { .. }))
        ));
    }
    Ok(())
}
