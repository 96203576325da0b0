//! State transitions beside the bare disk.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use mcp_spec_registry::{
    audit::EntryDraft,
    keys::Keys,
    run::transition::{Limits, RequestInputs, claim, lapse, request},
    store::{
        Change, SpecificationRow, SpecificationStatus, Store as _, Write, sqlite::SqliteStore,
    },
};
use shared::digest::Digest;
use time::OffsetDateTime;

use super::{Figures, Samples};

const TRANSITIONS: usize = 400;

/// Claims and lapses of one run, each committed with its audit entry, beside as many bare `fdatasync`s.
pub(super) fn transitions(figures: &mut Figures) -> anyhow::Result<()> {
    let folder = folder_on_disk()?;
    let keys = Arc::new(Keys::open_or_create(&folder.path().join("keys"))?);
    let store = SqliteStore::open(folder.path(), keys)?;
    let now = OffsetDateTime::now_utc();
    let limits = Limits::default();
    let specification = SpecificationRow {
        spec_id: "bench".to_owned(),
        version: "1".to_owned(),
        digest: Digest::of("bench"),
        verbatim: "bench".to_owned(),
        search_text: "bench".to_owned(),
        title: "bench".to_owned(),
        status: SpecificationStatus::Proposed,
        added_by: "bench".to_owned(),
        reason: None,
        added_at: now,
    };
    let inputs = RequestInputs {
        run_id: "01BENCH".to_owned(),
        spec_id: specification.spec_id.clone(),
        spec_version: specification.version.clone(),
        spec_digest: specification.digest.clone(),
        environment: "bench".to_owned(),
        requester: "bench".to_owned(),
    };
    store.commit(&Change {
        writes: vec![Write::InsertSpecification(specification)],
        audit: vec![EntryDraft {
            actor: "bench".to_owned(),
            action: "specification.added".to_owned(),
            subject: "bench".to_owned(),
            payload: serde_json::json!({}),
        }],
        ..Change::default()
    })?;
    let (run, change) = request(inputs, "bench", now);
    store.commit(&change)?;

    let mut took = Duration::ZERO;
    for turn in 0..TRANSITIONS {
        let record = store
            .run(&run.run_id)?
            .ok_or_else(|| anyhow::anyhow!("the run is gone"))?;
        let change = if turn % 2 == 0 {
            claim(&record.run, "bench", &limits, now)?
        } else {
            let later = now + limits.lease * 2;
            lapse(&record, later).ok_or_else(|| anyhow::anyhow!("nothing lapsed"))?
        };
        let started = Instant::now();
        store.commit(&change)?;
        took += started.elapsed();
    }
    let bare = fdatasyncs(folder.path(), TRANSITIONS)?;
    let bare_total: Duration = bare.0.iter().sum();
    let ratio = bare_total.as_secs_f64() / took.as_secs_f64();
    let measured = format!(
        "{:.0} a second, {ratio:.2} of the disk's {:.0}",
        rate(took),
        rate(bare_total)
    );
    figures.add(
        "state transitions with fsync, SQLite",
        &measured,
        "0.5 of fdatasync",
        ratio >= 0.5,
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(total: Duration) -> f64 {
    TRANSITIONS as f64 / total.as_secs_f64()
}

/// Appends of a page, each followed by `fdatasync`.
pub(super) fn fdatasyncs(folder: &Path, count: usize) -> anyhow::Result<Samples> {
    let mut file = File::create(folder.join("bare"))?;
    let page = [0_u8; 4096];
    let mut durations = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        durations.push(started.elapsed());
    }
    Ok(Samples::new(durations))
}

/// In the target folder: the temporary folder may be memory, which has nothing to sync.
pub(super) fn folder_on_disk() -> anyhow::Result<tempfile::TempDir> {
    let base = tests::binaries::workspace().join("target");
    std::fs::create_dir_all(&base)?;
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(base)?)
}
