//! A server with the tools, prompts and resources that the MCP conformance suite asks for by name, served as our servers
//! are: what passes or fails is how `shared` serves.

mod asking;
mod fixed;
mod tools;

use std::{fmt::Display, sync::Arc};

use clap::Parser;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::tool::ToolRouter,
    model::{
        CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult,
        GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult,
        ListResourceTemplatesResult, ListResourcesResult, PaginatedRequestParams,
        ReadResourceRequestParams, ReadResourceResponse, RequestStateCodec, ServerCapabilities,
        ServerConfig, SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams,
    },
    service::RequestContext,
    tool_handler,
};
use serde_json::{Value, json};
use shared::{
    call::{CallGuard, Limits},
    config,
    metrics::Metrics,
    serve::{self, ServeArgs},
    telemetry,
};

/// A server for the MCP conformance suite; does nothing else.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeArgs,
}

fn main() -> anyhow::Result<()> {
    telemetry::start("CONFORMANCE_FIXTURE", "warn");
    let arguments: Arguments = config::parse("CONFORMANCE_FIXTURE");
    serve::block_on(async {
        let shutdown = serve::shutdown_on_signals()?;
        let metrics = Metrics::new();
        let fixture = Fixture::new(metrics.clone())?;
        serve::serve(fixture, &arguments.serve, metrics, shutdown).await?;
        Ok(())
    })?
}

#[derive(Clone)]
struct Fixture {
    tools: Arc<ToolRouter<Self>>,
    guard: CallGuard,
    /// Signs what clients bring back; as good as its process is old.
    states: Arc<RequestStateCodec>,
}

impl Fixture {
    fn new(metrics: Metrics) -> anyhow::Result<Self> {
        let mut key = [0; 32];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut key)?;
        Ok(Self {
            tools: Arc::new(tools::router()?),
            guard: CallGuard::new(Limits::default(), metrics),
            states: Arc::new(RequestStateCodec::try_new(key)?),
        })
    }
}

#[tool_handler(router = self.tools)]
impl ServerHandler for Fixture {
    #[expect(deprecated, reason = "the suite for the older era tests logging")]
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_completions()
            .enable_logging()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new(
            "conformance-fixture",
            env!("CARGO_PKG_VERSION"),
        ))
    }

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
        result_from_json(fixed::prompts())
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        if request.name == asking::PROMPT {
            return asking::prompt(request.input_responses.as_ref());
        }
        match fixed::prompt(&request.name, &arguments) {
            Some(messages) => {
                result_from_json::<rmcp::model::GetPromptResult>(json!({ "messages": messages }))
                    .map(Into::into)
            }
            None => Err(ErrorData::invalid_params(
                format!("no prompt `{}`", request.name),
                None,
            )),
        }
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        result_from_json(fixed::resources())
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        result_from_json(fixed::resource_templates())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        match fixed::resource(&request.uri) {
            Some(contents) => result_from_json::<rmcp::model::ReadResourceResult>(
                json!({ "contents": [contents] }),
            )
            .map(Into::into),
            None => Err(ErrorData::resource_not_found(
                format!("no resource `{}`", request.uri),
                Some(json!({ "uri": request.uri })),
            )),
        }
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Ok(CompleteResult::default())
    }

    #[expect(deprecated, reason = "the suite for the older era tests it")]
    async fn set_level(
        &self,
        _: rmcp::model::SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(
        &self,
        _: SubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(
        &self,
        _: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }
}

/// A complete result from what is particular about it.
fn result_from_json<T: serde::de::DeserializeOwned>(mut value: Value) -> Result<T, ErrorData> {
    value["resultType"] = "complete".into();
    from_json(value)
}

/// A protocol value from its wire form.
fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(internal)
}

fn internal(error: impl Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}
