//! Whether the image is still this process' own.
//!
//! A request that is refused tells at once. While there are none, the cluster is asked: for an image that is written to,
//! whether this client still has the lock, which an OSD answers and refuses to one that is fenced off; for others about the
//! header.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::ceph::{AsyncImage, CephError, Image};
use crate::host::Mode;

/// How often the cluster is asked.
const CHECK: Duration = Duration::from_secs(3);
/// How soon once more, when the lock seems to be gone.
const DOUBT: Duration = Duration::from_millis(500);
/// How often it has to seem so: librbd takes a lock over to a new watch in two steps, between which it looks gone.
const TIMES: u32 = 3;

/// What stands between this process and the image once it is another's. It is never taken down.
#[derive(Debug)]
pub(super) struct Fence {
    up: AtomicBool,
    mark: PathBuf,
}

impl Fence {
    pub fn new(mark: PathBuf) -> Fence {
        Fence { up: AtomicBool::new(false), mark }
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    /// Takes note of what a request was refused with.
    pub fn look_at(&self, error: &CephError) {
        // One who may write is refused as if he might not when the lock is gone.
        if error.is_shutdown() || error.is_read_only() {
            self.put_up(&error.to_string());
        }
    }

    fn put_up(&self, why: &str) {
        if self.up.swap(true, Ordering::SeqCst) {
            return;
        }
        tracing::error!(why, "the image is another's: nothing is read or written any more");
        if let Err(error) = std::fs::write(&self.mark, why) {
            tracing::error!(%error, mark = %self.mark.display(), "nobody is told");
        }
    }
}

/// Goes on until it is dropped, and ends before that returns.
pub(super) struct Watching {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It panics nowhere.
        self.thread.take().map(JoinHandle::join);
    }
}

/// Begins to ask.
pub(super) fn begin(mode: Mode, image: Arc<AsyncImage>, fence: Arc<Fence>) -> Watching {
    let (stop, stopped) = mpsc::channel();
    let thread = thread::spawn(move || {
        let (mut pause, mut times) = (CHECK, 0);
        while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
            let Some(image) = image.image().filter(|_| !fence.is_up()) else { return };
            match is_ours(mode, image) {
                Ok(true) => (pause, times) = (CHECK, 0),
                Ok(false) => {
                    (pause, times) = (DOUBT, times + 1);
                    if times == TIMES {
                        fence.put_up("its lock was broken");
                    }
                }
                Err(error) => {
                    fence.look_at(&error);
                    tracing::warn!(error = &error as &dyn std::error::Error, "is the image ours?");
                }
            }
        }
    });
    Watching { stop: Some(stop), thread: Some(thread) }
}

fn is_ours(mode: Mode, image: &Image) -> Result<bool, CephError> {
    match mode {
        Mode::ReadWrite => image.is_lock_owner(),
        Mode::ReadOnly => image.reach().map(|()| true),
    }
}
