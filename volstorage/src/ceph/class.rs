//! Calls of the methods that the OSDs have for RBD, and what they take and give.
//!
//! They are the methods that librbd and the kernel use too (`src/cls/rbd/cls_rbd.cc` in Ceph), and the encoding is
//! Ceph's (`src/include/encoding.h`).

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use super::error::{CephError, Operation, Subject, check};
use super::ffi::WriteOpHandle;
use super::pool::Pool;

/// The class of RBD's methods on an OSD.
const CLASS: &CStr = c"rbd";
/// Longer than the answer of any method used here: an image's name or id.
const LONGEST_ANSWER: usize = 4096;
/// `MAX_ERRNO` of librados: a comparison that fails answers below its negative.
const MAX_ERRNO: i32 = 4095;

/// `LIBRADOS_OPERATION_FULL_FORCE`.
const FULL_FORCE: c_int = 128;

/// Whether a step took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It did.
    Done,
    /// The image has no such name, or the name belongs to another image: nothing was changed.
    Stale,
}

impl Pool {
    /// Calls a method that reads and answers with a text; `None` where that is not there.
    pub(super) fn ask(
        &self,
        object: &CStr,
        method: &CStr,
        input: &[u8],
        subject: impl Fn() -> Subject,
    ) -> Result<Option<String>, CephError> {
        let Some(answer) = self.call(object, method, input, &subject)? else { return Ok(None) };
        match decoded(&answer) {
            Some(text) => Ok(Some(text)),
            None => check(-libc::EIO, Operation::LookUp, subject).map(|_| None),
        }
    }

    /// Calls a method that reads; `None` where what it asks for is not there.
    pub(super) fn call(
        &self,
        object: &CStr,
        method: &CStr,
        input: &[u8],
        subject: impl Fn() -> Subject,
    ) -> Result<Option<Vec<u8>>, CephError> {
        let mut answer = vec![0u8; LONGEST_ANSWER];
        // SAFETY: the handle is valid, the texts are NUL-terminated, the input is readable and the answer writable for
        // the lengths given.
        let ret = unsafe {
            (self.api().rados.rados_exec)(
                self.handle(),
                object.as_ptr(),
                CLASS.as_ptr(),
                method.as_ptr(),
                input.as_ptr().cast(),
                input.len(),
                answer.as_mut_ptr().cast(),
                answer.len(),
            )
        };
        if ret == -libc::ENOENT {
            return Ok(None);
        }
        let filled = check(ret, Operation::LookUp, &subject)?;
        answer.truncate(usize::try_from(filled).unwrap_or(LONGEST_ANSWER));
        Ok(Some(answer))
    }

    pub(super) fn step(
        &self,
        ret: i32,
        operation: Operation,
        name: &str,
    ) -> Result<Step, CephError> {
        if ret == -libc::ENOENT || ret == -libc::ESTALE || ret <= -MAX_ERRNO {
            return Ok(Step::Stale);
        }
        self.check_name(ret, operation, name).map(|()| Step::Done)
    }

    pub(super) fn check_name(
        &self,
        ret: i32,
        operation: Operation,
        name: &str,
    ) -> Result<(), CephError> {
        check(ret, operation, || self.image_subject(name)).map(drop)
    }

    pub(super) fn image_subject(&self, image: &str) -> Subject {
        Subject::Image { pool: self.name().to_owned(), image: image.to_owned() }
    }
}

/// A length as Ceph stores it. The texts here are names and numbers of our own, far below 4 GiB.
pub(super) fn length(len: usize) -> Vec<u8> {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes().to_vec()
}

/// A text as Ceph stores it.
pub(super) fn encoded(text: &str) -> Vec<u8> {
    [&length(text.len()), text.as_bytes()].concat()
}

/// A structure in its first version, as Ceph stores it.
pub(super) fn structure(members: &[u8]) -> Vec<u8> {
    let (version, oldest) = (1, 1);
    [&[version, oldest][..], &length(members.len()), members].concat()
}

/// The text in what Ceph has stored; `None` when it is none.
fn decoded(stored: &[u8]) -> Option<String> {
    let (len, rest) = stored.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    String::from_utf8(rest.get(..len)?.to_vec()).ok()
}

/// Changes of one object that take place together or not at all (`rados_write_op_t`).
pub(super) struct WriteOp<'pool> {
    handle: WriteOpHandle,
    pool: &'pool Pool,
    /// What the operation points to until it has run.
    buffers: Vec<Vec<u8>>,
}

