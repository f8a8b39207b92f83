//! Snapshots of an image whose holder keeps its lock: the kernel's rbd, which has mapped it with `exclusive`.
//!
//! librbd does nothing here: it asks such a holder to take the snapshot, which that does not know how to do, and then
//! for the lock, which it refuses. But the lock only keeps two clients from changing the *object map* at once; snapshots
//! are taken by the OSDs, and were before there was a lock. So these are librbd's own steps without it (`CreateRequest` and
//! `RemoveRequest` of `src/librbd/operation` in Ceph), with three things that take its place:
//!
//! * The holder writes with the new snapshot from the moment at which it has read the header again. Unless it says that it
//!   has (`rbd_watch_cb` of the kernel answers after its refresh), what was taken is removed.
//! * The object map of a snapshot is a copy of the image's. If that was not the same before and after, objects came or
//!   went meanwhile, and what was taken is removed. Objects that are there may be written: of what was under way at that
//!   moment, and not acknowledged, some is in the snapshot, as after a power cut.
//! * The map that the holder has in its memory is not changed. Its objects stay "written since the snapshot before", which
//!   is more than is true and never less: `rbd diff --whole-object` lists them, and `rbd object-map check` objects. librbd
//!   would have marked them clean.
//!
//! Whoever dies in between leaves a snapshot that is still to be removed: without an object map, which librbd takes for
//! one whose removal was begun, or as [`SnapshotKind::Trash`] without clones.

use std::ffi::{CStr, CString};

use super::class::{WriteOp, encoded};
use super::directory::header;
use super::error::{CephError, Operation, Subject, check};
use super::image::{Features, Image};
use super::pool::Pool;
use super::snapshots::{Snapshot, SnapshotKind};
use super::text::c_string;

/// The features of images whose snapshots are nothing but the steps here.
const PLAIN: Features = Features::from_bits(
    Features::LAYERING.bits()
        | Features::STRIPING.bits()
        | Features::EXCLUSIVE_LOCK.bits()
        | Features::OBJECT_MAP.bits()
        | Features::FAST_DIFF.bits()
        | Features::DEEP_FLATTEN.bits()
        | Features::OPERATIONS.bits(),
);

/// What came of a step that the holder of the lock was not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PastLock {
    /// It took place.
    Done,
    /// There is nothing of that name (any more), or there is already.
    Moot,
    /// It did not, and nothing is left of it.
    Refused(Obstacle),
}

/// Why the lock cannot be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// It takes steps that are not known here.
    #[error("the image has features that only librbd knows how to take along")]
    Features,
    /// Nobody has the lock now.
    #[error("its holder has given the lock up meanwhile")]
    Unheld,
    /// What it writes could be in a snapshot in part.
    #[error("its holder did not take notice of the snapshot")]
    Unheard,
    /// The object map fits the snapshot only if no object came or went.
    #[error("it was written to meanwhile")]
    Written,
}

impl Image {
    /// Takes a snapshot, without asking the holder of the lock to do it, if no object comes or goes just then.
    ///
    /// # Errors
    /// When a call fails; then there is none, or one without an object map.
    pub fn create_snapshot_past_lock(&self, name: &str) -> Result<PastLock, CephError> {
        let at = self.place()?;
        if !self.is_plain()? {
            return Ok(PastLock::Refused(Obstacle::Features));
        }
        let Some(holder) = self.holder()? else {
            return Ok(PastLock::Refused(Obstacle::Unheld));
        };
        let id = at.new_snapshot(self, name)?;
        let map = at.map(self)?;
        let add = [encoded(name), id.to_le_bytes().to_vec()].concat();
        let ret = WriteOp::new(self.pool()).call(c"snapshot_add", add).run(&at.header);
        if ret == -libc::EEXIST {
            at.release(self, id, name)?;
            return Ok(PastLock::Moot);
        }
        self.check_snapshot(ret, Operation::CreateSnapshot, name)?;
        let obstacle = if !self.pool().announce(&at.header, self.label())?.has(holder) {
            Some(Obstacle::Unheard)
        } else if at.map(self)? != map {
            Some(Obstacle::Written)
        } else {
            None
        };
        if let Some(obstacle) = obstacle {
            self.remove_past_lock(&at, id, name)?;
            return Ok(PastLock::Refused(obstacle));
        }
        if let Some(map) = map {
            at.put_map(self, id, name, &map)?;
        }
        Ok(PastLock::Done)
    }

