//! What volmaster orders: to freeze the file system of a volume while a snapshot of it is taken.
//!
//! The order is looked for, as this process has no port. While it is obeyed the volume's lock is held, so that nothing is
//! unmounted that is frozen; that is [`FREEZE_BOUND`] at most. Whatever goes wrong, the file system is thawed first and
//! spoken of afterwards.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;
use volapi::hosts::{Order, OrderState, Orders, OrdersQuery};
use volapi::problem::chain;
use volcore::options::Sharing;
use volcore::order::{FREEZE_BOUND, Report, ThawedBy};
use volstorage::host::Frozen;

use crate::app::{Plugin, within};
use crate::host::uses::Phase;
use crate::master::MasterError;

/// How long to wait for the volume's turn: volmaster does not wait for much longer.
const TURN: Duration = Duration::from_secs(2);
/// How long a report may take. A freeze that nobody is told of is over.
const REPORT: Duration = Duration::from_secs(2);
/// How long volmaster is asked to wait for news, in seconds.
const WAIT: u64 = 5;

/// What this process is obeying.
#[derive(Debug, Default)]
pub struct Obeying {
    /// By order; told that it is to thaw.
    orders: Mutex<HashMap<Uuid, watch::Sender<bool>>>,
}

impl Obeying {
    fn begin(&self, id: Uuid) -> Option<watch::Receiver<bool>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.contains_key(&id) {
            return None;
        }
        let (tell, told) = watch::channel(false);
        orders.insert(id, tell);
        Some(told)
    }

    fn end(&self, id: Uuid) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Tells those to thaw that are over, or to be so.
    fn tell(&self, orders: &[Order]) {
        let held = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, tell) in held.iter() {
            let stands = orders.iter().find(|order| order.id == *id);
            if stands.is_none_or(|order| order.state == OrderState::Thaw) {
                tell.send_replace(true);
            }
        }
    }
}

impl Plugin {
    /// Looks for orders, and begins to obey those that are new; where nothing is held, asks nobody. `after` is what the
    /// look before has given, and then the answer comes with the next change, or after a while.
    pub async fn follow_orders(
        self: &Arc<Self>,
        after: Option<u64>,
    ) -> Result<Option<u64>, MasterError> {
        if !self.uses.list().iter().any(|held| held.boot == self.me.boot) {
            return Ok(None);
        }
        let query = OrdersQuery { wait: after.map(|_| WAIT), after };
        let Orders { items, at } =
            self.master.host_order_list(&self.me.host, query, within::ORDERS).await?;
        self.obeying.tell(&items);
        for order in items {
            if order.state == OrderState::Asked
                && let Some(told) = self.obeying.begin(order.id)
            {
                let plugin = Arc::clone(self);
                tokio::spawn(async move {
                    plugin.obey(&order, told).await;
                    plugin.obeying.end(order.id);
                });
            }
        }
        Ok(Some(at))
    }

    /// Freezes, says so, and thaws when it is told to.
    async fn obey(&self, order: &Order, mut told: watch::Receiver<bool>) {
        let Ok(_turn) = tokio::time::timeout(TURN, self.locks.lock(&order.volume)).await else {
            let reason = "another operation on the volume is under way there".to_owned();
            return self.report(order, Report::Failed { reason }).await.unwrap_or_default();
        };
        let mut frozen = match self.freeze(order).await {
            Ok(frozen) => frozen,
            Err(reason) => {
                tracing::warn!(volume = %order.volume, reason, "not frozen for a snapshot");
                return self.report(order, Report::Failed { reason }).await.unwrap_or_default();
            }
        };
        if self.report(order, Report::Frozen).await.is_err() {
            // It may have got there: what follows tells that it is over.
            let reason = "volmaster could not be told that it was frozen".to_owned();
            drop(frozen);
            return self.report(order, Report::Failed { reason }).await.unwrap_or_default();
        }
        // Cancel-safe: both only wait.
        let was_told = tokio::select! {
            () = frozen.over() => false,
            told = told.wait_for(|told| *told) => told.is_ok(),
        };
        let mut thawed = frozen.thaw().await;
        if !was_told {
            thawed.by = ThawedBy::Itself;
        }
        tracing::info!(volume = %order.volume, ?thawed, was_told, "was frozen for a snapshot");
        self.report(order, Report::Thawed(thawed)).await.unwrap_or_default();
    }

    async fn freeze(&self, order: &Order) -> Result<Box<dyn Frozen>, String> {
        let held = self.uses.get(&order.volume).filter(|held| {
            held.uid == order.uid && held.boot == self.me.boot && held.phase == Phase::Mounted
        });
        let Some((held, mapping)) = held.and_then(|held| Some((held.clone(), held.mapping?)))
        else {
            return Err("it is not mounted there at the moment".to_owned());
        };
        if held.sharing == Sharing::ReadOnly {
            return Err("it is mounted read-only there".to_owned());
        }
        let frozen = self.driver.freeze(&mapping, &held.target, FREEZE_BOUND).await;
        frozen.map_err(|error| chain(&error))
    }

    async fn report(&self, order: &Order, report: Report) -> Result<(), MasterError> {
        let reported =
            self.master.host_order_report(&self.me.host, order.id, report.into(), REPORT).await;
        if let Err(error) = &reported {
            tracing::debug!(volume = %order.volume, %error, "volmaster could not be told");
        }
        reported
    }
}
