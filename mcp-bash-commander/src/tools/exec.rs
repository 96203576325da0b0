//! `exec`

mod arguments;
mod result;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::JsonObject;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::call_log::Details;
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use arguments::{argv, check};
pub(crate) use result::ExecResult;
use result::{PolicyView, report, result};

use super::approval::Approval;
use super::error::invalid;
use super::view::{headline, quote, quote_violations};
use super::wait::{Condition, Until, Wait};
use super::write_input::Size;
use crate::confine::{self, Changes};
use crate::enforce::Action;
use crate::jail::{self, JailSpec, Lifetime, Network, Stdin};
use crate::network;
use crate::policy::NetworkMode;
use crate::policy::rules::{Decision, Verdict};
use crate::records::{self, Asked};
use crate::server::BashCommander;
use crate::session::{Forbidden, Killed, Order, Session, Stream};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("exec", "Run a command", EffectClass::Irreversible);

/// How long a command may run that a call waits for, unless the call says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(2);

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecParams {
    /// For `bash -c`. This or `argv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// Program and arguments, without a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argv: Option<Vec<String>>,
    /// Relative to the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cwd: Option<String>,
    /// Added to the environment.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Text it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdin: Option<String>,
    /// `write_input` will follow.
    #[serde(default)]
    stdin_open: bool,
    /// A terminal instead of pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tty: Option<Size>,
    /// A name, made if there is none: commands share /tmp and processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// Kills it and all its processes. Default 120000 if its end is waited for, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    /// When to answer; default `exit`, else `idle`.
    #[serde(default)]
    wait: Wait,
    /// TCP ports it listens on; answered with host addresses.
    #[serde(default)]
    publish: Vec<u16>,
    /// `overlay` keeps what is changed aside, for `changes`.
    #[serde(default)]
    workspace: WorkspaceName,
    /// Its own jail, or allowed hosts through a proxy.
    #[serde(default)]
    network: NetworkName,
    /// Of each stream, to 65536; `read_output` has the rest.
    #[serde(default = "default_output")]
    max_output_bytes: u32,
}

