//! An image driver without images: real state, no cluster.
//!
//! It keeps the contract of [`ImageDriver`], the same suite of tests runs on it as on the real
//! drivers, and its [`Faults`] break one effect after another. A format command is not run; one with
//! `exit N` in it fails with that status, and says on stderr what it echoes.

mod adoption;
mod snapshots;
mod state;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;
use volcore::format::FormatCommand;
use volcore::limit::RateLimits;
use volcore::name::PoolName;
use volcore::order::Capture;
use volcore::size::Size;
use volcore::volume::ImageName;

use self::state::{Cluster, Pool, State, Told};
pub use self::state::{FakeImage, FakeSnapshot, Parent};
use crate::draft;
use crate::faults::Faults;
use crate::image::{
    Adoptable, Adoption, Confirm, Confirmed, Created, Discarded, Flattened, ImageDriver,
    ImageError, ImageInfo, ImageSnapshot, ImageSource, Inspection, NewClone, NewImage, Progress,
    Purged, Removed, Resized, Restored, Snapped, SnapshotInfo, SnapshotUsage, Stock, Stocked,
    TrashedImage, Unfinished, Verdict,
};

/// The largest image, as large as one in Ceph.
const LARGEST: u64 = 128 << 40;

/// What an image is to be, however it comes by its data.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    image: &'a ImageName,
    uid: Uuid,
}

impl<'a> From<&'a NewImage> for Wanted<'a> {
    fn from(new: &'a NewImage) -> Wanted<'a> {
        Wanted { image: &new.image, uid: new.uid }
    }
}

impl<'a> From<&'a NewClone> for Wanted<'a> {
    fn from(new: &'a NewClone) -> Wanted<'a> {
        Wanted { image: &new.image, uid: new.uid }
    }
}

/// The fake. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct FakeImages {
    state: Arc<Mutex<State>>,
    faults: Faults,
}

