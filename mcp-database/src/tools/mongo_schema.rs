//! `mongo_schema`

use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::effect::class::EffectClass;
use shared::tool_error::{ToolError, code};
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::error::mongodb::refusal;
use super::mongo_read::database_of;
use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Format, Left, Reply, reply};
use crate::database::Wanted;
use crate::mongodb::listing::Listing;
use crate::mongodb::schema::{LARGEST_SAMPLE, SAMPLE};
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("mongo_schema", "Look at collections", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MongoSchemaParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// Its collections; without it, databases.
    #[serde(default)]
    db: Option<String>,
    /// Its fields and indexes.
    #[serde(default)]
    coll: Option<String>,
    /// Documents to look at; default 100.
    #[serde(default)]
    sample: Option<u32>,
    /// Default 100.
    #[serde(default)]
    max_rows: Option<usize>,
}

#[tool_router(router = mongo_schema_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Lists databases, collections, or a collection's fields with types and shares (0 to 1, from a sample) and its indexes with their
    /// use.
    #[tool]
    async fn mongo_schema(
        &self,
        Parameters(params): Parameters<MongoSchemaParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let (database, mongo) = self.state().databases.mongodb(params.source.as_deref())?;
        let wanted = Wanted {
            rows: params.max_rows,
            ..Wanted::default()
        };
        let budget = database.budget(wanted)?;
        let timeout = database.timeout(wanted)?;
        let sample = params.sample.unwrap_or(SAMPLE);
        if !(1..=LARGEST_SAMPLE).contains(&sample) {
            return Err(
                ToolError::new(code::INVALID_ARGUMENTS, format!("`sample` is {sample}"))
                    .with_hint(format!("give 1 to {LARGEST_SAMPLE}")),
            );
        }
        let place = match (params.db, params.coll) {
            (None, None) => Place::Server,
            (Some(db), None) => Place::Database(db),
            (db, Some(coll)) => Place::Collection(database_of(mongo, db)?, coll),
        };
        let mut recorded = Recorded::of(&database.settings.id);
        let _slot = database.slot().await?;
        let looking = async {
            match &place {
                Place::Server => mongo.databases(timeout).await.map(Listing::from),
                Place::Database(db) => mongo.collections(db, timeout).await.map(Listing::from),
                Place::Collection(db, coll) => {
                    let schema = mongo.schema(db, coll, sample, timeout).await;
                    schema.map(Listing::from)
                }
            }
        };
        let listing = Box::pin(told(&context, "the look", looking)).await;
        recorded.rows(listing.as_ref().ok().map(Listing::len));
        record::note(&context, recorded);
        let mut listing = listing.map_err(|error| refusal(&context, error))?;
        let notices = std::mem::take(&mut listing.notices);
        let (answer, rest) = listing.answer(budget);
        let left = Left {
            rest,
            source: database.settings.id.clone(),
            budget,
            notices,
        };
        let cursors = &self.state().cursors;
        reply(&context, cursors, answer, left, Format::Rows, since)
    }
}

enum Place {
    Server,
    Database(String),
    Collection(String, String),
}
