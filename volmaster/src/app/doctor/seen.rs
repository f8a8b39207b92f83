//! What there is: the records, the images, the records once more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use uuid::Uuid;
use volcore::Kind;
use volcore::claim::Claim;
use volcore::name::{HostName, PoolName, SnapshotName, VolumeId};
use volcore::snapshot::SnapshotLog;
use volcore::volume::{ImageName, Volume, VolumeState};
use volstorage::image::{ImageError, Stock, Stocked, Unfinished};
use volstore::cache::{Kept, Mirror};
use volstore::keys;
use volstore::records::Trash;

use super::DoctorError;
use super::by_hand::Place;
use crate::app::{App, catch_up};

/// How many images are looked at one by one at a time.
const AT_A_TIME: usize = 8;
/// Another volmaster has an image open for less than this, as a rule, to change it.
const MOMENT: Duration = Duration::from_secs(2);

/// What is stored, at one time.
pub(super) struct Stored {
    pub(super) volumes: BTreeMap<VolumeId, Kept<Volume>>,
    pub(super) claims: BTreeMap<VolumeId, Kept<Claim>>,
    pub(super) trash: BTreeMap<Uuid, Kept<Trash>>,
    /// By their places, which some older version may have written.
    pub(super) logs: BTreeMap<VolumeId, Kept<SnapshotLog>>,
    /// The keys of what cannot be read, and why.
    pub(super) unreadable: BTreeMap<String, String>,
}

impl Stored {
    async fn read(app: &App) -> Result<Stored, DoctorError> {
        let mirrors = &app.mirrors;
        catch_up(app, &mirrors.volumes, Some(&mirrors.mounts)).await?;
        catch_up(app, &mirrors.trash, Some(&mirrors.logs)).await?;
        let keys = app.records.keys();
        let mut unreadable = BTreeMap::new();
        let volumes = all(&mirrors.volumes, &mut unreadable, |_, volume| Some(volume.id.clone()));
        let claims = all(&mirrors.mounts, &mut unreadable, |_, claim| Some(claim.volume.clone()));
        let trash = all(&mirrors.trash, &mut unreadable, |_, trash| Some(trash.uid));
        let logs = all(&mirrors.logs, &mut unreadable, |key, _| match keys.place(key) {
            Some(keys::Place::Snapshots(id)) => Some(id),
            _ => None,
        });
        Ok(Stored { volumes, claims, trash, logs, unreadable })
    }

    /// Whether there is a record of a volume that cannot be read, among those with such keys.
    pub(super) fn is_unreadable(&self, among: &str, id: &VolumeId) -> bool {
        let end = format!("/{among}/{id}");
        self.unreadable.keys().any(|key| key.ends_with(&end))
    }

    /// The volumes that were or are.
    pub(super) fn uids(&self) -> impl Iterator<Item = Uuid> {
        self.volumes.values().map(|volume| volume.record.uid).chain(self.trash.keys().copied())
    }
}

/// The records of a mirror by what they are of.
fn all<K: Ord, T: Send + Sync + 'static>(
    mirror: &Mirror<T>,
    unreadable: &mut BTreeMap<String, String>,
    of: impl Fn(&volstore::store::Key, &T) -> Option<K>,
) -> BTreeMap<K, Kept<T>> {
    mirror.read(|view| {
        let broken = view.undecodable().iter();
        unreadable.extend(broken.map(|(key, broken)| (key.to_string(), broken.reason.clone())));
        let records = view.records().iter();
        records.filter_map(|(key, kept)| Some((of(key, &kept.record)?, kept.clone()))).collect()
    })
}

/// What was seen of the image of one volume.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) is_there: bool,
    /// The addresses of those who have it open.
    pub(super) watchers: Vec<String>,
    /// The snapshots that were taken for clones, with the clones' uids.
    pub(super) for_clones: Vec<(SnapshotName, Uuid)>,
}

/// All that there is.
pub(super) struct Seen {
    pub(super) before: Stored,
    pub(super) stock: Stock,
    /// Those of the images of volumes that were ready before; `Err` is why one could not be looked at.
    pub(super) looks: BTreeMap<VolumeId, Result<Look, String>>,
    /// Who has the images open that have the names of volumes which are no more and are claimed; absent where that is
    /// not known.
    pub(super) users: BTreeMap<VolumeId, Vec<String>>,
    pub(super) after: Stored,
    /// What was unfinished before and after that.
    pub(super) unfinished: Vec<Unfinished>,
    /// Where the images of each pool are.
    pub(super) places: BTreeMap<PoolName, Place>,
    /// The hosts with live sessions.
    pub(super) hosts: BTreeSet<HostName>,
    pub(super) now: Timestamp,
}

