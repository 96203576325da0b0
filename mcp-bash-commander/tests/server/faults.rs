//! What can go wrong with the machine under a server that runs: full disks, no descriptors, no memory, a launcher that hangs, a clock that
//! is turned, a kernel that lacks a layer, process numbers that come round. A call may fail then, with a reason; the server goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client::{Client, Place};
use crate::processes::eventually;
use crate::skips::skip;

const PROBE: &str = env!("CARGO_BIN_EXE_jail-probe");

/// A file system of its own of so many bytes, in memory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Over a directory, which must exist. None where this process may not mount.
    fn over(directory: &Path, bytes: u64, test: &str) -> anyhow::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            skip(test, "root, to mount a small disk")?;
            return Ok(None);
        }
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("mode=0700,size={bytes}"))
            .arg("small-disk")
            .arg(directory))?;
        Ok(Some(Self(directory.to_owned())))
    }

    /// Takes all its room; what gives it back.
    fn fill(&self) -> anyhow::Result<PathBuf> {
        let path = self.0.join("filler");
        let filled = fs::write(&path, vec![0; 64 << 20]);
        anyhow::ensure!(filled.is_err(), "the disk is not small");
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?}: {told}");
    Ok(())
}

/// The whole error of a call that fails.
fn error(client: &mut Client, tool: &str, arguments: &Value) -> anyhow::Result<Value> {
    let result = client.call(tool, arguments)?;
    anyhow::ensure!(result["isError"] == json!(true), "it works: {result}");
    let text = result["content"][0]["text"].as_str().context("no text")?;
    Ok(serde_json::from_str(text)?)
}

fn works(client: &mut Client) -> anyhow::Result<()> {
    let done = client.exec("echo works")?;
    anyhow::ensure!(done["stdout"]["text"] == json!("works\n"), "{done}");
    Ok(())
}

/// The launcher of a server: its only child.
fn launcher(server: u32) -> anyhow::Result<Pid> {
    let children = fs::read_dir(format!("/proc/{server}/task"))?
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .collect::<String>();
    let child: i32 = children.trim().parse()?;
    Pid::from_raw(child).context("no process")
}

#[test]
fn a_command_that_fills_the_workspace_is_told_and_the_server_goes_on() -> anyhow::Result<()> {
    let place = Place::new()?;
    let test = "a_command_that_fills_the_workspace";
    let Some(_disk) = SmallDisk::over(&place.workspace(), 8 << 20, test)? else {
        return Ok(());
    };
    let mut client = place.start()?;
    let fill = "for i in $(seq 100); do head -c 1000000 /dev/zero > f$i || exit 7; done";
    let filled = client.exec(fill)?;
    assert_eq!(filled["exit_code"], json!(7));
    let told = filled["stderr"]["text"].as_str().context("no text")?;
    assert!(told.contains("No space left on device"), "{told}");
    let written = json!({"path": "new", "content": "x".repeat(100_000)});
    let refused = error(&mut client, "write_file", &written)?;
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(message.contains("No space left on device"), "{refused}");
    assert!(
        !place.workspace().join("new").exists(),
        "half a file is left"
    );
    works(&mut client)?;
    client.exec("rm f*")?;
    client.ok("write_file", &written)?;
    Ok(())
}

#[test]
fn with_a_full_disk_of_its_own_the_server_runs_nothing_and_goes_on_when_there_is_room()
-> anyhow::Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.path("state"))?;
    let Some(disk) = SmallDisk::over(&place.path("state"), 2 << 20, "a full disk")? else {
        return Ok(());
    };
    let mut client = place.start()?;
    // What does not fit is counted, and neither held in memory nor lost without a word.
    let much = client.exec("head -c 20000000 /dev/zero; echo end >&2")?;
    assert_eq!(much["stdout"]["bytes"], json!(20_000_000), "{much}");
    assert_eq!(much["stderr"]["text"], json!("end\n"));
    // What the disk took goes with the server.
    client.close()?;
    let mut client = place.start()?;
    works(&mut client)?;
    let filler = disk.fill()?;
    // The log has some room left that it took before.
    let ran = || fs::read_to_string(place.workspace().join("ran")).map_or(0, |ran| ran.len());
    let mut recorded = 0;
    let refused = loop {
        let result = client.call("exec", &json!({"command": "echo -n x >> ran"}))?;
        if result["isError"] == json!(true) && ran() == recorded {
            break result;
        }
        recorded += 1;
        assert_eq!(ran(), recorded, "{result}");
        anyhow::ensure!(recorded < 1000, "the disk is not full");
    };
    assert!(
        refused.to_string().contains("AUDIT_UNAVAILABLE"),
        "{refused}"
    );
    client.ok("list_sessions", &json!({}))?;
    fs::remove_file(filler)?;
    works(&mut client)?;
    drop(client);
    let verified = place.run(&["audit", "verify"])?;
    assert!(verified.status.success(), "{verified:?}");
    Ok(())
}

