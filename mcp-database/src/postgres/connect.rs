//! Connections to a PostgreSQL server: made when they are needed, with the limits of the source set at their start, and cleaned before
//! somebody else gets them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, NoTls, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::Error;
use crate::source::{Mode, Settings, SourceError};
use crate::tls;

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a call waits for a connection that another has.
const WAIT_AT_MOST: Duration = Duration::from_secs(10);
/// How long asking a server to end a statement may take.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);
/// How often a server is asked for it, and after how long the next time.
const MOST_CANCELS: usize = 10;
const CANCEL_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long a transaction may be idle: an open result that nobody reads on is over before.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(150);
/// How long a statement waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections for results that are read on, beside those for calls.
const FOR_OPEN_RESULTS: usize = 16;
/// Undoes what a statement may have left in its session; nothing that the driver has prepared.
pub(super) const CLEAN: &str = "CLOSE ALL; RESET ROLE; RESET ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";
/// Drops what clients like this one have left in a session that a pooler gives to one after the other: the driver counts the names of
/// its prepared statements from s0 in every process.
const FREE_NAMES: &str = "DO $$ DECLARE n text; BEGIN FOR n IN SELECT name FROM pg_catalog.pg_prepared_statements \
WHERE name OPERATOR(pg_catalog.~) '^s[0-9]+$' LOOP EXECUTE pg_catalog.format('DEALLOCATE %I', n); END LOOP; END $$; ";

/// What makes connections.
#[derive(Debug)]
pub(super) struct Connector {
    config: Config,
    /// Where the server is, for people.
    place: String,
    is_protected: bool,
    pool: Mutex<Option<Made>>,
}

#[derive(Debug, Clone)]
struct Made {
    pool: Pool,
    tls: Option<MakeRustls>,
    shared: Option<Arc<str>>,
}

#[derive(Clone)]
struct MakeRustls(MakeRustlsConnect);

impl std::fmt::Debug for MakeRustls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MakeRustls")
    }
}

/// A connection, with what cancels on it.
pub(super) struct Connection {
    object: Option<Object>,
    token: CancelToken,
    tls: Option<MakeRustls>,
    /// What a transaction begins with where a pooler shares the sessions behind it, which refused the limits of the source at the
    /// start: nothing of what others have left, and the path of the source.
    shared: Option<Arc<str>>,
    is_spoiled: bool,
    /// Whether it is in a transaction that nothing but giving it back ends.
    is_begun: bool,
}

