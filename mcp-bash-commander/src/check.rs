//! A command of an approved test plan: run in a fresh jail that can change nothing, judged by how it ended, its output kept here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use shared::digest::Digest;
use shared::effect::protocol::CommandMeasure;
use tokio::io::AsyncReadExt as _;

use crate::confine::{self, Changes};
use crate::jail::{JailError, JailedProcess, Launcher, Output};
use crate::policy::{EnvironmentError, Policy};
use crate::workspace::{Workspace, WorkspaceError};

/// Bytes of standard output that are looked at.
const MOST_BYTES: usize = 16 << 20;

/// A check that was not made; that is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The command did not start.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The policy's environment cannot be used.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The workspace cannot be looked at.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The output could not be read.
    #[error("failed to read the output: {0}")]
    Output(#[from] std::io::Error),
}

/// What checks are made with.
#[derive(Debug, Clone)]
pub struct Checker {
    /// Who makes the jail.
    pub launcher: Launcher,
    /// What commands may see.
    pub policy: Arc<Policy>,
    /// Where they work.
    pub workspace: Arc<Workspace>,
}

impl Checker {
    /// Runs the command to its end, at most for `timeout`.
    ///
    /// # Errors
    /// A jail that could not be made, or a program that is not there.
    pub async fn run(
        &self,
        argv: &[String],
        text: Option<&str>,
        timeout: Duration,
    ) -> Result<CommandMeasure, CheckError> {
        let (policy, workspace) = (&self.policy, &self.workspace);
        let env = BTreeMap::new();
        let mut jail = confine::jail(policy, workspace, argv, &env, Changes::NoneMade)?;
        jail.masked = confine::closed(policy, workspace).await?;
        let JailedProcess {
            stdout,
            stderr,
            command,
            jail,
            ..
        } = self.launcher.run(jail).await?;
        let started = Instant::now();
        let reading = async { tokio::join!(read(Some(stdout)), read(stderr)) };
        tokio::pin!(reading);
        let in_time = tokio::select! {
            read = &mut reading => Some(read),
            () = tokio::time::sleep(timeout) => None,
        };
        let timed_out = in_time.is_none()
            || tokio::time::timeout(timeout.saturating_sub(started.elapsed()), command.wait())
                .await
                .is_err();
        if timed_out {
            jail.kill()?;
        }
        let (out, _) = match in_time {
            Some(read) => read,
            None => reading.await,
        };
        let exit = command.wait().await;
        let wall = started.elapsed();
        let out = out?;
        let found = |text: &str| {
            out.windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        Ok(CommandMeasure {
            exit_code: exit.code.filter(|_| !timed_out),
            signal: exit.signal.filter(|_| !timed_out),
            timed_out,
            text_found: text.map(found),
            stdout_sha256: Digest::from_array(&Sha256::digest(&out).into()),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// The beginning of an output; all of it is read.
async fn read(output: Option<Output>) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut output) = output else {
        return Ok(kept);
    };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = output.read(&mut buffer).await?;
        if read == 0 {
            return Ok(kept);
        }
        let room = MOST_BYTES.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&buffer[..room]);
    }
}
