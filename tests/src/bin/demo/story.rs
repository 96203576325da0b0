//! What the demo tells: a line for what happened, on a terminal with colour, or the same as one JSON document.

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

/// The story so far.
pub(crate) struct Story {
    as_json: bool,
    looks: Looks,
    document: Map<String, Value>,
    started: Instant,
    asked_at: Option<Instant>,
    human: Duration,
    is_waiting: bool,
}

/// What the terminal can show.
#[derive(Clone, Copy)]
struct Looks {
    colour: bool,
    unicode: bool,
    terminal: bool,
}

impl Looks {
    fn of_environment() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .unwrap_or_default()
            .to_lowercase();
        Self {
            colour: terminal && !is_set("NO_COLOR"),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
            terminal,
        }
    }
}

const GREEN: u8 = 32;
const RED: u8 = 31;
const YELLOW: u8 = 33;
const BOLD: u8 = 1;

impl Story {
    pub(crate) fn new(as_json: bool) -> Self {
        Self {
            as_json,
            looks: Looks::of_environment(),
            document: Map::new(),
            started: Instant::now(),
            asked_at: None,
            human: Duration::ZERO,
            is_waiting: false,
        }
    }

    pub(crate) fn title(&mut self, folder: &Path, keep: bool) {
        self.started = Instant::now();
        let kept = if keep {
            "kept"
        } else {
            "gone at the end; keep it with --keep"
        };
        self.line(&format!(
            "{} · state in {} ({kept})",
            self.painted("spec-driven-ai demo", BOLD),
            folder.display()
        ));
        self.note("state_folder", json!(folder));
    }

    pub(crate) fn ready(&mut self, server: &str, what: &str, announced: &Value) {
        self.line(&format!(" {} {server:<19} {what}", self.tick()));
        self.note("approval_page", announced["approval_page"].clone());
    }

    /// What the shell's own `doctor` says of its jail. Where a layer is missing nothing more can be shown: the error says how to
    /// mend it.
    /// Tells what the shell can do here; says whether its jails have networks of their own.
    pub(crate) fn shell_ready(&mut self, doctor: &Value) -> anyhow::Result<bool> {
        self.note("doctor", doctor.clone());
        let checks = || doctor["checks"].as_array().into_iter().flatten();
        let say = |check: &Value, field: &str| check[field].as_str().unwrap_or_default().to_owned();
        let failed: Vec<String> = checks()
            .filter(|check| check["status"] == "fail")
            .map(|check| {
                let (what, fix) = (say(check, "detail"), say(check, "fix"));
                let name = say(check, "check");
                if fix.is_empty() {
                    format!("{name}: {what}")
                } else {
                    format!("{name}: {what}\n   to mend it: {fix}")
                }
            })
            .collect();
        anyhow::ensure!(
            failed.is_empty(),
            "this machine cannot jail commands as it is\n   {}",
            failed.join("\n   ")
        );
        let jail = checks()
            .find(|check| check["check"] == "jail")
            .map(|check| say(check, "detail"))
            .unwrap_or_default();
        let has_own_network = !jail.starts_with("no_userns");
        self.line(&format!(
            " {} {:<19} enforced · {jail}",
            self.tick(),
            "mcp-bash-commander"
        ));
        Ok(has_own_network)
    }

    pub(crate) fn enrolled(&mut self, name: &str, is_test: bool) {
        let kind = if is_test {
            " as a test approver: its decisions prove nothing about people"
        } else {
            ""
        };
        self.line(&format!(" {} enrolled {name}{kind}", self.tick()));
        self.line(&format!(
            " {} advisory: agent, registry and approver share a uid; `mcp-spec-registry doctor` says how to separate them",
            self.painted("!", YELLOW)
        ));
        self.note("approver", json!({ "name": name, "test": is_test }));
    }

    pub(crate) fn ask(&mut self, what: &str) {
        self.line(&format!(" {} {what}", self.painted("?", YELLOW)));
    }

    pub(crate) fn requested(&mut self, answer: &Value) {
        let specification = &answer["specification"];
        let count = |list: &str| specification[list].as_array().map_or(0, Vec::len);
        let name =
            ["spec_id", "version"].map(|field| specification[field].as_str().unwrap_or_default());
        let digest: String = specification["digest"]
            .as_str()
            .unwrap_or_default()
            .chars()
            .take(15)
            .collect();
        self.blank();
        self.phase(
            "1 Request",
            &format!(
                "{} {}, {digest}…   {} criteria · {} constraints",
                name[0],
                name[1],
                count("criteria"),
                count("constraints")
            ),
        );
        self.note("specification", specification.clone());
    }

    pub(crate) fn claimed(&mut self, agent: &str, run: &Value) {
        let run_id = run["run_id"].as_str().unwrap_or_default();
        self.phase(
            "2 Analyze",
            &format!(
                "agent {agent} claimed run {run_id} (epoch {})",
                run["epoch"]
            ),
        );
        self.note("run_id", json!(run_id));
    }

