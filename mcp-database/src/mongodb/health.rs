//! Whether a server is well: connections, long operations, replication, and indexes that nobody uses.

use std::time::Duration;

use bson::{Bson, Document, doc};

use super::client::{Mongodb, Topology};
use super::error::MongoError;
use super::schema::{Index, Kind};
use crate::finding::{Check, Status};

/// Part of the connections from which on there are too many.
const MANY_CONNECTIONS: f64 = 0.8;
/// Part of the connections from which on there will be none left soon.
const NO_CONNECTIONS: f64 = 0.95;
/// Seconds after which an operation is long.
const LONG: i64 = 10;
/// Seconds after which it is far too long.
const FAR_TOO_LONG: i64 = 300;
/// Seconds that a member may be behind.
const BEHIND: i64 = 10;
/// Seconds behind from which on it is of no use.
const FAR_BEHIND: i64 = 60;
/// Operations, members and indexes that one check names.
const MOST_NAMED: usize = 20;
/// Characters of an operation's command that are shown.
const LONGEST_COMMAND: usize = 300;
/// Collections whose indexes are looked at.
const MOST_COLLECTIONS: usize = 50;
/// Databases of the server's own.
const OWN: [&str; 3] = ["admin", "config", "local"];

/// What can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// How many connections there are of those there can be.
    Connections,
    /// What runs for long.
    Operations,
    /// Whether the members of a replica set are there, and follow.
    Replication,
    /// Indexes that cost on every write and are not read.
    UnusedIndexes,
}

impl Wanted {
    /// Everything.
    pub const ALL: [Self; 4] = [
        Self::Connections,
        Self::Operations,
        Self::Replication,
        Self::UnusedIndexes,
    ];

    /// Those of these names; without any name, everything.
    pub fn named(names: &[String]) -> Vec<Self> {
        let is_wanted =
            |one: &Self| names.is_empty() || names.iter().any(|name| name == one.name());
        Self::ALL.into_iter().filter(is_wanted).collect()
    }

    /// Its name in calls and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Operations => "operations",
            Self::Replication => "replication",
            Self::UnusedIndexes => "unused_indexes",
        }
    }
}

impl Mongodb {
    /// Checks what is wanted; the indexes are those of the database `db`, without one those of all. What may not be asked is told in
    /// the check.
    ///
    /// # Errors
    /// Nobody answers at all.
    pub async fn health(
        &self,
        wanted: &[Wanted],
        db: Option<&str>,
        limit: Duration,
    ) -> Result<Vec<Check>, MongoError> {
        self.within(limit, async {
            let server = self.server(limit).await?;
            let mut checks = Vec::new();
            for one in wanted {
                let checked = match one {
                    Wanted::Connections => self.connections(limit).await,
                    Wanted::Operations => self.operations(limit).await,
                    Wanted::Replication if server.topology != Topology::ReplicaSet => Ok(check(
                        Wanted::Replication,
                        Status::Ok,
                        "it is no replica set; its data is in one place",
                        "",
                    )),
                    Wanted::Replication => self.replication(limit).await,
                    Wanted::UnusedIndexes => self.unused_indexes(db, limit).await,
                };
                checks.push(checked.unwrap_or_else(|error| {
                    let value = format!("cannot be looked at: {error}");
                    check(*one, Status::Warn, value, "")
                }));
            }
            Ok(checks)
        })
        .await
    }

    async fn connections(&self, limit: Duration) -> Result<Check, MongoError> {
        let status = self
            .command("admin", doc! { "serverStatus": 1 }, limit)
            .await?;
        connections(&status)
    }

    async fn operations(&self, limit: Duration) -> Result<Check, MongoError> {
        let command = doc! { "currentOp": 1, "active": true, "secs_running": { "$gte": LONG } };
        let reply = self.command("admin", command, limit).await?;
        Ok(operations(&reply))
    }

    async fn replication(&self, limit: Duration) -> Result<Check, MongoError> {
        let status = self
            .command("admin", doc! { "replSetGetStatus": 1 }, limit)
            .await?;
        Ok(replication(&status))
    }

