//! Writing many pieces of data at once.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ptr;

use super::error::{CephError, Operation};
use super::ffi::CompletionHandle;
use super::image::Image;

/// How many writes are under way at most.
const MAX_IN_FLIGHT: usize = 64;
/// How many bytes are under way at most, unless one piece alone has more.
const MAX_BYTES_IN_FLIGHT: usize = 16 << 20;

impl Image {
    /// Writes all pieces, many at a time, and waits until they are stored ([`flush`](Self::flush) included).
    /// Returns the number of bytes.
    ///
    /// Pieces must not overlap: their order is not kept. Joining neighbours beforehand pays, each piece being one
    /// request. The iterator is drawn from while earlier pieces are written, and no more than about 16 MiB of what it
    /// gave is kept.
    ///
    /// # Errors
    /// The first error of a write; no new write is begun after it, and those under way are waited for. `EINVAL` for a
    /// piece beyond the end of the image.
    pub fn write_extents<'data, I, B>(&self, extents: I) -> Result<u64, CephError>
    where
        I: IntoIterator<Item = (u64, B)>,
        B: Into<Cow<'data, [u8]>>,
    {
        self.try_write_extents(extents.into_iter().map(Ok))
    }

    /// Like [`write_extents`](Self::write_extents), for pieces whose making can fail, such as reading them from a file.
    ///
    /// # Errors
    /// Also the first error that the iterator yields.
    pub fn try_write_extents<'data, I, B, E>(&self, extents: I) -> Result<u64, E>
    where
        I: IntoIterator<Item = Result<(u64, B), E>>,
        B: Into<Cow<'data, [u8]>>,
        E: From<CephError>,
    {
        let size = self.stat()?.size;
        let mut writes = InFlight { image: self, pending: VecDeque::new(), bytes: 0 };
        let mut total = 0;
        for extent in extents {
            let (offset, data) = extent?;
            let data = data.into();
            let len = data.len() as u64;
            // librbd shortens a write that reaches beyond the end and calls it a success.
            if offset.checked_add(len).is_none_or(|end| end > size) {
                self.check(-libc::EINVAL, Operation::Write)?;
            }
            writes.begin(offset, data)?;
            total += len;
        }
        writes.finish()?;
        self.flush()?;
        Ok(total)
    }
}

/// Writes under way on an image, oldest first. Waits for all of them when dropped.
struct InFlight<'image, 'data> {
    image: &'image Image,
    pending: VecDeque<Pending<'data>>,
    bytes: usize,
}

/// One write under way, and the data that librbd reads meanwhile.
struct Pending<'data> {
    completion: CompletionHandle,
    data: Cow<'data, [u8]>,
}

impl<'data> InFlight<'_, 'data> {
    /// Begins a write; waits for older ones first when there are too many.
    fn begin(&mut self, offset: u64, data: Cow<'data, [u8]>) -> Result<(), CephError> {
        while !self.pending.is_empty()
            && (self.pending.len() >= MAX_IN_FLIGHT
                || self.bytes.saturating_add(data.len()) > MAX_BYTES_IN_FLIGHT)
        {
            self.wait_for_oldest()?;
        }
        let rbd = &self.image.api().rbd;
        let mut completion: CompletionHandle = ptr::null_mut();
        // SAFETY: no callback, so no argument either; on success a new completion is stored.
        let ret =
            unsafe { (rbd.rbd_aio_create_completion)(ptr::null_mut(), None, &raw mut completion) };
        self.image.check(ret, Operation::Write)?;
        // The queue owns the data before librbd sees it; what a `Cow` points to does not move with it.
        let (start, len) = (data.as_ptr(), data.len());
        self.pending.push_back(Pending { completion, data });
        self.bytes += len;
        // SAFETY: the image is open and borrowed for as long as `self` lives; the data is readable for the length
        // given, and stays alive and unchanged until `wait_for_oldest` has seen the completion: the queue owns or
        // borrows it, and `drop` waits for everything in the queue. `self` cannot be leaked, it never leaves
        // `try_write_extents`.
        let ret = unsafe {
            (rbd.rbd_aio_write)(self.image.handle(), offset, len, start.cast(), completion)
        };
        if ret < 0 {
            // The write was not begun, so its completion would never come.
            if let Some(refused) = self.pending.pop_back() {
                self.bytes -= refused.data.len();
                // SAFETY: the completion is ours, nothing was begun with it, and it is not used afterwards.
                unsafe { (rbd.rbd_aio_release)(refused.completion) };
            }
        }
        self.image.check(ret, Operation::Write)
    }

    /// Waits for the oldest write.
    fn wait_for_oldest(&mut self) -> Result<(), CephError> {
        let Some(Pending { completion, data }) = self.pending.pop_front() else {
            return Ok(());
        };
        self.bytes -= data.len();
        let rbd = &self.image.api().rbd;
        // SAFETY: the completion belongs to a write that was begun and has not been released.
        unsafe { (rbd.rbd_aio_wait_for_complete)(completion) };
        // SAFETY: as above, and the write is over.
        let ret = unsafe { (rbd.rbd_aio_get_return_value)(completion) };
        // SAFETY: as above; it is not used afterwards. librbd has let go of the data.
        unsafe { (rbd.rbd_aio_release)(completion) };
        self.image.check(ret, Operation::Write)
    }

    /// Waits for all writes; the first error counts.
    fn finish(&mut self) -> Result<(), CephError> {
        while !self.pending.is_empty() {
            self.wait_for_oldest()?;
        }
        Ok(())
    }
}

impl Drop for InFlight<'_, '_> {
    fn drop(&mut self) {
        // An error got us here, or a panic in the caller's iterator; later ones add nothing to it.
        while !self.pending.is_empty() {
            drop(self.wait_for_oldest());
        }
    }
}
