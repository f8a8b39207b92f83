//! One write to a file, in a child that can be killed.
//!
//! Some files of sysfs do their work while they are written to, which takes as long as a cluster takes to answer. A
//! thread that waits there cannot be stopped; a process can, because the kernel waits killably. So the write is made
//! by a child that is forked for it, and runs no other program: what its argv would cost is more than the write.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long to wait for the end of a child that was killed.
pub const LAST_BREATH: Duration = Duration::from_secs(5);

/// A secret in the kernel's keyring, for as long as the write takes.
pub struct Key<'a> {
    /// Its type, e.g. `ceph`.
    pub sort: &'a str,
    /// The name by which the kernel looks for it.
    pub name: &'a str,
    /// What it keeps.
    pub payload: &'a [u8],
}

/// Why a write did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The kernel refused it.
    #[error("{0}")]
    Refused(Errno),
    /// The key cannot be put into the kernel's keyring.
    #[error("the kernel does not take the key: {0}")]
    Key(Errno),
    /// It took too long; the child was killed.
    #[error("it did not finish within {0:?}")]
    Deadline(Duration),
    /// There was no child, or it ended in another way.
    #[error("the process that was to write failed")]
    Child(#[source] io::Error),
}

/// `KEY_SPEC_THREAD_KEYRING` (keyrings(7)).
const THREAD_KEYRING: libc::c_long = -1;
/// What is added to the exit status, which is an error's number, when it is the key that was refused.
const KEY_REFUSED: i32 = 128;

/// Writes `text` to `file` in one call. Blocks.
///
/// # Errors
/// [`WriteError::Refused`] with what `open(2)` or `write(2)` said; [`WriteError::Deadline`] after `deadline`, which
/// is also when it is not known what came of it.
pub fn write(
    file: &Path,
    text: &[u8],
    key: Option<&Key<'_>>,
    deadline: Duration,
) -> Result<(), WriteError> {
    let file = nul_terminated(file.as_os_str().as_bytes())?;
    let key = match key {
        Some(key) => {
            let (sort, name) = (key.sort.as_bytes(), key.name.as_bytes());
            Some((nul_terminated(sort)?, nul_terminated(name)?, key.payload))
        }
        None => None,
    };
    // SAFETY: takes nothing.
    let parent = unsafe { libc::getpid() };
    // SAFETY: takes nothing. The child does nothing but `act`, which only makes system calls.
    let pid = unsafe { libc::fork() };
    match pid {
        // SAFETY: this is the child, and everything that it needs was made before.
        0 => unsafe { act(parent, &file, text, key.as_ref()) },
        pid if pid < 0 => Err(WriteError::Child(io::Error::last_os_error())),
        pid => wait(Pid::from_raw(pid), deadline),
    }
}

fn nul_terminated(text: &[u8]) -> Result<CString, WriteError> {
    CString::new(text).map_err(|error| WriteError::Child(error.into()))
}

/// What the child does: nothing that takes a lock or allocates, because other threads of its parent held locks when
/// it was made, and nobody will ever release its copies of them.
///
/// # Safety
/// For a child that was just forked.
unsafe fn act(
    parent: libc::pid_t,
    file: &CString,
    text: &[u8],
    key: Option<&(CString, CString, &[u8])>,
) -> ! {
    // SAFETY: system calls with numbers, and with pointers to what outlives them. It has no descriptor of its parent
    // any more when it begins to wait: neither a socket nor a lock lives longer because of it. It dies with its parent.
    unsafe {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(libc::ECANCELED);
        }
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        if let Some((sort, name, payload)) = key {
            let added = libc::syscall(
                libc::SYS_add_key,
                sort.as_ptr(),
                name.as_ptr(),
                payload.as_ptr(),
                payload.len(),
                THREAD_KEYRING,
            );
            if added < 0 {
                libc::_exit(KEY_REFUSED + Errno::last_raw().min(127));
            }
        }
        let opened = libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if opened < 0 || libc::write(opened, text.as_ptr().cast(), text.len()) < 0 {
            libc::_exit(Errno::last_raw().min(127));
        }
        libc::_exit(0)
    }
}

fn wait(child: Pid, deadline: Duration) -> Result<(), WriteError> {
    match ended(child, deadline).map_err(WriteError::Child)? {
        Some(WaitStatus::Exited(_, 0)) => Ok(()),
        Some(WaitStatus::Exited(_, code)) if code > KEY_REFUSED => {
            Err(WriteError::Key(Errno::from_raw(code - KEY_REFUSED)))
        }
        Some(WaitStatus::Exited(_, code)) => Err(WriteError::Refused(Errno::from_raw(code))),
        Some(other) => Err(WriteError::Child(io::Error::other(format!("{other:?}")))),
        None => {
            kill(child, Signal::SIGKILL).ok();
            // One that does not end even so is the kernel's; there is nothing left to do about it.
            ended(child, LAST_BREATH).ok();
            Err(WriteError::Deadline(deadline))
        }
    }
}

/// Waits for the end of a child; `None` when it has not ended by then.
fn ended(child: Pid, within: Duration) -> io::Result<Option<WaitStatus>> {
    let end = Instant::now() + within;
    let mut pause = Duration::from_micros(100);
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() + pause < end => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(5));
            }
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Err(Errno::EINTR) => {}
            done => return Ok(Some(done?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_written_is_there_and_what_is_refused_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        write(&file, b"once", None, SOON).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "once");
        let error = write(&folder.path().join("none"), b"", None, SOON).unwrap_err();
        assert!(matches!(error, WriteError::Refused(Errno::ENOENT)), "{error:?}");
        let error = write(Path::new("/dev/full"), b"x", None, SOON).unwrap_err();
        assert!(matches!(error, WriteError::Refused(Errno::ENOSPC)), "{error:?}");
        let unknown = Key { sort: "no-such-type", name: "name", payload: b"" };
        let error = write(&file, b"twice", Some(&unknown), SOON).unwrap_err();
        // Where keys are not to be had at all (seccomp, no CONFIG_KEYS) that is said.
        let refused = [Errno::ENODEV, Errno::ENOSYS, Errno::EPERM, Errno::EACCES];
        assert!(matches!(error, WriteError::Key(why) if refused.contains(&why)), "{error:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "once");
    }

    #[test]
    fn what_takes_too_long_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let begun = Instant::now();
        let error = write(&fifo, b"", None, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, WriteError::Deadline(_)), "{error:?}");
        assert!(begun.elapsed() < LAST_BREATH);
    }
}
