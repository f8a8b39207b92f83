//! A volmaster in memory: the four routes that volsupervisor uses, decided by the rules of `volcore`, with a clock of its
//! own and a fault for each volume. What it began it finishes, whether somebody waits for the answer or not.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;
use volapi::snapshots::{DueSnapshot, DueSnapshots, Schedule};
use volclient::Creation;
use volcore::Kind;
use volcore::duration::Frequency;
use volcore::name::{SnapshotName, VolumeId};
use volcore::snapshot::{Due, Slot, Slots, snapshot_due, snapshot_next};
use volcore::spec::Retention;
use volsupervisor::master::MasterError;

/// What is wrong with a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Its holder stands still: librbd gives up after 29 s, and nothing was taken or removed.
    Frozen,
    /// No call about it ever comes to an end.
    Hangs,
    /// Every take is refused.
    Fails(Kind),
    /// It is taken, and the answer is lost.
    LosesReplies,
    /// Each call takes so long.
    Slow(Duration),
}

/// A volume with a schedule.
pub struct Volume {
    pub uid: Uuid,
    pub created_at: Timestamp,
    pub frequency: Frequency,
    pub retention: Retention,
    pub last: Option<Slot>,
    pub snapshots: Vec<SnapshotName>,
    pub fault: Fault,
    /// Each slot that was taken, with how late it was.
    pub taken: Vec<(Slot, SignedDuration)>,
    pub removed: Vec<SnapshotName>,
    /// A call that changes it is under way.
    pub is_busy: bool,
    /// How often a take was asked for.
    pub asked: usize,
}

impl Volume {
    fn slots(&self) -> Slots {
        Slots::new(self.uid, self.created_at, self.frequency)
    }

    /// The slots that were taken, and that none was twice.
    pub fn slots_taken(&self) -> Vec<Slot> {
        let slots: Vec<Slot> = self.taken.iter().map(|(slot, _)| *slot).collect();
        let different: HashSet<&Slot> = slots.iter().collect();
        assert_eq!(different.len(), slots.len(), "a slot was taken twice: {slots:?}");
        slots
    }

    /// How late the latest was.
    pub fn latest(&self) -> SignedDuration {
        self.taken.iter().map(|(_, late)| *late).max().unwrap_or_default()
    }

    pub fn scheduled(&self) -> Vec<&str> {
        let names = self.snapshots.iter().filter(|name| name.slot().is_some());
        names.map(SnapshotName::as_str).collect()
    }
}

pub struct State {
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// How far its clock is from what it was at the start and has gone since.
    pub offset: SignedDuration,
    pub is_down: bool,
    pub calls: BTreeMap<&'static str, usize>,
    /// How many calls that change something are under way, and were at the most.
    pub changing: usize,
    pub most_changing: usize,
    base: Timestamp,
    began: Instant,
    /// How long a take or a removal has to wait for the cluster.
    pub latency: Duration,
}

impl State {
    pub fn now(&self) -> Timestamp {
        let gone = SignedDuration::try_from(self.began.elapsed()).unwrap();
        self.base + gone + self.offset
    }

    pub fn volume(&mut self, id: &VolumeId) -> &mut Volume {
        self.volumes.get_mut(id).unwrap()
    }

    /// How often something was asked for.
    pub fn calls(&self, operation: &str) -> usize {
        self.calls.get(operation).copied().unwrap_or(0)
    }
}

/// Cheap to clone; clones are the same volmaster.
#[derive(Clone)]
pub struct StandIn(Arc<Mutex<State>>);

pub type Refused = (Kind, String);

pub fn id(name: &str) -> VolumeId {
    format!("t/{name}").parse().unwrap()
}

