//! What holds for every driver.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use volcore::Kind;
use volcore::limit::RateLimits;
use volcore::size::Size;
use volcore::volume::ImageName;
use volstorage::image::{
    Created, Discarded, ImageDriver, ImageError, NewClone, NewImage, Purged, TrashedImage,
    Unfinished,
};

use super::harness::{Harness, mib, new_image, tool};

/// Makes the whole suite the tests of a module that has a `async fn harness() -> impl Harness`.
#[macro_export]
macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                $crate::suite::$test(&harness().await).await;
            }
        )+
    };
    () => {
        $crate::contract!(
            create_find_and_create_again,
            concurrent_attempts_make_one_image,
            foreign_images_are_left_alone,
            a_failing_format_leaves_nothing,
            ext4_is_sound,
            xfs_is_sound,
            btrfs_is_sound,
            discard_and_purge_twice,
            a_name_can_be_used_again,
            discard_touches_only_its_own,
            an_image_in_use_stays,
            limits_are_set_changed_and_taken_away,
            a_missing_pool_is_an_error,
            a_full_pool_is_an_error,
            what_no_image_can_have_is_refused,
            unfinished_images_are_found_and_dropped,
            a_dropped_call_comes_to_its_end,
            check_describes_the_store,
        );
        mod broken {
            use super::harness;
            $crate::broken!();
            $crate::broken_snapshots!();
        }
        mod adoption {
            use super::harness;
            $crate::adoption_contract!();
        }
        mod snapshots {
            use super::harness;
            $crate::snapshot_contract!();
        }
    };
}

/// The id that a create answered.
pub fn id(created: &Created) -> &str {
    match created {
        Created::Created { image_id } | Created::AlreadyOurs { image_id } => image_id,
    }
}

/// What is unfinished of one volume.
pub async fn unfinished(driver: &dyn ImageDriver, new: &NewImage) -> Vec<Unfinished> {
    let all = driver.unfinished().await.unwrap();
    all.into_iter().filter(|one| one.uid == new.uid).collect()
}

/// Nothing is left of a volume, neither under its name nor under another.
pub async fn assert_nothing(h: &dyn Harness, new: &NewImage) {
    let driver = h.driver();
    assert_eq!(driver.find(&new.image).await.unwrap(), None);
    assert_eq!(unfinished(&*driver, new).await, []);
    assert_eq!(h.names(&new.uid.to_string()).await, [""; 0]);
    assert_eq!(h.names(&new.image.name).await, [""; 0]);
}

pub async fn create_find_and_create_again(h: &impl Harness) {
    let (driver, new) = (h.driver(), new_image(h.pool(), "twice"));
    assert_eq!(driver.find(&new.image).await.unwrap(), None);
    let created = driver.create(&new).await.unwrap();
    let Created::Created { image_id } = created else { panic!("{created:?}") };
    let found = driver.find(&new.image).await.unwrap().expect("the image is there");
    assert_eq!((&found.id, found.uid), (&image_id, Some(new.uid)));
    assert_eq!((found.size, &found.watchers), (64 << 20, &Vec::new()));
    assert!(found.used.is_none_or(|used| used > 0));
    // A second driver is another process.
    let again = h.driver().create(&new).await.unwrap();
    assert_eq!(again, Created::AlreadyOurs { image_id });
    assert_eq!(unfinished(&*driver, &new).await, []);
    assert_eq!(h.names(&new.image.name).await, [new.image.name.as_str()]);
}

pub async fn concurrent_attempts_make_one_image(h: &impl Harness) {
    let new = new_image(h.pool(), "race");
    let drivers = [h.driver(), h.driver()];
    let attempts: Vec<_> = (0..8)
        .map(|n| {
            let (driver, new) = (drivers[n % 2].clone(), new.clone());
            tokio::spawn(async move { driver.create(&new).await })
        })
        .collect();
    let (mut ids, mut firsts) = (BTreeSet::new(), 0);
    for attempt in attempts {
        let created = attempt.await.unwrap().unwrap();
        firsts += usize::from(matches!(created, Created::Created { .. }));
        ids.insert(id(&created).to_owned());
    }
    assert_eq!((ids.len(), firsts), (1, 1));
    assert_eq!(unfinished(&*drivers[0], &new).await, []);
    assert_eq!(h.names(&new.uid.to_string()).await, [""; 0], "attempts clean up after themselves");
    let found = drivers[0].find(&new.image).await.unwrap().expect("the image is there");
    assert!(ids.contains(&found.id));
}

