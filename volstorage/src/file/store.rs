//! The files and folders of the `file` driver. Everything here blocks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;
use volcore::name::PoolName;
use volcore::volume::ImageName;

use super::draft::{self, Draft};
use super::xattr;
use crate::draft as names;
use crate::faults::Faults;
use crate::format::loopdev;
use crate::format::{io_failed, is_plain};
use crate::image::{
    Created, Discarded, ImageError, ImageInfo, NewClone, NewImage, Purged, TrashedImage, Unfinished,
};

const NO_POOL: &str = "make a folder of that name in the image root";
pub(super) const TRASH: &str = ".trash";

/// The image root.
#[derive(Clone, Debug)]
pub(super) struct Store {
    root: PathBuf,
    default_pool: PoolName,
    pub(super) faults: Faults,
}

/// What an image is to be, however it comes by its data.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    image: &'a ImageName,
    uid: Uuid,
}

impl<'a> From<&'a NewImage> for Wanted<'a> {
    fn from(new: &'a NewImage) -> Wanted<'a> {
        Wanted { image: &new.image, uid: new.uid }
    }
}

impl<'a> From<&'a NewClone> for Wanted<'a> {
    fn from(new: &'a NewClone) -> Wanted<'a> {
        Wanted { image: &new.image, uid: new.uid }
    }
}

/// What a create begins with.
pub(super) enum Begun {
    /// There is one already.
    Exists(Created),
    /// A blank file to be formatted.
    Draft(Draft),
}

/// What is under a name.
pub(super) struct There {
    pub(super) uid: Option<Uuid>,
    pub(super) meta: fs::Metadata,
}

impl Store {
    pub(super) fn new(root: &Path, default_pool: PoolName) -> Result<Store, ImageError> {
        let root = root.to_owned();
        if !is_plain(&root) {
            let why = "it has to be absolute, of letters, digits and /._- only";
            let error = io::Error::new(io::ErrorKind::InvalidInput, why);
            return Err(io_failed(&format!("use image root {}", root.display()), error));
        }
        Ok(Store { root, default_pool, faults: Faults::default() })
    }

    pub(super) fn with_faults(&self, faults: Faults) -> Store {
        Store { faults, ..self.clone() }
    }

    pub(super) fn path(&self, image: &ImageName) -> PathBuf {
        self.pool_path(&image.pool).join(&image.name)
    }

    pub(super) fn pool_path(&self, pool: &PoolName) -> PathBuf {
        self.root.join(pool.as_str())
    }

