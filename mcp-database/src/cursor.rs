//! Results that did not fit one reply, kept until they are asked for, their time is over, or their place is needed.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::tool_error::ToolError;

use crate::fence::random_mark;
use crate::table::{Answer, Budget};

/// The next part of a result, on its way.
pub type NextPart<'a> = Pin<Box<dyn Future<Output = Result<Answer, ToolError>> + Send + 'a>>;

/// What is left of a result: an open query and what it needs. Dropped, it lets go of everything, also at the server.
pub trait Rest: Send {
    /// The next rows; the last are those that are not cut short ([`crate::table::Rows::goes_on`]). A row that did not fit comes first
    /// the next time.
    fn next(&mut self, budget: Budget) -> NextPart<'_>;

    /// Whether it can be read on after a part that ended for the want of time.
    fn outlives_time(&self) -> bool {
        false
    }
}

/// How long an open result waits.
pub const TIME_TO_LIVE: Duration = Duration::from_mins(2);
/// Open results of a server; each holds a connection or a cursor of its database.
const MOST_OPEN: usize = 16;

/// A result that cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Nobody has it, or somebody else.
    #[error(
        "there is no open result `{0}`: each is read on once, by whom it was given to, within two minutes"
    )]
    Unknown(String),
}

/// What is kept of a result.
pub struct Open {
    /// Its source.
    pub source: String,
    /// What is left.
    pub rest: Box<dyn Rest>,
    /// What a page of it holds.
    pub budget: Budget,
}

struct Kept {
    owner: Arc<str>,
    since: Instant,
    open: Open,
}

/// The open results of a server. Clones are the same.
#[derive(Clone, Default)]
pub struct Cursors(Arc<Mutex<HashMap<String, Kept>>>);

impl Cursors {
    /// Keeps a result for its owner, under a new name that nobody guesses. `None` where every place is taken by others; an owner's
    /// own oldest result makes room for his next.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn keep(&self, owner: &Arc<str>, open: Open) -> Result<Option<String>, getrandom::Error> {
        let name = format!("cur_{}", random_mark()?);
        let mut kept = self.lock();
        if kept.len() >= MOST_OPEN {
            let own = kept.iter().filter(|(_, kept)| kept.owner == *owner);
            let oldest = own.min_by_key(|(_, kept)| kept.since);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                return Ok(None);
            };
            kept.remove(&oldest);
        }
        kept.insert(
            name.clone(),
            Kept {
                owner: Arc::clone(owner),
                since: Instant::now(),
                open,
            },
        );
        let (cursors, expiring) = (self.clone(), name.clone());
        tokio::spawn(async move {
            tokio::time::sleep(TIME_TO_LIVE).await;
            cursors.lock().remove(&expiring);
        });
        Ok(Some(name))
    }

    /// The source of a result, which stays where it is.
    ///
    /// # Errors
    /// There is none of the name for this owner.
    pub fn source(&self, owner: &str, name: &str) -> Result<String, CursorError> {
        let kept = self.lock();
        let own = kept.get(name).filter(|kept| *kept.owner == *owner);
        own.map(|kept| kept.open.source.clone())
            .ok_or_else(|| CursorError::Unknown(name.to_owned()))
    }

    /// Takes a result away from its name, which is nobody's from then on.
    ///
    /// # Errors
    /// There is none of the name for this owner.
    pub fn take(&self, owner: &str, name: &str) -> Result<Open, CursorError> {
        let mut kept = self.lock();
        let is_own = kept.get(name).is_some_and(|kept| *kept.owner == *owner);
        let own = if is_own { kept.remove(name) } else { None };
        own.map(|kept| kept.open)
            .ok_or_else(|| CursorError::Unknown(name.to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Rest for Nothing {
        fn next(&mut self, _: Budget) -> NextPart<'_> {
            Box::pin(async { Err(ToolError::new("NOTHING", "nothing is left")) })
        }
    }

    fn open() -> Open {
        Open {
            source: "main".to_owned(),
            rest: Box::new(Nothing),
            budget: Budget::default(),
        }
    }

    #[tokio::test]
    async fn a_result_is_its_owners_and_read_on_once() -> anyhow::Result<()> {
        let cursors = Cursors::default();
        let owner = Arc::from("a");
        let name = cursors.keep(&owner, open())?.unwrap_or_default();
        assert!(cursors.take("b", &name).is_err());
        assert!(cursors.take("a", &name).is_ok());
        assert!(cursors.take("a", &name).is_err());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_nobody_reads_on_ends() -> anyhow::Result<()> {
        let cursors = Cursors::default();
        cursors.keep(&Arc::from("a"), open())?;
        assert!(!cursors.lock().is_empty());
        tokio::time::sleep(TIME_TO_LIVE + Duration::from_secs(1)).await;
        assert!(cursors.lock().is_empty());
        Ok(())
    }

    #[tokio::test]
    async fn nobody_takes_the_places_of_others() -> anyhow::Result<()> {
        let cursors = Cursors::default();
        let (owner, other) = (Arc::from("a"), Arc::from("b"));
        let first = cursors.keep(&owner, open())?.unwrap_or_default();
        for _ in 1..MOST_OPEN {
            cursors.keep(&owner, open())?;
        }
        assert_eq!(cursors.keep(&other, open())?, None);
        assert!(cursors.keep(&owner, open())?.is_some());
        assert!(cursors.take("a", &first).is_err(), "the oldest made room");
        Ok(())
    }
}
