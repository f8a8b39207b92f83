//! An open image: properties, data, metadata.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::ops::{BitOr, Sub};
use std::ptr;

use super::abi::RbdImageInfo;
use super::error::{CephError, Operation, Subject, check};
use super::ffi::{Api, ImageHandle, no_progress};
use super::pool::Pool;
use super::text::{c_string, grow, until_nul};

/// An open image. Keeps its pool and the connection open; closing, also by dropping, blocks.
pub struct Image {
    handle: ImageHandle,
    pool: Pool,
    label: String,
}

// SAFETY: librbd guards an open image by its own locks: I/O, properties, metadata and lock calls may come from any
// thread at once. Closing, which may not, needs the value itself. No function ties the handle to a thread.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

/// A set of image features (`rbd/features.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features(u64);

impl Features {
    /// None at all.
    pub const NONE: Self = Self(0);
    /// Clones.
    pub const LAYERING: Self = Self(1 << 0);
    /// Data spread over several objects at a time.
    pub const STRIPING: Self = Self(1 << 1);
    /// One writer at a time, by a lock that changes hands on request.
    pub const EXCLUSIVE_LOCK: Self = Self(1 << 2);
    /// A bitmap of the objects that exist; needs `EXCLUSIVE_LOCK`.
    pub const OBJECT_MAP: Self = Self(1 << 3);
    /// Usage and differences from the bitmap; needs `OBJECT_MAP`.
    pub const FAST_DIFF: Self = Self(1 << 4);
    /// Flattening that includes snapshots.
    pub const DEEP_FLATTEN: Self = Self(1 << 5);
    /// Set by the OSD where there are clones or snapshots that older clients would not understand.
    pub const OPERATIONS: Self = Self(1 << 8);

    /// Features from the bits that librbd uses.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits that librbd uses.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` are in here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Sub for Features {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Size and shape of an image (`rbd_stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Bytes.
    pub size: u64,
    /// Bytes of one backing object.
    pub object_size: u64,
    /// Number of backing objects that the size amounts to, whether they exist or not.
    pub objects: u64,
}

/// How much of an image is backed by data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Size of the image in bytes.
    pub provisioned: u64,
    /// Bytes of the backing objects that exist, each counted in full, like `rbd du`.
    pub used: u64,
}

/// Whether [`Image::resize`] may cut data off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shrink {
    /// A smaller size is refused with `EINVAL`.
    Refuse,
    /// What is beyond the new size is lost.
    Allow,
}

impl Image {
    /// Wraps the handle that `call` stores.
    ///
    /// `call` returns 0 exactly if it stored a handle that is open and that nobody else closes.
    pub(super) fn open(
        pool: &Pool,
        label: &str,
        call: impl FnOnce(*mut ImageHandle) -> c_int,
    ) -> Result<Self, CephError> {
        let mut handle: ImageHandle = ptr::null_mut();
        let ret = call(&raw mut handle);
        check(ret, Operation::Open, || subject(pool, label))?;
        Ok(Self { handle, pool: pool.clone(), label: label.to_owned() })
    }

    /// Writes what is buffered, gives up the lock and the watch, and closes.
    ///
    /// # Errors
    /// When something could not be written. The handle is closed all the same.
    pub fn close(mut self) -> Result<(), CephError> {
        let ret = self.close_handle();
        self.check(ret, Operation::Close)
    }

    /// The id, which never changes.
    ///
    /// # Errors
    /// When the call fails.
    pub fn id(&self) -> Result<String, CephError> {
        let rbd = &self.api().rbd;
        // SAFETY: the image is open; the function writes at most the length given, a NUL included, or says ERANGE.
        let (ret, id) = grow(64, 0u8, |array, len| unsafe {
            (rbd.rbd_get_id)(self.handle, array.cast(), *len)
        });
        self.check(ret, Operation::Stat)?;
        Ok(until_nul(&id))
    }

    /// Size and shape.
    ///
    /// # Errors
    /// When the call fails.
    pub fn stat(&self) -> Result<ImageInfo, CephError> {
        let mut info = RbdImageInfo {
            size: 0,
            obj_size: 0,
            num_objs: 0,
            order: 0,
            block_name_prefix: [0; 24],
            parent_pool: 0,
            parent_name: [0; 96],
        };
        // SAFETY: the image is open, and the structure has the layout and the size given.
        let ret = unsafe {
            (self.api().rbd.rbd_stat)(self.handle, &raw mut info, size_of::<RbdImageInfo>())
        };
        self.check(ret, Operation::Stat)?;
        Ok(ImageInfo { size: info.size, object_size: info.obj_size, objects: info.num_objs })
    }

    /// The features.
    ///
    /// # Errors
    /// When the call fails.
    pub fn features(&self) -> Result<Features, CephError> {
        let mut bits = 0;
        // SAFETY: the image is open, and the result outlives the call.
        let ret = unsafe { (self.api().rbd.rbd_get_features)(self.handle, &raw mut bits) };
        self.check(ret, Operation::Stat)?;
        Ok(Features(bits))
    }

    /// Changes the size. Asks the holder of the exclusive lock to do it, if there is one.
    ///
    /// # Errors
    /// `EINVAL` for a smaller size without [`Shrink::Allow`]; [`CephError::is_read_only`] on a read-only handle, or when
    /// the holder of the lock does not answer.
    pub fn resize(&self, size: u64, shrink: Shrink) -> Result<(), CephError> {
        // SAFETY: the image is open, and the callback ignores its argument.
        let ret = unsafe {
            (self.api().rbd.rbd_resize2)(
                self.handle,
                size,
                shrink == Shrink::Allow,
                no_progress,
                ptr::null_mut(),
            )
        };
        self.check(ret, Operation::Resize)
    }

