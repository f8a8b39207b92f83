//! A lock of our own on a name in a pool, which ends by itself when its holder does.
//!
//! librbd allows several clients to remove one image at the same time, and 16.2 ends the process of one of them by an
//! assertion (`TrimRequest.cc`, "is_lock_owner") when the exclusive lock changes hands in the middle. So whoever removes
//! an image takes such a lease first. It is an advisory lock of RADOS with a duration, on an object of its own, renewed
//! by a thread. It can be taken in a full pool: what makes room there is done under it.

use std::ffi::{CStr, CString};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::class::{WriteOp, encoded, structure};
use super::error::{CephError, Operation};
use super::pool::Pool;
use super::text::c_string;

/// How the lock is called.
const LOCK: &CStr = c"volplugin";
/// How long a lease outlives its holder.
const DURATION: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(8);
/// How often a lease is tried for in a full pool.
const ATTEMPTS: usize = 8;
/// `LIBRADOS_LOCK_FLAG_RENEW` (`LIBRADOS_LOCK_FLAG_MAY_RENEW`).
const MAY_RENEW: u8 = 1;

impl Pool {
    /// Does something while nobody else, in this or another process, does something under the same name. `None` when
    /// somebody else is at it now.
    ///
    /// # Errors
    /// When the cluster does not say whether somebody is.
    pub fn exclusively<T>(
        &self,
        name: &str,
        work: impl FnOnce() -> T,
    ) -> Result<Option<T>, CephError> {
        let object = c_string("lease", &format!("volplugin.lease.{name}"))?;
        let own = uuid::Uuid::new_v4().to_string();
        let cookie = c_string("cookie", &own)?;
        let mut locked = self.check_pool(self.lock(&object, &cookie), Operation::Lease);
        for _ in 0..ATTEMPTS {
            if !locked.as_ref().is_err_and(CephError::is_no_space) {
                break;
            }
            // A full pool takes no new object, but for one that is forced into it. Somebody else's may have gone with his
            // lease meanwhile.
            let made = WriteOp::new(self).create().run_in_full_pool(&object);
            self.check_pool(made, Operation::Lease)?;
            locked = self.check_pool(self.lock(&object, &cookie), Operation::Lease);
        }
        match locked {
            Ok(()) => {}
            Err(error) if error.is_busy() => return Ok(None),
            Err(error) => return Err(error),
        }
        let done = thread::scope(|scope| {
            let (done, wait) = channel::<()>();
            scope.spawn(|| {
                let wait = wait;
                while wait.recv_timeout(RENEW) == Err(RecvTimeoutError::Timeout) {
                    let renewed = self.check_pool(self.lock(&object, &cookie), Operation::Lease);
                    if let Err(error) = renewed {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(name, error, "a lease was not renewed");
                    }
                }
            });
            let value = work();
            drop(done);
            value
        });
        self.give_up(&object, &own);
        Ok(Some(done))
    }

    fn lock(&self, object: &CString, cookie: &CString) -> i32 {
        let mut duration = libc::timeval {
            tv_sec: libc::time_t::try_from(DURATION.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_usec: 0,
        };
        // SAFETY: the handle is valid, the texts are NUL-terminated, and the duration outlives the call.
        unsafe {
            (self.api().rados.rados_lock_exclusive)(
                self.handle(),
                object.as_ptr(),
                LOCK.as_ptr(),
                cookie.as_ptr(),
                c"".as_ptr(),
                &raw mut duration,
                MAY_RENEW,
            )
        }
    }

    /// Takes the lock away and its object with it, in one step, unless the lock has become somebody else's.
    fn give_up(&self, object: &CStr, cookie: &str) {
        // `cls_lock_unlock_op`.
        let unlock = structure(&[encoded(&LOCK.to_string_lossy()), encoded(cookie)].concat());
        let given_up = WriteOp::new(self).call_of(c"lock", c"unlock", unlock).remove();
        let ret = given_up.run_in_full_pool(object);
        if ret < 0 {
            tracing::debug!(?object, ret, "a lease is left to end by itself");
        }
    }
}
