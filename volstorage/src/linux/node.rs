//! The files of block devices in `/dev`.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode as Permissions, SFlag, makedev, mknod};

/// Makes a device's file where nobody has: the kernel does it in a devtmpfs, and udev, but what is
/// `/dev` in a container is neither. The number is what sysfs says.
pub(super) fn make(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let number = std::fs::read_to_string(Path::new("/sys/block").join(name).join("dev"))?;
    let parsed = number
        .trim()
        .split_once(':')
        .and_then(|(major, minor)| Some(makedev(major.parse().ok()?, minor.parse().ok()?)));
    let number = parsed.ok_or_else(|| io::Error::other(format!("device number {number:?}")))?;
    match path.metadata() {
        Ok(there) if there.file_type().is_block_device() && there.rdev() == number => Ok(()),
        Ok(_) => Err(io::Error::other("another file is there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mode = Permissions::from_bits_truncate(0o660);
            match mknod(path, SFlag::S_IFBLK, mode, number) {
                // The kernel was faster.
                Ok(()) | Err(Errno::EEXIST) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error),
    }
}
