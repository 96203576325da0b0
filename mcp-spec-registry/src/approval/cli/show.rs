//! A checkpoint as text: whole, in one go, the code at its very end.

use super::terminal::{Style, Terminal};
use crate::{
    approval::view::{
        ArgumentView, CheckpointView, CriterionView, DecisionView, DoneView, EvidenceView,
        StepView, Weight, words,
    },
    run::{CheckVerdict, CheckpointKind},
};

/// The whole checkpoint, without a pager.
pub(super) fn checkpoint(view: &CheckpointView, terminal: Terminal) -> String {
    let mut page = Page {
        terminal,
        text: String::new(),
    };
    page.head(view);
    page.risks(view);
    page.changes(view);
    page.specification(view);
    page.steps(&view.steps);
    if let Some(done) = &view.done {
        page.done(view, done);
    }
    page.criteria(
        "Criteria, each with the test that will prove it",
        &view.criteria,
    );
    page.criteria(
        "Constraints, and how the plan keeps each",
        &view.constraints,
    );
    page.for_human(view);
    page.agents_words(view);
    page.decisions(&view.decisions);
    page.foot(view);
    page.text
}

struct Page {
    terminal: Terminal,
    text: String,
}

impl Page {
    fn line(&mut self, style: Style, text: &str) {
        self.text.push_str(&self.terminal.paint(style, text));
        self.text.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.text.push('\n');
        self.line(Style::Strong, text);
    }

    /// Lines under a common mark, so that no line of somebody else's text can begin at the edge as ours do.
    fn block(&mut self, mark: &str, text: &str) {
        for line in text.split('\n') {
            self.line(Style::Plain, format!("  {mark} {line}").trim_end());
        }
    }

    /// The agent's words, with its mark at the left.
    fn agent(&mut self, text: &str) {
        self.block("│", text);
    }

    fn head(&mut self, view: &CheckpointView) {
        let kind = match view.kind {
            CheckpointKind::V1 => "V1",
            CheckpointKind::V2 => "V2",
        };
        self.line(
            Style::Strong,
            &format!("{kind} · {} · {}", view.checkpoint_id, view.question()),
        );
        self.line(
            Style::Plain,
            &format!(
                "{} {} · plan revision {} · asked by {} · environment {} · run {}",
                view.specification.spec_id.as_str(),
                view.specification.version.as_str(),
                view.revision,
                view.asked_by.as_str(),
                view.environment.as_str(),
                view.run_id
            ),
        );
        let waits = view.seen_at - view.opened_at;
        let state = if view.code.is_some() {
            format!(
                "waiting for {} · stays open for {} (until {})",
                words::duration(waits),
                words::duration(view.expires_at - view.seen_at),
                words::moment(view.expires_at)
            )
        } else {
            words::checkpoint_state(view.state).to_owned()
        };
        self.line(Style::Faint, &state);
        let style = if view.strength.is_separated {
            Style::Good
        } else {
            Style::Doubtful
        };
        self.line(style, &view.strength.words);
        for reason in &view.strength.reasons {
            self.block("•", reason.as_str());
        }
        if view.specification.is_proposed {
            self.line(
                Style::Doubtful,
                "▲ The specification itself is new: an agent proposed it. Approving the plan puts it in force.",
            );
        }
        if let Some(open) = &view.open_now {
            self.line(
                Style::Doubtful,
                &format!("This run now waits at checkpoint {open}."),
            );
        }
    }

    fn risks(&mut self, view: &CheckpointView) {
        self.heading("What must not be missed (computed, not told by the agent)");
        for risk in &view.risks {
            let (mark, style) = match risk.weight {
                Weight::Grave => ("▲", Style::Bad),
                Weight::Notice => ("•", Style::Doubtful),
                Weight::Clear => ("–", Style::Faint),
            };
            self.line(style, &format!("  {mark} {}: {}", risk.title, risk.words));
            for item in &risk.items {
                self.line(Style::Plain, &format!("      {}", item.as_str()));
            }
        }
    }

