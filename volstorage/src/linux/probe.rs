//! What file system is on a device, by its superblock.
//!
//! Knows the three file systems that the suite mounts, their UUIDs, and of ext4 whether it wants to be looked
//! at first. Reads only; anything that is not recognised is never written to by the suite.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use uuid::Uuid;

/// A recognised file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filesystem {
    /// ext2, ext3 and ext4, which one driver of the kernel serves.
    Ext(Ext),
    /// xfs; the kernel replays its log.
    Xfs,
    /// btrfs; the kernel replays its log.
    Btrfs,
}

/// The state that an ext file system was left in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ext {
    /// Unmounted in order.
    Clean,
    /// Its journal has to be replayed, it was not unmounted, or errors were found in it.
    Preen,
}

/// What is on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Its type and state.
    pub filesystem: Filesystem,
    /// By which the kernel and its tools know it.
    pub uuid: Uuid,
}

impl Filesystem {
    /// The name for `mount(2)`.
    pub fn name(self) -> &'static str {
        match self {
            Filesystem::Ext(_) => "ext4",
            Filesystem::Xfs => "xfs",
            Filesystem::Btrfs => "btrfs",
        }
    }

    /// What keeps a read-only mount from replaying the log, which would write.
    pub fn without_recovery(self) -> &'static str {
        match self {
            Filesystem::Ext(_) => "noload",
            Filesystem::Xfs => "norecovery",
            Filesystem::Btrfs => "rescue=nologreplay",
        }
    }
}

/// The superblock of ext is at 1 KiB, that of btrfs at 64 KiB.
pub(super) const EXT_OFFSET: usize = 1024;
pub(super) const BTRFS_OFFSET: u64 = 64 << 10;
/// What is read of a superblock of btrfs.
const BTRFS_HEAD: usize = 72;

/// Looks at a device.
pub(super) fn probe(device: &Path) -> io::Result<Option<Superblock>> {
    let device = File::open(device)?;
    let mut head = [0; 4096];
    let got = read_up_to(&device, &mut head, 0)?;
    if let Some(found) = recognise(&head[..got]) {
        return Ok(Some(found));
    }
    let mut block = [0; BTRFS_HEAD];
    let got = read_up_to(&device, &mut block, BTRFS_OFFSET)?;
    let is_btrfs = got == BTRFS_HEAD && &block[64..] == b"_BHRfS_M";
    let found = || Some(Superblock { filesystem: Filesystem::Btrfs, uuid: uuid(&block, 32)? });
    Ok(if is_btrfs { found() } else { None })
}

fn read_up_to(device: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match device.read_at(&mut buffer[got..], offset + got as u64)? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

/// The UUID in a superblock; all three write it in the order in which it is shown.
fn uuid(block: &[u8], offset: usize) -> Option<Uuid> {
    Uuid::from_slice(block.get(offset..offset + 16)?).ok()
}

/// Recognises what has its superblock in the first 4 KiB.
fn recognise(head: &[u8]) -> Option<Superblock> {
    if head.starts_with(b"XFSB") {
        return Some(Superblock { filesystem: Filesystem::Xfs, uuid: uuid(head, 32)? });
    }
    // Documentation/filesystems/ext4/super.rst of the kernel; little-endian.
    let number = |offset: usize| {
        let at = EXT_OFFSET + offset;
        head.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    let (magic, state, incompatible) = (number(0x38)?, number(0x3A)?, number(0x60)?);
    const UNMOUNTED: u16 = 1;
    const ERRORS: u16 = 2;
    const RECOVER: u16 = 4;
    if magic != 0xEF53 {
        return None;
    }
    let clean = state & UNMOUNTED != 0 && state & ERRORS == 0 && incompatible & RECOVER == 0;
    let state = if clean { Ext::Clean } else { Ext::Preen };
    Some(Superblock { filesystem: Filesystem::Ext(state), uuid: uuid(head, EXT_OFFSET + 0x68)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = Uuid::from_u128(0x6ed2116f_8ab7_4d99_a178_7d9a78b5af71);

    fn ext(state: u16, incompatible: u16) -> Vec<u8> {
        let mut head = vec![0; 4096];
        for (offset, number) in [(0x38, 0xEF53), (0x3A, state), (0x60, incompatible)] {
            head[EXT_OFFSET + offset..][..2].copy_from_slice(&u16::to_le_bytes(number));
        }
        head[EXT_OFFSET + 0x68..][..16].copy_from_slice(UUID.as_bytes());
        head
    }

    #[test]
    fn superblocks_are_recognised() {
        let is = |head: &[u8], wanted: Option<Filesystem>| {
            let wanted = wanted.map(|filesystem| Superblock { filesystem, uuid: UUID });
            assert_eq!(recognise(head), wanted);
        };
        is(&ext(1, 0x2C2), Some(Filesystem::Ext(Ext::Clean)));
        is(&ext(1, 0x2C6), Some(Filesystem::Ext(Ext::Preen)));
        is(&ext(3, 0x2C2), Some(Filesystem::Ext(Ext::Preen)));
        is(&ext(0, 0x2C2), Some(Filesystem::Ext(Ext::Preen)));
        let mut xfs = [0; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[32..48].copy_from_slice(UUID.as_bytes());
        is(&xfs, Some(Filesystem::Xfs));
        is(b"XFSB", None);
        is(&[0; 4096], None);
        is(b"", None);
    }

    #[test]
    fn btrfs_is_found_further_in_and_short_devices_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("image");
        std::fs::write(&device, b"short").unwrap();
        assert_eq!(probe(&device).unwrap(), None);
        let mut image = vec![0; (64 << 10) + 64];
        image[(64 << 10) + 32..][..16].copy_from_slice(UUID.as_bytes());
        image.extend_from_slice(b"_BHRfS_M");
        std::fs::write(&device, &image).unwrap();
        let found = Superblock { filesystem: Filesystem::Btrfs, uuid: UUID };
        assert_eq!(probe(&device).unwrap(), Some(found));
    }
}
