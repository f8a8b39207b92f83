//! Several changes to records as one commit.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use volcore::claim::Claim;
use volcore::global::Global;
use volcore::host::MasterId;
use volcore::name::{HostName, TenantName, VolumeId};
use volcore::policy::Tenant;
use volcore::snapshot::SnapshotLog;
use volcore::takeover::Fence;
use volcore::volume::Volume;

use super::{
    LeasedOrder, LeasedSession, StoredClaim, StoredEpoch, StoredFence, StoredGlobal, StoredMaster,
    StoredOrder, StoredSession, StoredSnapshotLog, StoredTenant, StoredTrash, StoredVolume, Trash,
    corrupt, write,
};
use crate::keys::Keys;
use crate::store::{Expect, Key, LeaseId, Revision, Step, StoreError};

/// What is to be done at one revision, or not at all. Every change carries its precondition.
#[derive(Debug)]
#[must_use = "changes do nothing before they are committed"]
pub struct Changes {
    keys: Arc<Keys>,
    steps: Vec<Step>,
    /// The first record that cannot be written, which takes the whole commit with it.
    failed: Option<StoreError>,
}

impl Changes {
    pub(crate) fn new(keys: Arc<Keys>) -> Self {
        Changes { keys, steps: Vec::new(), failed: None }
    }

