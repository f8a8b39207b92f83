//! Every effect on snapshots, clones and the trash broken in every way, as in [`breaking`](super::breaking).

use volstorage::fake::Fault;
use volstorage::image::{
    Flattened, ImageError, NewImage, Progress, Purged, Removed, Resized, Restored, SnapshotUsage,
};

use super::breaking::{Case, FAULTS, clean_up, each, with_fault};
use super::harness::{Harness, mib};
use super::snapshots::{as_image, assert_same, at, made, new_clone, trash};
use super::suite::{assert_nothing, unfinished};

/// Makes these tests those of a module.
#[macro_export]
macro_rules! broken_snapshots {
    ($($test:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                $crate::snapshots_breaking::$test(&harness().await).await;
            }
        )+
    };
    () => {
        $crate::broken_snapshots!(
            snapshot_create,
            snapshot_remove,
            snapshot_rollback,
            snapshot_clone,
            flatten,
            resize,
            restore,
            restore_and_purge,
            purge_with_snapshots,
        );
    };
}

pub async fn snapshot_create(h: &impl Harness) {
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let new = made(h, "broken").await;
            let (one, first) = (at(&new.image, "one"), h.content(&new.image).await);
            let (answer, reached) = with_fault(&case, case.driver.snapshot_create(&one)).await;
            let text = case.text();
            assert_eq!(answer.is_err(), reached, "{text}");
            case.faults.revive();
            drop(case);
            let driver = h.driver();
            let found = driver.snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap();
            if found.is_empty() {
                driver.snapshot_create(&one).await.unwrap();
            }
            // What was taken is complete, whether its taker knows or not.
            h.write(&new.image, 0, b"since").await;
            driver.snapshot_create(&one).await.unwrap();
            assert_same(&h.snapshot_content(&one).await, &first, &text);
            clean_up(&*driver, &new).await;
            assert_eq!(
                driver.snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap().len(),
                1
            );
            reached
        })
        .await;
        assert!(effects >= 1);
    }
}

pub async fn snapshot_remove(h: &impl Harness) {
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let new = made(h, "broken").await;
            let (one, driver) = (at(&new.image, "one"), h.driver());
            driver.snapshot_create(&one).await.unwrap();
            let (answer, reached) = with_fault(&case, case.driver.snapshot_remove(&one)).await;
            assert_eq!(answer.is_err(), reached, "{}", case.text());
            case.faults.revive();
            driver.snapshot_remove(&one).await.unwrap();
            assert_eq!(driver.snapshot_remove(&one).await.unwrap(), Removed::Absent);
            assert_eq!(driver.snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap(), []);
            reached
        })
        .await;
        assert!(effects >= 1);
    }
}

pub async fn snapshot_rollback(h: &impl Harness) {
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let new = made(h, "broken").await;
            let (one, driver, first) =
                (at(&new.image, "one"), h.driver(), h.content(&new.image).await);
            driver.snapshot_create(&one).await.unwrap();
            h.write(&new.image, 5 << 20, b"since").await;
            let since = h.content(&new.image).await;
            let (answer, reached) = with_fault(&case, case.driver.snapshot_rollback(&one)).await;
            let text = case.text();
            assert_eq!(answer.is_err(), reached, "{text}");
            case.faults.revive();
            drop(case);
            let now = h.content(&new.image).await;
            assert!(now == since || now == first, "{text}: a mixture");
            driver.snapshot_rollback(&one).await.unwrap();
            assert_same(&h.content(&new.image).await, &first, &text);
            clean_up(&*driver, &new).await;
            assert_same(&h.content(&new.image).await, &first, &text);
            assert_eq!(driver.find(&new.image).await.unwrap().expect("it").uid, Some(new.uid));
            reached
        })
        .await;
        assert!(effects >= 1);
    }
}

pub async fn snapshot_clone(h: &impl Harness) {
    let (driver, source) = (h.driver(), made(h, "source").await);
    let (one, content) = (at(&source.image, "one"), h.content(&source.image).await);
    driver.snapshot_create(&one).await.unwrap();
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let mut clone = new_clone(one.clone(), "broken");
            clone.size = mib(12);
            let new = as_image(&clone);
            let (answer, reached) = with_fault(&case, case.driver.snapshot_clone(&clone)).await;
            let text = case.text();
            case.faults.revive();
            let found = case.driver.find(&new.image).await.unwrap();
            if answer.is_ok() {
                assert!(found.is_some(), "{text}");
            }
            if found.is_some() {
                assert_same(&h.content(&new.image).await[..8 << 20], &content, &text);
            }
            if fault != Fault::Dies {
                assert_eq!(unfinished(&*case.driver, &new).await, [], "{text}");
            }
            drop(case);
            driver.snapshot_clone(&clone).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
            clean_up(&*driver, &new).await;
            let found = driver.find(&new.image).await.unwrap().expect("the clone");
            assert_eq!((found.uid, found.size), (Some(clone.uid), 12 << 20), "{text}");
            assert_same(&h.content(&new.image).await[..8 << 20], &content, &text);
            assert_eq!(h.names(&new.uid.to_string()).await, [""; 0], "{text}");
            let trashed = trash(&*driver, &new).await;
            driver.purge(&trashed).await.unwrap();
            reached
        })
        .await;
        assert!(effects >= 2, "{effects} effects");
    }
    // Nothing that was cut short is a clone that keeps it.
    let trashed = trash(&*driver, &source).await;
    assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Purged);
    assert_nothing(h, &source).await;
}

