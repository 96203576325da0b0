//! What every call of a tool goes through: it cannot hurt the server, it ends in time, and it leaves a line in the log.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use rmcp::{
    ErrorData, RoleServer,
    handler::server::tool::{ToolCallContext, ToolRouter},
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode,
        JsonObject, Tool,
    },
    service::RequestContext,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    budget::json_bytes,
    call_log::{CallLog, Details, Outcome, Record},
    canonical,
    digest::hex,
    effect::class::EffectClass,
    metrics::Metrics,
    principal,
    tool_error::{ToolError, code},
    tools::class_of,
};

/// How the SDK begins its complaint about arguments.
const WRONG_ARGUMENTS: &str = "failed to deserialize parameters: ";

/// Code in the log of a call of a tool that does not exist.
const UNKNOWN_TOOL: &str = "UNKNOWN_TOOL";
/// Bytes of such a tool's name that are recorded.
const LONGEST_GUESS: usize = 64;

/// What a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a call may run, where its tool has no deadline of its own.
    pub deadline: Duration,
    /// How long a changing call has to wind up after it was cancelled or its deadline passed; a read has no such time.
    pub grace: Duration,
    /// How many calls may run at once.
    pub concurrent: usize,
    /// How many bytes of JSON a result may have. A net below the tools' own budgets.
    pub result_bytes: usize,
}

impl Default for Limits {
    /// 60 s and 2 s more, 64 calls, 1 MiB.
    fn default() -> Self {
        Self {
            deadline: Duration::from_mins(1),
            grace: Duration::from_secs(2),
            concurrent: 64,
            result_bytes: 1024 * 1024,
        }
    }
}

/// Stands in front of a server's tools; clones are the same guard.
#[derive(Debug, Clone)]
pub struct CallGuard {
    limits: Limits,
    deadlines: HashMap<&'static str, Duration>,
    slots: Arc<Semaphore>,
    metrics: Metrics,
    log: Option<CallLog>,
}

/// What a tool adds to its call's line in the log.
#[derive(Debug, Default)]
struct Note {
    principal: String,
    tool: String,
    arguments_sha256: String,
    run: Option<String>,
    action: Option<String>,
    refused: bool,
    approved_by: Option<&'static str>,
    details: Option<Details>,
}

#[derive(Debug, Clone, Default)]
struct SharedNote(Arc<Mutex<Note>>);

impl SharedNote {
    fn lock(&self) -> MutexGuard<'_, Note> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Called by a tool: the run and the action its call belongs to, for the call log.
pub fn belongs_to(context: &RequestContext<RoleServer>, run: Option<&str>, action: Option<&str>) {
    if let Some(note) = context.extensions.get::<SharedNote>() {
        let mut note = note.lock();
        note.run = run.map(str::to_owned);
        note.action = action.map(str::to_owned);
    }
}

/// Called by a tool that fails: nothing was done, the call was refused (by the registry, a policy, a jail).
pub fn was_refused(context: &RequestContext<RoleServer>) {
    if let Some(note) = context.extensions.get::<SharedNote>() {
        note.lock().refused = true;
    }
}

/// Called by a tool that succeeds: who approved the call, where somebody had to. It stands in the log in the place of an error's code.
pub fn was_approved(context: &RequestContext<RoleServer>, by: &'static str) {
    if let Some(note) = context.extensions.get::<SharedNote>() {
        note.lock().approved_by = Some(by);
    }
}

/// Called by a tool: what its call's line says besides.
pub fn has_details(context: &RequestContext<RoleServer>, details: Details) {
    if let Some(note) = context.extensions.get::<SharedNote>() {
        note.lock().details = Some(details);
    }
}

/// Called by a tool that starts what may outlast its call: the line for its start and, changed, for its end.
pub fn line(context: &RequestContext<RoleServer>) -> Option<Record> {
    let note = context.extensions.get::<SharedNote>()?.lock();
    Some(Record {
        principal: note.principal.clone(),
        tool: note.tool.clone(),
        arguments_sha256: note.arguments_sha256.clone(),
        run: note.run.clone(),
        action: note.action.clone(),
        outcome: Outcome::Started,
        code: None,
        ms: 0,
        details: None,
    })
}

impl CallGuard {
    /// A guard with these limits that counts into `metrics` and keeps no log.
    pub fn new(limits: Limits, metrics: Metrics) -> Self {
        let slots = Arc::new(Semaphore::new(limits.concurrent));
        Self {
            limits,
            deadlines: HashMap::new(),
            slots,
            metrics,
            log: None,
        }
    }

