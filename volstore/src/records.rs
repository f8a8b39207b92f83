//! The stored records: JSON with a version tag, one struct for each.
//!
//! Owns what the values of [`crate::keys`] look like and their conversions from and to the types
//! of `volcore`, which destructure every field, so that a new one breaks the build. Called by
//! `volmaster`, and by `volcli` in its recovery mode, mostly through [`Records`]. It decides
//! nothing.
//!
//! A record of a version that this program does not know, or with members that it does not know,
//! is [`StoreError::Corrupt`]: to write it back would lose what it says.

mod changes;
mod claims;
mod fences;
mod orders;
mod repository;
mod snapshots;
mod volumes;

use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;
use volcore::duration::{SessionTtl, TrashRetention};
use volcore::global::Global;
use volcore::host::Session;
use volcore::name::{BootId, HostName, PoolName, TenantName, VolumeId};
use volcore::policy::{Tenant, TenantPolicy};

use crate::store::{Entry, Key, LeaseId, StoreError};

pub use changes::Changes;
pub use claims::{StoredClaim, StoredEpoch, StoredHoldState, StoredHolder};
pub use fences::{StoredFence, StoredMaster};
pub use orders::{LeasedOrder, StoredOrder};
pub use repository::{Records, Versioned};
pub use snapshots::StoredSnapshotLog;
use volumes::StoredKept;
pub use volumes::{Kept, StoredDisposal, StoredState, StoredVolume};

/// The version that this program writes, and the only one that it reads.
const VERSION: u32 = 1;

/// The tag of every record: `"v":1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V1;

impl Serialize for V1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(VERSION)
    }
}

impl<'de> Deserialize<'de> for V1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<V1, D::Error> {
        let version = u32::deserialize(deserializer)?;
        if version == VERSION {
            Ok(V1)
        } else {
            Err(D::Error::custom(format_args!(
                "it has version {version}, this program reads version {VERSION}"
            )))
        }
    }
}

/// A value as it is stored.
pub(crate) fn write<T: Serialize>(key: &Key, record: &T) -> Result<Vec<u8>, StoreError> {
    // The records have text keys only, so that this never fails.
    serde_json::to_vec(record).map_err(|error| corrupt(key, &error))
}

/// Reads a stored value.
pub(crate) fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    serde_json::from_slice(&entry.value).map_err(|error| corrupt(&entry.key, &error))
}

pub(crate) fn corrupt(key: &Key, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt { key: key.to_string(), reason: reason.to_string() }
}

/// A tenant, and one upload of its policy: both keys hold the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredTenant {
    v: V1,
    revision: u64,
    uploaded_at: Timestamp,
    policy: TenantPolicy,
}

impl From<&Tenant> for StoredTenant {
    fn from(tenant: &Tenant) -> Self {
        let Tenant { name: _, revision, uploaded_at, policy } = tenant;
        StoredTenant {
            v: V1,
            revision: *revision,
            uploaded_at: *uploaded_at,
            policy: policy.clone(),
        }
    }
}

impl StoredTenant {
    /// The tenant whose key it was.
    pub fn into_tenant(self, name: TenantName) -> Tenant {
        let StoredTenant { v: V1, revision, uploaded_at, policy } = self;
        Tenant { name, revision, uploaded_at, policy }
    }
}

/// A host's session and the lease that it hangs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSession {
    v: V1,
    instance_id: Uuid,
    boot_id: BootId,
    since: Timestamp,
    version: String,
    lease: i64,
    ttl: SessionTtl,
}

/// A session with what keeps it alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedSession {
    /// The session.
    pub session: Session,
    /// The lease under its key. Whoever knows it can renew it.
    pub lease: LeaseId,
    /// The time to live that the lease was granted for.
    pub ttl: SessionTtl,
}

impl From<&LeasedSession> for StoredSession {
    fn from(leased: &LeasedSession) -> Self {
        let LeasedSession { session, lease, ttl } = leased;
        let Session { host: _, instance, boot, since, version } = session;
        StoredSession {
            v: V1,
            instance_id: *instance,
            boot_id: boot.clone(),
            since: *since,
            version: version.clone(),
            lease: lease.0,
            ttl: *ttl,
        }
    }
}

impl StoredSession {
    /// The session of the host whose key it was.
    pub fn into_session(self, host: HostName) -> LeasedSession {
        let StoredSession { v: V1, instance_id, boot_id, since, version, lease, ttl } = self;
        LeasedSession {
            session: Session { host, instance: instance_id, boot: boot_id, since, version },
            lease: LeaseId(lease),
            ttl,
        }
    }
}

/// Something on its way out: what is left to be done for a volume that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredTrash {
    v: V1,
    volume: VolumeId,
    uid: Uuid,
    since: Timestamp,
    what: TrashKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept: Option<StoredKept>,
}

/// A record of the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trash {
    /// The volume that it was.
    pub volume: VolumeId,
    /// The volume's uid, which is also the record's id.
    pub uid: Uuid,
    /// When it was removed.
    pub since: Timestamp,
    /// What there is to do.
    pub kind: TrashKind,
    /// What the volume was, where it can be restored.
    pub kept: Option<Kept>,
}

/// What there is to do for a volume that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum TrashKind {
    /// Its image is in the trash of its pool.
    Image {
        /// The pool.
        pool: PoolName,
        /// The id under which the trash knows the image.
        id: String,
        /// The name that the image had.
        name: String,
        /// From when on its space is to be freed; absent where the image is kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        purge_after: Option<Timestamp>,
        /// Whether somebody may have begun to free it: then it cannot be restored any more.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        purging: bool,
    },
    /// The volume was removed while its image was being made. Whoever was making it may still be at
    /// it, and publish an image that belongs to nobody; until then it is looked for, and discarded.
    Late {
        /// The pool.
        pool: PoolName,
        /// The name that the image would have.
        name: String,
        /// When nobody can be making it any more.
        until: Timestamp,
    },
}

impl Trash {
    /// The id of the record.
    pub fn id(&self) -> String {
        self.uid.simple().to_string()
    }
}

impl From<&Trash> for StoredTrash {
    fn from(trash: &Trash) -> Self {
        let Trash { volume, uid, since, kind, kept } = trash;
        StoredTrash {
            v: V1,
            volume: volume.clone(),
            uid: *uid,
            since: *since,
            what: kind.clone(),
            kept: kept.as_ref().map(StoredKept::from),
        }
    }
}

impl StoredTrash {
    /// The record, or why it makes none.
    pub fn into_trash(self) -> Result<Trash, String> {
        let StoredTrash { v: V1, volume, uid, since, what, kept } = self;
        let kept = kept.map(StoredKept::into_kept).transpose()?;
        Ok(Trash { volume, uid, since, kind: what, kept })
    }
}

/// The settings of the suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredGlobal {
    v: V1,
    session_ttl: SessionTtl,
    #[serde(default)]
    trash_retention: TrashRetention,
}

impl From<&Global> for StoredGlobal {
    fn from(global: &Global) -> Self {
        let Global { session_ttl, trash_retention } = global;
        StoredGlobal { v: V1, session_ttl: *session_ttl, trash_retention: *trash_retention }
    }
}

impl From<StoredGlobal> for Global {
    fn from(stored: StoredGlobal) -> Self {
        let StoredGlobal { v: V1, session_ttl, trash_retention } = stored;
        Global { session_ttl, trash_retention }
    }
}

#[cfg(test)]
mod tests;
