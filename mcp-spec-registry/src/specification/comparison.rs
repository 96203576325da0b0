//! Finds where a text compares something: a sign, words that mean one, or what goes without saying.

use super::decimal::Decimal;
use super::measure::Operator;
use super::problem::{Problem, ProblemCode, Severity};
use super::reading::unit_at;
use super::token::{self, Kind, Token, words_at};
use super::unit::{Dimension, Unit};

/// A comparison found in the pieces `begin..end` of a text.
pub(super) struct Comparison {
    pub(super) operator: Operator,
    /// Where the number or grade stands.
    pub(super) value_at: usize,
    pub(super) begin: usize,
    pub(super) end: usize,
    /// What is known of the unit beforehand (a port, a status).
    pub(super) unit: Option<Unit>,
}

/// `< 200ms`, `score >= A`.
pub(super) fn by_sign(tokens: &[Token<'_>], problems: &mut Vec<Problem>) -> Option<Comparison> {
    let at = tokens.iter().position(|token| token.kind == Kind::Sign)?;
    let operator = Operator::of_sign(tokens[at].text)?;
    let value = tokens.get(at + 1)?;
    if value.is_any(&["nan", "inf", "infinity", "infinite", "∞", "."]) {
        problems.push(Problem::new(
            Severity::Error,
            ProblemCode::ValueNotANumber,
            format!(
                "`{}` is no number to compare with",
                token::joined(&tokens[at + 1..])
            ),
            "give a finite number and a unit, like `< 200 ms`",
        ));
        return None;
    }
    Some(Comparison {
        operator,
        value_at: at + 1,
        begin: at,
        end: at + 2,
        unit: None,
    })
}

/// Words before a number that compare.
const BEFORE: &[(&[&str], Operator)] = &[
    (&["no", "less", "than"], Operator::AtLeast),
    (&["not", "less", "than"], Operator::AtLeast),
    (&["no", "fewer", "than"], Operator::AtLeast),
    (&["at", "least"], Operator::AtLeast),
    (&["minimum", "of"], Operator::AtLeast),
    (&["minimum"], Operator::AtLeast),
    (&["no", "more", "than"], Operator::AtMost),
    (&["not", "more", "than"], Operator::AtMost),
    (&["no", "longer", "than"], Operator::AtMost),
    (&["not", "exceed"], Operator::AtMost),
    (&["not", "exceeding"], Operator::AtMost),
    (&["not", "to", "exceed"], Operator::AtMost),
    (&["never", "exceeds"], Operator::AtMost),
    (&["at", "most"], Operator::AtMost),
    (&["up", "to"], Operator::AtMost),
    (&["maximum", "of"], Operator::AtMost),
    (&["maximum"], Operator::AtMost),
    (&["max"], Operator::AtMost),
    (&["within"], Operator::AtMost),
    (&["in", "under"], Operator::Less),
    (&["less", "than"], Operator::Less),
    (&["fewer", "than"], Operator::Less),
    (&["lower", "than"], Operator::Less),
    (&["faster", "than"], Operator::Less),
    (&["under"], Operator::Less),
    (&["below"], Operator::Less),
    (&["more", "than"], Operator::Greater),
    (&["greater", "than"], Operator::Greater),
    (&["higher", "than"], Operator::Greater),
    (&["above"], Operator::Greater),
    (&["over"], Operator::Greater),
    (&["exactly"], Operator::Equal),
    (&["equal", "to"], Operator::Equal),
    (&["equals"], Operator::Equal),
];

/// `at least 3 replicas`, `sub-100ms`, `512 MB or less`, `30 seconds max`.
pub(super) fn by_words(tokens: &[Token<'_>]) -> Option<Comparison> {
    let value_at = tokens.iter().position(Token::is_number)?;
    if value_at >= 2 && tokens[value_at - 1].text == "-" && tokens[value_at - 2].is("sub") {
        let begin = value_at - 2;
        return Some(Comparison {
            operator: Operator::Less,
            value_at,
            begin,
            end: value_at + 1,
            unit: None,
        });
    }
    for (words, operator) in BEFORE {
        let Some(begin) = value_at.checked_sub(words.len()) else {
            continue;
        };
        if words_at(tokens, begin, words) {
            // `not above 5` says the opposite; a human reads it.
            let negated = begin > 0 && tokens[begin - 1].is_any(&["not", "never", "no", "cannot"]);
            return (!negated).then_some(Comparison {
                operator: *operator,
                value_at,
                begin,
                end: value_at + 1,
                unit: None,
            });
        }
    }
    let unit_end = (value_at + 1..tokens.len().min(value_at + 3)).find(|at| {
        words_at(tokens, *at, &["or"]) || tokens[*at].is_any(&["max", "maximum", "min", "minimum"])
    })?;
    let word = if tokens[unit_end].is("or") {
        tokens.get(unit_end + 1)?
    } else {
        &tokens[unit_end]
    };
    let operator = match word.text.to_lowercase().as_str() {
        "less" | "lower" | "fewer" | "faster" | "below" | "under" | "shorter" | "max"
        | "maximum" => Operator::AtMost,
        "more" | "higher" | "greater" | "above" | "longer" | "later" | "newer" | "min"
        | "minimum" => Operator::AtLeast,
        _ => return None,
    };
    let is_minutes = word.is("min") && unit_end == value_at + 1;
    (!is_minutes).then_some(Comparison {
        operator,
        value_at,
        begin: value_at,
        end: value_at + 1,
        unit: None,
    })
}

/// `99.9% uptime` (at least), `30-day log retention` (at least), `returns 200`, `on port 80`.
pub(super) fn implied(tokens: &[Token<'_>], problems: &mut Vec<Problem>) -> Option<Comparison> {
    let value_at = tokens.iter().position(Token::is_number)?;
    let comparison = |operator, unit| Comparison {
        operator,
        value_at,
        begin: value_at,
        end: value_at + 1,
        unit,
    };
    let before = |word: &str| tokens[..value_at].iter().any(|token| token.is(word));
    let whole = tokens[value_at].number().and_then(Decimal::whole);
    let plain = |name, dimension| Unit {
        name,
        dimension,
        worth: Decimal::from(1),
        other_worth: None,
    };
    if value_at > 0 && tokens[value_at - 1].is("port") {
        return Some(comparison(
            Operator::Equal,
            Some(plain("port", Dimension::Port)),
        ));
    }
    let answers = [
        "returns", "return", "status", "responds", "answers", "code", "http",
    ]
    .iter()
    .any(|word| before(word));
    if answers
        && whole.is_some_and(|code| (100..600).contains(&code))
        && unit_at(tokens, value_at).is_none()
    {
        return Some(comparison(
            Operator::Equal,
            Some(plain("status", Dimension::Status)),
        ));
    }
    let (unit, _) = unit_at(tokens, value_at)?;
    let said = |words: &[&str]| tokens.iter().any(|token| token.is_any(words));
    let kept = said(&[
        "retention",
        "retained",
        "history",
        "archive",
        "archived",
        "kept",
    ]);
    if unit.dimension == Dimension::Time && kept {
        return Some(comparison(Operator::AtLeast, None));
    }
    let unwanted = said(&[
        "loss",
        "error",
        "errors",
        "failure",
        "failures",
        "rejection",
        "rejections",
        "dropped",
        "downtime",
        "cpu",
        "memory",
        "usage",
        "utilisation",
        "utilization",
        "overhead",
        "ram",
        "disk",
    ]);
    if unit.dimension == Dimension::Ratio && !unwanted {
        return Some(comparison(Operator::AtLeast, None));
    }
    let stated_after_colon = value_at > 0 && tokens[value_at - 1].text == ":";
    if unit.dimension == Dimension::Ratio || stated_after_colon {
        let value = tokens[value_at].text;
        let name = unit.name;
        problems.push(Problem::new(
            Severity::Warning,
            ProblemCode::OperatorMissing,
            format!("it is not said whether {value} {name} is the most or the least"),
            format!("write `<= {value} {name}` or `>= {value} {name}`"),
        ));
    }
    None
}
