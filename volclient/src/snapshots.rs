//! Snapshots and schedules: `snapshot_*`, `schedule_*`.

use hyper::Method;
use volapi::list::ListQuery;
use volapi::snapshots::{CreateSnapshot, DueSnapshots, Schedule, Snapshot, SnapshotQuery};
use volapi::volumes::Volume;
use volapi::{Listing, routes};
use volcore::name::{SnapshotName, TenantName, VolumeId};

use crate::call::{Call, Creation};
use crate::client::Client;
use crate::error::ClientError;
use crate::query::Path;

impl Client {
    /// The snapshots of a volume, the oldest first.
    pub async fn snapshot_list(
        &self,
        id: &VolumeId,
        query: SnapshotQuery,
    ) -> Result<Vec<Snapshot>, ClientError> {
        let subject = format!("the snapshots of volume {id}");
        let path = Path::new(routes::snapshots(id)).snapshots(query).into_string();
        let call = Call::get("snapshot_list", subject, path);
        Ok(self.read::<Listing<Snapshot>>(call).await?.items)
    }

    /// Takes a snapshot, or finds one of that name.
    pub async fn snapshot_create(
        &self,
        id: &VolumeId,
        body: &CreateSnapshot,
    ) -> Result<(Creation, Snapshot), ClientError> {
        let subject = subject(id, &body.name);
        let call = Call::new("snapshot_create", subject, Method::POST, routes::snapshots(id));
        self.send(call.with_body(body)).await?.created()
    }

    /// A snapshot.
    pub async fn snapshot_get(
        &self,
        id: &VolumeId,
        snapshot: &SnapshotName,
    ) -> Result<Snapshot, ClientError> {
        let path = routes::snapshot(id, snapshot);
        self.read(Call::get("snapshot_get", subject(id, snapshot), path)).await
    }

    /// Removes a snapshot.
    pub async fn snapshot_remove(
        &self,
        id: &VolumeId,
        snapshot: &SnapshotName,
    ) -> Result<(), ClientError> {
        let path = routes::snapshot(id, snapshot);
        let call = Call::new("snapshot_remove", subject(id, snapshot), Method::DELETE, path);
        self.send_removal(call).await?;
        Ok(())
    }

    /// Rolls a volume back to a snapshot. Not sent again once it may have arrived.
    pub async fn snapshot_rollback(
        &self,
        id: &VolumeId,
        snapshot: &SnapshotName,
    ) -> Result<Volume, ClientError> {
        let path = routes::snapshot_rollback(id, snapshot);
        let call = Call::new("snapshot_rollback", subject(id, snapshot), Method::POST, path);
        self.read(call.only_once()).await
    }

    /// Every schedule, of one tenant or of all, by the name of its volume.
    pub async fn schedule_list(
        &self,
        tenant: Option<&TenantName>,
    ) -> Result<Vec<Schedule>, ClientError> {
        let tenant = tenant.map(ToString::to_string);
        let query = ListQuery { tenant, ..ListQuery::default() };
        self.pages("schedule_list", "schedules", routes::SCHEDULES, query).await
    }

    /// What is due now, by the clock of the master that answers.
    pub async fn schedule_due(&self) -> Result<DueSnapshots, ClientError> {
        self.read(Call::get("schedule_due", "schedules", routes::SCHEDULES_DUE)).await
    }
}

fn subject(id: &VolumeId, snapshot: &SnapshotName) -> String {
    format!("snapshot {id}@{snapshot}")
}
