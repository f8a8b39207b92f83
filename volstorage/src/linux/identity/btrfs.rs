//! Another UUID for btrfs: a changed `fsid` in the superblock, and the old one as `metadata_uuid`, by which the trees
//! go on (`struct btrfs_super_block` of the kernel; Linux 5.0).
//!
//! `btrfstune -M` of 6.2 does this too, and is not used: it commits a transaction without replaying the log tree, so
//! that what was synced before a crash (or before a snapshot of a running volume) is lost and the file system
//! can be mounted no more ("parent transid verify failed"); and it looks at every block device of the machine, one that
//! hangs included. What is written here is one block in place, as btrfs itself writes it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use uuid::Uuid;

use super::block::Block;
use super::{Stamped, Unfit};

/// Where superblocks are; the first one counts, the others are there for a repair.
const PLACES: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
const SIZE: usize = 4096;

const FSID: usize = 32;
const FLAGS: usize = 56;
const MAGIC: usize = 64;
const DEVICES: usize = 136;
const INCOMPATIBLE: usize = 188;
const CHECKSUM_TYPE: usize = 196;
const METADATA_UUID: usize = 571;

/// It has a `metadata_uuid`.
const HAS_METADATA_UUID: u64 = 1 << 10;
/// Flags of a seed, and of a change of UUIDs by other tools that is not over.
const UNFIT: u64 = 1 << 32 | 1 << 35 | 1 << 36;

/// Gives it a UUID. Done twice, or begun by somebody who died, it comes to the same.
pub(super) fn stamp(device: &File, uuid: Uuid) -> io::Result<Stamped> {
    let mut first = Block::read(device, PLACES[0], SIZE)?;
    if let Some(unfit) = unfit(&first) {
        return Ok(Stamped::Unfit(unfit));
    }
    let trees = trees(&first);
    for place in &PLACES[1..] {
        // The device may end before; and what is there may be of an earlier file system.
        let Ok(mut copy) = Block::read(device, *place, SIZE) else { break };
        if unfit_as_superblock(&copy).is_none() && self::trees(&copy) == trees {
            change(&mut copy, uuid);
            copy.write(device)?;
        }
    }
    device.sync_data()?;
    change(&mut first, uuid);
    first.write(device)?;
    device.sync_data()?;
    Ok(Stamped::Done)
}

/// The UUID in all trees.
fn trees(block: &Block) -> Uuid {
    let changed = block.le64(INCOMPATIBLE) & HAS_METADATA_UUID != 0;
    block.uuid(if changed { METADATA_UUID } else { FSID })
}

fn change(block: &mut Block, uuid: Uuid) {
    let (trees, features) = (trees(block), block.le64(INCOMPATIBLE));
    block.put(INCOMPATIBLE, &(features | HAS_METADATA_UUID).to_le_bytes());
    block.put(METADATA_UUID, trees.as_bytes());
    block.put(FSID, uuid.as_bytes());
    block.put(0, &block.checksum(FSID, SIZE).to_le_bytes());
}

fn unfit_as_superblock(block: &Block) -> Option<Unfit> {
    if block.le64(MAGIC) != u64::from_le_bytes(*b"_BHRfS_M") {
        return Some("its superblock is not one of btrfs");
    }
    if block.le16(CHECKSUM_TYPE) != 0 {
        return Some("its checksums are not crc32c");
    }
    (block.le32(0) != block.checksum(FSID, SIZE)).then_some("its superblock is damaged")
}

fn unfit(block: &Block) -> Option<Unfit> {
    if let Some(unfit) = unfit_as_superblock(block) {
        return Some(unfit);
    }
    if block.le64(DEVICES) != 1 {
        return Some("it has several devices");
    }
    (block.le64(FLAGS) & UNFIT != 0)
        .then_some("it is a seed, or a change of its UUID by another tool is not finished")
}

#[repr(C)]
struct Named {
    fd: i64,
    name: [u8; 4088],
}

nix::ioctl_write_ptr!(
    /// Makes the kernel forget a device of no mounted file system (`BTRFS_IOC_FORGET_DEV`, Linux 5.1).
    forget_device,
    0x94,
    5,
    Named
);

/// Makes the kernel forget what it, or udev, has seen on a device before. Best effort: where nothing was seen, there is
/// nothing to forget.
pub(super) fn forget(device: &Path) {
    let Ok(control) = File::open("/dev/btrfs-control") else { return };
    let (mut named, name) = (Named { fd: 0, name: [0; 4088] }, device.as_os_str().as_bytes());
    if name.len() < named.name.len() {
        named.name[..name.len()].copy_from_slice(name);
        // SAFETY: the descriptor is open, and the structure is the one that this request reads.
        let _ = unsafe { forget_device(control.as_raw_fd(), &raw const named) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_the_kernels() {
        assert_eq!(size_of::<Named>(), 4096);
    }
}
