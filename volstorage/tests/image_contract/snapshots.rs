//! What holds for the snapshots and clones of every driver, and for the way back from the trash.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use volcore::Kind;
use volcore::limit::RateLimits;
use volcore::options::Access;
use volcore::volume::ImageName;
use volstorage::image::{
    Confirmed, Created, Discarded, Flattened, ImageDriver, ImageError, ImageSnapshot, NewClone,
    NewImage, Progress, Purged, Removed, Resized, Restored, Snapped, SnapshotUsage, TrashedImage,
    Verdict,
};

use super::harness::{Harness, mib, new_image};
use super::suite::{assert_nothing, id, unfinished};

/// Makes these tests those of a module that has a `async fn harness() -> impl Harness`.
#[macro_export]
macro_rules! snapshot_contract {
    ($($test:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                $crate::snapshots::$test(&harness().await).await;
            }
        )+
    };
    () => {
        $crate::snapshot_contract!(
            a_snapshot_is_what_was_there,
            snapshots_are_listed,
            concurrent_snapshots_are_one,
            what_is_not_confirmed_is_not_there,
            snapshots_go_one_by_one,
            rollback_is_refused_while_somebody_has_it_open,
            an_image_in_use_is_snapshotted_and_grows,
            clones_are_images_of_their_own,
            flattened_clones_keep_their_snapshots,
            concurrent_clones_are_one,
            a_parent_goes_when_its_clones_need_it_no_more,
            images_grow_and_never_shrink,
            the_trash_gives_back,
            what_is_not_there_is_named,
        );
    };
}

/// A small image that is made now, with something written on it.
pub async fn made(h: &dyn Harness, name: &str) -> NewImage {
    let new = NewImage { size: mib(8), ..new_image(h.pool(), name) };
    h.driver().create(&new).await.unwrap();
    h.write(&new.image, 5 << 20, b"first").await;
    new
}

pub fn at(image: &ImageName, snapshot: &str) -> ImageSnapshot {
    ImageSnapshot { image: image.clone(), snapshot: snapshot.parse().unwrap() }
}

/// A clone of a small image.
pub fn new_clone(from: ImageSnapshot, name: &str) -> NewClone {
    let NewImage { image, uid, access, limits, .. } = new_image(from.image.pool.clone(), name);
    NewClone { from, image, uid, size: mib(8), access, limits }
}

/// As an image that was made, for what looks at those.
pub fn as_image(clone: &NewClone) -> NewImage {
    let NewClone { image, uid, size, .. } = clone.clone();
    NewImage { image, uid, size, ..new_image(clone.image.pool.clone(), "") }
}

/// Compared without printing megabytes.
#[track_caller]
pub fn assert_same(left: &[u8], right: &[u8], what: &str) {
    assert!(left == right, "{what}: {} and {} bytes differ", left.len(), right.len());
}

pub async fn trash(driver: &dyn ImageDriver, new: &NewImage) -> TrashedImage {
    match driver.discard(&new.image, None, new.uid).await.unwrap() {
        Discarded::Trashed(trashed) => trashed,
        Discarded::Absent => panic!("{} is not there", new.image),
    }
}

pub async fn a_snapshot_is_what_was_there(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "past").await);
    let (one, two) = (at(&new.image, "one"), at(&new.image, "two"));
    let first = h.content(&new.image).await;
    for expected in [Snapped::Created, Snapped::Existed] {
        assert_eq!(driver.snapshot_create(&one).await.unwrap(), expected);
    }
    h.write(&new.image, 0, &[7; 100_000]).await;
    h.write(&new.image, 5 << 20, b"second").await;
    let second = h.content(&new.image).await;
    assert!(first != second);
    assert_eq!(driver.snapshot_create(&one).await.unwrap(), Snapped::Existed);
    assert_same(&h.snapshot_content(&one).await, &first, "after writes");
    driver.snapshot_create(&two).await.unwrap();
    h.write(&new.image, 1 << 20, b"third").await;

    let clone = new_clone(one.clone(), "then");
    driver.snapshot_clone(&clone).await.unwrap();
    assert_same(&h.content(&clone.image).await, &first, "a clone");
    h.write(&clone.image, 0, b"the clone's own").await;
    assert_same(&h.snapshot_content(&one).await, &first, "after writes on a clone");

    for _ in 0..2 {
        driver.snapshot_rollback(&one).await.unwrap();
        assert_same(&h.content(&new.image).await, &first, "rolled back");
    }
    assert_same(&h.snapshot_content(&one).await, &first, "after a rollback");
    assert_same(&h.snapshot_content(&two).await, &second, "after a rollback to one before");
    driver.snapshot_rollback(&two).await.unwrap();
    assert_same(&h.content(&new.image).await, &second, "and forth");

    let trashed = trash(&*driver, &new).await;
    driver.restore(&trashed, &new.image.name).await.unwrap();
    assert_same(&h.content(&new.image).await, &second, "out of the trash");
    assert_same(&h.snapshot_content(&one).await, &first, "out of the trash");
    assert_same(&h.snapshot_content(&two).await, &second, "out of the trash");
    let found = driver.find(&new.image).await.unwrap().expect("the image");
    assert_eq!((found.uid, found.size), (Some(new.uid), 8 << 20));
    assert_eq!(unfinished(&*driver, &new).await, []);
}

