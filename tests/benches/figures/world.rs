//! Asking the registry before a change: a real registry process, a real run in Generate, the effect servers' own client.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use shared::{
    digest::Digest,
    effect::{
        class::EffectClass,
        client::{EffectClient, EffectConfig, EndReport, ServiceCredential},
        protocol::ToolDeclaration,
    },
};
use tests::{
    binaries::Server,
    client::{Client, Era},
    fixture::{places, registry},
    process::{ServerProcess, environment},
};
use tokio::process::Command;

use super::{Figures, Samples, disk, ms, process::beside};

const SECRET: &str = "a secret for the benchmark";
const AGENT: &str = "bench";
const SPECIFICATION: &str =
    "spec_id: bench\noutcome: It is measured\nsuccess_criteria:\n  speed:\n    - It is fast\n";
/// A step may be used at most a hundred times.
const USES: u32 = 100;

pub(super) async fn begin(figures: &mut Figures) -> anyhow::Result<()> {
    let folder = disk::folder_on_disk()?;
    let folder = folder.path();
    let _registry = registry(folder, &[]).await?;
    human(
        folder,
        &["enrol", "--name", "bench", "--test", "--secret-fd", "0"],
    )
    .await?;
    let specification = folder.join("bench.yaml");
    std::fs::write(&specification, SPECIFICATION)?;
    human(
        folder,
        &["spec", "add", &specification.display().to_string()],
    )
    .await?;
    let token = folder.join("token.toml");
    let out = token.display().to_string();
    human(
        folder,
        &[
            "token", "add", "--kind", "service", "--name", "shell", "--server", "bench", "--out",
            &out,
        ],
    )
    .await?;
    let client = EffectClient::open(EffectConfig {
        socket: folder.join("sockets/effect/effect.sock"),
        registry_uid: None,
        credential: ServiceCredential::read(&token)?,
        version: "1".to_owned(),
        tools: vec![ToolDeclaration {
            tool: "touch".to_owned(),
            class: EffectClass::Write,
            schema: json!({ "type": "object", "properties": { "path": { "type": "string" } } }),
        }],
        state_dir: folder.join("shell"),
    })?;
    client
        .settle()
        .await
        .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;

    let arguments = ["stdio".into(), "--agent".into(), AGENT.into()]
        .into_iter()
        .chain(places(Server::SpecRegistry, folder));
    let mut pipe = ServerProcess::start(Server::SpecRegistry, folder, arguments).await?;
    let agent = pipe.client(Era::Modern).await?;
    let grant = approved_grant(&agent, folder).await?;

    let mut begins = Vec::new();
    for _ in 0..USES {
        let arguments = json!({ "path": "a" })
            .as_object()
            .cloned()
            .unwrap_or_default();
        let started = Instant::now();
        let permit = client
            .begin(&grant, AGENT, "touch", arguments)
            .await
            .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        begins.push(started.elapsed());
        let end = EndReport::done(permit.action_id, Digest::of("done"));
        client
            .end(end)
            .await
            .map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    }
    let begins = Samples::new(begins);
    let bare = disk::fdatasyncs(folder, USES as usize)?.p50();
    let limit = bare * 2 + Duration::from_micros(500);
    let measured = format!("p50 {} ({})", ms(begins.p50()), beside("fdatasync", bare));
    figures.add(
        "begin: asking the registry",
        &measured,
        &ms(limit),
        begins.p50() <= limit,
    );
    Ok(())
}

/// Takes a run through V1 and gives the handle of its one step.
async fn approved_grant(agent: &Client, folder: &Path) -> anyhow::Result<String> {
    let call = async |tool: &str, arguments: Value| -> anyhow::Result<Value> {
        agent
            .call(tool, arguments)
            .await?
            .success()
            .with_context(|| format!("{tool} failed"))
    };
    call("agent_register", json!({ "description": "measures" })).await?;
    let specification =
        call("spec_get", json!({ "spec_id": "bench" })).await?["specification"].clone();
    let run_id = call("run_request", json!({ "spec_id": "bench" })).await?["run"]["run_id"].clone();
    let epoch = call("run_claim", json!({ "run_id": run_id })).await?["run"]["epoch"].clone();
    let plan = json!({
        "spec_digest": specification["digest"],
        "steps": [{
            "id": "s1", "server": "shell", "tool": "touch", "arguments": { "path": { "exact": "a" } },
            "reversibility": "reversible", "rollback": "none", "uses": USES,
        }],
        "human_judges": [{ "criterion": specification["criteria"][0]["criterion"], "why": "a benchmark" }],
        "rollback": "none",
    });
    let submitted = call(
        "plan_submit",
        json!({ "run_id": run_id, "epoch": epoch, "plan": plan }),
    )
    .await?;
    let checkpoint = submitted["checkpoint_id"]
        .as_str()
        .context("no checkpoint")?;
    let shown: Value =
        serde_json::from_str(&human(folder, &["show", checkpoint, "--json"]).await?)?;
    let code = shown["code"].as_str().context("no code")?;
    let words = [
        "approve",
        checkpoint,
        "--name",
        "bench",
        "--reason",
        "a benchmark",
        "--code",
        code,
        "--secret-fd",
        "0",
    ];
    human(folder, &words).await?;
    let begun = call(
        "execution_begin",
        json!({ "run_id": run_id, "epoch": epoch }),
    )
    .await?;
    Ok(begun["steps"][0]["grant"]
        .as_str()
        .context("no handle")?
        .to_owned())
}

/// A human's command; the secret waits on stdin for those that read it.
async fn human(folder: &Path, words: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(Server::SpecRegistry.program().await?);
    command
        .args(words)
        .args(places(Server::SpecRegistry, folder))
        .env_clear()
        .envs(environment(folder));
    tests::human::run(command, Some(SECRET)).await
}
