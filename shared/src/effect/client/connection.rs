//! One HTTP connection to the registry's `effect` socket, made only to a registry whose uid is expected.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::SendRequest,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    net::UnixStream,
    time::{Instant, timeout_at},
};

use super::super::protocol::Refusal;

/// Largest answer that is read.
const LARGEST_ANSWER_BYTES: usize = 1024 * 1024;
/// A registry on the same machine accepts at once, or is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the registry is, who may answer there, and how we show who we are.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) socket: PathBuf,
    /// Expected uid of the registry besides root's and our own.
    pub(super) registry_uid: Option<u32>,
    pub(super) authorization: HeaderValue,
}

/// A connection on which requests follow one another.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    peer: Arc<Peer>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nobody can be asked, or nobody who is trusted.
    Refused(Refusal),
    /// The connection broke or the time was up; the registry may have received the request.
    Broken(String),
}

/// An answer of the registry.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Connection {
    /// Connects, after making sure that the folder and the process behind the socket belong to whom they should.
    pub(super) async fn open(peer: &Arc<Peer>) -> Result<Self, Unanswered> {
        let unreachable = |reason: String| Unanswered::Refused(unreachable(&peer.socket, &reason));
        peer.check_folder().map_err(Unanswered::Refused)?;
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(&peer.socket));
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("it does not accept connections".to_owned())),
        };
        let uid = stream
            .peer_cred()
            .map_err(|error| unreachable(error.to_string()))?
            .uid();
        if !peer.trusts(uid) {
            return Err(Unanswered::Refused(
                peer.untrusted("the process behind it", uid),
            ));
        }
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        tokio::spawn(async move {
            // A broken connection shows in the request that is under way.
            let _ = driver.await;
        });
        Ok(Self {
            sender,
            peer: Arc::clone(peer),
        })
    }

    /// Sends one request and reads the whole answer, until the deadline.
    pub(super) async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        deadline: Instant,
    ) -> Result<Answer, Unanswered> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "registry")
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, self.peer.authorization.clone())
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Unanswered::Broken(error.to_string()))?;
        let exchange = async {
            self.sender
                .ready()
                .await
                .map_err(|error| error.to_string())?;
            let response = self
                .sender
                .send_request(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| error.to_string())?
                .to_bytes();
            Ok(Answer { status, body })
        };
        match timeout_at(deadline, exchange).await {
            Ok(result) => result.map_err(Unanswered::Broken),
            Err(_) => Err(Unanswered::Broken("it did not answer in time".to_owned())),
        }
    }
}

impl Answer {
    /// Reads the body of a success.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body).map_err(|error| Refusal {
            code: "REGISTRY_NOT_UNDERSTOOD".to_owned(),
            message: format!("the registry's answer cannot be read: {error}"),
            hint: "use the registry and the server of one release".to_owned(),
        })
    }

    /// The refusal in the body of anything but a success.
    pub(super) fn refusal(&self) -> Refusal {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| Refusal {
            code: "REGISTRY_FAILED".to_owned(),
            message: format!("the registry answered {}", self.status),
            hint: "look into the registry's log".to_owned(),
        })
    }
}

impl Peer {
    fn trusts(&self, uid: u32) -> bool {
        let own = rustix::process::geteuid().as_raw();
        uid == 0 || uid == own || Some(uid) == self.registry_uid
    }

    fn untrusted(&self, what: &str, uid: u32) -> Refusal {
        let own = rustix::process::geteuid().as_raw();
        let expected = match self.registry_uid {
            Some(registry) => format!("root, {own} or {registry}"),
            None => format!("root or {own}"),
        };
        Refusal {
            code: "REGISTRY_UNTRUSTED".to_owned(),
            message: format!(
                "`{}` is not the registry's: {what} belongs to uid {uid}, not to {expected}",
                self.socket.display()
            ),
            hint: "if the registry runs as that user on purpose, state its uid with --registry-uid"
                .to_owned(),
        }
    }

    /// Whoever may write the folder could put a socket of his own in the place of the registry's.
    fn check_folder(&self) -> Result<(), Refusal> {
        let folder = match self.socket.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let metadata = folder
            .metadata()
            .map_err(|error| unreachable(&self.socket, &error.to_string()))?;
        if !self.trusts(metadata.uid()) {
            return Err(self.untrusted("its folder", metadata.uid()));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(Refusal {
                code: "REGISTRY_UNTRUSTED".to_owned(),
                message: format!(
                    "others may write the folder `{}`, and put a socket of their own there",
                    folder.display()
                ),
                hint: format!("chmod go-w '{}'", folder.display()),
            });
        }
        Ok(())
    }
}

/// The refusal of a call because nobody could be asked.
pub(super) fn unreachable(socket: &Path, reason: &str) -> Refusal {
    Refusal {
        code: "REGISTRY_UNREACHABLE".to_owned(),
        message: format!(
            "the registry at `{}` cannot be asked: {reason}",
            socket.display()
        ),
        hint: "start it with: mcp-spec-registry serve; then call again. Nothing was done"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_root_ourselves_and_the_stated_uid_may_answer_for_the_registry() {
        let own = rustix::process::geteuid().as_raw();
        let peer = |registry_uid| Peer {
            socket: PathBuf::from("/run/effect.sock"),
            registry_uid,
            authorization: HeaderValue::from_static("Bearer x"),
        };
        let stranger = own + 4_321;
        assert!(peer(None).trusts(0) && peer(None).trusts(own));
        assert!(!peer(None).trusts(stranger));
        assert!(peer(Some(stranger)).trusts(stranger));
        assert!(!peer(Some(stranger)).trusts(stranger + 1));
    }

    #[tokio::test]
    async fn a_missing_socket_is_unreachable_rather_than_untrusted() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700))?;
        let peer = Arc::new(Peer {
            socket: folder.path().join("effect.sock"),
            registry_uid: None,
            authorization: HeaderValue::from_static("Bearer x"),
        });
        let refused = match Connection::open(&peer).await {
            Err(Unanswered::Refused(refusal)) => refusal.code,
            Err(Unanswered::Broken(reason)) => reason,
            Ok(_) => "connected".to_owned(),
        };
        assert_eq!(refused, "REGISTRY_UNREACHABLE");
        Ok(())
    }
}