    pub(super) fn pool(&self, pool: &PoolName) -> Result<PathBuf, ImageError> {
        let path = self.pool_path(pool);
        let failed = |error| io_failed(&format!("look at pool {pool}"), error);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => Ok(path),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ if *pool == self.default_pool => {
                let mut options = fs::DirBuilder::new();
                options.recursive(true).mode(0o700).create(&path).map_err(failed)?;
                Ok(path)
            }
            _ => Err(ImageError::NoPool { pool: pool.to_string(), help: NO_POOL }),
        }
    }

    /// Makes a blank draft, unless the image is there.
    pub(super) fn begin(&self, new: &NewImage) -> Result<Begun, ImageError> {
        let pool = self.pool(&new.image.pool)?;
        if let Some(created) = self.existing(new.into())? {
            return Ok(Begun::Exists(created));
        }
        self.fits(&new.image, new.size)?;
        let path = pool.join(names::name(new.uid, &new.image.name));
        let make = || {
            Draft::make(&path, new.size.bytes()).map_err(|error| failed("begin", new.into(), error))
        };
        let made = self.faults.effect("make the draft", make).map(Begun::Draft);
        if made.is_err() {
            self.clear(&path);
        }
        made
    }

    /// Publishes a draft that was formatted; removes it otherwise.
    pub(super) fn finish(
        &self,
        draft: &Draft,
        new: &NewImage,
        formatted: Result<(), ImageError>,
    ) -> Result<Created, ImageError> {
        let published = formatted.and_then(|()| self.publish(draft, new.into()));
        if !matches!(published, Ok(Created::Created { .. })) {
            self.clear(draft.path());
        }
        published
    }

    /// Removes a draft of which nothing will come.
    pub(super) fn clear(&self, path: &Path) {
        if let Err(error) = self.faults.effect("remove the draft", || remove(path)) {
            let (path, error) = (path.display(), &error as &dyn std::error::Error);
            tracing::warn!(%path, error, "a draft was left, to be removed with what is unfinished");
        }
    }

    /// Gives a complete draft its name, unless that is taken.
    pub(super) fn publish(&self, draft: &Draft, new: Wanted<'_>) -> Result<Created, ImageError> {
        let path = self.path(new.image);
        let complete = || draft.complete(new.uid).map_err(|error| failed("complete", new, error));
        self.faults.effect("complete the draft", complete)?;
        let rename = || match draft.rename(&path) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.existing(new),
            Err(error) => Err(failed("publish", new, error)),
        };
        match self.faults.effect("rename the draft", rename) {
            Ok(None) => {}
            Ok(Some(created)) => return Ok(created),
            // Did it happen? The file system knows.
            Err(_) if draft.is_at(&path).unwrap_or(false) => {}
            Err(error) => return Err(error),
        }
        let sync = || sync_folder(path.parent()).map_err(|error| failed("publish", new, error));
        self.faults.effect("write the folder", sync)?;
        Ok(Created::Created { image_id: new.uid.to_string() })
    }

    /// The answer to a create, where something has the name.
    pub(super) fn existing(&self, new: Wanted<'_>) -> Result<Option<Created>, ImageError> {
        match self.look(new.image)? {
            None => Ok(None),
            Some(there) if there.uid == Some(new.uid) => {
                Ok(Some(Created::AlreadyOurs { image_id: new.uid.to_string() }))
            }
            Some(_) => Err(ImageError::Foreign { image: new.image.clone() }),
        }
    }

    pub(super) fn look(&self, image: &ImageName) -> Result<Option<There>, ImageError> {
        look(&self.path(image)).map_err(|error| io_failed(&format!("look at image {image}"), error))
    }

    pub(super) fn find(&self, image: &ImageName) -> Result<Option<ImageInfo>, ImageError> {
        self.pool(&image.pool)?;
        let Some(there) = self.look(image)? else { return Ok(None) };
        let id = id(&there);
        let There { uid, meta } = there;
        Ok(Some(ImageInfo {
            id,
            uid,
            size: meta.len(),
            used: Some(meta.blocks() * 512),
            watchers: self.watchers(image)?,
        }))
    }

    fn watchers(&self, image: &ImageName) -> Result<Vec<String>, ImageError> {
        loopdev::attached_to(&self.path(image))
            .map_err(|error| io_failed(&format!("look for users of image {image}"), error))
    }

    pub(super) fn refuse_if_watched(&self, image: &ImageName) -> Result<(), ImageError> {
        let watchers = self.watchers(image)?;
        if watchers.is_empty() {
            return Ok(());
        }
        Err(ImageError::InUse { image: image.clone(), watchers })
    }

    pub(super) fn discard(&self, image: &ImageName, id: &str) -> Result<Discarded, ImageError> {
        let pool = self.pool(&image.pool)?;
        let failed = |error| io_failed(&format!("move image {image} to the trash"), error);
        let (trash, path) = (pool.join(TRASH), self.path(image));
        // An id that is none of ours is in no trash, and makes no path.
        let trashed = id.parse::<Uuid>().ok().map(|uid| trash.join(uid.to_string()));
        let entry =
            TrashedImage { pool: image.pool.clone(), id: id.to_owned(), name: image.name.clone() };
        let ours = |there: &There| there.uid.is_some_and(|uid| uid.to_string() == id);
        match (self.look(image)?, trashed) {
            (Some(there), Some(trashed)) if ours(&there) => {
                self.refuse_if_watched(image)?;
                let rename = || {
                    fs::DirBuilder::new().recursive(true).mode(0o700).create(&trash)?;
                    fs::rename(&path, trashed)
                };
                self.faults.effect("move to the trash", || rename().map_err(failed))?;
                let sync = || sync_folder(Some(&trash)).and_then(|()| sync_folder(Some(&pool)));
                self.faults.effect("write the folders", || sync().map_err(failed))?;
                Ok(Discarded::Trashed(entry))
            }
            (_, Some(trashed)) if trashed.try_exists().map_err(failed)? => {
                Ok(Discarded::Trashed(entry))
            }
            (None, _) => Ok(Discarded::Absent),
            (Some(_), _) => Err(ImageError::Foreign { image: image.clone() }),
        }
    }

    pub(super) fn purge(&self, trashed: &TrashedImage) -> Result<Purged, ImageError> {
        let TrashedImage { pool, id, name } = trashed;
        let folder = self.pool(pool)?;
        let Ok(id) = id.parse::<Uuid>() else { return Ok(Purged::Absent) };
        let action = format!("free the space of image {pool}/{name} (id {id})");
        let path = folder.join(TRASH).join(id.to_string());
        if path.try_exists().map_err(|error| io_failed(&action, error))? {
            self.remove_snapshots(trashed, id)?;
        }
        self.faults.effect("remove the file", || match fs::remove_file(&path) {
            Ok(()) => Ok(Purged::Purged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Purged::Absent),
            Err(error) => Err(io_failed(&action, error)),
        })
    }

    /// The folders that are pools; none before the root is there.
    pub(super) fn pools(&self) -> Result<Vec<PoolName>, ImageError> {
        let action = format!("list image root {}", self.root.display());
        let names = folder_names(&self.root).map_err(|error| io_failed(&action, error))?;
        let is_folder = |pool: &PoolName| self.root.join(pool.as_str()).is_dir();
        Ok(names.iter().filter_map(|name| name.parse().ok()).filter(is_folder).collect())
    }

    pub(super) fn unfinished(&self) -> Result<Vec<Unfinished>, ImageError> {
        let mut found = Vec::new();
        for pool in self.pools()? {
            let action = format!("list pool {pool}");
            let names = folder_names(&self.root.join(pool.as_str()))
                .map_err(|error| io_failed(&action, error))?;
            for name in names {
                if let Some(uid) = names::uid(&name) {
                    found.push(Unfinished { pool: pool.clone(), name, uid });
                }
            }
        }
        Ok(found)
    }

    pub(super) fn drop_unfinished(&self, unfinished: &Unfinished) -> Result<(), ImageError> {
        let Unfinished { pool, name, uid: _ } = unfinished;
        let path = self.pool(pool)?.join(name);
        let action = format!("remove unfinished image {pool}/{name}");
        names::check(unfinished)?;
        match draft::is_locked(&path) {
            Ok(false) => self.faults.effect("remove the draft", || remove(&path)),
            Ok(true) => Err(ImageError::InUse {
                image: ImageName { pool: pool.clone(), name: name.clone() },
                watchers: vec!["a create that is under way".to_owned()],
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_failed(&action, error)),
        }
    }

    pub(super) fn check(&self) -> Result<String, ImageError> {
        self.pool(&self.default_pool)?;
        let pools: Vec<String> = self.pools()?.iter().map(PoolName::to_string).collect();
        Ok(format!("local files in {}, pools {}", self.root.display(), pools.join(", ")))
    }
}

/// The id of what is there: the volume that it was made for, or what the file system knows it by.
pub(super) fn id(there: &There) -> String {
    there.uid.map_or_else(|| format!("inode-{}", there.meta.ino()), |uid| uid.to_string())
}

fn failed(step: &str, new: Wanted<'_>, error: io::Error) -> ImageError {
    io_failed(&format!("{step} image {}", new.image), error)
}

/// What has this name; nothing that is no file is opened.
pub(super) fn look(path: &Path) -> io::Result<Option<There>> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        meta => meta?,
    };
    if !meta.is_file() {
        return Ok(Some(There { uid: None, meta }));
    }
    match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => Ok(Some(There { uid: xattr::uid(&file?)?, meta })),
    }
}

/// Removes a draft; absent is success.
fn remove(path: &Path) -> Result<(), ImageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_failed(&format!("remove unfinished image {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

pub(super) fn folder_names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Waits until the names in a folder are on disk.
pub(super) fn sync_folder(folder: Option<&Path>) -> io::Result<()> {
    folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
