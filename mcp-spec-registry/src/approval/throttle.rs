//! Slows down whoever guesses secrets or codes: per source, never per account, so that nobody can lock an approver out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Attempts that cost nothing: people mistype.
const FREE_ATTEMPTS: u32 = 3;
/// Longest delay.
const LONGEST_DELAY: Duration = Duration::from_mins(5);
/// Failures are forgotten after this long without another.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);
/// Most sources remembered; beyond it the oldest are forgotten.
const MOST_SOURCES: usize = 4096;

/// Failed attempts by source. Clones share one state.
#[derive(Debug, Clone, Default)]
pub(super) struct Throttle(Arc<Mutex<HashMap<String, Failures>>>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn open_again(&self) -> Instant {
        self.last + delay(self.count)
    }
}

/// An attempt counts as failed from its beginning, so that guessing in parallel gains nothing; see [`Throttle::succeeded`].
fn delay(failures: u32) -> Duration {
    match failures.checked_sub(FREE_ATTEMPTS) {
        None => Duration::ZERO,
        Some(over) => Duration::from_secs(1 << over.min(16)).min(LONGEST_DELAY),
    }
}

impl Throttle {
    /// Begins an attempt of this source, which counts as failed until [`Throttle::succeeded`] or [`Throttle::excused`].
    ///
    /// # Errors
    /// How long the source has to wait.
    pub(super) fn begin(&self, source: &str, now: Instant) -> Result<(), Duration> {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sources
            .get(source)
            .filter(|known| now.duration_since(known.last) < FORGOTTEN_AFTER);
        let count = match known {
            Some(known) if known.open_again() > now => return Err(known.open_again() - now),
            Some(known) => known.count,
            None => 0,
        };
        if sources.len() >= MOST_SOURCES && !sources.contains_key(source) {
            let oldest = sources
                .iter()
                .min_by_key(|(_, known)| known.last)
                .map(|(name, _)| name.clone());
            oldest.map(|oldest| sources.remove(&oldest));
        }
        sources.insert(
            source.to_owned(),
            Failures {
                count: count + 1,
                last: now,
            },
        );
        Ok(())
    }

    /// The attempt was right: everything before is forgiven.
    pub(super) fn succeeded(&self, source: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(source);
    }

    /// The attempt failed for a reason that is no guess.
    pub(super) fn excused(&self, source: &str) {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sources.get_mut(source) {
            known.count = known.count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(throttle: &Throttle, source: &str, at: Instant) -> Option<Duration> {
        throttle.begin(source, at).err()
    }

    #[test]
    fn delays_grow_after_a_few_failures_and_only_for_their_source() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for _ in 0..FREE_ATTEMPTS {
            assert_eq!(fail(&throttle, "10.0.0.1", start), None);
        }
        assert_eq!(
            fail(&throttle, "10.0.0.1", start),
            Some(Duration::from_secs(1))
        );
        assert_eq!(fail(&throttle, "10.0.0.2", start), None);
        let later = start + Duration::from_secs(1);
        assert_eq!(fail(&throttle, "10.0.0.1", later), None);
        assert_eq!(
            fail(&throttle, "10.0.0.1", later),
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn a_delay_never_grows_beyond_five_minutes_and_is_forgotten_after_an_hour() {
        let (throttle, mut now) = (Throttle::default(), Instant::now());
        for _ in 0..40 {
            if let Some(wait) = fail(&throttle, "x", now) {
                assert!(wait <= LONGEST_DELAY);
                now += wait;
            }
        }
        assert!(fail(&throttle, "x", now).is_none());
        assert!(fail(&throttle, "x", now).is_some());
        assert!(fail(&throttle, "x", now + FORGOTTEN_AFTER).is_none());
    }

    #[test]
    fn the_right_secret_forgives_and_a_refusal_for_other_reasons_does_not_count() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(fail(&throttle, "x", now), None);
            throttle.excused("x");
        }
        for _ in 0..FREE_ATTEMPTS {
            assert_eq!(fail(&throttle, "y", now), None);
        }
        throttle.succeeded("y");
        assert_eq!(fail(&throttle, "y", now), None);
    }
}
