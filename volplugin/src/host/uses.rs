//! What this host holds and which containers use it, on disk.
//!
//! One file for each held volume, `<data-dir>/held/<tenant>/<volume>.json`, written before
//! the first effect and removed after the last, so that whoever starts next knows what may
//! be here. Renamed into place, not synced: what it speaks of ends with the machine's boot
//! too, and after a reboot the claims at volmaster tell what to give back.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volcore::limit::RateLimitOptions;
use volcore::name::{BootId, MountId, VolumeId};
use volcore::options::{Access, MapOption, MountOption, Sharing};
use volstorage::host::Mapping;
use volstorage::image::ImageSource;

use crate::docker::peer::Peer;

/// How far a held volume has come. It is written before what it speaks of is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It may be claimed, mapped and mounted, in part or in whole.
    Mounting,
    /// It is claimed, mapped and mounted.
    Mounted,
    /// Nobody uses it; it may still be mounted, mapped or claimed.
    Leaving,
    /// It was taken from this host, which was given up. What is left of it here can write nothing, and goes.
    Fenced,
}

/// One use of a volume by Docker: all that was mounted and not yet unmounted under one Mount ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Since when.
    pub since: Timestamp,
    /// The dockerd that asked, and that alone will send the Unmount.
    pub dockerd: Option<Peer>,
    /// How many Unmounts end it. Docker mounts again under the ID of a running container for as long
    /// as a `docker cp` into it takes, and unmounts as often as it was told of a success.
    pub times: u32,
    /// Whether Docker was told of the last Mount. If not it asks again, which is no further use, or
    /// gives up, and then no Unmount follows.
    pub answered: bool,
}

impl Use {
    /// A use that begins.
    pub fn new(dockerd: Option<Peer>) -> Use {
        Use { since: Timestamp::now(), dockerd, times: 1, answered: false }
    }

    /// One more Mount under the same ID; the same one again where the last was not answered. A dockerd that
    /// has ended sends no Unmount any more: its successor, which starts the same container again, sends one.
    pub fn once_more(&self, dockerd: Option<Peer>) -> Use {
        let times = match (self.dockerd.is_some_and(|peer| !peer.lives()), self.answered) {
            (true, _) => 1,
            (false, true) => self.times.saturating_add(1),
            (false, false) => self.times,
        };
        Use { since: self.since, dockerd, times, answered: false }
    }

    /// One Unmount; `None` when it was the last.
    pub fn once_less(&self) -> Option<Use> {
        (self.times > 1).then(|| Use { times: self.times - 1, answered: true, ..self.clone() })
    }

    /// Whether no Unmount will come: its dockerd is gone, or was not told of a success and has
    /// given up asking.
    pub fn is_over(&self) -> bool {
        let gone = self.dockerd.is_some_and(|peer| !peer.lives());
        let age = Timestamp::now().duration_since(self.since);
        gone || (!self.answered && self.times == 1 && age > GIVEN_UP)
    }
}

/// Docker repeats a call whose connection broke for 15 s, and waits for each answer up to 120 s (FACTS).
const GIVEN_UP: jiff::SignedDuration = jiff::SignedDuration::from_secs(150);

/// A volume that this host holds, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The version of this record.
    pub v: u32,
    /// Which volume.
    pub volume: VolumeId,
    /// Which one of that name.
    pub uid: Uuid,
    /// The boot in which it was taken.
    pub boot: BootId,
    /// How far it has come.
    pub phase: Phase,
    /// The epoch of the claim, once it was granted: by that the host learns that it has lost the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The image.
    pub source: ImageSource,
    /// Where it is (to be) mounted.
    pub target: PathBuf,
    /// How the image is to be reached.
    pub access: Access,
    /// The file system that the volume should have.
    pub filesystem: String,
    /// The options that it is mounted with.
    pub mount_options: Vec<MountOption>,
    /// The options that it is mapped with, where the kernel maps it.
    #[serde(default)]
    pub map_options: Vec<MapOption>,
    /// The limits for all containers together, where this host holds them: those that are set.
    #[serde(default)]
    pub limits: RateLimitOptions,
    /// The UUID that its file system is to have: that of a clone is its source's at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Uuid>,
    /// The bytes of its device when the file system was last found to fill it; 0 where that was never so.
    #[serde(default)]
    pub size: u64,
    /// Who may use it at the same time.
    pub sharing: Sharing,
    /// The device, once it is mapped.
    pub mapping: Option<Mapping>,
    /// The addresses of the Ceph clients that can write, as volmaster was told: before they could.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
    /// The uses, by Mount ID.
    pub uses: BTreeMap<MountId, Use>,
    /// Whether volmaster has been told of all this.
    pub told: bool,
    /// Why the last step on it failed, if it did.
    pub last_error: Option<String>,
}