/// What is taken has no name before it was confirmed, and nothing of what is written meanwhile.
pub async fn what_is_not_confirmed_is_not_there(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "confirmed").await);
    let listed = async || driver.snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap();
    let asked = AtomicUsize::new(0);
    let take = async |name: &str, verdict| {
        let confirm = async {
            let seen = driver.snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap();
            assert!(seen.is_empty(), "it was not confirmed: {seen:?}");
            asked.fetch_add(1, Ordering::Relaxed);
            h.write(&new.image, 0, format!("while {name}").as_bytes()).await;
            verdict
        };
        let within = Duration::from_secs(60);
        driver.snapshot_create_if(&at(&new.image, name), within, Box::pin(confirm)).await.unwrap()
    };
    assert_eq!(take("one", Verdict::Discard).await, Confirmed::Discarded);
    assert_eq!(listed().await, []);
    let content = h.content(&new.image).await;
    assert_eq!(take("one", Verdict::Keep).await, Confirmed::Created);
    assert_same(&h.snapshot_content(&at(&new.image, "one")).await, &content, "confirmed");
    assert_eq!(take("one", Verdict::Keep).await, Confirmed::Existed);
    assert_eq!(listed().await.len(), 1);
    assert_eq!(asked.into_inner(), 2, "what is there is not confirmed");
    let none = at(&ImageName { name: "t.none".to_owned(), ..new.image.clone() }, "one");
    let confirm = Box::pin(async { panic!("there is nothing to confirm") });
    let error = driver.snapshot_create_if(&none, Duration::from_secs(60), confirm).await;
    assert!(matches!(error, Err(ImageError::NoImage { .. })), "{error:?}");
}

pub async fn snapshots_are_listed(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "listed").await);
    for usage in [SnapshotUsage::Skip, SnapshotUsage::Count] {
        assert_eq!(driver.snapshot_list(&new.image, usage).await.unwrap(), []);
    }
    let before = Timestamp::now() - Duration::from_secs(2);
    for name in ["z-first", "auto-2026-11-21T203007Z", "a.third"] {
        driver.snapshot_create(&at(&new.image, name)).await.unwrap();
        h.write(&new.image, 0, name.as_bytes()).await;
    }
    let now = Timestamp::now() + Duration::from_secs(2);
    let found = driver.snapshot_list(&new.image, SnapshotUsage::Count).await.unwrap();
    let names: Vec<&str> = found.iter().map(|snapshot| snapshot.name.as_str()).collect();
    assert_eq!(names, ["z-first", "auto-2026-11-21T203007Z", "a.third"]);
    for snapshot in &found {
        assert_eq!(snapshot.size, 8 << 20);
        assert!(before <= snapshot.created_at && snapshot.created_at <= now, "{snapshot:?}");
        assert!(snapshot.used.is_some_and(|used| used > 0 && used <= 8 << 20), "{snapshot:?}");
    }
}

