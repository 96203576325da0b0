//! What is denied is told: which call, what it wanted, how often, and whose it was.

use mcp_bash_commander::jail::{CommandSpec, DeniedCall, Lifetime};

use crate::support::{Scene, finish};

fn denied(call: &str, times: u64) -> DeniedCall {
    DeniedCall {
        call: call.to_owned(),
        times,
    }
}

/// Python that makes raw system calls and prints their errors.
fn calls(lines: &str) -> String {
    format!(
        "import ctypes,os\nlibc=ctypes.CDLL(None,use_errno=True)\n\
         def call(*a):\n r=libc.syscall(*a)\n print(ctypes.get_errno() if r<0 else 0)\n{lines}\n"
    )
}

#[tokio::test]
async fn each_denied_call_is_told_exactly_and_an_allowed_one_is_not() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let program = calls(
        "call(libc_mount:=165,0,0,0,0,0)\nfor _ in range(5): call(425,1,0)\n\
         import socket\n\
         for _ in range(3):\n  try: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\n  except PermissionError: print(1)\n\
         socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    );
    let process = scene
        .launcher
        .run(scene.spec(["python3", "-c", &program])?)
        .await?;
    let command = process.command.clone();
    let output = finish(process).await?;
    assert_eq!(output.stdout, "1\n".repeat(9), "{}", output.stderr);
    assert_eq!(
        command.denied(),
        [
            denied("mount", 1),
            denied("io_uring_setup", 5),
            denied("socket(AF_NETLINK, 3, 0)", 3),
        ]
    );
    Ok(())
}

#[tokio::test]
async fn a_flood_of_denied_calls_is_counted_to_the_last_and_keeps_nobody_busy() -> anyhow::Result<()>
{
    const TIMES: u64 = 20_000;
    let scene = Scene::new()?;
    let program = calls(&format!(
        "for _ in range({TIMES}): libc.syscall(165,0,0,0,0,0)"
    ));
    let process = scene
        .launcher
        .run(scene.spec(["python3", "-c", &program])?)
        .await?;
    let command = process.command.clone();
    let output = finish(process).await?;
    assert_eq!(output.exit.code, Some(0), "{}", output.stderr);
    assert_eq!(command.denied(), [denied("mount", TIMES)]);
    Ok(())
}

#[tokio::test]
async fn a_program_that_waits_for_its_denial_can_be_killed() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let program = calls("print('ready',flush=True)\nwhile True: libc.syscall(165,0,0,0,0,0)");
    let mut process = scene
        .launcher
        .run(scene.spec(["python3", "-c", &program])?)
        .await?;
    crate::support::first_line(&mut process).await?;
    process.jail.kill()?;
    process.jail.finished().await;
    assert_eq!(process.command.wait().await.signal, Some(libc::SIGKILL));
    Ok(())
}

#[tokio::test]
async fn denials_in_a_session_belong_to_the_command_that_tried() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.spec(["true"])?;
    spec.lifetime = Lifetime::Kept;
    let jail = scene.launcher.run(spec).await?.jail;
    let quiet = jail
        .start(&CommandSpec::new(["/bin/sh", "-c", "sleep 0.5; exit 0"]))
        .await?;
    // A grandchild in a session of its own still belongs to its command.
    let program = calls("call(165,0,0,0,0,0)");
    let guilty = CommandSpec::new(["/bin/sh", "-c", "setsid python3 -c \"$0\" & wait", &program]);
    let process = jail.start(&guilty).await?;
    let command = process.command.clone();
    finish(process).await?;
    assert_eq!(command.denied(), [denied("mount", 1)]);
    assert_eq!(quiet.command.denied(), []);
    Ok(())
}
