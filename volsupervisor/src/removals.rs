//! Has removed what retention does not keep: of a volume after each snapshot of it, and of all in a pass now and then.
//!
//! What to keep is always volmaster's latest word: the schedules are read again after a snapshot was taken, and every few
//! seconds while there is something to do, so that a `keep` that was changed holds for the next snapshot, and one that was
//! raised saves what was about to go.

mod job;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use volapi::snapshots::Schedule;
use volcore::name::{SnapshotName, VolumeId};

use self::job::{Job, JobEnd};
use crate::crew::{Crew, Step, Turn, until};
use crate::lanes::Bounds;
use crate::master::{Master, MasterError};
use crate::retention::Rule;
use crate::supervisor::{DRAIN, Tally};
use crate::takes::Taken;

/// Reading the schedules ends within this time.
const READ: Duration = Duration::from_secs(30);
/// All volumes are looked at so often.
const PASS: Duration = Duration::from_secs(600);
/// So long no single pass takes.
const LONG: Duration = Duration::from_secs(365 * 86_400);
/// Schedules that are older than this are read again before more is looked at.
const STALE: Duration = Duration::from_secs(5);
/// The shortest pause between two readings of the schedules.
const PAUSE: Duration = Duration::from_secs(1);
/// Calls at a time, and as many again for volumes that are slow.
const PLACES: usize = 8;
/// Takes that wait for a place go first, but not for longer than this: space has to be freed, too.
const GIVES_WAY: Duration = Duration::from_secs(10);

/// A volume that is to be looked at, on the word of schedules that are read after this moment.
#[derive(Clone, Copy, Debug)]
struct Pending {
    from: Instant,
    slot: Option<Timestamp>,
}

/// The schedules, and when they were asked for.
type Read = (Instant, Result<Vec<Schedule>, MasterError>);

/// Removes what is not kept.
pub struct Removals {
    master: Arc<dyn Master>,
    crew: Crew<Job, JobEnd>,
    taken: mpsc::UnboundedReceiver<Taken>,
    crowded: watch::Receiver<Option<Instant>>,
    rules: HashMap<VolumeId, Rule>,
    /// When the rules were asked for; `None` where nothing may be done on their word.
    read_at: Option<Instant>,
    /// The schedules are not read again before.
    read_from: Instant,
    reading: Option<Pin<Box<dyn Future<Output = Read> + Send>>>,
    pending: HashMap<VolumeId, Pending>,
    /// The volumes that a pass has still to look at.
    pass: VecDeque<VolumeId>,
    /// When the next pass begins.
    pass_from: Instant,
    tally: Tally,
}

impl Removals {
    /// Told of what was taken, and since when takes wait for a place.
    pub fn new(
        master: Arc<dyn Master>,
        taken: mpsc::UnboundedReceiver<Taken>,
        crowded: watch::Receiver<Option<Instant>>,
    ) -> Removals {
        let hand = Arc::clone(&master);
        let bounds = Bounds { fast: PLACES, slow: PLACES, adrift: 16 * PLACES };
        let crew = Crew::new(bounds, move |volume: &VolumeId, job: &Job| {
            Box::pin(job.clone().run(Arc::clone(&hand), volume.clone()))
        });
        let now = Instant::now();
        Removals {
            master,
            crew,
            taken,
            crowded,
            rules: HashMap::new(),
            read_at: None,
            read_from: now,
            reading: None,
            pending: HashMap::new(),
            pass: VecDeque::new(),
            pass_from: now,
            tally: Tally::default(),
        }
    }

