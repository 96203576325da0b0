//! Who is let in, over which way, and what a refusal looks like.

use anyhow::{Context as _, Result};
use mcp_database::redis::Redis;
use mcp_database::redis::error::{Error, Refusal};
use mcp_database::redis::read::Read;
use mcp_database::source::{ClientCertificate, Mode, Password, Tls};

use crate::server::password;
use crate::support::{argv, call, one, send, server, servers, settings};

async fn ping(redis: &Redis) -> Result<(), Error> {
    redis.command(&argv("PING"), false, call()).await.map(drop)
}

#[tokio::test]
async fn users_log_in_with_both_protocols() -> Result<()> {
    for server in servers()? {
        for url in [
            format!("redis://reader@127.0.0.1:{}", server.port),
            format!("redis://reader@127.0.0.1:{}/5?protocol=3", server.port),
            format!("redis://localhost:{}?protocol=3", server.port),
            format!("redis://127.0.0.1:{}", server.port),
        ] {
            let redis = Redis::open(&settings(&url, Mode::Read)?)?;
            ping(&redis).await.with_context(|| url.clone())?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_user_without_a_password_is_not_taken_for_default() -> Result<()> {
    for server in servers()? {
        let mut settings = server.settings("reader", Mode::Read)?;
        settings.password = None;
        let refused = ping(&Redis::open(&settings)?).await.err();
        assert_eq!(
            refused.and_then(|error| error.refusal()),
            Some(Refusal::WrongPass)
        );
        settings.url = format!("redis://127.0.0.1:{}", server.port);
        let refused = ping(&Redis::open(&settings)?).await.err();
        assert_eq!(
            refused.and_then(|error| error.refusal()),
            Some(Refusal::NoAuth)
        );
    }
    Ok(())
}

#[tokio::test]
async fn case_73_a_refused_login_says_so_and_never_the_password() -> Result<()> {
    for server in servers()? {
        for (user, protocol) in [("denied", 2), ("denied", 3), ("nobody", 2), ("nobody", 3)] {
            let url = format!(
                "redis://{user}@127.0.0.1:{}?protocol={protocol}",
                server.port
            );
            let redis = Redis::open(&settings(&url, Mode::Read)?)?;
            let error = ping(&redis).await.err().context("logged in")?;
            // Looking at who one is says so as well.
            let looked = redis.posture(call()).await.err().context("looked at")?;
            assert_eq!(looked.refusal(), Some(Refusal::WrongPass), "{looked}");
            assert_eq!(error.refusal(), Some(Refusal::WrongPass), "{error}");
            assert!(!format!("{error} {error:?}").contains(password()));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_by_the_call_and_not_by_opening() -> Result<()> {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = free.local_addr()?.port();
    drop(free);
    let redis = Redis::open(&settings(&format!("redis://127.0.0.1:{port}"), Mode::Read)?)?;
    let error = ping(&redis).await.err().context("connected")?;
    assert!(matches!(error, Error::Connection { .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_password_file_that_is_missing_is_told_by_its_place() -> Result<()> {
    let Some(server) = server("redis")? else {
        return Ok(());
    };
    let mut settings = server.settings("reader", Mode::Read)?;
    settings.password = Some(Password::File("/no/such/file".into()));
    let error = ping(&Redis::open(&settings)?).await.err();
    assert!(error.is_some_and(|error| error.to_string().contains("/no/such/file")));
    Ok(())
}

#[tokio::test]
async fn tls_is_verified_by_authority_and_name() -> Result<()> {
    let Some(server) = server("redis-tls")? else {
        return Ok(());
    };
    let line = |name: &str| server.lines.get(name).map(std::path::PathBuf::from);
    let verified = |client| Tls::Verified {
        ca_file: line("CA"),
        client,
    };
    let client = ClientCertificate {
        cert_file: line("CLIENT_CERT").context("no certificate")?,
        key_file: line("CLIENT_KEY").context("no key")?,
    };
    for (host, tls, is_good) in [
        ("127.0.0.1", verified(None), true),
        ("localhost", verified(None), true),
        ("localhost", verified(Some(client)), true),
        // The right name, and an authority that this machine does not know.
        ("localhost", Tls::OffLoopback, false),
        // The right authority, and a name that the certificate does not have.
        ("127.0.0.2", verified(None), false),
    ] {
        let mut settings = settings(
            &format!("rediss://reader@{host}:{}", server.port),
            Mode::Read,
        )?;
        settings.tls = tls;
        let outcome = ping(&Redis::open(&settings)?).await;
        assert_eq!(outcome.is_ok(), is_good, "{host} {outcome:?}");
    }
    Ok(())
}

#[tokio::test]
async fn tls_on_one_side_only_is_an_error_and_not_a_wait() -> Result<()> {
    let (Some(plain), Some(encrypted)) = (server("redis")?, server("redis-tls")?) else {
        return Ok(());
    };
    for url in [
        format!("rediss://reader@127.0.0.1:{}", plain.port),
        format!("redis://reader@127.0.0.1:{}", encrypted.port),
    ] {
        let error = ping(&Redis::open(&settings(&url, Mode::Read)?)?)
            .await
            .err();
        assert!(
            matches!(
                error,
                Some(Error::Connection { .. } | Error::Lost { .. } | Error::Protocol { .. })
            ),
            "{error:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_next_call_works_after_the_server_closed_the_connection() -> Result<()> {
    for server in servers()? {
        let mut bare = server.bare().await?;
        let user = server.user(&mut bare, "~* &* +@all").await?;
        let redis = server.source(&user, Mode::Read)?;
        let read = Read {
            keys: vec!["missing".into()],
            ..Read::default()
        };
        redis.read(&read, call()).await?;
        ping(&redis).await?;
        send(&mut bare, &format!("CLIENT KILL USER {user}")).await?;
        // One of these may meet the connection that is just gone; whatever comes after does not.
        drop(redis.read(&read, call()).await);
        drop(ping(&redis).await);
        assert_eq!(one(redis.read(&read, call()).await?)?[0], "missing");
        ping(&redis).await?;
    }
    Ok(())
}
