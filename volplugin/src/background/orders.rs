//! Looks for what volmaster orders: one question that is answered when there is something, and none where nothing is held.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::app::Plugin;
use crate::master::MasterError;

/// The pause where nothing is held, and after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause after a volmaster that has no such thing: an older one, which orders nothing.
const OLD: Duration = Duration::from_secs(30);

/// Runs for ever.
pub async fn run(plugin: Arc<Plugin>) {
    let mut after = None;
    loop {
        after = match plugin.follow_orders(after).await {
            Ok(Some(at)) => Some(at),
            Ok(None) => {
                sleep(PAUSE).await;
                None
            }
            Err(error) => {
                tracing::debug!(%error, "it is not known whether there are orders");
                let is_old = matches!(error, MasterError::Refused { .. }) && !error.is_unknown();
                sleep(if is_old { OLD } else { PAUSE }).await;
                None
            }
        };
    }
}
