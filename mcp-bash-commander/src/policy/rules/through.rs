//! Looks through programs that run another command: `sudo git push` is also `git push`, and `sh -c 'git push'` too.

use super::matching::program_name;
use super::options::{Value, value_of};
use super::word::Word;

/// What a command runs besides itself.
#[derive(Debug)]
pub(super) enum Inner {
    /// A command of these words.
    Command(Vec<Word>),
    /// A script.
    Script(String),
    /// Something that is only known when it runs.
    Unknown(&'static str),
}

/// Where a wrapper's command may begin is not always certain; more places than this are not worth looking at.
const MAX_PLACES: usize = 16;

const SHELLS: &[&str] = &[
    "sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "rbash", "fish",
];

/// Programs whose arguments are a command, and how many words stand in front of it.
const WRAPPERS: &[(&str, usize)] = &[
    ("env", 0),
    ("sudo", 0),
    ("doas", 0),
    ("nohup", 0),
    ("setsid", 0),
    ("command", 0),
    ("builtin", 0),
    ("exec", 0),
    ("time", 0),
    ("nice", 0),
    ("ionice", 0),
    ("stdbuf", 0),
    ("unbuffer", 0),
    ("strace", 0),
    ("unshare", 0),
    ("nsenter", 0),
    ("setpriv", 0),
    ("systemd-run", 0),
    ("busybox", 0),
    ("toybox", 0),
    ("runuser", 0),
    ("pkexec", 0),
    ("fakeroot", 0),
    ("valgrind", 0),
    ("ltrace", 0),
    ("chronic", 0),
    ("prlimit", 0),
    ("setarch", 0),
    ("xargs", 0),
    ("parallel", 0),
    ("watch", 0),
    ("timeout", 1),
    ("chroot", 1),
    ("taskset", 1),
    ("chrt", 1),
    ("flock", 1),
];

/// Programs that run the value of their option `-c` as a script.
const RUN_AN_OPTION: &[&str] = &["su", "runuser", "script", "flock", "npx"];

/// Builtins that evaluate subscripts in their arguments, also quoted ones.
const EVALUATE_SUBSCRIPTS: &[&str] = &[
    "let", "test", "[", "unset", "printf", "read", "declare", "typeset", "local", "export",
    "readonly", "wait",
];

/// What the command `words` runs besides itself, as far as it is known.
pub(super) fn inner_commands(words: &[Word]) -> Vec<Inner> {
    let Some((command, arguments)) = words.split_first() else {
        return Vec::new();
    };
    let Some(program) = program_name(command) else {
        return Vec::new();
    };
    let mut found = match program {
        "eval" => vec![joined(arguments)],
        "trap" => trapped(arguments),
        "alias" => aliases(arguments),
        "source" | "." => sourced(arguments),
        "find" => executed_by_find(arguments),
        "fd" | "fdfind" => executed_by_fd(arguments),
        "command" if describes(arguments) => Vec::new(),
        shell if SHELLS.contains(&shell) => of_shell(arguments),
        _ => Vec::new(),
    };
    if let Some((_, positions)) = WRAPPERS.iter().find(|(name, _)| *name == program)
        && !(program == "command" && describes(arguments))
    {
        found.extend(wrapped(program, arguments, *positions));
    }
    if RUN_AN_OPTION.contains(&program) {
        found.extend(of_option(arguments));
    }
    if EVALUATE_SUBSCRIPTS.contains(&program) && arguments.iter().any(hides_a_substitution) {
        found.push(Inner::Unknown("a subscript that is evaluated"));
    }
    found
}

/// `command -v git` only says where it is.
fn describes(arguments: &[Word]) -> bool {
    arguments
        .iter()
        .map_while(Word::known)
        .take_while(|word| word.starts_with('-'))
        .any(|word| word.contains(['v', 'V']))
}

fn joined(arguments: &[Word]) -> Inner {
    let words: Option<Vec<&str>> = arguments.iter().map(Word::known).collect();
    match words {
        Some(words) => {
            let words = match words.split_first() {
                Some((&"--", rest)) => rest,
                _ => &words,
            };
            Inner::Script(words.join(" "))
        }
        None => Inner::Unknown("a script put together when it runs"),
    }
}

fn script_of(word: &Word) -> Inner {
    match word.known() {
        Some(text) => Inner::Script(text.to_owned()),
        None => Inner::Unknown("a script put together when it runs"),
    }
}

fn trapped(arguments: &[Word]) -> Vec<Inner> {
    let action = match arguments.split_first() {
        Some((first, rest)) if first.known() == Some("--") => rest.first(),
        Some((first, _)) => Some(first),
        None => None,
    };
    match action {
        Some(action) if action.known().is_some_and(|text| text.starts_with('-')) => Vec::new(),
        Some(action) => vec![script_of(action)],
        None => Vec::new(),
    }
}

fn aliases(arguments: &[Word]) -> Vec<Inner> {
    arguments
        .iter()
        .filter_map(|argument| match argument.known() {
            Some(text) => text
                .split_once('=')
                .map(|(_, value)| Inner::Script(value.to_owned())),
            None => Some(Inner::Unknown("an alias put together when it runs")),
        })
        .collect()
}

/// A script file is a program like others; one that is no file holds whatever was written into it.
fn sourced(arguments: &[Word]) -> Vec<Inner> {
    match arguments.first().map(Word::known) {
        Some(Some(file)) if !is_descriptor(file) => Vec::new(),
        None => Vec::new(),
        Some(_) => vec![Inner::Unknown("a script read when it runs")],
    }
}

fn is_descriptor(file: &str) -> bool {
    file == "-"
        || file == "/dev/stdin"
        || ["/dev/fd/", "/proc/self/fd/"]
            .iter()
            .any(|folder| file.starts_with(folder))
}

fn of_shell(arguments: &[Word]) -> Vec<Inner> {
    let (mut runs_text, mut reads_input) = (false, false);
    let mut rest = arguments.iter();
    let operand = loop {
        let Some(word) = rest.next() else { break None };
        let Some(text) = word.known() else {
            break Some(word);
        };
        match text {
            "--help" | "--version" => return Vec::new(),
            "--" | "-" => break rest.next(),
            "--rcfile" | "--init-file" => {
                rest.next();
            }
            "--command" => runs_text = true,
            _ if text.starts_with("--") => {}
            _ if text.starts_with(['-', '+']) => {
                runs_text |= text.starts_with('-') && text.contains('c');
                reads_input |= text.starts_with('-') && text.contains('s');
                if text.contains(['o', 'O']) {
                    rest.next();
                }
            }
            _ => break Some(word),
        }
    };
    match operand {
        Some(script) if runs_text => vec![script_of(script)],
        None if runs_text => Vec::new(),
        Some(file) if !reads_input => sourced(std::slice::from_ref(file)),
        _ => vec![Inner::Unknown(
            "a shell that reads its commands from its input",
        )],
    }
}

/// Values of `-c` and of the long options that mean the same.
fn of_option(arguments: &[Word]) -> Vec<Inner> {
    let mut found = Vec::new();
    for (place, word) in arguments.iter().enumerate() {
        let Some(text) = word.known() else { continue };
        if let Some((name, value)) = text.split_once('=')
            && matches!(name, "--command" | "--call" | "--session-command")
        {
            found.push(Inner::Script(value.to_owned()));
        } else if matches!(text, "--command" | "--call" | "--session-command")
            || (text.starts_with('-') && !text.starts_with("--") && text.ends_with('c'))
        {
            found.extend(arguments.get(place + 1).map(script_of));
        }
    }
    found
}

fn executed_by_find(arguments: &[Word]) -> Vec<Inner> {
    let mut found = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        if !matches!(word.known(), Some("-exec" | "-execdir" | "-ok" | "-okdir")) {
            continue;
        }
        let words: Vec<Word> = rest
            .by_ref()
            .take_while(|word| !matches!(word.known(), Some(";" | "+")))
            .map(|word| filled_in(word, "{}"))
            .collect();
        if !words.is_empty() {
            found.push(Inner::Command(words));
        }
    }
    found
}

