//! Changing calls of an enforced server: each has a grant among its arguments, is asked about before, and told of afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rmcp::handler::server::tool::ToolRouter;
use rmcp::model::{CallToolRequestParams, CallToolResponse, JsonObject, Tool};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::class::EffectClass;
use super::client::{EffectClient, EndReport};
use super::protocol::{Outcome, Permit, Refusal, ToolDeclaration};
use crate::call;
use crate::digest::Digest;
use crate::principal;
use crate::tool_error::{ToolError, code};
use crate::tools::class_of;

/// Whether a tool's calls need a grant in enforced mode; each server has its exemptions in one place.
pub type NeedsGrant = fn(tool: &str, class: EffectClass) -> bool;

/// The grant of a call, taken out of its arguments.
#[derive(Debug, Clone)]
struct Grant(Option<String>);

/// Whether the registry was asked about a call.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<AtomicBool>);

/// What plans may name: every tool, as it is listed, without `grant`.
pub fn declarations<S: Send + Sync + 'static>(tools: &ToolRouter<S>) -> Vec<ToolDeclaration> {
    let declare = |tool: Tool| ToolDeclaration {
        class: class_of(&tool),
        schema: Value::Object(JsonObject::clone(&tool.input_schema)),
        tool: tool.name.into_owned(),
    };
    tools.list_all().into_iter().map(declare).collect()
}

/// One more argument for every tool that needs a grant.
pub fn add_grant<S: Send + Sync + 'static>(tools: &mut ToolRouter<S>, needs_grant: NeedsGrant) {
    for (name, route) in &mut tools.map {
        if !needs_grant(name, class_of(&route.attr)) {
            continue;
        }
        let mut schema = JsonObject::clone(&route.attr.input_schema);
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            let grant = json!({ "type": "string", "description": "The handle that execution_begin returned for this step." });
            properties.insert("grant".to_owned(), grant);
        }
        route.attr.input_schema = Arc::new(schema);
    }
}

/// Makes a call that needs a grant: takes the grant out of its arguments, where [`Action::begin`] does not look, and tells the
/// registry afterwards of a call that was refused before anybody asked.
///
/// # Errors
/// As `call`.
pub async fn with_grant<F>(
    client: &EffectClient,
    mut request: CallToolRequestParams,
    mut context: RequestContext<RoleServer>,
    call: impl FnOnce(CallToolRequestParams, RequestContext<RoleServer>) -> F,
) -> Result<CallToolResponse, ErrorData>
where
    F: Future<Output = Result<CallToolResponse, ErrorData>>,
{
    let grant = match request
        .arguments
        .as_mut()
        .and_then(|arguments| arguments.remove("grant"))
    {
        None | Some(Value::Null) => None,
        Some(Value::String(grant)) => Some(grant),
        Some(_) => {
            let error = ToolError::new(code::INVALID_ARGUMENTS, "`grant` is no string")
                .with_hint("give the handle that execution_begin returned");
            return Ok(error.to_result().into());
        }
    };
    let asked = Asked::default();
    context.extensions.insert(Grant(grant));
    context.extensions.insert(asked.clone());
    let principal = principal::of(&context)
        .map(|principal| principal.name.to_string())
        .unwrap_or_default();
    let tool = request.name.to_string();
    let response = call(request, context).await;
    if !asked.0.load(Ordering::Relaxed)
        && let Ok(CallToolResponse::Complete(result)) = &response
        && let Some(error) = ToolError::of_result(result)
    {
        client.refused(&principal, &tool, &error.code, None);
    }
    response
}

/// A call the registry permitted. It must be told the end; if the call vanishes, it is told that nobody knows.
pub struct Action {
    client: EffectClient,
    permit: Permit,
    is_ended: bool,
}

impl Action {
    /// Asks the registry whether this call, made by [`with_grant`], may be made with these typed, defaulted arguments; notes in the
    /// call log what it belongs to.
    ///
    /// # Errors
    /// `GRANT_REQUIRED` without a grant, else what the registry says, or that it cannot be asked.
    pub async fn begin(
        client: &EffectClient,
        context: &RequestContext<RoleServer>,
        tool: &str,
        arguments: &impl Serialize,
    ) -> Result<Self, ToolError> {
        Self::ask(client, context, tool, arguments)
            .await
            .inspect(|action| {
                let Permit {
                    run_id, action_id, ..
                } = &action.permit;
                call::belongs_to(context, Some(run_id), Some(action_id));
            })
            .inspect_err(|_| call::was_refused(context))
    }

    async fn ask(
        client: &EffectClient,
        context: &RequestContext<RoleServer>,
        tool: &str,
        arguments: &impl Serialize,
    ) -> Result<Self, ToolError> {
        let principal = &principal::of(context)?.name;
        let grant = context.extensions.get::<Grant>();
        let Some(grant) = grant.and_then(|grant| grant.0.as_deref()) else {
            return Err(ToolError::new("GRANT_REQUIRED", format!("`{tool}` changes something and has no `grant`"))
                .with_hint("get a plan approved; `execution_begin` of the spec registry then gives a grant for each step"));
        };
        if let Some(asked) = context.extensions.get::<Asked>() {
            asked.0.store(true, Ordering::Relaxed);
        }
        let permit = client
            .begin(grant, principal, tool, arguments_of(arguments)?)
            .await
            .map_err(refused)?;
        Ok(Self {
            client: client.clone(),
            permit,
            is_ended: false,
        })
    }

    /// What was permitted.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Tells the registry how the call ended, and gives its result on. `describe` adds what a result says beyond itself.
    ///
    /// # Errors
    /// The call's own error; or that what was done could not be reported.
    pub async fn end<T: Serialize>(
        mut self,
        result: Result<T, ToolError>,
        describe: impl FnOnce(&T, &mut EndReport),
    ) -> Result<T, ToolError> {
        let action_id = self.permit.action_id.clone();
        let report = match &result {
            Ok(result) => {
                let digest =
                    Digest::of_json(result).map_err(|error| ToolError::internal(&error))?;
                let mut report = EndReport::done(action_id, digest);
                describe(result, &mut report);
                report
            }
            Err(error) => EndReport::failed(action_id, &error.code),
        };
        self.is_ended = true;
        let told = self.client.end(report).await;
        let result = result?;
        match told {
            Ok(_) => Ok(result),
            Err(refusal) => {
                tracing::error!(%refusal, "what was done could not be reported");
                let message = format!(
                    "it was done, but the registry does not take the report: {}",
                    refusal.message
                );
                Err(ToolError::new(refusal.code, message)
                    .with_hint("do not repeat the call; ask for the run's state"))
            }
        }
    }
}

impl Drop for Action {
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        let report = EndReport {
            outcome: Outcome::Unknown,
            ..EndReport::failed(self.permit.action_id.clone(), "VANISHED")
        };
        let client = self.client.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(refusal) = client.end(report).await {
                    tracing::error!(%refusal, "the end of a vanished call could not be reported");
                }
            });
        }
    }
}

fn arguments_of(arguments: &impl Serialize) -> Result<Map<String, Value>, ToolError> {
    match serde_json::to_value(arguments) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(_) => Err(ToolError::internal(&"arguments are no object")),
        Err(error) => Err(ToolError::internal(&error)),
    }
}

fn refused(refusal: Refusal) -> ToolError {
    ToolError::new(refusal.code, refusal.message).with_hint(refusal.hint)
}
