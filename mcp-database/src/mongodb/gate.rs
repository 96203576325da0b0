//! What a read may ask of MongoDB: stages by a list of those that only read, wherever a pipeline stands, and nothing anywhere that
//! writes, runs a program on the server, or looks at other people's sessions.

use bson::{Bson, Document};

use super::ejson::DEEPEST;

/// The stages that only read.
const STAGES: &[&str] = &[
    "$addFields",
    "$bucket",
    "$bucketAuto",
    "$collStats",
    "$count",
    "$densify",
    "$documents",
    "$facet",
    "$fill",
    "$geoNear",
    "$graphLookup",
    "$group",
    "$indexStats",
    "$limit",
    "$lookup",
    "$match",
    "$project",
    "$rankFusion",
    "$redact",
    "$replaceRoot",
    "$replaceWith",
    "$sample",
    "$scoreFusion",
    "$search",
    "$searchMeta",
    "$set",
    "$setWindowFields",
    "$skip",
    "$sort",
    "$sortByCount",
    "$unionWith",
    "$unset",
    "$unwind",
    "$vectorSearch",
];

/// The stages of an update's pipeline.
const UPDATE_STAGES: &[&str] = &[
    "$addFields",
    "$project",
    "$replaceRoot",
    "$replaceWith",
    "$set",
    "$unset",
];

/// What stands nowhere, also where a later server might take it.
const NOWHERE: &[(&str, &str)] = &[
    ("$out", WRITES),
    ("$merge", WRITES),
    ("$where", RUNS),
    ("$function", RUNS),
    ("$accumulator", RUNS),
    ("$currentOp", LOOKS),
    ("$listSessions", LOOKS),
    ("$listLocalSessions", LOOKS),
    ("$listSampledQueries", LOOKS),
    ("$planCacheStats", LOOKS),
    ("$querySettings", LOOKS),
    ("$queryStats", LOOKS),
    ("$changeStream", ENDLESS),
    ("$changeStreamSplitLargeEvent", ENDLESS),
];

const WRITES: &str = "it writes";
const RUNS: &str =
    "it runs JavaScript on the server; say it with expressions of the query language";
const LOOKS: &str = "it looks at what others do on the server";
const ENDLESS: &str = "it never ends";

/// What a read may not ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` may not stand in {place}: {reason}")]
pub struct GateError {
    /// Where it stands: `pipeline[2].$facet.a[0].$out`.
    pub path: String,
    /// Where it was to be: `a read`.
    pub place: &'static str,
    /// Why not, and what to do instead.
    pub reason: String,
}

impl GateError {
    /// Whether it is a change that was asked for.
    pub fn writes(&self) -> bool {
        self.reason == WRITES
    }
}

fn refused(path: impl Into<String>, reason: impl Into<String>) -> GateError {
    GateError {
        path: path.into(),
        place: "a read",
        reason: reason.into(),
    }
}

/// Checks a filter, projection or anything else that is no pipeline; `argument` names it in errors.
///
/// # Errors
/// The first thing that may not be asked.
pub fn check(argument: &str, document: &Document) -> Result<(), GateError> {
    scan_document(argument, document, 1)
}

/// Checks a pipeline with all that stand within it.
///
/// # Errors
/// The first thing that may not be asked.
pub fn check_pipeline(argument: &str, pipeline: &[Document]) -> Result<(), GateError> {
    for (index, stage) in pipeline.iter().enumerate() {
        check_stage(&format!("{argument}[{index}]"), stage, 1)?;
    }
    Ok(())
}

/// Checks the pipeline of an update.
///
/// # Errors
/// The first stage that is none of an update, or runs a program.
pub fn check_update(argument: &str, pipeline: &[Document]) -> Result<(), GateError> {
    for (index, stage) in pipeline.iter().enumerate() {
        let path = format!("{argument}[{index}]");
        let name = name_of(&path, stage)?;
        if !UPDATE_STAGES.contains(&name) {
            return Err(GateError {
                path: format!("{path}.{name}"),
                place: "an update",
                reason: format!("there are {}", UPDATE_STAGES.join(", ")),
            });
        }
        scan_document(&path, stage, 1)?;
    }
    Ok(())
}

