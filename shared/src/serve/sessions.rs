//! Sessions of the older protocol era over HTTP: each belongs to the principal that began it, and there are only so many.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::HeaderMap;
use rmcp::transport::streamable_http_server::session::{
    SessionId, SessionManager as _, local::LocalSessionManager,
};

/// Sessions at once; each holds a task and a channel, and ends after five idle minutes.
const MAX_SESSIONS: usize = 256;

const SESSION: &str = "mcp-session-id";

/// Who began which session.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) manager: Arc<LocalSessionManager>,
    owners: Mutex<HashMap<String, Arc<str>>>,
}

/// What to do with a request, going by its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Go on.
    Enter,
    /// The session is somebody else's, which is not even said.
    NotFound,
    /// A new session would be one too many.
    Full,
}

impl Sessions {
    pub(super) async fn admit(&self, headers: &HeaderMap, principal: &Arc<str>) -> Admission {
        let Some(id) = session_id(headers) else {
            let begins_one = !headers.contains_key("mcp-method");
            let full = begins_one && self.manager.sessions.read().await.len() >= MAX_SESSIONS;
            return if full {
                Admission::Full
            } else {
                Admission::Enter
            };
        };
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        match owners.get(id) {
            Some(owner) if owner != principal => Admission::NotFound,
            _ => Admission::Enter,
        }
    }

    /// Notes whose session an answer has begun.
    pub(super) async fn remember(&self, answer: &HeaderMap, principal: &Arc<str>) {
        let Some(id) = session_id(answer) else { return };
        let is_new = {
            let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            owners.insert(id.to_owned(), principal.clone()).is_none()
        };
        if is_new {
            // Whatever its headers said: a request without a session has begun one.
            if self.manager.sessions.read().await.len() > MAX_SESSIONS {
                let began: SessionId = id.into();
                if let Err(error) = self.manager.close_session(&began).await {
                    tracing::debug!(%error, "one session too many is not closed");
                }
            }
            let open = self.manager.sessions.read().await;
            let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            if owners.len() > 2 * MAX_SESSIONS {
                owners.retain(|id, _| open.contains_key(id.as_str()));
            }
        }
    }
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION)?.to_str().ok()
}
