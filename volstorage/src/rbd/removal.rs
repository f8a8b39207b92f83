//! How images go: into the trash and back, out of existence, and what attempts have left. Blocking.

use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;
use volcore::name::PoolName;
use volcore::volume::ImageName;

use super::connection::Session;
use super::names::{self, Names, Published, Settled, There};
use crate::ceph::{CloneEntry, Image, Pool, TrashEntry, TrashForce};
use crate::draft;
use crate::faults::Faults;
use crate::image::{Discarded, ImageError, Purged, Restored, TrashedImage, Unfinished};

/// How long somebody else may take who frees the space of the same image right now.
const OTHERS: Duration = Duration::from_secs(10);
/// How long somebody may take from finding an image by its name until he watches it.
const OPENING: Duration = Duration::from_secs(1);
/// How often to look whether they have done it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
                if self.away(image, &id, open)? {
                    Ok(target.trashed(&id))
                } else {
                    Ok(Discarded::Absent)
                }
            }
            there => match (self.in_trash(target)?, there) {
                (Some(id), _) => {
                    self.clear(image, &id)?;
                    Ok(target.trashed(&id))
                }
                (None, Some(_)) => Err(ImageError::Foreign { image: image.clone() }),
                (None, None) => Ok(Discarded::Absent),
            },
        }
    }

    /// Moves an image to the trash; false where it was an attempt that is being cleaned up, or is gone. One that has
    /// come there once goes all the way, whoever has opened it since.
    fn away(&self, image: &ImageName, id: &str, open: Image) -> Result<bool, ImageError> {
        let pool = self.session.pool(&image.pool)?;
        let names = self.names(&pool);
        if !names.is_in_trash(id)? {
            self.refuse_if_watched(image, &open)?;
        }
        drop(open);
        let throw_away = || {
            // Somebody else may have removed it all meanwhile.
            let is_there = pool.has_image(id).map_err(|error| {
                self.session.failed(&format!("move image {image} to the trash"), error)
            })?;
            if !is_there {
                return Ok(false);
            }
            if names.settle(id, image)? == Settled::Free {
                return names.is_in_trash(id);
            }
            names.throw_away(&image.name, id)?;
            Ok(true)
        };
        self.alone(&pool, image, id, throw_away)
    }

    /// Takes the names from an image in the trash that a removal which was cut short has left. Nobody restores it
    /// meanwhile: then they would be its names for good.
    fn clear(&self, image: &ImageName, id: &str) -> Result<(), ImageError> {
        let pool = self.session.pool(&image.pool)?;
        let names = self.names(&pool);
        let clear = || if names.is_in_trash(id)? { names.clear(id, image) } else { Ok(()) };
        self.alone(&pool, image, id, clear)
    }

    pub(super) fn names<'a>(&'a self, pool: &'a Pool) -> Names<'a> {
        Names { session: self.session, faults: self.faults, pool }
    }

    pub(super) fn refuse_if_watched(
        &self,
        image: &ImageName,
        open: &Image,
    ) -> Result<(), ImageError> {
        let watchers = self.session.watchers(image, open)?;
        if watchers.is_empty() {
            return Ok(());
        }
        Err(ImageError::InUse { image: image.clone(), watchers })
    }

    /// The id of the target in the trash.
    fn in_trash(&self, target: &Target<'_>) -> Result<Option<String>, ImageError> {
        let pool = self.session.pool(&target.image.pool)?;
        if let Some(id) = target.id {
            return Ok(self.names(&pool).is_in_trash(id)?.then(|| id.to_owned()));
        }
        let failed =
            |error| self.session.failed(&format!("look for {} in the trash", target.image), error);
        let is_it = |entry: &TrashEntry| entry.name == target.image.name;
        for entry in pool.trash_list().map_err(failed)?.into_iter().filter(is_it) {
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
        let action = format!("free the space of image {image} (id {id})");
        let begin = Instant::now();
        loop {
            let pool = self.session.pool(name)?;
            let patient = begin.elapsed() < OTHERS;
            let purge = || self.purge_alone(&pool, &image, id, patient);
            match pool
                .exclusively(id, purge)
                .map_err(|error| self.session.failed(&action, error))?
                .transpose()?
            {
                Some(Some(Purged::Purged)) => return Ok(Purged::Purged),
                Some(Some(Purged::Absent)) if self.session.is_current(name, &pool)? => {
                    return Ok(Purged::Absent);
                }
                Some(Some(Purged::Absent)) => {}
                None if !patient => return Err(others(&image)),
                None | Some(None) => thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// Purges while nobody else removes or restores the image; `None` when somebody has it open and may soon be done.
    fn purge_alone(
        &self,
        pool: &Pool,
        image: &ImageName,
        id: &str,
        patient: bool,
    ) -> Result<Option<Purged>, ImageError> {
        let names = self.names(pool);
        // One that was restored has its names for good.
        if !names.is_in_trash(id)? {
            return Ok(Some(Purged::Absent));
        }
        names.clear(id, image)?;
        self.remove_snapshots(pool, image, id)?;
        let remove = || match pool.trash_remove(id, TrashForce::IgnoreDeferment) {
            Ok(()) => Ok(Some(Purged::Purged)),
            Err(error) if error.is_not_found() => Ok(Some(Purged::Absent)),
            Err(error) if error.is_busy() && patient => Ok(None),
            Err(error) => {
                let action = format!("free the space of image {image} (id {id})");
                Err(self.session.failed(&action, error))
            }
        };
        self.faults.effect("remove from the trash", remove)
    }

    /// Removes the snapshots of an image in the trash, unless there are clones of it: its data goes when theirs is their
    /// own. Those in the trash are among them, and nobody else's business.
    fn remove_snapshots(&self, pool: &Pool, image: &ImageName, id: &str) -> Result<(), ImageError> {
        let action = format!("remove the snapshots of image {image} (id {id})");
        let failed = |error| self.session.failed(&action, error);
        let open = match pool.open_image_by_id(id) {
            Err(error) if error.is_not_found() => return Ok(()),
            open => open.map_err(failed)?,
        };
        let snapshots = open.snapshots().map_err(failed)?;
        if snapshots.is_empty() {
            return Ok(());
        }
        refuse_if_cloned(image, open.clones().map_err(failed)?)?;
        drop(open);
        let open = pool.open_image_by_id_for_writing(id).map_err(failed)?;
        for snapshot in snapshots {
            let remove = || match open.remove_snapshot_by_id(&snapshot) {
                Err(error) if !error.is_not_found() => Err(failed(error)),
                _ => Ok(()),
            };
            self.faults.effect("remove a snapshot", remove)?;
        }
        Ok(())
    }

    /// Does something while nobody else removes or restores the image.
    pub(super) fn alone<T>(
        &self,
        pool: &Pool,
        image: &ImageName,
        id: &str,
        work: impl Fn() -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let begin = Instant::now();
        loop {
            let action = format!("be alone with image {image} (id {id})");
            match pool
                .exclusively(id, &work)
                .map_err(|error| self.session.failed(&action, error))?
            {
                Some(done) => return done,
                None if begin.elapsed() >= OTHERS => return Err(others(image)),
                None => thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// Takes an image out of the trash.
    pub(super) fn restore(
        &self,
        trashed: &TrashedImage,
        name: &str,
    ) -> Result<Restored, ImageError> {
        let TrashedImage { pool: pool_name, id, name: old } = trashed;
        let image = ImageName { pool: pool_name.clone(), name: name.to_owned() };
        let old = ImageName { pool: pool_name.clone(), name: old.clone() };
        let pool = self.session.pool(pool_name)?;
        let names = self.names(&pool);
        let failed = |error| self.session.failed(&format!("restore image {image}"), error);
        let restore = || {
            let is_there = pool.has_image(id).map_err(failed)?;
            match names.is_in_trash(id)? && is_there {
                true => match names.restore(id, &old, &image)? {
                    Published::Yes => Ok(Restored::Restored),
                    Published::Taken | Published::CleanedUp => {
                        Err(ImageError::Foreign { image: image.clone() })
                    }
                },
                false if is_there && names.listed(id)?.as_deref() == Some(name) => {
                    Ok(Restored::AlreadyThere)
                }
                false => {
                    // That, too, is what comes from a pool that was deleted.
                    self.session.is_current(pool_name, &pool)?;
                    Err(ImageError::NotInTrash { trashed: trashed.clone() })
                }
            }
        };
        self.alone(&pool, &image, id, restore)
    }

    /// What is unfinished in these pools, also where its removal was cut short.
    pub(super) fn unfinished(&self, pools: &[PoolName]) -> Result<Vec<Unfinished>, ImageError> {
        let mut found = Vec::new();
        for pool in pools {
            let mut names = match self.all_names(pool) {
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
    fn all_names(&self, name: &PoolName) -> Result<Vec<String>, ImageError> {
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
        let pool = self.session.pool(pool)?;
        let failed =
            |error| self.session.failed(&format!("look at unfinished image {image}"), error);
        if let Some(id) = pool.listed_id(name).map_err(failed)? {
            self.refuse_if_made(&pool, &image, &id)?;
            if let Some(old) = self.names(&pool).claim(name, &id)? {
                if old != *name {
                    thread::sleep(OPENING);
                    self.refuse_if_made(&pool, &image, &id)?;
                }
                self.remove_draft(&pool, &ImageName { name: old, ..image.clone() }, &id)?;
            }
        }
        for entry in pool.trash_list().map_err(failed)? {
            if draft::incoming(&entry.name) == draft::incoming(name) {
                let wanted = draft::image(name).unwrap_or(name).to_owned();
                self.names(&pool).clear(&entry.id, &ImageName { name: wanted, ..image.clone() })?;
                self.remove_from_trash(&pool, &image, &entry.id)?;
            }
        }
        Ok(())
    }

    /// Removes a draft that nobody is making any more.
    pub(super) fn remove_draft(
        &self,
        pool: &Pool,
        draft: &ImageName,
        id: &str,
    ) -> Result<(), ImageError> {
        self.names(pool).throw_away(&draft.name, id)?;
        self.remove_from_trash(pool, draft, id)
    }

    /// Whoever makes a draft has it open, in this process too. To remove it would harm more than their
    /// work: librbd 16.2 ends the process when somebody else asks for the lock while it removes.
    fn refuse_if_made(&self, pool: &Pool, image: &ImageName, id: &str) -> Result<(), ImageError> {
        let watchers = match pool.open_image_by_id(id).and_then(|open| open.watchers()) {
            // It has no header (yet), so it is not being written either.
            Err(error) if error.is_not_found() => return Ok(()),
            watchers => {
                watchers.map_err(|error| self.session.failed(&format!("look at {image}"), error))?
            }
        };
        if watchers.is_empty() {
            return Ok(());
        }
        let watchers = watchers.into_iter().map(|watcher| watcher.address).collect();
        Err(ImageError::InUse { image: image.clone(), watchers })
    }

    fn remove_from_trash(
        &self,
        pool: &Pool,
        image: &ImageName,
        id: &str,
    ) -> Result<(), ImageError> {
        let remove = || pool.trash_remove(id, TrashForce::IgnoreDeferment);
        let removed = || pool.exclusively(id, remove).and_then(Option::transpose);
        self.faults.effect("remove the draft", || match removed() {
            Ok(None) => Err(others(image)),
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

fn refuse_if_cloned(image: &ImageName, clones: Vec<CloneEntry>) -> Result<(), ImageError> {
    if clones.is_empty() {
        return Ok(());
    }
    let clones = clones.into_iter().map(|clone| {
        let trash = if clone.is_in_trash { " in the trash" } else { "" };
        format!("{}/{}{trash}", clone.pool, clone.name)
    });
    Err(ImageError::HasClones { image: image.clone(), clones: clones.collect() })
}

/// Somebody else removes the image at this moment.
fn others(image: &ImageName) -> ImageError {
    let watchers = vec!["somebody who removes it".to_owned()];
    ImageError::InUse { image: image.clone(), watchers }
}
