use std::sync::{Arc, mpsc as channel};

use anyhow::Result;
use shared::{
    metrics::Metrics,
    serve::{HttpArgs, HttpServer},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{config::ServeCommand, daemon::open_registry, server::SpecRegistry};

/// Hands each line to the test.
struct Lines(channel::Sender<Value>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let _ = self.0.send(serde_json::from_slice(line)?);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writer's pieces are put together to whole lines.
fn to_test() -> (Box<dyn Write>, channel::Receiver<Value>) {
    let (lines, received) = channel::channel();
    (Box::new(io::LineWriter::new(Lines(lines))), received)
}

/// Runs `talk` as the client of a bridge to a real registry that listens on loopback.
async fn with_registry<F>(talk: impl FnOnce(Conversation) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let state = tempfile::tempdir()?;
    let registry = open_registry(state.path(), &ServeCommand::default())?;
    let metrics = Metrics::new();
    let handler = SpecRegistry::new(registry, metrics.clone())?;
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let arguments = HttpArgs {
        http: Some(loopback),
        insecure_loopback: true,
        ..HttpArgs::default()
    };
    let server = HttpServer::bind(&arguments, None)
        .await?
        .context("an address was given")?;
    let url = format!("http://{}", server.address());
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server.run(handler, metrics, shutdown.clone()));
    with_bridge(&url, talk).await?;
    shutdown.cancel();
    serving.await??;
    Ok(())
}

async fn with_bridge<F>(url: &str, talk: impl FnOnce(Conversation) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let (lines, from_client) = mpsc::channel(LINES_AHEAD);
    let (to_client, received) = to_test();
    let talked = talk(Conversation {
        lines,
        received: Arc::new(Mutex::new(received)),
    });
    let (passed, result) = tokio::join!(
        pass(Client::new(url, None)?, from_client, to_client),
        talked
    );
    result?;
    passed
}

struct Conversation {
    lines: mpsc::Sender<Vec<u8>>,
    received: Arc<Mutex<channel::Receiver<Value>>>,
}

impl Conversation {
    async fn say(&self, message: Value) -> Result<()> {
        Ok(self.lines.send(message.to_string().into_bytes()).await?)
    }

    async fn hear(&self) -> Result<Value> {
        let received = Arc::clone(&self.received);
        let heard = tokio::task::spawn_blocking(move || {
            let received = received.lock().unwrap_or_else(PoisonError::into_inner);
            received.recv_timeout(Duration::from_secs(20))
        });
        Ok(heard.await??)
    }

    async fn ask(&self, message: Value) -> Result<Value> {
        self.say(message).await?;
        self.hear().await
    }
}

fn modern(id: u32, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    });
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

#[tokio::test]
async fn a_client_of_the_legacy_era_keeps_its_session() -> Result<()> {
    with_registry(async |client: Conversation| {
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let hello = client.ask(json!({"jsonrpc": "2.0", "id": "a", "method": "initialize", "params": hello})).await?;
        assert_eq!((&hello["id"], &hello["result"]["protocolVersion"]), (&json!("a"), &json!("2025-06-18")), "{hello}");
        client.say(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        let tools = client.ask(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})).await?;
        assert!(tools["result"]["tools"].as_array().is_some_and(|tools| tools.len() > 10), "{tools}");
        let call = json!({"name": "spec_search", "arguments": {"query": "web"}});
        let found = client.ask(json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": call})).await?;
        assert_eq!((&found["id"], found["error"].is_null()), (&json!(3), true), "{found}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_client_of_the_modern_era_needs_no_session() -> Result<()> {
    with_registry(async |client: Conversation| {
        let discovered = client.ask(modern(1, "server/discover", json!({}))).await?;
        assert!(discovered["result"].is_object(), "{discovered}");
        let call = json!({"name": "spec_search", "arguments": {"query": "wéb"}});
        let found = client.ask(modern(2, "tools/call", call)).await?;
        assert_eq!(
            (&found["id"], found["error"].is_null()),
            (&json!(2), true),
            "{found}"
        );
        let odd = client
            .ask(modern(
                3,
                "resources/read",
                json!({"uri": "spec://ünknown"}),
            ))
            .await?;
        let is_header_error = odd["error"]["code"] == -32020;
        assert!(
            odd["error"].is_object() && !is_header_error,
            "a name that is no ASCII arrives whole: {odd}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_request_is_answered_even_where_no_registry_is() -> Result<()> {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = nobody.local_addr()?;
    drop(nobody);
    with_bridge(
        &format!("http://{address}"),
        async |client: Conversation| {
            let answer = client.ask(modern(7, "tools/list", json!({}))).await?;
            assert_eq!(
                (&answer["id"], &answer["error"]["code"]),
                (&json!(7), &json!(INTERNAL_ERROR))
            );
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains(&address.to_string()), "{message}");
            client
                .say(json!({"jsonrpc": "2.0", "method": "notifications/progress"}))
                .await?;
            client.lines.send(b"no json".to_vec()).await?;
            assert_eq!(client.hear().await?["error"]["code"], json!(-32700));
            Ok(())
        },
    )
    .await
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_shows_no_token() -> Result<()> {
    let app = axum::Router::new().fallback(async || StatusCode::UNAUTHORIZED);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let server = tokio::spawn(async { axum::serve(listener, app).await });
    let (lines, from_client) = mpsc::channel(LINES_AHEAD);
    let (to_client, received) = to_test();
    lines
        .send(modern(1, "initialize", json!({})).to_string().into_bytes())
        .await?;
    drop(lines);
    let token = Zeroizing::new("tk_very_secret".to_owned());
    pass(Client::new(&url, Some(token))?, from_client, to_client).await?;
    let answer = received.recv_timeout(Duration::from_secs(20))?.to_string();
    assert!(
        answer.contains("--token-file") && !answer.contains("very_secret"),
        "{answer}"
    );
    server.abort();
    Ok(())
}

#[test]
fn urls_that_cannot_be_used_are_refused_with_what_can() {
    for (url, hint) in [
        ("https://registry.example/mcp", "ssh -L"),
        ("registry.example", "unix:PATH"),
        ("ftp://registry.example", "http://"),
        ("http://user:secret@registry.example/", "--token-file"),
    ] {
        let refused = Client::new(url, None)
            .map(|_| ())
            .map_err(|error| format!("{error:#}"));
        assert!(
            refused.as_ref().is_err_and(|error| error.contains(hint)),
            "{url}: {refused:?}"
        );
        assert!(!refused.is_err_and(|error| error.contains("secret")));
    }
}
