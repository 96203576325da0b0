//! What goes on beside a running command: its streams are read, its time is watched, its end is noted.

use std::sync::Arc;
use std::time::Duration;

use super::table::{Doors, Place};
use super::{Ended, Killed, Running, Session, Stream, Taken, lock, until};
use crate::jail::Output;

/// How often a terminal is looked at that nobody holds: nobody tells when it is opened again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Reads a stream to its end. That of a terminal is not before that of its command, which may let go of it and open it again.
pub(super) async fn drain(session: Arc<Session>, stream: Stream, mut output: Output) {
    let mut state = session.state.subscribe();
    while let Ok(was_closed) = output.readable().await {
        let has_ended = session.state().ended.is_some();
        match session.take(stream, &output) {
            Ok(Taken::All) if was_closed => match output.watched_anew() {
                Ok(anew) => output = anew,
                Err(error) => {
                    tracing::error!(%error, session = %session.id, "a terminal cannot be watched");
                    break;
                }
            },
            Ok(Taken::Some | Taken::All) => tokio::task::yield_now().await,
            Ok(Taken::End) if session.terminal.is_some() && !has_ended => {
                let ended = until(&mut state, |state| state.ended.is_some());
                let _ = tokio::time::timeout(LOOK_AGAIN, ended).await;
            }
            Ok(Taken::End) => break,
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

/// What is held for a command while it lives; dropping it gives it back.
#[expect(dead_code, reason = "held for its drop alone")]
pub(super) struct Held {
    pub(super) place: Place,
    pub(super) doors: Doors,
}

/// Kills a command whose time is up, notes its end, and gives everything back when it is over.
pub(super) async fn watch_over(
    session: Arc<Session>,
    running: Running,
    timeout: Option<Duration>,
    held: Held,
) {
    let Running { command, jail } = running;
    let time_is_up = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = command.wait() => {}
        () = time_is_up => session.kill(Killed::TimedOut),
    }
    let exit = command.wait().await;
    // A command that ended by itself at the moment it was to be killed was not killed.
    let killed = lock(&session.killed).filter(|_| exit.signal.is_some());
    let ended = Ended {
        exit,
        wall: session.started.elapsed(),
        killed,
        out_of_memory: exit.out_of_memory,
    };
    session.take_from_jail(&command);
    session.put_away();
    session.input.close().await;
    session.state.send_modify(|state| {
        state.ended = Some(ended);
        state.is_over = session.kept.is_some();
    });
    if session.kept.is_some() {
        lock(&session.forbidden).take();
        lock(&session.running).take();
        return;
    }
    let finished = jail.finished().await;
    // What the command left behind could still make something.
    session.put_away();
    lock(&session.forbidden).take();
    session.take_from_jail(&command);
    lock(&session.running).take();
    drop((command, jail, held));
    session.state.send_modify(|state| {
        state.is_over = true;
        if let Some(ended) = &mut state.ended {
            ended.out_of_memory = finished.out_of_memory.or(ended.out_of_memory);
        }
    });
}