    /// Removes a snapshot, without asking the holder of the lock to do it. One that has clones stays, as
    /// [`SnapshotKind::Trash`], until they are gone. Done again it goes on where somebody left off.
    ///
    /// # Errors
    /// [`CephError::is_busy`] when it is protected.
    pub fn remove_snapshot_past_lock(&self, snapshot: &Snapshot) -> Result<PastLock, CephError> {
        let (at, name) = (self.place()?, snapshot.name.as_str());
        // The last that refers to a parent is the one to take its leave of it.
        let is_last = !self.has_parent()? && self.has_snapshot_parent(&at, snapshot)?;
        if !self.is_plain()? || is_last {
            return Ok(PastLock::Refused(Obstacle::Features));
        }
        // From here on nobody can clone it; whether somebody has is looked at after that.
        if snapshot.kind == SnapshotKind::User {
            let id = snapshot.id.to_le_bytes().to_vec();
            let ret = WriteOp::new(self.pool()).call(c"snapshot_trash_add", id).run(&at.header);
            match ret {
                ret if ret == -libc::ENOENT => return Ok(PastLock::Moot),
                ret if ret == -libc::EEXIST => {}
                ret => self.check_snapshot(ret, Operation::RemoveSnapshot, name)?,
            }
        }
        if self.has_clones(&at, snapshot)? {
            self.pool().announce(&at.header, self.label())?;
            return Ok(PastLock::Done);
        }
        self.remove_past_lock(&at, snapshot.id, name)
    }

    /// Whether images are cloned from a snapshot, wherever they are.
    ///
    /// # Errors
    /// When the call fails.
    pub fn is_cloned(&self, snapshot: &Snapshot) -> Result<bool, CephError> {
        self.has_clones(&self.place()?, snapshot)
    }

    /// Of a snapshot that nobody can clone any more, and nobody has.
    fn remove_past_lock(&self, at: &Place, id: u64, name: &str) -> Result<PastLock, CephError> {
        if self.features()?.contains(Features::FAST_DIFF)
            && let Some(map) = at.map_of(self, id)?
        {
            // What was written before this snapshot counts as written before the next one, or the image.
            let next = self.snapshots()?.iter().map(|other| other.id).filter(|it| *it > id).min();
            let next = at.map_name(next)?;
            let ret = WriteOp::new(self.pool())
                .assert_exists()
                .call(c"object_map_snap_remove", map)
                .run(&next);
            if ret != -libc::ENOENT {
                self.check_snapshot(ret, Operation::RemoveSnapshot, name)?;
            }
            let ret = WriteOp::new(self.pool()).remove().run(&at.map_name(Some(id))?);
            if ret != -libc::ENOENT {
                self.check_snapshot(ret, Operation::RemoveSnapshot, name)?;
            }
        }
        // Before the header forgets its id, which nobody else knows.
        at.release(self, id, name)?;
        let op = WriteOp::new(self.pool()).call(c"snapshot_remove", id.to_le_bytes().to_vec());
        let ret = op.run(&at.header);
        if ret == -libc::ENOENT {
            return Ok(PastLock::Moot);
        }
        self.check_snapshot(ret, Operation::RemoveSnapshot, name)?;
        self.pool().announce(&at.header, self.label())?;
        Ok(PastLock::Done)
    }

    /// Whether the steps here are all that there is to a snapshot of this image: it has no journal, for one, and no pool of
    /// its own for data.
    fn is_plain(&self) -> Result<bool, CephError> {
        Ok(self.features()? - PLAIN == Features::NONE)
    }

    /// Whether a snapshot shares data with an image that this one was cloned from.
    fn has_snapshot_parent(&self, at: &Place, snapshot: &Snapshot) -> Result<bool, CephError> {
        let id = snapshot.id.to_le_bytes();
        let parent = self.pool().call(&at.header, c"get_parent", &id, || self.subject())?;
        // The pool of the parent, or -1.
        let pool = parent.as_ref().and_then(|parent| parent.first_chunk::<8>());
        Ok(pool.is_some_and(|pool| i64::from_le_bytes(*pool) >= 0))
    }

    /// The client that has the lock, if it watches the image.
    fn holder(&self) -> Result<Option<u64>, CephError> {
        let owners = self.lock_owners()?;
        let holder = self.watchers()?.into_iter().find(|it| owners.contains(&it.address));
        Ok(holder.and_then(|it| u64::try_from(it.client).ok()))
    }