impl Seen {
    /// Looks at everything.
    pub(super) async fn look(app: &App) -> Result<Seen, DoctorError> {
        let before = Stored::read(app).await?;
        // First the images, then the records: an attempt to make one is begun after its intent was stored, so that one
        // which is found here and is not there is over. One that ended just then has gone when it is looked for again.
        let unfinished = app.images.unfinished().await?;
        let stock = app.images.stock().await?;
        let looks = looks(app, &before).await?;
        let mut users = BTreeMap::new();
        for id in before.claims.keys().filter(|id| !before.volumes.contains_key(*id)) {
            if let Some(found) = users_of(app, &stock, id).await? {
                users.insert(id.clone(), found);
            }
        }
        let after = Stored::read(app).await?;
        let again = app.images.unfinished().await?;
        let still: BTreeSet<(&PoolName, &str)> =
            again.iter().map(|it| (&it.pool, it.name.as_str())).collect();
        let is_still = |it: &Unfinished| still.contains(&(&it.pool, it.name.as_str()));
        let unfinished = unfinished.into_iter().filter(is_still).collect();
        let sessions = app.records.sessions().await?;
        let hosts = sessions.into_iter().map(|leased| leased.session.host).collect();
        let (places, now) = (places(app, &stock, &after), app.now());
        let mut seen = Seen { before, stock, looks, users, after, unfinished, places, hosts, now };
        seen.look_again_who_has_them_open(app).await?;
        Ok(seen)
    }

    /// Whether a volume's record is what it was before the images were looked at.
    pub(super) fn is_unchanged(&self, id: &VolumeId) -> bool {
        let at = |stored: &Stored| stored.volumes.get(id).map(|kept| kept.revision);
        at(&self.before) == at(&self.after)
    }

    /// Whether all volumes are known: what is not among them is not there.
    pub(super) fn is_whole(&self) -> bool {
        self.before.unreadable.is_empty() && self.after.unreadable.is_empty()
    }

    fn is_claimed(&self, id: &VolumeId) -> bool {
        self.before.claims.contains_key(id) || self.after.claims.contains_key(id)
    }

    /// Keeps only those who have an image open for longer than a change takes.
    async fn look_again_who_has_them_open(&mut self, app: &App) -> Result<(), DoctorError> {
        let is_suspect = |(id, look): &(&VolumeId, &Result<Look, String>)| {
            let is_open = look.as_ref().is_ok_and(|look| !look.watchers.is_empty());
            is_open && !self.is_claimed(id)
        };
        let suspects: Vec<VolumeId> =
            self.looks.iter().filter(is_suspect).map(|(id, _)| id.clone()).collect();
        if !suspects.is_empty() {
            tokio::time::sleep(MOMENT).await;
        }
        for id in suspects {
            let Some(volume) = self.before.volumes.get(&id) else { continue };
            let again = app.images.inspect(&volume.record.image()).await?;
            if let Some(Ok(look)) = self.looks.get_mut(&id) {
                let again = again.map(|found| found.watchers).unwrap_or_default();
                look.watchers.retain(|watcher| again.contains(watcher));
            }
        }
        Ok(())
    }
}

fn places(app: &App, stock: &Stock, stored: &Stored) -> BTreeMap<PoolName, Place> {
    let volumes = stored.volumes.values().map(|kept| kept.record.spec.pool.clone());
    let pools = volumes.chain(stock.pools.iter().cloned()).collect::<BTreeSet<_>>().into_iter();
    let place = |pool: PoolName| {
        let any = ImageName { pool: pool.clone(), name: "any".to_owned() };
        (pool, Place::of(app.images.source(&any)))
    };
    pools.map(place).collect()
}

/// Looks at the images of all volumes that are ready.
async fn looks(
    app: &App,
    stored: &Stored,
) -> Result<BTreeMap<VolumeId, Result<Look, String>>, DoctorError> {
    let all = stored.volumes.values().map(|kept| &kept.record);
    let ready = all.filter(|volume| matches!(volume.state, VolumeState::Ready { .. }));
    let ready: Vec<(VolumeId, ImageName)> =
        ready.map(|volume| (volume.id.clone(), volume.image())).collect();
    let looks = ready.into_iter().map(|(id, image)| async move {
        match look_at(app, &image).await {
            // Nothing is known of the others either.
            Err(error) if error.kind() == Kind::Unavailable => Err(DoctorError::from(error)),
            Err(error) => Ok((id, Err(volapi::problem::chain(&error)))),
            Ok(look) => Ok((id, Ok(look))),
        }
    });
    futures::stream::iter(looks).buffer_unordered(AT_A_TIME).try_collect().await
}

async fn look_at(app: &App, image: &ImageName) -> Result<Look, ImageError> {
    let Some(found) = app.images.inspect(image).await? else { return Ok(Look::default()) };
    let for_clone = |name: SnapshotName| name.clone_uid().map(|uid| (name, uid));
    let for_clones = found.snapshots.into_iter().filter_map(for_clone).collect();
    Ok(Look { is_there: true, watchers: found.watchers, for_clones })
}

/// Who has the images open that have a volume's name, in whichever pool; `None` where one is in the trash, of which that
/// is not known.
async fn users_of(
    app: &App,
    stock: &Stock,
    id: &VolumeId,
) -> Result<Option<Vec<String>>, DoctorError> {
    let name = id.image_name();
    let is_it = |one: &&Stocked| one.name == name;
    if stock.trash.iter().any(|one| is_it(&one)) {
        return Ok(None);
    }
    let mut users = Vec::new();
    for one in stock.images.iter().filter(is_it) {
        let image = ImageName { pool: one.pool.clone(), name: name.clone() };
        let found = app.images.inspect(&image).await?;
        users.extend(found.map(|found| found.watchers).unwrap_or_default());
    }
    Ok(Some(users))
}
