//! Resources: the verbatim text of a specification, and a run with everything on record.

use rmcp::{
    ErrorData,
    model::{
        ListResourcesResult, ReadResourceResponse, ReadResourceResult, Resource, ResourceContents,
        ResourceTemplate,
    },
};
use serde_json::json;

use crate::{
    registry::{Registry, RegistryError, blocking},
    run::RunRecord,
    store::RunFilter,
};

/// Newest specifications and runs that the list names; templates reach all of them.
const MOST_LISTED: u32 = 50;

/// The resources' templates.
pub(crate) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new("spec://{spec_id}", "specification")
            .with_title("Outcome specification")
            .with_description("The verbatim YAML of the active version; spec://ID@VERSION for another.")
            .with_mime_type("application/yaml"),
        ResourceTemplate::new("run://{run_id}", "run")
            .with_title("Run")
            .with_description("Everything on record about a run: plan, checkpoints, decisions, actions, measurements.")
            .with_mime_type("application/json"),
    ]
}

/// Specifications by name and the newest runs.
pub(crate) async fn list(registry: &Registry) -> Result<ListResourcesResult, ErrorData> {
    let registry = registry.clone();
    let resources = blocking(move || {
        let found = registry
            .spec_search("", MOST_LISTED, 0)?
            .results
            .into_iter()
            .map(|found| {
                Resource::new(format!("spec://{}", found.row.spec_id), found.row.spec_id)
                    .with_title(found.row.title)
                    .with_mime_type("application/yaml")
            });
        let filter = RunFilter {
            limit: MOST_LISTED,
            ..RunFilter::default()
        };
        let runs = registry.runs(&filter)?.into_iter().map(|run| {
            Resource::new(format!("run://{}", run.run_id), run.run_id)
                .with_title(format!(
                    "{} {}, {}",
                    run.spec_id, run.spec_version, run.state
                ))
                .with_mime_type("application/json")
        });
        Ok(found.chain(runs).collect())
    })
    .await
    .map_err(|error| internal(&error))?;
    Ok(ListResourcesResult::with_all_items(resources))
}

/// One resource.
pub(crate) async fn read(
    registry: &Registry,
    uri: &str,
) -> Result<ReadResourceResponse, ErrorData> {
    let (registry, owned) = (registry.clone(), uri.to_owned());
    let read = blocking(move || {
        if let Some(name) = owned.strip_prefix("spec://") {
            let (spec_id, version) = match name.split_once('@') {
                Some((spec_id, version)) => (spec_id, Some(version)),
                None => (name, None),
            };
            let stored = registry.spec_get(spec_id, version)?;
            return Ok(Some(("application/yaml", stored.row.verbatim)));
        }
        if let Some(run_id) = owned.strip_prefix("run://") {
            let record = registry.record(run_id)?;
            let plan = match &record.run.plan_digest {
                Some(digest) => Some(registry.plan(digest)?),
                None => None,
            };
            return Ok(Some((
                "application/json",
                record_json(&record, plan.as_deref()),
            )));
        }
        Ok(None)
    })
    .await;
    match read {
        Ok(Some((mime_type, text))) => {
            let contents = ResourceContents::text(text, uri).with_mime_type(mime_type);
            Ok(ReadResourceResult::new(vec![contents]).into())
        }
        Ok(None) => Err(ErrorData::resource_not_found(
            "resources are spec://ID and run://ID",
            None,
        )),
        Err(error) if error.code.ends_with("_NOT_FOUND") => {
            Err(ErrorData::resource_not_found(error.message, None))
        }
        Err(error) => Err(internal(&error)),
    }
}

/// A run's record without what only the approval plane shows: nonces, signatures, hashes of handles.
fn record_json(record: &RunRecord, plan: Option<&crate::plan::Plan>) -> String {
    let checkpoints: Vec<_> = record
        .checkpoints
        .iter()
        .map(|checkpoint| {
            json!({
                "checkpoint_id": checkpoint.checkpoint_id, "kind": checkpoint.kind,
                "revision": checkpoint.revision, "state": checkpoint.state, "note": checkpoint.note,
                "subject_digest": checkpoint.subject_digest,
            })
        })
        .collect();
    let decisions: Vec<_> = record
        .decisions
        .iter()
        .map(|decision| {
            json!({
                "checkpoint_id": decision.checkpoint_id, "verdict": decision.verdict,
                "reason": decision.reason, "approver": decision.approver,
                "assurance": decision.assurance,
            })
        })
        .collect();
    let whole = json!({
        "run": record.run, "plan": plan, "checkpoints": checkpoints, "decisions": decisions,
        "actions": record.actions, "evaluations": record.evaluations, "rationales": record.rationales,
    });
    serde_json::to_string_pretty(&whole).unwrap_or_default()
}

fn internal(error: &RegistryError) -> ErrorData {
    ErrorData::internal_error(error.message.clone(), None)
}
