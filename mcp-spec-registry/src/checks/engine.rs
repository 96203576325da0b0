//! Carries out the tests of a round, one after the other, and those that restart something last.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use shared::effect::protocol::{SessionMeasure, UNKNOWN_SESSION, WorkOrder, WorkResult};

use super::{
    AllowedAddress, CheckRound, EvaluationDraft, Judgement, RoundTest, Subject, WorkChannel,
    combine,
    job::{Confinement, HttpMeasured, Job, Measured, Setup},
    samples::Latencies,
    verdict::{Observation, Restarted, judge},
    worker_process::{Measuring, Worker},
};
use crate::{
    plan::{Check, CommandCheck, HttpCheck, RestartCheck, SessionCheck, Target},
    run::{CheckPhase, CheckVerdict},
};

/// Who measured what the registry's own process dialled.
const REGISTRY: &str = "registry";
/// How long a service may take to answer before its serving process is ended.
const ANSWERS_BEFORE_MS: u64 = 5_000;

/// Carries out checks.
#[derive(Debug, Clone)]
pub struct Engine {
    measuring: Measuring,
    allowed: Vec<String>,
}

impl Engine {
    /// An engine whose measuring process is this program, started as `check-worker`; besides published ports it dials only
    /// these addresses.
    pub fn new(allowed: &[AllowedAddress]) -> Self {
        Self {
            measuring: Measuring::Process(["check-worker".to_owned()].into()),
            allowed: allowed.iter().map(ToString::to_string).collect(),
        }
    }

    /// An engine that measures in this process.
    #[cfg(test)]
    pub(crate) fn in_this_process() -> Self {
        Self {
            measuring: Measuring::Here,
            allowed: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn allowing(mut self, address: &AllowedAddress) -> Self {
        self.allowed.push(address.to_string());
        self
    }

    /// Carries out all tests of a round. The answer is in the order of the plan.
    pub async fn run(&self, round: CheckRound, work: &impl WorkChannel) -> Vec<EvaluationDraft> {
        let CheckRound {
            phase,
            tests,
            subjects,
            before,
        } = round;
        let worker = self.worker(&tests, &subjects);
        let mut measurer = Measurer {
            worker,
            subjects,
            work,
        };
        // What ends a process must not come before what measures it.
        let (last, first): (Vec<_>, Vec<_>) = (0_u32..)
            .zip(&tests)
            .partition(|(_, test)| matches!(test.test.check, Check::Restart(_)));
        let mut drafts = Vec::with_capacity(tests.len());
        for (index, test) in first.into_iter().chain(last) {
            let draft = measurer.evaluate(index, test).await;
            drafts.push(match phase {
                CheckPhase::Before => draft,
                CheckPhase::After => after(before.get(&index).copied(), draft),
            });
        }
        drafts.sort_by_key(|draft| draft.test_index);
        drafts
    }

    fn worker(&self, tests: &[RoundTest], subjects: &BTreeMap<String, Subject>) -> Worker {
        let targets = tests.iter().filter_map(|test| match &test.test.check {
            Check::Http(HttpCheck { target, .. }) | Check::Restart(RestartCheck { target, .. }) => {
                Some(target)
            }
            Check::Tcp(check) => Some(&check.target),
            Check::Session(_) | Check::File(_) | Check::Command(_) => None,
        });
        let mut addresses: Vec<String> = targets
            .filter_map(|target| address(subjects, target).ok())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        // Names that this round does not need are not resolved.
        let is_used = |allowed: &&String| {
            addresses
                .iter()
                .any(|address| address.eq_ignore_ascii_case(allowed))
        };
        let allowed = self.allowed.iter().filter(is_used).cloned().collect();
        Worker::new(self.measuring.clone(), Setup { addresses, allowed })
    }
}

/// What is needed to measure in one round.
struct Measurer<'a, W> {
    worker: Worker,
    subjects: BTreeMap<String, Subject>,
    work: &'a W,
}

/// What was found, what of it is kept, and who found it.
struct Found {
    observation: Observation,
    evidence: Value,
    measured_by: String,
}

impl<W: WorkChannel> Measurer<'_, W> {
    async fn evaluate(&mut self, index: u32, test: &RoundTest) -> EvaluationDraft {
        let check = &test.test.check;
        let Found {
            observation,
            evidence,
            measured_by,
        } = match check {
            Check::Http(check) => self.http(check).await,
            Check::Tcp(check) => self.tcp(&check.target).await,
            Check::Session(check) => self.session(check).await,
            Check::File(check) => {
                let order = WorkOrder::HashFile {
                    path: check.path.clone(),
                };
                match self.work.ask(&check.server, order).await {
                    Ok(WorkResult::File { sha256 }) => Found {
                        evidence: json!({ "kind": "file", "path": check.path, "sha256": sha256 }),
                        observation: Observation::File(sha256),
                        measured_by: check.server.clone(),
                    },
                    other => not_measured(why_not(other), &check.server),
                }
            }
            Check::Restart(check) => self.restart(check).await,
            Check::Command(check) => self.command(check).await,
        };
        let Judgement {
            verdict,
            measured,
            reason,
        } = judge(test.criterion.as_ref(), check, &observation);
        EvaluationDraft {
            test_index: index,
            criterion: test.test.criterion.clone(),
            verdict,
            measured,
            reason,
            evidence,
            measured_by,
        }
    }

