//! Snapshots, clones and growth of images. Blocking.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use volcore::size::Size;
use volcore::volume::ImageName;

use super::build::{Begun, Build};
use super::connection::Session;
use super::features;
use crate::ceph::{CephError, Features, Image, PastLock, Shrink, Snapshot, SnapshotKind};
use crate::faults::Faults;
use crate::image::{
    Created, Flattened, ImageError, ImageSnapshot, NewClone, Progress, Removed, Resized, Snapped,
    SnapshotInfo, SnapshotUsage,
};

/// A metadata key that is set and removed to ask whoever holds the lock of an image whether he changes it for others.
const FLATTENING: &str = "volplugin.flattening";

/// How the names of snapshots begin that are not confirmed yet. Nobody could give one like that.
const HIDDEN: &str = ".new.";
/// Nobody waits for a confirmation for so long.
const STALE: SignedDuration = SignedDuration::from_mins(10);

/// The metadata key that an image has while it is rolled back; the value is the snapshot. Who takes a snapshot looks at it
/// when it has the image open, and who rolls back looks who has the image open when it is there: so one sees the other.
pub(super) const ROLLING_BACK: &str = "volplugin.rolling-back";
/// A holder of the lock that refuses within this time has answered. librbd waits for one that does not until his watch
/// has timed out, after 30 s.
const ANSWER: Duration = Duration::from_secs(10);

/// How long others who take a snapshot are waited for; a lease ends so long after its holder, at most.
const TURN: Duration = Duration::from_secs(35);
/// How often it is looked whether they have finished.
const LOOK: Duration = Duration::from_millis(50);
/// How often a snapshot past the lock is tried again before the file system has to be frozen for it.
const MOMENTS: usize = 2;

/// What is done with images that are there, through one session.
pub(super) struct Snapshots<'a> {
    pub(super) session: &'a Session,
    pub(super) faults: &'a Faults,
}

