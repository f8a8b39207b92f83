//! Comparing records, images, claims, sessions and the trash. Changes nothing.
//!
//! Records and images are read one after the other, and both go on changing meanwhile. So what looks wrong is looked at
//! once more before it is told: a record has to be the same after the images were listed, and an image that is missed is
//! asked for by its name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use volapi::doctor::{Doctor, Finding, FindingKind};
use volcore::Kind;
use volcore::claim::Claim;
use volcore::name::{HostName, VolumeId};
use volcore::snapshot::SnapshotLog;
use volcore::volume::{ImageFit, Volume, VolumeState};
use volstorage::image::{ImageError, Stock, Stocked};
use volstore::cache::Mirror;
use volstore::records::{Trash, TrashKind};
use volstore::store::StoreError;

use super::{App, Failing, ListError, catch_up, store_kind};

/// How many findings are told; how many there are is told too.
const MOST: usize = 1000;
/// How long a volume may be between two states before that is told.
const STUCK_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// It is not known what records there are.
    #[error(transparent)]
    List(#[from] ListError),
    /// It is not known what images there are.
    #[error("could not compare records and images")]
    Images(#[from] ImageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for DoctorError {
    fn kind(&self) -> Kind {
        match self {
            DoctorError::List(error) => error.kind(),
            DoctorError::Images(error) => error.kind(),
            DoctorError::Store(error) => store_kind(error),
        }
    }
}

/// What is stored, at one time.
struct Stored {
    volumes: BTreeMap<VolumeId, Arc<Volume>>,
    claims: Vec<Arc<Claim>>,
    trash: Vec<Arc<Trash>>,
    logs: Vec<(String, Arc<SnapshotLog>)>,
}

impl Stored {
    async fn read(app: &App) -> Result<Stored, DoctorError> {
        let mirrors = &app.mirrors;
        catch_up(app, &mirrors.volumes, Some(&mirrors.mounts)).await?;
        catch_up(app, &mirrors.trash, Some(&mirrors.logs)).await?;
        fn all<T: Send + Sync + 'static>(mirror: &Mirror<T>) -> Vec<Arc<T>> {
            mirror.read(|view| view.records().values().map(|kept| kept.record.clone()).collect())
        }
        let volumes = all(&mirrors.volumes).into_iter();
        let logs = mirrors.logs.read(|view| {
            let name = |key: &volstore::store::Key| {
                let key = key.as_str();
                let prefix = app.records.keys().snapshots_all();
                key.strip_prefix(prefix.as_str()).unwrap_or(key).to_owned()
            };
            let records = view.records().iter();
            records.map(|(key, kept)| (name(key), kept.record.clone())).collect()
        });
        Ok(Stored {
            volumes: volumes.map(|volume| (volume.id.clone(), volume)).collect(),
            claims: all(&mirrors.mounts),
            trash: all(&mirrors.trash),
            logs,
        })
    }

    fn uids(&self) -> BTreeSet<Uuid> {
        let volumes = self.volumes.values().map(|volume| volume.uid);
        volumes.chain(self.trash.iter().map(|trash| trash.uid)).collect()
    }
}

/// Compares what there is.
pub async fn doctor_get(app: &App) -> Result<Doctor, DoctorError> {
    let before = Stored::read(app).await?;
    let stock = app.images.stock().await?;
    let after = Stored::read(app).await?;
    let sessions = app.records.sessions().await?;
    let hosts: BTreeSet<HostName> =
        sessions.into_iter().map(|leased| leased.session.host).collect();
    let mut findings = Vec::new();
    orphans(&before, &after, &stock, &mut findings);
    volumes(app, &before, &after, &stock, &mut findings).await?;
    claims(&after, &hosts, &mut findings);
    trash(&before, &after, &stock, &mut findings);
    logs(&after, &mut findings);
    let (total, foreign) = (findings.len(), stock.images.iter().filter(|one| one.uid.is_none()));
    let foreign_images = foreign.count() as u64;
    findings.truncate(MOST);
    Ok(Doctor {
        findings,
        total: total as u64,
        volumes: after.volumes.len() as u64,
        images: stock.images.len() as u64,
        foreign_images,
    })
}

fn finding(kind: FindingKind, object: impl ToString, text: String, help: String) -> Finding {
    Finding { kind, object: object.to_string(), text, help }
}

fn named(one: &Stocked) -> String {
    format!("{}/{}", one.pool, one.name)
}

/// Images that were made for volumes which are no more.
fn orphans(before: &Stored, after: &Stored, stock: &Stock, findings: &mut Vec<Finding>) {
    let known: BTreeSet<Uuid> = before.uids().union(&after.uids()).copied().collect();
    let is_orphan = |one: &&Stocked| one.uid.is_some_and(|uid| !known.contains(&uid));
    for one in stock.images.iter().filter(is_orphan) {
        let image = named(one);
        let help = match one.name.split_once('.') {
            Some((tenant, volume)) => {
                format!(
                    "`volcli volume adopt {tenant}/{volume} --opt pool={}` makes it a volume again",
                    one.pool
                )
            }
            None => format!("rename it to TENANT.VOLUME (`rbd rename {image} …`) and adopt it"),
        };
        let text = "the image was made for a volume that is no more".to_owned();
        findings.push(finding(FindingKind::OrphanImage, image, text, help));
    }
    for one in stock.trash.iter().filter(is_orphan) {
        let (image, pool, id) = (named(one), &one.pool, &one.id);
        let text = format!("the trash of the pool has it (id {id}), and no record knows of it");
        let help = format!(
            "`rbd trash restore {pool}/{id}` brings it back, to be adopted; `rbd trash rm {pool}/{id}` frees its space"
        );
        findings.push(finding(FindingKind::OrphanTrash, image, text, help));
    }
}

