//! The page of one checkpoint: what is asked, what must not be missed, the plan beside the specification, and the form.

use maud::{Markup, html};

use super::{
    decide_form::{self, Typed},
    shell::{LONG_TEXT, machine, reason_of, sentence, words_of},
};
use crate::{
    approval::view::{
        ArgumentView, ChangeView, CheckpointView, CriterionView, DecisionView, DoneView,
        EvidenceView, RiskView, StepView, TestView, Weight, words,
    },
    run::{CheckVerdict, CheckpointKind},
};

/// The whole checkpoint, from top to bottom.
pub(super) fn checkpoint(view: &CheckpointView, typed: &Typed) -> Markup {
    let is_v2 = view.kind == CheckpointKind::V2;
    html! {
        article.checkpoint {
            (asked(view))
            (changes(view))
            (risks(&view.risks))
            @if is_v2 {
                (criteria_rows(view))
                (reported(view))
                (steps_row(view))
            } @else {
                (steps_row(view))
                (criteria_rows(view))
            }
            (to_judge(view))
            (agents_words(view))
            (decisions(view))
            (whole_plan(view))
            @match &view.code {
                Some(code) => (decide_form::form(view, code, typed)),
                None => (closed(view)),
            }
        }
    }
}

fn asked(view: &CheckpointView) -> Markup {
    let (phase, about) = match view.kind {
        CheckpointKind::V1 => ("V1 · Verify", "plan revision"),
        CheckpointKind::V2 => ("V2 · Validate", "outcome of plan revision"),
    };
    html! {
        header.asked {
            p.kicker { (phase) " · checkpoint " (view.checkpoint_id) }
            h1 { (view.question()) }
            p.lede {
                strong { (view.specification.spec_id.as_str()) " " (view.specification.version.as_str()) }
                ", " (about) " " (view.revision)
                ". Asked by " code { (view.asked_by.as_str()) }
                " for environment " code { (view.environment.as_str()) } "."
            }
            @if view.code.is_some() {
                p.time {
                    "Waiting for " (words::duration(view.seen_at - view.opened_at))
                    ". Stays open for " (words::duration(view.expires_at - view.seen_at))
                    ", until " (words::moment(view.expires_at)) ". "
                    a href="#decide" { "Go to the form" }
                }
            } @else {
                (closed(view))
            }
            @if view.specification.is_proposed {
                p.banner.notice {
                    strong { "The specification itself is new. " }
                    "An agent proposed it; approving this plan puts it in force."
                }
            }
            div.banner.(if view.strength.is_separated { "clear" } else { "notice" }) {
                p { (view.strength.words) }
                @if !view.strength.reasons.is_empty() {
                    details {
                        summary { "Why, and how to change it" }
                        ul { @for reason in &view.strength.reasons { li { (reason.as_str()) } } }
                    }
                }
            }
            p.quiet { a href={ "/run/" (view.run_id) } { "The whole run " (view.run_id) } }
        }
    }
}

fn closed(view: &CheckpointView) -> Markup {
    html! {
        div.banner.notice role="status" {
            p {
                strong { "Closed: " (words::checkpoint_state(view.state)) }
                @if let Some(decision) = view.decision() {
                    " by " (decision.approver.as_str()) " at " (words::moment(decision.decided_at))
                }
                "."
            }
            @if let Some(open) = &view.open_now {
                p { a href={ "/c/" (open) } { "This run now waits at checkpoint " (open) } }
            }
        }
    }
}

