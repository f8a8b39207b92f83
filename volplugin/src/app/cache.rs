//! What volmaster said last, in memory and on disk, for the time when it cannot be asked.
//!
//! An error to Docker's Get when dockerd starts makes it drop the volume for good (FACTS),
//! so Get and List are answered from here during an outage. The cache only ever says "it is
//! there"; it never says "it is not".

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use volapi::volumes::VolumeBrief;
use volcore::name::VolumeId;

use crate::host::identity::write_durably;

/// For so long after a failure volmaster is not asked again by calls that can do without.
const REST: Duration = Duration::from_secs(2);

/// The cache.
pub struct Cache {
    file: PathBuf,
    known: Mutex<Known>,
    dirty: AtomicBool,
    unreachable_since: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    /// The tag of the list; `None` as long as no whole list was seen or it has been changed since.
    tag: Option<String>,
    /// Whether a whole list was ever seen: only then can List be answered from here.
    whole: bool,
    volumes: Arc<BTreeMap<VolumeId, VolumeBrief>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    v: u32,
    whole: bool,
    volumes: Vec<VolumeBrief>,
}

impl Cache {
    /// Reads what an earlier process has written. A file that cannot be read counts as none.
    pub fn load(file: PathBuf) -> Cache {
        let stored: Option<Stored> =
            std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let known = match stored {
            Some(Stored { v: 1, whole, volumes }) => {
                let volumes =
                    volumes.into_iter().map(|brief| (brief.volume.clone(), brief)).collect();
                Known { tag: None, whole, volumes: Arc::new(volumes) }
            }
            Some(_) | None => Known::default(),
        };
        Cache {
            file,
            known: Mutex::new(known),
            dirty: AtomicBool::new(false),
            unreachable_since: Mutex::new(None),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tag under which the list was seen.
    pub fn tag(&self) -> Option<String> {
        self.known().tag.clone()
    }

    /// All volumes, if a whole list was ever seen.
    pub fn list(&self) -> Option<Arc<BTreeMap<VolumeId, VolumeBrief>>> {
        let known = self.known();
        known.whole.then(|| Arc::clone(&known.volumes))
    }

    /// One volume, if it was ever seen.
    pub fn get(&self, id: &VolumeId) -> Option<VolumeBrief> {
        self.known().volumes.get(id).cloned()
    }

    /// Takes over a whole list.
    pub fn replace(
        &self,
        tag: Option<String>,
        volumes: Vec<VolumeBrief>,
    ) -> Arc<BTreeMap<VolumeId, VolumeBrief>> {
        let volumes: BTreeMap<_, _> =
            volumes.into_iter().map(|brief| (brief.volume.clone(), brief)).collect();
        let volumes = Arc::new(volumes);
        let mut known = self.known();
        if !known.whole || known.volumes != volumes {
            self.dirty.store(true, Ordering::Release);
        }
        *known = Known { tag, whole: true, volumes: Arc::clone(&volumes) };
        volumes
    }

    /// Takes over one volume.
    pub fn insert(&self, brief: VolumeBrief) {
        let mut known = self.known();
        if known.volumes.get(&brief.volume) != Some(&brief) {
            Arc::make_mut(&mut known.volumes).insert(brief.volume.clone(), brief);
            known.tag = None;
            self.dirty.store(true, Ordering::Release);
        }
    }

    /// Forgets one volume, because volmaster said that it is gone.
    pub fn remove(&self, id: &VolumeId) {
        let mut known = self.known();
        if known.volumes.contains_key(id) {
            Arc::make_mut(&mut known.volumes).remove(id);
            known.tag = None;
            self.dirty.store(true, Ordering::Release);
        }
    }

    /// Notes whether volmaster answered.
    pub fn reached(&self, answered: bool) {
        let mut since = self.unreachable_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if answered { None } else { Some(Instant::now()) };
    }

    /// True shortly after a failure to reach volmaster: then the cache answers at once, so that a
    /// dockerd that starts with a thousand volumes does not wait a thousand times.
    pub fn rests(&self) -> bool {
        let since = self.unreachable_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() < REST)
    }

    /// Writes the cache to disk if it has changed. Blocking.
    pub fn flush(&self) -> std::io::Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let (whole, volumes) = {
            let known = self.known();
            (known.whole, Arc::clone(&known.volumes))
        };
        let stored = Stored { v: 1, whole, volumes: volumes.values().cloned().collect() };
        let written = write_durably(&self.file, &serde_json::to_vec(&stored)?);
        if written.is_err() {
            self.dirty.store(true, Ordering::Release);
        }
        written
    }
}
