//! Snapshots on schedule: when one is due, what it is called, and which go again.
//!
//! A *slot* is a moment at which a volume is due. Its slots are a grid that follows from the volume and its
//! frequency alone, and a slot's name is its time, so that several supervisors, and one that was restarted,
//! come to the same name and make one snapshot of it. Volumes of one frequency are spread over it by their
//! uid: 10,000 volumes that are due every half hour are a few each second, not all at once.

mod log;
mod retention;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::log::{SnapshotFailure, SnapshotLog, TakeDecision, TakeRefusal, snapshot_take};
pub use self::retention::snapshot_expired;
use crate::duration::Frequency;
use crate::name::SnapshotName;
use crate::volume::Volume;

const NANOS: i128 = 1_000_000_000;

/// How far ahead of the clock a slot may be and still count: a clock that is set back may have been ahead by as
/// much. One that is further ahead was taken by a clock that was never right, and must not keep a volume from
/// being snapshotted until then.
const MOST_AHEAD: i128 = 25 * 3600 * NANOS;

/// A moment at which a volume is due for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(Timestamp);

impl Slot {
    /// The moment.
    pub fn at(self) -> Timestamp {
        self.0
    }

    /// The name of the snapshot: `auto-` and the moment in UTC, after RFC 3339 without the colons.
    pub fn name(self) -> SnapshotName {
        SnapshotName::scheduled(&self.0.to_string().replace(':', ""))
    }

    /// Whether it is so far ahead of the clock that no clock which was right has made it.
    pub fn is_absurd(self, now: Timestamp) -> bool {
        self.0.as_nanosecond() > now.as_nanosecond() + MOST_AHEAD
    }

    fn from_nanos(nanos: i128) -> Option<Slot> {
        Timestamp::from_nanosecond(nanos).ok().map(Slot)
    }
}

impl SnapshotName {
    /// The slot that a snapshot on schedule was taken for; `None` where a user has made it, whatever it is called.
    pub fn slot(&self) -> Option<Slot> {
        let moment = self.as_str().strip_prefix(SnapshotName::SCHEDULED)?.strip_suffix('Z')?;
        let (whole, fraction) = match moment.split_once('.') {
            Some((whole, fraction)) => (whole, nanos(fraction)?),
            None => (moment, 0),
        };
        let (day, time) = whole.split_once('T')?;
        let [year, month, date] = parts(day, ['-', '-'], [4, 2, 2])?;
        let time = Some(time).filter(|time| time.len() == 6 && time.is_ascii())?;
        let [hour, minute, second] =
            [&time[..2], &time[2..4], &time[4..]].map(|part| number(part, 2));
        let short = |part: i16| i8::try_from(part).ok();
        let moment = DateTime::new(
            year,
            short(month)?,
            short(date)?,
            short(hour?)?,
            short(minute?)?,
            short(second?)?,
            fraction,
        );
        Offset::UTC.to_timestamp(moment.ok()?).ok().map(Slot)
    }

    /// Whether the name is kept for snapshots on schedule, so that no user may give it.
    pub fn is_reserved(&self) -> bool {
        self.as_str().starts_with(SnapshotName::SCHEDULED)
    }
}

/// A number of exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i16> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Numbers of so many digits each, with these between them.
fn parts(text: &str, between: [char; 2], digits: [usize; 3]) -> Option<[i16; 3]> {
    let (first, rest) = text.split_once(between[0])?;
    let (second, third) = rest.split_once(between[1])?;
    Some([number(first, digits[0])?, number(second, digits[1])?, number(third, digits[2])?])
}

/// The fraction of a second, as it is shown: without zeros at its end.
fn nanos(fraction: &str) -> Option<i32> {
    let is_shown = (1..=9).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && !fraction.ends_with('0');
    if is_shown { format!("{fraction:0<9}").parse().ok() } else { None }
}

/// The slots of one volume: every `frequency`, from a moment on that its uid gives, and none before it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// The first slot since 1970, in nanoseconds.
    phase: i128,
    period: i128,
    since: i128,
}

/// A snapshot that is to be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// For this slot.
    pub slot: Slot,
    /// How many slots before it were not taken since the last that was, and will not be any more.
    pub missed: u64,
}

impl Slots {
    /// The slots of a volume with this uid, made then, at this frequency.
    pub fn new(uid: Uuid, created_at: Timestamp, frequency: Frequency) -> Slots {
        let period = i128::try_from(frequency.get().as_nanos()).unwrap_or(i128::MAX).max(1);
        // Whole seconds, so that the names are as short as the frequency allows.
        let seconds = u128::try_from(period / NANOS).unwrap_or(1).max(1);
        let phase = i128::try_from(uid.as_u128() % seconds).unwrap_or(0) * NANOS;
        Slots { phase, period, since: created_at.as_nanosecond().max(0) }
    }

    /// The slots of a volume that has a schedule.
    pub fn of(volume: &Volume) -> Option<Slots> {
        let schedule = volume.spec.schedule?;
        Some(Slots::new(volume.uid, volume.created_at, schedule.frequency))
    }

    /// The last slot that is not after `now`.
    pub fn latest(&self, now: Timestamp) -> Option<Slot> {
        let nanos = self.phase + self.index(now.as_nanosecond()) * self.period;
        if nanos < self.since { None } else { Slot::from_nanos(nanos) }
    }

    /// The first slot after a moment; `None` at the end of the calendar.
    pub fn after(&self, moment: Timestamp) -> Option<Slot> {
        let from = moment.as_nanosecond().max(self.since - 1);
        Slot::from_nanos(self.phase + (self.index(from) + 1) * self.period)
    }

    /// How many slots lie between two of them.
    fn between(&self, earlier: Slot, later: Slot) -> u64 {
        let [earlier, later] = [earlier, later].map(|slot| self.index(slot.0.as_nanosecond()));
        u64::try_from(later - earlier - 1).unwrap_or(0)
    }

    /// The number of the last slot that is not after a moment; those before 1970 are negative.
    fn index(&self, nanos: i128) -> i128 {
        (nanos - self.phase).div_euclid(self.period)
    }
}

/// Which snapshot a volume is due for, when those for the slots in `taken` were taken. It is the last slot
/// only, however many went by, and never one before another that was taken: neither when the frequency has
/// changed, nor when the clock was set back, where it waits until the clock is past them again.
pub fn snapshot_due(
    slots: &Slots,
    taken: impl IntoIterator<Item = Slot>,
    now: Timestamp,
) -> Option<Due> {
    let slot = slots.latest(now)?;
    let Some(last) = newest(taken, now) else { return Some(Due { slot, missed: 0 }) };
    if slot <= last {
        return None;
    }
    Some(Due { slot, missed: slots.between(last, slot) })
}

/// The slot for which a volume will be due after all that are over now; `None` at the end of the calendar.
pub fn snapshot_next(
    slots: &Slots,
    taken: impl IntoIterator<Item = Slot>,
    now: Timestamp,
) -> Option<Slot> {
    let last = newest(taken, now).map_or(now, |last| last.0.max(now));
    slots.after(last)
}

/// The newest slot that a clock which was right can have made.
fn newest(taken: impl IntoIterator<Item = Slot>, now: Timestamp) -> Option<Slot> {
    taken.into_iter().filter(|slot| !slot.is_absurd(now)).max()
}

#[cfg(test)]
mod tests;
