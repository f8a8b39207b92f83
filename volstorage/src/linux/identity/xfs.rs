//! Another UUID for xfs of version 5: a changed `sb_uuid`, and the old one as `sb_meta_uuid`, by which the metadata go on
//! (`fs/xfs/libxfs/xfs_format.h` and `xfs_log_format.h` of the kernel; Linux 4.3).
//!
//! The log names the UUID as well, and the kernel compares that of its last record. `xfs_admin -U` of 6.1 writes
//! the whole log anew for that, 64 MiB at least, and is not used: killed meanwhile it leaves a log that nobody
//! reads any more, itself included. Here the last record of a log that ends with an unmount gets the new UUID, one
//! sector, and then the superblocks, the first one last. At each moment the next attempt can go on.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use uuid::Uuid;

use super::Stamped;
use super::block::Block;

/// The unit of the log, whatever the sectors are.
const SECTOR: u64 = 512;

// The superblock.
const UUID: usize = 32;
const INCOMPATIBLE: usize = 216;
const CHECKSUM: usize = 224;
const META_UUID: usize = 248;
/// It has a `sb_meta_uuid`.
const HAS_META_UUID: u32 = 1 << 2;

/// What the superblock says of where things are.
struct Layout {
    block_size: u64,
    sector_size: usize,
    group_blocks: u64,
    groups: u64,
    /// The log's first byte.
    log: u64,
    /// Its length in [`SECTOR`]s.
    log_sectors: u64,
}

impl Layout {
    /// `None` for what is not handled here: version 4, a log on another device, a damaged superblock.
    fn read(device: &File) -> io::Result<Option<Layout>> {
        let head = Block::read(device, 0, 512)?;
        let sector_size = usize::from(head.be16(102));
        if head.be32(0) != u32::from_be_bytes(*b"XFSB") || !(512..=32768).contains(&sector_size) {
            return Ok(None);
        }
        let head = Block::read(device, 0, sector_size)?;
        let (block_size, group_blocks) = (u64::from(head.be32(4)), u64::from(head.be32(84)));
        let (start, group_bits) = (head.be64(48), u32::from(head.byte(124)));
        let is_version_5 = head.be16(100) & 0xF == 5;
        let sum = head.checksum(0, CHECKSUM);
        if !is_version_5 || start == 0 || group_bits > 32 || head.le32(CHECKSUM) != sum {
            return Ok(None);
        }
        let in_group = start & ((1 << group_bits) - 1);
        Ok(Some(Layout {
            block_size,
            sector_size,
            group_blocks,
            groups: u64::from(head.be32(88)),
            log: ((start >> group_bits) * group_blocks + in_group) * block_size,
            log_sectors: u64::from(head.be32(96)) * block_size / SECTOR,
        }))
    }

    fn sector(&self, device: &File, number: u64) -> io::Result<Block> {
        Block::read(device, self.log + number * SECTOR, 512)
    }

    /// How often the log had begun anew when a sector was written.
    fn cycle(&self, device: &File, number: u64) -> io::Result<u32> {
        let sector = self.sector(device, number)?;
        Ok(sector.be32(if sector.be32(0) == RECORD { 4 } else { 0 }))
    }

    /// The header of the record that ends the log, if that is the one of an unmount: as the kernel finds it
    /// (`xlog_find_head`, `xlog_check_unmount_rec`), for a log that nobody is writing.
    fn unmount_record(&self, device: &File) -> io::Result<Option<Block>> {
        let Some(last) = self.log_sectors.checked_sub(1) else { return Ok(None) };
        let cycle = self.cycle(device, 0)?;
        let head = if self.cycle(device, last)? == cycle {
            self.log_sectors
        } else {
            // All up to the head is of this cycle, all from there on of an earlier one.
            let (mut inside, mut outside) = (0, last);
            while outside - inside > 1 {
                let middle = inside.midpoint(outside);
                let is_inside = self.cycle(device, middle)? == cycle;
                *(if is_inside { &mut inside } else { &mut outside }) = middle;
            }
            outside
        };
        for number in (head.saturating_sub(LONGEST)..head).rev() {
            let header = self.sector(device, number)?;
            if header.be32(0) == RECORD {
                let position = u64::from(cycle) << 32 | number;
                let data = number + header_sectors(&header);
                let end = data + u64::from(header.be32(12)).div_ceil(SECTOR);
                let fits = header.be64(16) == position && header.be32(40) == 1 && end == head;
                let ends = fits && self.sector(device, data)?.byte(9) & UNMOUNT != 0;
                return Ok(ends.then_some(header));
            }
        }
        Ok(None)
    }
}

