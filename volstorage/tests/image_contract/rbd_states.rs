//! States between two steps of librbd: a name is kept in two places (the object `rbd_id.<name>` and
//! the pool's directory), and the trash in a third. They are made here by hand, as a client leaves
//! them that dies in between, and the driver has to get out of each.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use volcore::options::Access;
use volcore::size::Size;
use volcore::volume::ImageName;
use volstorage::ceph::{Features, Timeouts};
use volstorage::fake::Fault;
use volstorage::image::{
    Created, Discarded, ImageDriver, ImageError, NewImage, Purged, SnapshotUsage, TrashedImage,
    Unfinished,
};
use volstorage::process::{Program, Run};

use super::ceph_support::CEPH;
use super::harness::{Harness, mib, new_image};
use super::rbd::{Rbd, harness};
use super::snapshots::{at, made};
use super::suite::{assert_nothing, id, unfinished};

/// Changes the objects of the pool behind librbd's back.
async fn rados(args: &[&str], stdin: &[u8]) -> Vec<u8> {
    let run = Run::new(&Program::find("rados", "ceph-common"), Duration::from_secs(60));
    let run = run.arg("-c").arg(&CEPH.conf).args(["-p", "rbd"]).args(args).stdin(stdin);
    run.output().await.unwrap().stdout
}

/// A text as Ceph stores it.
fn encoded(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap().to_le_bytes();
    [&len, text.as_bytes()].concat()
}

/// A draft that is complete, and was not renamed.
async fn complete_draft(h: &Rbd, new: &NewImage) -> (Unfinished, String) {
    let (driver, faults) = h.breakable();
    for nth in 1.. {
        faults.break_nth(nth, Fault::Dies);
        driver.create(new).await.unwrap_err();
        let done = faults.effects();
        faults.revive();
        let left = unfinished(&*driver, new).await.pop().unwrap();
        if done.contains(&"write the data") && done.contains(&"set the metadata") {
            let pool = CEPH.cluster().pool(left.pool.as_str()).unwrap();
            let image = pool.open_image_read_only(&left.name).unwrap();
            return (left, image.id().unwrap());
        }
        driver.drop_unfinished(&left).await.unwrap();
    }
    unreachable!("the numbers do not end")
}

/// A draft of which the new name is written, and not in the directory.
async fn half_renamed(h: &Rbd, name: &str) -> (NewImage, Unfinished, String) {
    let new = new_image(h.pool(), name);
    let (draft, id) = complete_draft(h, &new).await;
    rados(&["put", &format!("rbd_id.{}", new.image.name), "-"], &encoded(&id)).await;
    (new, draft, id)
}

/// An image in the trash that is still in the directory, and can also still be opened by its name.
async fn half_trashed(h: &Rbd, name: &str, linked: bool) -> (NewImage, TrashedImage) {
    let new = new_image(h.pool(), name);
    let driver = h.driver();
    driver.create(&new).await.unwrap();
    let discarded = driver.discard(&new.image, None, new.uid).await.unwrap();
    let Discarded::Trashed(trashed) = discarded else { panic!("{discarded:?}") };
    let (name, id) = (&new.image.name, &trashed.id);
    rados(&["setomapval", "rbd_directory", &format!("name_{name}")], &encoded(id)).await;
    rados(&["setomapval", "rbd_directory", &format!("id_{id}")], &encoded(name)).await;
    if linked {
        rados(&["put", &format!("rbd_id.{name}"), "-"], &encoded(id)).await;
    }
    (new, trashed)
}

