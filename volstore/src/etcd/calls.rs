//! One call over several endpoints: deadlines, and what may be tried again.
//!
//! Called by `EtcdStore` for every request. etcd-client can balance over endpoints by
//! itself, but then a dead one fails its share of the requests; here each endpoint has
//! its own client, and the one that answered last is asked first. Never decides what a
//! reply means.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Client, ConnectOptions, Error as ClientError, KvClient, LeaseClient, WatchClient,
};
use tokio::time::{Instant, timeout};

use super::failure::{Attempt, Failure, Verdict, describe, judge};
use super::{EtcdOptions, OptionsError};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(1);
/// The pause after every endpoint failed.
const PAUSE: Duration = Duration::from_millis(50);
/// The largest watch message that is taken in: etcd sends up to 1,000 revisions at once to one who is behind.
const WATCH_MESSAGE: usize = 256 << 20;

/// What may be done when an attempt leaves it open whether it happened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It changes nothing: try again, and in the end nothing happened.
    Read,
    /// Twice is as good as once: try again, but in the end it may have happened.
    Repeatable,
    /// Give up at once.
    Once,
}

/// One member of the cluster.
pub(super) struct Endpoint {
    url: String,
    client: Client,
}

impl Endpoint {
    pub(super) fn kv(&self) -> KvClient {
        self.client.kv_client()
    }

    pub(super) fn lease(&self) -> LeaseClient {
        self.client.lease_client()
    }

    pub(super) fn watch(&self) -> WatchClient {
        self.client.watch_client().max_decoding_message_size(WATCH_MESSAGE)
    }
}

/// The members of the cluster.
pub(super) struct Calls {
    endpoints: Vec<Endpoint>,
    /// The one to ask first.
    preferred: AtomicUsize,
    read_deadline: Duration,
    commit_deadline: Duration,
}

/// Where a call stands.
struct Progress {
    end: Instant,
    doubted: bool,
    last: Attempt,
}

impl Progress {
    fn over(self) -> Failure {
        if self.doubted { Failure::InDoubt(self.last) } else { Failure::NotDone(self.last) }
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

impl Calls {
    pub(super) async fn new(options: EtcdOptions) -> Result<Self, OptionsError> {
        if options.endpoints.is_empty() {
            return Err(OptionsError::NoEndpoint);
        }
        let connect = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(options.probe.0, options.probe.1)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true);
        let mut endpoints = Vec::new();
        for url in options.endpoints {
            match Client::connect([&url], Some(connect.clone())).await {
                Ok(client) => endpoints.push(Endpoint { url, client }),
                Err(source) => return Err(OptionsError::BadEndpoint { url, source }),
            }
        }
        Ok(Calls {
            endpoints,
            preferred: AtomicUsize::new(0),
            read_deadline: options.read_deadline,
            commit_deadline: options.commit_deadline,
        })
    }

    /// Asks one endpoint after the other, and all of them again while there is time and
    /// one of them at least is there.
    pub(super) async fn run<T, F>(
        &self,
        mode: Mode,
        call: impl Fn(&Endpoint) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let deadline = if mode == Mode::Read { self.read_deadline } else { self.commit_deadline };
        let last = Attempt { url: self.endpoints[0].url.clone(), what: "not tried".to_owned() };
        let mut progress = Progress { end: Instant::now() + deadline, doubted: false, last };
        loop {
            let first = self.preferred.load(Ordering::Relaxed);
            let mut someone_there = false;
            for tried in 0..self.endpoints.len() {
                let number = (first + tried) % self.endpoints.len();
                let time = self.time_for(mode, &progress, tried);
                match self.attempt(number, time, &call, &mut progress).await {
                    Ok(done) => return Ok(done),
                    Err(Verdict::Final(failure)) => return Err(failure),
                    Err(Verdict::NotReached) => {}
                    Err(Verdict::NotNow) => someone_there = true,
                    Err(Verdict::InDoubt) if mode == Mode::Once => {
                        return Err(Failure::InDoubt(progress.last));
                    }
                    Err(Verdict::InDoubt) => {
                        someone_there = true;
                        progress.doubted = mode == Mode::Repeatable;
                    }
                }
                if progress.left().is_zero() {
                    return Err(progress.over());
                }
            }
            if !someone_there || progress.left() <= PAUSE {
                return Err(progress.over());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What is left of the time is shared by the endpoints not yet tried, except where a timeout is the end.
    fn time_for(&self, mode: Mode, progress: &Progress, tried: usize) -> Duration {
        let others = u32::try_from(self.endpoints.len() - tried).unwrap_or(u32::MAX);
        if mode == Mode::Once { progress.left() } else { progress.left() / others }
    }

    async fn attempt<T, F>(
        &self,
        number: usize,
        time: Duration,
        call: impl Fn(&Endpoint) -> F,
        progress: &mut Progress,
    ) -> Result<T, Verdict>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let endpoint = &self.endpoints[number];
        let (verdict, what) = match timeout(time, call(endpoint)).await {
            Ok(Ok(done)) => {
                self.preferred.store(number, Ordering::Relaxed);
                return Ok(done);
            }
            Ok(Err(error)) => (judge(&error), describe(&error)),
            Err(_) => (Verdict::InDoubt, format!("no answer within {time:.1?}")),
        };
        if !matches!(verdict, Verdict::Final(_)) {
            self.avoid(number);
        }
        progress.last = Attempt { url: endpoint.url.clone(), what };
        Err(verdict)
    }

    /// The next call starts elsewhere.
    fn avoid(&self, number: usize) {
        let next = (number + 1) % self.endpoints.len();
        // Someone else may have found a better one meanwhile: then that stands.
        let _other =
            self.preferred.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}