impl FakeImages {
    /// A cluster with these pools, all empty, and with a fault plan that counts.
    pub fn new(pools: impl IntoIterator<Item = PoolName>) -> FakeImages {
        let pools = pools.into_iter().map(|pool| (pool, Pool::default())).collect();
        let state = State { pools, ..State::default() };
        FakeImages { state: Arc::new(Mutex::new(state)), faults: Faults::counting() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a snapshot takes, if it is a copy.
    fn copying(&self) -> Duration {
        self.lock().copying
    }

    fn next_id(&self) -> String {
        let mut state = self.lock();
        state.ids += 1;
        format!("fake{:04}", state.ids)
    }

    fn with_pool<T>(&self, pool: &PoolName, look: impl FnOnce(&mut Pool) -> T) -> Option<T> {
        self.lock().pools.get_mut(pool).map(look)
    }

    /// Does something in a pool, as a client that can reach it.
    fn ask<T>(
        &self,
        pool: &PoolName,
        action: &str,
        look: impl FnOnce(&mut Pool) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        self.reach(action)?;
        let help = "tell the fake to have one";
        let missing = || Err(ImageError::NoPool { pool: pool.to_string(), help });
        self.with_pool(pool, look).unwrap_or_else(missing)
    }

    fn reach(&self, action: &str) -> Result<(), ImageError> {
        self.faults.alive("a call")?;
        match self.lock().cluster {
            Cluster::Up => Ok(()),
            Cluster::Down => Err(ImageError::Unreachable {
                store: "the fake cluster".to_owned(),
                action: action.to_owned(),
                source: Box::new(Told),
            }),
        }
    }

    fn make(&self, new: &NewImage, name: &str) -> Result<String, ImageError> {
        let id = self.next_id();
        let draft = FakeImage {
            name: name.to_owned(),
            uid: Some(new.uid),
            size: new.size.bytes(),
            limits: new.limits,
            ..FakeImage::blank(&id)
        };
        self.insert(&new.image, draft)?;
        Ok(id)
    }

    fn insert(&self, image: &ImageName, draft: FakeImage) -> Result<(), ImageError> {
        let action = format!("create image {image}");
        let make = || {
            self.ask(&image.pool, &action, |pool| match pool.is_full {
                true => Err(ImageError::NoSpace { action: action.clone(), source: Box::new(Told) }),
                false => {
                    pool.images.insert(draft.name.clone(), draft);
                    Ok(())
                }
            })
        };
        self.faults.effect("make the draft", make)
    }

    fn fill(&self, new: &NewImage, name: &str) -> Result<(), ImageError> {
        let write = || {
            if let Some(error) = failure(&new.format) {
                return Err(error);
            }
            self.ask(&new.image.pool, "write", |pool| {
                if let Some(draft) = pool.images.get_mut(name) {
                    draft.format = Some(new.format.clone());
                }
                Ok(())
            })
        };
        self.faults.effect("write the draft", write)
    }

    /// The answer to a create where something has the name.
    fn existing(&self, pool: &Pool, new: Wanted<'_>) -> Result<Option<Created>, ImageError> {
        match pool.images.get(&new.image.name) {
            None => Ok(None),
            Some(there) if there.uid == Some(new.uid) => {
                Ok(Some(Created::AlreadyOurs { image_id: there.id.clone() }))
            }
            Some(_) => Err(ImageError::Foreign { image: new.image.clone() }),
        }
    }

    fn rename(&self, new: Wanted<'_>, name: &str, id: &str) -> Result<Created, ImageError> {
        let rename = || {
            self.ask(&new.image.pool, "rename", |pool| {
                if let Some(created) = self.existing(pool, new)? {
                    return Ok(created);
                }
                if let Some(mut draft) = pool.images.remove(name) {
                    draft.name.clone_from(&new.image.name);
                    pool.images.insert(new.image.name.clone(), draft);
                }
                Ok(Created::Created { image_id: id.to_owned() })
            })
        };
        self.faults.effect("rename the draft", rename)
    }

    fn remove(&self, pool: &PoolName, name: &str) -> Result<(), ImageError> {
        let remove = || {
            self.ask(pool, "remove", |pool| {
                pool.images.remove(name);
                Ok(())
            })
        };
        self.faults.effect("remove the draft", remove)
    }

    async fn build(&self, new: &NewImage, name: &str) -> Result<Created, ImageError> {
        let id = self.make(new, name)?;
        // Lets another attempt come in between.
        tokio::task::yield_now().await;
        self.fill(new, name)?;
        tokio::task::yield_now().await;
        self.rename(new.into(), name, &id)
    }
}

fn refuse_if_too_large(image: &ImageName, size: Size) -> Result<(), ImageError> {
    if size.bytes() <= LARGEST {
        return Ok(());
    }
    let reason = format!("the largest image in the fake has {} TiB", LARGEST >> 40);
    Err(ImageError::TooLarge { image: image.clone(), reason })
}

/// The error of a format command that fails.
fn failure(command: &FormatCommand) -> Option<ImageError> {
    let text = command.as_str();
    let (_, after) = text.split_once("exit ")?;
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let status = after[..digits].parse::<i32>().ok().filter(|status| *status != 0)?;
    let said = text.split_once("echo ").and_then(|(_, said)| said.split_once(" >&2"));
    Some(ImageError::Format {
        command: command.for_device("/fake/scratch"),
        status: format!("exit status {status}"),
        stderr: said.map_or("", |(said, _)| said).to_owned(),
    })
}

#[async_trait]
impl ImageDriver for FakeImages {
    async fn create(&self, new: &NewImage) -> Result<Created, ImageError> {
        refuse_if_too_large(&new.image, new.size)?;
        let action = format!("create image {}", new.image);
        let found = self.ask(&new.image.pool, &action, |pool| self.existing(pool, new.into()))?;
        if let Some(created) = found {
            return Ok(created);
        }
        let name = draft::name(new.uid, &new.image.name);
        let (fake, new) = (self.clone(), new.clone());
        // A task of its own, so that it comes to an end when the caller goes away.
        let task = tokio::spawn(async move {
            let built = fake.build(&new, &name).await;
            if !matches!(built, Ok(Created::Created { .. })) {
                // What is left now is unfinished.
                fake.remove(&new.image.pool, &name).ok();
            }
            built
        });
        task.await.map_err(|source| ImageError::Failed { action, source: Box::new(source) })?
    }

    async fn find(&self, image: &ImageName) -> Result<Option<ImageInfo>, ImageError> {
        self.ask(&image.pool, &format!("look at image {image}"), |pool| {
            Ok(pool.images.get(&image.name).map(|found| ImageInfo {
                id: found.id.clone(),
                uid: found.uid,
                size: found.size,
                used: Some(found.format.iter().count() as u64 * 4096),
                watchers: found.watchers.iter().cloned().collect(),
            }))
        })
    }

    async fn discard(
        &self,
        image: &ImageName,
        image_id: Option<&str>,
        uid: Uuid,
    ) -> Result<Discarded, ImageError> {
        let is_it = |found: &FakeImage| match image_id {
            Some(id) => found.id == id,
            None => found.name == image.name && found.uid == Some(uid),
        };
        let action = format!("discard image {image}");
        let trashed = |found: &FakeImage| {
            Discarded::Trashed(TrashedImage {
                pool: image.pool.clone(),
                id: found.id.clone(),
                name: image.name.clone(),
            })
        };
        let settled = self.ask(&image.pool, &action, |pool| {
            let there = pool.images.get(&image.name);
            match (there, pool.trash.values().find(|found| is_it(found))) {
                (Some(found), _) if is_it(found) && found.watchers.is_empty() => Ok(None),
                (Some(found), _) if is_it(found) => {
                    let watchers = found.watchers.iter().cloned().collect();
                    Err(ImageError::InUse { image: image.clone(), watchers })
                }
                (_, Some(found)) => Ok(Some(trashed(found))),
                (None, None) => Ok(Some(Discarded::Absent)),
                (Some(_), None) => Err(ImageError::Foreign { image: image.clone() }),
            }
        })?;
        if let Some(settled) = settled {
            return Ok(settled);
        }
        self.faults.effect("move to the trash", || {
            self.ask(&image.pool, &action, |pool| {
                let Some(found) = pool.images.remove(&image.name) else {
                    return Ok(Discarded::Absent);
                };
                let answer = trashed(&found);
                pool.trash.insert(found.id.clone(), found);
                Ok(answer)
            })
        })
    }

    async fn purge(&self, trashed: &TrashedImage) -> Result<Purged, ImageError> {
        self.refuse_if_cloned(trashed)?;
        self.faults.effect("remove from the trash", || {
            self.ask(&trashed.pool, &format!("purge image {}", trashed.id), |pool| {
                let removed = pool.trash.remove(&trashed.id);
                Ok(removed.map_or(Purged::Absent, |_| Purged::Purged))
            })
        })
    }

    async fn limit(&self, image: &ImageName, limits: &RateLimits) -> Result<(), ImageError> {
        let action = format!("limit image {image}");
        self.faults.effect("set the limits", || {
            self.ask(&image.pool, &action, |pool| match pool.images.get_mut(&image.name) {
                Some(found) => {
                    found.limits = *limits;
                    Ok(())
                }
                None => Err(ImageError::Failed { action: action.clone(), source: Box::new(Told) }),
            })
        })
    }

    fn fences(&self) -> bool {
        true
    }

    async fn lock_owner(&self, image: &ImageName) -> Result<Option<String>, ImageError> {
        let action = format!("look who has locked image {image}");
        self.ask(&image.pool, &action, |pool| {
            Ok(pool.images.get(&image.name).and_then(|found| found.owner.clone()))
        })
    }

    async fn fence(&self, clients: &BTreeSet<String>) -> Result<(), ImageError> {
        self.reach("fence clients")?;
        self.faults.effect("fence the clients", || {
            self.lock().blocklist.extend(clients.iter().cloned());
            Ok(())
        })
    }

    async fn break_lock(
        &self,
        image: &ImageName,
        clients: &BTreeSet<String>,
    ) -> Result<(), ImageError> {
        let action = format!("break the lock of image {image}");
        self.faults.effect("break the lock", || {
            self.ask(&image.pool, &action, |pool| {
                if let Some(found) = pool.images.get_mut(&image.name) {
                    found.owner.take_if(|owner| clients.contains(owner));
                    found.watchers.retain(|watcher| !clients.contains(watcher));
                }
                Ok(())
            })
        })
    }

    async fn unfence(&self, clients: &BTreeSet<String>) -> Result<(), ImageError> {
        self.reach("let clients in again")?;
        self.faults.effect("let clients in again", || {
            self.lock().blocklist.retain(|client| !clients.contains(client));
            Ok(())
        })
    }

    async fn free(&self, image: &ImageName) -> Result<(), ImageError> {
        self.reach(&format!("free image {image}"))?;
        self.faults.effect("free the image", || Ok(()))
    }

    async fn snapshot_create(&self, snapshot: &ImageSnapshot) -> Result<Snapped, ImageError> {
        self.take(snapshot)
    }

    async fn snapshot_create_if(
        &self,
        snapshot: &ImageSnapshot,
        within: Duration,
        confirm: Confirm<'_>,
    ) -> Result<Confirmed, ImageError> {
        let Some(taken) = self.take_hidden(snapshot)? else { return Ok(Confirmed::Existed) };
        let took = self.copying();
        if took > within {
            tokio::time::sleep(within).await;
            return Err(ImageError::Slow { action: format!("take snapshot {snapshot}"), within });
        }
        if !took.is_zero() {
            tokio::time::sleep(took).await;
        }
        match confirm.await {
            Verdict::Keep => self.publish(snapshot, taken),
            Verdict::Discard => Ok(Confirmed::Discarded),
        }
    }

    fn capture(&self) -> Capture {
        if self.copying().is_zero() { Capture::Instant } else { Capture::Copy }
    }

    async fn snapshot_list(
        &self,
        image: &ImageName,
        usage: SnapshotUsage,
    ) -> Result<Vec<SnapshotInfo>, ImageError> {
        self.list(image, usage)
    }

    async fn snapshot_remove(&self, snapshot: &ImageSnapshot) -> Result<Removed, ImageError> {
        self.remove_snapshot(snapshot)
    }

    async fn snapshot_rollback(&self, snapshot: &ImageSnapshot) -> Result<(), ImageError> {
        self.roll_back(snapshot)
    }

    async fn snapshot_clone(&self, new: &NewClone) -> Result<Created, ImageError> {
        refuse_if_too_large(&new.image, new.size)?;
        let action = format!("clone snapshot {} as image {}", new.from, new.image);
        let found = self.ask(&new.image.pool, &action, |pool| self.existing(pool, new.into()))?;
        if let Some(created) = found {
            return Ok(created);
        }
        let name = draft::name(new.uid, &new.image.name);
        let (fake, new) = (self.clone(), new.clone());
        // As in `create`.
        let task = tokio::spawn(async move {
            let built = fake.clone_now(&new, &name).await;
            if !matches!(built, Ok(Created::Created { .. })) {
                fake.remove(&new.image.pool, &name).ok();
            }
            built
        });
        task.await.map_err(|source| ImageError::Failed { action, source: Box::new(source) })?
    }

    async fn flatten(
        &self,
        image: &ImageName,
        progress: &Progress,
    ) -> Result<Flattened, ImageError> {
        self.flatten_now(image, progress)
    }

    async fn fits(&self, image: &ImageName, size: Size) -> Result<(), ImageError> {
        refuse_if_too_large(image, size)
    }

    async fn resize(&self, image: &ImageName, size: Size) -> Result<Resized, ImageError> {
        refuse_if_too_large(image, size)?;
        self.grow(image, size)
    }

    async fn restore(&self, trashed: &TrashedImage, name: &str) -> Result<Restored, ImageError> {
        self.put_back(trashed, name)
    }

    async fn adoptable(&self, image: &ImageName) -> Result<Adoptable, ImageError> {
        self.look_over(image)
    }

    async fn adopt(&self, adoption: &Adoption) -> Result<String, ImageError> {
        self.take_over(adoption)
    }

    async fn give_back(&self, adoption: &Adoption) -> Result<(), ImageError> {
        self.hand_back(adoption)
    }

    async fn stock(&self) -> Result<Stock, ImageError> {
        self.reach("list all images")?;
        let (state, mut stock) = (self.lock(), Stock::default());
        let stocked = |pool: &PoolName, image: &FakeImage| Stocked {
            pool: pool.clone(),
            id: image.id.clone(),
            name: image.name.clone(),
            uid: image.uid,
            size: Some(image.size),
            limits: image.uid.map(|_| image.limits),
        };
        let is_image = |image: &&FakeImage| draft::uid(&image.name).is_none();
        for (pool, content) in &state.pools {
            let (images, trash) = (content.images.values(), content.trash.values());
            stock.images.extend(images.filter(is_image).map(|image| stocked(pool, image)));
            stock.trash.extend(trash.filter(is_image).map(|image| stocked(pool, image)));
            stock.pools.insert(pool.clone());
        }
        Ok(stock)
    }

    async fn inspect(&self, image: &ImageName) -> Result<Option<Inspection>, ImageError> {
        let found = self.ask(&image.pool, &format!("look at image {image}"), |pool| {
            Ok(pool.images.get(&image.name).map(|found| Inspection {
                watchers: found.watchers.iter().cloned().collect(),
                snapshots: found.snapshots.iter().map(|it| it.name.clone()).collect(),
            }))
        });
        match found {
            Err(ImageError::NoPool { .. }) => Ok(None),
            found => found,
        }
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, ImageError> {
        self.reach("list unfinished images")?;
        let state = self.lock();
        let of_pool = |(pool, content): (&PoolName, &Pool)| {
            let pool = pool.clone();
            let unfinished = move |name: &String| {
                let uid = draft::uid(name)?;
                Some(Unfinished { pool: pool.clone(), name: name.clone(), uid })
            };
            content.images.keys().filter_map(unfinished).collect::<Vec<_>>()
        };
        Ok(state.pools.iter().flat_map(of_pool).collect())
    }

    async fn drop_unfinished(&self, unfinished: &Unfinished) -> Result<(), ImageError> {
        draft::check(unfinished)?;
        self.remove(&unfinished.pool, &unfinished.name)
    }

    async fn check(&self) -> Result<String, ImageError> {
        self.reach("look at the cluster")?;
        let pools: Vec<String> = self.lock().pools.keys().map(PoolName::to_string).collect();
        Ok(format!("fake, pools {}", pools.join(", ")))
    }

    fn source(&self, image: &ImageName) -> ImageSource {
        ImageSource::File { path: PathBuf::from(format!("/fake/{image}")) }
    }
}
