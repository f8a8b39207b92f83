//! Volumes in etcd.

use std::collections::HashMap;

use jiff::Timestamp;
use volapi::mounts::Mount;
use volapi::snapshots::Schedule;
use volapi::volumes::{Image, Removed, Volume, VolumeBrief};
use volcore::claim::Claim;
use volcore::name::{TenantName, VolumeId};
use volcore::snapshot::SnapshotLog;
use volstore::keys::Place;
use volstore::records::Records;
use volstore::store::{Expect, list_all};

use super::{ATTEMPTS, Direct, DirectError, done};

/// The records do not say which driver made the image; with etcd it is Ceph.
fn image(volume: &volcore::volume::Volume) -> Image {
    let image = volume.image();
    Image::Rbd { pool: image.pool.to_string(), image: image.name }
}

fn shown(
    volume: volcore::volume::Volume,
    claim: Option<Claim>,
    log: Option<&SnapshotLog>,
) -> Volume {
    let image = image(&volume);
    let schedule = Schedule::new(&volume, log, Timestamp::now());
    Volume::new(volume, image, claim.and_then(Mount::from_claim), schedule)
}

impl Direct {
    async fn volume_records(
        &self,
        tenant: Option<&TenantName>,
    ) -> Result<Vec<volcore::volume::Volume>, DirectError> {
        let keys = self.records.keys();
        let prefix = tenant.map_or_else(|| keys.volumes(), |tenant| keys.volumes_of(tenant));
        let (entries, _) = list_all(&**self.records.store(), &prefix).await?;
        let read = |entry| Ok(Records::read_volume(keys, entry)?);
        entries.iter().map(read).collect()
    }

    /// What came of the schedules of all volumes.
    async fn snapshot_logs(&self) -> Result<HashMap<VolumeId, SnapshotLog>, DirectError> {
        let keys = self.records.keys();
        let (entries, _) = list_all(&**self.records.store(), &keys.snapshots_all()).await?;
        let mut logs = HashMap::new();
        for entry in &entries {
            if let Some(Place::Snapshots(id)) = keys.place(&entry.key) {
                logs.insert(id, Records::read_snapshot_log(keys, entry)?);
            }
        }
        Ok(logs)
    }

    pub async fn volume_list(
        &self,
        tenant: Option<&TenantName>,
    ) -> Result<Vec<Volume>, DirectError> {
        let volumes = self.volume_records(tenant).await?;
        let claims = self.claims(tenant).await?;
        let mut claims: HashMap<VolumeId, Claim> =
            claims.into_iter().map(|claim| (claim.volume.clone(), claim)).collect();
        let logs = self.snapshot_logs().await?;
        let whole = |volume: volcore::volume::Volume| {
            let (claim, log) = (claims.remove(&volume.id), logs.get(&volume.id));
            shown(volume, claim, log)
        };
        Ok(volumes.into_iter().map(whole).collect())
    }

    pub async fn volume_list_brief(
        &self,
        tenant: Option<&TenantName>,
    ) -> Result<Vec<VolumeBrief>, DirectError> {
        Ok(self.volume_records(tenant).await?.iter().map(VolumeBrief::from).collect())
    }

    pub async fn volume_get(&self, id: &VolumeId) -> Result<Volume, DirectError> {
        let found = self.records.volume(id).await?.ok_or_else(|| not_found(id))?;
        let claim = self.records.claim(id).await?;
        let log = self.records.snapshot_log(id).await?.map(|log| log.value);
        Ok(shown(found.value, claim.map(|claim| claim.value), log.as_ref()))
    }

    /// Forgets the volume; its image stays where it is. Never under a holder.
    pub async fn volume_force_remove(&self, id: &VolumeId) -> Result<Removed, DirectError> {
        for _ in 0..ATTEMPTS {
            let found = self.records.volume(id).await?.ok_or_else(|| not_found(id))?;
            if let Some(claim) = self.records.claim(id).await? {
                let holders = claim.value.holders_shown();
                return Err(DirectError::InUse { volume: id.to_string(), holders });
            }
            let mut changes =
                self.records.changes().check_claim(id, Expect::Absent).delete_volume(id, found.at);
            if let Some(epoch) = self.records.epoch(id).await? {
                changes = changes.delete_epoch(id, epoch.at);
            }
            if let Some(log) = self.records.snapshot_log(id).await? {
                changes = changes.delete_snapshot_log(id, log.at);
            }
            if done(self.records.commit(changes).await?) {
                let left = format!("image {}", found.value.image());
                return Ok(Removed { volume: id.clone(), left_behind: Some(left) });
            }
        }
        Err(DirectError::Contended { what: format!("volume {id}") })
    }
}

fn not_found(id: &VolumeId) -> DirectError {
    DirectError::NotFound { what: format!("volume {id}") }
}
