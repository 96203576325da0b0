//! What the source's user could do to the server beyond what the source is for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bson::{Bson, Document, doc};
use serde::Serialize;

use super::client::{Mongodb, Server};
use super::error::MongoError;
use crate::finding::{Finding, Severity};
use crate::source::Mode;

/// Privileges that change data.
const WRITES: [&str; 14] = [
    "insert",
    "update",
    "remove",
    "bypassDocumentValidation",
    "createCollection",
    "createIndex",
    "collMod",
    "convertToCapped",
    "dropCollection",
    "dropDatabase",
    "dropIndex",
    "renameCollectionSameDB",
    "restore",
    "applyOps",
];
/// Privileges over the server, or over who may do what.
const RULES: [&str; 17] = [
    "changeAnyCustomData",
    "changeAnyPassword",
    "createRole",
    "createUser",
    "dropRole",
    "dropUser",
    "fsync",
    "grantRole",
    "internal",
    "killAnySession",
    "killop",
    "replSetConfigure",
    "revokeRole",
    "setParameter",
    "setUserWriteBlockMode",
    "shutdown",
    "impersonate",
];
/// Places a finding names.
const MOST_PLACES: usize = 5;

/// Who the source is to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Posture {
    /// The server.
    pub server: Server,
    /// Who is logged in: `name@database`.
    pub users: Vec<String>,
    /// With which roles: `role@database`.
    pub roles: Vec<String>,
    /// What could be tighter, what matters most first.
    pub findings: Vec<Finding>,
}

impl Mongodb {
    /// Asks the server who we are and what we may do.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn posture(&self, limit: Duration) -> Result<Posture, MongoError> {
        self.within(limit, async {
            let server = self.server(limit).await?;
            let status = self
                .command(
                    "admin",
                    doc! { "connectionStatus": 1, "showPrivileges": true },
                    limit,
                )
                .await?;
            Ok(posture(server, &status, self.settings().mode))
        })
        .await
    }
}

fn posture(server: Server, status: &Document, mode: Mode) -> Posture {
    let nothing = Document::new();
    let info = status.get_document("authInfo").unwrap_or(&nothing);
    let names = |list: &str, key: &str| -> Vec<String> {
        documents(info, list)
            .map(|one| {
                let name = one.get_str(key).unwrap_or_default();
                format!("{name}@{}", one.get_str("db").unwrap_or_default())
            })
            .collect()
    };
    let users = names("authenticatedUsers", "user");
    let roles = names("authenticatedUserRoles", "role");
    let mut findings = Vec::new();
    if users.is_empty() {
        findings.push(Finding {
            severity: Severity::High,
            finding: "nobody is logged in, and the server answers: whoever reaches it may do anything".to_owned(),
            advice: "start the server with authorization, and give the source a user with the role `read` of its databases".to_owned(),
        });
    }
    findings.extend(powers(&granted(info), !users.is_empty(), mode));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Posture {
        server,
        users,
        roles,
        findings,
    }
}

/// What may be done, and where, beyond reading.
fn powers(
    granted: &BTreeMap<String, BTreeSet<String>>,
    is_logged_in: bool,
    mode: Mode,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_logged_in && granted.is_empty() {
        findings.push(Finding {
            severity: Severity::Low,
            finding: "the server does not tell what the user may do".to_owned(),
            advice: "look at the roles of the user".to_owned(),
        });
    }
    let (severity, advice) = match mode {
        Mode::Read => (
            Severity::Medium,
            "the source is for reading: give its user the role `read`, so that the server refuses changes as well",
        ),
        Mode::Write => (
            Severity::Low,
            "the source is for writing; keep its role to the databases it needs",
        ),
    };
    for (actions, what, severity, advice) in [
        (
            &["anyAction"][..],
            "may do anything",
            Severity::High,
            "give the source a user with no more than the roles it needs",
        ),
        (
            &RULES,
            "may change the server, or who may do what",
            Severity::High,
            "take the administrator's roles from the source's user",
        ),
        (&WRITES, "may change data", severity, advice),
    ] {
        let held: Vec<&str> = actions
            .iter()
            .copied()
            .filter(|action| granted.contains_key(*action))
            .collect();
        if held.is_empty() {
            continue;
        }
        let places: BTreeSet<&str> = held
            .iter()
            .filter_map(|action| granted.get(*action))
            .flatten()
            .map(String::as_str)
            .collect();
        let shown: Vec<&str> = places.iter().copied().take(MOST_PLACES).collect();
        let rest = match places.len().saturating_sub(shown.len()) {
            0 => String::new(),
            left_out => format!(" and {left_out} more"),
        };
        findings.push(Finding {
            severity,
            finding: format!(
                "the user {what}: {} on {}{rest}",
                held.join(", "),
                shown.join(", ")
            ),
            advice: advice.to_owned(),
        });
    }
    findings
}

