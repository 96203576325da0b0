//! Carrying changes over into the workspace: only what was looked at, only where nothing else changed, never what is protected.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Stat, Uid};
use rustix::io::Errno;
use serde::Serialize;
use shared::digest::Digest;

use super::links::leads_outside;
use super::list::{digest_of_changes, select};
use super::stage::{Halt, Owner, Staged};
use super::tree;
use super::{
    Change, ChangesError, Kind, Overlay, Protected, Reason, Stamp, What, Workspace, WorkspaceError,
    io_failed,
};
use crate::policy::Access;

/// What is to be carried over.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// Only what is at or below these paths, and the new directories above them; without it everything.
    pub paths: Option<&'a [String]>,
    /// What stays as it is.
    pub protected: &'a Protected,
    /// The digest of exactly these changes, as [`Overlay::digest`] gave it for the same paths.
    pub expect: Option<&'a Digest>,
    /// Whether entries of the workspace that changed since the overlay was made may be overwritten and deleted.
    pub force: bool,
}

/// A change that was carried over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Path below the workspace.
    pub path: String,
    /// What happened.
    pub kind: Kind,
    /// To what.
    pub what: What,
    /// Digest of the bytes written, or of the link's target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// A change that was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Path below the workspace.
    pub path: String,
    /// Why.
    pub reason: Reason,
    /// What the system or the caller said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Committed {
    /// Carried over, in this order.
    pub applied: Vec<Applied>,
    /// Left in the overlay.
    pub skipped: Vec<Skipped>,
}

impl Overlay {
    /// Carries changes over: directories first, parents before children, then files, links, and deletions last. `before` is asked
    /// about each change just before it is made, and may refuse it with a reason.
    ///
    /// The overlay keeps its entries. Where they equal the workspace they are no change any more; still [`Overlay::discard`] them,
    /// for they hide what happens in the workspace later.
    ///
    /// # Errors
    /// A read-only workspace, other changes than expected, and as for [`Overlay::digest`]; nothing was changed then.
    pub fn commit(
        &mut self,
        workspace: &Workspace,
        commit: &Commit<'_>,
        before: impl FnMut(&Change) -> Result<(), String>,
    ) -> Result<Committed, ChangesError> {
        if workspace.access() == Access::ReadOnly {
            return Err(WorkspaceError::ReadOnly.into());
        }
        let changes = self.scan(workspace, u64::MAX)?.require_complete()?;
        let changes = select(changes, workspace, commit.paths)?;
        if let Some(expected) = commit.expect {
            let found = digest_of_changes(&changes)?;
            if found != *expected {
                return Err(ChangesError::Digest {
                    expected: expected.clone(),
                    found,
                });
            }
        }
        let root = rustix::fs::fstat(workspace.directory())
            .map_err(io_failed("look at", workspace.root()))?;
        let is_root = rustix::process::geteuid().is_root();
        let owner = is_root.then(|| (Uid::from_raw(root.st_uid), Gid::from_raw(root.st_gid)));
        let mut carrier = Carrier {
            overlay: self,
            workspace,
            protected: commit.protected.resolved(workspace),
            force: commit.force,
            owner,
            before,
            modes: Vec::new(),
            done: Committed {
                applied: Vec::new(),
                skipped: Vec::new(),
            },
        };
        for step in [Step::Directories, Step::Files, Step::Links, Step::Deletions] {
            for change in changes.iter().filter(|change| Step::of(change) == step) {
                carrier.change(change);
            }
        }
        carrier.set_modes();
        let done = carrier.done;
        // Without it later changes of the same files are only taken for conflicts.
        let _ = self.baseline.save(self.directory.as_fd());
        Ok(done)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Directories,
    Files,
    Links,
    Deletions,
}

impl Step {
    fn of(change: &Change) -> Self {
        match (change.kind, change.what) {
            (Kind::Deleted, _) => Self::Deletions,
            (_, What::Directory) => Self::Directories,
            (_, What::Link) => Self::Links,
            (_, What::File | What::Special) => Self::Files,
        }
    }
}

struct Carrier<'a, B> {
    overlay: &'a mut Overlay,
    workspace: &'a Workspace,
    protected: Protected,
    force: bool,
    owner: Owner,
    before: B,
    /// Permissions that directories get once everything is in them.
    modes: Vec<(PathBuf, u32)>,
    done: Committed,
}

