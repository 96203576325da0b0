//! A control group for each jail, by which memory and processes of all of it together are bounded and a want of memory is told.

mod place;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::place::Place;
use super::Limits;
use super::layer::CgroupVersion;
use super::owner::Owner;

/// What the names of all groups of jails begin with.
const PREFIX: &str = "mcp-bash-commander.";

/// How long the removal of a group is tried. A process that has been waited for may still be on its way out of its group.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// The groups this launcher makes.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Looked for when the first jail wants one: until then there is nothing to do at a server's start.
    found: Option<Result<Made, Lack>>,
    /// Directories that could not be removed yet.
    doomed: Vec<(PathBuf, Instant)>,
}

/// Why a jail has no group.
#[derive(Debug, Clone)]
pub(super) struct Lack {
    pub(super) errno: Errno,
    pub(super) detail: String,
}

impl Lack {
    fn of(what: &str, path: &Path, error: &io::Error) -> Self {
        Self {
            errno: Errno::from_io_error(error).unwrap_or(Errno::IO),
            detail: format!("{what} {}", path.display()),
        }
    }
}

/// Where groups are made, and how many were.
#[derive(Debug)]
struct Made {
    place: Place,
    parents: Parents,
    owner: Owner,
    count: u64,
}

/// The directories of a place, open: their paths are long, and a jail has many files of its groups written.
#[derive(Debug)]
struct Parents {
    memory: Directory,
    /// None in version 2, where it is the same.
    pids: Option<Directory>,
}

impl Parents {
    fn open(place: &Place) -> Result<Self, Lack> {
        let own_pids = Some(&place.pids).filter(|pids| **pids != place.memory);
        Ok(Self {
            memory: Directory::open(place.memory.clone())?,
            pids: own_pids.cloned().map(Directory::open).transpose()?,
        })
    }

    fn of(&self, with_pids: bool) -> (&Directory, Option<&Directory>) {
        (&self.memory, self.pids.as_ref().filter(|_| with_pids))
    }
}

/// The group of one jail.
#[derive(Debug)]
pub(super) struct Leaf {
    version: CgroupVersion,
    memory: Directory,
    /// None in version 2, where it is the same, and where processes are bounded otherwise.
    pids: Option<Directory>,
    kills: Kills,
}

impl Groups {
    /// A group with these limits, without a process in it. In version 1 one that also bounds processes is a second directory, which
    /// costs as much as the first; a jail whose user namespace bounds them needs none.
    pub(super) fn make(&mut self, limits: &Limits, with_pids: bool) -> Result<Leaf, Lack> {
        let found = match self.found.take() {
            Some(found) => found,
            None => self.find(),
        };
        let made = match self.found.insert(found) {
            Ok(made) => made,
            Err(lack) => return Err(lack.clone()),
        };
        made.count += 1;
        let name = name_of(&made.owner, made.count);
        let parents = made.parents.of(with_pids);
        match Leaf::make(made.place.version, parents, &name, limits) {
            Ok(leaf) => Ok(leaf),
            Err(lack) => {
                let left: Vec<PathBuf> = made
                    .place
                    .directories()
                    .map(|directory| directory.join(&name))
                    .collect();
                for directory in left {
                    self.doom(directory);
                }
                Err(lack)
            }
        }
    }

    /// Removes the group of a jail that has ended, if it had one.
    pub(super) fn remove(&mut self, leaf: Option<Leaf>) {
        let Some(Leaf { memory, pids, .. }) = leaf else {
            return;
        };
        for directory in pids.into_iter().chain([memory]) {
            self.doom(directory.path);
        }
    }

    /// Tries once more to remove what was still in use. When it should be tried again, if anything is left.
    pub(super) fn tidy(&mut self) -> Option<Duration> {
        let doomed = std::mem::take(&mut self.doomed);
        let now = Instant::now();
        self.doomed = doomed
            .into_iter()
            .filter(|(directory, until)| now < *until && !is_removed(directory))
            .collect();
        (!self.doomed.is_empty()).then_some(PAUSE)
    }

