//! Reads what a criterion measures out of its words.

use super::decimal::Decimal;
use super::measure::{Grade, Limit, Load, Measure, Operator};
use super::problem::{Problem, ProblemCode, Severity};
use super::token::{self, Kind, Token, words_at};
use super::unit::{self, Dimension, Unit};

/// A longer text is prose for a human.
const MAX_MEASURED_CHARS: usize = 500;

/// What reading a text found: a measure, problems, both or neither.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) measure: Option<Measure>,
    pub(super) problems: Vec<Problem>,
}

/// A comparison found in the pieces `begin..end` of a text.
struct Comparison {
    operator: Operator,
    /// Where the number or grade stands.
    value_at: usize,
    begin: usize,
    end: usize,
    /// What is known of the unit beforehand (a port, a status).
    unit: Option<Unit>,
}

/// Reads the text of a criterion or constraint; what does not read as exactly one comparison is left to a human.
pub(super) fn read(text: &str) -> Reading {
    if text.chars().count() > MAX_MEASURED_CHARS {
        return Reading::default();
    }
    let mut tokens = token::tokens(text);
    let percentile = token::take_percentile(&mut tokens);
    let load = token::take_load(&mut tokens);
    let window_ms = token::take_window(&mut tokens);
    let mut reading = Reading::default();
    let measure = read_comparison(&tokens, &mut reading.problems);
    reading.measure = measure.map(|measure| Measure {
        percentile,
        window_ms,
        load: load.map(|found| Load {
            text: found.text,
            concurrent: (!found.each_second).then_some(found.value),
            per_second: found.each_second.then_some(found.value),
        }),
        ..measure
    });
    reading
}

