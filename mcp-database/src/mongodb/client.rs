//! A source that is MongoDB: how it is reached, and how a call is kept to its time.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::{
    ClientOptions, ConnectionString, HostInfo, ReadPreference, SelectionCriteria, ServerAddress,
    Tls as DriverTls, TlsOptions,
};
use mongodb::{Client, Collection, Database};
use serde::Serialize;
use tokio::sync::Mutex;

use super::error::MongoError;
use super::session::Session;
use crate::source::{Mode, Settings, SourceError, Tls, is_loopback};

/// How long a server is looked for.
const SELECTION: Duration = Duration::from_secs(5);
/// How much longer than the server we wait ourselves, so that its own words come first.
const GRACE: Duration = Duration::from_millis(500);
/// Connections beside those of running calls: of results that are kept, and of what ends calls that were given up.
const FURTHER_CONNECTIONS: usize = 20;
/// Options of URLs that are secret, or undo what the source's `tls` says.
const NOT_IN_URL: [&str; 6] = [
    "authmechanismproperties",
    "proxypassword",
    "tlscertificatekeyfilepassword",
    "tlsinsecure",
    "tlsallowinvalidcertificates",
    "tlsallowinvalidhostnames",
];
/// Where systems have their authorities.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is on the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Server {
    /// `8.0.4`; empty where it does not tell.
    pub version: String,
    /// Largest version of the wire protocol.
    pub wire_version: i32,
    /// How many servers there are, and how they hang together.
    pub topology: Topology,
    /// Name of the replica set.
    pub replica_set: Option<String>,
    /// Calls have sessions, by which they are ended at the server.
    pub has_sessions: bool,
}

impl Server {
    /// What it is, and what it has of what not every server has: for [`crate::database`].
    pub(crate) fn features(&self) -> Vec<String> {
        let topology = match (self.topology, &self.replica_set) {
            (Topology::Standalone, _) => "standalone".to_owned(),
            (Topology::ReplicaSet, None) => "replica set".to_owned(),
            (Topology::ReplicaSet, Some(name)) => format!("replica set {name}"),
            (Topology::Sharded, _) => "sharded".to_owned(),
        };
        let sessions = self.has_sessions.then(|| "sessions".to_owned());
        std::iter::once(topology).chain(sessions).collect()
    }
}

/// How servers hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// One by itself.
    Standalone,
    /// A replica set.
    ReplicaSet,
    /// Shards behind a router.
    Sharded,
}

/// A source that is MongoDB. Nobody is spoken to before the first call.
pub struct Mongodb {
    settings: Settings,
    address: ConnectionString,
    reads: Option<ReadPreference>,
    /// Set anew after a refused login, so that a changed password is read.
    connected: Mutex<Option<Connected>>,
}

/// A client, which finds and keeps its connections itself, and what was heard of the server through it.
#[derive(Clone)]
struct Connected {
    client: Client,
    server: Arc<OnceLock<Server>>,
}

impl Mongodb {
    /// What a source's settings say, checked without asking anybody.
    ///
    /// # Errors
    /// A URL that is none, has a password or what undoes TLS in it, or leads to another machine without TLS; a read preference that is
    /// none.
    pub fn open(settings: &Settings) -> Result<Self, SourceError> {
        let wrong = |reason: String| SourceError::Url {
            id: settings.id.clone(),
            reason,
        };
        if has_password(&settings.url) {
            return Err(SourceError::PasswordInUrl(settings.id.clone()));
        }
        if let Some(name) = forbidden_option(&settings.url) {
            return Err(wrong(format!(
                "`{name}` may not stand in it; TLS is set by `tls`, and secrets are in files or variables"
            )));
        }
        // Without userinfo nothing secret is left that its errors could tell.
        let mut address = ConnectionString::parse(&settings.url)
            .map_err(|error| wrong(error.kind.to_string()))?;
        protect(&mut address, settings)?;
        let reads = match &settings.special.read_preference {
            Some(name) => Some(read_preference(name).ok_or_else(|| {
                wrong(format!(
                    "`{name}` is no read preference; there are primary, primaryPreferred, secondary, secondaryPreferred and nearest"
                ))
            })?),
            None => None,
        };
        Ok(Self {
            settings: settings.clone(),
            address,
            reads,
            connected: Mutex::new(None),
        })
    }

