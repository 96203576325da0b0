//! Looks over a whole specification: limits that cannot both hold, outcomes that say how, promises nobody measures.

use std::collections::HashMap;

use super::criterion::Criterion;
use super::measure::{Limit, Measure};
use super::parse::Draft;
use super::problem::{Place, Problem, ProblemCode, Severity};
use super::reading;
use super::unit::Dimension;

/// The most measured lines that are compared with each other.
const MAX_COMPARED: usize = 400;

/// What is wrong or doubtful about the specification as a whole.
pub(super) fn review(draft: &Draft) -> Vec<Problem> {
    let mut problems = Vec::new();
    let outcome = draft.outcome.join("\n\n");
    let at_outcome = |problem: Problem| match draft.outcome_place {
        Some(place) => problem.at(place),
        None => problem,
    };
    if outcome.trim().is_empty() {
        problems.push(at_outcome(Problem::new(
            Severity::Error,
            ProblemCode::OutcomeEmpty,
            "the specification says no outcome",
            "write `outcome:` and what must be true, like `Serve static pages to the team with 99.9% uptime`",
        )));
    } else if let Some(how) = prescription(&outcome) {
        problems.push(at_outcome(Problem::new(
            Severity::Warning,
            ProblemCode::OutcomePrescribes,
            format!("the outcome says how (`{how}`), not only what"),
            "say what must be true and leave the means to the agent; what really must be used belongs under `constraints`",
        )));
    }
    if draft.criteria.is_empty() && !outcome.trim().is_empty() {
        problems.push(Problem::new(
            Severity::Warning,
            ProblemCode::CriteriaMissing,
            "there is no criterion, so no machine can tell whether the outcome is reached",
            "add `success_criteria:` with lines like `- Page load time: < 200ms`",
        ));
    }
    problems.extend(contradictions(draft));
    problems.extend(unmeasured(draft, &outcome).into_iter().map(at_outcome));
    problems
}

