//! The file systems that the suite mounts, as they are told apart.

use std::fmt;

use crate::format::FormatCommand;
use crate::name::FilesystemName;

/// Which file system is on an image. Names of a policy are the tenant's own; this is what is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesystemKind {
    /// ext2, ext3 and ext4, which one driver of the kernel serves.
    Ext4,
    /// xfs.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl FilesystemKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            FilesystemKind::Ext4 => "ext4",
            FilesystemKind::Xfs => "xfs",
            FilesystemKind::Btrfs => "btrfs",
        }
    }

    /// What a file system of a policy is, by the command that makes it, else by its name; `None` where neither tells.
    pub fn of(name: &FilesystemName, format: &FormatCommand) -> Option<FilesystemKind> {
        let mkfs = format.as_str().split_whitespace().find_map(|word| {
            let (_, made) = word.rsplit_once("mkfs.")?;
            FilesystemKind::named(made)
        });
        mkfs.or_else(|| FilesystemKind::named(name.as_str()))
    }

    fn named(name: &str) -> Option<FilesystemKind> {
        match name {
            "ext2" | "ext3" | "ext4" => Some(FilesystemKind::Ext4),
            "xfs" => Some(FilesystemKind::Xfs),
            "btrfs" => Some(FilesystemKind::Btrfs),
            _ => None,
        }
    }
}

impl fmt::Display for FilesystemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_known_by_its_command_or_its_name() {
        let of = |name: &str, format: &str| {
            FilesystemKind::of(&name.parse().unwrap(), &format.parse().unwrap())
        };
        assert_eq!(of("ext4", "mkfs.ext4 -m0 %"), Some(FilesystemKind::Ext4));
        assert_eq!(of("big", "/sbin/mkfs.xfs -f %"), Some(FilesystemKind::Xfs));
        assert_eq!(of("btrfs", "/opt/format %"), Some(FilesystemKind::Btrfs));
        assert_eq!(of("ext4", "mkfs.xfs %"), Some(FilesystemKind::Xfs));
        assert_eq!(of("own", "mkfs.own %"), None);
    }
}
