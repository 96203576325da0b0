//! Jails in containers: the same commands, the same results, and nothing left of them.

use std::num::NonZeroU16;
use std::os::unix::fs::MetadataExt as _;

use anyhow::Context as _;
use mcp_bash_commander::jail::{
    CommandSpec, ContainerSettings, JailError, JailSpec, Launcher, Layer, Lifetime, Masked, Mode,
    Network, PinnedInput, Reach, Stdin, TerminalSize,
};
use mcp_bash_commander::publish::PublishedPort;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::escape::results;
use crate::matrix::{Results, measured};
use crate::outside::Outside;
use crate::skips::container_image;
use crate::support::{
    Output, PLACE, Scene, becomes_true, finish, first_line, is_gone, is_root, marked, probe,
};

/// A scene whose jails are containers; none where the tests were given no engine.
struct Contained {
    scene: Scene,
    state: tempfile::TempDir,
}

/// The image of a scene that there is.
fn image() -> anyhow::Result<String> {
    container_image()?.context("no image")
}

fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let output = std::process::Command::new("docker")
        .args(arguments)
        .output()?;
    anyhow::ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

impl Contained {
    fn new() -> anyhow::Result<Option<Self>> {
        let Some(image) = container_image()? else {
            return Ok(None);
        };
        let mut scene = Scene::new()?;
        let state = tempfile::tempdir()?;
        scene.launcher = scene.launcher.with_containers(ContainerSettings {
            image,
            engine: None,
            runtime: None,
            directory: state.path().join("containers"),
        });
        let contained = Self { scene, state };
        contained.give_workspace()?;
        Ok(Some(contained))
    }

    /// Lets the container's user own all of the workspace.
    fn give_workspace(&self) -> anyhow::Result<()> {
        if is_root() {
            let owner = format!("{SOMEBODY}:{SOMEBODY}");
            let given = std::process::Command::new("chown")
                .args(["-R", &owner])
                .arg(self.scene.path())
                .status()?;
            anyhow::ensure!(given.success(), "chown: {given}");
        }
        Ok(())
    }

    /// No container of these tests' processes is there, nor any of their files.
    async fn leaves_nothing(&self) -> anyhow::Result<()> {
        let of_this = format!("{}.", std::process::id());
        let left = || {
            let format = "{{.Label \"spec-driven-ai.mcp-bash-commander\"}} {{.Mounts}}";
            let listed =
                docker(&["ps", "--all", "--no-trunc", "--format", format]).unwrap_or_default();
            let place = self.scene.path().display().to_string();
            listed
                .lines()
                .filter(|line| line.contains(&of_this) && line.contains(&place))
                .count()
        };
        becomes_true("no container is left", || left() == 0).await?;
        let files = self.state.path().join("containers");
        let is_empty =
            || std::fs::read_dir(&files).is_ok_and(|mut entries| entries.next().is_none());
        becomes_true("no file is left", is_empty).await
    }

    fn spec(&self, argv: &[&str]) -> anyhow::Result<JailSpec> {
        let mut spec = self.scene.spec(argv.iter().copied())?;
        spec.modes = vec![Mode::Container];
        Ok(spec)
    }

    async fn shell(&self, command: &str) -> anyhow::Result<Output> {
        let spec = self.spec(&["/bin/sh", "-c", command])?;
        finish(self.scene.launcher.run(spec).await?).await
    }
}

/// Whose the workspace is where the tests run as root.
const SOMEBODY: u32 = 41_235;

/// The isolation of a container, whatever this kernel and engine have of what is optional.
const LAYERS: [&str; 14] = [
    "mnt_ns",
    "pid_ns",
    "ipc_ns",
    "uts_ns",
    "net_ns",
    "private_root",
    "workspace",
    "limits",
    "capabilities",
    "no_new_privs",
    "seccomp",
    "denial_reports",
    "cgroup_ns",
    "landlock",
];

