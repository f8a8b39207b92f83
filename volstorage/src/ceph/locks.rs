//! Who has an image open, and who holds its exclusive lock.

use std::ffi::{c_char, c_int};
use std::ptr;

use super::abi::RbdImageWatcher;
use super::error::{CephError, Operation};
use super::ffi::{LOCK_MODE_EXCLUSIVE, LockMode};
use super::image::Image;
use super::text::{copy_c_str, grow};

/// A client that has an image open for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watcher {
    /// Its address, with the nonce that tells clients of one host apart: `127.0.0.1:0/3188422143`.
    pub address: String,
    /// Its instance id, as in `client.4123`.
    pub client: i64,
    /// The watch itself; one client may have several.
    pub cookie: u64,
}

impl Image {
    /// The clients that have the image open for writing, this handle included if it is for writing.
    ///
    /// A client that died stays in the list for 30 s.
    ///
    /// # Errors
    /// When the call fails.
    pub fn watchers(&self) -> Result<Vec<Watcher>, CephError> {
        let rbd = &self.api().rbd;
        let empty = RbdImageWatcher { addr: ptr::null_mut(), id: 0, cookie: 0 };
        // SAFETY: the image is open; the function fills at most the length given and stores how many there are.
        let (ret, mut found) = grow(8, empty, |array, len| unsafe {
            (rbd.rbd_watchers_list)(self.handle(), array, len)
        });
        self.check(ret, Operation::ListWatchers)?;
        let watchers = found
            .iter()
            .map(|watcher| Watcher {
                // SAFETY: the function succeeded, so the string is set, and not freed before the clean-up below.
                address: unsafe { copy_c_str(watcher.addr) },
                client: watcher.id,
                cookie: watcher.cookie,
            })
            .collect();
        // SAFETY: frees the strings of exactly the elements that were filled in; the array itself is ours.
        unsafe { (rbd.rbd_watchers_list_cleanup)(found.as_mut_ptr(), found.len()) };
        Ok(watchers)
    }

    /// The addresses of the clients that hold the exclusive lock: one or none.
    ///
    /// # Errors
    /// `EINVAL` on a read-only handle, and on an image without [`Features::EXCLUSIVE_LOCK`](super::Features).
    pub fn lock_owners(&self) -> Result<Vec<String>, CephError> {
        let rbd = &self.api().rbd;
        let mut mode: LockMode = LOCK_MODE_EXCLUSIVE;
        let empty: *mut c_char = ptr::null_mut();
        // SAFETY: the image is open; the function fills at most the length given, stores how many there are, and the
        // mode outlives the call.
        let (ret, mut found) = grow(8, empty, |array, len| unsafe {
            (rbd.rbd_lock_get_owners)(self.handle(), &raw mut mode, array, len)
        });
        if ret == -libc::ENOENT {
            return Ok(Vec::new());
        }
        self.check(ret, Operation::ReadLockOwners)?;
        // SAFETY: the function succeeded, so every element is a string that is not freed before the clean-up below.
        let owners = found.iter().map(|owner| unsafe { copy_c_str(*owner) }).collect();
        // SAFETY: frees exactly the strings that were filled in; the array itself is ours.
        unsafe { (rbd.rbd_lock_get_owners_cleanup)(found.as_mut_ptr(), found.len()) };
        Ok(owners)
    }

    /// Takes the exclusive lock for this handle, and keeps it: others who ask for it are refused until
    /// [`release_lock`](Self::release_lock) or the handle is closed.
    ///
    /// A holder that took it automatically, by writing, gives it up.
    ///
    /// # Errors
    /// [`CephError::is_read_only`] when another handle took it with this function, or the handle is read-only;
    /// `EINVAL` on an image without [`Features::EXCLUSIVE_LOCK`](super::Features).
    pub fn acquire_lock(&self) -> Result<(), CephError> {
        // SAFETY: the image is open.
        let ret = unsafe { (self.api().rbd.rbd_lock_acquire)(self.handle(), LOCK_MODE_EXCLUSIVE) };
        self.check(ret, Operation::AcquireLock)
    }

    /// Gives the exclusive lock up.
    ///
    /// # Errors
    /// When the call fails.
    pub fn release_lock(&self) -> Result<(), CephError> {
        // SAFETY: the image is open.
        let ret = unsafe { (self.api().rbd.rbd_lock_release)(self.handle()) };
        self.check(ret, Operation::ReleaseLock)
    }

    /// Whether this handle holds the exclusive lock.
    ///
    /// # Errors
    /// When the call fails.
    pub fn is_lock_owner(&self) -> Result<bool, CephError> {
        let mut is_owner: c_int = 0;
        // SAFETY: the image is open, and the result outlives the call.
        let ret = unsafe {
            (self.api().rbd.rbd_is_exclusive_lock_owner)(self.handle(), &raw mut is_owner)
        };
        self.check(ret, Operation::ReadLockOwners)?;
        Ok(is_owner != 0)
    }
}
