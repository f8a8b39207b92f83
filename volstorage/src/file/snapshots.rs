//! Snapshots and clones of files: copies, shared where the file system can, in `<pool>/.snapshots/<id of the image>/`.
//! They go by the image's id, so that they follow it into the trash and back without being touched. Everything here
//! blocks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, Instant, UNIX_EPOCH};

use jiff::Timestamp;
use uuid::Uuid;
use volcore::name::PoolName;
use volcore::size::Size;
use volcore::volume::ImageName;

use super::COPY;
use super::copy::copy;
use super::draft::{Draft, rename_new};
use super::store::{Store, TRASH, There, Wanted, folder_names, sync_folder};
use crate::draft as names;
use crate::format::io_failed;
use crate::image::{
    Created, ImageError, ImageSnapshot, NewClone, Removed, Resized, Restored, Snapped,
    SnapshotInfo, TrashedImage,
};

const SNAPSHOTS: &str = ".snapshots";

/// What is to be a snapshot.
pub(super) enum Copied {
    /// There is one of that name.
    Exists,
    /// It has all of the data.
    Draft(Draft),
}

/// A draft to be made.
struct New<'a> {
    pool: &'a PoolName,
    name: &'a str,
    /// That of the original, unless another is asked for.
    size: Option<Size>,
    /// When its data has to be there.
    end: Instant,
}

impl Store {
    /// The folder with the snapshots of an image.
    pub(super) fn snapshots(&self, pool: &PoolName, image_id: Uuid) -> PathBuf {
        self.pool_path(pool).join(SNAPSHOTS).join(image_id.to_string())
    }

    fn snapshot_path(&self, at: &ImageSnapshot, image_id: Uuid) -> PathBuf {
        self.snapshots(&at.image.pool, image_id).join(at.snapshot.as_str())
    }

    /// An image that is there, and the volume it was made for.
    fn ours(&self, image: &ImageName) -> Result<(There, Uuid), ImageError> {
        self.pool(&image.pool)?;
        let there =
            self.look(image)?.ok_or_else(|| ImageError::NoImage { image: image.clone() })?;
        let uid = there.uid.ok_or_else(|| ImageError::Foreign { image: image.clone() })?;
        Ok((there, uid))
    }

    pub(super) fn snapshot_create(&self, at: &ImageSnapshot) -> Result<Snapped, ImageError> {
        match self.snapshot_begin(at, COPY)? {
            Copied::Exists => Ok(Snapped::Existed),
            Copied::Draft(draft) => self.snapshot_finish(at, &draft),
        }
    }

