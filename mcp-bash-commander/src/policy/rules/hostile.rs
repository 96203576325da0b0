//! Input made to hurt: too long, too deep, broken.

use std::time::{Duration, Instant};

use super::cursor::MAX_BYTES;
use super::{Decision, Element, RuleError, RuleTable, RuleTests, Rules};

/// Whole sentences to break, with every construct of the language.
const CORPUS: &[&str] = &[
    "for x in $(ls *.txt); do echo \"${x%.*}\" | sort > out; done",
    "cat <<E | sh -c 'git push'\n$(a `b` ${c:-\"d\"})\nE\necho $((1 + (2)))",
    "case \"$1\" in a|b*) f;; (c) g;& *) h;; esac; f() { git -C x push; }",
    "if [[ $a =~ ^(b|c)+$ && -n \"$(d)\" ]]; then a=(1 \"2\" $'\\x41'); fi",
    "find . -exec env A=b xargs -I{} git {} \\; 2>&1 >/dev/null <(x) &",
    "((i = 3)); a[$i]=x; coproc y { time sudo -u z timeout 3 git push; }",
];

const SPLICES: &[&str] = &[
    "'",
    "\"",
    "`",
    "$",
    "$(",
    "${",
    "$((",
    "))",
    "(",
    ")",
    "{",
    "}",
    "[[",
    "]]",
    "<<E\n",
    "\nE\n",
    "\\",
    "\\\n",
    "\n",
    ";",
    ";;",
    "&",
    "|",
    "<",
    ">",
    "<(",
    "#",
    "é",
    "\u{0}",
    "\u{1f600}",
    " ",
    "=(",
    "$'",
    "\\u{d800}",
    "@(",
    "eval ",
    "sh -c ",
    "esac",
    "done",
    "99999999999999999999>",
];

/// Judges arbitrary bytes, by way of a shell and without one. Anything but a return is a fault.
fn judge(bytes: &[u8]) {
    let element = |word: &str| Element::OneOf(vec![word.to_owned()]);
    let table = |elements: Vec<Element>, decision| RuleTable {
        elements,
        decision,
        reason: String::new(),
        tests: RuleTests::default(),
    };
    let rules = Rules {
        rules: vec![
            table(vec![element("git"), element("push")], Decision::Ask),
            table(
                vec![element("rm"), element("-r"), Element::Any],
                Decision::Deny,
            ),
        ],
    };
    let text = String::from_utf8_lossy(bytes);
    rules.decide_shell(&text);
    let argv: Vec<String> = text.split('\n').map(str::to_owned).collect();
    rules.decide_argv(&argv);
}

/// A small pseudo-random sequence, the same in every run.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit.max(1)
    }

    fn of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }
}

fn denying(words: &[&str]) -> RuleTable {
    RuleTable {
        elements: words
            .iter()
            .map(|word| Element::OneOf(vec![(*word).to_owned()]))
            .collect(),
        decision: Decision::Deny,
        reason: String::new(),
        tests: RuleTests::default(),
    }
}

fn rules() -> anyhow::Result<Rules> {
    Ok(Rules::from_tables(vec![denying(&["git", "push"])])?)
}

#[test]
fn mutated_scripts_are_judged_without_a_panic_and_soon() {
    let mut random = Sequence(42);
    let started = Instant::now();
    for _ in 0..20_000 {
        let mut script: Vec<u8> = random.of(CORPUS).bytes().collect();
        for _ in 0..=random.below(4) {
            let place = random.below(script.len() + 1);
            match random.below(4) {
                0 => script.truncate(place),
                1 => {
                    let end = (place + random.below(6)).min(script.len());
                    script.drain(place..end);
                }
                2 => {
                    let end = (place + random.below(20)).min(script.len());
                    let copy = script[place..end].to_vec();
                    script.splice(place..place, copy);
                }
                _ => {
                    script.splice(place..place, random.of(SPLICES).bytes());
                }
            }
        }
        judge(&script);
    }
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[test]
fn what_is_too_deep_or_too_long_is_asked_about_on_an_ordinary_stack() -> anyhow::Result<()> {
    let rules = rules()?;
    let nesting = [
        "(",
        "((",
        "( ",
        "$(",
        "$((",
        "${x:-",
        "\"$(",
        "`",
        "{ ",
        "<(",
        "[[ ",
        "if ",
        "while ",
        "case x in x) ",
        "f() { ",
        "x=(",
        "a[",
        "$[",
        "@(",
        "eval ",
        "sh -c ",
        "xargs ",
        "cat <<E;",
        "cat <<E $(",
        "for x in a; do ",
        "env ",
        "env -x ",
        "sudo -x sudo ",
        "&& ",
        "\"",
        "'",
    ];
    let flat = [
        "{",
        "{ a; };",
        "a ",
        "\\\n",
        "$'\\x41' ",
        "! ",
        "time ",
        "coproc ",
        "x=1 ",
        "-x ",
        "*",
        "$x",
        "a;",
        "#\n",
    ];
    for part in nesting.into_iter().chain(flat) {
        for count in [30, MAX_BYTES / part.len()] {
            let started = Instant::now();
            let script = format!("{}git push", part.repeat(count));
            let verdict = rules.decide_shell(&script);
            if nesting.contains(&part) {
                assert_ne!(verdict.decision, Decision::Allow, "{part}");
            }
            rules.decide_shell(&format!("git {script}"));
            rules.decide_argv(&script.split(' ').map(str::to_owned).collect::<Vec<_>>());
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "{part} {count} times took {:?}",
                started.elapsed()
            );
        }
    }
    let quoted = (0..12).fold("git push".to_owned(), |script, _| {
        format!("sh -c '{}'", script.replace('\'', "'\\''"))
    });
    assert_ne!(rules.decide_shell(&quoted).decision, Decision::Allow);
    Ok(())
}

