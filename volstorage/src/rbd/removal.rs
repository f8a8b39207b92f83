//! How images go: into the trash, out of existence, and what attempts have left. Blocking.

use uuid::Uuid;
use volcore::name::PoolName;
use volcore::volume::ImageName;

use super::connection::Session;
use super::names::{self, There};
use crate::ceph::{CephError, Image, Pool, TrashEntry, TrashForce};
use crate::draft;
use crate::faults::Faults;
use crate::image::{Discarded, ImageError, Purged, TrashedImage, Unfinished};

/// Removals through one session.
pub(super) struct Removal<'a> {
    pub(super) session: &'a Session,
    pub(super) faults: &'a Faults,
}

/// The image of one volume.
pub(super) struct Target<'a> {
    pub(super) image: &'a ImageName,
    pub(super) id: Option<&'a str>,
    pub(super) uid: Uuid,
}

impl Target<'_> {
    fn is(&self, id: &str, uid: Option<Uuid>) -> bool {
        self.id.map_or(uid == Some(self.uid), |wanted| wanted == id)
    }

    fn trashed(&self, id: &str) -> Discarded {
        let ImageName { pool, name } = self.image.clone();
        Discarded::Trashed(TrashedImage { pool, id: id.to_owned(), name })
    }
}

impl Removal<'_> {
    pub(super) fn discard(&self, target: &Target<'_>) -> Result<Discarded, ImageError> {
        let image = target.image;
        match names::look(self.session, image)? {
            Some(There { id, uid, image: open }) if target.is(&id, uid) => {
                self.refuse_if_watched(image, &open)?;
                drop(open);
                self.away(image, &id)?;
                Ok(target.trashed(&id))
            }
            there => match (self.in_trash(target)?, there) {
                (Some(id), _) => {
                    self.finish_move(image, &id)?;
                    Ok(target.trashed(&id))
                }
                (None, Some(_)) => Err(ImageError::Foreign { image: image.clone() }),
                (None, None) => Ok(Discarded::Absent),
            },
        }
    }

    fn away(&self, image: &ImageName, id: &str) -> Result<(), ImageError> {
        let pool = self.session.pool(&image.pool)?;
        let action = format!("move image {image} to the trash");
        let away = || match pool.trash_move(&image.name, 0) {
            // It was opened by that name just now, so the directory has another for it.
            Err(error) if error.is_not_found() => {
                names::settle(self.session, self.faults, image, id, names::OTHERS)?;
                pool.trash_move(&image.name, 0).map_err(|error| self.session.failed(&action, error))
            }
            Err(error) if error.is_busy() => {
                if let Some(open) = self.session.open(image)? {
                    self.refuse_if_watched(image, &open)?;
                }
                let watchers = vec!["another call of this process".to_owned()];
                Err(ImageError::InUse { image: image.clone(), watchers })
            }
            moved => moved.map_err(|error| self.session.failed(&action, error)),
        };
        self.faults.effect("move to the trash", away)
    }

    /// Takes the name from an image in the trash that is still listed under one: otherwise nobody
    /// could use that again.
    fn finish_move(&self, image: &ImageName, id: &str) -> Result<(), ImageError> {
        let pool = self.session.pool(&image.pool)?;
        let failed = |error| self.session.failed(&format!("list pool {}", image.pool), error);
        let Some(listed) = pool.list().map_err(failed)?.into_iter().find(|entry| entry.id == id)
        else {
            return Ok(());
        };
        let listed = ImageName { pool: image.pool.clone(), name: listed.name };
        names::restore(self.session, self.faults, &pool, id, &listed)?;
        self.away(&listed, id)
    }

    fn refuse_if_watched(&self, image: &ImageName, open: &Image) -> Result<(), ImageError> {
        let watchers = self.session.watchers(image, open)?;
        if watchers.is_empty() {
            return Ok(());
        }
        Err(ImageError::InUse { image: image.clone(), watchers })
    }

    /// The id of the target in the trash.
    fn in_trash(&self, target: &Target<'_>) -> Result<Option<String>, ImageError> {
        let pool = self.session.pool(&target.image.pool)?;
        let failed =
            |error| self.session.failed(&format!("look for {} in the trash", target.image), error);
        let is_it = |entry: &TrashEntry| match target.id {
            Some(id) => entry.id == id,
            None => entry.name == target.image.name,
        };
        for entry in pool.trash_list().map_err(failed)?.into_iter().filter(is_it) {
            if target.id.is_some() {
                return Ok(Some(entry.id));
            }
            match pool.open_image_by_id(&entry.id) {
                Ok(open) if names::uid(&open).map_err(failed)? == Some(target.uid) => {
                    return Ok(Some(entry.id));
                }
                Ok(_) => {}
                // It was purged meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(None)
    }

    pub(super) fn purge(&self, trashed: &TrashedImage) -> Result<Purged, ImageError> {
        let TrashedImage { pool: name, id, .. } = trashed;
        let image = ImageName { pool: name.clone(), name: trashed.name.clone() };
        self.finish_move(&image, id)?;
        loop {
            let pool = self.session.pool(name)?;
            let action = format!("free the space of image {image} (id {id})");
            let remove = || match pool.trash_remove(id, TrashForce::IgnoreDeferment) {
                Ok(()) => Ok(Purged::Purged),
                Err(error) if error.is_not_found() => Ok(Purged::Absent),
                Err(error) => Err(self.session.failed(&action, error)),
            };
            let purged = self.faults.effect("remove from the trash", remove)?;
            if purged == Purged::Purged || self.session.is_current(name, &pool)? {
                return Ok(purged);
            }
        }
    }

    /// What is unfinished in these pools, also where its removal was cut short.
    pub(super) fn unfinished(&self, pools: &[PoolName]) -> Result<Vec<Unfinished>, ImageError> {
        let mut found = Vec::new();
        for pool in pools {
            let mut names = match self.names(pool) {
                // It was deleted, and all that was unfinished in it.
                Err(ImageError::NoPool { .. }) => continue,
                names => names?,
            };
            names.sort();
            names.dedup();
            found.extend(names.into_iter().filter_map(|name| {
                let uid = draft::uid(&name)?;
                Some(Unfinished { pool: pool.clone(), name, uid })
            }));
        }
        Ok(found)
    }

    /// The names in a pool and its trash.
    fn names(&self, name: &PoolName) -> Result<Vec<String>, ImageError> {
        let pool = self.session.pool(name)?;
        let listed = pool.list().and_then(|images| Ok((images, pool.trash_list()?)));
        match listed {
            Ok((images, trash)) => {
                let images = images.into_iter().map(|entry| entry.name);
                Ok(images.chain(trash.into_iter().map(|entry| entry.name)).collect())
            }
            Err(error) => {
                if error.is_not_found() {
                    self.session.is_current(name, &pool)?;
                }
                Err(self.session.failed(&format!("list pool {name}"), error))
            }
        }
    }

    pub(super) fn drop_unfinished(&self, unfinished: &Unfinished) -> Result<(), ImageError> {
        draft::check(unfinished)?;
        let Unfinished { pool, name, .. } = unfinished;
        let image = ImageName { pool: pool.clone(), name: name.clone() };
        let open = self.session.open(&image)?;
        let pool = self.session.pool(pool)?;
        match open {
            Some(open) => self.remove_draft(&pool, &image, open, || self.remove(&pool, &image))?,
            // It may be listed all the same, where making or removing it was cut short.
            None => self.remove(&pool, &image)?,
        }
        let failed = |error| self.session.failed(&format!("look for {image} in the trash"), error);
        for entry in pool.trash_list().map_err(failed)? {
            if entry.name != *name {
                continue;
            }
            let remove = || self.remove_from_trash(&pool, &image, &entry.id);
            match pool.open_image_by_id(&entry.id) {
                Ok(open) => self.remove_draft(&pool, &image, open, remove)?,
                Err(error) if error.is_not_found() => remove()?,
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Removes a draft by `remove`; one that was half renamed, by the name that it was to get.
    fn remove_draft(
        &self,
        pool: &Pool,
        image: &ImageName,
        open: Image,
        remove: impl FnOnce() -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        // Whoever makes it has it open, in this process too.
        let failed =
            |error| self.session.failed(&format!("look at unfinished image {image}"), error);
        let watchers = open.watchers().map_err(failed)?;
        if !watchers.is_empty() {
            let watchers = watchers.into_iter().map(|watcher| watcher.address).collect();
            return Err(ImageError::InUse { image: image.clone(), watchers });
        }
        let id = open.id().map_err(failed)?;
        drop(open);
        let Some(name) = draft::image(&image.name) else { return remove() };
        let wanted = ImageName { pool: image.pool.clone(), name: name.to_owned() };
        match names::look(self.session, &wanted)? {
            Some(there) if there.id == id => {
                drop(there);
                names::settle(self.session, self.faults, &wanted, &id, names::OTHERS)?;
                self.remove(pool, &wanted)
            }
            _ => remove(),
        }
    }

    fn remove(&self, pool: &Pool, image: &ImageName) -> Result<(), ImageError> {
        self.gone("remove the draft", image, || pool.remove(&image.name))
    }

    fn remove_from_trash(
        &self,
        pool: &Pool,
        image: &ImageName,
        id: &str,
    ) -> Result<(), ImageError> {
        let remove = || pool.trash_remove(id, TrashForce::IgnoreDeferment);
        self.gone("remove the draft from the trash", image, remove)
    }

    fn gone(
        &self,
        effect: &'static str,
        image: &ImageName,
        remove: impl FnOnce() -> Result<(), CephError>,
    ) -> Result<(), ImageError> {
        self.faults.effect(effect, || match remove() {
            Err(error) if error.is_busy() => Err(ImageError::InUse {
                image: image.clone(),
                watchers: vec![
                    "a create that is under way, or a client that was killed".to_owned(),
                ],
            }),
            Err(error) if !error.is_not_found() => {
                let action = format!("remove unfinished image {image}");
                Err(self.session.failed(&action, error))
            }
            _ => Ok(()),
        })
    }
}
