//! From nothing to an open image: the connection, the map, the lock.

use std::time::Duration;

use crate::ceph::{CephError, Cluster, ConnectOptions, Image, Timeouts};
use crate::host::Mode;
use crate::serve::words::{Wanted, Word};

/// How long to wait for a cluster. Whoever has started this may give up sooner. Once the image is served, a cluster that is
/// away is waited for without a bound: an error would stop the file system on it.
const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(60), monitor: Duration::MAX, osd: Duration::MAX };

/// An image that is ready to be served.
pub(super) struct Opened {
    /// It, with its lock if it may be written to.
    pub image: Image,
    /// Its bytes.
    pub size: u64,
}

pub(super) fn connect(wanted: &Wanted) -> Result<Cluster, Word> {
    let options = ConnectOptions {
        conf: wanted.conf.clone(),
        user: wanted.user.clone(),
        key: None,
        timeouts: TIMEOUTS,
    };
    Cluster::connect(&options).map_err(Word::failed)
}

/// Opens the image. Writable, it gets the lock in exclusive mode, and waits for it while its owner may still live.
pub(super) fn open(cluster: &Cluster, wanted: &Wanted) -> Result<Opened, Word> {
    // Whoever was fenced off before is fenced off in this map: what is read from now on stays as it is.
    cluster.wait_for_latest_osd_map().map_err(Word::failed)?;
    let pool = cluster.pool(&wanted.pool).map_err(missing)?;
    let image = match wanted.mode {
        Mode::ReadWrite => pool.open_image(&wanted.image),
        Mode::ReadOnly => pool.open_image_read_only(&wanted.image),
    };
    let image = image.map_err(missing)?;
    if wanted.mode == Mode::ReadWrite
        && let Err(error) = image.acquire_lock()
    {
        let holders = image.lock_owners().unwrap_or_default();
        tracing::warn!(error = &error as &dyn std::error::Error, ?holders, "no lock");
        return Err(if holders.is_empty() {
            Word::failed(error)
        } else {
            Word::Locked { holders }
        });
    }
    let size = image.stat().map_err(Word::failed)?.size;
    Ok(Opened { image, size })
}

fn missing(error: CephError) -> Word {
    if error.is_not_found() { Word::NoImage } else { Word::failed(error) }
}
