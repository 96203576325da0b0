//! Bytes of a stream as text: lossy only here, and never in the middle of a character that the stream has whole.

use std::io;

use super::spool::{Piece, Spool};

/// A stream as a result shows it: all of it, or its beginning and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The text, with a line that says how much is left out between beginning and end.
    pub text: String,
    /// Bytes the command wrote.
    pub bytes: u64,
    /// Bytes of them that the text leaves out.
    pub omitted: u64,
    /// Position of the first byte left out; the end if none is.
    pub cursor: u64,
}

/// All of a stream, or at most about `budget` bytes of its beginning and end. `ended` means that no more will come.
///
/// # Errors
/// A spool that cannot be read.
pub(super) fn excerpt(spool: &Spool, budget: usize, ended: bool) -> io::Result<Excerpt> {
    let budget = budget.max(16);
    let everything = |text: String, cursor: u64| Excerpt {
        text,
        bytes: spool.written(),
        omitted: spool.written() - cursor,
        cursor,
    };
    if spool.written() <= budget as u64 && spool.lost() == 0 {
        let mut piece = spool.read(0, budget)?;
        cut_to_characters(&mut piece, ended);
        return Ok(everything(
            String::from_utf8_lossy(&piece.bytes).into_owned(),
            piece.end(),
        ));
    }
    let mut beginning = spool.read(0, budget / 2)?;
    cut_to_characters(&mut beginning, false);
    let mut end = spool.tail(budget / 2)?;
    // Of a stream that the disk stopped taking, so little may be kept that the newest bytes reach back into the beginning.
    skip_to(&mut end, beginning.end());
    skip_to_character(&mut end);
    let omitted = spool.written() - (beginning.bytes.len() + end.bytes.len()) as u64;
    let text = format!(
        "{}\n[… {omitted} bytes left out; read_output from cursor {} shows them …]\n{}",
        String::from_utf8_lossy(&beginning.bytes),
        beginning.end(),
        String::from_utf8_lossy(&end.bytes)
    );
    Ok(Excerpt {
        omitted,
        ..everything(text, beginning.end())
    })
}

/// Cuts a character off that the piece holds only the beginning of, unless nothing follows that could complete it.
pub fn cut_to_characters(piece: &mut Piece, is_end_of_stream: bool) {
    if is_end_of_stream {
        return;
    }
    let bytes = &piece.bytes;
    // A character has at most four bytes, so its first is among the last three if it is incomplete.
    let first = (1..=3.min(bytes.len())).find(|back| !is_continuation(bytes[bytes.len() - back]));
    if let Some(back) = first
        && character_length(bytes[bytes.len() - back]) > back
        // A piece that is nothing but an incomplete character would never be read past.
        && bytes.len() > back
    {
        let keep = bytes.len() - back;
        piece.bytes.truncate(keep);
    }
}

/// Drops what stands before a position.
fn skip_to(piece: &mut Piece, position: u64) {
    let before = position.clamp(piece.start, piece.end()) - piece.start;
    piece
        .bytes
        .drain(..usize::try_from(before).unwrap_or(usize::MAX));
    piece.start += before;
}

/// Drops the rest of a character whose beginning stands before the piece.
fn skip_to_character(piece: &mut Piece) {
    let rest = piece
        .bytes
        .iter()
        .take(3)
        .take_while(|byte| is_continuation(**byte))
        .count();
    piece.bytes.drain(..rest);
    piece.start += rest as u64;
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

fn character_length(first: u8) -> usize {
    match first {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::spool::SpoolFolder;

    fn spool_of(content: &[u8]) -> anyhow::Result<(tempfile::TempDir, Spool)> {
        let home = tempfile::tempdir()?;
        let mut spool = Spool::new(SpoolFolder::new(home.path()), 1 << 20);
        spool.append(content)?;
        Ok((home, spool))
    }

    #[test]
    fn reading_in_small_pieces_never_splits_a_character() -> anyhow::Result<()> {
        let text = "aé€😀".repeat(50);
        let (_home, spool) = spool_of(text.as_bytes())?;
        for size in 4..40 {
            let (mut cursor, mut read) = (0, String::new());
            while cursor < spool.end() {
                let mut piece = spool.read(cursor, size)?;
                let is_end = piece.end() == spool.end();
                cut_to_characters(&mut piece, is_end);
                read.push_str(std::str::from_utf8(&piece.bytes)?);
                cursor = piece.end();
            }
            assert_eq!(read, text);
        }
        Ok(())
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_a_reader() -> anyhow::Result<()> {
        let content: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let (_home, spool) = spool_of(&content)?;
        let mut cursor = 0;
        while cursor < spool.end() {
            let mut piece = spool.read(cursor, 1)?;
            cut_to_characters(&mut piece, false);
            assert!(!piece.bytes.is_empty());
            cursor = piece.end();
        }
        Ok(())
    }

    #[test]
    fn a_short_output_is_shown_whole() -> anyhow::Result<()> {
        let (_home, spool) = spool_of("schön\n".as_bytes())?;
        let shown = excerpt(&spool, 100, true)?;
        assert_eq!(
            (
                shown.text.as_str(),
                shown.bytes,
                shown.omitted,
                shown.cursor
            ),
            ("schön\n", 7, 0, 7)
        );
        Ok(())
    }

    #[test]
    fn a_long_output_shows_beginning_and_end_and_says_what_is_between() -> anyhow::Result<()> {
        let (_home, spool) = spool_of("€".repeat(1000).as_bytes())?;
        let shown = excerpt(&spool, 100, true)?;
        assert!(!shown.text.contains('\u{fffd}'), "{}", shown.text);
        assert_eq!(shown.cursor, 48);
        assert_eq!(shown.omitted, 3000 - 48 - 48);
        assert!(
            shown
                .text
                .contains("2904 bytes left out; read_output from cursor 48"),
            "{}",
            shown.text
        );
        Ok(())
    }

    #[test]
    fn what_a_full_disk_left_is_shown_once() -> anyhow::Result<()> {
        let home = tempfile::tempdir()?;
        let mut spool = Spool::new(SpoolFolder::new(home.path()), 1 << 20);
        spool.append(&vec![b'a'; 30_000])?;
        drop(home);
        assert!(spool.append(&[b'b'; 3_000]).is_err());
        let shown = excerpt(&spool, 60_000, true)?;
        assert_eq!((shown.cursor, shown.omitted), (30_000, 3_000));
        Ok(())
    }
}
