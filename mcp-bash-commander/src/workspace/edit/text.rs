//! A text seen with plain line breaks, while every line keeps the break it has.

use std::borrow::Cow;

/// A text and the same text with every `\r\n` as `\n`.
pub(super) struct Text {
    given: String,
    plain: Option<String>,
    /// Where `plain` has the `\n` of a `\r\n`, in order.
    wide: Vec<usize>,
    /// The breaks of the text, of either kind.
    breaks: usize,
}

impl Text {
    pub(super) fn new(given: String) -> Self {
        let mut wide = Vec::new();
        let plain = given.contains("\r\n").then(|| {
            let mut plain = String::with_capacity(given.len());
            for (number, line) in given.split("\r\n").enumerate() {
                if number > 0 {
                    wide.push(plain.len());
                    plain.push('\n');
                }
                plain.push_str(line);
            }
            plain
        });
        let breaks = breaks_in(&given);
        Self {
            given,
            plain,
            wide,
            breaks,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// The text with plain line breaks.
    pub(super) fn plain(&self) -> &str {
        self.plain.as_deref().unwrap_or(&self.given)
    }

    pub(super) fn into_text(self) -> String {
        self.given
    }

    /// The text with `new` in place of `length` bytes at each of `places` of the plain text, and how many there were; what lies
    /// between stays as it is, byte for byte.
    ///
    /// # Errors
    /// At least so long a text would be made; that is more than `most` bytes.
    pub(super) fn replaced(
        &self,
        places: impl IntoIterator<Item = usize>,
        length: usize,
        new: &str,
        most: usize,
    ) -> Result<(Self, usize), u64> {
        let mut text = String::new();
        let (mut kept, mut count) = (0, 0);
        for place in places {
            text.push_str(&self.given[kept..self.in_given(place)]);
            kept = self.in_given(place + length);
            self.push_broken_as_here(&mut text, new, place, place + length);
            count += 1;
            if text.len() > most {
                return Err(text.len() as u64);
            }
        }
        text.push_str(&self.given[kept..]);
        if text.len() > most {
            return Err(text.len() as u64);
        }
        Ok((Self::new(text), count))
    }

    /// Adds `new`, its line breaks written like those it replaces; further ones like the last of them, or as most of the text.
    fn push_broken_as_here(&self, text: &mut String, new: &str, start: usize, end: usize) {
        if self.breaks == 0 || !new.contains('\n') {
            text.push_str(new);
            return;
        }
        let mut replaced = self.plain()[start..end]
            .match_indices('\n')
            .map(|(at, _)| self.wide.binary_search(&(start + at)).is_ok());
        let mut is_wide = self.wide.len() * 2 > self.breaks;
        for (number, line) in with_plain_breaks(new).split('\n').enumerate() {
            if number > 0 {
                is_wide = replaced.next().unwrap_or(is_wide);
                text.push_str(if is_wide { "\r\n" } else { "\n" });
            }
            text.push_str(line);
        }
    }

    /// The place in the text as given that a place in the plain text stands for; before the whole break at a break.
    fn in_given(&self, place: usize) -> usize {
        place + self.wide.partition_point(|wide| *wide < place)
    }
}

/// The text with `\n` for every `\r\n`.
pub(super) fn with_plain_breaks(text: &str) -> Cow<'_, str> {
    if text.contains("\r\n") {
        text.replace("\r\n", "\n").into()
    } else {
        text.into()
    }
}

pub(super) fn breaks_in(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}
