//! Adoptions of the fake.

use volcore::filesystem::FilesystemKind;
use volcore::volume::ImageName;

use super::{FakeImage, FakeImages};
use crate::image::{Adoptable, Adoption, ImageError};

impl FakeImages {
    pub(super) fn look_over(&self, image: &ImageName) -> Result<Adoptable, ImageError> {
        self.ask(&image.pool, &format!("look at image {image}"), |pool| {
            let found = pool.images.get(&image.name);
            let found = found.ok_or_else(|| ImageError::NoImage { image: image.clone() })?;
            refuse_if_watched(image, found)?;
            if found.lacks_lock {
                return Err(ImageError::NoFeature {
                    image: image.clone(),
                    feature: "exclusive-lock",
                });
            }
            let format = found.format.as_ref();
            let kind = format.and_then(|format| {
                // What it is called does not matter: the command says what it makes.
                FilesystemKind::of(&"unnamed".parse().ok()?, format)
            });
            let filesystem =
                kind.ok_or_else(|| ImageError::NoFilesystem { image: image.clone() })?;
            let (id, uid, size) = (found.id.clone(), found.uid, found.size);
            Ok(Adoptable { id, uid, size, filesystem })
        })
    }

    pub(super) fn take_over(&self, adoption: &Adoption) -> Result<String, ImageError> {
        let Adoption { image, image_id, uid, former } = adoption;
        let action = format!("adopt image {image}");
        let is_ours = self.ask(&image.pool, &action, |pool| {
            let found = pool.images.get(&image.name);
            let found = found.ok_or_else(|| ImageError::NoImage { image: image.clone() })?;
            if found.id != *image_id || ![Some(*uid), *former].contains(&found.uid) {
                return Err(ImageError::Foreign { image: image.clone() });
            }
            if found.uid == Some(*uid) {
                return Ok(true);
            }
            refuse_if_watched(image, found).map(|()| false)
        })?;
        if !is_ours {
            self.mark(adoption, Some(*uid), &action)?;
        }
        Ok(image_id.clone())
    }

    pub(super) fn hand_back(&self, adoption: &Adoption) -> Result<(), ImageError> {
        let Adoption { image, image_id, uid, former } = adoption;
        let action = format!("give image {image} back");
        let is_ours = self.ask(&image.pool, &action, |pool| {
            let found = pool.images.get(&image.name);
            Ok(found.is_some_and(|found| found.id == *image_id && found.uid == Some(*uid)))
        })?;
        if is_ours { self.mark(adoption, *former, &action) } else { Ok(()) }
    }

    fn mark(
        &self,
        adoption: &Adoption,
        uid: Option<uuid::Uuid>,
        action: &str,
    ) -> Result<(), ImageError> {
        let image = &adoption.image;
        let mark = |pool: &mut super::Pool| {
            if let Some(found) = pool.images.get_mut(&image.name) {
                found.uid = uid;
            }
            Ok(())
        };
        self.faults.effect("set the metadata", || self.ask(&image.pool, action, mark))
    }
}

fn refuse_if_watched(image: &ImageName, found: &FakeImage) -> Result<(), ImageError> {
    if found.watchers.is_empty() {
        return Ok(());
    }
    let watchers = found.watchers.iter().cloned().collect();
    Err(ImageError::InUse { image: image.clone(), watchers })
}
