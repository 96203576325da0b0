//! `db_sources`

use std::fmt::Write as _;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;
use shared::visible;

use crate::database::Database;
use crate::finding::Finding;
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("db_sources", "List the databases", EffectClass::Read);

/// How long a source may take to answer; a dead one must not hide the others.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DbSourcesParams {}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DbSourcesResult {
    sources: Vec<SourceView>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct SourceView {
    id: String,
    engine: &'static str,
    mode: &'static str,
    /// `ok`, or the code of an error.
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    /// Extensions and modules.
    features: Vec<String>,
    findings: Vec<FindingView>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct FindingView {
    severity: String,
    finding: String,
    advice: String,
}

#[tool_router(router = db_sources_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Lists the sources: engine, version, mode, whether it answers, and what its credential may do that it need not.
    #[tool]
    async fn db_sources(
        &self,
        Parameters(DbSourcesParams {}): Parameters<DbSourcesParams>,
    ) -> Result<Json<DbSourcesResult>, ToolError> {
        let looks = self.state().databases.iter().map(view);
        let sources = futures_util::future::join_all(looks).await;
        let mut text = String::new();
        for source in &sources {
            let version = source.version.as_deref().unwrap_or("of unknown version");
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{}: {} {}, mode {}, {}",
                source.id,
                source.engine,
                visible::prose(version),
                source.mode,
                source.status
            );
            if let Some(error) = &source.error {
                let _ = writeln!(text, "  {}", visible::prose(error));
            }
            for finding in &source.findings {
                let _ = writeln!(
                    text,
                    "  {}: {}; {}",
                    finding.severity,
                    visible::prose(&finding.finding),
                    visible::prose(&finding.advice)
                );
            }
        }
        Ok(structured(DbSourcesResult { sources }, text))
    }
}

async fn view(database: &Database) -> SourceView {
    let settings = &database.settings;
    let mut view = SourceView {
        id: settings.id.clone(),
        engine: settings.engine.name(),
        mode: settings.mode.name(),
        status: "ok".to_owned(),
        error: None,
        version: None,
        database: None,
        role: None,
        features: Vec::new(),
        findings: Vec::new(),
    };
    let looked = tokio::time::timeout(ANSWERS_WITHIN, look(database, &mut view)).await;
    let error = match looked {
        Ok(Ok(())) => return view,
        Ok(Err(error)) => error,
        Err(_) => ToolError::new(
            "UNREACHABLE",
            format!("it did not answer within {} s", ANSWERS_WITHIN.as_secs()),
        ),
    };
    view.status = error.code.into_owned();
    view.error = Some(error.message);
    view
}

async fn look(database: &Database, view: &mut SourceView) -> Result<(), ToolError> {
    let looked = database.look().await?;
    view.version = looked.version;
    view.database = looked.database;
    view.role = looked.role;
    view.features = looked.features;
    view.findings = looked.findings.iter().map(FindingView::from).collect();
    looked.refusal.map_or(Ok(()), Err)
}

impl From<&Finding> for FindingView {
    fn from(finding: &Finding) -> Self {
        Self {
            severity: finding.severity.name().to_owned(),
            finding: finding.finding.clone(),
            advice: finding.advice.clone(),
        }
    }
}
