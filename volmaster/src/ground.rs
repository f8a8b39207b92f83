//! Opens what a volmaster stands on: the store and the images, as the settings say.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use volstorage::ceph::ConnectOptions;
use volstorage::file::FileImages;
use volstorage::image::{ImageDriver, ImageError};
use volstorage::rbd::RbdImages;
use volstorage::rbd::connection::{Connection, TIMEOUTS};
use volstore::embedded::{EmbeddedStore, OpenError};
use volstore::etcd::{EtcdOptions, EtcdStore, OptionsError};
use volstore::store::Store;

use crate::app::Ground;
use crate::config::{Config, ImagesConfig, StoreConfig};

/// Why there is no ground to stand on.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// The data folder cannot be made.
    #[error("could not make the folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The embedded store cannot be opened.
    #[error("could not open the metadata store")]
    Embedded(#[from] OpenError),
    /// The etcd endpoints make no sense.
    #[error("could not use these etcd endpoints")]
    Etcd(#[from] OptionsError),
    /// The images cannot be used.
    #[error("could not use the images")]
    Images(#[from] ImageError),
}

/// Opens everything. Neither etcd nor Ceph has to answer: what needs them fails until they do.
pub async fn open(config: &Config) -> Result<Ground, GroundError> {
    let store: Arc<dyn Store> = match &config.store {
        StoreConfig::Etcd(endpoints) => Arc::new(
            EtcdStore::new(EtcdOptions::new(endpoints.iter().cloned(), &config.keys)).await?,
        ),
        StoreConfig::Embedded(folder) => {
            std::fs::create_dir_all(folder)
                .map_err(|source| GroundError::Folder { path: folder.clone(), source })?;
            Arc::new(EmbeddedStore::open(folder.join("volmaster.redb")).await?)
        }
    };
    let images: Arc<dyn ImageDriver> = match &config.images {
        ImagesConfig::File(root) => Arc::new(FileImages::new(root, config.default_pool.clone())?),
        ImagesConfig::Rbd { conf, user, snapshot_user, scratch } => {
            let connect = |user: &str| {
                let (conf, user) = (conf.clone(), user.to_owned());
                Connection::new(ConnectOptions { conf, user, key: None, timeouts: TIMEOUTS })
            };
            let images = RbdImages::new(connect(user), scratch)?;
            Arc::new(match snapshot_user {
                Some(user) => images.taking_snapshots_through(connect(user)),
                None => images,
            })
        }
    };
    Ok(Ground {
        store,
        keys: config.keys.clone(),
        images,
        default_pool: config.default_pool.clone(),
        clock: Arc::new(Timestamp::now),
    })
}
