//! Who this installation is: one data folder, one process, one instance id, the machine's boot.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use uuid::Uuid;
use volcore::name::BootId;

/// The identity, held as long as the process lives.
#[derive(Debug)]
pub struct Identity {
    /// Made once for the data folder.
    pub instance: Uuid,
    /// The machine's present boot.
    pub boot: BootId,
    /// Keeps a second process out of the folder.
    _lock: Flock<File>,
}

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another volplugin uses the folder.
    #[error(
        "data folder {folder} is used by another volplugin; stop it, or give this one a --data-dir of its own"
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A file in it cannot be read or written.
    #[error("could not use {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path} does not hold {what}; move it away if it is not yours")]
    Garbled {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
}

impl Identity {
    /// Takes the folder, making it if need be.
    pub fn take(folder: &Path) -> Result<Identity, IdentityError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(io(folder))?;
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| IdentityError::InUse { folder: folder.to_owned() })?;
        let boot_path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot_path).map_err(io(boot_path))?;
        let garbled = |path: &Path, what| IdentityError::Garbled { path: path.to_owned(), what };
        let boot = boot.trim().parse().map_err(|_| garbled(boot_path, "a boot id"))?;
        let path = folder.join("instance-id");
        let instance = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| garbled(&path, "a UUID"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = Uuid::new_v4();
                write_durably(&path, made.to_string().as_bytes()).map_err(io(&path))?;
                made
            }
            Err(error) => return Err(io(&path)(error)),
        };
        Ok(Identity { instance, boot, _lock: lock })
    }
}

/// Replaces a file so that after a power cut it holds either the old or the new content.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
