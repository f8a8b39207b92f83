//! What volsupervisor asks of volmaster.
//!
//! [`Master`] is the seam between the two: `volclient` behind it in life, a stand-in with state and a fault plan in tests.

use std::time::Duration;

use async_trait::async_trait;
use volapi::problem::chain;
use volapi::snapshots::{CreateSnapshot, DueSnapshots, Schedule, SnapshotQuery};
use volclient::{Client, ClientError, Creation, Outcome};
use volcore::Kind;
use volcore::name::{SnapshotName, VolumeId};

/// Why volmaster did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MasterError {
    /// It said no.
    #[error("{detail}")]
    Refused {
        /// Which kind of no.
        kind: Kind,
        /// Its words.
        detail: String,
    },
    /// No volmaster was asked: none can be reached.
    #[error("volmaster cannot be reached: {detail}")]
    Unreachable {
        /// Which, and why not.
        detail: String,
    },
    /// There was no answer, or none that can be read: what was asked may have been done.
    #[error("volmaster did not answer: {detail}")]
    Unanswered {
        /// Who, and why not.
        detail: String,
    },
}

impl MasterError {
    /// True only where volmaster itself said that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, MasterError::Refused { kind: Kind::NotFound, .. })
    }

    /// True where what was asked may have been done, or still be under way.
    pub fn is_unknown(&self) -> bool {
        match self {
            MasterError::Unanswered { .. } => true,
            MasterError::Unreachable { .. } => false,
            MasterError::Refused { kind, .. } => matches!(kind, Kind::Unavailable | Kind::Internal),
        }
    }
}

/// One method for each question. All are idempotent; `within` bounds the whole call.
#[async_trait]
pub trait Master: Send + Sync + 'static {
    /// What is due, by volmaster's clock.
    async fn schedule_due(&self, within: Duration) -> Result<DueSnapshots, MasterError>;

    /// Every schedule.
    async fn schedule_list(&self, within: Duration) -> Result<Vec<Schedule>, MasterError>;

    /// The names of a volume's snapshots.
    async fn snapshot_list(
        &self,
        volume: &VolumeId,
        within: Duration,
    ) -> Result<Vec<SnapshotName>, MasterError>;

    /// Takes a snapshot, or finds it.
    async fn snapshot_create(
        &self,
        volume: &VolumeId,
        name: &SnapshotName,
        within: Duration,
    ) -> Result<Creation, MasterError>;

    /// Removes a snapshot.
    async fn snapshot_remove(
        &self,
        volume: &VolumeId,
        name: &SnapshotName,
        within: Duration,
    ) -> Result<(), MasterError>;
}

impl From<ClientError> for MasterError {
    fn from(error: ClientError) -> Self {
        let detail = chain(&error);
        match (&error, error.outcome()) {
            (ClientError::Problem { problem, .. }, _) => {
                MasterError::Refused { kind: problem.kind, detail: problem.detail.clone() }
            }
            (_, Outcome::NotDone) => MasterError::Unreachable { detail },
            (_, Outcome::Unknown) => MasterError::Unanswered { detail },
        }
    }
}

#[async_trait]
impl Master for Client {
    async fn schedule_due(&self, within: Duration) -> Result<DueSnapshots, MasterError> {
        Ok(self.within(within).schedule_due().await?)
    }

    async fn schedule_list(&self, within: Duration) -> Result<Vec<Schedule>, MasterError> {
        Ok(self.within(within).schedule_list(None).await?)
    }

    async fn snapshot_list(
        &self,
        volume: &VolumeId,
        within: Duration,
    ) -> Result<Vec<SnapshotName>, MasterError> {
        let query = SnapshotQuery { usage: false };
        let snapshots = self.within(within).snapshot_list(volume, query).await?;
        Ok(snapshots.into_iter().map(|snapshot| snapshot.name).collect())
    }

    async fn snapshot_create(
        &self,
        volume: &VolumeId,
        name: &SnapshotName,
        within: Duration,
    ) -> Result<Creation, MasterError> {
        let body = CreateSnapshot { name: name.clone() };
        let (creation, _) = self.within(within).snapshot_create(volume, &body).await?;
        Ok(creation)
    }

    async fn snapshot_remove(
        &self,
        volume: &VolumeId,
        name: &SnapshotName,
        within: Duration,
    ) -> Result<(), MasterError> {
        Ok(self.within(within).snapshot_remove(volume, name).await?)
    }
}
