//! How images get their names and lose them. Blocking.
//!
//! A name is kept in two places, the link by which an image is opened and the listing in the pool's
//! directory (see [`crate::ceph`]), and the trash is a third. A client may die between any two steps.
//! So the steps are ordered, and the one that decides is atomic:
//!
//! ```text
//! publish      link t.v ─▶ unlink .new.… ─▶ relist .new.… as t.v ◀ decides
//! clean up     relist .new.… as .old.… ◀ decides ─▶ unlink .new.…, t.v ─▶
//!              is nobody opening it? ─▶ throw away
//! throw away   list in the trash ◀ decides ─▶ unlink t.v ─▶ unlist t.v
//! restore      list as t.v ─▶ link t.v ─▶ take off the trash's list ◀ decides
//! ```
//! The directory is one object, so of a publisher and a cleaner who relist the same draft at once one
//! wins, and the other is told. An image that can be opened by its final name and is listed as a draft
//! is therefore complete, and whoever meets it may [`settle`](Names::settle) it; one that is listed as
//! `.old.…` is on its way out, whatever name still leads to it.

use std::time::Duration;

use uuid::Uuid;
use volcore::volume::ImageName;

use super::UID;
use super::connection::Session;
use crate::ceph::{CephError, Image, Pool, Step};
use crate::draft;
use crate::faults::Faults;
use crate::image::ImageError;

/// How often somebody else may be faster before a change of names is given up.
const ATTEMPTS: usize = 8;

/// What can be opened under a name.
pub(super) struct There {
    pub(super) id: String,
    pub(super) uid: Option<Uuid>,
    pub(super) image: Image,
}

/// Looks what can be opened under a name.
pub(super) fn look(session: &Session, image: &ImageName) -> Result<Option<There>, ImageError> {
    let Some(open) = session.open(image)? else { return Ok(None) };
    let failed = |error| session.failed(&format!("look at image {image}"), error);
    let id = open.id().map_err(failed)?;
    let uid = uid(&open).map_err(failed)?;
    Ok(Some(There { id, uid, image: open }))
}

/// The volume that an image was made for.
pub(super) fn uid(image: &Image) -> Result<Option<Uuid>, CephError> {
    Ok(image.metadata(UID)?.and_then(|uid| uid.parse().ok()))
}

/// What came of a publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// The image has its name.
    Yes,
    /// Another image has it.
    Taken,
    /// The draft was cleaned up meanwhile.
    CleanedUp,
}

/// What an image is that can be opened by a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is listed by that name, too.
    Listed,
    /// It was half removed; now the name is free.
    Free,
}

/// Changes of names in one pool.
pub(super) struct Names<'a> {
    pub(super) session: &'a Session,
    pub(super) faults: &'a Faults,
    pub(super) pool: &'a Pool,
}

