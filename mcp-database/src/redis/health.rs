//! How a server is: what it says of itself, held against what is usual.

use redis::{Pipeline, Value, cmd};
use serde_json::json;

use super::connection::Deadline;
use super::error::Error;
use super::info::Info;
use super::read::step_of;
use super::value::{self, Blob, elements, integer};
use super::{Call, Redis};
use crate::finding::{Check, Status};

/// Keys that are looked at for their size.
const SAMPLED: usize = 500;
/// Steps that are taken to find them.
const SAMPLING_STEPS: usize = 20;
/// Bytes from which a key is a big one.
const BIG_KEY: i64 = 10 * 1024 * 1024;
/// Big keys that are named.
const NAMED: usize = 5;
/// Entries of the log of slow commands that are read.
const SLOW_ENTRIES: usize = 64;
/// From when a command is slow, in milliseconds.
const SLOW_MS: f64 = 100.0;
/// Bytes below which the shares of memory mean nothing.
const LITTLE_MEMORY: f64 = 100.0 * 1024.0 * 1024.0;
/// Judges what the server says of itself.
type Judge = fn(&Info) -> Seen;
/// What is judged so, by name.
const OF_INFO: [(&str, Judge); 6] = [
    ("memory", memory),
    ("fragmentation", fragmentation),
    ("eviction", eviction),
    ("clients", clients),
    ("persistence", persistence),
    ("replication", replication),
];

/// One thing that was looked at, as it is told; [`text`] is what becomes of its values.
struct Seen {
    check: &'static str,
    status: Status,
    value: serde_json::Value,
    threshold: serde_json::Value,
    advice: Option<String>,
}

impl Redis {
    /// Looks at memory, fragmentation, eviction, clients, persistence, replication, slow commands, and a sample of keys; `wanted`
    /// names some of these, and nothing all.
    ///
    /// # Errors
    /// A server that cannot be reached; what it refuses to tell is a warning.
    pub async fn health(&self, wanted: &[String], call: Call) -> Result<Vec<Check>, Error> {
        let deadline = Deadline::after(call.timeout);
        let is_wanted = |check: &str| wanted.is_empty() || wanted.iter().any(|name| name == check);
        let mut seen = Vec::new();
        if OF_INFO.iter().any(|(name, _)| is_wanted(name)) {
            let info = Info::ask(self.lines(), deadline).await?;
            if info.is_empty() {
                seen.push(unseen("info", "the user may not ask INFO; give it +info"));
            } else {
                let judges = OF_INFO.iter().filter(|(name, _)| is_wanted(name));
                seen.extend(judges.map(|(_, judge)| judge(&info)));
            }
        }
        if is_wanted("slow_commands") {
            seen.push(self.slow_commands(deadline).await?);
        }
        if is_wanted("big_keys") {
            seen.push(self.big_keys(deadline).await?);
        }
        Ok(seen.into_iter().map(Check::from).collect())
    }

    /// Names and times alone: the arguments are others' data.
    async fn slow_commands(&self, deadline: Deadline) -> Result<Seen, Error> {
        let mut ask = cmd("SLOWLOG");
        ask.arg("GET").arg(SLOW_ENTRIES);
        let told = match self.lines().ask(&ask, deadline).await {
            Ok(told) => elements(told).unwrap_or_default(),
            Err(Error::Server { .. }) => {
                let advice = "the user may not ask SLOWLOG GET; give it +slowlog|get";
                return Ok(unseen("slow_commands", advice));
            }
            Err(error) => return Err(error),
        };
        let mut slow: Vec<(String, f64)> = Vec::new();
        for entry in told.into_iter().filter_map(elements) {
            let micros = entry.get(2).and_then(value::number).unwrap_or_default();
            let words = entry.get(3).cloned().and_then(elements).unwrap_or_default();
            let name = words
                .into_iter()
                .next()
                .and_then(value::text)
                .unwrap_or_default();
            // What is no word may be anything.
            let is_word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if name.len() > 40 || !name.chars().all(is_word) {
                continue;
            }
            let (name, ms) = (name.to_ascii_uppercase(), micros / 1_000.0);
            match slow.iter_mut().find(|(known, _)| *known == name) {
                Some((_, longest)) => *longest = longest.max(ms),
                None => slow.push((name, ms)),
            }
        }
        slow.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        slow.truncate(10);
        let is_slow = slow.first().is_some_and(|(_, ms)| *ms >= SLOW_MS);
        let value: Vec<_> = slow
            .iter()
            .map(|(name, ms)| json!({ "command": name, "longest_ms": ms }))
            .collect();
        Ok(check("slow_commands", level(is_slow, false), value.into())
            .against(json!(SLOW_MS))
            .advising("everybody waits for these; read in smaller windows, and never KEYS"))
    }

