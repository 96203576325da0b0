//! `cargo demo` as a user meets it: it plays to the end, it says no first, it waits, and it leaves nothing running.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::binaries::Server;
use tests::human::unknown_criteria;
use tests::process::ServerProcess;
use tests::processes::{all_of, until_none_of};
use tokio::io::AsyncReadExt as _;
use tokio::process::{ChildStdout, Command};

/// It measures for some seconds, and builds the servers where they are not current.
const LONGEST_STORY: Duration = Duration::from_mins(5);

#[tokio::test]
async fn the_demo_reaches_the_outcome_and_tells_how() -> anyhow::Result<()> {
    let (status, story) = Demo::start(&["--yes-i-am-testing"]).await?.told().await?;
    ensure!(status.success(), "the demo failed: {story}");
    assert_eq!(story["ok"], true, "{story}");
    assert_eq!(story["run"]["state"], "validated", "{story}");
    assert_eq!(list(&story, "plans")?.len(), 1);
    let before = list(&story, "tests_before")?;
    ensure!(!before.is_empty(), "no tests before");
    for test in before {
        assert_eq!(test["verdict"], "fail", "passes before anything is done");
    }
    assert_eq!(story["refused_call"]["code"], "GRANT_NOT_COVERED");
    let verdicts: BTreeSet<&str> = list(&story, "checks")?
        .iter()
        .filter_map(|check| check["verdict"].as_str())
        .collect();
    assert_eq!(verdicts, BTreeSet::from(["pass", "provisional"]), "{story}");
    let verdict_of = |name: &str| {
        let checks = story["checks"].as_array()?;
        let check = checks
            .iter()
            .find(|check| check["criterion"].as_str() == Some(name))?;
        check["verdict"].as_str()
    };
    assert_eq!(verdict_of("performance/uptime"), Some("provisional"));
    assert_eq!(
        verdict_of("constraints/non-root-execution-required"),
        Some("pass")
    );
    let decisions = list(&story, "decisions")?;
    assert_eq!(decisions.len(), 2, "V1 and V2");
    for decision in decisions {
        assert_eq!(decision["verdict"], "approve");
    }
    let outcomes: Vec<&Value> = list(&story, "actions")?
        .iter()
        .map(|action| &action["outcome"])
        .collect();
    assert_eq!(outcomes, ["ok", "ok"], "the refused call is no action");
    let folder = PathBuf::from(story["state_folder"].as_str().context("no folder")?);
    ensure!(!folder.exists(), "{} was left behind", folder.display());
    until_none_of(&folder.display().to_string(), Duration::from_secs(1)).await
}

/// Without them the jails are weaker, the story says so, and the outcome is reached all the same.
#[tokio::test]
async fn the_demo_runs_on_a_machine_that_forbids_user_namespaces() -> anyhow::Result<()> {
    let Some(bubblewrap) = std::env::var_os("BWRAP").filter(|path| !path.is_empty()) else {
        ensure!(
            std::env::var_os("CI").is_none_or(|value| value != "1"),
            "this needs bubblewrap, which tests/servers/bubblewrap fetches; with CI=1 nothing is skipped"
        );
        eprintln!("skipped: the demo without user namespaces needs bubblewrap, named by BWRAP");
        return Ok(());
    };
    let program = Server::BashCommander.program().await?;
    let mut command = Command::new(bubblewrap);
    command
        .args(["--dev-bind", "/", "/", "--unshare-user", "--disable-userns"])
        .args(["--uid", "41242", "--gid", "41242", "--"])
        .arg(program.with_file_name("demo"))
        .args(["--json", "--yes-i-am-testing"]);
    let (status, story) = Demo::of(command)?.told().await?;
    ensure!(status.success(), "the demo failed: {story}");
    assert_eq!(story["run"]["state"], "validated", "{story}");
    let checks = list(&story["doctor"], "checks")?;
    let jail = checks.iter().find(|check| check["check"] == "jail");
    let jail = jail.context("doctor tells of no jail")?;
    let told = jail["detail"].as_str().unwrap_or_default();
    assert_eq!(jail["status"], "warn");
    ensure!(
        told.starts_with("no_userns: ") && told.contains("it lacks user_ns"),
        "{told}"
    );
    let folder = PathBuf::from(story["state_folder"].as_str().context("no folder")?);
    until_none_of(&folder.display().to_string(), Duration::from_secs(1)).await
}

