//! Where this process may make control groups: what /proc says of its own, tried out.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use super::super::layer::CgroupVersion;
use super::{Lack, set};

/// Where the server and its launcher stand in version 2, beside the jails.
const SERVER: &str = "mcp-bash-commander.server";

/// Both controllers a group must have.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// Directories in which groups can be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) version: CgroupVersion,
    pub(super) memory: PathBuf,
    /// The same in version 2.
    pub(super) pids: PathBuf,
}

impl Place {
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        let pids = Some(self.pids.as_path()).filter(|_| self.pids != self.memory);
        std::iter::once(self.memory.as_path()).chain(pids)
    }
}

/// The first place where `try_out` succeeds, version 2 before version 1. Where there is none, what stood in the way of the last.
pub(super) fn find(mut try_out: impl FnMut(&Place) -> Result<(), Lack>) -> Result<Place, Lack> {
    let own = Own::read()?;
    let usable = own.v2().and_then(|place| {
        try_out(&place)?;
        Ok(place)
    });
    let Err(lack) = usable else { return usable };
    // Without a hierarchy of version 1 the lack in version 2 is the one to mend.
    let Some(place) = own.v1() else {
        return Err(lack);
    };
    try_out(&place)?;
    Ok(place)
}

/// The groups of this process, as /proc tells them.
struct Own {
    groups: String,
    mounts: String,
}

impl Own {
    fn read() -> Result<Self, Lack> {
        let text = |path: &str| {
            fs::read_to_string(path).map_err(|error| Lack::of("read", Path::new(path), &error))
        };
        Ok(Self {
            groups: text("/proc/self/cgroup")?,
            mounts: text("/proc/self/mountinfo")?,
        })
    }

    fn v1(&self) -> Option<Place> {
        let directory = |controller: &str| {
            let group = self.groups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers
                    .split(',')
                    .any(|name| name == controller)
                    .then_some(path)
            })?;
            self.mounted("cgroup", Some(controller), group)
        };
        Some(Place {
            version: CgroupVersion::V1,
            memory: directory("memory")?,
            pids: directory("pids")?,
        })
    }

    fn v2(&self) -> Result<Place, Lack> {
        let lack = |detail: &str| Lack {
            errno: Errno::OPNOTSUPP,
            detail: detail.to_owned(),
        };
        let own = self
            .groups
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .and_then(|group| self.mounted("cgroup2", None, group))
            .ok_or_else(|| lack("find a mounted control group of version 2"))?;
        let parent = own.parent().filter(|_| own.ends_with(SERVER));
        // A launcher that was started again finds itself where the one before it put the server.
        let directory = parent.unwrap_or(&own);
        prepare(directory)?;
        Ok(Place {
            version: CgroupVersion::V2,
            memory: directory.to_owned(),
            pids: directory.to_owned(),
        })
    }

    /// The directory of a group in whichever mount of its hierarchy shows it.
    fn mounted(&self, kind: &str, option: Option<&str>, group: &str) -> Option<PathBuf> {
        self.mounts.lines().find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut file_system = file_system.split(' ');
            let is_of_kind = file_system.next() == Some(kind);
            let has_option = option.is_none_or(|option| {
                let options = file_system.nth(1).unwrap_or_default();
                options.split(',').any(|name| name == option)
            });
            if !is_of_kind || !has_option {
                return None;
            }
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
            // One outside what is mounted, as after a change of the namespace, has no directory here.
            let below = Path::new(group).strip_prefix(root).ok()?;
            let is_inside = !below.components().any(|part| part.as_os_str() == "..");
            // Joined only where there is something: an empty path would end the directory's in a slash.
            is_inside.then(|| point.components().chain(below.components()).collect())
        })
    }
}

/// A path of mountinfo, in which spaces and the like are written as octal numbers.
fn unescaped(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let number = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(number.unwrap_or(*first));
        rest = if number.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes).into()
}

/// Lets groups in `directory`, of version 2, have both controllers.
///
/// A group whose children have controllers must have no process itself, the topmost one excepted. Those of this server are put into a
/// child of their own; others are not touched, and where there are any this is no place for jails.
fn prepare(directory: &Path) -> Result<(), Lack> {
    let text = |file: &str| {
        let path = directory.join(file);
        fs::read_to_string(&path).map_err(|error| Lack::of("read", &path, &error))
    };
    let has_both = |names: &str| {
        CONTROLLERS.map(|name| names.split_whitespace().any(|n| n == name)) == [true; 2]
    };
    let control = directory.join("cgroup.subtree_control");
    if has_both(&text("cgroup.subtree_control")?) {
        return Ok(());
    }
    if !has_both(&text("cgroup.controllers")?) {
        return Err(Lack {
            errno: Errno::OPNOTSUPP,
            detail: format!(
                "find the controllers memory and pids in {}",
                directory.display()
            ),
        });
    }
    // Before anything is moved.
    rustix::fs::access(&control, Access::WRITE_OK)
        .map_err(|errno| Lack::of("write", &control, &errno.into()))?;
    let is_topmost = !directory.join("cgroup.type").exists();
    if !is_topmost {
        move_server(directory, &text("cgroup.procs")?)?;
    }
    set(&control, "+memory +pids")
}

