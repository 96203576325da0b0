//! A command that writes without end: every byte is counted, both ends are kept to the byte, memory stays what it was.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client::{Place, Server};
use crate::machine::kilobytes;
use crate::scale::{Scale, alone};

/// What the server's memory may grow by.
const GROWTH_KB: u64 = 64 << 10;
/// Most bytes of one reading.
const READING: u64 = 131_072;

/// What `seq 100000000 999999999` writes from a position on: lines of ten bytes.
fn written_from(position: u64, length: usize) -> Vec<u8> {
    let mut line = format!("{}\n", 100_000_000 + position / 10).into_bytes();
    let skipped = usize::try_from(position % 10).unwrap_or(0);
    let mut bytes = Vec::with_capacity(length + 20);
    while bytes.len() < skipped + length {
        bytes.extend_from_slice(&line);
        for digit in line.iter_mut().rev().skip(1) {
            if *digit < b'9' {
                *digit += 1;
                break;
            }
            *digit = b'0';
        }
    }
    bytes.drain(..skipped);
    bytes.truncate(length);
    bytes
}

/// Everything that is kept, read by the cursor: bytes that were right, and bytes that are lost.
fn read_all(server: &mut Server, id: &Value, written: u64) -> anyhow::Result<(u64, u64)> {
    let (mut cursor, mut right, mut lost) = (0, 0, 0);
    while cursor < written {
        let piece = server.ok(
            "read_output",
            &json!({"id": id, "cursor": cursor, "max_bytes": READING, "encoding": "base64"}),
        )?;
        let bytes = STANDARD.decode(piece["text"].as_str().context("no text")?)?;
        let start = piece["start"].as_u64().context("no start")?;
        lost += piece["lost"].as_u64().context("no `lost`")?;
        anyhow::ensure!(
            !bytes.is_empty() && start >= cursor,
            "no progress at {cursor}"
        );
        anyhow::ensure!(
            bytes == written_from(start, bytes.len()),
            "wrong bytes in the piece from {start} on"
        );
        right += bytes.len() as u64;
        cursor = start + bytes.len() as u64;
        anyhow::ensure!(
            piece["cursor"] == json!(cursor) && piece["end"] == json!(cursor == written),
            "the piece from {start} ends at {cursor}: {}, {}",
            piece["cursor"],
            piece["end"]
        );
    }
    Ok((right, lost))
}

#[test]
fn much_output_is_counted_to_the_byte_and_kept_at_both_ends() -> anyhow::Result<()> {
    let (scale, _turn) = (Scale::asked_for()?, alone());
    let place = Place::new()?;
    let policy = place.policy(&format!("[limits]\noutput = {}\n", scale.kept))?;
    let mut server = place.start_with(&["--policy", &policy])?;
    server.ok("exec", &json!({"argv": ["true"]}))?;
    let before = kilobytes(server.id(), "VmRSS")?;
    // Over what is kept, by a number that no buffer is a multiple of.
    let written = scale.bytes + 12_347;
    let command = format!("seq 100000000 999999999 | head -c {written}");
    for session in [Value::Null, json!("kept")] {
        let done = server.ok(
            "exec",
            &json!({"command": command, "session": session, "timeout_ms": 600_000}),
        )?;
        assert_eq!(
            (
                &done["exit_code"],
                &done["stdout"]["bytes"],
                &done["output_open"]
            ),
            (&json!(0), &json!(written), &json!(false)),
            "{}",
            done["stderr"]
        );
        let (right, lost) = read_all(&mut server, &done["id"], written)?;
        assert_eq!((right, lost), (scale.kept, written - scale.kept));
        let peak = kilobytes(server.id(), "VmHWM")?;
        eprintln!(
            "{written} bytes in {} ms, {right} kept and right, {lost} told as lost; memory {before} kB before, {peak} kB at most",
            done["wall_ms"]
        );
        assert!(
            peak < before + GROWTH_KB,
            "{before} kB before, {peak} kB at most"
        );
    }
    Ok(())
}

#[test]
fn much_output_without_a_line_feed_is_as_cheap() -> anyhow::Result<()> {
    let (scale, _turn) = (Scale::asked_for()?, alone());
    let place = Place::new()?;
    let mut server = place.start()?;
    server.ok("exec", &json!({"argv": ["true"]}))?;
    let before = kilobytes(server.id(), "VmRSS")?;
    let written = scale.bytes;
    let done = server.ok(
        "exec",
        &json!({"command": format!("head -c {written} /dev/zero"), "timeout_ms": 600_000}),
    )?;
    assert_eq!(done["stdout"]["bytes"], json!(written));
    let searched = server.ok("read_output", &json!({"id": done["id"], "grep": "x"}))?;
    assert_eq!(searched["bytes"], json!(written));
    let peak = kilobytes(server.id(), "VmHWM")?;
    eprintln!("{written} bytes in one line: memory {before} kB before, {peak} kB at most");
    assert!(
        peak < before + GROWTH_KB,
        "{before} kB before, {peak} kB at most"
    );
    Ok(())
}
