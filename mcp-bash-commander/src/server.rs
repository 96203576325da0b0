//! The MCP face of the shell: its state, its tools, and what stands in front of every call.

mod tasks;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::tool::ToolRouter;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, GetTaskParams, GetTaskResult,
    Implementation, ServerCapabilities, ServerConfig, UpdateTaskParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, tool_handler};
use serde::Serialize;
use serde_json::{Value, json};
use shared::call::{self, CallGuard};
use shared::call_log::{CallLog, Details, Outcome, Record};
use shared::digest::Digest;
use shared::effect::action;
use shared::effect::client::{EffectClient, EffectConfig, ServiceCredential};
use shared::metrics::Metrics;
use shared::principal;
use shared::state_dir;
use shared::tool_error::{ToolError, code};
use shared::tools::class_of;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::check::Checker;
use crate::config::Config;
use crate::doctor;
use crate::enforce::{Action, Orders, needs_grant};
use crate::jail::{ContainerSettings, Launcher};
use crate::policy::rules::Decision;
use crate::policy::{Placed, Policy, check_placement};
use crate::records::{Hider, Recording};
use crate::session::{Changes, OverlayFolder, Sessions, SpoolFolder};
use crate::tools;
use crate::tools::approval::{Approvals, AtClient};
use crate::tools::exec::ExecParams;
use crate::workspace::{SearchError, Workspace};
use tasks::Tasks;

/// The server's name, of its state directory and in plans.
pub const NAME: &str = "mcp-bash-commander";

/// Longest time a command may be waited for in one call.
pub(crate) const LONGEST_COMMAND: Duration = Duration::from_hours(24);

const OPEN: &str = "A shell in a jail: commands see the workspace and the system's programs, nothing else, and no network but what \
the policy allows; `explain` tells whether a command or path is allowed, without trying. `exec` waits for the end by default; start what \
shall run on with wait {\"until\": \"none\"} and follow it with read_output, write_input, list_sessions and stop. Read, find and \
change files of the workspace with read_file, search, edit_file and write_file.";

const ENFORCED: &str = " This server is enforced: exec, write_file, edit_file, write_input and committing changes need a `grant` from \
execution_begin of the spec registry, and only calls that lie inside the approved plan are made.";

/// The shell as an MCP server. Clones share everything.
#[derive(Clone)]
pub struct BashCommander {
    state: Arc<State>,
    tools: Arc<ToolRouter<Self>>,
}

pub(crate) struct State {
    pub(crate) policy: Arc<Policy>,
    pub(crate) policy_digest: Digest,
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) sessions: Sessions,
    pub(crate) launcher: Launcher,
    pub(crate) enforced: Option<Enforced>,
    /// Where state is kept; made by the first call.
    pub(crate) directory: PathBuf,
    approvals: Approvals,
    tasks: Tasks,
    guard: CallGuard,
    opened: OnceCell<Opened>,
}

/// The registry that is asked.
pub(crate) struct Enforced {
    pub(crate) client: EffectClient,
    pub(crate) socket: PathBuf,
}

/// What the first call opens, so that starting costs nothing.
pub(crate) struct Opened {
    guard: CallGuard,
    log: CallLog,
    hider: Arc<Hider>,
    /// Where long output goes.
    pub(crate) spools: SpoolFolder,
    state_dir: PathBuf,
    overlays: OnceCell<OverlayFolder>,
}

impl Opened {
    /// The record of a command that a call is about to start; `None` outside calls.
    pub(crate) fn recording(
        &self,
        context: &RequestContext<RoleServer>,
        details: Details,
    ) -> Option<Recording> {
        let line = Record {
            details: Some(details),
            ..call::line(context)?
        };
        Some(Recording::new(
            self.log.clone(),
            line,
            Arc::clone(&self.hider),
        ))
    }

    pub(crate) fn hider(&self) -> &Hider {
        &self.hider
    }

    /// An overlay over the workspace, empty.
    pub(crate) async fn overlay(
        &self,
        workspace: &Arc<Workspace>,
    ) -> Result<Arc<Changes>, ToolError> {
        let folder = self
            .overlays
            .get_or_try_init(|| async {
                let state_dir = self.state_dir.clone();
                tokio::task::spawn_blocking(move || OverlayFolder::open(&state_dir))
                    .await?
                    .map_err(anyhow::Error::from)
            })
            .await
            .map_err(|error: anyhow::Error| ToolError::internal(&error))?;
        Ok(folder.create(workspace)?)
    }
}