/// Moves this process and the one that started it out of `directory`, whose processes these are.
fn move_server(directory: &Path, processes: &str) -> Result<(), Lack> {
    let ours = [Some(rustix::process::getpid()), rustix::process::getppid()]
        .map(|pid| pid.map_or(0, |pid| pid.as_raw_nonzero().get()).to_string());
    if let Some(other) = processes
        .lines()
        .find(|pid| !ours.iter().any(|own| own == pid))
    {
        return Err(Lack {
            errno: Errno::BUSY,
            detail: format!(
                "have {} for this server alone: process {other} is in it too",
                directory.display()
            ),
        });
    }
    let server = directory.join(SERVER);
    match fs::create_dir(&server) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Lack::of("make the control group", &server, &error));
        }
        _ => {}
    }
    processes
        .lines()
        .try_for_each(|pid| set(&server.join("cgroup.procs"), pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(groups: &str, mounts: &str) -> Own {
        Own {
            groups: groups.to_owned(),
            mounts: mounts.to_owned(),
        }
    }

    #[test]
    fn version_1_is_found_where_its_controllers_are_mounted() {
        let groups =
            "9:name=systemd:/a\n8:cpu,pids:/a b\n4:memory:/docker/1\n3:memoryx:/no\n0::/\n";
        let mounts = "\
35 31 0:32 /docker/1 /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/with\\040space rw,relatime shared:9 - cgroup cgroup rw,cpu,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,memory,pids
";
        assert_eq!(
            own(groups, mounts).v1(),
            Some(Place {
                version: CgroupVersion::V1,
                memory: "/sys/fs/cgroup/memory".into(),
                pids: "/sys/fs/with space/a b".into(),
            })
        );
        assert_eq!(own("4:memory:/a\n", mounts).v1(), None);
    }

    #[test]
    fn a_group_outside_what_is_mounted_has_no_directory() {
        let mounts =
            "30 1 0:26 /user.slice /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let directory = |group: &str| own("", mounts).mounted("cgroup2", None, group);
        assert_eq!(
            directory("/user.slice/run-u1.scope"),
            Some("/sys/fs/cgroup/run-u1.scope".into())
        );
        assert_eq!(directory("/system.slice/x"), None);
        assert_eq!(directory("/user.slice/../x"), None);
    }

    /// A directory with the files of a group of version 2, in which these processes are, and with a child for the server.
    fn group(controllers: &str, processes: &str) -> anyhow::Result<tempfile::TempDir> {
        let directory = tempfile::tempdir()?;
        fs::create_dir(directory.path().join(SERVER))?;
        for (file, text) in [
            ("cgroup.type", "domain\n"),
            ("cgroup.controllers", controllers),
            ("cgroup.subtree_control", ""),
            ("cgroup.procs", processes),
            ("mcp-bash-commander.server/cgroup.procs", ""),
        ] {
            fs::write(directory.path().join(file), text)?;
        }
        Ok(directory)
    }

    fn written(group: &tempfile::TempDir) -> anyhow::Result<[String; 2]> {
        let read = |file| fs::read_to_string(group.path().join(file));
        Ok([
            read("mcp-bash-commander.server/cgroup.procs")?,
            read("cgroup.subtree_control")?,
        ])
    }

    #[test]
    fn a_group_of_the_servers_alone_is_prepared_and_one_with_others_in_it_is_left_as_it_was()
    -> anyhow::Result<()> {
        let this = std::process::id();
        let alone = group("cpu memory pids\n", &format!("{this}\n"))?;
        assert!(prepare(alone.path()).is_ok());
        assert_eq!(
            written(&alone)?,
            [this.to_string(), "+memory +pids".to_owned()]
        );
        for (controllers, processes, why) in [
            ("cpu memory pids\n", format!("{this}\n1\n"), "process 1"),
            ("cpu memory\n", format!("{this}\n"), "controllers"),
        ] {
            let group = group(controllers, &processes)?;
            let lack = prepare(group.path()).err().map(|lack| lack.detail);
            assert!(
                lack.as_ref().is_some_and(|detail| detail.contains(why)),
                "{lack:?}"
            );
            assert_eq!(written(&group)?, ["", ""]);
        }
        Ok(())
    }
}
