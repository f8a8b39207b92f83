//! Snapshots, clones and growth in the fake.

use jiff::Timestamp;
use volcore::size::Size;
use volcore::volume::ImageName;

use super::FakeImages;
use super::state::{FakeImage, FakeSnapshot, Parent, Pool};
use crate::image::{
    Confirmed, Created, Flattened, ImageError, ImageSnapshot, NewClone, Progress, Removed, Resized,
    Restored, Snapped, SnapshotInfo, SnapshotUsage, TrashedImage,
};

impl FakeImages {
    /// Does something with an image that is there.
    fn with<T>(
        &self,
        image: &ImageName,
        action: &str,
        change: impl FnOnce(&mut FakeImage) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        self.ask(&image.pool, action, |pool| match pool.images.get_mut(&image.name) {
            Some(found) => change(found),
            None => Err(ImageError::NoImage { image: image.clone() }),
        })
    }

    pub(super) fn take(&self, at: &ImageSnapshot) -> Result<Snapped, ImageError> {
        let take = |image: &mut FakeImage| {
            if image.snapshots.iter().any(|there| there.name == at.snapshot) {
                return Ok(Snapped::Existed);
            }
            refuse_if_kept(&at.image, image)?;
            image.snapshots.push(FakeSnapshot {
                name: at.snapshot.clone(),
                created_at: Timestamp::now(),
                size: image.size,
                format: image.format.clone(),
                data: image.data.clone(),
            });
            Ok(Snapped::Created)
        };
        let take = || self.with(&at.image, &format!("take snapshot {at}"), take);
        self.faults.effect("take the snapshot", take)
    }

    /// What a snapshot would have; `None` where there is one.
    pub(super) fn take_hidden(
        &self,
        at: &ImageSnapshot,
    ) -> Result<Option<FakeSnapshot>, ImageError> {
        let action = format!("take snapshot {at}");
        let is_there = |image: &mut FakeImage| {
            Ok(image.snapshots.iter().any(|there| there.name == at.snapshot))
        };
        if self.with(&at.image, &action, is_there)? {
            return Ok(None);
        }
        let take = |image: &mut FakeImage| {
            Ok(Some(FakeSnapshot {
                name: at.snapshot.clone(),
                created_at: Timestamp::now(),
                size: image.size,
                format: image.format.clone(),
                data: image.data.clone(),
            }))
        };
        self.faults.effect("take the snapshot", || self.with(&at.image, &action, take))
    }

    /// Makes what was taken a snapshot.
    pub(super) fn publish(
        &self,
        at: &ImageSnapshot,
        taken: FakeSnapshot,
    ) -> Result<Confirmed, ImageError> {
        let publish = |image: &mut FakeImage| {
            if image.snapshots.iter().any(|there| there.name == at.snapshot) {
                return Ok(Confirmed::Existed);
            }
            image.snapshots.push(taken);
            Ok(Confirmed::Created)
        };
        let publish = || self.with(&at.image, &format!("take snapshot {at}"), publish);
        self.faults.effect("publish the snapshot", publish)
    }

    pub(super) fn list(
        &self,
        image: &ImageName,
        usage: SnapshotUsage,
    ) -> Result<Vec<SnapshotInfo>, ImageError> {
        let info = |snapshot: &FakeSnapshot| SnapshotInfo {
            name: snapshot.name.clone(),
            created_at: snapshot.created_at,
            size: snapshot.size,
            used: (usage == SnapshotUsage::Count).then_some(snapshot.data.len() as u64),
        };
        self.with(image, &format!("list the snapshots of image {image}"), |image| {
            Ok(image.snapshots.iter().map(info).collect())
        })
    }

    pub(super) fn remove_snapshot(&self, at: &ImageSnapshot) -> Result<Removed, ImageError> {
        let remove = |image: &mut FakeImage| {
            let before = image.snapshots.len();
            image.snapshots.retain(|there| there.name != at.snapshot);
            Ok(if image.snapshots.len() < before { Removed::Removed } else { Removed::Absent })
        };
        let remove = || self.with(&at.image, &format!("remove snapshot {at}"), remove);
        self.faults.effect("remove the snapshot", remove)
    }

    pub(super) fn roll_back(&self, at: &ImageSnapshot) -> Result<(), ImageError> {
        let action = format!("roll back to snapshot {at}");
        let check = |image: &mut FakeImage| {
            let snapshot = image.snapshots.iter().find(|there| there.name == at.snapshot).cloned();
            let snapshot =
                snapshot.ok_or_else(|| ImageError::NoSnapshot { snapshot: at.clone() })?;
            if image.watchers.is_empty() {
                return Ok(snapshot);
            }
            let watchers = image.watchers.iter().cloned().collect();
            Err(ImageError::InUse { image: at.image.clone(), watchers })
        };
        let snapshot = self.with(&at.image, &action, check)?;
        let roll_back = |image: &mut FakeImage| {
            (image.size, image.format, image.data) =
                (snapshot.size, snapshot.format, snapshot.data);
            Ok(())
        };
        self.faults.effect("roll back", || self.with(&at.image, &action, roll_back))
    }