pub async fn foreign_images_are_left_alone(h: &impl Harness) {
    let (driver, new) = (h.driver(), new_image(h.pool(), "foreign"));
    h.add_foreign(&new.image).await;
    let error = driver.create(&new).await.unwrap_err();
    assert!(matches!(&error, ImageError::Foreign { image } if *image == new.image), "{error:?}");
    assert_eq!(driver.find(&new.image).await.unwrap().expect("it is there").uid, None);
    let error = driver.discard(&new.image, None, new.uid).await.unwrap_err();
    assert!(matches!(error, ImageError::Foreign { .. }), "{error:?}");
    h.assert_foreign(&new.image).await;
    assert_eq!(h.names(&new.uid.to_string()).await, [""; 0]);
    // The image of another volume is as foreign.
    let theirs = new_image(h.pool(), "theirs");
    driver.create(&theirs).await.unwrap();
    let ours = NewImage { uid: new.uid, ..theirs.clone() };
    assert!(matches!(driver.create(&ours).await, Err(ImageError::Foreign { .. })));
    assert_eq!(driver.find(&theirs.image).await.unwrap().expect("it").uid, Some(theirs.uid));
}

pub async fn a_failing_format_leaves_nothing(h: &impl Harness) {
    let (driver, mut new) = (h.driver(), new_image(h.pool(), "unformatted"));
    new.format = "mkfs.ext4 -q %; echo no such feature >&2; exit 3".parse().unwrap();
    let error = driver.create(&new).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let ImageError::Format { command, status, stderr } = error else { panic!("{error:?}") };
    assert_eq!((status.as_str(), stderr.as_str()), ("exit status 3", "no such feature"));
    assert!(command.starts_with("mkfs.ext4 -q /"), "{command}");
    assert_nothing(h, &new).await;
    // The name is as good as before.
    new.format = "mkfs.ext4 -q %".parse().unwrap();
    assert!(matches!(driver.create(&new).await.unwrap(), Created::Created { .. }));
}

async fn sound(h: &impl Harness, size: u64, mkfs: &str, check: &'static str, args: &[&str]) {
    let (driver, mut new) = (h.driver(), new_image(h.pool(), "sound"));
    (new.size, new.format) = (mib(size), mkfs.parse().unwrap());
    driver.create(&new).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = h.export(&new.image, folder.path()).await else { return };
    assert_eq!(file.metadata().unwrap().len(), size << 20);
    let args = [args, &[file.to_str().unwrap()]].concat();
    let output = tool(check, &args).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.code, 0, "{check} says {text} {}", output.stderr);
}

pub async fn ext4_is_sound(h: &impl Harness) {
    sound(h, 1024, "mkfs.ext4 -m0 %", "fsck.ext4", &["-f", "-n"]).await;
}

pub async fn xfs_is_sound(h: &impl Harness) {
    sound(h, 300, "mkfs.xfs -f %", "xfs_repair", &["-n", "-f"]).await;
}

pub async fn btrfs_is_sound(h: &impl Harness) {
    sound(h, 128, "mkfs.btrfs %", "btrfs", &["check"]).await;
}

pub async fn discard_and_purge_twice(h: &impl Harness) {
    let (driver, new) = (h.driver(), new_image(h.pool(), "gone"));
    let absent = driver.discard(&new.image, None, new.uid).await.unwrap();
    assert_eq!(absent, Discarded::Absent);
    let image_id = id(&driver.create(&new).await.unwrap()).to_owned();
    let trashed = TrashedImage {
        pool: new.image.pool.clone(),
        id: image_id.clone(),
        name: new.image.name.clone(),
    };
    // By id and by uid, now and since earlier.
    for by in [Some(image_id.as_str()), Some(image_id.as_str()), None] {
        let discarded = driver.discard(&new.image, by, new.uid).await.unwrap();
        assert_eq!(discarded, Discarded::Trashed(trashed.clone()));
        assert_eq!(driver.find(&new.image).await.unwrap(), None);
    }
    assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Purged);
    assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Absent);
    for by in [Some(image_id.as_str()), None] {
        let discarded = driver.discard(&new.image, by, new.uid).await.unwrap();
        assert_eq!(discarded, Discarded::Absent);
    }
    assert_nothing(h, &new).await;
}

