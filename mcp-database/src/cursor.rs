//! Results that did not fit one reply, kept until they are asked for, their time is over, or their place is needed.

use std::pin::Pin;

use shared::tool_error::ToolError;

use crate::table::{Answer, Budget};

/// The next part of a result, on its way.
pub type NextPart<'a> = Pin<Box<dyn Future<Output = Result<Answer, ToolError>> + Send + 'a>>;

/// What is left of a result: an open query and what it needs. Dropped, it lets go of everything, also at the server.
pub trait Rest: Send {
    /// The next rows; the last are those that are not cut short ([`crate::table::Rows::goes_on`]). A row that did not fit comes first
    /// the next time.
    fn next(&mut self, budget: Budget) -> NextPart<'_>;
}
