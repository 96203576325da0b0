//! A command with a terminal of the jail's own: it is one, it has a size, and keys do there what they do anywhere.

use std::num::NonZeroU16;

use mcp_bash_commander::jail::{
    AwaitedInput, JailSpec, JailedProcess, Lifetime, Stdin, TerminalSize,
};
use tokio::io::AsyncReadExt as _;

use crate::support::{Scene, becomes_true};

fn size(rows: u16, columns: u16) -> anyhow::Result<TerminalSize> {
    let number = |number| NonZeroU16::new(number).ok_or_else(|| anyhow::anyhow!("0"));
    Ok(TerminalSize {
        rows: number(rows)?,
        columns: number(columns)?,
    })
}

fn with_terminal(scene: &Scene, command: &str) -> anyhow::Result<JailSpec> {
    let mut spec = scene.spec(["/bin/bash", "-c", command])?;
    spec.command.stdin = Stdin::Terminal(size(33, 101)?);
    spec.command.env.push(("TERM".into(), "xterm".into()));
    Ok(spec)
}

/// All that it writes from now until `end` stands in it, or to its end.
async fn until(process: &mut JailedProcess, end: &str) -> anyhow::Result<String> {
    let mut told = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let patience = std::time::Duration::from_mins(1);
        let read = tokio::time::timeout(patience, process.stdout.read(&mut bytes)).await??;
        told.extend_from_slice(&bytes[..read]);
        let text = String::from_utf8_lossy(&told).into_owned();
        if read == 0 || text.contains(end) {
            return Ok(text);
        }
    }
}

async fn press(process: &JailedProcess, keys: &[u8]) -> anyhow::Result<()> {
    let input = process
        .input
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("no input"))?;
    assert_eq!(input.write(keys).await?, keys.len());
    Ok(())
}

#[tokio::test]
async fn a_terminal_is_one_and_belongs_to_the_jail_alone() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let command = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; echo x > /dev/tty; ls /dev/pts";
    let mut process = scene.launcher.run(with_terminal(&scene, command)?).await?;
    let told = until(&mut process, "\u{0}").await?;
    assert_eq!(
        told.replace("\r\n", "\n"),
        "/dev/pts/0\n33 101\nall\nx\n0  ptmx\n"
    );
    assert!(process.stderr.is_none());
    assert_eq!(process.command.wait().await.code, Some(0));
    Ok(())
}

#[tokio::test]
async fn keys_interrupt_suspend_and_end_and_another_size_is_told() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let command = "trap 'stty size' WINCH; trap 'echo interrupted' INT; \
                   echo ready; while :; do read -r line || break; echo \"got $line\"; done; echo over";
    let mut process = scene.launcher.run(with_terminal(&scene, command)?).await?;
    until(&mut process, "ready").await?;
    press(&process, b"a line\r").await?;
    until(&mut process, "got a line").await?;
    // An interrupt that comes between two commands of a script waits for the second one to end.
    reads(&process).await?;
    press(&process, &[3]).await?;
    until(&mut process, "interrupted").await?;
    reads(&process).await?;
    if let Some(input) = &process.input {
        input.resize(size(10, 20)?)?;
    }
    press(&process, b"\r").await?;
    until(&mut process, "10 20").await?;
    reads(&process).await?;
    press(&process, &[4]).await?;
    until(&mut process, "over").await?;
    assert_eq!(process.command.wait().await.code, Some(0));
    Ok(())
}

#[tokio::test]
async fn that_a_program_waits_for_input_is_a_fact_and_no_guess() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let readers = [
        "read -r line",
        "cat > /dev/null",
        "python3 -c 'input()'",
        "python3 -c 'import select,sys; select.select([sys.stdin],[],[])'",
        "python3 -c 'import select; p=select.poll(); p.register(0, select.POLLIN); p.poll()'",
        "python3 -c 'import select; p=select.epoll(); p.register(0, select.EPOLLIN); p.poll()'",
    ];
    for is_terminal in [true, false] {
        for reader in readers {
            let mut spec = with_terminal(&scene, reader)?;
            if !is_terminal {
                spec.command.stdin = Stdin::Pipe;
            }
            let process = scene.launcher.run(spec).await?;
            let awaited = awaited(&process)?;
            becomes_true(reader, || awaited.is_read_in(process.jail.identity())).await?;
        }
        // It looks like a prompt, and reads nothing.
        let mut spec = with_terminal(&scene, "printf 'cost 5 $ '; sleep 100")?;
        if !is_terminal {
            spec.command.stdin = Stdin::Pipe;
        }
        let mut process = scene.launcher.run(spec).await?;
        until(&mut process, "$ ").await?;
        let awaited = awaited(&process)?;
        for _ in 0..50 {
            assert!(!awaited.is_read_in(process.jail.identity()));
        }
    }
    Ok(())
}

/// Waits until a process of it reads.
async fn reads(process: &JailedProcess) -> anyhow::Result<()> {
    let awaited = awaited(process)?;
    becomes_true("it reads", || awaited.is_read_in(process.jail.identity())).await
}

fn awaited(process: &JailedProcess) -> anyhow::Result<AwaitedInput> {
    let input = process
        .input
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("no input"))?;
    Ok(AwaitedInput::of(input)?)
}

#[tokio::test]
async fn programs_of_a_jail_make_terminals_of_their_own() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let output = scene
        .shell("python3 -c 'import pty; pty.spawn([\"tty\"])'")
        .await?;
    assert_eq!(output.stdout.trim(), "/dev/pts/0", "{}", output.stderr);
    Ok(())
}

#[tokio::test]
async fn a_later_command_of_a_session_can_have_a_terminal_too() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.spec(["true"])?;
    spec.lifetime = Lifetime::Kept;
    let jail = scene.launcher.run(spec).await?.jail;
    let command = with_terminal(&scene, "tty")?.command;
    for _ in 0..2 {
        let mut process = jail.start(&command).await?;
        assert_eq!(until(&mut process, "\u{0}").await?.trim(), "/dev/pts/0");
    }
    Ok(())
}
