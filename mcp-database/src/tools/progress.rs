//! Tells a client that asked for it that a long call is still at work.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often it is told.
const EVERY: Duration = Duration::from_secs(1);

/// Waits for the work, and says each second for how long.
pub(super) async fn told<T>(
    context: &RequestContext<RoleServer>,
    what: &str,
    work: impl Future<Output = T>,
) -> T {
    let Some(token) = context.meta.get_progress_token() else {
        return work.await;
    };
    tokio::pin!(work);
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seconds = 0_u32;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => {
                seconds += 1;
                let progress = ProgressNotificationParam::new(token.clone(), f64::from(seconds))
                    .with_message(format!("{what} has been running for {seconds} s"));
                // A client that does not listen any more is found out elsewhere.
                let _ = context.peer.notify_progress(progress).await;
            }
        }
    }
}