impl BashCommander {
    /// A server as the command line says; nothing is written before the first call.
    ///
    /// # Errors
    /// A policy, workspace, credential or placement of files that cannot be used.
    pub fn new(config: &Config, launcher: Launcher, metrics: Metrics) -> anyhow::Result<Self> {
        let policy = Policy::load(config.policy.as_deref(), config.workspace.as_deref())?;
        let state_dir = state_path(config)?;
        let socket = config.enforce.socket()?;
        refuse_reachable_files(config, &policy, &state_dir, socket.as_deref())?;
        let workspace = Arc::new(Workspace::open(&policy.workspace, policy.access)?);
        let mut tools = tools::router()?;
        let enforced = match (socket, &config.enforce.registry_token) {
            (Some(socket), Some(credential)) => {
                let credential = ServiceCredential::read(credential)?;
                let client = EffectClient::open(EffectConfig {
                    socket: socket.clone(),
                    registry_uid: config.enforce.registry_uid,
                    credential,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    tools: action::declarations(&tools),
                    state_dir: state_dir.join("effect"),
                })?;
                action::add_grant(&mut tools, needs_grant);
                Some(Enforced { client, socket })
            }
            _ => None,
        };
        shared::tools::shorten(&mut tools);
        let limits = call::Limits {
            concurrent: policy.limits.sessions + 32,
            ..call::Limits::default()
        };
        let guard = CallGuard::new(limits, metrics)
            .with_deadline("exec", LONGEST_COMMAND + Duration::from_secs(10));
        let launcher = match &policy.container {
            Some(container) => launcher.with_containers(ContainerSettings {
                image: container.image.clone(),
                engine: container.engine.clone(),
                runtime: container.runtime.clone(),
                directory: state_dir.join("containers"),
            }),
            None => launcher,
        };
        let state = State {
            sessions: Sessions::new(launcher.clone(), policy.limits.sessions),
            policy_digest: policy.digest()?,
            policy: Arc::new(policy),
            workspace,
            launcher,
            enforced,
            directory: state_dir,
            approvals: Approvals::new()?,
            tasks: Tasks::default(),
            guard,
            opened: OnceCell::new(),
        };
        Ok(Self {
            state: Arc::new(state),
            tools: Arc::new(tools),
        })
    }

    /// One line for `--check-config`.
    pub fn summary(&self) -> String {
        let State {
            policy,
            policy_digest,
            enforced,
            ..
        } = &*self.state;
        let mode = if enforced.is_some() {
            "enforced"
        } else {
            "open"
        };
        format!(
            "configuration ok: {mode}, workspace {}, policy {policy_digest}",
            policy.workspace.display()
        )
    }

    /// Refuses a path of the workspace that the policy keeps closed.
    pub(crate) fn check_readable(&self, path: &str) -> Result<(), ToolError> {
        let State {
            policy, workspace, ..
        } = &*self.state;
        let relative = workspace.relative(path)?;
        if policy.denies_reading(&relative) {
            return Err(SearchError::Denied(relative.display().to_string()).into());
        }
        Ok(())
    }

    /// Refuses to write a path of the workspace that the policy protects: programs of the host run or obey it.
    pub(crate) fn check_unprotected(&self, path: &str) -> Result<(), ToolError> {
        let State {
            policy, workspace, ..
        } = &*self.state;
        let relative = workspace.relative(path)?;
        if !policy.protected.forbids(&relative, workspace) {
            return Ok(());
        }
        Err(ToolError::new(
            "PROTECTED",
            format!(
                "`{}` is protected: programs of the host may run or obey it",
                relative.display()
            ),
        )
        .with_hint(
            "only the operator can change it, or take it out of workspace.protect of the policy",
        ))
    }

    /// In enforced mode: greets the registry and carries out its orders in the background.
    pub fn work_for_registry(&self, shutdown: &CancellationToken) {
        let Some(enforced) = &self.state.enforced else {
            return;
        };
        let checker = Checker {
            launcher: self.state.launcher.clone(),
            policy: Arc::clone(&self.state.policy),
            workspace: Arc::clone(&self.state.workspace),
        };
        let orders = Orders::new(self.state.sessions.clone(), checker);
        let (client, stop) = (enforced.client.clone(), shutdown.clone());
        tokio::spawn(async move { client.run_work(orders, stop).await });
    }