impl StandIn {
    pub fn new() -> StandIn {
        StandIn(Arc::new(Mutex::new(State {
            volumes: BTreeMap::new(),
            offset: SignedDuration::ZERO,
            is_down: false,
            calls: BTreeMap::new(),
            changing: 0,
            most_changing: 0,
            base: "2026-11-21T10:00:00Z".parse().unwrap(),
            began: Instant::now(),
            latency: Duration::from_millis(20),
        })))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Makes a volume that was created an hour ago.
    pub fn create(&self, name: &str, frequency: &str, keep: u32) -> VolumeId {
        let mut state = self.state();
        let created_at = state.now() - SignedDuration::from_hours(1);
        let uid = Uuid::from_u128(0x9e37_79b9_7f4a_7c15 * (state.volumes.len() as u128 + 1));
        let volume = Volume {
            uid,
            created_at,
            frequency: frequency.parse().unwrap(),
            retention: Retention::Keep(keep),
            last: None,
            snapshots: Vec::new(),
            fault: Fault::None,
            taken: Vec::new(),
            removed: Vec::new(),
            is_busy: false,
            asked: 0,
        };
        state.volumes.insert(id(name), volume);
        id(name)
    }

    pub fn set_fault(&self, volume: &VolumeId, fault: Fault) {
        self.state().volume(volume).fault = fault;
    }

    fn count(&self, operation: &'static str) {
        *self.state().calls.entry(operation).or_default() += 1;
    }

    pub fn due(&self) -> DueSnapshots {
        self.count("schedule_due");
        let state = self.state();
        let now = state.now();
        let mut items: Vec<DueSnapshot> = Vec::new();
        let mut next: Option<Timestamp> = None;
        for (id, volume) in &state.volumes {
            if let Some(Due { slot, missed }) = snapshot_due(&volume.slots(), volume.last, now) {
                let (uid, name) = (volume.uid, slot.name());
                items.push(DueSnapshot { volume: id.clone(), uid, name, slot: slot.at(), missed });
            }
            let coming = snapshot_next(&volume.slots(), volume.last, now).map(Slot::at);
            next = next.into_iter().chain(coming).min();
        }
        items.sort_by_key(|due| due.slot);
        // Up to the next millisecond, so that it has begun by then.
        let millis = |next: Timestamp| u64::try_from(next.duration_since(now).as_millis() + 1);
        DueSnapshots { items, next_ms: next.map(|next| millis(next).unwrap()) }
    }

    pub fn schedules(&self) -> Vec<Schedule> {
        self.count("schedule_list");
        let state = self.state();
        let now = state.now();
        let schedule = |(id, volume): (&VolumeId, &Volume)| {
            let (keep, retention) = match volume.retention {
                Retention::Keep(keep) => (Some(keep), None),
                Retention::Tiers(tiers) => (None, Some(tiers)),
            };
            Schedule {
                volume: id.clone(),
                frequency: volume.frequency,
                keep,
                retention,
                freeze: false,
                last: volume.last.map(Slot::at),
                next: snapshot_next(&volume.slots(), volume.last, now).map(Slot::at),
                due: snapshot_due(&volume.slots(), volume.last, now).map(|due| due.slot.at()),
                taken: 0,
                missed: 0,
                failed: 0,
                last_error: None,
            }
        };
        state.volumes.iter().map(schedule).collect()
    }

    pub async fn names(&self, id: &VolumeId) -> Result<Vec<SnapshotName>, Refused> {
        self.count("snapshot_list");
        let fault = self.fault(id)?;
        if fault == Fault::Hangs {
            std::future::pending::<()>().await;
        }
        Ok(self.state().volume(id).snapshots.clone())
    }

    fn fault(&self, id: &VolumeId) -> Result<Fault, Refused> {
        let state = self.state();
        let volume = state.volumes.get(id).ok_or((Kind::NotFound, format!("no volume {id}")))?;
        Ok(volume.fault)
    }

    /// Takes a snapshot for a slot; the flag says that the answer is lost.
    pub async fn take(
        &self,
        id: &VolumeId,
        name: &SnapshotName,
    ) -> Result<(Creation, bool), Refused> {
        self.count("snapshot_create");
        let fault = self.fault(id)?;
        let slot = name.slot().ok_or((Kind::Invalid, "not a slot".to_owned()))?;
        {
            let mut state = self.state();
            let now = state.now();
            let volume = state.volume(id);
            volume.asked += 1;
            if volume.slots().latest(now).is_none_or(|latest| slot > latest) {
                return Err((Kind::Conflict, "too early".to_owned()));
            }
            match volume.last.filter(|last| !last.is_absurd(now)) {
                Some(last) if last == slot => return Ok((Creation::Unchanged, false)),
                Some(last) if last > slot => return Err((Kind::Conflict, "too late".to_owned())),
                Some(_) | None => {}
            }
            if volume.snapshots.contains(name) {
                volume.last = Some(slot);
                return Ok((Creation::Unchanged, false));
            }
        }
        let _alone = self.begin(id)?;
        self.wait(fault).await?;
        let mut state = self.state();
        let now = state.now();
        let volume = state.volume(id);
        if volume.last == Some(slot) {
            return Ok((Creation::Unchanged, false));
        }
        volume.taken.push((slot, now.duration_since(slot.at())));
        volume.last = Some(slot);
        volume.snapshots.push(name.clone());
        Ok((Creation::Created, fault == Fault::LosesReplies))
    }

    pub async fn remove(&self, id: &VolumeId, name: &SnapshotName) -> Result<(), Refused> {
        self.count("snapshot_remove");
        let fault = self.fault(id)?;
        let _alone = self.begin(id)?;
        self.wait(fault).await?;
        let mut state = self.state();
        let volume = state.volume(id);
        let count = volume.snapshots.len();
        volume.snapshots.retain(|there| there != name);
        if volume.snapshots.len() == count {
            return Err((Kind::NotFound, format!("no snapshot {id}@{name}")));
        }
        volume.removed.push(name.clone());
        Ok(())
    }

    /// A change of a volume begins, alone on it.
    fn begin(&self, id: &VolumeId) -> Result<Alone, Refused> {
        let mut state = self.state();
        if std::mem::replace(&mut state.volume(id).is_busy, true) {
            return Err((Kind::Busy, format!("{id} is being changed")));
        }
        state.changing += 1;
        state.most_changing = state.most_changing.max(state.changing);
        Ok(Alone { master: self.clone(), volume: id.clone() })
    }

    /// The time that a change takes.
    async fn wait(&self, fault: Fault) -> Result<(), Refused> {
        let latency = self.state().latency;
        match fault {
            Fault::None | Fault::LosesReplies => sleep(latency).await,
            Fault::Slow(takes) => sleep(takes).await,
            Fault::Hangs => std::future::pending().await,
            Fault::Fails(kind) => return Err((kind, "as it was told to".to_owned())),
            Fault::Frozen => {
                sleep(Duration::from_secs(29)).await;
                return Err((Kind::Unavailable, "the holder does not answer".to_owned()));
            }
        }
        Ok(())
    }

    /// One call of a client that waits so long; the work goes on without it.
    pub async fn call<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl Future<Output = Result<T, Refused>> + Send + 'static,
    ) -> Result<T, MasterError> {
        if self.state().is_down {
            return Err(MasterError::Unreachable { detail: "connection refused".to_owned() });
        }
        let work = tokio::spawn(work);
        let unanswered = || MasterError::Unanswered { detail: "no answer".to_owned() };
        let answer = timeout(within, work).await.map_err(|_| unanswered())?.unwrap();
        if self.state().is_down {
            return Err(unanswered());
        }
        answer.map_err(|(kind, detail)| MasterError::Refused { kind, detail })
    }
}

/// A change that is under way, until it is done or its process is killed.
struct Alone {
    master: StandIn,
    volume: VolumeId,
}

impl Drop for Alone {
    fn drop(&mut self) {
        let mut state = self.master.state();
        state.changing -= 1;
        state.volume(&self.volume).is_busy = false;
    }
}
