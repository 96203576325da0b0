//! What every database says of itself, whatever its engine: what it is, what its credential may do, whether it is well.

use shared::tool_error::ToolError;

use super::{Client, Database};
use crate::finding::{Check, Finding};
use crate::redis::Call;
use crate::redis::info::Product;

/// What a source is.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// Of its server.
    pub(crate) version: Option<String>,
    /// Which of its databases.
    pub(crate) database: Option<String>,
    /// Who we are there.
    pub(crate) role: Option<String>,
    /// Extensions and modules.
    pub(crate) features: Vec<String>,
    /// What the credential may do that it need not.
    pub(crate) findings: Vec<Finding>,
}

impl Database {
    /// Asks a source what it is.
    pub(crate) async fn look(&self) -> Result<Looked, ToolError> {
        match &self.client {
            Client::Postgres(postgres) => {
                let posture = postgres.posture().await?;
                Ok(Looked {
                    version: Some(posture.version.clone()),
                    database: Some(posture.database.clone()),
                    role: Some(posture.role.clone()),
                    features: posture.extensions.clone(),
                    findings: posture.findings.clone(),
                })
            }
            Client::Redis(redis) => {
                let posture = Box::pin(redis.posture(self.usual_call())).await?;
                let version = posture.version.map(|version| match posture.product {
                    Product::Redis => version,
                    other => format!("{version} ({})", other.name()),
                });
                Ok(Looked {
                    version,
                    database: Some(redis.database().to_string()),
                    role: posture.user,
                    features: posture.modules,
                    findings: posture.findings,
                })
            }
            Client::Mongodb(_) | Client::Neo4j(_) => Ok(Looked::default()),
        }
    }

    /// Whether it is well; `wanted` names some of its checks, and nothing all of them.
    pub(crate) async fn health(&self, wanted: &[String]) -> Result<Vec<Check>, ToolError> {
        match &self.client {
            Client::Postgres(postgres) => Ok(postgres.health(wanted).await?),
            Client::Redis(redis) => Ok(Box::pin(redis.health(wanted, self.usual_call())).await?),
            Client::Mongodb(_) | Client::Neo4j(_) => Ok(Vec::new()),
        }
    }

    /// What Redis is asked within where nobody asks for more.
    pub(crate) fn usual_call(&self) -> Call {
        let limits = self.settings.limits;
        Call {
            budget: limits.reply,
            timeout: limits.timeout,
        }
    }
}
