//! Adoptions of files. Blocking.
//!
//! The volume that a file belongs to is its id, and its snapshots go by that; so they get another folder with another
//! volume. The file is marked first, and whoever finds it marked moves the folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use uuid::Uuid;

use volcore::name::PoolName;
use volcore::volume::ImageName;

use super::draft::rename_new;
use super::store::{Store, There, id, sync_folder};
use super::xattr;
use crate::format::io_failed;
use crate::image::{Adoptable, Adoption, ImageError};
use crate::superblock;

impl Store {
    pub(super) fn adoptable(&self, image: &ImageName) -> Result<Adoptable, ImageError> {
        self.pool(&image.pool)?;
        let there = self.file(image)?;
        self.refuse_if_watched(image)?;
        let failed = |error| io_failed(&format!("read image {image}"), error);
        let file = File::open(self.path(image)).map_err(failed)?;
        let read = |offset: u64, buffer: &mut [u8]| read_up_to(&file, buffer, offset);
        let found = superblock::recognise(read).map_err(failed)?;
        let filesystem = found.ok_or_else(|| ImageError::NoFilesystem { image: image.clone() })?;
        Ok(Adoptable { id: id(&there), uid: there.uid, size: there.meta.len(), filesystem })
    }

    pub(super) fn adopt(&self, adoption: &Adoption) -> Result<String, ImageError> {
        let Adoption { image, image_id, uid, former } = adoption;
        self.pool(&image.pool)?;
        let there = self.file(image)?;
        if there.uid != Some(*uid) {
            if id(&there) != *image_id || there.uid != *former {
                return Err(ImageError::Foreign { image: image.clone() });
            }
            self.refuse_if_watched(image)?;
            self.mark(image, Some(*uid))?;
        }
        if let Some(former) = former {
            self.move_snapshots(&image.pool, *former, *uid)?;
        }
        Ok(uid.to_string())
    }

    pub(super) fn give_back(&self, adoption: &Adoption) -> Result<(), ImageError> {
        let Adoption { image, image_id: _, uid, former } = adoption;
        self.pool(&image.pool)?;
        if let Some(former) = former {
            self.move_snapshots(&image.pool, *uid, *former)?;
        }
        match self.look(image)? {
            Some(there) if there.uid == Some(*uid) => self.mark(image, *former),
            Some(_) | None => Ok(()),
        }
    }

    /// What has this name, if it is a file.
    fn file(&self, image: &ImageName) -> Result<There, ImageError> {
        match self.look(image)? {
            None => Err(ImageError::NoImage { image: image.clone() }),
            Some(there) if !there.meta.is_file() => {
                Err(ImageError::NoFilesystem { image: image.clone() })
            }
            Some(there) => Ok(there),
        }
    }

    /// Says on a file for which volume it is, and waits until that is on disk.
    fn mark(&self, image: &ImageName, uid: Option<Uuid>) -> Result<(), ImageError> {
        let mark = || {
            let file = File::open(self.path(image))?;
            match uid {
                Some(uid) => xattr::set_uid(&file, uid).map_err(xattr::explained)?,
                None => xattr::remove_uid(&file)?,
            }
            file.sync_all()
        };
        let failed = |error| io_failed(&format!("mark image {image}"), error);
        self.faults.effect("mark the file", || mark().map_err(failed))
    }

    /// Gives the snapshots of one volume to another; those that have been given are left where they are.
    fn move_snapshots(&self, pool: &PoolName, from: Uuid, to: Uuid) -> Result<(), ImageError> {
        let (from, to) = (self.snapshots(pool, from), self.snapshots(pool, to));
        let failed = |error| io_failed(&format!("move snapshots {}", from.display()), error);
        if !from.try_exists().map_err(failed)? {
            return Ok(());
        }
        let rename = || match rename_new(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.map_err(failed),
        };
        self.faults.effect("move the snapshots", rename)?;
        self.faults.effect("write the folder", || sync_folder(to.parent()).map_err(failed))
    }
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64)? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}