    /// How much data there is. Quick where the image has [`Features::FAST_DIFF`]; otherwise asks for every object.
    ///
    /// # Errors
    /// When the call fails.
    pub fn usage(&self) -> Result<Usage, CephError> {
        self.usage_since(None)
    }

    /// How much was written since a snapshot of the image, or since its beginning.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is no such snapshot.
    pub fn usage_since(&self, snapshot: Option<&str>) -> Result<Usage, CephError> {
        let snapshot = snapshot.map(|name| c_string("snapshot name", name)).transpose()?;
        let provisioned = self.stat()?.size;
        let mut used = 0u64;
        let (own_objects_only, whole_objects) = (0, 1);
        // SAFETY: the image is open, the name is NUL-terminated or null for "since the beginning", and the callback gets
        // the address of a `u64` that outlives the call and that nothing else uses meanwhile.
        let ret = unsafe {
            (self.api().rbd.rbd_diff_iterate2)(
                self.handle,
                snapshot.as_ref().map_or(ptr::null(), |name| name.as_ptr()),
                0,
                provisioned,
                own_objects_only,
                whole_objects,
                add_existing,
                (&raw mut used).cast(),
            )
        };
        self.check(ret, Operation::ReadUsage)?;
        Ok(Usage { provisioned, used })
    }

    /// Reads up to `buffer.len()` bytes at `offset`; fewer at the end of the image. Returns how many.
    ///
    /// # Errors
    /// When the call fails.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, CephError> {
        // SAFETY: the image is open, and the buffer is writable for the length given.
        let ret = unsafe {
            (self.api().rbd.rbd_read)(self.handle, offset, buffer.len(), buffer.as_mut_ptr().cast())
        };
        let got = check(ret, Operation::Read, || self.subject())?;
        Ok(usize::try_from(got).unwrap_or(buffer.len()))
    }

    /// Writes all of `data` at `offset`. For more than one piece see [`write_extents`](Self::write_extents).
    ///
    /// The data may be in a cache until [`flush`](Self::flush) or [`close`](Self::close).
    ///
    /// # Errors
    /// `EINVAL` beyond the end of the image; [`CephError::is_no_space`] when the pool is full;
    /// [`CephError::is_read_only`], [`CephError::is_shutdown`].
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), CephError> {
        // SAFETY: the image is open, and the data is readable for the length given.
        let ret = unsafe {
            (self.api().rbd.rbd_write)(self.handle, offset, data.len(), data.as_ptr().cast())
        };
        let written = check(ret, Operation::Write, || self.subject())?;
        // librbd shortens a write that reaches beyond the end and calls it a success.
        if written == data.len() as u64 {
            Ok(())
        } else {
            self.check(-libc::EINVAL, Operation::Write)
        }
    }

    /// Makes a range read as zeros, and frees whole objects in it.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), CephError> {
        // SAFETY: the image is open.
        let ret = unsafe { (self.api().rbd.rbd_discard)(self.handle, offset, len) };
        self.check(ret, Operation::Discard)
    }

    /// Waits until everything written so far is stored.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn flush(&self) -> Result<(), CephError> {
        // SAFETY: the image is open.
        let ret = unsafe { (self.api().rbd.rbd_flush)(self.handle) };
        self.check(ret, Operation::Flush)
    }

    pub(super) fn api(&self) -> &'static Api {
        self.pool.api()
    }

    pub(super) fn handle(&self) -> ImageHandle {
        self.handle
    }

    pub(super) fn check(
        &self,
        ret: impl TryInto<i64>,
        operation: Operation,
    ) -> Result<(), CephError> {
        check(ret, operation, || self.subject())?;
        Ok(())
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The name or id under which the image was opened.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn subject(&self) -> Subject {
        subject(&self.pool, &self.label)
    }

    fn close_handle(&mut self) -> c_int {
        let handle = std::mem::replace(&mut self.handle, ptr::null_mut());
        if handle.is_null() {
            return 0;
        }
        // SAFETY: the handle is open, and the field is null from now on, so nobody uses it again. librbd frees it
        // also when it reports an error.
        unsafe { (self.api().rbd.rbd_close)(handle) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let ret = self.close_handle();
        if let Err(error) = self.check(ret, Operation::Close) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an image was dropped and did not close cleanly"
            );
        }
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("pool", &self.pool.name())
            .field("image", &self.label)
            .finish_non_exhaustive()
    }
}

fn subject(pool: &Pool, label: &str) -> Subject {
    Subject::Image { pool: pool.name().to_owned(), image: label.to_owned() }
}

/// Adds the length of an extent that exists to the `u64` at `used`.
unsafe extern "C" fn add_existing(
    _offset: u64,
    len: usize,
    exists: c_int,
    used: *mut c_void,
) -> c_int {
    if exists != 0 {
        // SAFETY: `Image::usage` passes the address of a `u64` that nothing else uses during the call, and librbd
        // calls back from one thread at a time.
        let used = unsafe { &mut *used.cast::<u64>() };
        *used = used.saturating_add(len as u64);
    }
    0
}
