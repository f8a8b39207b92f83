//! How an image is made: blank, and filled with what was formatted, or as a clone. Blocking, but for the door.
//!
//! ```text
//! format a scratch file ────────────────┐
//! look who has the name, create a draft,├─ write the data ──┬─ close
//! open it ──────────────────────────────┴─ set the metadata ┴─ publish
//! ```
//! What is side by side runs at the same time: each step is several round trips to the cluster, and
//! their sum is what a user waits for. A clone is a draft with data: it only grows, where it is to be larger.

use std::io;
use std::num::NonZeroU64;
use std::thread;

use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::size::Size;
use volcore::volume::ImageName;

use super::connection::Session;
use super::names::{self, Names, Published, Settled, There};
use super::removal::Removal;
use super::snapshots::ROLLING_BACK;
use super::{UID, features};
use crate::ceph::{CephError, Image, Pool, Shrink, config_key};
use crate::draft;
use crate::faults::{Broken, Faults};
use crate::format::Formatted;
use crate::image::{Created, ImageError, NewClone, NewImage};

/// How much data formatting may write: what a slow cluster takes in within a create's time.
const MOST_DATA: u64 = 1 << 30;

/// What a create begins with.
pub(super) enum Begun {
    /// There is one already.
    Exists(Created),
    /// A blank image.
    Draft(Draft),
}

/// A blank image under a name of its own, open for writing.
#[derive(Debug)]
pub(super) struct Draft {
    pool: Pool,
    name: String,
    id: String,
    image: Image,
}

/// What an image is to be, however it comes by its data.
pub(super) struct Wanted<'a> {
    image: &'a ImageName,
    uid: Uuid,
    limits: &'a RateLimits,
}

impl<'a> From<&'a NewImage> for Wanted<'a> {
    fn from(new: &'a NewImage) -> Wanted<'a> {
        Wanted { image: &new.image, uid: new.uid, limits: &new.limits }
    }
}

impl<'a> From<&'a NewClone> for Wanted<'a> {
    fn from(new: &'a NewClone) -> Wanted<'a> {
        Wanted { image: &new.image, uid: new.uid, limits: &new.limits }
    }
}

/// The steps of one create, or of one clone.
pub(super) struct Build<'a> {
    pub(super) session: &'a Session,
    pub(super) faults: &'a Faults,
    pub(super) new: Wanted<'a>,
}

/// Makes an image of that name in that pool.
pub(super) type MakeImage<'a> = &'a dyn Fn(&Pool, &str) -> Result<(), CephError>;

/// Makes a blank image.
pub(super) fn blank(new: &NewImage) -> impl Fn(&Pool, &str) -> Result<(), CephError> {
    let (size, features) = (new.size.bytes(), features(new.access));
    move |pool, name| pool.create(name, size, features)
}