#[tokio::test]
async fn a_command_in_a_container_is_told_of_like_any_other() -> anyhow::Result<()> {
    let Some(contained) = Contained::new()? else {
        return Ok(());
    };
    let mut spec = contained.spec(&[
        "/bin/sh",
        "-c",
        "cat; echo err >&2; pwd; echo $HOME; touch here; exit 3",
    ])?;
    spec.command.stdin = Stdin::Bytes(b"in\n".to_vec());
    spec.command.env.push(("HOME".into(), "/nowhere".into()));
    let process = contained.scene.launcher.run(spec).await?;
    let isolation = process.jail.isolation().clone();
    let output = finish(process).await?;
    assert_eq!(
        (
            output.stdout.as_str(),
            output.stderr.as_str(),
            output.exit.code
        ),
        ("in\n/w\n/nowhere\n", "err\n", Some(3))
    );
    assert_eq!(isolation.mode, Mode::Container);
    for layer in isolation.layers.iter().chain(&isolation.missing) {
        let name = layer.split(':').next().unwrap_or_default();
        assert!(
            LAYERS.contains(&name) || ["user_ns", "cgroup"].contains(&name),
            "{layer}"
        );
    }
    for layer in &LAYERS[..12] {
        assert!(
            isolation.layers.iter().any(|there| there == layer),
            "{layer}: {isolation:?}"
        );
    }
    assert!(
        isolation.missing.contains(&"user_ns".into()),
        "{isolation:?}"
    );
    assert!(isolation.kernel_uid != 0);
    assert!(contained.scene.path().join("here").exists());
    Ok(())
}

/// What of the probe's attempts succeeds in a container and in no strict jail, whatever the engine.
const OPEN: &[&str] = &[
    // Of no use without capabilities, of which there are none.
    "keep capabilities over a change of user",
    // Engines show it, read-only.
    "look into /sys",
    // The engine counts the processes, not a limit of each.
    "raise the limit of processes",
];

/// All attempts of the probe in a container; none without an engine.
pub(crate) async fn attempted() -> anyhow::Result<Option<Results>> {
    let Some(contained) = Contained::new()? else {
        return Ok(None);
    };
    let outside = Outside::new(&contained.scene)?;
    let mut spec = measured(&contained.scene, &outside.context, None)?;
    spec.modes = vec![Mode::Container];
    contained.give_workspace()?;
    let output = finish(contained.scene.launcher.run(spec).await?).await?;
    assert_eq!(outside.arrived(), 0);
    let told = serde_json::from_str(&output.stdout).with_context(|| output.stderr)?;
    Ok(Some(results(&told)?))
}

