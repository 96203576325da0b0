//! Any JSON as arguments of any tool: it is refused with advice, or what comes of it is within the bounds that follow.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;
use shell::tools::{Outcome, TOOLS, call};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((first, rest)) = bytes.split_first() else {
        return Corpus::Reject;
    };
    let Ok(arguments) = serde_json::from_slice::<Value>(rest) else {
        return Corpus::Reject;
    };
    let tool = TOOLS[usize::from(*first) % TOOLS.len()];
    let outcome = call(tool, &arguments);
    assert_eq!(outcome, call(tool, &arguments), "{tool} changes its mind");
    match outcome {
        Outcome::NotDecoded | Outcome::Fine => {}
        Outcome::Refused(error) => {
            assert!(!error.message.is_empty(), "{tool} says nothing");
            assert!(
                error.hint.is_some_and(|hint| !hint.is_empty()),
                "{tool} gives no advice"
            );
        }
        Outcome::Runs(argv) => would_run(&argv, &arguments),
        Outcome::Writes(bytes) => {
            let has_other = arguments["eof"] == true || !arguments["resize"].is_null();
            assert!(!bytes.is_empty() || has_other, "there is nothing to write");
            let text = arguments["text"].as_str().unwrap_or_default();
            assert!(bytes.starts_with(text.as_bytes()));
        }
    }
    Corpus::Keep
});

fn would_run(argv: &[String], arguments: &Value) {
    assert!(argv.first().is_some_and(|program| !program.is_empty()));
    assert!(argv.len() <= 4096);
    assert!(
        argv.iter()
            .all(|word| word.len() < 128 * 1024 && !word.contains('\0'))
    );
    match (&arguments["command"], &arguments["argv"]) {
        (Value::String(command), Value::Null) => assert_eq!(argv.last(), Some(command)),
        (Value::Null, Value::Array(given)) => {
            assert!(given.iter().eq(argv));
        }
        other => panic!("{other:?} is no command"),
    }
    if let Some(name) = arguments["session"].as_str() {
        assert!(name.starts_with(|first: char| first.is_ascii_alphabetic()));
        assert!(name.len() <= 32 && !name.contains(['/', '.', '\0']));
    }
    let given = ["stdin", "tty"].map(|name| !arguments[name].is_null());
    let is_open = arguments["stdin_open"] == true;
    assert!(usize::from(given[0]) + usize::from(given[1]) + usize::from(is_open) <= 1);
}
