//! An attempt that takes a secret: delayed by source, and on record when it fails.

use std::{future::Future, sync::Arc, time::Instant};

use tokio::sync::Semaphore;

use super::throttle::Throttle;
use crate::registry::{Registry, RegistryError, blocking};

/// Secrets checked at the same time; each takes 19 MiB for a moment.
const CHECKED_AT_ONCE: usize = 2;

/// What page and socket share: the registry, and the delays of whoever guesses. Clones share one state.
#[derive(Clone)]
pub(super) struct Attempts {
    registry: Registry,
    throttle: Throttle,
    at_once: Arc<Semaphore>,
}

impl Attempts {
    /// No failures so far.
    pub(super) fn new(registry: Registry) -> Self {
        Self {
            registry,
            throttle: Throttle::default(),
            at_once: Arc::new(Semaphore::new(CHECKED_AT_ONCE)),
        }
    }

    /// Makes an attempt of this source, unless it has to wait.
    ///
    /// # Errors
    /// `TOO_MANY_ATTEMPTS`, and whatever the attempt itself answers.
    pub(super) async fn make<T, F>(
        &self,
        source: &str,
        name: &str,
        checkpoint_id: Option<&str>,
        attempt: F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        self.throttle
            .begin(source, Instant::now())
            .map_err(|wait| {
                let seconds = wait.as_secs_f64().ceil();
                RegistryError::new(
                    "TOO_MANY_ATTEMPTS",
                    format!("too many failed attempts from here; wait {seconds} s"),
                    "nothing was checked; pause and kill work meanwhile, on the command line",
                )
            })?;
        let permit = self
            .at_once
            .acquire()
            .await
            .map_err(|error| RegistryError::internal(&error))?;
        let result = attempt.await;
        drop(permit);
        match &result {
            Ok(_) => self.throttle.succeeded(source),
            Err(error) if is_guess(error) => {
                let (registry, code) = (self.registry.clone(), error.code.clone());
                let (source, name) = (source.to_owned(), name.to_owned());
                let checkpoint_id = checkpoint_id.map(str::to_owned);
                blocking(move || {
                    registry.note_failed_attempt(&name, checkpoint_id.as_deref(), &source, &code)
                })
                .await?;
            }
            Err(_) => self.throttle.excused(source),
        }
        result
    }
}

/// Whether a secret or a code was wrong.
fn is_guess(error: &RegistryError) -> bool {
    matches!(error.code.as_str(), "SECRET_WRONG" | "CODE_WRONG")
}
