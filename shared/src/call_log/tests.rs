//! What a log must show, and what it must not take for tampering.

use super::*;
use std::{fs, os::unix::fs::PermissionsExt};

fn record(tool: &str) -> Record {
    Record {
        principal: "uid:1000".to_owned(),
        tool: tool.to_owned(),
        arguments_sha256: "ab".repeat(32),
        run: Some("01J0".to_owned()),
        action: None,
        outcome: Outcome::Ok,
        code: None,
        ms: 3,
        details: None,
    }
}

/// A log of ten lines, its path and head.
async fn ten_lines(folder: &Path) -> anyhow::Result<(PathBuf, Head)> {
    let path = folder.join("calls.jsonl");
    let log = CallLog::open(&path, true)?;
    for n in 0..10 {
        if n % 3 == 0 {
            log.add_durably(&record(&format!("t{n}"))).await?;
        } else {
            log.add(&record(&format!("t{n}"))).await?;
        }
    }
    let head = log.head();
    Ok((path, head))
}

fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    Ok(fs::read_to_string(path)?
        .lines()
        .map(str::to_owned)
        .collect())
}

fn write_lines(path: &Path, lines: &[String]) -> anyhow::Result<()> {
    fs::write(path, lines.join("\n") + "\n")?;
    Ok(())
}

fn bad_line(path: &Path, against: Option<&Head>) -> anyhow::Result<(u64, String)> {
    match verify(path, against) {
        Err(VerifyError::Bad { bad, .. }) => Ok((bad.line, bad.reason)),
        other => anyhow::bail!("found nothing wrong: {other:?}"),
    }
}

#[tokio::test]
async fn an_untouched_log_verifies_and_keeps_its_chain_over_restarts() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (path, head) = ten_lines(folder.path()).await?;
    let summary = verify(&path, Some(&head))?;
    assert_eq!(
        (summary.entries, summary.recovered, &summary.head),
        (10, 0, &head)
    );
    assert_eq!(path.metadata()?.permissions().mode() & 0o7777, 0o600);

    let log = CallLog::open(&path, true)?;
    log.add_durably(&record("after the restart")).await?;
    assert_eq!(verify(&path, Some(&head))?.entries, 11);
    assert_eq!(verify(&path, Some(&log.head()))?.head, log.head());
    Ok(())
}

#[tokio::test]
async fn what_a_tool_says_of_a_call_is_chained_like_the_rest_and_has_an_end() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("calls.jsonl");
    let log = CallLog::open(&path, true)?;
    let with = |details: serde_json::Value, outcome| Record {
        details: details.as_object().cloned(),
        outcome,
        ..record("exec")
    };
    let said = serde_json::json!({ "exec": "x1", "argv": ["a", "\u{1}"], "bytes": 9_007_199_254_740_991_u64 });
    log.add_written(&with(said.clone(), Outcome::Started))
        .await?;
    assert_eq!(lines(&path)?.len(), 1, "it is written at once");
    let too_long = serde_json::json!({ "text": "\u{1}".repeat(10_000) });
    log.note(&with(too_long, Outcome::Ended))?;
    log.add_durably(&record("exec")).await?;
    assert_eq!(verify(&path, Some(&log.head()))?.entries, 3);
    let whole = lines(&path)?;
    let entries = whole
        .iter()
        .map(|line| Ok(serde_json::from_str::<Entry>(line)?.details))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let cut = serde_json::json!({ "too_long": { "text": 60_002 } });
    assert_eq!(
        entries,
        [said.as_object().cloned(), cut.as_object().cloned(), None]
    );
    drop(log);
    drop(CallLog::open(&path, true)?);

    let mut edited = whole.clone();
    edited[0] = edited[0].replace("\"x1\"", "\"x2\"");
    write_lines(&path, &edited)?;
    assert_eq!(bad_line(&path, None)?.0, 1);
    Ok(())
}

#[tokio::test]
async fn a_changing_call_is_on_the_disk_before_its_answer() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("calls.jsonl");
    let log = CallLog::open(&path, true)?;
    log.add(&record("read")).await?;
    assert_eq!(lines(&path)?.len(), 0, "a read waits in memory");
    log.add_durably(&record("write")).await?;
    assert_eq!(
        lines(&path)?.len(),
        2,
        "and goes with the next changing call, in order"
    );
    Ok(())
}

#[tokio::test]
async fn every_single_edit_deletion_and_swap_is_named_by_its_line() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (path, _) = ten_lines(folder.path()).await?;
    let whole = lines(&path)?;
    for at in 0..whole.len() {
        let number = u64::try_from(at)? + 1;
        let mut edited = whole.clone();
        edited[at] = edited[at].replace("uid:1000", "uid:1001");
        write_lines(&path, &edited)?;
        assert_eq!(bad_line(&path, None)?.0, number, "edited");

        for other in ["\"tool\": ", "\"tool\":\"other\",\"tool\":"] {
            let mut said_otherwise = whole.clone();
            said_otherwise[at] = whole[at].replace("\"tool\":", other);
            write_lines(&path, &said_otherwise)?;
            assert_eq!(bad_line(&path, None)?.0, number, "said in another way");
        }

        let mut deleted = whole.clone();
        deleted.remove(at);
        write_lines(&path, &deleted)?;
        if at + 1 < whole.len() {
            assert_eq!(bad_line(&path, None)?.0, number, "deleted");
        }

        let mut swapped = whole.clone();
        if at + 1 < whole.len() {
            swapped.swap(at, at + 1);
            write_lines(&path, &swapped)?;
            assert_eq!(bad_line(&path, None)?.0, number, "moved");
        }

        let mut doubled = whole.clone();
        doubled.insert(at, whole[at].clone());
        write_lines(&path, &doubled)?;
        assert_eq!(bad_line(&path, None)?.0, number + 1, "doubled");
    }
    write_lines(&path, &whole)?;
    verify(&path, None)?;
    Ok(())
}

