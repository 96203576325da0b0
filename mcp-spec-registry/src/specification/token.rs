//! Cuts the text of a criterion into words, numbers and signs, and lifts out how, how long and under which load it is measured.

use super::decimal::Decimal;
use super::unit;

/// What a piece of a criterion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Begins with a letter.
    Word,
    /// Begins with a digit; the value is absent where it is no plain number (`1.2.3`, `99,9`).
    Number(Option<Decimal>),
    /// `<`, `≥` and their like.
    Sign,
    /// Any other character.
    Other,
}

/// A piece of a criterion's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'text> {
    pub(super) kind: Kind,
    pub(super) text: &'text str,
    /// Whether nothing stands between it and the piece before.
    pub(super) glued: bool,
}

impl Token<'_> {
    pub(super) fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word)
    }

    pub(super) fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(word))
    }

    pub(super) fn number(&self) -> Option<Decimal> {
        match self.kind {
            Kind::Number(value) => value,
            _ => None,
        }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self.kind, Kind::Number(_))
    }
}

/// Cuts a text into its pieces.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut previous_end = None;
    while let Some(character) = text[start..].chars().next() {
        if character.is_whitespace() {
            start += character.len_utf8();
            continue;
        }
        let glued = previous_end == Some(start);
        let (kind, piece) = piece(&text[start..], character, glued);
        pieces.push(Token {
            kind,
            text: piece,
            glued,
        });
        start += piece.len();
        previous_end = Some(start);
    }
    pieces
}

/// The piece a text begins with.
fn piece(rest: &str, first: char, glued: bool) -> (Kind, &str) {
    let up_to = |accept: fn(char) -> bool| {
        let tail = &rest[first.len_utf8()..];
        let length = tail
            .find(|character| !accept(character))
            .unwrap_or(tail.len());
        &rest[..first.len_utf8() + length]
    };
    // A minus is a sign only where a number could begin: not in `sub-5-second` or `2026-01-01`.
    let begins_negative = matches!(first, '-' | '\u{2212}')
        && !glued
        && rest[first.len_utf8()..].starts_with(|character: char| character.is_ascii_digit());
    if first.is_ascii_digit() || begins_negative {
        // The comma or full stop after a number belongs to the sentence.
        let number =
            up_to(|character| character.is_ascii_digit() || matches!(character, '.' | ','));
        let number = number.trim_end_matches(['.', ',']);
        return (Kind::Number(Decimal::parse(number)), number);
    }
    match first {
        '<' | '>' | '=' => (Kind::Sign, up_to(|character| character == '=')),
        '≤' | '≥' | '⩽' | '⩾' | '≦' | '≧' => (Kind::Sign, &rest[..first.len_utf8()]),
        letter if letter.is_alphabetic() => (Kind::Word, up_to(char::is_alphanumeric)),
        other => (Kind::Other, &rest[..other.len_utf8()]),
    }
}

/// Whether these words stand at this place.
pub(super) fn words_at(tokens: &[Token<'_>], at: usize, words: &[&str]) -> bool {
    words
        .iter()
        .enumerate()
        .all(|(offset, word)| tokens.get(at + offset).is_some_and(|token| token.is(word)))
}

/// Removes a percentile (`p95`, `99th percentile`, `median`, `for 95% of requests`) and returns it.
pub(super) fn take_percentile(tokens: &mut Vec<Token<'_>>) -> Option<Decimal> {
    let numbers = tokens.iter().filter(|token| token.is_number()).count();
    for at in 0..tokens.len() {
        let token = tokens[at];
        if token.is("median") {
            return Some(cut(tokens, at, at + 1, Decimal::from(50)));
        }
        let digits = token
            .text
            .strip_prefix(['p', 'P'])
            .filter(|_| token.kind == Kind::Word);
        if let Some(digits) =
            digits.filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit()))
        {
            // `p99.9` arrives in three pieces.
            let fraction = tokens
                .get(at + 1)
                .filter(|dot| dot.glued && dot.text == ".")
                .and(tokens.get(at + 2));
            let fraction = fraction.filter(|piece| piece.glued && piece.is_number());
            let (text, end) = match fraction {
                Some(piece) => (format!("{digits}.{}", piece.text), at + 3),
                None => (digits.to_owned(), at + 1),
            };
            if let Some(value) = Decimal::parse(&text).filter(|value| *value < Decimal::HUNDRED) {
                return Some(cut(tokens, at, end, value));
            }
        }
        let Some(value) = token.number().filter(|value| *value < Decimal::HUNDRED) else {
            continue;
        };
        let ordinal = tokens
            .get(at + 1)
            .is_some_and(|next| next.glued && next.is_any(&["th", "st", "nd", "rd"]));
        if ordinal && tokens.get(at + 2).is_some_and(|next| next.is("percentile")) {
            return Some(cut(tokens, at, at + 3, value));
        }
        let of_all = numbers > 1
            && words_at(tokens, at + 1, &["%", "of"])
            && tokens.get(at + 3).is_some_and(|next| {
                next.is_any(&[
                    "requests",
                    "queries",
                    "calls",
                    "responses",
                    "pages",
                    "users",
                    "cases",
                ])
            })
            && at > 0
            && tokens[at - 1].is_any(&["for", "in"]);
        if of_all {
            return Some(cut(tokens, at, at + 4, value));
        }
    }
    None
}

