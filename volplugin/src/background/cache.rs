//! Keeps the cache of volumes near to volmaster's list, and on disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::app::Plugin;

/// How often a changed cache is written to disk.
const FLUSH: Duration = Duration::from_secs(1);
/// How many flushes lie between two looks at volmaster's list.
const LOOKS: u32 = 15;

/// Runs for ever. Dropping it loses at most the changes of the last second; see [`flush`].
pub async fn run(plugin: Arc<Plugin>) {
    let mut ticks = interval(FLUSH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0;
    loop {
        ticks.tick().await;
        if count % LOOKS == 0
            && let Err(error) = plugin.refresh().await
        {
            tracing::debug!(%error, "the list of volumes could not be refreshed");
        }
        count = count.wrapping_add(1);
        flush(&plugin).await;
    }
}

/// Writes the cache to disk if it has changed.
pub async fn flush(plugin: &Arc<Plugin>) {
    let plugin = Arc::clone(plugin);
    let flushed = tokio::task::spawn_blocking(move || plugin.cache.flush()).await;
    if let Ok(Err(error)) = flushed {
        tracing::warn!(%error, "the cache of volumes could not be written");
    }
}
