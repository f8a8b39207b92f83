//! Whether a file can be as large as an image is to be: only the file system knows. Everything here blocks.

use std::fs::File;
use std::io;

use volcore::size::Size;
use volcore::volume::ImageName;

use super::store::Store;
use crate::format::io_failed;
use crate::image::ImageError;

const MIB: u64 = 1 << 20;

impl Store {
    /// Tries it with a file that has neither a name nor data.
    pub(super) fn fits(&self, image: &ImageName, size: Size) -> Result<(), ImageError> {
        let failed = |error| io_failed(&format!("try the size of image {image}"), error);
        let folder = self.pool(&image.pool)?;
        let file = tempfile::tempfile_in(&folder).map_err(failed)?;
        if can_have(&file, size.bytes()).map_err(failed)? {
            return Ok(());
        }
        let largest = largest(&file, size.bytes() / MIB).map_err(failed)?;
        Err(ImageError::TooLarge {
            image: image.clone(),
            reason: format!("the largest file in {} has {largest} MiB", folder.display()),
        })
    }
}

/// The largest length in MiB that a file can have, below one that it cannot.
fn largest(file: &File, not: u64) -> io::Result<u64> {
    let (mut can, mut cannot) = (0, not.max(1));
    while cannot - can > 1 {
        let middle = can + (cannot - can) / 2;
        if can_have(file, middle * MIB)? {
            can = middle;
        } else {
            cannot = middle;
        }
    }
    Ok(can)
}

/// `EFBIG` and `EINVAL` say the same, see ftruncate(2).
fn can_have(file: &File, bytes: u64) -> io::Result<bool> {
    match file.set_len(bytes) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(false)
        }
        set => set.map(|()| true),
    }
}
