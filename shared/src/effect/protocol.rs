//! The wire types of the effect plane: JSON over HTTP on the registry's `effect` socket.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::class::EffectClass;
use crate::{digest::Digest, plan::ArgumentValue};

/// `POST /v1/hello`: an effect server says what it is and what it can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Fresh random name of this process; records are numbered per instance.
    pub instance: String,
    /// Version of the server program.
    pub version: String,
    /// What plans may name.
    pub tools: Vec<ToolDeclaration>,
    /// Actions whose end this process still holds, from itself or from an earlier instance, and delivers next. Every other
    /// open action of an earlier instance of the service is lost: on the hello of a new instance it becomes `unknown`.
    #[serde(default)]
    pub undelivered_ends: Vec<String>,
}

/// A tool of an effect server, as plans may name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolDeclaration {
    /// Name of the tool.
    pub tool: String,
    /// The least a call of it must be taken for.
    pub class: EffectClass,
    /// JSON schema of its arguments, with defaults, without `grant`.
    pub schema: Value,
}

/// Answer to [`Hello`], and to `GET /v1/hello`, which declares nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// Name of the service that the token belongs to; plans name it as `server`.
    pub service: String,
    /// Number of the last record received from this instance, 0 from a new one: the effect server goes on with the next,
    /// so that a record whose answer was lost leaves neither a gap nor a second one.
    pub last_seq: u64,
    /// Newest signed head of the registry's audit.
    pub audit_head: Option<SignedHead>,
}

/// `POST /v1/actions/begin`: may this call be made?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// Name of the asking process, as in [`Hello`].
    pub instance: String,
    /// Number of this record; each instance counts its begins and ends from 1 without gaps. An answer 200, 403 or 409 uses
    /// the number up; after any other answer the next record may have it.
    pub seq: u64,
    /// The handle that `execution_begin` gave to the agent.
    pub grant: String,
    /// Who made the call, as the effect server knows it from the credential.
    pub principal: String,
    /// Name of the tool.
    pub tool: String,
    /// The typed, defaulted arguments that will run, without `grant`.
    pub arguments: BTreeMap<String, ArgumentValue>,
    /// Made by the effect server; the same key with the same number and content is answered as the first time.
    pub idempotency_key: String,
}

/// Answer to [`Begin`]: the call may be made, and is on record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    /// Names the intent; `end` refers to it.
    pub action_id: String,
    /// The run that the call belongs to.
    pub run_id: String,
    /// The step of the approved plan.
    pub step_id: String,
    /// Files that must have exactly these bytes while the call runs.
    pub inputs: Vec<PinnedInput>,
    /// Whether what the call starts may outlive it.
    pub lifetime: Lifetime,
    /// Newest signed head of the registry's audit.
    pub audit_head: Option<SignedHead>,
}

/// A file that a step reads or runs, with the bytes that the human approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinnedInput {
    /// Path as the effect server's tools take it.
    pub path: String,
    /// SHA-256 of the file's bytes.
    pub sha256: Digest,
}

/// How long a process that a step starts may live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// Ends with its step, at the latest with Generate.
    #[default]
    Step,
    /// Outlives it, until `stop`, the run's failure, or its server's end.
    Run,
}

/// `POST /v1/actions/end`: what became of a call that was begun. Idempotent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Name of the process that sends the record: after a restart it is not the one that began the action.
    pub instance: String,
    /// Number of this record, counted together with the begins of the sending process.
    pub seq: u64,
    /// From [`Permit`].
    pub action_id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Stable code of the error, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Digest of the result as the agent got it.
    pub result_sha256: Digest,
    /// What still runs, as the effect server names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Ports that the process serves, and where they can be reached from outside its jail.
    #[serde(default)]
    pub published: Vec<PublishedPort>,
    /// Files that the call left behind.
    #[serde(default)]
    pub artefacts: Vec<PinnedInput>,
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Ok,
    /// Tried, and failed.
    Error,
    /// Nobody knows: the server ended in between.
    Unknown,
}

/// A port inside a jail and the loopback address that leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedPort {
    /// Port inside the jail.
    pub port: u16,
    /// Address outside, `127.0.0.1:PORT`.
    pub address: String,
}

