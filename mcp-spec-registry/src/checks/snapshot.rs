//! What was there when it was measured: the identity of each process, the digest of each file.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::{
    digest::Digest,
    effect::protocol::{UNKNOWN_SESSION, WorkOrder, WorkResult},
};

use super::{Subject, WorkChannel};

/// Identities and digests at one moment; two that differ tell that evidence is stale.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// By step: the identity of the session's init; absent when it has ended.
    pub sessions: BTreeMap<String, Option<String>>,
    /// By service and path, `SERVICE:PATH`: the digest; absent when there is no such file.
    pub files: BTreeMap<String, Option<Digest>>,
    /// What could not be looked at, with the reason.
    pub unseen: BTreeMap<String, String>,
}

/// Looks at every session and file that the steps of a run left behind.
pub async fn snapshot(subjects: &BTreeMap<String, Subject>, work: &impl WorkChannel) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (
        step,
        Subject {
            service, session, ..
        },
    ) in subjects
    {
        let Some(session) = session.clone() else {
            continue;
        };
        match work
            .ask(service, WorkOrder::MeasureSession { session })
            .await
        {
            Ok(WorkResult::Session(found)) => {
                let identity = found.alive.then_some(found.identity);
                snapshot.sessions.insert(step.clone(), identity);
            }
            // Its server was started anew since; an ended session is still ended.
            Ok(WorkResult::Failed { code, .. }) if code == UNKNOWN_SESSION => {
                snapshot.sessions.insert(step.clone(), None);
            }
            other => snapshot.do_not_see(format!("session of step {step}"), other),
        }
    }
    for Subject {
        service, artefacts, ..
    } in subjects.values()
    {
        for file in artefacts {
            let name = format!("{service}:{}", file.path);
            if snapshot.files.contains_key(&name) || snapshot.unseen.contains_key(&name) {
                continue;
            }
            match work
                .ask(
                    service,
                    WorkOrder::HashFile {
                        path: file.path.clone(),
                    },
                )
                .await
            {
                Ok(WorkResult::File { sha256 }) => {
                    snapshot.files.insert(name, sha256);
                }
                other => snapshot.do_not_see(name, other),
            }
        }
    }
    snapshot
}

impl Snapshot {
    fn do_not_see(&mut self, what: String, answer: Result<WorkResult, String>) {
        self.unseen.insert(what, super::engine::why_not(answer));
    }
}
