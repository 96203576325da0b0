//! The plan document: steps with closed argument patterns, and the test that proves each criterion.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use shared::{
    digest::Digest,
    effect::protocol::{Lifetime, PinnedInput},
    plan::ArgumentPattern,
};

/// Largest plan, in bytes of its JSON.
const LARGEST_PLAN_BYTES: usize = 64 * 1024;
/// Most steps of a plan.
const MOST_STEPS: usize = 50;

/// How an agent intends to reach an outcome, and how that will be proven.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Digest of the specification version that the plan serves.
    pub spec_digest: Digest,
    /// What will be done, each with the server and tool that does it.
    pub steps: Vec<Step>,
    /// How each criterion and constraint will be measured.
    #[serde(default)]
    pub tests: Vec<PlannedTest>,
    /// Criteria and constraints that no machine measures.
    #[serde(default)]
    pub human_judges: Vec<HumanJudged>,
    /// What the plan takes for granted.
    #[serde(default)]
    pub assumptions: Vec<String>,
    /// Other ways that were considered, and why they were not taken.
    #[serde(default)]
    pub alternatives: Vec<String>,
    /// How everything is undone.
    pub rollback: String,
}

/// One thing that will be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name of the step within the plan, such as `s1`.
    pub id: String,
    /// Name of the enrolled service that does it.
    pub server: String,
    /// Name of its tool.
    pub tool: String,
    /// What each argument may be; others must be absent or at their defaults.
    #[serde(default)]
    pub arguments: BTreeMap<String, ArgumentPattern>,
    /// Can it be undone? No less than the tool says.
    pub reversibility: Reversibility,
    /// How this step is undone.
    pub rollback: String,
    /// Files that the step reads or runs, with the bytes they must have.
    #[serde(default)]
    pub inputs: Vec<PinnedInput>,
    /// What it starts may live so long.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// Steps that must be done before.
    #[serde(default)]
    pub after: Vec<String>,
    /// How often it may be called.
    #[serde(default = "once")]
    pub uses: u32,
}

fn once() -> u32 {
    1
}

/// Whether a step can be undone.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Reversibility {
    /// It changes nothing.
    ReadOnly,
    /// It can be put back.
    Reversible,
    /// It may change something for good.
    Irreversible,
}

/// The measurement that proves a criterion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedTest {
    /// Id, as `spec_get` gives it.
    pub criterion: String,
    /// How it is measured.
    pub check: Check,
}

/// A criterion or constraint left to the human's own judgement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HumanJudged {
    /// Id, as `spec_get` gives it.
    pub criterion: String,
    /// How the plan keeps it, or why no machine can measure it.
    pub why: String,
}

/// One measurement. The operator and limit come from the criterion; where it has no number, the check states what it expects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// HTTP requests to a published port of a step.
    Http(HttpCheck),
    /// A TCP connection to a published port of a step.
    Tcp(TcpCheck),
    /// A session as its server sees it from outside the jail.
    Session(SessionCheck),
    /// The digest of a file.
    File(FileCheck),
    /// The serving process is ended; the service must answer again in time.
    Restart(RestartCheck),
    /// A command in a fresh jail that cannot change the workspace.
    Command(CommandCheck),
}

/// HTTP GET requests, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// A published port of a step, `STEP:PORT`.
    pub target: Target,
    /// Path and query of the request.
    #[serde(default = "root_path")]
    pub path: String,
    /// Number of requests, 1 to 500; a latency criterion takes the 95th percentile of them.
    #[serde(default = "default_samples")]
    pub samples: u32,
    /// What each answer must have; needed where the criterion has no number.
    #[serde(default)]
    pub expect: HttpExpectation,
}

/// What an HTTP answer must have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpExpectation {
    /// Status code; any of 200 to 299 when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Headers by lower-case name, each with a text its value must contain.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A text that the body must contain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

fn root_path() -> String {
    "/".to_owned()
}

fn default_samples() -> u32 {
    20
}

/// A TCP connection that must be accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// A published port of a step, `STEP:PORT`.
    pub target: Target,
}

/// Something about a session, measured by its server from outside the jail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionCheck {
    /// The step that started it.
    pub step: String,
    /// What is measured.
    pub measure: SessionMeasureKind,
}

/// What is measured of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionMeasureKind {
    /// Resident memory of all its processes.
    Memory,
    /// No process has uid 0 on the host.
    NotRoot,
    /// It is running.
    Alive,
}

/// A file that must have these bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileCheck {
    /// Name of the service whose workspace it is in.
    pub server: String,
    /// Path as the service's tools take it.
    pub path: String,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
}

/// The serving process is ended from outside; the service must answer HTTP again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartCheck {
    /// A published port of a step, `STEP:PORT`.
    pub target: Target,
    /// Path of the request that must succeed again.
    #[serde(default = "root_path")]
    pub path: String,
    /// Longest time until it answers again, 100 to 60,000 milliseconds.
    pub within_ms: u32,
}

/// A command that must end as expected, run in a fresh jail with the workspace read-only and no network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandCheck {
    /// Name of the service that runs it.
    pub server: String,
    /// Program and arguments, exactly; no shell.
    pub argv: Vec<String>,
    /// The exit code that is expected.
    #[serde(default)]
    pub exit_code: i32,
    /// A text that standard output must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Longest time it may take, 100 to 20,000 milliseconds.
    #[serde(default = "default_command_ms")]
    pub timeout_ms: u32,
}

fn default_command_ms() -> u32 {
    10_000
}

/// A published port of a step, written `STEP:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    /// The step that publishes it.
    pub step: String,
    /// The port inside the jail.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.step, self.port)
    }
}

impl FromStr for Target {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let parsed = text.split_once(':').and_then(|(step, port)| {
            Some(Self {
                step: step.to_owned(),
                port: port.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| PlanError::Target(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Target {
    type Error = PlanError;

    fn try_from(text: String) -> Result<Self, PlanError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl JsonSchema for Target {
    fn schema_name() -> Cow<'static, str> {
        "Target".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[^:]+:[0-9]+$" })
    }
}

/// A plan that is not well formed in itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Over the size limit.
    #[error("the plan has {found} {unit}; at most {limit} are read by a human in one go")]
    TooLarge {
        /// What there is.
        found: usize,
        /// `bytes` or `steps`.
        unit: &'static str,
        /// What may be.
        limit: usize,
    },
    /// A target that is not `STEP:PORT`.
    #[error("`{0}` is no target; write STEP:PORT, such as s2:80")]
    Target(String),
    /// Cannot be written as canonical JSON.
    #[error("the plan cannot be written as JSON: {0}")]
    Json(String),
}

impl Plan {
    /// The canonical JSON (RFC 8785) that the human is shown and that the digest is made of.
    ///
    /// # Errors
    /// [`PlanError::TooLarge`] over 64 KiB or 50 steps.
    pub fn canonical_json(&self) -> Result<String, PlanError> {
        if self.steps.len() > MOST_STEPS {
            return Err(PlanError::TooLarge {
                found: self.steps.len(),
                unit: "steps",
                limit: MOST_STEPS,
            });
        }
        let json = serde_json_canonicalizer::to_string(self)
            .map_err(|error| PlanError::Json(error.to_string()))?;
        if json.len() > LARGEST_PLAN_BYTES {
            return Err(PlanError::TooLarge {
                found: json.len(),
                unit: "bytes",
                limit: LARGEST_PLAN_BYTES,
            });
        }
        Ok(json)
    }

    /// The step with this id.
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }
}
