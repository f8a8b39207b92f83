//! The store for one machine: one crash-safe file (redb), opened by one process.
//!
//! Owns [`EmbeddedStore`]. Every acknowledged commit is on the disk. Everything stored is
//! in memory as well, and reads never touch the disk.
//! The history for watches is bounded and in memory only: a watch from before the
//! process began ends as compacted. Leases that were alive when the process ended
//! have their whole time again when the file is opened, and end then unless renewed.
//! Never shares its file: a second process is told which file is in use.

mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::local::Local;
use crate::store::{
    Cause, Commit, Entry, Key, LeaseId, Page, Renewal, Revision, Step, Store, StoreError, Watch,
};
use file::RedbLog;

/// The version of the file's layout that this program writes, and the newest it can read.
pub const FORMAT: u64 = 1;

/// How often closing looks whether everyone else has let go.
const CLOSING: Duration = Duration::from_millis(1);

/// A store in one file.
pub struct EmbeddedStore {
    local: Arc<Local<RedbLog>>,
}

/// Why a file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open, or another part of this one.
    #[error("the store {} is in use by another process", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// A newer version of this program wrote it.
    #[error("the store {} has format {found}; this version reads formats up to {FORMAT}", path.display())]
    NewerFormat {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// It is a file of some other kind.
    #[error("{} is not a store of this program", path.display())]
    NotAStore {
        /// Which.
        path: PathBuf,
        /// What was found instead.
        #[source]
        source: Cause,
    },
    /// It could not be read or written.
    #[error("could not open the store {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Cause,
    },
}

impl EmbeddedStore {
    /// Opens the file, or creates it (mode 0600) in a folder that exists.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let name = format!("embedded at {}", path.display());
        let aborted = path.clone();
        let opened = tokio::task::spawn_blocking(move || RedbLog::open(&path)).await;
        let (log, image) = opened.unwrap_or_else(|error| {
            Err(OpenError::Io { path: aborted, source: Box::new(error) })
        })?;
        Ok(EmbeddedStore { local: Local::new(name, log, image) })
    }

    /// Closes the file, after writes that are under way. Dropping does the same, but then the
    /// file may be in use for a moment longer.
    pub async fn close(self) {
        let mut local = self.local;
        loop {
            match Arc::try_unwrap(local) {
                Ok(last) => {
                    // Closing writes to the disk. Nothing depends on it: the file is whole at any time.
                    let _closed = tokio::task::spawn_blocking(move || drop(last)).await;
                    return;
                }
                Err(shared) => local = shared,
            }
            tokio::time::sleep(CLOSING).await;
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.local.settle().await?;
        Ok(self.local.read(|| format!("read {key}"))?.get(key))
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.local.settle().await?;
        self.local.list(prefix, after, limit, at)
    }

    async fn commit(&self, steps: Vec<Step>) -> Result<Commit, StoreError> {
        self.local.run(move |local| local.commit(&steps)).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.local.settle().await?;
        let engine = self.local.read(|| "read the revision".to_owned())?;
        Ok(Revision(engine.revision()))
    }

    async fn watch(&self, prefix: &Key, from: Revision) -> Result<Watch, StoreError> {
        Ok(self.local.watch(prefix, from))
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.local.run(move |local| local.grant(ttl)).await
    }

    async fn lease_renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        self.local.run(move |local| local.renew(lease)).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.local.run(move |local| local.revoke(lease)).await
    }

    fn describe(&self) -> String {
        self.local.name().to_owned()
    }
}
