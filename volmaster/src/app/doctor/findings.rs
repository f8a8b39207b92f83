//! What is not as it should be in what was seen. No IO.
//!
//! What is mended without asking is what only one state of things explains. *Not seen* is *not there* only in a pool that
//! was looked through and that has some image of the records: in another, the records speak of some other storage, such
//! as a file system that is not mounted now.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use volapi::doctor::{Finding, FindingKind, Remedy};
use volcore::limit::{RateLimitOptions, RateLimits};
use volcore::name::PoolName;
use volcore::size::Size;
use volcore::volume::{ImageFit, Volume, VolumeState};
use volstorage::image::{ImageSnapshot, Stocked};
use volstore::cache::Kept;
use volstore::records::{Trash, TrashKind};

use super::by_hand::Place;
use super::mend::Mend;
use super::seen::Seen;

/// How long a volume may be between two states before that is told.
const STUCK_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// A finding, and what mends it where that is proven.
pub(super) struct Found {
    pub(super) finding: Finding,
    pub(super) mend: Option<Mend>,
}

impl Found {
    /// For people to decide on.
    fn told(kind: FindingKind, object: impl ToString, text: String, help: String) -> Found {
        let (object, remedy) = (object.to_string(), Remedy::Operator);
        Found { finding: Finding { kind, object, text, remedy, help }, mend: None }
    }

    fn proven(kind: FindingKind, object: impl ToString, text: String, mend: Mend) -> Found {
        let help = format!("`volcli doctor --fix` {}", mend.does());
        let (object, remedy) = (object.to_string(), Remedy::Fix);
        Found { finding: Finding { kind, object, text, remedy, help }, mend: Some(mend) }
    }
}

/// What is known of the whole.
struct Known<'a> {
    seen: &'a Seen,
    /// The volumes that were or are.
    uids: BTreeSet<Uuid>,
    /// The pools in which an image of the records is.
    pools: BTreeSet<&'a PoolName>,
    images: BTreeMap<(&'a PoolName, &'a str), &'a Stocked>,
    /// The volumes whose images are being made, or which somebody may be making who does not know yet that the volume is
    /// no more.
    made: BTreeSet<Uuid>,
}

/// All that is not as it should be.
pub(super) fn findings(seen: &Seen) -> Vec<Found> {
    let uids: BTreeSet<Uuid> = seen.before.uids().chain(seen.after.uids()).collect();
    let stocked = seen.stock.images.iter().chain(&seen.stock.trash);
    let ours = stocked.filter(|one| one.uid.is_some_and(|uid| uids.contains(&uid)));
    let pools = ours.map(|one| &one.pool).collect();
    let images = seen.stock.images.iter();
    let images = images.map(|one| ((&one.pool, one.name.as_str()), one)).collect();
    let known = Known { seen, uids, pools, images, made: made(seen) };
    let mut found = Vec::new();
    known.records(&mut found);
    known.orphans(&mut found);
    known.volumes(&mut found);
    known.claims(&mut found);
    known.trash(&mut found);
    known.logs(&mut found);
    known.unfinished(&mut found);
    known.snapshots(&mut found);
    found
}

fn named(one: &Stocked) -> String {
    format!("{}/{}", one.pool, one.name)
}

