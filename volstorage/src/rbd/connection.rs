//! The one connection to the cluster: made when it is first needed, watched, made again.
//!
//! Starting does not need Ceph. The first call connects, and others wait for that same attempt.
//! A call that got no answer in time puts the connection in doubt: the next one has it probed, and
//! while it is known to be out of order calls fail within [`PATIENCE`] instead of each waiting its
//! full time, with a new attempt going on behind them. A client that was fenced is
//! replaced, and one that does not find its servers again when a new one does. Used by the `rbd` driver, and by whoever else
//! in the process talks to the cluster. Must not know what the calls are for.

mod session;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

pub use self::session::Session;
use self::session::{Health, store};

use crate::blocking::{self, Blocked, Gate};
use crate::ceph::{CephError, ConnectOptions, Key, Timeouts};
use crate::image::ImageError;

/// How long a call waits for a cluster that is known to be out of order.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How long a call may take; it gives up a little later than a request to a server does.
pub const CALL: Duration = Duration::from_secs(18);

/// When an attempt to connect or to probe counts as lost.
const ATTEMPT: Duration = Duration::from_secs(60);

/// How long to wait for servers, so that a call to a cluster that is gone ends before [`CALL`].
pub const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(8),
    monitor: Duration::from_secs(8),
    osd: Duration::from_secs(15),
};

/// A handle on the connection. Clones share it.
///
/// Drop the last one outside of async code and before `main` returns: that disconnects, which
/// blocks.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: ConnectOptions,
    gate: Gate,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Arc<Session>>,
    /// Why the last attempt failed, or what put the session in doubt.
    trouble: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// Ends when the attempt does that is under way.
    attempt: Option<watch::Receiver<()>>,
}

/// What is shown where there is no better cause.
#[derive(Clone, Debug, thiserror::Error)]
enum Trouble {
    #[error("the first attempt to connect has not finished")]
    Connecting,
    #[error("an attempt to connect did not finish within {ATTEMPT:?}")]
    Lost,
    #[error("an earlier attempt to {action} got no answer in time")]
    NoAnswer { action: String },
    #[error("this client was fenced off by the cluster")]
    Fenced,
}

/// The cause of an error that several calls get.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Known(Arc<dyn std::error::Error + Send + Sync>);

impl Connection {
    /// Takes down where the cluster is; connects later. `timeouts` is usually [`TIMEOUTS`].
    pub fn new(options: ConnectOptions) -> Connection {
        let gate = Gate::new(Gate::CEPH_CALLS);
        Connection { shared: Arc::new(Shared { options, gate, state: Mutex::default() }) }
    }

    /// A connection of another user to the same cluster.
    pub(super) fn of_user(&self, user: &str, key: Key) -> Connection {
        let (user, key) = (user.to_owned(), Some(key));
        Connection::new(ConnectOptions { user, key, ..self.shared.options.clone() })
    }

    /// How the cluster is called in errors.
    pub fn store(&self) -> String {
        store(&self.shared.options.conf)
    }

