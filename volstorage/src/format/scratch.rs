//! The folder for scratch files: each run of the program has a folder of its own in it.
//!
//! A run holds a lock on its folder. The next start removes the folders that nobody holds, so what a
//! crash has left is gone then, and several programs may share a scratch folder.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::is_plain;

/// How the folders of runs are called, before the uuid.
const PREFIX: &str = "format-";

/// The scratch folder of this run. Cheap to clone; removed when the last clone and the last file in
/// it are gone.
#[derive(Clone, Debug)]
pub struct Scratch {
    folder: Arc<RunFolder>,
}

#[derive(Debug)]
struct RunFolder {
    path: PathBuf,
    /// The lock ends with the descriptor, at the latest with the process.
    _lock: File,
}

impl Scratch {
    /// Makes the folder of this run in `root`, which is made too, and removes those of runs that
    /// have ended. Blocking; for the start of a program.
    ///
    /// # Errors
    /// When the folder cannot be made, or its path is not [plain](super::is_plain).
    pub fn open(root: &Path) -> io::Result<Scratch> {
        make_folder(root)?;
        let root = fs::canonicalize(root)?;
        if !is_plain(&root) {
            let why = "the path of a scratch folder may have letters, digits and /._- only";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        remove_ended(&root)?;
        // Another start may see the new folder before it is locked, and remove it.
        for _ in 0..100 {
            let path = root.join(format!("{PREFIX}{}", Uuid::new_v4().simple()));
            make_folder(&path)?;
            match try_lock(&path) {
                Ok(Some(lock)) => {
                    return Ok(Scratch { folder: Arc::new(RunFolder { path, _lock: lock }) });
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("others remove the scratch folder again and again"))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.folder.path
    }

    /// A new sparse file of `len` bytes. Blocking.
    ///
    /// # Errors
    /// When it cannot be made, `EFBIG` for one that the file system of the folder cannot hold.
    pub fn file(&self, len: u64) -> io::Result<ScratchFile> {
        let path = self.folder.path.join(Uuid::new_v4().simple().to_string());
        let file = File::create_new(&path)?;
        let scratch = ScratchFile { path, _folder: self.folder.clone() };
        file.set_len(len)?;
        Ok(scratch)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        report(&self.path, fs::remove_dir_all(&self.path));
    }
}

/// A file in the scratch folder, removed on drop.
#[derive(Debug)]
pub struct ScratchFile {
    path: PathBuf,
    _folder: Arc<RunFolder>,
}

impl ScratchFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        report(&self.path, fs::remove_file(&self.path));
    }
}

fn report(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed {
        let path = path.display();
        tracing::warn!(%path, %error, "could not remove a scratch file; the next start will");
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Locks a folder that nobody else has locked, and that is still there.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let folder = File::open(path)?;
    match folder.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let (ours, there) = (folder.metadata()?, fs::metadata(path)?);
    Ok((ours.ino() == there.ino()).then_some(folder))
}

fn remove_ended(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let is_run = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_run && let Ok(Some(lock)) = try_lock(&entry.path()) {
            report(&entry.path(), fs::remove_dir_all(entry.path()));
            drop(lock);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folder_go_with_their_owner() {
        let root = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(&root.path().join("a/b")).unwrap();
        let folder = scratch.path().to_owned();
        let file = scratch.file(1 << 40).unwrap();
        assert_eq!(fs::metadata(file.path()).unwrap().len(), 1 << 40);
        drop(scratch);
        assert!(file.path().exists());
        drop(file);
        assert!(!folder.exists());
    }

    #[test]
    fn a_start_removes_what_crashes_have_left_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let running = Scratch::open(root.path()).unwrap();
        let file = running.file(1).unwrap();
        let crashed = root.path().join("format-0123");
        fs::create_dir(&crashed).unwrap();
        fs::write(crashed.join("left"), "x").unwrap();
        let foreign = root.path().join("other");
        fs::create_dir(&foreign).unwrap();
        let second = Scratch::open(root.path()).unwrap();
        assert!(file.path().exists() && second.path().exists() && foreign.exists());
        assert!(!crashed.exists());
    }

    #[test]
    fn a_path_that_a_shell_would_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let error = Scratch::open(&root.path().join("a b")).unwrap_err();
        assert!(error.to_string().contains("letters, digits"), "{error}");
    }
}
