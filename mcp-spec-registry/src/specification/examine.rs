//! Looks a text over from its bytes to its sense, and collects everything there is to say about it.

use shared::digest::Digest;

use super::identity::{SpecId, Version};
use super::parse::{self, Draft};
use super::problem::{Problem, ProblemCode, Severity};
use super::yaml_error::{self, YamlError};
use super::{Dialect, Specification, document, markdown, mend, review};

/// How many faults of a text that is no YAML are reported at once.
const MAX_YAML_FAULTS: usize = 8;
/// How many problems are listed at most.
const MAX_PROBLEMS: usize = 100;

/// What a look at a text found: a specification if there is one in it, and every problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// The specification, also where it has errors, as long as it can be read and has an id.
    pub specification: Option<Specification>,
    /// Errors, warnings and notes, worst first.
    pub problems: Vec<Problem>,
}

/// Looks a text over and says everything there is to say about it; never fails.
pub fn examine(text: impl AsRef<[u8]>, spec_id: Option<&str>) -> Examination {
    let bytes = text.as_ref();
    let mut examination = match read_text(bytes) {
        Ok(text) => examine_text(text, spec_id),
        Err(problems) => Examination {
            specification: None,
            problems,
        },
    };
    let problems = &mut examination.problems;
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    if problems.len() > MAX_PROBLEMS {
        let left_out = problems.len() - MAX_PROBLEMS;
        problems.truncate(MAX_PROBLEMS);
        let message = format!("{left_out} more problems are not listed");
        let hint = "mend these first, and look again";
        problems.push(Problem::new(
            Severity::Note,
            ProblemCode::MoreProblems,
            message,
            hint,
        ));
    }
    examination
}

fn read_text(bytes: &[u8]) -> Result<&str, Vec<Problem>> {
    if bytes.len() > document::MAX_BYTES {
        let message = format!(
            "the text has {} bytes; the most is {}",
            bytes.len(),
            document::MAX_BYTES
        );
        return Err(vec![Problem::new(
            Severity::Error,
            ProblemCode::TooLarge,
            message,
            "split the specification",
        )]);
    }
    yaml_error::text_of(bytes).map_err(|problem| vec![problem])
}

fn examine_text(text: &str, spec_id: Option<&str>) -> Examination {
    let is_markdown = markdown::is_markdown(text);
    let document = if is_markdown {
        markdown::parse(text)
    } else {
        document::parse(text)
    };
    let document = match document {
        Ok(document) => document,
        Err(error) if is_markdown => {
            return Examination {
                specification: None,
                problems: vec![error.problem(text, None)],
            };
        }
        Err(error) => {
            return Examination {
                specification: None,
                problems: yaml_problems(text, error),
            };
        }
    };
    let mut draft = parse::read(&document);
    if is_markdown {
        draft.dialect = Dialect::Markdown;
    }
    draft.problems.extend(review::review(&draft));
    let version = draft.version.take().map_or_else(
        || "1".parse().ok(),
        |(version, place)| match version.parse::<Version>() {
            Ok(version) => Some(version),
            Err(error) => {
                let hint = "write it like `1.10`; quotes are not needed";
                draft.problems.push(
                    Problem::new(
                        Severity::Error,
                        ProblemCode::VersionInvalid,
                        error.to_string(),
                        hint,
                    )
                    .at(place),
                );
                None
            }
        },
    );
    let spec_id = identify(&mut draft, spec_id);
    let problems = std::mem::take(&mut draft.problems);
    let specification = match (spec_id, version) {
        (Some(spec_id), Some(version)) => Some(assemble(draft, spec_id, version, text, &problems)),
        _ => None,
    };
    Examination {
        specification,
        problems,
    }
}

/// The id in the text or the one given beside it.
fn identify(draft: &mut Draft, given: Option<&str>) -> Option<SpecId> {
    let hint = "use lower-case letters, digits and hyphens, like `test-web-service`";
    let (written, place) = match (draft.spec_id.take(), given) {
        (Some((written, place)), _) => (written, Some(place)),
        (None, Some(given)) => (given.to_owned(), None),
        (None, None) => {
            let message = "the specification has no id";
            let hint = "write `spec_id: my-service` as its first line, or give `spec_id` beside it (on the command line: --spec-id ID)";
            draft.problems.push(Problem::new(
                Severity::Error,
                ProblemCode::SpecIdMissing,
                message,
                hint,
            ));
            return None;
        }
    };
    let mut refuse = |code, message: String, hint: &str| {
        let problem = Problem::new(Severity::Error, code, message, hint);
        draft.problems.push(match place {
            Some(place) => problem.at(place),
            None => problem,
        });
        None
    };
    match (written.parse::<SpecId>(), given) {
        (Err(error), _) => refuse(ProblemCode::SpecIdInvalid, error.to_string(), hint),
        (Ok(written), Some(given)) if written.as_str() != given => {
            let message = format!("the text says `{written}`, and another id is given beside it");
            refuse(
                ProblemCode::SpecIdMismatch,
                message,
                "give the same id in both places, or only in the text",
            )
        }
        (Ok(written), _) => Some(written),
    }
}

