//! Texts become vectors by somebody else's model, behind an endpoint as many serve it: `POST …/embeddings`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::source::{Password, SourceError, Tls, is_loopback};
use crate::tls;

/// How long an endpoint may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// Largest answer, in bytes; a vector of 4,096 numbers has some 90 KB.
const LARGEST_ANSWER: usize = 4 << 20;
/// Longest text, in bytes.
const LONGEST_TEXT: usize = 64 * 1024;

/// What makes vectors of texts.
pub trait Embedder: Send + Sync + std::fmt::Debug {
    /// The vector of a text.
    fn embed<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Vec<f32>, EmbedError>>;
}

/// A text of which there is no vector.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// Over [`LONGEST_TEXT`], or nothing.
    #[error("the text has {0} bytes; 1 to {LONGEST_TEXT} can be embedded")]
    Text(usize),
    /// Nobody answers.
    #[error("the embedder cannot be reached: {0}")]
    Unreachable(String),
    /// It takes too long.
    #[error("the embedder did not answer within {} s", ANSWERS_WITHIN.as_secs())]
    TimedOut,
    /// It answers something else than a vector.
    #[error("the embedder does not give a vector: {0}")]
    Answer(String),
    /// Its key or certificates.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// An endpoint, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedderSettings {
    /// `http://127.0.0.1:11434/v1`: to which `/embeddings` is added.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// File with the key.
    #[serde(default)]
    pub key_file: Option<std::path::PathBuf>,
    /// Variable with the key.
    #[serde(default)]
    pub key_env: Option<String>,
}

/// An endpoint.
#[derive(Debug)]
pub struct Endpoint {
    host: String,
    port: u16,
    path: String,
    is_protected: bool,
    model: String,
    key: Option<Password>,
}

#[derive(Deserialize)]
struct Answered {
    data: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    embedding: Vec<f32>,
}

impl Endpoint {
    /// An endpoint that nobody has asked yet.
    ///
    /// # Errors
    /// A URL that is none, or that would send texts and key unprotected to another machine.
    pub fn open(settings: &EmbedderSettings) -> Result<Arc<dyn Embedder>, SourceError> {
        let wrong = |reason: &str| SourceError::Url {
            id: "embedder".to_owned(),
            reason: reason.to_owned(),
        };
        let url: Uri = settings.url.parse().map_err(|_| wrong("it is none"))?;
        let authority = url.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong(
                "a user stands in it; the key has key_file or key_env",
            ));
        }
        let is_protected = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it begins neither with http:// nor with https://")),
        };
        if !is_protected && !is_loopback(authority.host()) {
            return Err(wrong(
                "it leads to another machine without TLS; write https://",
            ));
        }
        let key = match (&settings.key_file, &settings.key_env) {
            (Some(file), _) => Some(Password::File(file.clone())),
            (None, Some(name)) => Some(Password::Variable(name.clone())),
            (None, None) => None,
        };
        Ok(Arc::new(Self {
            host: authority.host().to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if is_protected { 443 } else { 80 }),
            path: format!("{}/embeddings", url.path().trim_end_matches('/')),
            is_protected,
            model: settings.model.clone(),
            key,
        }))
    }

    async fn ask(&self, text: &str) -> Result<Vec<f32>, EmbedError> {
        let unreachable =
            |error: &dyn std::fmt::Display| EmbedError::Unreachable(error.to_string());
        let bare = self.host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((bare, self.port))
            .await
            .map_err(|error| unreachable(&error))?;
        if !self.is_protected {
            return self.exchange(stream, text).await;
        }
        let config = tls::config("embedder", &Tls::OffLoopback)?;
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| unreachable(&error))?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| unreachable(&error))?;
        self.exchange(stream, text).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        text: &str,
    ) -> Result<Vec<f32>, EmbedError> {
        let unreachable = |error: hyper::Error| EmbedError::Unreachable(error.to_string());
        let answer = |reason: String| EmbedError::Answer(reason);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(unreachable)?;
        let driving = tokio::spawn(connection);
        let body = json!({ "model": self.model, "input": text }).to_string();
        let mut request = Request::post(&self.path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| answer(error.to_string()))?;
        if let Some(key) = &self.key {
            let bearer = format!("Bearer {}", *key.read()?);
            let mut value = HeaderValue::from_str(&bearer)
                .map_err(|_| answer("its key has a character that cannot be sent".to_owned()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let response = sender.send_request(request).await.map_err(unreachable)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER)
            .collect()
            .await
            .map_err(|error| answer(error.to_string()))?
            .to_bytes();
        driving.abort();
        if !status.is_success() {
            return Err(answer(format!("it answers {status}")));
        }
        let answered: Answered =
            serde_json::from_slice(&body).map_err(|error| answer(error.to_string()))?;
        let vector = answered.data.into_iter().next().map(|data| data.embedding);
        match vector {
            Some(vector)
                if !vector.is_empty() && vector.iter().all(|number| number.is_finite()) =>
            {
                Ok(vector)
            }
            _ => Err(answer(
                "there is no vector of finite numbers in it".to_owned(),
            )),
        }
    }
}

impl Embedder for Endpoint {
    fn embed<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Vec<f32>, EmbedError>> {
        Box::pin(async move {
            if text.is_empty() || text.len() > LONGEST_TEXT {
                return Err(EmbedError::Text(text.len()));
            }
            tokio::time::timeout(ANSWERS_WITHIN, self.ask(text))
                .await
                .map_err(|_| EmbedError::TimedOut)?
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What an endpoint that answers `reply` makes of a text, and what it was sent.
    async fn asked(reply: &'static str) -> anyhow::Result<(Result<Vec<f32>, EmbedError>, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/v1/", listener.local_addr()?);
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let mut sent = vec![0; 4096];
            let read = stream.read(&mut sent).await?;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{reply}",
                reply.len()
            );
            stream.write_all(head.as_bytes()).await?;
            sent.truncate(read);
            anyhow::Ok(String::from_utf8(sent)?)
        });
        let endpoint = Endpoint::open(&EmbedderSettings {
            url,
            model: "m".to_owned(),
            key_file: None,
            key_env: None,
        })?;
        let vector = endpoint.embed("a text").await;
        Ok((vector, serving.await??))
    }

    #[tokio::test]
    async fn a_text_becomes_the_endpoints_vector() -> anyhow::Result<()> {
        let (vector, sent) = asked(r#"{"data": [{"embedding": [0.5, -1]}], "model": "m"}"#).await?;
        assert_eq!(vector?, [0.5, -1.0]);
        assert!(sent.starts_with("POST /v1/embeddings HTTP/1.1"), "{sent}");
        assert!(
            sent.ends_with(r#"{"model":"m","input":"a text"}"#),
            "{sent}"
        );
        Ok(())
    }

    #[tokio::test]
    async fn what_is_no_vector_is_an_error() -> anyhow::Result<()> {
        for reply in [
            "",
            "{}",
            r#"{"data": []}"#,
            r#"{"data": [{"embedding": []}]}"#,
        ] {
            let (vector, _) = asked(reply).await?;
            assert!(
                matches!(vector, Err(EmbedError::Answer(_))),
                "{reply}: {vector:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn texts_leave_this_machine_only_protected() {
        for url in [
            "http://models.example.org/v1",
            "ftp://127.0.0.1",
            "https://key@x/v1",
            "/v1",
        ] {
            let settings = EmbedderSettings {
                url: url.to_owned(),
                model: String::new(),
                key_file: None,
                key_env: None,
            };
            assert!(Endpoint::open(&settings).is_err(), "{url}");
        }
    }
}
