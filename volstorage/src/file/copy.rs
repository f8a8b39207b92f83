//! The content of one file in another. Blocking.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// So much is copied before the clock is looked at again.
const PIECE: u64 = 8 << 20;

/// Gives an empty file of at least the same length the content of another: shared where the file system can do that,
/// which takes no time and no space, else copied without the holes, until `end` at the latest (`TimedOut`).
pub(super) fn copy(from: &File, to: &File, end: Instant) -> io::Result<()> {
    if share(from, to)? { Ok(()) } else { copy_data(from, to, end) }
}

/// Shares the content (`ioctl_ficlone(2)`); false where the file system has no such thing, or the files are on two.
fn share(from: &File, to: &File) -> io::Result<bool> {
    let len = to.metadata()?.len();
    // SAFETY: both descriptors are open; the kernel keeps neither.
    let ret = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if ret == 0 {
        // The kernel has left what is beyond the content, and nothing else may have.
        return if to.metadata()?.len() == len { Ok(true) } else { to.set_len(len).map(|()| true) };
    }
    match Errno::last() {
        Errno::EOPNOTSUPP | Errno::EXDEV | Errno::EINVAL | Errno::ENOTTY | Errno::ENOSYS => {
            Ok(false)
        }
        error => Err(error.into()),
    }
}

fn copy_data(from: &File, to: &File, end: Instant) -> io::Result<()> {
    let (len, mut at) = (from.metadata()?.len(), 0);
    while at < len {
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let offset = i64::try_from(at).map_err(io::Error::other)?;
        let data = match lseek(from, offset, Whence::SeekData) {
            Ok(data) => data,
            // There is nothing but a hole.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = lseek(from, data, Whence::SeekHole)?;
        let data = data.unsigned_abs();
        let hole = hole.unsigned_abs().min(len).min(data + PIECE);
        let (mut source, mut target) = (from, to);
        source.seek(SeekFrom::Start(data))?;
        target.seek(SeekFrom::Start(data))?;
        io::copy(&mut source.take(hole.saturating_sub(data)), &mut target)?;
        at = hole.max(data + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::time::Duration;

    use super::*;

    #[test]
    fn holes_stay_holes() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(64 << 20).unwrap();
        for (at, text) in [(0u64, b"begin"), (20 << 20, b"there"), ((64 << 20) - 5, b"enddd")] {
            from.write_all_at(text, at).unwrap();
        }
        to.set_len(65 << 20).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        copy_data(&from, &to, end).unwrap();
        let late = copy_data(&from, &to, Instant::now()).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        for (at, text) in [(0u64, b"begin"), (20 << 20, b"there"), ((64 << 20) - 5, b"enddd")] {
            let mut there = [0; 5];
            to.read_exact_at(&mut there, at).unwrap();
            assert_eq!(&there, text);
        }
        let meta = to.metadata().unwrap();
        assert_eq!(meta.len(), 65 << 20);
        assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
        copy(&tempfile::tempfile().unwrap(), &to, end).unwrap();
    }
}
