//! The scripted agent: what a model would do, one call after the other, with nothing but the agent plane and the shell.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use shared::digest::Digest;
use tests::{
    client::Client,
    run::{call, text},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    approver::Approver,
    stage::{AGENT, SHELL, Stage},
    story::Story,
};

const PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
<title>Served from a jail</title>\n<h1>Served from a jail</h1>\n<p>A human approved these bytes.</p>\n</html>\n";
/// How long one call of `checkpoint_wait` waits.
const WAIT_S: u32 = 20;
/// How long the web server may take until it answers for the first time.
const STARTING: Duration = Duration::from_secs(20);

/// Plays the run through to its end.
pub(crate) async fn play(
    stage: &mut Stage,
    approver: &Approver,
    story: &mut Story,
) -> anyhow::Result<()> {
    let registry = &stage.registry;
    let specification = registry
        .call("spec_get", json!({ "spec_id": "test-web-service" }))
        .await?
        .success()?;
    let requested = call(
        registry,
        "run_request",
        json!({ "spec_id": "test-web-service" }),
    )
    .await?;
    let run_id = text(&requested["run"], "run_id")?.to_owned();
    story.requested(&specification);

    call(
        registry,
        "agent_register",
        json!({ "description": "the demo's scripted agent", "persona": "infrastructure" }),
    )
    .await?;
    let claim = call(registry, "run_claim", json!({ "run_id": run_id })).await?;
    let epoch = claim["run"]["epoch"].clone();
    story.claimed(AGENT, &claim["run"]);
    let mut serving = Serving {
        server: WebServer::of_this_machine()?,
        port: stage.port.unwrap_or(80),
        // In the host's own network nobody else shall reach it.
        on_loopback: stage.port.is_some(),
    };
    call(
        registry,
        "rationale_record",
        json!({
            "run_id": run_id, "question": "which web server", "options": WebServer::NAMES, "chosen": serving.server.name(),
            "why": "it is on this machine already, and the specification leaves the choice free",
        }),
    )
    .await?;

    let mut is_first = true;
    loop {
        let plan = plan(&specification["specification"], serving)?;
        let submitted = submit(registry, &run_id, &epoch, &plan, story).await?;
        story.planned(&submitted, &plan);
        let decided = decide(stage, approver, &run_id, &submitted, is_first, story).await?;
        match text(&decided, "state")? {
            "approved" => break,
            "analyzing" => {
                // A human's words are data; this agent knows one wish.
                serving.on_loopback = decided["last_decision"]["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.contains("loopback"));
                is_first = false;
            }
            other => bail!("the run is {other}"),
        }
    }
    generate(stage, &run_id, &epoch, serving, story).await?;
    validate(stage, approver, &run_id, story).await
}

/// Submits a plan; before anybody is enrolled it waits for that.
async fn submit(
    registry: &Client,
    run_id: &str,
    epoch: &Value,
    plan: &Value,
    story: &mut Story,
) -> anyhow::Result<Value> {
    let started = Instant::now();
    loop {
        let arguments = json!({ "run_id": run_id, "epoch": epoch, "plan": plan });
        let answer = registry.call("plan_submit", arguments).await?;
        if !answer.is_error {
            return answer.success();
        }
        if answer.error_code()? != "NOT_ENROLLED" {
            bail!("the plan was refused: {}", answer.text);
        }
        story.waiting("somebody to be enrolled", started.elapsed());
        // Nothing announces an enrolment to agents; a look every second is cheap.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn decide(
    stage: &Stage,
    approver: &Approver,
    run_id: &str,
    submitted: &Value,
    is_first: bool,
    story: &mut Story,
) -> anyhow::Result<Value> {
    let checkpoint = text(submitted, "checkpoint_id")?;
    story.asks(
        "3 Verify V1",
        &stage.page,
        checkpoint,
        &stage.command_line(&format!("approve {checkpoint}")),
    );
    approver.decide(stage, checkpoint, is_first).await?;
    let decided = wait_while(stage, run_id, &["awaiting_v1"], story).await?;
    story.decided("3 Verify V1", &decided);
    Ok(decided)
}

/// Waits as agents do, in calls that a client does not give up.
async fn wait_while(
    stage: &Stage,
    run_id: &str,
    states: &[&str],
    story: &mut Story,
) -> anyhow::Result<Value> {
    let started = Instant::now();
    loop {
        let arguments = json!({ "run_id": run_id, "timeout_s": story.longest_wait_s(WAIT_S) });
        let answer = call(&stage.registry, "checkpoint_wait", arguments).await?;
        if !states.contains(&text(&answer, "state")?) {
            return Ok(answer);
        }
        story.waiting(text(&answer, "state")?, started.elapsed());
    }
}

async fn generate(
    stage: &Stage,
    run_id: &str,
    epoch: &Value,
    serving: Serving,
    story: &mut Story,
) -> anyhow::Result<()> {
    let begun = call(
        &stage.registry,
        "execution_begin",
        json!({ "run_id": run_id, "epoch": epoch }),
    )
    .await?;
    story.begun(&begun);
    let grant = |step: &str| -> anyhow::Result<String> {
        let steps = begun["steps"].as_array().context("no steps")?;
        let step = steps
            .iter()
            .find(|entry| entry["step"] == step)
            .context("no handle for the step")?;
        Ok(text(step, "grant")?.to_owned())
    };

    let outside = json!({ "command": "curl http://127.0.0.1:9/", "grant": grant("s2")? });
    let refused = stage.shell.call("exec", outside).await?;
    let code = refused
        .error_code()
        .context("a call outside the plan was not refused")?;
    story.refused("exec", "curl http://127.0.0.1:9/", &code);

    let started = Instant::now();
    let write = json!({ "path": "site/index.html", "content": PAGE, "grant": grant("s1")? });
    call(&stage.shell, "write_file", write).await?;
    story.stepped(
        "s1",
        "write_file",
        "site/index.html",
        &format!("{} ms", started.elapsed().as_millis()),
    );

    let serve = json!({
        "command": serving.command(), "publish": [serving.port], "wait": { "until": "none" }, "grant": grant("s2")?,
    });
    let session = call(&stage.shell, "exec", serve).await?;
    let address = text(&session["published"][0], "address")?;
    let started = format!(
        "started {}, port {} published at {address}",
        text(&session, "id")?,
        serving.port
    );
    story.stepped(
        "s2",
        "exec",
        &format!("{}, restarted when it ends", serving.server.name()),
        &started,
    );
    until_it_answers(address).await?;

    let report = "wrote the page and started the web server; it answers";
    let completed = call(
        &stage.registry,
        "generation_complete",
        json!({ "run_id": run_id, "epoch": epoch, "report": report }),
    )
    .await?;
    story.completed(&completed);
    Ok(())
}

/// An agent waits until what it started answers, before it says that it is done.
async fn until_it_answers(address: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + STARTING;
    loop {
        let answer = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = tokio::time::timeout(Duration::from_secs(2), answer).await;
        if matches!(&answer, Ok(Ok(bytes)) if bytes.starts_with(b"HTTP/1.") && bytes.windows(4).any(|four| four == b" 200"))
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the web server does not answer at {address}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn validate(
    stage: &Stage,
    approver: &Approver,
    run_id: &str,
    story: &mut Story,
) -> anyhow::Result<()> {
    let measured = wait_while(stage, run_id, &["verifying"], story).await?;
    story.measured(&measured);
    if text(&measured, "state")? != "awaiting_v2" {
        bail!("checks failed; the run is {}", text(&measured, "state")?);
    }
    let checkpoint = text(&measured, "checkpoint_id")?.to_owned();
    let line = stage.command_line(&format!("approve {checkpoint}"));
    story.asks("6 Validate", &stage.page, &checkpoint, &line);
    approver.decide(stage, &checkpoint, false).await?;
    let validated = wait_while(stage, run_id, &["awaiting_v2"], story).await?;
    let reached = text(&validated, "state")?.to_owned();
    let verified = stage.human(&["audit", "verify"], None).await?;
    let run = call(&stage.registry, "run_get", json!({ "run_id": run_id })).await?;
    story.validated(&validated, &run, verified.trim(), stage.program());
    if reached != "validated" {
        bail!("the outcome was not accepted; the run is {reached}");
    }
    Ok(())
}

/// The plan: two steps, a test or a human's eye for each criterion and constraint.
fn plan(specification: &Value, serving: Serving) -> anyhow::Result<Value> {
    let mut tests = Vec::new();
    let mut judged = Vec::new();
    let lists = ["criteria", "constraints"]
        .map(|list| specification[list].as_array().cloned().unwrap_or_default());
    for entry in lists.into_iter().flatten() {
        let criterion = text(&entry, "criterion")?.to_owned();
        match check_for(text(&entry, "text")?, serving.port) {
            Some(check) => tests.push(json!({ "criterion": criterion, "check": check })),
            None if text(&entry, "text")?.contains("port 80") => judged.push(json!({
                "criterion": criterion,
                "why": format!(
                    "this machine gives jails no network of their own, in which port 80 were free; it listens on port {}",
                    serving.port
                ),
            })),
            None => judged.push(json!({
                "criterion": criterion,
                "why": "it runs in a jail, not in a container image; whether that counts is yours to say",
            })),
        }
    }
    let page = Digest::of(PAGE);
    Ok(json!({
        "spec_digest": specification["digest"],
        "steps": [
            {
                "id": "s1", "server": SHELL, "tool": "write_file",
                "arguments": {
                    "path": { "exact": "site/index.html" },
                    "content": { "sha256": page, "shown": PAGE },
                },
                "reversibility": "reversible", "rollback": "delete the file",
            },
            {
                "id": "s2", "server": SHELL, "tool": "exec",
                "arguments": {
                    "command": { "exact": serving.command() },
                    "publish": { "exact": [serving.port] },
                    "wait": { "any": true },
                },
                "inputs": [{ "path": "site/index.html", "sha256": page }],
                "lifetime": "run",
                "reversibility": "irreversible",
                "rollback": "stop the session; the command itself writes nothing",
                "after": ["s1"],
            },
        ],
        "tests": tests,
        "human_judges": judged,
        "assumptions": [format!("{} is installed where the jail can see it", serving.server.name())],
        "alternatives": ["a web server in a container: needs an engine that this machine may not have"],
        "rollback": "stop the session of s2, delete site/index.html",
    }))
}

/// How the words of a criterion are measured; `None` where only a human can judge.
fn check_for(words: &str, port: u16) -> Option<Value> {
    let words = words.to_lowercase();
    let target = format!("s2:{port}");
    let has = |part: &str| words.contains(part);
    Some(if has("page load") {
        json!({ "http": { "target": target, "path": "/", "samples": 50 } })
    } else if has("uptime") {
        json!({ "http": { "target": target, "path": "/", "samples": 20 } })
    } else if has("restart") {
        json!({ "restart": { "target": target, "path": "/", "within_ms": 10_000 } })
    } else if has("html") {
        json!({ "http": { "target": target, "path": "/", "samples": 3, "expect": {
            "status": 200, "headers": { "content-type": "text/html" }, "text": "Served from a jail",
        } } })
    } else if has("health") {
        json!({ "http": { "target": target, "path": "/index.html", "samples": 5, "expect": { "status": 200 } } })
    } else if has("port 80") && port == 80 {
        json!({ "tcp": { "target": target } })
    } else if has("ram") {
        json!({ "session": { "step": "s2", "measure": "memory" } })
    } else if has("non-root") {
        json!({ "session": { "step": "s2", "measure": "not_root" } })
    } else {
        return None;
    })
}

/// A web server that a machine may have already.
#[derive(Clone, Copy)]
enum WebServer {
    Python,
    Busybox,
}

impl WebServer {
    const NAMES: [&'static str; 2] = ["python3 -m http.server", "busybox httpd"];

    fn of_this_machine() -> anyhow::Result<Self> {
        let has = |names: &[&str]| names.iter().any(|name| Path::new(name).exists());
        if has(&["/usr/bin/python3"]) {
            Ok(Self::Python)
        } else if has(&["/usr/bin/busybox", "/bin/busybox"]) {
            Ok(Self::Busybox)
        } else {
            bail!(
                "this machine has neither /usr/bin/python3 nor busybox to serve a page with; install one, for example `apt install python3-minimal`"
            )
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Python => Self::NAMES[0],
            Self::Busybox => Self::NAMES[1],
        }
    }
}

/// What serves the page, and how.
#[derive(Clone, Copy)]
struct Serving {
    server: WebServer,
    port: u16,
    on_loopback: bool,
}

impl Serving {
    /// Starts the server again whenever it ends.
    fn command(self) -> String {
        let Self {
            server,
            port,
            on_loopback,
        } = self;
        let serve = match (server, on_loopback) {
            (WebServer::Python, false) => format!("python3 -m http.server {port} -d site"),
            (WebServer::Python, true) => {
                format!("python3 -m http.server {port} -d site --bind 127.0.0.1")
            }
            (WebServer::Busybox, false) => format!("busybox httpd -f -p {port} -h site"),
            (WebServer::Busybox, true) => format!("busybox httpd -f -p 127.0.0.1:{port} -h site"),
        };
        format!("while :; do {serve}; done")
    }
}
