//! The process that measures, as the registry starts it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

use anyhow::Context;
use serde_json::{Value, json};

struct Worker {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start(addresses: &[&str]) -> anyhow::Result<(Self, Value)> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-spec-registry"))
            .arg("check-worker")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let answers = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut worker = Self { child, answers };
        let confinement = worker.ask(&json!({ "addresses": addresses, "allowed": [] }))?;
        Ok((worker, confinement))
    }

    fn ask(&mut self, question: &Value) -> anyhow::Result<Value> {
        let jobs = self.child.stdin.as_mut().context("no stdin")?;
        jobs.write_all(format!("{question}\n").as_bytes())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(format!(
            "/proc/{}/{file}",
            self.child.id()
        ))?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers every connection with a small page, as long as the test runs.
fn page() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    Ok(address)
}

fn get(address: &str) -> Value {
    json!({ "kind": "http", "address": address, "path": "/", "samples": 3, "expect": { "text": "hello" } })
}

#[test]
fn it_answers_with_numbers_and_never_with_a_body() -> anyhow::Result<()> {
    let address = page()?;
    let (mut worker, _) = Worker::start(&[&address])?;
    let answer = worker.ask(&get(&address))?["http"].take();
    assert_eq!(answer["latencies_us"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        (&answer["matched"], &answer["text_matched"]),
        (&json!(3), &json!(3))
    );
    assert!(!answer.to_string().contains("hello"), "{answer}");
    Ok(())
}

#[test]
fn it_dials_only_the_addresses_of_its_round() -> anyhow::Result<()> {
    let (ours, other) = (page()?, page()?);
    let (mut worker, _) = Worker::start(&[&ours, "169.254.169.254:80"])?;
    assert_eq!(worker.ask(&get(&ours))?["http"]["requests"], 3);
    assert!(worker.ask(&get(&other))?["refused"].is_object());
    let metadata = worker.ask(&get("169.254.169.254:80"))?;
    assert!(metadata["refused"].is_object(), "{metadata}");
    assert!(metadata.to_string().contains("--check-allow"), "{metadata}");
    Ok(())
}

#[test]
fn it_can_gain_no_privileges_and_write_no_files() -> anyhow::Result<()> {
    let (worker, confinement) = Worker::start(&[])?;
    let line = |text: String, begin: &str| -> String {
        let line = text
            .lines()
            .find(|line| line.starts_with(begin))
            .unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line(worker.proc("status")?, "NoNewPrivs"), "NoNewPrivs: 1");
    assert!(line(worker.proc("limits")?, "Max file size").starts_with("Max file size 0 0"));
    // The control: we are not so limited ourselves, so it is the worker's doing.
    let own = fs::read_to_string("/proc/self/limits")?;
    assert!(!line(own, "Max file size").starts_with("Max file size 0 0"));
    assert_eq!(confinement["limited"], true);
    let has_landlock = fs::read_to_string("/sys/kernel/security/lsm")
        .is_ok_and(|modules| modules.split(',').any(|module| module.trim() == "landlock"));
    if has_landlock {
        assert_ne!(confinement["landlock"], "unavailable");
    }
    Ok(())
}

#[test]
fn it_ends_when_nobody_asks_any_more() -> anyhow::Result<()> {
    let (mut worker, _) = Worker::start(&[])?;
    drop(worker.child.stdin.take());
    assert!(worker.child.wait()?.success());
    Ok(())
}
