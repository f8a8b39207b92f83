//! Key-value pairs kept with an image, and the librbd settings among them.

use super::class::encoded;
use super::directory::header;
use super::error::{CephError, Operation, Subject, check};
use super::image::Image;
use super::pool::Pool;
use super::text::{c_string, grow, until_nul};

impl Pool {
    /// Sets metadata keys of an image, or removes them, all in one write; then tells those who have it open, who read
    /// them again. Unlike librbd's own, it does not ask the holder of the exclusive lock to do it: the kernel's rbd
    /// does not, and does not hand the lock over either when it maps with `exclusive`.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is no image of this name.
    pub fn change_metadata(
        &self,
        image: &str,
        pairs: &[(&str, Option<&str>)],
    ) -> Result<(), CephError> {
        let subject = || self.image_subject(image);
        let Some(id) = self.linked_id(image)? else {
            return check(-libc::ENOENT, Operation::LookUp, subject).map(drop);
        };
        self.set_metadata(&id, pairs)?;
        self.announce(&header(&id)?, image).map(drop)
    }

    /// The value of a metadata key of an image that is not opened for it; `None` where that or the image is not there.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn metadata_of(&self, id: &str, key: &str) -> Result<Option<String>, CephError> {
        self.ask(&header(id)?, c"metadata_get", &encoded(key), || self.image_subject(id))
    }

    /// The size in bytes of an image that is not opened for it; `None` where it is not there.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn size_of(&self, id: &str) -> Result<Option<u64>, CephError> {
        // `CEPH_NOSNAP`: as it is now.
        let head = (u64::MAX - 1).to_le_bytes();
        let answer = self.call(&header(id)?, c"get_size", &head, || self.image_subject(id))?;
        // The order of the objects in one byte, then the size.
        let size = answer.as_ref().and_then(|answer| answer.get(1..)?.first_chunk::<8>());
        Ok(size.map(|size| u64::from_le_bytes(*size)))
    }
}

impl Image {
    /// The value of a metadata key, if it is set.
    ///
    /// # Errors
    /// When the call fails.
    pub fn metadata(&self, key: &str) -> Result<Option<String>, CephError> {
        let c_key = c_string("metadata key", key)?;
        let rbd = &self.api().rbd;
        // SAFETY: the image is open, the key a NUL-terminated string; the function writes at most the length given,
        // a NUL included, or says ERANGE and how much is needed.
        let (ret, value) = grow(256, 0u8, |array, len| unsafe {
            (rbd.rbd_metadata_get)(self.handle(), c_key.as_ptr(), array.cast(), len)
        });
        if ret == -libc::ENOENT {
            return Ok(None);
        }
        check(ret, Operation::ReadMetadata, || self.metadata_subject(key))?;
        Ok(Some(until_nul(&value)))
    }

    /// Sets a metadata key.
    ///
    /// # Errors
    /// When the call fails, for instance on a read-only handle.
    pub fn set_metadata(&self, key: &str, value: &str) -> Result<(), CephError> {
        let (c_key, c_value) = (c_string("metadata key", key)?, c_string("metadata value", value)?);
        // SAFETY: the image is open, and both are NUL-terminated strings.
        let ret = unsafe {
            (self.api().rbd.rbd_metadata_set)(self.handle(), c_key.as_ptr(), c_value.as_ptr())
        };
        check(ret, Operation::SetMetadata, || self.metadata_subject(key))?;
        Ok(())
    }

    /// Removes a metadata key.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when it is not set.
    pub fn remove_metadata(&self, key: &str) -> Result<(), CephError> {
        let c_key = c_string("metadata key", key)?;
        // SAFETY: the image is open, and the key is a NUL-terminated string.
        let ret = unsafe { (self.api().rbd.rbd_metadata_remove)(self.handle(), c_key.as_ptr()) };
        check(ret, Operation::RemoveMetadata, || self.metadata_subject(key))?;
        Ok(())
    }

    /// Sets a librbd setting for this image, such as `rbd_qos_write_bps_limit`, like `rbd config image set`.
    ///
    /// Every client that has the image open through librbd applies it within about a second; kernel clients never do.
    ///
    /// # Errors
    /// As for [`set_metadata`](Self::set_metadata). Values are not checked: a client ignores what it cannot read.
    pub fn set_config(&self, option: &str, value: &str) -> Result<(), CephError> {
        self.set_metadata(&config_key(option), value)
    }

    /// Removes a librbd setting of this image, so that the one of the pool or the client counts again.
    ///
    /// # Errors
    /// As for [`remove_metadata`](Self::remove_metadata).
    pub fn remove_config(&self, option: &str) -> Result<(), CephError> {
        self.remove_metadata(&config_key(option))
    }

    fn metadata_subject(&self, key: &str) -> Subject {
        Subject::Metadata {
            pool: self.pool().name().to_owned(),
            image: self.label().to_owned(),
            key: key.to_owned(),
        }
    }
}

/// The metadata key of a librbd setting: librbd keeps the settings of an image in its metadata, behind a prefix.
#[must_use]
pub fn config_key(option: &str) -> String {
    format!("conf_{option}")
}
