//! Results that stay within a number of bytes and say what was left out.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The beginning of a text that fits a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// What is shown; ends at a character's end.
    pub text: &'a str,
    /// How many bytes were left out; 0 if nothing.
    pub omitted_bytes: usize,
}

/// The beginning of a text, at most `budget` bytes of it.
pub fn head(text: &str, budget: usize) -> Head<'_> {
    let shown = &text[..text.floor_char_boundary(budget)];
    Head {
        text: shown,
        omitted_bytes: text.len() - shown.len(),
    }
}

/// A text of at most about `budget` bytes: its beginning and its end, and between them how much is missing.
pub fn ends(text: &str, budget: usize) -> Cow<'_, str> {
    if text.len() <= budget {
        return Cow::Borrowed(text);
    }
    let first = text.floor_char_boundary(budget / 2);
    let last = text.ceil_char_boundary(text.len() - budget / 2);
    let omitted = last - first;
    Cow::Owned(format!(
        "{}\n[… {omitted} bytes left out …]\n{}",
        &text[..first],
        &text[last..]
    ))
}

/// Some of a list, and where the rest begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The entries that fit.
    pub items: Vec<T>,
    /// Whether entries were left out.
    pub truncated: bool,
    /// Give this as `cursor` to read on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The entries from the front of a list whose JSON fits `budget` bytes, at least one; `cursor_of` names the last one shown,
/// after which the next page begins.
pub fn page<T: Serialize>(
    items: impl IntoIterator<Item = T>,
    budget: usize,
    cursor_of: impl Fn(&T) -> String,
) -> Page<T> {
    let mut page = Page {
        items: Vec::new(),
        truncated: false,
        next_cursor: None,
    };
    let mut used = 0_usize;
    for item in items {
        used = used.saturating_add(json_bytes(&item)).saturating_add(1);
        if used > budget && !page.items.is_empty() {
            page.truncated = true;
            page.next_cursor = page.items.last().map(cursor_of);
            break;
        }
        page.items.push(item);
    }
    page
}

/// How many bytes a value takes as compact JSON, counted without building it; `usize::MAX` for what is no JSON.
pub fn json_bytes(value: &impl Serialize) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_text_ends_at_a_character_and_says_how_much_is_missing() {
        let cut = head("grün≤", 3);
        assert_eq!(
            cut,
            Head {
                text: "gr",
                omitted_bytes: 6
            }
        );
        assert_eq!(
            head("short", 100),
            Head {
                text: "short",
                omitted_bytes: 0
            }
        );
    }

    #[test]
    fn the_end_of_a_long_text_is_kept_too() {
        let text = format!("first{}last", "ü".repeat(500));
        let cut = ends(&text, 21);
        assert!(cut.starts_with("first") && cut.ends_with("last"), "{cut}");
        assert!(cut.contains("bytes left out"));
        assert_eq!(ends("short", 100), "short");
    }

    #[test]
    fn pages_put_together_are_the_whole_list() {
        let all: Vec<u32> = (0..100).collect();
        let mut seen: Vec<u32> = Vec::new();
        let mut after: Option<u32> = None;
        loop {
            let rest = all
                .iter()
                .copied()
                .filter(|item| after.is_none_or(|last| *item > last));
            let page = page(rest, 20, u32::to_string);
            assert!(page.truncated == page.next_cursor.is_some());
            seen.extend(&page.items);
            match page.next_cursor.and_then(|cursor| cursor.parse().ok()) {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn an_entry_over_the_budget_is_still_reached() {
        let page = page(["a very long entry", "b"], 4, |item| (*item).to_owned());
        assert_eq!(page.items, ["a very long entry"]);
        assert_eq!(page.next_cursor.as_deref(), Some("a very long entry"));
    }
}
