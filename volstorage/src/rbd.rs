//! Images in Ceph RBD, through librbd in this process.
//!
//! Every method is one call or a few through the door for blocking calls, over one shared
//! [`Connection`]. An image carries the volume that it was made for in its metadata
//! (`volplugin.uid`), and its limits as the librbd settings of the image, which the servers and rbd-nbd
//! apply live. Called by volmaster. Must not map anything, and must not fence anybody but when it is told to.

pub mod connection;

mod adoption;
mod build;
mod holders;
mod names;
mod removal;
mod snapshots;
mod stock;
mod taking;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::name::PoolName;
use volcore::options::Access;
use volcore::order::Capture;
use volcore::size::Size;
use volcore::volume::ImageName;

use self::build::{Begun, Build};
use self::connection::{CALL, Connection, Session};
use self::removal::{Removal, Target};
use self::snapshots::Snapshots;
use self::taking::Taking;
use crate::blocking::{Blocked, Gate};
use crate::ceph::{Features, Image};
use crate::faults::Faults;
use crate::format::Formatter;
use crate::format::scratch::Scratch;
use crate::image::{
    Adoptable, Adoption, Confirm, Confirmed, Created, Discarded, Flattened, ImageDriver,
    ImageError, ImageInfo, ImageSnapshot, ImageSource, Inspection, NewClone, NewImage, Progress,
    Purged, Removed, Resized, Restored, Snapped, SnapshotInfo, SnapshotUsage, Stock, TrashedImage,
    Unfinished, Verdict,
};

/// The metadata key with the volume's uid.
const UID: &str = "volplugin.uid";

/// The largest image: librbd keeps a map of two bits for each 4 MiB, as one object that is written in one piece
/// and at this size has 8 MiB.
const LARGEST: u64 = 128 << 40;
/// How long freeing an image's space may take before its caller goes on without it.
const PURGE: Duration = Duration::from_secs(600);
/// How many images are purged at a time: each call keeps a thread for as long as it takes.
const PURGES: usize = 16;
/// How long taking or removing a snapshot may take, and growing: librbd waits for the holder of the lock until his watch
/// has timed out, after 30 s. So nobody waits for these who has not asked for one, and they have a gate of their own.
const HOLDER: Duration = Duration::from_secs(45);
/// How many of these go on at a time: 64 that are in flight together take no longer than one does.
const HOLDERS: usize = 128;
/// How long rolling back and flattening may take before their caller goes on without them.
const REWRITE: Duration = Duration::from_secs(24 * 3600);
/// How many images are rewritten at a time.
const REWRITES: usize = 8;
/// How long [`ImageDriver::check`] may take: a little less than the 2 s that volmaster waits for it.
const CHECK: Duration = Duration::from_millis(1800);
/// How many checks of pools go on at a time; one that hangs keeps its thread until the OSD's time is over.
const CHECKS: usize = 16;

/// How long a part of a list of all images may take, the waiting for its turn included.
const STOCK: Duration = Duration::from_secs(60);
/// How many parts of such a list are looked at side by side.
const STOCKS: usize = 16;

/// The image driver for Ceph RBD. Clones share the connection.
#[derive(Clone, Debug)]
pub struct RbdImages {
    connection: Connection,
    taking: Taking,
    purges: Gate,
    holders: Gate,
    rewrites: Gate,
    checks: Gate,
    stocks: Gate,
    formatter: Formatter,
    scratch: Scratch,
    faults: Faults,
}

impl RbdImages {
    /// Images behind this connection, which need not be up; scratch files for formatting are made in
    /// `scratch`.
    ///
    /// # Errors
    /// When the scratch folder cannot be made.
    pub fn new(connection: Connection, scratch: &Path) -> Result<RbdImages, ImageError> {
        let folder = scratch.display();
        let scratch = Scratch::open(scratch).map_err(|error| ImageError::Failed {
            action: format!("use scratch folder {folder}"),
            source: Box::new(error),
        })?;
        Ok(RbdImages {
            taking: Taking::new(connection.clone()),
            connection,
            purges: Gate::new(PURGES),
            holders: Gate::new(HOLDERS),
            rewrites: Gate::new(REWRITES),
            checks: Gate::new(CHECKS),
            stocks: Gate::new(STOCKS),
            formatter: Formatter::new(),
            scratch,
            faults: Faults::default(),
        })
    }