    /// The same guard with a call log.
    #[must_use]
    pub fn with_log(mut self, log: CallLog) -> Self {
        self.log = Some(log);
        self
    }

    /// The same guard with a deadline of its own for one tool.
    #[must_use]
    pub fn with_deadline(mut self, tool: &'static str, deadline: Duration) -> Self {
        self.deadlines.insert(tool, deadline);
        self
    }

    /// Carries out one call; to be returned by `ServerHandler::call_tool`. The tool sees in `context.ct` when it is to
    /// stop: cancelled by the client, its connection gone, its deadline passed, or the server ending. (It is also
    /// cancelled once the call is over; what is to outlive the call must not hang on it.)
    ///
    /// # Errors
    /// Only what is no tool result: an unknown tool, and protocol errors that the tool itself answers with.
    pub async fn call<S: Send + Sync + 'static>(
        &self,
        server: &S,
        router: &ToolRouter<S>,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let started = Instant::now();
        let _running = principal::caller(&context).map(|caller| caller.calls.token());
        let Some(tool) = router.get(&request.name) else {
            self.metrics.operation(
                "tools/call",
                Some("unknown"),
                Some("-32602"),
                started.elapsed(),
            );
            self.record_guess(&request, &context, started).await;
            return Err(unknown_tool(&request.name, router));
        };
        let principal = principal::of(&context).map(|principal| principal.name.to_string());
        let note = Note {
            principal: principal.clone().unwrap_or_default(),
            tool: tool.name.to_string(),
            arguments_sha256: arguments_digest(request.arguments.as_ref()),
            ..Note::default()
        };
        let call = Call {
            tool: tool.name.as_ref(),
            class: class_of(tool),
            principal,
            note: SharedNote(Arc::new(Mutex::new(note))),
            started,
        };
        let response = match self.admit(&call).await {
            Ok(_slot) => {
                self.run(&call, tool, server, router, request, context)
                    .await
            }
            Err(refusal) => {
                call.note.lock().refused = true;
                Ok(refusal.to_result().into())
            }
        };
        self.finish(&call, response).await
    }

