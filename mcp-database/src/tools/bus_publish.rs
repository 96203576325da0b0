//! `bus_publish`

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::error::redis::refusal;
use super::kv_write::pairs;
use super::record::{self, Recorded};
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("bus_publish", "Send a message", EffectClass::Write);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BusPublishParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// Its name.
    stream: String,
    /// {"name": value}; JSON as its text.
    fields: Map<String, Value>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BusPublishResult {
    id: String,
    /// Messages that the stream has now.
    length: i64,
}

#[tool_router(router = bus_publish_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Sends a message to a stream, where it stays for every group and reader.
    #[tool]
    async fn bus_publish(
        &self,
        Parameters(params): Parameters<BusPublishParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<BusPublishResult>, ToolError> {
        let (database, redis) = self.state().databases.redis(params.source.as_deref())?;
        record::note(&context, Recorded::of(&database.settings.id));
        let fields = pairs(&params.fields)?;
        let _slot = database.slot().await?;
        let call = database.usual_call();
        // How many stay is not the sender's to say: it needs no grant, and less would take messages from others.
        let published = redis.publish(&params.stream, &fields, None, call);
        let published = published.await.map_err(|error| refusal(&context, error))?;
        let text = format!("sent: {}", published.id);
        let result = BusPublishResult {
            id: published.id,
            length: published.length,
        };
        Ok(structured(result, text))
    }
}
