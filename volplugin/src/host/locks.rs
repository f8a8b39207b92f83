//! One lock for each volume, so that what is done to a volume on this host is done in turn.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use volcore::name::VolumeId;

/// The locks. Those that nobody holds or waits for take no memory for long.
#[derive(Default)]
pub struct Locks {
    locks: Mutex<HashMap<VolumeId, Weak<AsyncMutex<()>>>>,
}

/// The right to act on a volume; ends when dropped.
pub type Guard = OwnedMutexGuard<()>;

impl Locks {
    fn of(&self, id: &VolumeId) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        if locks.len() > 1_000 {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(AsyncMutex::new(()));
        locks.insert(id.clone(), Arc::downgrade(&lock));
        lock
    }

    /// Waits for the volume's turn. Cancel-safe.
    pub async fn lock(&self, id: &VolumeId) -> Guard {
        self.of(id).lock_owned().await
    }

    /// Takes the volume's turn if nobody has it.
    pub fn try_lock(&self, id: &VolumeId) -> Option<Guard> {
        self.of(id).try_lock_owned().ok()
    }
}
