//! The message bus: nothing is lost that a consumer does not come back for, and what nobody can work off is buried.

use std::time::Duration;

use anyhow::{Context as _, Result};
use mcp_database::redis::Redis;
use mcp_database::redis::bus::claim::Claim;
use mcp_database::redis::bus::{Beginning, BusError, Membership, Take};
use mcp_database::redis::error::{Error, Refusal};
use mcp_database::redis::read::Read;
use mcp_database::redis::search::Search;
use mcp_database::redis::subscribe::Wanted;
use mcp_database::redis::value::Blob;
use mcp_database::source::Mode;
use mcp_database::table::Budget;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::support::{Server, call, send, servers, settings, unique, wait_for};

const AT_ONCE: Duration = Duration::ZERO;

async fn publish(redis: &Redis, stream: &str, text: &str) -> Result<String> {
    let fields = [("text".into(), text.into())];
    Ok(redis.publish(stream, &fields, None, call()).await?.id)
}

fn take(stream: &str, consumer: Option<&str>) -> Take {
    Take {
        stream: stream.to_owned(),
        member: consumer.map(|consumer| Membership {
            group: "workers".to_owned(),
            consumer: consumer.to_owned(),
            create: Some(Beginning::First),
        }),
        after: None,
        count: 10,
        block: AT_ONCE,
    }
}

fn claim(stream: &str, consumer: &str, max_deliveries: u32) -> Claim {
    Claim {
        stream: stream.to_owned(),
        group: "workers".to_owned(),
        consumer: consumer.to_owned(),
        min_idle: AT_ONCE,
        count: 10,
        start: None,
        max_deliveries,
    }
}

/// The ids and the texts of the messages.
async fn taken(redis: &Redis, take: &Take) -> Result<Vec<(String, Value)>> {
    let rows = redis.take(take, call()).await?.rows.into_rows();
    let id = |row: &[Value]| row[0].as_str().map(str::to_owned).context("no id");
    rows.iter()
        .map(|row| Ok((id(row)?, row[1]["text"].clone())))
        .collect()
}

/// A bus of its own, for one version of the protocol.
async fn bus(server: &Server, protocol: u8) -> Result<(Redis, String, MultiplexedConnection)> {
    let stream = format!("app:{}", unique("bus"));
    let url = format!("redis://app@127.0.0.1:{}?protocol={protocol}", server.port);
    let mut settings = settings(&url, Mode::Write)?;
    settings.special.streams = vec![stream.clone()];
    Ok((Redis::open(&settings)?, stream, server.bare().await?))
}

#[tokio::test]
async fn each_message_goes_to_one_of_a_group_and_is_acknowledged_once() -> Result<()> {
    for server in servers()? {
        for protocol in [2, 3] {
            let (redis, stream, _) = bus(&server, protocol).await?;
            let first = publish(&redis, &stream, "one").await?;
            let second = publish(&redis, &stream, "two").await?;
            let mut one = take(&stream, Some("a"));
            one.count = 1;
            assert_eq!(taken(&redis, &one).await?, [(first.clone(), json!("one"))]);
            let other = take(&stream, Some("b"));
            assert_eq!(
                taken(&redis, &other).await?,
                [(second.clone(), json!("two"))]
            );
            assert!(taken(&redis, &other).await?.is_empty());
            // Without a group everybody reads everything.
            assert_eq!(taken(&redis, &take(&stream, None)).await?.len(), 2);
            let again = Take {
                after: Some("0".to_owned()),
                ..one
            };
            assert_eq!(
                taken(&redis, &again).await?,
                [(first.clone(), json!("one"))]
            );
            let ids = [first.clone(), second.clone()];
            assert_eq!(
                redis.acknowledge(&stream, "workers", &ids, call()).await?,
                2
            );
            assert_eq!(
                redis.acknowledge(&stream, "workers", &ids, call()).await?,
                0
            );
            assert!(taken(&redis, &again).await?.is_empty());
        }
    }
    Ok(())
}

#[tokio::test]
async fn case_56_a_message_of_a_consumer_that_died_is_taken_over() -> Result<()> {
    for server in servers()? {
        for protocol in [2, 3] {
            let (redis, stream, _) = bus(&server, protocol).await?;
            let id = publish(&redis, &stream, "one").await?;
            taken(&redis, &take(&stream, Some("dies"))).await?;
            let patient = Claim {
                min_idle: Duration::from_hours(1),
                ..claim(&stream, "heir", 5)
            };
            let claimed = redis.claim(&patient, call()).await?;
            assert!(claimed.answer.rows.is_empty());
            let claimed = redis.claim(&claim(&stream, "heir", 5), call()).await?;
            assert_eq!(
                claimed.answer.rows.into_rows(),
                [[json!(id), json!({ "text": "one" }), json!(2)]]
            );
            let overview = redis.groups(&stream, call()).await?;
            let group = overview.groups.first().context("no group")?;
            assert_eq!((group.pending, group.lag), (1, Some(0)));
            let oldest = group
                .oldest_pending
                .as_ref()
                .context("nothing is pending")?;
            assert_eq!((oldest.consumer.as_str(), oldest.deliveries), ("heir", 2));
            assert_eq!(overview.last_id, Some(id));
        }
    }
    Ok(())
}

