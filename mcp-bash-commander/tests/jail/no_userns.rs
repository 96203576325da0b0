//! Jails on hosts without user namespaces: the layers of a process hold alone, and each result says what they cannot do.

use std::path::Path;

use mcp_bash_commander::jail::{
    Access, CommandSpec, JailError, JailSpec, Launcher, Layer, Lifetime, Masked, Mode, Network,
    PinnedInput, Stdin, TerminalSize, Workspace,
};
use mcp_bash_commander::publish::PublishedPort;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::escape::results;
use crate::matrix::{NEED_GROUP, Results, measured};
use crate::outside::Outside;
use crate::support::{
    Output, Scene, becomes_true, finish, first_line, has_groups_or_skips, is_gone, is_root, marked,
    probe,
};

/// Whose the workspace is where the tests run as root.
const SOMEBODY: u32 = 41_236;

struct Hosted(Scene);

impl Hosted {
    fn new() -> anyhow::Result<Self> {
        let hosted = Self(Scene::new()?);
        hosted.give_workspace()?;
        Ok(hosted)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn give_workspace(&self) -> anyhow::Result<()> {
        if is_root() {
            let given = std::process::Command::new("chown")
                .args(["-R", &format!("{SOMEBODY}:{SOMEBODY}")])
                .arg(self.path())
                .status()?;
            anyhow::ensure!(given.success(), "chown: {given}");
        }
        Ok(())
    }

    fn spec(&self, argv: &[&str]) -> anyhow::Result<JailSpec> {
        let mut spec = JailSpec::new(argv.iter().copied());
        let place = self.path();
        spec.workspace = Some(Workspace::open(place, place, Access::ReadWrite)?);
        place.clone_into(&mut spec.command.cwd);
        spec.modes = vec![Mode::NoUserns];
        Ok(spec)
    }

    async fn output(&self, spec: JailSpec) -> anyhow::Result<Output> {
        finish(self.0.launcher.run(spec).await?).await
    }

    async fn shell(&self, command: &str) -> anyhow::Result<Output> {
        self.output(self.spec(&["/bin/sh", "-c", command])?).await
    }

    fn further(&self, command: &str) -> CommandSpec {
        let mut spec = CommandSpec::new(["/bin/sh", "-c", command]);
        self.path().clone_into(&mut spec.cwd);
        spec
    }
}

#[tokio::test]
async fn a_command_is_told_of_like_any_other_and_what_is_missing_with_it() -> anyhow::Result<()> {
    let hosted = Hosted::new()?;
    let mut spec = hosted.spec(&[
        "/bin/sh",
        "-c",
        "cat; echo err >&2; touch here $TMPDIR/there; ls $HOME; id -u; exit 3",
    ])?;
    spec.command.stdin = Stdin::Bytes(b"in\n".to_vec());
    spec.command.env.push(("HOME".into(), "/tmp".into()));
    let process = hosted.0.launcher.run(spec).await?;
    let isolation = process.jail.isolation().clone();
    let output = finish(process).await?;
    let uid = isolation.kernel_uid;
    assert_eq!(
        (output.stdout, output.stderr.as_str(), output.exit.code),
        (format!("in\nthere\n{uid}\n"), "err\n", Some(3))
    );
    assert_eq!((isolation.mode, uid != 0), (Mode::NoUserns, true));
    let layers: Vec<&str> = isolation
        .layers
        .iter()
        .filter_map(|layer| layer.split(':').next())
        // Not everybody can have one.
        .filter(|layer| *layer != "cgroup")
        .collect();
    assert_eq!(
        layers,
        [
            "workspace",
            "limits",
            "no_new_privs",
            "landlock",
            "seccomp",
            "denial_reports"
        ]
    );
    for missing in [
        "user_ns",
        "mnt_ns",
        "pid_ns",
        "net_ns",
        "private_root",
        "capabilities",
    ] {
        assert!(
            isolation.missing.iter().any(|layer| layer == missing),
            "{isolation:?}"
        );
    }
    assert!(hosted.path().join("here").exists());
    Ok(())
}

#[tokio::test]
async fn nothing_but_the_grants_is_read_and_nothing_but_the_workspace_changed() -> anyhow::Result<()>
{
    let hosted = Hosted::new()?;
    let outside = tempfile::tempdir()?;
    std::fs::write(outside.path().join("canary"), "canary")?;
    for open in [outside.path(), hosted.path()] {
        std::fs::set_permissions(open, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    }
    let canary = outside.path().join("canary");
    let attempts = format!(
        "cat {canary}; ls {folder}; echo x > {folder}/new; ls /; ls /root /home /tmp; cat /etc/shadow; cat /proc/1/environ; \
         echo x > /tmp/mine-{own}; ln {canary} stolen; mv {canary} moved; rm -f {canary}; echo done",
        canary = canary.display(),
        folder = outside.path().display(),
        own = std::process::id(),
    );
    let told = hosted.shell(&attempts).await?;
    assert_eq!(told.stdout, "done\n", "{}", told.stderr);
    assert_eq!(std::fs::read_to_string(&canary)?, "canary");
    assert_eq!(std::fs::read_dir(outside.path())?.count(), 1);
    let control = std::process::Command::new("/bin/sh")
        .args(["-c", &format!("cat {}", canary.display())])
        .output()?;
    assert_eq!(control.stdout, b"canary");
    Ok(())
}

/// What of the probe's attempts succeeds: what Landlock and filters cannot know of. Each is in the documentation of this mode.
const OPEN: &[&str] = &[
    "chmod canary",
    "chown canary",
    "have a capability in reach",
    "hold the server",
    "keep capabilities over a change of user",
    "look into /sys",
    "see the host's control groups",
    "see the host's name",
    "see the server's command line",
    "see the server's directory",
    "set attribute of canary",
    "set times of canary",
    "share the host's view of control groups",
    "stat canary",
    "watch canary",
    "write 8 MiB into /tmp",
];

/// All attempts of the probe in a jail of this kind.
pub(crate) async fn attempted() -> anyhow::Result<Results> {
    let hosted = Hosted::new()?;
    let outside = Outside::new(&hosted.0)?;
    hosted.give_workspace()?;
    let mut spec = hosted.spec(&[])?;
    // There is no init of the jail's own to be named.
    let context = outside.context_of_the_control();
    spec.command = measured(&hosted.0, &context, None)?.command;
    hosted.path().clone_into(&mut spec.command.cwd);
    spec.limits = measured(&hosted.0, &context, None)?.limits;
    let output = hosted.output(spec).await?;
    assert_eq!(outside.arrived(), 0);
    results(&serde_json::from_str(&output.stdout)?)
}

#[tokio::test]
async fn of_all_attempts_only_those_succeed_that_are_named() -> anyhow::Result<()> {
    let attempted = attempted().await?;
    let of_groups = "memory of several processes together";
    let has_groups = has_groups_or_skips(&Scene::new()?, of_groups).await?;
    let open = attempted
        .iter()
        .filter(|(_, errno)| **errno == 0)
        .map(|(name, _)| name.as_str());
    let is_expected = |name: &&str| OPEN.contains(name) || !has_groups && NEED_GROUP.contains(name);
    let unexpected: Vec<&str> = open.filter(|name| !is_expected(name)).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    Ok(())
}

#[tokio::test]
async fn no_socket_can_be_had_but_one_that_listens_where_it_is_published() -> anyhow::Result<()> {
    let hosted = Hosted::new()?;
    let host = std::net::TcpListener::bind("127.0.0.1:0")?;
    host.set_nonblocking(true)?;
    let port = host.local_addr()?.port();
    // Found free, and given up for the jail.
    let published = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let attempt = r"
import socket, sys
def attempt(name, work):
    try:
        work(); print(name)
    except OSError as error:
        pass
host, own = int(sys.argv[1]), int(sys.argv[2])
for family in ('AF_INET', 'AF_INET6', 'AF_UNIX', 'AF_NETLINK'):
    for kind in ('SOCK_STREAM', 'SOCK_DGRAM', 'SOCK_RAW'):
        attempt(family + ' ' + kind, lambda: socket.socket(getattr(socket, family), getattr(socket, kind)))
attempt('connect', lambda: socket.create_connection(('127.0.0.1', host), 1).sendall(b'x'))
attempt('fast open', lambda: socket.socket().sendto(b'x', 0x20000000, ('127.0.0.1', host)))
attempt('bind another', lambda: socket.socket().bind(('127.0.0.1', own + 1 if own < 65535 else 1024)))
attempt('bind', lambda: socket.socket().bind(('127.0.0.1', own)))
attempt('pair', lambda: socket.socketpair())
attempt('datagram pair', lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
";
    let arguments = |port: u16, published: u16| [port.to_string(), published.to_string()];
    let run = async |ports: Vec<u16>, network: Network| -> anyhow::Result<String> {
        let [host, own] = arguments(port, published);
        let mut spec = hosted.spec(&["/usr/bin/python3", "-c", attempt, &host, &own])?;
        spec.published = ports;
        spec.network = network;
        Ok(hosted.output(spec).await?.stdout)
    };
    assert_eq!(run(Vec::new(), Network::None).await?, "pair\n");
    assert_eq!(
        run(vec![published], Network::None).await?,
        "AF_INET SOCK_STREAM\nbind\npair\n"
    );
    assert!(host.accept().is_err(), "the host was reached");
    let control = run(Vec::new(), Network::Host).await?;
    assert!(
        control.contains("\nconnect\n") && !control.contains("AF_UNIX"),
        "{control}"
    );
    assert!(host.accept().is_ok());
    for network in [Network::Loopback, Network::Proxy] {
        let mut spec = hosted.spec(&["true"])?;
        spec.network = network;
        let refused = hosted.0.launcher.run(spec).await;
        assert!(
            matches!(
                refused,
                Err(JailError::Layer {
                    layer: Layer::NetNs,
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_published_port_is_reached_only_while_the_jail_itself_listens_there() -> anyhow::Result<()>
{
    let hosted = Hosted::new()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let mut spec = hosted.spec(&["./probe", "listen", &port.to_string()])?;
    spec.published = vec![port];
    let mut process = hosted.0.launcher.run(spec).await?;
    assert_eq!(first_line(&mut process).await?, port.to_string());
    let published = PublishedPort::open(&process.jail, port).await?;
    let mut stream = TcpStream::connect(published.address()).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert!(answer.ends_with(":hello"), "{answer}");
    assert_eq!(process.jail.end_serving(port)?.len(), 1);

    let somebody = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = somebody.local_addr()?.port();
    let mut spec = hosted.spec(&["/bin/sh", "-c", "echo ready; sleep 1000"])?;
    spec.published = vec![port];
    let mut process = hosted.0.launcher.run(spec).await?;
    first_line(&mut process).await?;
    let refused = process.jail.connect(port).await;
    assert_eq!(
        refused.err().map(|error| error.kind()),
        Some(std::io::ErrorKind::ConnectionRefused)
    );
    Ok(())
}

/// Daemons whose command lines end in `mark`.
fn daemons(mark: &str) -> String {
    format!(
        "sleep {mark} & setsid sleep {mark} & (setsid sh -c 'sleep {mark} & sleep {mark}' &) ; sleep 0.1; echo ready; sleep {mark}"
    )
}

#[tokio::test]
async fn nothing_outlives_its_command_its_jail_or_its_server() -> anyhow::Result<()> {
    let hosted = Hosted::new()?;
    let mark = |number: u32| format!("5{number}{}", std::process::id());
    let none_is_left =
        async |mark: &str| becomes_true("nothing is left", || marked(mark).is_empty()).await;

    let mut process = hosted
        .0
        .launcher
        .run(hosted.spec(&["/bin/sh", "-c", &daemons(&mark(1))])?)
        .await?;
    first_line(&mut process).await?;
    assert!(marked(&mark(1)).len() >= 5);
    process.jail.kill()?;
    process.jail.finished().await;
    none_is_left(&mark(1)).await?;
    assert_eq!(process.command.wait().await.signal, Some(libc::SIGKILL));
    becomes_true("init was reaped", || is_gone(&process.jail)).await?;

    let mut process = hosted
        .0
        .launcher
        .run(hosted.spec(&["/bin/sh", "-c", &daemons(&mark(2))])?)
        .await?;
    first_line(&mut process).await?;
    drop(process);
    none_is_left(&mark(2)).await?;

    let mut process = hosted
        .0
        .launcher
        .run(hosted.spec(&["/bin/sh", "-c", &daemons(&mark(3))])?)
        .await?;
    first_line(&mut process).await?;
    // Not even where init cannot do it.
    let init = rustix::process::Pid::from_raw(process.jail.identity().pid)
        .ok_or_else(|| anyhow::anyhow!("no init"))?;
    rustix::process::kill_process(init, rustix::process::Signal::KILL)?;
    none_is_left(&mark(3)).await?;

    let mut spec = hosted.spec(&[
        "/bin/sh",
        "-c",
        &format!("setsid sleep {} & exit 3", mark(4)),
    ])?;
    spec.linger = std::time::Duration::from_millis(50);
    let process = hosted.0.launcher.run(spec).await?;
    assert_eq!(process.command.wait().await.code, Some(3));
    none_is_left(&mark(4)).await?;

    let mut server = std::process::Command::new(probe())
        .args(["serve", "without namespaces"])
        .arg(hosted.path())
        .arg(format!("echo $TMPDIR > folder; {}", daemons(&mark(5))))
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    becomes_true("the daemons run", || {
        marked(&format!("sleep\0{}", mark(5))).len() >= 5
    })
    .await?;
    server.kill()?;
    server.wait()?;
    none_is_left(&mark(5)).await?;
    let folder = std::fs::read_to_string(hosted.path().join("folder"))?;
    let is_left = || Path::new(folder.trim()).exists();
    becomes_true("its folder is gone", || !is_left()).await?;
    Ok(())
}

#[tokio::test]
async fn a_fork_bomb_stops_at_the_limit_and_is_ended() -> anyhow::Result<()> {
    let hosted = Hosted::new()?;
    let mut spec = hosted.spec(&["./probe", "fork", "100"])?;
    spec.limits.processes = 20;
    spec.linger = std::time::Duration::ZERO;
    let output = hosted.output(spec).await?;
    let (count, errno): (u64, i32) = serde_json::from_str(&output.stdout)?;
    assert!(count <= 40, "{count} processes");
    assert_eq!(errno, libc::EAGAIN);
    Ok(())
}

#[tokio::test]
async fn a_session_keeps_its_tmp_and_has_terminals() -> anyhow::Result<()> {
    let hosted = Hosted::new()?;
    let mut spec = hosted.spec(&["/bin/sh", "-c", "echo left > $TMPDIR/file; echo $TMPDIR"])?;
    spec.lifetime = Lifetime::Kept;
    let process = hosted.0.launcher.run(spec).await?;
    let jail = process.jail.clone();
    let tmp = finish(process).await?.stdout.trim().to_owned();
    let told = finish(jail.start(&hosted.further("cat $TMPDIR/file")).await?).await?;
    assert_eq!(told.stdout, "left\n");
    let number = |number| std::num::NonZeroU16::new(number).ok_or_else(|| anyhow::anyhow!("0"));
    let mut terminal = hosted.further("stty size </dev/tty");
    terminal.stdin = Stdin::Terminal(TerminalSize {
        rows: number(33)?,
        columns: number(101)?,
    });
    let told = finish(jail.start(&terminal).await?).await?;
    assert_eq!(told.stdout, "33 101\r\n", "{}", told.stderr);
    assert!(Path::new(&tmp).exists());
    jail.kill()?;
    jail.finished().await;
    assert!(!Path::new(&tmp).exists(), "{tmp} is left");
    Ok(())
}

#[tokio::test]
async fn a_protected_path_or_input_that_a_command_changes_is_told_and_nothing_more_runs()
-> anyhow::Result<()> {
    let hosted = Hosted::new()?;
    std::fs::create_dir_all(hosted.path().join(".git/hooks"))?;
    std::fs::write(hosted.path().join(".git/config"), "old")?;
    std::fs::write(hosted.path().join("input"), "hashed")?;
    hosted.give_workspace()?;
    let guarded = || -> anyhow::Result<JailSpec> {
        let mut spec = hosted.spec(&["true"])?;
        spec.lifetime = Lifetime::Kept;
        spec.protected = [".git/hooks", ".git/config", ".mcp.json"]
            .map(Into::into)
            .to_vec();
        let target = hosted.path().join("input");
        spec.inputs = vec![PinnedInput::seal(&target, &b"hashed"[..], 99)?];
        Ok(spec)
    };
    for (change, told) in [
        (
            "echo evil > .git/config; echo old > .git/config",
            Some(".git/config"),
        ),
        ("echo evil > .git/hooks/pre-commit", Some(".git/hooks")),
        ("chmod 777 .git/config", Some(".git/config")),
        ("echo evil > input; printf hashed > input", Some("input")),
        ("touch .git/index other; cat input", None),
    ] {
        let jail = hosted.0.launcher.run(guarded()?).await?.jail;
        let process = jail.start(&hosted.further(change)).await?;
        let command = process.command.clone();
        finish(process).await?;
        let told: Vec<_> = told.iter().map(|path| hosted.path().join(path)).collect();
        assert_eq!(command.replaced(), told, "{change}");
        assert_eq!(
            jail.start(&hosted.further("true")).await.is_err(),
            !told.is_empty(),
            "{change}"
        );
        if hosted.path().join(".git/hooks/pre-commit").exists() {
            std::fs::remove_file(hosted.path().join(".git/hooks/pre-commit"))?;
        }
    }
    std::fs::write(hosted.path().join("input"), "something else")?;
    let refused = hosted.0.launcher.run(guarded()?).await;
    assert!(
        matches!(
            &refused,
            Err(JailError::Layer {
                layer: Layer::PinnedInputs,
                errno: libc::ESTALE,
                ..
            })
        ),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn what_needs_a_root_or_network_of_its_own_is_refused_by_name() -> anyhow::Result<()> {
    let hosted = Hosted::new()?;
    let mut closed = hosted.spec(&["true"])?;
    closed.masked = vec![Masked {
        path: ".env".into(),
        is_directory: false,
    }];
    let mut elsewhere = hosted.spec(&["true"])?;
    elsewhere.workspace = Some(Workspace::open(
        hosted.path(),
        "/w".as_ref(),
        Access::ReadWrite,
    )?);
    let kept_aside = tempfile::tempdir()?;
    let mut overlaid = hosted.spec(&["true"])?;
    overlaid.workspace = overlaid
        .workspace
        .map(|workspace| workspace.with_overlay(kept_aside.path()))
        .transpose()?;
    for (spec, lacking) in [
        (closed, Layer::PrivateRoot),
        (elsewhere, Layer::PrivateRoot),
        (overlaid, Layer::Overlay),
    ] {
        let refused = hosted.0.launcher.run(spec).await;
        assert!(
            matches!(&refused, Err(JailError::Layer { layer, .. }) if *layer == lacking),
            "{refused:?}"
        );
    }
    if is_root() {
        std::os::unix::fs::chown(hosted.path(), Some(0), Some(0))?;
        let refused = hosted.0.launcher.run(hosted.spec(&["true"])?).await;
        assert!(
            matches!(
                &refused,
                Err(JailError::Layer {
                    layer: Layer::Workspace,
                    errno: libc::EPERM,
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_host_that_allowed_a_strict_jail_once_gets_no_other_for_want_of_something()
-> anyhow::Result<()> {
    let closed = Path::new("/proc/1/root/tool");
    if closed
        .symlink_metadata()
        .map_err(|error| error.kind())
        .err()
        != Some(std::io::ErrorKind::PermissionDenied)
    {
        // Root is refused nothing by a file's mode; as an ordinary user this runs too.
        return Ok(());
    }
    let hosted = Hosted::new()?;
    let mut spec = hosted.spec(&["true"])?;
    spec.modes = vec![Mode::Strict, Mode::NoUserns];
    let mut lacking = spec.clone();
    lacking.read_only.push(closed.to_owned());
    let refusing = async |launcher: &Launcher| match launcher.run(lacking.clone()).await {
        Err(JailError::Layer { layer, errno, .. }) => Ok((layer, errno)),
        other => anyhow::bail!("{other:?}"),
    };
    let fresh = Launcher::start_from(&probe())?;
    assert_eq!(
        refusing(&fresh).await?.0,
        Layer::Landlock,
        "the control was not degraded"
    );
    assert_eq!(
        hosted.0.launcher.run(spec).await?.jail.isolation().mode,
        Mode::Strict
    );
    assert_eq!(
        refusing(&hosted.0.launcher).await?,
        (Layer::PrivateRoot, libc::EACCES)
    );
    Ok(())
}