    fn has_clones(&self, at: &Place, snapshot: &Snapshot) -> Result<bool, CephError> {
        let id = snapshot.id.to_le_bytes();
        let children = self.pool().call(&at.header, c"children_list", &id, || self.subject());
        match children {
            Ok(children) => {
                let count = children.as_ref().and_then(|list| list.first_chunk::<4>());
                Ok(count.is_some_and(|count| u32::from_le_bytes(*count) > 0))
            }
            // There are so many that they do not fit.
            Err(error) if error.errno() == Some(nix::errno::Errno::ERANGE) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn place(&self) -> Result<Place, CephError> {
        let id = self.id()?;
        Ok(Place { header: header(&id)?, image: id })
    }
}

/// The objects of an image that a snapshot has to do with.
struct Place {
    image: String,
    header: CString,
}

impl Place {
    /// The object with the map of a snapshot, or of the image.
    fn map_name(&self, snapshot: Option<u64>) -> Result<CString, CephError> {
        let name = match snapshot {
            None => format!("rbd_object_map.{}", self.image),
            Some(id) => format!("rbd_object_map.{}.{id:016x}", self.image),
        };
        c_string("object name", &name)
    }

    /// The map of the image, as it is stored; `None` where it has none.
    fn map(&self, open: &Image) -> Result<Option<Vec<u8>>, CephError> {
        if !open.features()?.contains(Features::OBJECT_MAP) {
            return Ok(None);
        }
        open.pool().read_whole(&self.map_name(None)?, || open.subject())
    }

    fn map_of(&self, open: &Image, snapshot: u64) -> Result<Option<Vec<u8>>, CephError> {
        open.pool().read_whole(&self.map_name(Some(snapshot))?, || open.subject())
    }

    fn put_map(&self, open: &Image, id: u64, name: &str, map: &[u8]) -> Result<(), CephError> {
        let object = self.map_name(Some(id))?;
        // SAFETY: the pool is open, the name NUL-terminated, and the buffer readable for its length.
        let ret = unsafe {
            (open.api().rados.rados_write_full)(
                open.pool().handle(),
                object.as_ptr(),
                map.as_ptr().cast(),
                map.len(),
            )
        };
        open.check_snapshot(ret, Operation::CreateSnapshot, name)
    }

    /// An id that no snapshot of the pool has had. It costs a commit of the monitors.
    fn new_snapshot(&self, open: &Image, name: &str) -> Result<u64, CephError> {
        let mut id = 0;
        // SAFETY: the pool is open, and the result outlives the call.
        let ret = unsafe {
            (open.api().rados.rados_ioctx_selfmanaged_snap_create)(
                open.pool().handle(),
                &raw mut id,
            )
        };
        open.check_snapshot(ret, Operation::CreateSnapshot, name)?;
        Ok(id)
    }

    /// Has the OSDs free what only this snapshot keeps. Done again it changes nothing.
    fn release(&self, open: &Image, id: u64, name: &str) -> Result<(), CephError> {
        // SAFETY: the pool is open.
        let ret = unsafe {
            (open.api().rados.rados_ioctx_selfmanaged_snap_remove)(open.pool().handle(), id)
        };
        if ret == -libc::ENOENT {
            return Ok(());
        }
        open.check_snapshot(ret, Operation::RemoveSnapshot, name)
    }
}

impl Pool {
    /// What an object holds; `None` where there is no such object.
    fn read_whole(
        &self,
        object: &CStr,
        subject: impl Fn() -> Subject,
    ) -> Result<Option<Vec<u8>>, CephError> {
        let (mut content, mut room) = (Vec::new(), 1 << 16);
        loop {
            let mut part = vec![0u8; room];
            let from = content.len() as u64;
            // SAFETY: the pool is open, the name NUL-terminated, and the buffer writable for its length.
            let ret = unsafe {
                (self.api().rados.rados_read)(
                    self.handle(),
                    object.as_ptr(),
                    part.as_mut_ptr().cast(),
                    part.len(),
                    from,
                )
            };
            if ret == -libc::ENOENT {
                return Ok(None);
            }
            let read = check(ret, Operation::Read, &subject)?;
            part.truncate(usize::try_from(read).unwrap_or(room));
            if part.is_empty() {
                return Ok(Some(content));
            }
            content.append(&mut part);
            // The map of the largest image has 8 MiB.
            room = 4 << 20;
        }
    }
}
