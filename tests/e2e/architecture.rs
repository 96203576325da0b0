//! The invariants of docs/architecture.md that can be read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tests::binaries::{Server, workspace};

const CRATES: [&str; 5] = [
    "mcp-bash-commander",
    "mcp-database",
    "mcp-spec-registry",
    "shared",
    "tests",
];

/// What of `shared` is made of the protocol's types; the rest of it could serve another protocol.
const PROTOCOL_MODULES_OF_SHARED: [&str; 9] = [
    "call.rs",
    "effect/action.rs",
    "effect/class.rs",
    "portable_schema.rs",
    "principal.rs",
    "serve",
    "tool_error.rs",
    "tool_result.rs",
    "tools.rs",
];

/// What of a server is: its entry, its face, and what a client can name.
const PROTOCOL_MODULES_OF_A_SERVER: [&str; 5] =
    ["main.rs", "prompts", "resources", "server", "tools"];

/// Beyond this a file has two subjects.
const LONGEST_FILE: usize = 700;

#[test]
fn only_the_skin_of_a_server_knows_the_protocol_library() -> anyhow::Result<()> {
    let offenders = offences(
        &[
            "mcp-bash-commander",
            "mcp-database",
            "mcp-spec-registry",
            "shared",
        ],
        |source| {
            let (krate, file) = source.inside_crate()?;
            let allowed: &[&str] = match krate {
                "shared" => &PROTOCOL_MODULES_OF_SHARED,
                _ => &PROTOCOL_MODULES_OF_A_SERVER,
            };
            if allowed.iter().any(|module| is_module(file, module)) {
                return None;
            }
            source.first_line_of_code(|line| {
                line.contains("rmcp::") && !line.contains("\"rmcp") || line.contains("use rmcp")
            })
        },
    )?;
    assert!(
        offenders.is_empty(),
        "rmcp is known outside the protocol modules:\n{offenders}"
    );
    Ok(())
}

#[test]
fn unsafe_code_stands_in_the_jail_alone() -> anyhow::Result<()> {
    let offenders = offences(&CRATES, |source| {
        let (krate, file) = source.inside_crate()?;
        // The probe attacks the jail, with the system calls that an attacker would make.
        if krate == "mcp-bash-commander"
            && (is_module(file, "jail") || is_module(file, "bin/jail-probe"))
        {
            return None;
        }
        source.first_line_of_code(|line| {
            [
                "unsafe {",
                "unsafe fn",
                "unsafe impl",
                "unsafe extern",
                "(unsafe_code",
            ]
            .iter()
            .any(|form| line.contains(form))
        })
    })?;
    assert!(
        offenders.is_empty(),
        "unsafe code outside the jail:\n{offenders}"
    );
    Ok(())
}

#[test]
fn every_tool_has_a_file_of_its_own_and_is_registered() -> anyhow::Result<()> {
    for server in Server::ALL {
        let source = workspace().join(server.name()).join("src");
        let list = fs::read_to_string(source.join("tools.rs"))
            .with_context(|| format!("{} has no tools.rs", server.name()))?;
        let folder = source.join("tools");
        for file in files_below(&folder)? {
            let text = fs::read_to_string(&file)?;
            if file.parent() != Some(&folder) {
                // Part of a tool that has more than one file.
                assert!(!text.contains("#[tool("), "{} is hidden", file.display());
                continue;
            }
            let name = file
                .file_stem()
                .and_then(|stem| stem.to_str())
                .context("a file name")?;
            assert!(
                list.contains(&format!("mod {name};")),
                "{name} is no module of tools.rs"
            );
            let tools = text.matches("#[tool(").count();
            if tools == 0 {
                continue; // what several tools share
            }
            assert_eq!(tools, 1, "{} holds {tools} tools", file.display());
            assert!(
                text.contains(&format!("async fn {name}(")),
                "{name}.rs holds another tool"
            );
            assert!(
                list.contains(&format!("{name}_router()")),
                "{name} is not registered"
            );
        }
    }
    Ok(())
}

#[test]
fn no_file_holds_two_subjects() -> anyhow::Result<()> {
    let offenders = offences(&CRATES, |source| {
        let lines = source.text.lines().count();
        (lines > LONGEST_FILE).then(|| format!("{lines} lines"))
    })?;
    assert!(
        offenders.is_empty(),
        "more than {LONGEST_FILE} lines:\n{offenders}"
    );
    Ok(())
}

