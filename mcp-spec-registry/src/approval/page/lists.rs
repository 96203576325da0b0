//! The pages around a checkpoint: sign in, queue, history, a run, a receipt, and what could not be done.

use maud::{Markup, html};
use time::OffsetDateTime;

use super::{
    checkpoint::decision,
    shell::{reason_of, sentence, words_of},
};
use crate::{
    approval::api::OpenRun,
    approval::view::{CheckpointView, DecisionView, Machine, Prose, Sentence, words},
    registry::{HistoryEntry, QueueEntry, Receipt, RegistryError},
    run::{CheckpointKind, RunRecord},
};

/// Name and secret, to look; or on with a page that another site's link led to.
pub(super) fn sign_in(next: &str, name: &str, error: Option<&RegistryError>) -> Markup {
    html! {
        section.narrow {
            h1 { "Sign in to look" }
            p { "Signing in shows what waits. Deciding takes your secret again, each time." }
            @if let Some(error) = error {
                div.error role="alert" {
                    p { strong { (Prose::of(&error.message).as_str()) "." } }
                    p { (Prose::of(&error.hint).as_str()) }
                }
            }
            form method="post" action="/sign-in" {
                input type="hidden" name="next" value=(next);
                div.field {
                    label for="name" { "Your name" }
                    input #name name="name" value=(name) required autofocus autocapitalize="off" spellcheck="false" autocomplete="username";
                }
                div.field {
                    label for="secret" { "Your secret" }
                    input #secret name="secret" type="password" required autocomplete="off";
                }
                button type="submit" { "Look" }
            }
            // A link on another site arrives without the cookie, which is SameSite=Strict; a link of ours brings it.
            p.note { "Signed in already, and came by a link from elsewhere? " a href=(next) { "Continue" } }
        }
    }
}

/// What waits for a human.
pub(super) fn queue(queue: &[QueueEntry], runs: &[OpenRun], now: OffsetDateTime) -> Markup {
    html! {
        h1 {
            @if queue.is_empty() { "Nothing waits for you" }
            @else { (words::count(queue.len(), "checkpoint waits", "checkpoints wait")) " for you" }
        }
        @if queue.is_empty() {
            p.note { "When an agent submits a plan, or an outcome was measured, it stands here." }
        }
        ul.cards {
            @for open in queue {
                li {
                    @let what = match open.kind {
                        CheckpointKind::V1 => "V1 · review a plan",
                        CheckpointKind::V2 => "V2 · judge an outcome",
                    };
                    p.kicker { (what) " · " (open.checkpoint_id) }
                    h2 {
                        a href={ "/c/" (open.checkpoint_id) } {
                            (open.spec_id) " " (Machine::of(&open.spec_version).as_str())
                            ", revision " (open.revision)
                        }
                    }
                    p { (Prose::of(&open.title).as_str()) }
                    p.note {
                        "Asked by " code { (Machine::of(&open.opened_by).as_str()) }
                        " for " code { (Machine::of(&open.environment).as_str()) }
                        ". Waiting for " (words::duration(now - open.opened_at))
                        ", open for " (words::duration(open.expires_at - now)) " more."
                    }
                }
            }
        }
        @if !runs.is_empty() {
            h2 { "Under way" }
            ul {
                @for run in runs {
                    li {
                        a href={ "/run/" (run.run_id) } { (run.run_id) }
                        " " (run.spec_id) " " (Machine::of(&run.spec_version).as_str()) ": " (run.state)
                        @if run.paused { ", paused" }
                        @if let Some(agent) = &run.claimant {
                            ", claimed by " code { (Machine::of(agent).as_str()) }
                        }
                    }
                }
            }
            p.note { "`mcp-spec-registry pause`, `cancel` or `kill` with the run's number stops one." }
        }
    }
}

/// What was decided, newest first.
pub(super) fn history(history: &[HistoryEntry]) -> Markup {
    html! {
        h1 { "Decisions" }
        @if history.is_empty() { p.note { "Nothing was decided yet." } }
        ul.cards {
            @for entry in history {
                li {
                    @let kind = match entry.kind {
                        CheckpointKind::V1 => "V1",
                        CheckpointKind::V2 => "V2",
                    };
                    p.kicker { (kind) " · revision " (entry.revision) " · " code { (Machine::of(&entry.environment).as_str()) } }
                    h2 {
                        a href={ "/run/" (entry.decision.run_id) } {
                            (entry.spec_id) " " (Machine::of(&entry.spec_version).as_str())
                        }
                    }
                    (decision(&DecisionView::of(&entry.decision)))
                    p.note { "The run is " (words::run_state(entry.run_state)) "." }
                }
            }
        }
    }
}

