//! A session of one call, which ends at the server when the call does: also when the call is given up.
//!
//! Some servers that speak the protocol have no sessions: of a call that is given up only the connection and the cursor are closed there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use futures_util::StreamExt as _;
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{SelectionCriteria, ServerAddress};
use mongodb::{Client, ClientSession, Cursor, SessionCursor};
use tokio::runtime::Handle;

use super::error::MongoError;

/// How long the server is asked to end what was given up.
const KILLING: Duration = Duration::from_secs(10);

/// The session. Unless [`Self::finish`] was called, everything that runs in it is killed when it is dropped.
pub(super) struct Session {
    /// There until it is dropped, if the server has sessions.
    inner: Option<ClientSession>,
    client: Client,
    runtime: Handle,
    is_finished: bool,
}

impl Session {
    pub(super) async fn start(
        client: &Client,
        has_sessions: bool,
        limit: Duration,
    ) -> Result<Self, MongoError> {
        let inner = if has_sessions {
            let inner = client.start_session().await;
            Some(inner.map_err(|error| MongoError::of(&error, limit))?)
        } else {
            None
        };
        Ok(Self {
            inner,
            client: client.clone(),
            runtime: Handle::current(),
            is_finished: false,
        })
    }

    pub(super) fn get(&mut self) -> Option<&mut ClientSession> {
        self.inner.as_mut()
    }

    /// Nothing runs in it any more.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Nothing runs in it any more if the server itself said how it came out; where only the line broke, it goes on there.
    pub(super) fn settle<T>(&mut self, outcome: &Result<T, Error>) {
        self.is_finished = match outcome {
            Ok(_) => true,
            Err(error) => matches!(
                *error.kind,
                ErrorKind::Command(_) | ErrorKind::ServerSelection { .. }
            ),
        };
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(session) = self.inner.take() else {
            return;
        };
        if self.is_finished {
            return;
        }
        let client = self.client.clone();
        self.runtime.spawn(async move {
            // Where nobody can be asked, the time limit that the server has of the call ends it.
            kill(&client, session.id()).await;
            // Not before now: the driver gives the id to the next call, which would be killed instead.
            drop(session);
        });
    }
}

/// A cursor, in its call's session if there is one.
pub(super) enum Batches {
    InSession(SessionCursor<RawDocumentBuf>),
    Alone(Cursor<RawDocumentBuf>),
}

impl Batches {
    /// The next document; `session` is the one it was opened in. A cursor whose next document was not waited for is of no use any more.
    pub(super) async fn next(
        &mut self,
        session: &mut Session,
    ) -> Option<Result<RawDocumentBuf, Error>> {
        match (self, session.get()) {
            (Self::InSession(cursor), Some(session)) => cursor.next(session).await,
            (Self::Alone(cursor), _) => cursor.next().await,
            (Self::InSession(_), None) => None,
        }
    }
}

/// Opens what a find, an aggregation or a command gives, in the session if there is one.
macro_rules! open {
    ($asked:expr, $session:expr) => {
        match $session.get() {
            Some(session) => $asked
                .session(session)
                .await
                .map(|cursor| $crate::mongodb::session::Batches::InSession(cursor)),
            None => $asked
                .await
                .map(|cursor| $crate::mongodb::session::Batches::Alone(cursor)),
        }
    };
}
pub(super) use open;

/// Ends what runs in the session at every server that may run it.
async fn kill(client: &Client, id: &Document) {
    let command = doc! { "killSessions": [id.clone()] };
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let looking = Arc::clone(&seen);
    let anywhere = SelectionCriteria::Predicate(Arc::new(move |server| {
        let address = server.address().to_string();
        looking
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(address);
        true
    }));
    let admin = client.database("admin");
    let first = admin
        .run_command(command.clone())
        .selection_criteria(anywhere);
    let Ok(Ok(_)) = tokio::time::timeout(KILLING, first.into_future()).await else {
        return;
    };
    let addresses: Vec<String> = {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().cloned().collect()
    };
    // The one that answered is asked again: which it was, nobody tells.
    if addresses.len() > 1 {
        for address in addresses {
            let Ok(address) = ServerAddress::parse(address) else {
                continue;
            };
            let this =
                SelectionCriteria::Predicate(Arc::new(move |server| *server.address() == address));
            let killing = admin.run_command(command.clone()).selection_criteria(this);
            drop(tokio::time::timeout(KILLING, killing.into_future()).await);
        }
    }
}
