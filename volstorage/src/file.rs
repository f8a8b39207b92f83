//! Images as sparse files of this machine: `<image root>/<pool>/<tenant>.<volume>`.
//!
//! For trying the suite out, and for one machine without Ceph. Pools are folders; the default pool's
//! is made on demand, others by the operator. The volume that an image belongs to is in its extended
//! attribute `user.volplugin.uid`, and is the image's id too. The trash is `<pool>/.trash/<id>`, and snapshots are
//! copies in `<pool>/.snapshots/<id>/`. Whoever writes to an image while it is copied has to be stopped by the caller
//! ([`ImageDriver::snapshot_create_if`]).
//! Called by volmaster; the host side only reads the path from [`ImageDriver::source`].

mod adoption;
mod copy;
mod draft;
mod fits;
mod snapshots;
mod stock;
mod store;
mod xattr;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::name::PoolName;
use volcore::order::Capture;
use volcore::size::Size;
use volcore::volume::ImageName;

use self::snapshots::Copied;
use self::store::{Begun, Store};
use crate::faults::Faults;
use crate::format::{Formatter, off_thread, off_thread_within};
use crate::image::{
    Adoptable, Adoption, Confirm, Confirmed, Created, Discarded, Flattened, ImageDriver,
    ImageError, ImageInfo, ImageSnapshot, ImageSource, Inspection, NewClone, NewImage, Progress,
    Purged, Removed, Resized, Restored, Snapped, SnapshotInfo, SnapshotUsage, Stock, TrashedImage,
    Unfinished, Verdict,
};

/// How long a copy may take.
const COPY: Duration = Duration::from_secs(3600);

/// The image driver for local files.
#[derive(Clone, Debug)]
pub struct FileImages {
    store: Arc<Store>,
    formatter: Formatter,
}

impl FileImages {
    /// Images below `image_root`. Folders are made when they are needed: the root, and in it the
    /// folder of `default_pool`.
    ///
    /// # Errors
    /// When the path of the root is not [plain](crate::format::is_plain): it is put into format
    /// commands.
    pub fn new(image_root: &Path, default_pool: PoolName) -> Result<FileImages, ImageError> {
        let store = Arc::new(Store::new(image_root, default_pool)?);
        Ok(FileImages { store, formatter: Formatter::new() })
    }

    /// With a fault plan, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_faults(self, faults: &Faults) -> FileImages {
        let store = Arc::new(self.store.with_faults(faults.clone()));
        FileImages { store, ..self }
    }

    /// Does something with the files through the door for blocking calls.
    async fn on_disk<T: Send + 'static>(
        &self,
        action: String,
        work: impl FnOnce(&Store) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let store = self.store.clone();
        off_thread(&action, move || work(&store)).await
    }

    /// The same for what copies data.
    async fn copying<T: Send + 'static>(
        &self,
        action: String,
        work: impl FnOnce(&Store) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let store = self.store.clone();
        off_thread_within(COPY, &action, move || work(&store)).await
    }

    async fn create_now(self, new: NewImage) -> Result<Created, ImageError> {
        let (wanted, action) = (new.clone(), format!("begin image {}", new.image));
        let draft = match self.on_disk(action, move |store| store.begin(&wanted)).await? {
            Begun::Exists(created) => return Ok(created),
            Begun::Draft(draft) => draft,
        };
        let formatted = self.formatter.format_in_place(&new.format, draft.path(), new.size).await;
        let action = format!("publish image {}", new.image);
        self.on_disk(action, move |store| store.finish(&draft, &new, formatted)).await
    }
}

#[async_trait]
impl ImageDriver for FileImages {
    async fn create(&self, new: &NewImage) -> Result<Created, ImageError> {
        let action = format!("create image {}", new.image);
        // A task of its own, so that it comes to an end when the caller goes away.
        let task = tokio::spawn(self.clone().create_now(new.clone()));
        task.await.map_err(|source| ImageError::Failed { action, source: Box::new(source) })?
    }

    async fn find(&self, image: &ImageName) -> Result<Option<ImageInfo>, ImageError> {
        let (action, image) = (format!("look at image {image}"), image.clone());
        self.on_disk(action, move |store| store.find(&image)).await
    }

    async fn discard(
        &self,
        image: &ImageName,
        image_id: Option<&str>,
        uid: Uuid,
    ) -> Result<Discarded, ImageError> {
        let (action, image) = (format!("discard image {image}"), image.clone());
        let id = image_id.map_or_else(|| uid.to_string(), str::to_owned);
        self.on_disk(action, move |store| store.discard(&image, &id)).await
    }

    async fn purge(&self, trashed: &TrashedImage) -> Result<Purged, ImageError> {
        let trashed = trashed.clone();
        let action = format!("free the space of image {}/{}", trashed.pool, trashed.name);
        self.on_disk(action, move |store| store.purge(&trashed)).await
    }

    /// Does nothing: the host limits what containers do to a loop device.
    async fn limit(&self, _image: &ImageName, _limits: &RateLimits) -> Result<(), ImageError> {
        Ok(())
    }

    fn fences(&self) -> bool {
        false
    }

    async fn lock_owner(&self, _image: &ImageName) -> Result<Option<String>, ImageError> {
        Ok(None)
    }

    async fn fence(&self, _clients: &BTreeSet<String>) -> Result<(), ImageError> {
        Ok(())
    }

    async fn break_lock(
        &self,
        _image: &ImageName,
        _clients: &BTreeSet<String>,
    ) -> Result<(), ImageError> {
        Ok(())
    }

    async fn unfence(&self, _clients: &BTreeSet<String>) -> Result<(), ImageError> {
        Ok(())
    }