    fn changes(&mut self, view: &CheckpointView) {
        let Some(changes) = &view.changes else { return };
        self.heading(&format!(
            "Changed since the revision you decided about: {}",
            words::count(changes.len(), "line", "lines")
        ));
        let mut part = "";
        for change in changes {
            if change.part.as_str() != part {
                part = change.part.as_str();
                self.line(Style::Faint, &format!("  {part}"));
            }
            let (mark, style) = if change.is_added {
                ("+", Style::Good)
            } else {
                ("-", Style::Bad)
            };
            self.line(style, &format!("  {mark} {}", change.text.as_str()));
        }
    }

    fn specification(&mut self, view: &CheckpointView) {
        self.heading("Asked for");
        self.block(" ", view.specification.outcome.as_str());
        self.line(
            Style::Faint,
            &format!("  specification {}", view.specification.digest),
        );
    }

    fn steps(&mut self, steps: &[StepView]) {
        self.heading(&words::count(steps.len(), "step", "steps"));
        for step in steps {
            let (mark, style) = if step.is_irreversible {
                ("▲ ", Style::Bad)
            } else {
                ("", Style::Strong)
            };
            self.line(
                style,
                &format!(
                    "  {mark}{}  {} on {} · {}",
                    step.id.as_str(),
                    step.tool.as_str(),
                    step.server.as_str(),
                    step.reversibility
                ),
            );
            for argument in &step.arguments {
                self.argument(argument);
            }
            for input in &step.inputs {
                self.line(
                    Style::Plain,
                    &format!("      reads {} as {}", input.path.as_str(), input.sha256),
                );
            }
            for condition in &step.conditions {
                self.line(Style::Faint, &format!("      {condition}"));
            }
            self.line(Style::Plain, "      undone, says the agent:");
            self.agent(step.rollback.as_str());
        }
    }

    fn argument(&mut self, argument: &ArgumentView) {
        let mark = if argument.is_open { "▲ " } else { "" };
        let head = format!("      {mark}{}: {}", argument.name.as_str(), argument.rule);
        match argument.values.as_slice() {
            [] => self.line(Style::Plain, &head),
            [value] if !value.as_str().contains('\n') => {
                self.line(Style::Plain, &format!("{head} {}", value.as_str()));
            }
            values => {
                self.line(Style::Plain, &head);
                for value in values {
                    self.block("      ·", value.as_str());
                }
            }
        }
    }

    fn criteria(&mut self, title: &str, criteria: &[CriterionView]) {
        if criteria.is_empty() {
            return;
        }
        self.heading(title);
        for criterion in criteria {
            self.line(Style::Strong, &format!("  {}", criterion.id.as_str()));
            self.block("   ", criterion.text.as_str());
            for test in &criterion.tests {
                self.line(
                    Style::Plain,
                    &format!("      {}; {}", test.does, test.passes),
                );
                if let Some(reading) = &test.agents_reading {
                    self.line(
                        Style::Doubtful,
                        &format!("      the agent's reading: {reading}"),
                    );
                }
            }
            if criterion.is_for_human() {
                self.line(
                    Style::Doubtful,
                    "      no machine measures it; you will have to judge",
                );
            }
            if let Some(judged) = &criterion.judged {
                self.agent(judged.as_str());
            }
            for evidence in &criterion.evidence {
                self.evidence(evidence, criterion.limit.as_deref());
            }
        }
    }

    fn evidence(&mut self, evidence: &EvidenceView, limit: Option<&str>) {
        let (mark, style) = match evidence.verdict {
            CheckVerdict::Pass => ("✓", Style::Good),
            CheckVerdict::Fail => ("✗", Style::Bad),
            CheckVerdict::Unknown => ("?", Style::Bad),
            CheckVerdict::Provisional => ("…", Style::Doubtful),
        };
        let limit = limit.map_or_else(String::new, |limit| format!(" · limit {limit}"));
        self.line(
            style,
            &format!(
                "      {mark} {}: {}{limit}",
                words::check_verdict(evidence.verdict),
                evidence.measured.as_str()
            ),
        );
        if let Some(reason) = &evidence.reason {
            self.block("     ", reason.as_str());
        }
        let before = evidence
            .before
            .as_ref()
            .map_or_else(String::new, |before| format!(" · {before}"));
        self.line(
            Style::Faint,
            &format!(
                "        measured by {} at {}{before} · {}",
                evidence.measured_by.as_str(),
                words::moment(evidence.measured_at),
                evidence.sha256
            ),
        );
    }

