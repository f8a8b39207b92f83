//! A pool, and what is done with the images in it by name or id.

use std::ffi::CStr;
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::abi::RbdImageSpec;
use super::cluster::Connection;
use super::error::{CephError, Operation, Subject, check};
use super::ffi::{Api, IoctxHandle};
use super::image::{Features, Image};
use super::text::{c_string, copy_c_str, grow};

/// A pool of a cluster. Cheap to clone; keeps the connection open.
///
/// Stays valid when the pool is deleted; operations then say that the image is not found.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Ioctx>,
}

/// An image, as listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageEntry {
    /// Name; changes when the image is renamed.
    pub name: String,
    /// Id; never changes.
    pub id: String,
}

impl Pool {
    /// Opens the pool `c_name`, which is `name`.
    pub(super) fn open(
        connection: Arc<Connection>,
        c_name: &CStr,
        name: String,
    ) -> Result<Self, CephError> {
        let rados = &connection.api.rados;
        let mut handle: IoctxHandle = ptr::null_mut();
        // SAFETY: the connection is up, and the name is a NUL-terminated string; on success a new handle is stored.
        let ret = unsafe {
            (rados.rados_ioctx_create)(connection.handle, c_name.as_ptr(), &raw mut handle)
        };
        if ret == -libc::ENOENT {
            return Err(CephError::PoolNotFound { pool: name });
        }
        check(ret, Operation::OpenPool, || Subject::Pool(name.clone()))?;
        // SAFETY: the handle is new and not shared yet. From now on a write that finds the pool full is answered with
        // an error; without this it would wait for space without a bound.
        unsafe { (rados.rados_set_pool_full_try)(handle) };
        Ok(Self {
            inner: Arc::new(Ioctx { handle, name, has_trash: AtomicBool::new(false), connection }),
        })
    }

    /// The name under which the pool was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The id of the pool, which unlike the name never changes.
    #[must_use]
    pub fn id(&self) -> i64 {
        // SAFETY: the handle is valid.
        unsafe { (self.api().rados.rados_ioctx_get_id)(self.handle()) }
    }

    /// Creates an image of `size` bytes with exactly these features and the default object size.
    ///
    /// # Errors
    /// [`CephError::is_exists`] when the name is taken, [`CephError::is_no_space`] when the pool is full; then nothing
    /// is left behind.
    pub fn create(&self, name: &str, size: u64, features: Features) -> Result<(), CephError> {
        self.ensure_trash()?;
        let c_name = c_string("image name", name)?;
        let mut default_order = 0;
        // SAFETY: the handle is valid, the name a NUL-terminated string, and the order an int that outlives the call.
        let ret = unsafe {
            (self.api().rbd.rbd_create2)(
                self.handle(),
                c_name.as_ptr(),
                size,
                features.bits(),
                &raw mut default_order,
            )
        };
        self.check_image(ret, Operation::Create, name)
    }

    /// Opens an image for reading and writing. The handle is a watcher of the image until it is closed.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is no such image.
    pub fn open_image(&self, name: &str) -> Result<Image, CephError> {
        let c_name = c_string("image name", name)?;
        // SAFETY: the pool handle is valid, the name is a NUL-terminated string, null means "no snapshot", and the
        // function stores an open handle when it returns 0.
        Image::open(self, name, |handle| unsafe {
            (self.api().rbd.rbd_open)(self.handle(), c_name.as_ptr(), handle, ptr::null())
        })
    }

    /// Opens an image for reading. Such a handle is no watcher and never asks for the exclusive lock.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is no such image.
    pub fn open_image_read_only(&self, name: &str) -> Result<Image, CephError> {
        let c_name = c_string("image name", name)?;
        // SAFETY: as in `open_image`.
        Image::open(self, name, |handle| unsafe {
            (self.api().rbd.rbd_open_read_only)(self.handle(), c_name.as_ptr(), handle, ptr::null())
        })
    }

    /// Opens an image by its id for reading; also finds images in the trash.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is no such image.
    pub fn open_image_by_id(&self, id: &str) -> Result<Image, CephError> {
        let c_id = c_string("image id", id)?;
        // SAFETY: as in `open_image`.
        Image::open(self, id, |handle| unsafe {
            (self.api().rbd.rbd_open_by_id_read_only)(
                self.handle(),
                c_id.as_ptr(),
                handle,
                ptr::null(),
            )
        })
    }

