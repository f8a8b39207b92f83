//! Hosts and their sessions on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use volcore::duration::SessionTtl;
use volcore::host::Session;
use volcore::limit::RateLimitOptions;
use volcore::name::{BootId, HostName, VolumeId};
use volcore::order::{self, Report, Thawed, ThawedBy};
use volcore::takeover::Fence;

/// A host: one with a live session, or one that holds or has lost volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its label.
    #[schema(value_type = String, example = "h1")]
    pub host: HostName,
    /// Whether it is heard of.
    pub state: HostState,
    /// Its session, if it has a live one.
    #[serde(flatten)]
    pub session: Option<HostSession>,
    /// The volumes that it holds.
    #[schema(value_type = Vec<String>)]
    pub volumes: Vec<VolumeId>,
    /// What it has lost, and is kept from.
    pub fences: Vec<HostFence>,
}

/// Whether a host is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    /// It has a live session.
    Live,
    /// It has none: it may be dead, or cut off. Its volumes are taken over by whoever asks for them.
    Silent,
}

/// Clients of a host that are blocklisted, because it has lost a volume to which they could write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostFence {
    /// `tenant/volume`.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// Under which epoch it held that.
    pub epoch: u64,
    /// The addresses of its clients.
    pub clients: Vec<String>,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

impl From<Fence> for HostFence {
    fn from(fence: Fence) -> Self {
        let Fence { host: _, volume, epoch, boot: _, instance: _, clients, since } = fence;
        HostFence { volume, epoch, clients: clients.into_iter().collect(), since }
    }
}

/// The body of a request to fence a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FenceHost {
    /// Also when its session is live: it is known to be dead, or is to lose its volumes.
    #[serde(default)]
    pub force: bool,
}

/// What came of fencing a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostFenced {
    /// Its label.
    #[schema(value_type = String, example = "h1")]
    pub host: HostName,
    /// What it has lost; others can have these volumes at once.
    pub fenced: Vec<HostFence>,
    /// What could not be fenced yet, with the reasons; it is tried again until it is.
    pub pending: Vec<PendingFence>,
}

/// A volume whose holder could not be fenced yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingFence {
    /// `tenant/volume`.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// Why not.
    pub reason: String,
}

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostSession {
    /// The installation on the host.
    #[schema(value_type = String)]
    pub instance_id: Uuid,
    /// Its present boot.
    #[schema(value_type = String)]
    pub boot_id: BootId,
    /// Since when the session stands.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The version of volplugin there.
    pub version: String,
}

impl From<Session> for HostSession {
    fn from(session: Session) -> Self {
        let Session { host: _, instance, boot, since, version } = session;
        HostSession { instance_id: instance, boot_id: boot, since, version }
    }
}

/// The size and the limits of a volume that a host holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldLimits {
    /// `tenant/volume`.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// Which one of that name.
    #[schema(value_type = String)]
    pub uid: Uuid,
    /// The epoch of the host's claim.
    #[serde(default)]
    pub epoch: u64,
    /// Its size in bytes: what the file system on it is to grow to.
    #[serde(default)]
    pub size: u64,
    /// Its limits; the members are those of a policy's `rate-limit`.
    #[serde(rename = "rate-limit", default)]
    #[schema(value_type = Object)]
    pub rate_limit: RateLimitOptions,
}

/// What a host is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Orders {
    /// The orders for this host that are not over, or were so a moment ago.
    pub items: Vec<Order>,
    /// What it says changes with every change of any order; given back as `after`, the answer waits for the next one.
    pub at: u64,
}

/// One order: to freeze the file system of a volume while a snapshot is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Order {
    /// Its own; another order for the same volume has another.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// `tenant/volume`.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// Which one of that name.
    #[schema(value_type = String)]
    pub uid: Uuid,
    /// When it was given.
    #[schema(value_type = String, format = DateTime)]
    pub asked_at: Timestamp,
    /// How far it has come.
    pub state: OrderState,
}

/// How far an order has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum OrderState {
    /// The host is to freeze the file system, and to report that.
    Asked,
    /// The host has frozen it.
    Frozen,
    /// The host could not.
    Failed {
        /// Why.
        reason: String,
    },
    /// The host is to thaw it, and to report that.
    Thaw,
    /// It is thawed.
    Thawed {
        /// For how many milliseconds it was frozen.
        held_ms: u64,
        /// Whether that ended before the host was told to end it.
        by_itself: bool,
    },
    /// A state of a version to come.
    #[serde(other)]
    Unknown,
}

/// What a host says of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ReportOrder {
    /// The file system is frozen.
    Frozen,
    /// It could not be frozen, and is not.
    Failed {
        /// Why.
        reason: String,
    },
    /// It is thawed.
    Thawed {
        /// For how many milliseconds it was frozen.
        held_ms: u64,
        /// Whether that ended before the host was told to end it.
        by_itself: bool,
    },
}

/// The query of a list of orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrdersQuery {
    /// Wait so many seconds for a change, at most; the server may wait for less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
    /// The `at` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

impl From<&order::Order> for Order {
    fn from(order: &order::Order) -> Self {
        let order::Order { id, volume, uid, host: _, asked_at, state } = order.clone();
        let state = match state {
            order::OrderState::Asked => OrderState::Asked,
            order::OrderState::Frozen => OrderState::Frozen,
            order::OrderState::Failed { reason } => OrderState::Failed { reason },
            order::OrderState::Thaw => OrderState::Thaw,
            order::OrderState::Thawed(Thawed { held_ms, by }) => {
                OrderState::Thawed { held_ms, by_itself: by == ThawedBy::Itself }
            }
        };
        Order { id, volume, uid, asked_at, state }
    }
}

impl From<ReportOrder> for Report {
    fn from(report: ReportOrder) -> Self {
        match report {
            ReportOrder::Frozen => Report::Frozen,
            ReportOrder::Failed { reason } => Report::Failed { reason },
            ReportOrder::Thawed { held_ms, by_itself } => {
                let by = if by_itself { ThawedBy::Itself } else { ThawedBy::Word };
                Report::Thawed(Thawed { held_ms, by })
            }
        }
    }
}

impl From<Report> for ReportOrder {
    fn from(report: Report) -> Self {
        match report {
            Report::Frozen => ReportOrder::Frozen,
            Report::Failed { reason } => ReportOrder::Failed { reason },
            Report::Thawed(Thawed { held_ms, by }) => {
                ReportOrder::Thawed { held_ms, by_itself: by == ThawedBy::Itself }
            }
        }
    }
}

/// The body of a session request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    /// The installation that speaks.
    #[schema(value_type = String)]
    pub instance_id: Uuid,
    /// The machine's present boot.
    #[schema(value_type = String)]
    pub boot_id: BootId,
    /// The version of volplugin.
    pub version: String,
}

/// The answer to a session request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionGranted {
    /// The label of the host.
    #[schema(value_type = String, example = "h1")]
    pub host: HostName,
    /// The session as it stands now.
    #[serde(flatten)]
    pub session: HostSession,
    /// The session ends when it is not renewed within this time.
    #[schema(value_type = String, example = "10s")]
    pub ttl: SessionTtl,
}
