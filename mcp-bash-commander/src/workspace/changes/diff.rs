//! The changes as a unified diff, for people and models to read.

use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use similar::TextDiff;

use super::list::select;
use super::{Change, ChangesError, Kind, Overlay, What, Workspace, tree};

/// Longest file that is compared line by line, in bytes.
const MAX_SIDE: u64 = 1 << 20;
/// How long one file may take; the diff is coarser then.
const MAX_TIME: Duration = Duration::from_millis(500);

/// A diff that may be cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// For each change a line beginning with `#`, then the lines that differ. Cut at the end of a line, with a line that says so.
    pub text: String,
    /// Changes that are not or not wholly in it.
    pub cut: usize,
}

impl Overlay {
    /// What changed at and below the paths, or everywhere if there are none, in at most about `max_bytes` bytes.
    ///
    /// # Errors
    /// As for [`Overlay::list`]; a path at and below which nothing changed.
    pub fn diff(
        &self,
        workspace: &Workspace,
        paths: &[String],
        max_bytes: usize,
    ) -> Result<Diff, ChangesError> {
        let paths = (!paths.is_empty()).then_some(paths);
        let changes = select(self.scan(workspace, 0)?.changes, workspace, paths)?;
        let mut text = String::new();
        for (number, change) in changes.iter().enumerate() {
            let before = text.len();
            self.append(&mut text, workspace, change);
            if text.len() > max_bytes {
                cut_at_line(&mut text, max_bytes.max(before));
                let cut = changes.len() - number;
                let _ = writeln!(
                    text,
                    "# cut at {max_bytes} bytes: {cut} of {} changes are not or not wholly shown",
                    changes.len()
                );
                return Ok(Diff { text, cut });
            }
        }
        Ok(Diff { text, cut: 0 })
    }

    fn append(&self, text: &mut String, workspace: &Workspace, change: &Change) {
        // A name must not look like lines of the diff.
        let path = change.path.escape_debug().to_string();
        let _ = write!(text, "# {} {} {path}", verb(change.kind), noun(change.what));
        if change.mode_changed
            && let Some(mode) = change.mode
        {
            let _ = write!(text, ", mode {mode:03o} now");
        }
        if change.deleted_entries > 1 {
            let _ = write!(text, ", {} entries deleted", change.deleted_entries);
        }
        if let Some(reason) = change.blocked {
            let _ = write!(text, ", not to be committed: {}", word(&reason));
        }
        text.push('\n');
        let is_new = change.kind != Kind::Deleted;
        let old = side(
            workspace.directory(),
            &change.exact,
            change.kind != Kind::Created,
        );
        let new = side(self.upper(), &change.exact, is_new);
        match (&old, &new) {
            (Side::Nothing, Side::Nothing) => {}
            (Side::Text(old), Side::Text(new)) => append_lines(text, &path, Some(old), Some(new)),
            (Side::Text(old), Side::Nothing) => append_lines(text, &path, Some(old), None),
            (Side::Nothing, Side::Text(new)) => append_lines(text, &path, None, Some(new)),
            _ => {
                let kind = if old.is_long() || new.is_long() {
                    "too long to be compared"
                } else {
                    "binary"
                };
                let _ = writeln!(
                    text,
                    "{kind}, {} bytes → {} bytes",
                    old.bytes(),
                    new.bytes()
                );
            }
        }
    }
}

/// One side of a change.
enum Side {
    Nothing,
    Text(String),
    Binary(u64),
    Long(u64),
}

impl Side {
    fn bytes(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Text(text) => text.len() as u64,
            Self::Binary(bytes) | Self::Long(bytes) => *bytes,
        }
    }

    fn is_long(&self) -> bool {
        matches!(self, Self::Long(_))
    }
}

/// The file's bytes, or a link's target; nothing for everything else and for what cannot be read.
fn side(root: BorrowedFd<'_>, path: &Path, exists: bool) -> Side {
    if !exists {
        return Side::Nothing;
    }
    let Some((above, name)) = tree::split(path) else {
        return Side::Nothing;
    };
    let Ok(folder) = tree::pin_directory(root, above) else {
        return Side::Nothing;
    };
    if let Ok(Some(seen)) = tree::look(folder.as_fd(), &name)
        && seen.file_type() == rustix::fs::FileType::Symlink
    {
        let target = seen.target().unwrap_or_default();
        return Side::Text(format!("{}\n", target.to_string_lossy().escape_debug()));
    }
    let Ok(Some((file, stat))) = tree::open_file(folder.as_fd(), &name) else {
        return Side::Nothing;
    };
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > MAX_SIDE {
        return Side::Long(size);
    }
    let mut bytes = Vec::new();
    if file.take(MAX_SIDE).read_to_end(&mut bytes).is_err() {
        return Side::Nothing;
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Side::Text(text),
        _ => Side::Binary(size),
    }
}

fn append_lines(text: &mut String, path: &str, old: Option<&str>, new: Option<&str>) {
    let name = |side: &str, there: bool| {
        if there {
            format!("{side}/{path}")
        } else {
            "/dev/null".to_owned()
        }
    };
    let diff = TextDiff::configure()
        .timeout(MAX_TIME)
        .diff_lines(old.unwrap_or_default(), new.unwrap_or_default());
    let mut unified = diff.unified_diff();
    unified.header(&name("a", old.is_some()), &name("b", new.is_some()));
    let _ = write!(text, "{unified}");
}

fn cut_at_line(text: &mut String, most: usize) {
    let bytes = text.as_bytes();
    let end = bytes[..most.min(bytes.len())]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |last| last + 1);
    text.truncate(end);
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Modified => "modified",
        Kind::Deleted => "deleted",
        Kind::TypeChanged => "replaced by",
        Kind::Created | Kind::Special => "created",
    }
}

fn noun(what: What) -> &'static str {
    match what {
        What::File => "file",
        What::Directory => "directory",
        What::Link => "link",
        What::Special => "special file",
    }
}

/// The word for it in results.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