pub async fn concurrent_snapshots_are_one(h: &impl Harness) {
    let new = made(h, "race").await;
    let drivers = [h.driver(), h.driver()];
    let snapshot = at(&new.image, "one");
    let attempts: Vec<_> = (0..6)
        .map(|n| {
            let (driver, snapshot) = (drivers[n % 2].clone(), snapshot.clone());
            tokio::spawn(async move { driver.snapshot_create(&snapshot).await })
        })
        .collect();
    let mut firsts = 0;
    for attempt in attempts {
        firsts += usize::from(attempt.await.unwrap().unwrap() == Snapped::Created);
    }
    // librbd tells all of them that they did it.
    assert!(firsts >= 1);
    let found = drivers[0].snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(unfinished(&*drivers[0], &new).await, []);
    let removals: Vec<_> = (0..4)
        .map(|n| {
            let (driver, snapshot) = (drivers[n % 2].clone(), snapshot.clone());
            tokio::spawn(async move { driver.snapshot_remove(&snapshot).await })
        })
        .collect();
    let mut removed = 0;
    for removal in removals {
        removed += usize::from(removal.await.unwrap().unwrap() == Removed::Removed);
    }
    // On Ceph, one that the lock's holder did for another is counted by both.
    assert!(removed >= 1);
    assert_eq!(drivers[0].snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap(), []);
}

pub async fn snapshots_go_one_by_one(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "shorter").await);
    let first = h.content(&new.image).await;
    let snapshots = ["one", "two", "three"].map(|name| at(&new.image, name));
    for snapshot in &snapshots {
        driver.snapshot_create(snapshot).await.unwrap();
        h.write(&new.image, 0, snapshot.snapshot.as_str().as_bytes()).await;
    }
    for expected in [Removed::Removed, Removed::Absent] {
        assert_eq!(driver.snapshot_remove(&snapshots[1]).await.unwrap(), expected);
    }
    let found = driver.snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap();
    let names: Vec<&str> = found.iter().map(|snapshot| snapshot.name.as_str()).collect();
    assert_eq!(names, ["one", "three"]);
    assert_same(&h.snapshot_content(&snapshots[0]).await, &first, "the one before");
    // The name is as good as before.
    assert_eq!(driver.snapshot_create(&snapshots[1]).await.unwrap(), Snapped::Created);
    let trashed = trash(&*driver, &new).await;
    assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Purged);
    assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Absent);
    assert_nothing(h, &new).await;
}

pub async fn rollback_is_refused_while_somebody_has_it_open(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "used").await);
    let one = at(&new.image, "one");
    driver.snapshot_create(&one).await.unwrap();
    h.write(&new.image, 0, b"since").await;
    let since = h.content(&new.image).await;
    let user = h.open(&new.image).await;
    let error = driver.snapshot_rollback(&one).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InUse, "{error:?}");
    assert_same(&h.content(&new.image).await, &since, "refused");
    drop(user);
    super::harness::until("the user to be gone", || async {
        let found = driver.find(&new.image).await.unwrap().expect("it is there");
        found.watchers.is_empty().then_some(())
    })
    .await;
    driver.snapshot_rollback(&one).await.unwrap();
    assert_same(&h.content(&new.image).await, &h.snapshot_content(&one).await, "rolled back");
}

pub async fn an_image_in_use_is_snapshotted_and_grows(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "busy").await);
    let user = h.open(&new.image).await;
    let one = at(&new.image, "one");
    assert_eq!(driver.snapshot_create(&one).await.unwrap(), Snapped::Created);
    assert_eq!(driver.resize(&new.image, mib(16)).await.unwrap(), Resized::Grown);
    assert_eq!(driver.find(&new.image).await.unwrap().expect("it").size, 16 << 20);
    assert_eq!(driver.snapshot_remove(&one).await.unwrap(), Removed::Removed);
    drop(user);
}