    pub(super) async fn clone_now(
        &self,
        new: &NewClone,
        name: &str,
    ) -> Result<Created, ImageError> {
        let (from, id) = (&new.from, self.next_id());
        let source = self.with(&from.image, &format!("read snapshot {from}"), |image| {
            let snapshot = image.snapshots.iter().find(|there| there.name == from.snapshot);
            let missing = || ImageError::NoSnapshot { snapshot: from.clone() };
            let snapshot = snapshot.ok_or_else(missing)?.clone();
            if new.size.bytes() < snapshot.size {
                let (what, bytes) = (format!("snapshot {from}"), snapshot.size);
                return Err(ImageError::Shrinks { what, bytes, size: new.size });
            }
            Ok((snapshot, Parent { pool: from.image.pool.clone(), id: image.id.clone() }))
        });
        let (snapshot, parent) = source?;
        let draft = FakeImage {
            name: name.to_owned(),
            uid: Some(new.uid),
            size: new.size.bytes(),
            format: snapshot.format,
            data: snapshot.data,
            limits: new.limits,
            parent: Some(parent),
            ..FakeImage::blank(&id)
        };
        self.insert(&new.image, draft)?;
        // Lets another attempt come in between.
        tokio::task::yield_now().await;
        self.rename(new.into(), name, &id)
    }

    pub(super) fn flatten_now(
        &self,
        image: &ImageName,
        progress: &Progress,
    ) -> Result<Flattened, ImageError> {
        let action = format!("flatten image {image}");
        if self.with(image, &action, |image| Ok(image.parent.is_none()))? {
            return Ok(Flattened::AlreadyFlat);
        }
        let flatten = |found: &mut FakeImage| {
            refuse_if_kept(image, found)?;
            found.parent = None;
            progress.set(1, 1);
            Ok(Flattened::Flattened)
        };
        self.faults.effect("flatten", || self.with(image, &action, flatten))
    }

    pub(super) fn grow(&self, image: &ImageName, size: Size) -> Result<Resized, ImageError> {
        let action = format!("resize image {image}");
        let bytes = self.with(image, &action, |image| Ok(image.size))?;
        if bytes == size.bytes() {
            return Ok(Resized::Unchanged);
        }
        if bytes > size.bytes() {
            return Err(ImageError::Shrinks { what: format!("image {image}"), bytes, size });
        }
        let grow = |found: &mut FakeImage| {
            refuse_if_kept(image, found)?;
            found.size = size.bytes();
            Ok(Resized::Grown)
        };
        self.faults.effect("resize", || self.with(image, &action, grow))
    }

    pub(super) fn put_back(
        &self,
        trashed: &TrashedImage,
        name: &str,
    ) -> Result<Restored, ImageError> {
        let image = ImageName { pool: trashed.pool.clone(), name: name.to_owned() };
        let restore = |pool: &mut Pool| {
            let there = pool.images.get(name).map(|there| there.id == trashed.id);
            match (there, pool.trash.remove(&trashed.id)) {
                (None, Some(found)) => {
                    let found = FakeImage { name: name.to_owned(), ..found };
                    pool.images.insert(name.to_owned(), found);
                    Ok(Restored::Restored)
                }
                (Some(true), None) => Ok(Restored::AlreadyThere),
                (Some(_), Some(found)) => {
                    pool.trash.insert(found.id.clone(), found);
                    Err(ImageError::Foreign { image: image.clone() })
                }
                (_, None) => Err(ImageError::NotInTrash { trashed: trashed.clone() }),
            }
        };
        let action = format!("restore image {image}");
        self.faults.effect("take out of the trash", || self.ask(&image.pool, &action, restore))
    }

    /// Refuses where there are clones of an image in the trash.
    pub(super) fn refuse_if_cloned(&self, trashed: &TrashedImage) -> Result<(), ImageError> {
        let state = self.lock();
        let is_clone = |image: &&FakeImage| {
            let parent = image.parent.as_ref();
            parent.is_some_and(|parent| parent.pool == trashed.pool && parent.id == trashed.id)
        };
        let clones = |(pool, content): (&_, &Pool)| {
            let named = content.images.values().filter(is_clone);
            let named = named.map(|image| format!("{pool}/{}", image.name));
            let thrown = content.trash.values().filter(is_clone);
            let thrown = thrown.map(|image| format!("{pool}/{} in the trash", image.name));
            named.chain(thrown).collect::<Vec<_>>()
        };
        let clones: Vec<String> = state.pools.iter().flat_map(clones).collect();
        if clones.is_empty() {
            return Ok(());
        }
        let image = ImageName { pool: trashed.pool.clone(), name: trashed.name.clone() };
        Err(ImageError::HasClones { image, clones })
    }
}

fn refuse_if_kept(image: &ImageName, found: &FakeImage) -> Result<(), ImageError> {
    if !found.keeps_lock {
        return Ok(());
    }
    Err(ImageError::Kept {
        image: image.clone(),
        action: "change it".to_owned(),
        reason: "the fake was told so".to_owned(),
        watchers: found.watchers.iter().cloned().collect(),
    })
}
