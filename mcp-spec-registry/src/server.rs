//! The MCP face of the registry: tools, prompts and resources of the agent plane.

use std::{sync::Arc, time::Duration};

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
    call::{CallGuard, Limits},
    metrics::Metrics,
    principal::{self, Kind},
    tool_error::{ToolError, code},
    tools::ToolsError,
};

use crate::{prompts, registry::Registry, resources, tools};

/// Beyond the longest wait of `checkpoint_wait`.
const WAITING_DEADLINE: Duration = Duration::from_secs(58);
/// Tests before Generate may each take a while.
const CHECKING_DEADLINE: Duration = Duration::from_mins(5);

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
        })
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
        Ok(prompts::get(&self.registry, &request).await?.into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        prompts::complete(&self.registry, &request).await
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        resources::list(&self.registry).await
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
        resources::read(&self.registry, &request.uri).await
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
