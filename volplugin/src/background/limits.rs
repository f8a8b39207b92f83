//! Looks every second whether the limits that this host holds were changed. One small question for all of them, and
//! none where there are none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::app::Plugin;

/// How often: a change is in force after this and one answer, well within two seconds.
const EVERY: Duration = Duration::from_secs(1);

/// Runs for ever.
pub async fn run(plugin: Arc<Plugin>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = plugin.follow_limits().await {
            tracing::debug!(%error, "it is not known whether limits were changed");
        }
    }
}
