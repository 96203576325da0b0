//! A command's streams at the server's end: pipes or a terminal, read and written without ever blocking the server.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf};

use super::{JailError, Stdin, TerminalSize, sys};

/// What a command writes. It ends when no process of the jail holds the other end any more.
#[derive(Debug)]
pub struct Output(AsyncFd<OwnedFd>);

impl Output {
    fn new(descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Self(sys::watch(descriptor, Interest::READABLE)?))
    }

    /// Waits until there is something to read, or the end; whether nobody held the other end once. From then on it does not wait any
    /// more, until it is [watched anew](Self::watched_anew).
    ///
    /// # Errors
    /// A runtime that is ending.
    pub async fn readable(&self) -> io::Result<bool> {
        let mut ready = self.0.readable().await?;
        ready.retain_ready();
        Ok(ready.ready().is_read_closed())
    }

    /// The same stream for whom opened it again, which only a terminal can be: the runtime remembers that it was closed.
    ///
    /// # Errors
    /// A runtime that is ending.
    pub fn watched_anew(self) -> io::Result<Self> {
        Ok(Self(sys::watch(self.0.into_inner(), Interest::READABLE)?))
    }

    /// Reads what is there; 0 is the end, `WouldBlock` that nothing is there now.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_io(Interest::READABLE, |descriptor| {
            match rustix::io::read(descriptor, &mut *buffer) {
                // A terminal whose other end nobody holds.
                Err(Errno::IO) => Ok(0),
                read => Ok(read?),
            }
        })
    }
}

impl AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?.retain_ready();
            match self.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    buffer.advance(read?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Where a command reads from. Dropping the input of a pipe is its end.
#[derive(Debug)]
pub struct Input {
    descriptor: AsyncFd<OwnedFd>,
    is_terminal: bool,
}

impl Input {
    fn new(descriptor: OwnedFd, is_terminal: bool) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Self {
            descriptor: sys::watch(descriptor, Interest::WRITABLE)?,
            is_terminal,
        })
    }

    /// Is it a terminal, so that it takes keys and a size?
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes some of `bytes`, as many as are taken at once, but at least one; waits while nothing is taken.
    ///
    /// # Errors
    /// `BrokenPipe` when nobody reads any more.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.descriptor.writable().await?;
            let is_closed = ready.ready().is_write_closed();
            let written = ready.try_io(|descriptor| match rustix::io::write(descriptor, bytes) {
                Err(Errno::IO) => Err(io::ErrorKind::BrokenPipe.into()),
                written => Ok(written?),
            });
            match written {
                Ok(written) => return written,
                // A terminal that is full and that nobody holds. The runtime would not wait for it any more, but try for ever.
                Err(_would_block) if is_closed => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(_would_block) => {}
            }
        }
    }

    /// Tells the terminal another size; its foreground programs get `SIGWINCH`.
    ///
    /// # Errors
    /// No terminal.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let size = window(size);
        Ok(rustix::termios::tcsetwinsize(
            self.descriptor.get_ref(),
            size,
        )?)
    }

    /// The end, as it is looked at from outside the jail.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.get_ref().as_fd()
    }
}

/// The size as the kernel takes it.
pub(super) fn window(size: TerminalSize) -> Winsize {
    Winsize {
        ws_row: size.rows.get(),
        ws_col: size.columns.get(),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Both ends of what a command is started with.
pub(super) struct Streams {
    /// Standard input, output and error of the command; none if it gets a terminal.
    pub(super) theirs: Vec<OwnedFd>,
    pub(super) stdout: Option<Output>,
    pub(super) stderr: Option<Output>,
    pub(super) input: Option<Input>,
}

impl Streams {
    pub(super) fn prepare(stdin: &Stdin) -> Result<Self, JailError> {
        let (reader, input) = match stdin {
            Stdin::Terminal(_) => {
                return Ok(Self {
                    theirs: Vec::new(),
                    stdout: None,
                    stderr: None,
                    input: None,
                });
            }
            Stdin::Null => {
                let null =
                    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                (null.map_err(JailError::errno("open /dev/null"))?, None)
            }
            Stdin::Bytes(bytes) => (memory_file("stdin", bytes)?, None),
            Stdin::Pipe => {
                let (reader, writer) = pipe()?;
                (reader, Some(input(writer, false)?))
            }
        };
        let (stdout, stdout_writer) = pipe()?;
        let (stderr, stderr_writer) = pipe()?;
        Ok(Self {
            theirs: vec![reader, stdout_writer, stderr_writer],
            stdout: Some(output(stdout)?),
            stderr: Some(output(stderr)?),
            input,
        })
    }

    /// Takes the terminal over that init made.
    pub(super) fn take_terminal(&mut self, master: OwnedFd) -> Result<(), JailError> {
        let again = master
            .try_clone()
            .map_err(JailError::io("watch the terminal"))?;
        self.stdout = Some(output(master)?);
        self.input = Some(input(again, true)?);
        Ok(())
    }
}

fn output(descriptor: OwnedFd) -> Result<Output, JailError> {
    Output::new(descriptor).map_err(JailError::io("watch the output"))
}

fn input(descriptor: OwnedFd, is_terminal: bool) -> Result<Input, JailError> {
    Input::new(descriptor, is_terminal).map_err(JailError::io("watch the input"))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), JailError> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(JailError::errno("make a pipe"))
}

/// A file in memory with these bytes, read from its beginning.
pub(super) fn memory_file(name: &str, bytes: &[u8]) -> Result<OwnedFd, JailError> {
    use std::io::Write as _;
    let failed = "keep the command's input in memory";
    let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
        .map_err(JailError::errno(failed))?;
    let mut memory = std::fs::File::from(memory);
    memory.write_all(bytes).map_err(JailError::io(failed))?;
    io::Seek::rewind(&mut memory).map_err(JailError::io(failed))?;
    Ok(memory.into())
}
