//! From an address to a byte stream that has agreed on a version of Bolt, saying clearly who did
//! not speak TLS.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::Error;

/// The magic number, then four offers of `0, range, minor, major`: 5.8 down to 5.0, 4.4 down to
/// 4.2, and nothing.
const HANDSHAKE: [u8; 20] = [
    0x60, 0x60, 0xB0, 0x17, 0, 8, 8, 5, 0, 2, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0,
];

const SERVER_WITHOUT_TLS: &str =
    "the server does not answer with TLS: use bolt:// instead of bolt+s://";
const SERVER_WITH_TLS: &str = "the server speaks TLS: use bolt+s:// instead of bolt://";
const SERVER_MAY_WANT_TLS: &str = "the server closed the connection before a word: \
    if it requires TLS, use bolt+s:// instead of bolt://";

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// A name or an address; every address of a name is tried.
    pub host: String,
    /// The port, usually 7687.
    pub port: u16,
    /// Encryption; `None` sends everything in the clear, the password too.
    pub tls: Option<Tls>,
}

/// How to encrypt.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Which certificates are trusted.
    pub config: Arc<rustls::ClientConfig>,
    /// The name the server's certificate must carry.
    pub server_name: ServerName<'static>,
}

/// How to log in.
#[derive(Clone)]
pub enum Auth {
    /// The server has authentication switched off.
    None,
    /// A user of the server.
    Basic {
        /// The name.
        user: String,
        /// The password; no error and no `Debug` output shows it.
        password: String,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("None"),
            Self::Basic { user, .. } => formatter
                .debug_struct("Basic")
                .field("user", user)
                .finish_non_exhaustive(),
        }
    }
}

/// A TCP or a TLS stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A version of Bolt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u8,
    pub(super) minor: u8,
}

/// Connects, encrypts and agrees on a version; sets no time limit itself.
pub(super) async fn open(endpoint: &Endpoint) -> Result<(Box<dyn Stream>, Version), Error> {
    let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    // Requests are written whole, so waiting for more to send would only delay them.
    tcp.set_nodelay(true)?;
    let mut stream: Box<dyn Stream> = match &endpoint.tls {
        None => Box::new(tcp),
        Some(Tls {
            config,
            server_name,
        }) => {
            let connector = TlsConnector::from(Arc::clone(config));
            Box::new(
                connector
                    .connect(server_name.clone(), tcp)
                    .await
                    .map_err(tls_error)?,
            )
        }
    };
    let answer = exchange_versions(&mut stream)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                if endpoint.tls.is_none() =>
            {
                Error::TlsMismatch(SERVER_MAY_WANT_TLS)
            }
            _ => Error::Io(error),
        })?;
    let version = match answer {
        [0, 0, minor, major] if matches!((major, minor), (5, 0..=8) | (4, 2..=4)) => {
            Version { major, minor }
        }
        // A TLS alert or handshake record.
        [0x15 | 0x16, 3, _, _] => return Err(Error::TlsMismatch(SERVER_WITH_TLS)),
        [b'H', b'T', b'T', b'P'] => {
            return Err(Error::Protocol(
                "it answers in HTTP; Bolt has a port of its own, usually 7687".to_owned(),
            ));
        }
        [0, 0, 0, 0] => {
            return Err(Error::Protocol(
                "it knows none of the versions 5.0 to 5.8 and 4.2 to 4.4".to_owned(),
            ));
        }
        other => {
            return Err(Error::Protocol(format!(
                "its handshake answer is {other:02x?}"
            )));
        }
    };
    Ok((stream, version))
}

async fn exchange_versions(stream: &mut dyn Stream) -> io::Result<[u8; 4]> {
    stream.write_all(&HANDSHAKE).await?;
    stream.flush().await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A server without TLS either hangs up on the greeting or answers with something that is no TLS
/// record.
fn tls_error(error: io::Error) -> Error {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::InvalidMessage(_)) => Error::TlsMismatch(SERVER_WITHOUT_TLS),
        Some(refused) => Error::Tls(refused.to_string()),
        None if matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ) =>
        {
            Error::TlsMismatch(SERVER_WITHOUT_TLS)
        }
        None => Error::Io(error),
    }
}
