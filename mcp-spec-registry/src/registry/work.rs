//! What the registry wants of effect servers, kept until they fetch it: the registry never dials them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::{Duration, Instant},
};

use shared::effect::protocol::{Work, WorkOrder, WorkResult};
use tokio::sync::{Notify, oneshot};

use super::{lock, new_ulid};

/// A server that has not asked for this long is not listening.
const LISTENING: Duration = Duration::from_secs(3);
/// Orders kept for a server that is away.
const MOST_PENDING: usize = 256;

/// Orders waiting for effect servers, by service.
#[derive(Default)]
pub struct WorkBoard {
    services: Mutex<HashMap<String, Desk>>,
}

#[derive(Default)]
struct Desk {
    pending: VecDeque<Work>,
    answers: HashMap<String, oneshot::Sender<WorkResult>>,
    /// Requests for work that wait right now.
    waiting: usize,
    last_asked: Option<Instant>,
    arrived: std::sync::Arc<Notify>,
    /// The service asks for work.
    came: std::sync::Arc<Notify>,
}

/// Nobody will carry out an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// The service is not connected.
    #[error("no process of {0} is listening for work")]
    NobodyListens(String),
    /// It took too long.
    #[error("{0} did not answer in time")]
    TimedOut(String),
}

impl WorkBoard {
    /// Leaves an order without waiting for it; a server that is away gets it when it is back.
    pub fn post(&self, service: &str, order: WorkOrder) {
        let mut services = lock(&self.services);
        let desk = services.entry(service.to_owned()).or_default();
        if desk.pending.len() >= MOST_PENDING {
            desk.pending.pop_front();
        }
        desk.pending.push_back(Work {
            id: new_ulid(),
            order,
        });
        desk.arrived.notify_one();
    }

    /// Leaves an order and waits for its answer.
    ///
    /// # Errors
    /// [`WorkError`] when nobody listens or the answer takes longer than `limit`.
    pub async fn ask(
        &self,
        service: &str,
        order: WorkOrder,
        limit: Duration,
    ) -> Result<WorkResult, WorkError> {
        let (sender, receiver) = oneshot::channel();
        let id = new_ulid();
        {
            let mut services = lock(&self.services);
            let desk = services.entry(service.to_owned()).or_default();
            if !desk.is_listening() {
                return Err(WorkError::NobodyListens(service.to_owned()));
            }
            desk.answers.insert(id.clone(), sender);
            desk.pending.push_back(Work {
                id: id.clone(),
                order,
            });
            desk.arrived.notify_one();
        }
        if let Ok(Ok(result)) = tokio::time::timeout(limit, receiver).await {
            return Ok(result);
        }
        if let Some(desk) = lock(&self.services).get_mut(service) {
            desk.answers.remove(&id);
            desk.pending.retain(|work| work.id != id);
        }
        Err(WorkError::TimedOut(service.to_owned()))
    }

    /// Fetches the next order, waiting at most `limit` for one.
    pub async fn next(&self, service: &str, limit: Duration) -> Option<Work> {
        let _waiting = Waiting::start(self, service);
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let arrived = {
                let mut services = lock(&self.services);
                let desk = services.entry(service.to_owned()).or_default();
                if let Some(work) = desk.pending.pop_front() {
                    return Some(work);
                }
                std::sync::Arc::clone(&desk.arrived)
            };
            // `notify_one` keeps one permit, so an order left between the look and the wait is not missed.
            tokio::time::timeout_at(deadline, arrived.notified())
                .await
                .ok()?;
        }
    }

    /// Takes an answer; false if nobody waits for it.
    pub fn answer(&self, service: &str, id: &str, result: WorkResult) -> bool {
        let waiting = lock(&self.services)
            .get_mut(service)
            .and_then(|desk| desk.answers.remove(id));
        waiting.is_some_and(|waiting| waiting.send(result).is_ok())
    }

    /// Waits until a process of the service asks for work, at most `limit`.
    pub async fn until_listening(&self, service: &str, limit: Duration) {
        let came = {
            let mut services = lock(&self.services);
            std::sync::Arc::clone(&services.entry(service.to_owned()).or_default().came)
        };
        let coming = came.notified();
        tokio::pin!(coming);
        // From here on no arrival is missed.
        coming.as_mut().enable();
        if !self.is_listening(service) {
            // Whether it came or not shows when it is asked.
            let _ = tokio::time::timeout(limit, coming).await;
        }
    }

    /// Whether a process of the service asks for work.
    pub fn is_listening(&self, service: &str) -> bool {
        lock(&self.services)
            .get(service)
            .is_some_and(Desk::is_listening)
    }
}

impl Desk {
    fn is_listening(&self) -> bool {
        self.waiting > 0
            || self
                .last_asked
                .is_some_and(|asked| asked.elapsed() < LISTENING)
    }
}

/// A request for work that waits; a dropped connection ends it like an answer does.
struct Waiting<'a> {
    board: &'a WorkBoard,
    service: &'a str,
}

impl<'a> Waiting<'a> {
    fn start(board: &'a WorkBoard, service: &'a str) -> Self {
        let mut services = lock(&board.services);
        let desk = services.entry(service.to_owned()).or_default();
        desk.waiting += 1;
        desk.came.notify_waiters();
        drop(services);
        Self { board, service }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(desk) = lock(&self.board.services).get_mut(self.service) {
            desk.waiting -= 1;
            desk.last_asked = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_run() -> WorkOrder {
        WorkOrder::EndRun {
            run_id: "r".to_owned(),
        }
    }

    #[tokio::test]
    async fn an_order_reaches_the_server_that_waits_and_its_answer_comes_back() {
        let board = WorkBoard::default();
        let server = async {
            let work = board.next("shell", Duration::from_secs(5)).await;
            let id = work.map(|work| work.id).unwrap_or_default();
            board.answer("shell", &id, WorkResult::EndedProcesses { count: 2 })
        };
        let (answered, result) = tokio::join!(
            server,
            board.ask("shell", end_run(), Duration::from_secs(5))
        );
        assert!(answered);
        assert_eq!(result, Ok(WorkResult::EndedProcesses { count: 2 }));
    }

    #[tokio::test]
    async fn who_comes_late_is_waited_for_and_who_does_not_come_only_so_long() {
        let board = WorkBoard::default();
        let patience = Duration::from_secs(30);
        let started = Instant::now();
        tokio::join!(board.until_listening("shell", patience), async {
            board.next("shell", Duration::ZERO).await;
        });
        assert!(board.is_listening("shell"));
        assert!(started.elapsed() < patience);
        board
            .until_listening("nobody", Duration::from_millis(1))
            .await;
        assert!(!board.is_listening("nobody"));
    }

    #[tokio::test]
    async fn an_order_for_nobody_is_refused_at_once_but_a_posted_one_is_kept() {
        let board = WorkBoard::default();
        let refused = board.ask("shell", end_run(), Duration::from_mins(1)).await;
        assert_eq!(refused, Err(WorkError::NobodyListens("shell".to_owned())));
        board.post("shell", end_run());
        let kept = board
            .next("shell", Duration::ZERO)
            .await
            .map(|work| work.order);
        assert_eq!(kept, Some(end_run()));
        assert_eq!(board.next("shell", Duration::ZERO).await, None);
    }
}