    pub(crate) fn planned(&mut self, submitted: &Value, plan: &Value) {
        let count = |list: &str| plan[list].as_array().map_or(0, Vec::len);
        self.phase(
            "2 Analyze",
            &format!(
                "plan revision {}: {} steps, {} tests, {} left to you, a rollback for each step",
                submitted["revision"],
                count("steps"),
                count("tests"),
                count("human_judges")
            ),
        );
        self.push("plans", submitted.clone());
    }

    pub(crate) fn asks(&mut self, phase: &str, page: &str, checkpoint: &str, command: &str) {
        self.phase(phase, "waiting for you");
        self.phase("", &format!("page      {page}/c/{checkpoint}"));
        self.phase("", &format!("or        {command}"));
        self.asked_at = Some(Instant::now());
    }

    /// Says what is waited for; on a terminal in place, else once.
    pub(crate) fn waiting(&mut self, what: &str, waited: Duration) {
        let what = match what {
            "awaiting_v1" | "awaiting_v2" => "your decision",
            "verifying" => "the checks",
            other => other,
        };
        let seconds = waited.as_secs();
        if self.looks.terminal && !self.as_json {
            print_flushed(&format!(
                "\r             {} {}:{:02} waiting for {what}\u{1b}[K",
                self.spinner(seconds),
                seconds / 60,
                seconds % 60
            ));
            self.is_waiting = true;
        } else if !self.is_waiting {
            say(&format!("waiting for {what}"));
            self.is_waiting = true;
        }
    }

    /// On a terminal the line that waits moves every second.
    pub(crate) fn longest_wait_s(&self, longest: u32) -> u32 {
        if self.looks.terminal && !self.as_json {
            1
        } else {
            longest
        }
    }

    pub(crate) fn decided(&mut self, phase: &str, answer: &Value) {
        let after = self.stop_waiting();
        let decision = &answer["last_decision"];
        let field = |name: &str| decision[name].as_str().unwrap_or_default().to_owned();
        let (approver, reason) = (field("approver"), field("reason"));
        match decision["verdict"].as_str() {
            Some("approve") => {
                let line = format!("{} approved by {approver} after {after} s", self.tick());
                self.phase(phase, &line);
            }
            verdict => {
                let said = if verdict == Some("clarify") {
                    "asked back"
                } else {
                    "rejected"
                };
                let line = format!(
                    "{} {said} by {approver}: \"{reason}\" → analyze",
                    self.cross()
                );
                self.phase("", &line);
            }
        }
        self.push("decisions", decision.clone());
    }

