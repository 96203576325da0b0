//! What a source's user can still do on its server, and what an operator can do about it.

use std::time::Duration;

use serde::Serialize;

use super::bolt::{Access, Map, Value};
use super::client::{Neo4j, within};
use super::error::GraphError;
use super::pool::Session;
use crate::finding::{Finding, Severity};
use crate::source::{Mode, is_loopback};

/// Privileges that change something.
const CHANGING: [&str; 9] = [
    "write",
    "create",
    "delete",
    "merge",
    "set_property",
    "set_label",
    "remove_label",
    "dbms_actions",
    "admin",
];

/// What is behind a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Posture {
    /// `5.26.30`
    pub version: String,
    /// `community` or `enterprise`.
    pub edition: String,
    /// Who the server takes us for.
    pub user: Option<String>,
    /// The roles of the user; none on Community.
    pub roles: Vec<String>,
    /// The database that answers.
    pub database: Option<String>,
    /// What the server has beside its core: `apoc`, `gds`, `fulltext`, `vector`.
    pub features: Vec<String>,
    /// What the credential and the server leave open, most severe first.
    pub findings: Vec<Finding>,
}

impl Posture {
    fn find(&mut self, severity: Severity, finding: impl Into<String>, advice: &str) {
        self.findings.push(Finding {
            severity,
            finding: finding.into(),
            advice: advice.to_owned(),
        });
    }
}

impl Neo4j {
    /// Looks at the server and the user's rights there.
    ///
    /// # Errors
    /// Why the server did not answer; what only some servers tell is left out instead.
    pub async fn posture(&self, timeout: Option<Duration>) -> Result<Posture, GraphError> {
        let limit = self.limit(timeout);
        within(limit, async {
            let mut session = self.session().await?;
            let mut posture = Posture::default();
            self.about_the_way(&mut posture);
            let mut asking = Asking {
                session: &mut session,
                limit,
            };
            about_the_server(&mut asking, &mut posture).await?;
            about_the_user(&mut asking, &mut posture, self.mode()).await?;
            about_procedures(&mut asking, &mut posture).await?;
            let by_severity = |finding: &Finding| std::cmp::Reverse(finding.severity);
            posture.findings.sort_by_key(by_severity);
            Ok(posture)
        })
        .await
    }

    fn about_the_way(&self, posture: &mut Posture) {
        let address = self.address();
        if !address.tls && !is_loopback(&address.host) {
            posture.find(
                Severity::Medium,
                format!(
                    "everything goes to `{}` in the clear, the password too",
                    address.host
                ),
                "take tls = \"disable\" out of the source, so that TLS is spoken and verified",
            );
        }
        if address.is_routing {
            posture.find(
                Severity::Low,
                "the routing scheme of the url is not followed: the server it names is asked, and no other of a cluster",
                "for writes, name the leader of the database",
            );
        }
    }
}

/// A session and how long each statement may take.
struct Asking<'a> {
    session: &'a mut Session,
    limit: Duration,
}

