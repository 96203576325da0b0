//! Who is not let in, and who is not there: case 47.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bson::doc;
use mcp_database::finding::Severity;
use mcp_database::mongodb::read::{Layers, Operation, Request};
use mcp_database::mongodb::{MongoError, Mongodb};
use mcp_database::source::SourceError;
use mcp_database::table::Budget;
use serde_json::json;

use crate::server::password;
use crate::support::{PATIENCE, password_file, settings, source};
use crate::wire::{Recorded, Reply, batch, hello};

async fn failure(source: &Mongodb) -> Result<MongoError> {
    source
        .server(PATIENCE)
        .await
        .err()
        .context("it was answered")
}

#[tokio::test]
async fn case_47_a_wrong_password_is_a_refused_login_and_a_right_one_is_read_anew() -> Result<()> {
    let source = source!("python");
    let file = password_file("hunter2")?;
    let other = source.as_other(|settings| settings.password = Some(file.clone()))?;
    let error = failure(&other.mongo).await?;
    assert!(matches!(error, MongoError::Authentication(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    // The operator writes the right one.
    let mcp_database::source::Password::File(path) = file else {
        anyhow::bail!("no file");
    };
    std::fs::write(path, password())?;
    other.mongo.server(PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn without_a_login_the_server_refuses() -> Result<()> {
    let source = source!("python");
    let nobody = source.as_other(|settings| {
        settings.url = settings.url.replace("admin@", "");
        settings.password = None;
    })?;
    let error = nobody
        .found(Operation::Count, &nobody.request("c"))
        .await
        .err();
    let error = error.context("it was answered")?;
    let error = error
        .downcast_ref::<MongoError>()
        .context("another error")?;
    assert!(
        matches!(error, MongoError::Unauthorized { code: 13, .. }),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_within_seconds() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    drop(listener);
    // Opening asks nobody.
    let source = Mongodb::open(&settings(&format!("mongodb://127.0.0.1:{port}/")))?;
    let error = failure(&source).await?;
    assert!(
        matches!(&error, MongoError::NoServer(reason) if reason.contains("refused")),
        "{error:?}"
    );
    let again = source.server(Duration::from_millis(100)).await.err();
    assert!(matches!(again, Some(MongoError::Timeout(_))), "{again:?}");
    Ok(())
}

#[tokio::test]
async fn case_47_a_name_that_cannot_be_looked_up_is_told() -> Result<()> {
    let source = Mongodb::open(&settings("mongodb+srv://mongo.invalid/"))?;
    let error = source.server(Duration::from_secs(20)).await.err();
    assert!(
        matches!(error, Some(MongoError::Dns(_) | MongoError::Timeout(_))),
        "{error:?}"
    );
    Ok(())
}

/// Recorded: a server of MongoDB 4.2.
#[tokio::test]
async fn case_47_a_server_older_than_4_4_is_told_so() -> Result<()> {
    let server = Recorded::start(|name, _| match name {
        "hello" | "isMaster" | "ismaster" => {
            let mut hello = hello();
            hello.insert("maxWireVersion", 8);
            Reply::With(hello)
        }
        _ => Reply::Usual,
    })
    .await?;
    let error = failure(&server.source()?).await?;
    assert!(matches!(error, MongoError::TooOld(_)), "{error:?}");
    assert!(error.to_string().contains("4.4"), "{error}");
    Ok(())
}

/// Recorded: a secondary whose primary is gone.
#[tokio::test]
async fn case_47_a_replica_set_without_a_primary_is_told_so() -> Result<()> {
    let server = secondary().await?;
    let mut settings = server.settings();
    settings.url = format!("{}?replicaSet=rs", settings.url);
    let source = Mongodb::open(&settings)?;
    let request = Request {
        db: "d".to_owned(),
        coll: "c".to_owned(),
        ..Request::default()
    };
    let read = source.read(
        Operation::Find,
        &request,
        Budget::default(),
        PATIENCE,
        Layers::ALL,
    );
    let error = read.await.err();
    assert!(matches!(error, Some(MongoError::NoPrimary)), "{error:?}");
    // A secondary may serve where the operator says so.
    settings.special.read_preference = Some("secondaryPreferred".to_owned());
    let source = Mongodb::open(&settings)?;
    source
        .read(
            Operation::Find,
            &request,
            Budget::default(),
            PATIENCE,
            Layers::ALL,
        )
        .await?;
    Ok(())
}

async fn secondary() -> Result<Recorded> {
    let port = std::sync::Arc::new(std::sync::OnceLock::new());
    let own = std::sync::Arc::clone(&port);
    let server = Recorded::start(move |name, _| match name {
        "hello" | "isMaster" | "ismaster" => {
            let address = format!("127.0.0.1:{}", own.get().copied().unwrap_or_default());
            let mut hello = hello();
            hello.insert("isWritablePrimary", false);
            hello.insert("ismaster", false);
            hello.insert("secondary", true);
            hello.insert("setName", "rs");
            hello.insert("setVersion", 1);
            hello.insert("hosts", vec![address.clone()]);
            hello.insert("me", address);
            Reply::With(hello)
        }
        "find" => batch(&[doc! { "a": 1 }], 0),
        _ => Reply::Usual,
    })
    .await?;
    port.set(server.port)
        .map_err(|_| anyhow::anyhow!("set twice"))?;
    Ok(server)
}

/// Recorded: a member of a replica set that names another machine as a member.
#[tokio::test]
async fn a_replica_set_does_not_lead_to_another_machine_without_tls() -> Result<()> {
    let server = Recorded::start(|name, _| match name {
        "hello" | "isMaster" | "ismaster" => {
            let mut hello = hello();
            hello.insert("setName", "rs");
            hello.insert("hosts", vec!["127.0.0.1:1", "db.example.org:27017"]);
            Reply::With(hello)
        }
        _ => Reply::Usual,
    })
    .await?;
    // By itself it is not followed.
    server.source()?.server(PATIENCE).await?;
    let mut settings = server.settings();
    settings.url = format!("{}?directConnection=false", settings.url);
    let error = Mongodb::open(&settings)?.server(PATIENCE).await.err();
    assert!(
        matches!(
            &error,
            Some(MongoError::Source(SourceError::Unprotected { .. }) | MongoError::NoServer(_))
        ),
        "{error:?}"
    );
    Ok(())
}

/// Recorded: a primary that steps down while it is asked.
#[tokio::test]
async fn case_47_a_read_is_asked_again_when_the_primary_steps_down_and_a_write_is_not() -> Result<()>
{
    let server = Recorded::start(|name, command| match name {
        // The second time it is another's turn.
        "find" if command.get_str("find").is_ok_and(|name| name == "c") => {
            static ASKED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
            if ASKED.swap(true, std::sync::atomic::Ordering::SeqCst) {
                batch(&[doc! { "a": 1 }], 0)
            } else {
                Reply::Failure(10107, "NotWritablePrimary", "not primary")
            }
        }
        "insert" => Reply::Failure(10107, "NotWritablePrimary", "not primary"),
        _ => Reply::Usual,
    })
    .await?;
    let source = server.source()?;
    let request = Request {
        db: "d".to_owned(),
        coll: "c".to_owned(),
        ..Request::default()
    };
    let reading = source
        .read(
            Operation::Find,
            &request,
            Budget::default(),
            PATIENCE,
            Layers::ALL,
        )
        .await?;
    assert_eq!(reading.answer.rows.len(), 1);
    let write = mcp_database::mongodb::write::Write::of(&mcp_database::mongodb::write::Request {
        db: "d".to_owned(),
        coll: "c".to_owned(),
        change: mcp_database::mongodb::write::Change::Insert,
        many: false,
        docs: Some(json!([{ "a": 1 }])),
        filter: None,
        update: None,
        array_filters: None,
        upsert: false,
        expect_max: None,
    })?;
    let error = source.write(&write, false, PATIENCE).await.err();
    assert!(
        matches!(error, Some(MongoError::Server { code: 10107, .. })),
        "{error:?}"
    );
    assert_eq!(server.asked("insert").len(), 1);
    Ok(())
}

/// The stand-in has nobody log in, or tells users without privileges.
#[tokio::test]
async fn a_server_where_nobody_logs_in_is_found() -> Result<()> {
    let source = source!("java");
    let posture = source.mongo.posture(PATIENCE).await?;
    assert_eq!(posture.findings[0].severity, Severity::High);
    let source = source!("python");
    let posture = source.mongo.posture(PATIENCE).await?;
    assert_eq!(posture.users, ["admin@admin"]);
    Ok(())
}
