//! The names of images, one step at a time.
//!
//! RBD keeps the name of an image in two places of its pool: the *link* `rbd_id.<name>`, an object that holds the id and
//! by which the image is opened, and the *listing* in the object `rbd_directory`, which maps names to ids and back, and
//! by which it is listed. librbd changes one after the other and does not say where it stopped: `rbd_rename` of 16.2
//! reports success also when another client was faster; `rbd_trash_move` of a client that dies leaves an image that
//! nothing but another `rbd_trash_move` gets out of the trash (`EUCLEAN`), and one that was slow unlinks a name that
//! has long become another image's. Here each step is a call of its own that either happens or does not, and is
//! refused when the image is not what the caller thinks. They are made of the OSD's class methods that librbd and the
//! kernel use too (`src/cls/rbd/cls_rbd.cc` in Ceph).
//!
//! Which steps, and in which order, is for the caller to know. Nothing here opens an image.

use std::ffi::{CStr, CString};

use super::class::{Step, WriteOp, encoded, length};
use super::error::{CephError, Operation};
use super::pool::Pool;
use super::text::c_string;

/// The object with the listings (`RBD_DIRECTORY`).
const DIRECTORY: &CStr = c"rbd_directory";

impl Pool {
    /// The id of the image that a name is linked to.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn linked_id(&self, name: &str) -> Result<Option<String>, CephError> {
        self.ask(&link(name)?, c"get_id", &[], || self.image_subject(name))
    }

    /// Links a name to an image.
    ///
    /// # Errors
    /// [`CephError::is_exists`] when the name is linked already, be it to this image.
    pub fn link(&self, name: &str, id: &str) -> Result<(), CephError> {
        let op = WriteOp::new(self).create_exclusively().call(c"set_id", encoded(id));
        self.check_name(op.run(&link(name)?), Operation::Link, name)
    }

    /// Takes the link of a name to this image away.
    ///
    /// # Errors
    /// When the cluster does not say; then it is unknown whether the link is there.
    pub fn unlink(&self, name: &str, id: &str) -> Result<Step, CephError> {
        let op = WriteOp::new(self).compare(encoded(id)).remove();
        self.step(op.run(&link(name)?), Operation::Unlink, name)
    }

    /// The id of the image that is listed by a name.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn listed_id(&self, name: &str) -> Result<Option<String>, CephError> {
        self.ask(DIRECTORY, c"dir_get_id", &encoded(name), || self.image_subject(name))
    }

    /// The name by which an image is listed.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn listed_name(&self, id: &str) -> Result<Option<String>, CephError> {
        self.ask(DIRECTORY, c"dir_get_name", &encoded(id), || self.image_subject(id))
    }

    /// Lists an image that is not listed.
    ///
    /// # Errors
    /// [`CephError::is_exists`] when an image is listed by that name, be it this one; `EBADF` when this one is listed by
    /// another.
    pub fn list_as(&self, id: &str, name: &str) -> Result<(), CephError> {
        let names = [encoded(name), encoded(id)].concat();
        let op = WriteOp::new(self).call(c"dir_add_image", names);
        self.check_name(op.run(DIRECTORY), Operation::List, name)
    }

    /// Lists an image by another name, both ways at once. Of several who try, one succeeds.
    ///
    /// # Errors
    /// [`CephError::is_exists`] when another image is listed by that name.
    pub fn relist(&self, id: &str, from: &str, to: &str) -> Result<Step, CephError> {
        let names = [encoded(from), encoded(to), encoded(id)].concat();
        let op = WriteOp::new(self).call(c"dir_rename_image", names);
        self.step(op.run(DIRECTORY), Operation::Relist, to)
    }

    /// Takes an image off the list.
    ///
    /// # Errors
    /// When the cluster does not say; then it is unknown whether it is listed.
    pub fn unlist(&self, id: &str, name: &str) -> Result<Step, CephError> {
        let names = [encoded(name), encoded(id)].concat();
        let op = WriteOp::new(self).call(c"dir_remove_image", names);
        self.step(op.run(DIRECTORY), Operation::Unlist, name)
    }

    /// Whether there is an image of this id, by whatever name or none.
    ///
    /// # Errors
    /// When the cluster does not say.
    pub fn has_image(&self, id: &str) -> Result<bool, CephError> {
        self.has_object(&header(id)?, Operation::LookUp)
    }

    /// Sets metadata keys of an image, or removes them, all in one write. Nobody who has it open is told.
    ///
    /// # Errors
    /// [`CephError::is_not_found`] when there is no image of this id.
    pub fn set_metadata(&self, id: &str, pairs: &[(&str, Option<&str>)]) -> Result<(), CephError> {
        let (header, mut set, mut count) = (header(id)?, Vec::new(), 0);
        let mut op = WriteOp::new(self).assert_exists();
        for (key, value) in pairs {
            match value {
                Some(value) => {
                    set.extend([encoded(key), encoded(value)].concat());
                    count += 1;
                }
                None => op = op.call(c"metadata_remove", encoded(key)),
            }
        }
        if count > 0 {
            op = op.call(c"metadata_set", [length(count), set].concat());
        }
        self.check_name(op.run(&header), Operation::SetMetadata, id)
    }
}

/// The object that links a name.
fn link(name: &str) -> Result<CString, CephError> {
    c_string("image name", &format!("rbd_id.{name}"))
}

/// The object that describes an image.
pub(super) fn header(id: &str) -> Result<CString, CephError> {
    c_string("image id", &format!("rbd_header.{id}"))
}