// A record of the log.
const RECORD: u32 = 0xFEED_BABE;
const RECORD_CHECKSUM: usize = 32;
const RECORD_UUID: usize = 304;
/// The flag of an unmount in the header of an operation.
const UNMOUNT: u8 = 0x20;
/// No record has more sectors: 256 KiB and their headers.
const LONGEST: u64 = 1024;

/// A header names the cycles of 32 KiB; longer records have more of them.
fn header_sectors(header: &Block) -> u64 {
    let (version, size) = (header.be32(8), u64::from(header.be32(320)));
    if version & 2 == 0 { 1 } else { size.div_ceil(32 << 10).max(1) }
}

/// Gives it a UUID, if its log has been replayed.
pub(super) fn stamp(device: &File, uuid: Uuid) -> io::Result<Stamped> {
    let Some(layout) = Layout::read(device)? else {
        return Ok(Stamped::Unfit("it is not of version 5, has its log elsewhere, or is damaged"));
    };
    let Some(mut record) = layout.unmount_record(device)? else { return Ok(Stamped::Dirty) };
    if record.uuid(RECORD_UUID) != uuid {
        record.put(RECORD_UUID, uuid.as_bytes());
        // There is none, as in a log that mkfs has made.
        record.put(RECORD_CHECKSUM, &[0; 4]);
        record.write(device)?;
        device.sync_data()?;
    }
    for group in (0..layout.groups).rev() {
        let offset = group * layout.group_blocks * layout.block_size;
        let mut superblock = Block::read(device, offset, layout.sector_size)?;
        if group == 0 {
            device.sync_data()?;
        } else if superblock.le32(CHECKSUM) != superblock.checksum(0, CHECKSUM) {
            // The copies are there for xfs_repair, which makes them anew.
            continue;
        }
        change(&mut superblock, uuid);
        superblock.write(device)?;
    }
    device.sync_data()?;
    Ok(Stamped::Done)
}

fn change(superblock: &mut Block, uuid: Uuid) {
    let features = superblock.be32(INCOMPATIBLE);
    if features & HAS_META_UUID == 0 {
        let metadata = superblock.uuid(UUID);
        superblock.put(META_UUID, metadata.as_bytes());
        superblock.put(INCOMPATIBLE, &(features | HAS_META_UUID).to_be_bytes());
    }
    superblock.put(UUID, uuid.as_bytes());
    superblock.put(CHECKSUM, &superblock.checksum(0, CHECKSUM).to_le_bytes());
}

/// Whether a device is mounted, be it nowhere to be seen.
pub(super) fn is_mounted(device: &Path) -> bool {
    Path::new("/sys/fs/xfs").join(device.file_name().unwrap_or_default()).exists()
}

/// Has the kernel replay the log, by a mount that no folder shows and that ends with its descriptor, so also with its
/// process (fsopen(2), Linux 5.2).
pub(super) fn replay(device: &Path) -> io::Result<()> {
    const SET_FLAG: libc::c_uint = 0;
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    const CLOSE_ON_EXEC: libc::c_uint = 1;
    let source = CString::new(device.as_os_str().as_bytes())?;
    // SAFETY: the name is a string that outlives the call.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"xfs".as_ptr(), CLOSE_ON_EXEC) };
    let context = i32::try_from(context).map_err(io::Error::other)?;
    if context < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let context = unsafe { OwnedFd::from_raw_fd(context) };
    let configure = |command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>| {
        let [key, value] = [key, value].map(|text| text.map_or(std::ptr::null(), CStr::as_ptr));
        let context = context.as_raw_fd();
        // SAFETY: the descriptor is open, and the strings, where there are any, outlive the call.
        match unsafe { libc::syscall(libc::SYS_fsconfig, context, command, key, value, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    configure(SET_STRING, Some(c"source"), Some(&source))?;
    // Its UUID may be that of a file system which is mounted.
    configure(SET_FLAG, Some(c"nouuid"), None)?;
    configure(CREATE, None, None)
}
