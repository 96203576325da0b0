//! What MongoDB says of a plan, made a short tree of what matters, and what would make it better.

use bson::{Bson, Document};
use serde::Serialize;
use serde_json::Value;

use super::value::{self, Shown};

/// Bytes that one condition or bound of a stage may take.
const LONGEST_PART: usize = 2_000;
/// How deep plans are followed.
const DEEPEST: usize = 50;
/// How many documents may be looked at for one that is given.
const MOST_LOOKED_AT: i64 = 10;

/// A plan that the server chose.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// Its stages: of a sharded collection a tree for each shard, of a pipeline the query first and then the stages that follow it.
    pub stages: Vec<Stage>,
    /// Every document of the collection is looked at.
    pub collection_scan: bool,
    /// Documents are sorted in memory, and not by an index.
    pub sort_in_memory: bool,
    /// The indexes that are used.
    pub indexes: Vec<String>,
    /// What it took, where it was run.
    pub executed: Option<Executed>,
}

/// One stage of a plan, and what it takes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stage {
    /// `IXSCAN`, `FETCH`, `$group`.
    pub stage: String,
    /// The shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// The index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// The ranges of the index that are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Value>,
    /// The condition that every document is looked at for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// What it takes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Stage>,
}

/// What a plan took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Executed {
    /// Documents that were given.
    pub returned: i64,
    /// Entries of indexes that were looked at.
    pub keys_examined: i64,
    /// Documents that were looked at.
    pub docs_examined: i64,
    /// Milliseconds.
    pub millis: i64,
}

impl Plan {
    /// What a reply to `explain` says; of a plan that is written in no known way nothing.
    pub fn of(reply: &Document) -> Self {
        let mut plan = Self::default();
        plan.explained(reply, None);
        plan.indexes.sort();
        plan.indexes.dedup();
        plan
    }

    /// One reply, of one shard or of all there is.
    fn explained(&mut self, reply: &Document, shard: Option<&str>) {
        if let Ok(shards) = reply.get_document("shards") {
            for (name, shard) in shards {
                if let Bson::Document(explained) = shard {
                    self.explained(explained, Some(name));
                }
            }
            return;
        }
        if let Ok(stages) = reply.get_array("stages") {
            for stage in stages.iter().filter_map(Bson::as_document) {
                let Some((name, inner)) = stage.iter().find(|(key, _)| key.starts_with('$')) else {
                    continue;
                };
                match inner {
                    Bson::Document(cursor) if name == "$cursor" => self.explained(cursor, shard),
                    _ => {
                        self.sort_in_memory |= name == "$sort";
                        self.stages.push(Stage {
                            stage: name.clone(),
                            shard: shard.map(str::to_owned),
                            ..Stage::default()
                        });
                    }
                }
            }
            return;
        }
        if let Ok(planner) = reply.get_document("queryPlanner")
            && let Ok(winning) = planner.get_document("winningPlan")
        {
            let stages = self.winning(winning, shard);
            self.stages.extend(stages);
        }
        if let Ok(stats) = reply.get_document("executionStats") {
            let executed = self.executed.get_or_insert_default();
            executed.returned += whole(stats, "nReturned");
            executed.keys_examined += whole(stats, "totalKeysExamined");
            executed.docs_examined += whole(stats, "totalDocsExamined");
            executed.millis = executed.millis.max(whole(stats, "executionTimeMillis"));
        }
    }

    fn winning(&mut self, plan: &Document, shard: Option<&str>) -> Vec<Stage> {
        // What routers say of each shard.
        if let Ok(shards) = plan.get_array("shards") {
            return shards
                .iter()
                .filter_map(Bson::as_document)
                .filter_map(|one| {
                    Some((
                        one.get_str("shardName").ok(),
                        one.get_document("winningPlan").ok()?,
                    ))
                })
                .flat_map(|(name, plan)| self.winning(plan, name))
                .collect();
        }
        // The newer engine has its own below it, which nobody reads.
        let tree = plan.get_document("queryPlan").unwrap_or(plan);
        let mut stage = self.stage(tree, 1);
        stage.shard = shard.map(str::to_owned);
        vec![stage]
    }