impl Asking<'_> {
    /// The rows, or none where the server refuses to tell.
    async fn told(&mut self, text: &str) -> Result<Option<Vec<Vec<Value>>>, GraphError> {
        let options = self.session.options(Access::Read, self.limit);
        match self.session.rows(text, Map::new(), &options, 5_000).await {
            Ok(rows) => Ok(Some(rows)),
            Err(GraphError::Server { refusal, .. })
                if !matches!(
                    refusal,
                    super::error::Refusal::Database | super::error::Refusal::TimedOut
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(str::to_owned)
}

async fn about_the_server(
    asking: &mut Asking<'_>,
    posture: &mut Posture,
) -> Result<(), GraphError> {
    let components = "CALL dbms.components() YIELD versions, edition RETURN versions[0], edition";
    let options = asking.session.options(Access::Read, asking.limit);
    let batch = asking
        .session
        .run(components.to_owned(), Map::new(), &options, 10)
        .await;
    match batch {
        Ok(batch) => {
            posture.database = batch.summary.and_then(|summary| summary.database);
            if let Some(row) = batch.records.first() {
                posture.version = text(row.first()).unwrap_or_default();
                posture.edition = text(row.get(1)).unwrap_or_default();
            }
        }
        // An allowlist may leave it out; the greeting names the version, too.
        Err(GraphError::Server {
            refusal: super::error::Refusal::Procedure | super::error::Refusal::Permission,
            ..
        }) => {
            let agent = asking.session.connection()?.server_agent();
            agent
                .trim_start_matches("Neo4j/")
                .clone_into(&mut posture.version);
        }
        Err(error) => return Err(error),
    }
    if posture.edition == "community" {
        posture.find(
            Severity::Medium,
            "Community Edition has no roles: every user may write, and what is read-only is so by access mode, plan and gate alone",
            "nothing is to be done but to know it; Enterprise has a role `reader`",
        );
    }
    Ok(())
}

async fn about_the_user(
    asking: &mut Asking<'_>,
    posture: &mut Posture,
    mode: Mode,
) -> Result<(), GraphError> {
    if let Some(rows) = asking
        .told("SHOW CURRENT USER YIELD user, roles RETURN user, roles")
        .await?
        && let Some(row) = rows.first()
    {
        posture.user = text(row.first()).filter(|user| !user.is_empty());
        let roles = row.get(1).and_then(Value::as_list).unwrap_or_default();
        posture.roles = roles
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
    }
    if posture.user.is_none() {
        posture.find(
            Severity::High,
            "the server asks nobody who they are, or does not tell",
            "set dbms.security.auth_enabled=true on the server, and name a user and a password in the source",
        );
    }
    if mode == Mode::Write || posture.edition == "community" {
        return Ok(());
    }
    let privileges =
        "SHOW USER PRIVILEGES YIELD access, action WHERE access = 'GRANTED' RETURN DISTINCT action";
    let Some(rows) = asking.told(privileges).await? else {
        return Ok(());
    };
    let changing: Vec<String> = rows
        .iter()
        .filter_map(|row| text(row.first()))
        .filter(|action| CHANGING.iter().any(|known| action.starts_with(known)))
        .collect();
    if !changing.is_empty() {
        posture.find(
            Severity::Medium,
            format!(
                "the user of this read-only source may change things: {}",
                changing.join(", ")
            ),
            "give it a user with the role `reader` and no other",
        );
    }
    Ok(())
}

async fn about_procedures(
    asking: &mut Asking<'_>,
    posture: &mut Posture,
) -> Result<(), GraphError> {
    let names = "SHOW PROCEDURES YIELD name RETURN DISTINCT split(name, '.')[0] + \
        CASE WHEN name STARTS WITH 'db.index.' THEN '.' + split(name, '.')[2] ELSE '' END";
    for row in asking.told(names).await?.unwrap_or_default() {
        match text(row.first()).as_deref() {
            Some(name @ ("apoc" | "gds")) => posture.features.push(name.to_owned()),
            Some("db.fulltext") => posture.features.push("fulltext".to_owned()),
            Some("db.vector") => posture.features.push("vector".to_owned()),
            _ => {}
        }
    }
    let settings = "SHOW SETTINGS YIELD name, value WHERE name IN ['dbms.security.procedures.allowlist', \
        'dbms.security.procedures.unrestricted', 'dbms.security.allow_csv_import_from_file_urls'] RETURN name, value";
    for row in asking.told(settings).await?.unwrap_or_default() {
        let value = text(row.get(1)).unwrap_or_default();
        match text(row.first()).as_deref() {
            Some("dbms.security.procedures.allowlist") if value == "*" => posture.find(
                Severity::Low,
                "the server lets every procedure that is installed be called",
                "set dbms.security.procedures.allowlist to db.*,gds.* or what is needed: then no plugin is reached \
                 even if the gate here failed",
            ),
            Some("dbms.security.procedures.unrestricted") if !value.is_empty() && value != "null" => {
                posture.find(
                    Severity::Medium,
                    format!("procedures go past the rights of their callers: {value}"),
                    "empty dbms.security.procedures.unrestricted, or keep it to what needs it",
                );
            }
            Some("dbms.security.allow_csv_import_from_file_urls") if value == "true" => posture.find(
                Severity::Low,
                "LOAD CSV reads files of the server; the gate refuses it, nothing else would",
                "set dbms.security.allow_csv_import_from_file_urls=false",
            ),
            _ => {}
        }
    }
    Ok(())
}