    /// Ends every command, and has on the disk what became of it.
    pub async fn end(&self) {
        self.state.tasks.end();
        self.state.sessions.end();
        self.state.sessions.recorded().await;
        let Some(opened) = self.state.opened.get() else {
            return;
        };
        if let Err(error) = opened.log.close() {
            tracing::error!(%error, "the last lines of the call log are lost");
        }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// What the first call opened.
    pub(crate) async fn opened(&self) -> Result<&Opened, ToolError> {
        self.state
            .opened
            .get_or_try_init(|| self.open())
            .await
            .map_err(|error| {
                tracing::error!(%error, "the state directory cannot be used");
                ToolError::new(
                    code::AUDIT_UNAVAILABLE,
                    "calls cannot be recorded, so none is made",
                )
                .with_hint("tell the operator to run `mcp-bash-commander doctor`")
            })
    }

    async fn open(&self) -> anyhow::Result<Opened> {
        let given = self.state.directory.clone();
        let required = self.state.policy.audit.required;
        let (state_dir, log) = tokio::task::spawn_blocking(move || {
            let state_dir = state_dir::open(NAME, Some(&given))?;
            let log = CallLog::open_in(&state_dir, required)?;
            anyhow::Ok((state_dir, log))
        })
        .await??;
        // The policy is the same for the whole life of a server, so one line says it for all that follow.
        let began = Record {
            principal: NAME.to_owned(),
            tool: "policy".to_owned(),
            arguments_sha256: self
                .state
                .policy_digest
                .as_str()
                .trim_start_matches("sha256:")
                .to_owned(),
            run: None,
            action: None,
            outcome: Outcome::Ok,
            code: None,
            ms: 0,
            details: None,
        };
        log.add(&began).await?;
        Ok(Opened {
            guard: self.state.guard.clone().with_log(log.clone()),
            log,
            hider: Arc::new(Hider::new(self.state.policy.secrets.clone())?),
            spools: SpoolFolder::new(&state_dir),
            state_dir,
            overlays: OnceCell::new(),
        })
    }

    /// In enforced mode asks the registry for this call; otherwise every call may be made.
    pub(crate) async fn begin(
        &self,
        context: &RequestContext<RoleServer>,
        tool: &str,
        arguments: &impl Serialize,
    ) -> Result<Option<Action>, ToolError> {
        let Some(enforced) = &self.state.enforced else {
            return Ok(None);
        };
        let asked_at = self.state.sessions.order_mark();
        let permitted = action::Action::begin(&enforced.client, context, tool, arguments).await?;
        Ok(Some(Action::new(permitted, asked_at)))
    }

    /// Asks at the client about a command that a rule wants asked about; the question, if it is part of the answer. A call that is
    /// wrong in another way is left to the tool.
    async fn ask(
        &self,
        request: &CallToolRequestParams,
        context: &mut RequestContext<RoleServer>,
    ) -> Result<Option<CallToolResponse>, ErrorData> {
        if request.name != "exec" || self.state.policy.rules.is_empty() {
            return Ok(None);
        }
        let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
        let Ok(params) = serde_json::from_value::<ExecParams>(arguments.clone()) else {
            return Ok(None);
        };
        let verdict = self.verdict(&params);
        let (Decision::Ask, Ok(principal)) = (verdict.decision, principal::of(context)) else {
            return Ok(None);
        };
        let subject = json!([&*principal.name, arguments, self.state.policy_digest]);
        let subject = Digest::of_json(&subject)
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        let asked = self
            .state
            .approvals
            .ask(&verdict, &subject, request, context)
            .await?;
        match asked {
            AtClient::Question(question) => Ok(Some(*question)),
            AtClient::Answered(approval) => {
                tracing::info!(?approval, %subject, "a client was asked about a command");
                context.extensions.insert(approval);
                Ok(None)
            }
        }
    }

    async fn guarded(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let changes = self
            .tools
            .get(&request.name)
            .is_some_and(|tool| class_of(tool).is_changing());
        let guard = match self.opened().await {
            Ok(opened) => &opened.guard,
            // Reading stays possible, `doctor` above all.
            Err(_) if !changes => &self.state.guard,
            Err(error) => return Ok(error.to_result().into()),
        };
        guard.call(self, &self.tools, request, context).await
    }
}

#[tool_handler(router = self.tools)]
impl ServerHandler for BashCommander {
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        mut context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if self.state.enforced.is_none()
            && let Some(question) = self.ask(&request, &mut context).await?
        {
            return Ok(question);
        }
        let follows_tasks = context
            .client_capabilities()
            .is_some_and(|capabilities| capabilities.supports_tasks());
        if request.name != "exec" || !follows_tasks {
            return self.answer(request, context).await;
        }
        let owner = match principal::of(&context) {
            Ok(principal) => Arc::clone(&principal.name),
            Err(error) => return Ok(error.to_result().into()),
        };
        let longest = tools::exec::longest(request.arguments.as_ref());
        let (server, cancel) = (self.clone(), CancellationToken::new());
        let given_up = std::mem::replace(&mut context.ct, cancel.clone());
        let call = Box::pin(async move { server.answer(request, context).await });
        let tasks = &self.state.tasks;
        let tokens = (given_up, cancel);
        tasks.answer(call, &owner, longest, tokens).await
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let owner = caller(&context)?;
        let task = self.state.tasks.get(&request.task_id, &owner)?;
        Ok(GetTaskResult::new(task))
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        // No task asks for anything; what answers nothing is passed over.
        self.state
            .tasks
            .get(&request.task_id, &caller(&context)?)
            .map(drop)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.state
            .tasks
            .cancel(&request.task_id, &caller(&context)?)
    }

