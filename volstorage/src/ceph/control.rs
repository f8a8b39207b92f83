//! Which clients are the control plane's own.
//!
//! An image is locked by whoever changes it, for a moment: a snapshot of an image that nobody uses takes the lock, too. A
//! client that is killed meanwhile leaves it, and neither a host nor whoever takes snapshots may break it, for they may
//! not blocklist. So the control plane's clients are known by their addresses, in an object of each pool: their locks can be
//! broken as soon as they do not watch the image any more, whereas those of hosts are their volume's data.

use std::ffi::CStr;
use std::ptr;

use super::class::{WriteOp, encoded, length};
use super::directory::header;
use super::error::{CephError, Operation};
use super::pool::Pool;
use super::text::c_string;

/// The object with the addresses, as metadata keys.
const CLIENTS: &CStr = c"volplugin.clients";
/// The lock that librbd and the kernel take (`RBD_LOCK_NAME`).
const LOCK: &CStr = c"rbd_lock";
/// Room for what the one client that can have the lock is called; others do not fit, and are not looked at.
const ROOM: usize = 512;

/// Who has the lock of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locker {
    /// Its client, as `client.4123`.
    client: String,
    /// The lock's own.
    cookie: String,
    /// Its address: `ip:port/nonce`.
    pub address: String,
}

impl Pool {
    /// Says that a client is the control plane's.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_control(&self, address: &str) -> Result<(), CephError> {
        let pair = [length(1), encoded(address), encoded("")].concat();
        let op = WriteOp::new(self).create().call(c"metadata_set", pair);
        self.check_pool(op.run(CLIENTS), Operation::SetMetadata)
    }

    /// Whether a client is, or was, the control plane's.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn is_control(&self, address: &str) -> Result<bool, CephError> {
        let subject = || self.image_subject("of any name");
        Ok(self.call(CLIENTS, c"metadata_get", &encoded(address), subject)?.is_some())
    }

    /// Who has the lock of an image, which is not opened for it; `None` where nobody has.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn locker(&self, id: &str) -> Result<Option<Locker>, CephError> {
        let (mut tag, mut clients) = ([0u8; ROOM], [0u8; ROOM]);
        let (mut cookies, mut addresses) = ([0u8; ROOM], [0u8; ROOM]);
        let (mut tag_len, mut clients_len) = (ROOM, ROOM);
        let (mut cookies_len, mut addresses_len) = (ROOM, ROOM);
        let mut exclusive = 0;
        let object = header(id)?;
        // SAFETY: the pool is open, the names are NUL-terminated, each buffer is writable for the length beside it, and all
        // outlive the call.
        let ret = unsafe {
            (self.api().rados.rados_list_lockers)(
                self.handle(),
                object.as_ptr(),
                LOCK.as_ptr(),
                &raw mut exclusive,
                ptr::from_mut(&mut tag).cast(),
                &raw mut tag_len,
                ptr::from_mut(&mut clients).cast(),
                &raw mut clients_len,
                ptr::from_mut(&mut cookies).cast(),
                &raw mut cookies_len,
                ptr::from_mut(&mut addresses).cast(),
                &raw mut addresses_len,
            )
        };
        if ret == 0 || ret == -(libc::ENOENT as isize) {
            return Ok(None);
        }
        let ret = i32::try_from(ret).unwrap_or(i32::MIN);
        self.check_name(ret, Operation::ReadLockOwners, id)?;
        let first = |buffer: &[u8]| {
            let text = CStr::from_bytes_until_nul(buffer).unwrap_or_default();
            text.to_string_lossy().into_owned()
        };
        let address = first(&addresses);
        // As watchers and librbd have it: without the version of the protocol.
        let plain = address.strip_prefix("v1:").or_else(|| address.strip_prefix("v2:"));
        let address = plain.unwrap_or(&address).to_owned();
        Ok(Some(Locker { client: first(&clients), cookie: first(&cookies), address }))
    }

    /// Takes the lock of an image from this one, if he still has it. He has to be fenced first: his client would
    /// otherwise write on without it.
    ///
    /// # Errors
    /// When the cluster does not do it.
    pub fn break_lock(&self, id: &str, locker: &Locker) -> Result<(), CephError> {
        let (object, client) = (header(id)?, c_string("lock owner", &locker.client)?);
        let cookie = c_string("lock cookie", &locker.cookie)?;
        // SAFETY: the pool is open, and all strings are NUL-terminated and outlive the call.
        let ret = unsafe {
            (self.api().rados.rados_break_lock)(
                self.handle(),
                object.as_ptr(),
                LOCK.as_ptr(),
                client.as_ptr(),
                cookie.as_ptr(),
            )
        };
        if ret == -libc::ENOENT {
            return Ok(());
        }
        self.check_name(ret, Operation::BreakLock, id).map(drop)
    }
}
