//! Subscriptions: what came, what was lost, and who may ask.

use std::time::Duration;

use anyhow::{Context as _, Result};
use mcp_database::redis::Redis;
use mcp_database::redis::bus::BusError;
use mcp_database::redis::error::{Error, Refusal};
use mcp_database::redis::subscribe::{KEPT_MESSAGES, MOST_OF_ONE, Polled, Wanted};
use mcp_database::source::Mode;
use mcp_database::table::Budget;
use serde_json::{Value, json};

use crate::support::{call, send, servers, unique};

const WAIT: Duration = Duration::from_secs(20);

fn channels(names: &[&str]) -> Wanted {
    Wanted {
        channels: names.iter().map(|name| (*name).to_owned()).collect(),
        patterns: Vec::new(),
    }
}

async fn poll(redis: &Redis, handle: &str) -> Result<Polled, Error> {
    redis
        .poll(
            "me",
            handle,
            1_000,
            WAIT,
            Budget {
                rows: 1_000,
                bytes: 1_000_000,
            },
        )
        .await
}

#[tokio::test]
async fn what_is_sent_is_there_at_the_next_poll() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let channel = format!("app:{}", unique("channel"));
        let redis = server.bus("admin", Mode::Read, &["app:*"])?;
        let wanted = Wanted {
            channels: vec![channel.clone()],
            patterns: vec![format!("{channel}:[ab]")],
        };
        let handle = redis.subscribe("me", &wanted, call()).await?.handle;
        redis::cmd("PUBLISH")
            .arg(&channel)
            .arg(&b"\xff\0"[..])
            .query_async::<()>(&mut bare)
            .await?;
        send(&mut bare, &format!("PUBLISH {channel}:a second")).await?;
        send(&mut bare, &format!("PUBLISH {channel}:c never")).await?;
        let mut rows: Vec<Vec<Value>> = Vec::new();
        while rows.len() < 2 {
            let polled = poll(&redis, &handle).await?;
            assert_eq!(
                (polled.dropped, polled.gap, polled.connected),
                (0, false, true)
            );
            rows.extend(polled.answer.rows.into_rows());
        }
        assert_eq!(
            rows,
            [
                [
                    json!(channel),
                    Value::Null,
                    json!({ "$bytes": 2, "base64": "/wA=" })
                ],
                [
                    json!(format!("{channel}:a")),
                    json!(format!("{channel}:[ab]")),
                    json!("second")
                ],
            ]
        );
        redis.unsubscribe("me", &handle)?;
        let error = poll(&redis, &handle).await.err();
        assert!(matches!(error, Some(Error::Bus(BusError::Handle(_)))));
    }
    Ok(())
}

#[tokio::test]
async fn case_55_a_flood_is_dropped_from_its_beginning_and_counted() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let channel = format!("app:{}", unique("flood"));
        let redis = server.bus("app", Mode::Read, &["app:*"])?;
        let handle = redis
            .subscribe("me", &channels(&[&channel]), call())
            .await?
            .handle;
        let all = KEPT_MESSAGES + 500;
        for number in 0..all {
            send(&mut bare, &format!("PUBLISH {channel} {number}")).await?;
        }
        let (mut came, mut dropped) = (Vec::new(), 0);
        while came.last() != Some(&json!((all - 1).to_string())) {
            let polled = poll(&redis, &handle).await?;
            dropped += polled.dropped;
            let rows = polled.answer.rows.into_rows();
            came.extend(rows.into_iter().filter_map(|mut row| row.pop()));
        }
        assert_eq!(came.len() + usize::try_from(dropped)?, all);
        assert!(dropped > 0);
    }
    Ok(())
}

#[tokio::test]
async fn case_55_a_lost_connection_is_told_and_made_anew() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let user = server.user(&mut bare, "~* &* +@all").await?;
        let channel = unique("gap");
        let redis = server.bus(&user, Mode::Read, &[&channel])?;
        let handle = redis
            .subscribe("me", &channels(&[&channel]), call())
            .await?
            .handle;
        send(&mut bare, &format!("CLIENT KILL USER {user}")).await?;
        let mut polled = poll(&redis, &handle).await?;
        assert!(polled.gap);
        while !polled.connected {
            polled = poll(&redis, &handle).await?;
            assert!(polled.gap);
        }
        send(&mut bare, &format!("PUBLISH {channel} again")).await?;
        let mut rows = Vec::new();
        while rows.is_empty() {
            let polled = poll(&redis, &handle).await?;
            rows = polled.answer.rows.into_rows();
        }
        assert_eq!(rows[0][2], "again");
    }
    Ok(())
}

