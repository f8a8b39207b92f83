//! Whether this host's session stands, as far as the host itself can know.
//!
//! A host whose session has lapsed may have lost its volumes to others, so it mounts nothing until it has one again; what
//! runs goes on. The time is counted from before the request that renewed the session was sent, by a clock that
//! also goes on while the machine sleeps: so the host gives up no later than volmaster does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use volcore::duration::SessionTtl;

/// A point in time since the machine's boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        // Linux has had this clock since 2.6.39; without it nothing ever stands.
        Moment(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from))
    }
}

/// How long the session stands.
#[derive(Debug, Default)]
pub struct Standing {
    until: Mutex<Option<Moment>>,
    granted: Notify,
}

impl Standing {
    /// Notes that the session was opened or renewed by a request that was sent at `asked`; whether there was none
    /// before.
    pub fn granted(&self, asked: Moment, ttl: SessionTtl) -> bool {
        let had = self.stands();
        let until = asked.0.saturating_add(ttl.get());
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Moment(until));
        self.granted.notify_waiters();
        !had
    }

    /// Whether it stands.
    pub fn stands(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Moment::now() < until)
    }

    /// Waits until it stands, at most so long; whether it does.
    pub async fn wait(&self, bound: Duration) -> bool {
        let waited = tokio::time::timeout(bound, async {
            loop {
                let granted = self.granted.notified();
                tokio::pin!(granted);
                // From here on nothing is missed.
                granted.as_mut().enable();
                if self.stands() {
                    return;
                }
                granted.await;
            }
        });
        waited.await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_stands_for_its_time_and_no_longer() {
        let standing = Standing::default();
        assert!(!standing.stands());
        assert!(!standing.wait(Duration::from_millis(1)).await);
        let ttl: SessionTtl = "5s".parse().unwrap();
        assert!(standing.granted(Moment::now(), ttl));
        assert!(standing.stands() && standing.wait(Duration::ZERO).await);
        assert!(!standing.granted(Moment::now(), ttl), "it was renewed");
        // The request was sent before the host stood still for longer than that.
        let long_ago = Moment(Moment::now().0.saturating_sub(Duration::from_secs(6)));
        standing.granted(long_ago, ttl);
        assert!(!standing.stands());
        assert!(standing.granted(Moment::now(), ttl), "it had lapsed");
    }
}