    /// Takes snapshots through another connection, whose user should have no right to blocklist: a holder that does not
    /// answer for 30 s is fenced by one that may, and only the snapshot fails with one that may not. Without this, such a
    /// user is made when the first snapshot is taken, where this connection's user may make one.
    #[must_use]
    pub fn taking_snapshots_through(self, connection: Connection) -> RbdImages {
        RbdImages { taking: self.taking.clone().through(connection), ..self }
    }

    /// With a fault plan, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_faults(self, faults: &Faults) -> RbdImages {
        RbdImages { faults: faults.clone(), ..self }
    }

    async fn create_now(self, new: NewImage) -> Result<Created, ImageError> {
        refuse_if_too_large(&new.image, new.size)?;
        let action = format!("begin image {}", new.image);
        let (faults, wanted) = (self.faults.clone(), new.clone());
        let begin = self.connection.call(&action, CALL, move |session| {
            Build { session, faults: &faults, new: (&wanted).into() }.begin(&build::blank(&wanted))
        });
        let format = self.formatter.format(&self.scratch, &new.format, new.size);
        let (mut begin, mut format) = (std::pin::pin!(begin), std::pin::pin!(format));
        // Cancel safe: what has not ended goes on below, or is given up on purpose. A draft that is
        // made after its call was given up is found as unfinished.
        let (begun, formatted) = tokio::select! {
            begun = &mut begin => match begun? {
                Begun::Exists(created) => return Ok(created),
                Begun::Draft(draft) => (draft, format.await),
            },
            formatted = &mut format => match begin.await? {
                Begun::Exists(created) => return Ok(created),
                Begun::Draft(draft) => (draft, formatted),
            },
        };
        let (action, faults) = (format!("complete image {}", new.image), self.faults.clone());
        let wanted = new.clone();
        let finish = move |session: &Session| {
            Build { session, faults: &faults, new: (&wanted).into() }.finish(begun, formatted)
        };
        self.connection.call(&action, CALL, finish).await
    }

    /// Two seconds are no outage: the call goes on, and finds out whether it is one.
    async fn soon<T>(
        &self,
        action: &str,
        end: Instant,
        call: impl Future<Output = Result<T, ImageError>>,
    ) -> Result<T, ImageError> {
        timeout_at(end, call).await.unwrap_or_else(|_elapsed| {
            let blocked = Blocked::Deadline { action: action.to_owned(), deadline: CHECK };
            Err(self.connection.unreachable(action, Box::new(blocked)))
        })
    }

    /// Whether the OSDs of a pool answer: the monitors do not know of a placement group that hangs.
    async fn reach(self, pool: PoolName, end: Instant) -> Result<(), ImageError> {
        let action = format!("get an answer from the OSDs of pool {pool}");
        let reach = {
            let action = action.clone();
            move |session: &Session| {
                let reached = session.pool(&pool)?.reach();
                reached.map_err(|error| session.failed(&action, error))
            }
        };
        let call = self.connection.call_through(&self.checks, &action, CALL, reach);
        self.soon(&action, end, call).await
    }

    async fn remove<T: Send + 'static>(
        &self,
        action: String,
        work: impl FnOnce(Removal<'_>) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let faults = self.faults.clone();
        let work = move |session: &Session| work(Removal { session, faults: &faults });
        self.connection.call(&action, CALL, work).await
    }

    /// Does something with an image that its holder may have to do, or that takes long.
    async fn change<T: Send + 'static>(
        &self,
        way: Way<'_>,
        action: String,
        work: impl FnOnce(Snapshots<'_>) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let faults = self.faults.clone();
        let work = move |session: &Session| work(Snapshots { session, faults: &faults });
        way.connection.call_through(way.gate, &action, way.deadline, work).await
    }

    /// Does something with an image that the holder of its lock has to do or to allow. Where that is a volmaster that has
    /// died, he is asked no more.
    async fn ask_holder<T: Send + 'static>(
        &self,
        connection: &Connection,
        image: &ImageName,
        action: String,
        work: impl Fn(&Snapshots<'_>) -> Result<T, ImageError> + Clone + Send + 'static,
    ) -> Result<T, ImageError> {
        let way = Way { connection, gate: &self.holders, deadline: HOLDER };
        let again = work.clone();
        let done = self.change(way, action.clone(), move |snapshots| work(&snapshots)).await;
        if !matches!(done, Err(ImageError::Kept { .. } | ImageError::Held { .. })) {
            return done;
        }
        let (about, held) = (format!("free image {image}"), image.clone());
        let free = move |session: &Session| holders::free_of_dead(session, &held);
        match self.connection.call(&about, CALL, free).await {
            Ok(true) => self.change(way, action, move |snapshots| again(&snapshots)).await,
            Ok(false) => done,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%image, error, "whose lock it has is not known");
                done
            }
        }
    }

    fn rewriting(&self) -> Way<'_> {
        Way { connection: &self.connection, gate: &self.rewrites, deadline: REWRITE }
    }
}

