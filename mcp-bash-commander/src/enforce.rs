//! Enforced mode: before a call changes something the registry is asked, and told what was done; its orders are carried out.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shared::digest::Digest;
use shared::effect::action;
use shared::effect::class::EffectClass;
use shared::effect::client::EndReport;
use shared::effect::protocol::{CommandMeasure, Lifetime, SessionMeasure, WorkOrder, WorkResult};
use shared::tool_error::ToolError;

use crate::check::{CheckError, Checker};
use crate::jail::{JailError, PinnedInput};
use crate::session::{Killed, OrderMark, Origin, Session, Sessions};
use crate::workspace::{Workspace, WorkspaceError};

/// The changing tools that need no grant: stopping one's own process. (Reading one's own output changes nothing.)
const EXEMPT: [&str; 1] = ["stop"];

/// What shells answer for a program that is not there.
const NOT_FOUND: i32 = 127;

/// Largest file that is pinned for a step, in bytes; pinned files stand in memory.
const LARGEST_INPUT_BYTES: u64 = 64 << 20;

/// Whether a tool's calls need a grant in enforced mode.
pub fn needs_grant(tool: &str, class: EffectClass) -> bool {
    class.is_changing() && !EXEMPT.contains(&tool)
}

/// A call the registry permitted.
pub struct Action {
    permitted: action::Action,
    asked_at: OrderMark,
}

impl Action {
    /// A call that was permitted; `asked_at` is a moment before it was asked about.
    pub fn new(permitted: action::Action, asked_at: OrderMark) -> Self {
        Self {
            permitted,
            asked_at,
        }
    }

    /// What a session started by this action belongs to.
    pub fn origin(&self) -> Origin {
        Origin {
            run_id: self.permitted.permit().run_id.clone(),
            action_id: self.permitted.permit().action_id.clone(),
            outlives_step: self.outlives_step(),
            asked_at: self.asked_at,
        }
    }

    /// Whether what it starts may outlive the step.
    pub fn outlives_step(&self) -> bool {
        self.permitted.permit().lifetime == Lifetime::Run
    }

    /// The pinned inputs with exactly the bytes that were approved, copied where no one can change them.
    ///
    /// # Errors
    /// `INPUT_CHANGED` if a file has other bytes, or cannot be read.
    pub async fn pinned_inputs(
        &self,
        workspace: &Arc<Workspace>,
    ) -> Result<Vec<PinnedInput>, ToolError> {
        if self.permitted.permit().inputs.is_empty() {
            return Ok(Vec::new());
        }
        let (inputs, workspace) = (
            self.permitted.permit().inputs.clone(),
            Arc::clone(workspace),
        );
        let pin = move || {
            inputs
                .iter()
                .map(|input| pinned(&workspace, &input.path, &input.sha256))
                .collect()
        };
        tokio::task::spawn_blocking(pin)
            .await
            .map_err(|error| ToolError::internal(&error))?
    }

    /// Tells the registry how the call ended, as [`action::Action::end`].
    ///
    /// # Errors
    /// The call's own error; or that what was done could not be reported.
    pub async fn end<T: Serialize>(
        self,
        result: Result<T, ToolError>,
        describe: impl FnOnce(&T, &mut EndReport),
    ) -> Result<T, ToolError> {
        self.permitted.end(result, describe).await
    }
}

fn pinned(workspace: &Workspace, path: &str, approved: &Digest) -> Result<PinnedInput, ToolError> {
    let changed = |found: &str| {
        ToolError::new(
            "INPUT_CHANGED",
            format!("`{path}` is not what was approved: {approved} was, now there is {found}"),
        )
        .with_hint("put the approved bytes back, or plan again with these")
    };
    let unreadable = |error: WorkspaceError| changed(&error.to_string());
    let file = workspace.open_file(path).map_err(unreadable)?;
    let target = workspace.path_in_jail(path).map_err(unreadable)?;
    let input = PinnedInput::seal(&target, file, LARGEST_INPUT_BYTES)
        .map_err(|error| changed(&error.to_string()))?;
    let found = Digest::from_array(input.sha256());
    if found == *approved {
        Ok(input)
    } else {
        Err(changed(found.as_str()))
    }
}

/// Carries out what the registry asks of this server.
#[derive(Debug, Clone)]
pub struct Orders {
    sessions: Sessions,
    workspace: Arc<Workspace>,
    checker: Checker,
}

