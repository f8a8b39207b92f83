//! Looks every second whether the limits or the sizes of what is mounted here were changed. One small question for
//! all volumes, and none where nothing is mounted.

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
        let plugin = Arc::clone(&plugin);
        // One volume that takes long has its lock, and the next look passes over it: the others do not wait.
        tokio::spawn(async move {
            if let Err(error) = plugin.follow_changes().await {
                tracing::debug!(%error, "it is not known whether anything was changed");
            }
        });
    }
}