pub async fn a_name_can_be_used_again(h: &impl Harness) {
    let (driver, first) = (h.driver(), new_image(h.pool(), "reused"));
    let first_id = id(&driver.create(&first).await.unwrap()).to_owned();
    driver.discard(&first.image, Some(&first_id), first.uid).await.unwrap();
    let second = NewImage { uid: uuid::Uuid::new_v4(), ..first.clone() };
    let second_id = id(&driver.create(&second).await.unwrap()).to_owned();
    // A discard of the first that comes late finds it in the trash, and leaves the second alone.
    let discarded = driver.discard(&first.image, Some(&first_id), first.uid).await.unwrap();
    let Discarded::Trashed(trashed) = discarded else { panic!("{discarded:?}") };
    assert_eq!(trashed.id, first_id);
    assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Purged);
    assert_eq!(driver.find(&second.image).await.unwrap().expect("the second").id, second_id);
}

pub async fn discard_touches_only_its_own(h: &impl Harness) {
    let (driver, new) = (h.driver(), new_image(h.pool(), "kept"));
    driver.create(&new).await.unwrap();
    for (id, uid) in [(Some("0123456789ab"), new.uid), (None, uuid::Uuid::new_v4())] {
        let error = driver.discard(&new.image, id, uid).await.unwrap_err();
        assert!(matches!(error, ImageError::Foreign { .. }), "{error:?}");
    }
    assert_eq!(driver.find(&new.image).await.unwrap().expect("it").uid, Some(new.uid));
    let other = TrashedImage {
        pool: h.pool(),
        id: "0123456789ab".to_owned(),
        name: new.image.name.clone(),
    };
    assert_eq!(driver.purge(&other).await.unwrap(), Purged::Absent);
}

pub async fn an_image_in_use_stays(h: &impl Harness) {
    let (driver, new) = (h.driver(), new_image(h.pool(), "used"));
    driver.create(&new).await.unwrap();
    let user = h.open(&new.image).await;
    let watchers = driver.find(&new.image).await.unwrap().expect("it is there").watchers;
    assert_eq!(watchers.len(), 1, "{watchers:?}");
    let error = driver.discard(&new.image, None, new.uid).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InUse);
    let ImageError::InUse { watchers: named, .. } = error else { panic!("{error:?}") };
    assert_eq!(named, watchers);
    drop(user);
    super::harness::until("the user to be gone", || async {
        let found = driver.find(&new.image).await.unwrap().expect("it is there");
        found.watchers.is_empty().then_some(())
    })
    .await;
    assert!(matches!(
        driver.discard(&new.image, None, new.uid).await.unwrap(),
        Discarded::Trashed(_)
    ));
}

pub async fn limits_are_set_changed_and_taken_away(h: &impl Harness) {
    let (driver, mut new) = (h.driver(), new_image(h.pool(), "limited"));
    let some = NonZeroU64::new;
    new.limits = RateLimits {
        write_iops: some(100),
        read_iops: some(200),
        write_bps: some(300 << 20),
        read_bps: some(400 << 20),
    };
    driver.create(&new).await.unwrap();
    let Some(limits) = h.limits(&new.image).await else {
        driver.limit(&new.image, &new.limits).await.unwrap();
        return;
    };
    assert_eq!(limits, new.limits);
    let fewer = RateLimits { write_iops: some(50), read_bps: None, ..new.limits };
    for _ in 0..2 {
        driver.limit(&new.image, &fewer).await.unwrap();
        assert_eq!(h.limits(&new.image).await, Some(fewer));
    }
    driver.limit(&new.image, &RateLimits::default()).await.unwrap();
    assert_eq!(h.limits(&new.image).await, Some(RateLimits::default()));
}

pub async fn a_missing_pool_is_an_error(h: &impl Harness) {
    let (driver, new) = (h.driver(), new_image("nonesuch".parse().unwrap(), "lost"));
    let draft = format!(".new.{}.0", new.uid);
    let trashed = TrashedImage {
        pool: new.image.pool.clone(),
        id: "0123456789ab".to_owned(),
        name: new.image.name.clone(),
    };
    let unfinished = Unfinished { pool: new.image.pool.clone(), name: draft, uid: new.uid };
    let errors = [
        driver.create(&new).await.unwrap_err(),
        driver.find(&new.image).await.unwrap_err(),
        driver.discard(&new.image, None, new.uid).await.unwrap_err(),
        driver.purge(&trashed).await.unwrap_err(),
        driver.drop_unfinished(&unfinished).await.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(&error, ImageError::NoPool { pool, .. } if pool == "nonesuch"),
            "{error:?}"
        );
        assert!(error.to_string().starts_with("pool nonesuch does not exist; "), "{error}");
    }
}

