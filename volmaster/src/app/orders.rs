//! Orders to the holders of volumes: given and ended by whoever takes a snapshot, listed and reported on for the hosts.
//!
//! An order hangs on a lease, so that nobody has to clean up after a volmaster that has died; its host thaws by itself.
//! What holds for a snapshot is decided here alone: [`thaw`] says whether the file system was frozen from before it was
//! taken until after.

use std::time::Duration;

use uuid::Uuid;
use volcore::Kind;
use volcore::name::{HostName, VolumeId};
use volcore::order::{
    Order, OrderState, Report, ReportDecision, ReportRefusal, Thawed, ThawedBy, order_report,
};
use volcore::volume::Volume;
use volstore::cache::{Kept, Mirror};
use volstore::records::{LeasedOrder, Versioned};
use volstore::store::{Commit, Expect, LeaseId, Revision, StoreError};

use super::{App, Failing, ListError, catch_up, store_kind};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;
/// An order ends so long after whoever gave it has died.
const LEASE: Duration = Duration::from_secs(20);
/// How long freezing is waited for: the host writes out first what is to be written, while everybody goes on.
const FREEZING: Duration = Duration::from_secs(10);
/// How long thawing is waited for.
const THAWING: Duration = Duration::from_secs(3);
/// How long an earlier order for the same volume is waited for.
pub(crate) const TURN: Duration = Duration::from_secs(15);
/// The pause before the next look at an order that is in the way.
const AGAIN: Duration = Duration::from_millis(20);
/// How much of a host's reason is kept, in characters.
const REASON: usize = 500;

