//! What there is outside a jail to be reached: a file, sockets, listeners, objects of interprocess communication, and the ways to them.

use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::support::{Scene, probe};

pub(crate) struct Outside {
    directory: tempfile::TempDir,
    tcp: TcpListener,
    udp: UdpSocket,
    _local: UnixListener,
    _abstract_local: UnixListener,
    /// For the probe.
    pub(crate) context: Value,
}

impl Outside {
    pub(crate) fn new(scene: &Scene) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        // Nothing but the jail shall stand before the canary.
        for open in [directory.path(), scene.path()] {
            std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o755))?;
        }
        let file = directory.path().join("canary");
        std::fs::write(&file, "the canary")?;
        std::os::unix::fs::symlink(&file, scene.path().join("link"))?;
        let socket = directory.path().join("socket");
        let name = format!(
            "jail-test-{}-{}",
            std::process::id(),
            directory.path().display()
        );
        let queue = name.replace('/', "-");
        let (tcp, udp) = (
            TcpListener::bind("127.0.0.1:0")?,
            UdpSocket::bind("127.0.0.1:0")?,
        );
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        run(std::process::Command::new(probe()).args(["queue", "make", &queue]))?;
        let context = json!({
            "canary": file,
            "link": "link",
            "detour": format!("{}{}", "../".repeat(12), file.display()),
            "socket": socket,
            "abstract_socket": name,
            "tcp": tcp.local_addr()?.port(),
            "udp": udp.local_addr()?.port(),
            "server": std::process::id(),
            "init": 1,
            "shared_memory": shared_object("shm", &["-M", "4096"])?,
            "semaphores": shared_object("sem", &["-S", "1"])?,
            "messages": shared_object("msg", &["-Q"])?,
            "queue": queue,
            "disk": disk()?,
            "host_name": std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim(),
            "cgroups": std::fs::read_to_string("/proc/self/cgroup")?,
            "cgroup_namespace": std::fs::read_link("/proc/self/ns/cgroup")?,
        });
        Ok(Self {
            _local: UnixListener::bind(&socket)?,
            _abstract_local: UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?,
            directory,
            tcp,
            udp,
            context,
        })
    }

    pub(crate) fn canary(&self) -> PathBuf {
        self.directory.path().join("canary")
    }

    /// For the probe outside. The host's own init may be guarded by other means; any process of the same user stands for it.
    pub(crate) fn context_of_the_control(&self) -> Value {
        let mut context = self.context.clone();
        context["init"] = json!(std::process::id());
        context
    }

    /// Connections and datagrams that arrived since this was last asked.
    pub(crate) fn arrived(&self) -> usize {
        let mut arrived = 0;
        while let Ok((mut stream, _)) = self.tcp.accept() {
            arrived += 1;
            let _ = stream.read(&mut [0; 64]);
        }
        while self.udp.recv(&mut [0; 64]).is_ok() {
            arrived += 1;
        }
        arrived
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for (object, option) in [
            ("shared_memory", "-M"),
            ("semaphores", "-S"),
            ("messages", "-Q"),
        ] {
            let key = self.context[object].to_string();
            let _ = run(std::process::Command::new("ipcrm").args([option, &key]));
        }
        let queue = self.context["queue"].as_str().unwrap_or_default();
        let _ = run(std::process::Command::new(probe()).args(["queue", "remove", queue]));
    }
}

fn run(command: &mut std::process::Command) -> anyhow::Result<String> {
    let output = command.output()?;
    anyhow::ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The key of an object that `ipcmk` made and everybody may use.
fn shared_object(list: &str, options: &[&str]) -> anyhow::Result<i64> {
    let made = run(std::process::Command::new("ipcmk")
        .args(options)
        .args(["-p", "0666"]))?;
    let id: i64 = made.rsplit(' ').next().unwrap_or_default().trim().parse()?;
    let listed = std::fs::read_to_string(Path::new("/proc/sysvipc").join(list))?;
    let key = listed.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (key, found) = (fields.next()?, fields.next()?);
        (found.parse() == Ok(id)).then(|| key.parse::<i64>().ok())?
    });
    key.with_context(|| format!("no object {id}"))
}

/// A block device of this machine, or what it would be called.
fn disk() -> anyhow::Result<String> {
    let listed = std::fs::read_to_string("/proc/partitions")?;
    let name = listed
        .lines()
        .skip(2)
        .filter_map(|line| line.split_whitespace().last())
        .filter(|name| {
            !["loop", "ram", "zram"]
                .iter()
                .any(|kind| name.starts_with(kind))
        })
        .find(|name| Path::new("/dev").join(name).exists());
    Ok(format!("/dev/{}", name.unwrap_or("sda")))
}
