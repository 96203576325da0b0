//! How the registry's errors read to the model.

use shared::tool_error::ToolError;

use crate::registry::RegistryError;

impl From<RegistryError> for ToolError {
    fn from(error: RegistryError) -> Self {
        Self::new(error.code, error.message).with_hint(error.hint)
    }
}
