//! The names of images, one step at a time.
//!
//! RBD keeps the name of an image in two places of its pool: the *link* `rbd_id.<name>`, an object that holds the id and
//! by which the image is opened, and the *listing* in the object `rbd_directory`, which maps names to ids and back, and
//! by which it is listed. librbd changes one after the other and does not say where it stopped: `rbd_rename` of 16.2
//! reports success also when another client was faster. Here each step is a call of its own that either happens or does
//! not, and is refused when the image is not what the caller thinks. They are made of the OSD's class methods that
//! librbd and the kernel use too (`src/cls/rbd/cls_rbd.cc` in Ceph).
//!
//! Which steps, and in which order, is for the caller to know. Nothing here opens an image.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

use super::error::{CephError, Operation, Subject, check};
use super::ffi::WriteOpHandle;
use super::pool::Pool;
use super::text::c_string;

/// The class of RBD's methods on an OSD.
const CLASS: &CStr = c"rbd";
/// The object with the listings (`RBD_DIRECTORY`).
const DIRECTORY: &CStr = c"rbd_directory";
/// Longer than the answer of any method used here: an image's name or id.
const LONGEST_ANSWER: usize = 4096;
/// `MAX_ERRNO` of librados: a comparison that fails answers below its negative.
const MAX_ERRNO: i32 = 4095;

/// Whether a step took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It did.
    Done,
    /// The image has no such name, or the name belongs to another image: nothing was changed.
    Stale,
}

impl Pool {
    /// The id of the image that a name is linked to.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn linked_id(&self, name: &str) -> Result<Option<String>, CephError> {
        self.ask(&link(name)?, c"get_id", &[], || self.image_subject(name))
    }

    /// Links a name to an image.
    ///
    /// # Errors
    /// [`CephError::is_exists`] when the name is linked already, be it to this image.
    pub fn link(&self, name: &str, id: &str) -> Result<(), CephError> {
        let op = WriteOp::new(self).create_exclusively().call(c"set_id", encoded(id));
        self.check_name(op.run(&link(name)?), Operation::Link, name)
    }

    /// Takes the link of a name to this image away.
    ///
    /// # Errors
    /// When the cluster does not say; then it is unknown whether the link is there.
    pub fn unlink(&self, name: &str, id: &str) -> Result<Step, CephError> {
        let op = WriteOp::new(self).compare(encoded(id)).remove();
        self.step(op.run(&link(name)?), Operation::Unlink, name)
    }

    /// The id of the image that is listed by a name.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn listed_id(&self, name: &str) -> Result<Option<String>, CephError> {
        self.ask(DIRECTORY, c"dir_get_id", &encoded(name), || self.image_subject(name))
    }

    /// The name by which an image is listed.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn listed_name(&self, id: &str) -> Result<Option<String>, CephError> {
        self.ask(DIRECTORY, c"dir_get_name", &encoded(id), || self.image_subject(id))
    }

    /// Lists an image by another name, both ways at once. Of several who try, one succeeds.
    ///
    /// # Errors
    /// [`CephError::is_exists`] when another image is listed by that name.
    pub fn relist(&self, id: &str, from: &str, to: &str) -> Result<Step, CephError> {
        let names = [encoded(from), encoded(to), encoded(id)].concat();
        let op = WriteOp::new(self).call(c"dir_rename_image", names);
        self.step(op.run(DIRECTORY), Operation::Relist, to)
    }

    /// Takes an image off the list.
    ///
    /// # Errors
    /// When the cluster does not say; then it is unknown whether it is listed.
    pub fn unlist(&self, id: &str, name: &str) -> Result<Step, CephError> {
        let names = [encoded(name), encoded(id)].concat();
        let op = WriteOp::new(self).call(c"dir_remove_image", names);
        self.step(op.run(DIRECTORY), Operation::Unlist, name)
    }

    /// Sets metadata keys of an image that nobody needs to have open, all in one write.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is no image of this id.
    pub fn set_metadata(
        &self,
        id: &str,
        pairs: &BTreeMap<String, String>,
    ) -> Result<(), CephError> {
        let header = c_string("image id", &format!("rbd_header.{id}"))?;
        let mut map = length(pairs.len());
        for (key, value) in pairs {
            map.extend([encoded(key), encoded(value)].concat());
        }
        let op = WriteOp::new(self).assert_exists().call(c"metadata_set", map);
        self.check_name(op.run(&header), Operation::SetMetadata, id)
    }

    /// Calls a method that reads and answers with a text; `None` where that is not there.
    fn ask(
        &self,
        object: &CStr,
        method: &CStr,
        input: &[u8],
        subject: impl Fn() -> Subject,
    ) -> Result<Option<String>, CephError> {
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
        match decoded(&answer) {
            Some(text) => Ok(Some(text)),
            None => check(-libc::EIO, Operation::LookUp, subject).map(|_| None),
        }
    }

    fn step(&self, ret: i32, operation: Operation, name: &str) -> Result<Step, CephError> {
        if ret == -libc::ENOENT || ret == -libc::ESTALE || ret <= -MAX_ERRNO {
            return Ok(Step::Stale);
        }
        self.check_name(ret, operation, name).map(|()| Step::Done)
    }

    fn check_name(&self, ret: i32, operation: Operation, name: &str) -> Result<(), CephError> {
        check(ret, operation, || self.image_subject(name)).map(drop)
    }

    fn image_subject(&self, image: &str) -> Subject {
        Subject::Image { pool: self.name().to_owned(), image: image.to_owned() }
    }
}