impl Orders {
    /// Over these sessions and the checker's files.
    pub fn new(sessions: Sessions, checker: Checker) -> Self {
        Self {
            sessions,
            workspace: Arc::clone(&checker.workspace),
            checker,
        }
    }

    fn session(&self, id: &str) -> Result<Arc<Session>, WorkResult> {
        let unknown = || failed("UNKNOWN_SESSION", &format!("there is no session `{id}`"));
        self.sessions.any(id).ok_or_else(unknown)
    }

    fn measure(&self, id: &str) -> Result<WorkResult, WorkResult> {
        let session = self.session(id)?;
        let identity = session.identity();
        let usage = session
            .usage()
            .map_err(|error| failed("NOT_MEASURED", &error.to_string()))?;
        let mut measure = SessionMeasure {
            alive: false,
            identity: format!("{}:{}", identity.pid, identity.start_ticks),
            memory_bytes: 0,
            uids: Vec::new(),
            processes: 0,
        };
        if let Some(usage) = usage {
            measure.alive = usage.alive;
            measure.memory_bytes = usage.memory_bytes;
            measure.uids = usage.kernel_uids;
            measure.processes = usage.processes;
        }
        Ok(WorkResult::Session(measure))
    }

    async fn hash(&self, path: String) -> Result<WorkResult, WorkResult> {
        let workspace = Arc::clone(&self.workspace);
        let hashed = tokio::task::spawn_blocking(move || workspace.digest(&path)).await;
        match hashed.map_err(|error| failed("INTERNAL", &error.to_string()))? {
            Ok(digest) => Ok(WorkResult::File {
                sha256: Some(digest),
            }),
            Err(WorkspaceError::NotFound(_)) => Ok(WorkResult::File { sha256: None }),
            Err(error) => Err(failed("NOT_HASHED", &error.to_string())),
        }
    }

    async fn run_command(
        &self,
        argv: &[String],
        text: Option<&str>,
        timeout_ms: u32,
    ) -> Result<WorkResult, WorkResult> {
        let timeout = Duration::from_millis(timeout_ms.into());
        match self.checker.run(argv, text, timeout).await {
            Ok(measure) => Ok(WorkResult::Command(measure)),
            // That the program is not there is a fact about what is measured.
            Err(CheckError::Jail(JailError::Program { .. })) => {
                Ok(WorkResult::Command(CommandMeasure {
                    exit_code: Some(NOT_FOUND),
                    signal: None,
                    timed_out: false,
                    text_found: text.map(|_| false),
                    stdout_sha256: Digest::of(b""),
                    wall_ms: 0,
                }))
            }
            Err(error) => Err(failed("NOT_MEASURED", &error.to_string())),
        }
    }

    fn end_serving(&self, id: &str) -> Result<WorkResult, WorkResult> {
        let ended = self
            .session(id)?
            .end_serving()
            .map_err(|error| failed("NOT_SERVING", &error.to_string()))?;
        Ok(ended_processes(ended))
    }

    async fn end_sessions(&self, run_id: &str, and_lasting: bool) -> WorkResult {
        let sessions = self.sessions.order_end(run_id, and_lasting);
        let mut processes = 0;
        for session in &sessions {
            let usage = session.usage().ok().flatten();
            processes += usage.map_or(0, |usage| usize::try_from(usage.processes).unwrap_or(0));
            session.kill(Killed::RunEnded);
        }
        for session in &sessions {
            session.over().await;
        }
        ended_processes(processes)
    }
}

impl shared::effect::client::WorkHandler for Orders {
    async fn carry_out(&self, order: WorkOrder) -> WorkResult {
        let result = match order {
            WorkOrder::MeasureSession { session } => self.measure(&session),
            WorkOrder::HashFile { path } => self.hash(path).await,
            WorkOrder::RunCommand {
                argv,
                text,
                timeout_ms,
            } => self.run_command(&argv, text.as_deref(), timeout_ms).await,
            WorkOrder::EndServingProcess { session } => self.end_serving(&session),
            WorkOrder::EndRun { run_id } => Ok(self.end_sessions(&run_id, true).await),
            WorkOrder::EndSteps { run_id } => Ok(self.end_sessions(&run_id, false).await),
        };
        result.unwrap_or_else(|failed| failed)
    }
}

fn ended_processes(count: usize) -> WorkResult {
    WorkResult::EndedProcesses {
        count: u32::try_from(count).unwrap_or(u32::MAX),
    }
}

fn failed(code: &str, message: &str) -> WorkResult {
    WorkResult::Failed {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}
