//! Reading records by name, and committing changes to them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use volcore::claim::Claim;
use volcore::global::Global;
use volcore::host::MasterId;
use volcore::name::{HostName, TenantName, VolumeId};
use volcore::policy::Tenant;
use volcore::snapshot::SnapshotLog;
use volcore::takeover::Fence;
use volcore::volume::Volume;

use super::{
    Changes, LeasedOrder, LeasedSession, StoredClaim, StoredEpoch, StoredFence, StoredGlobal,
    StoredOrder, StoredSession, StoredSnapshotLog, StoredTenant, StoredTrash, StoredVolume, Trash,
    corrupt, read,
};
use crate::commit::commit_certain;
use crate::keys::{Keys, Place};
use crate::store::{Commit, Entry, Expect, Key, Revision, Store, StoreError, list_all};

/// How long the outcome of a commit is looked for whose answer was lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A record with the revision of its last change, which is the precondition for the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// What was written.
    pub value: T,
    /// When.
    pub at: Revision,
}

impl<T> Versioned<T> {
    /// What must hold for a write that follows from having read this.
    pub fn unchanged(found: Option<&Self>) -> Expect {
        found.map_or(Expect::Absent, |found| Expect::At(found.at))
    }
}

/// The records of one suite in a store. Clones are the same.
#[derive(Clone)]
pub struct Records {
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("store", &self.store.describe()).finish()
    }
}

impl Records {
    /// The records below the prefix of `keys`.
    pub fn new(store: Arc<dyn Store>, keys: Keys) -> Self {
        Records { store, keys: Arc::new(keys) }
    }

    /// The store itself, for what has no record: leases, watches, its description.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The layout of the keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A tenant with its newest policy.
    pub async fn tenant(&self, name: &TenantName) -> Result<Option<Versioned<Tenant>>, StoreError> {
        self.one(self.keys.tenant(name), |entry| Self::read_tenant(&self.keys, entry)).await
    }

    /// One upload of a tenant's policy.
    pub async fn tenant_revision(
        &self,
        name: &TenantName,
        number: u32,
    ) -> Result<Option<Versioned<Tenant>>, StoreError> {
        let key = self.keys.tenant_revision(name, number);
        self.one(key, |entry| Ok(read::<StoredTenant>(entry)?.into_tenant(name.clone()))).await
    }

    /// All uploads of a tenant's policy, the first one first.
    pub async fn tenant_revisions(&self, name: &TenantName) -> Result<Vec<Tenant>, StoreError> {
        let (entries, _) = list_all(&*self.store, &self.keys.tenant_revisions(name)).await?;
        let into = |entry| Ok(read::<StoredTenant>(entry)?.into_tenant(name.clone()));
        entries.iter().map(into).collect()
    }

