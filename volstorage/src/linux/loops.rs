//! Loop devices: attach, recognise again, detach (loop(4), `linux/loop.h`).
//!
//! A device is attached with *autoclear*: the kernel detaches it when the last one who has it open
//! closes it. So whoever attaches keeps the descriptor until the file system is mounted, and a
//! process that dies between attaching and writing down which number it got leaves nothing behind.
//!
//! Numbers are used again, and other hosts that share this kernel (in namespaces) use the same
//! paths. So a device is known again by its number *and* the sequence number that the kernel gives
//! every attachment (Linux 5.15; before that, by number and path).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode as Bits, SFlag, makedev, mknod};
use serde::{Deserialize, Serialize};

use crate::host::Mode;

const MAJOR: u64 = 7;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

/// The logical block size, whatever the kernel would choose: file systems are made for this one.
const BLOCK_SIZE: u32 = 512;

/// How often the next free device is looked for when others are faster.
const ATTEMPTS: u32 = 1000;
/// More devices than this nobody has.
const DEVICES: u32 = 16_384;

#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

impl Info {
    fn zeroed() -> Info {
        // SAFETY: a structure of integers and arrays of integers may be all zeroes.
        unsafe { std::mem::zeroed() }
    }
}

nix::ioctl_none_bad!(
    /// Detaches, or sets autoclear when somebody else has the device open.
    clear_fd,
    0x4C01
);
nix::ioctl_read_bad!(
    /// What is attached.
    get_status64,
    0x4C05,
    Info
);
nix::ioctl_none_bad!(
    /// Takes over the size that the file has now.
    set_capacity,
    0x4C07
);
nix::ioctl_write_ptr_bad!(
    /// Attaches, with all settings at once (Linux 5.8).
    configure,
    0x4C0A,
    Config
);
nix::ioctl_write_int_bad!(
    /// Makes the device with this number.
    add,
    0x4C80
);

/// One attachment of a loop device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LoopId {
    /// The N of `/dev/loopN`.
    pub number: u32,
    /// The kernel's count of attachments, where it has one.
    pub sequence: Option<u64>,
}

impl LoopId {
    /// The attachment that the device has now.
    fn current(number: u32) -> Option<LoopId> {
        backing(number)?;
        let sequence = sysfs(number, "diskseq").and_then(|text| text.parse().ok());
        Some(LoopId { number, sequence })
    }

    /// `/dev/loopN`.
    pub fn device(self) -> PathBuf {
        device(self.number)
    }

    /// Whether it is still attached, to this file. Asks the file system nothing.
    pub fn is_there(self, file: &Path) -> bool {
        // A file may be renamed under its device, so its name counts only where nothing else does.
        let named =
            || backing(self.number).is_some_and(|path| path.file_name() == file.file_name());
        LoopId::current(self.number) == Some(self) && (self.sequence.is_some() || named())
    }

