//! The registry as a whole, over a real store: the way of a run, and every way around its checkpoints that an agent could try.

mod attacks;
mod effects;
mod exhausted;
mod versions;
mod way;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use serde_json::{Value, json};
use shared::{
    digest::Digest,
    effect::{
        class::EffectClass,
        protocol::{Begin, End, Hello, Outcome, ToolDeclaration},
    },
    plan::ArgumentValue,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::{DecisionInput, ExecutionBegun, Registry, RegistryError, RunRequest};
use crate::{
    checks::Engine,
    keys::Keys,
    plan::Plan,
    run::{Run, RunState, Verdict, transition::Limits},
    store::{TokenKind, Write, sqlite::SqliteStore},
};

const AGENT: &str = "planner";
const SECRET: &str = "correct horse battery staple";
const SPECIFICATION: &str = "spec_id: hello\nversion: 1.0\noutcome: A file says hello\nsuccess_criteria:\n  content:\n    - The file says hello\n";

/// A registry with an approver, a specification and a shell server that has said hello, at a time the test sets.
struct World {
    dir: TempDir,
    registry: Registry,
    now: Arc<Mutex<OffsetDateTime>>,
}

impl World {
    fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let now = Arc::new(Mutex::new(OffsetDateTime::now_utc()));
        let registry = open(&dir, &now)?;
        registry.enrol("ana", SECRET, false)?;
        registry.add_specification(SPECIFICATION.as_bytes(), None, "human:ana")?;
        registry.agent_register(AGENT, "plans and works", None)?;
        for service in ["shell", "other-shell"] {
            registry.add_token(TokenKind::Service, service, Some("mcp-bash-commander"))?;
            registry.hello(service, Some(1), hello(&format!("{service}-1")))?;
        }
        Ok(Self { dir, registry, now })
    }

    /// The same state directory in a new process, as far as the registry can tell.
    fn restarted(mut self) -> anyhow::Result<Self> {
        self.registry = open(&self.dir, &self.now)?;
        Ok(self)
    }

    fn pass(&self, time: Duration) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }

    fn database(&self) -> anyhow::Result<rusqlite::Connection> {
        Ok(rusqlite::Connection::open(
            self.dir.path().join("registry.sqlite"),
        )?)
    }

    fn requested(&self) -> Result<Run, RegistryError> {
        self.requested_in("default")
    }

    fn requested_in(&self, environment: &str) -> Result<Run, RegistryError> {
        self.registry.run_request(
            AGENT,
            &RunRequest {
                spec_id: "hello".to_owned(),
                version: None,
                environment: environment.to_owned(),
                idempotency_key: None,
            },
        )
    }

    fn claimed(&self) -> Result<Run, RegistryError> {
        let run = self.requested()?;
        self.registry.run_claim(AGENT, &run.run_id)
    }

    /// A run whose plan waits at V1, and the checkpoint's id.
    fn submitted(&self) -> anyhow::Result<(Run, String)> {
        let run = self.claimed()?;
        let plan = plan(&run.spec_digest)?;
        let accepted = self
            .registry
            .plan_submit(AGENT, &run.run_id, run.epoch, &plan)?;
        Ok((run, accepted.checkpoint.checkpoint_id))
    }

    async fn approved(&self) -> anyhow::Result<Run> {
        let (run, checkpoint_id) = self.submitted()?;
        self.registry
            .decide(self.decision(&checkpoint_id, Verdict::Approve)?)
            .await?;
        Ok(run)
    }

    /// A run in Generate, with its handles.
    async fn begun(&self) -> anyhow::Result<(Run, ExecutionBegun)> {
        let run = self.approved().await?;
        let begun = self
            .registry
            .execution_begin(AGENT, &run.run_id, run.epoch)
            .await?;
        Ok((run, begun))
    }

    /// What an approver who has read to the end types.
    fn decision(
        &self,
        checkpoint_id: &str,
        verdict: Verdict,
    ) -> Result<DecisionInput, RegistryError> {
        let file = self.registry.checkpoint_file(checkpoint_id)?;
        Ok(DecisionInput {
            checkpoint_id: checkpoint_id.to_owned(),
            verdict,
            reason: "because".to_owned(),
            reason_code: None,
            is_final: false,
            return_to: None,
            code: file.code,
            approver: "ana".to_owned(),
            secret: Zeroizing::new(SECRET.to_owned()),
            accepted_unknown: Vec::new(),
            approver_uid: Some(1000),
            shown_digest: Some(file.checkpoint.subject_digest),
        })
    }

    fn state(&self, run: &Run) -> Result<RunState, RegistryError> {
        Ok(self.registry.record(&run.run_id)?.run.state)
    }

    /// Actions that are on record as seen by audit code.
    fn audited(&self, action: &str) -> anyhow::Result<usize> {
        let count = self.database()?.query_row(
            "SELECT count(*) FROM audit WHERE action = ?1",
            [action],
            |row| row.get::<_, i64>(0),
        )?;
        Ok(usize::try_from(count)?)
    }
}

