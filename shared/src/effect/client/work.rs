//! The work channel: what the registry asks of an effect server, fetched by long polls so that it never dials in.

use std::{future::Future, sync::Arc, time::Duration};

use hyper::{Method, StatusCode};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    EffectClient,
    connection::{Connection, Unanswered},
};
use crate::effect::protocol::{Refusal, Work, WorkOrder, WorkResult};

/// Longer than the registry holds a poll.
const POLL_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest time that one order may take.
const ORDER_TIMEOUT: Duration = Duration::from_mins(1);
/// Orders carried out at the same time; further ones wait at the registry.
const MOST_ORDERS: usize = 16;
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Carries out what the registry asks of this server.
pub trait WorkHandler: Send + Sync + 'static {
    /// Carries out one order. It may run beside others.
    fn carry_out(&self, order: WorkOrder) -> impl Future<Output = WorkResult> + Send;
}

impl EffectClient {
    /// Says hello, delivers what is owed, and carries out the registry's orders until the token is cancelled. Reconnects
    /// with growing pauses of 0.1 to 5 seconds, at once when a call reached the registry in between.
    pub async fn run_work(&self, handler: impl WorkHandler, stop: CancellationToken) {
        let handler = Arc::new(handler);
        let _ = stop
            .run_until_cancelled(async {
                let mut pause = SHORTEST_PAUSE;
                let mut last_code = String::new();
                loop {
                    let began = Instant::now();
                    let refusal = self.work(&handler).await;
                    if refusal.code != last_code {
                        tracing::info!(%refusal, "the work channel to the registry is down");
                        last_code.clone_from(&refusal.code);
                    }
                    if began.elapsed() > LONGEST_PAUSE {
                        pause = SHORTEST_PAUSE;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.0.reached.notified() => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            })
            .await;
    }

    /// Polls and carries out until the connection fails.
    async fn work<H: WorkHandler>(&self, handler: &Arc<H>) -> Refusal {
        if let Err(refusal) = self.settle().await {
            return refusal;
        }
        let mut connection = match Connection::open(&self.0.peer).await {
            Ok(connection) => connection,
            Err(why) => return self.refusal(why),
        };
        let path = format!("/v1/work?instance={}", self.0.introduction.instance);
        let places = Arc::new(Semaphore::new(MOST_ORDERS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return self.refusal(Unanswered::Broken("the server stops".to_owned()));
            };
            let deadline = Instant::now() + POLL_TIMEOUT;
            let answer = match connection
                .request(Method::GET, &path, Vec::new(), deadline)
                .await
            {
                Ok(answer) => answer,
                Err(why) => return self.refusal(why),
            };
            match answer.status {
                StatusCode::NO_CONTENT => {}
                StatusCode::OK => match answer.read::<Work>() {
                    Ok(work) => {
                        let (client, handler) = (self.clone(), Arc::clone(handler));
                        // It goes on when the connection ends: what was to be ended must be ended.
                        tokio::spawn(async move {
                            carry_out(client, handler, work).await;
                            drop(place);
                        });
                    }
                    Err(refusal) => return refusal,
                },
                _ => return answer.refusal(),
            }
        }
    }

    fn refusal(&self, why: Unanswered) -> Refusal {
        match why {
            Unanswered::Refused(refusal) => refusal,
            Unanswered::Broken(reason) => {
                super::connection::unreachable(&self.0.peer.socket, &reason)
            }
        }
    }
}

async fn carry_out<H: WorkHandler>(client: EffectClient, handler: Arc<H>, work: Work) {
    let mut order = JoinSet::new();
    order.spawn(async move { handler.carry_out(work.order).await });
    let failed = |code: &str, message: String| WorkResult::Failed {
        code: code.to_owned(),
        message,
    };
    let result = match tokio::time::timeout(ORDER_TIMEOUT, order.join_next()).await {
        Ok(Some(Ok(result))) => result,
        Ok(_) => failed(
            "INTERNAL",
            "the order failed inside the effect server".to_owned(),
        ),
        Err(_) => failed(
            "TIMED_OUT",
            format!("not carried out within {} s", ORDER_TIMEOUT.as_secs()),
        ),
    };
    if let Err(why) = answer(&client, &work.id, &result).await {
        tracing::warn!(refusal = %client.refusal(why), "the answer to an order is lost");
    }
}

/// On a connection of its own, as the next poll already waits on the other one.
async fn answer(client: &EffectClient, id: &str, result: &WorkResult) -> Result<(), Unanswered> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if id.is_empty() || !id.bytes().all(is_plain) {
        return Err(Unanswered::Broken("the order has an unusual id".to_owned()));
    }
    let body = serde_json::to_vec(result).map_err(|error| Unanswered::Broken(error.to_string()))?;
    let mut connection = Connection::open(&client.0.peer).await?;
    let deadline = Instant::now() + Duration::from_secs(5);
    let answer = connection
        .request(Method::POST, &format!("/v1/work/{id}"), body, deadline)
        .await?;
    if answer.status.is_success() {
        Ok(())
    } else {
        Err(Unanswered::Refused(answer.refusal()))
    }
}
