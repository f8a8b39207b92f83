//! All files of all pools. Blocking.

use std::path::Path;

use volcore::name::PoolName;

use super::store::{Store, TRASH, folder_names, id, look};
use crate::draft;
use crate::format::io_failed;
use crate::image::{ImageError, Stock, Stocked};

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
