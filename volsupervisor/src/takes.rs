//! Asks volmaster what is due, and has it taken.
//!
//! Volmaster sees to it that no slot is taken twice, and keeps the book of what was taken, missed and failed. Here is
//! seen to it that it is asked in time, about each volume by itself.

mod end;

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use volapi::snapshots::{DueSnapshot, DueSnapshots};
use volcore::name::{SnapshotName, VolumeId};

use self::end::TakeEnd;
use crate::crew::{Crew, Step, Turn, Verdict};
use crate::lanes::{Bounds, Ended};
use crate::master::{Master, MasterError};
use crate::supervisor::{DRAIN, Tally};

/// One take ends within this time; librbd gives up on a holder that stands still after 30 s.
const WITHIN: Duration = Duration::from_secs(45);
/// A question ends within this time, so that one volmaster that hangs leaves time for another.
const ASK: Duration = Duration::from_secs(5);
/// The pause between two questions when nothing is to come soon: new volumes and changed schedules are noticed after it.
const CALM: Duration = Duration::from_secs(1);
/// The longest pause when something is due or about to be.
const SOON: Duration = Duration::from_millis(500);
/// The shortest pause.
const SHORTEST: Duration = Duration::from_millis(50);

/// A volume whose retention is to be looked after, because a snapshot was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub volume: VolumeId,
    /// The slot; `None` where it is not known that there is a new one.
    pub slot: Option<Timestamp>,
}

/// When a question was sent, and its answer.
type Heard = (Instant, Result<DueSnapshots, MasterError>);

/// What is known of volmaster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Nothing yet.
    New,
    /// It answered the last question.
    Up,
    /// It did not.
    Down,
}

/// Takes what is due.
pub struct Takes {
    master: Arc<dyn Master>,
    crew: Crew<DueSnapshot, TakeEnd>,
    link: Link,
    /// What had an answer, and when: an older list may say that it is due.
    settled: HashMap<VolumeId, (SnapshotName, Instant)>,
    /// Volumes that may have been taken by a call whose answer did not come.
    unsure: HashSet<VolumeId>,
    taken: mpsc::UnboundedSender<Taken>,
    /// Since when takes wait for nothing but a place.
    crowded: watch::Sender<Option<Instant>>,
    tally: Tally,
}

impl Takes {
    /// Takes with so many places. Whom it takes is told to `taken`, and to `crowded` whether takes wait for a place.
    pub fn new(
        master: Arc<dyn Master>,
        most: usize,
        taken: mpsc::UnboundedSender<Taken>,
        crowded: watch::Sender<Option<Instant>>,
    ) -> Takes {
        let slow = most.div_ceil(2);
        let bounds = Bounds { fast: most, slow, adrift: 16 * slow };
        let hand = Arc::clone(&master);
        let crew = Crew::new(bounds, move |volume: &VolumeId, due: &DueSnapshot| {
            let (master, volume, name) = (Arc::clone(&hand), volume.clone(), due.name.clone());
            Box::pin(async move { master.snapshot_create(&volume, &name, WITHIN).await.into() })
        });
        Takes {
            master,
            crew,
            link: Link::New,
            settled: HashMap::new(),
            unsure: HashSet::new(),
            taken,
            crowded,
            tally: Tally::default(),
        }
    }

