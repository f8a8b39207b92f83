//! Which snapshots of a volume go: pure functions of what volmaster said of it.
//!
//! `volcore` decides. It wants to know the time, only to disregard slots that are more than 25 h ahead of it, and the time
//! is volmaster's: a snapshot that counts as the newest by a clock that is wrong could push out those that are of use. This
//! host's clock is not asked at all. A time that is too early is safe, as fewer snapshots go then, so the last slot that
//! volmaster has let begin is taken for it. It is late by a period at most, and never ahead of volmaster's clock; but where
//! that clock was set back behind the last slot that it has taken and still counts, it is that slot.

use jiff::{SignedDuration, Timestamp};
use volapi::snapshots::Schedule;
use volcore::name::SnapshotName;
use volcore::snapshot::snapshot_expired;
use volcore::spec::Retention;

/// What to keep of a volume, and what is known of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What to keep.
    pub retention: Retention,
    /// A slot that has begun by volmaster's clock.
    pub begun: Timestamp,
}

impl Rule {
    /// The rule of a schedule; `None` where it says nothing of what to keep, or no slot of it has begun: then nothing goes.
    pub fn of(schedule: &Schedule) -> Option<Rule> {
        let retention = match (schedule.keep, schedule.retention) {
            (Some(keep), None) => Retention::Keep(keep),
            (None, Some(tiers)) => Retention::Tiers(tiers),
            (None, None) | (Some(_), Some(_)) => return None,
        };
        let period = SignedDuration::try_from(schedule.frequency.get()).ok()?;
        let before_next = || schedule.next?.checked_sub(period).ok();
        let begun = schedule.due.or_else(before_next)?;
        Some(Rule { retention, begun })
    }

    /// This rule, when volmaster has taken a snapshot for this slot.
    #[must_use]
    pub fn after(self, slot: Option<Timestamp>) -> Rule {
        Rule { begun: slot.map_or(self.begun, |slot| slot.max(self.begun)), ..self }
    }

    /// The snapshots that go, the newest first, so that the oldest is at hand.
    pub fn expired(&self, names: &[SnapshotName]) -> Vec<SnapshotName> {
        let expired = snapshot_expired(self.retention, names, self.begun);
        expired.into_iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule() -> Schedule {
        serde_json::from_value(serde_json::json!({
            "volume": "t/v", "frequency": "1h", "keep": 2, "freeze": false,
            "last": "2026-11-21T10:00:00Z", "next": "2026-11-21T12:00:00Z",
            "taken": 1, "missed": 0, "failed": 0,
        }))
        .unwrap()
    }

    #[test]
    fn the_time_is_that_of_a_slot_that_has_begun() {
        let begun = |schedule: &Schedule| Rule::of(schedule).map(|rule| rule.begun);
        assert_eq!(begun(&schedule()), Some(at("2026-11-21T11:00:00Z")));
        let due = Schedule { due: Some(at("2026-11-21T11:00:00Z")), next: None, ..schedule() };
        assert_eq!(begun(&due), Some(at("2026-11-21T11:00:00Z")));
        assert_eq!(begun(&Schedule { next: None, ..schedule() }), None);
        let rule = Rule::of(&schedule()).unwrap();
        assert_eq!(rule.after(Some(at("2026-11-21T12:00:00Z"))).begun, at("2026-11-21T12:00:00Z"));
        assert_eq!(rule.after(Some(at("2026-11-20T12:00:00Z"))), rule);
        assert_eq!(rule.after(None), rule);
    }

    #[test]
    fn without_a_rule_nothing_goes() {
        assert_eq!(Rule::of(&Schedule { keep: None, ..schedule() }), None);
        let tiers = "24h7d".parse().unwrap();
        assert_eq!(Rule::of(&Schedule { retention: Some(tiers), ..schedule() }), None);
        let rule = Rule::of(&Schedule { keep: None, retention: Some(tiers), ..schedule() });
        assert_eq!(rule.unwrap().retention, Retention::Tiers(tiers));
    }

    #[test]
    fn the_oldest_go_and_what_a_wrong_clock_has_made_counts_for_nothing() {
        let names = [
            "auto-2026-11-21T080000Z",
            "auto-2026-11-21T090000Z",
            "auto-2026-11-21T100000Z",
            "auto-2026-11-21T110000Z",
            "auto-2038-01-19T030000Z",
            "before-upgrade",
        ];
        let names = names.map(|name| name.parse::<SnapshotName>().unwrap());
        let expired = Rule::of(&schedule()).unwrap().expired(&names);
        assert_eq!(expired, [names[1].clone(), names[0].clone()]);
    }
}