#[tokio::test]
async fn case_56_a_message_that_nobody_can_work_off_becomes_a_dead_letter() -> Result<()> {
    for server in servers()? {
        let (redis, stream, _) = bus(&server, 2).await?;
        let poison = publish(&redis, &stream, "poison").await?;
        taken(&redis, &take(&stream, Some("a"))).await?;
        for deliveries in 2..=3 {
            let claimed = redis.claim(&claim(&stream, "a", 3), call()).await?;
            assert_eq!(claimed.answer.rows.into_rows()[0][2], deliveries);
            assert!(claimed.dead.is_empty());
        }
        let claimed = redis.claim(&claim(&stream, "a", 3), call()).await?;
        assert!(claimed.answer.rows.is_empty());
        assert_eq!(
            (claimed.dead[0].id.as_str(), claimed.dead[0].deliveries),
            (poison.as_str(), 4)
        );
        let dead = taken(&redis, &take(&format!("{stream}:dead"), None)).await?;
        assert_eq!(dead, [(claimed.dead[0].dead_id.clone(), json!("poison"))]);
        let read = Read {
            keys: vec![format!("{stream}:dead").as_str().into()],
            ..Read::default()
        };
        let rows = redis.read(&read, call()).await?.rows.into_rows();
        let fields = &rows[0][4][0]["fields"];
        assert_eq!(
            fields["dead.reason"],
            "delivered 4 times, and 3 are allowed"
        );
        assert_eq!(
            [&fields["dead.id"], &fields["dead.stream"]],
            [&json!(poison), &json!(stream)]
        );
        let overview = redis.groups(&stream, call()).await?;
        assert_eq!((overview.groups[0].pending, overview.dead), (0, 1));
    }
    Ok(())
}

#[tokio::test]
async fn case_56_a_message_deleted_while_it_was_pending_is_told() -> Result<()> {
    for server in servers()? {
        for protocol in [2, 3] {
            let (redis, stream, mut bare) = bus(&server, protocol).await?;
            let gone = publish(&redis, &stream, "gone").await?;
            let kept = publish(&redis, &stream, "kept").await?;
            taken(&redis, &take(&stream, Some("a"))).await?;
            send(&mut bare, &format!("XDEL {stream} {gone}")).await?;
            let group = redis.groups(&stream, call()).await?.groups.remove(0);
            assert_eq!(group.deleted_pending, std::slice::from_ref(&gone));
            let again = Take {
                after: Some("0".to_owned()),
                ..take(&stream, Some("a"))
            };
            let rows = redis.take(&again, call()).await?.rows.into_rows();
            assert_eq!(rows[0], [json!(gone), Value::Null, json!(true)]);
            assert_eq!(
                rows[1],
                [json!(kept), json!({ "text": "kept" }), json!(false)]
            );
            let claimed = redis.claim(&claim(&stream, "b", 5), call()).await?;
            assert_eq!(claimed.deleted, [gone]);
            assert_eq!(claimed.answer.rows.len(), 1);
        }
    }
    Ok(())
}

#[tokio::test]
async fn case_56_ids_grow_also_where_the_clock_went_back() -> Result<()> {
    for server in servers()? {
        let (redis, stream, mut bare) = bus(&server, 2).await?;
        // As if the clock had been in the year 5138 once.
        send(
            &mut bare,
            &format!("XADD {stream} 99999999999999-7 text future"),
        )
        .await?;
        let id = publish(&redis, &stream, "now").await?;
        assert_eq!(id, "99999999999999-8");
        let texts = taken(&redis, &take(&stream, Some("a"))).await?;
        assert_eq!(texts.len(), 2);
        let behind = Take {
            after: Some("99999999999999-7".to_owned()),
            ..take(&stream, None)
        };
        assert_eq!(taken(&redis, &behind).await?, [(id, json!("now"))]);
    }
    Ok(())
}

