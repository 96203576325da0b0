//! How a jail is made: with everything, or as far as a host lets it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Layer;

/// What stands around a command, in three strengths. The policy names those that may be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every layer, made by this program itself, or nothing runs.
    #[default]
    Strict,
    /// A container of a Docker engine gives namespaces and root; the layers of a process come from this program.
    Container,
    /// For hosts without user namespaces: the layers of a process alone. The host's processes can be seen, and the times and modes of
    /// files of the same user be changed.
    NoUserns,
}

impl Mode {
    /// The name in policies and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Container => "container",
            Self::NoUserns => "no_userns",
        }
    }

    /// Whether a jail made this way can have `layer`.
    pub(super) fn has(self, layer: Layer) -> bool {
        match self {
            Self::Strict => true,
            Self::Container => !matches!(layer, Layer::UserNs | Layer::Overlay),
            Self::NoUserns => matches!(
                layer,
                Layer::Cgroup
                    | Layer::Workspace
                    | Layer::Limits
                    | Layer::NoNewPrivs
                    | Layer::Landlock
                    | Layer::Seccomp
                    | Layer::DenialReports
            ),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
