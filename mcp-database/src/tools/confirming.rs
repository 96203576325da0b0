//! Changes that are confirmed by what a trial of them was seen to affect.

use std::sync::Arc;

use shared::digest::Digest;
use shared::tool_error::ToolError;

use crate::confirm::Seen;
use crate::server::DatabaseServer;

impl DatabaseServer {
    /// How much was seen to be affected when the token was given, if it is this owner's for this change. It is used up.
    pub(super) fn confirmed(
        &self,
        token: &str,
        owner: &str,
        change: &Digest,
    ) -> Result<u64, ToolError> {
        let seen = self.state().confirmations.take(token, owner, change);
        seen.ok_or_else(|| {
            ToolError::new(
                "CONFIRM_REFUSED",
                "the confirm_token is used, too old, or of another change; nothing was changed",
            )
            .with_hint("call again without it")
        })
    }

    /// The refusal of a change that nobody confirmed, with the token that does.
    pub(super) fn unconfirmed(
        &self,
        message: String,
        owner: &Arc<str>,
        change: Digest,
        affected: u64,
    ) -> ToolError {
        let seen = Seen {
            owner: Arc::clone(owner),
            change,
            affected,
        };
        match self.state().confirmations.give(seen) {
            Ok(token) => ToolError::new("CONFIRM_REQUIRED", message).with_hint(format!(
                "if that is meant, make the same call with confirm_token \"{token}\" within a minute"
            )),
            Err(error) => ToolError::internal(&error),
        }
    }
}
