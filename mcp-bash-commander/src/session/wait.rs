//! Waiting for a command: for its end, for output, for words in it, or until it is quiet or reads what nobody has written.

use std::time::Duration;

use regex::bytes::Regex;

use super::{Session, Stream};

/// How often the kernel is asked whether a silent command reads.
const LOOK: Duration = Duration::from_millis(50);
/// Most of a stream that is searched at once.
const WINDOW: usize = 256 * 1024;
/// How far back a match may begin that ends in new output.
const OVERLAP: u64 = 4096;

/// What to wait for.
#[derive(Debug, Clone)]
pub enum Until {
    /// Nothing.
    Now,
    /// The command's end.
    Exit,
    /// Bytes of a stream behind a position.
    Output(Stream, u64),
    /// Words in the output of either stream, behind these positions of standard output and error.
    Pattern(Regex, [u64; 2]),
    /// No output for so long, or a process that waits for input.
    Idle(Duration),
}

/// What came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// The command's end.
    Ended,
    /// What was waited for.
    Condition,
    /// A process of the command reads what nobody has written yet.
    AwaitsInput,
}

impl Session {
    /// Waits until then; the command's end ends every wait. It has no limit of its own.
    pub async fn wait_until(&self, until: &Until) -> Reached {
        match until {
            Until::Now => Reached::Condition,
            Until::Exit => {
                self.ended().await;
                Reached::Ended
            }
            Until::Output(stream, cursor) => {
                self.more_output(*stream, *cursor).await;
                Reached::Condition
            }
            Until::Pattern(pattern, from) => self.pattern(pattern, *from).await,
            Until::Idle(quiet) => self.idle(*quiet).await,
        }
    }

    async fn pattern(&self, pattern: &Regex, mut from: [u64; 2]) -> Reached {
        let mut state = self.state.subscribe();
        loop {
            state.mark_unchanged();
            let is_over = !state.borrow().output_open();
            for (stream, from) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&mut from) {
                if self.is_found(pattern, stream, from) {
                    return Reached::Condition;
                }
            }
            if is_over {
                self.ended().await;
                return Reached::Ended;
            }
            if state.changed().await.is_err() {
                return Reached::Ended;
            }
        }
    }

    fn is_found(&self, pattern: &Regex, stream: Stream, from: &mut u64) -> bool {
        loop {
            // A spool that cannot be read has nothing to be found in.
            let Ok(reading) = self.read(stream, Some(*from), WINDOW) else {
                return false;
            };
            if pattern.is_match(&reading.piece.bytes) {
                return true;
            }
            let end = reading.piece.end();
            let next = end.saturating_sub(OVERLAP).max(*from);
            let is_all = end >= self.spool(stream).end() || next == *from;
            *from = next;
            if is_all {
                return false;
            }
        }
    }

    async fn idle(&self, quiet: Duration) -> Reached {
        let mut state = self.state.subscribe();
        let mut looks_awaiting = 0;
        let mut silent = Duration::ZERO;
        loop {
            if state.borrow_and_update().ended.is_some() {
                self.ended().await;
                return Reached::Ended;
            }
            match tokio::time::timeout(LOOK, state.changed()).await {
                Ok(Ok(())) => {
                    silent = Duration::ZERO;
                    looks_awaiting = 0;
                }
                Ok(Err(_)) => return Reached::Ended,
                Err(_) => {
                    silent += LOOK;
                    looks_awaiting = if self.awaits_input() {
                        looks_awaiting + 1
                    } else {
                        0
                    };
                    // Twice, since a program also reads while more is on its way to it.
                    if looks_awaiting >= 2 {
                        return Reached::AwaitsInput;
                    }
                    if silent >= quiet {
                        return Reached::Condition;
                    }
                }
            }
        }
    }
}
