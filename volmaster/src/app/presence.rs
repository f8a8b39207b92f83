//! That this volmaster lives, and since when it has been there without a gap.
//!
//! A record under a lease tells the others that it lives, so that they finish what it has begun to fence when
//! it is gone. And a host is given up only by a volmaster that could have taken its renewals for the whole of
//! a session's time to live: after an outage of etcd or of all volmasters every session has lapsed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;
use volcore::host::MasterId;
use volstore::store::{Commit, LeaseId, Renewal, StoreError};

use super::App;

/// The time to live of a volmaster's lease.
const TTL: Duration = Duration::from_secs(5);
/// How often it is renewed.
const EVERY: Duration = Duration::from_millis(1500);

/// Whether this volmaster is there.
#[derive(Debug)]
pub struct Presence {
    /// Its name in this run.
    pub me: MasterId,
    kept: Mutex<Option<Kept>>,
}

/// A lease that is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    lease: LeaseId,
    /// When it was granted; since then it has been renewed in time.
    since: Instant,
    /// When the request for the last renewal was sent.
    last: Instant,
}

impl Default for Presence {
    fn default() -> Self {
        Presence { me: MasterId(Uuid::new_v4()), kept: Mutex::default() }
    }
}

impl Presence {
    /// Whether it has been there, with the store, for so long without a gap. A process that was stopped in between is
    /// not: the clock goes on meanwhile, and its lease has not been renewed.
    pub fn steady(&self, long: Duration) -> bool {
        let now = Instant::now();
        self.kept().is_some_and(|kept| {
            now.duration_since(kept.last) < TTL && now.duration_since(kept.since) >= long
        })
    }

    fn kept(&self) -> Option<Kept> {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, kept: Option<Kept>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

/// Keeps the record, until the app is told to stop; then removes it.
pub async fn run(app: Arc<App>) {
    loop {
        let beat = beat(&app).await;
        if let Err(error) = beat {
            let error = volapi::problem::chain(&error);
            tracing::warn!(
                error,
                "this volmaster cannot say that it lives, and takes over nothing for now"
            );
        }
        // Each arm may be dropped: a beat that is not made is made up for by the next.
        tokio::select! {
            () = app.stop.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    if let Some(kept) = app.presence.kept() {
        // It ends by itself, if not here.
        app.records.store().lease_revoke(kept.lease).await.unwrap_or_default();
    }
}

/// Renews the lease, or begins a new one where there is none any more.
pub async fn beat(app: &App) -> Result<(), StoreError> {
    let (presence, store) = (&app.presence, app.records.store());
    let now = Instant::now();
    if let Some(kept) = presence.kept() {
        match store.lease_renew(kept.lease).await {
            Ok(Renewal::Renewed) => {
                let gap = now.duration_since(kept.last) >= TTL;
                let since = if gap { now } else { kept.since };
                presence.keep(Some(Kept { since, last: now, ..kept }));
                return Ok(());
            }
            Ok(Renewal::Ended) => presence.keep(None),
            Err(error) => {
                // Hosts could not tell the store that they live either.
                presence.keep(Some(Kept { since: now, ..kept }));
                return Err(error);
            }
        }
    }
    let lease = store.lease_grant(TTL).await?;
    let changes = app.records.changes().put_master(presence.me, app.now(), lease);
    match app.records.commit(changes).await? {
        Commit::Done(_) => presence.keep(Some(Kept { lease, since: now, last: now })),
        // Written by an attempt whose answer was lost: it goes with the lease of that.
        Commit::Conflict => store.lease_revoke(lease).await?,
    }
    Ok(())
}
