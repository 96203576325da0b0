//! What every database says of itself, whatever its engine: what it is, what its credential may do, whether it is well.

use shared::tool_error::ToolError;

use super::{Client, Database};
use crate::finding::{Check, Finding};
use crate::mongodb::health;
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
    /// Why no call is served all the same.
    pub(crate) refusal: Option<ToolError>,
}

impl Database {
    /// Asks a source what it is.
    pub(crate) async fn look(&self) -> Result<Looked, ToolError> {
        match &self.client {
            Client::Postgres(postgres) => {
                let posture = postgres.posture().await?;
                Ok(Looked {
                    version: Some(if posture.is_replica {
                        format!("{} (a replica)", posture.version)
                    } else {
                        posture.version.clone()
                    }),
                    database: Some(posture.database.clone()),
                    role: Some(posture.role.clone()),
                    features: posture.extensions.clone(),
                    findings: posture.findings.clone(),
                    refusal: postgres.admits().await.err().map(Into::into),
                })
            }
            Client::Mongodb(mongo) => {
                let posture = Box::pin(mongo.posture(self.settings.limits.timeout)).await?;
                let server = posture.server;
                let users = posture.users.join(", ");
                Ok(Looked {
                    features: server.features(),
                    version: Some(server.version).filter(|version| !version.is_empty()),
                    database: mongo.database_of_url().map(str::to_owned),
                    role: Some(users).filter(|users| !users.is_empty()),
                    findings: posture.findings,
                    ..Looked::default()
                })
            }
            Client::Neo4j(neo4j) => {
                let posture = neo4j.posture(None).await?;
                Ok(Looked {
                    version: Some(format!("{} {}", posture.version, posture.edition)),
                    database: posture.database,
                    role: posture.user,
                    features: posture.features,
                    findings: posture.findings,
                    ..Looked::default()
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
                    ..Looked::default()
                })
            }
        }
    }

    /// Whether it is well; `wanted` names some of its checks, and nothing all of them.
    pub(crate) async fn health(&self, wanted: &[String]) -> Result<Vec<Check>, ToolError> {
        match &self.client {
            Client::Postgres(postgres) => Ok(postgres.health(wanted).await?),
            Client::Mongodb(mongo) => {
                let wanted = health::Wanted::named(wanted);
                let limit = self.settings.limits.timeout;
                let looking = mongo.health(&wanted, mongo.database_of_url(), limit);
                Ok(Box::pin(looking).await?)
            }
            Client::Neo4j(neo4j) => Ok(neo4j.health(wanted, None).await?),
            Client::Redis(redis) => Ok(Box::pin(redis.health(wanted, self.usual_call())).await?),
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