#[test]
fn a_launcher_that_hangs_is_an_error_in_time_and_all_is_well_when_it_goes_on() -> anyhow::Result<()>
{
    let place = Place::new()?;
    let mut client = place.start()?;
    works(&mut client)?;
    let launcher = launcher(client.id())?;
    kill_process(launcher, Signal::STOP)?;
    let call = json!({"name": "exec", "arguments": {"command": "echo ran >> ran"}});
    let waiting = client.ask("tools/call", &call)?;
    // Nobody else waits for it.
    client.ok("write_file", &json!({"path": "other", "content": "x"}))?;
    let answer = loop {
        let message = client.message()?;
        if message["id"] == json!(waiting) {
            break message;
        }
    };
    let text = answer["result"]["content"][0]["text"].as_str();
    let told = text.unwrap_or_default();
    assert!(told.contains("not ready after 10 seconds"), "{answer}");
    kill_process(launcher, Signal::CONT)?;
    works(&mut client)?;
    assert!(
        !place.workspace().join("ran").exists(),
        "a command that was refused ran later"
    );
    Ok(())
}

#[test]
fn without_descriptors_calls_fail_with_a_reason_until_some_are_free() -> anyhow::Result<()> {
    let place = Place::new()?;
    let limited = ["-c", "ulimit -S -n 48; exec \"$@\"", "sh"];
    let mut command = place.command_by("sh", &limited);
    let mut client = Client::start(&mut command, &json!({}))?;
    let asleep = json!({"command": "sleep 1000", "wait": {"until": "none"}});
    let mut running = Vec::new();
    let refused = loop {
        anyhow::ensure!(running.len() < 40, "there is no end of descriptors");
        let result = client.call("exec", &asleep)?;
        match result["structuredContent"]["id"].as_str() {
            Some(id) => running.push(id.to_owned()),
            None => break result,
        }
    };
    let told = refused["content"][0]["text"].as_str().unwrap_or_default();
    assert!(told.contains("Too many open files"), "{refused}");
    assert!(running.len() > 2, "{running:?}");
    client.ok("list_sessions", &json!({}))?;
    for id in running {
        client.ok("stop", &json!({"id": id, "signal": "KILL"}))?;
    }
    works(&mut client)
}

#[test]
fn where_a_jail_gets_no_memory_the_call_fails_and_the_next_one_with_memory_works()
-> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    works(&mut client)?;
    let launcher = launcher(client.id())?;
    let limit = |bytes: &str| -> anyhow::Result<()> {
        let launcher = launcher.as_raw_nonzero().to_string();
        run(Command::new("prlimit").args([&format!("--as={bytes}"), "--pid", &launcher]))
    };
    let size = fs::read_to_string(format!("/proc/{}/statm", launcher.as_raw_nonzero()))?;
    let pages: u64 = size.split(' ').next().context("no size")?.parse()?;
    // Enough to clone init, not enough for a stack in it.
    limit(&format!("{}:", pages * 4096 + (200 << 10)))?;
    let refused = error(&mut client, "exec", &json!({"command": "echo ran > ran"}))?;
    let told = refused["message"].as_str().unwrap_or_default();
    // Or there was none for the launcher itself, which ends then and is started again.
    let is_told = told.contains("Cannot allocate memory") || told.contains("launcher ended");
    assert!(is_told, "{refused}");
    assert!(!place.workspace().join("ran").exists());
    // A launcher that ended took its limit along.
    let _ = limit("unlimited:");
    works(&mut client)
}

