//! Any sequence of writing and reading: what is read is what was written at that place, counts are exact, and cursors get to the end.

#![no_main]

use std::path::PathBuf;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shell::session::{Kept, Piece, SpoolFolder, cut_to_characters};

#[derive(Debug, Arbitrary)]
struct Stream {
    limit: Limit,
    /// Whether what outgrows memory can be kept.
    has_disk: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Limit {
    Tiny(u8),
    Small(u16),
    /// The least that a policy can say.
    Least,
    Large,
}

#[derive(Debug, Arbitrary)]
enum Step {
    /// These bytes.
    Append(Vec<u8>),
    /// This text so often.
    Repeat(Letter, u16),
    Read {
        cursor: u32,
        most: u16,
    },
    Tail(u32),
    Excerpt {
        budget: u32,
        ended: bool,
    },
    Follow {
        from: u32,
        most: u16,
        as_text: bool,
    },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Letter {
    One,
    Two,
    Three,
    Four,
    Broken,
    Line,
}

impl Letter {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::One => b"a",
            Self::Two => "\u{e9}".as_bytes(),
            Self::Three => "\u{20ac}".as_bytes(),
            Self::Four => "\u{1f600}".as_bytes(),
            Self::Broken => b"\x80\xf0\x9f",
            Self::Line => b"0123456789abcdefghijklmnop\n",
        }
    }
}

/// Less than this is not asked for.
const LEAST_BUDGET: u64 = 16;
/// Longer streams only repeat what shorter ones do.
const MOST_WRITTEN: usize = 300_000;

fuzz_target!(|stream: Stream| {
    let limit = match stream.limit {
        Limit::Tiny(limit) => limit.into(),
        Limit::Small(limit) => limit.into(),
        Limit::Least => 1 << 16,
        Limit::Large => 100_001,
    };
    let folder = if stream.has_disk {
        std::env::temp_dir()
    } else {
        PathBuf::from("/no/such/folder")
    };
    let mut kept = Kept::new(SpoolFolder::new(&folder), limit);
    let mut written = Vec::new();
    let mut is_whole = true;
    for step in stream.steps {
        match step {
            Step::Append(bytes) => is_whole &= append(&mut kept, &mut written, &bytes),
            Step::Repeat(letter, times) => {
                let bytes = letter.bytes().repeat(usize::from(times % 4096));
                is_whole &= append(&mut kept, &mut written, &bytes);
            }
            Step::Read { cursor, most } => {
                let piece = kept.read(u64::from(cursor), most.into()).expect("a piece");
                is_of(&piece, &written, most.into());
                let [_, _, end] = kept.counts();
                assert!(piece.start >= u64::from(cursor).min(end));
                assert!(
                    most == 0 || u64::from(cursor) >= end || !piece.bytes.is_empty(),
                    "no progress at {cursor}"
                );
            }
            Step::Tail(most) => {
                let piece = kept.tail(most as usize).expect("the newest bytes");
                is_of(&piece, &written, most as usize);
                let [_, _, end] = kept.counts();
                assert_eq!(piece.end(), end, "not the newest");
                assert!(most == 0 || end == 0 || !piece.bytes.is_empty());
            }
            Step::Excerpt { budget, ended } => {
                // A call asks for at most as much as every policy lets the server keep.
                let budget = u64::from(budget) % (limit + 1);
                if budget >= LEAST_BUDGET {
                    excerpt_is_exact(&kept, &written, budget as usize, ended);
                }
            }
            Step::Follow {
                from,
                most,
                as_text,
            } => follow(&kept, &written, from.into(), 1 + usize::from(most), as_text),
        }
        let [total, lost, end] = kept.counts();
        assert_eq!(total, written.len() as u64);
        assert!(end <= total && lost <= total);
        assert_eq!(end == total, is_whole, "{end} of {total} bytes");
        if is_whole {
            assert_eq!(total - lost, total.min(limit.max(1)));
        }
    }
});

/// Whether the bytes are kept, as far as the limit lets them.
fn append(kept: &mut Kept, written: &mut Vec<u8>, bytes: &[u8]) -> bool {
    if written.len() + bytes.len() > MOST_WRITTEN {
        return true;
    }
    let [_, _, end_before] = kept.counts();
    let was_whole = end_before == written.len() as u64;
    written.extend_from_slice(bytes);
    let taken = kept.append(bytes).is_ok();
    taken && was_whole || bytes.is_empty()
}

fn is_of(piece: &Piece, written: &[u8], most: usize) {
    assert!(piece.bytes.len() <= most);
    let place = piece.start as usize..piece.end() as usize;
    assert!(
        written.get(place) == Some(&piece.bytes[..]),
        "other bytes than were written at {}",
        piece.start
    );
}

fn follow(kept: &Kept, written: &[u8], from: u64, most: usize, as_text: bool) {
    let [total, lost, end] = kept.counts();
    let (mut cursor, mut skipped) = (from.min(end), 0);
    // Many small steps say no more than a few.
    let most = most.max(written.len() / 100);
    while cursor < end {
        let mut piece = kept.read(cursor, most).expect("a piece");
        is_of(&piece, written, most);
        if as_text {
            let is_end = piece.end() == end;
            cut_to_characters(&mut piece, is_end);
        }
        assert!(piece.end() > cursor, "no progress at {cursor}");
        skipped += piece.start - cursor;
        cursor = piece.end();
    }
    assert_eq!(cursor, end);
    assert!(skipped <= lost);
    if from == 0 {
        assert_eq!(skipped + (total - end), lost, "another number is lost");
    }
}

fn excerpt_is_exact(kept: &Kept, written: &[u8], budget: usize, ended: bool) {
    let excerpt = kept.excerpt(budget, ended).expect("an excerpt");
    let [total, _, end] = kept.counts();
    assert_eq!(excerpt.bytes, total);
    assert!(excerpt.cursor <= end && excerpt.omitted <= total);
    let beginning = String::from_utf8_lossy(&written[..excerpt.cursor as usize]);
    assert!(
        excerpt.text.starts_with(&*beginning),
        "the text is not the beginning up to {}",
        excerpt.cursor
    );
    if excerpt.text.len() == beginning.len() {
        assert_eq!(excerpt.omitted, total - excerpt.cursor);
        return;
    }
    let shown_behind = total - excerpt.omitted - excerpt.cursor;
    let from = (end - shown_behind) as usize;
    assert!(
        from as u64 >= excerpt.cursor,
        "beginning and end overlap: {} bytes, then again from {from}",
        excerpt.cursor
    );
    let behind = String::from_utf8_lossy(&written[from..end as usize]);
    assert!(excerpt.text.ends_with(&*behind), "not the newest bytes");
    assert!(
        excerpt
            .text
            .contains(&format!("{} bytes left out", excerpt.omitted))
    );
}