/// One run: where it stands, its checkpoints, decisions and what the servers recorded.
pub(super) fn run(record: &RunRecord) -> Markup {
    let run = &record.run;
    html! {
        p.kicker { "Run " (run.run_id) }
        h1 { (run.spec_id) " " (Machine::of(&run.spec_version).as_str()) }
        p.lede {
            "It is " strong { (words::run_state(run.state)) }
            @if run.paused { strong { ", and paused" } }
            ". Requested by " code { (Machine::of(&run.requester).as_str()) }
            " for " code { (Machine::of(&run.environment).as_str()) }
            " at " (words::moment(run.created_at)) "."
            @if let Some(claimant) = &run.claimant { " Claimed by " code { (Machine::of(claimant).as_str()) } "." }
        }
        @if let Some(reason) = &run.closed_reason { p.note { "It ended with: " (Prose::of(reason).as_str()) } }
        section {
            h2 { "Checkpoints" }
            @if record.checkpoints.is_empty() { p.note { "None yet." } }
            ul {
                @for checkpoint in &record.checkpoints {
                    li {
                        a href={ "/c/" (checkpoint.checkpoint_id) } { (checkpoint.checkpoint_id) }
                        ", revision " (checkpoint.revision) ": " (words::checkpoint_state(checkpoint.state))
                        ", " (words::moment(checkpoint.opened_at))
                    }
                }
            }
        }
        section {
            h2 { "Decisions" }
            @if record.decisions.is_empty() { p.note { "None yet." } }
            ul.decisions { @for one in &record.decisions { li { (decision(&DecisionView::of(one))) } } }
        }
        section {
            h2 { "What the servers recorded" }
            @if record.actions.is_empty() { p.note { "Nothing yet." } }
            ul {
                @for action in &record.actions {
                    li {
                        (words::moment(action.begun_at)) " "
                        (sentence(&Sentence::default().code(&action.step_id).then(" ").code(&action.tool).then(" on ").code(&action.service)))
                        ": " (action.outcome.map_or("not ended yet", |outcome| match outcome {
                            shared::effect::protocol::Outcome::Ok => "done",
                            shared::effect::protocol::Outcome::Error => "failed",
                            shared::effect::protocol::Outcome::Unknown => "nobody knows",
                        }))
                    }
                }
            }
        }
        section {
            h2 { "Why the agent chose what it chose" }
            @if record.rationales.is_empty() { p.note { "Nothing recorded." } }
            @for rationale in &record.rationales {
                h3 { (Prose::of(&rationale.question).as_str()) }
                p { "Chosen: " strong { (Prose::of(&rationale.chosen).as_str()) } }
                (words_of(Machine::of(&rationale.agent).as_str(), &Prose::of(&rationale.why)))
            }
        }
    }
}

/// What was recorded, the receipt to keep, what happens next.
pub(super) fn receipt(receipt: &Receipt) -> Markup {
    let decision = &receipt.decision;
    html! {
        section.receipt role="status" {
            p.kicker { "Recorded" }
            h1 {
                span aria-hidden="true" { "✓ " }
                "Checkpoint " (decision.checkpoint_id) ": " (words::verdict(decision.verdict))
            }
            p.lede { "By " (Prose::of(&decision.approver).as_str()) " at " (words::moment(decision.decided_at)) "." }
            p { strong { "Next: " } (receipt.next) "." }
            @if !decision.reason.trim().is_empty() {
                (reason_of(Prose::of(&decision.approver).as_str(), &Prose::of(&decision.reason)))
            }
            h2 { "Receipt" }
            p.note { "Keep it: with the signed head of the audit it proves later that the record was not cut or rewritten." }
            pre.keep { code {
                "decision   " (decision.decision_id) "\n"
                "checkpoint " (decision.checkpoint_id) "\n"
                "run        " (decision.run_id) "\n"
                "verdict    " (words::verdict(decision.verdict)) "\n"
                "about      " (decision.subject_digest) "\n"
                "signature  " (decision.signature) "\n"
                @if let Some(head) = &receipt.audit_head {
                    "audit head " (head.seq) " " (head.hash) "\n"
                    "signed     " (head.signature) "\n"
                }
            } }
            p { a href="/" { "Back to the queue" } " · " a href={ "/run/" (decision.run_id) } { "The run" } }
        }
    }
}

/// The checkpoint moved on while its page was open: who was first, and what is open now.
pub(super) fn conflict(view: &CheckpointView, error: &RegistryError) -> Markup {
    html! {
        section.narrow {
            p.kicker { "Not recorded" }
            h1 { "This changed while your page was open" }
            @match view.decision() {
                Some(first) => {
                    p.lede { "Somebody was faster; their decision counts:" }
                    (decision(first))
                }
                None => p.lede { "Checkpoint " (view.checkpoint_id) " is " (words::checkpoint_state(view.state)) "." },
            }
            p.note { (Prose::of(&error.message).as_str()) }
            @match &view.open_now {
                Some(open) => p { a.button href={ "/c/" (open) } { "Read checkpoint " (open) ", which is open now" } },
                None => p { a.button href={ "/c/" (view.checkpoint_id) } { "Look at it as it is now" } },
            }
        }
    }
}

/// Something that is not there or did not work.
pub(super) fn failure(error: &RegistryError) -> Markup {
    html! {
        section.narrow {
            h1 { "That did not work" }
            p.lede { (Prose::of(&error.message).as_str()) "." }
            p { (Prose::of(&error.hint).as_str()) }
            p { a href="/" { "To the queue" } }
        }
    }
}
