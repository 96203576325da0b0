//! Writing to a command: text and keys into its pipe or terminal, its end, another size.

use std::io;
use std::time::Duration;

use tokio::sync::Mutex;

use super::Session;
use crate::jail::{AwaitedInput, Input, TerminalSize};

/// How long a command may take nothing before a write gives up.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command that cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It was started without an input.
    #[error("the command reads nothing from you; start it with `tty` or `stdin_open`")]
    None,
    /// Its input was ended, or it has ended.
    #[error("the command's input is closed")]
    Closed,
    /// It does not read.
    #[error("the command takes no input now: {written} of {bytes} bytes were written")]
    Full {
        /// Bytes it took.
        written: usize,
        /// Bytes there were.
        bytes: usize,
    },
    /// Only a terminal has a size.
    #[error("the command has no terminal; start it with `tty`")]
    NoTerminal,
    /// The system refused.
    #[error("failed to write to the command: {0}")]
    Io(#[from] io::Error),
}

/// The server's end of a command's input.
#[derive(Debug)]
pub(super) struct InputEnd {
    awaited: Option<AwaitedInput>,
    is_terminal: bool,
    input: Mutex<Option<Input>>,
}

impl InputEnd {
    pub(super) fn new(input: Option<Input>) -> Self {
        Self {
            awaited: input
                .as_ref()
                .and_then(|input| AwaitedInput::of(input).ok()),
            is_terminal: input.as_ref().is_some_and(Input::is_terminal),
            input: Mutex::new(input),
        }
    }

    pub(super) async fn close(&self) {
        self.input.lock().await.take();
    }
}

/// What a terminal takes for the end of its input.
const END_OF_TRANSMISSION: u8 = 4;

impl Session {
    /// Writes all of `bytes`, waiting as long as the command goes on taking some.
    ///
    /// # Errors
    /// No input, a closed one, or a command that does not read.
    pub async fn write(&self, bytes: &[u8]) -> Result<(), InputError> {
        let input = self.input.input.lock().await;
        let input = input.as_ref().ok_or(self.no_input())?;
        let mut written = 0;
        while written < bytes.len() {
            match tokio::time::timeout(PATIENCE, input.write(&bytes[written..])).await {
                Ok(Ok(some)) => written += some,
                Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(InputError::Closed);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    return Err(InputError::Full {
                        written,
                        bytes: bytes.len(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Ends the input: of a pipe for good, of a terminal as Ctrl-D does.
    ///
    /// # Errors
    /// As of [`Session::write`].
    pub async fn end_input(&self) -> Result<(), InputError> {
        if self.input.is_terminal {
            return self.write(&[END_OF_TRANSMISSION]).await;
        }
        let ended = self.input.input.lock().await.take();
        ended.map(drop).ok_or(self.no_input())
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// No terminal, or the command has ended.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), InputError> {
        if !self.input.is_terminal {
            return Err(InputError::NoTerminal);
        }
        let input = self.input.input.lock().await;
        let input = input.as_ref().ok_or(InputError::Closed)?;
        if let Some(terminal) = &self.terminal {
            super::lock(terminal).resize(size);
        }
        Ok(input.resize(size)?)
    }

    /// Whether a process of it is blocked reading what nobody has written yet: a fact of the kernel, not a guess from its output.
    pub fn awaits_input(&self) -> bool {
        let (Some(awaited), false) = (&self.input.awaited, self.state().is_over) else {
            return false;
        };
        awaited.is_read_in(self.identity)
    }

    fn no_input(&self) -> InputError {
        match self.input.awaited {
            None => InputError::None,
            Some(_) => InputError::Closed,
        }
    }
}
