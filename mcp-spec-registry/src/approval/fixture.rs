//! A registry with one approver and one plan that waits for them, for the tests of page and socket.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::{
    digest::Digest,
    effect::{
        class::EffectClass,
        protocol::{Hello, ToolDeclaration},
    },
};
use time::OffsetDateTime;

use crate::{
    checks::Engine,
    keys::Keys,
    plan::Plan,
    registry::{PlanAccepted, Registry, RunRequest},
    run::transition::Limits,
    specification::Specification,
    store::{TokenKind, sqlite::SqliteStore},
};

pub(super) const APPROVER: &str = "ana";
pub(super) const SECRET: &str = "four unrelated words here";

const SPECIFICATION: &str = include_str!("../../../specs/test-web-service.yaml");

/// A registry in a folder of its own.
pub(super) struct Fixture {
    pub(super) registry: Registry,
    pub(super) run_id: String,
    epoch: u64,
    specification: Specification,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// A run that `demo-agent` has claimed; no plan yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let keys = Arc::new(Keys::open_or_create(&folder.path().join("keys"))?);
        let store = Arc::new(SqliteStore::open(folder.path(), Arc::clone(&keys))?);
        let registry = Registry::new(
            store,
            keys,
            Limits::default(),
            Arc::new(OffsetDateTime::now_utc),
            Engine::new(&[]),
        );
        registry.enrol(APPROVER, SECRET, true)?;
        registry.add_specification(SPECIFICATION.as_bytes(), None, "owner")?;
        let tool = |tool: &str, class| ToolDeclaration {
            tool: tool.to_owned(),
            class,
            schema: json!({ "type": "object", "properties": {
                "path": { "type": "string" }, "content": { "type": "string" }, "command": { "type": "string" },
                "publish": { "type": "array", "items": { "type": "integer" }, "default": [] },
                "wait": { "type": "string", "default": "exit" },
            } }),
        };
        let hello = Hello {
            instance: "i1".to_owned(),
            version: "1".to_owned(),
            tools: vec![
                tool("write_file", EffectClass::Write),
                tool("exec", EffectClass::Irreversible),
            ],
            undelivered_ends: Vec::new(),
        };
        registry.add_token(
            TokenKind::Service,
            "mcp-bash-commander",
            Some("mcp-bash-commander"),
        )?;
        registry.hello("mcp-bash-commander", None, hello)?;
        registry.agent_register("demo-agent", "serves web pages", None)?;
        let asked = RunRequest {
            spec_id: "test-web-service".to_owned(),
            version: None,
            environment: "default".to_owned(),
            idempotency_key: None,
        };
        let run_id = registry.run_request("demo-agent", &asked)?.run_id;
        let epoch = registry.run_claim("demo-agent", &run_id)?.epoch;
        let specification = Specification::parse(SPECIFICATION, None)?;
        Ok(Self {
            registry,
            run_id,
            epoch,
            specification,
            _folder: folder,
        })
    }

    /// The same with a plan that waits at V1.
    pub(super) fn waiting() -> anyhow::Result<(Self, PlanAccepted)> {
        let fixture = Self::new()?;
        let accepted = fixture.submit(&fixture.plan("<!doctype html><title>hi</title>", &[])?)?;
        Ok((fixture, accepted))
    }

    pub(super) fn submit(&self, plan: &Plan) -> anyhow::Result<PlanAccepted> {
        Ok(self
            .registry
            .plan_submit("demo-agent", &self.run_id, self.epoch, plan)?)
    }

    /// A plan that serves a file with this content, with these assumptions.
    pub(super) fn plan(&self, content: &str, assumptions: &[&str]) -> anyhow::Result<Plan> {
        let criteria = self
            .specification
            .criteria
            .iter()
            .chain(&self.specification.constraints);
        let mut tests = Vec::new();
        let mut judged = Vec::new();
        for criterion in criteria {
            let id = &criterion.criterion_id;
            let check: Option<Value> = match id.rsplit('/').next() {
                Some("page-load-time") => {
                    Some(json!({ "http": { "target": "s2:80", "path": "/", "samples": 50 } }))
                }
                Some("automatic-restart-on-failure") => Some(
                    json!({ "restart": { "target": "s2:80", "path": "/", "within_ms": 5000 } }),
                ),
                Some("serves-static-html-content") => Some(json!({ "http": { "target": "s2:80",
                    "expect": { "status": 200, "headers": { "content-type": "text/html" } } } })),
                Some("accessible-on-port-80") => Some(json!({ "tcp": { "target": "s2:80" } })),
                Some("resource-usage") => {
                    Some(json!({ "session": { "step": "s2", "measure": "memory" } }))
                }
                _ => None,
            };
            match check {
                Some(check) => tests.push(json!({ "criterion": id, "check": check })),
                None => {
                    judged
                        .push(json!({ "criterion": id, "why": "no machine here can measure it" }));
                }
            }
        }
        let plan = json!({
            "spec_digest": self.specification.digest,
            "steps": [
                { "id": "s1", "server": "mcp-bash-commander", "tool": "write_file",
                  "arguments": { "path": { "exact": "site/index.html" },
                                 "content": { "sha256": Digest::of(content), "shown": content } },
                  "reversibility": "reversible", "rollback": "delete the file" },
                { "id": "s2", "server": "mcp-bash-commander", "tool": "exec",
                  "arguments": { "command": { "exact": "while :; do python3 -m http.server 80 -d site; done" },
                                 "publish": { "exact": [80] }, "wait": { "any": true } },
                  "reversibility": "irreversible", "rollback": "stop the session; nothing else remains",
                  "inputs": [{ "path": "site/index.html", "sha256": Digest::of(content) }],
                  "lifetime": "run", "after": ["s1"] },
            ],
            "tests": tests, "human_judges": judged, "assumptions": assumptions,
            "alternatives": ["nginx, which needs a container image"],
            "rollback": "stop the session and delete the folder",
        });
        Ok(serde_json::from_value(plan)?)
    }
}
