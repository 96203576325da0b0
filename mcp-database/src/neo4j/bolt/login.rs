//! The first words on a connection: who we are, what the server is, and the credentials.

use std::time::Duration;

use super::error::Error;
use super::exchange::{Exchange, HELLO, LOGON, Phase};
use super::transport::{Auth, Version};
use super::value::{Map, Value, entry, get};

const USER_AGENT: &str = concat!("mcp-database/", env!("CARGO_PKG_VERSION"));

/// Logs in, and gives the server's name and version.
pub(super) async fn log_in(
    exchange: &mut Exchange,
    version: Version,
    auth: &Auth,
) -> Result<String, Error> {
    let credentials = match auth {
        Auth::None => vec![entry("scheme", "none")],
        Auth::Basic { user, password } => vec![
            entry("scheme", "basic"),
            entry("principal", user.as_str()),
            entry("credentials", password.as_str()),
        ],
    };
    let mut hello = vec![entry("user_agent", USER_AGENT)];
    let at_least = |minor| version >= Version { major: 5, minor };
    if at_least(3) {
        let agent = vec![entry("product", USER_AGENT), entry("language", "Rust")];
        hello.push(entry("bolt_agent", Value::Map(agent)));
    }
    if !exchange.utc && version.minor >= 3 {
        hello.push(entry("patch_bolt", vec!["utc"]));
    }
    if at_least(1) {
        exchange.queue(HELLO, &[Value::Map(hello)])?;
        exchange.queue(LOGON, &[Value::Map(credentials)])?;
    } else {
        hello.extend(credentials);
        exchange.queue(HELLO, &[Value::Map(hello)])?;
    }
    exchange.flush().await?;
    let greeting = exchange.success().await.map_err(as_authentication)?;
    if at_least(1) {
        exchange.success().await.map_err(as_authentication)?;
    }
    exchange.phase = Phase::Ready;
    Ok(read_greeting(exchange, &greeting))
}

fn read_greeting(exchange: &mut Exchange, greeting: &Map) -> String {
    if let Some(patches) = get(greeting, "patch_bolt").and_then(Value::as_list) {
        exchange.utc |= patches.contains(&"utc".into());
    }
    let hints = get(greeting, "hints")
        .and_then(Value::as_map)
        .unwrap_or_default();
    if let Some(Value::Integer(seconds @ 1..)) = get(hints, "connection.recv_timeout_seconds") {
        exchange.framing.silence_limit = Some(Duration::from_secs(seconds.unsigned_abs()));
    }
    let agent = get(greeting, "server").and_then(Value::as_str);
    agent.unwrap_or_default().to_owned()
}

fn as_authentication(error: Error) -> Error {
    match error {
        Error::Server { code, message } if code.starts_with("Neo.ClientError.Security.") => {
            Error::Authentication { code, message }
        }
        other => other,
    }
}
