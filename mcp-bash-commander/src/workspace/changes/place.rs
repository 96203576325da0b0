//! Putting what was staged into its place, and taking away what stood there only if it is what was looked at.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::{RenameFlags, Stat};
use rustix::io::Errno;

use super::stage::{Halt, Staged};
use super::{Reason, Stamp, tree};

impl Staged<'_> {
    /// Puts it under the name, where `old` stood or nothing. Whoever reads sees the old entry or the new one, whole.
    ///
    /// What stood there is looked at again after it was swapped out: if it is something else by now, it goes back. `may_go` is asked
    /// about each entry that would be removed with it.
    pub(super) fn put(
        self,
        name: &Path,
        old: Option<&Stamp>,
        may_go: &dyn Fn(&Stat) -> bool,
    ) -> Result<(), Halt> {
        match old {
            None => self.put_new(name),
            Some(old) => self.put_instead(name, old, may_go),
        }
    }

    fn put_new(mut self, name: &Path) -> Result<(), Halt> {
        match self.rename(name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.done = true;
                Ok(())
            }
            Err(Errno::EXIST) => Err(Reason::ChangedMeanwhile.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn put_instead(
        mut self,
        name: &Path,
        old: &Stamp,
        may_go: &dyn Fn(&Stat) -> bool,
    ) -> Result<(), Halt> {
        match self.rename(name, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Err(Reason::ChangedMeanwhile.into()),
            Err(Errno::INVAL | Errno::NOSYS) => return self.put_over(name, old),
            Err(errno) => return Err(errno.into()),
        }
        let swapped_out = tree::look(self.folder, Path::new(&self.name))?;
        let result = match swapped_out {
            Some(seen) if Stamp::of(&seen.stat).same_content(old) => {
                tree::remove(self.folder, OsStr::new(&self.name), may_go)
                    .map(|_| ())
                    .map_err(Halt::from)
            }
            _ => Err(Reason::ChangedMeanwhile.into()),
        };
        if result.is_err()
            && let Err(errno) = self.rename(name, RenameFlags::EXCHANGE)
        {
            // Neither is lost: the old entry keeps the name it was swapped out to.
            self.done = true;
            let errno = std::io::Error::from(errno);
            return Err(Halt {
                reason: Reason::Failed,
                detail: Some(format!("what stood there is `{}` now: {errno}", self.name)),
            });
        }
        self.done = result.is_ok();
        result
    }

    /// For file systems that cannot swap two names: a file or link over another.
    fn put_over(mut self, name: &Path, old: &Stamp) -> Result<(), Halt> {
        match tree::look(self.folder, name)? {
            Some(seen) if Stamp::of(&seen.stat).same_content(old) => {}
            _ => return Err(Reason::ChangedMeanwhile.into()),
        }
        self.rename(name, RenameFlags::empty())?;
        self.done = true;
        Ok(())
    }

    fn rename(&self, name: &Path, flags: RenameFlags) -> Result<(), Errno> {
        rustix::fs::renameat_with(self.folder, self.name.as_str(), self.folder, name, flags)
    }
}