impl<B: FnMut(&Change) -> Result<(), String>> Carrier<'_, B> {
    fn change(&mut self, change: &Change) {
        match self.try_change(change) {
            Ok(()) => self.done.applied.push(Applied {
                path: change.path.clone(),
                kind: change.kind,
                what: change.what,
                sha256: change.sha256.clone(),
            }),
            Err(halt) => self.done.skipped.push(Skipped {
                path: change.path.clone(),
                reason: halt.reason,
                detail: halt.detail,
            }),
        }
    }

    fn try_change(&mut self, change: &Change) -> Result<(), Halt> {
        if self.protected.covers(change, self.workspace) {
            return Err(Reason::Protected.into());
        }
        match change.blocked {
            Some(Reason::ChangedMeanwhile) if self.force => {}
            Some(reason) => return Err(reason.into()),
            None => {}
        }
        let (above, name) = tree::split(&change.exact).ok_or(Reason::Failed)?;
        let folder = match tree::pin_directory(self.workspace.directory(), above) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return Err(Reason::ParentSkipped.into());
            }
            Err(errno) => return Err(errno.into()),
        };
        if change.what == What::Link && change.kind != Kind::Deleted {
            self.check_target(change, above)?;
        }
        (self.before)(change).map_err(|why| Halt {
            reason: Reason::Refused,
            detail: Some(why),
        })?;
        let above_before = rustix::fs::fstat(&folder)?;
        match (change.kind, change.what) {
            (Kind::Deleted, _) => self.delete(change, &folder, &name)?,
            (Kind::Modified, What::Directory) => self.open_up(change, &folder, &name)?,
            (_, What::Directory) => self.make_directory(change, &folder, &name)?,
            (_, What::File) => {
                let source = self.source_folder(above)?;
                let Some((source, _)) =
                    tree::open_file(source.as_fd(), &name).map_err(unreadable)?
                else {
                    return Err(Reason::ChangedWhileCopied.into());
                };
                let staged = Staged::file(folder.as_fd(), source, change, self.owner)?;
                staged.put(&name, change.lower.as_ref(), &self.may_go())?;
            }
            (_, What::Link) => {
                let source = self.source_folder(above)?;
                let Some(source) = tree::look(source.as_fd(), &name).map_err(unreadable)? else {
                    return Err(Reason::ChangedWhileCopied.into());
                };
                let staged = Staged::link(folder.as_fd(), &source, change, self.owner)?;
                staged.put(&name, change.lower.as_ref(), &self.may_go())?;
            }
            (_, What::Special) => return Err(Reason::Special.into()),
        }
        self.learn(change, above, &above_before, &folder);
        Ok(())
    }

    fn make_directory(
        &mut self,
        change: &Change,
        folder: &OwnedFd,
        name: &Path,
    ) -> Result<(), Halt> {
        let mode = change.mode.unwrap_or(0o700);
        let staged = Staged::directory(folder.as_fd(), mode | 0o700, self.owner)?;
        staged.put(name, change.lower.as_ref(), &self.may_go())?;
        self.finish_later(change, mode);
        Ok(())
    }

    /// Lets children into an existing directory that gets other permissions.
    fn open_up(&mut self, change: &Change, folder: &OwnedFd, name: &Path) -> Result<(), Halt> {
        let seen = tree::look(folder.as_fd(), name)?;
        let Some(seen) = seen.filter(tree::Seen::is_directory) else {
            return Err(Reason::ChangedMeanwhile.into());
        };
        let mode = change.mode.unwrap_or(0o700);
        seen.set_mode(mode | 0o700)?;
        self.finish_later(change, mode);
        Ok(())
    }

    fn finish_later(&mut self, change: &Change, mode: u32) {
        if mode & 0o700 != 0o700 {
            self.modes.push((change.exact.clone(), mode));
        }
    }

    fn set_modes(&mut self) {
        while let Some((path, mode)) = self.modes.pop() {
            let set = tree::look(self.workspace.directory(), &path).and_then(|seen| {
                let seen = seen.filter(tree::Seen::is_directory).ok_or(Errno::NOTDIR)?;
                seen.set_mode(mode)
            });
            if let Err(errno) = set {
                self.done.skipped.push(Skipped {
                    path: path.to_string_lossy().into_owned(),
                    reason: Reason::Failed,
                    detail: Some(format!(
                        "its permissions were not set: {}",
                        std::io::Error::from(errno)
                    )),
                });
            } else if let Ok(Some(seen)) = tree::look(self.workspace.directory(), &path) {
                self.overlay.baseline.learn(&path, &seen.stat);
            }
        }
    }

    fn delete(&self, change: &Change, folder: &OwnedFd, name: &Path) -> Result<(), Halt> {
        let Some(old) = &change.lower else {
            return Err(Reason::Failed.into());
        };
        match tree::look(folder.as_fd(), name)? {
            Some(seen) if Stamp::of(&seen.stat).same_content(old) => {}
            _ => return Err(Reason::ChangedMeanwhile.into()),
        }
        // Away under another name first, so that what is removed is what was looked at.
        let aside = tree::new_name()?;
        rustix::fs::renameat(folder, name, folder, aside.as_str())?;
        let unchanged = tree::look(folder.as_fd(), Path::new(&aside))?
            .is_some_and(|seen| Stamp::of(&seen.stat).same_content(old));
        let removed = if unchanged {
            tree::remove(folder.as_fd(), aside.as_ref(), &self.may_go())
                .map(|_| ())
                .map_err(Halt::from)
        } else {
            Err(Reason::ChangedMeanwhile.into())
        };
        if removed.is_err() {
            let back = rustix::fs::RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(folder, aside.as_str(), folder, name, back)?;
        }
        removed
    }

    /// Whether an entry of the workspace may be removed with what stood above it.
    fn may_go(&self) -> impl Fn(&Stat) -> bool + use<'_, B> {
        let baseline = &self.overlay.baseline;
        move |stat| self.force || baseline.has_old_content(stat)
    }

    fn source_folder(&self, above: &Path) -> Result<OwnedFd, Halt> {
        tree::pin_directory(self.overlay.upper(), above)
            .map_err(|_| Halt::from(Reason::ChangedWhileCopied))
    }

    /// Refuses a link that really leads outside, through links that stand in the workspace.
    fn check_target(&self, change: &Change, above: &Path) -> Result<(), Halt> {
        let source = self.source_folder(above)?;
        let (_, name) = tree::split(&change.exact).ok_or(Reason::Failed)?;
        let Some(link) = tree::look(source.as_fd(), &name).map_err(unreadable)? else {
            return Err(Reason::ChangedWhileCopied.into());
        };
        let target = link.target().map_err(unreadable)?;
        if leads_outside(self.workspace, &above.join(target))? {
            return Err(Reason::LeavesWorkspace.into());
        }
        Ok(())
    }

    /// Remembers what this change made of the entry and its directory, so that a later commit does not take it for someone else's.
    fn learn(&mut self, change: &Change, above: &Path, before: &Stat, folder: &OwnedFd) {
        let baseline = &mut self.overlay.baseline;
        if baseline.is_unchanged(above, before)
            && let Ok(after) = rustix::fs::fstat(folder)
        {
            baseline.learn(above, &after);
        }
        let name = change.exact.file_name().unwrap_or_default();
        if change.kind != Kind::Deleted
            && let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        {
            baseline.learn(&change.exact, &stat);
        }
    }
}

/// An entry of the overlay that was readable when it was looked at.
fn unreadable(_: Errno) -> Halt {
    Reason::ChangedWhileCopied.into()
}
