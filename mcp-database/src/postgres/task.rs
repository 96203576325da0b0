//! Work on a connection of its own, which ends at the server when nobody waits for it any more or its time is over.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::connect::Connection;
use super::error::Error;

/// How long after the server should have ended a statement it is ended from here.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Does the work, and afterwards gives the connection back, closes it, or has the server end what runs on it.
pub(super) async fn run<T: Send + 'static>(
    mut connection: Connection,
    timeout: Duration,
    work: impl for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let (mut reply, answered) = oneshot::channel();
    tokio::spawn(async move {
        let done = tokio::select! {
            biased;
            done = work(&mut connection) => Some(done.map_err(|error| error.in_time(timeout))),
            () = reply.closed() => None,
            () = tokio::time::sleep(timeout + GRACE) => Some(Err(Error::TimedOut(timeout))),
        };
        let Some(done) = done else {
            return connection.cancel().await;
        };
        let error = done.as_ref().err();
        let is_late = matches!(error, Some(Error::TimedOut(_)));
        let is_usable = error.is_none_or(Error::leaves_connection_usable);
        // Nobody may be there any more; then it is told to nobody.
        let _ = reply.send(done);
        if is_late {
            connection.cancel().await;
        } else if is_usable {
            connection.give_back().await;
        } else {
            connection.close();
        }
    });
    answered
        .await
        .map_err(|_| Error::Lost("its task has ended".to_owned()))?
}