fn open(dir: &TempDir, now: &Arc<Mutex<OffsetDateTime>>) -> anyhow::Result<Registry> {
    let keys = Arc::new(Keys::open_or_create(&dir.path().join("keys"))?);
    let store = Arc::new(SqliteStore::open(dir.path(), Arc::clone(&keys))?);
    let now = Arc::clone(now);
    let clock = Arc::new(move || *now.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Registry::new(
        store,
        keys,
        Limits::default(),
        clock,
        Engine::in_this_process(),
    ))
}

fn hello(instance: &str) -> Hello {
    let write_file = json!({
        "type": "object", "required": ["path", "content"],
        "properties": {
            "path": { "type": "string" }, "content": { "type": "string" },
            "expect_sha256": { "type": "string" },
        },
    });
    let exec = json!({
        "type": "object", "required": ["command"],
        "properties": {
            "command": { "type": "string" }, "cwd": { "type": "string", "default": "." },
            "env": { "type": "object", "default": {} },
        },
    });
    let tool = |tool: &str, schema| ToolDeclaration {
        tool: tool.to_owned(),
        class: EffectClass::Write,
        schema,
    };
    Hello {
        instance: instance.to_owned(),
        version: "1".to_owned(),
        tools: vec![tool("write_file", write_file), tool("exec", exec)],
        undelivered_ends: Vec::new(),
    }
}

/// Two steps: write a file, then look at it.
fn plan_json(spec_digest: &Digest) -> Value {
    json!({
        "spec_digest": spec_digest,
        "steps": [
            {
                "id": "s1", "server": "shell", "tool": "write_file",
                "arguments": {
                    "path": { "exact": "hello.txt" },
                    "content": { "sha256": Digest::of("hello"), "shown": "hello" },
                },
                "reversibility": "reversible", "rollback": "delete it",
            },
            {
                "id": "s2", "server": "shell", "tool": "exec",
                "arguments": { "command": { "exact": "cat hello.txt" } },
                "reversibility": "reversible", "rollback": "nothing to undo", "after": ["s1"],
            },
        ],
        "human_judges": [{ "criterion": "content/the-file-says-hello", "why": "one look" }],
        "rollback": "delete the file",
    })
}

fn plan(spec_digest: &Digest) -> anyhow::Result<Plan> {
    Ok(serde_json::from_value(plan_json(spec_digest))?)
}

/// The call that step s1 allows.
fn write_hello(begun: &ExecutionBegun, seq: u64) -> anyhow::Result<Begin> {
    let grant = begun
        .steps
        .first()
        .context("no handle for s1")?
        .grant
        .clone();
    Ok(call(
        &grant,
        "write_file",
        json!({ "path": "hello.txt", "content": "hello" }),
        seq,
    ))
}

fn call(grant: &str, tool: &str, arguments: Value, seq: u64) -> Begin {
    let arguments: BTreeMap<String, Value> = serde_json::from_value(arguments).unwrap_or_default();
    Begin {
        instance: "shell-1".to_owned(),
        seq,
        grant: grant.to_owned(),
        principal: AGENT.to_owned(),
        tool: tool.to_owned(),
        arguments: arguments
            .into_iter()
            .map(|(name, value)| (name, ArgumentValue::of(value)))
            .collect(),
        idempotency_key: format!("key-{seq}"),
    }
}

fn ended(action_id: &str, seq: u64) -> End {
    End {
        instance: "shell-1".to_owned(),
        seq,
        action_id: action_id.to_owned(),
        outcome: Outcome::Ok,
        error_code: None,
        result_sha256: Digest::of("result"),
        session: None,
        published: Vec::new(),
        artefacts: Vec::new(),
    }
}

/// The code of a refusal, or what came instead.
fn code<T: std::fmt::Debug>(result: Result<T, RegistryError>) -> String {
    match result {
        Ok(value) => format!("not refused: {value:?}"),
        Err(error) => error.code,
    }
}
