//! Whether anybody still needs this registry.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, extract::Request, middleware::Next, middleware::from_fn_with_state};
use tokio_util::sync::CancellationToken;

use crate::{
    registry::{Registry, blocking},
    store::RunFilter,
};

/// Who is served right now, and when the last one left.
#[derive(Clone, Default)]
pub(super) struct Activity(Arc<Mutex<Served>>);

struct Served {
    now: usize,
    last: Instant,
}

impl Default for Served {
    fn default() -> Self {
        Self {
            now: 0,
            last: Instant::now(),
        }
    }
}

/// Counts as being served until it is dropped.
pub(super) struct Guest(Activity);

impl Activity {
    /// Somebody is served.
    pub(super) fn arrive(&self) -> Guest {
        self.update(1);
        Guest(self.clone())
    }

    /// The router with each request counted.
    pub(super) fn count(&self, router: Router) -> Router {
        async fn counted(
            axum::extract::State(activity): axum::extract::State<Activity>,
            request: Request,
            next: Next,
        ) -> axum::response::Response {
            let _guest = activity.arrive();
            next.run(request).await
        }
        router.layer(from_fn_with_state(self.clone(), counted))
    }

    /// Ends the registry when nobody was served and no run was open for `limit`.
    pub(super) async fn end_when_idle(
        &self,
        limit: Option<Duration>,
        registry: Registry,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let Some(limit) = limit else {
            shutdown.cancelled().await;
            return Ok(());
        };
        loop {
            let left = limit.saturating_sub(self.idle_for());
            tokio::select! {
                () = tokio::time::sleep(left.max(Duration::from_millis(50))) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            if self.idle_for() < limit {
                continue;
            }
            let registry = registry.clone();
            let open = RunFilter {
                open_only: true,
                limit: 1,
                ..RunFilter::default()
            };
            if blocking(move || registry.runs(&open)).await?.is_empty() {
                tracing::info!("ending: nobody was here for {limit:?}");
                shutdown.cancel();
                return Ok(());
            }
            // An open run waits for somebody; look again later.
            self.update(0);
        }
    }

    fn idle_for(&self) -> Duration {
        let served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if served.now > 0 {
            Duration::ZERO
        } else {
            served.last.elapsed()
        }
    }

    fn update(&self, change: isize) {
        let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        served.now = served.now.saturating_add_signed(change);
        served.last = Instant::now();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.update(-1);
    }
}
