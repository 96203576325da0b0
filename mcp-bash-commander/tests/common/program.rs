//! The server's program, which speaks JSON-RPC in lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mcp-bash-commander");

/// A started server; killed when dropped.
pub(crate) struct Program {
    pub(crate) child: Child,
    lines: Receiver<String>,
    newest: u64,
}

impl Program {
    pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            newest: 0,
        })
    }

    pub(crate) fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin is closed")?;
        Ok(writeln!(stdin, "{message}")?)
    }

    /// Sends a request and gives its id.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> anyhow::Result<u64> {
        self.newest += 1;
        self.send(
            &json!({"jsonrpc": "2.0", "id": self.newest, "method": method, "params": params}),
        )?;
        Ok(self.newest)
    }

    /// Opens a session, by messages whose answer is not waited for; the id of the request.
    pub(crate) fn greet(&mut self, capabilities: &Value) -> anyhow::Result<u64> {
        let hello = self.ask("initialize", &json!({
            "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "test", "version": "1"}
        }))?;
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        Ok(hello)
    }

    /// The next message of the server.
    pub(crate) fn message(&self, patience: Duration) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.lines.recv_timeout(patience)?)?)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
