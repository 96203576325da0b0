//! The MCP face of the registry: tools, prompts and resources of the agent plane.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::tool::ToolRouter,
    model::{
        CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult,
        GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult,
        ListResourceTemplatesResult, ListResourcesResult, PaginatedRequestParams,
        ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
    tool_handler,
};
use shared::{
    budget,
    call::{CallGuard, Limits},
    metrics::Metrics,
    principal::{self, Kind},
    tool_error::{ToolError, code},
    tools::ToolsError,
};

use crate::{
    prompts,
    registry::{Registry, blocking},
    resources, tools,
};

/// Beyond the longest wait of `checkpoint_wait`.
const WAITING_DEADLINE: Duration = Duration::from_secs(58);
/// Tests before Generate may each take a while.
const CHECKING_DEADLINE: Duration = Duration::from_mins(5);
/// Bytes of a guessed tool's name that go on record.
const LONGEST_GUESS: usize = 64;
/// Guesses that go on record in the life of a process: an agent must not be able to fill the disk with them.
const MOST_GUESSES: usize = 256;

const INSTRUCTIONS: &str = "Outcome specifications say what must be true; you find out how. The cycle: spec_search, run_request, \
agent_register and run_claim; make a plan and plan_submit it; a human decides (V1) on a page you cannot reach, wait with \
checkpoint_wait; execution_begin gives one handle for each approved step; make exactly these calls on the named servers with the \
handle as `grant`; generation_complete; the registry measures; a human decides (V2). If the plan does not hold, deviation_report.";

/// The registry as an MCP server. Clones share the registry.
#[derive(Clone)]
pub struct SpecRegistry {
    pub(crate) registry: Registry,
    tools: Arc<ToolRouter<Self>>,
    guard: CallGuard,
    /// By agent and name, those that are on record.
    guesses: Arc<Mutex<HashSet<(String, String)>>>,
}

impl SpecRegistry {
    /// A server over a registry.
    ///
    /// # Errors
    /// A tool that declares no effect.
    pub fn new(registry: Registry, metrics: Metrics) -> Result<Self, ToolsError> {
        let guard = CallGuard::new(
            Limits {
                concurrent: 256,
                ..Limits::default()
            },
            metrics,
        )
        .with_deadline("checkpoint_wait", WAITING_DEADLINE)
        .with_deadline("execution_begin", CHECKING_DEADLINE);
        Ok(Self {
            registry,
            tools: Arc::new(tools::router()?),
            guard,
            guesses: Arc::default(),
        })
    }

    /// Leaves in the audit that an agent tried a tool that does not exist: it may look for one that decides.
    async fn record_guess(&self, agent: String, name: &str) {
        let tool = budget::head(name, LONGEST_GUESS).text.to_owned();
        {
            let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
            if guesses.len() >= MOST_GUESSES || !guesses.insert((agent.clone(), tool.clone())) {
                return;
            }
        }
        let registry = self.registry.clone();
        let recorded = blocking(move || registry.record_unknown_tool(&agent, &tool)).await;
        if let Err(error) = recorded {
            tracing::error!(%error, "a guessed tool is not on record");
        }
    }

    /// The agent that calls, by its credential.
    pub(crate) fn caller(context: &RequestContext<RoleServer>) -> Result<String, ToolError> {
        let principal = principal::of(context)?;
        if principal.kind != Kind::Agent {
            return Err(ToolError::new(
                code::UNAUTHENTICATED,
                format!("{} is no agent", principal.name),
            )
            .with_hint(
                "use an agent's token; `mcp-spec-registry token add --kind agent` makes one",
            ));
        }
        Ok(principal.name.to_string())
    }
}

#[tool_handler(router = self.tools)]
impl ServerHandler for SpecRegistry {
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if self.tools.get(&request.name).is_none()
            && let Ok(agent) = Self::caller(&context)
        {
            self.record_guess(agent, &request.name).await;
        }
        self.guard.call(self, &self.tools, request, context).await
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(prompts::list()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let prompt = prompts::get(&self.registry, &request);
        Ok(self.guard.request("prompts/get", prompt).await?.into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let completed = prompts::complete(&self.registry, &request);
        self.guard.request("completion/complete", completed).await
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let listed = resources::list(&self.registry);
        self.guard.request("resources/list", listed).await
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(
            resources::templates(),
        ))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let read = resources::read(&self.registry, &request.uri);
        self.guard.request("resources/read", read).await
    }

    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .enable_completions()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new(
                "mcp-spec-registry",
                env!("CARGO_PKG_VERSION"),
            ))
            .with_instructions(INSTRUCTIONS)
    }
}
