//! Keeps this host's session at volmaster: opened at start, renewed at a third of its TTL.

use std::sync::Arc;
use std::time::Duration;

use volapi::hosts::OpenSession;

use crate::app::Plugin;
use crate::host::standing::Moment;

/// After a failure it is tried again so soon.
const AGAIN: Duration = Duration::from_secs(1);
/// One attempt takes no longer.
const WITHIN: Duration = Duration::from_secs(3);

/// Runs for ever.
pub async fn run(plugin: Arc<Plugin>) {
    let mut failing = false;
    loop {
        let session = OpenSession {
            instance_id: plugin.me.instance,
            boot_id: plugin.me.boot.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let asked = Moment::now();
        let pause = match plugin.master.host_session(&plugin.me.host, session, WITHIN).await {
            Ok(granted) => {
                if plugin.standing.granted(asked, granted.ttl) {
                    tracing::info!(host = %plugin.me.host, ttl = %granted.ttl, "session open");
                    // Others may have taken over what is mounted here.
                    plugin.nudge.notify_one();
                }
                failing = false;
                granted.ttl.get() / 3
            }
            Err(error) => {
                if failing {
                    tracing::debug!(host = %plugin.me.host, %error, "no session yet");
                } else {
                    tracing::warn!(host = %plugin.me.host, %error, "the session could not be renewed");
                }
                failing = true;
                AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}
