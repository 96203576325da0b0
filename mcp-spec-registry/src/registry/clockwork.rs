//! What happens because time passes: claims lapse, and questions that nobody answered.

use std::time::Duration;

use super::{Registry, RegistryError, execution::blocking};
use crate::{
    run::{
        RunState,
        transition::{expire, lapse},
    },
    store::RunFilter,
};

const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Registry {
    /// Looks at the clock until it is dropped: every second while a run is open, else only when something changed.
    pub async fn keep_time(self) {
        let mut changes = self.changes();
        self.take_up_checks().await;
        loop {
            changes.mark_unchanged();
            let registry = self.clone();
            let open = blocking(move || registry.look_at_the_clock()).await;
            match open {
                Ok(0) => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
                Ok(_) => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => {
                    tracing::error!(%error, "failed to look after open runs");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// Lets lapse what has lapsed; answers how many runs are open.
    ///
    /// # Errors
    /// A failing store.
    pub fn look_at_the_clock(&self) -> Result<usize, RegistryError> {
        let filter = RunFilter {
            open_only: true,
            limit: 10_000,
            ..RunFilter::default()
        };
        let open = self.0.store.runs(&filter)?;
        let now = self.now();
        for run in &open {
            let lease_over = run.lease_until.is_some_and(|until| until <= now) && !run.paused;
            let is_asked = matches!(run.state, RunState::AwaitingV1 | RunState::AwaitingV2);
            if lease_over {
                let lapsed = self.update(&run.run_id, |record| {
                    let change = lapse(record, self.now());
                    Ok((change.is_some(), change))
                })?;
                if lapsed {
                    self.end_processes(&self.record(&run.run_id)?)?;
                }
            }
            if is_asked {
                let expired = self.update(&run.run_id, |record| {
                    let change = expire(record, &self.0.limits, self.now());
                    Ok((change.is_some(), change))
                })?;
                if expired {
                    self.end_processes(&self.record(&run.run_id)?)?;
                }
            }
        }
        Ok(open.len())
    }
}
