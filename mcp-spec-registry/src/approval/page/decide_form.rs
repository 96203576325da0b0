//! The form at the end of a checkpoint: a reason, the code, the secret, and one button for each verdict.

use maud::{Markup, html};

use crate::{
    approval::view::{CheckpointView, Prose},
    registry::RegistryError,
    run::{CheckpointKind, Verdict},
};

/// What was typed before and may be shown again; never the code or the secret.
#[derive(Debug, Clone, Default)]
pub(super) struct Typed {
    pub(super) approver: String,
    pub(super) reason: String,
    pub(super) error: Option<RegistryError>,
}

const REASON_CODES: [(&str, &str); 6] = [
    ("", "no code"),
    ("would_have_failed", "it would have failed"),
    ("unsafe", "it is unsafe"),
    ("incomplete", "something is missing"),
    ("misunderstood", "it misses what was meant"),
    ("other", "something else"),
];

/// The form of an open checkpoint.
pub(super) fn form(view: &CheckpointView, code: &str, typed: &Typed) -> Markup {
    let action = format!("/c/{}/decide#decide", view.checkpoint_id);
    let is_v2 = view.kind == CheckpointKind::V2;
    html! {
        section.decide #decide aria-labelledby="decide-title" {
            h2 #decide-title { "Decide" }
            (error(typed))
            dl.digests {
                div { dt { "Plan" } dd { code { (view.plan_digest) } } }
                @if view.subject_digest != view.plan_digest {
                    div { dt { "Evidence" } dd { code { (view.subject_digest) } } }
                }
                div { dt { "Code" } dd { strong.code { (code) } } }
            }
            form method="post" action=(action) autocomplete="off" {
                // Enter in a field presses a form's first button: this one, which does nothing.
                button type="submit" disabled hidden {}
                input type="hidden" name="shown" value=(view.subject_digest);
                @if is_v2 { (unknown(view)) }
                div.field {
                    label for="reason" { "Reason" }
                    p.hint #reason-hint { "Needed for a no and for a question. The agent reads it." }
                    textarea #reason name="reason" rows="3" aria-describedby="reason-hint" { (typed.reason) }
                }
                details.more {
                    summary { "If you say no" }
                    div.field {
                        label for="reason-code" { "Counted as" }
                        select #reason-code name="reason_code" {
                            @for (value, words) in REASON_CODES { option value=(value) { (words) } }
                        }
                    }
                    @if is_v2 {
                        fieldset {
                            legend { "The run goes on with" }
                            label.choice { input type="radio" name="return_to" value="generate" checked; " the same plan, carried out again" }
                            label.choice { input type="radio" name="return_to" value="analyze"; " another plan" }
                        }
                    }
                    label.choice { input type="checkbox" name="final" value="yes"; " and the run ends with it" }
                }
                div.row {
                    div.field {
                        label for="name" { "Your name" }
                        input #name name="approver" value=(typed.approver) required autocapitalize="off" spellcheck="false" autocomplete="off";
                    }
                    div.field {
                        label for="code" { "Code, as it stands above" }
                        input #code name="code" required maxlength="16" autocapitalize="characters" spellcheck="false" autocomplete="off";
                    }
                    div.field {
                        label for="secret" { "Your secret" }
                        input #secret name="secret" type="password" required autocomplete="off";
                    }
                }
                div.verdicts {
                    (button(view, Verdict::Approve, "approve"))
                    (button(view, Verdict::Reject, "reject"))
                    @if !is_v2 { (button(view, Verdict::Clarify, "clarify")) }
                }
            }
        }
    }
}

fn button(view: &CheckpointView, verdict: Verdict, value: &str) -> Markup {
    let mark = match verdict {
        Verdict::Approve => "✓",
        Verdict::Reject => "✗",
        Verdict::Clarify => "?",
    };
    html! {
        button.verdict.(value) type="submit" name="verdict" value=(value) {
            span aria-hidden="true" { (mark) } " " (view.says(verdict))
        }
    }
}

fn error(typed: &Typed) -> Markup {
    html! {
        @if let Some(error) = &typed.error {
            div.error role="alert" {
                p { strong { "Nothing was decided: " } (Prose::of(&error.message).as_str()) "." }
                p { (Prose::of(&error.hint).as_str()) }
            }
        }
    }
}

/// Each result that nobody knows is accepted by name, or the outcome is not accepted.
fn unknown(view: &CheckpointView) -> Markup {
    html! {
        @if view.unknown().next().is_some() {
            fieldset.unknown {
                legend { "Nobody knows whether these hold. Accepting the outcome means accepting each of them:" }
                @for criterion in view.unknown() {
                    label.choice {
                        input type="checkbox" name="accept_unknown" value=(criterion.key);
                        " " code { (criterion.id.as_str()) }
                    }
                }
            }
        }
    }
}