fn documents<'a>(from: &'a Document, list: &str) -> impl Iterator<Item = &'a Document> {
    from.get_array(list)
        .into_iter()
        .flatten()
        .filter_map(Bson::as_document)
}

/// On what each action is allowed.
fn granted(info: &Document) -> BTreeMap<String, BTreeSet<String>> {
    let mut granted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for privilege in documents(info, "authenticatedUserPrivileges") {
        let place = privilege
            .get_document("resource")
            .map_or_else(|_| "?".to_owned(), place);
        for action in privilege
            .get_array("actions")
            .into_iter()
            .flatten()
            .filter_map(Bson::as_str)
        {
            granted
                .entry(action.to_owned())
                .or_default()
                .insert(place.clone());
        }
    }
    granted
}

fn place(resource: &Document) -> String {
    let any = |name: &str| {
        if name.is_empty() {
            "*".to_owned()
        } else {
            name.to_owned()
        }
    };
    match (resource.get_str("db"), resource.get_str("collection")) {
        (Ok(db), Ok(collection)) => format!("{}.{}", any(db), any(collection)),
        _ if resource.contains_key("cluster") => "the cluster".to_owned(),
        _ => "any resource".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Topology;
    use super::*;

    fn found(status: &Document, mode: Mode) -> Vec<(Severity, String)> {
        let server = Server {
            version: "8.0.0".to_owned(),
            wire_version: 25,
            topology: Topology::Standalone,
            replica_set: None,
            has_sessions: true,
        };
        let findings = posture(server, status, mode).findings;
        findings
            .into_iter()
            .map(|finding| (finding.severity, finding.finding))
            .collect()
    }

    /// In the shape of MongoDB's documentation of `connectionStatus`.
    #[test]
    fn what_the_user_may_do_beyond_reading_is_found() {
        let nobody = doc! { "authInfo": { "authenticatedUsers": [], "authenticatedUserRoles": [], "authenticatedUserPrivileges": [] } };
        let findings = found(&nobody, Mode::Read);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].0, Severity::High);

        let status = |privileges: Bson| {
            doc! { "authInfo": {
                "authenticatedUsers": [{ "user": "agent", "db": "admin" }],
                "authenticatedUserRoles": [{ "role": "readWrite", "db": "shop" }],
                "authenticatedUserPrivileges": privileges,
            } }
        };
        let reader = status(Bson::Array(vec![
            doc! { "resource": { "db": "shop", "collection": "" }, "actions": ["find", "listCollections", "killCursors"] }.into(),
        ]));
        assert_eq!(found(&reader, Mode::Read), []);
        let writer = status(Bson::Array(vec![
            doc! { "resource": { "db": "shop", "collection": "" }, "actions": ["find", "insert", "remove"] }.into(),
        ]));
        let expected = "the user may change data: insert, remove on shop.*";
        assert_eq!(
            found(&writer, Mode::Read),
            [(Severity::Medium, expected.to_owned())]
        );
        assert_eq!(
            found(&writer, Mode::Write),
            [(Severity::Low, expected.to_owned())]
        );
        let root = status(Bson::Array(vec![
            doc! { "resource": { "anyResource": true }, "actions": ["anyAction"] }.into(),
            doc! { "resource": { "cluster": true }, "actions": ["shutdown"] }.into(),
        ]));
        assert_eq!(
            found(&root, Mode::Write),
            [
                (
                    Severity::High,
                    "the user may do anything: anyAction on any resource".to_owned()
                ),
                (
                    Severity::High,
                    "the user may change the server, or who may do what: shutdown on the cluster"
                        .to_owned()
                ),
            ]
        );
    }
}
