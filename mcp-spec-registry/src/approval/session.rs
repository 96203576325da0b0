//! Viewing sessions of the page, in memory: a cookie lets one look and never decide.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::digest::{Digest, hex};

/// How long one may look before signing in again.
pub(super) const LIFE: Duration = Duration::from_hours(8);
/// Most sessions at once; the oldest ends for the newest.
const MOST: usize = 256;

/// Open sessions by the digest of their cookie. Clones share one state.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<Digest, Session>>>);

#[derive(Debug, Clone)]
struct Session {
    name: String,
    ends: Instant,
}

impl Sessions {
    /// Opens a session and gives its cookie: 128 random bits, hex.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(super) fn open(&self, name: &str, now: Instant) -> Result<String, getrandom::Error> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits)?;
        let cookie = hex(&bits);
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.ends > now);
        if sessions.len() >= MOST {
            let oldest = sessions
                .iter()
                .min_by_key(|(_, session)| session.ends)
                .map(|(key, _)| key.clone());
            oldest.map(|oldest| sessions.remove(&oldest));
        }
        let session = Session {
            name: name.to_owned(),
            ends: now + LIFE,
        };
        sessions.insert(Digest::of(&cookie), session);
        Ok(cookie)
    }

    /// Who looks with this cookie.
    pub(super) fn viewer(&self, cookie: &str, now: Instant) -> Option<String> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions
            .get(&Digest::of(cookie))
            .filter(|session| session.ends > now)?;
        Some(session.name.clone())
    }

    /// Ends a session.
    pub(super) fn close(&self, cookie: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&Digest::of(cookie));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_itself_or_when_one_signs_out() -> anyhow::Result<()> {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let cookie = sessions.open("ana", now)?;
        assert_eq!(cookie.len(), 32);
        assert_eq!(sessions.viewer(&cookie, now).as_deref(), Some("ana"));
        assert_eq!(sessions.viewer(&cookie, now + LIFE), None);
        assert_eq!(sessions.viewer("", now), None);
        sessions.close(&cookie);
        assert_eq!(sessions.viewer(&cookie, now), None);
        Ok(())
    }

    #[test]
    fn the_number_of_sessions_is_bounded_and_the_newest_stays() -> anyhow::Result<()> {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let first = sessions.open("first", now)?;
        for second in 1..=MOST as u64 {
            sessions.open("other", now + Duration::from_secs(second))?;
        }
        assert_eq!(sessions.viewer(&first, now), None);
        Ok(())
    }
}
