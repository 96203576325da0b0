//! A control group for each jail, by which memory and processes of all of it together are bounded and a want of memory is told.

mod place;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use self::place::Place;
use super::layer::CgroupVersion;
use super::{Identity, Limits, usage};

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
    owner: Owner,
    count: u64,
}

/// The group of one jail.
#[derive(Debug)]
pub(super) struct Leaf {
    version: CgroupVersion,
    memory: PathBuf,
    /// The same directory in version 2.
    pids: PathBuf,
}

impl Groups {
    /// A group with these limits, without a process in it.
    pub(super) fn make(&mut self, limits: &Limits) -> Result<Leaf, Lack> {
        let found = match self.found.take() {
            Some(found) => found,
            None => self.find(),
        };
        let made = match self.found.insert(found) {
            Ok(made) => made,
            Err(lack) => return Err(lack.clone()),
        };
        made.count += 1;
        let leaf = Leaf::at(&made.place, &made.owner.name(made.count));
        match leaf.make(limits) {
            Ok(()) => Ok(leaf),
            Err(lack) => {
                self.remove(Some(leaf));
                Err(lack)
            }
        }
    }

    /// Removes the group of a jail that has ended, if it had one.
    pub(super) fn remove(&mut self, leaf: Option<Leaf>) {
        let Some(Leaf { memory, pids, .. }) = leaf else {
            return;
        };
        if pids != memory {
            self.doom(pids);
        }
        self.doom(memory);
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
        let owner = Owner::this()
            .map_err(|error| Lack::of("read", Path::new(place::PID_NAMESPACE), &error))?;
        let place = place::find(|place| {
            let trial = Leaf::at(place, &owner.name(0));
            let usable = trial.make(&Limits::default());
            self.remove(Some(trial));
            usable
        })?;
        for directory in place.directories() {
            for left in owner.left_by_the_dead(directory) {
                self.doom(left);
            }
        }
        Ok(Made {
            place,
            owner,
            count: 0,
        })
    }
}

impl Leaf {
    fn at(place: &Place, name: &str) -> Self {
        Self {
            version: place.version,
            memory: place.memory.join(name),
            pids: place.pids.join(name),
        }
    }

    pub(super) fn version(&self) -> CgroupVersion {
        self.version
    }

    fn make(&self, limits: &Limits) -> Result<(), Lack> {
        make_directory(&self.memory)?;
        let memory = limits.memory_bytes.saturating_add(OWN_MEMORY);
        match self.version {
            CgroupVersion::V2 => {
                set(&self.memory.join("memory.max"), memory)?;
                // The file is not there where the kernel has no swap, or does not count it.
                set_if_there(&self.memory.join("memory.swap.max"), 0)?;
            }
            CgroupVersion::V1 => {
                make_directory(&self.pids)?;
                set(&self.memory.join("memory.limit_in_bytes"), memory)?;
                // Memory and swap together, so no swap. Where swap is not counted, it is at least not sought.
                if !set_if_there(&self.memory.join("memory.memsw.limit_in_bytes"), memory)? {
                    set(&self.memory.join("memory.swappiness"), 0)?;
                }
            }
        }
        set(&self.pids.join("pids.max"), limits.processes)
    }

    /// Puts a process into the group. Whatever it starts from then on is in it too.
    pub(super) fn take_in(&self, pid: i32) -> Result<(), Lack> {
        set(&self.memory.join("cgroup.procs"), pid)?;
        if self.pids != self.memory {
            set(&self.pids.join("cgroup.procs"), pid)?;
        }
        Ok(())
    }

    /// Counts the processes of the group that were killed for want of memory.
    pub(super) fn kills(&self) -> Result<Kills, Lack> {
        let counters = match self.version {
            CgroupVersion::V2 => "memory.events",
            CgroupVersion::V1 => "memory.oom_control",
        };
        let path = self.memory.join(counters);
        let file = File::open(&path).map_err(|error| Lack::of("open", &path, &error))?;
        Ok(Kills(file.into()))
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

/// Whose a group is: a process, by what no other one shares with it as long as this kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    pid_namespace: u64,
    identity: Identity,
}

impl Owner {
    fn this() -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Ok(Self {
            pid_namespace: fs::metadata(place::PID_NAMESPACE)?.ino(),
            identity: usage::identify(pid),
        })
    }

    fn name(&self, number: u64) -> String {
        let Identity { pid, start_ticks } = self.identity;
        format!(
            "{PREFIX}{}.{pid}.{start_ticks}.{number}",
            self.pid_namespace
        )
    }

    fn of(name: &str) -> Option<Self> {
        let mut numbers = name.strip_prefix(PREFIX)?.split('.');
        let owner = Self {
            pid_namespace: numbers.next()?.parse().ok()?,
            identity: Identity {
                pid: numbers.next()?.parse().ok()?,
                start_ticks: numbers.next()?.parse().ok()?,
            },
        };
        numbers.next()?.parse::<u64>().ok()?;
        numbers.next().is_none().then_some(owner)
    }

    /// Groups in `directory` whose owner has ended. Of owners in other containers nothing is known: theirs are left alone.
    fn left_by_the_dead(&self, directory: &Path) -> Vec<PathBuf> {
        let is_left = |name: &str| {
            Self::of(name).is_some_and(|owner| {
                owner.pid_namespace == self.pid_namespace
                    && usage::identify(owner.identity.pid) != owner.identity
            })
        };
        fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(is_left))
            .map(|entry| entry.path())
            .collect()
    }
}

fn make_directory(path: &Path) -> Result<(), Lack> {
    fs::create_dir(path).map_err(|error| Lack::of("make the control group", path, &error))
}

fn set(path: &Path, value: impl std::fmt::Display) -> Result<(), Lack> {
    write(path, &value.to_string()).map_err(|error| Lack::of("write", path, &error))
}

/// The same for a file that not every kernel has: was it there?
fn set_if_there(path: &Path, value: impl std::fmt::Display) -> Result<bool, Lack> {
    match write(path, &value.to_string()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Lack::of("write", path, &error)),
    }
}

/// Never makes the file: it is the kernel's.
fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
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
    fn an_owner_is_known_by_the_name_of_its_group_and_other_names_have_none() -> anyhow::Result<()>
    {
        let owner = Owner::this()?;
        assert_eq!(Owner::of(&owner.name(7)), Some(owner));
        let name = owner.name(7);
        for other in [
            "user.slice",
            "mcp-bash-commander.server",
            "mcp-bash-commander.1.2.3",
            &format!("{name}.8"),
            &format!("x{name}"),
        ] {
            assert_eq!(Owner::of(other), None, "{other}");
        }
        Ok(())
    }

    #[test]
    fn only_groups_of_the_dead_are_left_over() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let alive = Owner::this()?;
        // Its number has another process by now.
        let dead = Owner {
            identity: Identity {
                start_ticks: alive.identity.start_ticks - 1,
                ..alive.identity
            },
            ..alive
        };
        let elsewhere = Owner {
            pid_namespace: alive.pid_namespace + 1,
            ..dead
        };
        for name in [alive, dead, elsewhere].map(|owner| owner.name(3)) {
            fs::create_dir(directory.path().join(name))?;
        }
        fs::create_dir(directory.path().join("mcp-bash-commander.server"))?;
        assert_eq!(
            alive.left_by_the_dead(directory.path()),
            [directory.path().join(dead.name(3))]
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