    async fn unused_indexes(&self, db: Option<&str>, limit: Duration) -> Result<Check, MongoError> {
        let databases = if let Some(db) = db {
            vec![db.to_owned()]
        } else {
            let all = self.databases(limit).await?.into_iter();
            all.map(|one| one.name)
                .filter(|name| !OWN.contains(&name.as_str()))
                .collect()
        };
        let mut found = Vec::new();
        let mut unknown = None;
        let mut left = MOST_COLLECTIONS;
        for db in databases {
            let listed = self.listed(&db, None, limit).await?;
            let with_indexes = listed
                .iter()
                .filter(|one| one.kind != Kind::View && !one.name.starts_with("system."));
            for collection in with_indexes.take(left) {
                left -= 1;
                let (indexes, notice) = self.indexes(&db, &collection.name, limit).await?;
                unknown = unknown.or(notice);
                let name = format!("{db}.{}", collection.name);
                found.extend(indexes.into_iter().map(|index| (name.clone(), index)));
            }
        }
        Ok(unused(&found, unknown.as_deref()))
    }
}

fn check(wanted: Wanted, status: Status, value: impl Into<String>, advice: &str) -> Check {
    let threshold = match wanted {
        Wanted::Connections => format!("{} %", MANY_CONNECTIONS * 100.0),
        Wanted::Operations => format!("{LONG} s"),
        Wanted::Replication => format!("{BEHIND} s behind, or a member that is not well"),
        Wanted::UnusedIndexes => "never used since the server started".to_owned(),
    };
    Check {
        check: wanted.name().to_owned(),
        status,
        value: value.into(),
        threshold: Some(threshold),
        advice: (!advice.is_empty()).then(|| advice.to_owned()),
    }
}

