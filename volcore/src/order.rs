//! Orders of volmaster to a host: to freeze a file system for as long as a snapshot is taken.
//!
//! A host has no port, so an order is stored, and the host looks for it. It goes from state to state by compare-and-write:
//! the host reports, whoever takes the snapshot tells when it may end. Only where the host was told to thaw *before* it
//! thawed was the file system frozen for all of the time in between.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::claim::Claim;
use crate::kind::Kind;
use crate::name::{HostName, VolumeId};
use crate::options::Sharing;
use crate::volume::Volume;

/// No file system is frozen for longer, whoever dies meanwhile.
pub const FREEZE_BOUND: Duration = Duration::from_secs(5);

/// An order; a volume has one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its own; another order of the same volume has another.
    pub id: Uuid,
    /// Of which volume.
    pub volume: VolumeId,
    /// Which one of that name.
    pub uid: Uuid,
    /// Who is to do it: the holder of the volume.
    pub host: HostName,
    /// When it was given.
    pub asked_at: Timestamp,
    /// How far it has come.
    pub state: OrderState,
}

/// How far an order has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderState {
    /// The host is to freeze the file system.
    Asked,
    /// The host has frozen it, and keeps it so until it is told to thaw it, for [`FREEZE_BOUND`] at most.
    Frozen,
    /// The host could not freeze it, or does not know whether it did; it is not frozen now.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// The snapshot was taken; the host is to thaw.
    Thaw,
    /// It is not frozen any more.
    Thawed(Thawed),
}

/// How a freeze ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thawed {
    /// How long it was frozen, in milliseconds.
    pub held_ms: u64,
    /// By whom it was ended.
    pub by: ThawedBy,
}

/// By whom a freeze was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThawedBy {
    /// By the host, which was told to; until then it was frozen.
    Word,
    /// By its bound, or by somebody else on that host.
    Itself,
}

/// What a host says about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The file system is frozen.
    Frozen,
    /// It could not be frozen, and is not.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// It is not frozen any more.
    Thawed(Thawed),
}

/// What a report comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportDecision {
    /// Store the order like this.
    Store(Order),
    /// That is known.
    Unchanged,
}

/// A report that comes at a time when it cannot be true.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the order for volume {volume} is {state}; that cannot be reported now")]
pub struct ReportRefusal {
    /// Its volume.
    pub volume: VolumeId,
    /// How far it has come.
    pub state: &'static str,
}

impl ReportRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        Kind::Conflict
    }
}

impl OrderState {
    /// The state's name on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            OrderState::Asked => "asked",
            OrderState::Frozen => "frozen",
            OrderState::Failed { .. } => "failed",
            OrderState::Thaw => "thaw",
            OrderState::Thawed(_) => "thawed",
        }
    }
}

/// Takes down what a host says. Said twice, or late, nothing changes: an order never goes back.
pub fn order_report(order: &Order, report: Report) -> Result<ReportDecision, ReportRefusal> {
    let store = |state| Ok(ReportDecision::Store(Order { state, ..order.clone() }));
    match (&order.state, report) {
        (OrderState::Asked, Report::Frozen) => store(OrderState::Frozen),
        (OrderState::Asked | OrderState::Frozen | OrderState::Thaw, Report::Failed { reason }) => {
            store(OrderState::Failed { reason })
        }
        (OrderState::Frozen | OrderState::Thaw, Report::Thawed(thawed)) => {
            store(OrderState::Thawed(thawed))
        }
        (OrderState::Frozen | OrderState::Thaw, Report::Frozen)
        | (OrderState::Failed { .. }, Report::Failed { .. })
        | (OrderState::Thawed(_), Report::Thawed(_)) => Ok(ReportDecision::Unchanged),
        (OrderState::Asked, Report::Thawed(_))
        | (OrderState::Failed { .. }, Report::Frozen | Report::Thawed(_))
        | (OrderState::Thawed(_), Report::Frozen | Report::Failed { .. }) => {
            Err(ReportRefusal { volume: order.volume.clone(), state: order.state.as_str() })
        }
    }
}

/// How images are kept at a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// As they were at one moment.
    Instant,
    /// As they were at one moment, if nothing was written just then: where the kernel's rbd keeps the lock, and writes a
    /// lot.
    Unwritten,
    /// By copying them, which takes time: what is written meanwhile is in the copy in part.
    Copy,
}

/// What has to hold while a snapshot is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// Nothing.
    Nothing,
    /// That nobody holds the volume, as is the case now.
    Unheld,
    /// That its file system is frozen on this host, which holds the volume.
    Frozen(HostName),
}

/// What a snapshot of a volume needs. One that several hosts read is written by nobody.
pub fn snapshot_quiet(volume: &Volume, claim: Option<&Claim>, capture: Capture) -> Quiet {
    let is_wanted = volume.spec.schedule.as_ref().is_some_and(|schedule| schedule.freeze);
    if (capture == Capture::Instant && !is_wanted) || volume.spec.sharing == Sharing::ReadOnly {
        return Quiet::Nothing;
    }
    match claim.and_then(|claim| claim.holders.first()) {
        Some(holder) => Quiet::Frozen(holder.host.clone()),
        None => Quiet::Unheld,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(state: OrderState) -> Order {
        Order {
            id: Uuid::nil(),
            volume: "t/v".parse().unwrap(),
            uid: Uuid::nil(),
            host: "h1".parse().unwrap(),
            asked_at: Timestamp::UNIX_EPOCH,
            state,
        }
    }

    fn failed() -> OrderState {
        OrderState::Failed { reason: "no".into() }
    }

    /// Rows: the state; columns: frozen, failed, thawed. `=` is known, `!` refused.
    #[test]
    fn an_order_never_goes_back() {
        let thawed = Thawed { held_ms: 7, by: ThawedBy::Word };
        let states = [
            OrderState::Asked,
            OrderState::Frozen,
            failed(),
            OrderState::Thaw,
            OrderState::Thawed(thawed),
        ];
        let reports =
            [Report::Frozen, Report::Failed { reason: "no".into() }, Report::Thawed(thawed)];
        let row = |state: &OrderState| {
            let cell = |report: &Report| match order_report(&order(state.clone()), report.clone()) {
                Ok(ReportDecision::Store(order)) => order.state.as_str(),
                Ok(ReportDecision::Unchanged) => "=",
                Err(_) => "!",
            };
            format!("{}: {}", state.as_str(), reports.each_ref().map(cell).join(" "))
        };
        let table: Vec<String> = states.iter().map(row).collect();
        let expected = [
            "asked: frozen failed !",
            "frozen: = failed thawed",
            "failed: ! = !",
            "thaw: = failed thawed",
            "thawed: ! ! =",
        ];
        assert_eq!(table, expected);
    }
}