fn assemble(
    draft: Draft,
    spec_id: SpecId,
    version: Version,
    text: &str,
    problems: &[Problem],
) -> Specification {
    Specification {
        spec_id,
        version,
        digest: Digest::of(text),
        dialect: draft.dialect,
        title: draft.title,
        author: draft.author,
        session: draft.session,
        outcome: draft.outcome.join("\n\n"),
        criteria: draft.criteria,
        constraints: draft.constraints,
        implementation_freedom: draft.implementation_freedom,
        checkpoints: draft.checkpoints,
        scope: draft.scope,
        dependencies: draft.dependencies,
        tags: draft.tags,
        references: draft.references,
        other: draft.other.into_iter().collect(),
        problems: problems
            .iter()
            .filter(|problem| problem.severity < Severity::Error)
            .take(MAX_PROBLEMS)
            .cloned()
            .collect(),
        text: text.to_owned(),
    }
}

/// All faults of a text that is no YAML: each is mended and the rest read on, as far as mending goes.
fn yaml_problems(text: &str, first: YamlError) -> Vec<Problem> {
    let mut effort = mend::Effort::default();
    let mut problems = Vec::new();
    let mut text = text.to_owned();
    let mut next = Some(first);
    while let Some(error) = next {
        let mended = mend::mend(&text, &error, &mut effort);
        problems.push(error.problem(&text, mended.as_ref()));
        // A mended line of two would shift the numbers of all below it.
        let Some(mended) = mended
            .filter(|mended| !mended.corrected.contains('\n') && problems.len() < MAX_YAML_FAULTS)
        else {
            break;
        };
        text = mend::replaced(&text, mended.line, &mended.corrected);
        next = document::parse(&text).err();
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB_SERVICE: &str = include_str!("../../../specs/test-web-service.yaml");

    /// A small specification that further lines can follow.
    fn with(lines: &str) -> String {
        format!("spec_id: a\noutcome: Pages are served\n{lines}")
    }

    fn codes(text: impl AsRef<[u8]>) -> Vec<(Severity, ProblemCode)> {
        examine(text, None)
            .problems
            .iter()
            .map(|problem| (problem.severity, problem.code))
            .collect()
    }

    #[test]
    fn case_44_broken_yaml_is_answered_with_the_place_and_the_line_to_paste() {
        let cases: &[(&str, u32, &str)] = &[
            (
                "success_criteria:\n  reliability:\n    - Uptime: >= 99.9%\n",
                5,
                "    - Uptime: \">= 99.9%\"",
            ),
            ("constraints:\n  - %5 loss\n", 4, "  - \"%5 loss\""),
            ("constraints:\n  - @home only\n", 4, "  - \"@home only\""),
            ("constraints:\n  - `ls` works\n", 4, "  - \"`ls` works\""),
            ("constraints:\n\t- No root\n", 4, "  - No root"),
            ("constraints:\n  - One\n\t- Two\n", 5, "  - Two"),
            ("author:ana\nversion: 1\n", 3, "author: ana"),
            ("author ana\nversion: 1\n", 3, "author: ana"),
            (
                "constraints:\n  - \"No root\n  - Two\n",
                4,
                "  - \"No root\"",
            ),
            ("constraints:\n  - \"No\" root\n", 4, "  - '\"No\" root'"),
            ("title: Serve: pages\n", 3, "title: \"Serve: pages\""),
            ("title: 'it's'\n", 3, "title: \"it's\""),
            ("title: \"C:\\path\"\n", 3, "title: 'C:\\path'"),
            ("constraints: - No root\n", 3, "constraints:\n  - No root"),
            ("constraints:\n  - One\n - Two\n", 5, "  - Two"),
            (
                "constraints: [One, Two\nversion: 1\n",
                3,
                "constraints: [One, Two]",
            ),
            (
                "constraints:\n  - *Never* as root\n",
                4,
                "  - \"*Never* as root\"",
            ),
            ("constraints:\n  - Latency: >5\n", 4, "  - Latency: \">5\""),
            ("constraints:\n  - &now\n", 4, "  - \"&now\""),
            ("constraints:\n  - !important\n", 4, "  - \"!important\""),
            (
                "constraints:\n  - Uptime: >= 99.9%  # SLA\n",
                4,
                "  - Uptime: \">= 99.9%\" # SLA",
            ),
        ];
        for (lines, line, corrected) in cases {
            let text = with(lines);
            let problems = examine(&text, None).problems;
            let found = problems
                .first()
                .map(|problem| (problem.code, problem.line, problem.corrected.as_deref()));
            assert_eq!(
                found,
                Some((ProblemCode::Yaml, Some(*line), Some(*corrected))),
                "{text}"
            );
            let source = text.lines().nth(*line as usize - 1);
            assert_eq!(problems[0].source.as_deref(), source, "{text}");
            let mended = mend::replaced(&text, *line, corrected);
            assert!(Specification::parse(&mended, None).is_ok(), "{mended}");
        }
    }

    #[test]
    fn case_44_every_broken_line_is_reported_at_once() {
        let text = with("constraints:\n  - Uptime: >= 99.9%\n  - Fine\n  - %5 loss\n  - @home\n");
        let lines: Vec<_> = examine(&text, None)
            .problems
            .iter()
            .map(|problem| problem.line)
            .collect();
        assert_eq!(lines, [Some(4), Some(6), Some(7)]);
    }

    #[test]
    fn case_44_a_text_indented_with_tabs_is_mended_line_by_line() {
        let mut text = with(
            "success_criteria:\n\tspeed:\n\t\t- Latency: < 5ms\n\t\t- No waits\nauthor: ana\n",
        );
        let problems = examine(&text, None).problems;
        let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [Some(4), Some(5), Some(6)]);
        for problem in problems {
            let corrected = problem.corrected.unwrap_or_default();
            text = mend::replaced(&text, problem.line.unwrap_or_default(), &corrected);
        }
        assert!(Specification::parse(&text, None).is_ok(), "{text}");
    }

    #[test]
    fn case_44_what_cannot_be_mended_says_why() {
        let duplicate = examine(with("author: a\nauthor: b\n"), None).problems;
        assert_eq!(
            duplicate[0].to_string(),
            "line 4, column 1: the key `author` already stands in line 3; the line is `author: b`; keep one of the two, or join their values"
        );
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
        assert_eq!(codes(bomb)[0], (Severity::Error, ProblemCode::Yaml));
        for text in [
            with(&format!(
                "constraints: {}{}\n",
                "[".repeat(300),
                "]".repeat(300)
            )),
            with(&format!("constraints:\n{}", "  - x\n".repeat(5_000))),
            with("---\nspec_id: b\noutcome: c\n"),
            with("limit: .inf\n"),
            with("limit: -.INF\n"),
            with("? [a, b]\n: c\n"),
        ] {
            assert_eq!(
                codes(&text).first(),
                Some(&(Severity::Error, ProblemCode::Yaml)),
                "{text:.80}"
            );
        }
        assert_eq!(
            codes(vec![b'a'; 300_000]),
            [(Severity::Error, ProblemCode::TooLarge)]
        );
    }

    #[test]
    fn case_44_deep_nesting_is_refused_at_once() {
        let deep: Vec<String> = (0..2_000_usize)
            .map(|depth| " ".repeat(depth.min(100)) + "a:\n")
            .collect();
        let deep = deep.concat();
        let flow = "{a: ".repeat(50_000);
        for text in [
            deep,
            flow,
            "- ".repeat(50_000),
            "[".repeat(200_000),
            "? ".repeat(50_000),
        ] {
            let started = std::time::Instant::now();
            assert_eq!(
                codes(&text).first().map(|(severity, _)| *severity),
                Some(Severity::Error)
            );
            assert!(
                started.elapsed() < std::time::Duration::from_secs(20),
                "{text:.20}"
            );
        }
    }

    #[test]
    fn case_44_a_byte_order_mark_and_windows_line_ends_are_no_fault() -> anyhow::Result<()> {
        let windows = format!("\u{feff}{}", WEB_SERVICE.replace('\n', "\r\n"));
        let specification = Specification::parse(&windows, None)?;
        let plain = Specification::parse(WEB_SERVICE, None)?;
        assert_eq!(specification.outcome, plain.outcome);
        assert_eq!(specification.criteria, plain.criteria);
        assert_ne!(specification.digest, plain.digest);
        Ok(())
    }

    #[test]
    fn case_44_what_is_no_text_is_named() {
        let latin_1 = b"spec_id: a\noutcome: caf\xe9 is open\n";
        let problems = examine(latin_1, None).problems;
        assert_eq!((problems[0].line, problems[0].column), (Some(2), Some(13)));
        assert_eq!(
            problems[0].corrected.as_deref(),
            Some("outcome: café is open")
        );
        for bytes in [
            &b""[..],
            b"  \n\n",
            b"\xef\xbb\xbf",
            b"spec_id: a\0\n",
            b"\xff\xfes\0p\0",
            b"# only a comment\n",
            b"a\x1bb: c\n",
        ] {
            let found = examine(bytes, None).problems;
            assert_eq!(
                found.first().map(|problem| problem.severity),
                Some(Severity::Error),
                "{bytes:?}"
            );
            assert!(!found[0].hint.is_empty());
        }
    }
}