#[tokio::test]
async fn of_all_attempts_only_those_succeed_in_a_container_that_are_named() -> anyhow::Result<()> {
    let Some(attempted) = attempted().await? else {
        return Ok(());
    };
    let open = attempted
        .iter()
        .filter(|(_, errno)| **errno == 0)
        .map(|(name, _)| name.as_str());
    let unexpected: Vec<&str> = open.filter(|name| !OPEN.contains(name)).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_run_in_a_container_is_refused_for_the_same_reasons() -> anyhow::Result<()> {
    let Some(contained) = Contained::new()? else {
        return Ok(());
    };
    let launcher = &contained.scene.launcher;
    let no_program = launcher.run(contained.spec(&["no-such-program"])?).await;
    assert!(
        matches!(
            &no_program,
            Err(JailError::Program {
                errno: libc::ENOENT,
                ..
            })
        ),
        "{no_program:?}"
    );
    let mut elsewhere = contained.spec(&["true"])?;
    elsewhere.command.cwd = "/w/none".into();
    let elsewhere = launcher.run(elsewhere).await;
    assert!(
        matches!(
            &elsewhere,
            Err(JailError::WorkingDirectory {
                errno: libc::ENOENT,
                ..
            })
        ),
        "{elsewhere:?}"
    );
    let kept_aside = tempfile::tempdir()?;
    let mut overlaid = contained.spec(&["true"])?;
    overlaid.workspace = overlaid
        .workspace
        .map(|workspace| workspace.with_overlay(kept_aside.path()))
        .transpose()?;
    let overlaid = launcher.run(overlaid).await;
    assert!(
        matches!(
            &overlaid,
            Err(JailError::Layer {
                layer: Layer::Overlay,
                ..
            })
        ),
        "{overlaid:?}"
    );
    contained.leaves_nothing().await
}

#[tokio::test]
async fn a_kept_container_takes_further_commands_and_ends_them_one_by_one() -> anyhow::Result<()> {
    let Some(contained) = Contained::new()? else {
        return Ok(());
    };
    let mut spec = contained.spec(&["/bin/sh", "-c", "echo left > /tmp/file"])?;
    spec.lifetime = Lifetime::Kept;
    let first = contained.scene.launcher.run(spec).await?;
    let jail = first.jail.clone();
    finish(first).await?;
    let shell = |command: &str| {
        let mut spec = CommandSpec::new(["/bin/sh", "-c", command]);
        spec.cwd = PLACE.into();
        spec
    };
    let read = finish(jail.start(&shell("cat /tmp/file")).await?).await?;
    assert_eq!(read.stdout, "left\n", "{} {:?}", read.stderr, read.exit);

    let mark = format!("7{}", std::process::id());
    let mut daemons = jail
        .start(&shell(&format!(
            "setsid sleep {mark} & sleep {mark} & echo ready; sleep {mark}"
        )))
        .await?;
    first_line(&mut daemons).await?;
    becomes_true("the daemons run", || marked(&mark).len() >= 3).await?;
    daemons.command.signal(libc::SIGKILL, Reach::Tree)?;
    assert_eq!(daemons.command.wait().await.signal, Some(libc::SIGKILL));
    becomes_true("no daemon is left", || marked(&mark).is_empty()).await?;

    let mut terminal = shell("tty; stty size");
    let rows_and_columns = |number| NonZeroU16::new(number).context("0");
    terminal.stdin = Stdin::Terminal(TerminalSize {
        rows: rows_and_columns(33)?,
        columns: rows_and_columns(101)?,
    });
    let told = finish(jail.start(&terminal).await?).await?;
    assert_eq!(told.stdout, "/dev/pts/0\r\n33 101\r\n");
    jail.kill()?;
    jail.finished().await;
    becomes_true("the engine reaped it", || is_gone(&jail)).await?;
    drop((jail, daemons));
    contained.leaves_nothing().await
}

#[tokio::test]
async fn protected_closed_and_pinned_paths_are_so_in_a_container_too() -> anyhow::Result<()> {
    let Some(contained) = Contained::new()? else {
        return Ok(());
    };
    let place = contained.scene.path();
    std::fs::create_dir_all(place.join(".git/hooks"))?;
    std::fs::create_dir_all(place.join("site"))?;
    for (path, content) in [
        (".git/config", "old"),
        ("site/page", "changed"),
        (".env", "secret"),
    ] {
        std::fs::write(place.join(path), content)?;
    }
    contained.give_workspace()?;
    let mut spec = contained.spec(&[
        "/bin/sh",
        "-c",
        "
        cat site/page .env; echo
        for path in .git/config site/page .env .git/hooks/x; do
            (echo evil > $path) 2>/dev/null && echo written $path
        done
        for path in .git .git/hooks .git/config site site/page .env; do
            mv $path away 2>/dev/null && echo moved $path
        done
        echo evil > .mcp.json; touch .git/index && echo index",
    ])?;
    spec.protected = [".git/hooks", ".git/config", ".mcp.json"]
        .map(Into::into)
        .to_vec();
    spec.masked = vec![Masked {
        path: ".env".into(),
        is_directory: false,
    }];
    spec.inputs = vec![PinnedInput::seal(
        "/w/site/page".as_ref(),
        &b"hashed"[..],
        99,
    )?];
    let output = finish(contained.scene.launcher.run(spec).await?).await?;
    assert_eq!(output.stdout, "hashed\nindex\n", "{}", output.stderr);
    assert_eq!(std::fs::read_to_string(place.join(".env"))?, "secret");
    assert_eq!(std::fs::read_to_string(place.join(".git/config"))?, "old");

    // The engine, which is root, would follow it.
    std::os::unix::fs::symlink("/etc/ssl", place.join(".vscode"))?;
    let mut led = contained.spec(&["true"])?;
    led.protected = vec![".vscode".into()];
    let led = contained.scene.launcher.run(led).await;
    assert!(
        matches!(
            &led,
            Err(JailError::Layer {
                layer: Layer::Workspace,
                errno: libc::ELOOP,
                ..
            })
        ),
        "{led:?}"
    );
    std::fs::rename(place.join(".git"), place.join("real"))?;
    std::os::unix::fs::symlink("real", place.join(".git"))?;
    let mut turned = contained.spec(&["true"])?;
    turned.protected = vec![".git/hooks".into()];
    let turned = contained.scene.launcher.run(turned).await;
    assert!(
        matches!(
            &turned,
            Err(JailError::Layer {
                layer: Layer::Workspace,
                errno: libc::ELOOP,
                ..
            })
        ),
        "{turned:?}"
    );
    contained.leaves_nothing().await
}

#[tokio::test]
async fn a_container_has_no_network_but_what_is_published_and_the_proxy() -> anyhow::Result<()> {
    let Some(contained) = Contained::new()? else {
        return Ok(());
    };
    let launcher = &contained.scene.launcher;
    let mut spec = contained.spec(&["./probe", "listen", "80"])?;
    spec.published = vec![80];
    let mut process = launcher.run(spec).await?;
    assert_eq!(first_line(&mut process).await?, "80");
    let port = PublishedPort::open(&process.jail, 80).await?;
    let mut stream = TcpStream::connect(port.address()).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert!(answer.ends_with(":hello"), "{answer}");
    assert_eq!(process.jail.end_serving(80)?.len(), 1);
    assert_eq!(process.command.wait().await.signal, Some(libc::SIGKILL));

    let host = std::net::TcpListener::bind("127.0.0.1:0")?;
    let request = format!(
        "echo | timeout 2 nc 127.0.0.1 {}",
        host.local_addr()?.port()
    );
    let refused = contained.shell(&request).await?;
    assert_eq!(refused.exit.code, Some(1), "{}", refused.stderr);
    host.set_nonblocking(true)?;
    assert!(host.accept().is_err(), "the host was reached");
    let mut on_the_host = contained.spec(&["/bin/sh", "-c", &request])?;
    on_the_host.network = Network::Host;
    let process = launcher.run(on_the_host).await?;
    assert!(process.jail.isolation().missing.contains(&"net_ns".into()));
    let output = finish(process).await?;
    assert!(
        host.accept().is_ok(),
        "the control reached nobody: {:?} {} {}",
        output.exit,
        output.stdout,
        output.stderr
    );

    let mut proxied = contained.spec(&["/bin/sh", "-c", "echo hello | nc 127.0.0.1 3128"])?;
    proxied.network = Network::Proxy;
    let process = launcher.run(proxied).await?;
    let listener = process.jail.take_listener().context("no listener")?;
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (mut client, _) = listener.accept().await?;
    let mut said = [0; 6];
    client.read_exact(&mut said).await?;
    assert_eq!(&said, b"hello\n");
    drop((client, process));
    contained.leaves_nothing().await
}

#[tokio::test]
async fn many_small_processes_together_end_at_the_memory_of_a_container() -> anyhow::Result<()> {
    let Some(contained) = Contained::new()? else {
        return Ok(());
    };
    let bomb =
        "i=0; while [ $i -lt 8 ]; do ./probe allocate 30000000 & i=$((i+1)); done; wait; sleep 0.1";
    let mut spec = contained.spec(&["/bin/sh", "-c", bomb])?;
    spec.limits.memory_bytes = 64 << 20;
    let process = contained.scene.launcher.run(spec).await?;
    let jail = process.jail.clone();
    finish(process).await?;
    assert_eq!(jail.finished().await.out_of_memory, Some(true));
    let process = contained
        .scene
        .launcher
        .run(contained.spec(&["/bin/sh", "-c", bomb])?)
        .await?;
    let jail = process.jail.clone();
    finish(process).await?;
    assert_eq!(jail.finished().await.out_of_memory, Some(false));
    Ok(())
}

#[tokio::test]
async fn a_killed_server_and_a_dropped_call_leave_no_container() -> anyhow::Result<()> {
    let Some(contained) = Contained::new()? else {
        return Ok(());
    };
    for patience in [0, 50, 150, 300, 600] {
        let run = contained
            .scene
            .launcher
            .run(contained.spec(&["sleep", "1000"])?);
        let patience = std::time::Duration::from_millis(patience);
        drop(tokio::time::timeout(patience, run).await);
    }
    contained.leaves_nothing().await?;

    let mark = format!("6{}", std::process::id());
    let settings = serde_json::json!({ "image": image()?, "directory": contained.state.path() });
    let mut server = std::process::Command::new(probe())
        .args(["serve", "in containers", &settings.to_string()])
        .arg(contained.scene.path())
        .arg(format!("setsid sleep {mark} & sleep {mark}"))
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    becomes_true("the command runs", || {
        marked(&format!("sleep\0{mark}")).len() >= 2
    })
    .await?;
    server.kill()?;
    server.wait()?;
    becomes_true("nothing is left", || marked(&mark).is_empty()).await?;
    contained.leaves_nothing().await
}

#[tokio::test]
async fn containers_of_a_server_that_is_gone_are_removed_and_others_are_not() -> anyhow::Result<()>
{
    let Some(contained) = Contained::new()? else {
        return Ok(());
    };
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let own = std::process::id();
    let started = std::fs::read_to_string("/proc/self/stat")?;
    let started = started
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_whitespace().nth(19))
        .context("no start")?;
    let namespace = std::fs::metadata("/proc/self/ns/pid")?.ino();
    let label = |owner: &str| {
        let boot = boot.trim();
        format!("spec-driven-ai.mcp-bash-commander={boot}.{namespace}.{owner}")
    };
    let create = |label: &str| docker(&["create", "--label", label, &image()?, "true"]);
    let of_the_gone = create(&label("1.1"))?;
    let of_the_living = create(&label(&format!("{own}.{started}")))?;
    let of_others = create("somebody=else")?;
    contained.shell("true").await?;
    let left = docker(&["ps", "--all", "--quiet", "--no-trunc"])?;
    let is_there = |id: &str| left.contains(id.trim());
    let there = [&of_the_gone, &of_the_living, &of_others].map(|id| is_there(id));
    docker(&["rm", of_the_living.trim(), of_others.trim()])?;
    assert_eq!(there, [false, true, true]);
    Ok(())
}