    async fn http(&mut self, check: &HttpCheck) -> Found {
        let address = match address(&self.subjects, &check.target) {
            Ok(address) => address,
            Err(reason) => return missing(reason),
        };
        let job = Job::Http {
            address: address.clone(),
            path: check.path.clone(),
            samples: check.samples,
            expect: check.expect.clone(),
        };
        match self.worker.measure(job).await {
            Ok((Measured::Http(measured), confinement)) => {
                let mut evidence = http_evidence(&measured, &confinement);
                evidence["address"] = json!(address);
                evidence["path"] = json!(check.path);
                Found {
                    observation: Observation::Http(measured),
                    evidence,
                    measured_by: REGISTRY.to_owned(),
                }
            }
            other => refused(other),
        }
    }

    async fn tcp(&mut self, target: &Target) -> Found {
        let address = match address(&self.subjects, target) {
            Ok(address) => address,
            Err(reason) => return missing(reason),
        };
        match self
            .worker
            .measure(Job::Tcp {
                address: address.clone(),
            })
            .await
        {
            Ok((Measured::Tcp { took_us, failure }, confinement)) => Found {
                observation: Observation::Tcp { took_us, failure },
                evidence: json!({
                    "kind": "tcp", "address": address, "took_us": took_us, "failure": failure, "worker": confinement,
                }),
                measured_by: REGISTRY.to_owned(),
            },
            other => refused(other),
        }
    }

    async fn session(&self, check: &SessionCheck) -> Found {
        let Some(subject) = self.subjects.get(&check.step) else {
            return missing(format!("step {} has not run", check.step));
        };
        let Some(session) = subject.session.clone() else {
            return missing(format!("step {} left no process running", check.step));
        };
        match self.look_at(subject, session).await {
            Ok(measure) => Found {
                evidence: json!({
                    "kind": "session", "alive": measure.alive, "identity": measure.identity,
                    "memory_bytes": measure.memory_bytes, "uids": measure.uids, "processes": measure.processes,
                }),
                observation: Observation::Session(measure),
                measured_by: subject.service.clone(),
            },
            Err(found) => found,
        }
    }

    async fn command(&self, check: &CommandCheck) -> Found {
        let order = WorkOrder::RunCommand {
            argv: check.argv.clone(),
            text: check.text.clone(),
            timeout_ms: check.timeout_ms,
        };
        match self.work.ask(&check.server, order).await {
            Ok(WorkResult::Command(measure)) => Found {
                evidence: json!({ "kind": "command", "argv": check.argv, "measure": measure }),
                observation: Observation::Command(measure),
                measured_by: check.server.clone(),
            },
            other => not_measured(why_not(other), &check.server),
        }
    }

    async fn look_at(&self, subject: &Subject, session: String) -> Result<SessionMeasure, Found> {
        let order = WorkOrder::MeasureSession {
            session: session.clone(),
        };
        match self.work.ask(&subject.service, order).await {
            Ok(WorkResult::Session(measure)) => Ok(measure),
            Ok(WorkResult::Failed { code, .. }) if code == UNKNOWN_SESSION => Err(missing(
                format!("{} knows no session {session} any more", subject.service),
            )),
            other => Err(not_measured(why_not(other), &subject.service)),
        }
    }

