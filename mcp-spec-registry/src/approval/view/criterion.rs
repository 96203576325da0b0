//! Each criterion with the test that will prove it, and, once measured, with what was found.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    text::{Machine, Prose, Sentence},
    words,
};
use crate::{
    plan::{Check, CommandCheck, HttpExpectation, Plan, SessionMeasureKind},
    run::{CheckPhase, CheckVerdict, Evaluation},
    specification::{Criterion, Dimension, Measure},
};

/// A criterion or constraint as a reader sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CriterionView {
    /// Id within the specification.
    pub id: Machine,
    /// The id as decisions name it.
    pub key: String,
    /// The heading it stands under.
    pub category: Prose,
    /// Its words, by the specification's author.
    pub text: Prose,
    /// The limit that a machine compares with, where there is one.
    pub limit: Option<String>,
    /// How the plan will prove it.
    pub tests: Vec<TestView>,
    /// Why the agent leaves it to a human.
    pub judged: Option<Prose>,
    /// What was measured.
    pub evidence: Vec<EvidenceView>,
}

impl CriterionView {
    /// Whether no machine measures it.
    pub fn is_for_human(&self) -> bool {
        self.tests.is_empty()
    }

    /// Whether something about it was measured and nobody knows the result.
    pub fn is_unknown(&self) -> bool {
        self.evidence
            .iter()
            .any(|evidence| evidence.verdict == CheckVerdict::Unknown)
    }
}

/// A planned measurement in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestView {
    /// What the registry will do.
    pub does: Sentence,
    /// What it compares with.
    pub passes: Sentence,
    /// What the agent added because the criterion has no number: its reading, not the author's.
    pub agents_reading: Option<Sentence>,
}

/// A measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceView {
    /// What came out.
    pub verdict: CheckVerdict,
    /// The value, in words.
    pub measured: Prose,
    /// Why, where the verdict alone does not say it.
    pub reason: Option<Prose>,
    /// Who measured.
    pub measured_by: Machine,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub measured_at: OffsetDateTime,
    /// What the same test gave before anything was done.
    pub before: Option<String>,
    /// The raw measurement as JSON.
    pub raw: Machine,
    /// Its digest.
    pub sha256: String,
}

/// All of them, in the specification's order.
pub(super) fn criteria(
    criteria: &[Criterion],
    plan: &Plan,
    evaluations: &[Evaluation],
    before: &[Evaluation],
) -> Vec<CriterionView> {
    criteria
        .iter()
        .map(|criterion| view(criterion, plan, evaluations, before))
        .collect()
}

fn view(
    criterion: &Criterion,
    plan: &Plan,
    evaluations: &[Evaluation],
    before: &[Evaluation],
) -> CriterionView {
    let id = &criterion.criterion_id;
    let tests = plan.tests.iter().filter(|test| test.criterion == *id);
    let judged = plan
        .human_judges
        .iter()
        .find(|judged| judged.criterion == *id);
    CriterionView {
        id: Machine::of(id),
        key: id.clone(),
        category: Prose::of(&criterion.category),
        text: Prose::of(&criterion.text),
        limit: criterion.measure.as_ref().map(words::limit),
        tests: tests
            .map(|test| test_view(&test.check, criterion.measure.as_ref()))
            .collect(),
        judged: judged.map(|judged| Prose::of(&judged.why)),
        evidence: evaluations
            .iter()
            .filter(|evaluation| {
                evaluation.criterion == *id && evaluation.phase == CheckPhase::After
            })
            .map(|evaluation| evidence(evaluation, before))
            .collect(),
    }
}

fn evidence(evaluation: &Evaluation, before: &[Evaluation]) -> EvidenceView {
    let same_test = |other: &&Evaluation| {
        other.phase == CheckPhase::Before
            && other.test_index == evaluation.test_index
            && other.revision == evaluation.revision
    };
    EvidenceView {
        verdict: evaluation.verdict,
        measured: Prose::of(&evaluation.measured),
        reason: evaluation.reason.as_deref().map(Prose::of),
        measured_by: Machine::of(&evaluation.measured_by),
        measured_at: evaluation.measured_at,
        before: before.iter().rev().find(same_test).map(|before| {
            match before.verdict {
                CheckVerdict::Pass => "passed before anything was done, so it proves nothing",
                CheckVerdict::Fail => "failed before anything was done, as it should",
                CheckVerdict::Unknown => "could not be run before anything was done",
                CheckVerdict::Provisional => "was provisional before anything was done",
            }
            .to_owned()
        }),
        raw: Machine::of(&evaluation.evidence.to_string()),
        sha256: evaluation.evidence_sha256.to_string(),
    }
}

