//! A command's terminal as a person would see it: the output interpreted, the cursor, what scrolled away left out.

use crate::jail::TerminalSize;

/// What stands on the screen at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen {
    /// The lines, without blanks at their ends and without empty lines at the end.
    pub text: String,
    /// Lines of the screen.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
    /// The line the cursor is in, from 0.
    pub cursor_row: u16,
    /// The character it is on, from 0.
    pub cursor_column: u16,
    /// Whether the program shows the cursor.
    pub cursor_visible: bool,
    /// Whether it uses the second screen, as full-screen programs do.
    pub alternate: bool,
    /// The title it gave the window.
    pub title: String,
}

/// Interprets a command's output. Answers nothing: a program's questions to the terminal stay unanswered.
pub(super) struct Terminal {
    parser: vt100::Parser<Title>,
}

#[derive(Default)]
struct Title(String);

/// Longest title kept, in characters.
const TITLE_CHARACTERS: usize = 200;

impl vt100::Callbacks for Title {
    fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
        let title = String::from_utf8_lossy(title);
        self.0 = title.chars().take(TITLE_CHARACTERS).collect();
    }
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Terminal").finish_non_exhaustive()
    }
}

impl Terminal {
    pub(super) fn new(size: TerminalSize) -> Self {
        Self {
            parser: vt100::Parser::new_with_callbacks(size.rows, size.columns, 0, Title::default()),
        }
    }

    pub(super) fn show(&mut self, bytes: &[u8]) {
        self.parser.process(bytes);
    }

    pub(super) fn resize(&mut self, size: TerminalSize) {
        self.parser.screen_mut().set_size(size.rows, size.columns);
    }

    pub(super) fn screen(&self) -> Screen {
        let screen = self.parser.screen();
        let (rows, columns) = screen.size();
        let (cursor_row, cursor_column) = screen.cursor_position();
        let lines: Vec<String> = screen
            .rows(0, columns.get())
            .map(|line| line.trim_end().to_owned())
            .collect();
        Screen {
            text: lines.join("\n").trim_end_matches('\n').to_owned(),
            rows: rows.get(),
            columns: columns.get(),
            cursor_row,
            cursor_column,
            cursor_visible: !screen.hide_cursor(),
            alternate: screen.alternate_screen(),
            title: self.parser.callbacks().0.clone(),
        }
    }
}

impl super::Session {
    /// What stands on its terminal; `None` if it has none.
    pub fn screen(&self) -> Option<Screen> {
        let terminal = self.terminal.as_ref()?;
        Some(super::lock(terminal).screen())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    fn size(rows: u16, columns: u16) -> TerminalSize {
        TerminalSize {
            rows: NonZeroU16::new(rows).unwrap_or(NonZeroU16::MIN),
            columns: NonZeroU16::new(columns).unwrap_or(NonZeroU16::MIN),
        }
    }

    #[test]
    fn what_is_overwritten_and_cleared_is_not_on_the_screen() {
        let mut terminal = Terminal::new(size(4, 20));
        terminal.show(b"secret\r\x1b[2Kone\r\ntwo\x1b]0;a title\x07\x1b[1;2H");
        let screen = terminal.screen();
        assert_eq!(screen.text, "one\ntwo");
        assert_eq!((screen.cursor_row, screen.cursor_column), (0, 1));
        assert_eq!(screen.title, "a title");
        terminal.resize(size(2, 2));
        assert_eq!(terminal.screen().rows, 2);
    }

    #[test]
    fn no_output_makes_it_panic() {
        // Pseudo-random bytes with many escapes in them, the same in every run.
        let mut terminal = Terminal::new(size(5, 7));
        let mut state = 1_u64;
        for round in 0..20_000_u32 {
            let mut bytes = [0_u8; 16];
            for byte in &mut bytes {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                *byte = match state >> 61 {
                    0 => 0x1b,
                    1 => b'[',
                    2 => b'0' + u8::try_from((state >> 40) % 10).unwrap_or(0),
                    3 => b';',
                    _ => u8::try_from((state >> 33) & 0xFF).unwrap_or(0),
                };
            }
            terminal.show(&bytes);
            if round % 1000 == 0 {
                let rows = u16::try_from(round % 9 + 1).unwrap_or(1);
                terminal.resize(size(rows, rows + 1));
            }
        }
        assert_eq!(terminal.screen().rows, 2);
    }
}
