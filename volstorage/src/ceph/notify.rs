//! Telling those who watch an image that it has changed, and learning who took notice.

use std::ffi::CStr;
use std::ffi::c_char;
use std::ptr;

use super::error::{CephError, Operation, check};
use super::pool::Pool;

/// How long those who have an image open may take to take notice of a change, in milliseconds.
const NOTICE: u64 = 5_000;

/// The clients that took notice: the number in `client.4123`. Only those had the change before the call returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard(Vec<u64>);

impl Heard {
    pub(super) fn has(&self, client: u64) -> bool {
        self.0.contains(&client)
    }

    /// The answer to `rados_notify2`: a number of acknowledgements, each with client, watch and text; after them those
    /// who were late, who do not matter here. `None` when it is none.
    fn decoded(reply: &[u8]) -> Option<Heard> {
        let (count, mut rest) = reply.split_first_chunk::<4>()?;
        let mut clients = Vec::new();
        for _ in 0..u32::from_le_bytes(*count) {
            let (client, after) = rest.split_first_chunk::<8>()?;
            let (_watch, after) = after.split_first_chunk::<8>()?;
            let (len, after) = after.split_first_chunk::<4>()?;
            rest = after.get(usize::try_from(u32::from_le_bytes(*len)).ok()?..)?;
            clients.push(u64::from_le_bytes(*client));
        }
        Some(Heard(clients))
    }
}

impl Pool {
    /// Tells those who watch an image that it has changed. One that does not answer in time is gone, or reads
    /// everything again when it is back.
    pub(super) fn announce(&self, header: &CStr, image: &str) -> Result<Heard, CephError> {
        let (mut reply, mut len): (*mut c_char, usize) = (ptr::null_mut(), 0);
        // SAFETY: the pool is open and the name NUL-terminated; null and 0 are the empty message, which librbd and the
        // kernel take for a change of the header; the answer outlives the call.
        let ret = unsafe {
            (self.api().rados.rados_notify2)(
                self.handle(),
                header.as_ptr(),
                ptr::null(),
                0,
                NOTICE,
                &raw mut reply,
                &raw mut len,
            )
        };
        let heard = if reply.is_null() {
            None
        } else {
            // SAFETY: the function has stored a buffer of this length, which is ours until it is freed.
            let heard = Heard::decoded(unsafe { std::slice::from_raw_parts(reply.cast(), len) });
            // SAFETY: librados made the buffer, and nobody uses it again.
            unsafe { (self.api().rados.rados_buffer_free)(reply) };
            heard
        };
        if ret == -libc::ETIMEDOUT {
            tracing::debug!(image, "somebody who has it open did not take notice of a change");
        } else {
            check(ret, Operation::Announce, || self.image_subject(image))?;
        }
        Ok(heard.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_heard_is_read_from_the_answer() {
        let ack = |client: u64, text: &[u8]| {
            let len = u32::try_from(text.len()).unwrap().to_le_bytes();
            [&client.to_le_bytes()[..], &7u64.to_le_bytes(), &len, text].concat()
        };
        let late = [&1u32.to_le_bytes()[..], &9u64.to_le_bytes(), &7u64.to_le_bytes()].concat();
        let reply = [&2u32.to_le_bytes()[..], &ack(4, b""), &ack(5, b"abc"), &late].concat();
        assert_eq!(Heard::decoded(&reply), Some(Heard(vec![4, 5])));
        assert_eq!(Heard::decoded(&[0; 8]), Some(Heard::default()));
        for cut in 1..reply.len() - late.len() {
            assert_eq!(Heard::decoded(&reply[..cut]), None, "{cut} bytes");
        }
    }
}
