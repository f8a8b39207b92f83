//! How large a file system is, and how large its tool would make it on a device of a given size.
//!
//! No file system takes every block: what a device has beyond is less than the file system can use, and running its
//! tool would change nothing. The rules:
//!
//! * ext (`resize2fs`): whole pages; a last group is made only if it has room for its own tables and 50 blocks more.
//! * xfs (`xfs_growfs`, `xfs_growfs_data_private` of the kernel): whole blocks; a last group has 64 of them at least.
//! * btrfs: whole sectors, of 64 KiB at most; and nothing below 256 MiB (`btrfs_ioctl_resize` of the kernel).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::probe::EXT_OFFSET;

/// A file system's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Which it is.
    pub filesystem: &'static str,
    /// What it has, in bytes.
    pub size: u64,
    /// What it would have on its device.
    pub possible: u64,
}

impl Geometry {
    /// Whether it fills its device.
    pub fn is_full(&self) -> bool {
        self.size >= self.possible
    }
}

/// The members of an ext superblock that decide (Documentation/filesystems/ext4/super.rst of the kernel).
#[derive(Clone, Debug)]
struct Ext {
    blocks: u64,
    block_size: u64,
    first_block: u64,
    blocks_per_group: u64,
    /// The tables of inodes in each group, in blocks.
    inode_blocks: u64,
    descriptor_size: u64,
    reserved: u64,
    sparse: bool,
}

impl Ext {
    fn read(head: &[u8; 1024]) -> Option<Ext> {
        let le16 = |at: usize| u64::from(u16::from_le_bytes([head[at], head[at + 1]]));
        let le32 = |at: usize| le16(at) | le16(at + 2) << 16;
        const IS_64BIT: u64 = 0x80;
        const SPARSE_SUPER: u64 = 1;
        let wide = le32(0x60) & IS_64BIT != 0;
        let block_size = 1024_u64.checked_shl(u32::try_from(le32(0x18)).ok()?)?;
        // The first revision has no member for it.
        let inode_size = if le32(0x4C) == 0 { 128 } else { le16(0x58) };
        let read = Ext {
            blocks: le32(4) | if wide { le32(0x150) << 32 } else { 0 },
            block_size,
            first_block: le32(0x14),
            blocks_per_group: le32(0x20),
            inode_blocks: (le32(0x28) * inode_size).div_ceil(block_size.max(1)),
            descriptor_size: if wide { le16(0xFE).max(32) } else { 32 },
            reserved: le16(0xCE),
            sparse: le32(0x64) & SPARSE_SUPER != 0,
        };
        (read.block_size >= 1024 && read.blocks_per_group > 0).then_some(read)
    }

    /// How many blocks resize2fs would make it on so many bytes.
    fn possible(&self, device: u64) -> u64 {
        const PAGE: u64 = 4096;
        const SPARE: u64 = 50;
        let blocks =
            device / PAGE.max(self.block_size) * PAGE.max(self.block_size) / self.block_size;
        let in_groups = blocks.saturating_sub(self.first_block);
        let (groups, rest) = (in_groups / self.blocks_per_group, in_groups % self.blocks_per_group);
        let mut tables = 2 + self.inode_blocks;
        if self.has_superblock(groups) {
            let descriptors = (groups + 1) * self.descriptor_size;
            tables += 1 + descriptors.div_ceil(self.block_size) + self.reserved;
        }
        if groups > 0 && rest > 0 && rest < tables + SPARE { blocks - rest } else { blocks }
    }

    fn has_superblock(&self, group: u64) -> bool {
        let is_power = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        !self.sparse || group <= 1 || [3, 5, 7].into_iter().any(is_power)
    }
}

/// Of the ext file system on a device. The superblock that is read is the one that a mounted one has in memory.
pub(super) fn ext(path: &Path, device: u64) -> io::Result<Geometry> {
    let mut head = [0; 1024];
    File::open(path)?.read_exact_at(&mut head, EXT_OFFSET as u64)?;
    let ext = Ext::read(&head).ok_or_else(|| io::Error::other("it has no superblock of ext4"))?;
    let (size, possible) = (ext.blocks * ext.block_size, ext.possible(device) * ext.block_size);
    Ok(Geometry { filesystem: "ext4", size, possible })
}

