//! The measuring process from the registry's side: started when something is to be dialled, gone after the round.

use std::{process::Stdio, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::job::{Confinement, Job, Measured, Setup, TEST_TIMEOUT};

/// Longest line of an answer: 500 latencies are some kilobytes.
const LONGEST_ANSWER: u64 = 256 * 1024;
/// Time to start and to resolve names.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time beyond a test's own bound until the worker counts as stuck.
const GRACE: Duration = Duration::from_secs(15);

/// How measuring is done.
#[derive(Debug, Clone)]
pub(super) enum Measuring {
    /// In a process of its own: this program with these arguments.
    Process(Arc<[String]>),
    /// In this process.
    #[cfg(test)]
    Here,
}

/// The measuring process of one round.
pub(super) struct Worker {
    measuring: Measuring,
    setup: Setup,
    running: Option<Running>,
}

struct Running {
    /// Killed when dropped.
    _child: Child,
    jobs: ChildStdin,
    answers: BufReader<ChildStdout>,
    confinement: Confinement,
}

impl Worker {
    pub(super) fn new(measuring: Measuring, setup: Setup) -> Self {
        Self {
            measuring,
            setup,
            running: None,
        }
    }

    /// Has something measured; the error says why it could not be.
    pub(super) async fn measure(&mut self, job: Job) -> Result<(Measured, Confinement), String> {
        let result = match &self.measuring {
            Measuring::Process(arguments) => {
                let arguments = Arc::clone(arguments);
                self.in_process(&arguments, &job).await
            }
            #[cfg(test)]
            Measuring::Here => self.here(job).await,
        };
        if result.is_err() {
            // Whatever it still says belongs to another question.
            self.running = None;
        }
        result
    }

    async fn in_process(
        &mut self,
        arguments: &[String],
        job: &Job,
    ) -> Result<(Measured, Confinement), String> {
        if self.running.is_none() {
            let start = timeout(START_TIMEOUT, Running::start(arguments, &self.setup));
            let running = start
                .await
                .unwrap_or_else(|_| Err("it did not start in time".to_owned()));
            self.running = Some(running.map_err(|error| failed(&error))?);
        }
        let Some(running) = &mut self.running else {
            return Err(failed("it ended"));
        };
        let measured = timeout(TEST_TIMEOUT + GRACE, running.ask(job))
            .await
            .unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
            .map_err(|error| failed(&error))?;
        Ok((measured, running.confinement.clone()))
    }

    #[cfg(test)]
    async fn here(&self, job: Job) -> Result<(Measured, Confinement), String> {
        let setup = self.setup.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let destinations = super::dial::Destinations::resolve(&setup.addresses, &setup.allowed);
            super::worker::carry_out(&job, &destinations)
        });
        Ok((
            measured.await.map_err(|error| error.to_string())?,
            Confinement::default(),
        ))
    }
}

impl Running {
    async fn start(arguments: &[String], setup: &Setup) -> Result<Self, String> {
        // The running program, even if its file was replaced since.
        let mut child = Command::new("/proc/self/exe")
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
        let (Some(jobs), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("it has no pipes".to_owned());
        };
        let mut running = Self {
            _child: child,
            jobs,
            answers: BufReader::new(answers),
            confinement: Confinement::default(),
        };
        running.confinement = running.ask(setup).await?;
        Ok(running)
    }

    async fn ask<A: DeserializeOwned>(&mut self, question: &impl Serialize) -> Result<A, String> {
        let mut line = serde_json::to_vec(question).map_err(|error| error.to_string())?;
        line.push(b'\n');
        self.jobs
            .write_all(&line)
            .await
            .map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        let mut answers = (&mut self.answers).take(LONGEST_ANSWER);
        answers
            .read_until(b'\n', &mut answer)
            .await
            .map_err(|error| error.to_string())?;
        if answer.is_empty() {
            return Err("it ended".to_owned());
        }
        serde_json::from_slice(&answer).map_err(|error| format!("it answered nonsense: {error}"))
    }
}

fn failed(reason: &str) -> String {
    format!("the measuring process failed: {reason}")
}