fn executed_by_fd(arguments: &[Word]) -> Vec<Inner> {
    let from = arguments
        .iter()
        .position(|word| matches!(word.known(), Some("-x" | "-X" | "--exec" | "--exec-batch")));
    from.map(|from| {
        arguments[from + 1..]
            .iter()
            .map(|word| filled_in(word, "{}"))
            .chain([Word::anything()])
            .collect::<Vec<Word>>()
    })
    .map(Inner::Command)
    .into_iter()
    .collect()
}

/// A word in which `mark` is replaced by something else when the command runs.
fn filled_in(word: &Word, mark: &str) -> Word {
    if word.known().is_some_and(|text| text.contains(mark)) {
        let mut filled = Word::default();
        filled.push_unknown(false);
        return filled;
    }
    word.clone()
}

fn wrapped(program: &str, arguments: &[Word], positions: usize) -> Vec<Inner> {
    if program == "env"
        && arguments.iter().map_while(Word::known).any(|word| {
            word.starts_with("--split")
                || (word.starts_with('-') && !word.starts_with("--") && word.contains('S'))
        })
    {
        return vec![Inner::Unknown("a command that `env -S` splits")];
    }
    let Some(places) = places_of_command(program, arguments, positions) else {
        return vec![Inner::Unknown(
            "a command behind options that are not known",
        )];
    };
    places
        .into_iter()
        .flat_map(|place| {
            let words = &arguments[place..];
            let completed = || Inner::Command(with_input(&arguments[..place], words));
            match program {
                "watch" => vec![joined(words)],
                "parallel" => vec![joined(words), completed()],
                "xargs" => vec![completed()],
                _ => vec![Inner::Command(words.to_vec())],
            }
        })
        .collect()
}

