//! Any bytes: the parser never panics, what it reads survives being written again, and the lines it corrects parse.

#![no_main]

use fuzz::specification::{Difference, Problem, ProblemCode, examine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let examination = examine(bytes, Some("given"));
    for problem in &examination.problems {
        assert!(
            !problem.hint.is_empty(),
            "{problem:?} says nothing about what would be right"
        );
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        a_corrected_line_helps(text, &examination.problems);
    }
    if let Some(specification) = examination.specification {
        let normalized = specification.normalized();
        let again = examine(&normalized, None).specification;
        let again = again.expect("a normalized specification is one");
        assert_eq!(again.normalized(), normalized);
        assert_eq!(Difference::between(&again, &again), Difference::default());
    }
});

/// With the corrected line in place there is one fault less.
fn a_corrected_line_helps(text: &str, problems: &[Problem]) {
    const MOST_REPORTED: usize = 8;
    let faults = |problems: &[Problem]| {
        problems
            .iter()
            .filter(|problem| problem.code == ProblemCode::Yaml)
            .count()
    };
    let first = problems
        .iter()
        .find(|problem| problem.code == ProblemCode::Yaml);
    let correction = first.and_then(|problem| Some((problem.line?, problem.corrected.as_deref()?)));
    let Some((line, corrected)) = correction.filter(|(_, corrected)| !corrected.contains('\n'))
    else {
        return;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines: Vec<&str> = text.lines().collect();
    lines[line as usize - 1] = corrected;
    let left = faults(&examine(lines.join("\n") + "\n", Some("given")).problems);
    let before = faults(problems);
    assert!(
        left + 1 == before || before == MOST_REPORTED,
        "{before} faults, {left} after line {line} was replaced by {corrected:?}"
    );
}