/// Removes the period a ratio is taken over (`over 30 days`, `per month`, `monthly`) and returns it in milliseconds.
pub(super) fn take_window(tokens: &mut Vec<Token<'_>>) -> Option<Decimal> {
    const DAY: u64 = 86_400_000;
    let is_ratio = tokens.iter().any(|token| token.text == "%");
    let numbers = tokens.iter().filter(|token| token.is_number()).count();
    for at in 0..tokens.len() {
        let token = tokens[at];
        let named = match token.text.to_lowercase().as_str() {
            "daily" => Some(DAY),
            "weekly" => Some(7 * DAY),
            "monthly" => Some(30 * DAY),
            _ => None,
        };
        if let Some(length) = named.filter(|_| is_ratio) {
            return Some(cut(tokens, at, at + 1, Decimal::from(length)));
        }
        if token.is_any(&["per", "a", "each", "every", "/"]) && is_ratio {
            let named =
                tokens
                    .get(at + 1)
                    .and_then(|period| match period.text.to_lowercase().as_str() {
                        "day" => Some(DAY),
                        "week" => Some(7 * DAY),
                        "month" => Some(30 * DAY),
                        "quarter" => Some(90 * DAY),
                        "year" => Some(365 * DAY),
                        _ => None,
                    });
            if let Some(length) = named {
                return Some(cut(tokens, at, at + 2, Decimal::from(length)));
            }
        }
        if numbers < 2 || !token.is_any(&["over", "per", "in", "during"]) {
            continue;
        }
        let mut number_at = at + 1;
        while tokens.get(number_at).is_some_and(|next| {
            next.is_any(&["a", "any", "each", "the", "last", "rolling", "period", "of"])
        }) {
            number_at += 1;
        }
        let Some(value) = tokens.get(number_at).and_then(Token::number) else {
            continue;
        };
        let unit_at = number_at
            + 1
            + usize::from(
                tokens
                    .get(number_at + 1)
                    .is_some_and(|next| next.text == "-"),
            );
        let unit = tokens.get(unit_at).and_then(|word| unit::find(word.text));
        if let Some(unit) = unit.filter(|unit| unit.dimension == unit::Dimension::Time) {
            let noun = tokens
                .get(unit_at + 1)
                .is_some_and(|next| next.is_any(&["window", "period"]));
            let length = value.times(unit.worth)?;
            return Some(cut(tokens, at, unit_at + 1 + usize::from(noun), length));
        }
    }
    None
}

/// The load under which a limit has to hold, as counted things at once or each second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundLoad {
    pub(super) text: String,
    pub(super) value: Decimal,
    pub(super) each_second: bool,
}

