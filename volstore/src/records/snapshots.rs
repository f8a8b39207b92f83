//! The record of what came of a volume's snapshots on schedule.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volcore::snapshot::{Slot, SnapshotFailure, SnapshotLog};

use super::V1;

/// What came of the schedule of the volume in its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSnapshotLog {
    v: V1,
    uid: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Slot>,
    taken: u64,
    missed: u64,
    failed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<StoredFailure>,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredFailure {
    at: Timestamp,
    reason: String,
}

impl From<&SnapshotLog> for StoredSnapshotLog {
    fn from(log: &SnapshotLog) -> Self {
        let SnapshotLog { uid, last, taken, missed, failed, last_error } = log.clone();
        let last_error =
            last_error.map(|SnapshotFailure { at, reason }| StoredFailure { at, reason });
        StoredSnapshotLog { v: V1, uid, last, taken, missed, failed, last_error }
    }
}

impl From<StoredSnapshotLog> for SnapshotLog {
    fn from(stored: StoredSnapshotLog) -> Self {
        let StoredSnapshotLog { v: V1, uid, last, taken, missed, failed, last_error } = stored;
        let last_error =
            last_error.map(|StoredFailure { at, reason }| SnapshotFailure { at, reason });
        SnapshotLog { uid, last, taken, missed, failed, last_error }
    }
}
