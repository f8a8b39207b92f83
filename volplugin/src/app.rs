//! What Docker's calls mean here, and in which order things are done.
//!
//! One file for each call or pair of calls. Nothing here knows HTTP, and nothing here
//! knows how an image is mapped. Whatever changes a volume on this host holds the
//! volume's lock; intent is on disk before the first effect.

pub mod cache;
pub mod changes;
pub mod leave;
pub mod mount;
pub mod orders;
pub mod status;
pub mod unmount;
pub mod volumes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use volcore::name::{BootId, HostName, TenantName, VolumeId};
use volcore::options::Access;
use volstorage::host::HostDriver;

use crate::app::cache::Cache;
use crate::app::changes::Stunted;
use crate::app::orders::Obeying;
use crate::host::locks::Locks;
use crate::host::standing::Standing;
use crate::host::uses::Uses;
use crate::master::Master;

/// How long calls to volmaster may take. Docker waits 120 s for Create and Mount and 60 s for
/// the others (FACTS); what is asked here ends well inside that.
pub mod within {
    use std::time::Duration;

    /// Create: the image is made meanwhile.
    pub const CREATE: Duration = Duration::from_secs(105);
    /// Remove.
    pub const REMOVE: Duration = Duration::from_secs(45);
    /// Get and List, which have the cache to fall back on.
    pub const LOOK: Duration = Duration::from_millis(800);
    /// The volume and the claim before a mount.
    pub const CLAIM: Duration = Duration::from_secs(15);
    /// Waiting for the session without which nothing is mounted: at the start it is being opened.
    pub const SESSION: Duration = Duration::from_secs(8);
    /// Giving a claim back; the background goes on where this ends.
    pub const RELEASE: Duration = Duration::from_secs(8);
    /// Looking for orders, which is answered when there is news; with several masters each gets its share.
    pub const ORDERS: Duration = Duration::from_secs(30);
    /// Waiting for the volume's turn on this host.
    pub const TURN: Duration = Duration::from_secs(45);
}

/// Who this host is.
#[derive(Clone, Debug)]
pub struct Me {
    /// Its label.
    pub host: HostName,
    /// The installation.
    pub instance: Uuid,
    /// The machine's boot.
    pub boot: BootId,
}

/// Everything that a call needs. One for the process, shared by all calls and loops.
pub struct Plugin {
    /// Who this host is.
    pub me: Me,
    /// Volmaster.
    pub master: Arc<dyn Master>,
    /// This machine's devices and mounts.
    pub driver: Arc<dyn HostDriver>,
    /// What is held here.
    pub uses: Uses,
    /// What volmaster said last.
    pub cache: Cache,
    /// One lock for each volume.
    pub locks: Locks,
    /// Below it volumes are mounted, as `<pool>/<tenant>.<volume>`.
    pub mount_root: PathBuf,
    /// How images are reached where a policy says auto.
    pub access: Access,
    /// Whose a plain name is.
    pub default_tenant: Option<TenantName>,
    /// Whether this host may mount.
    pub standing: Standing,
    /// Wakes the reconciler.
    pub nudge: tokio::sync::Notify,
    /// What could not grow a short while ago.
    pub stunted: Stunted,
    /// The orders of volmaster that are under way.
    pub obeying: Obeying,
}

/// It is not the volume's turn: something else on it takes too long.
#[derive(Clone, Debug, thiserror::Error)]
#[error("another operation on volume {volume} has been running on this host for more than {} s", .waited.as_secs())]
pub struct NoTurn {
    /// Which volume.
    pub volume: VolumeId,
    /// How long it was waited for.
    pub waited: Duration,
}

impl Plugin {
    /// Waits for the volume's turn, with a bound inside Docker's.
    pub(crate) async fn turn(&self, id: &VolumeId) -> Result<crate::host::locks::Guard, NoTurn> {
        tokio::time::timeout(within::TURN, self.locks.lock(id))
            .await
            .map_err(|_| NoTurn { volume: id.clone(), waited: within::TURN })
    }
}