    /// Opens an image by its id for reading and writing, like [`open_image`](Self::open_image); also finds images in the
    /// trash.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is no such image.
    pub fn open_image_by_id_for_writing(&self, id: &str) -> Result<Image, CephError> {
        let c_id = c_string("image id", id)?;
        // SAFETY: as in `open_image`.
        Image::open(self, id, |handle| unsafe {
            (self.api().rbd.rbd_open_by_id)(self.handle(), c_id.as_ptr(), handle, ptr::null())
        })
    }

    /// The names and ids of all images that are not in the trash.
    ///
    /// Also lists, under their old names, images whose removal *by name* was cut short. They cannot be opened, and there
    /// may be several of one name.
    ///
    /// # Errors
    /// When the call fails.
    pub fn list(&self) -> Result<Vec<ImageEntry>, CephError> {
        let rbd = &self.api().rbd;
        let empty = RbdImageSpec { id: ptr::null_mut(), name: ptr::null_mut() };
        // SAFETY: the handle is valid; the function fills at most the length given and stores how many there are.
        let (ret, mut specs) =
            grow(256, empty, |array, len| unsafe { (rbd.rbd_list2)(self.handle(), array, len) });
        self.check_pool(ret, Operation::ListImages)?;
        let entries = specs
            .iter()
            // SAFETY: the function succeeded, so both strings of every element are set, and not freed before the
            // clean-up below.
            .map(|spec| unsafe {
                ImageEntry { name: copy_c_str(spec.name), id: copy_c_str(spec.id) }
            })
            .collect();
        // SAFETY: frees the strings of exactly the elements that were filled in; the array itself is ours.
        unsafe { (rbd.rbd_image_spec_list_cleanup)(specs.as_mut_ptr(), specs.len()) };
        Ok(entries)
    }

    /// Asks an OSD about the list of images, which is one object; that there is none is an answer too.
    ///
    /// # Errors
    /// [`CephError::is_timed_out`] when the OSDs with the placement group of that object do not answer.
    pub fn reach(&self) -> Result<(), CephError> {
        self.has_object(c"rbd_directory", Operation::Reach).map(drop)
    }

    /// Whether an object is there.
    pub(super) fn has_object(&self, name: &CStr, why: Operation) -> Result<bool, CephError> {
        // SAFETY: the handle is valid, the name a NUL-terminated string, and null means "not wanted" for both results.
        let ret = unsafe {
            (self.api().rados.rados_stat)(
                self.handle(),
                name.as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if ret == -libc::ENOENT {
            return Ok(false);
        }
        self.check_pool(ret, why).map(|()| true)
    }

    /// Whether the object with the list of the trash is known to exist.
    pub(super) fn has_trash(&self) -> &AtomicBool {
        &self.inner.has_trash
    }

    pub(super) fn api(&self) -> &'static Api {
        self.inner.connection.api
    }

    pub(super) fn handle(&self) -> IoctxHandle {
        self.inner.handle
    }

    pub(super) fn check_pool(&self, ret: i32, operation: Operation) -> Result<(), CephError> {
        check(ret, operation, || Subject::Pool(self.name().to_owned()))?;
        Ok(())
    }

    pub(super) fn check_image(
        &self,
        ret: i32,
        operation: Operation,
        image: &str,
    ) -> Result<(), CephError> {
        check(ret, operation, || Subject::Image {
            pool: self.name().to_owned(),
            image: image.to_owned(),
        })?;
        Ok(())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// A `rados_ioctx_t`, destroyed on drop.
struct Ioctx {
    handle: IoctxHandle,
    name: String,
    /// The object that holds the list of the trash is known to exist.
    has_trash: AtomicBool,
    connection: Arc<Connection>,
}

// SAFETY: librados allows any number of threads to use an I/O context at once, except for the functions that set its
// state (namespace, locator, snapshot, flags). Of those only `rados_set_pool_full_try` is called, before the value is
// shared. No function ties the handle to a thread.
unsafe impl Send for Ioctx {}
// SAFETY: as above.
unsafe impl Sync for Ioctx {}

impl Drop for Ioctx {
    fn drop(&mut self) {
        // SAFETY: images hold a `Pool`, so none is left that uses the handle; the connection outlives it because the
        // field is dropped after this.
        unsafe { (self.connection.api.rados.rados_ioctx_destroy)(self.handle) };
    }
}
