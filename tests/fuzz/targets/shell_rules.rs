//! Any script, any rules: a verdict is one that the rules can give, and a command that is denied is found wherever it stands.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use serde::Deserialize;
use shell::policy::rules::{Decision, RuleTable, Rules, Verdict};

/// Every script is judged by these, and by its own if it begins with some.
static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let toml = r#"
    [[rule]]
    match = ["git", "push"]
    decision = "deny"
    [[rule]]
    match = ["rm", "-r", "*"]
    decision = "deny"
    [[rule]]
    match = [["curl", "wget"], ["--upload-file", "-T"]]
    decision = "ask"
    [[rule]]
    match = ["make"]
    decision = "allow"
    "#;
    rules(toml).expect("the rules are rules")
});

/// Ends the rules that a script brings along.
const RULES_END: &str = "\n#!\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    rule: Vec<RuleTable>,
}

fn rules(toml: &str) -> Option<Rules> {
    let document: Document = toml::from_str(toml).ok()?;
    Rules::from_tables(document.rule).ok()
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Corpus::Reject;
    };
    let script = match text.split_once(RULES_END) {
        None => text,
        Some((toml, script)) => {
            if let Some(own) = rules(toml) {
                of_these_rules(&own, script);
            }
            script
        }
    };
    of_these_rules(&RULES, script);
    if !script.contains('\0') {
        a_denied_command_is_found(&RULES, script);
    }
    Corpus::Keep
});

fn of_these_rules(rules: &Rules, script: &str) {
    let verdict = rules.decide_shell(script);
    is_possible(&verdict);
    assert_eq!(verdict, rules.decide_shell(script), "a verdict changes");
    let argv: Vec<String> = script.split('\n').map(str::to_owned).collect();
    let of_argv = rules.decide_argv(&argv);
    is_possible(&of_argv);
    let of_one = rules.decide_argv(&["bash".to_owned(), "-c".to_owned(), script.to_owned()]);
    is_possible(&of_one);
}

fn is_possible(verdict: &Verdict) {
    assert!(
        verdict.decision != Decision::Deny || verdict.rule.is_some(),
        "only a rule denies: {verdict:?}"
    );
    assert!(!verdict.reason.is_empty(), "no reason: {verdict:?}");
    assert!(
        verdict.command.chars().count() <= 160 && !verdict.command.contains(char::is_control),
        "not one short line: {verdict:?}"
    );
}

fn a_denied_command_is_found(rules: &Rules, script: &str) {
    const PUSH: &str = "git push";
    let in_front = rules.decide_shell(&format!("{PUSH}\n{script}"));
    assert!(
        in_front.decision == Decision::Deny || gave_up(&in_front),
        "in front: {in_front:?}"
    );
    let alone = rules.decide_shell(script);
    // A backslash at the very end is itself; with a line behind it, it is gone, and what needs a word there does not parse.
    if alone.decision == Decision::Allow && !script.ends_with('\\') {
        // Two lines: the first ends a comment.
        let behind = rules.decide_shell(&format!("{script}\n\n{PUSH}"));
        assert!(
            behind.decision == Decision::Deny || gave_up(&behind),
            "behind: {behind:?}"
        );
    }
    // A script that another shell is given is no better for that.
    if !script.starts_with(['-', '+']) {
        let quoted = format!("bash -c {}", quoted(script));
        let through = rules.decide_shell(&quoted);
        assert!(
            through.decision >= alone.decision || gave_up(&through),
            "through: {through:?}, alone: {alone:?}"
        );
    }
    // What no shell reads is what a shell reads in quotes.
    let argv: Vec<String> = script.split('\n').map(str::to_owned).collect();
    let words: Vec<String> = argv.iter().map(|word| quoted(word)).collect();
    let (unread, read) = (
        rules.decide_argv(&argv),
        rules.decide_shell(&words.join(" ")),
    );
    assert!(
        unread.decision == read.decision || gave_up(&unread) || gave_up(&read),
        "as argv: {unread:?}, in quotes: {read:?}"
    );
}

/// Reading has bounds, and a script that needs more is asked about.
fn gave_up(verdict: &Verdict) -> bool {
    let bounds = ["too long", "nests more", "is longer"];
    verdict.decision == Decision::Ask && bounds.iter().any(|bound| verdict.reason.contains(bound))
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