pub async fn a_full_pool_is_an_error(h: &impl Harness) {
    let (pool, _room) = h.full_pool().await;
    let (driver, mut new) = (h.driver(), new_image(pool.clone(), "toomuch"));
    new.size = mib(1024);
    let start = std::time::Instant::now();
    let error = driver.create(&new).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted, "{error:?}");
    assert!(start.elapsed().as_secs() < 20);
    assert_eq!(driver.find(&new.image).await.unwrap(), None);
    assert_eq!(unfinished(&*driver, &new).await, []);
}

pub async fn what_no_image_can_have_is_refused(h: &impl Harness) {
    let (pool, _room) = h.bounded_pool().await;
    let (driver, new) = (h.driver(), NewImage { size: mib(8), ..new_image(pool, "bounded") });
    let huge = NewImage { size: Size::LARGEST, ..new.clone() };
    // Whether it is there or not, and as often as somebody asks.
    for is_there in [false, true] {
        if is_there {
            driver.create(&new).await.unwrap();
        }
        for _ in 0..2 {
            driver.fits(&new.image, mib(64)).await.unwrap();
            let error = driver.fits(&new.image, huge.size).await.unwrap_err();
            assert!(matches!(&error, ImageError::TooLarge { .. }), "{error:?}");
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.to_string().contains(": the largest "), "{error}");
            let refused = match is_there {
                true => driver.resize(&new.image, huge.size).await.map(drop),
                false => driver.create(&huge).await.map(drop),
            };
            assert_eq!(refused.unwrap_err().to_string(), error.to_string());
        }
        let found = driver.find(&new.image).await.unwrap();
        assert_eq!(found.map(|found| found.size), is_there.then_some(8 << 20));
    }
    let one = super::snapshots::at(&new.image, "one");
    driver.snapshot_create(&one).await.unwrap();
    let clone = super::snapshots::new_clone(one, "huge");
    let clone = NewClone { size: huge.size, ..clone };
    let error = driver.snapshot_clone(&clone).await.unwrap_err();
    assert!(matches!(&error, ImageError::TooLarge { .. }), "{error:?}");
    assert_eq!(driver.find(&clone.image).await.unwrap(), None);
    assert_eq!(driver.unfinished().await.unwrap().iter().find(|it| it.uid == clone.uid), None);
}

pub async fn unfinished_images_are_found_and_dropped(h: &impl Harness) {
    let (driver, faults) = h.breakable();
    let new = new_image(h.pool(), "half");
    faults.break_nth(1, volstorage::fake::Fault::Dies);
    driver.create(&new).await.unwrap_err();
    drop(driver);
    faults.revive();
    let driver = h.driver();
    let left = unfinished(&*driver, &new).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((&left[0].pool, left[0].uid), (&h.pool(), new.uid));
    for _ in 0..2 {
        driver.drop_unfinished(&left[0]).await.unwrap();
    }
    assert_nothing(h, &new).await;
    // A volume's image is never taken for one.
    driver.create(&new).await.unwrap();
    let finished = Unfinished { name: new.image.name.clone(), ..left[0].clone() };
    driver.drop_unfinished(&finished).await.unwrap_err();
    assert!(driver.find(&new.image).await.unwrap().is_some());
}

pub async fn a_dropped_call_comes_to_its_end(h: &impl Harness) {
    let (driver, new) = (h.driver(), new_image(h.pool(), "dropped"));
    let call = tokio::spawn({
        let (driver, new) = (driver.clone(), new.clone());
        async move { driver.create(&new).await }
    });
    super::harness::until("the create to be under way", || async {
        let begun = !h.names(&new.uid.to_string()).await.is_empty();
        (begun || call.is_finished()).then_some(())
    })
    .await;
    call.abort();
    super::harness::until("the image", || async { driver.find(&new.image).await.unwrap() }).await;
    super::harness::until("its end", || async {
        h.names(&new.uid.to_string()).await.is_empty().then_some(())
    })
    .await;
}

pub async fn check_describes_the_store(h: &impl Harness) {
    let driver = h.driver();
    // The first call may have to connect.
    driver.check().await.unwrap();
    let text = driver.check().await.unwrap();
    assert!(text.contains("pools ") && text.contains(h.pool().as_str()), "{text}");
    let image = ImageName { pool: h.pool(), name: "t.v".to_owned() };
    let (one, two) = (driver.source(&image), h.driver().source(&image));
    assert_eq!(one, two, "where hosts find an image does not depend on who asks");
}