/// The first of what was found, as one text.
fn named(all: &[String], nothing: &str) -> String {
    if all.is_empty() {
        return nothing.to_owned();
    }
    let shown = all[..all.len().min(MOST_NAMED)].join("; ");
    match all.len().saturating_sub(MOST_NAMED) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

fn number(document: &Document, key: &str) -> Option<i64> {
    match document.get(key)? {
        Bson::Int32(number) => Some((*number).into()),
        Bson::Int64(number) => Some(*number),
        #[expect(clippy::cast_possible_truncation, reason = "a count, or seconds")]
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}

fn connections(status: &Document) -> Result<Check, MongoError> {
    let connections = status.get_document("connections").ok();
    let count = |key: &str| connections.and_then(|connections| number(connections, key));
    let (Some(current), Some(available)) = (count("current"), count("available")) else {
        return Err(MongoError::Reply(
            "serverStatus has no connections".to_owned(),
        ));
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "there are never that many connections"
    )]
    let part = current as f64 / (current.saturating_add(available)).max(1) as f64;
    let (status, advice) = if part >= NO_CONNECTIONS {
        (
            Status::Fail,
            "close clients that do nothing, or raise net.maxIncomingConnections",
        )
    } else if part >= MANY_CONNECTIONS {
        (
            Status::Warn,
            "look for clients that open more connections than they need",
        )
    } else {
        (Status::Ok, "")
    };
    let value = format!("{current} of {}", current.saturating_add(available));
    Ok(check(Wanted::Connections, status, value, advice))
}

fn operations(reply: &Document) -> Check {
    let mut running: Vec<(i64, String)> = reply
        .get_array("inprog")
        .into_iter()
        .flatten()
        .filter_map(Bson::as_document)
        // What the server itself does for ever.
        .filter(|one| one.get_str("op").is_ok_and(|op| op != "none"))
        .filter_map(|one| {
            let seconds = number(one, "secs_running").filter(|seconds| *seconds >= LONG)?;
            Some((seconds, operation(one, seconds)))
        })
        .collect();
    running.sort_by_key(|(seconds, _)| -seconds);
    let longest = running.first().map(|(seconds, _)| *seconds);
    let (status, advice) = match longest {
        Some(seconds) if seconds >= FAR_TOO_LONG => (
            Status::Fail,
            "explain the longest; end it with killOp if nobody waits for it any more",
        ),
        Some(_) => (
            Status::Warn,
            "explain the longest: COLLSCAN in its plan wants an index",
        ),
        None => (Status::Ok, ""),
    };
    let all: Vec<String> = running.into_iter().map(|(_, one)| one).collect();
    check(
        Wanted::Operations,
        status,
        named(&all, "none is long"),
        advice,
    )
}

fn operation(one: &Document, seconds: i64) -> String {
    let text = |key: &str| one.get_str(key).unwrap_or("?");
    let opid = one
        .get("opid")
        .map(|opid| opid.clone().into_relaxed_extjson());
    let command = one.get_document("command").cloned().unwrap_or_default();
    let command = Bson::Document(command).into_relaxed_extjson().to_string();
    let command: String = command.chars().take(LONGEST_COMMAND).collect();
    format!(
        "{} of {} for {seconds} s, {}, opid {}: {command}",
        text("op"),
        text("ns"),
        text("planSummary"),
        opid.unwrap_or_default()
    )
}

fn replication(status: &Document) -> Check {
    let members: Vec<&Document> = status
        .get_array("members")
        .into_iter()
        .flatten()
        .filter_map(Bson::as_document)
        .collect();
    let when = |member: &Document| member.get_datetime("optimeDate").ok().copied();
    let is =
        |member: &Document, state: &str| member.get_str("stateStr").is_ok_and(|is| is == state);
    let primary = members.iter().find(|member| is(member, "PRIMARY"));
    let mut worst = if primary.is_some() {
        Status::Ok
    } else {
        Status::Fail
    };
    let mut advice = if primary.is_some() {
        ""
    } else {
        "there is no primary: see why no member is elected"
    };
    let mut told = Vec::new();
    for member in &members {
        let is_healthy = number(member, "health") == Some(1)
            && ["PRIMARY", "SECONDARY", "ARBITER"]
                .iter()
                .any(|state| is(member, state));
        let behind = match (primary.and_then(|primary| when(primary)), when(member)) {
            (Some(first), Some(own)) if is(member, "SECONDARY") => {
                Some((first.timestamp_millis() - own.timestamp_millis()) / 1000)
            }
            _ => None,
        };
        if worst != Status::Fail {
            if !is_healthy || behind.is_some_and(|behind| behind >= FAR_BEHIND) {
                worst = Status::Fail;
                advice = "see what is wrong with the member that is not well, or far behind";
            } else if behind.is_some_and(|behind| behind >= BEHIND) {
                worst = Status::Warn;
                advice = "see what the member that is behind waits for: its disk, the network, or an operation";
            }
        }
        let mut one = format!(
            "{} {}",
            member.get_str("name").unwrap_or("?"),
            member.get_str("stateStr").unwrap_or("?")
        );
        if !is_healthy {
            one.push_str(", not well");
        }
        if let Some(behind) = behind {
            one = format!("{one}, {behind} s behind");
        }
        told.push(one);
    }
    let value = named(&told, "no members");
    check(Wanted::Replication, worst, value, advice)
}

fn unused(found: &[(String, Index)], not_known: Option<&str>) -> Check {
    let unused: Vec<String> = found
        .iter()
        .filter(|(_, index)| index.used == Some(0) && index.name != "_id_")
        // These are kept for what they forbid or delete, not for what they find.
        .filter(|(_, index)| {
            index.options.get("unique").is_none()
                && index.options.get("expireAfterSeconds").is_none()
        })
        .map(|(collection, index)| format!("{collection}: {} {}", index.name, index.keys))
        .collect();
    let (status, nothing, advice) = match (not_known, unused.is_empty()) {
        (Some(reason), true) => (Status::Warn, reason, ""),
        (None, true) => (Status::Ok, "none", ""),
        (_, false) => (
            Status::Warn,
            "",
            "each costs on every write; hide it first, and drop it if nothing gets slower; every server counts by itself, from its start",
        ),
    };
    check(
        Wanted::UnusedIndexes,
        status,
        named(&unused, nothing),
        advice,
    )
}

#[cfg(test)]
mod tests {
    use bson::DateTime;
    use serde_json::{Value, json};

    use super::*;

    // Replies in the shape of MongoDB's documentation of `serverStatus`, `currentOp` and `replSetGetStatus`.

    #[test]
    fn connections_are_counted_by_the_part_that_is_left() -> anyhow::Result<()> {
        for (current, available, expected) in [
            (10, 990, Status::Ok),
            (850, 150, Status::Warn),
            (990, 10, Status::Fail),
        ] {
            let status = doc! { "connections": { "current": current, "available": available } };
            assert_eq!(connections(&status)?.status, expected, "{current}");
        }
        assert!(connections(&doc! {}).is_err());
        Ok(())
    }

    #[test]
    fn an_operation_is_long_after_ten_seconds() {
        let reply = doc! { "inprog": [
            { "opid": 1, "op": "query", "ns": "shop.orders", "secs_running": 12_i64, "planSummary": "COLLSCAN", "command": { "find": "orders" } },
            { "opid": 2, "op": "none", "secs_running": 5_000_i64 },
            { "opid": 3, "op": "update", "secs_running": 1_i64 },
        ] };
        let check = operations(&reply);
        assert_eq!(check.status, Status::Warn);
        assert_eq!(
            check.value,
            r#"query of shop.orders for 12 s, COLLSCAN, opid 1: {"find":"orders"}"#
        );
        assert_eq!(operations(&doc! { "inprog": [] }).status, Status::Ok);
        let reply = doc! { "inprog": [{ "op": "command", "secs_running": 400 }] };
        assert_eq!(operations(&reply).status, Status::Fail);
    }

    #[test]
    fn a_member_that_is_behind_or_gone_is_found() {
        let member = |state: &str, health: f64, millis: i64| doc! { "name": "a:1", "stateStr": state, "health": health, "optimeDate": DateTime::from_millis(millis) };
        for (members, expected) in [
            (
                vec![
                    member("PRIMARY", 1.0, 100_000),
                    member("SECONDARY", 1.0, 99_000),
                ],
                Status::Ok,
            ),
            (
                vec![
                    member("PRIMARY", 1.0, 100_000),
                    member("SECONDARY", 1.0, 85_000),
                ],
                Status::Warn,
            ),
            (
                vec![
                    member("PRIMARY", 1.0, 100_000),
                    member("SECONDARY", 1.0, 10_000),
                ],
                Status::Fail,
            ),
            (
                vec![
                    member("PRIMARY", 1.0, 100_000),
                    member("(not reachable/healthy)", 0.0, 0),
                ],
                Status::Fail,
            ),
            (vec![member("SECONDARY", 1.0, 100_000)], Status::Fail),
        ] {
            assert_eq!(
                replication(&doc! { "members": members.clone() }).status,
                expected,
                "{members:?}"
            );
        }
    }

    #[test]
    fn an_index_is_unused_unless_it_forbids_or_deletes() {
        let index = |name: &str, used: Option<i64>, options: Value| {
            let index = Index {
                name: name.to_owned(),
                keys: "{\"a\": 1}".to_owned(),
                options,
                used,
                since: None,
            };
            ("orders".to_owned(), index)
        };
        let check = unused(
            &[
                index("_id_", Some(0), json!({})),
                index("a_1", Some(0), json!({})),
                index("b_1", Some(0), json!({ "unique": true })),
                index("c_1", Some(7), json!({})),
                index("d_1", None, json!({})),
            ],
            None,
        );
        assert_eq!(check.status, Status::Warn);
        assert_eq!(check.value, r#"orders: a_1 {"a": 1}"#);
        assert_eq!(unused(&[], None).status, Status::Ok);
    }
}
