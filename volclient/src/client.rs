//! The client: its masters, its connections, and how long a call may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use crate::master::MasterUrl;

/// What was sent and not acknowledged within this time is not sent again: `TCP_USER_TIMEOUT` of tcp(7). Without it the
/// kernel goes on for minutes, also for a process that is dead, and a renewal of a session that comes so late keeps a host
/// alive that is not (seen: 5 s more until a takeover).
const UNACKNOWLEDGED: Duration = Duration::from_secs(3);
/// How long a connection may take to come about. A host that is down costs this much and no more.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(60);

/// How a client behaves when nothing else is said.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long one call may take in all; see [`Client::within`].
    pub limit: Duration,
    /// How long to go on asking while no master can be reached; see [`Client::patient`].
    pub patience: Duration,
    /// Who calls, for the server's log.
    pub user_agent: String,
}

impl Default for Options {
    /// Two minutes, no patience.
    fn default() -> Self {
        Options {
            limit: Duration::from_secs(120),
            patience: Duration::ZERO,
            user_agent: concat!("volclient/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// A client without a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no volmaster is named: give at least one --master")]
pub struct NoMaster;

/// Speaks to volmaster. Cheap to clone; clones share connections and the memory of who answers.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    pub(crate) limit: Limit,
    pub(crate) patience: Duration,
}

/// When a call has to end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// So long after it began.
    Within(Duration),
    /// At this time.
    Until(Instant),
}

/// What clones share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) masters: Vec<MasterUrl>,
    pub(crate) http: Http<HttpConnector, Full<Bytes>>,
    pub(crate) user_agent: String,
    /// The index of the master that answered last.
    preferred: AtomicUsize,
}

impl Inner {
    /// The masters in the order in which to ask them: first the one that answered last.
    pub(crate) fn order(&self) -> impl ExactSizeIterator<Item = (usize, &MasterUrl)> {
        let count = self.masters.len();
        let first = self.preferred.load(Ordering::Relaxed);
        (0..count).map(move |step| {
            let index = (first + step) % count;
            (index, &self.masters[index])
        })
    }

    pub(crate) fn prefer(&self, index: usize) {
        self.preferred.store(index, Ordering::Relaxed);
    }
}

impl Client {
    /// A client of these masters, which all serve the same store. Connects to nobody yet.
    pub fn new(masters: Vec<MasterUrl>, options: Options) -> Result<Self, NoMaster> {
        if masters.is_empty() {
            return Err(NoMaster);
        }
        let Options { limit, patience, user_agent } = options;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_keepalive(Some(Duration::from_secs(15)));
        connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let http = Http::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let preferred = AtomicUsize::new(0);
        let inner = Inner { masters, http, user_agent, preferred };
        Ok(Client { inner: Arc::new(inner), limit: Limit::Within(limit), patience })
    }

    /// The same client, each of whose calls ends within this time, retries and all.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Client { limit: Limit::Within(limit), ..self.clone() }
    }

    /// The same client, all of whose calls end at this time: for several calls of one task.
    #[must_use]
    pub fn until(&self, deadline: Instant) -> Self {
        Client { limit: Limit::Until(deadline), ..self.clone() }
    }

    /// The same client, which goes on asking for so long while no master can be reached, so that a
    /// restart of volmaster is not noticed. The deadline holds all the same.
    #[must_use]
    pub fn patient(&self, patience: Duration) -> Self {
        Client { patience, ..self.clone() }
    }

    /// The masters, in the order in which they were given.
    pub fn masters(&self) -> &[MasterUrl] {
        &self.inner.masters
    }
}