    /// Removes until told to stop; then waits for what is under way.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.feed();
            self.read_if_needed();
            let holds_until = self.holds_until();
            let turn = if holds_until.is_some() { Turn::Hold } else { Turn::Begin };
            let wakes = holds_until.into_iter().chain(self.reads_next()).min();
            // Cancel-safe: the reading is polled on; recv(), changed() and step() are; a sleep can begin again.
            tokio::select! {
                () = stop.cancelled() => break,
                Some(Taken { volume, slot }) = self.taken.recv() => self.wants(volume, slot, Instant::now()),
                () = changed(&mut self.crowded) => {}
                read = answer(&mut self.reading) => {
                    self.reading = None;
                    // It is asked again after a pause.
                    let _ = self.has_read(read);
                }
                step = self.crew.step(turn) => self.stepped(step),
                () = until(wakes) => {}
            }
        }
        self.crew.lanes.clear();
        let deadline = Instant::now() + DRAIN;
        while self.crew.begun() > 0 {
            if timeout_at(deadline, self.crew.step(Turn::Hold)).await.is_err() {
                tracing::warn!(calls = self.crew.begun(), "removals are still under way");
                return;
            }
        }
    }

    /// Looks at every volume once, and waits until what is not kept is gone.
    pub async fn once(mut self) -> Result<Tally, MasterError> {
        self.read_now().await?;
        self.pass_from += LONG;
        loop {
            // Who has failed, or hangs, has had its turn.
            self.pending.clear();
            self.feed();
            if self.crew.is_idle() && self.pass.is_empty() {
                return Ok(self.tally);
            }
            let step = self.crew.step(Turn::Begin).await;
            self.stepped(step);
            if self.read_at.is_none_or(|at| at.elapsed() > STALE) {
                self.read_now().await?;
            }
        }
    }

    /// Has a volume looked at, on the word of schedules that are read after a moment.
    fn wants(&mut self, volume: VolumeId, slot: Option<Timestamp>, from: Instant) {
        let pending = self.pending.entry(volume).or_insert(Pending { from, slot });
        pending.from = pending.from.max(from);
        pending.slot = pending.slot.max(slot);
    }

    /// Lets in as much of a pass as there are places, while the schedules are new.
    fn feed(&mut self) {
        let is_new = self.read_at.is_some_and(|at| at.elapsed() <= STALE);
        while is_new && self.crew.lanes.crowd() < PLACES {
            let Some(volume) = self.pass.pop_front() else { return };
            let Some(rule) = self.rules.get(&volume) else { continue };
            self.crew.offer(volume, Job::Look(*rule));
        }
    }

    /// Until when takes go first.
    fn holds_until(&self) -> Option<Instant> {
        let until = (*self.crowded.borrow())? + GIVES_WAY;
        Some(until).filter(|until| *until > Instant::now())
    }

    /// When the schedules are to be read, as things stand.
    fn reads_next(&self) -> Option<Instant> {
        if self.reading.is_some() {
            return None;
        }
        let pending = self.pending.values().map(|pending| pending.from).min();
        let stale = self.read_at.map_or(self.read_from, |at| at + STALE);
        let at_work = Some(stale).filter(|_| !self.pass.is_empty() || !self.crew.is_idle());
        let next = pending.into_iter().chain(at_work).chain([self.pass_from]).min()?;
        Some(next.max(self.read_from))
    }

    fn read_if_needed(&mut self) {
        let now = Instant::now();
        if self.reads_next().is_some_and(|next| next <= now) {
            self.reading = Some(Box::pin(read(Arc::clone(&self.master))));
        }
    }

    async fn read_now(&mut self) -> Result<(), MasterError> {
        let read = read(Arc::clone(&self.master)).await;
        self.has_read(read)
    }

    /// Takes note of the schedules.
    fn has_read(&mut self, (asked, read): Read) -> Result<(), MasterError> {
        // What takes a hundredth of a second may be done every second.
        let pause = asked.elapsed().saturating_mul(20).clamp(PAUSE, STALE);
        self.read_from = Instant::now() + pause;
        let schedules = read.inspect_err(|error| {
            tracing::debug!(%error, "it is not known what to keep");
            self.read_at = None;
        })?;
        self.read_at = Some(asked);
        self.rules.clear();
        for schedule in &schedules {
            self.rules.extend(Rule::of(schedule).map(|rule| (schedule.volume.clone(), rule)));
        }
        let ready = |_: &VolumeId, pending: &mut Pending| pending.from <= asked;
        let ready: Vec<_> = self.pending.extract_if(ready).collect();
        for (volume, Pending { from, slot }) in ready {
            if self.crew.lanes.has(&volume) {
                // What is under way was begun before.
                self.wants(volume, slot, from.max(asked + STALE));
            } else if let Some(rule) = self.rules.get(&volume) {
                let job = Job::Look(rule.after(slot));
                self.crew.offer(volume, job);
            }
        }
        if self.pass_from <= asked {
            self.pass_from = asked + PASS;
            self.pass = schedules.into_iter().map(|schedule| schedule.volume).collect();
            let rules = &self.rules;
            self.crew.lanes.forgive_but(|volume| rules.contains_key(volume));
        }
        Ok(())
    }

    fn stepped(&mut self, step: Step<Job, JobEnd>) {
        match step {
            Step::Ended(volume, Job::Look(rule), JobEnd::Looked(expired)) => {
                self.tally.count(true);
                self.remove_next(volume, rule, expired);
            }
            Step::Ended(volume, Job::Remove(rule, mut names), JobEnd::Removed) => {
                self.tally.count(true);
                let removed = names.pop();
                tracing::info!(%volume, snapshot = removed.as_ref().map(tracing::field::display), "removed");
                self.remove_next(volume, rule, names);
            }
            Step::Ended(volume, _, JobEnd::Failed(error)) => {
                self.tally.count(false);
                if self.crew.lanes.failures(&volume) == 1 {
                    tracing::warn!(%volume, %error, "snapshots that are not kept are still there");
                } else {
                    tracing::debug!(%volume, %error, "snapshots that are not kept are still there");
                }
                self.again(volume);
            }
            Step::Ended(volume, ..) => self.again(volume),
            Step::LetGo(volume, _) => {
                self.tally.count(false);
                tracing::debug!(%volume, "removing snapshots hangs; others go on");
                self.again(volume);
            }
        }
    }

    /// Looks at a volume again when it has rested.
    fn again(&mut self, volume: VolumeId) {
        let rested = self.crew.lanes.rests_until(&volume).unwrap_or_else(Instant::now);
        self.wants(volume, None, rested);
    }

    fn remove_next(&mut self, volume: VolumeId, rule: Rule, names: Vec<SnapshotName>) {
        if names.is_empty() {
            return;
        }
        let retention = self.rules.get(&volume).map(|rule| rule.retention);
        if retention == Some(rule.retention) {
            self.crew.offer(volume, Job::Remove(rule, names));
        } else {
            // Something else is to be kept now.
            self.wants(volume, Some(rule.begun), Instant::now());
        }
    }
}

async fn read(master: Arc<dyn Master>) -> Read {
    (Instant::now(), master.schedule_list(READ).await)
}

/// The answer to a question, if one was asked.
async fn answer<T>(question: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

/// A change; none comes any more when the takes have ended.
async fn changed(crowded: &mut watch::Receiver<Option<Instant>>) {
    if crowded.changed().await.is_err() {
        std::future::pending().await
    }
}
