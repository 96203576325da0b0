//! Files of the workspace that have names outside it as well (hard links): whoever writes them writes there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::closed::is_closed_to_us;
use super::{Workspace, WorkspaceError};

/// Most entries of the workspace that are looked at.
const MOST_ENTRIES: usize = 1_000_000;
/// Most files that are told of; each is a mount of every jail.
const MOST_LINKED: usize = 1000;
/// How long what was found holds. A jail can make no name outside, so only the host's own programs can make it wrong.
const HOLDS: Duration = Duration::from_secs(30);
/// And at least so many times as long as it took to find.
const HOLDS_TIMES: u32 = 20;

/// What was found, and when.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<Mutex<Option<Found>>>);

#[derive(Debug)]
struct Found {
    until: Instant,
    linked: Vec<PathBuf>,
}

impl Workspace {
    /// The files with names outside, relative to the workspace, as they are now; new ones are looked for every half minute at most. A
    /// folder that this server cannot look into is one of them as a whole: a command could have closed it, and open it again.
    ///
    /// # Errors
    /// A workspace with more entries or such files than can be looked at.
    pub fn linked_outside(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        let mut known = self.linked.0.lock().unwrap_or_else(PoisonError::into_inner);
        let still = known.take().filter(|found| Instant::now() < found.until);
        let found = if let Some(found) = still {
            found
        } else {
            let began = Instant::now();
            let linked = self.look_twice()?;
            let holds = HOLDS.max(began.elapsed() * HOLDS_TIMES);
            Found {
                until: Instant::now() + holds,
                linked,
            }
        };
        let is_linked = |path: &&PathBuf| self.is_still_linked(path);
        let linked = found.linked.iter().filter(is_linked).cloned().collect();
        *known = Some(found);
        Ok(linked)
    }

    /// The same, looked for anew.
    ///
    /// # Errors
    /// As there.
    pub fn linked_outside_now(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        let mut known = self.linked.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.take();
        drop(known);
        self.linked_outside()
    }

    /// Whether it is known without a look that there are none.
    pub fn has_none_linked(&self) -> bool {
        // Whoever holds it looks through the workspace, which may take long.
        let Ok(known) = self.linked.0.try_lock() else {
            return false;
        };
        known
            .as_ref()
            .is_some_and(|found| found.linked.is_empty() && Instant::now() < found.until)
    }

    fn is_still_linked(&self, path: &Path) -> bool {
        let flags = rustix::fs::OFlags::PATH;
        let file = super::open_beneath(self.directory(), path, flags, super::NO_LINKS);
        match file.and_then(|file| rustix::fs::fstat(&file)) {
            Ok(stat) => stat.st_nlink > 1,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => false,
            // Whatever keeps this server from looking does not keep the file from being linked.
            Err(_) => true,
        }
    }

    /// While a program makes and removes names, one look can miss some of them; what two looks find is so.
    fn look_twice(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        let mut linked = self.look_for_linked()?;
        if !linked.is_empty() {
            let again = self.look_for_linked()?;
            linked.retain(|path| again.binary_search(path).is_ok());
        }
        if linked.len() > MOST_LINKED {
            return Err(WorkspaceError::TooManyLinked {
                found: linked.len(),
                most: MOST_LINKED,
                first: linked
                    .first()
                    .map(|path| path.display().to_string())
                    .unwrap_or_default(),
            });
        }
        Ok(linked)
    }

    fn look_for_linked(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        // By device and inode: how many names there are, and those of them that are here.
        let mut files: HashMap<(u64, u64), (u64, Vec<PathBuf>)> = HashMap::new();
        let mut linked = Vec::new();
        let mut looked_at = 0;
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let listing = match self.listing(&folder) {
                Ok(listing) => listing,
                // Deeper than a path can name. Nothing can be mounted there, and what a command made there has no name outside.
                Err(WorkspaceError::Io { source, .. })
                    if source.raw_os_error() == Some(libc::ENAMETOOLONG) =>
                {
                    continue;
                }
                Err(error) if is_closed_to_us(&error) && !folder.as_os_str().is_empty() => {
                    linked.push(folder);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some((directory, entries)) = listing else {
                continue;
            };
            looked_at += entries.len();
            if looked_at > MOST_ENTRIES {
                return Err(WorkspaceError::TooManyEntries(MOST_ENTRIES));
            }
            let mut is_closed = false;
            for (name, kind) in entries {
                match kind {
                    FileType::Directory => folders.push(folder.join(name)),
                    FileType::RegularFile => {
                        let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW);
                        is_closed |= matches!(stat, Err(Errno::ACCESS));
                        if let Ok(stat) = stat
                            && stat.st_nlink > 1
                        {
                            let (names, paths) =
                                files.entry((stat.st_dev, stat.st_ino)).or_default();
                            *names = stat.st_nlink;
                            paths.push(folder.join(name));
                        }
                    }
                    _ => {}
                }
            }
            if is_closed {
                linked.push(folder);
            }
        }
        for (names, paths) in files.into_values() {
            if names > paths.len() as u64 {
                linked.extend(paths);
            }
        }
        linked.sort_unstable();
        Ok(linked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Access;

    #[test]
    fn a_file_with_a_name_outside_is_told_and_one_with_two_names_inside_is_not()
    -> anyhow::Result<()> {
        let home = tempfile::tempdir()?;
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir_all(at("w/deep"))?;
        for file in ["w/inside", "w/plain", "outside", "later"] {
            std::fs::write(at(file), "x")?;
        }
        std::fs::hard_link(at("w/inside"), at("w/deep/again"))?;
        std::fs::hard_link(at("outside"), at("w/deep/linked"))?;
        std::fs::hard_link(at("outside"), at("w/too"))?;
        std::os::unix::fs::symlink(at("outside"), at("w/link"))?;
        let root = at("w").canonicalize()?;
        let workspace = Workspace::open(&root, Access::ReadWrite)?;
        let linked = || workspace.linked_outside();
        assert_eq!(linked()?, ["deep/linked", "too"].map(PathBuf::from));
        // What was found is looked at again.
        std::fs::remove_file(at("w/too"))?;
        std::fs::write(at("w/too"), "new")?;
        assert_eq!(linked()?, [PathBuf::from("deep/linked")]);
        Ok(())
    }
}