#[tokio::test]
async fn case_53_a_read_that_waits_gets_the_next_message_and_ends_without_one() -> Result<()> {
    for server in servers()? {
        for protocol in [2, 3] {
            let (redis, stream, _) = bus(&server, protocol).await?;
            let brief = Take {
                block: Duration::from_millis(20),
                ..take(&stream, Some("a"))
            };
            assert!(taken(&redis, &brief).await?.is_empty());
            let patient = Take {
                block: Duration::from_secs(20),
                ..brief
            };
            let waiting = taken(&redis, &patient);
            let publishing = publish(&redis, &stream, "late");
            let (waited, id) = tokio::join!(waiting, publishing);
            assert_eq!(waited?, [(id?, json!("late"))]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_read_that_is_dropped_no_longer_waits_on_the_server() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let user = server.user(&mut bare, "~* &* +@all").await?;
        let stream = unique("dropped");
        let redis = server.bus(&user, Mode::Write, &[&stream])?;
        let waiting = Take {
            block: Duration::from_secs(20),
            ..take(&stream, Some("a"))
        };
        let mut blocked = async |wanted: bool| {
            let ask = async || Ok(format!("{:?}", send(&mut bare, "CLIENT LIST").await?));
            let sign = format!("user={user}");
            let is_blocked = |list: &String| {
                let mut clients = list.split("\\n");
                clients.any(|client| client.contains(&sign) && client.contains("cmd=xreadgroup"))
            };
            wait_for(ask, |list| is_blocked(list) == wanted).await
        };
        tokio::select! {
            outcome = redis.take(&waiting, call()) => anyhow::bail!("{outcome:?}"),
            seen = blocked(true) => { seen?; }
        }
        blocked(false).await?;
        publish(&redis, &stream, "next").await?;
        let at_once = take(&stream, Some("b"));
        assert_eq!(taken(&redis, &at_once).await?.len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn only_the_named_streams_are_there() -> Result<()> {
    for server in servers()? {
        let redis = server.bus("app", Mode::Write, &["app:mail:*", "app:jobs"])?;
        let nothing = server.bus("app", Mode::Write, &[])?;
        publish(&redis, "app:mail:a", "x").await?;
        // Listed by its pattern, and yet nobody's to write: dead letters are made by claiming.
        let fields = [("a".into(), "b".into())];
        let forged = redis
            .publish("app:mail:a:dead", &fields, None, call())
            .await;
        assert!(forged.is_err(), "a dead letter is forged");
        for (redis, stream) in [
            (&redis, "app:other"),
            (&redis, "app:jobs2"),
            (&redis, "app:mail"),
            (&nothing, "app:jobs"),
        ] {
            let outcomes = [
                redis
                    .publish(stream, &[("a".into(), "b".into())], None, call())
                    .await
                    .map(drop),
                redis.take(&take(stream, None), call()).await.map(drop),
                redis
                    .acknowledge(stream, "g", &["1-1".to_owned()], call())
                    .await
                    .map(drop),
                redis.claim(&claim(stream, "a", 1), call()).await.map(drop),
                redis.groups(stream, call()).await.map(drop),
            ];
            for outcome in outcomes {
                assert!(
                    matches!(
                        outcome,
                        Err(Error::Bus(
                            BusError::Unlisted { .. } | BusError::NoStreams(_)
                        ))
                    ),
                    "{stream} {outcome:?}"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_read_source_reads_messages_and_changes_nothing() -> Result<()> {
    for server in servers()? {
        let stream = format!("app:{}", unique("read"));
        let write = server.bus("app", Mode::Write, &[&stream])?;
        let read = server.bus("app", Mode::Read, &[&stream])?;
        publish(&write, &stream, "one").await?;
        assert_eq!(taken(&read, &take(&stream, None)).await?.len(), 1);
        let fields: [(Blob, Blob); 1] = [("a".into(), "b".into())];
        for outcome in [
            read.publish(&stream, &fields, None, call()).await.map(drop),
            read.take(&take(&stream, Some("a")), call()).await.map(drop),
            read.acknowledge(&stream, "g", &["1-1".to_owned()], call())
                .await
                .map(drop),
            read.claim(&claim(&stream, "a", 1), call()).await.map(drop),
        ] {
            assert!(
                matches!(outcome, Err(Error::ReadOnlySource(_))),
                "{outcome:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_it_is_sent() -> Result<()> {
    for server in servers()? {
        let (redis, stream, _) = bus(&server, 2).await?;
        let wait = Take {
            block: Duration::from_secs(21),
            ..take(&stream, None)
        };
        let id = Take {
            after: Some("x".to_owned()),
            ..take(&stream, None)
        };
        for wrong in [wait, id] {
            let error = redis.take(&wrong, call()).await.err();
            assert!(matches!(error, Some(Error::Bus(_))), "{error:?}");
        }
        let error = redis.publish(&stream, &[], None, call()).await.err();
        assert!(matches!(error, Some(Error::Bus(BusError::Count { .. }))));
        let no_group = Take {
            member: Some(Membership {
                group: "nobody".to_owned(),
                consumer: "a".to_owned(),
                create: None,
            }),
            ..take(&stream, None)
        };
        let error = redis.take(&no_group, call()).await.err();
        let refusal = error.and_then(|error| error.refusal());
        assert_eq!(refusal, Some(Refusal::NoGroup));
        let groups = redis.groups(&stream, call()).await?;
        assert_eq!((groups.length, groups.groups_in_all), (0, 0));
    }
    Ok(())
}

#[tokio::test]
async fn every_call_may_move_between_threads() -> Result<()> {
    fn moves<T: Send>(_: T) {}
    let redis = Redis::open(&settings("redis://127.0.0.1:1", Mode::Write)?)?;
    moves(redis.take(&take("a", None), call()));
    moves(redis.claim(&claim("a", "b", 1), call()));
    moves(redis.groups("a", call()));
    moves(redis.subscribe("a", &Wanted::default(), call()));
    moves(redis.poll("a", "b", 1, AT_ONCE, Budget::default()));
    moves(redis.posture(call()));
    moves(redis.health(&[], call()));
    moves(redis.search(&Search::default(), call()));
    moves(redis.command(&[], false, call()));
    Ok(())
}