/// Makes `CLOCK_REALTIME` differ by as many seconds as a file says.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
  long result = syscall(SYS_clock_gettime, clock, now);
  const char *path = getenv("TURNED_BY");
  if (result == 0 && clock == CLOCK_REALTIME && path) {
    char text[32] = {0};
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0 && read(file, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
    if (file >= 0) close(file);
  }
  return result;
}
"#;

#[test]
fn a_clock_that_is_turned_ends_nothing_early_and_keeps_nothing_alive() -> anyhow::Result<()> {
    let place = Place::new()?;
    let (source, library, turned) = (
        place.path("clock.c"),
        place.path("clock.so"),
        place.path("turned"),
    );
    fs::write(&source, CLOCK)?;
    run(Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source]))?;
    let turn = |days: i64| fs::write(&turned, (days * 86_400).to_string());
    turn(0)?;
    let mut command = place.command();
    command.env("LD_PRELOAD", library).env("TURNED_BY", &turned);
    let mut client = Client::start(&mut command, &json!({}))?;
    let kept = json!({"command": "echo $$ > /tmp/kept", "session": "kept"});
    client.ok("exec", &kept)?;
    let long = json!({"command": "sleep 1000", "timeout_ms": 600_000, "wait": {"until": "none"}});
    let long = client.ok("exec", &long)?;
    let day = |days: i64, client: &mut Client| -> anyhow::Result<String> {
        turn(days)?;
        let short = json!({"command": "sleep 1000", "timeout_ms": 300});
        let began = Instant::now();
        let ended = client.ok("exec", &short)?;
        assert_eq!(ended["timed_out"], json!(true), "{ended}");
        assert!(began.elapsed() < Duration::from_secs(10));
        let wall = ended["wall_ms"].as_u64().context("no time")?;
        assert!((300..10_000).contains(&wall), "{wall} ms");
        let there = json!({"command": "test -s /tmp/kept", "session": "kept"});
        assert_eq!(client.ok("exec", &there)?["exit_code"], json!(0));
        let seen = client.ok("read_output", &json!({"id": long["id"], "tail": 10}))?;
        assert_eq!(seen["state"], json!("running"), "{seen}");
        let listed = client.ok("list_sessions", &json!({}))?;
        let sessions = listed["sessions"].as_array().context("no list")?;
        let newest = sessions
            .iter()
            .filter_map(|session| session["started_at"].as_str())
            .max();
        Ok(newest.context("no time")?.to_owned())
    };
    let (later, earlier) = (day(400, &mut client)?, day(-400, &mut client)?);
    assert!(later.as_str() > "2027-06", "the control: {later}");
    assert!(earlier <= later);
    works(&mut client)?;
    drop(client);
    let verified = place.run(&["audit", "verify"])?;
    assert!(verified.status.success(), "{verified:?}");
    Ok(())
}

#[test]
fn a_kernel_without_landlock_runs_no_command_and_the_layer_is_named() -> anyhow::Result<()> {
    let place = Place::new()?;
    let policy = place.policy("allow_degraded = [\"no_userns\"]\n")?;
    for policy in [None, Some(policy)] {
        let mut command = place.command_by(PROBE, &["without landlock"]);
        if let Some(policy) = policy {
            command.arg("--policy").arg(policy);
        }
        let mut client = Client::start(&mut command, &json!({}))?;
        let refused = error(&mut client, "exec", &json!({"command": "echo ran > ran"}))?;
        let told = refused.to_string();
        assert!(
            told.contains("`landlock`") && told.contains("lsm="),
            "{told}"
        );
        assert!(!place.workspace().join("ran").exists());
        client.ok("write_file", &json!({"path": "f", "content": "x"}))?;
        let doctor = client.ok("doctor", &json!({}))?.to_string();
        assert!(doctor.contains("landlock"), "{doctor}");
    }
    let mut client = place.start()?;
    client.exec("echo ran > ran")?;
    assert!(place.workspace().join("ran").exists(), "the control");
    Ok(())
}

