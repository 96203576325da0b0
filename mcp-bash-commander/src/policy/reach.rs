//! What commands may reach over a network: how much at most, and through the proxy whom.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::jail::Network;
use crate::network::AllowList;

/// How much of a network a command can have; each has what those before it have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Nothing but listening on published ports.
    #[default]
    None,
    /// The other processes of its own jail.
    Loopback,
    /// Besides, the hosts of the allow list, through the proxy.
    Allowlist,
    /// Whatever the host reaches; no network of the jail's own.
    Host,
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::Loopback => "loopback",
            Self::Allowlist => "allowlist",
            Self::Host => "host",
        })
    }
}

impl From<NetworkMode> for Network {
    fn from(mode: NetworkMode) -> Self {
        match mode {
            NetworkMode::None => Self::None,
            NetworkMode::Loopback => Self::Loopback,
            NetworkMode::Allowlist => Self::Proxy,
            NetworkMode::Host => Self::Host,
        }
    }
}

/// The `[network]` table of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkRules {
    /// The most a call may ask for.
    pub mode: NetworkMode,
    /// Whom the proxy lets through.
    pub allow: AllowList,
}
