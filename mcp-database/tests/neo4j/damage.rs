//! What a broken line or a broken server does to a connection.

use std::time::Duration;

use anyhow::Result;
use mcp_database::neo4j::bolt::{Connection, Error, Limits, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{PATIENCE, auth, connect, listen, one, proxy, query, reading, server};

/// How long connecting may take; what is silent is waited for as long.
const LIMIT: Duration = Duration::from_secs(3);

/// Connects to a peer that reads the greeting and answers it with these bytes, then with silence
/// or the end.
async fn greet(answer: &'static [u8], then_silent: bool) -> Result<Result<Connection, Error>> {
    let (endpoint, peer) = listen(move |mut stream| async move {
        stream.read_exact(&mut [0; 20]).await?;
        stream.write_all(answer).await?;
        if then_silent {
            stream.read_to_end(&mut Vec::new()).await?;
        }
        Ok(())
    })
    .await?;
    let outcome = Connection::connect(&endpoint, &auth(), Limits::default(), LIMIT).await;
    peer.abort();
    Ok(outcome)
}

fn name<T: std::fmt::Debug>(outcome: &Result<T, Error>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(Error::Protocol(_)) => "protocol",
        Err(Error::TlsMismatch(_)) => "tls mismatch",
        Err(Error::Timeout { .. }) => "timeout",
        Err(Error::Io(_)) => "io",
        Err(Error::TooLarge { .. }) => "too large",
        Err(_) => "other",
    }
}

#[tokio::test]
async fn whatever_is_no_server_gets_its_own_error() -> Result<()> {
    for (answer, then_silent, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], true, "protocol"),
        (b"\x15\x03\x03\x00\x02\x02\x16", true, "tls mismatch"),
        (b"SSH-2.0-OpenSSH_9.2", true, "protocol"),
        (b"\0\0\0\0", true, "protocol"),
        (b"\0\0\x01\xFF", true, "protocol"),
        (b"\0\0\x09\x05", true, "protocol"),
        (b"", true, "timeout"),
        (b"", false, "tls mismatch"),
        (b"\0\0", false, "tls mismatch"),
        // Agreed on 5.8, and then: silence, the end, a bad marker, a record, an unknown tag,
        // a list that claims to be longer than the message.
        (b"\0\0\x08\x05", true, "timeout"),
        (b"\0\0\x08\x05", false, "io"),
        (b"\0\0\x08\x05\0\x01\xC0\0\0", true, "protocol"),
        (b"\0\0\x08\x05\0\x03\xB1\x71\x90\0\0", true, "protocol"),
        (b"\0\0\x08\x05\0\x03\xB1\x55\xA0\0\0", true, "protocol"),
        (
            b"\0\0\x08\x05\0\x07\xB1\x70\xD6\xFF\xFF\xFF\xFF\0\0",
            true,
            "protocol",
        ),
    ] {
        let outcome = greet(answer, then_silent).await?;
        assert_eq!(
            name(&outcome),
            expected,
            "{} {outcome:?}",
            answer.escape_ascii()
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_endless_message_ends_at_the_limit() -> Result<()> {
    let (endpoint, peer) = listen(|mut stream| async move {
        stream.read_exact(&mut [0; 20]).await?;
        stream.write_all(b"\0\0\x08\x05").await?;
        let mut chunk = vec![0xFF; 2 + 0xFFFF];
        chunk[2..].fill(0xC0);
        loop {
            stream.write_all(&chunk).await?;
        }
    })
    .await?;
    let limits = Limits {
        max_message_bytes: 1_000_000,
        ..Limits::default()
    };
    let outcome = Connection::connect(&endpoint, &auth(), limits, PATIENCE).await;
    assert_eq!(name(&outcome), "too large", "{outcome:?}");
    peer.abort();
    Ok(())
}

#[tokio::test]
async fn a_connection_cut_while_pulling_is_an_error() -> Result<()> {
    let endpoint = server!();
    let (through, _proxy) = proxy(&endpoint, None, 100_000).await?;
    let mut connection = connect(&through).await?;
    let text = "UNWIND range(1, 10000000) AS n RETURN n, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'";
    let (_, first) = connection
        .run_and_pull(&query(text), &reading(), 10)
        .await?;
    assert_eq!(first.records.len(), 10);
    let outcome = tokio::time::timeout(PATIENCE, connection.pull(1_000_000)).await?;
    assert_eq!(name(&outcome), "io", "{outcome:?}");
    assert!(connection.is_closed());
    assert!(matches!(connection.reset().await, Err(Error::State(_))));
    let mut fresh = connect(&endpoint).await?;
    assert_eq!(one(&mut fresh, "RETURN 1").await?, Value::Integer(1));
    Ok(())
}
