//! The trash of a pool.

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use super::abi::RbdTrashImageInfo;
use super::class::{Step, WriteOp, encoded, length};
use super::error::{CephError, Operation, Subject, check};
use super::ffi::no_progress;
use super::pool::Pool;
use super::text::{c_string, copy_c_str, grow};

/// The object with the list of the trash (`RBD_TRASH`).
const TRASH: &CStr = c"rbd_trash";

/// An image in the trash, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashEntry {
    /// Id, the key for removal; several entries may have the same name.
    pub id: String,
    /// The name that the image had.
    pub name: String,
    /// Who put it there.
    pub source: TrashSource,
    /// When it was put there.
    pub deleted_at: Timestamp,
    /// From when on it can be removed without force.
    pub removable_from: Timestamp,
}

/// Why an image is in the trash (`rbd_trash_image_source_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrashSource {
    /// Somebody moved it there.
    User,
    /// `rbd-mirror` did.
    Mirroring,
    /// A live migration did.
    Migration,
    /// An `rbd rm` that has not finished, or was cut short.
    Removing,
    /// Somebody moved it there while it had clones.
    UserParent,
    /// A reason that is newer than this code.
    Unknown(i32),
}

/// Whether [`Pool::trash_remove`] minds the time for which an image was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrashForce {
    /// An image whose deferment is not over is refused.
    RespectDeferment,
    /// The image is removed in any case.
    IgnoreDeferment,
}

impl Pool {
    /// Lists an image in the trash, under the name that it had; for `keep` it cannot be removed there without force. It
    /// keeps its names until they are taken away. Nothing changes where the trash lists it already.
    ///
    /// # Errors
    /// When the cluster does not say; then it is unknown whether it is listed.
    pub fn trash_add(&self, id: &str, name: &str, keep: Duration) -> Result<(), CephError> {
        self.ensure_trash()?;
        let entry = [encoded(id), trash_spec(name, SystemTime::now(), keep)].concat();
        let op = WriteOp::new(self).call(c"trash_add", entry);
        match self.check_name(op.run(TRASH), Operation::MoveToTrash, name) {
            Err(error) if error.is_exists() => Ok(()),
            added => added,
        }
    }

    /// Whether the trash lists an image.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn is_in_trash(&self, id: &str) -> Result<bool, CephError> {
        let spec = self.call(TRASH, c"trash_get", &encoded(id), || self.image_subject(id))?;
        Ok(spec.is_some())
    }

    /// Takes an image off the list of the trash, which leaves alone all else that there is of it.
    ///
    /// # Errors
    /// When the cluster does not say; then it is unknown whether it is listed.
    pub fn trash_forget(&self, id: &str) -> Result<Step, CephError> {
        let op = WriteOp::new(self).call(c"trash_remove", encoded(id));
        self.step(op.run(TRASH), Operation::RemoveFromTrash, id)
    }

    /// Everything in the trash.
    ///
    /// # Errors
    /// When the call fails.
    pub fn trash_list(&self) -> Result<Vec<TrashEntry>, CephError> {
        let rbd = &self.api().rbd;
        let empty = RbdTrashImageInfo {
            id: ptr::null_mut(),
            name: ptr::null_mut(),
            source: 0,
            deletion_time: 0,
            deferment_end_time: 0,
        };
        // SAFETY: the handle is valid; the function fills at most the length given and stores how many there are.
        let (ret, mut infos) = grow(256, empty, |array, len| unsafe {
            (rbd.rbd_trash_list)(self.handle(), array, len)
        });
        self.check_pool(ret, Operation::ListTrash)?;
        let entries = infos
            .iter()
            .map(|info| TrashEntry {
                // SAFETY: the function succeeded, so the string is set, and not freed before the clean-up below.
                id: unsafe { copy_c_str(info.id) },
                // SAFETY: as above.
                name: unsafe { copy_c_str(info.name) },
                source: TrashSource::from_c(info.source),
                deleted_at: timestamp(info.deletion_time),
                removable_from: timestamp(info.deferment_end_time),
            })
            .collect();
        // SAFETY: frees the strings of exactly the elements that were filled in; the array itself is ours.
        unsafe { (rbd.rbd_trash_list_cleanup)(infos.as_mut_ptr(), infos.len()) };
        Ok(entries)
    }

    /// Removes an image that is in the trash, with all its data; `force` does not wait for the end of its deferment.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when it is not there, [`CephError::is_busy`] when it has watchers, snapshots or
    /// clones, [`CephError::is_denied`] when its deferment is not over.
    pub fn trash_remove(&self, id: &str, force: TrashForce) -> Result<(), CephError> {
        let c_id = c_string("image id", id)?;
        let force = force == TrashForce::IgnoreDeferment;
        // SAFETY: the handle is valid, the id a NUL-terminated string, and the callback ignores its argument.
        let ret = unsafe {
            (self.api().rbd.rbd_trash_remove_with_progress)(
                self.handle(),
                c_id.as_ptr(),
                force,
                no_progress,
                ptr::null_mut(),
            )
        };
        self.check_trash(ret, Operation::RemoveFromTrash, id)
    }

    /// Makes sure that there is a trash, once per handle.
    ///
    /// Every removal goes through the trash. The object with its list comes into being with the first removal in a pool,
    /// which a full pool refuses: nothing could be removed from it to make room.
    pub(super) fn ensure_trash(&self) -> Result<(), CephError> {
        if self.has_trash().load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.has_object(TRASH, Operation::PrepareTrash)? {
            // SAFETY: the handle is valid, and both are NUL-terminated strings; nothing is read from the second.
            // Writing no bytes creates the object and leaves one alone that somebody else creates meanwhile.
            let ret = unsafe {
                (self.api().rados.rados_write)(self.handle(), TRASH.as_ptr(), c"".as_ptr(), 0, 0)
            };
            self.check_pool(ret, Operation::PrepareTrash)?;
        }
        self.has_trash().store(true, Ordering::Relaxed);
        Ok(())
    }

    fn check_trash(&self, ret: i32, operation: Operation, id: &str) -> Result<(), CephError> {
        check(ret, operation, || Subject::Trash {
            pool: self.name().to_owned(),
            id: id.to_owned(),
        })?;
        Ok(())
    }
}

impl TrashSource {
    fn from_c(source: i32) -> Self {
        match source {
            0 => Self::User,
            1 => Self::Mirroring,
            2 => Self::Migration,
            3 => Self::Removing,
            4 => Self::UserParent,
            other => Self::Unknown(other),
        }
    }
}

/// An entry of the trash as Ceph stores it (`cls::rbd::TrashImageSpec`): put there by a user, and in
/// order (not being moved, removed or restored).
fn trash_spec(name: &str, now: SystemTime, keep: Duration) -> Vec<u8> {
    const VERSION: u8 = 2;
    const OLDEST_READER: u8 = 1;
    const SOURCE_USER: u8 = 0;
    const STATE_NORMAL: u8 = 0;
    let spec = [
        vec![SOURCE_USER],
        encoded(name),
        stored_time(now),
        stored_time(now + keep),
        vec![STATE_NORMAL],
    ]
    .concat();
    [vec![VERSION, OLDEST_READER], length(spec.len()), spec].concat()
}

/// A time as Ceph stores it: seconds and nanoseconds of 32 bits each.
fn stored_time(time: SystemTime) -> Vec<u8> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let secs = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
    [secs.to_le_bytes(), since.subsec_nanos().to_le_bytes()].concat()
}

/// A `time_t`; one that no calendar holds becomes the end of it.
fn timestamp(seconds: libc::time_t) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}