#[test]
fn the_deepest_readable_script_fits_a_thread_of_two_mebibytes() -> anyhow::Result<()> {
    let rules = rules()?;
    for (open, close) in [
        ("(", ")"),
        ("$(", ")"),
        ("\"$(echo ", ")\""),
        ("echo \"${x:-$(", ")}\""),
        ("if a; then ", "; fi"),
        ("f() { case x in x) ", ";; esac; }"),
        ("echo $(( 1 + ", " ))"),
    ] {
        let mut readable = 0;
        for depth in 1..60 {
            let script = format!("{}git push{}", open.repeat(depth), close.repeat(depth));
            let rules = rules.clone();
            let verdict = std::thread::Builder::new()
                .stack_size(1 << 20)
                .spawn(move || rules.decide_shell(&script))?
                .join()
                .map_err(|_| anyhow::anyhow!("a panic at depth {depth} of {open}"))?;
            if !verdict.reason.contains("levels") {
                readable = depth;
            }
        }
        assert!(readable >= 8, "{open}: {readable}");
    }
    Ok(())
}

#[test]
fn long_ordinary_scripts_are_read_to_their_end() -> anyhow::Result<()> {
    let rules = rules()?;
    for part in [
        "echo a b c\n",
        "cat <<E\nsome $text\nE\n",
        "echo \"$(date)\"; ",
    ] {
        let long = part.repeat(100 * 1024 / part.len());
        assert_eq!(
            rules.decide_shell(&long).decision,
            Decision::Allow,
            "{part}"
        );
        let verdict = rules.decide_shell(&format!("{long}\ngit push"));
        assert_eq!(verdict.decision, Decision::Deny, "{part}");
    }
    let too_long = "echo a\n".repeat(20_000);
    assert_eq!(rules.decide_shell(&too_long).decision, Decision::Ask);
    Ok(())
}

#[test]
fn without_rules_nothing_is_read() {
    let verdict = Rules::default().decide_shell("git push '");
    assert_eq!((verdict.decision, verdict.rule), (Decision::Allow, None));
}

#[test]
fn a_rule_whose_example_comes_out_differently_does_not_load() {
    let mut rule = denying(&["git", "push"]);
    rule.tests.miss = vec!["cd x; git push".to_owned()];
    assert_eq!(
        Rules::from_tables(vec![denying(&["rm"]), rule.clone()]),
        Err(RuleError::Test {
            rule: 2,
            command: "cd x; git push".to_owned(),
            expected: "miss",
            found: "deny: rule 1".to_owned(),
        })
    );
    rule.tests = RuleTests {
        hit: vec!["git pull".to_owned()],
        miss: Vec::new(),
    };
    let error = Rules::from_tables(vec![rule]).map_err(|error| error.to_string());
    assert_eq!(
        error,
        Err(
            "rule 1: `git pull` should be a hit, but came out as allow: no rule is about it"
                .to_owned()
        )
    );
}

#[test]
fn a_rule_that_could_never_match_does_not_load() {
    for words in [&[][..], &[""], &["git push"], &["a"; 17], &["git", "*"]] {
        let loaded = Rules::from_tables(vec![denying(words)]);
        assert!(
            matches!(loaded, Err(RuleError::Match { rule: 1, .. })),
            "{words:?}"
        );
    }
}

#[test]
fn rules_written_out_are_the_rules_read() -> anyhow::Result<()> {
    let text = r#"{"match":["git",["push","send-pack"],"*"],"decision":"ask","reason":"x","tests":{"hit":["git push x"],"miss":[]}}"#;
    let table: RuleTable = serde_json::from_str(text)?;
    assert_eq!(table.elements[2], Element::Any);
    let rules = Rules::from_tables(vec![table])?;
    assert_eq!(serde_json::to_string(&rules)?, format!("[{text}]"));
    assert!(
        serde_json::from_str::<RuleTable>(r#"{"match":["a"],"decision":"ask","deny":1}"#).is_err()
    );
    Ok(())
}
