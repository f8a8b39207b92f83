//! Adoptions: an image gets another uid, and nothing else of it changes. Blocking.
//!
//! It is done under the lease that removals take too, so that of several suites on one cluster who want the same image one
//! gets it, and no image on its way into the trash is taken for one that is there.

use uuid::Uuid;
use volcore::volume::ImageName;

use super::UID;
use super::names::{self, Settled, There};
use super::removal::Removal;
use crate::ceph::{CephError, Features, Image, Pool};
use crate::image::{Adoptable, Adoption, ImageError};
use crate::superblock;

impl Removal<'_> {
    pub(super) fn adoptable(&self, image: &ImageName) -> Result<Adoptable, ImageError> {
        let There { id, uid, image: open } = self.there(image)?;
        self.refuse_if_watched(image, &open)?;
        let failed = |error| self.session.failed(&format!("look at image {image}"), error);
        let size = open.stat().map_err(failed)?.size;
        let read = |offset: u64, buffer: &mut [u8]| read_up_to(&open, size, offset, buffer);
        let found = superblock::recognise(read).map_err(failed)?;
        let filesystem = found.ok_or_else(|| ImageError::NoFilesystem { image: image.clone() })?;
        if !open.features().map_err(failed)?.contains(Features::EXCLUSIVE_LOCK) {
            let feature = "exclusive-lock";
            return Err(ImageError::NoFeature { image: image.clone(), feature });
        }
        Ok(Adoptable { id, uid, size, filesystem })
    }

    pub(super) fn adopt(&self, adoption: &Adoption) -> Result<String, ImageError> {
        let Adoption { image, image_id, uid, former } = adoption;
        let pool = self.session.pool(&image.pool)?;
        let adopt = || {
            let There { id, uid: there, image: open } = self.there(image)?;
            if id != *image_id || ![Some(*uid), *former].contains(&there) {
                return Err(ImageError::Foreign { image: image.clone() });
            }
            if self.names(&pool).settle(&id, image)? == Settled::Free {
                return Err(ImageError::NoImage { image: image.clone() });
            }
            if there != Some(*uid) {
                self.refuse_if_watched(image, &open)?;
                self.mark(&pool, adoption, Some(*uid))?;
            }
            Ok(id)
        };
        self.alone(&pool, image, image_id, adopt)
    }

    pub(super) fn give_back(&self, adoption: &Adoption) -> Result<(), ImageError> {
        let Adoption { image, image_id, uid, former } = adoption;
        let pool = self.session.pool(&image.pool)?;
        let failed = |error| self.session.failed(&format!("look at image {image}"), error);
        let give_back = || {
            // By its id: whoever has renamed it or thrown it away meanwhile has not made it another image.
            let there = match pool.open_image_by_id(image_id) {
                Err(error) if error.is_not_found() => {
                    self.session.is_current(&image.pool, &pool)?;
                    return Ok(());
                }
                open => names::uid(&open.map_err(failed)?).map_err(failed)?,
            };
            if there == Some(*uid) { self.mark(&pool, adoption, *former) } else { Ok(()) }
        };
        self.alone(&pool, image, image_id, give_back)
    }

    fn there(&self, image: &ImageName) -> Result<There, ImageError> {
        let there = names::look(self.session, image)?;
        there.ok_or_else(|| ImageError::NoImage { image: image.clone() })
    }

    fn mark(&self, pool: &Pool, adoption: &Adoption, uid: Option<Uuid>) -> Result<(), ImageError> {
        let text = uid.map(|uid| uid.to_string());
        let mark = || {
            let marked = pool.set_metadata(&adoption.image_id, &[(UID, text.as_deref())]);
            marked.map_err(|error| {
                self.session.failed(&format!("mark image {}", adoption.image), error)
            })
        };
        self.faults.effect("set the metadata", mark)
    }
}

/// Reads what there is: nothing beyond the end.
fn read_up_to(
    image: &Image,
    size: u64,
    offset: u64,
    buffer: &mut [u8],
) -> Result<usize, CephError> {
    let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let room = left.min(buffer.len());
    let mut got = 0;
    while got < room {
        match image.read_at(offset + got as u64, &mut buffer[got..room])? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}