/// Why an order was not reported on.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The host has no such order, or not any more.
    #[error("host {host} has no order {id}; it is over")]
    NotFound {
        /// The host.
        host: HostName,
        /// The order.
        id: Uuid,
    },
    /// It is too late for that.
    #[error(transparent)]
    Refused(#[from] ReportRefusal),
    /// Others are faster, time and again.
    #[error("order {id} is being changed by others; try again")]
    Contended {
        /// The order.
        id: Uuid,
    },
    /// It is not known which orders there are.
    #[error(transparent)]
    List(#[from] ListError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for OrderError {
    fn kind(&self) -> Kind {
        match self {
            OrderError::NotFound { .. } => Kind::NotFound,
            OrderError::Refused(refusal) => refusal.kind(),
            OrderError::Contended { .. } => Kind::Busy,
            OrderError::List(error) => error.kind(),
            OrderError::Store(error) => store_kind(error),
        }
    }
}

/// Why a file system was not frozen, or not for long enough.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// Its host is away.
    #[error(
        "host {host} holds volume {volume} and has no live session, so that its file system cannot be frozen there; \
         if that host is gone for good, `volcli mount force-remove {volume}` clears its claim"
    )]
    NoSession {
        /// The volume.
        volume: VolumeId,
        /// Its holder.
        host: HostName,
    },
    /// Its host says nothing, or is older than this.
    #[error(
        "host {host} has not frozen the file system of volume {volume} within {} s; a volplugin of before cannot do it",
        FREEZING.as_secs()
    )]
    NoAnswer {
        /// The volume.
        volume: VolumeId,
        /// Its holder.
        host: HostName,
    },
    /// Its host could not.
    #[error("host {host} could not freeze the file system of volume {volume}: {reason}")]
    Failed {
        /// The volume.
        volume: VolumeId,
        /// Its holder.
        host: HostName,
        /// In the host's words.
        reason: String,
    },
    /// It is not known to have been frozen until after the snapshot was taken.
    #[error(
        "host {host} did not keep the file system of volume {volume} frozen until the snapshot was taken: it is frozen \
         for 5 s at most"
    )]
    TooShort {
        /// The volume.
        volume: VolumeId,
        /// Its holder.
        host: HostName,
    },
    /// Another snapshot of the volume is being taken.
    #[error(
        "another snapshot of volume {volume} is being taken, for which its file system is frozen; try again"
    )]
    Taken {
        /// The volume.
        volume: VolumeId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for FreezeError {
    fn kind(&self) -> Kind {
        match self {
            FreezeError::NoSession { .. }
            | FreezeError::NoAnswer { .. }
            | FreezeError::Failed { .. }
            | FreezeError::TooShort { .. }
            | FreezeError::Taken { .. } => Kind::Busy,
            FreezeError::Store(error) => store_kind(error),
        }
    }
}

/// The orders for a host, and at which change of any order. With `after`, an answer of before, it waits for the next
/// change, for so long at most.
pub async fn host_order_list(
    app: &App,
    host: &HostName,
    after: Option<u64>,
    wait: Duration,
) -> Result<(Vec<Order>, u64), ListError> {
    let mirror = &app.mirrors.orders;
    catch_up(app, mirror, None::<&Mirror<LeasedOrder>>).await?;
    if let Some(after) = after {
        let news = async {
            while mirror.read(|view| view.generation().0) <= after {
                let seen = mirror.revision();
                mirror.at_least(Revision(seen.0 + 1), wait).await;
            }
        };
        // Cancel-safe: the mirror is only looked at. Out of time is no error, and at the end nobody is kept waiting.
        tokio::select! {
            () = app.stop.cancelled() => {}
            _ = tokio::time::timeout(wait, news) => {}
        }
    }
    Ok(mirror.read(|view| {
        let all = view.records().values().map(|kept| &kept.record.order);
        (all.filter(|order| order.host == *host).cloned().collect(), view.generation().0)
    }))
}

/// Takes down how far a host has come.
pub async fn host_order_report(
    app: &App,
    host: &HostName,
    id: Uuid,
    report: Report,
) -> Result<(), OrderError> {
    let mirror = &app.mirrors.orders;
    catch_up(app, mirror, None::<&Mirror<LeasedOrder>>).await?;
    let is_it = |order: &Order| order.id == id && order.host == *host;
    let volume = mirror.read(|view| {
        let mut all = view.records().values().map(|kept| &kept.record.order);
        all.find(|order| is_it(order)).map(|order| order.volume.clone())
    });
    let none = || OrderError::NotFound { host: host.clone(), id };
    let volume = volume.ok_or_else(none)?;
    let report = match report {
        Report::Failed { reason } => {
            Report::Failed { reason: reason.chars().take(REASON).collect() }
        }
        report => report,
    };
    for _ in 0..ROUNDS {
        let found = app.records.order(&volume).await?;
        let found = found.filter(|found| is_it(&found.value.order)).ok_or_else(none)?;
        let LeasedOrder { order, lease } = found.value;
        let order = match order_report(&order, report.clone())? {
            ReportDecision::Unchanged => return Ok(()),
            ReportDecision::Store(order) => order,
        };
        let leased = LeasedOrder { order, lease };
        match put(app, &leased, Expect::At(found.at)).await? {
            Put::Done(_) => return Ok(()),
            Put::Conflict => {}
            Put::Ended => return Err(none()),
        }
    }
    Err(OrderError::Contended { id })
}

/// A file system that its host keeps frozen for this order, for a while.
#[derive(Debug)]
pub(crate) struct Freeze {
    leased: LeasedOrder,
    at: Revision,
}

/// Has the holder of a volume freeze its file system. What it comes to has to be [ended](end).
/// [`FreezeError::Taken`] comes when the order in the way has ended, as a rule: it may have been for the same.
pub(crate) async fn freeze(
    app: &App,
    volume: &Volume,
    host: &HostName,
) -> Result<Freeze, FreezeError> {
    if app.records.session(host).await?.is_none() {
        return Err(FreezeError::NoSession { volume: volume.id.clone(), host: host.clone() });
    }
    let lease = app.records.store().lease_grant(LEASE).await?;
    let order = Order {
        id: Uuid::new_v4(),
        volume: volume.id.clone(),
        uid: volume.uid,
        host: host.clone(),
        asked_at: app.now(),
        state: OrderState::Asked,
    };
    let leased = LeasedOrder { order, lease };
    let frozen = asked(app, leased).await;
    if frozen.is_err() {
        revoke(app, lease).await;
    }
    frozen
}

async fn asked(app: &App, leased: LeasedOrder) -> Result<Freeze, FreezeError> {
    let (volume, host) = (leased.order.volume.clone(), leased.order.host.clone());
    let at = match put(app, &leased, Expect::Absent).await? {
        Put::Done(at) => at,
        Put::Conflict => {
            let key = app.records.keys().order(&volume);
            changed(app, TURN, || app.mirrors.orders.get(&key).is_none().then_some(())).await;
            // The mirror may not have seen yet what is in the way.
            tokio::time::sleep(AGAIN).await;
            return Err(FreezeError::Taken { volume });
        }
        Put::Ended => return Err(FreezeError::Taken { volume }),
    };
    let is_answered = |order: &Order| order.state != OrderState::Asked;
    match follow(app, &leased, at, FREEZING, is_answered).await {
        Some(Versioned { value, at }) => match value.order.state.clone() {
            OrderState::Frozen => Ok(Freeze { leased: value, at }),
            OrderState::Failed { reason } => Err(FreezeError::Failed { volume, host, reason }),
            _ => Err(FreezeError::TooShort { volume, host }),
        },
        None => Err(FreezeError::NoAnswer { volume, host }),
    }
}

/// Has it thawed. Success is that it was frozen until after this was called.
pub(crate) async fn thaw(app: &App, freeze: &Freeze) -> Result<Thawed, FreezeError> {
    let Order { volume, host, .. } = &freeze.leased.order;
    let too_short = || FreezeError::TooShort { volume: volume.clone(), host: host.clone() };
    let mut leased = freeze.leased.clone();
    leased.order.state = OrderState::Thaw;
    // Whatever the host has said meanwhile is that it is over.
    let Put::Done(at) = put(app, &leased, Expect::At(freeze.at)).await? else {
        return Err(too_short());
    };
    let is_answered = |order: &Order| order.state != OrderState::Thaw;
    let answer = follow(app, &leased, at, THAWING, is_answered).await;
    match answer.map(|answer| answer.value.order.state) {
        Some(OrderState::Thawed(thawed)) if thawed.by == ThawedBy::Word => Ok(thawed),
        Some(_) | None => Err(too_short()),
    }
}

/// Ends an order; if its file system is frozen still, its host thaws it.
pub(crate) async fn end(app: &App, freeze: Freeze) {
    revoke(app, freeze.leased.lease).await;
}

async fn revoke(app: &App, lease: LeaseId) {
    if let Err(error) = app.records.store().lease_revoke(lease).await {
        tracing::debug!(
            error = volapi::problem::chain(&error),
            "an order is left to end by itself"
        );
    }
}

enum Put {
    Done(Revision),
    Conflict,
    Ended,
}

async fn put(app: &App, leased: &LeasedOrder, expect: Expect) -> Result<Put, StoreError> {
    let changes = app.records.changes().put_order(leased, expect);
    match app.records.commit(changes).await {
        Ok(Commit::Done(at)) => Ok(Put::Done(at)),
        Ok(Commit::Conflict) => Ok(Put::Conflict),
        Err(StoreError::LeaseEnded { .. }) => Ok(Put::Ended),
        Err(error) => Err(error),
    }
}

/// Waits until an order that was written at a revision is what is waited for; `None` where it is not in time, or is over.
async fn follow(
    app: &App,
    leased: &LeasedOrder,
    at: Revision,
    bound: Duration,
    enough: impl Fn(&Order) -> bool,
) -> Option<Versioned<LeasedOrder>> {
    let key = app.records.keys().order(&leased.order.volume);
    let mirror = &app.mirrors.orders;
    let look = || {
        if mirror.revision() < at {
            return None;
        }
        let kept = mirror.get(&key).filter(|kept| kept.record.order.id == leased.order.id);
        let Some(Kept { record, revision, .. }) = kept else { return Some(None) };
        let found = || Versioned { value: (*record).clone(), at: revision };
        enough(&record.order).then(|| Some(found()))
    };
    changed(app, bound, look).await.flatten()
}

/// Looks at the orders whenever one has changed, until there is what is looked for.
async fn changed<T>(app: &App, bound: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
    let mirror = &app.mirrors.orders;
    let watch = async {
        loop {
            let seen = mirror.revision();
            if let Some(found) = look() {
                return found;
            }
            mirror.at_least(Revision(seen.0 + 1), bound).await;
        }
    };
    // Cancel-safe: the mirror is only looked at.
    tokio::time::timeout(bound, watch).await.ok()
}