fn changes(view: &CheckpointView) -> Markup {
    let Some(changes) = &view.changes else {
        return html! {};
    };
    html! {
        section.changes aria-labelledby="changes-title" {
            h2 #changes-title { "Changed since the revision you decided about" }
            @if changes.is_empty() {
                p { "Nothing: the plan is the same, line by line." }
            } @else {
                p.note { (words::count(changes.len(), "line", "lines")) ", compared by the registry" }
                div.diff {
                    @for group in changes.chunk_by(|one, next| one.part == next.part) {
                        p.part { (group[0].part.as_str()) }
                        @for change in group {
                            @if change.is_added {
                                ins { span.sr { "added: " } span aria-hidden="true" { "+ " } (changed(change)) }
                            } @else {
                                del { span.sr { "removed: " } span aria-hidden="true" { "− " } (changed(change)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A changed line. One that is very long must not push the risks out of sight: it is opened by the reader, and whole.
fn changed(change: &ChangeView) -> Markup {
    let text = change.text.as_str();
    html! {
        @if text.len() > LONG_TEXT {
            details {
                summary { (text.len()) " characters in one line" }
                (text)
            }
        } @else {
            (text)
        }
    }
}

fn risks(risks: &[RiskView]) -> Markup {
    html! {
        section.risks aria-labelledby="risks-title" {
            h2 #risks-title { "What must not be missed" }
            p.note { "Computed by the registry from the plan's fields, not told by the agent." }
            dl {
                @for risk in risks {
                    @let (class, mark) = match risk.weight {
                        Weight::Grave => ("grave", "▲"),
                        Weight::Notice => ("notice", "●"),
                        Weight::Clear => ("clear", "–"),
                    };
                    div.(class) {
                        dt { span aria-hidden="true" { (mark) } " " (risk.title) }
                        dd {
                            (risk.words)
                            @if !risk.items.is_empty() {
                                ul { @for item in &risk.items { li { code { (item.as_str()) } } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn steps_row(view: &CheckpointView) -> Markup {
    let agent = view.asked_by.as_str();
    html! {
        div.pair {
            section.plan aria-labelledby="steps-title" {
                h2 #steps-title { (words::count(view.steps.len(), "step", "steps")) }
                p.note { "Written by " (agent) ". A server does only what is covered by a step." }
                ol.steps { @for one in &view.steps { li { (step(one, agent)) } } }
            }
            aside.spec aria-labelledby="spec-title" {
                h2 #spec-title { "Asked for" }
                p.outcome { (view.specification.outcome.as_str()) }
                @if !view.specification.freedoms.is_empty() {
                    h3 { "The agent may choose" }
                    ul { @for freedom in &view.specification.freedoms { li { (freedom.as_str()) } } }
                }
                details {
                    summary { "The specification as it was written" }
                    pre { code { (view.specification.verbatim.as_str()) } }
                    p.note { "Added by " (view.specification.added_by.as_str()) ", " code { (view.specification.digest) } }
                }
            }
        }
    }
}

fn step(step: &StepView, agent: &str) -> Markup {
    html! {
        article.step.irreversible[step.is_irreversible] {
            header {
                h3 { (step.id.as_str()) " " code { (step.tool.as_str()) } }
                p.on { "on " (step.server.as_str()) }
                p.undo {
                    @if step.is_irreversible { span aria-hidden="true" { "▲ " } }
                    (step.reversibility)
                }
            }
            @if !step.arguments.is_empty() {
                dl.arguments { @for one in &step.arguments { (argument(one)) } }
            }
            @if !step.inputs.is_empty() {
                p { "Reads or runs, with exactly these bytes:" }
                ul.inputs {
                    @for input in &step.inputs { li { code { (input.path.as_str()) } " " code.digest { (input.sha256) } } }
                }
            }
            ul.conditions { @for condition in &step.conditions { li { (sentence(condition)) } } }
            p.label { "Undone by" }
            (words_of(agent, &step.rollback))
        }
    }
}

fn argument(argument: &ArgumentView) -> Markup {
    html! {
        div.open[argument.is_open] {
            dt { code { (argument.name.as_str()) } }
            dd {
                span.rule {
                    @if argument.is_open { span aria-hidden="true" { "● " } }
                    (argument.rule)
                }
                " "
                @if argument.values.len() > 1 {
                    ul { @for value in &argument.values { li { (machine(value.as_str())) } } }
                } @else {
                    @for value in &argument.values { (machine(value.as_str())) }
                }
            }
        }
    }
}

fn criteria_rows(view: &CheckpointView) -> Markup {
    let is_v2 = view.kind == CheckpointKind::V2;
    let title = if is_v2 {
        "What was measured"
    } else {
        "What will prove it"
    };
    let groups = [
        ("criteria", "Criteria", &view.criteria),
        ("constraints", "Constraints", &view.constraints),
    ];
    html! {
        @for (id, name, criteria) in groups {
            @if !criteria.is_empty() {
                section.rows aria-labelledby={ (id) "-title" } {
                    div.pair.heads {
                        h2 #{ (id) "-title" } { (name) ": " (title.to_lowercase()) }
                        p.spec-head aria-hidden="true" { (name) ", by the specification's author" }
                    }
                    @for one in criteria { (criterion(one, view.asked_by.as_str())) }
                }
            }
        }
    }
}

fn criterion(criterion: &CriterionView, agent: &str) -> Markup {
    html! {
        div.pair.criterion {
            div.spec {
                h3 { (criterion.text.as_str()) }
                p.note { code { (criterion.id.as_str()) } }
            }
            div.plan {
                @for evidence in &criterion.evidence { (measured(evidence, criterion.limit.as_deref())) }
                @for one in &criterion.tests { (test(one)) }
                @if criterion.is_for_human() {
                    p.judge { span aria-hidden="true" { "● " } "No machine measures this. You will have to judge." }
                }
                @if let Some(judged) = &criterion.judged { (words_of(agent, judged)) }
            }
        }
    }
}

fn test(test: &TestView) -> Markup {
    html! {
        p.test { (sentence(&test.does)) "; " strong { (sentence(&test.passes)) } "." }
        @if let Some(reading) = &test.agents_reading {
            p.reading { "The agent’s reading: " (sentence(reading)) "." }
        }
    }
}

fn measured(evidence: &EvidenceView, limit: Option<&str>) -> Markup {
    let (class, mark) = match evidence.verdict {
        CheckVerdict::Pass => ("pass", "✓"),
        CheckVerdict::Fail => ("fail", "✗"),
        CheckVerdict::Unknown => ("unknown", "?"),
        CheckVerdict::Provisional => ("provisional", "…"),
    };
    html! {
        div.measured.(class) {
            p.value {
                span.verdict-word { span aria-hidden="true" { (mark) " " } (words::check_verdict(evidence.verdict)) }
                strong { (evidence.measured.as_str()) }
                @if let Some(limit) = limit { span.limit { "limit " (limit) } }
            }
            @if let Some(reason) = &evidence.reason { p { (reason.as_str()) } }
            @if let Some(before) = &evidence.before { p.note { "This test " (before) "." } }
            details {
                summary { "Measured by " (evidence.measured_by.as_str()) ", " (words::moment(evidence.measured_at)) }
                pre { code { (evidence.raw.as_str()) } }
                p.note { code { (evidence.sha256) } }
            }
        }
    }
}

/// What the agent said it did, beside what the servers recorded.
fn reported(view: &CheckpointView) -> Markup {
    let Some(done) = &view.done else {
        return html! {};
    };
    html! {
        div.pair {
            section.plan aria-labelledby="reported-title" {
                h2 #reported-title { "What the agent reported" }
                @match &view.note {
                    Some(note) => (words_of(view.asked_by.as_str(), note)),
                    None => p.note { "Nothing." },
                }
            }
            section.spec aria-labelledby="recorded-title" {
                h2 #recorded-title { "What the servers recorded" }
                ul.done { @for step in done { (recorded(step)) } }
            }
        }
    }
}

fn recorded(step: &DoneView) -> Markup {
    html! {
        @if step.calls.is_empty() {
            li.missing { code { (step.step.as_str()) } " was never called" }
        }
        @for call in &step.calls {
            li.missing[!call.is_ok] {
                code { (step.step.as_str()) } " " (call.tool.as_str()) " on " (call.service.as_str()) ": "
                strong { (call.outcome) }
                p.note { (words::moment(call.begun_at)) ", " code { (call.action_id.as_str()) } }
                @if !call.left.is_empty() {
                    ul { @for left in &call.left { li { code { (left.as_str()) } } } }
                }
            }
        }
    }
}

fn to_judge(view: &CheckpointView) -> Markup {
    html! {
        @if view.for_human().next().is_some() {
            section.judge-list aria-labelledby="judge-title" {
                h2 #judge-title { "You will have to judge" }
                ul { @for one in view.for_human() { li { (one.text.as_str()) } } }
            }
        }
    }
}

fn agents_words(view: &CheckpointView) -> Markup {
    let agent = view.asked_by.as_str();
    let lists = [
        ("Assumptions", &view.assumptions),
        ("Considered instead", &view.alternatives),
    ];
    html! {
        div.pair.even {
            @for (title, texts) in lists {
                section {
                    h2 { (title) }
                    @if texts.is_empty() { p.note { "The agent names none." } }
                    @for text in texts { (words_of(agent, text)) }
                }
            }
        }
        section {
            h2 { "How everything is undone" }
            (words_of(agent, &view.rollback))
        }
        @if let (Some(note), CheckpointKind::V1) = (&view.note, view.kind) {
            section {
                h2 { "What the agent reported" }
                (words_of(agent, note))
            }
        }
        @if !view.rationales.is_empty() {
            section {
                h2 { "Why it chose what it chose" }
                @for rationale in &view.rationales {
                    h3 { (rationale.question.as_str()) }
                    p { "Chosen: " strong { (rationale.chosen.as_str()) } }
                    @if !rationale.options.is_empty() {
                        ul { @for option in &rationale.options { li { (option.as_str()) } } }
                    }
                    (words_of(rationale.agent.as_str(), &rationale.why))
                }
            }
        }
    }
}

fn decisions(view: &CheckpointView) -> Markup {
    html! {
        @if !view.decisions.is_empty() {
            section aria-labelledby="decisions-title" {
                h2 #decisions-title { "Decided in this run so far" }
                ul.decisions { @for one in &view.decisions { li { (decision(one)) } } }
            }
        }
    }
}

/// A decision with its reason.
pub(super) fn decision(decision: &DecisionView) -> Markup {
    html! {
        p {
            strong { (words::verdict(decision.verdict)) }
            " by " (decision.approver.as_str())
            @if decision.is_test { " " span.tag { "test approver" } }
            @if decision.is_final { " " span.tag { "ended the run" } }
            ", " (words::moment(decision.decided_at)) ", checkpoint "
            a href={ "/c/" (decision.checkpoint_id) } { (decision.checkpoint_id) }
        }
        @if !decision.reason.is_blank() { (reason_of(decision.approver.as_str(), &decision.reason)) }
        @if !decision.accepted_unknown.is_empty() {
            p.note {
                "Accepted as unknown: "
                @for id in &decision.accepted_unknown { code { (id.as_str()) } " " }
            }
        }
    }
}

fn whole_plan(view: &CheckpointView) -> Markup {
    html! {
        section aria-labelledby="whole-title" {
            h2 #whole-title { "The plan exactly as it was submitted" }
            details {
                summary { "Canonical JSON, whole; its SHA-256 is what you approve" }
                pre { code { (view.plan_json.as_str()) } }
            }
        }
    }
}
