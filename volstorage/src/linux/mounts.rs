//! Mounting a device on a folder, and undoing that.
//!
//! The calls here block, and belong behind [`crate::blocking`]. What is mounted is decided by the
//! superblock, never by what the volume says; nothing is ever formatted.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use uuid::Uuid;
use volcore::options::MountOption;

use super::mountinfo;
use super::probe::Filesystem;
use crate::host::{HostError, Mode};

/// What is to be mounted where.
pub(super) struct Job {
    /// The device.
    pub device: PathBuf,
    /// The folder.
    pub target: PathBuf,
    /// What is on the device.
    pub filesystem: Filesystem,
    /// From the policy.
    pub options: Vec<MountOption>,
    /// Whether it may be written to.
    pub mode: Mode,
    /// The UUID that the file system is to have.
    pub identity: Option<Uuid>,
    /// Whose UUID it has.
    pub uuid: Whose,
}

/// Whose UUID a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Its own.
    Own,
    /// Maybe also that of another one on this machine.
    Shared,
}

/// What is at a folder.
pub(super) enum At {
    /// No mount.
    Nothing,
    /// This device, in this mode.
    Device(Mode),
    /// Something else, as in the source column of mountinfo.
    Other(PathBuf),
}

/// Looks at a folder.
pub(super) fn at(target: &Path, device: &Path) -> io::Result<At> {
    Ok(match mountinfo::at(target)?.pop() {
        None => At::Nothing,
        Some(mount) if mount.source == device && mount.read_only => At::Device(Mode::ReadOnly),
        Some(mount) if mount.source == device => At::Device(Mode::ReadWrite),
        Some(mount) => At::Other(mount.source),
    })
}

impl Job {
    /// Mounts. The folder exists.
    pub fn mount(&self) -> Result<(), HostError> {
        let (flags, mut data) = flags_and_data(&self.options, self.mode, self.filesystem);
        if (self.filesystem, self.uuid) == (Filesystem::Xfs, Whose::Shared) {
            data.push_str(if data.is_empty() { "nouuid" } else { ",nouuid" });
        }
        let name = self.filesystem.name();
        mount(Some(&self.device), &self.target, Some(name), flags, Some(data.as_str()))
            .map_err(|error| self.explain(error, &data))?;
        if self.mode == Mode::ReadWrite {
            self.make_empty();
        }
        Ok(())
    }

    /// Removes the folder that mkfs.ext4 makes where there is nothing else. Docker copies the content
    /// of an image to an empty volume only, and that folder would be content. e2fsck makes it again
    /// when it finds something to put there.
    fn make_empty(&self) {
        let lost = self.target.join("lost+found");
        let entries = std::fs::read_dir(&self.target).into_iter().flatten();
        if entries.flatten().take(2).map(|entry| entry.path()).eq([lost.clone()]) {
            // It stays where it is not empty.
            let _ = std::fs::remove_dir(lost);
        }
    }

    fn explain(&self, error: Errno, data: &str) -> HostError {
        let (device, name) = (self.device.display(), self.filesystem.name());
        let unmountable = |reason| HostError::Unmountable { device: device.to_string(), reason };
        match error {
            Errno::ENODEV => unmountable(format!(
                "this kernel has no {name}; load the module {name}, or run a kernel that has it"
            )),
            Errno::EUCLEAN => {
                unmountable(format!("its {name} is damaged; the kernel log says more"))
            }
            Errno::EINVAL if !data.is_empty() => unmountable(format!(
                "the kernel refuses its {name} with the options `{data}`: one of them is unknown to it, or \
                 the file system is damaged; the kernel log says more"
            )),
            Errno::EEXIST => unmountable(format!(
                "another {name} with its UUID is known to this kernel, maybe that of the volume it was cloned from"
            )),
            Errno::EACCES | Errno::EROFS => {
                unmountable("it is to be written to, and the device is read-only".to_owned())
            }
            error => HostError::Failed {
                action: format!("mount {device} ({name}) on {}", self.target.display()),
                source: error.into(),
            },
        }
    }
}

/// The options that are flags of `mount(2)`; the file system gets the rest.
fn flags_and_data(
    options: &[MountOption],
    mode: Mode,
    filesystem: Filesystem,
) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options.iter().map(MountOption::as_str) {
        match option {
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "nodiratime" => flags |= MsFlags::MS_NODIRATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "strictatime" => flags |= MsFlags::MS_STRICTATIME,
            "lazytime" => flags |= MsFlags::MS_LAZYTIME,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            "dirsync" => flags |= MsFlags::MS_DIRSYNC,
            // What the kernel does anyway, said in the words of mount(8).
            "atime" | "diratime" | "dev" | "suid" | "exec" | "async" | "nolazytime" => {}
            other => data.push(other),
        }
    }
    if mode == Mode::ReadOnly {
        // Several hosts may have it: not even the journal may be replayed.
        flags |= MsFlags::MS_RDONLY;
        data.push(filesystem.without_recovery());
    }
    (flags, data.join(","))
}

