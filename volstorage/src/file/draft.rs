//! A file that is being made into an image. Blocking.
//!
//! Whoever makes it holds a lock on it (of the open file, `fcntl(2)`), so that a clean-up can tell
//! an attempt that is under way from one that a crash has left.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, RenameFlags, fcntl, renameat2};
use uuid::Uuid;

use super::xattr;

/// A draft of ours.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    /// Makes one, blank.
    pub(super) fn make(path: &Path, len: u64) -> io::Result<Draft> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let draft = Draft { path: path.to_owned(), file };
        if !lock(&draft.file)? {
            return Err(io::Error::other("a file that was made just now is locked by another"));
        }
        draft.file.set_len(len)?;
        Ok(draft)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes down for which volume it is, and waits until that and the data are on disk.
    pub(super) fn complete(&self, uid: Uuid) -> io::Result<()> {
        // The format command may have put another file in the place of ours.
        let file = File::open(&self.path)?;
        xattr::set_uid(&file, uid).map_err(xattr::explained)?;
        file.sync_all()
    }

    /// Gives it its final name, unless that is taken (`EEXIST`).
    pub(super) fn rename(&self, to: &Path) -> io::Result<()> {
        rename_new(&self.path, to)
    }

    /// Whether it is what has that name.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (there, ours) = (path.metadata()?, self.file.metadata()?);
        Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }
}

/// Renames, unless the new name is taken (`EEXIST`).
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?;
    Ok(())
}

/// Whether a draft is being worked on by somebody.
pub(super) fn is_locked(path: &Path) -> io::Result<bool> {
    let file = OpenOptions::new().write(true).open(path)?;
    Ok(!lock(&file)?)
}

/// Locks the whole file, until it is closed; false where another has.
///
/// Not `flock(2)`, which programs that write file systems use themselves.
fn lock(file: &File) -> io::Result<bool> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
