//! Tries, from wherever it is started, what a jailed command must not be able to do, and tells what happened as one JSON object.
//!
//! Started outside a jail it is the positive control of the same attempts. It is a test's tool and no part of the server.

mod attempts;
mod raw;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use mcp_bash_commander::jail::{Access, ContainerSettings, JailSpec, Launcher, Mode, Workspace};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    Launcher::serve_if_asked();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["attempt", context] => tell(&json!(attempts::all(&serde_json::from_str(context)?))),
        ["describe"] => tell(&describe()?),
        ["listen", port] => listen(port.parse()?),
        ["threads", count] => tell(&json!(threads(count.parse()?))),
        ["fork", most] => tell(&json!(raw::fork_until_refused(most.parse()?))),
        ["allocate", most] => tell(&json!(raw::allocate_until_refused(most.parse()?))),
        ["allocate together", processes, bytes] => {
            let (processes, bytes) = (processes.parse()?, bytes.parse()?);
            tell(&json!(raw::apart(|| raw::allocate_together(
                processes, bytes
            ))))
        }
        ["fill", path, most] => tell(&json!(fill(path, most.parse()?)?)),
        ["queue", "make", name] => Ok(raw::make_queue(name)?),
        ["queue", "remove", name] => Ok(raw::remove_queue(name)?),
        ["from memory", rest @ ..] => Err(raw::execute_from_memory(rest)?.into()),
        ["without landlock", program, rest @ ..] => {
            Err(raw::execute_without_landlock(program, rest)?.into())
        }
        ["pile filters", most] => tell(&json!(raw::pile_up(most.parse()?, raw::add_filter))),
        ["pile rules", most] => tell(&json!(raw::pile_up(most.parse()?, raw::add_rules))),
        ["serve", workspace, command] => serve(&Launcher::start()?, workspace, command, None),
        ["serve", "in containers", settings, workspace, command] => {
            let launcher = Launcher::start()?.with_containers(container_settings(settings)?);
            serve(&launcher, workspace, command, Some(Mode::Container))
        }
        ["serve", "without namespaces", workspace, command] => serve(
            &Launcher::start()?,
            workspace,
            command,
            Some(Mode::NoUserns),
        ),
        other => anyhow::bail!("unknown arguments {other:?}"),
    }
}

fn tell(value: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{value}")?;
    Ok(())
}

/// What this process is: identity, capabilities, descriptors, environment, devices, processes it sees.
fn describe() -> anyhow::Result<serde_json::Value> {
    let status = fs::read_to_string("/proc/self/status")?;
    let status: BTreeMap<&str, &str> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let names = |path: &str| -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let descriptors: Vec<i32> = (0..4096).filter(|number| raw::is_open(*number)).collect();
    let processes: Vec<i32> = names("/proc")
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    Ok(json!({
        "status": status,
        "effective_uid": rustix::process::geteuid().as_raw(),
        "descriptors": descriptors,
        "environment": std::env::vars().collect::<BTreeMap<_, _>>(),
        "devices": names("/dev"),
        "root": names("/"),
        "processes": processes,
        "core_limit": rustix::process::getrlimit(rustix::process::Resource::Core).maximum,
    }))
}

/// Starts so many threads; how many came to their end.
fn threads(count: usize) -> usize {
    let running: Vec<_> = (0..count).map(|_| std::thread::spawn(|| ())).collect();
    running
        .into_iter()
        .filter_map(|thread| thread.join().ok())
        .count()
}

/// Answers every connection with this process's id and the bytes it was sent, until killed.
fn listen(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    tell(&json!(listener.local_addr()?.port()))?;
    for connection in listener.incoming() {
        // A client that goes away is no reason to stop serving.
        let _ = answer(connection?);
    }
    Ok(())
}

fn answer(mut connection: TcpStream) -> std::io::Result<()> {
    write!(connection, "{}:", std::process::id())?;
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes)?;
    connection.write_all(&bytes)
}

/// Writes up to `most` bytes to `path`; tells how many were taken and why no more.
fn fill(path: &str, most: usize) -> anyhow::Result<(usize, Option<i32>)> {
    let mut file = fs::File::create(path)?;
    let block = vec![1; 64 * 1024];
    let mut written = 0;
    while written < most {
        match file.write(&block) {
            Ok(count) => written += count,
            Err(error) => return Ok((written, error.raw_os_error())),
        }
    }
    Ok((written, None))
}

fn container_settings(settings: &str) -> anyhow::Result<ContainerSettings> {
    let settings: serde_json::Value = serde_json::from_str(settings)?;
    let text = |name: &str| settings[name].as_str().unwrap_or_default().to_owned();
    Ok(ContainerSettings {
        image: text("image"),
        engine: None,
        runtime: None,
        directory: text("directory").into(),
    })
}

/// Is a server: runs one command in a jail and then does nothing until it is killed.
fn serve(
    launcher: &Launcher,
    workspace: &str,
    command: &str,
    mode: Option<Mode>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut spec = JailSpec::new(["/bin/sh", "-c", command]);
        let place = match mode {
            Some(Mode::NoUserns) => workspace,
            _ => "/w",
        };
        spec.modes.splice(.., mode.or(Some(Mode::Strict)));
        spec.workspace = Some(Workspace::open(
            workspace.as_ref(),
            place.as_ref(),
            Access::ReadWrite,
        )?);
        spec.command.cwd = place.into();
        let process = launcher.run(spec).await?;
        tell(&json!(process.jail.identity()))?;
        std::future::pending().await
    })
}
