//! What is known of the options of some programs: which of them take the next word as their value.

/// Whether the word behind an option is its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// It is not.
    No,
    /// It may be, or not: both are looked at.
    Perhaps,
    /// It is.
    Yes,
}

/// Options of one program in front of its sub-command or of the command it runs.
struct Options {
    program: &'static str,
    /// They take the next word.
    with_value: &'static [&'static str],
    /// They stand for themselves.
    alone: &'static [&'static str],
}

const KNOWN: &[Options] = &[
    Options {
        program: "git",
        with_value: &[
            "-C",
            "-c",
            "--git-dir",
            "--work-tree",
            "--namespace",
            "--config-env",
        ],
        alone: &[
            "-p",
            "-P",
            "--paginate",
            "--no-pager",
            "--bare",
            "--no-replace-objects",
            "--literal-pathspecs",
            "--no-optional-locks",
        ],
    },
    Options {
        program: "docker",
        with_value: &[
            "-H",
            "--host",
            "-c",
            "--context",
            "--config",
            "-l",
            "--log-level",
        ],
        alone: &["-D", "--debug", "--tls", "--tlsverify"],
    },
    Options {
        program: "kubectl",
        with_value: &[
            "-n",
            "--namespace",
            "--context",
            "--kubeconfig",
            "--cluster",
            "--user",
            "-s",
            "--server",
        ],
        alone: &[],
    },
    Options {
        program: "env",
        with_value: &["-u", "--unset", "-C", "--chdir", "-a", "--argv0"],
        alone: &[
            "-",
            "-i",
            "--ignore-environment",
            "-0",
            "--null",
            "-v",
            "--debug",
        ],
    },
    Options {
        program: "sudo",
        with_value: &[
            "-u",
            "--user",
            "-g",
            "--group",
            "-h",
            "--host",
            "-p",
            "--prompt",
            "-C",
            "--close-from",
            "-D",
            "--chdir",
            "-R",
            "--chroot",
            "-T",
            "--command-timeout",
            "-r",
            "--role",
            "-t",
            "--type",
        ],
        alone: &[
            "-A",
            "-b",
            "-E",
            "-H",
            "-i",
            "-k",
            "-n",
            "-P",
            "-S",
            "-s",
            "--preserve-env",
            "--login",
            "--non-interactive",
            "--set-home",
            "--stdin",
            "--shell",
        ],
    },
    Options {
        program: "nice",
        with_value: &["-n", "--adjustment"],
        alone: &[],
    },
    Options {
        program: "timeout",
        with_value: &["-s", "--signal", "-k", "--kill-after"],
        alone: &[
            "--foreground",
            "--preserve-status",
            "-v",
            "--verbose",
            "-p",
            "-f",
        ],
    },
    Options {
        program: "xargs",
        with_value: &[
            "-I",
            "-n",
            "--max-args",
            "-P",
            "--max-procs",
            "-L",
            "-d",
            "--delimiter",
            "-E",
            "-a",
            "--arg-file",
            "-s",
            "--max-chars",
            "--process-slot-var",
        ],
        alone: &[
            "-0",
            "--null",
            "-r",
            "--no-run-if-empty",
            "-t",
            "--verbose",
            "-p",
            "--interactive",
            "-x",
            "--exit",
            "-i",
            "-l",
            "-e",
        ],
    },
    Options {
        program: "time",
        with_value: &["-f", "--format", "-o", "--output"],
        alone: &["-p", "--portability", "-a", "--append", "-v", "--verbose"],
    },
    Options {
        program: "exec",
        with_value: &["-a"],
        alone: &["-c", "-l", "-cl", "-lc"],
    },
    Options {
        program: "stdbuf",
        with_value: &["-i", "--input", "-o", "--output", "-e", "--error"],
        alone: &[],
    },
    Options {
        program: "ionice",
        with_value: &["-c", "--class", "-n", "--classdata", "-p", "--pid"],
        alone: &["-t", "--ignore"],
    },
    Options {
        program: "command",
        with_value: &[],
        alone: &["-p"],
    },
    Options {
        program: "setsid",
        with_value: &[],
        alone: &["-c", "--ctty", "-f", "--fork", "-w", "--wait"],
    },
];

/// Whether `option` of `program` takes the next word.
pub(super) fn value_of(program: &str, option: &str) -> Value {
    if option == "--" || (option.starts_with("--") && option.contains('=')) {
        return Value::No;
    }
    let Some(known) = KNOWN.iter().find(|known| known.program == program) else {
        return Value::Perhaps;
    };
    if known.with_value.contains(&option) {
        return Value::Yes;
    }
    // `-n10`: the value is in the word.
    let attached = !option.starts_with("--")
        && option.is_char_boundary(2)
        && option.len() > 2
        && known.with_value.contains(&&option[..2]);
    if attached || known.alone.contains(&option) {
        Value::No
    } else {
        Value::Perhaps
    }
}
