//! The record after somebody had his hands on it, as an operator finds it out on the command line.

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tests::run::{Enforced, exec_step};

#[tokio::test]
async fn an_edit_is_named_and_an_older_record_is_found_out_by_a_receipt() -> anyhow::Result<()> {
    let run = Enforced::start().await?;
    let waiting = run
        .submitted(json!([exec_step("s1", "true")]), json!([]))
        .await?;
    let database = run.place.state().join("registry.sqlite");
    let older = run.place.path().join("older.sqlite");
    rusqlite::Connection::open(&database)?
        .execute("VACUUM INTO ?1", [older.display().to_string()])?;
    let receipt = run
        .place
        .decide("approve", &waiting.checkpoint, &[])
        .await?;
    let kept = run.place.path().join("receipt.json");
    fs::write(&kept, receipt.to_string())?;
    let Enforced {
        place,
        daemon,
        registry,
        shell,
        shell_process,
    } = run;
    drop((registry, shell));
    shell_process.terminate().await?;
    daemon.terminate().await?;

    let kept = kept.display().to_string();
    let against = ["audit", "verify", "--against", &kept];
    let verified = place.human(&["audit", "verify"], None).await?;
    ensure!(verified.contains("entries"), "{verified}");
    place.human(&against, None).await?;

    // A backup from before the decision is whole in itself; only what was kept elsewhere tells.
    let newest = fs::read(&database)?;
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{beside}", database.display()));
    }
    fs::copy(&older, &database)?;
    place.human(&["audit", "verify"], None).await?;
    let found = place.human(&against, None).await.err();
    let found = found.context("an older record passes")?.to_string();
    let seq = receipt["audit_head"]["seq"].as_i64().context("no head")?;
    ensure!(
        found.contains(&format!("entry {seq}")),
        "{found} does not name entry {seq}"
    );

    // One word of one entry.
    fs::write(&database, newest)?;
    let connection = rusqlite::Connection::open(&database)?;
    connection.execute_batch("DROP TRIGGER audit_keeps;")?;
    let edited = connection.execute(
        "UPDATE audit SET actor = 'human:somebody' WHERE seq = ?1",
        [seq],
    )?;
    assert_eq!(edited, 1);
    drop(connection);
    let found = place.human(&["audit", "verify"], None).await.err();
    let found = found.context("an edited entry passes")?.to_string();
    ensure!(
        found.contains(&format!("entry {seq}")),
        "{found} does not name entry {seq}"
    );
    Ok(())
}