pub async fn clones_are_images_of_their_own(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "source").await);
    let limit = NonZeroU64::new(4096);
    let limits = RateLimits { write_bps: limit, ..RateLimits::default() };
    driver.limit(&new.image, &limits).await.unwrap();
    let one = at(&new.image, "one");
    driver.snapshot_create(&one).await.unwrap();
    let content = h.content(&new.image).await;
    // Into another pool, and larger.
    let mut clone = NewClone { size: mib(20), ..new_clone(one.clone(), "clone") };
    clone.image.pool = h.other_pool().await;
    clone.limits = RateLimits { read_iops: limit, ..RateLimits::default() };
    let created = driver.snapshot_clone(&clone).await.unwrap();
    assert!(matches!(created, Created::Created { .. }), "{created:?}");
    let again = h.driver().snapshot_clone(&clone).await.unwrap();
    assert_eq!(again, Created::AlreadyOurs { image_id: id(&created).to_owned() });
    let found = driver.find(&clone.image).await.unwrap().expect("the clone");
    assert_eq!((found.uid, found.size, found.watchers), (Some(clone.uid), 20 << 20, Vec::new()));
    let there = h.content(&clone.image).await;
    assert_same(&there[..8 << 20], &content, "the clone");
    assert!(there[8 << 20..].iter().all(|byte| *byte == 0), "beyond it there is nothing");
    if let Some(limits) = h.limits(&clone.image).await {
        assert_eq!(limits, clone.limits, "those of the source are not inherited");
    }
    assert_eq!(driver.snapshot_list(&clone.image, SnapshotUsage::Skip).await.unwrap(), []);
    assert_eq!(unfinished(&*driver, &as_image(&clone)).await, []);

    let second = new_clone(one.clone(), "second");
    driver.snapshot_clone(&second).await.unwrap();
    let progress = Progress::default();
    let flat = driver.flatten(&clone.image, &progress).await.unwrap();
    if flat == Flattened::Flattened {
        let (done, total) = progress.get();
        assert!(total > 0 && done == total, "{done} of {total}");
    }
    assert_eq!(driver.flatten(&clone.image, &progress).await.unwrap(), Flattened::AlreadyFlat);
    assert_same(&h.content(&clone.image).await, &there, "flattened");
    // Still there without the source's snapshot, flat or not, under whatever is written there.
    assert_eq!(driver.snapshot_remove(&one).await.unwrap(), Removed::Removed);
    assert_eq!(driver.snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap(), []);
    h.write(&new.image, 5 << 20, b"otherwise").await;
    assert_same(&h.content(&second.image).await, &content, "the second clone");
    assert_same(&h.content(&clone.image).await, &there, "the first clone");
    // A clone of a clone.
    let again = at(&second.image, "again");
    driver.snapshot_create(&again).await.unwrap();
    let third = new_clone(again, "third");
    driver.snapshot_clone(&third).await.unwrap();
    assert_same(&h.content(&third.image).await, &content, "a clone of a clone");
}

/// What a clone had before it was flattened it can go back to, whichever features its access leaves it.
pub async fn flattened_clones_keep_their_snapshots(h: &impl Harness) {
    for access in [Access::Auto, Access::Kernel] {
        let driver = h.driver();
        let source = made(h, &format!("source-{access}")).await;
        let one = at(&source.image, "one");
        driver.snapshot_create(&one).await.unwrap();
        let mut clone = new_clone(one, &format!("kept-{access}"));
        clone.access = access;
        driver.snapshot_clone(&clone).await.unwrap();
        let content = h.content(&clone.image).await;
        let own = at(&clone.image, "own");
        driver.snapshot_create(&own).await.unwrap();
        h.write(&clone.image, 5 << 20, b"otherwise").await;
        let now = h.content(&clone.image).await;
        driver.flatten(&clone.image, &Progress::default()).await.unwrap();
        assert_same(&h.content(&clone.image).await, &now, "flattened");
        driver.snapshot_rollback(&own).await.unwrap();
        assert_same(&h.content(&clone.image).await, &content, &format!("{access}: rolled back"));
        let second = new_clone(own, &format!("of-it-{access}"));
        driver.snapshot_clone(&second).await.unwrap();
        assert_same(&h.content(&second.image).await, &content, "a clone of its snapshot");
    }
}

pub async fn concurrent_clones_are_one(h: &impl Harness) {
    let new = made(h, "source").await;
    let drivers = [h.driver(), h.driver()];
    let one = at(&new.image, "one");
    drivers[0].snapshot_create(&one).await.unwrap();
    let clone = NewClone { size: mib(12), ..new_clone(one, "race") };
    let attempts: Vec<_> = (0..6)
        .map(|n| {
            let (driver, clone) = (drivers[n % 2].clone(), clone.clone());
            tokio::spawn(async move { driver.snapshot_clone(&clone).await })
        })
        .collect();
    let mut firsts = 0;
    for attempt in attempts {
        let created = attempt.await.unwrap().unwrap();
        firsts += usize::from(matches!(created, Created::Created { .. }));
    }
    assert_eq!(firsts, 1);
    assert_eq!(h.names(&clone.uid.to_string()).await, [""; 0]);
    assert_eq!(drivers[0].find(&clone.image).await.unwrap().expect("it").size, 12 << 20);
}

