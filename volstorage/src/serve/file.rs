//! The file system of one file: what the kernel asks of it, and what librbd is asked for that.
//!
//! Made for a loop device with direct I/O: nothing is cached here, many requests are under way, and the answers come from
//! the completions of librbd. The size is the image's present one for whoever asks for the file's.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::watch::Fence;
use super::words::Wanted;
use crate::ceph::{AsyncImage, CephError};
use crate::host::Mode;

/// The folder has the number 1 by FUSE's rules.
const FILE: INodeNo = INodeNo(2);
/// Nothing is remembered by the kernel.
const NOT_AT_ALL: Duration = Duration::ZERO;
/// The largest request, in bytes: 256 pages, which is as much as the kernel gives.
const LARGEST: u32 = 1 << 20;
/// How many requests the kernel sends before it waits for answers; a loop device has up to 128.
const UNDER_WAY: u16 = 128;
/// What a loop device takes for the granularity of discards, and librbd for its own.
const GRANULE: u32 = 64 << 10;

/// One image as a file.
#[derive(Debug)]
pub(super) struct ImageFile {
    name: String,
    mode: Mode,
    image: Arc<AsyncImage>,
    fence: Arc<Fence>,
    /// The bytes of the image when it was last looked at.
    size: AtomicU64,
}

/// What the kernel is told of an error.
fn errno(error: &CephError) -> Errno {
    if error.is_no_space() { Errno::ENOSPC } else { Errno::EIO }
}

impl ImageFile {
    pub fn new(wanted: &Wanted, size: u64, image: Arc<AsyncImage>, fence: Arc<Fence>) -> ImageFile {
        let (name, size) = (wanted.image.clone(), AtomicU64::new(size));
        ImageFile { name, mode: wanted.mode, image, fence, size }
    }

    /// The answer to a request that is over, whether it went well or the image is another's meanwhile.
    fn answer<T>(
        &self,
        reply: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) -> impl FnOnce(Result<T, CephError>) + Send + 'static {
        let fence = Arc::clone(&self.fence);
        move |result| {
            let result = result.map_err(|error| {
                fence.look_at(&error);
                tracing::warn!(error = &error as &dyn std::error::Error, "a request failed");
                errno(&error)
            });
            reply(if fence.is_up() { Err(Errno::EIO) } else { result });
        }
    }

    /// Whether a request of the file can be asked of the image.
    fn check(&self, ino: INodeNo) -> Result<(), Errno> {
        match ino {
            _ if self.fence.is_up() => Err(Errno::EIO),
            FILE => Ok(()),
            _ => Err(Errno::EISDIR),
        }
    }

    /// Whether a range can be written to: librbd calls it a success when it reaches beyond the end.
    fn check_write(&self, ino: INodeNo, offset: u64, len: u64) -> Result<(), Errno> {
        self.check(ino)?;
        if self.mode == Mode::ReadOnly {
            return Err(Errno::EROFS);
        }
        let Some(end) = offset.checked_add(len) else { return Err(Errno::EFBIG) };
        if self.reaches(end)? { Ok(()) } else { Err(Errno::EFBIG) }
    }

    /// Whether the image has so many bytes; it may have grown since it was looked at.
    fn reaches(&self, end: u64) -> Result<bool, Errno> {
        Ok(end <= self.size.load(Ordering::Relaxed) || end <= self.look()?)
    }

    /// The image's present size.
    fn look(&self) -> Result<u64, Errno> {
        let image = self.image.image().ok_or(Errno::EIO)?;
        let size = image.stat().map(|info| info.size);
        let size = size.inspect_err(|error| self.fence.look_at(error)).map_err(|_| Errno::EIO)?;
        self.size.store(size, Ordering::Relaxed);
        Ok(size)
    }

    fn attributes(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        let writable = self.mode == Mode::ReadWrite;
        let (kind, perm, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, if writable { 0o700 } else { 0o500 }, 0),
            FILE if self.fence.is_up() => return Err(Errno::EIO),
            FILE => (FileType::RegularFile, if writable { 0o600 } else { 0o400 }, self.look()?),
            _ => return Err(Errno::ENOENT),
        };
        let time = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: GRANULE,
            flags: 0,
        })
    }
}

impl Filesystem for ImageFile {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What is too much is answered with what is possible.
        if let Err(possible) = config.set_max_write(LARGEST) {
            let _ = config.set_max_write(possible);
        }
        if let Err(possible) = config.set_max_readahead(LARGEST) {
            let _ = config.set_max_readahead(possible);
        }
        let _ = config.set_max_background(UNDER_WAY);
        let _ = config.set_congestion_threshold(UNDER_WAY);
        // Without it the kernel waits for each request of a loop device before it sends the next.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent != INodeNo::ROOT || name != self.name.as_str() {
            return reply.error(Errno::ENOENT);
        }
        match self.attributes(FILE) {
            Ok(attributes) => reply.entry(&NOT_AT_ALL, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok(attributes) => reply.attr(&NOT_AT_ALL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // The size of an image is volmaster's to change; times are not kept.
        match self.attributes(ino) {
            Ok(_) if size.is_some() => reply.error(Errno::EPERM),
            Ok(attributes) => reply.attr(&NOT_AT_ALL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if ino != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let (folder, file) = (FileType::Directory, FileType::RegularFile);
        let entries = [
            (INodeNo::ROOT, folder, "."),
            (INodeNo::ROOT, folder, ".."),
            (FILE, file, self.name.as_str()),
        ];
        for ((ino, kind, name), next) in entries.into_iter().zip(1..) {
            if next > offset && reply.add(ino, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        match self.check(ino) {
            Ok(()) => reply.opened(FileHandle(0), flags),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.check(ino).and_then(|()| self.reaches(offset.saturating_add(1))) {
            Ok(true) => {}
            // librbd takes a read from the end on for an error.
            Ok(false) => return reply.data(&[]),
            Err(error) => return reply.error(error),
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let answer = self.answer(|read: Result<Vec<u8>, Errno>| match read {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        });
        self.image.read(offset, size, answer);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if let Err(error) = self.check_write(ino, offset, len.into()) {
            return reply.error(error);
        }
        let answer = self.answer(move |written| match written {
            Ok(()) => reply.written(len),
            Err(error) => reply.error(error),
        });
        // The next request of the kernel comes into the same memory.
        self.image.write(offset, data.to_vec(), answer);
    }

    fn flush(&self, _: &Request, ino: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.store(ino, reply);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.store(ino, reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        const ZEROES: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & ZEROES == 0 || mode & !(ZEROES | libc::FALLOC_FL_KEEP_SIZE) != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        if let Err(error) = self.check_write(ino, offset, length) {
            return reply.error(error);
        }
        // Of an image that is thin both are the same, and to the byte: a discard of librbd leaves the edges as they are.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.image.write_zeroes(offset, length, self.answer(|done| empty(done, reply)));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = self.size.load(Ordering::Relaxed).div_ceil(GRANULE.into());
        reply.statfs(blocks, 0, 0, 2, 0, GRANULE, 255, GRANULE);
    }
}

impl ImageFile {
    fn store(&self, ino: INodeNo, reply: ReplyEmpty) {
        match self.check(ino) {
            Ok(()) => self.image.flush(self.answer(|done| empty(done, reply))),
            Err(error) => reply.error(error),
        }
    }
}

fn empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