    async fn free(&self, _image: &ImageName) -> Result<(), ImageError> {
        Ok(())
    }

    async fn snapshot_create(&self, snapshot: &ImageSnapshot) -> Result<Snapped, ImageError> {
        let (action, at) = (format!("take snapshot {snapshot}"), snapshot.clone());
        self.copying(action, move |store| store.snapshot_create(&at)).await
    }

    async fn snapshot_create_if(
        &self,
        snapshot: &ImageSnapshot,
        within: Duration,
        confirm: Confirm<'_>,
    ) -> Result<Confirmed, ImageError> {
        let (action, at) = (format!("take snapshot {snapshot}"), snapshot.clone());
        let begin = move |store: &Store| store.snapshot_begin(&at, within);
        let draft = match self.copying(action.clone(), begin).await? {
            Copied::Exists => return Ok(Confirmed::Existed),
            Copied::Draft(draft) => draft,
        };
        let (verdict, at) = (confirm.await, snapshot.clone());
        let finish = move |store: &Store| match verdict {
            Verdict::Keep => Ok(match store.snapshot_finish(&at, &draft)? {
                Snapped::Created => Confirmed::Created,
                Snapped::Existed => Confirmed::Existed,
            }),
            Verdict::Discard => {
                store.snapshot_drop(&draft);
                Ok(Confirmed::Discarded)
            }
        };
        self.copying(action, finish).await
    }

    fn capture(&self) -> Capture {
        Capture::Copy
    }

    async fn snapshot_list(
        &self,
        image: &ImageName,
        _usage: SnapshotUsage,
    ) -> Result<Vec<SnapshotInfo>, ImageError> {
        let (action, image) = (format!("list the snapshots of image {image}"), image.clone());
        self.on_disk(action, move |store| store.snapshot_list(&image)).await
    }

    async fn snapshot_remove(&self, snapshot: &ImageSnapshot) -> Result<Removed, ImageError> {
        let (action, at) = (format!("remove snapshot {snapshot}"), snapshot.clone());
        self.on_disk(action, move |store| store.snapshot_remove(&at)).await
    }

    async fn snapshot_rollback(&self, snapshot: &ImageSnapshot) -> Result<(), ImageError> {
        let (action, at) = (format!("roll back to snapshot {snapshot}"), snapshot.clone());
        self.copying(action, move |store| store.snapshot_rollback(&at)).await
    }

    async fn snapshot_clone(&self, new: &NewClone) -> Result<Created, ImageError> {
        let action = format!("clone snapshot {} as image {}", new.from, new.image);
        let new = new.clone();
        self.copying(action, move |store| store.snapshot_clone(&new)).await
    }

    /// A copy has its data itself, although the file system may share it.
    async fn flatten(
        &self,
        image: &ImageName,
        _progress: &Progress,
    ) -> Result<Flattened, ImageError> {
        match self.find(image).await? {
            Some(_) => Ok(Flattened::AlreadyFlat),
            None => Err(ImageError::NoImage { image: image.clone() }),
        }
    }

    async fn fits(&self, image: &ImageName, size: Size) -> Result<(), ImageError> {
        let (action, image) = (format!("try the size of image {image}"), image.clone());
        self.on_disk(action, move |store| store.fits(&image, size)).await
    }

    async fn resize(&self, image: &ImageName, size: Size) -> Result<Resized, ImageError> {
        let (action, image) = (format!("resize image {image}"), image.clone());
        self.on_disk(action, move |store| store.resize(&image, size)).await
    }

    async fn restore(&self, trashed: &TrashedImage, name: &str) -> Result<Restored, ImageError> {
        let action = format!("restore image {}/{} as {name}", trashed.pool, trashed.name);
        let (trashed, name) = (trashed.clone(), name.to_owned());
        self.on_disk(action, move |store| store.restore(&trashed, &name)).await
    }

    async fn adoptable(&self, image: &ImageName) -> Result<Adoptable, ImageError> {
        let (action, image) = (format!("look at image {image}"), image.clone());
        self.on_disk(action, move |store| store.adoptable(&image)).await
    }

    async fn adopt(&self, adoption: &Adoption) -> Result<String, ImageError> {
        let (action, adoption) = (format!("adopt image {}", adoption.image), adoption.clone());
        self.on_disk(action, move |store| store.adopt(&adoption)).await
    }

    async fn give_back(&self, adoption: &Adoption) -> Result<(), ImageError> {
        let (action, adoption) = (format!("give image {} back", adoption.image), adoption.clone());
        self.on_disk(action, move |store| store.give_back(&adoption)).await
    }

    async fn stock(&self) -> Result<Stock, ImageError> {
        self.on_disk("list all images".to_owned(), Store::stock).await
    }

    async fn inspect(&self, image: &ImageName) -> Result<Option<Inspection>, ImageError> {
        let (action, image) = (format!("look at image {image}"), image.clone());
        self.on_disk(action, move |store| store.inspect(&image)).await
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, ImageError> {
        self.on_disk("list unfinished images".to_owned(), Store::unfinished).await
    }

    async fn drop_unfinished(&self, unfinished: &Unfinished) -> Result<(), ImageError> {
        let unfinished = unfinished.clone();
        let action = format!("remove unfinished image {}/{}", unfinished.pool, unfinished.name);
        self.on_disk(action, move |store| store.drop_unfinished(&unfinished)).await
    }

    async fn check(&self) -> Result<String, ImageError> {
        self.on_disk("look at the image root".to_owned(), Store::check).await
    }

    fn source(&self, image: &ImageName) -> ImageSource {
        ImageSource::File { path: self.store.path(image) }
    }
}
