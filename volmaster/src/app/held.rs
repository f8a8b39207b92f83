//! Which volumes this process is working on, so that its reconcilers leave them alone.
//!
//! An economy, not a lock: two volmasters may work on one volume at once, and records and images
//! stay right because every commit has a precondition and every driver call is idempotent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use volcore::name::VolumeId;

/// The volumes in hand, with how many operations each.
#[derive(Clone, Debug, Default)]
pub struct InHand {
    counts: Arc<Mutex<HashMap<VolumeId, usize>>>,
}

/// One operation on a volume; it ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Held {
    id: VolumeId,
    counts: Arc<Mutex<HashMap<VolumeId, usize>>>,
}

impl InHand {
    /// Begins an operation.
    pub fn hold(&self, id: &VolumeId) -> Held {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(id.clone()).or_default() += 1;
        Held { id: id.clone(), counts: self.counts.clone() }
    }

    /// Whether an operation is under way.
    pub fn has(&self, id: &VolumeId) -> bool {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.id);
            }
        }
    }
}
