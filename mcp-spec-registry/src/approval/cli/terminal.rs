//! Writing for people on a terminal: colour only there, ASCII where the locale has nothing else; and asking them.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use tokio::signal::unix::SignalKind;
use zeroize::Zeroizing;

/// Most bytes read from `--secret-fd`.
const MOST_SECRET_BYTES: u64 = 4096;

/// How standard output may be written to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    is_utf8: bool,
    has_colour: bool,
}

/// How a piece of text stands out on a terminal that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Strong,
    Faint,
    Good,
    Doubtful,
    Bad,
}

impl Terminal {
    /// As the environment says: `LC_ALL`, `LC_CTYPE`, `LANG`, `NO_COLOR`.
    pub(super) fn from_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL")
            .or_else(|| set("LC_CTYPE"))
            .or_else(|| set("LANG"))
            .unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Self {
            is_utf8: locale.contains("utf-8") || locale.contains("utf8"),
            has_colour: io::stdout().is_terminal()
                && set("NO_COLOR").is_none()
                && set("TERM").is_none_or(|term| term != "dumb"),
        }
    }

    #[cfg(test)]
    pub(super) fn plain(is_utf8: bool) -> Self {
        Self {
            is_utf8,
            has_colour: false,
        }
    }

    /// The text as it may be written here.
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        let text = if self.is_utf8 {
            text.to_owned()
        } else {
            ascii(text)
        };
        let code = match style {
            _ if !self.has_colour => return text,
            Style::Plain => return text,
            Style::Strong => "1",
            Style::Faint => "2",
            Style::Good => "32",
            Style::Doubtful => "33",
            Style::Bad => "1;31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Writes a line for the human alone, where standard output may be a program's.
    pub(super) fn say_to_human(self, text: &str) {
        // A closed standard error changes nothing about what is decided.
        let _ = writeln!(
            io::stderr().lock(),
            "{}",
            if self.is_utf8 {
                text.to_owned()
            } else {
                ascii(text)
            }
        );
    }

    /// Writes a text and a line break.
    pub(super) fn say(self, style: Style, text: &str) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{}", self.paint(style, text))
    }
}

/// Common signs by their ASCII look, everything else by its number.
fn ascii(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            character if character.is_ascii() => plain.push(character),
            '≤' => plain.push_str("<="),
            '≥' => plain.push_str(">="),
            '✓' => plain.push('+'),
            '✗' => plain.push('x'),
            '▲' => plain.push('!'),
            '•' | '·' | '–' | '—' | '─' => plain.push('-'),
            '│' => plain.push('|'),
            '→' => plain.push_str("->"),
            '…' => plain.push_str("..."),
            '⟦' => plain.push_str("[["),
            '⟧' => plain.push_str("]]"),
            '’' => plain.push('\''),
            character => plain.extend(character.escape_unicode()),
        }
    }
    plain
}

/// Asks for a line on the terminal; without one, `flag` is what would have told it.
pub(super) fn ask(question: &str, flag: &str) -> anyhow::Result<String> {
    anyhow::ensure!(
        io::stdin().is_terminal(),
        "`{question}` cannot be asked, because standard input is no terminal; give {flag}"
    );
    let mut error = io::stderr().lock();
    write!(error, "{question}: ")?;
    error.flush()?;
    drop(error);
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Asks for a secret without showing it, or reads it from a file descriptor.
pub(super) fn ask_secret(
    question: &str,
    secret_fd: Option<u32>,
) -> anyhow::Result<Zeroizing<String>> {
    if let Some(fd) = secret_fd {
        return read_secret(fd);
    }
    // At Ctrl-C the signal comes before the terminal is as it was; it must not end the process there.
    let _held = tokio::signal::unix::signal(SignalKind::interrupt())?;
    let secret = rpassword::prompt_password(format!("{question}: "))?;
    Ok(Zeroizing::new(secret))
}

/// Reads a secret up to the end of its line.
fn read_secret(fd: u32) -> anyhow::Result<Zeroizing<String>> {
    let source = open_descriptor(fd)
        .map_err(|error| anyhow::anyhow!("--secret-fd {fd} cannot be read: {error}"))?;
    let mut secret = Zeroizing::new(String::new());
    source.take(MOST_SECRET_BYTES).read_to_string(&mut secret)?;
    let line = secret.lines().next().unwrap_or_default();
    anyhow::ensure!(!line.is_empty(), "--secret-fd {fd} gave no secret");
    Ok(Zeroizing::new(line.to_owned()))
}

/// A descriptor of this process by its number; a socket cannot be opened by its name, so it is asked for.
fn open_descriptor(fd: u32) -> io::Result<Box<dyn Read>> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    if fd == 0 {
        return Ok(Box::new(io::stdin()));
    }
    match std::fs::File::open(format!("/proc/self/fd/{fd}")) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            let process = pidfd_open(getpid(), PidfdFlags::empty())?;
            let number = i32::try_from(fd).map_err(|_| rustix::io::Errno::BADF)?;
            let own = pidfd_getfd(process, number, PidfdGetfdFlags::empty())?;
            Ok(Box::new(std::fs::File::from(own)))
        }
        opened => Ok(Box::new(opened?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_without_utf_8_gets_ascii() {
        let plain = Terminal::plain(false).paint(Style::Bad, "▲ p95 ≤ 200 ms – ⟦U+202E⟧ 配");
        assert_eq!(plain, "! p95 <= 200 ms - [[U+202E]] \\u{914d}");
        assert_eq!(Terminal::plain(true).paint(Style::Bad, "≤ 配"), "≤ 配");
    }
}
