//! Snapshots of an image whose holder stands still: librbd asks the holder of the exclusive lock to take them.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use volcore::Kind;
use volcore::volume::ImageName;
use volstorage::ceph::ConnectOptions;
use volstorage::image::{ImageDriver, ImageError, Snapped, SnapshotUsage};
use volstorage::rbd::connection::{Connection, TIMEOUTS};

use super::ceph_support::{CEPH, command, wait_for};
use super::rbd::harness;
use super::snapshots::{at, made};

/// A process that writes on an image all the time.
struct Holder(Child);

impl Holder {
    fn start(image: &ImageName) -> Holder {
        let mut bench = command(Path::new("rbd"));
        let bench = bench.arg("-c").arg(&CEPH.conf).args(["bench", "--io-type", "write"]);
        let bench = bench.args(["--io-total", "1T", "--io-threads", "1", &image.to_string()]);
        let child = bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let holder = Holder(child);
        wait_for("the holder to have the lock", || {
            let pool =
                CEPH.cluster().pool(image.pool.as_str()).map_err(|error| error.to_string())?;
            let open = pool.open_image(&image.name).map_err(|error| error.to_string())?;
            match open.lock_owners() {
                Ok(owners) if owners.len() == 1 => Ok(()),
                owners => Err(format!("{owners:?}")),
            }
        });
        holder
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn blocklist() -> Vec<serde_json::Value> {
    let dump = CEPH.ask(&json!({"prefix": "osd dump", "format": "json"}));
    dump["blocklist"].as_object().unwrap().keys().map(|key| json!(key)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_holder_delays_only_its_own_snapshot() {
    let h = harness().await;
    // A user that may not blocklist, as hosts have it.
    let options = ConnectOptions {
        key: None,
        conf: CEPH.conf.clone(),
        user: "volplugin".to_owned(),
        timeouts: TIMEOUTS,
    };
    let driver = h.images().clone().taking_snapshots_through(Connection::new(options));
    let (held, free) = (made(&h, "held").await, made(&h, "free").await);
    let (alive, frozen) = (at(&held.image, "alive"), at(&held.image, "frozen"));
    let holder = Holder::start(&held.image);
    assert_eq!(driver.snapshot_create(&alive).await.unwrap(), Snapped::Created);
    let fenced = blocklist();
    holder.signal(Signal::SIGSTOP);
    let begin = Instant::now();
    let late = tokio::spawn({
        let (driver, frozen) = (driver.clone(), frozen.clone());
        async move { driver.snapshot_create(&frozen).await }
    });
    for name in ["one", "two"] {
        let taken = driver.snapshot_create(&at(&free.image, name)).await.unwrap();
        assert_eq!(taken, Snapped::Created);
    }
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let error = late.await.unwrap().unwrap_err();
    assert!(matches!(&error, ImageError::Held { image, .. } if *image == held.image), "{error:?}");
    assert_eq!(error.kind(), Kind::Busy);
    assert!(begin.elapsed() < Duration::from_secs(45), "{:?}", begin.elapsed());
    // Nothing else is the worse for it.
    driver.check().await.unwrap();
    assert_eq!(blocklist(), fenced);
    holder.signal(Signal::SIGCONT);
    // It may appear by itself, and is the same one then.
    driver.snapshot_create(&frozen).await.unwrap();
    let found = driver.snapshot_list(&held.image, SnapshotUsage::Skip).await.unwrap();
    let names: Vec<&str> = found.iter().map(|snapshot| snapshot.name.as_str()).collect();
    assert_eq!(names, ["alive", "frozen"]);
    drop(holder);
    tokio::task::spawn_blocking(move || drop((driver, h))).await.unwrap();
}

/// Who is killed while he takes a snapshot leaves the lock. It is broken where it is the control plane's, and nobody
/// else's.
#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_volmaster_that_has_died_is_broken() {
    let h = harness().await;
    let driver = h.images().clone();
    let (ours, theirs) = (made(&h, "ours").await, made(&h, "theirs").await);
    let pool = CEPH.cluster().pool(ours.image.pool.as_str()).unwrap();
    let owner = |image: &ImageName| {
        let id = pool.linked_id(&image.name).unwrap().unwrap();
        pool.locker(&id).unwrap().map(|locker| locker.address)
    };
    assert_eq!(owner(&ours.image), None);
    let holders = [&ours, &theirs].map(|new| Holder::start(&new.image));
    pool.add_control(&owner(&ours.image).unwrap()).unwrap();
    // One that lives is asked, whoever he is.
    driver.free(&ours.image).await.unwrap();
    assert!(owner(&ours.image).is_some());
    assert_eq!(driver.snapshot_create(&at(&ours.image, "one")).await.unwrap(), Snapped::Created);
    drop(holders);
    assert_eq!(driver.snapshot_create(&at(&ours.image, "two")).await.unwrap(), Snapped::Created);
    assert_eq!(owner(&ours.image), None);
    for _ in 0..2 {
        driver.free(&theirs.image).await.unwrap();
    }
    assert!(owner(&theirs.image).is_some(), "a host's lock is for an operator to break");
    let clients = driver.lock_owner(&theirs.image).await.unwrap().into_iter().collect();
    driver.fence(&clients).await.unwrap();
    driver.break_lock(&theirs.image, &clients).await.unwrap();
    assert_eq!(owner(&theirs.image), None);
    tokio::task::spawn_blocking(move || drop((driver, h, pool))).await.unwrap();
}

/// Many who change one image at once, of several volmasters: none asks another to do it.
#[tokio::test(flavor = "multi_thread")]
async fn many_change_an_image_at_once() {
    let h = harness().await;
    let new = made(&h, "many").await;
    let options = || ConnectOptions {
        key: None,
        conf: CEPH.conf.clone(),
        user: "admin".to_owned(),
        timeouts: TIMEOUTS,
    };
    let drivers =
        [0; 3].map(|_| h.images().clone().taking_snapshots_through(Connection::new(options())));
    let takes = (0..24_usize).map(|number| {
        let (driver, at) =
            (drivers[number % 3].clone(), at(&new.image, &format!("s{}", number / 6)));
        tokio::spawn(async move { driver.snapshot_create(&at).await })
    });
    for taken in takes.collect::<Vec<_>>() {
        taken.await.unwrap().unwrap();
    }
    let found = drivers[0].snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap();
    assert_eq!(found.len(), 4, "{found:?}");
    tokio::task::spawn_blocking(move || drop((drivers, h))).await.unwrap();
}
