//! The one door for blocking calls: librbd, ioctls, `mount(2)`, large file work.
//!
//! Async code never blocks its thread; it hands a closure in here and waits for it under a deadline.
//! Called by every driver. Decides nothing about the work, and retries nothing.
//!
//! # A deadline ends the waiting, not the work
//!
//! No thread can be stopped from outside. When the deadline passes, or the caller is dropped, the
//! closure goes on in the background until the call that it is in returns. So whatever protects the
//! work (the lock of a volume, an open handle, a temporary file) has to be *moved into* the closure;
//! a guard that stays in the async caller is released while the work still runs.
//!
//! A runtime that shuts down waits for closures that are running. Every closure therefore needs a
//! bound of its own in the end, such as the timeouts that a Ceph connection is opened with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::time::timeout;

/// Why there is no answer from a blocking call. Whether its work was done is *unknown*, except for
/// [`Blocked::Crowded`].
#[derive(Debug, thiserror::Error)]
pub enum Blocked {
    /// It did not return in time, and goes on in the background.
    #[error("{action} did not finish within {deadline:?}; it may still be under way")]
    Deadline {
        /// What was tried.
        action: String,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// It was never begun: other calls held all places of a [`Gate`] until the deadline.
    #[error("{action} was not begun within {deadline:?}: {places} calls are under way already")]
    Crowded {
        /// What was to be tried.
        action: String,
        /// How long it was waited for.
        deadline: Duration,
        /// How many calls the gate lets in.
        places: usize,
    },
    /// It panicked, or the runtime is shutting down.
    #[error("{action} was cut short")]
    Cut {
        /// What was tried.
        action: String,
        /// Which of the two.
        source: JoinError,
    },
}

/// Runs `work` on the blocking pool and waits at most `deadline` for it.
///
/// After the deadline, or when this future is dropped, `work` goes on: see the [module](self).
/// `action` is for the error: a verb phrase that names the object (`unmount /mnt/a`).
///
/// # Errors
/// [`Blocked`]; what `work` itself has to say is in `T`.
pub async fn run<T, F>(action: impl Into<String>, deadline: Duration, work: F) -> Result<T, Blocked>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match timeout(deadline, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Blocked::Cut { action: action.into(), source }),
        Err(_elapsed) => Err(Blocked::Deadline { action: action.into(), deadline }),
    }
}

/// Lets a bounded number of blocking calls in at a time, so that a cluster that hangs cannot use up
/// all threads of the pool. A call that was given up by its caller keeps its place until it returns.
#[derive(Clone, Debug)]
pub struct Gate {
    free: Arc<Semaphore>,
    places: usize,
}

impl Gate {
    /// How many calls to Ceph may be under way at a time. One connection carries hundreds; the
    /// runtime's blocking pool has 512 threads.
    pub const CEPH_CALLS: usize = 128;

    /// A gate for `places` calls at a time.
    pub fn new(places: usize) -> Gate {
        Gate { free: Arc::new(Semaphore::new(places)), places }
    }

    /// Like [`run`], once there is a place. Waiting for one counts towards the deadline.
    ///
    /// # Errors
    /// [`Blocked`]; what `work` itself has to say is in `T`.
    pub async fn run<T, F>(
        &self,
        action: impl Into<String>,
        deadline: Duration,
        work: F,
    ) -> Result<T, Blocked>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let action = action.into();
        let entered = tokio::time::Instant::now();
        // Nobody closes the semaphore, so the only other answer is the deadline.
        let Ok(Ok(place)) = timeout(deadline, self.free.clone().acquire_owned()).await else {
            // What it owns, such as an open image, may block when it is dropped.
            tokio::task::spawn_blocking(move || drop(work));
            return Err(Blocked::Crowded { action, deadline, places: self.places });
        };
        let left = deadline.saturating_sub(entered.elapsed());
        let work = move || {
            let value = work();
            drop(place);
            value
        };
        run(action, left, work).await.map_err(|blocked| match blocked {
            Blocked::Deadline { action, .. } => Blocked::Deadline { action, deadline },
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tokio's clock cannot be paused here: it stands still while a closure runs.
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn the_value_comes_back() {
        assert_eq!(run("count", Duration::from_secs(10), || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn after_the_deadline_the_work_goes_on() {
        let (go, wait) = mpsc::channel::<()>();
        let (done, seen) = tokio::sync::oneshot::channel();
        let work = move || {
            wait.recv().ok();
            done.send(()).ok();
        };
        let error = run("read the disk", SHORT, work).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "read the disk did not finish within 20ms; it may still be under way"
        );
        go.send(()).unwrap();
        seen.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let error = run("divide", Duration::from_secs(10), || panic!("by zero")).await.unwrap_err();
        assert!(matches!(error, Blocked::Cut { source, .. } if source.is_panic()));
    }

    #[tokio::test]
    async fn an_abandoned_call_keeps_its_place() {
        let gate = Gate::new(1);
        let (go, wait) = mpsc::channel::<()>();
        let hang = move || {
            wait.recv().ok();
        };
        let first = gate.run("hang", SHORT, hang).await;
        assert!(matches!(first, Err(Blocked::Deadline { .. })));
        let second = gate.run("wait", SHORT, || ()).await.unwrap_err();
        assert_eq!(
            second.to_string(),
            "wait was not begun within 20ms: 1 calls are under way already"
        );
        go.send(()).unwrap();
        gate.run("enter", Duration::from_secs(60), || ()).await.unwrap();
    }
}