/// Volumes that are stuck, or whose images are not what the records say.
async fn volumes(
    app: &App,
    before: &Stored,
    after: &Stored,
    stock: &Stock,
    findings: &mut Vec<Finding>,
) -> Result<(), DoctorError> {
    let images: BTreeMap<String, &Stocked> =
        stock.images.iter().map(|one| (named(one), one)).collect();
    let now = app.now();
    for volume in after.volumes.values() {
        let id = &volume.id;
        if let Some(since) = stuck_since(volume, now) {
            let state = volume.state.as_str();
            let why = volume.last_error.as_deref().unwrap_or("no error is noted");
            let text = format!("the volume is {state} since {since:.0}: {why}");
            let help = "it is tried again in the background; `volcli status` shows the attempts"
                .to_owned();
            findings.push(finding(FindingKind::StuckVolume, id, text, help));
        }
        let VolumeState::Ready { image_id, fit } = &volume.state else { continue };
        // What has changed meanwhile is compared the next time.
        if before.volumes.get(id) != Some(volume) || findings.len() >= MOST {
            continue;
        }
        let image = volume.image();
        match images.get(&image.to_string()) {
            None => {
                // Looked at once more: it may have been restored or renamed while the list was read.
                let missing = match app.images.find(&image).await {
                    Ok(found) => found.is_none(),
                    Err(ImageError::NoPool { .. }) => true,
                    Err(error) => return Err(error.into()),
                };
                if missing {
                    let text = format!("its image {image} is not there");
                    let help = format!(
                        "bring it back under that name, or forget the volume with `volcli volume force-remove {id}`"
                    );
                    findings.push(finding(FindingKind::ImageMissing, id, text, help));
                }
            }
            Some(there) if there.id != *image_id || there.uid != Some(volume.uid) => {
                let text = format!("another image has the name of its image {image}");
                let help = format!(
                    "put its own back in that place, or forget the volume with `volcli volume force-remove {id}`; that \
                     leaves the image alone"
                );
                findings.push(finding(FindingKind::ImageReplaced, id, text, help));
            }
            Some(there) => {
                let (has, wanted) = (there.size, volume.spec.size);
                if *fit == ImageFit::Fits && has.is_some_and(|has| has != wanted.bytes()) {
                    let has = has.unwrap_or_default();
                    let text =
                        format!("the record says {wanted}, and image {image} has {has} bytes");
                    let help = format!("`volcli volume resize {id} SIZE` makes both the same");
                    findings.push(finding(FindingKind::SizeDiffers, id, text, help));
                }
            }
        }
    }
    Ok(())
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

/// Claims of hosts that are silent. That proves nothing: only people know whether a host is gone.
fn claims(after: &Stored, hosts: &BTreeSet<HostName>, findings: &mut Vec<Finding>) {
    for claim in &after.claims {
        let volume = &claim.volume;
        if !after.volumes.contains_key(volume) {
            let text = "somebody holds it, and there is no such volume".to_owned();
            let help = format!("`volcli mount force-remove {volume}` clears the claim");
            findings.push(finding(FindingKind::ClaimWithoutVolume, volume, text, help));
            continue;
        }
        for holder in claim.holders.iter().filter(|holder| !hosts.contains(&holder.host)) {
            let (host, since) = (&holder.host, holder.since);
            let text = format!("host {host} holds it since {since:.0}, and has no live session");
            let help = format!(
                "only if that host is gone for good: `volcli mount force-remove {volume}` fences it and clears its claim"
            );
            findings.push(finding(FindingKind::ClaimOfSilentHost, volume, text, help));
        }
    }
}

/// Records of the trash whose images are not there.
fn trash(before: &Stored, after: &Stored, stock: &Stock, findings: &mut Vec<Finding>) {
    let there: BTreeSet<(&str, &str)> =
        stock.trash.iter().map(|one| (one.pool.as_str(), one.id.as_str())).collect();
    for record in &after.trash {
        // What is being purged loses its image before its record.
        let TrashKind::Image { pool, id, name, purging: false, .. } = &record.kind else {
            continue;
        };
        if record.kept.is_none()
            || there.contains(&(pool.as_str(), id.as_str()))
            || !before.trash.contains(record)
        {
            continue;
        }
        let (volume, trash_id) = (&record.volume, record.id());
        let text = format!(
            "volume {volume} was removed, and its image {pool}/{name} (id {id}) is not in the trash"
        );
        let help = format!("`volcli trash purge {trash_id}` drops the record");
        findings.push(finding(FindingKind::TrashWithoutImage, trash_id, text, help));
    }
}

/// What came of schedules of volumes that are no more.
fn logs(after: &Stored, findings: &mut Vec<Finding>) {
    for (name, log) in &after.logs {
        let owner = name.parse::<VolumeId>().ok().and_then(|id| after.volumes.get(&id));
        if owner.is_some_and(|volume| volume.uid == log.uid) {
            continue;
        }
        let text = "the log of its schedule is there, and its volume is not".to_owned();
        let help = "it takes no space, and goes with the next volume of that name".to_owned();
        findings.push(finding(FindingKind::LogWithoutVolume, name, text, help));
    }
}
