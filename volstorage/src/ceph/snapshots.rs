//! Snapshots of an image, and the images that are cloned from them.
//!
//! Snapshots and changes of size are made by the holder of the exclusive lock, where there is one that knows how:
//! librbd asks it, also for handles of this module. The kernel's rbd does not know how, so librbd asks it for the lock,
//! which it keeps where it maps with `exclusive` ([`past_lock`](super::past_lock) goes on there). A holder that does not answer is waited for until its watch has timed
//! out (30 s); then a client that may do so fences it and goes on, and one that may not fails with `EROFS`.

use std::ffi::{c_int, c_void};
use std::ptr;

use jiff::Timestamp;

use super::abi::{RbdLinkedImageSpec, RbdSnapInfo, RbdSnapSpec};
use super::error::{CephError, Operation, Subject, check};
use super::ffi::{
    IMAGE_OPTION_CLONE_FORMAT, IMAGE_OPTION_FEATURES, ImageOptionsHandle, RbdApi,
    SNAP_CREATE_SKIP_QUIESCE, SNAP_NAMESPACE_TRASH, SNAP_NAMESPACE_USER, SnapNamespace,
    no_progress,
};
use super::image::{Features, Image};
use super::pool::Pool;
use super::text::{c_string, copy_c_str, grow};

/// The format of clones that need no protection of their snapshots.
const CLONE_FORMAT: u64 = 2;

/// A snapshot of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id, which never changes.
    pub id: u64,
    /// Its name; one that was removed while it had clones has a name that nobody gave.
    pub name: String,
    /// The size of the image when it was taken, in bytes.
    pub size: u64,
    /// Whose it is.
    pub kind: SnapshotKind,
}

/// Whose a snapshot is (`rbd_snap_namespace_type_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotKind {
    /// Somebody took it by name.
    User,
    /// It was removed, and stays until its last clone is gone.
    Trash,
    /// It belongs to a group, to `rbd-mirror`, or to what is newer than this code.
    Other(i32),
}

/// An image that was cloned from a snapshot of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneEntry {
    /// The pool that it is in.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// Whether it is in the trash of that pool.
    pub is_in_trash: bool,
}

impl Pool {
    /// Makes an image in the pool `to` that shares the data of a snapshot, with exactly these features. What metadata the
    /// image has, the clone gets too.
    ///
    /// # Errors
    /// [`CephError::is_exists`] when the name is taken, [`CephError::is_not_found`] when the image, the snapshot or the
    /// pool is not there.
    pub fn clone_image(
        &self,
        image: &str,
        snapshot: &str,
        to: &Pool,
        name: &str,
        features: Features,
    ) -> Result<(), CephError> {
        to.ensure_trash()?;
        let (c_image, c_snapshot) =
            (c_string("image name", image)?, c_string("snapshot name", snapshot)?);
        let c_name = c_string("image name", name)?;
        let options = CloneOptions::new(&self.api().rbd);
        let set = options
            .set(IMAGE_OPTION_CLONE_FORMAT, CLONE_FORMAT)
            .min(options.set(IMAGE_OPTION_FEATURES, features.bits()));
        to.check_image(set, Operation::Clone, name)?;
        // SAFETY: both pools are open, the texts are NUL-terminated, and the options are valid until after the call.
        let ret = unsafe {
            (self.api().rbd.rbd_clone3)(
                self.handle(),
                c_image.as_ptr(),
                c_snapshot.as_ptr(),
                to.handle(),
                c_name.as_ptr(),
                options.handle,
            )
        };
        to.check_image(ret, Operation::Clone, name)
    }

    /// Opens an image as it was at a snapshot, for reading.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is no such image, or it has no such snapshot.
    pub fn open_snapshot(&self, image: &str, snapshot: &str) -> Result<Image, CephError> {
        let (c_image, c_snapshot) =
            (c_string("image name", image)?, c_string("snapshot name", snapshot)?);
        // SAFETY: the pool handle is valid, both are NUL-terminated strings, and the function stores an open handle when
        // it returns 0.
        Image::open(self, image, |handle| unsafe {
            (self.api().rbd.rbd_open_read_only)(
                self.handle(),
                c_image.as_ptr(),
                handle,
                c_snapshot.as_ptr(),
            )
        })
    }
}

