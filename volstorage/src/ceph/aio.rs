//! Requests to an image of which many are under way, and whose ends are told to closures.
//!
//! For whoever serves an image to others: no thread waits for a request. The closures run on a thread of librbd, one after
//! the other: they must be quick, and must not close the image.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::error::{CephError, Operation, Subject, check};
use super::ffi::{Api, CompletionHandle, ImageHandle, RbdApi};
use super::image::Image;

/// An open image whose requests are answered by closures. Each closure is called exactly once, maybe before the call that
/// it was given to returns. Dropping waits for the requests under way, and closes the image.
pub struct AsyncImage {
    /// Taken when it is closed.
    image: Option<Image>,
    subject: Arc<Subject>,
    under_way: Arc<UnderWay>,
}

/// How many requests are under way.
#[derive(Default)]
struct UnderWay {
    count: Mutex<usize>,
    none: Condvar,
}

impl UnderWay {
    fn change(&self, change: impl FnOnce(&mut usize)) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut count);
        if *count == 0 {
            self.none.notify_all();
        }
    }

    fn wait_for_none(&self) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count > 0 {
            count = self.none.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What is told the end: the value of the request, and its buffer.
type Done = Box<dyn FnOnce(Result<u64, CephError>, Vec<u8>) + Send>;

/// A request under way, which librbd hands back at its end. It owns the memory that librbd reads or fills.
struct Pending {
    api: &'static Api,
    operation: Operation,
    subject: Arc<Subject>,
    buffer: Vec<u8>,
    done: Done,
    under_way: Arc<UnderWay>,
}

impl Pending {
    fn end(mut self, ret: isize) {
        let value = check(ret, self.operation, || (*self.subject).clone());
        if let (Operation::Read, Ok(got)) = (self.operation, &value) {
            let got = usize::try_from(*got).unwrap_or(usize::MAX).min(self.buffer.capacity());
            // SAFETY: librbd has filled so many bytes of the spare capacity, which is as large as what was asked for.
            unsafe { self.buffer.set_len(got) };
        }
        (self.done)(value, self.buffer);
        self.under_way.change(|count| *count -= 1);
    }
}

/// The end of a request: `rbd_callback_t`.
unsafe extern "C" fn ended(completion: CompletionHandle, pending: *mut c_void) {
    // SAFETY: the argument is the box that `AsyncImage::begin` gave away, and librbd calls back once.
    let pending = unsafe { Box::from_raw(pending.cast::<Pending>()) };
    let rbd = &pending.api.rbd;
    // SAFETY: the completion is valid in its callback.
    let ret = unsafe { (rbd.rbd_aio_get_return_value)(completion) };
    // SAFETY: nobody uses it again; librbd has a reference of its own until the callback returns.
    unsafe { (rbd.rbd_aio_release)(completion) };
    pending.end(ret);
}

impl AsyncImage {
    /// Takes an open image over.
    #[must_use]
    pub fn new(image: Image) -> AsyncImage {
        let subject = Arc::new(image.subject());
        AsyncImage { image: Some(image), subject, under_way: Arc::default() }
    }

    /// The image, for calls that wait.
    pub fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    /// Reads up to `len` bytes at `offset`; fewer at the end of the image.
    pub fn read(
        &self,
        offset: u64,
        len: usize,
        done: impl FnOnce(Result<Vec<u8>, CephError>) + Send + 'static,
    ) {
        let done: Done = Box::new(|value, buffer| done(value.map(|_| buffer)));
        let call = |rbd: &RbdApi, image, data, completion| {
            // SAFETY: the image is open, and so many bytes may be written at `data` until the completion.
            unsafe { (rbd.rbd_aio_read)(image, offset, len, data, completion) }
        };
        self.begin(Operation::Read, Vec::with_capacity(len), done, call);
    }

    /// Writes `data` at `offset`, which the caller keeps inside the image: librbd shortens what reaches beyond its end. It
    /// may be in a cache until a [`flush`](Self::flush) that begins after this has ended.
    pub fn write(
        &self,
        offset: u64,
        data: Vec<u8>,
        done: impl FnOnce(Result<(), CephError>) + Send + 'static,
    ) {
        let len = data.len();
        let done: Done = Box::new(|value, _| done(value.map(drop)));
        let call = |rbd: &RbdApi, image, data: *mut c_char, completion| {
            // SAFETY: the image is open, and so many bytes may be read at `data` until the completion.
            unsafe { (rbd.rbd_aio_write)(image, offset, len, data.cast_const(), completion) }
        };
        self.begin(Operation::Write, data, done, call);
    }

    /// Makes a range read as zeros, to the byte, and frees whole objects in it.
    pub fn write_zeroes(
        &self,
        offset: u64,
        len: usize,
        done: impl FnOnce(Result<(), CephError>) + Send + 'static,
    ) {
        let done: Done = Box::new(|value, _| done(value.map(drop)));
        let call = |rbd: &RbdApi, image, _, completion| {
            let (free_what_can_be, no_hints) = (0, 0);
            // SAFETY: the image is open.
            unsafe {
                (rbd.rbd_aio_write_zeroes)(
                    image,
                    offset,
                    len,
                    completion,
                    free_what_can_be,
                    no_hints,
                )
            }
        };
        self.begin(Operation::Discard, Vec::new(), done, call);
    }

    /// Stores what was written by requests that have ended.
    pub fn flush(&self, done: impl FnOnce(Result<(), CephError>) + Send + 'static) {
        let done: Done = Box::new(|value, _| done(value.map(drop)));
        let call = |rbd: &RbdApi, image, _, completion| {
            // SAFETY: the image is open.
            unsafe { (rbd.rbd_aio_flush)(image, completion) }
        };
        self.begin(Operation::Flush, Vec::new(), done, call);
    }

    /// Waits for what is under way, and closes the image.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn close(mut self) -> Result<(), CephError> {
        self.under_way.wait_for_none();
        self.image.take().map_or(Ok(()), Image::close)
    }

    /// Begins a request. `call` gets the address of the buffer, which does not move.
    fn begin(
        &self,
        operation: Operation,
        buffer: Vec<u8>,
        done: Done,
        call: impl FnOnce(&RbdApi, ImageHandle, *mut c_char, CompletionHandle) -> c_int,
    ) {
        let Some(image) = &self.image else { return };
        let (api, subject) = (image.api(), Arc::clone(&self.subject));
        let under_way = Arc::clone(&self.under_way);
        under_way.change(|count| *count += 1);
        let mut pending = Box::new(Pending { api, operation, subject, buffer, done, under_way });
        let data = pending.buffer.as_mut_ptr();
        let pending = Box::into_raw(pending);
        let mut completion: CompletionHandle = ptr::null_mut();
        // SAFETY: the argument is a box that the callback takes back; on success a new completion is stored.
        let ret = unsafe {
            (api.rbd.rbd_aio_create_completion)(pending.cast(), Some(ended), &raw mut completion)
        };
        let refused = if ret < 0 {
            Some(ret)
        } else {
            let ret = call(&api.rbd, image.handle(), data.cast(), completion);
            if ret < 0 {
                // SAFETY: the completion is ours, nothing was begun with it, and it is not used afterwards.
                unsafe { (api.rbd.rbd_aio_release)(completion) };
            }
            (ret < 0).then_some(ret)
        };
        if let Some(ret) = refused {
            // SAFETY: nothing was begun, so there is no callback, and the box is still ours.
            let pending = unsafe { Box::from_raw(pending) };
            pending.end(isize::try_from(ret).unwrap_or(isize::MIN));
        }
    }
}

impl Drop for AsyncImage {
    fn drop(&mut self) {
        self.under_way.wait_for_none();
    }
}

impl fmt::Debug for AsyncImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncImage").field("image", &self.image).finish_non_exhaustive()
    }
}
