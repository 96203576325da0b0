//! What one read-only call costs beyond its work.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{
    binaries::Server,
    client::Era,
    fixture::{Fixture, Transport},
};

use super::{Figures, Samples};

const WARM_UP: usize = 200;
const CALLS: usize = 2000;

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    for (server, tool, arguments, over_stdio, over_http) in [
        (
            Server::SpecRegistry,
            "spec_search",
            json!({ "query": "" }),
            "read-only call over stdio, mcp-spec-registry",
            "read-only call over HTTP, mcp-spec-registry",
        ),
        (
            Server::BashCommander,
            "list_sessions",
            json!({}),
            "read-only call over stdio, mcp-bash-commander",
            "read-only call over HTTP, mcp-bash-commander",
        ),
    ] {
        for (transport, what, limit) in [
            (Transport::Stdio, over_stdio, 150),
            (Transport::Http, over_http, 400),
        ] {
            let samples = calls(server, transport, tool, &arguments).await?;
            figures.at_most(what, &samples, Duration::from_micros(limit));
        }
    }
    Ok(())
}

async fn calls(
    server: Server,
    transport: Transport,
    tool: &str,
    arguments: &Value,
) -> anyhow::Result<Samples> {
    let fixture = Fixture::start(server, transport, Era::Modern).await?;
    let mut durations = Vec::with_capacity(CALLS);
    for call in 0..WARM_UP + CALLS {
        let started = Instant::now();
        let answer = fixture.client.call(tool, arguments.clone()).await?;
        let elapsed = started.elapsed();
        anyhow::ensure!(!answer.is_error, "{tool} failed: {}", answer.text);
        if call >= WARM_UP {
            durations.push(elapsed);
        }
    }
    Ok(Samples::new(durations))
}