impl Snapshots<'_> {
    /// Takes a snapshot while no other volmaster takes one of the same image. A client of librbd 16.2 that is asked to take
    /// one, because it has the lock, and closes the image meanwhile, ends its process (`AsyncOpTracker.cc`,
    /// "m_pending_ops == 0"). Removing one takes as long, and has not the same one to do: it goes on beside that.
    pub(super) fn alone<T>(
        &self,
        image: &ImageName,
        work: impl Fn() -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let failed =
            |error| self.session.failed(&format!("wait for others at image {image}"), error);
        let pool = self.session.pool(&image.pool)?;
        let Some(id) = pool.linked_id(&image.name).map_err(failed)? else { return work() };
        let (lease, begin) = (format!("snapshot.{id}"), Instant::now());
        loop {
            if let Some(done) = pool.exclusively(&lease, &work).map_err(failed)? {
                return done;
            }
            if begin.elapsed() > TURN {
                let watchers = vec!["somebody who takes a snapshot".to_owned()];
                return Err(ImageError::InUse { image: image.clone(), watchers });
            }
            std::thread::sleep(LOOK);
        }
    }

    pub(super) fn create(&self, at: &ImageSnapshot) -> Result<Snapped, ImageError> {
        let action = format!("take snapshot {at}");
        let open = self.open_to_snap(at)?;
        let begin = Instant::now();
        let create = || match open.create_snapshot(at.snapshot.as_str()) {
            Ok(()) => Ok(Some(Snapped::Created)),
            Err(error) if error.is_exists() => Ok(Some(Snapped::Existed)),
            Err(error) if is_kept(&error, begin) => Ok(None),
            Err(error) => Err(self.failed(&at.image, &open, &action, error)),
        };
        match self.faults.effect("take the snapshot", create)? {
            Some(snapped) => Ok(snapped),
            None => self.create_from_under(at),
        }
    }

    /// Takes a snapshot of what somebody writes to who keeps the lock. It takes a moment in which no object comes or goes;
    /// who waits for that in vain has the file system frozen, and comes back for one that is hidden.
    fn create_from_under(&self, at: &ImageSnapshot) -> Result<Snapped, ImageError> {
        let mut tries = 1..=MOMENTS;
        loop {
            match (self.create_hidden(at), tries.next()) {
                (Ok(Some(hidden)), _) => return self.publish(at, &hidden),
                (Ok(None), _) => return Ok(Snapped::Existed),
                (Err(ImageError::Kept { .. }), Some(_)) => {}
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Takes a snapshot under a name that nobody sees; `None` where there is one under its own. Whoever has died between
    /// this and [`publish`](Self::publish) has left one like that, which goes now.
    pub(super) fn create_hidden(&self, at: &ImageSnapshot) -> Result<Option<String>, ImageError> {
        let action = format!("take snapshot {at}");
        let open = self.open_to_snap(at)?;
        let failed = |error| self.failed(&at.image, &open, &action, error);
        for there in open.snapshots().map_err(failed)? {
            match user_name(&there) {
                Some(name) if name == at.snapshot.as_str() => return Ok(None),
                Some(name) if name.starts_with(HIDDEN) => self.drop_left(&open, &there),
                None if there.kind == SnapshotKind::Trash => self.drop_left(&open, &there),
                Some(_) | None => {}
            }
        }
        let name = format!("{HIDDEN}{}", uuid::Uuid::new_v4().simple());
        let begin = Instant::now();
        let create = || match open.create_snapshot(&name) {
            Ok(()) => Ok(()),
            Err(error) if is_kept(&error, begin) => self.create_past_lock(at, &open, &name),
            Err(error) => Err(failed(error)),
        };
        self.faults.effect("take the snapshot", create)?;
        Ok(Some(name))
    }

    fn create_past_lock(
        &self,
        at: &ImageSnapshot,
        open: &Image,
        name: &str,
    ) -> Result<(), ImageError> {
        let action = format!("take snapshot {at}");
        match open.create_snapshot_past_lock(name) {
            Ok(PastLock::Done | PastLock::Moot) => Ok(()),
            Ok(PastLock::Refused(obstacle)) => {
                Err(self.kept(&at.image, open, &action, obstacle.to_string()))
            }
            Err(error) => Err(self.session.failed(&action, error)),
        }
    }

    /// Removes what somebody has left who died: what nobody waits for to be confirmed any more, and what was removed and
    /// has no clones.
    fn drop_left(&self, open: &Image, left: &Snapshot) {
        let is_left = match left.kind {
            SnapshotKind::Trash => open.is_cloned(left).is_ok_and(|is_cloned| !is_cloned),
            SnapshotKind::User | SnapshotKind::Other(_) => open
                .snapshot_time(left.id)
                .is_ok_and(|taken| Timestamp::now().duration_since(taken) > STALE),
        };
        if is_left && let Err(error) = remove_by_id(open, left) {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(name = left.name, error, "left for the next snapshot to remove");
        }
    }

    /// Gives what was taken its name, unless that is taken.
    pub(super) fn publish(&self, at: &ImageSnapshot, hidden: &str) -> Result<Snapped, ImageError> {
        let action = format!("take snapshot {at}");
        let open = self.open_for_writing(&at.image)?;
        let rename = || match open.rename_snapshot(hidden, at.snapshot.as_str()) {
            Ok(()) => Ok(Snapped::Created),
            Err(error) if error.is_exists() => Ok(Snapped::Existed),
            Err(error) => Err(self.failed(&at.image, &open, &action, error)),
        };
        let published = self.faults.effect("publish the snapshot", rename);
        if !matches!(published, Ok(Snapped::Created)) {
            self.drop_hidden(at, hidden);
        }
        published
    }

    /// Removes what was taken and is not to be. What cannot be removed now is removed with the next one, or the image.
    pub(super) fn drop_hidden(&self, at: &ImageSnapshot, hidden: &str) {
        let remove = || {
            let open = self.open_for_writing(&at.image)?;
            self.remove_named(&at.image, &open, hidden, &format!("discard snapshot {at}"))
        };
        if let Err(error) = self.faults.effect("remove the snapshot", remove).map(drop) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(snapshot = %at, error, "a snapshot without a name is left for later");
        }
    }

    pub(super) fn list(
        &self,
        image: &ImageName,
        usage: SnapshotUsage,
    ) -> Result<Vec<SnapshotInfo>, ImageError> {
        let failed =
            |error| self.session.failed(&format!("list the snapshots of image {image}"), error);
        let open = self.open(image)?;
        let counts = usage == SnapshotUsage::Count
            && open.features().map_err(failed)?.contains(Features::FAST_DIFF);
        let (mut found, mut before) = (Vec::new(), None);
        for snapshot in open.snapshots().map_err(failed)? {
            let Some(name) = user_name(&snapshot).and_then(|name| name.parse().ok()) else {
                continue;
            };
            let created_at = match open.snapshot_time(snapshot.id) {
                // It was removed meanwhile.
                Err(error) if error.is_not_found() => continue,
                time => time.map_err(failed)?,
            };
            let used = if counts {
                self.used(image, &snapshot, before.as_deref()).map_err(failed)?
            } else {
                None
            };
            found.push(SnapshotInfo { name, created_at, size: snapshot.size, used });
            before = Some(snapshot.name);
        }
        Ok(found)
    }

    /// What was written between two snapshots; `None` where one of them was removed meanwhile.
    fn used(
        &self,
        image: &ImageName,
        snapshot: &Snapshot,
        before: Option<&str>,
    ) -> Result<Option<u64>, CephError> {
        let Ok(pool) = self.session.pool(&image.pool) else { return Ok(None) };
        let usage = pool.open_snapshot(&image.name, &snapshot.name);
        match usage.and_then(|open| open.usage_since(before)) {
            Ok(usage) => Ok(Some(usage.used)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove(&self, at: &ImageSnapshot) -> Result<Removed, ImageError> {
        let action = format!("remove snapshot {at}");
        let open = self.open_for_writing(&at.image)?;
        let remove = || self.remove_named(&at.image, &open, at.snapshot.as_str(), &action);
        self.faults.effect("remove the snapshot", remove)
    }

    /// Removes a snapshot, hidden or not; whoever holds the lock, and whether he does it himself or keeps it.
    fn remove_named(
        &self,
        image: &ImageName,
        open: &Image,
        name: &str,
        action: &str,
    ) -> Result<Removed, ImageError> {
        let begin = Instant::now();
        let error = match open.remove_snapshot(name) {
            Ok(()) => return Ok(Removed::Removed),
            Err(error) if error.is_not_found() => return Ok(Removed::Absent),
            Err(error) => error,
        };
        if !is_kept(&error, begin) {
            return Err(self.failed(image, open, action, error));
        }
        let failed = |error| self.session.failed(action, error);
        for there in open.snapshots().map_err(failed)? {
            if there.kind == SnapshotKind::Trash {
                self.drop_left(open, &there);
            }
            if user_name(&there) == Some(name) {
                return match open.remove_snapshot_past_lock(&there).map_err(failed)? {
                    PastLock::Done => Ok(Removed::Removed),
                    PastLock::Moot => Ok(Removed::Absent),
                    PastLock::Refused(obstacle) => {
                        Err(self.kept(image, open, action, obstacle.to_string()))
                    }
                };
            }
        }
        Ok(Removed::Absent)
    }

    /// Holds the lock exclusively meanwhile: whoever opens the image now writes nothing into what is being rolled back.
    pub(super) fn roll_back(&self, at: &ImageSnapshot) -> Result<(), ImageError> {
        let image = &at.image;
        let action = format!("roll image {image} back to snapshot {}", at.snapshot);
        let open = self.open_for_writing(image)?;
        self.find(&open, at)?;
        self.refuse_if_watched(image, &open)?;
        let failed = |error: CephError| self.failed(image, &open, &action, error);
        let (pool, id) = (self.session.pool(&image.pool)?, open.id().map_err(failed)?);
        let mark = |to| {
            let set = || pool.set_metadata(&id, &[(ROLLING_BACK, to)]).map_err(failed);
            self.faults.effect("mark the image", set)
        };
        let is_mixed = open.metadata(ROLLING_BACK).map_err(failed)?.is_some();
        let begin = || {
            mark(Some(at.snapshot.as_str()))?;
            if open.features().map_err(failed)?.contains(Features::EXCLUSIVE_LOCK) {
                open.acquire_lock().map_err(failed)?;
            }
            self.refuse_if_watched(image, &open)
        };
        let roll_back = || match open.roll_back(at.snapshot.as_str()) {
            Err(error) if error.is_not_found() => {
                Err(ImageError::NoSnapshot { snapshot: at.clone() })
            }
            rolled => rolled.map_err(failed),
        };
        let rolled = begin().and_then(|()| self.faults.effect("roll back", roll_back));
        let has_not_begun =
            matches!(rolled, Err(ImageError::InUse { .. } | ImageError::NoSnapshot { .. }));
        if rolled.is_ok() || (has_not_begun && !is_mixed) {
            mark(None)?;
        }
        rolled
    }

    pub(super) fn clone(&self, new: &NewClone) -> Result<Created, ImageError> {
        let build = Build { session: self.session, faults: self.faults, new: new.into() };
        if let Some(created) = build.taken()? {
            return Ok(created);
        }
        self.check_source(new)?;
        let (from, features) = (&new.from, features(new.access));
        let parents = self.session.pool(&from.image.pool)?;
        let make = |pool: &_, name: &_| {
            parents.clone_image(&from.image.name, from.snapshot.as_str(), pool, name, features)
        };
        let begun = build.begin(&make).map_err(|error| {
            // It may have gone meanwhile.
            self.check_source(new).err().unwrap_or(error)
        });
        match begun? {
            Begun::Exists(created) => Ok(created),
            Begun::Draft(draft) => build.finish_clone(draft, new.size),
        }
    }

    fn check_source(&self, new: &NewClone) -> Result<(), ImageError> {
        let open = self.open(&new.from.image)?;
        let bytes = self.find(&open, &new.from)?.size;
        if new.size.bytes() < bytes {
            let what = format!("snapshot {}", new.from);
            return Err(ImageError::Shrinks { what, bytes, size: new.size });
        }
        Ok(())
    }

    pub(super) fn flatten(
        &self,
        image: &ImageName,
        progress: &Progress,
    ) -> Result<Flattened, ImageError> {
        let action = format!("flatten image {image}");
        let open = self.open_for_writing(image)?;
        let failed = |error: CephError| self.failed(image, &open, &action, error);
        if !open.has_parent().map_err(failed)? {
            return Ok(Flattened::AlreadyFlat);
        }
        let pool = self.session.pool(&image.pool)?;
        let lease = format!("flatten.{}", open.id().map_err(failed)?);
        let flatten = || {
            // Both go over all objects, and librbd may take longer than half of the time.
            let copied = |done, total| progress.set(done, 2 * total);
            let report = |done, total| progress.set(total + done, 2 * total);
            // A holder who would not flatten is found out before anything is copied: the object map learns of what is
            // copied only then, and a removal would leave that behind.
            let ask = || {
                open.set_metadata(FLATTENING, "asked")?;
                open.remove_metadata(FLATTENING)
            };
            let work = || {
                ask()?;
                open.copy_up(&copied)?;
                open.flatten(&report)
            };
            match pool.exclusively(&lease, work).map_err(failed)? {
                Some(Ok(())) => {
                    // librbd tells when it begins with the last object.
                    let (_, total) = progress.get();
                    progress.set(total, total);
                    Ok(Flattened::Flattened)
                }
                Some(Err(error)) if !open.has_parent().map_err(failed)? => {
                    tracing::debug!(%image, error = &error as &dyn std::error::Error, "it is flat");
                    Ok(Flattened::AlreadyFlat)
                }
                Some(Err(error)) => Err(failed(error)),
                None => {
                    let watchers = vec!["somebody who flattens it".to_owned()];
                    Err(ImageError::InUse { image: image.clone(), watchers })
                }
            }
        };
        self.faults.effect("flatten", flatten)
    }

    pub(super) fn resize(&self, image: &ImageName, size: Size) -> Result<Resized, ImageError> {
        let action = format!("resize image {image}");
        let open = self.open(image)?;
        let bytes = open.stat().map_err(|error| self.session.failed(&action, error))?.size;
        if bytes == size.bytes() {
            return Ok(Resized::Unchanged);
        }
        if bytes > size.bytes() {
            return Err(ImageError::Shrinks { what: format!("image {image}"), bytes, size });
        }
        drop(open);
        let open = self.open_for_writing(image)?;
        let begin = Instant::now();
        let resize = || match open.resize(size.bytes(), Shrink::Refuse) {
            Err(error) if is_kept(&error, begin) => {
                Err(self.kept(image, &open, &action, "it grows as soon as nobody has it open"))
            }
            resized => resized.map_err(|error| self.failed(image, &open, &action, error)),
        };
        self.faults.effect("resize", resize)?;
        Ok(Resized::Grown)
    }

    fn open(&self, image: &ImageName) -> Result<Image, ImageError> {
        let open = self.session.open(image)?;
        open.ok_or_else(|| ImageError::NoImage { image: image.clone() })
    }

    fn open_for_writing(&self, image: &ImageName) -> Result<Image, ImageError> {
        let open = self.session.open_for_writing(image)?;
        open.ok_or_else(|| ImageError::NoImage { image: image.clone() })
    }

    /// Refused while it is rolled back: a snapshot would be a mixture.
    fn open_to_snap(&self, at: &ImageSnapshot) -> Result<Image, ImageError> {
        let open = self.open_for_writing(&at.image)?;
        let to = open.metadata(ROLLING_BACK);
        let to = to.map_err(|error| self.session.failed(&format!("take snapshot {at}"), error))?;
        match to {
            None => Ok(open),
            Some(to) => {
                let watchers = vec![format!("a rollback to snapshot {to}")];
                Err(ImageError::InUse { image: at.image.clone(), watchers })
            }
        }
    }

    fn find(&self, open: &Image, at: &ImageSnapshot) -> Result<Snapshot, ImageError> {
        let snapshots = open.snapshots().map_err(|error| {
            self.session.failed(&format!("list the snapshots of image {}", at.image), error)
        })?;
        let is_it = |snapshot: &Snapshot| user_name(snapshot) == Some(at.snapshot.as_str());
        let found = snapshots.into_iter().find(is_it);
        found.ok_or_else(|| ImageError::NoSnapshot { snapshot: at.clone() })
    }

    fn refuse_if_watched(&self, image: &ImageName, open: &Image) -> Result<(), ImageError> {
        let watchers = self.session.watchers(image, open)?;
        if watchers.is_empty() {
            return Ok(());
        }
        Err(ImageError::InUse { image: image.clone(), watchers })
    }

    /// The error of what a holder of the lock has refused.
    fn kept(
        &self,
        image: &ImageName,
        open: &Image,
        action: &str,
        reason: impl Into<String>,
    ) -> ImageError {
        let watchers = self.session.watchers(image, open).unwrap_or_default();
        let (action, reason) = (action.to_owned(), reason.into());
        ImageError::Kept { image: image.clone(), action, reason, watchers }
    }

    /// The error of a change. Where it was for the holder of the lock to make or to allow it, names him.
    fn failed(
        &self,
        image: &ImageName,
        open: &Image,
        action: &str,
        error: CephError,
    ) -> ImageError {
        if !error.is_read_only() {
            return self.session.failed(action, error);
        }
        let watchers = self.session.watchers(image, open).unwrap_or_default();
        ImageError::Held { image: image.clone(), action: action.to_owned(), watchers }
    }
}

/// Whether the holder of the lock has answered what was asked at `begin`, and refused.
fn is_kept(error: &CephError, begin: Instant) -> bool {
    error.is_read_only() && begin.elapsed() < ANSWER
}

fn remove_by_id(open: &Image, snapshot: &Snapshot) -> Result<(), CephError> {
    let begin = Instant::now();
    match open.remove_snapshot_by_id(snapshot) {
        Err(error) if is_kept(&error, begin) => open.remove_snapshot_past_lock(snapshot).map(drop),
        removed => removed,
    }
}

/// The name of a snapshot that somebody has taken and nobody removed.
pub(super) fn user_name(snapshot: &Snapshot) -> Option<&str> {
    (snapshot.kind == SnapshotKind::User).then_some(snapshot.name.as_str())
}
