//! Snapshots, and what comes of schedules, on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use volcore::duration::Frequency;
use volcore::name::{SnapshotName, VolumeId};
use volcore::options::Tiers;
use volcore::snapshot::{Due, Slots, SnapshotLog, snapshot_due, snapshot_next};
use volcore::spec::Retention;
use volcore::volume::Volume;

/// Who has taken a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotKind {
    /// A user. It stays until a user removes it.
    Manual,
    /// The volume's schedule, whose retention removes it.
    Scheduled,
}

impl SnapshotKind {
    /// The kind of a snapshot, which its name tells.
    pub fn of(name: &SnapshotName) -> SnapshotKind {
        if name.is_reserved() { SnapshotKind::Scheduled } else { SnapshotKind::Manual }
    }

    /// The kind as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            SnapshotKind::Manual => "manual",
            SnapshotKind::Scheduled => "scheduled",
        }
    }
}

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Of which volume.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// Its name.
    #[schema(value_type = String, example = "before-upgrade")]
    pub name: SnapshotName,
    /// Who has taken it.
    pub kind: SnapshotKind,
    /// When it was taken, by the clock of the storage.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The size of the volume at that time, in bytes.
    pub size: u64,
    /// Bytes that were written between the snapshot before and this one (Ceph), or that the copy takes up (local files);
    /// only where `usage` was asked for, and where that is known cheaply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

impl Snapshot {
    /// The snapshot as users write it: `tenant/volume@snapshot`.
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.volume, self.name)
    }
}

/// The body of taking a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// Its name. Names that begin with `auto-` are those of the volume's slots.
    #[schema(value_type = String, example = "before-upgrade")]
    pub name: SnapshotName,
}

/// The query of a list of snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotQuery {
    /// Count the bytes that each takes, which costs some milliseconds for each.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub usage: bool,
}

/// Why taking a snapshot failed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleFailure {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// The schedule of a volume, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Schedule {
    /// Of which volume.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// How often.
    #[schema(value_type = String, example = "30m")]
    pub frequency: Frequency,
    /// How many of the newest are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    /// Which are kept by age, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "24h7d4w")]
    pub retention: Option<Tiers>,
    /// Whether the file system is frozen around each.
    pub freeze: bool,
    /// The time of the last slot that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last: Option<Timestamp>,
    /// The time of the next slot that is to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next: Option<Timestamp>,
    /// The slot that is due now, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub due: Option<Timestamp>,
    /// How many were taken.
    pub taken: u64,
    /// How many slots went by without one.
    pub missed: u64,
    /// How many attempts failed.
    pub failed: u64,
    /// Why the last attempt failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ScheduleFailure>,
}

impl Schedule {
    /// The schedule of a volume with its log at a moment; `None` where it has none.
    pub fn new(volume: &Volume, log: Option<&SnapshotLog>, now: Timestamp) -> Option<Schedule> {
        let schedule = volume.spec.schedule?;
        let slots = Slots::of(volume)?;
        let last = SnapshotLog::last_of(log, volume, now);
        let SnapshotLog { uid: _, last: _, taken, missed, failed, last_error } =
            SnapshotLog::of(log, volume);
        let (keep, retention) = match schedule.retention {
            Retention::Keep(keep) => (Some(keep), None),
            Retention::Tiers(tiers) => (None, Some(tiers)),
        };
        Some(Schedule {
            volume: volume.id.clone(),
            frequency: schedule.frequency,
            keep,
            retention,
            freeze: schedule.freeze,
            last: last.map(|slot| slot.at()),
            next: snapshot_next(&slots, last, now).map(|slot| slot.at()),
            due: snapshot_due(&slots, last, now).map(|due| due.slot.at()),
            taken,
            missed,
            failed,
            last_error: last_error
                .map(|failure| ScheduleFailure { at: failure.at, reason: failure.reason }),
        })
    }
}

/// A snapshot that is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DueSnapshot {
    /// Of which volume.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// Which one of that name.
    #[schema(value_type = String)]
    pub uid: Uuid,
    /// What it is to be called.
    #[schema(value_type = String, example = "auto-2026-11-21T203007Z")]
    pub name: SnapshotName,
    /// Its slot.
    #[schema(value_type = String, format = DateTime)]
    pub slot: Timestamp,
    /// How many slots before it went by without one.
    pub missed: u64,
}

impl DueSnapshot {
    /// What a volume is due for at a moment.
    pub fn new(volume: &Volume, log: Option<&SnapshotLog>, now: Timestamp) -> Option<DueSnapshot> {
        let slots = Slots::of(volume)?;
        let last = SnapshotLog::last_of(log, volume, now);
        let Due { slot, missed } = snapshot_due(&slots, last, now)?;
        let (volume, uid) = (volume.id.clone(), volume.uid);
        Some(DueSnapshot { volume, uid, name: slot.name(), slot: slot.at(), missed })
    }
}

/// What is due, by the clock of the volmaster that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DueSnapshots {
    /// What is due, the longest due first.
    pub items: Vec<DueSnapshot>,
    /// In how many milliseconds the next slot of any volume begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u64>,
}
