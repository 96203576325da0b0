//! Files of the workspace that have names outside it as well (hard links): whoever writes them writes there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType};

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
    paths: Vec<PathBuf>,
}

impl Workspace {
    /// The files with names outside, relative to the workspace, as they are now; new ones are looked for every half minute at most.
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
            let paths = self.look_for_linked()?;
            let holds = HOLDS.max(began.elapsed() * HOLDS_TIMES);
            Found {
                until: Instant::now() + holds,
                paths,
            }
        };
        let is_linked = |path: &&PathBuf| self.names_of(path).is_some_and(|names| names > 1);
        let linked = found.paths.iter().filter(is_linked).cloned().collect();
        *known = Some(found);
        Ok(linked)
    }

    /// Whether it is known without a look that there are none.
    pub fn has_none_linked(&self) -> bool {
        let known = self.linked.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .as_ref()
            .is_some_and(|found| found.paths.is_empty() && Instant::now() < found.until)
    }

    fn names_of(&self, path: &Path) -> Option<u64> {
        let flags = rustix::fs::OFlags::PATH;
        let file = super::open_beneath(self.directory(), path, flags, super::NO_LINKS).ok()?;
        Some(rustix::fs::fstat(&file).ok()?.st_nlink)
    }

    fn look_for_linked(&self) -> Result<Vec<PathBuf>, WorkspaceError> {
        // By device and inode: how many names there are, and those of them that are here.
        let mut files: HashMap<(u64, u64), (u64, Vec<PathBuf>)> = HashMap::new();
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
                Err(error) => return Err(error),
            };
            let Some((directory, entries)) = listing else {
                continue;
            };
            looked_at += entries.len();
            if looked_at > MOST_ENTRIES {
                return Err(too_many(None));
            }
            for (name, kind) in entries {
                match kind {
                    FileType::Directory => folders.push(folder.join(name)),
                    FileType::RegularFile => {
                        let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW);
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
        }
        let is_outside = |(names, paths): &(u64, Vec<PathBuf>)| *names > paths.len() as u64;
        let mut linked: Vec<PathBuf> = files
            .into_values()
            .filter(is_outside)
            .flat_map(|(_, paths)| paths)
            .collect();
        linked.sort_unstable();
        if linked.len() > MOST_LINKED {
            return Err(too_many(linked.first()));
        }
        Ok(linked)
    }
}

fn too_many(first: Option<&PathBuf>) -> WorkspaceError {
    WorkspaceError::TooManyLinked {
        entries: MOST_ENTRIES,
        linked: MOST_LINKED,
        first: first.map(|path| path.display().to_string()),
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
