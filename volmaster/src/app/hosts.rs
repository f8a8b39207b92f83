//! Hosts and their sessions, which live on leases of the store.

use std::sync::Arc;

use uuid::Uuid;
use volcore::Kind;
use volcore::duration::SessionTtl;
use volcore::host::{Session, SessionDecision, SessionRefusal};
use volcore::name::{BootId, HostName};
use volcore::volume::Volume;
use volstore::records::{LeasedSession, Versioned};
use volstore::store::{Commit, Expect, Renewal, StoreError};

use super::volumes::volume_sync;
use super::{App, Failing, ListError, store_kind};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;

/// Why a session was not opened, ended or shown.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no live session.
    #[error("host {host} has no live session")]
    NotFound {
        /// Which.
        host: HostName,
    },
    /// The label is somebody else's.
    #[error(transparent)]
    Refused(#[from] SessionRefusal),
    /// Others are faster, time and again.
    #[error("the session of host {host} is being changed by others; try again")]
    Contended {
        /// Which.
        host: HostName,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for HostError {
    fn kind(&self) -> Kind {
        match self {
            HostError::NotFound { .. } => Kind::NotFound,
            HostError::Refused(refusal) => refusal.kind(),
            HostError::Contended { .. } => Kind::Busy,
            HostError::Store(error) => store_kind(error),
        }
    }
}

/// Who asks for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionAsk {
    /// The installation that speaks.
    pub instance: Uuid,
    /// In which boot of its machine.
    pub boot: BootId,
    /// Its version.
    pub version: String,
}

/// Lists the hosts with a live session.
pub async fn host_list(app: &App) -> Result<Vec<Session>, HostError> {
    let sessions = app.records.sessions().await?;
    Ok(sessions.into_iter().map(|leased| leased.session).collect())
}

/// Shows a host.
pub async fn host_get(app: &App, host: &HostName) -> Result<Session, HostError> {
    let found = app.records.session(host).await?;
    let none = || HostError::NotFound { host: host.clone() };
    found.map(|found| found.value.session).ok_or_else(none)
}

/// Lists the volumes that a host holds, for their limits: hosts ask every second, so it is answered from the mirrors.
pub async fn host_limit_list(app: &App, host: &HostName) -> Result<Vec<Arc<Volume>>, ListError> {
    volume_sync(app).await?;
    let held: Vec<_> = app.mirrors.mounts.read(|view| {
        let claims = view.records().values().map(|kept| &kept.record);
        let ours = claims.filter(|claim| claim.holders.iter().any(|holder| holder.host == *host));
        ours.map(|claim| app.records.keys().volume(&claim.volume)).collect()
    });
    let volume = |key| app.mirrors.volumes.get(key).map(|kept| kept.record);
    Ok(held.iter().filter_map(volume).collect())
}

/// Opens or renews a host's session.
pub async fn host_session(
    app: &App,
    host: &HostName,
    ask: &SessionAsk,
) -> Result<(Session, SessionTtl), HostError> {
    for _ in 0..ROUNDS {
        let (found, global) = tokio::join!(app.records.session(host), app.records.global());
        let found = found?;
        let ttl = global?.map(|global| global.value).unwrap_or_default().session_ttl;
        let standing = found.as_ref().map(|found| &found.value.session);
        let decision = volcore::host::session_open(standing, ask.instance, &ask.boot)?;
        let session = Session {
            host: host.clone(),
            instance: ask.instance,
            boot: ask.boot.clone(),
            since: standing.map_or_else(|| app.now(), |session| session.since),
            version: ask.version.clone(),
        };
        let done = match (decision, found) {
            (SessionDecision::Renew, Some(found)) if found.value.ttl == ttl => {
                renew(app, found, session).await?
            }
            (SessionDecision::Open | SessionDecision::Renew, found) => {
                open(app, found, session, ttl).await?
            }
        };
        if let Some(session) = done {
            return Ok((session, ttl));
        }
    }
    Err(HostError::Contended { host: host.clone() })
}

/// Renews the lease of a session; `None` when the session has just ended.
async fn renew(
    app: &App,
    found: Versioned<LeasedSession>,
    session: Session,
) -> Result<Option<Session>, HostError> {
    let LeasedSession { session: standing, lease, ttl } = found.value;
    match app.records.store().lease_renew(lease).await? {
        Renewal::Ended => Ok(None),
        Renewal::Renewed if standing == session => Ok(Some(session)),
        // A newer volplugin speaks: its version is written under the same lease.
        Renewal::Renewed => {
            let leased = LeasedSession { session, lease, ttl };
            written(app, leased, Expect::At(found.at)).await
        }
    }
}

/// Writes a session under a new lease; `None` where somebody else was faster.
async fn open(
    app: &App,
    found: Option<Versioned<LeasedSession>>,
    session: Session,
    ttl: SessionTtl,
) -> Result<Option<Session>, HostError> {
    let expect = Versioned::unchanged(found.as_ref());
    let lease = app.records.store().lease_grant(ttl.get()).await?;
    let written = written(app, LeasedSession { session, lease, ttl }, expect).await;
    // The lease that nothing hangs on now ends by itself, if not here.
    let idle = match &written {
        Ok(Some(_)) => found.map(|found| found.value.lease),
        Ok(None) => Some(lease),
        Err(_) => None,
    };
    if let Some(idle) = idle
        && let Err(error) = app.records.store().lease_revoke(idle).await
    {
        tracing::debug!(error = volapi::problem::chain(&error), "a lease is left to end by itself");
    }
    written
}

async fn written(
    app: &App,
    leased: LeasedSession,
    expect: Expect,
) -> Result<Option<Session>, HostError> {
    let changes = app.records.changes().put_session(&leased, expect);
    match app.records.commit(changes).await {
        Ok(Commit::Done(_)) => Ok(Some(leased.session)),
        Ok(Commit::Conflict) | Err(StoreError::LeaseEnded { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Ends a host's session; its claims stay.
pub async fn host_forget(app: &App, host: &HostName) -> Result<(), HostError> {
    for _ in 0..ROUNDS {
        let found = app.records.session(host).await?;
        let found = found.ok_or_else(|| HostError::NotFound { host: host.clone() })?;
        let changes = app.records.changes().delete_session(host, found.at);
        if let Commit::Done(_) = app.records.commit(changes).await? {
            if let Err(error) = app.records.store().lease_revoke(found.value.lease).await {
                tracing::debug!(%host, error = volapi::problem::chain(&error), "a lease is left to end by itself");
            }
            return Ok(());
        }
    }
    Err(HostError::Contended { host: host.clone() })
}