/// Checks the name of a collection that is read.
///
/// # Errors
/// A collection of the server's own, which has credentials, keys or programs.
pub fn check_collection(path: &str, name: &str) -> Result<(), GateError> {
    let is_own = name.starts_with("system.")
        && !matches!(name, "system.profile" | "system.views")
        && !name.starts_with("system.buckets.");
    if is_own {
        return Err(refused(
            path,
            format!("`{name}` is a collection of the server's own"),
        ));
    }
    Ok(())
}

fn name_of<'a>(path: &str, stage: &'a Document) -> Result<&'a str, GateError> {
    let mut keys = stage.keys();
    match (keys.next(), keys.next()) {
        (Some(name), None) => Ok(name),
        _ => Err(refused(
            path,
            format!(
                "a stage has one key, its name, and this has {}",
                stage.len()
            ),
        )),
    }
}

fn check_stage(path: &str, stage: &Document, depth: usize) -> Result<(), GateError> {
    let name = name_of(path, stage)?;
    let path = format!("{path}.{name}");
    if let Some(reason) = nowhere(name) {
        return Err(refused(path, reason));
    }
    if !STAGES.contains(&name) {
        return Err(refused(
            path,
            format!(
                "no stage of this name is known to only read; there are {}",
                STAGES.join(", ")
            ),
        ));
    }
    let Some(arguments) = stage.get(name) else {
        return Ok(());
    };
    match (name, arguments) {
        ("$facet", Bson::Document(facets)) => {
            for (facet, pipeline) in facets {
                check_nested(&format!("{path}.{facet}"), pipeline, depth)?;
            }
        }
        ("$rankFusion" | "$scoreFusion", Bson::Document(arguments)) => {
            if let Ok(input) = arguments.get_document("input")
                && let Ok(pipelines) = input.get_document("pipelines")
            {
                for (one, pipeline) in pipelines {
                    check_nested(&format!("{path}.input.pipelines.{one}"), pipeline, depth)?;
                }
            }
        }
        ("$unionWith", Bson::String(from)) => check_collection(&path, from)?,
        ("$lookup" | "$unionWith" | "$graphLookup", Bson::Document(arguments)) => {
            if let Some(pipeline) = arguments.get("pipeline") {
                check_nested(&format!("{path}.pipeline"), pipeline, depth)?;
            }
            check_from(&path, arguments)?;
        }
        _ => {}
    }
    scan(&path, arguments, depth + 1)
}

