//! What `.gitignore` and `.ignore` files leave out, read through the walk's own directories.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::SAME_MOUNT;
use crate::workspace::read::open_regular;

/// The files with rules; the later one wins.
const FILES: [&str; 2] = [".gitignore", ".ignore"];
/// So much of each is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;
/// Most rules of one folder.
const MAX_RULES: usize = 2000;

/// The rules of one folder.
pub(super) struct IgnoreRules {
    folder: PathBuf,
    rules: Gitignore,
}

impl IgnoreRules {
    /// Reads them. Rules that cannot be read or understood are none: it is a convenience that they apply, no protection.
    pub(super) fn read(
        folder: BorrowedFd<'_>,
        path: &Path,
        denied: &dyn Fn(&Path) -> bool,
    ) -> Option<Self> {
        // Rules are matched to paths that are relative to their folder already.
        let mut builder = GitignoreBuilder::new(".");
        let mut room = MAX_RULES;
        for name in FILES {
            let shown = path.join(name);
            if denied(&shown) {
                continue;
            }
            let Ok(file) = open_regular(folder, Path::new(name), SAME_MOUNT, &shown) else {
                continue;
            };
            let mut bytes = Vec::new();
            if file.take(MAX_BYTES).read_to_end(&mut bytes).is_err() {
                continue;
            }
            let text = String::from_utf8_lossy(&bytes);
            for line in text.trim_start_matches('\u{feff}').lines().take(room) {
                room -= 1;
                let _ = builder.add_line(None, line);
            }
        }
        let rules = builder.build().ok().filter(|rules| !rules.is_empty())?;
        Some(Self {
            folder: path.to_owned(),
            rules,
        })
    }

    /// Whether the files exist at all is known from the listing.
    pub(super) fn is_rules_file(name: &OsStr) -> bool {
        FILES.iter().any(|file| name == *file)
    }

    /// What these rules say about a path of the workspace: left out, kept, or nothing.
    pub(super) fn leave_out(&self, path: &Path, is_folder: bool) -> Option<bool> {
        let relative = path.strip_prefix(&self.folder).ok()?;
        match self.rules.matched(relative, is_folder) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        }
    }
}