    fn doom(&mut self, directory: PathBuf) {
        if !is_removed(&directory) {
            self.doomed.push((directory, Instant::now() + PATIENCE));
        }
    }

    fn find(&mut self) -> Result<Made, Lack> {
        let owner =
            Owner::this().map_err(|error| Lack::of("look at", Path::new("/proc"), &error))?;
        let place = place::find(|place| {
            let name = name_of(&owner, 0);
            let parents = Parents::open(place)?;
            let trial = Leaf::make(place.version, parents.of(true), &name, &Limits::default());
            for directory in place.directories() {
                self.doom(directory.join(&name));
            }
            trial.map(drop)
        })?;
        let parents = Parents::open(&place)?;
        for directory in place.directories() {
            for left in left_by_the_gone(directory, &owner) {
                self.doom(left);
            }
        }
        Ok(Made {
            place,
            parents,
            owner,
            count: 0,
        })
    }
}

impl Leaf {
    /// Where that fails, what was made of it stays.
    fn make(
        version: CgroupVersion,
        (memory, pids): (&Directory, Option<&Directory>),
        name: &str,
        limits: &Limits,
    ) -> Result<Self, Lack> {
        let memory = memory.make(name)?;
        let bytes = limits.memory_bytes.saturating_add(OWN_MEMORY);
        match version {
            CgroupVersion::V2 => {
                memory.set("memory.max", bytes)?;
                // The file is not there where the kernel has no swap, or does not count it.
                memory.set_if_there("memory.swap.max", 0)?;
            }
            CgroupVersion::V1 => {
                memory.set("memory.limit_in_bytes", bytes)?;
                // Memory and swap together, so no swap. Where swap is not counted, it is at least not sought.
                if !memory.set_if_there("memory.memsw.limit_in_bytes", bytes)? {
                    memory.set("memory.swappiness", 0)?;
                }
            }
        }
        let pids = pids.map(|parent| parent.make(name)).transpose()?;
        let counted = match version {
            CgroupVersion::V2 => Some(&memory),
            CgroupVersion::V1 => pids.as_ref(),
        };
        counted.map_or(Ok(()), |group| group.set("pids.max", limits.processes))?;
        let counters = match version {
            CgroupVersion::V2 => "memory.events",
            CgroupVersion::V1 => "memory.oom_control",
        };
        let kills = Kills(memory.file(counters, OFlags::RDONLY)?);
        Ok(Self {
            version,
            memory,
            pids,
            kills,
        })
    }

    pub(super) fn version(&self) -> CgroupVersion {
        self.version
    }

    /// Puts a process into the group. Whatever it starts from then on is in it too.
    pub(super) fn take_in(&self, pid: i32) -> Result<(), Lack> {
        std::iter::once(&self.memory)
            .chain(&self.pids)
            .try_for_each(|directory| directory.set("cgroup.procs", pid))
    }

    /// How many processes of the group were killed for want of memory.
    pub(super) fn kill_count(&self) -> Option<u64> {
        self.kills.count()
    }

    /// What counts them, for init.
    pub(super) fn kills(&self) -> Result<Kills, Lack> {
        let again = self.kills.0.try_clone();
        again
            .map(Kills)
            .map_err(|error| Lack::of("hold the counters of", &self.memory.path, &error))
    }
}

/// A directory of control groups, open.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    descriptor: OwnedFd,
}

impl Directory {
    const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

    fn open(path: PathBuf) -> Result<Self, Lack> {
        match rustix::fs::open(&path, Self::FLAGS, Mode::empty()) {
            Ok(descriptor) => Ok(Self { path, descriptor }),
            Err(errno) => Err(Lack::of("open", &path, &errno.into())),
        }
    }

    /// Makes one below it.
    fn make(&self, name: &str) -> Result<Self, Lack> {
        let path = self.path.join(name);
        let made = rustix::fs::mkdirat(&self.descriptor, name, Mode::from_raw_mode(0o777))
            .and_then(|()| rustix::fs::openat(&self.descriptor, name, Self::FLAGS, Mode::empty()));
        match made {
            Ok(descriptor) => Ok(Self { path, descriptor }),
            Err(errno) => Err(Lack::of("make the control group", &path, &errno.into())),
        }
    }

