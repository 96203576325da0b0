//! Connections to one server, made when they are needed, reset before they are used again, and thrown away once they are damaged.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::address::Address;
use super::bolt::{
    self, Access, Auth, Batch, Connection, Endpoint, Map, Query, TransactionOptions, Value, entry,
    terminate_tagged,
};
use super::error::GraphError;
use crate::source::{Password, Settings, SourceError, Tls};
use crate::tls;

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long a connection may take to be ready for the next call, or to give up what it runs.
const RESETTING: Duration = Duration::from_millis(500);
/// How long it may take to end from outside what a connection did not give up.
const TERMINATING: Duration = Duration::from_secs(3);
/// How long a refused login is not tried again: the server counts attempts, and locks the user out.
const REFUSED: Duration = Duration::from_secs(5);
/// Memory that one message, and the rows of one pull, may take.
const MEMORY: bolt::Limits = bolt::Limits {
    max_message_bytes: 16 * 1024 * 1024,
    max_batch_bytes: 64 * 1024 * 1024,
};
/// Under which name a transaction tells whose it is.
const TAG: &str = "call";

/// The connections of a source.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    id: String,
    address: Address,
    /// Read at the start if the source names files, else at the first connection.
    tls: Tls,
    tls_config: OnceLock<Arc<ClientConfig>>,
    server_name: Option<ServerName<'static>>,
    password: Option<Password>,
    slots: Arc<Semaphore>,
    most_idle: usize,
    idle: Mutex<Vec<Connection>>,
    refused: Mutex<Option<(Instant, String, String)>>,
}

/// A connection that one call has for itself. Dropped while it is at work, it ends that at the server.
pub(super) struct Session {
    connection: Option<Connection>,
    pool: Arc<Shared>,
    slot: Option<OwnedSemaphorePermit>,
    tag: String,
}

impl Pool {
    /// Connects to nothing yet.
    pub(super) fn new(settings: &Settings, address: Address) -> Result<Self, SourceError> {
        let tls_config = OnceLock::new();
        let mut server_name = None;
        if address.tls {
            let name = ServerName::try_from(address.host.clone());
            server_name = Some(name.map_err(|_| SourceError::Url {
                id: settings.id.clone(),
                reason: format!("`{}` is no name that a certificate has", address.host),
            })?);
            if matches!(settings.tls, Tls::Verified { .. }) {
                let config = Arc::new(tls::config(&settings.id, &settings.tls)?);
                tls_config.get_or_init(|| config);
            }
        }
        Ok(Self(Arc::new(Shared {
            id: settings.id.clone(),
            address,
            tls: settings.tls.clone(),
            tls_config,
            server_name,
            password: settings.password.clone(),
            slots: Arc::new(Semaphore::new(settings.limits.concurrent.max(1))),
            most_idle: settings.limits.concurrent.max(1),
            idle: Mutex::default(),
            refused: Mutex::default(),
        })))
    }

    /// A connection that is ready, once there is a free place for one.
    pub(super) async fn session(&self) -> Result<Session, GraphError> {
        let slots = Arc::clone(&self.0.slots);
        // It is never closed.
        let slot = slots.acquire_owned().await.ok();
        let mut session = Session {
            connection: None,
            pool: Arc::clone(&self.0),
            slot,
            tag: format!("{:016x}", RandomState::new().build_hasher().finish()),
        };
        while let Some(mut connection) = self.0.take_idle() {
            // What comes back with an error, or not at all, has died while it was not used.
            if let Ok(Ok(())) = tokio::time::timeout(RESETTING, connection.reset()).await {
                session.connection = Some(connection);
                return Ok(session);
            }
        }
        session.connection = Some(self.0.connect().await?);
        Ok(session)
    }

    /// Where it leads.
    pub(super) fn address(&self) -> &Address {
        &self.0.address
    }
}

