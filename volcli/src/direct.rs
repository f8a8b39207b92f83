//! Disaster recovery without a volmaster: the metadata commands, straight on etcd.
//!
//! The same rules and preconditions as volmaster's: every write says what it has read, so that a
//! volmaster that runs after all is never overwritten. Images and fencing are out of reach here.

mod mounts;
mod tenants;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use volstore::etcd::{EndpointUrl, EtcdOptions, EtcdStore, OptionsError};
use volstore::keys::Keys;
use volstore::records::Records;
use volstore::store::{Commit, StoreError};

/// How often a change is tried again that somebody else got in the way of.
const ATTEMPTS: usize = 5;

/// Why a command on etcd failed.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// The store said that it is not there.
    #[error("{what} does not exist")]
    NotFound {
        /// What.
        what: String,
    },
    /// A host holds the volume.
    #[error(
        "volume {volume} is in use: {holders}. If no such host runs any more, clear its claim first: \
         volcli --etcd … mount force-remove {volume}"
    )]
    InUse {
        /// Which.
        volume: String,
        /// Who and since when.
        holders: String,
    },
    /// Somebody else is changing it all the time.
    #[error("{what} keeps being changed by somebody else; try again")]
    Contended {
        /// What.
        what: String,
    },
    /// A tenant has had as many uploads as can be counted.
    #[error("tenant {tenant} has no revision number left")]
    NoRevision {
        /// Which.
        tenant: String,
    },
    /// These endpoints make no store.
    #[error("cannot use etcd")]
    Options(#[from] OptionsError),
    /// etcd did not answer, or not as it should.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The metadata in etcd.
pub struct Direct {
    records: Records,
}

impl Direct {
    /// Contacts nobody yet.
    pub async fn new(
        endpoints: Vec<EndpointUrl>,
        keys: Keys,
        timeout: Duration,
    ) -> Result<Self, DirectError> {
        // Every call of the store has a deadline of its own; a short limit of the user's goes before.
        let read = timeout.min(Duration::from_secs(10));
        let options = EtcdOptions::new(endpoints, &keys).read_deadline(read).commit_deadline(read);
        let store = EtcdStore::new(options).await?;
        Ok(Direct { records: Records::new(Arc::new(store), keys) })
    }
}

/// Whether a change was made, or somebody else got in the way.
fn done(commit: Commit) -> bool {
    match commit {
        Commit::Done(_) => true,
        Commit::Conflict => false,
    }
}

#[cfg(test)]
mod tests;