#[test]
fn every_module_says_what_it_is_for() -> anyhow::Result<()> {
    let offenders = offences(&CRATES, |source| {
        let is_tests = source.path.ends_with("/tests.rs"); // the foot of another file, grown too long for it
        (!is_tests && !source.text.starts_with("//! "))
            .then(|| "does not open with `//!`".to_owned())
    })?;
    assert!(offenders.is_empty(), "{offenders}");
    Ok(())
}

#[test]
fn nothing_is_printed_past_the_transport() -> anyhow::Result<()> {
    // Spelled in two parts, so that this file does not find itself.
    let forms = ["print", "dbg"].map(|name| format!("{name}!("));
    let line_form = format!("{}ln!(", "print");
    let offenders = offences(&CRATES, |source| {
        source.inside_crate()?;
        source.first_line_of_code(|line| {
            let printed = forms
                .iter()
                .any(|form| line.contains(form.as_str()) && !line.contains("eprint"));
            printed || (line.contains(&line_form) && !line.contains("eprintln"))
        })
    })?;
    assert!(
        offenders.is_empty(),
        "stdout belongs to the transport:\n{offenders}"
    );
    Ok(())
}

#[test]
fn no_work_is_left_open_in_the_sources() -> anyhow::Result<()> {
    let marks = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["to", "do!("],
        ["#[ig", "nore"],
        ["#[al", "low("],
    ];
    let marks = marks.map(|halves| halves.concat());
    let offenders = offences(&CRATES, |source| {
        let mut lines = source.text.lines().enumerate();
        lines
            .find(|(_, line)| marks.iter().any(|mark| line.contains(mark.as_str())))
            .map(|(number, line)| format!("line {}: {}", number + 1, line.trim()))
    })?;
    assert!(offenders.is_empty(), "{offenders}");
    Ok(())
}

#[test]
fn every_file_of_end_to_end_tests_is_run() -> anyhow::Result<()> {
    let folder = workspace().join("tests/e2e");
    let main = fs::read_to_string(folder.join("main.rs"))?;
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("a file name")?;
        let is_module =
            path.is_dir() || path.extension().is_some_and(|extension| extension == "rs");
        if is_module && name != "main" {
            assert!(
                main.contains(&format!("mod {name};")),
                "main.rs does not name `{name}`"
            );
        }
    }
    Ok(())
}

#[test]
fn decisions_are_numbered_without_gaps_and_say_their_status() -> anyhow::Result<()> {
    let mut records: Vec<PathBuf> = fs::read_dir(workspace().join("docs/adr"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    records.sort();
    for (index, path) in records.iter().enumerate() {
        let number = index + 1;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a file name")?;
        assert!(
            name.starts_with(&format!("{number:04}-")),
            "{name} should be number {number}"
        );
        let text = fs::read_to_string(path)?;
        assert!(
            text.starts_with(&format!("# {number}. ")),
            "{name} needs the title `# {number}. …`"
        );
        for section in ["Status:", "## Context", "## Decision", "## Consequences"] {
            assert!(text.contains(section), "{name} has no `{section}`");
        }
    }
    assert!(!records.is_empty(), "no decision is recorded");
    Ok(())
}

#[test]
fn the_changelog_has_a_heading_for_each_crate() -> anyhow::Result<()> {
    let changelog = fs::read_to_string(workspace().join("CHANGELOG.md"))?;
    for krate in CRATES {
        assert!(
            changelog.contains(&format!("### {krate}\n")),
            "CHANGELOG.md has no `### {krate}`"
        );
    }
    Ok(())
}

/// Names in capitals that are no codes: variables of the environment, and their prefixes.
const NO_CODES: [&str; 17] = [
    "AF_ALG",
    "BASH_COMMANDER",
    "CARGO_PKG_VERSION",
    "LC_ALL",
    "LC_CTYPE",
    "NO_COLOR",
    "SCREAMING_SNAKE_CASE",
    "SPEC_REGISTRY",
    "DATABASE_PASSWORD",
    "MCP_DATABASE_URL",
    "DOCKER_HOST",
    "EXPRESS_IXSCAN",
    "SPEC_REGISTRY_SOCKET_DIR",
    "SPEC_REGISTRY_TEST_CRASH_DIR",
    "XDG_RUNTIME_DIR",
    "SSL_CERT_FILE",
    "XDG_STATE_HOME",
];

#[test]
fn every_case_of_a_database_has_a_test_that_is_there() -> anyhow::Result<()> {
    const CASES: u32 = 74;
    let page = fs::read_to_string(workspace().join("docs/database-cases.md"))?;
    let mut sources = String::new();
    for folder in ["mcp-database", "tests/e2e"] {
        for file in files_below(&workspace().join(folder))? {
            if file.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&fs::read_to_string(&file)?);
            }
        }
    }
    for name in page.split('`').skip(1).step_by(2) {
        let is_test = name.matches('_').count() > 2
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        ensure!(
            !is_test || sources.contains(&format!("fn {name}(")),
            "docs/database-cases.md names `{name}`, and there is no such test"
        );
    }
    for case in 1..=CASES {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| {case} |")));
        let row = row.with_context(|| format!("docs/database-cases.md has no case {case}"))?;
        ensure!(row.contains(&format!("`case_{case}_")), "{row}");
    }
    Ok(())
}