    /// Looks at some keys, wherever the server begins.
    async fn big_keys(&self, deadline: Deadline) -> Result<Seen, Error> {
        let refused = || {
            unseen(
                "big_keys",
                "the user may not ask SCAN and MEMORY USAGE; give it +scan +memory|usage",
            )
        };
        let (mut keys, mut cursor) = (Vec::new(), 0_u64);
        for _ in 0..SAMPLING_STEPS {
            let mut ask = cmd("SCAN");
            ask.arg(cursor).arg("COUNT").arg(200);
            let answer = match self.lines().ask(&ask, deadline).await {
                Ok(answer) => answer,
                Err(Error::Server { .. }) => return Ok(refused()),
                Err(error) => return Err(error),
            };
            let (after, found) = step_of(answer);
            let found = found.into_iter().filter_map(value::bytes).map(Blob::from);
            keys.extend(found.filter(|key| self.check_key(key).is_ok()));
            if after == 0 || after == cursor || keys.len() >= SAMPLED || deadline.is_near() {
                break;
            }
            cursor = after;
        }
        keys.truncate(SAMPLED);
        let mut ask = Pipeline::new();
        for key in &keys {
            ask.cmd("MEMORY")
                .arg("USAGE")
                .arg(key)
                .arg("SAMPLES")
                .arg(5);
        }
        let sizes = if keys.is_empty() {
            Vec::new()
        } else {
            self.lines().ask_all(&ask, deadline).await?
        };
        if !sizes.is_empty()
            && sizes
                .iter()
                .all(|size| matches!(size, Value::ServerError(_)))
        {
            return Ok(refused());
        }
        let mut measured: Vec<(i64, &Blob)> = sizes
            .iter()
            .zip(&keys)
            .filter_map(|(size, key)| Some((integer(size)?, key)))
            .collect();
        measured.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        let is_big = measured.first().is_some_and(|(size, _)| *size >= BIG_KEY);
        let largest: Vec<_> = measured
            .iter()
            .take(NAMED)
            .map(|(size, key)| json!({ "bytes": size, "key": value::shown(key.0.clone()).into_value() }))
            .collect();
        let value = json!({ "largest": largest, "sampled": measured.len() });
        Ok(check("big_keys", level(is_big, false), value)
            .against(json!(BIG_KEY))
            .advising("split them: to read, copy or delete one of these stops everybody else"))
    }
}

fn memory(info: &Info) -> Seen {
    let used = info.number("used_memory").unwrap_or_default();
    let limit = info.number("maxmemory").filter(|limit| *limit > 0.0);
    let machine = info
        .number("total_system_memory")
        .filter(|limit| *limit > 0.0);
    let share = limit.or(machine).map(|limit| used / limit);
    let value = json!({ "used_bytes": used, "limit_bytes": limit, "machine_bytes": machine, "share": share });
    let is = |least: f64| share.is_some_and(|share| share >= least);
    check("memory", level(is(0.8), is(0.95)), value)
        .against(json!({ "warn": 0.8, "fail": 0.95 }))
        .advising(
            "delete, let keys expire, or raise maxmemory before writes are refused or keys evicted",
        )
}

fn fragmentation(info: &Info) -> Seen {
    let ratio = info.number("mem_fragmentation_ratio").unwrap_or(1.0);
    let is_much = info
        .number("used_memory")
        .is_some_and(|used| used >= LITTLE_MEMORY);
    let status = level(is_much && !(0.9..=1.5).contains(&ratio), false);
    check("fragmentation", status, json!(ratio))
        .against(json!({ "least": 0.9, "most": 1.5 }))
        .advising(
            "above: activedefrag yes, or a restart; below: the machine swaps and needs more memory",
        )
}

fn eviction(info: &Info) -> Seen {
    let policy = info.get("maxmemory_policy");
    let evicted = info.number("evicted_keys").unwrap_or_default();
    let value = json!({ "policy": policy, "evicted_keys": evicted });
    check("eviction", level(evicted > 0.0, false), value)
        .against(json!(0))
        .advising("keys were deleted for the want of memory; where none may be lost, use noeviction and more memory")
}

fn clients(info: &Info) -> Seen {
    let connected = info.number("connected_clients").unwrap_or_default();
    let most = info.number("maxclients").filter(|most| *most > 0.0);
    let rejected = info.number("rejected_connections").unwrap_or_default();
    let value = json!({
        "connected": connected, "most": most, "blocked": info.number("blocked_clients"), "rejected": rejected,
    });
    let is = |least: f64| most.is_some_and(|most| connected / most >= least);
    check("clients", level(is(0.8) || rejected > 0.0, is(0.98)), value)
        .against(json!({ "warn": 0.8, "fail": 0.98 }))
        .advising("raise maxclients, or find who opens connections without closing them")
}

fn persistence(info: &Info) -> Seen {
    let names = [
        "rdb_last_bgsave_status",
        "aof_last_bgrewrite_status",
        "aof_last_write_status",
    ];
    let failed = names
        .iter()
        .any(|name| info.get(name).is_some_and(|status| status != "ok"));
    let loading = info.get("loading") == Some("1");
    let mut value: serde_json::Map<_, _> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!(info.get(name))))
        .collect();
    value.insert("loading".to_owned(), loading.into());
    let changes = info.number("rdb_changes_since_last_save");
    value.insert("changes_since_last_save".to_owned(), json!(changes));
    check("persistence", level(loading, failed), value.into())
        .against(json!("ok"))
        .advising("the data is not on disk; look at the server's log, and at the room on its disk")
}

