//! How far this process has come with what takes long. Told to whoever asks this process, and nowhere stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;
use volstorage::image::Progress;

/// The volumes whose images are being flattened here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copying {
    volumes: Arc<Mutex<HashMap<Uuid, Progress>>>,
}

/// The work on one volume; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Copy {
    volume: Uuid,
    pub(crate) progress: Progress,
    volumes: Arc<Mutex<HashMap<Uuid, Progress>>>,
}

impl Copying {
    /// Begins the work on a volume.
    pub(crate) fn begin(&self, volume: Uuid) -> Copy {
        let progress = Progress::default();
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.insert(volume, progress.clone());
        Copy { volume, progress, volumes: self.volumes.clone() }
    }

    /// How much of it is done, where somebody here is at it and knows.
    pub(crate) fn percent(&self, volume: Uuid) -> Option<u8> {
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, total) = volumes.get(&volume)?.get();
        let percent = u128::from(done) * 100 / u128::from(Some(total).filter(|total| *total > 0)?);
        u8::try_from(percent).ok()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.remove(&self.volume);
    }
}
