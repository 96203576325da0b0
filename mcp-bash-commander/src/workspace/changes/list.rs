//! Telling the changes, and one digest for exactly these.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;
use shared::digest::Digest;

use super::{Change, ChangesError, Kind, Overlay, Reason, What, Workspace};

/// Files up to this size are hashed for a list.
const HASHED_UP_TO: u64 = 16 << 20;

/// The changes of an overlay, sorted by path.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// The first of them.
    pub changes: Vec<Change>,
    /// Changes found and not listed.
    pub omitted: usize,
    /// Whether everything was looked at; if not there are more than those listed and omitted, and nothing can be committed.
    pub complete: bool,
}

impl Overlay {
    /// What changed, of the paths those at and below them, at most `most` entries. A file that was only touched, or written with the
    /// bytes it had, did not change.
    ///
    /// # Errors
    /// An upper directory that bears marks it must not, or cannot be read; a path at and below which nothing changed.
    pub fn list(
        &self,
        workspace: &Workspace,
        paths: Option<&[String]>,
        most: usize,
    ) -> Result<Listing, ChangesError> {
        let scanned = self.scan(workspace, HASHED_UP_TO)?;
        let mut changes = select(scanned.changes, workspace, paths)?;
        let omitted = changes.len().saturating_sub(most);
        changes.truncate(most);
        Ok(Listing {
            changes,
            omitted,
            complete: scanned.complete,
        })
    }

    /// The digest of all changes, or of those at and below the paths: path, kind, bytes and permissions of each. The directories a
    /// path needs to be made in belong to it.
    ///
    /// # Errors
    /// As for [`Overlay::list`]; more changes than can be hashed; a path at and below which nothing changed.
    pub fn digest(
        &self,
        workspace: &Workspace,
        paths: Option<&[String]>,
    ) -> Result<Digest, ChangesError> {
        let changes = self.scan(workspace, u64::MAX)?.require_complete()?;
        digest_of_changes(&select(changes, workspace, paths)?)
    }
}

/// Only the changes at and below the paths, and the new directories above them.
pub(super) fn select(
    changes: Vec<Change>,
    workspace: &Workspace,
    paths: Option<&[String]>,
) -> Result<Vec<Change>, ChangesError> {
    let Some(paths) = paths else {
        return Ok(changes);
    };
    let mut wanted = HashSet::new();
    let mut above = HashSet::new();
    for path in paths {
        let relative = workspace.relative(path)?;
        let first = changes.partition_point(|change| change.exact < relative);
        if !(changes.get(first)).is_some_and(|change| change.exact.starts_with(&relative)) {
            return Err(ChangesError::Unchanged(path.clone()));
        }
        above.extend(relative.ancestors().skip(1).map(Path::to_owned));
        wanted.insert(relative);
    }
    let is_wanted = |change: &Change| {
        let is_made = change.what == What::Directory
            && matches!(change.kind, Kind::Created | Kind::TypeChanged);
        (change.exact.ancestors()).any(|path| wanted.contains(path))
            || (is_made && above.contains(&change.exact))
    };
    Ok(changes.into_iter().filter(is_wanted).collect())
}

pub(super) fn digest_of_changes(changes: &[Change]) -> Result<Digest, ChangesError> {
    #[derive(Serialize)]
    struct Line<'a> {
        path: &'a str,
        kind: Kind,
        what: What,
        sha256: Option<&'a Digest>,
        mode: Option<u32>,
        blocked: Option<Reason>,
    }
    let lines: Vec<Line<'_>> = changes
        .iter()
        .map(|change| Line {
            path: &change.path,
            kind: change.kind,
            what: change.what,
            sha256: change.sha256.as_ref(),
            mode: change.mode,
            // What the host does meanwhile is no part of what the command did.
            blocked: change
                .blocked
                .filter(|reason| *reason != Reason::ChangedMeanwhile),
        })
        .collect();
    Digest::of_json(&lines)
        .map_err(|error| super::failed("hash the list of", "changes".as_ref())(error.into()))
}
