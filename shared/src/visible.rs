//! Makes characters visible that could mislead a reader: control, bidirectional and zero-width ones.

use std::fmt::Write;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Text for people: line breaks and tabs stay, every other invisible character is shown by name.
pub fn prose(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' | ' ' => shown.push(character),
            character if is_invisible(character) => push_name(&mut shown, character),
            character => shown.push(character),
        }
    }
    shown
}

/// Machine fields (paths, commands, names): everything but printable ASCII, and blanks at the edges, as `\u{…}`.
///
/// Line breaks inside a longer text stay when `multiline` is set, so that a script can be read.
pub fn machine(text: &str, multiline: bool) -> String {
    let inner = text.trim_matches(' ');
    let leading = text.len() - text.trim_start_matches(' ').len();
    let trailing = if inner.is_empty() {
        0
    } else {
        text.len() - leading - inner.len()
    };
    let mut shown = "\\u{20}".repeat(leading);
    for character in inner.chars() {
        match character {
            '\n' if multiline => shown.push('\n'),
            ' '..='~' => shown.push(character),
            character => {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(character));
            }
        }
    }
    shown.push_str(&"\\u{20}".repeat(trailing));
    shown
}

fn is_invisible(character: char) -> bool {
    matches!(
        character.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
            | GeneralCategory::SpaceSeparator
            | GeneralCategory::PrivateUse
            | GeneralCategory::Unassigned
    ) || matches!(character,
        '\u{034f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}' // blank letters
        | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' | '\u{180b}'..='\u{180d}' | '\u{180f}' // variation selectors
        | '\u{2800}') // blank Braille pattern
}

fn push_name(shown: &mut String, character: char) {
    let name = match character {
        '\0' => "NULL",
        '\u{07}' => "BELL",
        '\u{08}' => "BACKSPACE",
        '\r' => "CARRIAGE RETURN",
        '\u{1b}' => "ESCAPE",
        '\u{7f}' => "DELETE",
        '\u{a0}' => "NO-BREAK SPACE",
        '\u{ad}' => "SOFT HYPHEN",
        '\u{61c}' => "ARABIC LETTER MARK",
        '\u{200b}' => "ZERO WIDTH SPACE",
        '\u{200c}' => "ZERO WIDTH NON-JOINER",
        '\u{200d}' => "ZERO WIDTH JOINER",
        '\u{200e}' => "LEFT-TO-RIGHT MARK",
        '\u{200f}' => "RIGHT-TO-LEFT MARK",
        '\u{202a}' => "LEFT-TO-RIGHT EMBEDDING",
        '\u{202b}' => "RIGHT-TO-LEFT EMBEDDING",
        '\u{202c}' => "POP DIRECTIONAL FORMATTING",
        '\u{202d}' => "LEFT-TO-RIGHT OVERRIDE",
        '\u{202e}' => "RIGHT-TO-LEFT OVERRIDE",
        '\u{2060}' => "WORD JOINER",
        '\u{2066}' => "LEFT-TO-RIGHT ISOLATE",
        '\u{2067}' => "RIGHT-TO-LEFT ISOLATE",
        '\u{2068}' => "FIRST STRONG ISOLATE",
        '\u{2069}' => "POP DIRECTIONAL ISOLATE",
        '\u{feff}' => "ZERO WIDTH NO-BREAK SPACE",
        _ => "",
    };
    let separator = if name.is_empty() { "" } else { " " };
    // Writing to a String cannot fail.
    let _ = write!(shown, "⟦U+{:04X}{separator}{name}⟧", u32::from(character));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_reorder_or_hide_text_are_named() {
        assert_eq!(
            prose("rm \u{202e}txt.sh"),
            "rm ⟦U+202E RIGHT-TO-LEFT OVERRIDE⟧txt.sh"
        );
        assert_eq!(
            prose("a\u{200b}b\u{1b}[2Jc\rd"),
            "a⟦U+200B ZERO WIDTH SPACE⟧b⟦U+001B ESCAPE⟧[2Jc⟦U+000D CARRIAGE RETURN⟧d"
        );
        assert_eq!(prose("\u{e0041}"), "⟦U+E0041⟧");
    }

    #[test]
    fn ordinary_text_of_any_language_stays() {
        let text = "≤ 5 seconds, Größe, 配置\n\tnext";
        assert_eq!(prose(text), text);
    }

    #[test]
    fn a_look_alike_letter_in_a_machine_field_is_spelled_out() {
        assert_eq!(machine("/usr/bin/ѕh", false), "/usr/bin/\\u{455}h");
        assert_eq!(machine(" a ", false), "\\u{20}a\\u{20}");
        assert_eq!(machine("  ", false), "\\u{20}\\u{20}");
        assert_eq!(machine("a\nb\t", true), "a\nb\\u{9}");
        assert_eq!(machine("a\nb", false), "a\\u{a}b");
    }
}
