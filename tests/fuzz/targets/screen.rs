//! Any output on a terminal of any size: it is shown, within the terminal.

#![no_main]

use std::num::NonZeroU16;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shell::session::Shown;

#[derive(Debug, Arbitrary)]
struct Terminal<'a> {
    size: Size,
    steps: Vec<(&'a [u8], Size)>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Size {
    rows: u8,
    columns: u8,
}

impl Size {
    /// What the tools take goes to 500; small ones are where edges are.
    fn numbers(self) -> [NonZeroU16; 2] {
        [self.rows, self.columns]
            .map(|number| NonZeroU16::new(u16::from(number)).unwrap_or(NonZeroU16::MIN))
    }
}

fuzz_target!(|terminal: Terminal<'_>| {
    let [rows, columns] = terminal.size.numbers();
    let mut shown = Shown::new(rows, columns);
    let mut now = [rows.get(), columns.get()];
    for (bytes, size) in terminal.steps {
        shown.show(bytes);
        if size.rows > 0 {
            let [rows, columns] = size.numbers();
            shown.resize(rows, columns);
            now = [rows.get(), columns.get()];
        }
        let screen = shown.screen();
        assert_eq!([screen.rows, screen.columns], now);
        assert!(screen.text.lines().count() <= usize::from(screen.rows));
        assert!(screen.cursor_row < screen.rows && screen.cursor_column <= screen.columns);
        assert!(screen.title.chars().count() <= 200);
    }
});