/// Pairs of limits on one thing that no measurement can satisfy.
fn contradictions(draft: &Draft) -> Vec<Problem> {
    let all = draft
        .criteria
        .iter()
        .chain(&draft.constraints)
        .zip(&draft.places);
    let mut by_subject: HashMap<_, Vec<(&Criterion, &Measure, Place)>> = HashMap::new();
    for (criterion, place) in all {
        // Two ports are two things, not two limits of one.
        let amount = criterion
            .measure
            .as_ref()
            .filter(|measure| measure.dimension != Dimension::Port);
        let Some(measure) = amount else {
            continue;
        };
        let load = measure.load.as_ref().map(|load| load.text.to_lowercase());
        let key = (
            words(&measure.subject),
            measure.dimension,
            measure.percentile,
            load,
        );
        // A subject that is not named is the heading's.
        let heading = if key.0.is_empty() {
            criterion.category.as_str()
        } else {
            ""
        };
        by_subject
            .entry((heading, key))
            .or_default()
            .push((criterion, measure, *place));
    }
    let mut problems: Vec<Problem> = Vec::new();
    for group in by_subject.values() {
        for (index, (criterion, measure, place)) in group.iter().enumerate().take(MAX_COMPARED) {
            let earlier = group[..index]
                .iter()
                .find(|(_, other, _)| measure.excludes(other));
            if let Some((other, ..)) = earlier {
                problems.push(
                    Problem::new(
                        Severity::Error,
                        ProblemCode::Contradiction,
                        format!("`{}` and `{}` cannot both hold", other.text, criterion.text),
                        "keep one of the two, or say what makes them different things",
                    )
                    .at(*place),
                );
            }
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems
}

/// The words of a subject that tell it from others, in any order.
fn words(subject: &str) -> Vec<String> {
    const EMPTY: &[&str] = &[
        "the", "a", "an", "of", "for", "target", "all", "its", "is", "be", "must", "should",
        "total",
    ];
    let lower = subject.to_lowercase();
    let split = lower.split(|character: char| !character.is_alphanumeric());
    let mut words: Vec<String> = split
        .filter(|word| !word.is_empty() && !EMPTY.contains(word))
        .map(ToOwned::to_owned)
        .collect();
    words.sort_unstable();
    words
}

/// The words of an outcome that say by which means, if any do.
fn prescription(outcome: &str) -> Option<String> {
    const COMMANDS: &[&str] = &[
        "sudo",
        "apt",
        "apt-get",
        "yum",
        "dnf",
        "kubectl",
        "helm",
        "systemctl",
        "docker-compose",
        "pip",
        "npm",
        "curl",
        "ansible",
    ];
    const PRODUCTS: &[&str] = &[
        "ansible",
        "apache",
        "caddy",
        "docker",
        "elasticsearch",
        "fluentd",
        "grafana",
        "haproxy",
        "helm",
        "influxdb",
        "jenkins",
        "kafka",
        "kubernetes",
        "loki",
        "mariadb",
        "mongodb",
        "mysql",
        "neo4j",
        "nginx",
        "nomad",
        "podman",
        "postgres",
        "postgresql",
        "prometheus",
        "python",
        "rabbitmq",
        "redis",
        "rust",
        "sqlite",
        "systemd",
        "terraform",
        "traefik",
    ];
    const MEANS: &[&str] = &[
        "using",
        "via",
        "with",
        "install",
        "installing",
        "through",
        "run",
        "running",
    ];
    const IMPERATIVES: &[&str] = &["install", "configure", "execute", "compile", "script"];
    if let Some(code) = outcome
        .split('`')
        .nth(1)
        .filter(|code| !code.trim().is_empty())
    {
        return Some(code.trim().chars().take(60).collect());
    }
    let words: Vec<&str> = outcome
        .split_whitespace()
        .map(|word| word.trim_matches(['.', ',', ';', ':', '(', ')', '"']))
        .collect();
    let lower: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    for (index, word) in lower.iter().enumerate() {
        let word = word.as_str();
        if index == 0 && IMPERATIVES.contains(&word) {
            return Some(words[..words.len().min(3)].join(" "));
        }
        if COMMANDS.contains(&word)
            && index + 1 < words.len()
            && (index == 0 || lower[index - 1] != "and")
        {
            return Some(words[index..words.len().min(index + 3)].join(" "));
        }
        let product = MEANS.contains(&word).then(|| {
            lower[index + 1..]
                .iter()
                .take(3)
                .position(|next| PRODUCTS.contains(&next.as_str()))
        });
        if let Some(distance) = product.flatten() {
            return Some(words[index..=index + 1 + distance].join(" "));
        }
    }
    None
}

/// Numbers that the outcome promises and no criterion or constraint repeats.
fn unmeasured(draft: &Draft, outcome: &str) -> Vec<Problem> {
    let stated: Vec<&Measure> = draft
        .criteria
        .iter()
        .chain(&draft.constraints)
        .filter_map(|criterion| criterion.measure.as_ref())
        .collect();
    let flat = outcome.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = flat
        .split([',', ';'])
        .flat_map(|part| part.split(" and "))
        .flat_map(|part| part.split(" with "));
    let mut problems = Vec::new();
    for part in parts.filter(|part| part.chars().any(|character| character.is_ascii_digit())) {
        let amount = |measure: &Measure| {
            !matches!(
                measure.dimension,
                Dimension::Port | Dimension::Status | Dimension::Count
            )
        };
        let Some(promised) = reading::read(part).measure.filter(amount) else {
            continue;
        };
        let repeated = stated.iter().any(|measure| {
            measure.dimension == promised.dimension && as_strict(measure.limit, &promised)
        });
        if !repeated {
            problems.push(Problem::new(
                Severity::Note,
                ProblemCode::OutcomeUnmeasured,
                format!(
                    "the outcome promises `{}` and no criterion holds it to that",
                    part.trim()
                ),
                format!("add `- {}` under `success_criteria`", part.trim()),
            ));
        }
    }
    problems
}

/// Whether a stated limit promises at least what the outcome does: it is the same number, or a value that satisfies it.
fn as_strict(stated: Limit, promised: &Measure) -> bool {
    stated == promised.limit || promised.holds(stated)
}
