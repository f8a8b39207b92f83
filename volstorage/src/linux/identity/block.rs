//! A block of a file system's metadata: numbers in it, and the checksum that xfs and btrfs have.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use uuid::Uuid;

nix::ioctl_none_bad!(
    /// Writes back, and forgets, what is cached of a block device (`linux/fs.h`).
    flush_buffers,
    0x1261
);

/// Forgets what is cached of a device: the kernel's xfs reads and writes past that.
pub(super) fn read_anew(device: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open, and this request takes no argument.
    unsafe { flush_buffers(device.as_raw_fd()) }?;
    Ok(())
}

/// Bytes of a device, from an offset on.
pub(super) struct Block {
    offset: u64,
    bytes: Vec<u8>,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $type:ty, $from:ident) => {
        $(#[$doc])*
        pub fn $name(&self, at: usize) -> $type {
            let mut bytes = [0; size_of::<$type>()];
            bytes.copy_from_slice(&self.bytes[at..at + size_of::<$type>()]);
            <$type>::$from(bytes)
        }
    };
}

impl Block {
    /// Reads one.
    pub fn read(device: &File, offset: u64, size: usize) -> io::Result<Block> {
        let mut bytes = vec![0; size];
        device.read_exact_at(&mut bytes, offset)?;
        Ok(Block { offset, bytes })
    }

    /// Writes it to where it was read.
    pub fn write(&self, device: &File) -> io::Result<()> {
        device.write_all_at(&self.bytes, self.offset)
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
        self.bytes[at]
    }

    /// A UUID.
    pub fn uuid(&self, at: usize) -> Uuid {
        Uuid::from_slice(&self.bytes[at..at + 16]).unwrap_or_default()
    }

    /// Puts bytes in.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The checksum of all from `from` on, with the four bytes at `except` taken for zeroes.
    pub fn checksum(&self, from: usize, except: usize) -> u32 {
        let sum = self.bytes.iter().enumerate().skip(from).fold(u32::MAX, |sum, (at, byte)| {
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

    #[test]
    fn the_checksum_is_crc32c() {
        let of = |bytes: &[u8]| Block { offset: 0, bytes: bytes.to_vec() };
        assert_eq!(of(b"123456789").checksum(0, 100), 0xE306_9283);
        assert_eq!(of(b"xx123456789").checksum(2, 100), 0xE306_9283);
        assert_eq!(of(b"12345678").checksum(0, 4), of(b"1234\0\0\0\0").checksum(0, 100));
    }
}