#[tokio::test]
async fn without_json_the_demo_tells_its_story_in_words() -> anyhow::Result<()> {
    let program = Server::SpecRegistry.program().await?;
    let mut command = Command::new(program.with_file_name("demo"));
    command.args(["--yes-i-am-testing", "--reject-first"]);
    let mut process = ServerProcess::spawn(command)?;
    let (_, mut stdout) = process.pipes()?;
    let mut told = String::new();
    tokio::time::timeout(LONGEST_STORY, stdout.read_to_string(&mut told)).await??;
    ensure!(process.wait().await?.success(), "the demo failed: {told}");
    let mut rest = told.as_str();
    for step in [
        "1 Request    test-web-service",
        "3 Verify V1  waiting",
        "bind to loopback only",
        "3 Verify V1  ✓ approved",
        "GRANT_NOT_COVERED",
        "provisional",
        "6 Validate   ✓ accepted",
        "validated",
        "audit: ",
    ] {
        let at = rest.find(step);
        let at = at.with_context(|| format!("`{step}` does not come where it should: {told}"))?;
        rest = &rest[at + step.len()..];
    }
    ensure!(
        !told.contains('\u{1b}'),
        "colours without a terminal: {told}"
    );
    Ok(())
}

#[tokio::test]
async fn a_first_no_makes_the_agent_plan_again_and_the_story_shows_why() -> anyhow::Result<()> {
    let mut demo = Demo::start(&["--yes-i-am-testing", "--reject-first"]).await?;
    let (status, story) = demo.told().await?;
    ensure!(status.success(), "the demo failed: {story}");
    let plans = list(&story, "plans")?;
    let revisions: Vec<&Value> = plans.iter().map(|plan| &plan["revision"]).collect();
    assert_eq!(revisions, [1, 2]);
    ensure!(
        plans[0]["plan_digest"] != plans[1]["plan_digest"],
        "the second plan is the first"
    );
    let first = &list(&story, "decisions")?[0];
    assert_eq!(first["verdict"], "reject");
    assert_eq!(first["reason"], "bind to loopback only");
    assert_eq!(story["run"]["state"], "validated");
    assert_eq!(story["run"]["plan_revision"], 2);
    Ok(())
}

#[tokio::test]
async fn without_a_human_the_demo_waits_and_an_interrupt_ends_all_of_it() -> anyhow::Result<()> {
    let mut demo = Demo::start(&[]).await?;
    demo.says("waiting for somebody to be enrolled").await?;
    let folder = demo.folder()?;
    ensure!(
        !all_of(&folder)?.is_empty(),
        "no process is found by the folder, so finding none later would prove nothing"
    );
    let history = human(&folder, &["history", "--json"], None).await?;
    assert_eq!(history, "[]\n", "something was decided without a human");

    let id = i32::try_from(demo.process.id().context("it has ended")?)?;
    kill_process(Pid::from_raw(id).context("process id 0")?, Signal::INT)?;
    let (status, story) = demo.told().await?;
    ensure!(!status.success(), "an interrupted demo claims success");
    assert_eq!(story["ok"], false);
    ensure!(story["decisions"].is_null(), "{story}");
    until_none_of(&folder, Duration::from_secs(5)).await?;
    ensure!(!PathBuf::from(&folder).exists(), "{folder} was left behind");
    Ok(())
}