pub async fn a_parent_goes_when_its_clones_need_it_no_more(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "parent").await);
    let one = at(&new.image, "one");
    driver.snapshot_create(&one).await.unwrap();
    let content = h.content(&new.image).await;
    let (kept, thrown) = (new_clone(one.clone(), "kept"), new_clone(one.clone(), "thrown"));
    driver.snapshot_clone(&kept).await.unwrap();
    driver.snapshot_clone(&thrown).await.unwrap();
    let parent = trash(&*driver, &new).await;
    let thrown_away = trash(&*driver, &as_image(&thrown)).await;
    assert_same(&h.content(&kept.image).await, &content, "its parent is in the trash");
    match driver.purge(&parent).await {
        // The clones had their data all along.
        Ok(purged) => assert_eq!(purged, Purged::Purged),
        Err(error) => {
            assert_eq!(error.kind(), Kind::InUse);
            let text = error.to_string();
            let names = [
                new.image.to_string(),
                kept.image.to_string(),
                format!("{} in the trash", thrown.image),
            ];
            assert!(names.iter().all(|name| text.contains(name)), "{text}");
            assert_same(&h.content(&kept.image).await, &content, "its parent was not purged");
            // It can come back, too.
            driver.restore(&parent, &new.image.name).await.unwrap();
            assert_same(&h.snapshot_content(&one).await, &content, "restored");
            assert_eq!(trash(&*driver, &new).await, parent);
            assert_eq!(driver.purge(&thrown_away).await.unwrap(), Purged::Purged);
            let error = driver.purge(&parent).await.unwrap_err();
            assert!(
                matches!(&error, ImageError::HasClones { clones, .. } if clones.len() == 1),
                "{error:?}"
            );
            driver.flatten(&kept.image, &Progress::default()).await.unwrap();
            assert_eq!(driver.purge(&parent).await.unwrap(), Purged::Purged);
        }
    }
    assert_same(&h.content(&kept.image).await, &content, "its parent is gone");
    driver.purge(&thrown_away).await.unwrap();
    assert_nothing(h, &new).await;
    assert_nothing(h, &as_image(&thrown)).await;
}

pub async fn images_grow_and_never_shrink(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "growing").await);
    let before = h.content(&new.image).await;
    driver.snapshot_create(&at(&new.image, "small")).await.unwrap();
    for expected in [Resized::Grown, Resized::Unchanged] {
        assert_eq!(driver.resize(&new.image, mib(24)).await.unwrap(), expected);
    }
    let error = driver.resize(&new.image, mib(8)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains(&new.image.to_string()), "{error}");
    let grown = h.content(&new.image).await;
    assert_eq!(grown.len(), 24 << 20);
    assert_same(&grown[..8 << 20], &before, "grown");
    assert!(grown[8 << 20..].iter().all(|byte| *byte == 0));
    driver.snapshot_create(&at(&new.image, "large")).await.unwrap();
    let found = driver.snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap();
    let sizes: Vec<u64> = found.iter().map(|snapshot| snapshot.size >> 20).collect();
    assert_eq!(sizes, [8, 24]);
    // A rollback gives the size back, too, and what is beyond it is gone.
    h.write(&new.image, 23 << 20, b"late").await;
    driver.snapshot_rollback(&at(&new.image, "small")).await.unwrap();
    assert_same(&h.content(&new.image).await, &before, "rolled back");
    assert_eq!(driver.resize(&new.image, mib(24)).await.unwrap(), Resized::Grown);
    assert_same(&h.content(&new.image).await, &grown, "grown again");
    let clone = new_clone(at(&new.image, "large"), "smaller");
    let error = driver.snapshot_clone(&clone).await.unwrap_err();
    assert!(matches!(error, ImageError::Shrinks { .. }), "{error:?}");
    assert_nothing(h, &as_image(&clone)).await;
}