/// `from: "name"`, `from: {db, coll}`, `coll: "name"`.
fn check_from(path: &str, arguments: &Document) -> Result<(), GateError> {
    for key in ["from", "coll"] {
        match arguments.get(key) {
            Some(Bson::String(name)) => check_collection(&format!("{path}.{key}"), name)?,
            Some(Bson::Document(place)) => {
                if let Ok(name) = place.get_str("coll") {
                    check_collection(&format!("{path}.{key}.coll"), name)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_nested(path: &str, pipeline: &Bson, depth: usize) -> Result<(), GateError> {
    too_deep(path, depth)?;
    let Bson::Array(stages) = pipeline else {
        return Err(refused(path, "it is no list of stages"));
    };
    for (index, stage) in stages.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match stage {
            Bson::Document(stage) => check_stage(&path, stage, depth + 2)?,
            _ => return Err(refused(path, "it is no stage")),
        }
    }
    Ok(())
}

fn nowhere(key: &str) -> Option<&'static str> {
    if key.starts_with("$_internal") {
        return Some("it is the server's own");
    }
    NOWHERE
        .iter()
        .find_map(|(name, reason)| (*name == key).then_some(*reason))
}

fn too_deep(path: &str, depth: usize) -> Result<(), GateError> {
    if depth > DEEPEST {
        return Err(refused(path, format!("it stands more than {DEEPEST} deep")));
    }
    Ok(())
}

/// Looks at every key, in pipelines that were looked at as such once more: what writes or runs has no place at all.
fn scan(path: &str, value: &Bson, depth: usize) -> Result<(), GateError> {
    too_deep(path, depth)?;
    match value {
        Bson::Document(document) => scan_document(path, document, depth),
        Bson::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                if matches!(element, Bson::Document(_) | Bson::Array(_)) {
                    scan(&format!("{path}[{index}]"), element, depth + 1)?;
                }
            }
            Ok(())
        }
        Bson::JavaScriptCodeWithScope(_) => Err(refused(path, RUNS)),
        _ => Ok(()),
    }
}

fn scan_document(path: &str, document: &Document, depth: usize) -> Result<(), GateError> {
    too_deep(path, depth)?;
    for (key, value) in document {
        if let Some(reason) = nowhere(key) {
            return Err(refused(format!("{path}.{key}"), reason));
        }
        if matches!(
            value,
            Bson::Document(_) | Bson::Array(_) | Bson::JavaScriptCodeWithScope(_)
        ) {
            scan(&format!("{path}.{key}"), value, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn refusal(pipeline: &[Document]) -> String {
        check_pipeline("pipeline", pipeline)
            .expect_err("refused")
            .path
    }

    #[test]
    fn a_pipeline_that_only_reads_passes() -> anyhow::Result<()> {
        check_pipeline(
            "pipeline",
            &[
                doc! { "$match": { "a": { "$gt": 1 }, "out": 1, "merge": "$where", "$expr": { "$eq": ["$a", "$out"] } } },
                doc! { "$lookup": { "from": "b", "let": { "x": "$x" }, "pipeline": [
                    { "$facet": { "$out2": [{ "$limit": 1 }], "n": [{ "$count": "n" }] } },
                    { "$unionWith": { "coll": "c", "pipeline": [{ "$project": { "a": 1 } }] } },
                ], "as": "b" } },
                doc! { "$unionWith": "system.profile" },
                doc! { "$group": { "_id": { "$mergeObjects": ["$a", "$b"] }, "n": { "$sum": 1 } } },
            ],
        )?;
        Ok(())
    }

    #[test]
    fn a_stage_that_writes_is_refused_wherever_it_stands() {
        for (pipeline, path) in [
            (doc! { "$out": "x" }, "pipeline[0].$out"),
            (doc! { "$merge": { "into": "x" } }, "pipeline[0].$merge"),
            (
                doc! { "$facet": { "a": [{ "$limit": 1 }, { "$out": "x" }] } },
                "pipeline[0].$facet.a[1].$out",
            ),
            (
                doc! { "$lookup": { "from": "b", "pipeline": [{ "$merge": "x" }], "as": "b" } },
                "pipeline[0].$lookup.pipeline[0].$merge",
            ),
            (
                doc! { "$unionWith": { "coll": "b", "pipeline": [{ "$out": "x" }] } },
                "pipeline[0].$unionWith.pipeline[0].$out",
            ),
            (
                doc! { "$graphLookup": { "from": "b", "pipeline": [{ "$out": "x" }] } },
                "pipeline[0].$graphLookup.pipeline[0].$out",
            ),
            (
                doc! { "$rankFusion": { "input": { "pipelines": { "p": [{ "$out": "x" }] } } } },
                "pipeline[0].$rankFusion.input.pipelines.p[0].$out",
            ),
            (
                doc! { "$lookup": { "from": "b", "pipeline": "x" } },
                "pipeline[0].$lookup.pipeline",
            ),
            (
                doc! { "$lookup": { "from": "system.users", "as": "b" } },
                "pipeline[0].$lookup.from",
            ),
            (
                doc! { "$lookup": { "from": { "db": "admin", "coll": "system.users" } } },
                "pipeline[0].$lookup.from.coll",
            ),
            (
                doc! { "$unionWith": "system.users" },
                "pipeline[0].$unionWith",
            ),
            (
                doc! { "$match": { "$where": "sleep(1)" } },
                "pipeline[0].$match.$where",
            ),
            (doc! { "$currentOp": {} }, "pipeline[0].$currentOp"),
            (doc! { "$listSessions": {} }, "pipeline[0].$listSessions"),
            (
                doc! { "$listLocalSessions": {} },
                "pipeline[0].$listLocalSessions",
            ),
            (
                doc! { "$planCacheStats": {} },
                "pipeline[0].$planCacheStats",
            ),
            (doc! { "$changeStream": {} }, "pipeline[0].$changeStream"),
            (doc! { "mapReduce": "x" }, "pipeline[0].mapReduce"),
            (doc! { "$Match": {} }, "pipeline[0].$Match"),
            (doc! { "\u{ff04}match": {} }, "pipeline[0].\u{ff04}match"),
            (doc! { "$match": {}, "$out": "x" }, "pipeline[0]"),
            (doc! {}, "pipeline[0]"),
        ] {
            assert_eq!(refusal(std::slice::from_ref(&pipeline)), path, "{pipeline}");
        }
        let error = check_pipeline("pipeline", &[doc! { "$limit": 1 }, doc! { "$out": "x" }]);
        assert_eq!(
            error.expect_err("refused").to_string(),
            "`pipeline[1].$out` may not stand in a read: it writes"
        );
    }

    #[test]
    fn programs_are_refused_twenty_deep() {
        for program in [
            "$where",
            "$function",
            "$accumulator",
            "$_internalJsEmit",
            "$out",
        ] {
            let mut filter = doc! { program: { "body": "function() {}" } };
            let mut expected = format!(".{program}");
            for level in 0..20 {
                if level % 2 == 0 {
                    filter = doc! { "$or": [{ "a": 1 }, filter] };
                    expected = format!(".$or[1]{expected}");
                } else {
                    filter = doc! { "$expr": filter };
                    expected = format!(".$expr{expected}");
                }
            }
            let error = check("filter", &filter).expect_err("refused");
            assert_eq!(error.path, format!("filter{expected}"));
            assert_eq!(
                refusal(&[doc! { "$match": filter.clone() }]),
                format!("pipeline[0].$match{expected}")
            );
            let mut stage = doc! { "$match": filter };
            let mut expected = format!(".$match{expected}");
            for _ in 0..10 {
                stage = doc! { "$unionWith": { "coll": "b", "pipeline": [stage] } };
                expected = format!(".$unionWith.pipeline[0]{expected}");
            }
            assert_eq!(refusal(&[stage]), format!("pipeline[0]{expected}"));
        }
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        let mut value = doc! {};
        for _ in 0..=DEEPEST {
            value = doc! { "a": value };
        }
        assert!(check("filter", &value).is_err());
        let mut stage = doc! { "$limit": 1 };
        for _ in 0..DEEPEST {
            stage = doc! { "$facet": { "a": [stage] } };
        }
        assert!(check_pipeline("pipeline", &[stage]).is_err());
    }

    #[test]
    fn an_update_has_stages_of_its_own() {
        assert!(check_update("update", &[doc! { "$set": { "a": 1 } }]).is_ok());
        for (stage, path) in [
            (doc! { "$match": {} }, "update[0].$match"),
            (doc! { "$out": "x" }, "update[0].$out"),
            (
                doc! { "$set": { "a": { "$function": {} } } },
                "update[0].$set.a.$function",
            ),
        ] {
            assert_eq!(
                check_update("update", &[stage]).expect_err("refused").path,
                path
            );
        }
    }
}