    fn get_info(&self) -> ServerConfig {
        let instructions = match self.state.enforced {
            Some(_) => format!("{OPEN}{ENFORCED}"),
            None => OPEN.to_owned(),
        };
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new(NAME, env!("CARGO_PKG_VERSION")))
            .with_instructions(instructions)
    }
}

fn caller(context: &RequestContext<RoleServer>) -> Result<Arc<str>, ErrorData> {
    match principal::of(context) {
        Ok(principal) => Ok(Arc::clone(&principal.name)),
        Err(error) => Err(ErrorData::invalid_request(error.to_string(), None)),
    }
}

impl BashCommander {
    /// Answers a call: in enforced mode, and where it changes something, with its grant taken out of its arguments.
    async fn answer(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(enforced) = self.state.enforced.as_ref().filter(|_| {
            let tool = self.tools.get(&request.name);
            tool.is_some_and(|tool| needs_grant(&tool.name, class_of(tool)))
        }) else {
            return self.guarded(request, context).await;
        };
        action::with_grant(&enforced.client, request, context, |request, context| {
            self.guarded(request, context)
        })
        .await
    }
}

/// The state directory, which need not exist yet.
pub(crate) fn state_path(config: &Config) -> anyhow::Result<PathBuf> {
    Ok(match &config.serve.state_dir {
        Some(given) => std::path::absolute(given)?,
        None => state_dir::default_path(NAME)?,
    })
}

/// Refuses to serve where commands could read what is secret or change what is trusted.
pub(crate) fn refuse_reachable_files(
    config: &Config,
    policy: &Policy,
    state_dir: &Path,
    socket: Option<&Path>,
) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    // Where it is unless somebody said otherwise; without a home it is nowhere.
    let registry = state_dir::default_path("mcp-spec-registry").ok();
    let optional = [
        (
            "token file",
            config.serve.http.tokens.as_deref(),
            Placed::Secret,
        ),
        (
            "TLS key",
            config.serve.http.tls_key.as_deref(),
            Placed::Secret,
        ),
        (
            "registry credential",
            config.enforce.registry_token.as_deref(),
            Placed::Secret,
        ),
        ("registry's socket", socket, Placed::Secret),
        (
            "registry's state directory",
            registry.as_deref(),
            Placed::Secret,
        ),
        (
            "TLS certificate",
            config.serve.http.tls_cert.as_deref(),
            Placed::Trusted,
        ),
        ("policy", config.policy.as_deref(), Placed::Trusted),
    ];
    let secrets = policy
        .secrets
        .all()
        .iter()
        .filter_map(|secret| Some(("file of a secret", secret.file()?, Placed::Secret)));
    let files = [
        ("state directory", state_dir, Placed::Secret),
        ("program", program.as_path(), Placed::Trusted),
    ]
    .into_iter()
    .chain(secrets)
    .chain(
        optional
            .into_iter()
            .filter_map(|(what, path, placed)| Some((what, path?, placed))),
    );
    Ok(check_placement(policy, files)?)
}

/// The report of `doctor` on a running server.
pub(crate) async fn examine(state: &State) -> shared::config::Doctor {
    doctor::examine(doctor::Subject {
        policy: &state.policy,
        policy_digest: &state.policy_digest,
        workspace: &state.workspace,
        launcher: &state.launcher,
        state_dir: &state.directory,
        registry: state
            .enforced
            .as_ref()
            .map(|enforced| (&enforced.client, enforced.socket.as_path())),
    })
    .await
}