impl Known<'_> {
    /// Records that cannot be read: of what they are the records is not known.
    fn records(&self, found: &mut Vec<Found>) {
        for (key, reason) in &self.seen.after.unreadable {
            let text = reason.clone();
            let help = "a newer volmaster may have written it: update this one; until all records can be read, what \
                        may belong to them is not mended"
                .to_owned();
            found.push(Found::told(FindingKind::RecordUnreadable, key, text, help));
        }
    }

    fn place(&self, pool: &PoolName) -> &Place {
        self.seen.places.get(pool).unwrap_or(&Place::Rbd)
    }

    /// Images that were made for volumes which are no more.
    fn orphans(&self, found: &mut Vec<Found>) {
        let is_orphan = |one: &&Stocked| one.uid.is_some_and(|uid| !self.uids.contains(&uid));
        let first = if self.seen.is_whole() {
            ""
        } else {
            "if it does not belong to a record that cannot be read: "
        };
        for one in self.seen.stock.images.iter().filter(is_orphan) {
            let (image, pool) = (named(one), &one.pool);
            let help = match one.name.split_once('.') {
                Some((tenant, volume)) => format!(
                    "{first}`volcli volume adopt {tenant}/{volume} --opt pool={pool}` makes it a volume again"
                ),
                None => format!(
                    "{first}{}, then `volcli volume adopt TENANT/VOLUME --opt pool={pool}`",
                    self.place(pool).rename(one, "TENANT.VOLUME")
                ),
            };
            let text = "the image was made for a volume that is no more".to_owned();
            found.push(Found::told(FindingKind::OrphanImage, image, text, help));
        }
        for one in self.seen.stock.trash.iter().filter(is_orphan) {
            let (image, pool, id) = (named(one), &one.pool, &one.id);
            let text = format!("the trash of the pool has it (id {id}), and no record knows of it");
            let place = self.place(pool);
            let (back, away) = (place.restore(one, &one.name), place.remove(one));
            let help =
                format!("{first}{back} brings it back, to be adopted; {away} frees its space");
            found.push(Found::told(FindingKind::OrphanTrash, image, text, help));
        }
    }

    /// Volumes that are stuck, or whose images are not what the records say.
    fn volumes(&self, found: &mut Vec<Found>) {
        for (id, kept) in &self.seen.after.volumes {
            let volume = &*kept.record;
            if let Some(since) = stuck_since(volume, self.seen.now) {
                let state = volume.state.as_str();
                let why = volume.last_error.as_deref().unwrap_or("no error is noted");
                let text = format!("the volume is {state} since {since:.0}: {why}");
                let help =
                    "it is tried again in the background; `volcli status` shows the attempts"
                        .to_owned();
                found.push(Found::told(FindingKind::StuckVolume, id, text, help));
            }
            // What has changed meanwhile is compared the next time.
            if self.seen.is_unchanged(id) {
                self.image(kept, found);
                self.openers(volume, found);
            }
        }
    }

    /// The image of a volume that is ready.
    fn image(&self, kept: &Kept<Volume>, found: &mut Vec<Found>) {
        let volume = &*kept.record;
        let VolumeState::Ready { image_id, fit } = &volume.state else { return };
        let (id, image) = (&volume.id, volume.image());
        let look = self.seen.looks.get(id);
        if let Some(Err(why)) = look {
            let text = format!("its image {image} could not be looked at: {why}");
            let help = "see to what is said there, and look again".to_owned();
            found.push(Found::told(FindingKind::ImageUnreadable, id, text, help));
        }
        match self.images.get(&(&image.pool, image.name.as_str())) {
            // It may have been restored or renamed while the list was read, and then it was found afterwards.
            None if matches!(look, Some(Ok(look)) if !look.is_there) => {
                let text = format!("its image {image} is not there");
                let help = self.way_back(volume);
                found.push(Found::told(FindingKind::ImageMissing, id, text, help));
            }
            None => {}
            Some(there) if there.id != *image_id || there.uid != Some(volume.uid) => {
                let text = format!("another image has the name of its image {image}");
                let help = format!(
                    "put its own back in that place, or forget the volume with `volcli volume force-remove {id}`; that \
                     leaves the image alone"
                );
                found.push(Found::told(FindingKind::ImageReplaced, id, text, help));
            }
            Some(there) if *fit == ImageFit::Fits => found.extend(unfit(kept, there)),
            Some(_) => {}
        }
    }

    /// How a volume whose image is missing may get it back.
    fn way_back(&self, volume: &Volume) -> String {
        let (id, image) = (&volume.id, volume.image());
        let is_it = |one: &&Stocked| one.uid == Some(volume.uid) && one.pool == image.pool;
        let back = if let Some(thrown) = self.seen.stock.trash.iter().find(is_it) {
            let back = self.place(&image.pool).restore(thrown, &image.name);
            format!("it is in the trash of its pool: {back}")
        } else if let Some(renamed) = self.seen.stock.images.iter().find(is_it) {
            let back = self.place(&image.pool).rename(renamed, &image.name);
            format!("it has another name now: {back}")
        } else {
            "bring it back under that name".to_owned()
        };
        format!("{back}, or forget the volume with `volcli volume force-remove {id}`")
    }

    /// Whoever has an image open that nobody has claimed.
    fn openers(&self, volume: &Volume, found: &mut Vec<Found>) {
        let (id, image) = (&volume.id, volume.image());
        let claims = [&self.seen.before.claims, &self.seen.after.claims];
        if claims.iter().any(|claims| claims.contains_key(id))
            || self.seen.after.is_unreadable("mounts", id)
        {
            return;
        }
        let Some(Ok(look)) = self.seen.looks.get(id) else { return };
        // Some volmaster has a clone open for as long as it copies its data.
        if look.watchers.is_empty() || volume.to_be_flattened().is_some() {
            return;
        }
        let text = format!(
            "nobody has claimed it, and its image {image} is open: {}",
            look.watchers.join(", ")
        );
        let help = self.place(&image.pool).close(id, &look.watchers);
        found.push(Found::told(FindingKind::OpenWithoutClaim, id, text, help));
    }

    /// Claims of hosts that are silent. That proves nothing as long as there is a volume: only people know whether a host
    /// is gone.
    fn claims(&self, found: &mut Vec<Found>) {
        let seen = self.seen;
        for (volume, kept) in &seen.after.claims {
            let silent = kept.record.holders.iter().filter(|it| !seen.hosts.contains(&it.host));
            if seen.after.volumes.contains_key(volume) {
                for holder in silent {
                    let (host, since) = (&holder.host, holder.since);
                    let text =
                        format!("host {host} holds it since {since:.0}, and has no live session");
                    let help = format!(
                        "only if that host is gone for good: `volcli mount force-remove {volume}` fences it and clears its claim"
                    );
                    found.push(Found::told(FindingKind::ClaimOfSilentHost, volume, text, help));
                }
                continue;
            }
            if seen.after.is_unreadable("volumes", volume) {
                continue;
            }
            let hosts: Vec<_> = kept.record.holders.iter().map(|it| it.host.clone()).collect();
            let is_same =
                seen.before.claims.get(volume).map(|it| it.revision) == Some(kept.revision);
            let was_there = seen.before.volumes.contains_key(volume);
            // In a storage that has no image of the records the one that is claimed is not looked for in vain.
            let is_free =
                seen.users.get(volume).is_some_and(Vec::is_empty) && !self.pools.is_empty();
            let is_proven = is_same && !was_there && is_free && seen.is_whole();
            let text = "somebody holds it, and there is no such volume".to_owned();
            found.push(if is_proven && silent.count() == hosts.len() {
                let mend = Mend::DropClaim { volume: volume.clone(), at: kept.revision, hosts };
                Found::proven(FindingKind::ClaimWithoutVolume, volume, text, mend)
            } else {
                let help = format!(
                    "its host may still have an image of that name mapped: if not, `volcli mount force-remove {volume}` clears \
                     the claim"
                );
                Found::told(FindingKind::ClaimWithoutVolume, volume, text, help)
            });
        }
    }

    /// Records of the trash whose images are not there.
    fn trash(&self, found: &mut Vec<Found>) {
        for (uid, kept) in &self.seen.after.trash {
            let before = self.seen.before.trash.get(uid);
            if before.is_some_and(|before| before.revision == kept.revision) {
                found.extend(self.thrown(kept));
            }
        }
    }

    fn thrown(&self, kept: &Kept<Trash>) -> Option<Found> {
        let (record, at) = (&kept.record, kept.revision);
        // What is being purged loses its image before its record.
        let TrashKind::Image { pool, id, name, purging: false, .. } = &record.kind else {
            return None;
        };
        let stock = &self.seen.stock;
        let is_it = |one: &&Stocked| one.pool == *pool && one.id == *id;
        if record.kept.is_none() || stock.trash.iter().any(|one| is_it(&one)) {
            return None;
        }
        let (volume, trash_id) = (&record.volume, record.id());
        let text = format!(
            "volume {volume} was removed, and its image {pool}/{name} (id {id}) is not in the trash"
        );
        let kind = FindingKind::TrashWithoutImage;
        if let Some(there) = stock.images.iter().find(is_it) {
            let there = named(there);
            let text = format!("{text}, but {there}");
            let help = format!(
                "`volcli trash restore {trash_id}` makes it the volume again, once the image is called {pool}/{name}"
            );
            return Some(Found::told(kind, trash_id, text, help));
        }
        if stock.pools.contains(pool) && self.pools.contains(pool) {
            let mend = Mend::DropTrash { id: trash_id.clone(), at };
            return Some(Found::proven(kind, trash_id, text, mend));
        }
        let help = format!(
            "pool {pool} is not there, or has no image of any volume: if it is the right storage, `volcli trash purge \
             {trash_id}` drops the record"
        );
        Some(Found::told(kind, trash_id, text, help))
    }

    /// What came of schedules of volumes that are no more.
    fn logs(&self, found: &mut Vec<Found>) {
        for (id, log) in &self.seen.after.logs {
            let owner = self.seen.after.volumes.get(id);
            if owner.is_some_and(|owner| owner.record.uid == log.record.uid)
                || self.seen.after.is_unreadable("volumes", id)
            {
                continue;
            }
            let text = "it is the log of the schedule of a volume that is no more".to_owned();
            let (volume, at, uid) = (id.clone(), log.revision, log.record.uid);
            let mend = Mend::DropLog { volume, at, uid };
            found.push(Found::proven(FindingKind::LogWithoutVolume, id, text, mend));
        }
    }

    /// What attempts have left. Whether somebody is at one still, the driver looks when it is removed.
    fn unfinished(&self, found: &mut Vec<Found>) {
        for left in self.seen.unfinished.iter().filter(|left| !self.made.contains(&left.uid)) {
            let (kind, image) =
                (FindingKind::UnfinishedImage, format!("{}/{}", left.pool, left.name));
            let text =
                "an attempt to make an image has left it, and nobody goes on with it".to_owned();
            found.push(self.left(kind, image, text, Mend::DropUnfinished(left.clone())));
        }
    }

    /// Snapshots that were taken for clones which are made, or never will be.
    fn snapshots(&self, found: &mut Vec<Found>) {
        for (id, look) in &self.seen.looks {
            let Some(volume) = self.seen.after.volumes.get(id) else { continue };
            let (Ok(look), true) = (look, self.seen.is_unchanged(id)) else { continue };
            for (snapshot, _) in look.for_clones.iter().filter(|(_, uid)| !self.made.contains(uid))
            {
                let text = "it was taken for a clone, which does not need it any more".to_owned();
                let at = ImageSnapshot { image: volume.record.image(), snapshot: snapshot.clone() };
                let (object, mend) = (format!("{id}@{snapshot}"), Mend::DropSnapshot(at));
                found.push(self.left(FindingKind::LeftSnapshot, object, text, mend));
            }
        }
    }

    /// Something that no volume needs: as long as all volumes are known.
    fn left(&self, kind: FindingKind, object: String, text: String, mend: Mend) -> Found {
        if self.seen.is_whole() {
            return Found::proven(kind, object, text, mend);
        }
        let help = "`volcli doctor --fix` mends it when all records can be read".to_owned();
        Found::told(kind, object, text, help)
    }
}