/// Removes the load (`under 100 concurrent connections`, `at 500 requests per second`) and returns it.
pub(super) fn take_load(tokens: &mut Vec<Token<'_>>) -> Option<FoundLoad> {
    const NOUNS: &[&str] = &[
        "users",
        "connections",
        "clients",
        "requests",
        "sessions",
        "calls",
        "agents",
        "queries",
        "rps",
        "qps",
        "req",
    ];
    if tokens.iter().filter(|token| token.is_number()).count() < 2 {
        return None;
    }
    for at in 1..tokens.len() {
        let Some(value) = tokens[at].number() else {
            continue;
        };
        let introduced = tokens[at - 1].is_any(&["under", "with", "at", "during", "for", "("]);
        let at_once = tokens
            .get(at + 1)
            .is_some_and(|next| next.is_any(&["concurrent", "simultaneous", "parallel"]));
        let noun_at = at + 1 + usize::from(at_once);
        let Some(noun) = tokens.get(noun_at).filter(|noun| noun.is_any(NOUNS)) else {
            continue;
        };
        if !introduced && !at_once {
            continue;
        }
        let (each_second, end) = if noun.is_any(&["rps", "qps"]) {
            (true, noun_at + 1)
        } else if words_at(tokens, noun_at + 1, &["per", "second"])
            || words_at(tokens, noun_at + 1, &["/", "s"])
        {
            (true, noun_at + 3)
        } else {
            (false, noun_at + 1)
        };
        let text = joined(&tokens[at..end]);
        let begin = if introduced && tokens[at - 1].text != "(" {
            at - 1
        } else {
            at
        };
        return Some(cut(
            tokens,
            begin,
            end,
            FoundLoad {
                text,
                value,
                each_second,
            },
        ));
    }
    None
}

/// Removes pieces, and what only led to them, and passes the value on.
fn cut<T>(tokens: &mut Vec<Token<'_>>, begin: usize, end: usize, value: T) -> T {
    let led_to = begin > 0 && tokens[begin - 1].is_any(&["at", "for", "in", "over"]);
    tokens.drain(begin - usize::from(led_to)..end.min(tokens.len()));
    value
}

/// The pieces as text again, without empty brackets and dangling punctuation.
pub(super) fn joined(tokens: &[Token<'_>]) -> String {
    let mut text = String::new();
    let mut apart = false;
    for (index, token) in tokens.iter().enumerate() {
        let mark = matches!(token.text, "(" | ")" | ":" | "," | ";" | "." | "-");
        let solid = |token: &Token<'_>| matches!(token.kind, Kind::Word | Kind::Number(_));
        let within_a_word = token.glued
            && index
                .checked_sub(1)
                .is_some_and(|before| solid(&tokens[before]))
            && tokens
                .get(index + 1)
                .is_some_and(|next| next.glued && solid(next));
        let dangling = mark && !within_a_word;
        if dangling {
            apart = true;
            continue;
        }
        if !text.is_empty() && (apart || !token.glued) {
            text.push(' ');
        }
        apart = false;
        text.push_str(token.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn numbers_end_where_their_unit_begins() {
        assert_eq!(
            texts("≤ 2GB, sub-5-second; 99.9%."),
            [
                "≤", "2", "GB", ",", "sub", "-", "5", "-", "second", ";", "99.9", "%", "."
            ]
        );
        assert_eq!(texts(">= -5 ms"), [">=", "-5", "ms"]);
    }

    #[test]
    fn any_text_can_be_cut() {
        for text in [
            "",
            "-",
            "5",
            "5.",
            ",5",
            "é≤5µs",
            "<===",
            "\u{202e}9",
            "1.2.3,,,",
            "−5",
            "p99.",
            "p.",
        ] {
            let all: String = tokens(text).iter().map(|token| token.text).collect();
            assert_eq!(all, text.split_whitespace().collect::<String>(), "{text:?}");
        }
    }

    #[test]
    fn percentile_window_and_load_are_lifted_out() {
        let mut pieces = tokens("p99.9 latency < 20ms under 100 concurrent connections");
        assert_eq!(take_percentile(&mut pieces), Some(Decimal::new(999, 1)));
        let load = take_load(&mut pieces).map(|load| load.text);
        assert_eq!(load.as_deref(), Some("100 concurrent connections"));
        assert_eq!(joined(&pieces), "latency < 20ms");
        let mut pieces = tokens("99.9% uptime over any 30-day window");
        assert_eq!(
            take_window(&mut pieces),
            Some(Decimal::from(30 * 86_400_000))
        );
        assert_eq!(joined(&pieces), "99.9% uptime");
    }
}