    /// Copies an image into a draft that nobody takes for a snapshot.
    pub(super) fn snapshot_begin(
        &self,
        at: &ImageSnapshot,
        within: Duration,
    ) -> Result<Copied, ImageError> {
        let end = Instant::now() + within;
        let failed = |error| io_failed(&format!("take snapshot {at}"), error);
        let (_, uid) = self.ours(&at.image)?;
        if self.snapshot_path(at, uid).try_exists().map_err(failed)? {
            return Ok(Copied::Exists);
        }
        let folder = self.snapshots(&at.image.pool, uid);
        let make = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            sync_folder(Some(&self.pool_path(&at.image.pool)))?;
            sync_folder(folder.parent())
        };
        self.faults.effect("make the folder", || make().map_err(failed))?;
        let from = File::open(self.path(&at.image)).map_err(failed)?;
        let name = names::name(uid, at.snapshot.as_str());
        let slow = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => {
                ImageError::Slow { action: format!("take snapshot {at}"), within }
            }
            _ => failed(error),
        };
        let new = New { pool: &at.image.pool, name: &name, size: None, end };
        Ok(Copied::Draft(self.copied(&from, new, &slow)?))
    }

    /// Makes a draft the snapshot. What it is to have is in it: from here on the image may change.
    pub(super) fn snapshot_finish(
        &self,
        at: &ImageSnapshot,
        draft: &Draft,
    ) -> Result<Snapped, ImageError> {
        let failed = |error| io_failed(&format!("take snapshot {at}"), error);
        let finish = || {
            let (_, uid) = self.ours(&at.image)?;
            self.complete(draft, uid, &failed)?;
            let to = self.snapshot_path(at, uid);
            let rename = || match draft.rename(&to) {
                Ok(()) => Ok(Snapped::Created),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Snapped::Existed),
                Err(error) => Err(failed(error)),
            };
            let taken = self.faults.effect("rename the draft", rename)?;
            let sync = || sync_folder(to.parent()).map_err(failed);
            self.faults.effect("write the folder", sync)?;
            Ok(taken)
        };
        let taken = finish();
        if !matches!(taken, Ok(Snapped::Created)) {
            self.clear(draft.path());
        }
        taken
    }

    /// Drops a draft.
    pub(super) fn snapshot_drop(&self, draft: &Draft) {
        self.clear(draft.path());
    }

    pub(super) fn snapshot_list(&self, image: &ImageName) -> Result<Vec<SnapshotInfo>, ImageError> {
        let failed = |error| io_failed(&format!("list the snapshots of image {image}"), error);
        let folder = self.snapshots(&image.pool, self.ours(image)?.1);
        let mut found = Vec::new();
        for name in folder_names(&folder).map_err(failed)? {
            let Ok(name) = name.parse() else { continue };
            let meta = match fs::metadata(folder.join::<&str>(AsRef::as_ref(&name))) {
                // It was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                meta => meta.map_err(failed)?,
            };
            // It was written when it was taken, and never again.
            let created_at = created_at(&meta).map_err(failed)?;
            let used = Some(meta.blocks() * 512);
            found.push(SnapshotInfo { name, created_at, size: meta.len(), used });
        }
        found.sort_by(|one, other| {
            (one.created_at, &one.name).cmp(&(other.created_at, &other.name))
        });
        Ok(found)
    }

    pub(super) fn snapshot_remove(&self, at: &ImageSnapshot) -> Result<Removed, ImageError> {
        let failed = |error| io_failed(&format!("remove snapshot {at}"), error);
        let path = self.snapshot_path(at, self.ours(&at.image)?.1);
        let remove = || match fs::remove_file(&path) {
            Ok(()) => Ok(Removed::Removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Removed::Absent),
            Err(error) => Err(failed(error)),
        };
        let removed = self.faults.effect("remove the snapshot", remove)?;
        if removed == Removed::Removed {
            let sync = || sync_folder(path.parent()).map_err(failed);
            self.faults.effect("write the folder", sync)?;
        }
        Ok(removed)
    }

    /// Puts a copy of the snapshot in the place of the image.
    pub(super) fn snapshot_rollback(&self, at: &ImageSnapshot) -> Result<(), ImageError> {
        let image = &at.image;
        let failed = |error| {
            io_failed(&format!("roll image {image} back to snapshot {}", at.snapshot), error)
        };
        let (_, uid) = self.ours(image)?;
        let from = self.open_snapshot(at, uid)?;
        self.refuse_if_watched(image)?;
        let name = names::name(uid, &image.name);
        let new = New { pool: &image.pool, name: &name, size: None, end: Instant::now() + COPY };
        let draft = self.copied(&from, new, &failed)?;
        let rolled = self.complete(&draft, uid, &failed).and_then(|()| {
            // The copy may have taken its time.
            self.refuse_if_watched(image)?;
            self.ours(image)?;
            let path = self.path(image);
            let replace = || fs::rename(draft.path(), &path).map_err(failed);
            self.faults.effect("replace the image", replace)?;
            self.faults.effect("write the folder", || sync_folder(path.parent()).map_err(failed))
        });
        if rolled.is_err() {
            self.clear(draft.path());
        }
        rolled
    }

    pub(super) fn snapshot_clone(&self, new: &NewClone) -> Result<Created, ImageError> {
        let failed = |error| io_failed(&format!("clone snapshot {}", new.from), error);
        let wanted = Wanted::from(new);
        self.pool(&new.image.pool)?;
        if let Some(created) = self.existing(wanted)? {
            return Ok(created);
        }
        let from = self.open_snapshot(&new.from, self.ours(&new.from.image)?.1)?;
        let bytes = from.metadata().map_err(failed)?.len();
        if new.size.bytes() < bytes {
            let what = format!("snapshot {}", new.from);
            return Err(ImageError::Shrinks { what, bytes, size: new.size });
        }
        self.fits(&new.image, new.size)?;
        let name = names::name(new.uid, &new.image.name);
        let end = Instant::now() + COPY;
        let to = New { pool: &new.image.pool, name: &name, size: Some(new.size), end };
        let draft = self.copied(&from, to, &failed)?;
        let published = self.publish(&draft, wanted);
        if !matches!(published, Ok(Created::Created { .. })) {
            self.clear(draft.path());
        }
        published
    }

    pub(super) fn resize(&self, image: &ImageName, size: Size) -> Result<Resized, ImageError> {
        let failed = |error| io_failed(&format!("resize image {image}"), error);
        let bytes = self.ours(image)?.0.meta.len();
        if bytes == size.bytes() {
            return Ok(Resized::Unchanged);
        }
        if bytes > size.bytes() {
            return Err(ImageError::Shrinks { what: format!("image {image}"), bytes, size });
        }
        self.fits(image, size)?;
        let resize = || {
            let file = OpenOptions::new().write(true).open(self.path(image))?;
            file.set_len(size.bytes())?;
            file.sync_all()
        };
        self.faults.effect("resize", || resize().map_err(failed))?;
        Ok(Resized::Grown)
    }

    pub(super) fn restore(
        &self,
        trashed: &TrashedImage,
        name: &str,
    ) -> Result<Restored, ImageError> {
        let image = ImageName { pool: trashed.pool.clone(), name: name.to_owned() };
        let failed = |error| io_failed(&format!("restore image {image}"), error);
        let pool = self.pool(&trashed.pool)?;
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "that is no name")));
        }
        let absent = || ImageError::NotInTrash { trashed: trashed.clone() };
        let uid: Uuid = trashed.id.parse().map_err(|_| absent())?;
        let (from, to) = (pool.join(TRASH).join(uid.to_string()), self.path(&image));
        let rename = || match rename_new(&from, &to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(ImageError::Foreign { image: image.clone() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        };
        // Looked at first: a rename onto a name that is taken does not say whether there was anything to rename.
        let restored = from.try_exists().map_err(failed)?
            && self.faults.effect("take out of the trash", rename)?;
        if !restored && self.look(&image)?.is_none_or(|there| there.uid != Some(uid)) {
            return Err(absent());
        }
        let sync = || sync_folder(Some(&pool.join(TRASH))).and_then(|()| sync_folder(Some(&pool)));
        self.faults.effect("write the folders", || sync().map_err(failed))?;
        Ok(if restored { Restored::Restored } else { Restored::AlreadyThere })
    }

    /// Removes all snapshots of an image in the trash.
    pub(super) fn remove_snapshots(
        &self,
        trashed: &TrashedImage,
        uid: Uuid,
    ) -> Result<(), ImageError> {
        let TrashedImage { pool, id, name } = trashed;
        let action = format!("remove the snapshots of image {pool}/{name} (id {id})");
        let folder = self.snapshots(pool, uid);
        if !folder.try_exists().map_err(|error| io_failed(&action, error))? {
            return Ok(());
        }
        self.faults.effect("remove the snapshots", || match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_failed(&action, error)),
            _ => Ok(()),
        })
    }

    fn open_snapshot(&self, at: &ImageSnapshot, uid: Uuid) -> Result<File, ImageError> {
        match File::open(self.snapshot_path(at, uid)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ImageError::NoSnapshot { snapshot: at.clone() })
            }
            open => open.map_err(|error| io_failed(&format!("read snapshot {at}"), error)),
        }
    }

    /// A draft of that name with the content of a file; as large, or larger where that is asked for.
    fn copied(
        &self,
        from: &File,
        new: New<'_>,
        failed: &dyn Fn(io::Error) -> ImageError,
    ) -> Result<Draft, ImageError> {
        let New { pool, name, size, end } = new;
        let path = self.pool_path(pool).join(name);
        let len = match size {
            Some(size) => size.bytes(),
            None => from.metadata().map_err(failed)?.len(),
        };
        let make = || Draft::make(&path, len).map_err(failed);
        let copied = self.faults.effect("make the draft", make).and_then(|draft| {
            let fill = || copy(from, draft.file(), end).map_err(failed);
            self.faults.effect("copy the data", fill)?;
            Ok(draft)
        });
        if copied.is_err() {
            self.clear(&path);
        }
        copied
    }

    fn complete(
        &self,
        draft: &Draft,
        uid: Uuid,
        failed: &dyn Fn(io::Error) -> ImageError,
    ) -> Result<(), ImageError> {
        self.faults.effect("complete the draft", || draft.complete(uid).map_err(failed))
    }
}

fn created_at(meta: &fs::Metadata) -> io::Result<Timestamp> {
    let since = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::UNIX_EPOCH.checked_add(since).map_err(io::Error::other)
}