impl Build<'_> {
    fn failed(&self, step: &str, error: CephError) -> ImageError {
        self.session.failed(&format!("{step} image {}", self.new.image), error)
    }

    /// Makes a draft, unless the image is there.
    pub(super) fn begin(&self, make: MakeImage<'_>) -> Result<Begun, ImageError> {
        let wanted = self.new.image;
        loop {
            let pool = self.session.pool(&wanted.pool)?;
            if let Some(created) = self.taken_in(&pool)? {
                return Ok(Begun::Exists(created));
            }
            let name = draft::name(self.new.uid, &wanted.name);
            match self.make(&pool, &name, make) {
                Ok(draft) => return Ok(Begun::Draft(draft)),
                // That, too, is what comes from a pool that was deleted.
                Err(Make::Create(error))
                    if error.is_not_found() && !self.session.is_current(&wanted.pool, &pool)? => {}
                Err(error) => {
                    self.clear(&pool, &name);
                    return Err(match error {
                        Make::Create(error) => self.failed("begin", error),
                        Make::Other(error) => error,
                    });
                }
            }
        }
    }

    /// The answer where something has the name already.
    pub(super) fn taken(&self) -> Result<Option<Created>, ImageError> {
        self.taken_in(&self.session.pool(&self.new.image.pool)?)
    }

    fn taken_in(&self, pool: &Pool) -> Result<Option<Created>, ImageError> {
        let linked = pool.linked_id(&self.new.image.name);
        match linked.map_err(|error| self.failed("look for", error))? {
            Some(_) => self.existing(pool),
            None => Ok(None),
        }
    }

    fn make(&self, pool: &Pool, name: &str, make: MakeImage<'_>) -> Result<Draft, Make> {
        let make = || make(pool, name).map_err(Make::Create);
        self.faults.effect("make the draft", make)?;
        let opened = pool.open_image(name).and_then(|image| Ok((image.id()?, image)));
        let (id, image) = opened.map_err(|error| Make::Other(self.failed("begin", error)))?;
        Ok(Draft { pool: pool.clone(), name: name.to_owned(), id, image })
    }

    /// Fills a draft with what was formatted and publishes it; removes it where there is nothing to
    /// publish.
    pub(super) fn finish(
        &self,
        draft: Draft,
        formatted: Result<Formatted, ImageError>,
    ) -> Result<Created, ImageError> {
        let filled = formatted.and_then(|formatted| self.fill(&draft, &formatted));
        self.publish_or_clear(draft, filled)
    }

    /// Makes a draft that is a clone as large as it is to be, and publishes it; removes it where that fails.
    pub(super) fn finish_clone(&self, draft: Draft, size: Size) -> Result<Created, ImageError> {
        let filled = self.grow(&draft, size).and_then(|()| self.describe(&draft));
        self.publish_or_clear(draft, filled)
    }

    fn grow(&self, draft: &Draft, size: Size) -> Result<(), ImageError> {
        let failed = |error| self.failed("enlarge", error);
        if draft.image.stat().map_err(failed)?.size == size.bytes() {
            return Ok(());
        }
        let grow = || draft.image.resize(size.bytes(), Shrink::Refuse).map_err(failed);
        self.faults.effect("enlarge the draft", grow)
    }

    fn publish_or_clear(
        &self,
        draft: Draft,
        filled: Result<(), ImageError>,
    ) -> Result<Created, ImageError> {
        let (pool, name) = (draft.pool.clone(), draft.name.clone());
        let published = match filled {
            Ok(()) => self.publish(draft),
            Err(error) => {
                drop(draft);
                Err(error)
            }
        };
        if !matches!(published, Ok(Created::Created { .. })) {
            self.clear(&pool, &name);
        }
        published
    }

    fn fill(&self, draft: &Draft, formatted: &Formatted) -> Result<(), ImageError> {
        // Sent all the same it would keep the cluster from everything else for as long.
        if formatted.bytes().is_ok_and(|bytes| bytes > MOST_DATA) {
            return Err(ImageError::TooLarge {
                image: self.new.image.clone(),
                reason: format!(
                    "formatting it writes more than {} MiB (a smaller size, or another file system, writes less)",
                    MOST_DATA >> 20
                ),
            });
        }
        let (written, described) = thread::scope(|scope| {
            let described = scope.spawn(|| self.describe(draft));
            let write = || self.write(&draft.image, formatted);
            let written = self.faults.effect("write the data", write);
            (written, joined(described))
        });
        written.and(described)
    }

    fn write(&self, image: &Image, formatted: &Formatted) -> Result<(), ImageError> {
        let written = formatted.pieces().map_err(Write::Read).and_then(|pieces| {
            image.try_write_extents(pieces.map(|piece| piece.map_err(Write::Read)))
        });
        match written {
            Ok(_) => Ok(()),
            Err(Write::Image(error)) => Err(self.failed("write", error)),
            Err(Write::Read(error)) => Err(ImageError::Failed {
                action: format!("read the scratch file of image {}", self.new.image),
                source: Box::new(error),
            }),
        }
    }

    /// Writes on the image whose it is and what limits it has, in one go. Nobody else has it open yet,
    /// so nobody needs to be told; and its own limits do not slow down the writing of its data.
    fn describe(&self, draft: &Draft) -> Result<(), ImageError> {
        let (uid, limits) = (self.new.uid.to_string(), settings(self.new.limits));
        let limits = limits.map(|(setting, limit)| (config_key(setting), limit));
        // A clone begins with the metadata of the image that it was made of.
        let mut pairs: Vec<(&str, Option<&str>)> =
            limits.iter().map(|(key, limit)| (key.as_str(), limit.as_deref())).collect();
        pairs.push((UID, Some(&uid)));
        pairs.push((ROLLING_BACK, None));
        let describe = || draft.pool.set_metadata(&draft.id, &pairs);
        let describe = || describe().map_err(|error| self.failed("describe", error));
        self.faults.effect("set the metadata", describe)
    }

    /// Gives a complete draft its name, unless that is taken. It is closed meanwhile; all of it was
    /// flushed, so nothing is lost should that fail.
    fn publish(&self, draft: Draft) -> Result<Created, ImageError> {
        let Draft { pool, name, id, image } = draft;
        let wanted = self.new.image;
        let published = thread::scope(|scope| {
            let closed = scope.spawn(|| image.close());
            let published = self.names(&pool).publish(&name, &id, wanted);
            if let Err(error) = joined(closed) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(image = %wanted, error, "an image was made and did not close cleanly");
            }
            published
        });
        match published {
            Ok(Published::Yes) => Ok(Created::Created { image_id: id }),
            Ok(Published::Taken) => {
                self.existing(&pool)?.ok_or_else(|| self.unpublished(Unpublished::Dangling))
            }
            Ok(Published::CleanedUp) => Err(self.unpublished(Unpublished::CleanedUp)),
            Err(error) => {
                self.faults.alive("the answer")?;
                match self.existing(&pool) {
                    Ok(Some(Created::AlreadyOurs { image_id })) if image_id == id => {
                        Ok(Created::Created { image_id })
                    }
                    Ok(Some(created)) => Ok(created),
                    Err(error @ ImageError::Foreign { .. }) => Err(error),
                    _ => Err(error),
                }
            }
        }
    }

    fn names<'a>(&'a self, pool: &'a Pool) -> Names<'a> {
        Names { session: self.session, faults: self.faults, pool }
    }

    fn unpublished(&self, why: Unpublished) -> ImageError {
        let action = format!("publish image {}", self.new.image);
        ImageError::Failed { action, source: Box::new(why) }
    }

    /// The answer to a create, where something has the name.
    fn existing(&self, pool: &Pool) -> Result<Option<Created>, ImageError> {
        let wanted = self.new.image;
        match names::look(self.session, wanted)? {
            None => Ok(None),
            Some(There { id, uid, .. }) if uid == Some(self.new.uid) => {
                let settled = self.names(pool).settle(&id, wanted)?;
                Ok((settled == Settled::Listed).then_some(Created::AlreadyOurs { image_id: id }))
            }
            Some(_) => Err(ImageError::Foreign { image: wanted.clone() }),
        }
    }

    /// Removes a draft of which nothing will come.
    fn clear(&self, pool: &Pool, name: &str) {
        if !self.session.is_good() {
            return;
        }
        let removal = Removal { session: self.session, faults: self.faults };
        let remove = || {
            let id = pool.linked_id(name);
            let id = id.map_err(|error| self.failed("look for what is left of", error))?;
            let Some(id) = id else { return Ok(()) };
            let Some(old) = self.names(pool).claim(name, &id)? else { return Ok(()) };
            let draft = ImageName { pool: self.new.image.pool.clone(), name: old };
            removal.remove_draft(pool, &draft, &id)
        };
        if let Err::<(), ImageError>(error) = remove() {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(name, error, "a draft was left, to be removed with what is unfinished");
        }
    }
}

