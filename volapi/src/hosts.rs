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

/// A host with a live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its label.
    #[schema(value_type = String, example = "h1")]
    pub host: HostName,
    /// The installation on it.
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

impl From<Session> for Host {
    fn from(session: Session) -> Self {
        let Session { host, instance, boot, since, version } = session;
        Host { host, instance_id: instance, boot_id: boot, since, version }
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
    /// The host as it stands now.
    #[serde(flatten)]
    pub host: Host,
    /// The session ends when it is not renewed within this time.
    #[schema(value_type = String, example = "10s")]
    pub ttl: SessionTtl,
}
