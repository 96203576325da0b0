//! Configuration on the command line and in the environment, and the report that `doctor` prints.

use std::{ffi::OsString, fmt, process::ExitCode, time::Duration};

use clap::{Arg, ArgAction, Command, Parser, builder::BoolishValueParser};
use serde::Serialize;

/// What a program ends with: its code, or 1 after it has told the error and its causes in one line. (`Result` as the type of `main`
/// would add a backtrace where the environment asks for one, below every slip of a user.)
#[expect(clippy::print_stderr, reason = "the last words of a program")]
pub fn exit_code(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("Error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Parses the command line, giving every `--some-flag` the environment variable `<PREFIX>_SOME_FLAG` (also below
/// subcommands), which `--help` then shows. Ends the process with a message where the line is wrong, as clap does.
pub fn parse<C: Parser>(prefix: &str) -> C {
    parse_from(prefix, std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// The same for a given command line, the program's name first.
///
/// # Errors
/// What clap has to say of a wrong line; also of `--help` and `--version`.
pub fn parse_from<C: Parser>(
    prefix: &str,
    line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<C, clap::Error> {
    let mut command = with_environment(C::command(), prefix);
    let mut matches = command.try_get_matches_from_mut(line)?;
    C::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn with_environment(command: Command, prefix: &str) -> Command {
    command
        .mut_args(|argument| argument_with_environment(argument, prefix))
        .mut_subcommands(|subcommand| with_environment(subcommand, prefix))
}

fn argument_with_environment(argument: Arg, prefix: &str) -> Arg {
    let Some(flag) = argument.get_long() else {
        return argument;
    };
    let answers_itself = matches!(
        argument.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    );
    if answers_itself || argument.get_env().is_some() {
        return argument;
    }
    let name = format!("{prefix}_{}", flag.replace('-', "_").to_ascii_uppercase());
    // clap keeps names for the life of the process, and this runs once.
    let name: &'static str = Box::leak(name.into_boxed_str());
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
    let argument = argument.env(name).hide_env_values(true);
    if is_switch {
        argument.value_parser(BoolishValueParser::new())
    } else {
        argument
    }
}

/// A length of time as people write it: `500ms`, `90s`, `10m`, `2h`, `1d`; for clap's `value_parser`.
///
/// # Errors
/// A text without a number or without one of these units.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let wrong =
        || format!("`{text}` is no length of time; write for example 500ms, 90s, 10m, 2h or 1d");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// How a check of `doctor` came out; ordered from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Works, with a limit that the detail names.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing that `doctor` looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `user namespaces`.
    pub check: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// The exact command or change that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Everything that `doctor` looked at, in the order it looked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Doctor {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Doctor {
    /// A report without checks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something is as it should be.
    pub fn ok(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.push(check.into(), Status::Ok, detail.into(), None);
    }

    /// Something works with a limit.
    pub fn warn(
        &mut self,
        check: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.push(check.into(), Status::Warn, detail.into(), Some(fix.into()));
    }

    /// Something does not work.
    pub fn fail(
        &mut self,
        check: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.push(check.into(), Status::Fail, detail.into(), Some(fix.into()));
    }

    fn push(&mut self, check: String, status: Status, detail: String, fix: Option<String>) {
        self.checks.push(Check {
            check,
            status,
            detail,
            fix,
        });
    }

    /// The worst status; `Ok` for an empty report.
    pub fn status(&self) -> Status {
        self.checks
            .iter()
            .map(|check| check.status)
            .max()
            .unwrap_or(Status::Ok)
    }

    /// 1 if a check failed, else 0.
    pub fn exit_code(&self) -> u8 {
        u8::from(self.status() == Status::Fail)
    }

    /// `{status, checks: [{check, status, detail, fix?}]}`, indented.
    pub fn to_json(&self) -> String {
        let report = serde_json::json!({ "status": self.status(), "checks": self.checks });
        serde_json::to_string_pretty(&report).unwrap_or_default()
    }
}

impl fmt::Display for Doctor {
    /// One line for each check, the fix beneath it, without colours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .checks
            .iter()
            .map(|check| check.check.chars().count())
            .max()
            .unwrap_or(0);
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            writeln!(f, "{status}  {:width$}  {}", check.check, check.detail)?;
            for line in check.fix.iter().flat_map(|fix| fix.lines()) {
                writeln!(f, "      {:width$}  fix: {line}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[derive(Debug, Parser)]
    struct Line {
        #[arg(long)]
        state_dir: Option<String>,
        #[arg(long)]
        insecure_loopback: bool,
        #[command(subcommand)]
        command: Option<Commands>,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Commands {
        Serve {
            #[arg(long)]
            socket_dir: Option<String>,
        },
    }

    #[test]
    fn help_names_the_variable_of_each_flag_also_below_subcommands() {
        let mut command = with_environment(Line::command(), "SPEC_REGISTRY");
        let help = command.render_long_help().to_string();
        assert!(help.contains("[env: SPEC_REGISTRY_STATE_DIR]"), "{help}");
        assert!(
            help.contains("[env: SPEC_REGISTRY_INSECURE_LOOPBACK]"),
            "{help}"
        );
        let serve = command
            .find_subcommand_mut("serve")
            .map(|serve| serve.render_long_help().to_string());
        assert!(serve.is_some_and(|help| help.contains("SPEC_REGISTRY_SOCKET_DIR")));
    }

    #[test]
    fn the_line_wins_and_switches_stay_switches() -> anyhow::Result<()> {
        let line: Line = parse_from(
            "CONFIG_TEST",
            [
                "x",
                "--state-dir",
                "a",
                "--insecure-loopback",
                "serve",
                "--socket-dir",
                "b",
            ],
        )?;
        assert_eq!(line.state_dir.as_deref(), Some("a"));
        assert!(line.insecure_loopback);
        assert!(
            matches!(line.command, Some(Commands::Serve { socket_dir: Some(dir) }) if dir == "b")
        );
        assert!(!parse_from::<Line>("CONFIG_TEST", ["x"])?.insecure_loopback);
        Ok(())
    }

    #[test]
    fn lengths_of_time_need_a_unit() {
        assert_eq!(parse_duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in [
            "10",
            "m",
            "",
            "-1s",
            "1w",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_failed_check_fails_the_doctor() {
        let mut doctor = Doctor::new();
        doctor.ok("state directory", "/state is yours alone");
        assert_eq!(doctor.exit_code(), 0);
        doctor.warn("strength", "advisory", "run it under its own uid");
        assert_eq!((doctor.status(), doctor.exit_code()), (Status::Warn, 0));
        doctor.fail(
            "jail",
            "no user namespaces",
            "sysctl kernel.unprivileged_userns_clone=1",
        );
        assert_eq!(doctor.exit_code(), 1);
        let text = doctor.to_string();
        assert!(
            text.contains("FAIL  jail             no user namespaces\n"),
            "{text}"
        );
        assert!(
            text.contains("fix: sysctl kernel.unprivileged_userns_clone=1\n"),
            "{text}"
        );
        assert!(doctor.to_json().contains(r#""status": "fail""#));
    }
}
