//! Attempts to get out, each with the same attempt outside as its control.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use serde_json::{Value, json};

use crate::matrix::{NEED_GROUP, measured};
use crate::outside::Outside;
use crate::support::{Scene, finish, has_group, is_root};

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
    "acct",
    "compare processes",
    "delete_module",
    "fsconfig",
    "fsmount",
    "fspick",
    "have a capability",
    "have init killed first",
    "kexec_file_load",
    "open a disk",
    "open the kernel's log",
    "read /etc/shadow",
    "read the kernel's memory",
    "reboot",
    "setdomainname",
    "sethostname",
    "swapoff",
    "swapon",
    "syslog",
    "unshare the mounts",
    "unshare the network",
    "unshare the time",
    "write a setting of the network",
    "write modprobe",
    "AF_CAN",
    "AF_KEY",
    "AF_XDP",
    "bluetooth",
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
    "acct",
    "compare processes",
    "delete_module",
    "fanotify_init",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "modify_ldt",
    "open /dev/kvm",
    "open a disk",
    "open the kernel's log",
    "quotactl",
    "read the kernel's memory",
    "see the host's control groups",
    "swapoff",
    "swapon",
    "write modprobe",
    "x32 getpid",
];

pub(crate) fn results(told: &Value) -> anyhow::Result<BTreeMap<String, i32>> {
    Ok(serde_json::from_value(told.clone())?)
}

#[tokio::test]
async fn no_attempt_succeeds_inside_and_the_same_attempts_succeed_outside() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let outside = Outside::new(&scene)?;
    let facts = || -> anyhow::Result<_> {
        let facts = std::fs::metadata(outside.canary())?;
        let changed = (facts.ctime(), facts.ctime_nsec());
        Ok((facts.mode(), facts.nlink(), facts.len(), changed))
    };
    let before = facts()?;

    let process = scene
        .launcher
        .run(measured(&scene, &outside.context, None)?)
        .await?;
    let has_group = has_group(process.jail.isolation());
    let output = finish(process).await?;
    let inside = results(&serde_json::from_str(&output.stdout)?)?;
    let arrived_from_inside = outside.arrived();
    assert_eq!(facts()?, before, "the canary was changed");
    let context = outside.context_of_the_control().to_string();
    let control = results(&scene.told_outside(&["attempt", &context])?)?;

    let succeeded: Vec<_> = inside
        .iter()
        .filter(|(name, result)| {
            **result == 0 && (has_group || !NEED_GROUP.contains(&name.as_str()))
        })
        .collect();
    assert!(
        succeeded.is_empty(),
        "these succeeded inside the jail: {succeeded:?}"
    );
    assert_eq!(
        arrived_from_inside, 0,
        "bytes arrived at a listener of the host"
    );

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
    let mut spec = scene.spec(["/bin/sh", "-c", "echo x > made; echo ready; cat"])?;
    // It runs until nobody can write to it any more.
    spec.command.stdin = mcp_bash_commander::jail::Stdin::Pipe;
    let mut process = scene.launcher.run(spec).await?;
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
