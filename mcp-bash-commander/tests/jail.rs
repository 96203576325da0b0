//! The jail from outside and inside.
use mcp_bash_commander::jail::{Access, JailSpec, JailedProcess, Launcher, Workspace};
use tokio::io::AsyncReadExt as _;

#[tokio::test]
async fn smoke() -> anyhow::Result<()> {
    let launcher = Launcher::start_from(env!("CARGO_BIN_EXE_jail-probe").as_ref())?;
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("a"), "hello")?;
    let mut spec = JailSpec::new([
        "/bin/sh",
        "-c",
        "id; ls -la / /dev /etc $PWD /tmp; cat a; echo x > b; mount; cat /proc/self/status; env; ls -l /proc/self/fd; ps aux",
    ]);
    spec.workspace = Some(Workspace::open(
        dir.path(),
        "/w".as_ref(),
        Access::ReadWrite,
    )?);
    spec.cwd = "/w".into();
    let JailedProcess {
        mut stdout,
        mut stderr,
        jail,
    } = launcher.run(spec).await?;
    let (mut out, mut err) = (String::new(), String::new());
    stdout.read_to_string(&mut out).await?;
    stderr.read_to_string(&mut err).await?;
    println!(
        "{out}\n{err}\n{:?} {:?} {:?}",
        jail.isolation(),
        jail.wait().await,
        jail.finished().await
    );
    println!(
        "{}",
        std::process::Command::new("ls")
            .arg("-ln")
            .arg(dir.path())
            .output()
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())?
    );
    Ok(())
}