    fn stage(&mut self, stage: &Document, depth: usize) -> Stage {
        let name = stage.get_str("stage").unwrap_or("?").to_owned();
        self.collection_scan |= name == "COLLSCAN";
        self.sort_in_memory |= name == "SORT";
        let index = stage.get_str("indexName").ok().map(str::to_owned);
        self.indexes.extend(index.clone());
        if matches!(name.as_str(), "IDHACK" | "EXPRESS_IXSCAN") && index.is_none() {
            self.indexes.push("_id_".to_owned());
        }
        let mut from = Vec::new();
        if depth < DEEPEST {
            for key in [
                "inputStage",
                "outerStage",
                "innerStage",
                "thenStage",
                "elseStage",
            ] {
                if let Ok(input) = stage.get_document(key) {
                    from.push(self.stage(input, depth + 1));
                }
            }
            if let Ok(inputs) = stage.get_array("inputStages") {
                for input in inputs.iter().filter_map(Bson::as_document) {
                    from.push(self.stage(input, depth + 1));
                }
            }
        }
        Stage {
            stage: name,
            shard: None,
            index,
            bounds: part(stage, "indexBounds"),
            filter: part(stage, "filter"),
            from,
        }
    }

    /// What would make it better. `filter` and `sort` are those of the query, as far as an index helps with them.
    pub fn advice(&self, filter: &Document, sort: Option<&Document>) -> Vec<String> {
        let mut advice = Vec::new();
        let has_or = filter.contains_key("$or");
        if self.collection_scan || self.sort_in_memory {
            let what = if self.collection_scan {
                "every document is looked at"
            } else {
                "documents are sorted in memory"
            };
            match suggested_index(filter, sort) {
                Some(index) => advice.push(format!(
                    "{what}; an index on {index} would be read instead (equality, then sort, then range)"
                )),
                None if has_or => advice.push(format!(
                    "{what}; every branch of the $or wants an index of its own"
                )),
                None if filter.is_empty() => advice.push(format!(
                    "{what}, since nothing says which; a filter on a field with an index, or a limit, keeps it small"
                )),
                None => advice.push(format!(
                    "{what}, and the conditions are such as no index helps with ($ne, $nin, $not, $where, a regular expression that does not begin with ^)"
                )),
            }
        }
        if let Some(executed) = self.executed
            && !self.collection_scan
            && executed.docs_examined > MOST_LOOKED_AT.saturating_mul(executed.returned.max(1))
        {
            advice.push(format!(
                "{} documents are looked at for {} that are given; an index with more of the filter's fields would leave the rest out",
                executed.docs_examined, executed.returned
            ));
        }
        advice
    }
}

fn whole(document: &Document, key: &str) -> i64 {
    match document.get(key) {
        Some(Bson::Int32(number)) => (*number).into(),
        Some(Bson::Int64(number)) => *number,
        #[expect(clippy::cast_possible_truncation, reason = "a count")]
        Some(Bson::Double(number)) => *number as i64,
        _ => 0,
    }
}

fn part(stage: &Document, key: &str) -> Option<Value> {
    let shown = Shown {
        bytes: LONGEST_PART,
        whole_vectors: false,
    };
    let cell = value::cell(stage.get(key)?, shown).ok()?;
    Some(cell.into_value())
}

/// The keys of an index for a query, by the rule of equality, sort and range; as text, since the order of its keys counts.
pub fn suggested_index(filter: &Document, sort: Option<&Document>) -> Option<String> {
    let mut equal = Vec::new();
    let mut ranges = Vec::new();
    conditions(filter, &mut equal, &mut ranges);
    let mut keys: Vec<(String, i32)> = Vec::new();
    let mut add = |field: &str, direction: i32| {
        if keys.iter().all(|(there, _)| there != field) {
            keys.push((field.to_owned(), direction));
        }
    };
    for field in &equal {
        add(field, 1);
    }
    for (field, direction) in sort.into_iter().flatten() {
        match direction {
            Bson::Int32(-1) | Bson::Int64(-1) => add(field, -1),
            Bson::Double(direction) if *direction < 0.0 => add(field, -1),
            // A score is no field.
            Bson::Document(_) => {}
            _ => add(field, 1),
        }
    }
    for field in &ranges {
        add(field, 1);
    }
    if keys.is_empty() || (equal.is_empty() && ranges.is_empty() && sort.is_none()) {
        return None;
    }
    let keys: Vec<String> = keys
        .iter()
        .map(|(field, direction)| format!("{}: {direction}", Value::from(field.as_str())))
        .collect();
    Some(format!("{{{}}}", keys.join(", ")))
}

