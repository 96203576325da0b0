//! Reads what a criterion measures out of its words.

use super::comparison::{Comparison, by_sign, by_words, implied};
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
pub(super) fn unit_at(tokens: &[Token<'_>], value_at: usize) -> Option<(Unit, usize)> {
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
    const LEADING: &[&str] = &["of"];
    const TRAILING: &[&str] = &[
        "is", "are", "be", "for", "must", "should", "shall", "target", "required", "stays",
        "remains", "of", "to", "at", "than", "does", "do", "may", "will", "has", "have",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The measure on one line: `subject | operator value unit | base limit | percentile, window, load`.
    fn line(text: &str) -> Option<String> {
        let measure = read(text).measure?;
        let mut line = format!(
            "{} | {} {}",
            measure.subject,
            measure.operator.symbol(),
            measure.value
        );
        if !measure.unit.is_empty() {
            line.extend([" ", &measure.unit]);
        }
        line.extend([
            " | ",
            &measure.limit.to_string(),
            " ",
            measure.dimension.base_unit(),
        ]);
        if let Some(percentile) = measure.percentile {
            line.extend([" | p", &percentile.to_string()]);
        }
        if let Some(window) = measure.window_ms {
            line.extend([" | over ", &window.to_string()]);
        }
        if let Some(load) = measure.load {
            line.extend([" | under ", &load.text]);
        }
        Some(line)
    }

    const FORMS: &[(&str, &str)] = &[
        (
            "Metric collection interval: ≤ 5 seconds",
            "Metric collection interval | <= 5 s | 5000 ms",
        ),
        (
            "Page load time: < 200ms",
            "Page load time | < 200 ms | 200 ms",
        ),
        (
            "99.9% service uptime",
            "service uptime | >= 99.9 % | 99.9 %",
        ),
        ("99.9% uptime target", "uptime | >= 99.9 % | 99.9 %"),
        (
            "Resource usage ≤ 2GB RAM total",
            "Resource usage RAM total | <= 2 GB | 2000000000 bytes",
        ),
        (
            "sub-5-second metric collection",
            "metric collection | < 5 s | 5000 ms",
        ),
        (
            "sub-100ms response times",
            "response times | < 100 ms | 100 ms",
        ),
        (
            "30-day log retention",
            "log retention | >= 30 d | 2592000000 ms",
        ),
        (
            "Zero data loss during service restarts",
            "data loss during service restarts | = 0 | 0 count",
        ),
        (">95% of specifications", "specifications | > 95 % | 95 %"),
        (
            "p95 < 20ms under 100 concurrent connections",
            " | < 20 ms | 20 ms | p95 | under 100 concurrent connections",
        ),
        ("SSL Labs score >= A", "SSL Labs score | >= A | A grade"),
        (
            "SSL Labs score >= A+ for the login page",
            "SSL Labs score for the login page | >= A+ | A+ grade",
        ),
        ("returns 200", "returns | = 200 status | 200 status"),
        (
            "Health endpoint returns 200 OK",
            "Health endpoint returns | = 200 status | 200 status",
        ),
        (
            "Accessible on port 80",
            "Accessible on port | = 80 port | 80 port",
        ),
        (
            "Uptime: 99.9% over 30 days",
            "Uptime | >= 99.9 % | 99.9 % | over 2592000000",
        ),
        (
            "99.99% availability per month",
            "availability | >= 99.99 % | 99.99 % | over 2592000000",
        ),
        ("At least 3 replicas", "replicas | >= 3 | 3 count"),
        (
            "Recovery must take no more than 2 minutes",
            "Recovery must take | <= 2 min | 120000 ms",
        ),
        ("Starts within 30 seconds", "Starts | <= 30 s | 30000 ms"),
        (
            "Latency (p99.9): under 1.5 s at 500 requests per second",
            "Latency | < 1.5 s | 1500 ms | p99.9 | under 500 requests per second",
        ),
        (
            "Response time < 200 ms for 95% of requests",
            "Response time | < 200 ms | 200 ms | p95",
        ),
        (
            "95th percentile response time ≤ 250ms",
            "response time | <= 250 ms | 250 ms | p95",
        ),
        (
            "Throughput ≥ 10,000 requests per second",
            "Throughput | >= 10,000 per second | 864000000 per day",
        ),
        ("TLS 1.2 or higher", "TLS | >= 1.2 | 1.2 count"),
        (
            "Memory: 512 MiB max",
            "Memory | <= 512 MiB | 536870912 bytes",
        ),
        (
            "Disk space >= 10 GB",
            "Disk space | >= 10 GB | 10737418240 bytes",
        ),
        (
            "Transfer rate > 100 Mbit/s",
            "Transfer rate | > 100 Mbit/s | 12500000 bytes per second",
        ),
        (
            "Log retention: 90 days",
            "Log retention | >= 90 d | 7776000000 ms",
        ),
        (
            "HTTP status = 204",
            "HTTP status | = 204 status | 204 status",
        ),
        (
            "Page load time:<200ms.",
            "Page load time | < 200 ms | 200 ms",
        ),
    ];

    #[test]
    fn every_form_of_a_limit_is_read() {
        for (text, expected) in FORMS {
            assert_eq!(line(text).as_deref(), Some(*expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_plain_comparison_is_left_to_a_human() {
        let texts = [
            "Automatic restart on failure",
            "No services run as root",
            "between 5 and 10 ms",
            "Latency: 5-10 ms",
            "> 5 ms and < 10 ms",
            "Latency < baseline",
            "not above 5 ms",
            "Supports IPv6 and HTTP/2",
            "2026-01-01 is the deadline",
            "Version 1.2.3 is served",
            "5-second timeout",
            "",
        ];
        for text in texts {
            assert_eq!(line(text), None, "{text}");
        }
    }

    #[test]
    fn a_limit_that_makes_no_sense_says_what_would() {
        let problem = |text: &str| {
            read(text)
                .problems
                .first()
                .map(|problem| (problem.severity, problem.code))
        };
        let faulty = [
            (
                "Latency: < -5 ms",
                Severity::Error,
                ProblemCode::ValueNegative,
            ),
            (
                "Latency: < NaN ms",
                Severity::Error,
                ProblemCode::ValueNotANumber,
            ),
            (
                "Latency: < .inf",
                Severity::Error,
                ProblemCode::ValueNotANumber,
            ),
            ("101% uptime", Severity::Error, ProblemCode::ValueImpossible),
            (
                "Accessible on port 99999",
                Severity::Error,
                ProblemCode::ValueImpossible,
            ),
            (
                "Latency: < 5 furlongs",
                Severity::Warning,
                ProblemCode::UnitUnknown,
            ),
            ("Cache < 512Mb", Severity::Warning, ProblemCode::UnitUnknown),
            (
                "Page load time: < 200",
                Severity::Warning,
                ProblemCode::UnitMissing,
            ),
            (
                "Uptime >= 99,9%",
                Severity::Warning,
                ProblemCode::NumberUnclear,
            ),
            (
                "1% error rate",
                Severity::Warning,
                ProblemCode::OperatorMissing,
            ),
            (
                "Response time: 200ms",
                Severity::Warning,
                ProblemCode::OperatorMissing,
            ),
            ("Memory < 2GB", Severity::Note, ProblemCode::UnitAmbiguous),
        ];
        for (text, severity, code) in faulty {
            assert_eq!(problem(text), Some((severity, code)), "{text}");
            assert_eq!(
                read(text).measure.is_some(),
                severity == Severity::Note,
                "{text}"
            );
        }
    }
}