    fn done(&mut self, view: &CheckpointView, done: &[DoneView]) {
        self.heading("What the agent reported");
        match &view.note {
            Some(note) => self.agent(note.as_str()),
            None => self.line(Style::Faint, "  nothing"),
        }
        self.heading("What the servers recorded");
        for step in done {
            if step.calls.is_empty() {
                self.line(
                    Style::Doubtful,
                    &format!("  {}  never called", step.step.as_str()),
                );
            }
            for call in &step.calls {
                let style = if call.is_ok { Style::Plain } else { Style::Bad };
                self.line(
                    style,
                    &format!(
                        "  {}  {} on {}: {} · {}",
                        step.step.as_str(),
                        call.tool.as_str(),
                        call.service.as_str(),
                        call.outcome,
                        words::moment(call.begun_at)
                    ),
                );
                for left in &call.left {
                    self.line(Style::Faint, &format!("      {}", left.as_str()));
                }
            }
        }
    }

    fn for_human(&mut self, view: &CheckpointView) {
        if view.for_human().next().is_none() {
            return;
        }
        self.heading("You will have to judge");
        for criterion in view.for_human() {
            self.block("•", criterion.text.as_str());
        }
    }

    fn agents_words(&mut self, view: &CheckpointView) {
        let agent = view.asked_by.as_str();
        let lists = [
            ("takes for granted", &view.assumptions),
            ("considered instead", &view.alternatives),
        ];
        for (title, texts) in lists {
            if !texts.is_empty() {
                self.heading(&format!("What {agent} {title}"));
                for text in texts {
                    self.agent(text.as_str());
                }
            }
        }
        self.heading(&format!("How everything is undone, says {agent}"));
        self.agent(view.rollback.as_str());
        if let (Some(note), CheckpointKind::V1) = (&view.note, view.kind) {
            self.heading(&format!("What {agent} reported"));
            self.agent(note.as_str());
        }
        for rationale in &view.rationales {
            self.heading(&format!("Why, says {}", rationale.agent.as_str()));
            self.agent(rationale.question.as_str());
            for option in &rationale.options {
                self.agent(&format!("- {}", option.as_str()));
            }
            self.agent(&format!("chose: {}", rationale.chosen.as_str()));
            self.agent(&format!("because: {}", rationale.why.as_str()));
        }
    }

    fn decisions(&mut self, decisions: &[DecisionView]) {
        if decisions.is_empty() {
            return;
        }
        self.heading("Decided in this run so far");
        for decision in decisions {
            self.line(
                Style::Plain,
                &format!(
                    "  {} {} by {}{}, {}",
                    decision.checkpoint_id,
                    words::verdict(decision.verdict),
                    decision.approver.as_str(),
                    if decision.is_test { " (test)" } else { "" },
                    words::moment(decision.decided_at)
                ),
            );
            if !decision.reason.is_blank() {
                self.block(" ", decision.reason.as_str());
            }
        }
    }

    fn foot(&mut self, view: &CheckpointView) {
        self.heading("The plan exactly as it was submitted (canonical JSON)");
        self.block("│", view.plan_json.as_str());
        self.line(Style::Plain, &format!("\nplan      {}", view.plan_digest));
        if view.subject_digest != view.plan_digest {
            self.line(Style::Plain, &format!("evidence  {}", view.subject_digest));
        }
        if let Some(code) = &view.code {
            self.line(Style::Strong, &format!("code      {code}"));
        }
    }
}
