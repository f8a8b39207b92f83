//! A connection that was made: its pools, and how sure we are that it works. Blocking.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use volcore::name::PoolName;
use volcore::volume::ImageName;

use crate::ceph::{CephError, Cluster, ConnectOptions, Image, Pool};
use crate::image::ImageError;

const NO_POOL: &str = "create it with `ceph osd pool create NAME` and `rbd pool init NAME`";

/// How the cluster is called in errors.
pub(super) fn store(conf: &Path) -> String {
    format!("ceph ({})", conf.display())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Health {
    Good,
    /// A call got no answer in time.
    Doubtful,
    /// The cluster has no more to do with this client.
    Fenced,
}

/// A connection that was made, for closures on the blocking pool.
#[derive(Debug)]
pub struct Session {
    cluster: Cluster,
    store: String,
    /// Who is connected, such as `client.volmaster`.
    user: String,
    /// The addresses of this client.
    own: Vec<String>,
    pools: Mutex<HashMap<PoolName, Pool>>,
    health: AtomicU8,
    /// What got no answer, when that put the session in doubt.
    unanswered: Mutex<Option<String>>,
}

impl Session {
    pub(super) fn connect(options: &ConnectOptions) -> Result<Session, CephError> {
        let cluster = Cluster::connect(options)?;
        let own = cluster.clients()?;
        let (store, health) = (store(&options.conf), AtomicU8::new(Health::Good as u8));
        let user = format!("client.{}", options.user);
        Ok(Session {
            cluster,
            store,
            user,
            own,
            pools: Mutex::default(),
            health,
            unanswered: Mutex::default(),
        })
    }

    /// The cluster itself.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A pool; opened once.
    ///
    /// # Errors
    /// [`ImageError::NoPool`] when there is none.
    pub fn pool(&self, name: &PoolName) -> Result<Pool, ImageError> {
        let known = self.pools().get(name).cloned();
        known.map_or_else(|| self.pool_now(name), Ok)
    }

    /// Whether "not found" in this pool means what it says: it also comes from pools that were
    /// deleted. When there is another of the same name, the next [`pool`](Self::pool) gives that.
    ///
    /// # Errors
    /// [`ImageError::NoPool`] when there is none any more.
    pub fn is_current(&self, name: &PoolName, pool: &Pool) -> Result<bool, ImageError> {
        let newest = self.cluster.wait_for_latest_osd_map();
        newest.map_err(|error| self.failed(&format!("look for pool {name}"), error))?;
        Ok(self.pool_now(name)?.id() == pool.id())
    }

    /// The pools that were opened so far.
    pub fn used_pools(&self) -> Vec<PoolName> {
        self.pools().keys().cloned().collect()
    }

    fn pool_now(&self, name: &PoolName) -> Result<Pool, ImageError> {
        match self.cluster.pool(name.as_str()) {
            Ok(pool) => {
                // Not under the lock of the pools: it is written.
                if self.pools().get(name).map(Pool::id) != Some(pool.id()) {
                    self.introduce(name, &pool);
                }
                self.pools().insert(name.clone(), pool.clone());
                Ok(pool)
            }
            Err(error) => {
                self.pools().remove(name);
                Err(self.failed(&format!("open pool {name}"), error))
            }
        }
    }

    /// Tells a pool whose client this is. One that may not write there changes no image, and leaves no lock.
    fn introduce(&self, name: &PoolName, pool: &Pool) {
        for address in &self.own {
            if let Err(error) = pool.add_control(address) {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(pool = %name, error, "the pool does not know this client");
            }
        }
    }

    /// Whether an address is one of this client's.
    pub(in crate::rbd) fn is_own(&self, address: &str) -> bool {
        self.own.iter().any(|own| own == address)
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<PoolName, Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an image for reading, which disturbs nobody; `None` only when the cluster said that it
    /// is not there.
    ///
    /// # Errors
    /// [`ImageError::NoPool`], and when the cluster does not say.
    pub fn open(&self, image: &ImageName) -> Result<Option<Image>, ImageError> {
        self.open_with(image, Pool::open_image_read_only)
    }

    /// Opens an image for writing, which makes this client a watcher of it; `None` as above.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_for_writing(&self, image: &ImageName) -> Result<Option<Image>, ImageError> {
        self.open_with(image, Pool::open_image)
    }

    fn open_with(
        &self,
        image: &ImageName,
        open: impl Fn(&Pool, &str) -> Result<Image, CephError>,
    ) -> Result<Option<Image>, ImageError> {
        loop {
            let pool = self.pool(&image.pool)?;
            match open(&pool, &image.name) {
                Ok(open) => return Ok(Some(open)),
                Err(error) if !error.is_not_found() => {
                    return Err(self.failed(&format!("look at image {image}"), error));
                }
                Err(_) if self.is_current(&image.pool, &pool)? => return Ok(None),
                Err(_) => {}
            }
        }
    }

    /// The addresses of the clients, other than this one, that have an image open for writing.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn watchers(&self, name: &ImageName, image: &Image) -> Result<Vec<String>, ImageError> {
        let found = image
            .watchers()
            .map_err(|error| self.failed(&format!("look for users of image {name}"), error))?;
        let mut addresses: Vec<String> = found
            .into_iter()
            .map(|watcher| watcher.address)
            .filter(|address| !self.own.contains(address))
            .collect();
        addresses.sort();
        addresses.dedup();
        Ok(addresses)
    }

    /// The error of a call that failed. Takes note of what it says about the connection.
    pub fn failed(&self, action: &str, error: CephError) -> ImageError {
        let action = action.to_owned();
        if error.is_shutdown() {
            self.doubt(Health::Fenced, &action);
        } else if error.is_timed_out() {
            self.doubt(Health::Doubtful, &action);
        }
        match error {
            CephError::PoolNotFound { pool } => ImageError::NoPool { pool, help: NO_POOL },
            error if error.is_no_space() => ImageError::NoSpace { action, source: Box::new(error) },
            error if error.is_timed_out() || error.is_shutdown() => {
                let store = self.store.clone();
                ImageError::Unreachable { store, action, source: Box::new(error) }
            }
            error if error.is_without_capability() => {
                ImageError::Denied { action, user: self.user.clone(), source: Box::new(error) }
            }
            error => ImageError::Failed { action, source: Box::new(error) },
        }
    }

    /// Whether further calls have a chance to be answered.
    pub fn is_good(&self) -> bool {
        self.health() == Health::Good
    }

    pub(super) fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Good,
            1 => Health::Doubtful,
            _ => Health::Fenced,
        }
    }

    /// Takes note of what `action` has shown.
    pub(super) fn doubt(&self, health: Health, action: &str) {
        self.unanswered().get_or_insert_with(|| action.to_owned());
        self.health.fetch_max(health as u8, Ordering::Relaxed);
    }

    /// What put it in doubt, for errors.
    pub(super) fn doubted_by(&self) -> String {
        self.unanswered().clone().unwrap_or_default()
    }

    fn unanswered(&self) -> MutexGuard<'_, Option<String>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the monitors and, in each pool that was used, an OSD. In order again if all answer.
    pub(super) fn probe(&self) -> Result<(), CephError> {
        self.cluster.wait_for_latest_osd_map()?;
        let pools: Vec<Pool> = self.pools().values().cloned().collect();
        for pool in pools {
            match pool.reach() {
                Err(error) if error.is_timed_out() => return Err(error),
                Err(error) if error.is_shutdown() => {
                    self.doubt(Health::Fenced, "probe the connection");
                    return Err(error);
                }
                _ => {}
            }
        }
        self.unanswered().take();
        let (from, to) = (Health::Doubtful as u8, Health::Good as u8);
        let swapped = self.health.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        tracing::info!(store = %self.store, good = swapped.is_ok(), "the cluster answers again");
        Ok(())
    }
}