/// The volumes whose images somebody may be making.
fn made(seen: &Seen) -> BTreeSet<Uuid> {
    let volumes = seen.after.volumes.values().map(|kept| &kept.record);
    let creating = volumes.filter(|it| matches!(it.state, VolumeState::Creating { .. }));
    let trash = seen.after.trash.values().map(|kept| &kept.record);
    let late = trash.filter(|it| matches!(it.kind, TrashKind::Late { .. }));
    creating.map(|volume| volume.uid).chain(late.map(|trash| trash.uid)).collect()
}

fn stuck_since(volume: &Volume, now: Timestamp) -> Option<Timestamp> {
    let since = match &volume.state {
        VolumeState::Creating { since }
        | VolumeState::RollingBack { since, .. }
        | VolumeState::Restoring { since, .. }
        | VolumeState::Adopting { since, .. }
        | VolumeState::GivingBack { since, .. }
        | VolumeState::Removing { since, .. }
        | VolumeState::Ready { fit: ImageFit::Pending { since }, .. } => *since,
        VolumeState::Ready { fit: ImageFit::Fits, .. } => return None,
    };
    let is_stuck = volume.last_error.is_some() || now.duration_since(since) > STUCK_AFTER;
    is_stuck.then_some(since)
}

/// What an image that is a volume's own has otherwise than its record says. A larger image stays as it is, for somebody
/// may have made it so: images never shrink.
fn unfit(kept: &Kept<Volume>, there: &Stocked) -> Vec<Found> {
    let (volume, image) = (&*kept.record, named(there));
    let (id, wanted) = (&volume.id, volume.spec.size);
    let mend = || Mend::Fit { volume: id.clone(), at: kept.revision };
    let other = there.limits.filter(|limits| *limits != volume.spec.rate_limits);
    let mut found = Vec::new();
    match there.size {
        Some(has) if has > wanted.bytes() => {
            let text = format!("the record says {wanted}, and image {image} has {has} bytes");
            let to = Size::from_bytes(has).map_or("SIZE".to_owned(), |size| size.to_string());
            let to = to.replace(' ', "");
            let help = format!("`volcli volume resize {id} {to}` makes both the same");
            found.push(Found::told(FindingKind::SizeDiffers, id, text, help));
        }
        Some(has) if has < wanted.bytes() => {
            let also = if other.is_some() { ", and other limits" } else { "" };
            let text = format!("the record says {wanted}, and image {image} has {has} bytes{also}");
            return vec![Found::proven(FindingKind::SizeDiffers, id, text, mend())];
        }
        Some(_) | None => {}
    }
    if let Some(has) = other {
        let (wanted, has) = (limits(&volume.spec.rate_limits), limits(&has));
        let text = format!("the record says {wanted}, and image {image} has {has}");
        found.push(Found::proven(FindingKind::LimitsDiffer, id, text, mend()));
    }
    found
}

/// Limits in words.
fn limits(limits: &RateLimits) -> String {
    let RateLimitOptions { write_iops, read_iops, write_bps, read_bps } = limits.into();
    let all = [
        ("write.iops", write_iops),
        ("read.iops", read_iops),
        ("write.bps", write_bps),
        ("read.bps", read_bps),
    ];
    let told = all.iter().filter_map(|(name, limit)| Some(format!("{name}={}", (*limit)?)));
    let told: Vec<String> = told.collect();
    if told.is_empty() { "no limits".to_owned() } else { told.join(" ") }
}
