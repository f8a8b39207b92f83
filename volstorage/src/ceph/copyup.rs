//! Copying into a clone's own objects what only its parent has, object by object.
//!
//! librbd's flattening passes over every object that the object map says is there, and the map says so before the object
//! is written: it is meant to be ahead of the data, never behind. Where a client dies in between (one that wrote, or one that
//! flattened), the object stays missing, which is harmless as long as there is a parent to read from, and is lost data
//! when a flattening takes that away (seen on 16.2: four objects of zeros after a kill -9 in the middle). So before librbd
//! flattens, every object that is missing is made by the method that librbd itself uses: it writes the whole
//! object unless there is one, in one step on the OSD. Nobody's later write is overwritten, whoever has the image open, and
//! whoever dies afterwards finds each object that the map may speak of. Such an object is the snapshots' too, and their maps
//! are told: librbd tells them only of objects that it copies itself.

use std::ffi::CStr;

use super::class::WriteOp;
use super::error::{CephError, Operation};
use super::image::{Features, Image};
use super::text::c_string;

/// States in an object map (`OBJECT_NONEXISTENT`, `OBJECT_EXISTS_CLEAN`).
const NONEXISTENT: u8 = 0;
const EXISTS_CLEAN: u8 = 3;

impl Features {
    /// Data that is spread over objects in stripes, or is in a pool of its own: where it is cannot be told from the
    /// offset and the id alone.
    const ELSEWHERE: Self = Self::from_bits(1 << 6 | 1 << 7);
}

impl Image {
    /// Makes every object that is missing here and has data in the parent. `report` is told how many objects of how many
    /// are done.
    ///
    /// Nothing is done for an image without an object map, which librbd copies in full, nor for one whose objects are
    /// not where those of other images are: the suite makes none of these.
    ///
    /// # Errors
    /// When an object cannot be read or written.
    pub fn copy_up<F: Fn(u64, u64)>(&self, report: &F) -> Result<(), CephError> {
        let features = self.features()?;
        let is_elsewhere = features.bits() & Features::ELSEWHERE.bits() != 0;
        if is_elsewhere || !features.contains(Features::OBJECT_MAP) {
            return Ok(());
        }
        let (info, id) = (self.stat()?, self.id()?);
        let size = usize::try_from(info.object_size).unwrap_or(usize::MAX);
        // One that is taken from now on has the map of the image as it is then.
        let snapshots = self.snapshots()?;
        let mut content = vec![0; size];
        for number in 0..info.objects {
            let object = c_string("object", &format!("rbd_data.{id}.{number:016x}"))?;
            if !self.pool().has_object(&object, Operation::Flatten)? {
                let got = self.read_at(number * info.object_size, &mut content)?;
                let data = content.get(..got).unwrap_or_default();
                if data.iter().any(|byte| *byte != 0) {
                    for snapshot in &snapshots {
                        let map = format!("rbd_object_map.{id}.{:016x}", snapshot.id);
                        self.tell(&c_string("object", &map)?, number)?;
                    }
                    let made = WriteOp::new(self.pool()).call(c"copyup", data.to_vec());
                    self.check(made.run(&object), Operation::Flatten)?;
                }
            }
            report(number + 1, info.objects);
        }
        Ok(())
    }

    /// Says in the object map of a snapshot that an object is there, unless the map knows better, or is not there or ends
    /// before.
    fn tell(&self, map: &CStr, number: u64) -> Result<(), CephError> {
        let range = [number.to_le_bytes(), (number + 1).to_le_bytes()].concat();
        let is_given = 1;
        let states = [EXISTS_CLEAN, is_given, NONEXISTENT];
        let told = WriteOp::new(self.pool())
            .call(c"object_map_update", [&range[..], &states[..]].concat())
            .run(map);
        if told == -libc::ENOENT || told == -libc::ERANGE {
            return Ok(());
        }
        self.check(told, Operation::Flatten)
    }
}