fn conditions(filter: &Document, equal: &mut Vec<String>, ranges: &mut Vec<String>) {
    for (key, condition) in filter {
        match (key.as_str(), condition) {
            ("$and", Bson::Array(all)) => {
                for one in all.iter().filter_map(Bson::as_document) {
                    conditions(one, equal, ranges);
                }
            }
            (operator, _) if operator.starts_with('$') => {}
            (field, Bson::Document(condition))
                if condition.keys().any(|key| key.starts_with('$')) =>
            {
                let has = |operators: &[&str]| {
                    condition
                        .keys()
                        .any(|key| operators.contains(&key.as_str()))
                };
                if has(&["$eq", "$in"]) {
                    equal.push(field.to_owned());
                } else if has(&["$gt", "$gte", "$lt", "$lte"])
                    || condition
                        .get_str("$regex")
                        .is_ok_and(|pattern| pattern.starts_with('^'))
                {
                    ranges.push(field.to_owned());
                }
            }
            (field, Bson::RegularExpression(regex)) => {
                if regex.pattern.to_string().starts_with('^') {
                    ranges.push(field.to_owned());
                }
            }
            (field, _) => equal.push(field.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn an_index_has_equality_first_then_sort_then_range() {
        for (filter, sort, expected) in [
            (
                doc! { "n": { "$gt": 1 }, "status": "open" },
                Some(doc! { "at": -1 }),
                Some("{\"status\": 1, \"at\": -1, \"n\": 1}"),
            ),
            (
                doc! { "$and": [{ "a": { "$in": [1, 2] } }, { "b": { "$lt": 1 } }] },
                None,
                Some("{\"a\": 1, \"b\": 1}"),
            ),
            (
                doc! { "a": 1 },
                Some(doc! { "a": 1, "b": 1 }),
                Some("{\"a\": 1, \"b\": 1}"),
            ),
            (doc! {}, Some(doc! { "b": -1 }), Some("{\"b\": -1}")),
            (doc! { "a": { "$ne": 1 } }, None, None),
            (doc! { "$or": [{ "a": 1 }] }, None, None),
            (doc! { "a": { "$regex": "^x" } }, None, Some("{\"a\": 1}")),
            (doc! { "a": { "$regex": "x" } }, None, None),
        ] {
            assert_eq!(
                suggested_index(&filter, sort.as_ref()).as_deref(),
                expected,
                "{filter}"
            );
        }
    }

    /// Replies in the shape of MongoDB's documentation of `explain`: of a query, of the newer engine, of a pipeline, of shards.
    #[test]
    fn a_plan_is_read_in_every_shape_it_comes_in() {
        let scan = doc! { "queryPlanner": { "winningPlan": { "stage": "COLLSCAN", "filter": { "a": { "$eq": 1 } }, "direction": "forward" } },
        "executionStats": { "nReturned": 3, "executionTimeMillis": 2, "totalKeysExamined": 0, "totalDocsExamined": 10 } };
        let plan = Plan::of(&scan);
        assert!(plan.collection_scan && plan.indexes.is_empty());
        assert_eq!(
            plan.executed,
            Some(Executed {
                returned: 3,
                keys_examined: 0,
                docs_examined: 10,
                millis: 2
            })
        );
        assert!(plan.advice(&doc! { "a": 1 }, None)[0].contains("{\"a\": 1}"));

        let newer = doc! { "queryPlanner": { "winningPlan": { "queryPlan": { "stage": "FETCH", "inputStage": {
        "stage": "IXSCAN", "indexName": "a_1", "keyPattern": { "a": 1 }, "indexBounds": { "a": ["[1, 1]"] } } },
        "slotBasedPlan": { "stages": "…" } } } };
        let plan = Plan::of(&newer);
        assert!(!plan.collection_scan);
        assert_eq!(plan.indexes, ["a_1"]);
        assert_eq!(
            plan.stages[0].from[0].bounds,
            Some(serde_json::json!({ "a": ["[1, 1]"] }))
        );

        let pipeline = doc! { "stages": [
            { "$cursor": scan["queryPlanner"].as_document().map(|planner| doc! { "queryPlanner": planner.clone() }) },
            { "$group": { "_id": "$a" } },
        ] };
        let plan = Plan::of(&pipeline);
        assert!(plan.collection_scan);
        let names: Vec<&str> = plan
            .stages
            .iter()
            .map(|stage| stage.stage.as_str())
            .collect();
        assert_eq!(names, ["COLLSCAN", "$group"]);

        let sharded = doc! { "queryPlanner": { "winningPlan": { "stage": "SHARD_MERGE", "shards": [
            { "shardName": "s1", "winningPlan": { "stage": "IDHACK" } },
            { "shardName": "s2", "winningPlan": { "stage": "SORT", "inputStage": { "stage": "COLLSCAN" } } },
        ] } } };
        let plan = Plan::of(&sharded);
        assert!(plan.collection_scan && plan.sort_in_memory);
        assert_eq!(plan.stages[1].shard.as_deref(), Some("s2"));
        assert_eq!(plan.indexes, ["_id_"]);

        let shards = doc! { "shards": { "s1": newer.clone(), "s2": newer } };
        assert_eq!(Plan::of(&shards).stages.len(), 2);
        assert_eq!(Plan::of(&doc! { "ok": 1 }), Plan::default());
    }
}