pub async fn flatten(h: &impl Harness) {
    for fault in FAULTS {
        each(h, fault, async |h, case: Case| {
            let new = made(h, "source").await;
            let (one, driver, content) =
                (at(&new.image, "one"), h.driver(), h.content(&new.image).await);
            driver.snapshot_create(&one).await.unwrap();
            let clone = new_clone(one, "broken");
            driver.snapshot_clone(&clone).await.unwrap();
            let progress = Progress::default();
            let flatten = case.driver.flatten(&clone.image, &progress);
            let (answer, reached) = with_fault(&case, flatten).await;
            assert_eq!(answer.is_err(), reached, "{}", case.text());
            case.faults.revive();
            driver.flatten(&clone.image, &progress).await.unwrap();
            let again = driver.flatten(&clone.image, &progress).await.unwrap();
            assert_eq!(again, Flattened::AlreadyFlat);
            let trashed = trash(&*driver, &new).await;
            assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Purged);
            assert_same(&h.content(&clone.image).await, &content, "flattened");
            reached
        })
        .await;
    }
}

pub async fn resize(h: &impl Harness) {
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let new = made(h, "broken").await;
            let before = h.content(&new.image).await;
            let resize = case.driver.resize(&new.image, mib(16));
            let (answer, reached) = with_fault(&case, resize).await;
            assert_eq!(answer.is_err(), reached, "{}", case.text());
            case.faults.revive();
            let driver = h.driver();
            driver.resize(&new.image, mib(16)).await.unwrap();
            assert_eq!(driver.resize(&new.image, mib(16)).await.unwrap(), Resized::Unchanged);
            let after = h.content(&new.image).await;
            assert_eq!(after.len(), 16 << 20);
            assert_same(&after[..8 << 20], &before, "grown");
            reached
        })
        .await;
        assert!(effects >= 1);
    }
}

pub async fn restore(h: &impl Harness) {
    for fault in FAULTS {
        for suffix in ["", ".other"] {
            let effects = each(h, fault, async |h, case: Case| {
                let new = made(h, "broken").await;
                let (driver, content) = (h.driver(), h.content(&new.image).await);
                let trashed = trash(&*driver, &new).await;
                let mut renamed: NewImage = new.clone();
                renamed.image.name.push_str(suffix);
                let restore = case.driver.restore(&trashed, &renamed.image.name);
                let (answer, reached) = with_fault(&case, restore).await;
                let text = case.text();
                assert_eq!(answer.is_err(), reached, "{text}");
                case.faults.revive();
                drop(case);
                driver.restore(&trashed, &renamed.image.name).await.unwrap();
                let again = driver.restore(&trashed, &renamed.image.name).await.unwrap();
                assert_eq!(again, Restored::AlreadyThere, "{text}");
                assert_same(&h.content(&renamed.image).await, &content, &text);
                assert_eq!(h.names(&new.image.name).await, [renamed.image.name.as_str()], "{text}");
                let trashed = trash(&*driver, &renamed).await;
                assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Purged);
                assert_nothing(h, &renamed).await;
                reached
            })
            .await;
            assert!(effects >= 1);
        }
    }
}

/// A restoration that was cut short, and is not wanted any more.
pub async fn restore_and_purge(h: &impl Harness) {
    for fault in FAULTS {
        each(h, fault, async |h, case: Case| {
            let new = made(h, "broken").await;
            let driver = h.driver();
            let trashed = trash(&*driver, &new).await;
            let mut renamed: NewImage = new.clone();
            renamed.image.name.push_str(".other");
            let restore = case.driver.restore(&trashed, &renamed.image.name);
            let (_, reached) = with_fault(&case, restore).await;
            let text = case.text();
            case.faults.revive();
            drop(case);
            let purged = match driver.restore(&trashed, &new.image.name).await {
                // It was the last step that had its answer lost.
                Err(ImageError::NotInTrash { .. }) => trash(&*driver, &renamed).await,
                restored => {
                    assert_eq!(restored.unwrap(), Restored::Restored, "{text}");
                    trash(&*driver, &new).await
                }
            };
            assert_eq!(driver.purge(&purged).await.unwrap(), Purged::Purged, "{text}");
            assert_nothing(h, &new).await;
            assert_nothing(h, &renamed).await;
            driver.create(&renamed).await.unwrap();
            reached
        })
        .await;
    }
}

pub async fn purge_with_snapshots(h: &impl Harness) {
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let new = made(h, "broken").await;
            let driver = h.driver();
            for name in ["one", "two"] {
                driver.snapshot_create(&at(&new.image, name)).await.unwrap();
            }
            let trashed = trash(&*driver, &new).await;
            let (answer, reached) = with_fault(&case, case.driver.purge(&trashed)).await;
            assert_eq!(answer.is_err(), reached, "{}", case.text());
            case.faults.revive();
            driver.purge(&trashed).await.unwrap();
            assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Absent, "{}", case.text());
            assert_nothing(h, &new).await;
            reached
        })
        .await;
        assert!(effects >= 1);
    }
}
