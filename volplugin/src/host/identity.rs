//! Who this installation is: one data folder, one label, one process, one instance id, the machine's boot.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use uuid::Uuid;
use volcore::name::{BootId, HostName};

/// The identity, held as long as the process lives.
#[derive(Debug)]
pub struct Identity {
    /// Made once for the data folder.
    pub instance: Uuid,
    /// The machine's present boot.
    pub boot: BootId,
    /// Keep a second process out of the folder, and from the label.
    _locks: [Flock<File>; 2],
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
    /// Another volplugin of this machine has the label: to volmaster they would be one host, and each would
    /// be let in where the other writes.
    #[error(
        "another volplugin runs on this machine as host {host}; stop it, or give this one a --host-label of its own"
    )]
    LabelInUse {
        /// The label.
        host: HostName,
    },
    /// The folder speaks of volumes that another host holds.
    #[error(
        "data folder {folder} was used as host {before}, which holds volumes still; start volplugin with --host-label \
         {before} until they are given back, or give it another --data-dir"
    )]
    OtherLabel {
        /// The folder.
        folder: PathBuf,
        /// The label of the last start.
        before: String,
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
    /// Takes the folder and the label, making folders if need be. `run` is one that all volplugins of this
    /// machine share, and that a reboot empties.
    pub fn take(folder: &Path, host: &HostName, run: &Path) -> Result<Identity, IdentityError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(io(folder))?;
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| IdentityError::InUse { folder: folder.to_owned() })?;
        fs::create_dir_all(run).map_err(io(run))?;
        let label_path = run.join(format!("{host}.lock"));
        let label = File::create(&label_path).map_err(io(&label_path))?;
        let label = Flock::lock(label, FlockArg::LockExclusiveNonblock)
            .map_err(|_| IdentityError::LabelInUse { host: host.clone() })?;
        let name_path = folder.join("host-label");
        match fs::read_to_string(&name_path) {
            Ok(before) if before.trim() == host.as_str() => {}
            Ok(before) if holds_something(&folder.join("held")) => {
                let (folder, before) = (folder.to_owned(), before.trim().to_owned());
                return Err(IdentityError::OtherLabel { folder, before });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io(&name_path)(error));
            }
            Ok(_) | Err(_) => {
                write_durably(&name_path, host.as_str().as_bytes()).map_err(io(&name_path))?;
            }
        }
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
        Ok(Identity { instance, boot, _locks: [lock, label] })
    }
}

/// Whether there is a file anywhere below the folder.
fn holds_something(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        entry.file_type().is_ok_and(|kind| kind.is_file()) || holds_something(&entry.path())
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        name.parse().unwrap()
    }

    #[test]
    fn a_label_is_taken_once() {
        let (run, a, b) = (tempfile::tempdir(), tempfile::tempdir(), tempfile::tempdir());
        let (run, a, b) = (run.unwrap(), a.unwrap(), b.unwrap());
        let first = Identity::take(a.path(), &host("h1"), run.path()).unwrap();
        let error = Identity::take(a.path(), &host("h2"), run.path()).unwrap_err();
        assert!(matches!(error, IdentityError::InUse { .. }), "{error}");
        let error = Identity::take(b.path(), &host("h1"), run.path()).unwrap_err();
        assert!(matches!(error, IdentityError::LabelInUse { .. }), "{error}");
        Identity::take(b.path(), &host("h2"), run.path()).unwrap();
        drop(first);
        Identity::take(a.path(), &host("h1"), run.path()).unwrap();
    }

    #[test]
    fn a_label_changes_only_when_nothing_is_held() {
        let (run, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let instance = Identity::take(folder.path(), &host("old"), run.path()).unwrap().instance;
        let held = folder.path().join("held/t");
        fs::create_dir_all(&held).unwrap();
        fs::write(held.join("v.json"), "{}").unwrap();
        let error = Identity::take(folder.path(), &host("new"), run.path()).unwrap_err();
        assert!(error.to_string().contains("--host-label old"), "{error}");
        fs::remove_file(held.join("v.json")).unwrap();
        assert_eq!(
            Identity::take(folder.path(), &host("new"), run.path()).unwrap().instance,
            instance
        );
    }
}
