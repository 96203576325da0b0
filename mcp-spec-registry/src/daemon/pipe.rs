//! The `stdio` command: a thin pipe between a client's stdin and stdout and the registry's agent socket.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::Context;
use zeroize::Zeroizing;

use super::{agents::Greeting, launch};

/// Passes bytes until stdin ends or the registry hangs up.
///
/// # Errors
/// A registry that cannot be reached or started.
pub fn run(
    state_dir: &Path,
    socket_dir: Option<PathBuf>,
    socket: Option<&Path>,
    agent: Option<String>,
    token: Option<Zeroizing<String>>,
) -> anyhow::Result<()> {
    let stream = match socket {
        Some(path) => UnixStream::connect(path)
            .with_context(|| format!("no registry answers at {}", path.display()))?,
        None => launch::connect(state_dir, socket_dir, launch::AGENTS)?,
    };
    let greeting = Greeting {
        agent,
        token: token.map(|token| token.as_str().to_owned()),
    };
    let mut line = Zeroizing::new(serde_json::to_vec(&greeting)?);
    line.push(b'\n');
    (&stream).write_all(&line)?;

    let to_registry = stream.try_clone()?;
    let stdin_ended = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&stdin_ended);
    // Not joined: when the registry has hung up, a read of stdin must not keep the process.
    thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(move || {
            // A broken pipe ends like an end of stdin does.
            let _ = pass(&mut io::stdin().lock(), &mut &to_registry);
            ended.store(true, Ordering::Release);
            let _ = to_registry.shutdown(Shutdown::Write);
        })?;
    let answered = pass(&mut &stream, &mut io::stdout().lock()).or_else(hung_up)?;
    anyhow::ensure!(
        answered > 0 || stdin_ended.load(Ordering::Acquire),
        "the registry hung up without an answer: it does not accept this agent or token; its log says why"
    );
    Ok(())
}

/// Copies what is there as soon as it is there; answers how many bytes that were.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<usize> {
    let mut buffer = [0; 16 * 1024];
    let mut passed = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(passed),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                to.flush()?;
                passed += count;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A client that is gone, or a registry that was ended, is no error of the pipe.
fn hung_up(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        // How much was passed before is not known, and that is no refusal.
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(usize::MAX),
        _ => Err(error),
    }
}