#[test]
fn without_proc_no_command_runs_and_the_reason_is_told() -> anyhow::Result<()> {
    let place = Place::new()?;
    if !rustix::process::geteuid().is_root() {
        return skip("without_proc", "root, to unmount /proc for one process");
    }
    let script = "umount -l /proc && exec \"$@\"";
    let without = ["--mount", "sh", "-c", script, "sh"];
    let mut command = place.command_by("unshare", &without);
    command.arg("doctor");
    let output = command.output()?;
    let told = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && told.contains("/proc"), "{told}");
    Ok(())
}

/// Processes that somebody else runs beside the server, one after the other, and who were killed by a signal. Each tells its number.
const NEIGHBOURS: &str = r#"
while [ ! -e "$1/over" ]; do
  sh -c 'echo $$ >> "$1/numbers"; exec sleep 0.01' sh "$1"
  [ $? -lt 128 ] || echo killed >> "$1/killed"
done
"#;

#[test]
fn where_process_numbers_come_round_no_signal_reaches_another() -> anyhow::Result<()> {
    let place = Place::new()?;
    // Before, the greatest number was the whole machine's.
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if !rustix::process::geteuid().is_root() || version < (6, 14) {
        return skip("process numbers that come round", "root and Linux 6.14");
    }
    let aside = place.path("aside");
    fs::create_dir(&aside)?;
    fs::write(place.path("neighbours"), NEIGHBOURS)?;
    let script = "echo 400 > /proc/sys/kernel/pid_max || exit; cd \"$1\"; \
        sh neighbours aside & sh neighbours aside & shift; \"$@\"; touch aside/over; wait";
    let here = place.path("").to_string_lossy().into_owned();
    let apart = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let arguments = [&apart[..], &["sh", "-c", script, "sh", &here]].concat();
    let mut command = place.command_by("unshare", &arguments);
    let mut client = Client::start(&mut command, &json!({}))?;
    let seen = || fs::read_to_string(aside.join("numbers")).unwrap_or_default();
    let comes_round = |numbers: &str| {
        let all: Vec<&str> = numbers.lines().collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        all.len() > 2 * distinct.len()
    };
    let mut stopped = 0;
    let asleep = json!({"command": "sleep 1000 & sleep 1000", "wait": {"until": "none"}});
    let in_session =
        json!({"command": "sleep 1000 & sleep 1000", "session": "kept", "wait": {"until": "none"}});
    let short = json!({"command": "sleep 1000", "timeout_ms": 5});
    while stopped < 150 || !comes_round(&seen()) {
        anyhow::ensure!(stopped < 3000, "the numbers do not come round");
        let (first, second) = (client.ok("exec", &asleep)?, client.ok("exec", &in_session)?);
        for (started, signal) in [(first, "TERM"), (second, "KILL")] {
            let id = &started["id"];
            client.ok("stop", &json!({"id": id, "signal": signal, "grace_ms": 50}))?;
            // Once more, when whoever had the number may have it no more.
            client.call("stop", &json!({"id": id, "signal": "KILL"}))?;
        }
        assert_eq!(client.ok("exec", &short)?["timed_out"], json!(true));
        stopped += 1;
    }
    client.close()?;
    eventually("the neighbours end", || Ok(aside.join("over").exists()))?;
    assert!(!aside.join("killed").exists(), "a neighbour was killed");
    Ok(())
}

#[test]
fn texts_within_texts_of_a_message_are_texts() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let member = "$serde_json::private::RawValue";
    let hidden = json!({"command": {member: "\"echo hidden\""}});
    assert_eq!(client.error("exec", &hidden)?, "INVALID_ARGUMENTS");
    // Read as what they say these would be as deep as no stack is.
    let mut nested = "1".to_owned();
    for _ in 0..300 {
        let quoted = nested.replace('\\', "\\u005c").replace('"', "\\u0022");
        let (open, close) = ("[".repeat(100), "]".repeat(100));
        nested = format!("{open}{{\"{member}\":\"{quoted}\"}}{close}");
    }
    let arguments: Value = serde_json::from_str(&format!("{{\"a\":{nested}}}"))?;
    client.error("doctor", &arguments)?;
    assert_eq!(client.exec("true")?["exit_code"], json!(0));
    Ok(())
}
