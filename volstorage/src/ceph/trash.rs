//! The trash of a pool.

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::abi::RbdTrashImageInfo;
use super::error::{CephError, Operation, Subject, check};
use super::ffi::no_progress;
use super::pool::Pool;
use super::text::{c_string, copy_c_str, grow};

/// The object in which librbd keeps the list of the trash (`RBD_TRASH`).
const TRASH_OBJECT: &CStr = c"rbd_trash";

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
    /// Moves an image to the trash, which frees its name. It cannot be removed there without force for `delay_secs`.
    ///
    /// # Errors
    /// [`CephError::is_busy`] when it has watchers, [`CephError::is_not_found`] when there is none.
    pub fn trash_move(&self, name: &str, delay_secs: u64) -> Result<(), CephError> {
        self.ensure_trash()?;
        let c_name = c_string("image name", name)?;
        // SAFETY: the handle is valid, and the name a NUL-terminated string.
        let ret =
            unsafe { (self.api().rbd.rbd_trash_move)(self.handle(), c_name.as_ptr(), delay_secs) };
        self.check_image(ret, Operation::MoveToTrash, name)
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
    /// Every removal goes through the trash, also the one by name. The object with its list comes into being with the
    /// first removal in a pool, which a full pool refuses: nothing could be removed from it to make room, and librbd
    /// 16.2 reports that as `ENOENT`, as if the image were not there.
    pub(super) fn ensure_trash(&self) -> Result<(), CephError> {
        if self.has_trash().load(Ordering::Relaxed) {
            return Ok(());
        }
        let rados = &self.api().rados;
        // SAFETY: the handle is valid, the name a NUL-terminated string, and null means "not wanted" for both results.
        let ret = unsafe {
            (rados.rados_stat)(
                self.handle(),
                TRASH_OBJECT.as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if ret == -libc::ENOENT {
            // SAFETY: the handle is valid, and both are NUL-terminated strings; nothing is read from the second.
            // Writing no bytes creates the object and leaves one alone that somebody else creates meanwhile.
            let ret = unsafe {
                (rados.rados_write)(self.handle(), TRASH_OBJECT.as_ptr(), c"".as_ptr(), 0, 0)
            };
            self.check_pool(ret, Operation::PrepareTrash)?;
        } else {
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

/// A `time_t`; one that no calendar holds becomes the end of it.
fn timestamp(seconds: libc::time_t) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}