/// The present version of the record.
pub const VERSION: u32 = 1;

/// Why a record cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("could not write the record {path}")]
pub struct UsesError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// The records, in memory and on disk. A change of one volume's record is made under that
/// volume's lock only.
pub struct Uses {
    folder: PathBuf,
    held: Mutex<HashMap<VolumeId, Held>>,
}

impl Uses {
    /// Reads the records. One that cannot be read is moved aside, with a warning: what it spoke of
    /// is found again in the kernel and at volmaster.
    pub fn load(data_dir: &Path) -> Result<Uses, UsesError> {
        let folder = data_dir.join("held");
        let error = |source| UsesError { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(error)?;
        let mut held = HashMap::new();
        for tenant in fs::read_dir(&folder).map_err(error)? {
            let tenant = tenant.map_err(error)?.path();
            let files = fs::read_dir(&tenant).into_iter().flatten();
            for path in files.filter_map(|file| Some(file.ok()?.path())) {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("json") => {}
                    _ => continue,
                }
                if let Some(record) = read(&path) {
                    held.insert(record.volume.clone(), record);
                } else {
                    let aside = path.with_extension("unreadable");
                    tracing::warn!(path = %path.display(), "record cannot be read; moved aside");
                    fs::rename(&path, &aside)
                        .map_err(|source| UsesError { path: path.clone(), source })?;
                }
            }
        }
        Ok(Uses { folder, held: Mutex::new(held) })
    }

    fn path(&self, id: &VolumeId) -> PathBuf {
        self.folder.join(id.tenant.as_str()).join(format!("{}.json", id.volume))
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<VolumeId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held of a volume.
    pub fn get(&self, id: &VolumeId) -> Option<Held> {
        self.all().get(id).cloned()
    }

    /// Where a volume is mounted, if it is.
    pub fn mountpoint(&self, id: &VolumeId) -> Option<PathBuf> {
        let all = self.all();
        all.get(id).filter(|held| held.phase == Phase::Mounted).map(|held| held.target.clone())
    }

    /// Every held volume.
    pub fn list(&self) -> Vec<Held> {
        self.all().values().cloned().collect()
    }

    /// Writes a record, first to disk.
    pub fn put(&self, held: &Held) -> Result<(), UsesError> {
        let path = self.path(&held.volume);
        write(&path, held).map_err(|source| UsesError { path, source })?;
        self.all().insert(held.volume.clone(), held.clone());
        Ok(())
    }

    /// Removes a record. Absent is success.
    pub fn remove(&self, id: &VolumeId) -> Result<(), UsesError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(UsesError { path, source });
            }
            Ok(()) | Err(_) => {}
        }
        self.all().remove(id);
        if let Some(folder) = path.parent() {
            // Fails while the tenant's folder holds others, as it should.
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }
}

fn read(path: &Path) -> Option<Held> {
    let record: Held = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (record.v == VERSION).then_some(record)
}

fn write(path: &Path, held: &Held) -> io::Result<()> {
    let text = serde_json::to_vec(held)?;
    let part = path.with_extension("part");
    let attempt = |part: &Path| fs::write(part, &text).and_then(|()| fs::rename(part, path));
    match attempt(&part) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            attempt(&part)
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_unmounts_end_a_use_as_mounts_were_answered() {
        let mut one = Use::new(None);
        one.answered = true;
        // `docker cp` into the running container.
        let copying = one.once_more(None);
        assert_eq!(copying.times, 2);
        let after = copying.once_less().expect("the container still runs");
        assert!(after.once_less().is_none());
        // And one more copy.
        assert_eq!(after.once_more(None).times, 2);
    }

    #[test]
    fn a_mount_that_was_not_answered_is_asked_for_again() {
        let lost = Use::new(None);
        assert_eq!(lost.once_more(None).times, 1);
        assert!(lost.once_more(None).once_less().is_none());
        assert!(!lost.is_over(), "Docker may still ask again");
        let given_up = Use { since: Timestamp::UNIX_EPOCH, ..lost };
        assert!(given_up.is_over());
        assert!(!Use { answered: true, ..given_up }.is_over());
    }
}
