//! A block of a file system's metadata: numbers in it, and the checksum that xfs and btrfs have.
//!
//! Read and written past the kernel's cache of the device: the kernel's xfs does so too, and somebody who looks at the
//! device meanwhile, as udev does, may keep what was there before in the cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use uuid::Uuid;

/// No device has larger sectors, and what goes past the cache is a number of them.
const PAGE: usize = 4096;

/// Opens a device for blocks.
pub(super) fn open(device: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(device)
}

/// Bytes of a device.
pub(super) struct Block {
    /// The pages that they are in, somewhere in a buffer.
    buffer: Vec<u8>,
    pages: Range<usize>,
    /// Where the pages are on the device.
    offset: u64,
    /// Where the bytes are in the buffer.
    bytes: Range<usize>,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $type:ty, $from:ident) => {
        $(#[$doc])*
        pub fn $name(&self, at: usize) -> $type {
            let mut bytes = [0; size_of::<$type>()];
            bytes.copy_from_slice(&self.bytes()[at..at + size_of::<$type>()]);
            <$type>::$from(bytes)
        }
    };
}

impl Block {
    /// Reads one.
    pub fn read(device: &File, offset: u64, size: usize) -> io::Result<Block> {
        let before = usize::try_from(offset % PAGE as u64).map_err(io::Error::other)?;
        let length = (before + size).next_multiple_of(PAGE);
        let mut buffer = vec![0; length + PAGE];
        let start = buffer.as_ptr().align_offset(PAGE);
        let pages = start..start + length;
        let offset = offset - before as u64;
        device.read_exact_at(&mut buffer[pages.clone()], offset)?;
        let bytes = start + before..start + before + size;
        Ok(Block { buffer, pages, offset, bytes })
    }

    /// Writes it to where it was read.
    pub fn write(&self, device: &File) -> io::Result<()> {
        device.write_all_at(&self.buffer[self.pages.clone()], self.offset)
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.bytes.clone()]
    }

    number!(
        /// Big-endian, as xfs has it.
        be16, u16, from_be_bytes
    );
    number!(
        /// Big-endian.
        be32, u32, from_be_bytes
    );
    number!(
        /// Big-endian.
        be64, u64, from_be_bytes
    );
    number!(
        /// Little-endian, as btrfs has it.
        le16, u16, from_le_bytes
    );
    number!(
        /// Little-endian.
        le32, u32, from_le_bytes
    );
    number!(
        /// Little-endian.
        le64, u64, from_le_bytes
    );

    /// One byte.
    pub fn byte(&self, at: usize) -> u8 {
        self.bytes()[at]
    }

    /// A UUID.
    pub fn uuid(&self, at: usize) -> Uuid {
        Uuid::from_slice(&self.bytes()[at..at + 16]).unwrap_or_default()
    }

    /// Puts bytes in.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        let at = self.bytes.start + at;
        self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The checksum of all from `from` on, with the four bytes at `except` taken for zeroes.
    pub fn checksum(&self, from: usize, except: usize) -> u32 {
        let sum = self.bytes().iter().enumerate().skip(from).fold(u32::MAX, |sum, (at, byte)| {
            let byte = if (except..except + 4).contains(&at) { 0 } else { *byte };
            crc32c(sum, byte)
        });
        !sum
    }
}

/// CRC-32C (Castagnoli), one byte on.
fn crc32c(sum: u32, byte: u8) -> u32 {
    (0..8).fold(sum ^ u32::from(byte), |sum, _| {
        if sum & 1 == 1 { (sum >> 1) ^ 0x82F6_3B78 } else { sum >> 1 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with these bytes, from a page's last one on.
    fn device(bytes: &[u8]) -> (tempfile::NamedTempFile, File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut content = vec![b'.'; 3 * PAGE];
        content[PAGE - 1..][..bytes.len()].copy_from_slice(bytes);
        std::fs::write(file.path(), content).unwrap();
        let device = OpenOptions::new().read(true).write(true).open(file.path()).unwrap();
        (file, device)
    }

    #[test]
    fn the_checksum_is_crc32c() {
        let of =
            |bytes: &[u8]| Block::read(&device(bytes).1, PAGE as u64 - 1, bytes.len()).unwrap();
        assert_eq!(of(b"123456789").checksum(0, 100), 0xE306_9283);
        assert_eq!(of(b"xx123456789").checksum(2, 100), 0xE306_9283);
        assert_eq!(of(b"12345678").checksum(0, 4), of(b"1234\0\0\0\0").checksum(0, 100));
    }

    #[test]
    fn what_is_around_a_block_stays() {
        let (file, device) = device(b"\x01\x02\x03\x04");
        let mut block = Block::read(&device, PAGE as u64 - 1, 4).unwrap();
        assert_eq!((block.be16(0), block.le32(0), block.byte(3)), (0x0102, 0x0403_0201, 4));
        block.put(1, b"ab");
        block.write(&device).unwrap();
        let content = std::fs::read(file.path()).unwrap();
        assert_eq!(&content[PAGE - 2..PAGE + 4], b".\x01ab\x04.");
        assert_eq!(content.len(), 3 * PAGE);
        assert!(Block::read(&device, 3 * PAGE as u64, 1).is_err());
    }
}
