//! Freezing a file system, by a child that thaws it whoever dies.
//!
//! `FIFREEZE` outlives the process that has made it, and who writes to what is frozen waits for good. So it is made by a
//! child that does nothing else, runs no other program, and thaws when it is told to, when its parent dies (their socket
//! closes) and when the bound is over. Where the child itself is killed, its parent sees that and thaws. Where both are
//! killed at once, the next start has to: [`thaw`].
//!
//! Called by the host driver, which has made sure of what it freezes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use volcore::order::{Thawed, ThawedBy};

use super::child::pidfd;
use crate::blocking;

/// `FIFREEZE` and `FITHAW` of `linux/fs.h`, which libc does not have.
const FIFREEZE: libc::Ioctl = 0xC004_5877_u32 as libc::Ioctl;
const FITHAW: libc::Ioctl = 0xC004_5878_u32 as libc::Ioctl;

/// What the child says: it is frozen; it was thawed as told, or by itself; it was not frozen any more; and, followed by
/// an error's number, it could not be frozen.
const FROZEN: u8 = b'F';
const TOLD: u8 = b'T';
const BOUND: u8 = b'B';
const GONE: u8 = b'G';
const REFUSED: u8 = b'E';

/// How long thawing by the parent may take.
const THAW: Duration = Duration::from_secs(10);

/// A file system that a child keeps frozen. Dropped, it is thawed too.
#[derive(Debug)]
pub struct Freeze {
    /// Told to thaw by closing our half of it.
    line: StdStream,
    over: watch::Receiver<Option<Thawed>>,
}

/// Freezes the file system on which `folder` is. Writes out first what is to be written, while everybody goes on.
///
/// # Errors
/// What the kernel says: `EBUSY` where it is frozen already, `EOPNOTSUPP` where it cannot be, `ETIMEDOUT` where the
/// freezing itself took longer than `bound`; then it is not frozen. Dropped before it is done, it comes to nothing.
pub async fn freeze(folder: OwnedFd, bound: Duration) -> io::Result<Freeze> {
    let (line, theirs) = StdStream::pair()?;
    line.set_nonblocking(true)?;
    let child = fork(theirs.as_raw_fd(), folder.as_raw_fd(), bound)?;
    drop(theirs);
    let hand = line.try_clone()?;
    let (frozen, is_frozen) = tokio::sync::oneshot::channel();
    let (told, over) = watch::channel(None);
    // Made before the first wait: from here on, dropping anything tells the child to thaw.
    let freeze = Freeze { line: hand, over };
    let line = UnixStream::from_std(line)?;
    tokio::spawn(Keeper { child, line, folder }.keep(frozen, told));
    match is_frozen.await {
        Ok(done) => done.map(|()| freeze),
        Err(_gone) => Err(io::Error::other("the process that was to freeze it has ended")),
    }
}

/// Thaws the file system on which `folder` is; whether it was frozen. Blocks.
///
/// # Errors
/// What the kernel says.
pub fn thaw(folder: &OwnedFd) -> io::Result<bool> {
    // SAFETY: the descriptor is open, and the argument is not used.
    match unsafe { libc::ioctl(folder.as_raw_fd(), FITHAW, 0) } {
        0 => Ok(true),
        _ => match Errno::last() {
            Errno::EINVAL => Ok(false),
            error => Err(error.into()),
        },
    }
}

impl Freeze {
    /// Waits until it is not frozen any more, although nobody has asked for that. Cancel-safe.
    pub async fn over(&mut self) {
        // The keeper says so before it goes.
        self.over.wait_for(Option::is_some).await.map(drop).unwrap_or_default();
    }

    /// Thaws, and says for how long it was frozen, and whether it was until now.
    pub async fn thaw(mut self) -> Thawed {
        self.tell();
        let nothing = Thawed { held_ms: 0, by: ThawedBy::Itself };
        match self.over.wait_for(Option::is_some).await {
            Ok(over) => over.unwrap_or(nothing),
            Err(_gone) => nothing,
        }
    }

    fn tell(&self) {
        // One that has ended needs not be told.
        self.line.shutdown(std::net::Shutdown::Write).unwrap_or_default();
    }
}

impl Drop for Freeze {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Listens to the child until it has ended, and thaws where it has not.
struct Keeper {
    child: OwnedChild,
    line: UnixStream,
    folder: OwnedFd,
}

impl Keeper {
    async fn keep(
        mut self,
        frozen: tokio::sync::oneshot::Sender<io::Result<()>>,
        told: watch::Sender<Option<Thawed>>,
    ) {
        if let Err(error) = self.begin().await {
            self.end().await;
            frozen.send(Err(error)).unwrap_or_default();
            return;
        }
        let began = Instant::now();
        // Whoever has stopped waiting has dropped the other half, which tells the child.
        frozen.send(Ok(())).unwrap_or_default();
        let last = self.line.read_u8().await;
        let held_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let by = match last {
            Ok(TOLD) => ThawedBy::Word,
            Ok(_) => ThawedBy::Itself,
            Err(_) => {
                tracing::warn!("the process that kept a file system frozen was killed; thawing it");
                ThawedBy::Itself
            }
        };
        if last.is_err() {
            self.end().await;
        }
        told.send_replace(Some(Thawed { held_ms, by }));
        self.child.reap().await;
    }

