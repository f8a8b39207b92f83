//! Which volume's turn it is: pure state of queues, places and back-off. The time is an argument.
//!
//! Work begins in the *fast* lane. What has not ended after [`PATIENCE`] hands its place back and goes on in the *slow*
//! lane, and a volume that was slow once begins there the next time, until something of it ends well. Where the slow lane is
//! full, the work is *let go*: nobody waits for its answer any more, and it is tried again from the slow lane. So volumes
//! that hang, however many, keep the others waiting no longer than patience lasts.
//!
//! Whoever serves what was let go may be at it still. As much of that as the bounds say may be adrift; when it is more,
//! everything is slow and not a few volumes, and places are kept until there is an answer.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use volcore::name::VolumeId;

/// What takes longer than this is slow.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// A volume rests so long after its first failure, and twice as long after each that follows.
pub const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest rest.
pub const LONGEST_REST: Duration = Duration::from_secs(60);
/// What was let go counts as adrift for so long: whoever serves it has given up by then.
const ADRIFT: Duration = Duration::from_secs(45);

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// In the fast lane.
    pub fast: usize,
    /// In the slow lane.
    pub slow: usize,
    /// How much may be adrift.
    pub adrift: usize,
}

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The volume answers as it should.
    Well,
    /// It is to rest before it is tried again.
    Badly,
}

/// The queues and places of one sort of work. Of each volume at most one piece is in here, waiting or begun.
#[derive(Debug)]
pub struct Lanes<T> {
    bounds: Bounds,
    fast: VecDeque<(VolumeId, T)>,
    slow: VecDeque<(VolumeId, T)>,
    /// By when they may begin.
    resting: BTreeMap<(Instant, VolumeId), T>,
    waiting: HashSet<VolumeId>,
    begun: HashMap<VolumeId, Begun>,
    /// When to look at what began in the fast lane, the earliest first; some of it has ended.
    looks: VecDeque<(Instant, VolumeId, Begun)>,
    /// Until when what was let go counts.
    adrift: VecDeque<Instant>,
    trouble: HashMap<VolumeId, Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Fast,
    Slow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Begun {
    lane: Lane,
    at: Instant,
}

/// What is remembered of a volume until something of it ends well.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    failures: u32,
    rests_until: Instant,
    is_slow: bool,
}

impl<T> Lanes<T> {
    /// Empty lanes.
    pub fn new(bounds: Bounds) -> Lanes<T> {
        Lanes {
            bounds,
            fast: VecDeque::new(),
            slow: VecDeque::new(),
            resting: BTreeMap::new(),
            waiting: HashSet::new(),
            begun: HashMap::new(),
            looks: VecDeque::new(),
            adrift: VecDeque::new(),
            trouble: HashMap::new(),
        }
    }

    /// Queues work for a volume, behind what is queued; `false` where there is some of it in here already.
    pub fn offer(&mut self, volume: VolumeId, item: T, now: Instant) -> bool {
        if self.has(&volume) {
            return false;
        }
        self.waiting.insert(volume.clone());
        match self.trouble.get(&volume) {
            Some(trouble) if trouble.rests_until > now => {
                self.resting.insert((trouble.rests_until, volume), item);
            }
            Some(trouble) if trouble.is_slow => self.slow.push_back((volume, item)),
            Some(_) | None => self.fast.push_back((volume, item)),
        }
        true
    }

    /// Forgets what has not begun.
    pub fn clear(&mut self) {
        self.fast.clear();
        self.slow.clear();
        self.resting.clear();
        self.waiting.clear();
    }

    /// The next that may begin. It has its place until it has [`ended`](Lanes::ended) or is let go.
    pub fn begin(&mut self, now: Instant) -> Option<(VolumeId, T)> {
        self.wake_rested(now);
        let [fast, slow] = [Lane::Fast, Lane::Slow].map(|lane| self.occupied(lane));
        let (lane, (volume, item)) = if fast < self.bounds.fast && !self.fast.is_empty() {
            (Lane::Fast, self.fast.pop_front()?)
        } else if slow < self.bounds.slow {
            (Lane::Slow, self.slow.pop_front()?)
        } else {
            return None;
        };
        let begun = Begun { lane, at: now };
        self.waiting.remove(&volume);
        self.begun.insert(volume.clone(), begun);
        if lane == Lane::Fast {
            self.looks.push_back((now + PATIENCE, volume.clone(), begun));
        }
        Some((volume, item))
    }