fn default_output() -> u32 {
    30_000
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum NetworkName {
    #[default]
    None,
    Loopback,
    Allowlist,
    Host,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum WorkspaceName {
    #[default]
    Direct,
    Overlay,
    Readonly,
}

impl From<WorkspaceName> for Changes {
    fn from(name: WorkspaceName) -> Self {
        match name {
            WorkspaceName::Direct => Self::Made,
            WorkspaceName::Overlay | WorkspaceName::Readonly => Self::NoneMade,
        }
    }
}

impl From<NetworkName> for NetworkMode {
    fn from(name: NetworkName) -> Self {
        match name {
            NetworkName::None => Self::None,
            NetworkName::Loopback => Self::Loopback,
            NetworkName::Allowlist => Self::Allowlist,
            NetworkName::Host => Self::Host,
        }
    }
}

#[tool_router(router = exec_router, vis = "pub(super)")]
impl BashCommander {
    /// Runs a command in a jail: it sees the workspace and the system's programs, no network. Without `session` the jail is fresh and
    /// ends with the command: run servers in the foreground with wait {"until": "none"}. A non-zero exit code is a normal answer.
    #[tool]
    async fn exec(
        &self,
        Parameters(params): Parameters<ExecParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<ExecResult>, ToolError> {
        let checked = self
            .jail_for(&params)
            .and_then(|jail| Ok((jail, params.condition()?, self.judge(&params, &context)?)));
        let (jail, condition, policy) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                shared::call::was_refused(&context);
                let policy = PolicyView::refused(&self.verdict(&params));
                let details = self.details(&params, &policy, &context).await?;
                shared::call::has_details(&context, details);
                return Err(error);
            }
        };
        if let Some(by) = policy.approved_by {
            shared::call::was_approved(&context, by);
        }
        let action = self.begin(&context, EFFECT.tool(), &params).await?;
        let done = self
            .run_in(
                jail,
                &params,
                &condition,
                &policy,
                action.as_ref(),
                &context,
            )
            .await
            .map(|(result, session)| (result.judged(policy), session));
        let (result, session) = match (action, done) {
            (None, done) => done?,
            (Some(action), Ok((result, session))) => {
                (action.end(Ok(result), report).await?, session)
            }
            (Some(action), Err(error)) => {
                action
                    .end(Err::<ExecResult, _>(error.clone()), report)
                    .await?;
                return Err(error);
            }
        };
        shared::call::has_details(&context, records::name_of(session.id()));
        let mut text = headline(&session, &session.state());
        for port in &result.published {
            // Writing to a String cannot fail.
            let _ = write!(text, "; port {} is at {}", port.port, port.address);
        }
        quote_violations(&mut text, &result.violations);
        quote(&mut text, "stdout", &result.stdout);
        quote(&mut text, "stderr", &result.stderr);
        Ok(structured(result, text))
    }
}

impl ExecParams {
    fn condition(&self) -> Result<Condition, ToolError> {
        let default = if self.tty.is_some() || self.stdin_open {
            Until::Idle
        } else {
            Until::Exit
        };
        self.wait.checked(default)
    }

    fn stdin(&self) -> Result<Stdin, ToolError> {
        Ok(match (&self.stdin, self.tty) {
            (_, Some(size)) => Stdin::Terminal(size.checked()?),
            (Some(text), None) => Stdin::Bytes(text.clone().into_bytes()),
            (None, None) if self.stdin_open => Stdin::Pipe,
            (None, None) => Stdin::Null,
        })
    }
}

impl BashCommander {
    /// What the rules say of a call.
    pub(crate) fn verdict(&self, params: &ExecParams) -> Verdict {
        let rules = &self.state().policy.rules;
        match (&params.command, &params.argv) {
            (Some(command), _) => rules.decide_shell(command),
            (None, argv) => rules.decide_argv(argv.as_deref().unwrap_or_default()),
        }
    }

    /// Refuses what the rules deny, and what they want asked about and nobody approved. In enforced mode the approved step that the call
    /// must lie in is the approval.
    fn judge(
        &self,
        params: &ExecParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<PolicyView, ToolError> {
        let verdict = self.verdict(params);
        let approved_by = match verdict.decision {
            Decision::Allow => None,
            Decision::Deny => {
                return Err(ToolError::new(
                    "COMMAND_DENIED",
                    format!(
                        "`{}` is denied by the policy: {}",
                        verdict.command, verdict.reason
                    ),
                )
                .with_hint("do it another way; only the operator changes the policy"));
            }
            Decision::Ask if self.state().enforced.is_some() => Some("plan"),
            Decision::Ask => match context.extensions.get::<Approval>() {
                Some(Approval::Given(_)) => Some("client_elicitation"),
                other => {
                    let why = match other {
                        Some(Approval::Refused(why)) => *why,
                        _ => "nobody was asked",
                    };
                    let hint = if verdict.rule.is_some() {
                        "do it another way, or let the user run it"
                    } else {
                        "write out what it runs (no program from a variable, no `eval` of one, no shell that reads its input), do it \
                         another way, or let the user run it; no rule of the policy can allow what cannot be read"
                    };
                    return Err(ToolError::new(
                        "APPROVAL_REQUIRED",
                        format!(
                            "`{}` has to be approved ({}), and was not: {why}",
                            verdict.command, verdict.reason
                        ),
                    )
                    .with_hint(hint));
                }
            },
        };
        Ok(PolicyView {
            decision: verdict.decision.to_string(),
            rule: verdict.rule,
            approved_by,
        })
    }

    /// The jail for a call, everything checked that can be checked before anyone is asked.
    fn jail_for(&self, params: &ExecParams) -> Result<JailSpec, ToolError> {
        let state = self.state();
        check(params)?;
        let (policy, workspace) = (&state.policy, &state.workspace);
        let changes = params.workspace.into();
        let mut jail = confine::jail(policy, workspace, argv(params)?, &params.env, changes)?;
        match params.cwd.as_deref() {
            None => {}
            Some(cwd) if cwd.is_empty() || cwd.len() > 4096 || cwd.contains('\0') => {
                return Err(invalid(
                    "`cwd` is empty, too long or holds a NUL",
                    "give a path relative to the workspace",
                ));
            }
            Some(cwd) => jail.command.cwd = workspace.root().join(cwd),
        }
        jail.published.clone_from(&params.publish);
        jail.network = self.network(params)?;
        if jail.network == Network::Proxy {
            let proxy = network::environment(jail::proxy_address(&params.publish));
            for (name, value) in proxy {
                jail.command.env.retain(|(known, _)| known != name);
                jail.command.env.push((name.into(), value.into()));
            }
        }
        jail.command.stdin = params.stdin()?;
        if params.tty.is_some() && !params.env.contains_key("TERM") {
            let terminal = ("TERM".into(), "xterm-256color".into());
            jail.command.env.retain(|(name, _)| name != "TERM");
            jail.command.env.push(terminal);
        }
        if params.session.is_some() {
            jail.lifetime = Lifetime::Kept;
        }
        Ok(jail)
    }

    /// What the call may reach; what a policy does not allow is refused, not cut down.
    fn network(&self, params: &ExecParams) -> Result<Network, ToolError> {
        let allowed = self.state().policy.network.mode;
        let asked = NetworkMode::from(params.network);
        if asked > allowed {
            return Err(ToolError::new(
                "NETWORK_DENIED",
                format!("`network` is {asked}, and the policy allows {allowed}"),
            )
            .with_hint(
                "work without it; the operator can allow more in network.mode of the policy",
            ));
        }
        Ok(asked.into())
    }

    async fn run_in(
        &self,
        mut jail: JailSpec,
        params: &ExecParams,
        condition: &Condition,
        policy_view: &PolicyView,
        action: Option<&Action>,
        context: &RequestContext<RoleServer>,
    ) -> Result<(ExecResult, Arc<Session>), ToolError> {
        let state = self.state();
        if let Some(action) = action {
            jail.inputs = action.pinned_inputs(&state.workspace).await?;
        }
        let opened = self.opened().await?;
        jail.masked = confine::closed(&state.policy, &state.workspace).await?;
        let changes = Changes::from(params.workspace).are_made(&state.policy);
        if changes {
            jail.linked = confine::linked(&state.policy, &state.workspace).await?;
        }
        let overlay = match params.workspace {
            WorkspaceName::Overlay => Some(opened.overlay(&state.workspace).await?),
            WorkspaceName::Direct | WorkspaceName::Readonly => None,
        };
        if let Some(overlay) = &overlay {
            let workspace = state.workspace.for_jail();
            jail.workspace = Some(workspace.with_overlay(overlay.path())?);
        }
        let forbidden = changes.then(|| {
            let absent = state.workspace.absent(state.policy.protected.paths());
            // What another jail made meanwhile is nothing to be guarded.
            jail.protected.retain(|path| !absent.has(path));
            jail.protected.extend_from_slice(absent.in_the_way());
            Forbidden {
                workspace: Arc::clone(&state.workspace),
                absent,
                folder: state.directory.join("put-away"),
            }
        });
        let order = Order {
            owner: Arc::clone(&principal::of(context)?.name),
            command: params
                .command
                .clone()
                .unwrap_or_else(|| params.argv.clone().unwrap_or_default().join(" ")),
            jail,
            kept: params.session.clone(),
            reachable: state.policy.reachable(),
            timeout: self.timeout(params, condition, action),
            output_bytes: state.policy.limits.output_bytes,
            spools: opened.spools.clone(),
            overlay,
            forbidden,
            origin: action.map(Action::origin),
            recording: opened.recording(context, self.details(params, policy_view, context).await?),
        };
        let session = tokio::select! {
            biased;
            () = context.ct.cancelled() => return Err(cancelled()),
            started = state.sessions.start(order) => started?,
        };
        let Some(waited) = condition
            .reached(&session, [0, 0], Stream::Stdout, context)
            .await
        else {
            session.kill(Killed::Cancelled);
            session.over().await;
            return Err(cancelled());
        };
        // The line for the end of the command goes to the disk with that of this call.
        tokio::task::yield_now().await;
        let budget = usize::try_from(params.max_output_bytes).unwrap_or(usize::MAX);
        Ok((result(&session, budget, waited)?, session))
    }

    /// What the call log says of a call besides its own line.
    async fn details(
        &self,
        params: &ExecParams,
        policy: &PolicyView,
        context: &RequestContext<RoleServer>,
    ) -> Result<Details, ToolError> {
        let state = self.state();
        let root = state.workspace.root();
        let cwd = match &params.cwd {
            Some(cwd) => root.join(cwd),
            None => root.to_owned(),
        };
        let hider = self.opened().await?.hider();
        let network = NetworkMode::from(params.network).to_string();
        let env: Vec<&str> = params.env.keys().map(String::as_str).collect();
        let asked = Asked {
            command: params.command.as_deref(),
            argv: params.argv.as_deref().unwrap_or_default(),
            cwd: &cwd.to_string_lossy(),
            env: &env,
            session: params.session.as_deref(),
            network: &network,
            policy: &state.policy_digest,
            decision: &policy.decision,
            rule: policy.rule,
            approved_by: policy.approver(),
            client: match context.extensions.get::<Approval>() {
                Some(Approval::Given(client)) => Some(client),
                Some(Approval::Refused(_)) | None => None,
            },
        };
        Ok(asked.details(hider))
    }

    /// When the command is killed: as the call says, by default only what a call waits for and a plan does not let live.
    fn timeout(
        &self,
        params: &ExecParams,
        condition: &Condition,
        action: Option<&Action>,
    ) -> Option<Duration> {
        let is_lasting = !condition.is_for_the_end() || action.is_some_and(Action::outlives_step);
        let asked = match params.timeout_ms {
            Some(ms) => Some(Duration::from_millis(ms)),
            None if is_lasting => None,
            None => Some(DEFAULT_TIMEOUT),
        };
        asked
            .into_iter()
            .chain(self.state().policy.limits.wall())
            .min()
    }
}

/// How long a call with these arguments may take.
pub(crate) fn longest(arguments: Option<&JsonObject>) -> Duration {
    let asked = arguments.and_then(|arguments| arguments.get("timeout_ms")?.as_u64());
    asked.map_or(DEFAULT_TIMEOUT, Duration::from_millis)
}

fn cancelled() -> ToolError {
    ToolError::new(
        code::CANCELLED,
        "the call was cancelled; its command and all of its processes were killed",
    )
}