    /// The steps, or the record that cannot be written.
    pub fn into_steps(self) -> Result<Vec<Step>, StoreError> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.steps),
        }
    }

    fn put<T: Serialize>(
        mut self,
        key: Key,
        record: &T,
        expect: Expect,
        lease: Option<LeaseId>,
    ) -> Self {
        match write(&key, record) {
            Ok(value) => self.steps.push(Step::Put { key, value, expect, lease }),
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
        self
    }

    fn delete(mut self, key: Key, at: Revision) -> Self {
        self.steps.push(Step::Delete { key, at });
        self
    }

    fn check(mut self, key: Key, expect: Expect) -> Self {
        self.steps.push(Step::Check { key, expect });
        self
    }

    /// Writes a tenant's newest policy, and the upload under its number, which must be new.
    pub fn put_tenant(self, tenant: &Tenant, expect: Expect) -> Self {
        let record = StoredTenant::from(tenant);
        let key = self.keys.tenant(&tenant.name);
        let mut changes = self.put(key.clone(), &record, expect, None);
        match u32::try_from(tenant.revision) {
            Ok(number) => {
                let key = changes.keys.tenant_revision(&tenant.name, number);
                changes.put(key, &record, Expect::Absent, None)
            }
            Err(error) => {
                changes.failed = changes.failed.or(Some(corrupt(&key, &error)));
                changes
            }
        }
    }

    /// Deletes a tenant; its uploads stay.
    pub fn delete_tenant(self, name: &TenantName, at: Revision) -> Self {
        let key = self.keys.tenant(name);
        self.delete(key, at)
    }

    /// Requires something of a tenant.
    pub fn check_tenant(self, name: &TenantName, expect: Expect) -> Self {
        let key = self.keys.tenant(name);
        self.check(key, expect)
    }

    /// Writes a volume.
    pub fn put_volume(self, volume: &Volume, expect: Expect) -> Self {
        let key = self.keys.volume(&volume.id);
        self.put(key, &StoredVolume::from(volume), expect, None)
    }

    /// Deletes a volume.
    pub fn delete_volume(self, id: &VolumeId, at: Revision) -> Self {
        let key = self.keys.volume(id);
        self.delete(key, at)
    }

    /// Requires something of a volume.
    pub fn check_volume(self, id: &VolumeId, expect: Expect) -> Self {
        let key = self.keys.volume(id);
        self.check(key, expect)
    }

    /// Writes the claim on a volume.
    pub fn put_claim(self, claim: &Claim, expect: Expect) -> Self {
        let key = self.keys.mount(&claim.volume);
        self.put(key, &StoredClaim::from(claim), expect, None)
    }

    /// Deletes the claim on a volume.
    pub fn delete_claim(self, id: &VolumeId, at: Revision) -> Self {
        let key = self.keys.mount(id);
        self.delete(key, at)
    }

    /// Requires something of the claim on a volume.
    pub fn check_claim(self, id: &VolumeId, expect: Expect) -> Self {
        let key = self.keys.mount(id);
        self.check(key, expect)
    }

    /// Writes the epoch of the last claim on a volume.
    pub fn put_epoch(self, id: &VolumeId, epoch: u64, expect: Expect) -> Self {
        let key = self.keys.epoch(id);
        self.put(key, &StoredEpoch::from(epoch), expect, None)
    }

    /// Deletes the epoch of a volume.
    pub fn delete_epoch(self, id: &VolumeId, at: Revision) -> Self {
        let key = self.keys.epoch(id);
        self.delete(key, at)
    }

    /// Writes what came of a volume's snapshots on schedule.
    pub fn put_snapshot_log(self, id: &VolumeId, log: &SnapshotLog, expect: Expect) -> Self {
        let key = self.keys.snapshots(id);
        self.put(key, &StoredSnapshotLog::from(log), expect, None)
    }

    /// Requires something of what came of a volume's snapshots on schedule.
    pub fn check_snapshot_log(self, id: &VolumeId, expect: Expect) -> Self {
        let key = self.keys.snapshots(id);
        self.check(key, expect)
    }

    /// Deletes what came of a volume's snapshots on schedule.
    pub fn delete_snapshot_log(self, id: &VolumeId, at: Revision) -> Self {
        let key = self.keys.snapshots(id);
        self.delete(key, at)
    }

    /// Writes an order to the holder of a volume; it ends with its lease.
    pub fn put_order(self, leased: &LeasedOrder, expect: Expect) -> Self {
        let key = self.keys.order(&leased.order.volume);
        self.put(key, &StoredOrder::from(leased), expect, Some(leased.lease))
    }

    /// Writes that a volmaster lives, for as long as its lease does.
    pub fn put_master(self, id: MasterId, since: Timestamp, lease: LeaseId) -> Self {
        let key = self.keys.master(id);
        self.put(key, &StoredMaster::new(since), Expect::Absent, Some(lease))
    }

    /// Writes which clients of a host are to be cut off.
    pub fn put_fence(self, fence: &Fence, expect: Expect) -> Self {
        let key = self.keys.fence(&fence.host, &fence.volume, fence.epoch);
        self.put(key, &StoredFence::from(fence), expect, None)
    }

    /// Forgets a fence.
    pub fn delete_fence(self, fence: &Fence, at: Revision) -> Self {
        let key = self.keys.fence(&fence.host, &fence.volume, fence.epoch);
        self.delete(key, at)
    }

    /// Writes a session; it ends with its lease.
    pub fn put_session(self, session: &LeasedSession, expect: Expect) -> Self {
        let key = self.keys.host(&session.session.host);
        self.put(key, &StoredSession::from(session), expect, Some(session.lease))
    }

    /// Requires something of a session.
    pub fn check_session(self, host: &HostName, expect: Expect) -> Self {
        let key = self.keys.host(host);
        self.check(key, expect)
    }

    /// Deletes a session; its lease is left.
    pub fn delete_session(self, host: &HostName, at: Revision) -> Self {
        let key = self.keys.host(host);
        self.delete(key, at)
    }

    /// Writes a record of what is on its way out.
    pub fn put_trash(self, trash: &Trash, expect: Expect) -> Self {
        let key = self.keys.trash(&trash.id());
        self.put(key, &StoredTrash::from(trash), expect, None)
    }

    /// Deletes a record of what was on its way out.
    pub fn delete_trash(self, id: &str, at: Revision) -> Self {
        let key = self.keys.trash(id);
        self.delete(key, at)
    }

    /// Writes the settings.
    pub fn put_global(self, global: &Global, expect: Expect) -> Self {
        let key = self.keys.global();
        self.put(key, &StoredGlobal::from(global), expect, None)
    }
}
