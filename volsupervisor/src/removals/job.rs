//! The calls that look at the snapshots of a volume and remove them.

use std::sync::Arc;
use std::time::Duration;

use volcore::name::{SnapshotName, VolumeId};

use crate::crew::Verdict;
use crate::lanes::Ended;
use crate::master::{Master, MasterError};
use crate::retention::Rule;

/// One call ends within this time.
const WITHIN: Duration = Duration::from_secs(60);

/// One call for a volume; a volume with much to remove lets others in between.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// Which snapshots it has.
    Look(Rule),
    /// Its oldest goes, which is the last of these.
    Remove(Rule, Vec<SnapshotName>),
}

/// What a call came to.
#[derive(Clone, Debug)]
pub(super) enum JobEnd {
    /// These are to go, the newest first.
    Looked(Vec<SnapshotName>),
    /// It is gone.
    Removed,
    /// It is not, or that is not known.
    Failed(MasterError),
}

impl Verdict for JobEnd {
    fn ended(&self) -> Ended {
        match self {
            JobEnd::Looked(_) | JobEnd::Removed => Ended::Well,
            JobEnd::Failed(_) => Ended::Badly,
        }
    }
}

impl Job {
    /// Makes the call.
    pub(super) async fn run(self, master: Arc<dyn Master>, volume: VolumeId) -> JobEnd {
        match self {
            Job::Look(rule) => look(&*master, &volume, rule).await,
            Job::Remove(_, names) => match names.last() {
                Some(oldest) => remove(&*master, &volume, oldest).await,
                None => JobEnd::Removed,
            },
        }
    }
}

async fn look(master: &dyn Master, volume: &VolumeId, rule: Rule) -> JobEnd {
    match master.snapshot_list(volume, WITHIN).await {
        Ok(names) => JobEnd::Looked(rule.expired(&names)),
        // With the volume all of it is gone.
        Err(error) if error.is_not_found() => JobEnd::Looked(Vec::new()),
        Err(error) => JobEnd::Failed(error),
    }
}

async fn remove(master: &dyn Master, volume: &VolumeId, name: &SnapshotName) -> JobEnd {
    match master.snapshot_remove(volume, name, WITHIN).await {
        Ok(()) => JobEnd::Removed,
        // Somebody else has.
        Err(error) if error.is_not_found() => JobEnd::Removed,
        Err(error) => JobEnd::Failed(error),
    }
}