#[tokio::test]
async fn a_human_at_the_command_line_is_waited_for_at_both_checkpoints() -> anyhow::Result<()> {
    const SECRET: &str = "a secret of a person";
    let mut demo = Demo::start(&[]).await?;
    demo.says("waiting for somebody to be enrolled").await?;
    let folder = demo.folder()?;
    let enrol = ["enrol", "--name", "me", "--secret-fd", "0"];
    human(&folder, &enrol, Some(SECRET)).await?;
    for kind in ["V1", "V2"] {
        let checkpoint = asked(&folder, kind).await?;
        let shown = human(&folder, &["show", &checkpoint, "--json"], None).await?;
        let shown: Value = serde_json::from_str(&shown)?;
        let history: Value =
            serde_json::from_str(&human(&folder, &["history", "--json"], None).await?)?;
        let decided = history.as_array().map(Vec::len);
        assert_eq!(decided, Some(usize::from(kind == "V2")), "{history}");
        let code = shown["code"].as_str().context("no code")?;
        let mut words = vec!["approve", &checkpoint, "--name", "me", "--reason", "seen"];
        words.extend(["--code", code, "--secret-fd", "0"]);
        for criterion in unknown_criteria(&shown) {
            words.extend(["--accept-unknown", criterion]);
        }
        human(&folder, &words, Some(SECRET)).await?;
    }
    let (status, story) = demo.told().await?;
    ensure!(status.success(), "the demo failed: {story}");
    assert_eq!(story["run"]["state"], "validated");
    let people: Vec<&Value> = list(&story, "decisions")?
        .iter()
        .map(|decision| &decision["approver"])
        .collect();
    assert_eq!(people, ["me", "me"]);
    Ok(())
}

/// The checkpoint of this kind, once it is in the queue.
async fn asked(folder: &str, kind: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + LONGEST_STORY;
    loop {
        let queue: Value = serde_json::from_str(&human(folder, &["queue", "--json"], None).await?)?;
        let open = queue["checkpoints"].as_array().into_iter().flatten();
        let mut open = open.filter(|open| open["kind"] == kind);
        if let Some(id) = open.find_map(|open| open["checkpoint_id"].as_str()) {
            return Ok(id.to_owned());
        }
        ensure!(Instant::now() < deadline, "nobody asks for {kind}: {queue}");
    }
}

/// A human's command beside the demo.
async fn human(folder: &str, words: &[&str], secret: Option<&str>) -> anyhow::Result<String> {
    let mut command = Command::new(Server::SpecRegistry.program().await?);
    command
        .args(words)
        .args(["--state-dir", &format!("{folder}/state")])
        .args(["--socket-dir", &format!("{folder}/sockets")]);
    tests::human::run(command, secret).await
}

struct Demo {
    process: ServerProcess,
    stdout: ChildStdout,
}

impl Demo {
    async fn start(flags: &[&str]) -> anyhow::Result<Self> {
        let program = Server::SpecRegistry.program().await?;
        let mut command = Command::new(program.with_file_name("demo"));
        command.args(flags).arg("--json");
        Self::of(command)
    }

    fn of(command: Command) -> anyhow::Result<Self> {
        let mut process = ServerProcess::spawn(command)?;
        let (_, stdout) = process.pipes()?; // its stdin is at its end, as on a machine without a terminal
        Ok(Self { process, stdout })
    }

    /// Waits until it says so on stderr; it may build the servers first.
    async fn says(&self, words: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + LONGEST_STORY;
        loop {
            let line = |line: &str| line.contains(words).then_some(());
            match self.process.find_in_stderr(line).await {
                Err(_) if self.process.id().is_some() && Instant::now() < deadline => {}
                found => return found,
            }
        }
    }

    /// The whole story, at its end.
    async fn told(&mut self) -> anyhow::Result<(ExitStatus, Value)> {
        let mut told = String::new();
        tokio::time::timeout(LONGEST_STORY, self.stdout.read_to_string(&mut told)).await??;
        let status = self.process.wait().await?;
        let story = serde_json::from_str(&told)
            .with_context(|| format!("no document: {told}; stderr: {}", self.process.stderr()))?;
        Ok((status, story))
    }

    /// The folder with all state, from the command line of the registry that the demo started.
    fn folder(&self) -> anyhow::Result<String> {
        let parent = self.process.id().context("it has ended")?;
        tests::processes::children_of(parent)?
            .into_iter()
            .find_map(|process| {
                let mut arguments = process.arguments.into_iter();
                arguments.find(|argument| argument == "serve")?;
                let state = arguments.find(|argument| argument.ends_with("/state"))?;
                Some(state.strip_suffix("/state")?.to_owned())
            })
            .context("the demo has started no registry")
    }
}

fn list<'a>(story: &'a Value, name: &str) -> anyhow::Result<&'a Vec<Value>> {
    story[name]
        .as_array()
        .with_context(|| format!("no `{name}` in the story: {story}"))
}