#[tokio::test]
async fn an_edited_line_with_a_fresh_hash_breaks_the_line_after_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (path, head) = ten_lines(folder.path()).await?;
    let mut edited = lines(&path)?;
    let mut entry: Entry = serde_json::from_str(&edited[4])?;
    entry.principal = "somebody else".to_owned();
    edited[4] = String::from_utf8(entry.written())?;
    write_lines(&path, &edited)?;
    assert_eq!(bad_line(&path, None)?.0, 6);

    // The last line has none after it; a head kept elsewhere finds that.
    let mut last = lines(&path)?[..4].to_vec();
    last.push(edited[4].clone());
    write_lines(&path, &last)?;
    verify(&path, None)?;
    let kept = Head {
        seq: 5,
        hash: head.hash.clone(),
    };
    assert_eq!(bad_line(&path, Some(&kept))?.0, 5);
    Ok(())
}

#[tokio::test]
async fn a_cut_tail_is_found_against_a_head_that_was_kept() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (path, head) = ten_lines(folder.path()).await?;
    let whole = lines(&path)?;
    write_lines(&path, &whole[..7])?;
    assert_eq!(verify(&path, None)?.entries, 7, "a chain alone cannot know");
    let (line, reason) = bad_line(&path, Some(&head))?;
    assert_eq!(line, 8);
    assert!(reason.contains("cut off"), "{reason}");

    let kept = folder.path().join("head");
    fs::write(&kept, format!("{head}\n"))?;
    assert_eq!(Head::from_argument(&kept.display().to_string())?, head);
    assert_eq!(Head::from_argument(&head.to_string())?, head);
    assert!(Head::from_argument("nothing").is_err());
    Ok(())
}

#[tokio::test]
async fn a_line_torn_by_a_crash_is_completed_and_is_no_tampering() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (path, head) = ten_lines(folder.path()).await?;
    let whole = fs::read(&path)?;
    let last_line_at = whole[..whole.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    for cut in [last_line_at + 1, last_line_at + 40, whole.len() - 2] {
        fs::write(&path, &whole[..cut])?;
        let before = verify(&path, None)?;
        assert_eq!(
            (before.entries, before.torn_tail_bytes),
            (9, cut - last_line_at)
        );

        let log = CallLog::open(&path, true)?;
        log.add_durably(&record("after the crash")).await?;
        let after = verify(&path, Some(&log.head()))?;
        assert_eq!(
            (after.entries, after.recovered, after.torn_tail_bytes),
            (11, 1, 0)
        );
        assert!(
            verify(&path, Some(&head)).is_err(),
            "the head of the lost line is not in it"
        );

        let forged = String::from_utf8(fs::read(&path)?)?.replacen("uid:1000", "uid:1001", 1);
        fs::write(&path, forged)?;
        assert!(verify(&path, None).is_err());
    }
    // A line of which only the newline is missing is whole.
    fs::write(&path, &whole[..whole.len() - 1])?;
    drop(CallLog::open(&path, true)?);
    assert_eq!(fs::read(&path)?, whole);

    fs::write(&path, &whole[..last_line_at / 20])?;
    drop(CallLog::open(&path, true)?);
    assert_eq!(
        verify(&path, None)?.recovered,
        1,
        "even the very first line"
    );
    Ok(())
}

#[tokio::test]
async fn zeros_that_a_file_system_leaves_are_a_torn_line_too() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (path, _) = ten_lines(folder.path()).await?;
    let mut bytes = fs::read(&path)?;
    bytes.extend([0; 5000]);
    fs::write(&path, &bytes)?;
    assert_eq!(verify(&path, None)?.torn_tail_bytes, 5000);
    let log = CallLog::open(&path, true)?;
    log.add_durably(&record("after")).await?;
    assert_eq!(verify(&path, None)?.recovered, 1);
    Ok(())
}

#[tokio::test]
async fn a_server_does_not_make_an_edited_last_line_good() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (path, _) = ten_lines(folder.path()).await?;
    let mut edited = lines(&path)?;
    edited[9] = edited[9].replace("uid:1000", "uid:1001");
    write_lines(&path, &edited)?;
    assert!(matches!(
        CallLog::open(&path, true),
        Err(CallLogError::NoLog(_))
    ));
    assert_eq!(bad_line(&path, None)?.0, 10);
    Ok(())
}

#[tokio::test]
async fn two_servers_with_one_state_directory_write_two_logs() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let first = CallLog::open_in(folder.path(), false)?;
    let second = CallLog::open_in(folder.path(), false)?;
    first.add_durably(&record("a")).await?;
    second.add_durably(&record("b")).await?;
    assert_eq!(files(folder.path())?, [first.path(), second.path()]);
    for path in files(folder.path())? {
        assert_eq!(verify(&path, None)?.entries, 1);
    }
    Ok(())
}

#[tokio::test]
async fn many_calls_at_once_are_all_in_the_log_in_one_chain() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("calls.jsonl");
    let log = CallLog::open(&path, true)?;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..200 {
        let log = log.clone();
        calls.spawn(async move {
            if n % 2 == 0 {
                log.add_durably(&record("w")).await
            } else {
                log.add(&record("r")).await
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    log.close()?;
    assert_eq!(verify(&path, Some(&log.head()))?.entries, 200);
    Ok(())
}
