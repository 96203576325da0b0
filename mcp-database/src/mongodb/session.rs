//! A session of one call, which ends at the server when the call does: also when the call is given up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::{SelectionCriteria, ServerAddress};
use mongodb::{Client, ClientSession};
use tokio::runtime::Handle;

use super::error::MongoError;

/// How long the server is asked to end what was given up.
const KILLING: Duration = Duration::from_secs(10);

/// The session. Unless [`Self::finish`] was called, everything that runs in it is killed when it is dropped.
pub(super) struct Session {
    /// There until it is dropped.
    inner: Option<ClientSession>,
    client: Client,
    runtime: Handle,
    is_finished: bool,
}

impl Session {
    pub(super) async fn start(client: &Client, limit: Duration) -> Result<Self, MongoError> {
        let inner = client.start_session().await;
        let inner = inner.map_err(|error| MongoError::of(&error, limit))?;
        Ok(Self {
            inner: Some(inner),
            client: client.clone(),
            runtime: Handle::current(),
            is_finished: false,
        })
    }

    pub(super) fn get(&mut self) -> Result<&mut ClientSession, MongoError> {
        self.inner.as_mut().ok_or(MongoError::Ended)
    }

    /// Nothing runs in it any more.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
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