    /// Carries out a request that is no tool call (a prompt, a resource, a completion): it is counted, ends at the general
    /// deadline, and a panic in it is an error instead of no answer at all.
    ///
    /// # Errors
    /// What the work fails with; an internal error for a panic or a deadline that passed.
    pub async fn request<T>(
        &self,
        method: &'static str,
        work: impl Future<Output = Result<T, ErrorData>>,
    ) -> Result<T, ErrorData> {
        let started = Instant::now();
        let guarded = AssertUnwindSafe(work).catch_unwind();
        let result = match tokio::time::timeout(self.limits.deadline, guarded).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(ErrorData::internal_error(
                "the server failed inside; its log has the cause",
                None,
            )),
            Err(_) => Err(ErrorData::internal_error("the server took too long", None)),
        };
        let error = result.as_ref().err().map(|error| error.code.0.to_string());
        self.metrics
            .operation(method, None, error.as_deref(), started.elapsed());
        result
    }

    /// A free slot, a known caller, and for a changing call where that is required, a log that takes lines.
    async fn admit(&self, call: &Call<'_>) -> Result<tokio::sync::SemaphorePermit<'_>, ToolError> {
        if let Err(unknown) = &call.principal {
            return Err(unknown.clone());
        }
        let slot = self.slots.try_acquire().map_err(|_| {
            ToolError::new(
                code::BUSY,
                format!("{} calls are running already", self.limits.concurrent),
            )
            .with_hint("wait for one of them to end, then call again")
        })?;
        if let Some(log) = self
            .log
            .as_ref()
            .filter(|log| log.is_required() && call.class.is_changing())
        {
            log.ready()
                .await
                .map_err(|error| unrecorded(&error, "nothing was done"))?;
        }
        Ok(slot)
    }

    async fn run<S: Send + Sync + 'static>(
        &self,
        call: &Call<'_>,
        tool: &Tool,
        server: &S,
        router: &ToolRouter<S>,
        request: CallToolRequestParams,
        mut context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let cancelled = context.ct.clone();
        let ended = principal::caller(&context)
            .map_or_else(CancellationToken::new, |caller| caller.ended.clone());
        let stop = CancellationToken::new();
        context.ct = stop.clone();
        context.extensions.insert(call.note.clone());
        // Also when this future is dropped, what the tool started is told to stop.
        let _stop_on_drop = stop.clone().drop_guard();

        let deadline = self
            .deadlines
            .get(call.tool)
            .copied()
            .unwrap_or(self.limits.deadline);
        let working = AssertUnwindSafe(router.call(ToolCallContext::new(server, request, context)))
            .catch_unwind();
        tokio::pin!(working);
        let stopped = tokio::select! {
            biased;
            done = &mut working => return settle(done, tool, self.limits.result_bytes),
            () = cancelled.cancelled() => ToolError::new(code::CANCELLED, "the client cancelled the call"),
            () = ended.cancelled() => ToolError::new(code::CANCELLED, "the connection ended"),
            () = tokio::time::sleep(deadline) => ToolError::new(
                code::TIMEOUT,
                format!("`{}` did not end within {} s and was stopped", call.tool, deadline.as_secs_f64()),
            ).with_hint("ask for less in one call, or start it so that it runs on and ask for its result later"),
        };
        stop.cancel();
        let grace = if call.class.is_changing() {
            self.limits.grace
        } else {
            Duration::ZERO
        };
        match tokio::time::timeout(grace, working).await {
            Ok(done) => settle(done, tool, self.limits.result_bytes),
            Err(_) => Ok(stopped.to_result().into()),
        }
    }

    /// A line for a tool that does not exist. That it cannot be written is no reason to say anything else to the caller.
    async fn record_guess(
        &self,
        request: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
        started: Instant,
    ) {
        let Some(log) = &self.log else { return };
        let record = Record {
            principal: principal::of(context)
                .map(|principal| principal.name.to_string())
                .unwrap_or_default(),
            tool: crate::budget::head(&request.name, LONGEST_GUESS)
                .text
                .to_owned(),
            arguments_sha256: arguments_digest(request.arguments.as_ref()),
            run: None,
            action: None,
            outcome: Outcome::Refused,
            code: Some(UNKNOWN_TOOL.to_owned()),
            ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            details: None,
        };
        if let Err(error) = log.add(&record).await {
            tracing::error!(%error, "a call of an unknown tool was not recorded");
        }
    }

    /// Counts the call and writes its line; a changing call is acknowledged once the disk has the line.
    async fn finish(
        &self,
        call: &Call<'_>,
        response: Result<CallToolResponse, ErrorData>,
    ) -> Result<CallToolResponse, ErrorData> {
        let took = call.started.elapsed();
        let error_code = error_code(&response);
        self.metrics
            .operation("tools/call", Some(call.tool), error_code.as_deref(), took);
        let Some(log) = &self.log else {
            return response;
        };
        let record = call.record(error_code, took);
        let acted = call.class.is_changing() && record.outcome != Outcome::Refused;
        let written = if acted {
            log.add_durably(&record).await
        } else {
            log.add(&record).await
        };
        match written {
            Ok(_) => response,
            Err(error) if log.is_required() => {
                let done = if acted {
                    "it may have been carried out"
                } else {
                    "nothing was changed"
                };
                Ok(unrecorded(&error, done).to_result().into())
            }
            Err(error) => {
                tracing::error!(%error, tool = call.tool, "a call was not recorded");
                response
            }
        }
    }
}

struct Call<'a> {
    tool: &'a str,
    class: EffectClass,
    principal: Result<String, ToolError>,
    note: SharedNote,
    started: Instant,
}

impl Call<'_> {
    fn record(&self, error_code: Option<String>, took: Duration) -> Record {
        let note = self.note.lock();
        let outcome = match error_code.as_deref() {
            None => Outcome::Ok,
            Some(code::CANCELLED | code::TIMEOUT) => Outcome::Cancelled,
            Some(code::INVALID_ARGUMENTS) => Outcome::Refused,
            Some(_) if note.refused => Outcome::Refused,
            Some(_) => Outcome::Error,
        };
        Record {
            principal: note.principal.clone(),
            tool: note.tool.clone(),
            arguments_sha256: note.arguments_sha256.clone(),
            run: note.run.clone(),
            action: note.action.clone(),
            outcome,
            code: error_code.or_else(|| note.approved_by.map(|by| format!("approved_by:{by}"))),
            ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            details: note.details.clone(),
        }
    }
}

