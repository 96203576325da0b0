//! Published ports: reachable from outside, and nothing else is.

use mcp_bash_commander::jail::{JailError, JailedProcess};
use mcp_bash_commander::publish::PublishedPort;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Scene, becomes_true, first_line, is_gone};

/// Sends `text` to the listener and returns its answer: the listener's process id, a colon and the text.
async fn ask(address: std::net::SocketAddr, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn listener(scene: &Scene, command: &str) -> anyhow::Result<JailedProcess> {
    let mut spec = scene.spec(["/bin/sh", "-c", command])?;
    spec.published = vec![80];
    let mut process = scene.launcher.run(spec).await?;
    assert_eq!(first_line(&mut process).await?, "80");
    Ok(process)
}

#[tokio::test]
async fn a_published_port_is_reached_from_outside_and_half_closing_works() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let process = listener(&scene, "exec ./probe listen 80").await?;
    let port = PublishedPort::open(&process.jail, 80).await?;
    assert_eq!(ask(port.address(), "hello").await?, "2:hello");
    let long = "x".repeat(1 << 20);
    assert_eq!(ask(port.address(), &long).await?.len(), long.len() + 2);
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_not_published_can_neither_be_bound_nor_reached() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let output = scene
        .shell("./probe listen 81; ./probe listen 0; true")
        .await?;
    assert_eq!(output.stdout, "");
    assert_eq!(
        output.stderr.matches("Permission denied").count(),
        2,
        "{}",
        output.stderr
    );

    let process = listener(&scene, "exec ./probe listen 80").await?;
    assert!(process.jail.connect(80).await.is_ok());
    assert_eq!(
        process
            .jail
            .connect(81)
            .await
            .err()
            .map(|error| error.kind()),
        Some(std::io::ErrorKind::ConnectionRefused)
    );
    let port = PublishedPort::open(&process.jail, 81).await?;
    assert!(
        ask(port.address(), "").await.is_err(),
        "a refused connection ended in order"
    );
    Ok(())
}

#[tokio::test]
async fn the_serving_process_is_ended_and_its_supervisor_starts_another() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut process = listener(&scene, "while :; do ./probe listen 80; done").await?;
    let port = PublishedPort::open(&process.jail, 80).await?;
    let first = ask(port.address(), "").await?;
    let identity = process.jail.identity();
    let ended = process.jail.end_serving(80)?;
    assert_eq!(
        ended
            .iter()
            .map(|ended| ended.name.as_str())
            .collect::<Vec<_>>(),
        ["probe"]
    );
    assert_eq!(first_line(&mut process).await?, "80");
    assert_ne!(ask(port.address(), "").await?, first);
    assert_eq!(
        (process.jail.identity(), process.jail.is_alive()),
        (identity, true)
    );
    assert!(matches!(
        process.jail.end_serving(81),
        Err(JailError::NotServing(81))
    ));
    Ok(())
}

#[tokio::test]
async fn the_use_of_a_jail_is_measured_from_outside() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let process = listener(&scene, "./probe listen 80; true").await?;
    let usage = process.jail.usage()?;
    assert_eq!((usage.alive, usage.processes), (true, 2));
    assert_eq!(usage.kernel_uids, [process.jail.isolation().kernel_uid]);
    assert!(
        (100_000..50_000_000).contains(&usage.memory_bytes),
        "{usage:?}"
    );
    process.jail.kill()?;
    process.jail.finished().await;
    becomes_true("the jail is gone", || is_gone(&process.jail)).await?;
    let usage = process.jail.usage()?;
    assert_eq!(
        (usage.alive, usage.processes, usage.memory_bytes),
        (false, 0, 0)
    );
    Ok(())
}

#[tokio::test]
async fn a_published_port_ends_with_its_jail() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let process = listener(&scene, "exec ./probe listen 80").await?;
    let port = PublishedPort::open(&process.jail, 80).await?;
    process.jail.kill()?;
    process.jail.finished().await;
    assert!(ask(port.address(), "").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_connection_that_is_cut_short_does_not_look_finished() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let process = listener(&scene, "exec ./probe listen 80").await?;
    let port = PublishedPort::open(&process.jail, 80).await?;
    let mut stream = TcpStream::connect(port.address()).await?;
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).await?;
    drop(port);
    let cut = stream.read_to_end(&mut Vec::new()).await;
    assert_eq!(
        cut.map_err(|error| error.kind()),
        Err(std::io::ErrorKind::ConnectionReset)
    );
    Ok(())
}