/// The object that links a name.
fn link(name: &str) -> Result<CString, CephError> {
    c_string("image name", &format!("rbd_id.{name}"))
}

/// A length as Ceph stores it. The texts here are names and numbers of our own, far below 4 GiB.
fn length(len: usize) -> Vec<u8> {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes().to_vec()
}

/// A text as Ceph stores it.
fn encoded(text: &str) -> Vec<u8> {
    [&length(text.len()), text.as_bytes()].concat()
}

/// The text in what Ceph has stored; `None` when it is none.
fn decoded(stored: &[u8]) -> Option<String> {
    let (len, rest) = stored.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    String::from_utf8(rest.get(..len)?.to_vec()).ok()
}

/// Changes of one object that take place together or not at all (`rados_write_op_t`).
struct WriteOp<'pool> {
    handle: WriteOpHandle,
    pool: &'pool Pool,
    /// What the operation points to until it has run.
    buffers: Vec<Vec<u8>>,
}

impl<'pool> WriteOp<'pool> {
    fn new(pool: &'pool Pool) -> WriteOp<'pool> {
        // SAFETY: takes nothing, and gives a new operation, which is released on drop.
        let handle = unsafe { (pool.api().rados.rados_create_write_op)() };
        WriteOp { handle, pool, buffers: Vec::new() }
    }

    /// Fails unless the object is not there yet.
    fn create_exclusively(self) -> Self {
        let exclusive = 1;
        // SAFETY: the operation is valid, and null means "no category".
        unsafe {
            (self.pool.api().rados.rados_write_op_create)(self.handle, exclusive, ptr::null());
        }
        self
    }

    /// Fails unless the object is there.
    fn assert_exists(self) -> Self {
        // SAFETY: the operation is valid.
        unsafe { (self.pool.api().rados.rados_write_op_assert_exists)(self.handle) };
        self
    }

    /// Fails unless the object begins with this.
    fn compare(mut self, with: Vec<u8>) -> Self {
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

    fn remove(self) -> Self {
        // SAFETY: the operation is valid.
        unsafe { (self.pool.api().rados.rados_write_op_remove)(self.handle) };
        self
    }

    /// Calls a method of the class.
    fn call(mut self, method: &CStr, input: Vec<u8>) -> Self {
        let (buffer, len) = self.keep(input);
        // SAFETY: as in `compare`; the texts are NUL-terminated.
        unsafe {
            (self.pool.api().rados.rados_write_op_exec)(
                self.handle,
                CLASS.as_ptr(),
                method.as_ptr(),
                buffer,
                len,
                ptr::null_mut(),
            );
        }
        self
    }

    /// Does all of it; answers with zero or a negative error code.
    fn run(self, object: &CStr) -> i32 {
        // SAFETY: operation and pool are valid, the name is NUL-terminated, and null means "now".
        unsafe {
            (self.pool.api().rados.rados_write_op_operate)(
                self.handle,
                self.pool.handle(),
                object.as_ptr(),
                ptr::null_mut(),
                0,
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