    /// Opens the device, which keeps it attached; `None` when it is gone or another's.
    pub fn hold(self, file: &Path) -> io::Result<Option<OwnedFd>> {
        match File::open(self.device()) {
            // Looked at once more with the device open: now it stays what it is.
            Ok(held) => Ok(self.is_there(file).then(|| held.into())),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether it refuses writes.
    pub fn mode(self) -> Option<Mode> {
        match std::fs::read_to_string(format!("/sys/block/loop{}/ro", self.number)).ok()?.trim() {
            "0" => Some(Mode::ReadWrite),
            _ => Some(Mode::ReadOnly),
        }
    }

    /// Detaches it, at once or, if somebody has it open, when they close it.
    pub fn clear(self, file: &Path) -> io::Result<()> {
        let Some(held) = self.hold(file)? else { return Ok(()) };
        // SAFETY: the descriptor is open, and this request takes no argument.
        match unsafe { clear_fd(held.as_raw_fd()) } {
            Ok(_) | Err(Errno::ENXIO) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes a device as large as its file has become. The device is in use, so it is the same one.
pub(super) fn follow(number: u32) -> io::Result<()> {
    let opened = File::open(device(number))?;
    // SAFETY: the descriptor is open, and this request takes no argument.
    unsafe { set_capacity(opened.as_raw_fd()) }?;
    Ok(())
}

fn device(number: u32) -> PathBuf {
    format!("/dev/loop{number}").into()
}

fn sysfs(number: u32, file: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/sys/block/loop{number}/{file}")).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENOENT | libc::ENODEV))
}

/// The path of the file behind a device, as it was in the mount namespace of who attached it.
/// Asks the file system nothing.
pub(super) fn backing(number: u32) -> Option<PathBuf> {
    let path = sysfs(number, "loop/backing_file")?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(&path).into())
}

/// The number of a device, from its path.
pub(super) fn number(device: &Path) -> Option<u32> {
    device.to_str()?.strip_prefix("/dev/loop")?.parse().ok()
}

/// All devices that have a file, with its path.
pub(super) fn all() -> io::Result<Vec<(u32, PathBuf)>> {
    let names = std::fs::read_dir("/sys/block")?.filter_map(Result::ok);
    let numbers = names.filter_map(|entry| number(&Path::new("/dev").join(entry.file_name())));
    Ok(numbers.filter_map(|number| Some((number, backing(number)?))).collect())
}

/// The device that has the whole of this local file, whoever attached it and under which path.
///
/// Asks the file systems of files with the same last name only: one behind a FUSE server that
/// hangs would never answer.
pub(super) fn over(file: &Path) -> io::Result<Option<LoopId>> {
    let wanted = std::fs::metadata(file)?;
    for (number, path) in all()? {
        if path.file_name() != file.file_name() {
            continue;
        }
        let opened = match File::open(device(number)) {
            Ok(opened) => opened,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        let mut info = Info::zeroed();
        // SAFETY: the descriptor is open, and the structure is the one that this request fills.
        if unsafe { get_status64(opened.as_raw_fd(), &raw mut info) }.is_err() {
            continue;
        }
        let whole = info.offset == 0 && info.size_limit == 0;
        if whole && (info.device, info.inode) == (wanted.dev(), wanted.ino()) {
            return Ok(LoopId::current(number));
        }
    }
    Ok(None)
}

/// Attaches a file to a free device, with direct I/O where the file's file system has it.
/// The device lives as long as the descriptor, or whoever else opens it.
pub(super) fn attach(file: &Path, mode: Mode) -> io::Result<(LoopId, OwnedFd)> {
    let write = mode == Mode::ReadWrite;
    let file = OpenOptions::new().read(true).write(write).open(file)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let mut config =
        Config { fd: 0, block_size: BLOCK_SIZE, info: Info::zeroed(), reserved: [0; 8] };
    config.fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    config.info.flags = AUTOCLEAR | DIRECT_IO | if write { 0 } else { READ_ONLY };
    for attempt in 0..ATTEMPTS {
        let (number, _reserved) = reserve(&control)?;
        ensure_node(number)?;
        let opened = match OpenOptions::new().read(true).write(write).open(device(number)) {
            Ok(opened) => opened,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        // SAFETY: both descriptors are open, and the structure is the one that this request reads.
        match unsafe { configure(opened.as_raw_fd(), &raw const config) } {
            Ok(_) => {
                let id = LoopId::current(number).ok_or(Errno::ENXIO)?;
                // Kept open for reading only: some kernels do not mount what others may write to.
                let held = File::open(device(number))?;
                return Ok((id, held.into()));
            }
            // Somebody else was faster.
            Err(Errno::EBUSY) => {
                std::thread::sleep(Duration::from_micros(u64::from(attempt.min(20)) * 100));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::EBUSY.into())
}

/// Finds a free device and keeps it from others of the suite for as long as the lock lives.
///
/// The kernel's own `LOOP_CTL_GET_FREE` names the same device to everybody until one of them has
/// attached to it, and attaching begins with an fsync of the file: where its server waits (for the
/// lock of a dead client, half a minute), so would all others, in opening the device.
fn reserve(control: &File) -> io::Result<(u32, Flock<File>)> {
    for number in 0..DEVICES {
        if backing(number).is_some() {
            continue;
        }
        let folder = format!("/sys/block/loop{number}");
        let opened = match File::open(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let number = i32::try_from(number).map_err(io::Error::other)?;
                // SAFETY: the descriptor is open, and the argument is a number.
                match unsafe { add(control.as_raw_fd(), number) } {
                    Ok(_) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                match File::open(&folder) {
                    // Whoever is adding it has the number already, and not the folder yet.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    opened => opened?,
                }
            }
            opened => opened?,
        };
        if let Ok(reserved) = Flock::lock(opened, FlockArg::LockExclusiveNonblock)
            && backing(number).is_none()
        {
            return Ok((number, reserved));
        }
    }
    Err(Errno::ENOSPC.into())
}

/// Devices beyond those made at boot have no node in a `/dev` that is not a devtmpfs.
fn ensure_node(number: u32) -> io::Result<()> {
    let device = device(number);
    if device.exists() {
        return Ok(());
    }
    let bits = Bits::S_IRUSR | Bits::S_IWUSR | Bits::S_IRGRP | Bits::S_IWGRP;
    match mknod(&device, SFlag::S_IFBLK, bits, makedev(MAJOR, u64::from(number))) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }

    #[test]
    fn numbers_are_read_from_paths() {
        assert_eq!(number(Path::new("/dev/loop12")), Some(12));
        assert_eq!(number(Path::new("/dev/loop-control")), None);
        assert_eq!(number(Path::new("/dev/rbd0")), None);
        assert_eq!(LoopId { number: 3, sequence: None }.device(), Path::new("/dev/loop3"));
    }
}
