//! Attempts to get out, each with the same attempt outside as its control.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use serde_json::{Value, json};

use crate::support::{Scene, is_root};

/// Attempts that only root can make outside, or that need a kernel option: their control is not asked of everybody.
const NEED_ROOT: &[&str] = &[
    "see memory of init",
    "trace init",
    "read init's memory",
    "take init's descriptor",
    "move_mount",
    "mount_setattr",
    "finit_module",
    "open_by_handle_at",
    "mount",
    "remount",
    "unmount",
    "pivot_root",
    "chroot",
    "fsopen",
    "setns",
    "mknod",
    "open /dev/mem",
    "write core_pattern",
    "write sysrq-trigger",
    "write the toolchain",
    "bpf",
    "perf_event_open",
    "kexec_load",
    "init_module",
    "raw socket",
    "packet socket",
    "see the server's root",
    "trace the server",
    "trace oneself",
    "take the server's descriptor",
    "read the server's memory",
    "see the server's environment",
    "userfaultfd",
    "io_uring_setup",
    "open_tree",
];

/// Attempts the kernel under test may not offer at all.
const NEED_KERNEL_OPTION: &[&str] = &[
    "int 0x80",
    "MPTCP",
    "open /dev/mem",
    "write sysrq-trigger",
    "kexec_load",
    "init_module",
    "userfaultfd",
    "bpf",
    "perf_event_open",
    "TCP fast open",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "finit_module",
];

/// What is outside: a file, sockets and listeners, and the ways to them.
struct Outside {
    canary: tempfile::TempDir,
    tcp: TcpListener,
    udp: UdpSocket,
    _local: UnixListener,
    _abstract_local: UnixListener,
    context: Value,
}

impl Outside {
    fn new(scene: &Scene) -> anyhow::Result<Self> {
        let canary = tempfile::tempdir()?;
        let file = canary.path().join("canary");
        std::fs::write(&file, "the canary")?;
        std::os::unix::fs::symlink(&file, scene.path().join("link"))?;
        let socket = canary.path().join("socket");
        let name = format!(
            "jail-test-{}-{}",
            std::process::id(),
            canary.path().display()
        );
        let (tcp, udp) = (
            TcpListener::bind("127.0.0.1:0")?,
            UdpSocket::bind("127.0.0.1:0")?,
        );
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        let up = "../".repeat(12);
        let context = json!({
            "canary": file,
            "link": "link",
            "detour": format!("{up}{}", file.display()),
            "socket": socket,
            "abstract_socket": name,
            "tcp": tcp.local_addr()?.port(),
            "udp": udp.local_addr()?.port(),
            "server": std::process::id(),
            "init": 1,
            "shared_memory": shared_memory()?,
        });
        Ok(Self {
            _local: UnixListener::bind(&socket)?,
            _abstract_local: UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?,
            canary,
            tcp,
            udp,
            context,
        })
    }

    /// Connections and datagrams that arrived since this was last asked.
    fn arrived(&self) -> usize {
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

/// The key of a shared memory segment made with the `ipcmk` way of the shell tools; it is removed by [`remove_shared_memory`].
fn shared_memory() -> anyhow::Result<i64> {
    let made = std::process::Command::new("ipcmk")
        .args(["-M", "4096", "-p", "0666"])
        .output()?;
    let id: i64 = String::from_utf8(made.stdout)?
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .trim()
        .parse()?;
    let listed = std::fs::read_to_string("/proc/sysvipc/shm")?;
    let key = listed.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (key, found) = (fields.next()?, fields.next()?);
        (found.parse() == Ok(id)).then(|| key.parse::<i64>().ok())?
    });
    key.ok_or_else(|| anyhow::anyhow!("no segment {id}"))
}

fn remove_shared_memory(context: &Value) -> anyhow::Result<()> {
    let key = context["shared_memory"].to_string();
    std::process::Command::new("ipcrm")
        .args(["-M", &key])
        .status()?;
    Ok(())
}

