//! What file system is on an image, by its superblock, wherever the image is read from.
//!
//! Used by the image drivers, which never write what is not recognised. What the host side wants to know besides is in
//! [`linux`](crate::linux).

use volcore::filesystem::FilesystemKind;

/// What is read of the beginning: xfs has its magic at 0, ext at 1 KiB and 56 bytes.
const HEAD: usize = 2048;
/// Where btrfs has its magic: 64 bytes into its superblock at 64 KiB.
const BTRFS_MAGIC: u64 = (64 << 10) + 64;

/// Recognises a file system. `read` fills a buffer from an offset on, and says how much of it there is.
pub(crate) fn recognise<E>(
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
) -> Result<Option<FilesystemKind>, E> {
    let mut head = [0; HEAD];
    let got = read(0, &mut head)?;
    let head = &head[..got.min(HEAD)];
    if head.starts_with(b"XFSB") {
        return Ok(Some(FilesystemKind::Xfs));
    }
    // Documentation/filesystems/ext4/super.rst of the kernel.
    if head.get(1024 + 0x38..1024 + 0x3A) == Some(&[0x53, 0xEF]) {
        return Ok(Some(FilesystemKind::Ext4));
    }
    let mut magic = [0; 8];
    let got = read(BTRFS_MAGIC, &mut magic)?;
    Ok((got == magic.len() && &magic == b"_BHRfS_M").then_some(FilesystemKind::Btrfs))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn on(image: &[u8]) -> Option<FilesystemKind> {
        let read = |offset: u64, buffer: &mut [u8]| {
            let rest = image.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let got = rest.len().min(buffer.len());
            buffer[..got].copy_from_slice(&rest[..got]);
            Ok::<usize, Infallible>(got)
        };
        recognise(read).unwrap()
    }

    #[test]
    fn superblocks_are_recognised() {
        let with = |offset: usize, magic: &[u8]| {
            let mut image = vec![0; 70 << 10];
            image[offset..offset + magic.len()].copy_from_slice(magic);
            on(&image)
        };
        assert_eq!(with(0, b"XFSB"), Some(FilesystemKind::Xfs));
        assert_eq!(with(1080, &[0x53, 0xEF]), Some(FilesystemKind::Ext4));
        assert_eq!(with(65_600, b"_BHRfS_M"), Some(FilesystemKind::Btrfs));
        assert_eq!(with(0, b"LUKS\xba\xbe"), None);
        assert_eq!((on(b""), on(b"short"), on(&[0; 4096])), (None, None, None));
    }
}