type Done = Result<Result<CallToolResponse, ErrorData>, Box<dyn std::any::Any + Send>>;

/// The answer to a call that ended by itself, in one of the forms that clients know.
fn settle(done: Done, tool: &Tool, result_bytes: usize) -> Result<CallToolResponse, ErrorData> {
    let response = match done {
        // The panic hook has logged where.
        Err(_panic) => {
            return Ok(ToolError::internal(&format!("`{}` panicked", tool.name))
                .to_result()
                .into());
        }
        Ok(Err(error)) if error.code == ErrorCode::INTERNAL_ERROR => {
            return Ok(ToolError::internal(&error.message).to_result().into());
        }
        Ok(response) => response?,
    };
    let CallToolResponse::Complete(result) = &response else {
        return Ok(response);
    };
    if let Some(complaint) = wrong_arguments(result) {
        let error = ToolError::new(code::INVALID_ARGUMENTS, complaint)
            .with_hint(expected_arguments(&tool.input_schema));
        return Ok(error.to_result().into());
    }
    let bytes = json_bytes(result);
    if bytes > result_bytes {
        let error = ToolError::new(
            code::RESULT_TOO_LARGE,
            format!("the result has {bytes} bytes, {result_bytes} fit in one answer"),
        )
        .with_hint("ask for less: narrow the query, or read it in pages");
        return Ok(error.to_result().into());
    }
    Ok(response)
}

fn wrong_arguments(result: &CallToolResult) -> Option<&str> {
    match result.content.as_slice() {
        [ContentBlock::Text(content)] if result.is_error == Some(true) => {
            content.text.strip_prefix(WRONG_ARGUMENTS)
        }
        _ => None,
    }
}

/// `arguments: path (string, required), max_lines (integer)`.
fn expected_arguments(schema: &JsonObject) -> String {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(|names| names.as_array())
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str())
        .collect();
    let properties = schema
        .get("properties")
        .and_then(|properties| properties.as_object());
    let described: Vec<String> = properties
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let kind = property
                .get("type")
                .and_then(|kind| kind.as_str())
                .unwrap_or("any");
            let must = if required.contains(&name.as_str()) {
                ", required"
            } else {
                ""
            };
            format!("{name} ({kind}{must})")
        })
        .collect();
    if described.is_empty() {
        "this tool takes no arguments".to_owned()
    } else {
        format!("arguments: {}", described.join(", "))
    }
}

fn error_code(response: &Result<CallToolResponse, ErrorData>) -> Option<String> {
    match response {
        Err(error) => Some(error.code.0.to_string()),
        Ok(CallToolResponse::Complete(result)) if result.is_error == Some(true) => Some(
            ToolError::of_result(result)
                .map_or_else(|| "UNKNOWN".to_owned(), |error| error.code.into_owned()),
        ),
        Ok(_) => None,
    }
}

fn unknown_tool<S: Send + Sync + 'static>(name: &str, router: &ToolRouter<S>) -> ErrorData {
    let name = crate::budget::head(name, 128).text;
    let tools: Vec<String> = router
        .list_all()
        .into_iter()
        .map(|tool| tool.name.into_owned())
        .collect();
    ErrorData::invalid_params(
        format!("no tool `{name}`; this server has {}", tools.join(", ")),
        None,
    )
}

fn unrecorded(error: &dyn std::fmt::Display, done: &str) -> ToolError {
    tracing::error!(%error, "the call log does not take lines");
    ToolError::new(
        code::AUDIT_UNAVAILABLE,
        format!("the call cannot be recorded; {done}"),
    )
    .with_hint("tell the operator: the server's log names what is wrong with the call log")
}

/// Never fails: arguments came as JSON, and JSON has a canonical form.
fn arguments_digest(arguments: Option<&JsonObject>) -> String {
    let canonical = match arguments {
        Some(arguments) => {
            canonical::to_vec(arguments, canonical::is_plain_object(arguments)).unwrap_or_default()
        }
        None => b"{}".to_vec(),
    };
    hex(&Sha256::digest(canonical))
}