    /// What the operator says of it.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The database that the URL names, which is meant where a call names none.
    pub fn database_of_url(&self) -> Option<&str> {
        self.address.default_database.as_deref()
    }

    /// Which server it is; the first call connects.
    ///
    /// # Errors
    /// Why nobody can be spoken to.
    pub async fn server(&self, limit: Duration) -> Result<Server, MongoError> {
        self.within(limit, async {
            let (_, server) = self.connected(limit).await?;
            Ok(server)
        })
        .await
    }

    pub(super) fn must_write(&self) -> Result<(), MongoError> {
        match self.settings.mode {
            Mode::Write => Ok(()),
            Mode::Read => Err(MongoError::ReadOnly(self.settings.id.clone())),
        }
    }

    /// Where reads may go.
    pub(super) fn reads(&self) -> Option<SelectionCriteria> {
        let reads = self
            .reads
            .clone()
            .or_else(|| self.address.read_preference.clone());
        reads.map(SelectionCriteria::ReadPreference)
    }

    /// When the URL says a change is done.
    pub(super) fn write_concern(&self) -> Option<Document> {
        let concern = self.address.write_concern.as_ref()?;
        bson::serialize_to_document(concern)
            .ok()
            .filter(|concern| !concern.is_empty())
    }

    pub(super) async fn client(&self, limit: Duration) -> Result<Client, MongoError> {
        Ok(self.connected(limit).await?.0)
    }

    /// A session of a call's own.
    pub(super) async fn session(&self, limit: Duration) -> Result<Session, MongoError> {
        let (client, server) = self.connected(limit).await?;
        Session::start(&client, server.has_sessions, limit).await
    }

    pub(super) async fn database(
        &self,
        name: &str,
        limit: Duration,
    ) -> Result<Database, MongoError> {
        check_name("db", name, &['/', '\\', '.', ' ', '"', '$', '\0'], 63)?;
        Ok(self.client(limit).await?.database(name))
    }

    pub(super) async fn collection<T: Send + Sync>(
        &self,
        db: &str,
        coll: &str,
        limit: Duration,
    ) -> Result<Collection<T>, MongoError> {
        check_name("coll", coll, &['$', '\0'], 255)?;
        Ok(self.database(db, limit).await?.collection(coll))
    }

    /// The answer of a command of ours to the database `admin`, or another.
    pub(super) async fn command(
        &self,
        db: &str,
        mut command: Document,
        limit: Duration,
    ) -> Result<Document, MongoError> {
        command.insert("maxTimeMS", milliseconds(limit));
        let database = self.database(db, limit).await?;
        let mut running = database.run_command(command);
        if let Some(reads) = self.reads() {
            running = running.selection_criteria(reads);
        }
        let answer = running.await;
        self.told(answer, limit).await
    }