    /// Ends the serving process and waits for it to answer again; the time counts from before the order.
    async fn restart(&mut self, check: &RestartCheck) -> Found {
        let address = match address(&self.subjects, &check.target) {
            Ok(address) => address,
            Err(reason) => return missing(reason),
        };
        let step = &check.target.step;
        let Some((subject, session)) = self
            .subjects
            .get(step)
            .and_then(|subject| Some((subject.clone(), subject.session.clone()?)))
        else {
            return missing(format!("step {step} left no process running"));
        };
        let wait = |within_ms| Job::Wait {
            address: address.clone(),
            path: check.path.clone(),
            within_ms,
        };
        let answers_before = match self.worker.measure(wait(ANSWERS_BEFORE_MS)).await {
            Ok((Measured::Wait { took_us, .. }, _)) => took_us.is_some(),
            other => return refused(other),
        };
        let identity = |measure: &SessionMeasure| measure.alive.then(|| measure.identity.clone());
        let mut restarted = Restarted {
            answered_before: answers_before,
            ended: 0,
            back_after_us: None,
            same_session: None,
        };
        let (mut attempts, mut confinement) = (0, Confinement::default());
        if answers_before {
            let before = self.look_at(&subject, session.clone()).await.ok();
            let began = Instant::now();
            let order = WorkOrder::EndServingProcess {
                session: session.clone(),
            };
            match self.work.ask(&subject.service, order).await {
                Ok(WorkResult::EndedProcesses { count }) => restarted.ended = count,
                other => return not_measured(why_not(other), REGISTRY),
            }
            if restarted.ended > 0 {
                let within = Duration::from_millis(check.within_ms.into());
                let left = within.saturating_sub(began.elapsed());
                let left_ms = u64::try_from(left.as_millis()).unwrap_or_default();
                match self.worker.measure(wait(left_ms)).await {
                    Ok((
                        Measured::Wait {
                            took_us,
                            attempts: tried,
                            ..
                        },
                        how,
                    )) => {
                        (attempts, confinement) = (tried, how);
                        restarted.back_after_us = took_us.map(|_| {
                            u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
                        });
                    }
                    other => return refused(other),
                }
                let after = self.look_at(&subject, session).await.ok();
                restarted.same_session = before
                    .zip(after)
                    .map(|(before, after)| after.alive && identity(&before) == identity(&after));
            }
        }
        Found {
            evidence: json!({
                "kind": "restart", "address": address, "path": check.path,
                "answered_before": restarted.answered_before, "ended": restarted.ended,
                "back_after_us": restarted.back_after_us, "same_session": restarted.same_session,
                "attempts": attempts, "worker": confinement,
            }),
            observation: Observation::Restart(restarted),
            measured_by: REGISTRY.to_owned(),
        }
    }
}

fn after(before: Option<CheckVerdict>, draft: EvaluationDraft) -> EvaluationDraft {
    let EvaluationDraft {
        verdict,
        measured,
        reason,
        ..
    } = draft;
    let judgement = combine(
        before,
        Judgement {
            verdict,
            measured,
            reason,
        },
    );
    EvaluationDraft {
        verdict: judgement.verdict,
        measured: judgement.measured,
        reason: judgement.reason,
        ..draft
    }
}

/// Where the published port of a step is reached.
fn address(subjects: &BTreeMap<String, Subject>, target: &Target) -> Result<String, String> {
    let subject = subjects
        .get(&target.step)
        .ok_or_else(|| format!("step {} has not run", target.step))?;
    let published = subject
        .published
        .iter()
        .find(|published| published.port == target.port);
    published
        .map(|published| published.address.clone())
        .ok_or_else(|| format!("step {} published no port {}", target.step, target.port))
}

/// What is kept of many requests: counts and the spread of the latencies.
fn http_evidence(measured: &HttpMeasured, confinement: &Confinement) -> Value {
    let HttpMeasured {
        requests,
        latencies_us,
        statuses,
        failures,
        successes,
        ..
    } = measured;
    json!({
        "kind": "http",
        "requests": requests,
        "statuses": statuses,
        "failures": failures,
        "successes": successes,
        "matched": measured.matched,
        "status_matched": measured.status_matched,
        "headers_matched": measured.headers_matched,
        "text_matched": measured.text_matched,
        "latency_us": Latencies::of(latencies_us.clone()).summary(),
        "body_bytes": measured.body_bytes.map(|(least, most)| json!({ "min": least, "max": most })),
        "body_sha256": measured.body_sha256,
        "worker": confinement,
    })
}

/// Why an effect server's answer is no measurement.
pub(super) fn why_not(answer: Result<WorkResult, String>) -> String {
    match answer {
        Err(reason) => reason,
        Ok(WorkResult::Failed { code, message }) => {
            // It is another program's text: short and on one line.
            let message: String = message.chars().take(200).collect();
            format!(
                "its server answered {code}: {}",
                shared::visible::machine(&message, false)
            )
        }
        Ok(_) => "its server answered something else than was asked".to_owned(),
    }
}

fn missing(reason: String) -> Found {
    Found {
        evidence: json!({ "kind": "missing", "reason": reason }),
        observation: Observation::Missing(reason),
        measured_by: REGISTRY.to_owned(),
    }
}

fn not_measured(reason: String, measured_by: &str) -> Found {
    Found {
        evidence: json!({ "kind": "not_measured", "reason": reason }),
        observation: Observation::NotMeasured(reason),
        measured_by: measured_by.to_owned(),
    }
}

fn refused(answer: Result<(Measured, Confinement), String>) -> Found {
    let reason = match answer {
        Ok((Measured::Refused { message }, _)) => message,
        Ok(_) => "the measuring process answered something else than was asked".to_owned(),
        Err(reason) => reason,
    };
    not_measured(reason, REGISTRY)
}
