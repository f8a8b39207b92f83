//! Which snapshots on schedule go, so that as many are left as are to be kept.

use jiff::Timestamp;

use super::Slot;
use crate::name::SnapshotName;
use crate::options::Tiers;
use crate::spec::Retention;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// The snapshots that are to be removed, the oldest first. Those that users have made never are, nor is the newest
/// on schedule, nor one of a slot that is absurdly ahead of the clock: it would count as the newest for years, and
/// push out those that are of use.
///
/// Tiers are filled as in other backup tools: of each of the last so many hours (days, weeks from Monday, all in
/// UTC) in which there is a snapshot, the last one is kept. So nothing goes because nothing was taken for a while.
pub fn snapshot_expired<'a>(
    retention: Retention,
    snapshots: impl IntoIterator<Item = &'a SnapshotName>,
    now: Timestamp,
) -> Vec<&'a SnapshotName> {
    let with_slot = |name: &'a SnapshotName| Some((name.slot()?, name));
    let mut taken: Vec<(Slot, &SnapshotName)> =
        snapshots.into_iter().filter_map(with_slot).collect();
    taken.retain(|(slot, _)| !slot.is_absurd(now));
    taken.sort_by(|(one, _), (other, _)| other.cmp(one));
    taken.dedup();
    let mut kept = match retention {
        Retention::Keep(keep) => Kept::Newest(keep.max(1)),
        Retention::Tiers(Tiers { hours, days, weeks }) => Kept::Tiers([
            Tier::new(hours, |second| second.div_euclid(HOUR)),
            Tier::new(days, |second| second.div_euclid(DAY)),
            // 1970 began on a Thursday.
            Tier::new(weeks, |second| (second.div_euclid(DAY) + 3).div_euclid(7)),
        ]),
    };
    let newest = taken.first().map(|(slot, _)| *slot);
    taken.retain(|(slot, _)| !kept.keeps(*slot) && Some(*slot) != newest);
    taken.into_iter().rev().map(|(_, name)| name).collect()
}

/// What there is room for still, going from the newest to the oldest.
enum Kept {
    Newest(u32),
    Tiers([Tier; 3]),
}

/// A tier: so many periods, of each the newest.
struct Tier {
    left: u32,
    period: fn(i64) -> i64,
    /// The period of the one that was kept last.
    last: Option<i64>,
}

impl Kept {
    fn keeps(&mut self, slot: Slot) -> bool {
        match self {
            Kept::Newest(left) => std::mem::replace(left, left.saturating_sub(1)) > 0,
            Kept::Tiers(tiers) => {
                let mut kept = false;
                for tier in tiers {
                    kept |= tier.keeps(slot);
                }
                kept
            }
        }
    }
}

impl Tier {
    fn new(left: u32, period: fn(i64) -> i64) -> Tier {
        Tier { left, period, last: None }
    }

    fn keeps(&mut self, slot: Slot) -> bool {
        let period = Some((self.period)(slot.at().as_second()));
        if self.left == 0 || self.last == period {
            return false;
        }
        self.left -= 1;
        self.last = period;
        true
    }
}
