//! What goes on beside a running command: its streams are read, its time is watched, its end is noted.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe;

use super::table::Place;
use super::{Ended, Killed, Session, Stream, lock};
use crate::jail::Jail;
use crate::publish::PublishedPort;

/// Reads a stream to its end.
pub(super) async fn drain(session: Arc<Session>, stream: Stream, pipe: pipe::Receiver) {
    while pipe.readable().await.is_ok() {
        match session.take(stream, &pipe) {
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => break,
            Err(error) => {
                tracing::error!(%error, session = %session.id, "a stream cannot be read");
                break;
            }
        }
    }
    session.state.send_modify(|state| match stream {
        Stream::Stdout => state.stdout_open = false,
        Stream::Stderr => state.stderr_open = false,
    });
}

/// Kills a command whose time is up, notes its end, and gives everything back when its jail is over.
pub(super) async fn watch_over(
    session: Arc<Session>,
    jail: Jail,
    timeout: Option<Duration>,
    held: (Place, Vec<PublishedPort>),
) {
    let time_is_up = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = jail.wait() => {}
        () = time_is_up => session.kill(Killed::TimedOut),
    }
    let exit = jail.wait().await;
    // A command that ended by itself at the moment it was to be killed was not killed.
    let killed = lock(&session.killed).filter(|_| exit.signal.is_some());
    let ended = Ended {
        exit,
        wall: session.started.elapsed(),
        killed,
        out_of_memory: None,
    };
    session.state.send_modify(|state| state.ended = Some(ended));
    let finished = jail.finished().await;
    lock(&session.jail).take();
    drop((jail, held));
    session.state.send_modify(|state| {
        state.is_over = true;
        if let Some(ended) = &mut state.ended {
            ended.out_of_memory = finished.out_of_memory;
        }
    });
}