#[tokio::test]
async fn an_engine_or_image_that_cannot_be_used_is_named() -> anyhow::Result<()> {
    let Some(contained) = Contained::new()? else {
        return Ok(());
    };
    let absent = format!("nothing@sha256:{}", "0".repeat(64));
    let digest = image()?;
    let by_name = docker(&[
        "image",
        "inspect",
        "--format",
        "{{index .RepoTags 0}}",
        &digest,
    ])?;
    for (image, engine, told) in [
        (absent.as_str(), None, "docker pull nothing@sha256:0000"),
        (by_name.trim(), None, digest.as_str()),
        (
            digest.as_str(),
            Some("unix:///nowhere/engine.sock"),
            "container.engine",
        ),
    ] {
        let launcher = Launcher::start_from(&probe())?.with_containers(ContainerSettings {
            image: image.to_owned(),
            engine: engine.map(str::to_owned),
            runtime: None,
            directory: contained.state.path().to_owned(),
        });
        let refused = launcher.run(contained.spec(&["true"])?).await;
        let Err(JailError::Container { reason, hint }) = &refused else {
            anyhow::bail!("{image}: {refused:?}");
        };
        assert!(hint.contains(told), "{reason}: {hint}");
    }
    let nowhere = Launcher::start_from(&probe())?;
    let refused = nowhere.run(contained.spec(&["true"])?).await;
    assert!(
        matches!(refused, Err(JailError::Container { .. })),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn where_one_mode_is_not_allowed_the_next_one_is_taken_and_told() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    // There is no engine: the second mode it is.
    let mut spec = scene.spec(["true"])?;
    spec.modes = vec![Mode::Container, Mode::Strict];
    let process = scene.launcher.run(spec.clone()).await?;
    assert_eq!(process.jail.isolation().mode, Mode::Strict);
    spec.modes = vec![Mode::Container];
    assert!(scene.launcher.run(spec.clone()).await.is_err());
    // What is wrong with the command is no reason for another mode.
    spec.modes = vec![Mode::Strict, Mode::Container];
    spec.command.argv = vec!["no-such-program".into()];
    let refused = scene.launcher.run(spec).await;
    assert!(
        matches!(refused, Err(JailError::Program { .. })),
        "{refused:?}"
    );
    Ok(())
}
