//! All that the proxy goes by.

use super::{AllowList, Secrets};

/// What commands reach, and what is added to what they send there.
#[derive(Debug, Clone, Default)]
pub struct Reachable {
    /// Whom the proxy lets through.
    pub allow: AllowList,
    /// What it adds to requests.
    pub secrets: Secrets,
}

impl From<AllowList> for Reachable {
    fn from(allow: AllowList) -> Self {
        Self {
            allow,
            secrets: Secrets::default(),
        }
    }
}