impl Connector {
    /// Reads the URL; connects nowhere.
    ///
    /// # Errors
    /// No URL of PostgreSQL, or a password in it.
    pub(super) fn open(settings: &Settings) -> Result<Self, SourceError> {
        let wrong = |reason: String| SourceError::Url {
            id: settings.id.clone(),
            reason,
        };
        let is_url = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| settings.url.starts_with(scheme));
        if !is_url {
            return Err(wrong("it does not begin with postgres://".to_owned()));
        }
        let mut config: Config = settings
            .url
            .parse()
            .map_err(|error: tokio_postgres::Error| {
                use std::error::Error as _;
                wrong(
                    error
                        .source()
                        .map_or_else(|| error.to_string(), ToString::to_string),
                )
            })?;
        if settings.url.contains("sslmode=") {
            return Err(wrong(
                "`sslmode` is not taken from it: off this machine TLS is always verified, on it there is none; ca_file, client_cert_file and tls = \"verify\" or \"disable\" say otherwise"
                    .to_owned(),
            ));
        }
        if config.get_password().is_some() {
            return Err(SourceError::PasswordInUrl(settings.id.clone()));
        }
        let hosts: Vec<String> = config.get_hosts().iter().map(host_name).collect();
        let is_protected = tls::is_wanted(settings, hosts.iter().map(String::as_str))?;
        config
            .application_name("mcp-database")
            .connect_timeout(CONNECT_WITHIN)
            .ssl_mode(if is_protected {
                SslMode::Require
            } else {
                SslMode::Disable
            });
        let ports = config.get_ports().iter();
        let ports: Vec<String> = ports.map(ToString::to_string).collect();
        let port = if ports.is_empty() {
            "5432".to_owned()
        } else {
            ports.join(",")
        };
        Ok(Self {
            config,
            place: format!("{}:{port}", hosts.join(",")),
            is_protected,
            pool: Mutex::new(None),
        })
    }

    /// A connection that nobody else has.
    ///
    /// # Errors
    /// None can be made, or all are in use.
    pub(super) async fn connection(&self, settings: &Settings) -> Result<Connection, Error> {
        let made = match self.made() {
            Some(made) => made,
            None => self.make(settings, true)?,
        };
        match self.take(&made).await {
            // A pooler that shares connections refuses what would be theirs alone.
            Err(Error::Server(server))
                if made.shared.is_none() && server.message.contains("startup parameter") =>
            {
                self.take(&self.make(settings, false)?).await
            }
            taken => taken,
        }
    }

    async fn take(&self, made: &Made) -> Result<Connection, Error> {
        let object = made.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => Error::Exhausted,
            PoolError::Backend(error) => self.not_made(&error),
            PoolError::Timeout(_) => Error::Unreachable(format!(
                "{} did not let us in within {} s",
                self.place,
                CONNECT_WITHIN.as_secs()
            )),
            error => Error::Unreachable(error.to_string()),
        })?;
        Ok(Connection {
            token: object.cancel_token(),
            object: Some(object),
            tls: made.tls.clone(),
            shared: made.shared.clone(),
            // What the driver keeps for the next time is in a session that somebody else has then.
            is_spoiled: made.shared.is_some(),
            is_begun: false,
        })
    }

    /// Why there is no connection; where it is the password, the next call reads it anew.
    fn not_made(&self, error: &tokio_postgres::Error) -> Error {
        let error = match Error::outside(error) {
            Error::Lost(reason) | Error::Unreachable(reason) => {
                Error::Unreachable(format!("{}: {reason}", self.place))
            }
            error => error,
        };
        let is_password = [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        ];
        let no_password =
            matches!(&error, Error::Unreachable(reason) if reason.contains("password"));
        if no_password
            || error
                .state()
                .is_some_and(|state| is_password.contains(state))
        {
            *self.lock() = None;
        }
        error
    }

    fn made(&self) -> Option<Made> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Made>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, settings: &Settings, with_options: bool) -> Result<Made, Error> {
        let mut config = self.config.clone();
        if let Some(password) = &settings.password {
            config.password(password.read()?.as_bytes());
        }
        if with_options {
            let given = self.config.get_options().unwrap_or_default();
            config.options(format!("{given} {}", options(settings)).trim());
        }
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let tls = if self.is_protected {
            let config = tls::config(&settings.id, &settings.tls)?;
            Some(MakeRustls(MakeRustlsConnect::new(config)))
        } else {
            None
        };
        let manager = match &tls {
            Some(MakeRustls(tls)) => Manager::from_config(config, tls.clone(), recycling),
            None => Manager::from_config(config, NoTls, recycling),
        };
        let pool = Pool::builder(manager)
            .max_size(settings.limits.concurrent + FOR_OPEN_RESULTS)
            .wait_timeout(Some(WAIT_AT_MOST))
            .create_timeout(Some(CONNECT_WITHIN))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        let made = Made {
            pool,
            tls,
            shared: (!with_options).then(|| format!("{FREE_NAMES}{}", path(settings)).into()),
        };
        *self.lock() = Some(made.clone());
        Ok(made)
    }
}

impl Connection {
    /// To ask with.
    ///
    /// # Errors
    /// It was given away.
    fn client(&mut self) -> Result<&mut Object, Error> {
        self.object
            .as_mut()
            .ok_or_else(|| Error::Lost("it was given up".to_owned()))
    }

    /// Whether a pooler shares the sessions behind it.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// What the next transaction on it begins with; once it has taken its snapshot, nobody makes it READ WRITE again.
    pub(super) fn opening(&self, timeout: Duration, local: &str) -> String {
        let shared = self.shared.as_deref().unwrap_or_default();
        let milliseconds = timeout.as_millis();
        format!(
            "{shared}SET LOCAL standard_conforming_strings = on; SET LOCAL statement_timeout = {milliseconds}; {local}; SELECT 1"
        )
    }

