//! `pg_schema`

use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::pg::Question;
use super::record::Recorded;
use super::reply::{Format, Reply};
use crate::database::Wanted;
use crate::postgres::schema;
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("pg_schema", "Look at the schema", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PgSchemaParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// LIKE pattern over `name` and `schema.name`.
    #[serde(default)]
    r#match: Option<String>,
    /// What to look for.
    #[serde(default)]
    kind: Kind,
    /// `full`: a row for each column, index and constraint.
    #[serde(default)]
    detail: Detail,
    /// Default 100.
    #[serde(default)]
    max_rows: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Kind {
    #[default]
    Relations,
    Functions,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Detail {
    Names,
    #[default]
    Summary,
    Full,
}

#[tool_router(router = pg_schema_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Tells what tables, views or functions there are: columns, keys, references, about how many rows, comments.
    #[tool]
    async fn pg_schema(
        &self,
        Parameters(params): Parameters<PgSchemaParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let (database, postgres) = self.state().databases.postgres(params.source.as_deref())?;
        let wanted = Wanted {
            rows: params.max_rows,
            ..Wanted::default()
        };
        let budget = database.budget(wanted)?;
        let kind = match params.kind {
            Kind::Relations => schema::Kind::Relations,
            Kind::Functions => schema::Kind::Functions,
        };
        let detail = match params.detail {
            Detail::Names => schema::Detail::Names,
            Detail::Summary => schema::Detail::Summary,
            Detail::Full => schema::Detail::Full,
        };
        let mut ask = schema::ask(params.r#match.as_deref(), kind, detail);
        ask.timeout = database.timeout(wanted)?;
        let recorded = Recorded::of(&database.settings.id);
        let question = Question {
            database,
            postgres,
            ask,
            budget,
            format: Format::Rows,
            recorded,
            since,
        };
        self.answer(&context, question).await
    }
}