    /// Waits for the child's first word.
    async fn begin(&mut self) -> io::Result<()> {
        match self.line.read_u8().await {
            Ok(FROZEN) => Ok(()),
            Ok(REFUSED) => {
                let number = self.line.read_i32_le().await.unwrap_or(libc::EIO);
                Err(io::Error::from_raw_os_error(number))
            }
            Ok(_) => Err(io::ErrorKind::TimedOut.into()),
            Err(_) => Err(io::Error::other("the process that was to freeze it was killed")),
        }
    }

    /// Waits for the end of the child, and thaws in its place what it has left if it was killed. One that has ended by
    /// itself has left nothing: what is frozen then, somebody else has frozen.
    async fn end(&mut self) {
        if self.child.reap().await == Some(0) {
            return;
        }
        let Ok(folder) = self.folder.try_clone() else { return };
        match blocking::run("thaw a file system", THAW, move || thaw(&folder)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a file system could not be thawed"),
            Err(error) => tracing::warn!(%error, "a file system could not be thawed"),
        }
    }
}

/// A child that was forked, and is reaped.
struct OwnedChild {
    pid: Pid,
    ended: tokio::io::unix::AsyncFd<OwnedFd>,
}

impl OwnedChild {
    /// Waits for its end, and gives the status that it has exited with, if it has.
    async fn reap(&mut self) -> Option<i32> {
        // The kernel may take its time with one that was killed in the middle of a freeze.
        drop(self.ended.readable().await.ok()?);
        match waitpid(self.pid, None) {
            Ok(WaitStatus::Exited(_, code)) => Some(code),
            _ => None,
        }
    }
}

fn fork(line: RawFd, folder: RawFd, bound: Duration) -> io::Result<OwnedChild> {
    // SAFETY: takes nothing. The child does nothing but `act`, which only makes system calls.
    let pid = unsafe { libc::fork() };
    match pid {
        // SAFETY: this is the child, and everything that it needs was made before.
        0 => unsafe { act(line, folder, bound) },
        pid if pid < 0 => Err(io::Error::last_os_error()),
        // Without it, the child ends as soon as it is left alone.
        pid => Ok(OwnedChild { pid: Pid::from_raw(pid), ended: pidfd(pid.unsigned_abs())? }),
    }
}

/// What the child does: nothing that takes a lock or allocates, because other threads of its parent held locks when it
/// was made, and nobody will ever release its copies of them.
///
/// # Safety
/// For a child that was just forked.
unsafe fn act(line: RawFd, folder: RawFd, bound: Duration) -> ! {
    const LINE: RawFd = 0;
    const FOLDER: RawFd = 1;
    // SAFETY: system calls with numbers, and with pointers to what outlives them. It has no other descriptor of its
    // parent when it begins: neither a socket nor a lock lives longer because of it, and the line to it closes with the
    // parent. What ends a group or a session does not end it.
    unsafe {
        libc::setsid();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let (line, folder) =
            (libc::fcntl(line, libc::F_DUPFD, 10), libc::fcntl(folder, libc::F_DUPFD, 10));
        if libc::dup2(line, LINE) < 0 || libc::dup2(folder, FOLDER) < 0 {
            libc::_exit(1);
        }
        libc::syscall(libc::SYS_close_range, 2, libc::c_uint::MAX, 0);
        let say = |word: &[u8]| {
            libc::send(LINE, word.as_ptr().cast(), word.len(), libc::MSG_NOSIGNAL);
        };
        // What is written out now has not to be when everybody waits.
        libc::syncfs(FOLDER);
        if is_told(LINE, Duration::ZERO) {
            libc::_exit(0);
        }
        let began = Instant::now();
        if libc::ioctl(FOLDER, FIFREEZE, 0) != 0 {
            let [a, b, c, d] = Errno::last_raw().to_le_bytes();
            say(&[REFUSED, a, b, c, d]);
            libc::_exit(0);
        }
        let left = bound.saturating_sub(began.elapsed());
        if !left.is_zero() {
            say(&[FROZEN]);
        }
        let word = if is_told(LINE, left) { TOLD } else { BOUND };
        let was_frozen = libc::ioctl(FOLDER, FITHAW, 0) == 0;
        say(&[if was_frozen { word } else { GONE }]);
        libc::_exit(0)
    }
}

/// Waits until the other end is closed, for so long at most.
///
/// # Safety
/// `line` is an open descriptor.
unsafe fn is_told(line: RawFd, within: Duration) -> bool {
    let end = Instant::now() + within;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // A part of a millisecond more is none less.
        let left = libc::c_int::try_from(left.as_micros().div_ceil(1000)).unwrap_or(0);
        let mut poll = libc::pollfd { fd: line, events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which outlives the call.
        match unsafe { libc::poll(&raw mut poll, 1, left) } {
            0 if left == 0 || Instant::now() >= end => return false,
            ready if ready > 0 => return true,
            _ => {}
        }
    }
}