    /// Takes what is due, when it is, until told to stop; then waits for what is under way.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut question = self.question(Duration::ZERO);
        loop {
            // Cancel-safe: the question is polled on, and step() is.
            tokio::select! {
                () = stop.cancelled() => break,
                heard = &mut question => {
                    let pause = self.heard(heard);
                    question = self.question(pause);
                }
                step = self.crew.step(Turn::Begin) => {
                    self.stepped(step);
                }
            }
            self.crew.begin();
            self.tell_crowd();
        }
        self.crew.lanes.clear();
        let deadline = Instant::now() + DRAIN;
        while self.crew.begun() > 0 {
            match tokio::time::timeout_at(deadline, self.crew.step(Turn::Hold)).await {
                Ok(step) => self.stepped(step),
                Err(_) => {
                    tracing::warn!(takes = self.crew.begun(), "takes are still under way");
                    return;
                }
            };
        }
    }

    /// Takes what is due now, each once, and waits for it.
    pub async fn once(mut self) -> Result<Tally, MasterError> {
        for due in self.master.schedule_due(ASK).await?.items {
            self.crew.offer(due.volume.clone(), due);
        }
        while !self.crew.is_idle() {
            let step = self.crew.step(Turn::Begin).await;
            // What was let go has had no answer yet; it has one from the slow lane, which lets nothing go.
            if let Some(due) = self.stepped(step) {
                self.crew.offer(due.volume.clone(), due);
            }
        }
        Ok(self.tally)
    }

    fn question(&self, pause: Duration) -> Pin<Box<dyn Future<Output = Heard> + Send>> {
        let master = Arc::clone(&self.master);
        Box::pin(async move {
            sleep(pause).await;
            (Instant::now(), master.schedule_due(ASK).await)
        })
    }

    /// Takes note of what is due, and says how long to wait before the next question.
    fn heard(&mut self, (asked, answer): Heard) -> Duration {
        // What waits is asked about again: nothing is begun on the word of a list that is out of date.
        self.crew.lanes.clear();
        match answer {
            Ok(DueSnapshots { items, next_ms }) => {
                if self.link != Link::Up {
                    tracing::info!("volmaster answers");
                }
                self.link = Link::Up;
                let pause = pause(items.is_empty(), next_ms, asked.elapsed());
                self.listed(items, asked);
                pause
            }
            Err(error) => {
                if self.link != Link::Down {
                    tracing::warn!(%error, "nothing is taken until volmaster answers");
                }
                self.link = Link::Down;
                CALM
            }
        }
    }

    fn listed(&mut self, items: Vec<DueSnapshot>, asked: Instant) {
        let listed: HashSet<VolumeId> = items.iter().map(|due| due.volume.clone()).collect();
        let begun = &self.crew.lanes;
        let gone = |volume: &VolumeId| !listed.contains(volume) && !begun.has(volume);
        for volume in self.unsure.extract_if(|volume| gone(volume)) {
            // It is not due any more: the call that had no answer may have done it.
            let _ = self.taken.send(Taken { volume, slot: None });
        }
        self.settled.retain(|volume, (_, at)| *at >= asked || listed.contains(volume));
        let now = Instant::now();
        for due in items {
            match self.settled.get(&due.volume) {
                Some((name, at)) if *name == due.name && *at >= asked => continue,
                Some((name, _)) if *name == due.name => {
                    tracing::debug!(volume = %due.volume, snapshot = %due.name, "is due though it had an answer");
                    self.crew.lanes.failed(&due.volume, now);
                    self.settled.remove(&due.volume);
                }
                Some(_) | None => {}
            }
            // One that rests may be taken by somebody else meanwhile: it begins on the word of a newer list.
            if self.crew.lanes.rests_until(&due.volume).is_none_or(|until| until <= now) {
                self.crew.offer(due.volume.clone(), due);
            }
        }
        let lanes = &mut self.crew.lanes;
        lanes.forgive_but(|volume| listed.contains(volume) || self.unsure.contains(volume));
    }

    /// Takes note of what came of a take. What was let go is given back.
    fn stepped(&mut self, step: Step<DueSnapshot, TakeEnd>) -> Option<DueSnapshot> {
        match step {
            Step::Ended(_, due, end) => {
                self.ended(&due, end);
                None
            }
            Step::LetGo(volume, due) => {
                tracing::debug!(%volume, snapshot = %due.name, "the take hangs; others go on");
                self.unsure.insert(volume);
                Some(due)
            }
        }
    }

    fn ended(&mut self, due: &DueSnapshot, end: TakeEnd) {
        let DueSnapshot { volume, uid: _, name, slot, missed } = due;
        let failures = self.crew.lanes.failures(volume);
        self.tally.count(matches!(end.ended(), Ended::Well));
        let was_unsure = self.unsure.remove(volume);
        match &end {
            TakeEnd::Taken => tracing::info!(%volume, snapshot = %name, missed, "taken"),
            TakeEnd::There => tracing::debug!(%volume, snapshot = %name, "was taken already"),
            TakeEnd::Gone(error) => tracing::debug!(%volume, %error, "is not due any more"),
            TakeEnd::Failed(error) => {
                if error.is_unknown() || was_unsure {
                    self.unsure.insert(volume.clone());
                }
                // The first in a row is news; volmaster keeps the last one's reason.
                if failures == 1 {
                    tracing::warn!(%volume, snapshot = %name, %error, "not taken");
                } else {
                    tracing::debug!(%volume, snapshot = %name, %error, failures, "not taken");
                }
                return;
            }
        }
        self.settled.insert(volume.clone(), (name.clone(), Instant::now()));
        // One that was found there may be ours, if a call before had no answer.
        if matches!(end, TakeEnd::Taken) || was_unsure {
            let _ = self.taken.send(Taken { volume: volume.clone(), slot: Some(*slot) });
        }
    }

    fn tell_crowd(&self) {
        let crowded = self.crew.lanes.crowd() > 0;
        self.crowded.send_if_modified(|since| {
            let changes = since.is_some() != crowded;
            if changes {
                *since = crowded.then(Instant::now);
            }
            changes
        });
    }
}

/// How long to wait before volmaster is asked again: until the next slot begins, but never long, because what is due can
/// change; and, where its answers take their time, so long that it is not busy with answering.
fn pause(is_calm: bool, next_ms: Option<u64>, took: Duration) -> Duration {
    let next = next_ms.map_or(CALM, Duration::from_millis).min(CALM);
    let longest = if is_calm && next == CALM { CALM } else { SOON };
    next.min(longest).max(took.saturating_mul(5).clamp(SHORTEST, SOON))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volmaster_is_asked_when_a_slot_begins_and_often_enough() {
        let millis = Duration::from_millis;
        let quick = millis(2);
        for (is_calm, next_ms, took, expected) in [
            (true, None, quick, 1000),
            (true, Some(1_800_000), quick, 1000),
            (true, Some(1000), quick, 1000),
            (true, Some(999), quick, 500),
            (true, Some(320), quick, 320),
            (true, Some(0), quick, 50),
            (false, None, quick, 500),
            (false, Some(200), quick, 200),
            (true, Some(0), millis(60), 300),
            (false, Some(0), millis(900), 500),
        ] {
            assert_eq!(pause(is_calm, next_ms, took), millis(expected), "{is_calm} {next_ms:?}");
        }
    }
}