#[tokio::test]
async fn a_subscription_is_its_owners_and_there_are_not_too_many() -> Result<()> {
    for server in servers()? {
        let redis = server.bus("app", Mode::Read, &["app:*"])?;
        let mut handles = Vec::new();
        for _ in 0..MOST_OF_ONE {
            handles.push(
                redis
                    .subscribe("me", &channels(&["app:a"]), call())
                    .await?
                    .handle,
            );
        }
        let error = redis
            .subscribe("me", &channels(&["app:a"]), call())
            .await
            .err();
        assert!(matches!(
            error,
            Some(Error::Bus(BusError::TooManySubscriptions(MOST_OF_ONE)))
        ));
        let handle = handles.first().context("no handle")?;
        let stolen = redis
            .poll("other", handle, 1, Duration::ZERO, Budget::default())
            .await;
        assert!(matches!(
            stolen.err(),
            Some(Error::Bus(BusError::Handle(_)))
        ));
        assert!(redis.unsubscribe("other", handle).is_err());
        redis
            .poll("me", handle, 1, Duration::ZERO, Budget::default())
            .await?;
        redis.unsubscribe("me", handle)?;
        redis.subscribe("me", &channels(&["app:a"]), call()).await?;
        for owner in ["b", "c", "d"] {
            for _ in 0..MOST_OF_ONE {
                redis
                    .subscribe(owner, &channels(&["app:a"]), call())
                    .await?;
            }
        }
        let error = redis
            .subscribe("e", &channels(&["app:a"]), call())
            .await
            .err();
        assert!(matches!(
            error,
            Some(Error::Bus(BusError::TooManySubscriptions(16)))
        ));
    }
    Ok(())
}

#[tokio::test]
async fn only_the_named_channels_are_listened_to() -> Result<()> {
    for server in servers()? {
        let redis = server.bus("admin", Mode::Read, &["app:mail:*", "app:jobs"])?;
        for (channels, patterns) in [
            (vec!["app:other"], vec![]),
            (vec![], vec!["*"]),
            (vec![], vec!["app:*"]),
            (vec![], vec!["app:mai[l]:*"]),
            (vec![], vec!["app:jobs*"]),
            (vec![], vec!["app:jobs"]),
            (vec!["app:jobs"], vec!["?"]),
        ] {
            let wanted = Wanted {
                channels: channels.into_iter().map(str::to_owned).collect(),
                patterns: patterns.into_iter().map(str::to_owned).collect(),
            };
            let error = redis.subscribe("me", &wanted, call()).await.err();
            assert!(
                matches!(error, Some(Error::Bus(BusError::Unlisted { .. }))),
                "{wanted:?}"
            );
        }
        let error = redis
            .subscribe("me", &Wanted::default(), call())
            .await
            .err();
        assert!(matches!(error, Some(Error::Bus(BusError::Count { .. }))));
        let wanted = Wanted {
            channels: vec!["app:jobs".to_owned()],
            patterns: vec!["app:mail:?".to_owned()],
        };
        redis.subscribe("me", &wanted, call()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_of_the_server_is_told_by_the_call() -> Result<()> {
    for server in servers()? {
        let redis = server.bus("app", Mode::Read, &["*"])?;
        let error = redis.subscribe("me", &channels(&["other"]), call()).await;
        let error = error.err().context("subscribed")?;
        assert_eq!(error.refusal(), Some(Refusal::NoPerm), "{error}");
        let denied = server.bus("denied", Mode::Read, &["*"])?;
        let error = denied.subscribe("me", &channels(&["other"]), call()).await;
        let error = error.err().context("subscribed")?;
        assert_eq!(error.refusal(), Some(Refusal::WrongPass), "{error}");
    }
    Ok(())
}
