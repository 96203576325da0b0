//! Tokens that say: what a change would affect was seen before it is made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::digest::Digest;

use crate::fence::random_mark;

/// How long a token can be used.
pub const TIME_TO_LIVE: Duration = Duration::from_mins(1);
/// Tokens that can be used at once; the oldest makes room.
const MOST: usize = 256;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who saw it.
    pub owner: Arc<str>,
    /// Source, statements and parameters.
    pub change: Digest,
    /// Rows that would be affected.
    pub affected: u64,
}

/// The tokens of a server.
#[derive(Debug, Default)]
pub struct Confirmations(Mutex<HashMap<String, (Instant, Seen)>>);

impl Confirmations {
    /// A token for what was seen, to be used once, within [`TIME_TO_LIVE`].
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn give(&self, seen: Seen) -> Result<String, getrandom::Error> {
        let token = format!("ok_{}", random_mark()?);
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|_, (since, _)| since.elapsed() < TIME_TO_LIVE);
        if given.len() >= MOST
            && let Some(oldest) = given.iter().min_by_key(|(_, (since, _))| *since)
        {
            let oldest = oldest.0.clone();
            given.remove(&oldest);
        }
        given.insert(token.clone(), (Instant::now(), seen));
        Ok(token)
    }

    /// How many rows were seen to be affected, if the token is this owner's for this change.
    pub fn take(&self, token: &str, owner: &str, change: &Digest) -> Option<u64> {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, seen) = given.remove(token)?;
        let is_meant = *seen.owner == *owner && seen.change == *change;
        (is_meant && since.elapsed() < TIME_TO_LIVE).then_some(seen.affected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_for_one_change_of_its_owner() -> anyhow::Result<()> {
        let confirmations = Confirmations::default();
        let (change, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let give = || {
            confirmations.give(Seen {
                owner: Arc::from("agent"),
                change: change.clone(),
                affected: 7,
            })
        };
        let token = give()?;
        assert_eq!(confirmations.take(&token, "agent", &change), Some(7));
        assert_eq!(confirmations.take(&token, "agent", &change), None);
        assert_eq!(confirmations.take(&give()?, "another", &change), None);
        assert_eq!(confirmations.take(&give()?, "agent", &other), None);
        Ok(())
    }
}