/// Answer to [`End`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Newest signed head of the registry's audit.
    pub audit_head: Option<SignedHead>,
}

/// `POST /v1/actions/refused`: a call that the effect server itself refused. Best effort, changes no state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefusedCall {
    /// Name of the process, as in [`Hello`].
    pub instance: String,
    /// Who made the call.
    pub principal: String,
    /// Name of the tool.
    pub tool: String,
    /// Stable code of the refusal.
    pub code: String,
    /// The action it was part of, if one had begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_id: Option<String>,
}

/// `GET /v1/work?instance=…` (long poll): what the registry wants of this instance. 204 when there is nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Answer it at `POST /v1/work/{id}`.
    pub id: String,
    /// What to do.
    pub order: WorkOrder,
}

/// What the registry may ask of an effect server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkOrder {
    /// Measure a session from outside its jail.
    MeasureSession {
        /// As reported in [`End::session`].
        session: String,
    },
    /// Hash a file of the workspace.
    HashFile {
        /// Path as the effect server's tools take it.
        path: String,
    },
    /// Run a command in a fresh jail that cannot change the workspace and has no network.
    RunCommand {
        /// Program and arguments.
        argv: Vec<String>,
        /// A text to look for in its standard output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// When it is killed, in milliseconds.
        timeout_ms: u32,
    },
    /// End the process that serves, and leave the session alone: does it come back?
    EndServingProcess {
        /// As reported in [`End::session`].
        session: String,
    },
    /// End all processes of a run: it was paused, killed, or lost its claimant.
    EndRun {
        /// The run.
        run_id: String,
    },
    /// End the processes of a run that were started with the lifetime of their step: Generate is complete.
    EndSteps {
        /// The run.
        run_id: String,
    },
}

/// Code of [`WorkResult::Failed`] for a session that is not, or no longer, there: what was to be measured is missing.
pub const UNKNOWN_SESSION: &str = "UNKNOWN_SESSION";

/// `POST /v1/work/{id}`: the answer to a [`WorkOrder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkResult {
    /// Answer to [`WorkOrder::MeasureSession`].
    Session(SessionMeasure),
    /// Answer to [`WorkOrder::HashFile`].
    File {
        /// Digest of the file; absent when there is no such file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<Digest>,
    },
    /// Answer to [`WorkOrder::RunCommand`].
    Command(CommandMeasure),
    /// Answer to the orders that end processes.
    EndedProcesses {
        /// How many processes were ended.
        count: u32,
    },
    /// The order could not be carried out.
    Failed {
        /// Stable code.
        code: String,
        /// What happened.
        message: String,
    },
}

/// How a command ended; what it wrote stays where it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandMeasure {
    /// Its exit code, if it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether it was killed because its time was up.
    pub timed_out: bool,
    /// Whether its standard output has the text that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_found: Option<bool>,
    /// Digest of its standard output, of the first 16 MiB.
    pub stdout_sha256: Digest,
    /// From its start to its end, in milliseconds.
    pub wall_ms: u64,
}

/// A session seen from outside its jail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionMeasure {
    /// Whether the session's init is alive.
    pub alive: bool,
    /// Names the jail's init so that another process cannot be taken for it: pid and start time.
    pub identity: String,
    /// Resident memory of all its processes, in bytes.
    pub memory_bytes: u64,
    /// Kernel uids of all its processes, as the host sees them.
    pub uids: Vec<u32>,
    /// Number of processes.
    pub processes: u32,
}

/// A head of the registry's audit with the registry's signature over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// Number of the newest entry that the head covers.
    pub seq: u64,
    /// Chain hash of that entry.
    pub hash: Digest,
    /// Ed25519 signature, base64, over `spec-driven-ai audit head\n<seq>\n<hash>\n`.
    pub signature: String,
}

impl SignedHead {
    /// The bytes that the signature is made over.
    pub fn signed_bytes(seq: u64, hash: &Digest) -> Vec<u8> {
        format!("spec-driven-ai audit head\n{seq}\n{hash}\n").into_bytes()
    }
}

/// A refusal or failure on the effect plane, with its HTTP status beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{code}: {message}")]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Stable code.
    pub code: String,
    /// What was wrong.
    pub message: String,
    /// How to mend it.
    pub hint: String,
}