/// How a call goes: through which connection and gate, and for how long.
#[derive(Clone, Copy)]
struct Way<'a> {
    connection: &'a Connection,
    gate: &'a Gate,
    deadline: Duration,
}

/// The error for an image that no Ceph cluster can have.
fn refuse_if_too_large(image: &ImageName, size: Size) -> Result<(), ImageError> {
    if size.bytes() <= LARGEST {
        return Ok(());
    }
    Err(ImageError::TooLarge {
        image: image.clone(),
        reason: format!("the largest image in Ceph has {} TiB", LARGEST >> 40),
    })
}

fn features(access: Access) -> Features {
    let least = Features::LAYERING | Features::EXCLUSIVE_LOCK;
    match access {
        // What old kernels can map too.
        Access::Kernel => least,
        Access::Auto | Access::Nbd | Access::Fuse => {
            least | Features::OBJECT_MAP | Features::FAST_DIFF | Features::DEEP_FLATTEN
        }
    }
}

/// What is known of an image that is open.
fn describe(session: &Session, name: &ImageName, image: &Image) -> Result<ImageInfo, ImageError> {
    let failed = |error| session.failed(&format!("look at image {name}"), error);
    let used = if image.features().map_err(failed)?.contains(Features::FAST_DIFF) {
        Some(image.usage().map_err(failed)?.used)
    } else {
        None
    };
    Ok(ImageInfo {
        id: image.id().map_err(failed)?,
        uid: names::uid(image).map_err(failed)?,
        size: image.stat().map_err(failed)?.size,
        used,
        watchers: session.watchers(name, image)?,
    })
}

/// The pools that are for RBD.
fn pools(session: &Session) -> Result<Vec<PoolName>, ImageError> {
    let command = json!({"prefix": "osd pool ls", "detail": "detail", "format": "json"});
    let reply = session.cluster().mon_command(&command);
    let reply = reply.map_err(|error| session.failed("list the pools", error))?;
    rbd_pools(&reply.output).map_err(|error| ImageError::Failed {
        action: "list the pools".to_owned(),
        source: Box::new(error),
    })
}

/// The pools with the application `rbd` in what `osd pool ls detail` prints. One whose name no volume
/// could give is left out.
fn rbd_pools(json: &[u8]) -> Result<Vec<PoolName>, serde_json::Error> {
    let pools: Vec<Value> = serde_json::from_slice(json)?;
    let is_rbd = |pool: &&Value| pool["application_metadata"].get("rbd").is_some();
    let name = |pool: &Value| pool["pool_name"].as_str()?.parse().ok();
    Ok(pools.iter().filter(is_rbd).filter_map(name).collect())
}

#[async_trait]
impl ImageDriver for RbdImages {
    async fn create(&self, new: &NewImage) -> Result<Created, ImageError> {
        let action = format!("create image {}", new.image);
        // A task of its own, so that it comes to an end when the caller goes away.
        let task = tokio::spawn(self.clone().create_now(new.clone()));
        task.await.map_err(|source| ImageError::Failed { action, source: Box::new(source) })?
    }

