//! Loop devices, as far as images need them: one for a format command, and which of them have a
//! given file behind them. Blocking.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `LOOP_CONFIGURE` (`linux/loop.h`, Linux 5.8).
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
/// `LOOP_GET_STATUS64`.
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
/// `LOOP_CTL_GET_FREE`, on `/dev/loop-control`.
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
/// `LO_FLAGS_AUTOCLEAR`: detach when the last descriptor is closed.
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

impl LoopInfo {
    const ZERO: LoopInfo = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// A loop device over a file. Detached when this is dropped, or the process ends.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a free loop device to a file.
    pub(crate) fn attach(file: &Path) -> io::Result<LoopDevice> {
        let file = OpenOptions::new().read(true).write(true).open(file)?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        // Between the two calls another process can take the device.
        for _ in 0..64 {
            // SAFETY: the call takes and returns numbers only.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(true).open(&path)?;
            match configure(&device, file.as_raw_fd()) {
                Ok(()) => return Ok(LoopDevice { device, path }),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Its path, such as `/dev/loop3`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes to the file what is in the device's cache, and detaches.
    pub(crate) fn sync(self) -> io::Result<()> {
        self.device.sync_all()
    }
}

fn configure(device: &File, backing: RawFd) -> io::Result<()> {
    let info = LoopInfo { flags: LO_FLAGS_AUTOCLEAR, ..LoopInfo::ZERO };
    let fd = u32::try_from(backing).map_err(io::Error::other)?;
    let config = LoopConfig { fd, block_size: 512, info, reserved: [0; 8] };
    // SAFETY: the structure has the kernel's layout (its size is checked above) and outlives the
    // call, which only reads it.
    let ret = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The loop devices that have this file behind them, such as `/dev/loop3`.
///
/// Only devices whose file has the same name are opened: the kernel may keep the opener of one
/// waiting while somebody else's is stuck. A file that was attached under another name (a hard
/// link) is not found.
pub(crate) fn attached_to(file: &Path) -> io::Result<Vec<String>> {
    let meta = fs::metadata(file)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let Ok(backing) = fs::read_to_string(entry.join("loop/backing_file")) else { continue };
        if Path::new(backing.trim_end()).file_name() != file.file_name() {
            continue;
        }
        let device = Path::new("/dev").join(name);
        // A device that cannot be asked counts: better a refusal too many than a file in use lost.
        if has_behind(&device, &meta).unwrap_or(true) {
            found.push(device.display().to_string());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a loop device has that file behind it.
fn has_behind(device: &Path, file: &fs::Metadata) -> io::Result<bool> {
    let device = File::open(device)?;
    let mut info = LoopInfo::ZERO;
    // SAFETY: the structure has the kernel's layout, and the call fills it in.
    let ret = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    match (ret, io::Error::last_os_error()) {
        (0.., _) => Ok((info.device, info.inode) == (file.dev(), file.ino())),
        // It was detached meanwhile.
        (_, error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(false),
        (_, error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_file_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) =
            (folder.path().join("t.loop-test"), folder.path().join("b/t.loop-test"));
        fs::create_dir(folder.path().join("b")).unwrap();
        for file in [&file, &other] {
            File::create_new(file).unwrap().set_len(1 << 20).unwrap();
        }
        assert_eq!(attached_to(&file).unwrap(), [""; 0]);
        let device = LoopDevice::attach(&file).unwrap();
        fs::write(device.path(), "through the device").unwrap();
        assert_eq!(attached_to(&file).unwrap(), [device.path().display().to_string()]);
        assert_eq!(attached_to(&other).unwrap(), [""; 0]);
        device.sync().unwrap();
        assert!(fs::read(&file).unwrap().starts_with(b"through the device"));
        let start = std::time::Instant::now();
        while !attached_to(&file).unwrap().is_empty() {
            assert!(start.elapsed().as_secs() < 30, "the device is still attached");
            std::thread::yield_now();
        }
    }
}
