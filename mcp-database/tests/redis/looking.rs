//! What a source says of its server and its user.

use anyhow::{Context as _, Result};
use mcp_database::finding::{Severity, Status};
use mcp_database::redis::Redis;
use mcp_database::redis::info::Product;
use mcp_database::redis::posture::Posture;
use mcp_database::redis::read::Read;
use mcp_database::redis::scan::Scan;
use mcp_database::redis::write::{Condition, Ttl, Write};
use mcp_database::source::Mode;
use serde_json::json;

use crate::support::{argv, call, one, send, server, servers, settings, unique};

fn says(posture: &Posture, severity: Severity, part: &str) -> bool {
    let mut findings = posture.findings.iter();
    findings.any(|finding| finding.severity == severity && finding.finding.contains(part))
}

#[tokio::test]
async fn a_server_is_known_by_its_product_and_version() -> Result<()> {
    for server in servers()? {
        let posture = server.source("reader", Mode::Read)?.posture(call()).await?;
        let (product, major) = match server.flavor {
            "valkey" => (Product::Valkey, "9."),
            _ => (Product::Redis, "7."),
        };
        assert_eq!(posture.product, product);
        assert!(
            posture
                .version
                .is_some_and(|version| version.starts_with(major))
        );
        assert_eq!(posture.user.as_deref(), Some("reader"));
        assert!(posture.modules.is_empty());
    }
    if let Some(server) = server("search")? {
        for user in ["reader", "admin"] {
            let posture = server.source(user, Mode::Read)?.posture(call()).await?;
            let mut modules = posture.modules;
            modules.retain(|module| module == "search" || module == "ReJSON");
            modules.sort();
            assert_eq!(modules, ["ReJSON", "search"], "{user}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_a_user_could_do_is_found_with_the_line_that_mends_it() -> Result<()> {
    for server in servers()? {
        let strong = server.source("admin", Mode::Read)?.posture(call()).await?;
        for part in [
            "may write",
            "configuration",
            "change users",
            "stop the server",
        ] {
            assert!(says(&strong, Severity::High, part), "{part} {strong:?}");
        }
        assert!(says(&strong, Severity::Medium, "empty the database"));
        assert!(says(&strong, Severity::Medium, "run scripts"));
        let advice = &strong.findings[0].advice;
        let line = advice
            .strip_prefix("as an administrator: ")
            .context("no line")?;
        // The line is good for what the source does, and mends what was found.
        let mut bare = server.bare().await?;
        let user = unique("mended").replace(':', "_");
        let line = line.replace(" admin ", &format!(" {user} "));
        send(
            &mut bare,
            &line.replace("PASSWORD", crate::server::password()),
        )
        .await?;
        let mended = server.source(&user, Mode::Read)?;
        let weak = mended.posture(call()).await?;
        assert!(
            weak.findings.iter().all(|f| f.severity == Severity::Low),
            "{weak:?}"
        );
        mended.command(&argv("GET a"), false, call()).await?;
        let health = mended.health(&[], call()).await?;
        assert!(health.iter().any(|check| check.check == "memory"));
    }
    Ok(())
}

#[tokio::test]
async fn a_user_that_reads_is_good_for_reading() -> Result<()> {
    for server in servers()? {
        let posture = server.source("reader", Mode::Read)?.posture(call()).await?;
        let worst = posture.findings.first().map(|finding| finding.severity);
        assert!(worst <= Some(Severity::Low), "{posture:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_prefix_that_only_this_server_keeps_is_told() -> Result<()> {
    for server in servers()? {
        for (user, is_found) in [("reader", true), ("app", false)] {
            let mut settings = server.settings(user, Mode::Write)?;
            settings.special.key_prefix = Some("app:".to_owned());
            let posture = Redis::open(&settings)?.posture(call()).await?;
            let found = says(&posture, Severity::Medium, "without the source's prefix");
            assert_eq!(found, is_found, "{user} {posture:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_default_user_without_a_password_is_told() -> Result<()> {
    let Some(server) = server("search")? else {
        return Ok(());
    };
    let redis = server.source("reader", Mode::Read)?;
    let part = "without a password";
    assert!(!says(&redis.posture(call()).await?, Severity::High, part));
    let mut bare = server.bare().await?;
    send(&mut bare, "ACL SETUSER default nopass").await?;
    let posture = redis.posture(call()).await?;
    let line = format!(
        "ACL SETUSER default resetpass >{}",
        crate::server::password()
    );
    send(&mut bare, &line).await?;
    assert!(says(&posture, Severity::High, part), "{posture:?}");
    Ok(())
}

#[tokio::test]
async fn health_names_slow_commands_and_big_keys_and_no_arguments() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let secret = unique("secretvalue");
        send(&mut bare, &format!("SET {secret} {secret}")).await?;
        let redis = server.source("reader", Mode::Read)?;
        let health = redis.health(&[], call()).await?;
        let names: Vec<&str> = health.iter().map(|check| check.check.as_str()).collect();
        assert_eq!(
            names,
            [
                "memory",
                "fragmentation",
                "eviction",
                "clients",
                "persistence",
                "replication",
                "slow_commands",
                "big_keys"
            ]
        );
        let slow = health.iter().find(|check| check.check == "slow_commands");
        let slow = slow.context("not looked at")?;
        assert!(slow.value.contains("longest_ms"));
        assert!(!slow.value.contains("secretvalue"));
        let big = health.iter().find(|check| check.check == "big_keys");
        assert!(big.is_some_and(|big| big.value.contains("largest bytes")));
        let wanted = ["clients".to_owned(), "big_keys".to_owned()];
        let some = redis.health(&wanted, call()).await?;
        let some: Vec<&str> = some.iter().map(|check| check.check.as_str()).collect();
        assert_eq!(some, wanted);
        assert!(
            redis
                .health(&["nonsense".to_owned()], call())
                .await?
                .is_empty()
        );
        let app = server
            .source("app", Mode::Read)?
            .health(&[], call())
            .await?;
        let unseen = app.iter().find(|check| check.check == "info");
        assert!(
            unseen.is_some_and(
                |check| check.status == Status::Warn && check.value == "not to be seen"
            )
        );
    }
    Ok(())
}

/// Dragonfly is not to be had here; a user without the commands that it lacks stands for it.
#[tokio::test]
async fn case_57_nothing_needs_a_command_that_dragonfly_lacks() -> Result<()> {
    const LACKS: &str = "~* &* +@all -reset -copy -wait -object -latency -memory|stats -memory|doctor -module|list \
        -command|docs -command|list -command|info -swapdb -script|kill -client|info -client|no-evict -client|unblock \
        -acl|dryrun -fcall -function";
    for server in servers()? {
        let mut bare = server.bare().await?;
        let user = server.user(&mut bare, LACKS).await?;
        let key = unique("dragonfly");
        for protocol in [2, 3] {
            let url = format!(
                "redis://{user}@127.0.0.1:{}?protocol={protocol}",
                server.port
            );
            let redis = Redis::open(&settings(&url, Mode::Write)?)?;
            for expected in [None, Some("1".into())] {
                let write = Write::Set {
                    key: key.as_str().into(),
                    value: "1".into(),
                    condition: Condition::IfEquals(expected),
                    ttl: Ttl::Forever,
                };
                redis.write(&write, false, call()).await?;
            }
            let read = Read {
                keys: vec![key.as_str().into()],
                ..Read::default()
            };
            assert_eq!(one(redis.read(&read, call()).await?)?[4], json!("1"));
            let scan = Scan {
                pattern: key.as_str().into(),
                kind: None,
            };
            assert_eq!(redis.scan(&scan, call()).await?.answer.rows.len(), 1);
            redis
                .command(&argv(&format!("GET {key}")), false, call())
                .await?;
            let posture = redis.posture(call()).await?;
            assert!(
                says(&posture, Severity::High, "configuration"),
                "{posture:?}"
            );
            redis.health(&[], call()).await?;
        }
    }
    Ok(())
}