    /// Does something blocking with the cluster. After the deadline, or when this future is dropped,
    /// `work` goes on: see [`blocking`].
    ///
    /// # Errors
    /// What `work` says, and [`ImageError::Unreachable`] when there is no connection or no answer.
    pub async fn call<T: Send + 'static>(
        &self,
        action: &str,
        deadline: Duration,
        work: impl FnOnce(&Session) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        self.call_through(&self.shared.gate, action, deadline, work).await
    }

    /// Like [`call`](Self::call), through a gate of the caller's: what takes long must not keep
    /// everything else out.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub async fn call_through<T: Send + 'static>(
        &self,
        gate: &Gate,
        action: &str,
        deadline: Duration,
        work: impl FnOnce(&Session) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let begin = tokio::time::Instant::now();
        let session = match self.session(action, deadline).await {
            Ok(session) => session,
            Err(error) => {
                // What it owns, such as an open image, blocks when it is dropped.
                tokio::task::spawn_blocking(move || drop(work));
                return Err(error);
            }
        };
        let (inside, left) = (session.clone(), deadline.saturating_sub(begin.elapsed()));
        // The session is dropped in there too, should it be the last of a replaced connection.
        let work = move || {
            let inside = inside;
            work(&inside)
        };
        match gate.run(action, left, work).await {
            Ok(answer) => answer,
            Err(blocked) => {
                if matches!(blocked, Blocked::Deadline { .. }) {
                    session.doubt(Health::Doubtful, action);
                }
                Err(self.unreachable(action, Box::new(blocked)))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a call that got no answer.
    pub(super) fn unreachable(
        &self,
        action: &str,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> ImageError {
        ImageError::Unreachable { store: self.store(), action: action.to_owned(), source }
    }

    /// A session that is in order.
    async fn session(&self, action: &str, deadline: Duration) -> Result<Arc<Session>, ImageError> {
        let (mut attempt, known) = {
            let mut state = self.lock();
            let health = state.session.as_ref().map(|session| session.health());
            match (&state.session, health) {
                (Some(session), Some(Health::Good)) => return Ok(session.clone()),
                (Some(session), Some(Health::Doubtful)) if state.trouble.is_none() => {
                    let action = session.doubted_by();
                    state.trouble = Some(Arc::new(Trouble::NoAnswer { action }));
                }
                (_, Some(Health::Fenced)) if state.trouble.is_none() => {
                    state.trouble = Some(Arc::new(Trouble::Fenced));
                }
                _ => {}
            }
            let known = state.trouble.is_some();
            let attempt = state.attempt.get_or_insert_with(|| self.begin_attempt());
            (attempt.clone(), known)
        };
        let patience = if known { PATIENCE.min(deadline) } else { deadline };
        // The sender is dropped when the attempt is over, whatever came of it.
        timeout(patience, attempt.changed()).await.ok();
        let state = self.lock();
        match &state.session {
            Some(session) if session.health() == Health::Good => Ok(session.clone()),
            _ => {
                let cause = state.trouble.clone().unwrap_or_else(|| Arc::new(Trouble::Connecting));
                Err(self.unreachable(action, Box::new(Known(cause))))
            }
        }
    }

    /// Connects or probes in a task of its own, which is the only one.
    fn begin_attempt(&self) -> watch::Receiver<()> {
        let (over, attempt) = watch::channel(());
        let connection = self.clone();
        tokio::spawn(async move {
            let old = connection.lock().session.clone();
            let options = connection.shared.options.clone();
            let action = format!("connect to {}", connection.store());
            let tried = blocking::run(action, ATTEMPT, move || attempt_now(&options, old)).await;
            let mut state = connection.lock();
            state.attempt = None;
            match tried {
                Ok(Ok(session)) => {
                    let old = state.session.replace(session);
                    state.trouble = None;
                    // It may be the last of a connection that was replaced, and disconnect.
                    tokio::task::spawn_blocking(move || drop(old));
                }
                Ok(Err(error)) => state.trouble = Some(Arc::new(error)),
                Err(_) => state.trouble = Some(Arc::new(Trouble::Lost)),
            }
            drop(over);
        });
        attempt
    }
}

/// Probes the old session where that can help; otherwise connects.
fn attempt_now(
    options: &ConnectOptions,
    old: Option<Arc<Session>>,
) -> Result<Arc<Session>, CephError> {
    match old {
        Some(session) if session.health() != Health::Fenced => {
            // A client that has lost its monitors waits longer and longer before it asks them again,
            // so that a new one may reach them first. Where neither does, the first one says why.
            match session.probe() {
                Ok(()) => Ok(session),
                Err(error) => Session::connect(options).map(Arc::new).map_err(|_| error),
            }
        }
        _ => Ok(Arc::new(Session::connect(options)?)),
    }
}