    async fn find(&self, image: &ImageName) -> Result<Option<ImageInfo>, ImageError> {
        let (action, image) = (format!("look at image {image}"), image.clone());
        let find = move |session: &Session| {
            let open = session.open(&image)?;
            open.map(|open| describe(session, &image, &open)).transpose()
        };
        self.connection.call(&action, CALL, find).await
    }

    async fn discard(
        &self,
        image: &ImageName,
        image_id: Option<&str>,
        uid: Uuid,
    ) -> Result<Discarded, ImageError> {
        let action = format!("move image {image} to the trash");
        let (image, image_id) = (image.clone(), image_id.map(str::to_owned));
        let discard = move |removal: Removal<'_>| {
            removal.discard(&Target { image: &image, id: image_id.as_deref(), uid })
        };
        self.remove(action, discard).await
    }

    async fn purge(&self, trashed: &TrashedImage) -> Result<Purged, ImageError> {
        let action = format!("free the space of image {}/{}", trashed.pool, trashed.name);
        let (trashed, faults) = (trashed.clone(), self.faults.clone());
        let purge = move |session: &Session| Removal { session, faults: &faults }.purge(&trashed);
        self.connection.call_through(&self.purges, &action, PURGE, purge).await
    }

    async fn limit(&self, image: &ImageName, limits: &RateLimits) -> Result<(), ImageError> {
        let action = format!("limit image {image}");
        let (image, limits, faults) = (image.clone(), *limits, self.faults.clone());
        let limit = move |session: &Session| {
            let action = format!("set the limits of image {image}");
            let failed = |error| session.failed(&action, error);
            let pool = session.pool(&image.pool)?;
            let limit = || build::limit(&pool, &image.name, &limits).map_err(failed);
            faults.effect("set the limits", limit)
        };
        self.connection.call(&action, CALL, limit).await
    }

    fn fences(&self) -> bool {
        true
    }

    async fn lock_owner(&self, image: &ImageName) -> Result<Option<String>, ImageError> {
        let (action, image) = (format!("look who has locked image {image}"), image.clone());
        let look = move |session: &Session| holders::lock_owner(session, &image);
        self.connection.call(&action, CALL, look).await
    }

    async fn fence(&self, clients: &BTreeSet<String>) -> Result<(), ImageError> {
        let (clients, faults) = (clients.clone(), self.faults.clone());
        let fence = move |session: &Session| {
            faults.effect("fence the clients", || holders::fence(session, &clients))
        };
        self.connection.call("fence clients", CALL, fence).await
    }

    async fn break_lock(
        &self,
        image: &ImageName,
        clients: &BTreeSet<String>,
    ) -> Result<(), ImageError> {
        let action = format!("break the lock of image {image}");
        let (image, clients, faults) = (image.clone(), clients.clone(), self.faults.clone());
        let unlock = move |session: &Session| {
            faults.effect("break the lock", || holders::break_lock(session, &image, &clients))
        };
        self.connection.call(&action, CALL, unlock).await
    }

    async fn unfence(&self, clients: &BTreeSet<String>) -> Result<(), ImageError> {
        let (clients, faults) = (clients.clone(), self.faults.clone());
        let unfence = move |session: &Session| {
            faults.effect("let clients in again", || holders::unfence(session, &clients))
        };
        self.connection.call("let clients in again", CALL, unfence).await
    }

    async fn free(&self, image: &ImageName) -> Result<(), ImageError> {
        let (action, image) = (format!("free image {image}"), image.clone());
        let free = move |session: &Session| holders::free_of_dead(session, &image).map(drop);
        self.connection.call(&action, CALL, free).await
    }

    async fn snapshot_create(&self, snapshot: &ImageSnapshot) -> Result<Snapped, ImageError> {
        let (action, at) = (format!("take snapshot {snapshot}"), snapshot.clone());
        let connection = self.taking.connection().await?;
        let create =
            move |snapshots: &Snapshots<'_>| snapshots.alone(&at.image, || snapshots.create(&at));
        self.ask_holder(connection, &snapshot.image, action, create).await
    }

    async fn snapshot_create_if(
        &self,
        snapshot: &ImageSnapshot,
        _within: Duration,
        confirm: Confirm<'_>,
    ) -> Result<Confirmed, ImageError> {
        let (action, at) = (format!("take snapshot {snapshot}"), snapshot.clone());
        let connection = self.taking.connection().await?;
        let create = move |snapshots: &Snapshots<'_>| {
            snapshots.alone(&at.image, || snapshots.create_hidden(&at))
        };
        let created = self.ask_holder(connection, &snapshot.image, action.clone(), create).await?;
        let Some(hidden) = created else { return Ok(Confirmed::Existed) };
        let (verdict, at) = (confirm.await, snapshot.clone());
        let finish = move |snapshots: &Snapshots<'_>| match verdict {
            Verdict::Keep => Ok(match snapshots.publish(&at, &hidden)? {
                Snapped::Created => Confirmed::Created,
                Snapped::Existed => Confirmed::Existed,
            }),
            Verdict::Discard => {
                snapshots.drop_hidden(&at, &hidden);
                Ok(Confirmed::Discarded)
            }
        };
        self.ask_holder(connection, &snapshot.image, action, finish).await
    }

    fn capture(&self) -> Capture {
        Capture::Instant
    }

    async fn snapshot_list(
        &self,
        image: &ImageName,
        usage: SnapshotUsage,
    ) -> Result<Vec<SnapshotInfo>, ImageError> {
        let (action, image) = (format!("list the snapshots of image {image}"), image.clone());
        let faults = self.faults.clone();
        let list =
            move |session: &Session| Snapshots { session, faults: &faults }.list(&image, usage);
        self.connection.call(&action, CALL, list).await
    }

    async fn snapshot_remove(&self, snapshot: &ImageSnapshot) -> Result<Removed, ImageError> {
        let (action, at) = (format!("remove snapshot {snapshot}"), snapshot.clone());
        let connection = self.taking.connection().await?;
        let remove = move |snapshots: &Snapshots<'_>| snapshots.remove(&at);
        self.ask_holder(connection, &snapshot.image, action, remove).await
    }

    async fn snapshot_rollback(&self, snapshot: &ImageSnapshot) -> Result<(), ImageError> {
        let (action, at) = (format!("roll back to snapshot {snapshot}"), snapshot.clone());
        self.change(self.rewriting(), action, move |snapshots| snapshots.roll_back(&at)).await
    }

    async fn snapshot_clone(&self, new: &NewClone) -> Result<Created, ImageError> {
        refuse_if_too_large(&new.image, new.size)?;
        let action = format!("clone snapshot {} as image {}", new.from, new.image);
        let (new, faults) = (new.clone(), self.faults.clone());
        let clone = move |session: &Session| Snapshots { session, faults: &faults }.clone(&new);
        self.connection.call(&action, CALL, clone).await
    }

    async fn flatten(
        &self,
        image: &ImageName,
        progress: &Progress,
    ) -> Result<Flattened, ImageError> {
        let (action, image) = (format!("flatten image {image}"), image.clone());
        let progress = progress.clone();
        let flatten = move |snapshots: Snapshots<'_>| snapshots.flatten(&image, &progress);
        self.change(self.rewriting(), action, flatten).await
    }

    async fn fits(&self, image: &ImageName, size: Size) -> Result<(), ImageError> {
        refuse_if_too_large(image, size)
    }

    async fn resize(&self, image: &ImageName, size: Size) -> Result<Resized, ImageError> {
        refuse_if_too_large(image, size)?;
        let (action, image) = (format!("resize image {image}"), image.clone());
        let (connection, at) = (&self.connection, image.clone());
        let resize = move |snapshots: &Snapshots<'_>| snapshots.resize(&at, size);
        self.ask_holder(connection, &image, action, resize).await
    }

    async fn restore(&self, trashed: &TrashedImage, name: &str) -> Result<Restored, ImageError> {
        let action = format!("restore image {}/{} as {name}", trashed.pool, trashed.name);
        let (trashed, name) = (trashed.clone(), name.to_owned());
        self.remove(action, move |removal| removal.restore(&trashed, &name)).await
    }

    async fn adoptable(&self, image: &ImageName) -> Result<Adoptable, ImageError> {
        let (action, image) = (format!("look at image {image}"), image.clone());
        self.remove(action, move |removal| removal.adoptable(&image)).await
    }

    async fn adopt(&self, adoption: &Adoption) -> Result<String, ImageError> {
        let (action, adoption) = (format!("adopt image {}", adoption.image), adoption.clone());
        self.remove(action, move |removal| removal.adopt(&adoption)).await
    }

    async fn give_back(&self, adoption: &Adoption) -> Result<(), ImageError> {
        let (action, adoption) = (format!("give image {} back", adoption.image), adoption.clone());
        self.remove(action, move |removal| removal.give_back(&adoption)).await
    }

    async fn stock(&self) -> Result<Stock, ImageError> {
        self.stock_now().await
    }

    async fn inspect(&self, image: &ImageName) -> Result<Option<Inspection>, ImageError> {
        self.inspect_now(image).await
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, ImageError> {
        let list = |removal: Removal<'_>| {
            let mut all = pools(removal.session)?;
            // A pool that nobody has declared to be for RBD holds images all the same.
            all.extend(removal.session.used_pools());
            all.sort();
            all.dedup();
            removal.unfinished(&all)
        };
        self.remove("list unfinished images".to_owned(), list).await
    }

    async fn drop_unfinished(&self, unfinished: &Unfinished) -> Result<(), ImageError> {
        let action = format!("remove unfinished image {}/{}", unfinished.pool, unfinished.name);
        let unfinished = unfinished.clone();
        self.remove(action, move |removal| removal.drop_unfinished(&unfinished)).await
    }

    async fn check(&self) -> Result<String, ImageError> {
        let end = Instant::now() + CHECK;
        let look = |session: &Session| {
            let pools = pools(session)?;
            let fsid = session.cluster().fsid();
            let fsid = fsid.map_err(|error| session.failed("read the cluster's id", error))?;
            let used = session.used_pools();
            Ok((fsid, if used.is_empty() { pools.clone() } else { used }, pools))
        };
        let action = "look at the cluster";
        let look = self.connection.call_through(&self.checks, action, CALL, look);
        let (fsid, used, pools) = self.soon(action, end, look).await?;
        // Side by side: each may take all the time that is left.
        let tasks: Vec<_> =
            used.into_iter().map(|pool| tokio::spawn(self.clone().reach(pool, end))).collect();
        for task in tasks {
            task.await.map_err(|source| ImageError::Failed {
                action: "look at the pools".to_owned(),
                source: Box::new(source),
            })??;
        }
        let names: Vec<&str> = pools.iter().map(PoolName::as_str).collect();
        Ok(format!("ceph {fsid}, pools {}", names.join(", ")))
    }

    fn source(&self, image: &ImageName) -> ImageSource {
        ImageSource::Rbd { pool: image.pool.to_string(), image: image.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_for_rbd_are_found() {
        // Cut down from what Ceph 16.2 printed.
        let json = br#"[
            {"pool_id": 1, "pool_name": "rbd", "application_metadata": {"rbd": {}}},
            {"pool_id": 2, "pool_name": "device_health_metrics", "application_metadata": {"mgr_devicehealth": {}}},
            {"pool_id": 3, "pool_name": "new", "application_metadata": {}},
            {"pool_id": 4, "pool_name": "with space", "application_metadata": {"rbd": {}}},
            {"pool_id": 5, "pool_name": "ssd.2", "application_metadata": {"rbd": {}}}
        ]"#;
        let pools = rbd_pools(json).unwrap();
        assert_eq!(pools.iter().map(PoolName::as_str).collect::<Vec<_>>(), ["rbd", "ssd.2"]);
        assert!(rbd_pools(b"").is_err());
    }
}
