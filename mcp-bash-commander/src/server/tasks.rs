//! Calls that take long, as tasks for clients that can follow one: the extension `io.modelcontextprotocol/tasks` (SEP-2663).
//!
//! Whoever cannot follow tasks waits for the answer, as ever. Tasks live as long as the server; their results stand in sessions, too.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::{CallToolResponse, CreateTaskResult, DetailedTask, ErrorData};
use rmcp::task_manager::{TaskExit, TaskManager, TaskOptions};
use tokio_util::sync::CancellationToken;

/// How long a call is waited for before it becomes a task.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a task can be asked after when its command has run as long as it may.
const KEPT: Duration = Duration::from_mins(10);
/// Most tasks that are known at a time; whoever would have one more waits for the answer.
const MOST: usize = 256;
/// How often a client should ask.
const POLLED: Duration = Duration::from_secs(2);

/// The answer to a call, while it is made.
pub(super) type Answer =
    Pin<Box<dyn Future<Output = Result<CallToolResponse, ErrorData>> + Send + 'static>>;

/// The tasks of this server, and whose they are.
#[derive(Clone, Default)]
pub(super) struct Tasks {
    manager: TaskManager,
    owners: Arc<Mutex<HashMap<String, Arc<str>>>>,
}

impl Tasks {
    /// The answer, if it comes soon; else a task of `owner` that goes on waiting for it, which takes `longest` at most. `cancel` ends the
    /// call; it is cancelled when `given_up` is, which the protocol library does too once a request is answered, if only by a task.
    pub(super) async fn answer(
        &self,
        mut call: Answer,
        owner: &Arc<str>,
        longest: Duration,
        (given_up, cancel): (CancellationToken, CancellationToken),
    ) -> Result<CallToolResponse, ErrorData> {
        let patience = if self.has_room() {
            PATIENCE
        } else {
            Duration::MAX
        };
        tokio::select! {
            answer = &mut call => return answer,
            () = given_up.cancelled() => {
                cancel.cancel();
                return call.await;
            }
            () = tokio::time::sleep(patience) => {}
        }
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let options = TaskOptions::new()
            .with_ttl_ms(milliseconds(longest.saturating_add(KEPT)))
            .with_poll_interval_ms(milliseconds(POLLED))
            .with_status_message("the command runs");
        let task = self.manager.spawn(options, |task| {
            Box::pin(async move {
                let answer = tokio::select! {
                    answer = &mut call => answer,
                    () = task.cancelled() => {
                        cancel.cancel();
                        // It ends what it started, and then says so.
                        let _ = call.await;
                        return Err(TaskExit::Cancelled);
                    }
                };
                match answer? {
                    CallToolResponse::Complete(result) => Ok(result),
                    _ => Err(ErrorData::internal_error(
                        "a task was answered with a question",
                        None,
                    )
                    .into()),
                }
            })
        });
        self.owners()
            .insert(task.task_id.clone(), Arc::clone(owner));
        Ok(CreateTaskResult::new(task).into())
    }

    fn has_room(&self) -> bool {
        let mut owners = self.owners();
        if owners.len() >= MOST {
            owners.retain(|id, _| self.manager.get_task(id).is_ok());
        }
        owners.len() < MOST
    }

    /// How it stands with a task of `owner`.
    pub(super) fn get(&self, id: &str, owner: &str) -> Result<DetailedTask, ErrorData> {
        self.check(id, owner)?;
        let task = self.manager.get_task(id);
        if task.is_err() {
            self.owners().remove(id);
        }
        task
    }

    /// Ends the call of a task of `owner`.
    pub(super) fn cancel(&self, id: &str, owner: &str) -> Result<(), ErrorData> {
        self.check(id, owner)?;
        self.manager.cancel_task(id)
    }

    /// Lets all tasks go.
    pub(super) fn end(&self) {
        self.manager.shutdown();
        self.owners().clear();
    }

    /// A task of somebody else is none.
    fn check(&self, id: &str, owner: &str) -> Result<(), ErrorData> {
        let is_theirs = self.owners().get(id).is_some_and(|whose| **whose == *owner);
        if is_theirs {
            return Ok(());
        }
        Err(ErrorData::invalid_params(
            format!("there is no task `{id}`"),
            None,
        ))
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<str>>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
