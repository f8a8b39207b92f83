//! The extended attribute that says for which volume a file was made. Blocking.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use uuid::Uuid;

const UID: &CStr = c"user.volplugin.uid";

/// Says on a file for which volume it was made.
pub(super) fn set_uid(file: &File, uid: Uuid) -> io::Result<()> {
    let value = uid.to_string();
    // SAFETY: the descriptor is open, the name a NUL-terminated string, and the value readable for
    // the length given; the kernel keeps none of them.
    let ret = unsafe {
        libc::fsetxattr(file.as_raw_fd(), UID.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes that away; absent is success.
pub(super) fn remove_uid(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the name a NUL-terminated string.
    let ret = unsafe { libc::fremovexattr(file.as_raw_fd(), UID.as_ptr()) };
    if ret == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENODATA) { Ok(()) } else { Err(error) }
}

/// The error of [`set_uid`], with what can be done about it.
pub(super) fn explained(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
        return error;
    }
    let why = "the file system of the image root has no extended attributes; \
               use one that has, such as ext4, xfs or btrfs";
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// For which volume a file was made; `None` where it does not say, or nothing that we would.
pub(super) fn uid(file: &File) -> io::Result<Option<Uuid>> {
    let mut value = [0u8; 64];
    // SAFETY: the descriptor is open, the name a NUL-terminated string, and the value writable for
    // the length given.
    let ret = unsafe {
        libc::fgetxattr(file.as_raw_fd(), UID.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    let Ok(len) = usize::try_from(ret) else {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENODATA | libc::EOPNOTSUPP | libc::ERANGE) => Ok(None),
            _ => Err(error),
        };
    };
    Ok(value.get(..len).and_then(|value| Uuid::try_parse_ascii(value).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_knows_its_volume() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(uid(&file).unwrap(), None);
        let volume = Uuid::new_v4();
        set_uid(&file, volume).unwrap();
        assert_eq!(uid(&file).unwrap(), Some(volume));
        for _ in 0..2 {
            remove_uid(&file).unwrap();
            assert_eq!(uid(&file).unwrap(), None);
        }
    }
}
