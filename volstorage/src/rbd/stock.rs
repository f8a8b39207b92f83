//! All images of all pools: the names first, then some of each at a time, of any number side by side.

use tokio::task::JoinSet;
use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::name::PoolName;
use volcore::volume::ImageName;

use super::connection::{CALL, Session};
use super::snapshots::user_name;
use super::{RbdImages, STOCK, UID, build, holders, pools};
use crate::ceph::{CephError, Pool};
use crate::draft;
use crate::image::{ImageError, Inspection, Stock, Stocked};

/// How many images one call looks at: two round trips each.
const AT_A_TIME: usize = 64;

/// The names of a pool and of its trash, with their ids.
struct Listed {
    pool: PoolName,
    is_trash: bool,
    entries: Vec<(String, String)>,
}

impl RbdImages {
    pub(super) async fn stock_now(&self) -> Result<Stock, ImageError> {
        let action = "list all images";
        let listed = self.connection.call_through(&self.stocks, action, STOCK, list).await?;
        let mut looks = JoinSet::new();
        let mut stock = Stock::default();
        for Listed { pool, is_trash, entries } in listed {
            stock.pools.insert(pool.clone());
            for some in entries.chunks(AT_A_TIME) {
                let (images, pool, some) = (self.clone(), pool.clone(), some.to_vec());
                looks.spawn(async move {
                    let look = move |session: &Session| look(session, &pool, some);
                    let call = images.connection.call_through(&images.stocks, action, STOCK, look);
                    call.await.map(|found| (is_trash, found))
                });
            }
        }
        while let Some(looked) = looks.join_next().await {
            let looked = looked.map_err(|source| ImageError::Failed {
                action: action.to_owned(),
                source: Box::new(source),
            })?;
            let (is_trash, found) = looked?;
            if is_trash { stock.trash.extend(found) } else { stock.images.extend(found) }
        }
        let key = |one: &Stocked| (one.pool.clone(), one.name.clone(), one.id.clone());
        stock.images.sort_by_key(key);
        stock.trash.sort_by_key(key);
        Ok(stock)
    }

    pub(super) async fn inspect_now(
        &self,
        image: &ImageName,
    ) -> Result<Option<Inspection>, ImageError> {
        let (action, image) = (format!("look at image {image}"), image.clone());
        let inspect = move |session: &Session| inspect(session, &image);
        self.connection.call_through(&self.stocks, &action, CALL, inspect).await
    }
}

fn inspect(session: &Session, image: &ImageName) -> Result<Option<Inspection>, ImageError> {
    let open = match session.open(image) {
        // With the pool went the image.
        Err(ImageError::NoPool { .. }) => return Ok(None),
        open => open?,
    };
    let Some(open) = open else { return Ok(None) };
    let failed = |error| session.failed(&format!("look at image {image}"), error);
    let snapshots = open.snapshots().map_err(failed)?;
    let snapshots = snapshots.iter().filter_map(|it| user_name(it)?.parse().ok()).collect();
    Ok(Some(Inspection { watchers: holders::users(session, image, &open)?, snapshots }))
}

fn list(session: &Session) -> Result<Vec<Listed>, ImageError> {
    let mut all = pools(session)?;
    all.extend(session.used_pools());
    all.sort();
    all.dedup();
    let mut listed = Vec::new();
    for name in all {
        let pool = match session.pool(&name) {
            // It was deleted meanwhile.
            Err(ImageError::NoPool { .. }) => continue,
            pool => pool?,
        };
        let failed = |error| session.failed(&format!("list pool {name}"), error);
        let images = pool.list().map_err(failed)?.into_iter();
        let images = images.filter(|entry| draft::uid(&entry.name).is_none());
        let entries = images.map(|entry| (entry.id, entry.name)).collect();
        listed.push(Listed { pool: name.clone(), is_trash: false, entries });
        let trash = pool.trash_list().map_err(failed)?.into_iter();
        let trash = trash.filter(|entry| draft::uid(&entry.name).is_none());
        let entries = trash.map(|entry| (entry.id, entry.name)).collect();
        listed.push(Listed { pool: name.clone(), is_trash: true, entries });
    }
    Ok(listed)
}

fn look(
    session: &Session,
    name: &PoolName,
    entries: Vec<(String, String)>,
) -> Result<Vec<Stocked>, ImageError> {
    let pool = session.pool(name)?;
    let mut found = Vec::with_capacity(entries.len());
    for (id, image) in entries {
        let about = about(&pool, &id);
        let (uid, size, limits) = about
            .map_err(|error| session.failed(&format!("look at image {name}/{image}"), error))?;
        found.push(Stocked { pool: name.clone(), id, name: image, uid, size, limits });
    }
    Ok(found)
}

/// Whose it is, its size and its limits.
type About = (Option<Uuid>, Option<u64>, Option<RateLimits>);

fn about(pool: &Pool, id: &str) -> Result<About, CephError> {
    let uid = pool.metadata_of(id, UID)?.and_then(|uid| uid.parse().ok());
    let limits = match uid {
        Some(_) => Some(build::limits_of(pool, id)?),
        None => None,
    };
    // Last, so that the size says whether all of it is of an image that is there still.
    let size = pool.size_of(id)?;
    Ok((uid, size, size.and(limits)))
}