fn replication(info: &Info) -> Seen {
    let role = info.get("role");
    let link = info.get("master_link_status");
    let silent = info.number("master_last_io_seconds_ago");
    let replicas = info.number("connected_slaves");
    let value = json!({ "role": role, "link": link, "seconds_since_primary": silent, "replicas": replicas });
    let is_late = silent.is_some_and(|seconds| seconds > 30.0);
    check(
        "replication",
        level(is_late, link.is_some_and(|link| link != "up")),
        value,
    )
    .against(json!({ "link": "up", "seconds_since_primary": 30 }))
    .advising("what is read here is old; look at the primary and the way there")
}

fn level(warns: bool, fails: bool) -> Status {
    match (warns, fails) {
        (_, true) => Status::Fail,
        (true, false) => Status::Warn,
        (false, false) => Status::Ok,
    }
}

fn check(check: &'static str, status: Status, value: serde_json::Value) -> Seen {
    Seen {
        check,
        status,
        value,
        threshold: serde_json::Value::Null,
        advice: None,
    }
}

impl From<Seen> for Check {
    fn from(seen: Seen) -> Self {
        Self {
            check: seen.check.to_owned(),
            status: seen.status,
            value: match seen.value {
                serde_json::Value::Null => "not to be seen".to_owned(),
                value => text(&value),
            },
            threshold: (!seen.threshold.is_null()).then(|| text(&seen.threshold)),
            advice: seen.advice,
        }
    }
}

/// JSON as a line for people: `used_bytes 10, share 0.1`; what is null is left out.
fn text(value: &serde_json::Value) -> String {
    use serde_json::Value::{Array, Number, Object, String};
    match value {
        Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            let members: Vec<_> = members
                .map(|(name, value)| format!("{name} {}", text(value)))
                .collect();
            members.join(", ")
        }
        Array(list) if list.is_empty() => "none".to_owned(),
        Array(list) => list.iter().map(text).collect::<Vec<_>>().join("; "),
        Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 => format!("{float:.0}"),
            Some(float) if number.is_f64() => format!("{float:.3}"),
            _ => number.to_string(),
        },
        String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn unseen(name: &'static str, advice: &str) -> Seen {
    check(name, Status::Warn, serde_json::Value::Null).advising(advice)
}

impl Seen {
    fn against(mut self, threshold: serde_json::Value) -> Self {
        self.threshold = threshold;
        self
    }

    /// Advice is for what is not good.
    fn advising(mut self, advice: &str) -> Self {
        self.advice = (self.status != Status::Ok).then(|| advice.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_held_against_what_is_usual() {
        let status = |judge: fn(&Info) -> Seen, text: &str| judge(&Info::of(text)).status;
        for (judge, text, expected) in [
            (
                memory as fn(&Info) -> Seen,
                "used_memory:10\nmaxmemory:100",
                Status::Ok,
            ),
            (memory, "used_memory:85\nmaxmemory:100", Status::Warn),
            (memory, "used_memory:96\nmaxmemory:100", Status::Fail),
            (
                memory,
                "used_memory:96\nmaxmemory:0\ntotal_system_memory:1000",
                Status::Ok,
            ),
            (
                fragmentation,
                "used_memory:10\nmem_fragmentation_ratio:9",
                Status::Ok,
            ),
            (
                fragmentation,
                "used_memory:200000000\nmem_fragmentation_ratio:2",
                Status::Warn,
            ),
            (eviction, "evicted_keys:1", Status::Warn),
            (
                clients,
                "connected_clients:90\nmaxclients:100",
                Status::Warn,
            ),
            (
                clients,
                "connected_clients:9\nmaxclients:100\nrejected_connections:1",
                Status::Warn,
            ),
            (persistence, "rdb_last_bgsave_status:err", Status::Fail),
            (
                persistence,
                "rdb_last_bgsave_status:ok\nloading:1",
                Status::Warn,
            ),
            (
                replication,
                "role:slave\nmaster_link_status:down",
                Status::Fail,
            ),
            (replication, "role:master", Status::Ok),
        ] {
            assert_eq!(status(judge, text), expected, "{text}");
        }
    }

    #[test]
    fn advice_is_for_what_is_not_good() {
        let good = memory(&Info::of("used_memory:1\nmaxmemory:100"));
        let bad = memory(&Info::of("used_memory:99\nmaxmemory:100"));
        assert!(good.advice.is_none() && bad.advice.is_some());
    }
    #[test]
    fn what_was_seen_is_told_in_a_line() {
        let value = json!({ "a": 1.0, "b": 0.12345, "c": null, "d": [{ "e": "f" }, 2], "g": [] });
        assert_eq!(text(&value), "a 1, b 0.123, d e f; 2, g none");
    }
}
