//! How an image is made. Blocking, but for the door.
//!
//! ```text
//! format a scratch file ────────────────┐
//! look who has the name, create a draft,├─ write the data ──┬─ rename ──┬─ was it renamed?
//! open it ──────────────────────────────┴─ set the metadata ┘           └─ close
//! ```
//! What is side by side runs at the same time: each step is several round trips to the cluster, and
//! their sum is what a user waits for. Renaming is the longest of them.

use std::io;
use std::thread;
use std::time::Duration;

use volcore::limit::RateLimits;

use super::connection::Session;
use super::names::{self, There};
use super::{UID, features};
use crate::ceph::{CephError, Image, Pool};
use crate::draft;
use crate::faults::Faults;
use crate::format::Formatted;
use crate::image::{Created, ImageError, NewImage};

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

/// The steps of one create.
pub(super) struct Build<'a> {
    pub(super) session: &'a Session,
    pub(super) faults: &'a Faults,
    pub(super) new: &'a NewImage,
}

impl Build<'_> {
    fn failed(&self, step: &str, error: CephError) -> ImageError {
        self.session.failed(&format!("{step} image {}", self.new.image), error)
    }

    /// Makes a draft, unless the image is there.
    pub(super) fn begin(&self) -> Result<Begun, ImageError> {
        if let Some(created) = self.existing(None)? {
            return Ok(Begun::Exists(created));
        }
        let pool = self.session.pool(&self.new.image.pool)?;
        let name = draft::name(self.new.uid, &self.new.image.name);
        let made = self.make(&pool, &name);
        if made.is_err() {
            self.clear(&pool, &name);
        }
        made.map(Begun::Draft)
    }

    fn make(&self, pool: &Pool, name: &str) -> Result<Draft, ImageError> {
        let (size, features) = (self.new.size.bytes(), features(self.new.access));
        let failed = |error| self.failed("begin", error);
        let make = || pool.create(name, size, features).map_err(failed);
        self.faults.effect("make the draft", make)?;
        let image = pool.open_image(name).map_err(failed)?;
        let id = image.id().map_err(failed)?;
        Ok(Draft { pool: pool.clone(), name: name.to_owned(), id, image })
    }

    /// Fills a draft with what was formatted and publishes it; removes it where there is nothing to
    /// publish.
    pub(super) fn finish(
        &self,
        draft: Draft,
        formatted: Result<Formatted, ImageError>,
    ) -> Result<Created, ImageError> {
        let (pool, name) = (draft.pool.clone(), draft.name.clone());
        let filled = formatted.and_then(|formatted| self.fill(&draft, &formatted));
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
        let (written, described) = thread::scope(|scope| {
            let described = scope.spawn(|| self.describe(&draft.image));
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

    /// Writes on the image whose it is and what limits it has; each is a round trip, so all are
    /// under way at once.
    fn describe(&self, image: &Image) -> Result<(), ImageError> {
        let uid = self.new.uid.to_string();
        let set =
            settings(&self.new.limits).into_iter().filter_map(|(name, limit)| Some((name, limit?)));
        let describe = || {
            thread::scope(|scope| {
                let limits: Vec<_> = set
                    .map(|(name, limit)| scope.spawn(move || image.set_config(name, &limit)))
                    .collect();
                let described = image.set_metadata(UID, &uid);
                limits.into_iter().map(joined).fold(described, Result::and)
            })
        };
        let describe = || describe().map_err(|error| self.failed("describe", error));
        self.faults.effect("set the metadata", describe)
    }

    /// Gives a complete draft its name, unless that is taken.
    ///
    /// `rbd_rename` of 16.2 does not tell: once it has begun to change names it says that all went
    /// well, also when another client took the name before it, the pool is full or no answer came.
    /// The last thing that it does is to take the draft's name away, so that one is looked for. The
    /// draft stays open meanwhile: being watched is what keeps a clean-up from removing it.
    fn publish(&self, draft: Draft) -> Result<Created, ImageError> {
        let Draft { pool, name, id, image } = draft;
        let wanted = &self.new.image.name;
        let rename = || match pool.rename(&name, wanted) {
            Err(error) if !error.is_exists() => Err(self.failed("publish", error)),
            _ => Ok(()),
        };
        let renamed = self.faults.effect("rename the draft", rename);
        let (is_gone, closed) = thread::scope(|scope| {
            let closed = scope.spawn(|| image.close());
            let draft = pool.open_image_read_only(&name);
            let is_gone = draft.is_err_and(|error| error.is_not_found());
            (is_gone, joined(closed))
        });
        if let Err(error) = closed {
            // All of it was flushed, so nothing is lost.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(image = wanted, error, "an image was made and did not close cleanly");
        }
        if is_gone && renamed.is_ok() {
            return Ok(Created::Created { image_id: id });
        }
        self.faults.alive("the answer")?;
        match self.existing(Some(&id)) {
            Ok(Some(Created::AlreadyOurs { image_id })) if image_id == id => {
                Ok(Created::Created { image_id })
            }
            Ok(Some(created)) => Ok(created),
            Err(error @ ImageError::Foreign { .. }) => Err(error),
            Ok(None) => Err(renamed.err().unwrap_or_else(|| self.not_renamed())),
            Err(error) => Err(renamed.err().unwrap_or(error)),
        }
    }

    fn not_renamed(&self) -> ImageError {
        let action = format!("publish image {}", self.new.image);
        ImageError::Failed { action, source: Box::new(NotRenamed) }
    }

    /// The answer to a create, where something has the name. Only for our own image it is known that
    /// nobody is renaming it any more.
    fn existing(&self, own: Option<&str>) -> Result<Option<Created>, ImageError> {
        let wanted = &self.new.image;
        match names::look(self.session, wanted)? {
            None => Ok(None),
            Some(There { id, uid, .. }) if uid == Some(self.new.uid) => {
                let patience = if own == Some(&id) { Duration::ZERO } else { names::OTHERS };
                names::settle(self.session, self.faults, wanted, &id, patience)?;
                Ok(Some(Created::AlreadyOurs { image_id: id }))
            }
            Some(_) => Err(ImageError::Foreign { image: wanted.clone() }),
        }
    }

    /// Removes a draft of which nothing will come.
    fn clear(&self, pool: &Pool, name: &str) {
        if !self.session.is_good() {
            return;
        }
        let remove = || match pool.remove(name) {
            Err(error) if !error.is_not_found() => {
                Err(self.failed("remove what is left of", error))
            }
            _ => Ok(()),
        };
        if let Err(error) = self.faults.effect("remove the draft", remove) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(name, error, "a draft was left, to be removed with what is unfinished");
        }
    }
}

/// The name was not taken, and not given either.
#[derive(Debug, thiserror::Error)]
#[error("ceph has renamed nothing, and given no reason (is the pool full?)")]
struct NotRenamed;

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

/// The limits as settings of librbd.
fn settings(limits: &RateLimits) -> [(&'static str, Option<String>); 4] {
    let RateLimits { write_iops, read_iops, write_bps, read_bps } = limits;
    [
        ("rbd_qos_write_iops_limit", write_iops),
        ("rbd_qos_read_iops_limit", read_iops),
        ("rbd_qos_write_bps_limit", write_bps),
        ("rbd_qos_read_bps_limit", read_bps),
    ]
    .map(|(setting, limit)| (setting, limit.map(|limit| limit.get().to_string())))
}

/// Sets the limits of an image and takes away those that it has beyond. Those that are right
/// already cost nothing.
pub(super) fn limit(image: &Image, limits: &RateLimits) -> Result<(), CephError> {
    for (setting, wanted) in settings(limits) {
        let present = image.metadata(&format!("conf_{setting}"))?;
        match wanted {
            wanted if wanted == present => {}
            Some(wanted) => image.set_config(setting, &wanted)?,
            None => image.remove_config(setting)?,
        }
    }
    Ok(())
}