    /// A transaction that ends when it is dropped.
    ///
    /// # Errors
    /// It cannot be begun.
    pub(super) async fn transaction(
        &mut self,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Transaction<'_>, Error> {
        let failed = |error: tokio_postgres::Error| Error::outside(&error);
        let opening = self.opening(timeout, "");
        let client: &mut Client = self.client()?;
        let transaction = client.build_transaction().read_only(mode == Mode::Read);
        let transaction = transaction.start().await.map_err(failed)?;
        transaction.batch_execute(&opening).await.map_err(failed)?;
        Ok(transaction)
    }

    /// To begin a transaction with that lasts until it is given back.
    ///
    /// # Errors
    /// It was given away.
    pub(super) fn begin(&mut self) -> Result<&Client, Error> {
        self.is_begun = true;
        let client: &Client = self.client()?;
        Ok(client)
    }

    /// Has the server end what runs on it, and closes it.
    pub(super) async fn cancel(self) {
        for _ in 0..MOST_CANCELS {
            let cancelling = async {
                match self.tls.clone() {
                    Some(MakeRustls(tls)) => self.token.cancel_query(tls).await,
                    None => self.token.cancel_query(NoTls).await,
                }
            };
            match tokio::time::timeout(CANCEL_WITHIN, cancelling).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a statement could not be cancelled at the server");
                    break;
                }
                Err(_) => {
                    tracing::warn!("a statement could not be cancelled at the server in time");
                    break;
                }
            }
            // What was still on its way when the server was told begins afterwards; whatever answers now was sent behind it.
            let Some(object) = &self.object else { break };
            let answered = tokio::time::timeout(CANCEL_AGAIN_AFTER, object.batch_execute("")).await;
            if answered.is_ok() {
                break;
            }
        }
        self.close();
    }

    /// Closes it.
    pub(super) fn close(mut self) {
        // Taken out of its pool it is dropped, and with that closed.
        drop(self.object.take().map(Object::take));
    }

    /// Leaves something in the session that no cleaning takes out: nobody gets it afterwards.
    pub(super) fn spoil(&mut self) {
        self.is_spoiled = true;
    }

    /// Gives it back, without anything that was left in it.
    pub(super) async fn give_back(self) {
        let ending = match (self.is_begun, self.is_spoiled) {
            // Locks of a session outlive a rollback, and behind a pooler nothing comes afterwards.
            (true, true) => "SELECT pg_catalog.pg_advisory_unlock_all(); ROLLBACK".to_owned(),
            (false, true) => return self.close(),
            (true, false) => ["ROLLBACK; ", CLEAN].concat(),
            (false, false) => CLEAN.to_owned(),
        };
        let Some(object) = &self.object else { return };
        let ended = tokio::time::timeout(CANCEL_WITHIN, object.batch_execute(&ending)).await;
        if self.is_spoiled || !matches!(ended, Ok(Ok(()))) {
            self.close();
        }
    }
}

/// The settings that every session of a source begins with.
fn options(settings: &Settings) -> String {
    let milliseconds = |duration: Duration| duration.as_millis();
    let mut options = format!(
        "-c statement_timeout={} -c idle_in_transaction_session_timeout={} -c lock_timeout={}",
        milliseconds(settings.limits.longest_timeout),
        milliseconds(IDLE_IN_TRANSACTION),
        milliseconds(LOCK_TIMEOUT),
    );
    if settings.mode == Mode::Read {
        options.push_str(" -c default_transaction_read_only=on");
    }
    if let Some(path) = &settings.special.search_path {
        // Blanks and backslashes end or escape an option.
        let path = path.replace('\\', "\\\\").replace(' ', "\\ ");
        options.push_str(" -c search_path=");
        options.push_str(&path);
    }
    options
}

/// The role and the path of a source, whatever others have left in a session.
fn path(settings: &Settings) -> String {
    let path = match &settings.special.search_path {
        Some(path) => {
            let path = path.replace('\'', "''");
            format!("SELECT pg_catalog.set_config('search_path', '{path}', true)")
        }
        None => "SET LOCAL search_path TO DEFAULT".to_owned(),
    };
    format!("SET LOCAL ROLE NONE; {path}; ")
}

fn host_name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}
