//! Texts and lists across the C boundary, for the siblings in `ceph`.

use std::ffi::{CStr, CString, c_char};

use super::error::CephError;

/// A C string from `value`; an error that names `what` when it contains a NUL byte.
pub(super) fn c_string(what: &'static str, value: &str) -> Result<CString, CephError> {
    CString::new(value).map_err(|_| CephError::NulInText { what, value: value.to_owned() })
}

/// Copies a C string; null reads as empty, and bytes that are not UTF-8 are replaced.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string that stays valid during the call.
pub(super) unsafe fn copy_c_str(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The text up to the first NUL byte of a buffer that C filled.
pub(super) fn until_nul(buffer: &[u8]) -> String {
    let text = buffer.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Splits a buffer of NUL-terminated strings that ends with an empty one.
pub(super) fn nul_list(buffer: &[u8]) -> Vec<String> {
    buffer
        .split(|byte| *byte == 0)
        .take_while(|text| !text.is_empty())
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect()
}

/// Calls a C function that fills an array or says `-ERANGE` and how long the array has to be.
///
/// `call` gets the array and its length, and leaves the number of elements that are there or needed in the length.
/// Returns its last return value and the elements filled in; on an error there are none.
pub(super) fn grow<T: Copy>(
    first: usize,
    empty: T,
    mut call: impl FnMut(*mut T, &mut usize) -> i32,
) -> (i32, Vec<T>) {
    let mut room = first;
    // What is counted may grow between two calls; somebody who adds that fast for ever gets ERANGE as the answer.
    for _ in 0..16 {
        let mut array = vec![empty; room];
        let mut len = array.len();
        let ret = call(array.as_mut_ptr(), &mut len);
        if ret == -libc::ERANGE {
            room = len.max(room.saturating_mul(2)).max(1);
            continue;
        }
        array.truncate(if ret < 0 { 0 } else { len });
        return (ret, array);
    }
    (-libc::ERANGE, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_list_ends_at_the_empty_string() {
        assert_eq!(nul_list(b"rbd\0other\0\0junk\0"), ["rbd", "other"]);
        assert!(nul_list(b"\0").is_empty());
        assert!(nul_list(b"").is_empty());
    }

    #[test]
    fn grow_asks_again_with_the_room_that_is_needed() {
        let mut rooms = Vec::new();
        let (ret, got) = grow(2, 0u8, |_, len| {
            rooms.push(*len);
            let fits = *len >= 5;
            *len = 5;
            if fits { 0 } else { -libc::ERANGE }
        });
        assert_eq!((ret, got.len()), (0, 5));
        assert_eq!(rooms, [2, 5]);
    }

    #[test]
    fn grow_gives_up_and_returns_nothing_on_an_error() {
        assert_eq!(grow(1, 0u8, |_, _| -libc::ERANGE), (-libc::ERANGE, vec![]));
        assert_eq!(grow(1, 0u8, |_, _| -libc::ENOENT), (-libc::ENOENT, vec![]));
    }

    #[test]
    fn c_strings_refuse_nul() {
        let error = c_string("image name", "a\0b").unwrap_err();
        assert_eq!(error.to_string(), r#"image name contains a NUL byte: "a\0b""#);
    }
}