    /// The number of a tenant's last upload, also where the tenant is gone; 0 where there never was one.
    pub async fn tenant_last_revision(&self, name: &TenantName) -> Result<u32, StoreError> {
        // The smallest number after which nothing comes: doubled until it is past the end, then halved.
        let (mut low, mut high) = (0, 1_u32);
        while self.tenant_revision_after(name, high).await? {
            low = high;
            high = high.saturating_mul(2);
            if low == u32::MAX {
                return Ok(low);
            }
        }
        if low == 0 && !self.tenant_revision_after(name, 0).await? {
            return Ok(0);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.tenant_revision_after(name, middle).await? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(high)
    }

    async fn tenant_revision_after(
        &self,
        name: &TenantName,
        number: u32,
    ) -> Result<bool, StoreError> {
        let (all, after) =
            (self.keys.tenant_revisions(name), self.keys.tenant_revision(name, number));
        Ok(!self.store.list(&all, Some(&after), 1, None).await?.entries.is_empty())
    }

    /// A volume.
    pub async fn volume(&self, id: &VolumeId) -> Result<Option<Versioned<Volume>>, StoreError> {
        self.one(self.keys.volume(id), |entry| Self::read_volume(&self.keys, entry)).await
    }

    /// The claim on a volume.
    pub async fn claim(&self, id: &VolumeId) -> Result<Option<Versioned<Claim>>, StoreError> {
        self.one(self.keys.mount(id), |entry| Self::read_claim(&self.keys, entry)).await
    }

    /// The epoch of the last claim on a volume.
    pub async fn epoch(&self, id: &VolumeId) -> Result<Option<Versioned<u64>>, StoreError> {
        self.one(self.keys.epoch(id), |entry| Ok(read::<StoredEpoch>(entry)?.into())).await
    }

    /// What came of a volume's snapshots on schedule.
    pub async fn snapshot_log(
        &self,
        id: &VolumeId,
    ) -> Result<Option<Versioned<SnapshotLog>>, StoreError> {
        let key = self.keys.snapshots(id);
        self.one(key, |entry| Self::read_snapshot_log(&self.keys, entry)).await
    }

    /// What the holder of a volume is to do.
    pub async fn order(&self, id: &VolumeId) -> Result<Option<Versioned<LeasedOrder>>, StoreError> {
        self.one(self.keys.order(id), |entry| Self::read_order(&self.keys, entry)).await
    }

    /// The live session under a host's label.
    pub async fn session(
        &self,
        host: &HostName,
    ) -> Result<Option<Versioned<LeasedSession>>, StoreError> {
        self.one(self.keys.host(host), |entry| Self::read_session(&self.keys, entry)).await
    }

    /// All live sessions, in the order of their hosts' labels.
    pub async fn sessions(&self) -> Result<Vec<LeasedSession>, StoreError> {
        let (entries, _) = list_all(&*self.store, &self.keys.hosts()).await?;
        entries.iter().map(|entry| Self::read_session(&self.keys, entry)).collect()
    }

    /// The volmasters that live.
    pub async fn masters(&self) -> Result<BTreeSet<MasterId>, StoreError> {
        let (entries, _) = list_all(&*self.store, &self.keys.masters()).await?;
        let id = |entry: &Entry| match self.keys.place(&entry.key) {
            Some(Place::Master(id)) => Ok(id),
            Some(_) | None => Err(stray(entry)),
        };
        entries.iter().map(id).collect()
    }

    /// Which clients of a host were cut off from a volume that it held under this epoch.
    pub async fn fence(
        &self,
        host: &HostName,
        id: &VolumeId,
        epoch: u64,
    ) -> Result<Option<Versioned<Fence>>, StoreError> {
        let key = self.keys.fence(host, id, epoch);
        self.one(key, |entry| Self::read_fence(&self.keys, entry)).await
    }

    /// The fences of one host, or of all.
    pub async fn fences(
        &self,
        host: Option<&HostName>,
    ) -> Result<Vec<Versioned<Fence>>, StoreError> {
        let prefix = host.map_or_else(|| self.keys.fences(), |host| self.keys.fences_of(host));
        let (entries, _) = list_all(&*self.store, &prefix).await?;
        let one = |entry: &Entry| {
            let value = Self::read_fence(&self.keys, entry)?;
            Ok(Versioned { value, at: entry.revision })
        };
        entries.iter().map(one).collect()
    }

    /// One record of what is on its way out.
    pub async fn trash(&self, id: &str) -> Result<Option<Versioned<Trash>>, StoreError> {
        self.one(self.keys.trash(id), |entry| Self::read_trash(&self.keys, entry)).await
    }

    /// The settings, if they were ever uploaded.
    pub async fn global(&self) -> Result<Option<Versioned<Global>>, StoreError> {
        self.one(self.keys.global(), |entry| Ok(read::<StoredGlobal>(entry)?.into())).await
    }

    /// A volume out of the entry at its key: what a mirror of volumes decodes with.
    pub fn read_volume(keys: &Keys, entry: &Entry) -> Result<Volume, StoreError> {
        let Some(Place::Volume(id)) = keys.place(&entry.key) else { return Err(stray(entry)) };
        let stored: StoredVolume = read(entry)?;
        stored.into_volume(id).map_err(|reason| corrupt(&entry.key, &reason))
    }

    /// A claim out of the entry at its key.
    pub fn read_claim(keys: &Keys, entry: &Entry) -> Result<Claim, StoreError> {
        let Some(Place::Mount(id)) = keys.place(&entry.key) else { return Err(stray(entry)) };
        Ok(read::<StoredClaim>(entry)?.into_claim(id))
    }

    /// An order out of the entry at its key.
    pub fn read_order(keys: &Keys, entry: &Entry) -> Result<LeasedOrder, StoreError> {
        let Some(Place::Order(id)) = keys.place(&entry.key) else { return Err(stray(entry)) };
        Ok(read::<StoredOrder>(entry)?.into_order(id))
    }

    /// A tenant out of the entry at its key.
    pub fn read_tenant(keys: &Keys, entry: &Entry) -> Result<Tenant, StoreError> {
        let Some(Place::Tenant(name)) = keys.place(&entry.key) else { return Err(stray(entry)) };
        Ok(read::<StoredTenant>(entry)?.into_tenant(name))
    }

    /// What came of a volume's snapshots on schedule, out of the entry at its key.
    pub fn read_snapshot_log(_: &Keys, entry: &Entry) -> Result<SnapshotLog, StoreError> {
        Ok(read::<StoredSnapshotLog>(entry)?.into())
    }

    /// What is on its way out, out of the entry at its key.
    pub fn read_trash(_: &Keys, entry: &Entry) -> Result<Trash, StoreError> {
        let stored: StoredTrash = read(entry)?;
        stored.into_trash().map_err(|reason| corrupt(&entry.key, &reason))
    }

    fn read_fence(keys: &Keys, entry: &Entry) -> Result<Fence, StoreError> {
        let Some(Place::Fence(host, id, epoch)) = keys.place(&entry.key) else {
            return Err(stray(entry));
        };
        Ok(read::<StoredFence>(entry)?.into_fence(host, id, epoch))
    }

    fn read_session(keys: &Keys, entry: &Entry) -> Result<LeasedSession, StoreError> {
        let Some(Place::Host(host)) = keys.place(&entry.key) else { return Err(stray(entry)) };
        Ok(read::<StoredSession>(entry)?.into_session(host))
    }

    /// No changes yet.
    pub fn changes(&self) -> Changes {
        Changes::new(self.keys.clone())
    }

    /// Does all changes, or none. Where the first answer is lost, the outcome is found out.
    pub async fn commit(&self, changes: Changes) -> Result<Commit, StoreError> {
        let steps = changes.into_steps()?;
        commit_certain(&*self.store, steps, PATIENCE).await
    }

    async fn one<T>(
        &self,
        key: Key,
        decode: impl FnOnce(&Entry) -> Result<T, StoreError>,
    ) -> Result<Option<Versioned<T>>, StoreError> {
        let Some(entry) = self.store.get(&key).await? else { return Ok(None) };
        Ok(Some(Versioned { value: decode(&entry)?, at: entry.revision }))
    }
}

fn stray(entry: &Entry) -> StoreError {
    corrupt(&entry.key, &"nothing is stored under such a key")
}