#[repr(C)]
#[derive(Default)]
struct XfsGeometry {
    block_size: u32,
    realtime_extent: u32,
    group_blocks: u32,
    groups: u32,
    log_blocks: u32,
    sector_size: u32,
    inode_size: u32,
    inode_percent: u32,
    blocks: u64,
    realtime_blocks: u64,
    realtime_extents: u64,
    log_start: u64,
    uuid: [u8; 16],
    rest: [u32; 8],
}

nix::ioctl_read!(
    /// The geometry of a mounted xfs (`XFS_IOC_FSGEOMETRY_V4`).
    xfs_geometry,
    b'X',
    124,
    XfsGeometry
);

/// Of the xfs that is mounted on a folder.
pub(super) fn xfs(target: &Path, device: u64) -> io::Result<Geometry> {
    let (folder, mut found) = (File::open(target)?, XfsGeometry::default());
    // SAFETY: the descriptor is open, and the structure is the one that this request fills.
    unsafe { xfs_geometry(folder.as_raw_fd(), &raw mut found) }?;
    let (block, group) = (u64::from(found.block_size), u64::from(found.group_blocks));
    let possible = xfs_possible(device / block.max(1), group);
    Ok(Geometry { filesystem: "xfs", size: found.blocks * block, possible: possible * block })
}

fn xfs_possible(blocks: u64, group: u64) -> u64 {
    const LEAST: u64 = 64;
    let rest = blocks.checked_rem(group).unwrap_or_default();
    if rest < LEAST { blocks - rest } else { blocks }
}

#[repr(C)]
struct BtrfsDevice {
    id: u64,
    uuid: [u8; 16],
    used: u64,
    size: u64,
    rest: [u64; 507],
}

nix::ioctl_readwrite!(
    /// A device of a mounted btrfs (`BTRFS_IOC_DEV_INFO`).
    btrfs_device,
    0x94,
    30,
    BtrfsDevice
);

/// Of the btrfs that is mounted on a folder, which has one device.
pub(super) fn btrfs(target: &Path, device: u64) -> io::Result<Geometry> {
    const SECTOR: u64 = 64 << 10;
    const LEAST: u64 = 256 << 20;
    let folder = File::open(target)?;
    let mut found = BtrfsDevice { id: 1, uuid: [0; 16], used: 0, size: 0, rest: [0; 507] };
    // SAFETY: the descriptor is open, and the structure is the one that this request reads and fills.
    unsafe { btrfs_device(folder.as_raw_fd(), &raw mut found) }?;
    let possible = device / SECTOR * SECTOR;
    if found.size < possible && possible < LEAST {
        // What the kernel itself has to say is EINVAL.
        return Err(io::Error::other("btrfs can be made larger only from 256 MiB on"));
    }
    Ok(Geometry { filesystem: "btrfs", size: found.size, possible })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// As `mkfs.ext4 -b 4096` makes it on 64 MiB.
    fn ext() -> Ext {
        Ext {
            blocks: 64 * MIB / 4096,
            block_size: 4096,
            first_block: 0,
            blocks_per_group: 32768,
            inode_blocks: 1024,
            descriptor_size: 64,
            reserved: 7,
            sparse: true,
        }
    }

    /// What resize2fs 1.47 made of such a file system on files of these sizes.
    #[test]
    fn ext_is_as_large_as_resize2fs_makes_it() {
        let made = |mib: u64| ext().possible(mib * MIB);
        assert_eq!([made(64), made(128), made(129)], [16384, 32768, 32768]);
        assert_eq!([made(136), made(200)], [34816, 51200]);
        assert_eq!(ext().possible(64 * MIB + 3 * 512), 16384);
        // Blocks of 1 KiB, of which four are a page.
        let small = Ext { block_size: 1024, first_block: 1, blocks_per_group: 8192, ..ext() };
        assert_eq!(small.possible(64 * MIB + 7 * 512), 65536);
    }

    #[test]
    fn backups_of_the_superblock_are_sparse() {
        let with: Vec<u64> = (0..50).filter(|group| ext().has_superblock(*group)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49]);
    }

    /// What xfs_growfs 6.1 made of 320 MiB in groups of 80 MiB, when there were some blocks more.
    #[test]
    fn xfs_has_no_group_below_64_blocks() {
        assert_eq!(xfs_possible(81920 + 40, 20480), 81920);
        assert_eq!(xfs_possible(81920 + 100, 20480), 82020);
    }

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!(size_of::<XfsGeometry>(), 112);
        assert_eq!(size_of::<BtrfsDevice>(), 4096);
    }
}