/// How a test that is a command reads.
fn command_view(command: &CommandCheck) -> TestView {
    TestView {
        does: Sentence::words("runs ")
            .code(&command.argv.join(" "))
            .then(" at ")
            .code(&command.server)
            .then(" in a fresh jail that can change nothing"),
        passes: command.text.as_ref().map_or_else(
            || Sentence::words(format!("must exit with {}", command.exit_code)),
            |text| {
                Sentence::words(format!("must exit with {} and write ", command.exit_code))
                    .code(text)
            },
        ),
        agents_reading: Some(Sentence::words(
            "the command is the agent's: what it proves is what the program does",
        )),
    }
}

fn test_view(check: &Check, measure: Option<&Measure>) -> TestView {
    let limit = measure.map(words::limit);
    let compares = |what: &str| {
        Sentence::words(
            limit
                .as_ref()
                .map_or_else(|| what.to_owned(), |limit| format!("{what} {limit}")),
        )
    };
    let target = |step: &str, port: u16| Sentence::default().code(&format!("{step}:{port}"));
    match check {
        Check::Http(http) => TestView {
            does: Sentence::words(words::count(
                http.samples as usize,
                "HTTP request",
                "HTTP requests",
            ))
            .then(" to ")
            .code(&format!(
                "{}:{}{}",
                http.target.step, http.target.port, http.path
            )),
            passes: match (measure, &limit) {
                (Some(measure), Some(limit))
                    if measure.percentile.is_none() && is_time(measure) =>
                {
                    Sentence::words(format!("the 95th percentile must be {limit}"))
                }
                (Some(measure), Some(limit)) if measure.dimension == Dimension::Ratio => {
                    Sentence::words(format!("the share of good answers must be {limit}"))
                }
                (_, Some(limit)) => Sentence::words(format!("must be {limit}")),
                (_, None) => Sentence::words("every answer must be as expected"),
            },
            agents_reading: expectation(&http.expect, measure.is_none()),
        },
        Check::Tcp(tcp) => TestView {
            does: Sentence::words("a TCP connection to ").code(&tcp.target.to_string()),
            passes: Sentence::words("must be accepted"),
            agents_reading: None,
        },
        Check::Session(session) => {
            let (what, passes) = match session.measure {
                SessionMeasureKind::Memory => (
                    "the resident memory of all processes of ",
                    compares("must be"),
                ),
                SessionMeasureKind::NotRoot => (
                    "the host uids of all processes of ",
                    Sentence::words("none may be 0 (root)"),
                ),
                SessionMeasureKind::Alive => (
                    "whether it still runs: ",
                    Sentence::words("must be running"),
                ),
            };
            TestView {
                does: Sentence::words(what)
                    .code(&session.step)
                    .then(", seen from outside its jail"),
                passes,
                agents_reading: None,
            }
        }
        Check::File(file) => TestView {
            does: Sentence::words("the digest of ")
                .code(&file.path)
                .then(" at ")
                .code(&file.server),
            passes: Sentence::words(format!("must be {}", file.sha256)),
            agents_reading: None,
        },
        Check::Command(command) => command_view(command),
        Check::Restart(restart) => TestView {
            does: Sentence::words("the serving process of ")
                .code(&restart.target.to_string())
                .then(" is ended, then HTTP requests to ")
                .code(&restart.path),
            passes: target(&restart.target.step, restart.target.port).then(format!(
                " must answer again within {} ms",
                restart.within_ms
            )),
            agents_reading: measure.is_none().then(|| {
                Sentence::words(format!(
                    "the {} ms are the agent's: the criterion has no number",
                    restart.within_ms
                ))
            }),
        },
    }
}

fn is_time(measure: &Measure) -> bool {
    measure.dimension == Dimension::Time
}

fn expectation(expect: &HttpExpectation, has_no_number: bool) -> Option<Sentence> {
    let mut parts: Vec<Sentence> = Vec::new();
    if let Some(status) = expect.status {
        parts.push(Sentence::words(format!("status {status}")));
    }
    for (name, value) in &expect.headers {
        parts.push(
            Sentence::words("header ")
                .code(name)
                .then(" containing ")
                .code(value),
        );
    }
    if let Some(text) = &expect.text {
        parts.push(Sentence::words("a body containing ").code(text));
    }
    if parts.is_empty() {
        return has_no_number.then(|| {
            Sentence::words("any status from 200 to 299 counts; the criterion has no number")
        });
    }
    let mut sentence = Sentence::words("expects ");
    for (position, part) in parts.into_iter().enumerate() {
        if position > 0 {
            sentence = sentence.then(", ");
        }
        sentence = sentence.and(part);
    }
    Some(sentence)
}