#[test]
fn every_error_code_is_documented_and_exists() -> anyhow::Result<()> {
    let documented = fs::read_to_string(workspace().join("docs/errors.md"))?;
    let is_code = |word: &str| {
        word.len() > 3
            && word.contains('_')
            && word.starts_with(|first: char| first.is_ascii_uppercase())
            && word
                .chars()
                .all(|character| matches!(character, 'A'..='Z' | '0'..='9' | '_'))
            && !NO_CODES.contains(&word)
    };
    let mut sources = String::new();
    for krate in [
        "mcp-bash-commander",
        "mcp-database",
        "mcp-spec-registry",
        "shared",
    ] {
        for file in files_below(&workspace().join(krate).join("src"))? {
            let path = file.display().to_string();
            let is_other = path.contains("/tests") // and `tests.rs`
                || path.contains("/bin/")
                || path.ends_with("policy/environment.rs")
                || path.ends_with("jail/seccomp.rs")
                || path.ends_with("src/network.rs");
            if !is_other && file.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&file)?;
                let code = text.split("#[cfg(test)]\nmod tests {").next();
                sources.push_str(code.unwrap_or_default());
            }
        }
    }
    let literals: Vec<&str> = sources.split('"').filter(|word| is_code(word)).collect();
    anyhow::ensure!(literals.len() > 100, "only {} codes found", literals.len());
    let missing: Vec<&&str> = literals
        .iter()
        .filter(|code| !documented.contains(&format!("`{code}`")))
        .collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
    let invented: Vec<&str> = documented
        .split('`')
        .filter(|word| is_code(word) && !sources.contains(word))
        .collect();
    assert!(invented.is_empty(), "only in docs/errors.md: {invented:?}");
    Ok(())
}

/// One file of Rust.
struct Source {
    /// Its path below the root of the workspace.
    path: String,
    text: String,
}

impl Source {
    /// The crate's folder and the path below its `src`; `None` for files outside `src`.
    fn inside_crate(&self) -> Option<(&str, &str)> {
        self.path.split_once("/src/")
    }

    fn first_line_of_code(&self, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut lines = self.text.lines().enumerate();
        lines
            .find(|(_, line)| !line.trim_start().starts_with("//") && is_wanted(line))
            .map(|(number, line)| format!("line {}: {}", number + 1, line.trim()))
    }
}

/// Whether `file` is the module's file, `serve.rs`, or lies in its folder, `serve/http.rs`.
fn is_module(file: &str, module: &str) -> bool {
    let name = module.strip_suffix(".rs").unwrap_or(module);
    file == format!("{name}.rs") || file.starts_with(&format!("{name}/"))
}

/// What `find` holds against each file of these crates, one line each.
fn offences(crates: &[&str], find: impl Fn(&Source) -> Option<String>) -> anyhow::Result<String> {
    let mut found = Vec::new();
    let mut read = 0;
    for krate in crates {
        for file in files_below(&workspace().join(krate))? {
            if file.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let path = file.strip_prefix(workspace())?.display().to_string();
            let source = Source {
                path,
                text: fs::read_to_string(&file)?,
            };
            read += 1;
            if let Some(offence) = find(&source) {
                found.push(format!("{}: {offence}", source.path));
            }
        }
    }
    anyhow::ensure!(
        read > crates.len(),
        "only {read} files were read: the test looks in the wrong place"
    );
    Ok(found.join("\n"))
}

/// All files below a folder, without what cargo built.
fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("no folder {}", folder.display()))? {
        let path = entry?.path();
        if !path.is_dir() {
            files.push(path);
        } else if path.file_name().is_none_or(|name| name != "target") {
            files.extend(files_below(&path)?);
        }
    }
    files.sort();
    Ok(files)
}
