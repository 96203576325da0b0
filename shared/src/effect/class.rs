//! What a tool does to the world; its MCP annotations derive from this.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a call of a tool does to the world, from harmless to final.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Changes nothing.
    Read,
    /// Changes something that can be put back.
    Write,
    /// May change something for good.
    Irreversible,
}

impl EffectClass {
    /// Whether a call needs a grant in enforced mode.
    pub fn is_changing(self) -> bool {
        self > Self::Read
    }
}