fn results(told: &Value) -> anyhow::Result<BTreeMap<String, i32>> {
    Ok(serde_json::from_value(told.clone())?)
}

#[tokio::test]
async fn no_attempt_succeeds_inside_and_the_same_attempts_succeed_outside() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let outside = Outside::new(&scene)?;
    let context = outside.context.to_string();

    let inside = results(&scene.told(&["attempt", &context]).await?)?;
    let arrived_from_inside = outside.arrived();
    let mode_after_inside = std::fs::metadata(outside.canary.path().join("canary"))?
        .permissions()
        .mode();
    // The host's own init may be guarded by other means; any process of the same user stands for it.
    let mut context = outside.context.clone();
    context["init"] = json!(std::process::id());
    let control = results(&scene.told_outside(&["attempt", &context.to_string()])?)?;
    remove_shared_memory(&outside.context)?;

    let succeeded: Vec<_> = inside.iter().filter(|(_, result)| **result == 0).collect();
    assert!(
        succeeded.is_empty(),
        "these succeeded inside the jail: {succeeded:?}"
    );
    assert_eq!(
        arrived_from_inside, 0,
        "bytes arrived at a listener of the host"
    );
    assert_eq!(mode_after_inside & 0o7777, 0o644);

    let vacuous: Vec<_> = control
        .iter()
        .filter(|(name, result)| {
            **result != 0
                && !(NEED_KERNEL_OPTION.contains(&name.as_str())
                    || !is_root() && NEED_ROOT.contains(&name.as_str()))
        })
        .collect();
    assert!(
        vacuous.is_empty(),
        "these prove nothing, they fail outside too: {vacuous:?}"
    );
    assert!(outside.arrived() >= 2, "the controls reached no listener");
    assert_eq!(inside.len(), control.len());
    // clone3 must look missing, so that libc falls back to clone and threads work.
    assert_eq!(inside["clone3 a user namespace"], libc::ENOSYS);
    assert_eq!(inside["int 0x80"], -libc::SIGSYS);
    Ok(())
}

#[tokio::test]
async fn a_command_has_no_capabilities_no_new_privileges_and_three_descriptors()
-> anyhow::Result<()> {
    // Descriptors that a careless server left open across exec.
    let careless: Vec<_> = (0..50)
        .map(|_| {
            rustix::fs::open(
                "/etc",
                rustix::fs::OFlags::RDONLY,
                rustix::fs::Mode::empty(),
            )
        })
        .collect::<Result<_, _>>()?;
    let scene = Scene::new()?;
    let told = scene.told(&["describe"]).await?;
    drop(careless);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(told["status"][set], "0000000000000000", "{set}");
    }
    assert_eq!(told["status"]["NoNewPrivs"], "1");
    assert_eq!(told["status"]["Seccomp"], "2");
    assert_eq!(told["descriptors"], json!([0, 1, 2]));
    assert_eq!(
        told["environment"],
        json!({"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"})
    );
    // At 1 the kernel calls no handler of the host; at 0 it would.
    assert_eq!(told["core_limit"], 1);
    assert_ne!(told["effective_uid"], 0);
    assert_eq!(
        told["devices"],
        json!([
            "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
            "tty", "urandom", "zero"
        ])
    );
    // Init and the probe itself: nobody else of the machine is seen.
    assert_eq!(told["processes"], json!([1, 2]));
    let control = scene.told_outside(&["describe"])?;
    assert!(
        control["processes"]
            .as_array()
            .is_some_and(|seen| seen.len() > 2)
    );
    Ok(())
}

#[tokio::test]
async fn the_environment_is_exactly_the_one_that_was_given() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.probe(&["describe"])?;
    spec.command.env = vec![("ONLY".into(), "this = that".into())];
    let output = scene.output(spec).await?;
    let told: Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(told["environment"], json!({"ONLY": "this = that"}));
    Ok(())
}