impl Image {
    /// All snapshots, the oldest first.
    ///
    /// # Errors
    /// When the call fails.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, CephError> {
        let rbd = &self.api().rbd;
        let empty = RbdSnapInfo { id: 0, size: 0, name: ptr::null() };
        let (ret, mut infos) = grow(32, empty, |array, len| {
            let mut room = c_int::try_from(*len).unwrap_or(c_int::MAX);
            // SAFETY: the image is open; the function fills at most the length given, the end of the list included, or
            // says ERANGE and how much is needed.
            let ret = unsafe { (rbd.rbd_snap_list)(self.handle(), array, &raw mut room) };
            *len = usize::try_from(if ret < 0 { room } else { ret }).unwrap_or(0);
            ret
        });
        self.check(ret, Operation::ListSnapshots)?;
        let snapshots = infos.iter().map(|info| {
            let kind = self.kind(info.id)?;
            // SAFETY: the function succeeded, so the string is set, and not freed before the clean-up below.
            let name = unsafe { copy_c_str(info.name) };
            Ok(Snapshot { id: info.id, name, size: info.size, kind })
        });
        let snapshots = snapshots.collect();
        // The function that frees the names goes on to the one that is null.
        infos.push(empty);
        // SAFETY: frees the strings of exactly the elements that were filled in; the array itself is ours.
        unsafe { (rbd.rbd_snap_list_end)(infos.as_mut_ptr()) };
        snapshots
    }

    fn kind(&self, snapshot: u64) -> Result<SnapshotKind, CephError> {
        let mut kind: SnapNamespace = 0;
        // SAFETY: the image is open, and the result outlives the call.
        let ret = unsafe {
            (self.api().rbd.rbd_snap_get_namespace_type)(self.handle(), snapshot, &raw mut kind)
        };
        self.check(ret, Operation::ListSnapshots)?;
        Ok(match kind {
            SNAP_NAMESPACE_USER => SnapshotKind::User,
            SNAP_NAMESPACE_TRASH => SnapshotKind::Trash,
            other => SnapshotKind::Other(other),
        })
    }

    /// When a snapshot was taken, by the clock of the OSD.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is none with this id.
    pub fn snapshot_time(&self, snapshot: u64) -> Result<Timestamp, CephError> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the image is open, and the result outlives the call.
        let ret = unsafe {
            (self.api().rbd.rbd_snap_get_timestamp)(self.handle(), snapshot, &raw mut time)
        };
        self.check(ret, Operation::ListSnapshots)?;
        let nanos = i32::try_from(time.tv_nsec).unwrap_or(0);
        Ok(Timestamp::new(time.tv_sec, nanos).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// Takes a snapshot. Who has the image open is not asked to write out what it has in caches first.
    ///
    /// # Errors
    /// [`CephError::is_exists`] when there is one of that name; [`CephError::is_read_only`] when the holder of the
    /// exclusive lock does not answer, or does not let go of the lock: the snapshot may then appear later.
    pub fn create_snapshot(&self, name: &str) -> Result<(), CephError> {
        let c_name = c_string("snapshot name", name)?;
        // SAFETY: the image is open, the name a NUL-terminated string, and the callback ignores its argument.
        let ret = unsafe {
            (self.api().rbd.rbd_snap_create2)(
                self.handle(),
                c_name.as_ptr(),
                SNAP_CREATE_SKIP_QUIESCE,
                no_progress,
                ptr::null_mut(),
            )
        };
        self.check_snapshot(ret, Operation::CreateSnapshot, name)
    }

    /// Gives a snapshot another name.
    ///
    /// # Errors
    /// [`CephError::is_exists`] when there is one of that name; otherwise as for [`create_snapshot`](Self::create_snapshot).
    pub fn rename_snapshot(&self, from: &str, to: &str) -> Result<(), CephError> {
        let (c_from, c_to) = (c_string("snapshot name", from)?, c_string("snapshot name", to)?);
        // SAFETY: the image is open, and both are NUL-terminated strings.
        let ret = unsafe {
            (self.api().rbd.rbd_snap_rename)(self.handle(), c_from.as_ptr(), c_to.as_ptr())
        };
        self.check_snapshot(ret, Operation::CreateSnapshot, to)
    }

    /// Removes a snapshot by its name. One that has clones stays, as [`SnapshotKind::Trash`], until they are gone.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is none; [`CephError::is_busy`] when it is protected.
    pub fn remove_snapshot(&self, name: &str) -> Result<(), CephError> {
        let c_name = c_string("snapshot name", name)?;
        let flags = 0;
        // SAFETY: as in `create_snapshot`.
        let ret = unsafe {
            (self.api().rbd.rbd_snap_remove2)(
                self.handle(),
                c_name.as_ptr(),
                flags,
                no_progress,
                ptr::null_mut(),
            )
        };
        self.check_snapshot(ret, Operation::RemoveSnapshot, name)
    }

    /// Removes a snapshot of whatever kind.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is none; [`CephError::is_busy`] when it has clones or is protected.
    pub fn remove_snapshot_by_id(&self, snapshot: &Snapshot) -> Result<(), CephError> {
        // SAFETY: the image is open.
        let ret = unsafe { (self.api().rbd.rbd_snap_remove_by_id)(self.handle(), snapshot.id) };
        self.check_snapshot(ret, Operation::RemoveSnapshot, &snapshot.name)
    }

    /// Gives the image the data and the size of a snapshot.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is none; [`CephError::is_read_only`] when another holds the exclusive lock
    /// and does not let go of it.
    pub fn roll_back(&self, name: &str) -> Result<(), CephError> {
        let c_name = c_string("snapshot name", name)?;
        // SAFETY: as in `create_snapshot`.
        let ret = unsafe {
            (self.api().rbd.rbd_snap_rollback_with_progress)(
                self.handle(),
                c_name.as_ptr(),
                no_progress,
                ptr::null_mut(),
            )
        };
        self.check_snapshot(ret, Operation::RollBack, name)
    }

    /// Whether the image shares data with one that it was cloned from.
    ///
    /// # Errors
    /// When the call fails.
    pub fn has_parent(&self) -> Result<bool, CephError> {
        let rbd = &self.api().rbd;
        let mut parent = RbdLinkedImageSpec::EMPTY;
        let mut snapshot = RbdSnapSpec { id: 0, namespace_type: 0, name: ptr::null_mut() };
        // SAFETY: the image is open, and both results outlive the call.
        let ret =
            unsafe { (rbd.rbd_get_parent)(self.handle(), &raw mut parent, &raw mut snapshot) };
        if ret == -libc::ENOENT {
            return Ok(false);
        }
        self.check(ret, Operation::ReadParent)?;
        // SAFETY: the function succeeded, so both are filled in; nobody uses them again.
        unsafe {
            (rbd.rbd_linked_image_spec_cleanup)(&raw mut parent);
            (rbd.rbd_snap_spec_cleanup)(&raw mut snapshot);
        }
        Ok(true)
    }

    /// The images that are cloned from any snapshot of this one, those in the trash too.
    ///
    /// # Errors
    /// When the call fails.
    pub fn clones(&self) -> Result<Vec<CloneEntry>, CephError> {
        let rbd = &self.api().rbd;
        // SAFETY: the image is open; the function fills at most the length given and stores how many there are.
        let (ret, mut found) = grow(16, RbdLinkedImageSpec::EMPTY, |array, len| unsafe {
            (rbd.rbd_list_children3)(self.handle(), array, len)
        });
        self.check(ret, Operation::ListClones)?;
        let clones = found
            .iter()
            .map(|spec| CloneEntry {
                // SAFETY: the function succeeded, so the strings are set, and not freed before the clean-up below.
                pool: unsafe { copy_c_str(spec.pool_name) },
                // SAFETY: as above.
                name: unsafe { copy_c_str(spec.image_name) },
                is_in_trash: spec.trash,
            })
            .collect();
        // SAFETY: frees the strings of exactly the elements that were filled in; the array itself is ours.
        unsafe { (rbd.rbd_linked_image_spec_list_cleanup)(found.as_mut_ptr(), found.len()) };
        Ok(clones)
    }

    /// Copies all data into a clone that it shares with the image it was cloned from. `report` is told how many objects
    /// of how many are done.
    ///
    /// # Errors
    /// `EINVAL` when it shares nothing with another image.
    pub fn flatten<F: Fn(u64, u64) + Sync>(&self, report: &F) -> Result<(), CephError> {
        // SAFETY: the image is open; the callback is for the type of what its argument points to, which may be used by
        // several threads at once and outlives the call.
        let ret = unsafe {
            (self.api().rbd.rbd_flatten_with_progress)(
                self.handle(),
                tell::<F>,
                ptr::from_ref(report).cast_mut().cast(),
            )
        };
        self.check(ret, Operation::Flatten)
    }

    pub(super) fn check_snapshot(
        &self,
        ret: c_int,
        operation: Operation,
        name: &str,
    ) -> Result<(), CephError> {
        check(ret, operation, || Subject::Snapshot {
            pool: self.pool().name().to_owned(),
            image: self.label().to_owned(),
            snapshot: name.to_owned(),
        })?;
        Ok(())
    }
}

