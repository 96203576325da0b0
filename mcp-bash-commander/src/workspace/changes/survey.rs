//! What of the workspace goes with a deletion, or with a directory that something else replaces.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::scan::{Place, Scan};
use super::tree::{self, MAX_DEPTH, Seen};
use super::{Change, Kind, MAX_ENTRIES, Reason};

/// What goes with a directory of the workspace.
#[derive(Default)]
struct Survey {
    entries: u64,
    blocked: Option<Reason>,
}

impl Scan<'_> {
    /// Counts what of the workspace goes with a change, and whether it is still what the command saw.
    pub(super) fn take_along(
        &mut self,
        change: &mut Change,
        place: &Place<'_>,
        path: &Path,
        name: &Path,
        lower: &Seen,
    ) {
        let mut survey = Survey::default();
        match place.lower {
            Some(above) if lower.is_directory() => {
                self.survey(&mut survey, above, path, name, lower, 0);
            }
            _ => survey.entries = 1,
        }
        let gone = change.kind == Kind::Deleted || lower.is_directory();
        change.deleted_entries = if gone { survey.entries } else { 0 };
        change.blocked = change.blocked.or(survey.blocked);
    }

    fn survey(
        &mut self,
        survey: &mut Survey,
        above: BorrowedFd<'_>,
        path: &Path,
        name: &Path,
        seen: &Seen,
        depth: usize,
    ) {
        survey.entries += 1;
        self.visited += 1;
        if !self.overlay.baseline.is_unchanged(path, &seen.stat) {
            survey.blocked.get_or_insert(Reason::ChangedMeanwhile);
        }
        if !seen.is_directory() {
            return;
        }
        if depth == MAX_DEPTH {
            survey.blocked = Some(Reason::TooDeep);
            return;
        }
        let room = MAX_ENTRIES.saturating_sub(self.visited);
        let listed = tree::open_directory(above, name)
            .and_then(|inner| Ok((tree::names(inner.as_fd(), room)?, inner)));
        let Ok(((names, all), inner)) = listed else {
            survey.blocked = Some(Reason::Unreadable);
            return;
        };
        self.complete &= all;
        for name in names {
            let name = Path::new(&name);
            match tree::look(inner.as_fd(), name) {
                Ok(Some(seen)) => {
                    let path = path.join(name);
                    self.survey(survey, inner.as_fd(), &path, name, &seen, depth + 1);
                }
                Ok(None) => {}
                Err(_) => survey.blocked = Some(Reason::Unreadable),
            }
        }
    }
}