#[tokio::test]
async fn the_kernel_sees_an_unprivileged_user_and_files_belong_to_the_workspaces_owner()
-> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let scene = Scene::new()?;
    let mut process = scene
        .launcher
        .run(scene.spec(["/bin/sh", "-c", "echo x > made; echo ready; cat"])?)
        .await?;
    // `cat` on /dev/null ends at once; what counts is read before.
    let uid = std::fs::read_to_string(format!("/proc/{}/status", process.jail.identity().pid))?;
    crate::support::first_line(&mut process).await?;
    let uid = uid
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .unwrap_or_default()
        .trim()
        .to_owned();
    assert!(!uid.starts_with('0') && !uid.is_empty(), "kernel uid {uid}");
    assert_eq!(
        uid.split('\t').next(),
        Some(process.jail.isolation().kernel_uid.to_string().as_str())
    );
    let made = std::fs::metadata(scene.path().join("made"))?;
    assert_eq!(made.uid(), std::fs::metadata(scene.path())?.uid());
    Ok(())
}

#[tokio::test]
async fn a_setuid_program_gives_nothing() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let program = scene.path().join("setuid");
    std::fs::copy(crate::support::probe(), &program)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o6755))?;
    let output = scene.output(scene.spec(["./setuid", "describe"])?).await?;
    let told: Value = serde_json::from_str(&output.stdout)?;
    let uids = told["status"]["Uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let mut distinct: Vec<_> = uids.split_whitespace().collect();
    distinct.dedup();
    assert_eq!(distinct.len(), 1, "{uids}");
    assert_ne!(distinct[0], "0");
    assert_eq!(told["status"]["CapEff"], "0000000000000000");
    if is_root() {
        use std::os::unix::process::CommandExt as _;
        std::fs::set_permissions(scene.path(), std::fs::Permissions::from_mode(0o755))?;
        let control = std::process::Command::new(&program)
            .arg("describe")
            .uid(65534)
            .gid(65534)
            .output()?;
        let control: Value = serde_json::from_slice(&control.stdout)?;
        assert_eq!(
            control["effective_uid"], 0,
            "the program is not setuid outside either"
        );
    }
    Ok(())
}

#[tokio::test]
async fn threads_work_although_clone3_looks_missing() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    assert_eq!(scene.told(&["threads", "8"]).await?, json!(8));
    Ok(())
}

#[tokio::test]
async fn what_a_crash_leaves_is_no_core_dump() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let output = scene.shell("ulimit -c; kill -SEGV $$").await?;
    assert_eq!(
        (output.stdout.as_str(), output.exit.signal),
        ("0\n", Some(libc::SIGSEGV))
    );
    let left: Vec<_> = std::fs::read_dir(scene.path())?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["probe"]);
    Ok(())
}

#[tokio::test]
async fn a_layer_that_is_left_out_is_named_and_really_missing() -> anyhow::Result<()> {
    use mcp_bash_commander::jail::Layer;
    let scene = Scene::new()?;
    let outside = Outside::new(&scene)?;
    let context = outside.context.to_string();
    for (layer, opened) in [
        (Layer::Seccomp, "keyctl"),
        (Layer::Landlock, "bind a socket in the workspace"),
        (Layer::IpcNs, "attach shared memory"),
    ] {
        let mut spec = scene.probe(&["attempt", &context])?;
        spec.without = vec![layer];
        let process = scene.launcher.run(spec).await?;
        let missing = process.jail.isolation().missing.clone();
        assert_eq!(missing[0], layer.name(), "{missing:?}");
        let told = crate::support::finish(process).await?;
        let inside = results(&serde_json::from_str(&told.stdout)?)?;
        assert_eq!(inside.get(opened), Some(&0), "{layer}: {inside:?}");
    }
    remove_shared_memory(&outside.context)
}
