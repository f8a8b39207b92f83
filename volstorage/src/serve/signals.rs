//! The process itself: its name, what it is told on its standard input and by signals, and its end.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{SigSet, Signal};

use super::{OPEN, PROGRAM};

/// How long one who is told to end may take to close what it has just opened.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// `PR_SET_IO_FLUSHER` of `linux/prctl.h`.
const IO_FLUSHER: libc::c_int = 57;

const OPENING: u8 = 0;
const ENDING: u8 = 1;
const SERVING: u8 = 2;

/// How far it has come: whoever comes first, the end or the beginning, decides.
#[derive(Debug, Default)]
pub(super) struct Stage(AtomicU8);

impl Stage {
    /// Goes on from opening, if nobody has before.
    fn take(&self, to: u8) -> bool {
        self.0.compare_exchange(OPENING, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Whether there is anything to begin.
    pub fn begin_serving(&self) -> bool {
        self.take(SERVING)
    }
}

/// Gives the process its name, and tells the kernel that memory is written out through it: while it waits for memory,
/// nothing is written out to make room (`PR_SET_IO_FLUSHER`, Linux 5.6).
pub(super) fn introduce() {
    let name = std::ffi::CString::new(PROGRAM).unwrap_or_default();
    // SAFETY: the name is a NUL-terminated string, which the kernel copies.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    // SAFETY: takes numbers. Without the capability that it wants it fails, and nothing has changed.
    unsafe { libc::prctl(IO_FLUSHER, 1, 0, 0, 0) };
}

/// Listens, from before the first other thread is there. What is given hears when the image is to be opened.
pub(super) fn listen(stage: Arc<Stage>, folder: PathBuf) -> mpsc::Receiver<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    // The threads that follow inherit this. It fails for no valid set.
    let _ = signals.thread_block();
    thread::spawn(move || {
        loop {
            match signals.wait() {
                Ok(_) if stage.take(ENDING) => {
                    // It may have got the lock in this moment. One that still waits for it has nothing to give up.
                    thread::sleep(LAST_BREATH);
                    leave();
                }
                // Busy, it goes on: what is mounted on it would be lost.
                Ok(_) => drop(umount2(&folder, MntFlags::UMOUNT_NOFOLLOW)),
                Err(_) => return,
            }
        }
    });
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        if !matches!(read, Ok(1..)) || line.trim() != OPEN {
            // Whoever has started this is gone, and did not record who will write.
            leave();
        }
        let _ = tell.send(());
    });
    told
}

/// Ends the process, at once: the exit handlers of librados would take its memory away from under its threads.
pub(super) fn leave() -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_room_for_the_name() {
        assert!(PROGRAM.len() <= 15);
    }

    #[test]
    fn of_the_end_and_the_beginning_one_comes_first() {
        let stage = Stage::default();
        assert!(stage.take(ENDING));
        assert!(!stage.begin_serving());
        let stage = Stage::default();
        assert!(stage.begin_serving());
        assert!(!stage.take(ENDING));
    }
}
