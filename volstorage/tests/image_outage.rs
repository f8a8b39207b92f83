//! What the `rbd` driver says while Ceph is away, how long that takes, and that it is back by itself.
//!
//! One test, step by step: the cluster is its own, and an outage is everybody's.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use more of it")]
mod ceph_support;

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use ceph_support::{CEPH, command, script, wait_for};
use serde_json::json;
use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::options::Access;
use volcore::size::Size;
use volcore::volume::ImageName;
use volstorage::ceph::{ConnectOptions, Timeouts};
use volstorage::image::{Created, ImageDriver, ImageError, NewImage};
use volstorage::rbd::RbdImages;
use volstorage::rbd::connection::{CALL, Connection, PATIENCE, TIMEOUTS};

/// Shorter than in production, so that the test is.
const SHORT: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    monitor: Duration::from_secs(2),
    osd: Duration::from_secs(2),
};

/// What a loaded machine adds to a bound.
const SLACK: Duration = Duration::from_secs(10);

fn images(conf: &Path, timeouts: Timeouts, scratch: &Path) -> RbdImages {
    let options =
        ConnectOptions { key: None, conf: conf.to_owned(), user: "admin".to_owned(), timeouts };
    RbdImages::new(Connection::new(options), scratch).unwrap()
}

fn new_image(name: &str) -> NewImage {
    NewImage {
        image: ImageName { pool: "rbd".parse().unwrap(), name: format!("t.{name}") },
        uid: Uuid::new_v4(),
        size: Size::from_bytes(64 << 20).unwrap(),
        format: "mkfs.ext4 -q %".parse().unwrap(),
        access: Access::Auto,
        limits: RateLimits::default(),
    }
}