impl Names<'_> {
    /// Gives a complete draft the name that it was made for, unless that is taken.
    pub(super) fn publish(
        &self,
        draft: &str,
        id: &str,
        image: &ImageName,
    ) -> Result<Published, ImageError> {
        let failed = |error| self.session.failed(&format!("publish image {image}"), error);
        let link = || match self.pool.link(&image.name, id) {
            Err(error) if error.is_exists() => Ok(false),
            linked => linked.map_err(failed).map(|()| true),
        };
        if !self.faults.effect("link the name", link)? {
            return Ok(Published::Taken);
        }
        self.unlink(draft, id)?;
        match self.relist(draft, id, &image.name)? {
            Step::Done => Ok(Published::Yes),
            // Whoever met it half renamed has settled it.
            Step::Stale if self.is_listed(id, &image.name)? => Ok(Published::Yes),
            Step::Stale => {
                self.unlink(&image.name, id)?;
                Ok(Published::CleanedUp)
            }
        }
    }

    /// Takes a draft away from whoever may still be making it. Answers with the name by which it can
    /// be removed now; `None` where it was published or removed meanwhile.
    pub(super) fn claim(&self, draft: &str, id: &str) -> Result<Option<String>, ImageError> {
        let old = draft::outgoing(draft);
        let is_claimed = old == draft
            || self.relist(draft, id, &old)? == Step::Done
            || self.is_listed(id, &old)?;
        if !is_claimed {
            return Ok(None);
        }
        self.unlink(&draft::incoming(draft), id)?;
        if let Some(image) = draft::image(draft) {
            self.unlink(image, id)?;
        }
        Ok(Some(old))
    }

    /// Puts an image into the trash, and takes its names away. There is no way back from the first step.
    pub(super) fn throw_away(&self, name: &str, id: &str) -> Result<(), ImageError> {
        let failed = |error| self.failed(name, error);
        let add = || self.pool.trash_add(id, name, Duration::ZERO).map_err(failed);
        self.faults.effect("list in the trash", add)?;
        self.unlink(name, id)?;
        self.unlist(name, id)?;
        // Somebody else may have thrown it away and removed it meanwhile; then the entry leads nowhere.
        if !self.pool.has_image(id).map_err(failed)? {
            let forget = || self.pool.trash_forget(id).map_err(failed);
            self.faults.effect("take off the trash's list", forget)?;
        }
        Ok(())
    }

    /// Takes an image out of the trash and gives it this name, unless that is another's. Whoever does it holds the lease
    /// that a purge takes too. Until the last step the image belongs to the trash, and whoever removes it takes from it
    /// whatever name it has.
    pub(super) fn restore(
        &self,
        id: &str,
        old: &ImageName,
        image: &ImageName,
    ) -> Result<Published, ImageError> {
        let failed = |error| self.session.failed(&format!("restore image {image}"), error);
        if !self.is_listed(id, &image.name)? {
            self.clear(id, old)?;
            if self.pool.linked_id(&image.name).map_err(failed)?.is_some() {
                return Ok(Published::Taken);
            }
            let list = || match self.pool.list_as(id, &image.name) {
                Err(error) if error.is_exists() => Ok(false),
                listed => listed.map_err(failed).map(|()| true),
            };
            if !self.faults.effect("list by the name", list)? {
                return Ok(Published::Taken);
            }
        }
        let link = || match self.pool.link(&image.name, id) {
            Err(error) if error.is_exists() => {
                let linked = self.pool.linked_id(&image.name).map_err(failed)?;
                Ok(linked.is_some_and(|linked| linked == id))
            }
            linked => linked.map_err(failed).map(|()| true),
        };
        if !self.faults.effect("link the name", link)? {
            self.unlist(&image.name, id)?;
            return Ok(Published::Taken);
        }
        let forget = || self.pool.trash_forget(id).map_err(failed);
        self.faults.effect("take off the trash's list", forget)?;
        Ok(Published::Yes)
    }

    /// Makes sure that an image which can be opened by a name is listed by it.
    pub(super) fn settle(&self, id: &str, image: &ImageName) -> Result<Settled, ImageError> {
        for _ in 0..ATTEMPTS {
            match self.listed(id)? {
                Some(name) if name == image.name => return Ok(Settled::Listed),
                Some(name) if !draft::is_outgoing(&name) => {
                    self.unlink(&name, id)?;
                    if self.relist(&name, id, &image.name)? == Step::Done {
                        return Ok(Settled::Listed);
                    }
                }
                None if !self.is_in_trash(id)? => return Err(unlisted(image, id)),
                _ => {
                    self.unlink(&image.name, id)?;
                    return Ok(Settled::Free);
                }
            }
        }
        Err(contended(image))
    }

    /// Takes the names from an image in the trash that still has one: otherwise nobody could use it
    /// again.
    pub(super) fn clear(&self, id: &str, image: &ImageName) -> Result<(), ImageError> {
        if let Some(name) = self.listed(id)? {
            self.unlink(&name, id)?;
            self.unlist(&name, id)?;
        }
        let linked = self.pool.linked_id(&image.name);
        if linked
            .map_err(|error| self.failed(&image.name, error))?
            .is_some_and(|linked| linked == id)
        {
            self.unlink(&image.name, id)?;
        }
        Ok(())
    }

    /// The name by which an image is listed.
    pub(super) fn listed(&self, id: &str) -> Result<Option<String>, ImageError> {
        self.pool.listed_name(id).map_err(|error| self.failed(id, error))
    }

    fn unlink(&self, name: &str, id: &str) -> Result<(), ImageError> {
        let unlink = || self.pool.unlink(name, id).map_err(|error| self.failed(name, error));
        self.faults.effect("unlink the name", unlink).map(drop)
    }

    fn unlist(&self, name: &str, id: &str) -> Result<(), ImageError> {
        let unlist = || self.pool.unlist(id, name).map_err(|error| self.failed(name, error));
        self.faults.effect("take it off the list", unlist).map(drop)
    }

    fn relist(&self, from: &str, id: &str, to: &str) -> Result<Step, ImageError> {
        let relist = || self.pool.relist(id, from, to).map_err(|error| self.failed(to, error));
        self.faults.effect("list by the new name", relist)
    }

    fn is_listed(&self, id: &str, name: &str) -> Result<bool, ImageError> {
        Ok(self.listed(id)?.is_some_and(|listed| listed == name))
    }

    /// Whether the trash lists an image.
    pub(super) fn is_in_trash(&self, id: &str) -> Result<bool, ImageError> {
        self.pool.is_in_trash(id).map_err(|error| self.failed(id, error))
    }

    fn failed(&self, name: &str, error: CephError) -> ImageError {
        self.session
            .failed(&format!("change the names of image {}/{name}", self.pool.name()), error)
    }
}

fn unlisted(image: &ImageName, id: &str) -> ImageError {
    let action = format!("find image {image} (id {id}) in its pool's directory or trash");
    ImageError::Failed { action, source: Box::new(Unlisted) }
}

fn contended(image: &ImageName) -> ImageError {
    let action = format!("settle the names of image {image}");
    ImageError::Failed { action, source: Box::new(Contended) }
}

/// A state that no operation on images leaves.
#[derive(Debug, thiserror::Error)]
#[error(
    "it can be opened and is listed nowhere; it was left as it is (see `rbd ls` and `rbd trash ls -a`)"
)]
struct Unlisted;

/// Others were faster every time.
#[derive(Debug, thiserror::Error)]
#[error("others change them all the time; try again")]
struct Contended;