/// One attempt to unmount all that the suite has mounted on a folder.
pub(super) enum Unmounted {
    /// There is none, by this or before.
    Gone,
    /// Somebody uses the one on top.
    Busy,
    /// On top is something that the suite has not mounted.
    Foreign(PathBuf),
}

/// Unmounts the devices that are mounted on a folder, one above the other.
pub(super) fn unmount(target: &Path) -> io::Result<Unmounted> {
    loop {
        match mountinfo::at(target)?.pop() {
            None => return Ok(Unmounted::Gone),
            Some(mount) if !is_image(&mount.source) => return Ok(Unmounted::Foreign(mount.source)),
            Some(_) => {}
        }
        match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
            // Gone meanwhile: the next round tells.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(Errno::EBUSY) => return Ok(Unmounted::Busy),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether this is a device that an image can be mapped to.
pub(super) fn is_image(source: &Path) -> bool {
    let name = source.to_str().and_then(|source| source.strip_prefix("/dev/"));
    name.is_some_and(|name| ["loop", "rbd", "nbd"].iter().any(|kind| name.starts_with(kind)))
}

/// Makes a folder that is below `root`, with those above it.
pub(super) fn make_folder(folder: &Path, root: &Path) -> io::Result<()> {
    if !is_below(folder, root) {
        let message = format!("{} is not below {}", folder.display(), root.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    loop {
        match std::fs::create_dir_all(folder) {
            // Another volume's clean-up has just removed the folder above it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && root.exists() => {}
            done => return done,
        }
    }
}

/// Removes an empty folder and the empty ones above it, up to but not including `root`.
/// Says whether the first one is gone by this.
pub(super) fn remove_folders(folder: &Path, root: &Path) -> io::Result<bool> {
    if !is_below(folder, root) {
        return Ok(false);
    }
    let removed = match std::fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    for parent in folder.ancestors().skip(1).take_while(|parent| is_below(parent, root)) {
        // The first one with something else in it ends this.
        if std::fs::remove_dir(parent).is_err() {
            break;
        }
    }
    Ok(removed)
}

/// Whether `path` is really below `root`, without a detour.
pub(super) fn is_below(path: &Path, root: &Path) -> bool {
    let plain = |part| matches!(part, std::path::Component::Normal(_));
    path.strip_prefix(root).is_ok_and(|rest| rest != Path::new("") && rest.components().all(plain))
}

#[cfg(test)]
mod tests {
    use super::super::probe::Ext;
    use super::*;

    fn options(text: &str) -> Vec<MountOption> {
        text.split(',').map(|option| option.parse().unwrap()).collect()
    }

    #[test]
    fn flags_and_data_are_told_apart() {
        let given = options("noatime,commit=30,nosuid,suid,discard");
        let ext = Filesystem::Ext(Ext::Clean);
        let (flags, data) = flags_and_data(&given, Mode::ReadWrite, ext);
        assert_eq!(flags, MsFlags::MS_NOATIME | MsFlags::MS_NOSUID);
        assert_eq!(data, "commit=30,discard");
        let (flags, data) = flags_and_data(&given[..1], Mode::ReadOnly, ext);
        assert_eq!(flags, MsFlags::MS_NOATIME | MsFlags::MS_RDONLY);
        assert_eq!(data, "noload");
    }

    #[test]
    fn only_folders_below_the_root_are_touched() {
        let below = |path| is_below(Path::new(path), Path::new("/mnt/volplugin"));
        assert!(below("/mnt/volplugin/rbd/t.v"));
        for path in ["/mnt/volplugin", "/mnt/volplugin/../x", "/mnt/volplugins/a", "/mnt", "a"] {
            assert!(!below(path), "{path}");
        }
    }

    #[test]
    fn empty_folders_are_removed_up_to_the_root() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let folder = root.join("pool/a");
        make_folder(&folder, root).unwrap();
        std::fs::create_dir(root.join("pool/b")).unwrap();
        assert!(remove_folders(&folder, root).unwrap());
        assert!(!remove_folders(&folder, root).unwrap());
        assert!(remove_folders(&root.join("pool/b"), root).unwrap());
        assert!(root.exists() && !root.join("pool").exists());
        assert!(make_folder(Path::new("/elsewhere"), root).is_err());
    }

    #[test]
    fn image_devices_are_told_from_others() {
        for (source, is) in [
            ("/dev/loop3", true),
            ("/dev/rbd0", true),
            ("/dev/nbd0", true),
            ("tmpfs", false),
            ("/dev/vda", false),
        ] {
            assert_eq!(is_image(Path::new(source)), is, "{source}");
        }
    }
}
