//! The record of an order to the holder of a volume.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volcore::name::{HostName, VolumeId};
use volcore::order::{Order, OrderState, Thawed, ThawedBy};

use super::V1;
use crate::store::LeaseId;

/// An order with what ends it when whoever gave it has died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedOrder {
    /// The order.
    pub order: Order,
    /// The lease under its key, for whoever writes it again.
    pub lease: LeaseId,
}

/// An order. The volume is in the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOrder {
    v: V1,
    id: Uuid,
    uid: Uuid,
    host: HostName,
    what: StoredWhat,
    asked_at: Timestamp,
    state: StoredOrderState,
    lease: i64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StoredWhat {
    Freeze,
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
enum StoredOrderState {
    Asked,
    Frozen,
    Failed { reason: String },
    Thaw,
    Thawed { held_ms: u64, by_itself: bool },
}

impl From<OrderState> for StoredOrderState {
    fn from(state: OrderState) -> Self {
        match state {
            OrderState::Asked => StoredOrderState::Asked,
            OrderState::Frozen => StoredOrderState::Frozen,
            OrderState::Failed { reason } => StoredOrderState::Failed { reason },
            OrderState::Thaw => StoredOrderState::Thaw,
            OrderState::Thawed(Thawed { held_ms, by }) => {
                StoredOrderState::Thawed { held_ms, by_itself: by == ThawedBy::Itself }
            }
        }
    }
}

impl From<StoredOrderState> for OrderState {
    fn from(state: StoredOrderState) -> Self {
        match state {
            StoredOrderState::Asked => OrderState::Asked,
            StoredOrderState::Frozen => OrderState::Frozen,
            StoredOrderState::Failed { reason } => OrderState::Failed { reason },
            StoredOrderState::Thaw => OrderState::Thaw,
            StoredOrderState::Thawed { held_ms, by_itself } => {
                let by = if by_itself { ThawedBy::Itself } else { ThawedBy::Word };
                OrderState::Thawed(Thawed { held_ms, by })
            }
        }
    }
}

impl From<&LeasedOrder> for StoredOrder {
    fn from(leased: &LeasedOrder) -> Self {
        let LeasedOrder { order, lease } = leased.clone();
        let Order { id, volume: _, uid, host, asked_at, state } = order;
        let (what, state) = (StoredWhat::Freeze, state.into());
        StoredOrder { v: V1, id, uid, host, what, asked_at, state, lease: lease.0 }
    }
}

impl StoredOrder {
    /// The order for the volume whose key it was.
    pub fn into_order(self, volume: VolumeId) -> LeasedOrder {
        let StoredOrder { v: V1, id, uid, host, what: StoredWhat::Freeze, asked_at, state, lease } =
            self;
        let order = Order { id, volume, uid, host, asked_at, state: state.into() };
        LeasedOrder { order, lease: LeaseId(lease) }
    }
}