/// Hands progress on.
unsafe extern "C" fn tell<F: Fn(u64, u64) + Sync>(
    done: u64,
    total: u64,
    report: *mut c_void,
) -> c_int {
    // SAFETY: `Image::flatten` passes the address of an `F` that is only read and outlives the operation.
    let report = unsafe { &*report.cast::<F>() };
    report(done, total);
    0
}

/// A `rbd_image_options_t`, destroyed on drop.
struct CloneOptions {
    handle: ImageOptionsHandle,
    rbd: &'static RbdApi,
}

impl CloneOptions {
    fn new(rbd: &'static RbdApi) -> CloneOptions {
        let mut handle: ImageOptionsHandle = ptr::null_mut();
        // SAFETY: stores a handle of new options.
        unsafe { (rbd.rbd_image_options_create)(&raw mut handle) };
        CloneOptions { handle, rbd }
    }

    fn set(&self, option: c_int, value: u64) -> c_int {
        // SAFETY: the options are valid.
        unsafe { (self.rbd.rbd_image_options_set_uint64)(self.handle, option, value) }
    }
}

impl Drop for CloneOptions {
    fn drop(&mut self) {
        // SAFETY: the options are valid, and nobody uses them again.
        unsafe { (self.rbd.rbd_image_options_destroy)(self.handle) };
    }
}