impl Shared {
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }

    fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most_idle && connection.is_idle() {
            idle.push(connection);
        }
    }

    async fn connect(&self) -> Result<Connection, GraphError> {
        if let Some(error) = self.refused_lately() {
            return Err(error);
        }
        let tls = match &self.server_name {
            None => None,
            Some(server_name) => {
                let config = if let Some(config) = self.tls_config.get() {
                    Arc::clone(config)
                } else {
                    let config = Arc::new(tls::config(&self.id, &self.tls)?);
                    Arc::clone(self.tls_config.get_or_init(|| config))
                };
                Some(bolt::Tls {
                    config,
                    server_name: server_name.clone(),
                })
            }
        };
        let endpoint = Endpoint {
            host: self.address.host.clone(),
            port: self.address.port,
            tls,
        };
        let auth = self.auth()?;
        let connected = Connection::connect(&endpoint, &auth, MEMORY, CONNECTING).await;
        connected.map_err(|error| {
            let error = GraphError::connecting(error);
            if let GraphError::Login { code, message } = &error {
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                *refused = Some((Instant::now(), code.clone(), message.clone()));
            }
            error
        })
    }

    fn refused_lately(&self) -> Option<GraphError> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (when, code, message) = refused.as_ref()?;
        (when.elapsed() < REFUSED).then(|| GraphError::Login {
            code: code.clone(),
            message: message.clone(),
        })
    }

    fn auth(&self) -> Result<Auth, SourceError> {
        let user = self.address.user.clone();
        Ok(match &self.password {
            None if user.is_none() => Auth::None,
            None => Auth::Basic {
                user: user.unwrap_or_default(),
                password: String::new(),
            },
            Some(password) => Auth::Basic {
                user: user.unwrap_or_else(|| "neo4j".to_owned()),
                password: password.read()?.to_string(),
            },
        })
    }
}

impl Session {
    /// The connection.
    pub(super) fn connection(&mut self) -> Result<&mut Connection, GraphError> {
        self.connection
            .as_mut()
            .ok_or_else(|| GraphError::Connection("it is gone".to_owned()))
    }

    /// The frame of what this session runs, by which it can be found again.
    pub(super) fn options(&self, access: Access, timeout: Duration) -> TransactionOptions {
        TransactionOptions {
            access,
            database: self.pool.address.database.clone(),
            timeout: Some(timeout),
            metadata: vec![entry("app", "mcp-database"), entry(TAG, self.tag.as_str())],
        }
    }

    /// Runs a statement of ours, and pulls its first rows; the rest of them is given up.
    pub(super) async fn run(
        &mut self,
        text: String,
        parameters: Map,
        options: &TransactionOptions,
        most: u32,
    ) -> Result<Batch, GraphError> {
        let query = Query { text, parameters };
        let connection = self.connection()?;
        let (_, mut batch) = connection
            .run_and_pull(&query, options, most)
            .await
            .map_err(GraphError::of)?;
        if batch.summary.is_none() {
            batch.summary = Some(connection.discard().await.map_err(GraphError::of)?);
        }
        Ok(batch)
    }

    /// The rows alone.
    pub(super) async fn rows(
        &mut self,
        text: impl Into<String>,
        parameters: Map,
        options: &TransactionOptions,
        most: u32,
    ) -> Result<Vec<Vec<Value>>, GraphError> {
        Ok(self
            .run(text.into(), parameters, options, most)
            .await?
            .records)
    }

    /// Makes its place free for another call, while it goes on to hold what it has open.
    pub(super) fn leave_slot(&mut self) {
        self.slot = None;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if connection.is_idle() {
            self.pool.put_back(connection);
            return;
        }
        if connection.is_closed() {
            return;
        }
        // Without a runtime the socket is closed, which ends what it runs, too.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (pool, slot, tag) = (
            Arc::clone(&self.pool),
            self.slot.take(),
            std::mem::take(&mut self.tag),
        );
        runtime.spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(RESETTING, connection.reset()).await {
                pool.put_back(connection);
                return;
            }
            drop(connection);
            drop(slot);
            // Whatever hides the end of the connection from the server does not hide this.
            let terminating = async {
                let mut other = pool.connect().await?;
                terminate_tagged(&mut other, TAG, &tag)
                    .await
                    .map_err(GraphError::of)
            };
            drop(tokio::time::timeout(TERMINATING, terminating).await);
        });
    }
}
