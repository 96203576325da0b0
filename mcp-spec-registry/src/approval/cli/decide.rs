//! Deciding on the terminal: the whole checkpoint first, then reason, code and secret.

use super::{
    DecideArgs, approver_name, checkpoint_path,
    client::Client,
    print, print_json, show,
    terminal::{self, Style, Terminal},
};
use crate::{
    approval::{
        api::Decide,
        view::{CheckpointView, Prose, words},
    },
    registry::Receipt,
    run::{CheckpointKind, Verdict},
};

pub(super) async fn run(
    client: &Client,
    terminal: Terminal,
    verdict: Verdict,
    args: DecideArgs,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        verdict == Verdict::Reject || !(args.is_final || args.return_to.is_some()),
        "--final and --return-to say what a `reject` leads to; leave them out"
    );
    let path = checkpoint_path(&args.id);
    let view: CheckpointView = client.get(&path).await?;
    if !args.json {
        print(&show::checkpoint(&view, terminal))?;
    }
    if view.code.is_none() {
        let by = view.decision().map_or_else(String::new, |decision| {
            format!(
                " by {} at {}",
                decision.approver.as_str(),
                words::moment(decision.decided_at)
            )
        });
        let open = view
            .open_now
            .as_ref()
            .map_or_else(String::new, |open| format!("; look at {open} instead"));
        anyhow::bail!(
            "checkpoint {} cannot be decided any more: {}{by}{open}",
            view.checkpoint_id,
            words::checkpoint_state(view.state)
        );
    }
    terminal.say_to_human(&format!("\n{}", view.says(verdict)));
    let reason = match args.reason {
        Some(reason) => reason,
        None if verdict == Verdict::Approve => String::new(),
        None => {
            let question = match verdict {
                Verdict::Clarify => "your question",
                Verdict::Approve | Verdict::Reject => "why not",
            };
            terminal::ask(question, "--reason")?
        }
    };
    let accepted_unknown = accept_unknown(&view, verdict, args.accept_unknown)?;
    let approver = approver_name(client, args.name).await?;
    let code = match args.code {
        Some(code) => code,
        None => terminal::ask("the code above", "--code")?,
    };
    let secret = terminal::ask_secret(
        &format!("secret of {}", Prose::of(&approver).as_str()),
        args.secret_fd,
    )?;
    let asked = Decide {
        verdict,
        reason,
        reason_code: args.reason_code,
        is_final: args.is_final,
        return_to: args.return_to.map(Into::into),
        code,
        approver,
        secret: secret.to_string(),
        accepted_unknown,
        shown_digest: view.subject_digest.parse()?,
    };
    let receipt: Receipt = client.post(&format!("{path}/decide"), &asked).await?;
    if args.json {
        print_json(&receipt)
    } else {
        say_receipt(terminal, &receipt)
    }
}

/// Each unknown result is accepted by its name, typed or given.
fn accept_unknown(
    view: &CheckpointView,
    verdict: Verdict,
    given: Vec<String>,
) -> anyhow::Result<Vec<String>> {
    if view.kind == CheckpointKind::V1 || verdict != Verdict::Approve || !given.is_empty() {
        return Ok(given);
    }
    let mut accepted = Vec::new();
    for criterion in view.unknown() {
        let name = terminal::ask(
            &format!(
                "nobody knows whether {} holds; type its name to accept that",
                criterion.id.as_str()
            ),
            "--accept-unknown",
        )?;
        anyhow::ensure!(
            name == criterion.key,
            "not accepted, so the outcome is not; use `reject` to say no"
        );
        accepted.push(name);
    }
    Ok(accepted)
}

fn say_receipt(terminal: Terminal, receipt: &Receipt) -> anyhow::Result<()> {
    let decision = &receipt.decision;
    terminal.say(
        Style::Good,
        &format!(
            "✓ {} by {} at {}",
            words::verdict(decision.verdict),
            Prose::of(&decision.approver).as_str(),
            words::moment(decision.decided_at)
        ),
    )?;
    terminal.say(
        Style::Plain,
        &format!("  decision  {}", decision.decision_id),
    )?;
    terminal.say(
        Style::Plain,
        &format!("  about     {}", decision.subject_digest),
    )?;
    if let Some(head) = &receipt.audit_head {
        terminal.say(
            Style::Plain,
            &format!("  audit     {} {} {}", head.seq, head.hash, head.signature),
        )?;
    }
    terminal.say(Style::Plain, &format!("  next      {}", receipt.next))?;
    Ok(())
}