    /// Has what took too long hand its place back; says, one at a time, what of it is to be let go.
    pub fn overdue(&mut self, now: Instant) -> Option<VolumeId> {
        self.adrift.retain(|until| *until > now);
        while self.looks.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, volume, begun) = self.looks.pop_front()?;
            if self.begun.get(&volume) != Some(&begun) {
                continue;
            }
            if self.occupied(Lane::Slow) < self.bounds.slow {
                self.begun.insert(volume, Begun { lane: Lane::Slow, ..begun });
            } else if self.adrift.len() < self.bounds.adrift {
                self.adrift.push_back(now + ADRIFT);
                self.begun.remove(&volume);
                self.fails(&volume, now).is_slow = true;
                return Some(volume);
            } else {
                self.looks.push_back((now + PATIENCE, volume, begun));
            }
        }
        None
    }

    /// Gives back the place of what has ended.
    pub fn ended(&mut self, volume: &VolumeId, ended: Ended, now: Instant) {
        let Some(begun) = self.begun.remove(volume) else { return };
        match ended {
            Ended::Well => {
                self.trouble.remove(volume);
            }
            Ended::Badly => self.fails(volume, now).is_slow |= begun.lane == Lane::Slow,
        }
    }

    /// Notes a failure of a volume, which makes it rest; and says how often in a row it has failed.
    pub fn failed(&mut self, volume: &VolumeId, now: Instant) -> u32 {
        self.fails(volume, now).failures
    }

    fn fails(&mut self, volume: &VolumeId, now: Instant) -> &mut Trouble {
        let calm = Trouble { failures: 0, rests_until: now, is_slow: false };
        let trouble = self.trouble.entry(volume.clone()).or_insert(calm);
        let rest = FIRST_REST.saturating_mul(1 << trouble.failures.min(10)).min(LONGEST_REST);
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.rests_until = now + rest;
        trouble
    }

    /// How often in a row a volume has failed.
    pub fn failures(&self, volume: &VolumeId) -> u32 {
        self.trouble.get(volume).map_or(0, |trouble| trouble.failures)
    }

    /// Until when a volume rests.
    pub fn rests_until(&self, volume: &VolumeId) -> Option<Instant> {
        self.trouble.get(volume).map(|trouble| trouble.rests_until)
    }

    /// Forgets the failures of all volumes but these.
    pub fn forgive_but(&mut self, remembered: impl Fn(&VolumeId) -> bool) {
        self.trouble.retain(|volume, _| remembered(volume));
    }

    /// When something that has begun will be [`overdue`](Lanes::overdue), if it does not end before.
    pub fn next_overdue(&mut self) -> Option<Instant> {
        while let Some((_, volume, begun)) = self.looks.front() {
            if self.begun.get(volume) == Some(begun) {
                break;
            }
            self.looks.pop_front();
        }
        self.looks.front().map(|(at, ..)| *at)
    }

    /// When one that rests may begin.
    pub fn next_rested(&self) -> Option<Instant> {
        self.resting.first_key_value().map(|((until, _), _)| *until)
    }

    /// Whether a piece of work of this volume waits or has begun.
    pub fn has(&self, volume: &VolumeId) -> bool {
        self.waiting.contains(volume) || self.begun.contains_key(volume)
    }

    /// How many wait, those that rest included.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many wait for nothing but a place in the fast lane.
    pub fn crowd(&self) -> usize {
        self.fast.len()
    }

    fn occupied(&self, lane: Lane) -> usize {
        self.begun.values().filter(|begun| begun.lane == lane).count()
    }

    fn wake_rested(&mut self, now: Instant) {
        while let Some(rested) = self.resting.first_entry() {
            if rested.key().0 > now {
                break;
            }
            let ((_, volume), item) = rested.remove_entry();
            let is_slow = self.trouble.get(&volume).is_some_and(|trouble| trouble.is_slow);
            let queue = if is_slow { &mut self.slow } else { &mut self.fast };
            queue.push_back((volume, item));
        }
    }
}

#[cfg(test)]
mod tests;
