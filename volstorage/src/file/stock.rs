//! All files of all pools. Blocking.

use std::path::Path;

use volcore::name::PoolName;
use volcore::volume::ImageName;

use super::store::{Store, TRASH, folder_names, id, look};
use crate::draft;
use crate::format::io_failed;
use crate::image::{ImageError, Inspection, Stock, Stocked};

impl Store {
    pub(super) fn stock(&self) -> Result<Stock, ImageError> {
        let mut stock = Stock::default();
        for pool in self.pools()? {
            let folder = self.pool_path(&pool);
            stock.images.extend(stocked(&pool, &folder)?);
            stock.trash.extend(stocked(&pool, &folder.join(TRASH))?);
            stock.pools.insert(pool);
        }
        Ok(stock)
    }

    pub(super) fn inspect(&self, image: &ImageName) -> Result<Option<Inspection>, ImageError> {
        let found = match self.find(image) {
            // With the pool went the image.
            Err(ImageError::NoPool { .. }) => return Ok(None),
            found => found?,
        };
        let Some(found) = found else { return Ok(None) };
        let snapshots = match self.snapshot_list(image) {
            // It has gone just now, or is another that has no snapshots here.
            Err(ImageError::NoImage { .. } | ImageError::Foreign { .. }) => Vec::new(),
            listed => listed?,
        };
        let snapshots = snapshots.into_iter().map(|found| found.name).collect();
        Ok(Some(Inspection { watchers: found.watchers, snapshots }))
    }
}

/// The files in a folder, but for what is being made of them.
fn stocked(pool: &PoolName, folder: &Path) -> Result<Vec<Stocked>, ImageError> {
    let failed = |error| io_failed(&format!("list folder {}", folder.display()), error);
    let mut found = Vec::new();
    for name in folder_names(folder).map_err(failed)? {
        if draft::uid(&name).is_some() {
            continue;
        }
        // What has gone meanwhile is not there, and what is no file is no image.
        let there = look(&folder.join(&name)).map_err(failed)?;
        if let Some(there) = there.filter(|there| there.meta.is_file()) {
            let (id, size) = (id(&there), Some(there.meta.len()));
            let (pool, uid) = (pool.clone(), there.uid);
            // A file has no limits.
            found.push(Stocked { pool, id, name, uid, size, limits: None });
        }
    }
    Ok(found)
}