/// The words of a command that `xargs` completes with what it reads.
fn with_input(options: &[Word], words: &[Word]) -> Vec<Word> {
    let mark = options
        .iter()
        .filter_map(Word::known)
        .zip(options.iter().skip(1).map(Word::known).chain([None]))
        .find_map(|(option, value)| match option {
            "-I" => value,
            "--replace" | "-i" => Some("{}"),
            _ => option
                .strip_prefix("-I")
                .or_else(|| option.strip_prefix("--replace="))
                .or_else(|| option.strip_prefix("-i")),
        })
        .filter(|mark| !mark.is_empty())
        .unwrap_or("{}");
    words
        .iter()
        .map(|word| filled_in(word, mark))
        .chain([Word::anything()])
        .collect()
}

/// Where the command behind a wrapper's options may begin. `None` if there are too many places.
fn places_of_command(program: &str, words: &[Word], positions: usize) -> Option<Vec<usize>> {
    let mut places = Vec::new();
    let mut open = vec![(0, positions)];
    let mut seen = Vec::new();
    while let Some((place, missing)) = open.pop() {
        let Some(word) = words.get(place) else {
            continue;
        };
        if seen.contains(&(place, missing)) {
            continue;
        }
        seen.push((place, missing));
        if seen.len() > 4 * MAX_PLACES || places.len() > MAX_PLACES {
            return None;
        }
        match word.known() {
            Some("--") if missing == 0 => places.push(place + 1),
            Some("--") => open.push((place + 1, missing)),
            Some(option) if option.starts_with('-') => {
                let value = value_of(program, option);
                if value != Value::Yes {
                    open.push((place + 1, missing));
                }
                if value != Value::No {
                    open.push((place + 2, missing));
                }
            }
            Some(assignment)
                if matches!(program, "env" | "sudo" | "doas") && assignment.contains('=') =>
            {
                open.push((place + 1, missing));
            }
            _ if missing == 0 => places.push(place),
            Some(_) => open.push((place + 1, missing - 1)),
            None => {
                open.push((place + 1, missing));
                open.push((place + 1, missing - 1));
            }
        }
    }
    places.retain(|place| *place < words.len());
    places.sort_unstable();
    places.dedup();
    Some(places)
}

/// `a[$(…)]`, which some builtins expand although it is quoted.
fn hides_a_substitution(word: &Word) -> bool {
    word.known().is_some_and(|text| {
        text.split_once('[')
            .is_some_and(|(_, subscript)| subscript.contains("$(") || subscript.contains('`'))
    })
}
