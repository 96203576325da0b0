//! A query that is open: a task that has its connection, gives page after page, and when nobody waits any more has the server end it.

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::connect::Connection;
use super::error::Error;
use super::read::{Ask, Reading};
use super::task::GRACE;
use crate::cursor::{NextPart, Rest};
use crate::table::{Answer, Budget, Truncation};

/// A page that somebody waits for.
struct Turn {
    budget: Budget,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Answer, Error>>;

/// How a query ended, which decides what becomes of its connection.
enum End {
    /// Others can have it.
    Usable,
    /// It can only be closed.
    Broken,
    /// Something may still run on it.
    Running,
}

/// Asks a query on a connection of its own.
pub(super) async fn query(
    connection: Connection,
    ask: Ask,
    allowed: Vec<String>,
    budget: Budget,
) -> Result<(Answer, Option<Box<dyn Rest>>), Error> {
    let (reply, answered) = oneshot::channel();
    let (turns, turn) = mpsc::channel(1);
    tokio::spawn(serve(
        connection,
        ask,
        allowed,
        Turn { budget, reply },
        turn,
    ));
    let answer = answered.await.map_err(|_| ended())??;
    let goes_on = matches!(
        answer.rows.truncated(),
        Some(Truncation::Rows | Truncation::Bytes)
    );
    let rest = goes_on.then(|| Box::new(OpenResult { turns }) as Box<dyn Rest>);
    Ok((answer, rest))
}

/// What is left of a result; the task behind it ends when this is dropped.
struct OpenResult {
    turns: mpsc::Sender<Turn>,
}

impl Rest for OpenResult {
    fn next(&mut self, budget: Budget) -> NextPart<'_> {
        Box::pin(async move {
            let (reply, answered) = oneshot::channel();
            let sent = self.turns.send(Turn { budget, reply }).await;
            sent.map_err(|_| ended())?;
            Ok(answered.await.map_err(|_| ended())??)
        })
    }
}

fn ended() -> Error {
    Error::Lost("its task has ended".to_owned())
}

async fn serve(
    mut connection: Connection,
    ask: Ask,
    allowed: Vec<String>,
    first: Turn,
    turns: mpsc::Receiver<Turn>,
) {
    match run(&mut connection, &ask, &allowed, first, turns).await {
        End::Usable => connection.give_back().await,
        End::Broken => connection.close(),
        End::Running => connection.cancel().await,
    }
}

async fn run(
    connection: &mut Connection,
    ask: &Ask,
    allowed: &[String],
    Turn {
        mut budget,
        mut reply,
    }: Turn,
    mut turns: mpsc::Receiver<Turn>,
) -> End {
    let longest = ask.timeout + GRACE;
    let mut deadline = Instant::now() + longest;
    let mut connection = Some(connection);
    let mut reading = None;
    loop {
        let next = async {
            if let Some(connection) = connection.take() {
                reading = Some(Reading::start(connection, ask, allowed).await?);
            }
            let reading = reading.as_mut().ok_or_else(ended)?;
            reading.page(budget).await
        };
        let answer = tokio::select! {
            biased;
            answer = next => answer,
            () = reply.closed() => return End::Running,
            () = tokio::time::sleep_until(deadline) => {
                // Nobody may be there any more; then it is told to nobody.
                let _ = reply.send(Err(Error::TimedOut(ask.timeout)));
                return End::Running;
            }
        };
        let answer = answer.map_err(|error| error.in_time(ask.timeout));
        let is_kept = !reading.as_ref().is_some_and(Reading::has_large_row);
        let is_running = reading.as_ref().is_some_and(Reading::is_running);
        let over = || match (is_running, is_kept) {
            (true, _) => End::Running,
            (false, true) => End::Usable,
            (false, false) => End::Broken,
        };
        let end = match &answer {
            Ok(answer) if answer.rows.goes_on() => None,
            Ok(_) => Some(over()),
            Err(error) if error.leaves_connection_usable() => Some(over()),
            Err(_) if is_running => Some(End::Running),
            Err(_) => Some(End::Broken),
        };
        let is_heard = reply.send(answer).is_ok();
        if let Some(end) = end {
            return end;
        }
        if !is_heard {
            return over();
        }
        match turns.recv().await {
            Some(turn) => Turn { budget, reply } = turn,
            None => return over(),
        }
        deadline = Instant::now() + longest;
    }
}
