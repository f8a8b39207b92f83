//! Hosts and their sessions, which live on leases of the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use uuid::Uuid;
use volcore::Kind;
use volcore::claim::{Claim, Holder};
use volcore::duration::SessionTtl;
use volcore::host::{Session, SessionDecision, SessionRefusal};
use volcore::name::{BootId, HostName, VolumeId};
use volcore::takeover::Fence;
use volcore::volume::Volume;
use volstore::cache::Mirror;
use volstore::records::{LeasedSession, Versioned};
use volstore::store::{Commit, Expect, Key, Renewal, StoreError};

use super::mounts::{MountError, mount_lose};
use super::volumes::volume_sync;
use super::{App, Failing, ListError, LoopName, catch_up, store_kind};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;
/// How many volumes of a host are fenced at a time. Ceph gathers what comes within a second.
const FENCED_AT_ONCE: usize = 64;

/// Why a session was not opened, ended or shown.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no live session.
    #[error(
        "host {host} is not known: it has no live session, and neither holds nor has lost a volume"
    )]
    NotFound {
        /// Which.
        host: HostName,
    },
    /// The label is somebody else's.
    #[error(transparent)]
    Refused(#[from] SessionRefusal),
    /// It has no session that could be ended.
    #[error("host {host} has no live session")]
    NoSession {
        /// Which.
        host: HostName,
    },
    /// It has one, and nobody said that it is to be fenced all the same.
    #[error(
        "host {host} lives: its session stands since {since:.0}. Its containers would get errors, and lose what they have \
         not synced; if it is to lose its volumes, say so (`volcli host fence {host} --yes`)"
    )]
    Live {
        /// Which.
        host: HostName,
        /// Since when.
        since: Timestamp,
    },
    /// What it holds is not known.
    #[error(transparent)]
    Claims(#[from] ListError),
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
            HostError::NotFound { .. } | HostError::NoSession { .. } => Kind::NotFound,
            HostError::Live { .. } => Kind::InUse,
            HostError::Claims(error) => error.kind(),
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

/// What is known of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its label.
    pub host: HostName,
    /// Its live session, if it has one.
    pub session: Option<Session>,
    /// The volumes that it holds.
    pub volumes: Vec<VolumeId>,
    /// What it has lost, and is kept from.
    pub fences: Vec<Fence>,
}

/// Lists the hosts with a live session, and those that hold or have lost volumes.
pub async fn host_list(app: &App) -> Result<Vec<Known>, HostError> {
    catch_up(app, &app.mirrors.mounts, None::<&Mirror<Claim>>).await?;
    let (sessions, fences) = tokio::join!(app.records.sessions(), app.records.fences(None));
    let mut hosts: BTreeMap<HostName, Known> = BTreeMap::new();
    let mut of = |host: &HostName, note: &dyn Fn(&mut Known)| {
        let nothing =
            || Known { host: host.clone(), session: None, volumes: Vec::new(), fences: Vec::new() };
        note(hosts.entry(host.clone()).or_insert_with(nothing));
    };
    for leased in sessions? {
        let session = &leased.session;
        of(&session.host, &|known| known.session = Some(session.clone()));
    }
    for fence in fences? {
        of(&fence.value.host, &|known| known.fences.push(fence.value.clone()));
    }
    app.mirrors.mounts.read(|view| {
        for claim in view.records().values().map(|kept| &kept.record) {
            for holder in claim.holders.iter().filter(|holder| holder.holds()) {
                of(&holder.host, &|known| known.volumes.push(claim.volume.clone()));
            }
        }
    });
    Ok(hosts.into_values().collect())
}

/// Shows a host.
pub async fn host_get(app: &App, host: &HostName) -> Result<Known, HostError> {
    let known = host_list(app).await?.into_iter().find(|known| known.host == *host);
    known.ok_or_else(|| HostError::NotFound { host: host.clone() })
}

/// Whether a host is fenced that is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhileLive {
    /// It is known to be dead, or is to lose its volumes.
    Fence,
    /// It is not.
    Refuse,
}

/// What came of fencing a host.
#[derive(Debug, Default)]
pub struct Fenced {
    /// What it has lost.
    pub fenced: Vec<Fence>,
    /// What could not be fenced yet. It has lost that, too, and it is gone on with.
    pub pending: Vec<(VolumeId, MountError)>,
}

/// Takes all volumes from a host: its session ends, its clients are cut off, its claims are cleared. What it
/// shares read-only with others it only leaves.
pub async fn host_fence(
    app: &Arc<App>,
    host: &HostName,
    live: WhileLive,
) -> Result<Fenced, HostError> {
    let known = host_get(app, host).await?;
    if let (Some(session), WhileLive::Refuse) = (&known.session, live) {
        return Err(HostError::Live { host: host.clone(), since: session.since });
    }
    if known.session.is_some() {
        match host_forget(app, host).await {
            Ok(()) | Err(HostError::NoSession { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let losing = known.volumes.into_iter().map(|id| {
        let (app, host) = (app.clone(), host.clone());
        async move {
            let lost = mount_lose(&app, &id, &host).await;
            (id, lost)
        }
    });
    let mut came = Fenced::default();
    let mut losing = stream::iter(losing).buffer_unordered(FENCED_AT_ONCE);
    while let Some((id, lost)) = losing.next().await {
        match lost {
            Ok(fences) => came.fenced.extend(fences),
            Err(error) => came.pending.push((id, error)),
        }
    }
    came.fenced.sort_by(|a, b| (&a.volume, a.epoch).cmp(&(&b.volume, b.epoch)));
    came.pending.sort_by(|(a, _), (b, _)| a.cmp(b));
    app.loops.nudge(LoopName::Fencing);
    Ok(came)
}

/// Lists the volumes that a host holds, with the epochs of its claims, for their limits: hosts ask every second, so it is answered from the mirrors.
pub async fn host_limit_list(
    app: &App,
    host: &HostName,
) -> Result<Vec<(Arc<Volume>, u64)>, ListError> {
    volume_sync(app).await?;
    let held: Vec<_> = app.mirrors.mounts.read(|view| {
        let claims = view.records().values().map(|kept| &kept.record);
        let holds = |holder: &Holder| holder.host == *host && holder.holds();
        let ours = claims.filter(|claim| claim.holders.iter().any(holds));
        ours.map(|claim| (app.records.keys().volume(&claim.volume), claim.epoch)).collect()
    });
    let volume =
        |(key, epoch): &(Key, u64)| app.mirrors.volumes.get(key).map(|kept| (kept.record, *epoch));
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
        let found = found.ok_or_else(|| HostError::NoSession { host: host.clone() })?;
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
