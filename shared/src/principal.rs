//! Who is calling: taken from the credential a connection or request came with, never from an argument.

use std::{fmt, sync::Arc};

use rmcp::{RoleServer, service::RequestContext};
use serde::{Deserialize, Serialize};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::tool_error::{ToolError, code};

/// What a principal may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An MCP client; may use the agent plane.
    Agent,
    /// An instance of an effect server; may use the effect plane.
    Service,
    /// A human who decides; may use the approval plane.
    Approver,
}

/// The credential that a principal showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A bearer token.
    Token,
    /// The uid of the peer's process.
    Uid,
    /// `--agent NAME`, given by whoever started the server.
    Flag,
    /// Nothing: `--insecure-loopback`.
    Loopback,
}

/// A caller, as the log and the registry name him.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// `claude-desktop`, or `uid:1000`.
    pub name: Arc<str>,
    /// What he may do.
    pub kind: Kind,
    /// How we know.
    pub via: Via,
}

impl Principal {
    /// A principal known by this credential.
    pub fn new(name: impl Into<Arc<str>>, kind: Kind, via: Via) -> Self {
        Self {
            name: name.into(),
            kind,
            via,
        }
    }

    /// The agent behind a process of this uid: `uid:<n>`.
    pub fn of_uid(uid: u32) -> Self {
        Self::new(format!("uid:{uid}"), Kind::Agent, Via::Uid)
    }

    /// The agent that `--agent NAME` names, or else the uid this process runs under.
    pub fn of_flag(agent: Option<&str>) -> Self {
        match agent {
            Some(name) => Self::new(name, Kind::Agent, Via::Flag),
            None => Self::of_uid(rustix::process::getuid().as_raw()),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What a transport knows of a request beyond the protocol; put into its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    /// Cancelled when the connection ends, or the server.
    pub(crate) ended: CancellationToken,
    /// The calls that still run; the transport lets them settle before it ends.
    pub(crate) calls: TaskTracker,
}

/// Who sent this request.
///
/// # Errors
/// `UNAUTHENTICATED` if the transport did not say, which no transport of [`crate::serve`] leaves out.
pub fn of(context: &RequestContext<RoleServer>) -> Result<&Principal, ToolError> {
    caller(context)
        .map(|caller| &caller.principal)
        .ok_or_else(|| {
            ToolError::new(
                code::UNAUTHENTICATED,
                "the connection does not say who is calling",
            )
            .with_hint("connect over the server's own transport")
        })
}

pub(crate) fn caller(context: &RequestContext<RoleServer>) -> Option<&Caller> {
    context.extensions.get::<Caller>().or_else(|| {
        let parts = context.extensions.get::<http::request::Parts>()?;
        parts.extensions.get::<Caller>()
    })
}