/// No object has the name any more, and an image of it can be made.
async fn assert_free(h: &Rbd, new: &NewImage) {
    assert_nothing(h, new).await;
    let objects = String::from_utf8(rados(&["ls"], b"").await).unwrap();
    for name in [new.image.name.clone(), new.uid.to_string()] {
        let left: Vec<&str> = objects.lines().filter(|object| object.contains(&name)).collect();
        assert_eq!(left, [""; 0]);
    }
    let created = h.driver().create(new).await.unwrap();
    assert!(matches!(created, Created::Created { .. }), "{created:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn create_finishes_a_renaming() {
    let h = harness().await;
    let (new, _, image_id) = half_renamed(&h, "half").await;
    let created = h.driver().create(&new).await.unwrap();
    assert_eq!(created, Created::AlreadyOurs { image_id });
    assert_eq!(unfinished(&*h.driver(), &new).await, []);
    assert_eq!(h.names(&new.image.name).await, [new.image.name.as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn discard_takes_what_is_half_renamed() {
    let h = harness().await;
    let (new, _, image_id) = half_renamed(&h, "half").await;
    let discarded = h.driver().discard(&new.image, None, new.uid).await.unwrap();
    let Discarded::Trashed(trashed) = discarded else { panic!("{discarded:?}") };
    assert_eq!(trashed.id, image_id);
    assert_eq!(h.driver().purge(&trashed).await.unwrap(), Purged::Purged);
    assert_free(&h, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_takes_both_names() {
    let h = harness().await;
    let (new, draft, _) = half_renamed(&h, "half").await;
    for _ in 0..2 {
        h.driver().drop_unfinished(&draft).await.unwrap();
    }
    assert_free(&h, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_takes_both_names_also_out_of_the_trash() {
    let h = harness().await;
    let (new, draft, _) = half_renamed(&h, "half").await;
    super::harness::tool(
        "rbd",
        &["-c", CEPH.conf.to_str().unwrap(), "trash", "mv", &format!("rbd/{}", draft.name)],
    )
    .await;
    assert_eq!(unfinished(&*h.driver(), &new).await, std::slice::from_ref(&draft));
    for _ in 0..2 {
        h.driver().drop_unfinished(&draft).await.unwrap();
    }
    assert_free(&h, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repairs_can_be_cut_short_too() {
    let h = harness().await;
    for nth in 1..8 {
        let (driver, faults) = h.breakable();
        let (new, draft, _) = half_renamed(&h, "half").await;
        faults.break_nth(nth, Fault::Dies);
        let cut = driver.drop_unfinished(&draft).await.is_err();
        assert!(cut || faults.is_ahead());
        // It is no volume's image, by whatever name it can still be opened.
        let discarded = h.driver().discard(&new.image, None, new.uid).await.unwrap();
        if let Discarded::Trashed(trashed) = discarded {
            assert_eq!(h.driver().purge(&trashed).await.unwrap(), Purged::Purged);
        }
        for left in unfinished(&*h.driver(), &new).await {
            h.driver().drop_unfinished(&left).await.unwrap();
        }
        assert_free(&h, &new).await;

        let (new, _, image_id) = half_renamed(&h, "half").await;
        faults.break_nth(nth, Fault::Dies);
        driver.create(&new).await.ok();
        faults.revive();
        assert_eq!(id(&h.driver().create(&new).await.unwrap()), image_id);
        for left in unfinished(&*h.driver(), &new).await {
            h.driver().drop_unfinished(&left).await.unwrap();
        }
        assert_eq!(h.driver().find(&new.image).await.unwrap().unwrap().id, image_id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discard_that_was_cut_short_gives_the_name_back() {
    let h = harness().await;
    for linked in [false, true] {
        let (new, trashed) = half_trashed(&h, "trashed", linked).await;
        let discarded = h.driver().discard(&new.image, Some(&trashed.id), new.uid).await.unwrap();
        assert_eq!(discarded, Discarded::Trashed(trashed.clone()));
        assert_eq!(CEPH.pool().listed_name(&trashed.id).unwrap(), None);
        assert_eq!(h.driver().purge(&trashed).await.unwrap(), Purged::Purged);
        assert_free(&h, &new).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_gives_the_name_back() {
    let h = harness().await;
    for linked in [false, true] {
        let (new, trashed) = half_trashed(&h, "trashed", linked).await;
        assert_eq!(h.driver().purge(&trashed).await.unwrap(), Purged::Purged);
        assert_free(&h, &new).await;
    }
}

/// Once the trash lists it nobody turns back: the volume would be one whose image anybody may purge.
#[tokio::test(flavor = "multi_thread")]
async fn a_discard_that_has_begun_goes_on_although_somebody_opens_the_image() {
    let h = harness().await;
    let new = new_image(h.pool(), "opened");
    let image_id = id(&h.driver().create(&new).await.unwrap()).to_owned();
    let (driver, faults) = h.breakable();
    faults.break_nth(1, Fault::Dies);
    driver.discard(&new.image, Some(&image_id), new.uid).await.unwrap_err();
    assert_eq!(faults.effects(), ["list in the trash"]);
    let stranger = CEPH.connect(Timeouts::default());
    let open = stranger.pool("rbd").unwrap().open_image(&new.image.name).unwrap();
    let discarded = h.driver().discard(&new.image, Some(&image_id), new.uid).await.unwrap();
    let Discarded::Trashed(trashed) = discarded else { panic!("{discarded:?}") };
    assert_eq!(h.driver().find(&new.image).await.unwrap(), None);
    let error = h.driver().purge(&trashed).await.unwrap_err();
    assert!(matches!(error, ImageError::InUse { .. } | ImageError::Failed { .. }), "{error:?}");
    open.close().unwrap();
    assert_eq!(h.driver().purge(&trashed).await.unwrap(), Purged::Purged);
    assert_free(&h, &new).await;
}

/// A volmaster that is slow meets a volume of the same name that was made since.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_discard_leaves_the_successor_alone() {
    let h = harness().await;
    let new = new_image(h.pool(), "late");
    let old_id = id(&h.driver().create(&new).await.unwrap()).to_owned();
    for nth in 1..3 {
        let (driver, faults) = h.breakable();
        faults.break_nth(nth, Fault::Dies);
        driver.discard(&new.image, Some(&old_id), new.uid).await.unwrap_err();
    }
    let trashed = h.driver().discard(&new.image, Some(&old_id), new.uid).await.unwrap();
    let Discarded::Trashed(trashed) = trashed else { panic!("{trashed:?}") };
    let successor = NewImage { uid: uuid::Uuid::new_v4(), ..new.clone() };
    let new_id = id(&h.driver().create(&successor).await.unwrap()).to_owned();
    let again = h.driver().discard(&new.image, Some(&old_id), new.uid).await.unwrap();
    assert_eq!(again, Discarded::Trashed(trashed.clone()));
    assert_eq!(h.driver().purge(&trashed).await.unwrap(), Purged::Purged);
    assert_eq!(h.driver().find(&new.image).await.unwrap().unwrap().id, new_id);
    assert_eq!(h.names(&new.image.name).await, [new.image.name.as_str()]);
}

/// Two volmasters take up the removal of one that was killed, at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn many_finish_a_discard_at_once() {
    let h = harness().await;
    for linked in [false, true] {
        let (new, trashed) = half_trashed(&h, "trashed", linked).await;
        let all: Vec<_> = (0..6)
            .map(|_| {
                let (driver, new, trashed) = (h.driver(), new.clone(), trashed.clone());
                tokio::spawn(async move {
                    driver.discard(&new.image, Some(&trashed.id), new.uid).await?;
                    driver.purge(&trashed).await
                })
            })
            .collect();
        for one in all {
            one.await.unwrap().unwrap();
        }
        assert_free(&h, &new).await;
    }
}

/// The draft of a create that is under way, once it is open there.
async fn watched_draft(driver: &dyn ImageDriver, new: &NewImage) -> Unfinished {
    super::harness::until("the draft to be watched", || async {
        let draft = unfinished(driver, new).await.pop()?;
        let image = CEPH.pool().open_image_read_only(&draft.name).ok()?;
        (!image.watchers().unwrap().is_empty()).then_some(draft)
    })
    .await
}

/// Whoever is first decides; the other is told, and the name is free or the image sound.
#[tokio::test(flavor = "multi_thread")]
async fn a_cleaner_and_a_publisher_do_not_both_win() {
    let h = harness().await;
    let (mut published, mut cleaned) = (0, 0);
    for round in 0..24 {
        let mut new = new_image(h.pool(), "raced");
        new.format = "sleep 0.2; mkfs.ext4 -q -m0 %".parse().unwrap();
        let (driver, cleaner) = (h.driver(), h.driver());
        let create = tokio::spawn({
            let (driver, new) = (driver.clone(), new.clone());
            async move { driver.create(&new).await }
        });
        let draft = watched_draft(&*cleaner, &new).await;
        // While it is written it is refused, so that this comes to be tried during the publishing.
        while !create.is_finished() {
            match cleaner.drop_unfinished(&draft).await {
                Ok(()) => break,
                Err(ImageError::InUse { .. }) => {}
                Err(error) => panic!("round {round}: {error:?}"),
            }
        }
        match create.await.unwrap() {
            Ok(created) => {
                published += 1;
                let found = driver.find(&new.image).await.unwrap().expect("the image");
                assert_eq!(found.id, id(&created));
                assert_eq!(unfinished(&*driver, &new).await, []);
                assert_eq!(h.names(&new.image.name).await, [new.image.name.as_str()]);
            }
            Err(error) => {
                cleaned += 1;
                assert!(matches!(error, ImageError::Failed { .. }), "round {round}: {error:?}");
                for left in unfinished(&*driver, &new).await {
                    driver.drop_unfinished(&left).await.unwrap();
                }
                assert_free(&h, &new).await;
            }
        }
    }
    assert_eq!(published + cleaned, 24);
}

/// A draft that a cleaner has claimed, and died before it removed it.
#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_draft_is_not_published() {
    let h = harness().await;
    let (new, draft, draft_id) = half_renamed(&h, "claimed").await;
    let (driver, faults) = h.breakable();
    for nth in 1.. {
        faults.break_nth(nth, Fault::Dies);
        driver.drop_unfinished(&draft).await.unwrap_err();
        let claimed = faults.effects().contains(&"list by the new name");
        faults.revive();
        if claimed {
            break;
        }
    }
    let listed = CEPH.pool().listed_name(&draft_id).unwrap().unwrap();
    assert!(listed.starts_with(".old."), "{listed}");
    // It is still to be opened by the final name, and on its way out.
    let Created::Created { image_id } = driver.create(&new).await.unwrap() else {
        panic!("made anew")
    };
    assert_ne!(image_id, draft_id);
    for left in unfinished(&*driver, &new).await {
        driver.drop_unfinished(&left).await.unwrap();
    }
    assert_eq!(driver.find(&new.image).await.unwrap().unwrap().id, image_id);
    assert_eq!(h.names(&new.image.name).await, [new.image.name.as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_nowhere_is_an_error_and_can_be_freed() {
    let h = harness().await;
    let new = new_image(h.pool(), "dangling");
    rados(&["put", &format!("rbd_id.{}", new.image.name), "-"], &encoded("123456")).await;
    let error = h.driver().create(&new).await.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(source.contains("`rbd rm` of that name frees it"), "{error:?}");
    assert_eq!(unfinished(&*h.driver(), &new).await, []);
    super::harness::tool("rbd", &["-c", CEPH.conf.to_str().unwrap(), "rm", &new.image.to_string()])
        .await;
    assert_free(&h, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_without_a_header_is_dropped() {
    let h = harness().await;
    let new = new_image(h.pool(), "headless");
    let (draft, id) = complete_draft(&h, &new).await;
    rados(&["rm", &format!("rbd_header.{id}")], b"").await;
    assert_eq!(unfinished(&*h.driver(), &new).await, std::slice::from_ref(&draft));
    for _ in 0..2 {
        h.driver().drop_unfinished(&draft).await.unwrap();
    }
    assert_free(&h, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_is_being_written_is_not_dropped() {
    let h = harness().await;
    let (driver, mut new) = (h.driver(), new_image(h.pool(), "busy"));
    let go = tempfile::tempdir().unwrap();
    let go = go.path().join("go");
    new.format =
        format!("until [ -e {} ]; do :; done; mkfs.ext4 -q %", go.display()).parse().unwrap();
    std::fs::create_dir_all(go.parent().unwrap()).unwrap();
    let create = tokio::spawn({
        let (driver, new) = (driver.clone(), new.clone());
        async move { driver.create(&new).await }
    });
    let draft = watched_draft(&*driver, &new).await;
    let refused = driver.drop_unfinished(&draft).await;
    assert!(matches!(refused, Err(ImageError::InUse { .. })), "{refused:?}");
    std::fs::write(&go, "").unwrap();
    assert!(matches!(create.await.unwrap().unwrap(), Created::Created { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_harms_nobody() {
    let h = harness().await;
    let mut new = new_image(h.pool(), "huge");
    new.size = Size::from_bytes(1 << 50).unwrap();
    let error = h.driver().create(&new).await.unwrap_err();
    assert!(error.to_string().contains("the largest image in Ceph has 128 TiB"), "{error}");
    new.size = mib(4096);
    new.format = "head -c 1200M /dev/urandom >%; truncate -s 4096M %".parse().unwrap();
    let error = h.driver().create(&new).await.unwrap_err();
    assert!(error.to_string().contains("writes more than 1024 MiB"), "{error}");
    assert_nothing(&h, &new).await;
    let small = new_image(h.pool(), "small");
    assert!(matches!(h.driver().create(&small).await.unwrap(), Created::Created { .. }));
}

/// Until when a client is on the blocklist.
fn fenced_until(client: &str) -> Option<Timestamp> {
    let dump = CEPH.ask(&json!({"prefix": "osd dump", "format": "json"}));
    let until = dump["blocklist"][client].as_str()?;
    Some(Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", until).unwrap())
}

/// A client that has the image open can write no more after it was fenced, and somebody else can.
#[tokio::test(flavor = "multi_thread")]
async fn fenced_clients_write_no_more() {
    let h = harness().await;
    let new = new_image(h.pool(), "fenced");
    h.driver().create(&new).await.unwrap();
    assert_eq!(h.driver().lock_owner(&new.image).await.unwrap(), None);
    let stranger = CEPH.connect(Timeouts::default());
    let open = stranger.pool("rbd").unwrap().open_image(&new.image.name).unwrap();
    open.acquire_lock().unwrap();
    open.write_extents([(0, vec![1u8; 4096])]).unwrap();
    let owner = h.driver().lock_owner(&new.image).await.unwrap().unwrap();
    let others = BTreeSet::from(["127.0.0.1:0/1".to_owned()]);
    h.driver().break_lock(&new.image, &others).await.unwrap();
    assert_eq!(h.driver().lock_owner(&new.image).await.unwrap().as_ref(), Some(&owner));
    let clients = BTreeSet::from([owner.clone()]);
    for _ in 0..2 {
        h.driver().fence(&clients).await.unwrap();
        h.driver().break_lock(&new.image, &clients).await.unwrap();
    }
    assert_eq!(h.driver().lock_owner(&new.image).await.unwrap(), None);
    let until = fenced_until(&owner).unwrap();
    let days = (until.as_second() - Timestamp::now().as_second()) / 86_400;
    assert!((363..=366).contains(&days), "{until}");
    let error = open.write_extents([(0, vec![2u8; 4096])]).unwrap_err();
    assert!(error.is_shutdown() || error.is_read_only(), "{error:?}");
    let other = CEPH.connect(Timeouts::default());
    let open_too = other.pool("rbd").unwrap().open_image(&new.image.name).unwrap();
    open_too.acquire_lock().unwrap();
    open_too.write_extents([(0, vec![3u8; 4096])]).unwrap();
    let mut start = [0];
    open_too.read_at(0, &mut start).unwrap();
    assert_eq!(start, [3]);
    for _ in 0..2 {
        h.driver().unfence(&clients).await.unwrap();
    }
    assert_eq!(fenced_until(&owner), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn features_follow_the_access() {
    let h = harness().await;
    let all = Features::LAYERING
        | Features::EXCLUSIVE_LOCK
        | Features::OBJECT_MAP
        | Features::FAST_DIFF
        | Features::DEEP_FLATTEN;
    let few = Features::LAYERING | Features::EXCLUSIVE_LOCK;
    for (access, wanted) in [(Access::Auto, all), (Access::Kernel, few)] {
        let new = NewImage { access, ..new_image(h.pool(), "features") };
        h.driver().create(&new).await.unwrap();
        let image = CEPH.pool().open_image_read_only(&new.image.name).unwrap();
        assert_eq!(image.features().unwrap(), wanted);
        let used = h.driver().find(&new.image).await.unwrap().unwrap().used;
        assert_eq!(used.is_some(), access == Access::Auto);
    }
}

fn other(image: &ImageName) -> ImageName {
    ImageName { name: format!("{}.other", image.name), ..image.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_was_made_anew_is_seen() {
    let h = harness().await;
    let order = |command| CEPH.cluster().mon_command(&command).unwrap();
    let make = || {
        order(json!({"prefix": "osd pool create", "pool": "anew", "pg_num": 4}));
    };
    make();
    let (driver, new) = (h.driver(), new_image("anew".parse().unwrap(), "v"));
    driver.create(&new).await.unwrap();
    order(json!({
        "prefix": "osd pool delete", "pool": "anew", "pool2": "anew", "yes_i_really_really_mean_it": true
    }));
    let error = driver.find(&new.image).await.unwrap_err();
    assert!(matches!(error, ImageError::NoPool { .. }), "{error:?}");
    driver.unfinished().await.unwrap();
    make();
    assert_eq!(driver.find(&new.image).await.unwrap(), None);
    assert!(matches!(driver.create(&new).await.unwrap(), Created::Created { .. }));
    // It was not declared to be for RBD, and is cleaned up all the same.
    let left = complete_draft(&h, &NewImage { image: other(&new.image), ..new.clone() }).await.0;
    assert_eq!(left.pool, new.image.pool);
    driver.drop_unfinished(&left).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_missing_image_are_an_error() {
    let h = harness().await;
    let image = ImageName { pool: h.pool(), name: "t.nonesuch".to_owned() };
    let error = h.driver().limit(&image, &volcore::limit::RateLimits::default()).await.unwrap_err();
    assert!(error.to_string().contains("rbd/t.nonesuch"), "{error}");
}

/// A snapshot of what is being rolled back would be a mixture, whoever is to be at it, or has died.
#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_rolled_back_no_snapshot_is_taken() {
    let h = harness().await;
    let (driver, faults) = h.breakable();
    let new = made(&h, "mixed").await;
    let (one, two) = (at(&new.image, "one"), at(&new.image, "two"));
    driver.snapshot_create(&one).await.unwrap();
    // One that is refused leaves nothing.
    let watcher = CEPH.connect(Timeouts::default()).pool(new.image.pool.as_str()).unwrap();
    let watcher = watcher.open_image(&new.image.name).unwrap();
    let refused = driver.snapshot_rollback(&one).await.unwrap_err();
    assert!(matches!(refused, ImageError::InUse { .. }), "{refused:?}");
    tokio::task::spawn_blocking(move || drop(watcher)).await.unwrap();
    driver.snapshot_create(&at(&new.image, "between")).await.unwrap();

    for nth in 1.. {
        faults.break_nth(nth, Fault::Dies);
        let died = driver.snapshot_rollback(&one).await.is_err();
        let done = faults.effects();
        faults.revive();
        if !died {
            break;
        }
        // The second one takes the mark away.
        if done.iter().filter(|effect| **effect == "mark the image").count() == 1 {
            let refused = driver.snapshot_create(&two).await.unwrap_err().to_string();
            assert!(refused.contains("a rollback to snapshot one"), "{done:?}: {refused}");
        }
    }
    driver.snapshot_create(&two).await.unwrap();
    let names = driver.snapshot_list(&new.image, SnapshotUsage::Skip).await.unwrap();
    assert_eq!(names.len(), 3, "{names:?}");
}
