//! The stand-in behind the seam, without sockets, so that time can stand still.

use std::time::Duration;

use async_trait::async_trait;
use volapi::snapshots::{DueSnapshots, Schedule};
use volclient::Creation;
use volcore::name::{SnapshotName, VolumeId};
use volsupervisor::master::{Master, MasterError};

use crate::stand_in::StandIn;

#[async_trait]
impl Master for StandIn {
    async fn schedule_due(&self, within: Duration) -> Result<DueSnapshots, MasterError> {
        let own = self.clone();
        self.call(within, async move { Ok(own.due()) }).await
    }

    async fn schedule_list(&self, within: Duration) -> Result<Vec<Schedule>, MasterError> {
        let own = self.clone();
        self.call(within, async move { Ok(own.schedules()) }).await
    }

    async fn snapshot_list(
        &self,
        volume: &VolumeId,
        within: Duration,
    ) -> Result<Vec<SnapshotName>, MasterError> {
        let (own, volume) = (self.clone(), volume.clone());
        self.call(within, async move { own.names(&volume).await }).await
    }

    async fn snapshot_create(
        &self,
        volume: &VolumeId,
        name: &SnapshotName,
        within: Duration,
    ) -> Result<Creation, MasterError> {
        let (own, volume, name) = (self.clone(), volume.clone(), name.clone());
        match self.call(within, async move { own.take(&volume, &name).await }).await? {
            (creation, false) => Ok(creation),
            (_, true) => Err(MasterError::Unanswered { detail: "connection reset".to_owned() }),
        }
    }

    async fn snapshot_remove(
        &self,
        volume: &VolumeId,
        name: &SnapshotName,
        within: Duration,
    ) -> Result<(), MasterError> {
        let (own, volume, name) = (self.clone(), volume.clone(), name.clone());
        self.call(within, async move { own.remove(&volume, &name).await }).await
    }
}