    pub(crate) fn begun(&mut self, begun: &Value) {
        let before = begun["tests_before"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let failing = before
            .iter()
            .filter(|test| test["verdict"] == "fail")
            .count();
        let as_they_should = if failing == before.len() {
            ", as they should"
        } else {
            "; the others prove nothing"
        };
        let grants = begun["steps"].as_array().map_or(0, Vec::len);
        self.phase(
            "4 Generate",
            &format!(
                "tests before: {failing} of {} fail{as_they_should} · {grants} grants",
                before.len()
            ),
        );
        self.note("tests_before", json!(before));
    }

    pub(crate) fn refused(&mut self, tool: &str, what: &str, code: &str) {
        let line = format!(
            "–  {tool:<11} {what:<30} {} refused: {code} (tried on purpose)",
            self.cross()
        );
        self.phase("", &line);
        self.note(
            "refused_call",
            json!({ "tool": tool, "command": what, "code": code }),
        );
    }

    pub(crate) fn stepped(&mut self, step: &str, tool: &str, what: &str, outcome: &str) {
        let line = format!("{step} {tool:<11} {what:<30} {} {outcome}", self.tick());
        self.phase("", &line);
        self.push(
            "steps",
            json!({ "step": step, "tool": tool, "outcome": outcome }),
        );
    }

    pub(crate) fn completed(&mut self, completed: &Value) {
        self.phase(
            "5 Checks",
            &format!("the registry runs {} tests", completed["tests"]),
        );
    }

    pub(crate) fn measured(&mut self, answer: &Value) {
        self.stop_waiting();
        for check in answer["checks"].as_array().into_iter().flatten() {
            let mark = match check["verdict"].as_str() {
                Some("pass") => self.tick(),
                Some("provisional") => self.painted("… provisional", YELLOW),
                Some("unknown") => self.painted("? unknown", YELLOW),
                _ => self.cross(),
            };
            let field = |name: &str| check[name].as_str().unwrap_or_default();
            let reason = check["reason"]
                .as_str()
                .map_or_else(String::new, |reason| format!(" ({reason})"));
            self.phase(
                "",
                &format!(
                    "{:<36} {}  {mark}{reason}",
                    field("criterion"),
                    field("measured")
                ),
            );
        }
        self.note("checks", answer["checks"].clone());
    }

    pub(crate) fn validated(&mut self, answer: &Value, run: &Value, audit: &str, program: &Path) {
        let after = self.stop_waiting();
        let decision = &answer["last_decision"];
        let approver = decision["approver"].as_str().unwrap_or_default();
        let state = answer["state"].as_str().unwrap_or_default();
        let line = if state == "validated" {
            format!(
                "{} accepted by {approver} after {after} s · run validated in {} s, {} s of them a human's",
                self.tick(),
                self.started.elapsed().as_secs(),
                self.human.as_secs()
            )
        } else {
            format!(
                "{} not accepted by {approver}: \"{}\"",
                self.cross(),
                decision["reason"].as_str().unwrap_or_default()
            )
        };
        self.phase("6 Validate", &line);
        self.phase("", &format!("audit: {audit}"));
        self.blank();
        self.line("Next: point your client at it");
        self.line(&format!(
            "  Claude Code   {} client-config claude-code --workspace DIR",
            program.display()
        ));
        self.line(&format!(
            "  others        {} client-config claude-desktop|codex --workspace DIR",
            program.display()
        ));
        self.push("decisions", decision.clone());
        self.note("run", run["run"].clone());
        self.note("actions", run["actions"].clone());
        self.note("audit", json!(audit));
    }

    /// Where to look after a failure.
    pub(crate) fn logs(&mut self, folder: &Path) {
        self.note("kept_folder", json!(folder));
        say(&format!("state and logs are kept in {}", folder.display()));
    }

    /// The last line, or the whole document.
    pub(crate) fn end(&mut self, outcome: anyhow::Result<()>) {
        self.stop_waiting();
        let failure = outcome.err().map(|error| format!("{error:#}"));
        if self.as_json {
            self.document
                .insert("ok".to_owned(), json!(failure.is_none()));
            if let Some(failure) = &failure {
                self.document.insert("error".to_owned(), json!(failure));
            }
            let text = serde_json::to_string_pretty(&self.document).unwrap_or_default();
            print_flushed(&format!("{text}\n"));
        } else if let Some(failure) = failure {
            let line = format!("\n {} {failure}", self.cross());
            self.line(&line);
        }
    }

    /// Ends the line that waits; answers how many seconds it took.
    fn stop_waiting(&mut self) -> u64 {
        if self.is_waiting && self.looks.terminal && !self.as_json {
            print_flushed("\r\u{1b}[K");
        }
        self.is_waiting = false;
        let took = self
            .asked_at
            .take()
            .map(|asked| asked.elapsed())
            .unwrap_or_default();
        self.human += took;
        took.as_secs()
    }

    fn phase(&mut self, phase: &str, text: &str) {
        let padded = format!("{phase:<12}");
        let phase = if phase.is_empty() {
            padded
        } else {
            self.painted(&padded, BOLD)
        };
        self.line(&format!("{phase} {text}"));
    }

    fn blank(&mut self) {
        self.line("");
    }

    fn line(&mut self, line: &str) {
        if self.as_json {
            return;
        }
        let shown = if self.looks.unicode {
            line.to_owned()
        } else {
            ascii(line)
        };
        print_flushed(&format!("{shown}\n"));
    }

    fn note(&mut self, name: &str, value: Value) {
        self.document.insert(name.to_owned(), value);
    }

    fn push(&mut self, list: &str, value: Value) {
        if let Some(list) = self
            .document
            .entry(list)
            .or_insert_with(|| json!([]))
            .as_array_mut()
        {
            list.push(value);
        }
    }

    fn tick(&self) -> String {
        self.painted("✓", GREEN)
    }

    fn cross(&self) -> String {
        self.painted("✗", RED)
    }

    fn spinner(&self, seconds: u64) -> char {
        let frames = if self.looks.unicode {
            ['⠋', '⠙', '⠸', '⠴']
        } else {
            ['|', '/', '-', '\\']
        };
        frames[usize::try_from(seconds % 4).unwrap_or(0)]
    }

    fn painted(&self, text: &str, colour: u8) -> String {
        if self.looks.colour {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Something that takes a while, said on stderr so that `--json` stays one document.
pub(crate) fn say(what: &str) {
    // Whoever closed stderr does not want to know.
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// The same line for a locale without UTF-8.
fn ascii(line: &str) -> String {
    line.chars()
        .map(|character| match character {
            '✓' => "ok".to_owned(),
            '✗' => "no".to_owned(),
            '·' | '–' => "-".to_owned(),
            '…' => "...".to_owned(),
            '→' => "->".to_owned(),
            '≤' => "<=".to_owned(),
            '≥' => ">=".to_owned(),
            character if character.is_ascii() => character.to_string(),
            character => format!("\\u{{{:x}}}", u32::from(character)),
        })
        .collect()
}

fn print_flushed(text: &str) {
    let mut stdout = std::io::stdout();
    // Whoever closed stdout does not want the story.
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}