/// Why a draft did not get its name.
#[derive(Debug, thiserror::Error)]
enum Unpublished {
    #[error("it was cleaned up as unfinished while it was made; try again")]
    CleanedUp,
    #[error(
        "the name is linked to an image that is not there (a creation that was cut short?); `rbd rm` of that name frees it"
    )]
    Dangling,
}

/// What goes wrong while a draft is made.
enum Make {
    Create(CephError),
    Other(ImageError),
}

impl From<Broken> for Make {
    fn from(broken: Broken) -> Make {
        Make::Other(broken.into())
    }
}

/// What goes wrong while data is written.
enum Write {
    Image(CephError),
    Read(io::Error),
}

impl From<CephError> for Write {
    fn from(error: CephError) -> Write {
        Write::Image(error)
    }
}

/// Waits for a thread of a scope; its panic is ours.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The settings of librbd for write and read operations, then for bytes written and read.
const SETTINGS: [&str; 4] = [
    "rbd_qos_write_iops_limit",
    "rbd_qos_read_iops_limit",
    "rbd_qos_write_bps_limit",
    "rbd_qos_read_bps_limit",
];

/// The limits as settings of librbd.
fn settings(limits: &RateLimits) -> [(&'static str, Option<String>); 4] {
    let RateLimits { write_iops, read_iops, write_bps, read_bps } = limits;
    let [write_iops_limit, read_iops_limit, write_bps_limit, read_bps_limit] = SETTINGS;
    [
        (write_iops_limit, write_iops),
        (read_iops_limit, read_iops),
        (write_bps_limit, write_bps),
        (read_bps_limit, read_bps),
    ]
    .map(|(setting, limit)| (setting, limit.map(|limit| limit.get().to_string())))
}

/// The limits of an image that is not opened for it. What is no number librbd does not follow, and so it is none.
pub(super) fn limits_of(pool: &Pool, id: &str) -> Result<RateLimits, CephError> {
    let limit = |setting: &str| -> Result<Option<NonZeroU64>, CephError> {
        let value = pool.metadata_of(id, &config_key(setting))?;
        Ok(value.and_then(|value| value.parse().ok()))
    };
    let [write_iops, read_iops, write_bps, read_bps] = SETTINGS;
    Ok(RateLimits {
        write_iops: limit(write_iops)?,
        read_iops: limit(read_iops)?,
        write_bps: limit(write_bps)?,
        read_bps: limit(read_bps)?,
    })
}

/// Sets the limits of an image and takes away those that it has beyond, whoever has it open or locked.
pub(super) fn limit(pool: &Pool, image: &str, limits: &RateLimits) -> Result<(), CephError> {
    let settings = settings(limits).map(|(setting, limit)| (config_key(setting), limit));
    let pairs = settings.each_ref().map(|(key, limit)| (key.as_str(), limit.as_deref()));
    pool.change_metadata(image, &pairs)
}
