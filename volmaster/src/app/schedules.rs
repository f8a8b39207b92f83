//! Schedules: which snapshots are due, and how all of them do. Answered from the mirrors, by this volmaster's clock, so
//! that a supervisor needs none.

use std::sync::Arc;

use jiff::Timestamp;
use volapi::snapshots::{DueSnapshot, DueSnapshots, Schedule};
use volapi::status::Schedules;
use volcore::name::VolumeId;
use volcore::snapshot::SnapshotLog;
use volcore::volume::{Volume, VolumeState};

use super::{App, ListAsk, ListError, Slice, catch_up, lists};

/// How many of those that fail are shown.
const SHOWN: usize = 20;

/// What came of a volume's schedule, as lists show it.
pub fn log_shown(app: &App, id: &VolumeId) -> Option<Arc<SnapshotLog>> {
    app.mirrors.logs.get(&app.records.keys().snapshots(id)).map(|kept| kept.record)
}

/// The schedule of a volume, as lists show it.
pub fn schedule_shown(app: &App, volume: &Volume) -> Option<Schedule> {
    // Most volumes that have none are not looked up.
    volume.spec.schedule?;
    Schedule::new(volume, log_shown(app, &volume.id).as_deref(), app.now())
}

/// Makes sure that what is listed shows what was acknowledged before.
pub async fn schedule_sync(app: &App) -> Result<(), ListError> {
    catch_up(app, &app.mirrors.volumes, Some(&app.mirrors.logs)).await
}

/// Lists schedules by the names of their volumes, after [`schedule_sync`]; volumes without one are left out, so
/// that a page may have fewer.
pub fn schedule_list(app: &App, ask: &ListAsk<VolumeId>) -> (Vec<Schedule>, Option<VolumeId>) {
    let keys = app.records.keys();
    let prefix = match &ask.tenant {
        Some(tenant) => keys.volumes_of(tenant),
        None => keys.volumes(),
    };
    let after = ask.after.as_ref().map(|id| keys.volume(id));
    let Slice { records, more } =
        lists::slice(&app.mirrors.volumes, &prefix, after.as_ref(), ask.limit);
    let next = records.last().filter(|_| more).map(|last| last.id.clone());
    (records.iter().filter_map(|volume| schedule_shown(app, volume)).collect(), next)
}

/// The volumes that have a schedule and can be snapshotted.
fn scheduled(app: &App) -> Vec<Arc<Volume>> {
    let wanted = |volume: &Volume| {
        volume.spec.schedule.is_some() && matches!(volume.state, VolumeState::Ready { .. })
    };
    app.mirrors.volumes.read(|view| {
        let all = view.records().values().map(|kept| &kept.record);
        all.filter(|volume| wanted(volume)).cloned().collect()
    })
}

/// Lists what is due now, after [`schedule_sync`].
pub fn schedule_due(app: &App) -> DueSnapshots {
    let now = app.now();
    let mut due = DueSnapshots { items: Vec::new(), next_ms: None };
    for volume in scheduled(app) {
        let log = log_shown(app, &volume.id);
        due.items.extend(DueSnapshot::new(&volume, log.as_deref(), now));
        let next = Schedule::new(&volume, log.as_deref(), now).and_then(|schedule| schedule.next);
        let ms = next.map(|next| millis(now, next));
        due.next_ms = [due.next_ms, ms].into_iter().flatten().min();
    }
    due.items.sort_by(|one, other| (one.slot, &one.volume).cmp(&(other.slot, &other.volume)));
    due
}

/// Rounded up, so that whoever waits for so long does not come too early.
fn millis(from: Timestamp, to: Timestamp) -> u64 {
    let nanos = to.duration_since(from).as_nanos().max(0);
    u64::try_from((nanos + 999_999) / 1_000_000).unwrap_or(u64::MAX)
}

/// How all of them do. The mirrors may be older than the store.
pub fn schedules(app: &App) -> Schedules {
    let now = app.now();
    let mut all = Schedules::default();
    let mut next: Option<Timestamp> = None;
    for volume in scheduled(app) {
        let Some(schedule) = schedule_shown(app, &volume) else { continue };
        all.volumes += 1;
        if let Some(due) = schedule.due {
            all.due += 1;
            all.lag_ms = all.lag_ms.max(millis(due, now));
        }
        all.taken += schedule.taken;
        all.missed += schedule.missed;
        all.failed += schedule.failed;
        if let Some(error) = schedule.last_error.filter(|_| all.failing.len() < SHOWN) {
            all.failing.push(format!("{}, {:.0}: {}", volume.id, error.at, error.reason));
        }
        next = [next, schedule.next].into_iter().flatten().min();
    }
    all.next = next.map(|next| format!("{next:.0}"));
    all
}