fn read_comparison(tokens: &[Token<'_>], problems: &mut Vec<Problem>) -> Option<Measure> {
    let numbers = tokens.iter().filter(|token| token.is_number()).count();
    let signs = tokens
        .iter()
        .filter(|token| token.kind == Kind::Sign)
        .count();
    if numbers == 0 && signs == 0 {
        return zero(tokens);
    }
    if numbers > 1 || signs > 1 {
        return None;
    }
    let found = match signs {
        1 => by_sign(tokens, problems)?,
        _ => by_words(tokens).or_else(|| implied(tokens, problems))?,
    };
    finish(tokens, &found, problems)
}

/// `< 200ms`, `score >= A`.
fn by_sign(tokens: &[Token<'_>], problems: &mut Vec<Problem>) -> Option<Comparison> {
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
fn by_words(tokens: &[Token<'_>]) -> Option<Comparison> {
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
fn implied(tokens: &[Token<'_>], problems: &mut Vec<Problem>) -> Option<Comparison> {
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

/// `Zero data loss`, `zero-downtime deployments`, `Data loss: zero`.
fn zero(tokens: &[Token<'_>]) -> Option<Measure> {
    let at = tokens.iter().position(|token| token.is("zero"))?;
    let after = token::joined(&tokens[at + 1..]);
    let subject = if after.is_empty() {
        token::joined(&tokens[..at])
    } else {
        after
    };
    let subject = tidy(&subject);
    (!subject.is_empty()).then(|| Measure {
        subject,
        operator: Operator::Equal,
        value: "0".to_owned(),
        unit: String::new(),
        dimension: Dimension::Count,
        limit: Limit::Number(Decimal::ZERO),
        percentile: None,
        window_ms: None,
        load: None,
    })
}

/// The unit after the number at this place, and how many pieces it takes; `5-second` and `2 GB/s` included.
fn unit_at(tokens: &[Token<'_>], value_at: usize) -> Option<(Unit, usize)> {
    let hyphen = usize::from(
        tokens
            .get(value_at + 1)
            .is_some_and(|token| token.text == "-" && token.glued),
    );
    let at = value_at + 1 + hyphen;
    let word = tokens.get(at)?;
    if words_at(tokens, at + 1, &["/", "s"]) {
        let name = format!("{}/s", word.text);
        if let Some(unit) = unit::find(&name) {
            return Some((unit, hyphen + 3));
        }
    }
    if let Some(unit) = unit::find(word.text) {
        return Some((unit, hyphen + 1));
    }
    // `100 requests per second`, `5 deployments a day`.
    let period = tokens.get(at + 2).filter(|_| {
        tokens
            .get(at + 1)
            .is_some_and(|per| per.is_any(&["per", "a", "/"]))
    });
    let rate = period
        .and_then(|period| unit::rate(period.text))
        .filter(|_| word.kind == Kind::Word);
    rate.map(|unit| (unit, hyphen + 3))
}

/// Puts subject, value and unit together and checks that they make sense.
fn finish(
    tokens: &[Token<'_>],
    found: &Comparison,
    problems: &mut Vec<Problem>,
) -> Option<Measure> {
    let head = &tokens[..found.begin];
    let value = tokens.get(found.value_at)?;
    if !value.is_number() {
        return grade(tokens, found);
    }
    let Some(number) = value.number() else {
        problems.push(Problem::new(
            Severity::Warning,
            ProblemCode::NumberUnclear,
            format!("`{}` can be read in more than one way", value.text),
            "write a decimal point and no other mark, like `99.9` or `1200`",
        ));
        return None;
    };
    let (unit, end) = match (found.unit, unit_at(tokens, found.value_at)) {
        (Some(known), _) => (known, found.end),
        (None, Some((unit, width))) => (unit, found.end + width),
        (None, None) => (count(tokens, found, head, problems)?, found.end),
    };
    let tail = &tokens[end.min(tokens.len())..];
    let subject = subject(head, tail, unit.dimension);
    if number.is_negative() {
        problems.push(Problem::new(
            Severity::Error,
            ProblemCode::ValueNegative,
            format!("{} {} is less than nothing", value.text, unit.name).replace(" %", "%"),
            "give a limit of zero or more",
        ));
        return None;
    }
    if let Some(problem) = impossible(&subject, number, &unit) {
        problems.push(problem);
        return None;
    }
    let worth = match unit.other_worth {
        None => unit.worth,
        Some(other) => {
            let larger_is_stricter = found.operator.is_lower();
            let worth = if larger_is_stricter {
                unit.worth.max(other)
            } else {
                unit.worth.min(other)
            };
            problems.push(ambiguous_unit(value.text, &unit, number.times(worth)?));
            worth
        }
    };
    Some(Measure {
        subject,
        operator: found.operator,
        value: value.text.to_owned(),
        unit: unit.name.to_owned(),
        dimension: unit.dimension,
        limit: Limit::Number(number.times(worth)?),
        percentile: None,
        window_ms: None,
        load: None,
    })
}

/// `SSL Labs score >= A`.
fn grade(tokens: &[Token<'_>], found: &Comparison) -> Option<Measure> {
    let letter = tokens.get(found.value_at)?;
    let mark = tokens
        .get(found.value_at + 1)
        .filter(|mark| mark.glued && matches!(mark.text, "+" | "-"));
    let text = format!("{}{}", letter.text, mark.map_or("", |mark| mark.text));
    let grade = Grade::parse(&text)?;
    let tail = &tokens[(found.end + usize::from(mark.is_some())).min(tokens.len())..];
    Some(Measure {
        subject: subject(&tokens[..found.begin], tail, Dimension::Grade),
        operator: found.operator,
        value: text,
        unit: String::new(),
        dimension: Dimension::Grade,
        limit: Limit::Grade(grade),
        percentile: None,
        window_ms: None,
        load: None,
    })
}

/// A number without a unit counts things, unless its subject asks for a unit or the unit is one we do not know.
fn count(
    tokens: &[Token<'_>],
    found: &Comparison,
    head: &[Token<'_>],
    problems: &mut Vec<Problem>,
) -> Option<Unit> {
    let counted = Unit {
        name: "",
        dimension: Dimension::Count,
        worth: Decimal::from(1),
        other_worth: None,
    };
    let next = tokens
        .get(found.value_at + 1)
        .filter(|token| !matches!(token.text, "," | ";" | "." | ")" | ":"));
    let last_word = head.iter().rev().find(|token| token.kind == Kind::Word);
    let is_status = last_word.is_some_and(|word| word.is_any(&["status", "code"]));
    if is_status && next.is_none() {
        return Some(Unit {
            name: "status",
            dimension: Dimension::Status,
            ..counted
        });
    }
    let expected = last_word.and_then(|word| unit::expected(word.text));
    let (code, message) = match (next, expected) {
        (Some(next), _) if next.glued && next.text != "-" => (
            ProblemCode::UnitUnknown,
            format!("`{}` is no unit that is known here", next.text),
        ),
        (Some(next), Some(_)) => (
            ProblemCode::UnitUnknown,
            format!("`{}` is no unit that is known here", next.text),
        ),
        (None, Some(_)) => (
            ProblemCode::UnitMissing,
            format!("{} of what? there is no unit", tokens[found.value_at].text),
        ),
        (_, None) => return Some(counted),
    };
    let hint = match expected {
        Some(dimension) => format!("write it like {}", dimension.example()),
        None => format!(
            "write it like {}, {} or {}",
            Dimension::Time.example(),
            Dimension::Bytes.example(),
            Dimension::Ratio.example()
        ),
    };
    problems.push(Problem::new(Severity::Warning, code, message, hint));
    None
}

fn impossible(subject: &str, number: Decimal, unit: &Unit) -> Option<Problem> {
    let over_all = unit.dimension == Dimension::Ratio
        && number > Decimal::HUNDRED
        && unit::expected(subject) == Some(Dimension::Ratio);
    let no_port = unit.dimension == Dimension::Port
        && !(Decimal::from(1)..=Decimal::from(65_535)).contains(&number);
    let (message, hint) = if over_all {
        (
            format!("{subject} of {number} % cannot be reached"),
            "give a limit up to 100 %",
        )
    } else if no_port {
        (
            format!("there is no port {number}"),
            "give a port from 1 to 65535",
        )
    } else {
        return None;
    };
    Some(Problem::new(
        Severity::Error,
        ProblemCode::ValueImpossible,
        message,
        hint,
    ))
}

fn ambiguous_unit(value: &str, unit: &Unit, bytes: Decimal) -> Problem {
    let binary = match unit.name {
        "kB" => "KiB",
        "MB" => "MiB",
        "GB" => "GiB",
        _ => "TiB",
    };
    Problem::new(
        Severity::Note,
        ProblemCode::UnitAmbiguous,
        format!(
            "{value} {} is read as {bytes} bytes, the stricter of {} and {binary}",
            unit.name, unit.name
        ),
        format!("write {value} {binary} if you mean powers of 1024"),
    )
}

/// The subject: what stands before the comparison and after it.
fn subject(head: &[Token<'_>], tail: &[Token<'_>], dimension: Dimension) -> String {
    let tail = match tail {
        [or, _, rest @ ..] if or.is("or") => rest,
        [limit, rest @ ..] if limit.is_any(&["max", "maximum", "min", "minimum"]) => rest,
        [ok, rest @ ..] if dimension == Dimension::Status && ok.is("ok") => rest,
        whole => whole,
    };
    let head = token::joined(head);
    let tail = token::joined(tail);
    tidy(&format!("{} {}", tidy(&head), tidy(&tail)))
}

/// Takes off the words that only lead to a limit or away from it.
fn tidy(subject: &str) -> String {
    const LEADING: &[&str] = &["of", "for"];
    const TRAILING: &[&str] = &[
        "is", "are", "be", "must", "should", "shall", "target", "required", "stays", "remains",
        "of", "to", "at", "than", "does", "do", "may", "will", "has", "have",
    ];
    let mut words: Vec<&str> = subject.split_whitespace().collect();
    while words.last().is_some_and(|word| {
        TRAILING
            .iter()
            .any(|trailing| trailing.eq_ignore_ascii_case(word))
    }) {
        words.pop();
    }
    let leading = words
        .iter()
        .take_while(|word| {
            LEADING
                .iter()
                .any(|leading| leading.eq_ignore_ascii_case(word))
        })
        .count();
    words[leading..].join(" ")
}