pub async fn the_trash_gives_back(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "back").await);
    let content = h.content(&new.image).await;
    let trashed = trash(&*driver, &new).await;
    // Its name may be another's meanwhile.
    let second = NewImage { uid: Uuid::new_v4(), ..new.clone() };
    driver.create(&second).await.unwrap();
    let error = driver.restore(&trashed, &new.image.name).await.unwrap_err();
    assert!(matches!(&error, ImageError::Foreign { image } if *image == new.image), "{error:?}");
    assert_eq!(driver.find(&new.image).await.unwrap().expect("it").uid, Some(second.uid));
    let renamed = ImageName { name: format!("{}.back", new.image.name), ..new.image.clone() };
    for expected in [Restored::Restored, Restored::AlreadyThere] {
        assert_eq!(driver.restore(&trashed, &renamed.name).await.unwrap(), expected);
    }
    assert_same(&h.content(&renamed).await, &content, "under another name");
    let found = driver.find(&renamed).await.unwrap().expect("it");
    assert_eq!((found.id, found.uid), (trashed.id.clone(), Some(new.uid)));
    assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Absent, "it is not in the trash");
    assert_same(&h.content(&renamed).await, &content, "nor purged");
    let renamed = NewImage { image: renamed, ..new.clone() };
    let trashed = trash(&*driver, &renamed).await;
    assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Purged);
    let error = driver.restore(&trashed, &renamed.image.name).await.unwrap_err();
    assert!(matches!(error, ImageError::NotInTrash { .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::NotFound);
    assert_nothing(h, &renamed).await;
}

pub async fn what_is_not_there_is_named(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "known").await);
    let one = at(&new.image, "one");
    driver.snapshot_create(&one).await.unwrap();
    let nowhere = ImageName { name: format!("{}.not", new.image.name), ..new.image.clone() };
    let absent = at(&nowhere, "one");
    let clone = new_clone(absent.clone(), "never");
    let errors = [
        driver.snapshot_create(&absent).await.unwrap_err(),
        driver.snapshot_list(&nowhere, SnapshotUsage::Skip).await.unwrap_err(),
        driver.snapshot_remove(&absent).await.unwrap_err(),
        driver.snapshot_rollback(&absent).await.unwrap_err(),
        driver.snapshot_clone(&clone).await.unwrap_err(),
        driver.flatten(&nowhere, &Progress::default()).await.unwrap_err(),
        driver.resize(&nowhere, mib(16)).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.to_string(), format!("image {nowhere} does not exist"));
        assert_eq!(error.kind(), Kind::NotFound);
    }
    let unknown = at(&new.image, "two");
    let clone = new_clone(unknown.clone(), "never");
    let errors = [
        driver.snapshot_rollback(&unknown).await.unwrap_err(),
        driver.snapshot_clone(&clone).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.to_string(), format!("image {} has no snapshot two", new.image));
        assert_eq!(error.kind(), Kind::NotFound);
    }
    assert_nothing(h, &as_image(&clone)).await;
    // Onto itself, or onto another image.
    let before = h.content(&new.image).await;
    let mut onto = new_clone(one.clone(), "onto");
    onto.image = new.image.clone();
    let error = driver.snapshot_clone(&onto).await.unwrap_err();
    assert!(matches!(&error, ImageError::Foreign { image } if *image == new.image), "{error:?}");
    assert_same(&h.content(&new.image).await, &before, "untouched");
    assert_eq!(h.names(&onto.uid.to_string()).await, [""; 0]);
    let lost = ImageName { pool: "nonesuch".parse().unwrap(), ..new.image.clone() };
    let into = NewClone { image: lost.clone(), ..new_clone(one, "lost") };
    let gone =
        TrashedImage { pool: lost.pool.clone(), id: new.uid.to_string(), name: "t.v".into() };
    let errors = [
        driver.snapshot_create(&at(&lost, "one")).await.unwrap_err(),
        driver.snapshot_list(&lost, SnapshotUsage::Skip).await.unwrap_err(),
        driver.snapshot_rollback(&at(&lost, "one")).await.unwrap_err(),
        driver.snapshot_clone(&into).await.unwrap_err(),
        driver.resize(&lost, mib(16)).await.unwrap_err(),
        driver.restore(&gone, "t.v").await.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(&error, ImageError::NoPool { pool, .. } if pool == "nonesuch"),
            "{error:?}"
        );
    }
}