impl<'pool> WriteOp<'pool> {
    pub(super) fn new(pool: &'pool Pool) -> WriteOp<'pool> {
        // SAFETY: takes nothing, and gives a new operation, which is released on drop.
        let handle = unsafe { (pool.api().rados.rados_create_write_op)() };
        WriteOp { handle, pool, buffers: Vec::new() }
    }

    /// Fails unless the object is not there yet.
    pub(super) fn create_exclusively(self) -> Self {
        let exclusive = 1;
        // SAFETY: the operation is valid, and null means "no category".
        unsafe {
            (self.pool.api().rados.rados_write_op_create)(self.handle, exclusive, ptr::null());
        }
        self
    }

    /// Makes the object, unless it is there.
    pub(super) fn create(self) -> Self {
        let idempotent = 0;
        // SAFETY: the operation is valid, and null means "no category".
        unsafe {
            (self.pool.api().rados.rados_write_op_create)(self.handle, idempotent, ptr::null());
        }
        self
    }

    /// Fails unless the object is there.
    pub(super) fn assert_exists(self) -> Self {
        // SAFETY: the operation is valid.
        unsafe { (self.pool.api().rados.rados_write_op_assert_exists)(self.handle) };
        self
    }

    /// Fails unless the object begins with this.
    pub(super) fn compare(mut self, with: Vec<u8>) -> Self {
        let (buffer, len) = self.keep(with);
        // SAFETY: the operation is valid, the buffer is readable for its length and kept until the operation has run,
        // and null means that the result of this part is not wanted.
        unsafe {
            (self.pool.api().rados.rados_write_op_cmpext)(
                self.handle,
                buffer,
                len,
                0,
                ptr::null_mut(),
            );
        }
        self
    }

    pub(super) fn remove(self) -> Self {
        // SAFETY: the operation is valid.
        unsafe { (self.pool.api().rados.rados_write_op_remove)(self.handle) };
        self
    }

    /// Calls a method of the class.
    pub(super) fn call(self, method: &CStr, input: Vec<u8>) -> Self {
        self.call_of(CLASS, method, input)
    }

    /// Calls a method of another class.
    pub(super) fn call_of(mut self, class: &CStr, method: &CStr, input: Vec<u8>) -> Self {
        let (buffer, len) = self.keep(input);
        // SAFETY: as in `compare`; the texts are NUL-terminated.
        unsafe {
            (self.pool.api().rados.rados_write_op_exec)(
                self.handle,
                class.as_ptr(),
                method.as_ptr(),
                buffer,
                len,
                ptr::null_mut(),
            );
        }
        self
    }

    /// Does all of it; answers with zero or a negative error code.
    pub(super) fn run(self, object: &CStr) -> i32 {
        self.operate(object, 0)
    }

    /// The same in a pool that is full, too.
    pub(super) fn run_in_full_pool(self, object: &CStr) -> i32 {
        self.operate(object, FULL_FORCE)
    }

    fn operate(self, object: &CStr, flags: c_int) -> i32 {
        // SAFETY: operation and pool are valid, the name is NUL-terminated, and null means "now".
        unsafe {
            (self.pool.api().rados.rados_write_op_operate)(
                self.handle,
                self.pool.handle(),
                object.as_ptr(),
                ptr::null_mut(),
                flags,
            )
        }
    }

    fn keep(&mut self, buffer: Vec<u8>) -> (*const c_char, usize) {
        let kept = (buffer.as_ptr().cast(), buffer.len());
        self.buffers.push(buffer);
        kept
    }
}

impl Drop for WriteOp<'_> {
    fn drop(&mut self) {
        // SAFETY: the operation is valid, and nobody uses it again.
        unsafe { (self.pool.api().rados.rados_release_write_op)(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_stored_with_their_length() {
        assert_eq!(encoded("ab"), [2, 0, 0, 0, b'a', b'b']);
        for text in ["", "t.v", "ü"] {
            assert_eq!(decoded(&encoded(text)).as_deref(), Some(text));
        }
        for broken in [&b""[..], b"\x01\0\0", b"\x02\0\0\0a", b"\x01\0\0\0\xff"] {
            assert_eq!(decoded(broken), None, "{broken:?}");
        }
    }
}