    /// Holds a call to its time here as well; what is in it is given up then.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, MongoError>>,
    ) -> Result<T, MongoError> {
        tokio::time::timeout(limit + GRACE, call)
            .await
            .unwrap_or(Err(MongoError::Timeout(limit)))
    }

    /// What the driver says, told apart; after a refused login the next call begins anew.
    pub(super) async fn told<T>(
        &self,
        outcome: Result<T, mongodb::error::Error>,
        limit: Duration,
    ) -> Result<T, MongoError> {
        match outcome {
            Ok(value) => Ok(value),
            Err(error) => {
                let error = MongoError::of(&error, limit);
                if matches!(error, MongoError::Authentication(_)) {
                    *self.connected.lock().await = None;
                }
                Err(error)
            }
        }
    }

    async fn connected(&self, limit: Duration) -> Result<(Client, Server), MongoError> {
        let connected = self.made(limit).await?;
        if let Some(server) = connected.server.get() {
            return Ok((connected.client, server.clone()));
        }
        // Without the lock: calls that wait for a dead server wait together.
        let heard = self
            .told(self.greet(&connected.client, limit).await, limit)
            .await?;
        self.check_members(&heard.0)?;
        let server = connected.server.get_or_init(|| server(&heard.0, heard.1));
        Ok((connected.client, server.clone()))
    }

    /// The client, made without asking any server; only a `mongodb+srv` name is looked up.
    async fn made(&self, limit: Duration) -> Result<Connected, MongoError> {
        let mut connected = self.connected.lock().await;
        if let Some(connected) = connected.as_ref() {
            return Ok(connected.clone());
        }
        let failed = |error: mongodb::error::Error| MongoError::of(&error, limit);
        let mut options = ClientOptions::parse(self.address.clone())
            .await
            .map_err(failed)?;
        if let Some(credential) = &mut options.credential
            && let Some(password) = &self.settings.password
        {
            // The driver keeps it as it is, for connections that it makes later.
            credential.password = Some(password.read()?.to_string());
        }
        options.server_selection_timeout = Some(SELECTION);
        options.connect_timeout = Some(SELECTION);
        options
            .app_name
            .get_or_insert_with(|| "mcp-database".to_owned());
        let connections = self
            .settings
            .limits
            .concurrent
            .saturating_add(FURTHER_CONNECTIONS);
        options.max_pool_size = Some(u32::try_from(connections).unwrap_or(u32::MAX));
        if let Some(reads) = self.reads() {
            options.selection_criteria = Some(reads);
        }
        let made = Connected {
            client: Client::with_options(options).map_err(failed)?,
            server: Arc::default(),
        };
        *connected = Some(made.clone());
        Ok(made)
    }

    /// What a server says of itself, and its version, which some may not ask.
    async fn greet(
        &self,
        client: &Client,
        limit: Duration,
    ) -> Result<(Document, String), mongodb::error::Error> {
        let admin = client.database("admin");
        let nearest = SelectionCriteria::ReadPreference(ReadPreference::Nearest { options: None });
        let hello = admin
            .run_command(doc! { "hello": 1 })
            .selection_criteria(nearest.clone())
            .await?;
        let build = admin
            .run_command(doc! { "buildInfo": 1 })
            .selection_criteria(nearest)
            .await;
        let version = match build {
            Ok(build) => build.get_str("version").unwrap_or_default().to_owned(),
            Err(error) => match MongoError::of(&error, limit) {
                MongoError::Unauthorized { .. } | MongoError::Server { .. } => String::new(),
                _ => return Err(error),
            },
        };
        Ok((hello, version))
    }

    /// A replica set tells where its members are: also those are on this machine where nothing is protected.
    fn check_members(&self, hello: &Document) -> Result<(), SourceError> {
        let is_protected = !matches!(self.address.tls, None | Some(DriverTls::Disabled));
        let follows = self.address.direct_connection != Some(true);
        if is_protected || !follows || self.settings.tls != Tls::OffLoopback {
            return Ok(());
        }
        for members in ["hosts", "passives", "arbiters"] {
            for member in hello.get_array(members).into_iter().flatten() {
                let address = member.as_str().unwrap_or_default();
                let host = ServerAddress::parse(address).map(|address| host(&address));
                if !host.as_ref().is_ok_and(|host| is_loopback(host)) {
                    return Err(SourceError::Unprotected {
                        id: self.settings.id.clone(),
                        host: address.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

fn server(hello: &Document, version: String) -> Server {
    let replica_set = hello.get_str("setName").ok().map(str::to_owned);
    let topology = if hello
        .get_str("msg")
        .is_ok_and(|message| message == "isdbgrid")
    {
        Topology::Sharded
    } else if replica_set.is_some() {
        Topology::ReplicaSet
    } else {
        Topology::Standalone
    };
    Server {
        version,
        wire_version: hello.get_i32("maxWireVersion").unwrap_or_default(),
        topology,
        replica_set,
        has_sessions: hello.contains_key("logicalSessionTimeoutMinutes"),
    }
}

/// Whether the userinfo of a URL has a password in it, however wrong the rest may be.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let before_options = rest.split('?').next().unwrap_or(rest);
    // A password that was not encoded may contain anything, also what ends a URL's parts.
    let userinfo = before_options
        .rsplit_once('@')
        .or_else(|| rest.rsplit_once('@'));
    userinfo.is_some_and(|(userinfo, _)| userinfo.contains(':'))
}

fn forbidden_option(url: &str) -> Option<&'static str> {
    let (_, options) = url.split_once('?')?;
    options.split('&').find_map(|option| {
        let name = option.split('=').next()?.to_ascii_lowercase();
        NOT_IN_URL.into_iter().find(|forbidden| *forbidden == name)
    })
}

/// Sets how the connection is protected, whatever the URL says of it.
fn protect(address: &mut ConnectionString, settings: &Settings) -> Result<(), SourceError> {
    let hosts: Vec<String> = match &address.host_info {
        HostInfo::HostIdentifiers(addresses) => addresses.iter().map(host).collect(),
        HostInfo::DnsRecord(name) => vec![name.clone()],
        _ => Vec::new(),
    };
    let is_local = hosts.iter().all(|host| is_loopback(host));
    let wants = match &address.tls {
        Some(DriverTls::Enabled(options)) => Some(options.clone()),
        _ => None,
    };
    let verified = |ca_file: Option<PathBuf>, client: Option<PathBuf>| {
        let authorities = ca_file.or_else(system_authorities);
        let mut options = TlsOptions::default();
        options.ca_file_path = authorities;
        options.cert_key_file_path = client;
        Some(DriverTls::Enabled(options))
    };
    address.tls = match &settings.tls {
        Tls::Disabled => Some(DriverTls::Disabled),
        Tls::OffLoopback if is_local && wants.is_none() => {
            // Other members, wherever they are, are not looked for unless the URL asks for them.
            if hosts.len() == 1 && address.replica_set.is_none() {
                address.direct_connection.get_or_insert(true);
            }
            Some(DriverTls::Disabled)
        }
        Tls::OffLoopback => verified(
            wants
                .as_ref()
                .and_then(|options| options.ca_file_path.clone()),
            wants.and_then(|options| options.cert_key_file_path),
        ),
        Tls::Verified { ca_file, client } => {
            let client = match client {
                Some(client) if client.cert_file != client.key_file => {
                    return Err(SourceError::Tls {
                        id: settings.id.clone(),
                        reason: "MongoDB's client wants certificate and key in one file; name it as both".to_owned(),
                    });
                }
                Some(client) => Some(client.cert_file.clone()),
                None => None,
            };
            verified(ca_file.clone(), client)
        }
    };
    Ok(())
}

/// The file of the system's authorities; without one the driver has those of Mozilla.
fn system_authorities() -> Option<PathBuf> {
    std::env::var_os("SSL_CERT_FILE")
        .map(PathBuf::from)
        .into_iter()
        .chain(AUTHORITIES.map(PathBuf::from))
        .find(|path| path.is_file())
}

fn host(address: &ServerAddress) -> String {
    match address {
        ServerAddress::Tcp { host, .. } => host.clone(),
        ServerAddress::Unix { path } => path.display().to_string(),
        _ => String::new(),
    }
}

fn read_preference(name: &str) -> Option<ReadPreference> {
    Some(match name {
        "primary" => ReadPreference::Primary,
        "primaryPreferred" => ReadPreference::PrimaryPreferred { options: None },
        "secondary" => ReadPreference::Secondary { options: None },
        "secondaryPreferred" => ReadPreference::SecondaryPreferred { options: None },
        "nearest" => ReadPreference::Nearest { options: None },
        _ => return None,
    })
}

/// How long a server may take, as it is told.
pub(super) fn milliseconds(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// What a server would misread, or take in silence.
fn check_name(
    argument: &str,
    name: &str,
    forbidden: &[char],
    longest: usize,
) -> Result<(), MongoError> {
    if name.is_empty() {
        return Err(MongoError::argument(argument, "it is empty"));
    }
    if let Some(one) = name.chars().find(|one| forbidden.contains(one)) {
        return Err(MongoError::argument(
            argument,
            format!(
                "`{}` cannot have `{}` in it",
                name.escape_debug(),
                one.escape_debug()
            ),
        ));
    }
    if name.len() > longest {
        return Err(MongoError::argument(
            argument,
            format!("it has {} bytes, and {longest} is the longest", name.len()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Engine, Limits, Special};

    fn settings(url: &str, tls: Tls) -> Settings {
        Settings {
            id: "m".to_owned(),
            engine: Engine::Mongodb,
            url: url.to_owned(),
            password: None,
            mode: Mode::Read,
            tls,
            limits: Limits::default(),
            special: Special::default(),
        }
    }

    #[test]
    fn a_url_with_a_password_is_refused_and_not_told() {
        for url in [
            "mongodb://u:hunter2@localhost/",
            "mongodb://u:hun/ter2@localhost/",
            "mongodb://u:hunter2?@localhost/",
            "mongodb+srv://u:hunter2@a.example.org/?x=hunter2",
            "mongodb://:hunter2@localhost",
            "u:hunter2@localhost",
        ] {
            let error = Mongodb::open(&settings(url, Tls::default())).err();
            assert!(
                matches!(&error, Some(SourceError::PasswordInUrl(id)) if id == "m"),
                "{url}"
            );
        }
        for url in [
            "mysql://localhost",
            "mongodb://",
            "mongodb://u@localhost/?tls=perhaps",
            "mongodb://localhost:port",
        ] {
            let error = Mongodb::open(&settings(url, Tls::default())).err();
            assert!(
                matches!(error, Some(SourceError::Url { .. })),
                "{url} {error:?}"
            );
        }
    }

    #[test]
    fn what_undoes_tls_does_not_stand_in_a_url() {
        for option in [
            "tlsInsecure=true",
            "tlsAllowInvalidCertificates=true",
            "TLSINSECURE=true",
        ] {
            let url = format!("mongodb://a.example.org/?tls=true&{option}");
            let error = Mongodb::open(&settings(&url, Tls::default())).err();
            assert!(matches!(error, Some(SourceError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn another_machine_is_reached_by_tls_and_this_one_is_not() -> anyhow::Result<()> {
        let is_protected = |url: &str, tls: Tls| -> anyhow::Result<bool> {
            let address = Mongodb::open(&settings(url, tls))?.address;
            Ok(
                matches!(address.tls, Some(DriverTls::Enabled(options)) if options.allow_invalid_certificates.is_none()),
            )
        };
        for (url, expected) in [
            ("mongodb://localhost", false),
            ("mongodb://127.0.0.1,[::1]:1", false),
            ("mongodb://localhost/?tls=true", true),
            ("mongodb://localhost.example.org", true),
            ("mongodb://localhost,a.example.org", true),
            ("mongodb://a.example.org/?tls=false", true),
            ("mongodb+srv://a.example.org", true),
        ] {
            assert_eq!(is_protected(url, Tls::OffLoopback)?, expected, "{url}");
        }
        assert!(!is_protected("mongodb://a.example.org", Tls::Disabled)?);
        Ok(())
    }

    #[test]
    fn a_read_preference_is_one_of_five() {
        let mut settings = settings("mongodb://localhost", Tls::default());
        for (name, is_one) in [
            ("nearest", true),
            ("secondaryPreferred", true),
            ("Nearest", false),
        ] {
            settings.special.read_preference = Some(name.to_owned());
            assert_eq!(Mongodb::open(&settings).is_ok(), is_one, "{name}");
        }
    }
}