/// Runs `scripts/ceph` on the cluster of this test.
fn ceph(verb: &str, daemon: &str) {
    let folder = CEPH.conf.parent().unwrap();
    let done = command(&script()).arg(verb).arg(folder).arg(daemon).output().unwrap();
    assert!(done.status.success(), "{verb} {daemon}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The call fails as unreachable, in time; its error with causes.
async fn unreachable<T: std::fmt::Debug>(
    bound: Duration,
    call: impl Future<Output = Result<T, ImageError>>,
) -> String {
    let begin = Instant::now();
    let error = call.await.unwrap_err();
    let took = begin.elapsed();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error:?}");
    assert!(took < bound, "{took:?}: {error:?}");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Waits until a call succeeds again after the end of an outage.
async fn recovered(images: &RbdImages) {
    let begin = Instant::now();
    while let Err(error) = images.check().await {
        assert!(begin.elapsed() < Duration::from_secs(60), "{error:?}");
    }
    let image = ImageName { pool: "rbd".parse().unwrap(), name: "t.v".to_owned() };
    while let Err(error) = images.find(&image).await {
        assert!(begin.elapsed() < Duration::from_secs(60), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outages() {
    let scratch = tempfile::tempdir().unwrap();
    never_there(scratch.path()).await;
    let images = images(&CEPH.conf, SHORT, scratch.path());
    let new = new_image("v");
    images.create(&new).await.unwrap();
    denied(&images, &new, scratch.path()).await;
    osd_hangs(&images, &new).await;
    monitor_hangs(&images, &new).await;
    fenced(&images, &new).await;
    killed_client(&images).await;
}

/// Nothing is there at the start: the first call waits for it, later ones do not.
async fn never_there(scratch: &Path) {
    // Nobody accepts what arrives here.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let conf = scratch.join("ceph.conf");
    std::fs::write(
        &conf,
        format!("[global]\nmon host = [v1:127.0.0.1:{port}]\nauth client required = none\n"),
    )
    .unwrap();
    let images = images(&conf, SHORT, scratch);
    let new = new_image("nowhere");
    let text = unreachable(SHORT.connect + SLACK, images.create(&new)).await;
    assert!(
        text.starts_with(&format!("ceph ({}) cannot be reached while trying to", conf.display())),
        "{text}"
    );
    assert!(text.contains("no answer from the cluster in time"), "{text}");
    let begin = Instant::now();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (images, image) = (images.clone(), new.image.clone());
            tokio::spawn(async move { unreachable(PATIENCE + SLACK, images.find(&image)).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert!(begin.elapsed() < PATIENCE + SLACK, "fifty calls wait side by side");
    unreachable(Duration::from_secs(2) + SLACK, images.check()).await;
    // A configuration that is missing is known at once.
    let images = self::images(Path::new("/nonexistent/ceph.conf"), TIMEOUTS, scratch);
    let text = unreachable(SLACK, images.find(&new.image)).await;
    assert!(text.contains("/nonexistent/ceph.conf"), "{text}");
}

/// What a user may not do is said with its name, and so is a key that is not the cluster's.
async fn denied(images: &RbdImages, new: &NewImage, scratch: &Path) {
    let folder = CEPH.conf.parent().unwrap();
    let caps = ["mon", "allow r", "osd", "profile rbd-read-only"];
    let key = CEPH.ask(&json!({
        "prefix": "auth get-or-create", "entity": "client.reader", "caps": caps, "format": "json"
    }));
    let conf = std::fs::read_to_string(&CEPH.conf).unwrap();
    let user = |name: &str, key: &str| {
        let keyring = folder.join(format!("{name}.keyring"));
        std::fs::write(&keyring, format!("[client.{name}]\nkey = {key}\n")).unwrap();
        let path = folder.join(format!("{name}.conf"));
        let section = format!("[client.{name}]\nkeyring = {}\n", keyring.display());
        std::fs::write(&path, format!("{conf}\n{section}")).unwrap();
        let options =
            ConnectOptions { key: None, conf: path, user: name.to_owned(), timeouts: SHORT };
        RbdImages::new(Connection::new(options), scratch).unwrap()
    };
    let reader = user("reader", key[0]["key"].as_str().unwrap());
    assert!(reader.find(&new.image).await.unwrap().is_some());
    let error = reader.create(&new_image("denied")).await.unwrap_err();
    let ImageError::Denied { user: name, .. } = &error else { panic!("{error:?}") };
    assert_eq!(name, "client.reader");
    let text = error.to_string();
    assert!(text.contains("capabilities of Ceph user client.reader do not allow it"), "{text}");
    let stranger = user("stranger", "AQCkbFVlwpZ7GxAAlGxZ3QzvyOhSUGiGOlJBRw==");
    let text = unreachable(SHORT.connect + SLACK, stranger.find(&new.image)).await;
    assert!(text.contains("Ceph user client.stranger cannot log in"), "{text}");
    assert!(images.find(&new.image).await.unwrap().is_some());
    tokio::task::spawn_blocking(move || drop((reader, stranger))).await.unwrap();
}

async fn osd_hangs(images: &RbdImages, new: &NewImage) {
    let description = images.check().await.unwrap();
    assert!(description.contains("pools rbd"), "{description}");
    ceph("stop", "osd");
    // The monitors answer; they learn of it later, if at all.
    let text = unreachable(Duration::from_secs(2) + SLACK, images.check()).await;
    assert!(text.contains("get an answer from the OSDs of pool rbd"), "{text}");
    unreachable(CALL, images.find(&new.image)).await;
    for _ in 0..3 {
        unreachable(PATIENCE + SLACK, images.find(&new.image)).await;
        unreachable(PATIENCE + SLACK, images.create(&new_image("w"))).await;
        let text = unreachable(PATIENCE + SLACK, images.check()).await;
        // Whichever of the three got no answer first.
        let earlier = text.contains("rbd/t.v") || text.contains("rbd/t.w");
        assert!(text.contains("OSDs of pool rbd") || earlier, "{text}");
    }
    ceph("cont", "osd");
    recovered(images).await;
    assert!(images.find(&new.image).await.unwrap().is_some());
    let created = images.create(&new_image("w")).await.unwrap();
    assert!(matches!(created, Created::Created { .. }));
}

async fn monitor_hangs(images: &RbdImages, new: &NewImage) {
    ceph("stop", "mon");
    // What needs no monitor goes on.
    assert!(images.find(&new.image).await.unwrap().is_some());
    unreachable(Duration::from_secs(2) + SLACK, images.check()).await;
    // Whether it is absent or its pool is, only a monitor knows.
    let absent = ImageName { name: "t.absent".to_owned(), ..new.image.clone() };
    unreachable(CALL, images.find(&absent)).await;
    ceph("cont", "mon");
    recovered(images).await;
    assert_eq!(images.find(&absent).await.unwrap(), None);
}

/// A client that was fenced is of no more use; the next call has a new one.
async fn fenced(images: &RbdImages, new: &NewImage) {
    // The watcher of a draft in the making is this process.
    let mut slow = new_image("fenced");
    let scratch = tempfile::tempdir().unwrap();
    let go = scratch.path().join("go");
    slow.format =
        format!("until [ -e {} ]; do :; done; mkfs.ext4 -q %", go.display()).parse().unwrap();
    let create = tokio::spawn({
        let (images, slow) = (images.clone(), slow.clone());
        async move { images.create(&slow).await }
    });
    let address = wait_for("the draft to be watched", || {
        let pool = CEPH.pool();
        let list = pool.list().map_err(|error| error.to_string())?;
        let draft = list.iter().find(|entry| entry.name.contains(&slow.uid.to_string()));
        let draft = draft.ok_or("no draft")?;
        let image = pool.open_image_read_only(&draft.name).map_err(|error| error.to_string())?;
        let watchers = image.watchers().map_err(|error| error.to_string())?;
        watchers.first().map(|watcher| watcher.address.clone()).ok_or("no watcher".to_owned())
    });
    let fence = json!({
        "prefix": "osd blocklist", "blocklistop": "add", "addr": address, "expire": 3600.0
    });
    CEPH.connect(TIMEOUTS).mon_command(&fence).unwrap();
    std::fs::write(&go, "").unwrap();
    let error = create.await.unwrap().unwrap_err();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error:?}");
    recovered(images).await;
    assert!(images.find(&new.image).await.unwrap().is_some());
    assert!(matches!(images.create(&slow).await.unwrap(), Created::Created { .. }));
}

/// A host that died is seen as a user until its watch ends, and no longer.
async fn killed_client(images: &RbdImages) {
    let new = new_image("held");
    images.create(&new).await.unwrap();
    let conf = CEPH.conf.to_str().unwrap();
    let program = volstorage::process::Program::find("rbd", "ceph-common");
    let bench = volstorage::process::Run::new(&program, Duration::from_secs(600));
    let bench = bench.args(["-c", conf, "bench", "--io-type", "write", "--io-total", "1T"]);
    let client = tokio::spawn(bench.arg(new.image.to_string()).output());
    let watchers = async || images.find(&new.image).await.unwrap().unwrap().watchers;
    while watchers().await.is_empty() {
        tokio::task::yield_now().await;
    }
    client.abort();
    client.await.unwrap_err();
    let begin = Instant::now();
    let discard = async || images.discard(&new.image, None, new.uid).await;
    let error = discard().await.unwrap_err();
    assert!(
        matches!(&error, ImageError::InUse { watchers, .. } if watchers.len() == 1),
        "{error:?}"
    );
    while let Err(error) = discard().await {
        assert!(matches!(error, ImageError::InUse { .. }), "{error:?}");
        assert!(begin.elapsed() < Duration::from_secs(90), "a watch ends after 30 s: {error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