    /// Never makes the file: it is the kernel's.
    fn file(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Lack> {
        rustix::fs::openat(
            &self.descriptor,
            name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| Lack::of("open", &self.path.join(name), &errno.into()))
    }

    fn set(&self, name: &str, value: impl std::fmt::Display) -> Result<(), Lack> {
        let file = self.file(name, OFlags::WRONLY)?;
        File::from(file)
            .write_all(value.to_string().as_bytes())
            .map_err(|error| Lack::of("write", &self.path.join(name), &error))
    }

    /// The same for a file that not every kernel has: was it there?
    fn set_if_there(&self, name: &str, value: impl std::fmt::Display) -> Result<bool, Lack> {
        match self.set(name, value) {
            Ok(()) => Ok(true),
            Err(lack) if lack.errno == Errno::NOENT => Ok(false),
            Err(lack) => Err(lack),
        }
    }
}

/// Memory for init and for what the kernel keeps for a jail. A command that reaches its own limit is then told that there is no more
/// memory, rather than killed.
pub(super) const OWN_MEMORY: u64 = 8 << 20;

/// The counters of a group, open: who holds them needs no way to the group.
#[derive(Debug)]
pub(super) struct Kills(pub(super) OwnedFd);

impl Kills {
    /// Those of the container that this process is in, if its engine shows them.
    pub(super) fn of_container() -> Option<Self> {
        ["memory.events", "memory/memory.oom_control"]
            .into_iter()
            .find_map(|name| File::open(Path::new("/sys/fs/cgroup").join(name)).ok())
            .map(|file| Self(file.into()))
    }

    /// How many processes the kernel has killed in this group for want of memory.
    pub(super) fn count(&self) -> Option<u64> {
        let mut text = [0; 512];
        let length = rustix::io::pread(&self.0, &mut text, 0).ok()?;
        kills_in(std::str::from_utf8(text.get(..length)?).ok()?)
    }
}

fn kills_in(counters: &str) -> Option<u64> {
    let mut lines = counters.lines();
    lines
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()
}

/// The name of the group with this number.
fn name_of(owner: &Owner, number: u64) -> String {
    format!("{PREFIX}{owner}.{number}")
}

/// Groups in `directory` whose owner has ended; `this` asks.
fn left_by_the_gone(directory: &Path, this: &Owner) -> Vec<PathBuf> {
    let is_left = |name: &str| {
        let owner = name.strip_prefix(PREFIX).and_then(Owner::told);
        owner.is_some_and(|(owner, number)| number.parse::<u64>().is_ok() && owner.is_gone(this))
    };
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_left))
        .map(|entry| entry.path())
        .collect()
}

/// Never makes the file: it is the kernel's.
fn set(path: &Path, value: impl std::fmt::Display) -> Result<(), Lack> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.to_string().as_bytes()))
        .map_err(|error| Lack::of("write", path, &error))
}

fn is_removed(directory: &Path) -> bool {
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_of_jails_whose_owner_is_gone_are_left_over() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let this = Owner::this()?;
        // No process began with the machine's first tick.
        let gone = this.to_string();
        let (before, _) = gone.rsplit_once('.').unwrap_or_default();
        let left = format!("{PREFIX}{before}.1.3");
        let others = [
            name_of(&this, 3),
            left.replace(PREFIX, "x"),
            format!("{PREFIX}{before}.1"),
            format!("{left}.8"),
            "mcp-bash-commander.server".to_owned(),
        ];
        for name in others.iter().chain([&left]) {
            fs::create_dir(directory.path().join(name))?;
        }
        assert_eq!(
            left_by_the_gone(directory.path(), &this),
            [directory.path().join(left)]
        );
        Ok(())
    }

    #[test]
    fn kills_are_counted_in_both_versions() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let v2 = "low 0\nhigh 0\nmax 17\noom 4\noom_kill 2\noom_group_kill 1\n";
        assert_eq!((kills_in(v1), kills_in(v2)), (Some(3), Some(2)));
        assert_eq!(kills_in("oom_kill_disable 0\n"), None);
    }
}
