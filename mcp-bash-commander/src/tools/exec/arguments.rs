//! What a call of `exec` asks for, checked before anyone is asked or anything is made.

use std::path::Path;

use shared::tool_error::ToolError;

use super::super::error::invalid;
use super::ExecParams;
use crate::server::LONGEST_COMMAND;

/// The kernel takes no longer single argument.
const LONGEST_ARGUMENT: usize = 128 * 1024 - 1;
const MOST_ARGUMENTS: usize = 4096;
const LONGEST_ARGV: usize = 1 << 20;
const LONGEST_STDIN: usize = 1 << 20;
const MOST_PORTS: usize = 16;
const MOST_OUTPUT: u32 = 65_536;
const LONGEST_NAME: usize = 32;

pub(super) fn check(params: &ExecParams) -> Result<(), ToolError> {
    let longest = u64::try_from(LONGEST_COMMAND.as_millis()).unwrap_or(u64::MAX);
    if let Some(value) = params
        .timeout_ms
        .filter(|value| !(1..=longest).contains(value))
    {
        return Err(invalid(
            format!("`timeout_ms` is {value}"),
            "give 1 to 86400000 milliseconds",
        ));
    }
    if let Some(name) = params.session.as_ref().filter(|name| !is_name(name)) {
        let name: String = name.chars().take(LONGEST_NAME).collect();
        return Err(invalid(
            format!("`session` is `{name}`"),
            "give 1 to 32 letters, digits, `-` or `_`, a letter first",
        ));
    }
    let inputs = [
        params.stdin.is_some(),
        params.stdin_open,
        params.tty.is_some(),
    ];
    if inputs.into_iter().filter(|given| *given).count() > 1 {
        return Err(invalid(
            "more than one of `stdin`, `stdin_open` and `tty` are given",
            "give one of them; write_input writes to the last two",
        ));
    }
    if !(1..=MOST_OUTPUT).contains(&params.max_output_bytes) {
        return Err(invalid(
            format!("`max_output_bytes` is {}", params.max_output_bytes),
            "give 1 to 65536",
        ));
    }
    let ports = &params.publish;
    let is_repeated = |(index, port): (usize, &u16)| ports[..index].contains(port);
    if ports.len() > MOST_PORTS || ports.contains(&0) || ports.iter().enumerate().any(is_repeated) {
        return Err(invalid(
            "`publish` is no list of different ports",
            "give at most 16 ports from 1 to 65535, each once",
        ));
    }
    if params
        .stdin
        .as_ref()
        .is_some_and(|text| text.len() > LONGEST_STDIN)
    {
        return Err(invalid(
            "`stdin` is longer than 1 MiB",
            "write a file and redirect it",
        ));
    }
    Ok(())
}

pub(super) fn argv(params: &ExecParams) -> Result<Vec<String>, ToolError> {
    let argv = match (&params.command, &params.argv) {
        (Some(command), None) if command.trim().is_empty() => {
            return Err(invalid("`command` is empty", "give a shell command"));
        }
        (Some(command), None) => vec![shell().to_owned(), "-c".to_owned(), command.clone()],
        (None, Some(argv)) if argv.first().is_none_or(String::is_empty) => {
            return Err(invalid(
                "`argv` names no program",
                "give the program as its first element",
            ));
        }
        (None, Some(argv)) => argv.clone(),
        _ => {
            return Err(invalid(
                "neither or both of `command` and `argv` are given",
                "give one of them",
            ));
        }
    };
    if argv.len() > MOST_ARGUMENTS || argv.iter().map(String::len).sum::<usize>() > LONGEST_ARGV {
        return Err(invalid(
            "`argv` has more than 4096 elements or 1 MiB",
            "write the list to a file and use xargs",
        ));
    }
    if argv
        .iter()
        .any(|argument| argument.len() > LONGEST_ARGUMENT)
    {
        return Err(invalid(
            "an argument or `command` is longer than 131071 bytes",
            "write it to a file and run that",
        ));
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(invalid(
            "an argument or `command` holds a NUL",
            "NUL cannot be passed to a program",
        ));
    }
    Ok(argv)
}

fn shell() -> &'static str {
    let bash = ["/bin/bash", "/usr/bin/bash"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    bash.unwrap_or("/bin/sh")
}

/// A name of a kept session. It cannot be taken for the id of a command, which is `x` and digits.
fn is_name(name: &str) -> bool {
    let is_id = name
        .strip_prefix('x')
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    let mut bytes = name.bytes();
    !is_id
        && name.len() <= LONGEST_NAME
        && bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
