//! The kernel's list of mounts, `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)).
//!
//! Reading it asks no file system anything, so a server that hangs cannot hold it up. Used for our
//! own mounts and for those of containers; changes nothing.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its number, as in `/proc/<pid>/fdinfo`.
    pub id: u64,
    /// Major and minor number of the file system: the block device's, except for btrfs.
    pub device: (u32, u32),
    /// Which part of the file system is shown; `/` is all of it.
    pub root: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// Whether it was mounted read-only.
    pub read_only: bool,
    /// The type, e.g. `ext4`, `fuse.volplugin`.
    pub filesystem: String,
    /// What is mounted, e.g. `/dev/loop3`.
    pub source: PathBuf,
}

/// The mounts of this process's namespace, the newest last.
pub(super) fn read() -> io::Result<Vec<Mount>> {
    std::fs::read("/proc/self/mountinfo").map(|text| parse(&text))
}

/// The mounts exactly at `target`, the one on top last.
pub(super) fn at(target: &Path) -> io::Result<Vec<Mount>> {
    Ok(read()?.into_iter().filter(|mount| mount.target == target).collect())
}

/// Reads a mountinfo. Lines that cannot be read are left out.
pub(super) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let _parent = fields.next()?;
    let mut device = fields.next()?.split(|byte| *byte == b':');
    let device = (number(device.next()?)?, number(device.next()?)?);
    let root = path(fields.next()?);
    let target = path(fields.next()?);
    let read_only = fields.next()?.split(|byte| *byte == b',').any(|option| option == b"ro");
    // Any number of optional fields, then a dash.
    fields.by_ref().find(|field| *field == b"-")?;
    let filesystem = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = path(fields.next()?);
    Some(Mount { id, device, root, target, read_only, filesystem, source })
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Space, tab, newline and backslash are written as three octal digits.
fn path(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n\
            42 27 0:39 / /m rw - fuse.volplugin rbd/t.v rw,user_id=0\n\
            damaged line\n\
            43 27 7:3 / /a\\134b nosuid,ro - ext4 /dev/loop3 rw\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 3);
        assert_eq!(
            mounts[0],
            Mount {
                id: 36,
                device: (98, 0),
                root: "/mnt1".into(),
                target: "/mnt 2".into(),
                read_only: false,
                filesystem: "ext3".into(),
                source: "/dev/root".into(),
            }
        );
        assert_eq!(mounts[1].filesystem, "fuse.volplugin");
        assert_eq!(mounts[2].target, Path::new("/a\\b"));
        assert!(mounts[2].read_only);
    }

    #[test]
    fn our_own_mounts_are_there() {
        assert_eq!(at(Path::new("/proc")).unwrap().len(), 1);
    }
}
