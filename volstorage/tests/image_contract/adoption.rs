//! What holds for adoptions with every driver, also with every step broken.

use std::num::NonZeroU64;

use uuid::Uuid;
use volcore::Kind;
use volcore::filesystem::FilesystemKind;
use volcore::limit::RateLimits;
use volcore::volume::ImageName;
use volstorage::image::{
    Adoptable, Adoption, ImageDriver, ImageError, Inspection, NewImage, SnapshotUsage,
};

use super::breaking::{Case, FAULTS, each, with_fault};
use super::harness::{Harness, new_image, until};
use super::snapshots::{assert_same, at, made, trash};

/// Makes these tests those of a module that has a `async fn harness() -> impl Harness`.
#[macro_export]
macro_rules! adoption_contract {
    ($($test:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                $crate::adoption::$test(&harness().await).await;
            }
        )+
    };
    () => {
        $crate::adoption_contract!(
            an_image_is_adopted_and_given_back,
            an_image_of_nobody_is_adopted_and_given_back,
            what_cannot_be_adopted_is_left_alone,
            adopt_with_every_step_broken,
            give_back_with_every_step_broken,
            all_images_are_listed,
            an_image_is_inspected,
        );
    };
}

/// The image of a volume that is no more, with a snapshot; and how it becomes another's.
async fn left_behind(h: &dyn Harness) -> (NewImage, Adoption) {
    let (driver, new) = (h.driver(), made(h, "former").await);
    driver.snapshot_create(&at(&new.image, "one")).await.unwrap();
    let adoption = adoption(&*driver, &new.image).await;
    assert_eq!(adoption.former, Some(new.uid));
    (new, adoption)
}

async fn adoption(driver: &dyn ImageDriver, image: &ImageName) -> Adoption {
    let Adoptable { id, uid, .. } = driver.adoptable(image).await.unwrap();
    Adoption { image: image.clone(), image_id: id, uid: Uuid::new_v4(), former: uid }
}

/// The image belongs to this volume, and its snapshot came along.
async fn assert_belongs(driver: &dyn ImageDriver, image: &ImageName, uid: Uuid, what: &str) {
    let found = driver.find(image).await.unwrap().expect("the image");
    assert_eq!(found.uid, Some(uid), "{what}");
    let listed = driver.snapshot_list(image, SnapshotUsage::Skip).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|snapshot| snapshot.name.as_str()).collect();
    assert_eq!(names, ["one"], "{what}");
}

pub async fn an_image_is_adopted_and_given_back(h: &impl Harness) {
    let (new, adoption) = left_behind(h).await;
    let (driver, content) = (h.driver(), h.content(&new.image).await);
    let found = driver.adoptable(&new.image).await.unwrap();
    assert_eq!((found.size, found.filesystem), (8 << 20, FilesystemKind::Ext4));
    let id = driver.adopt(&adoption).await.unwrap();
    for _ in 0..2 {
        assert_eq!(h.driver().adopt(&adoption).await.unwrap(), id);
        assert_belongs(&*driver, &new.image, adoption.uid, "adopted").await;
        assert_eq!(driver.find(&new.image).await.unwrap().expect("it").id, id);
    }
    assert_same(&h.content(&new.image).await, &content, "adopted");
    assert_same(&h.snapshot_content(&at(&new.image, "one")).await, &content, "adopted");
    for _ in 0..2 {
        driver.give_back(&adoption).await.unwrap();
        assert_belongs(&*driver, &new.image, new.uid, "given back").await;
        assert_eq!(driver.find(&new.image).await.unwrap().expect("it").id, adoption.image_id);
    }
    assert_same(&h.content(&new.image).await, &content, "given back");
    assert_same(&h.snapshot_content(&at(&new.image, "one")).await, &content, "given back");
    // It is the new volume's in every respect: it is thrown away and comes back with its snapshots.
    driver.adopt(&adoption).await.unwrap();
    let owned = NewImage { uid: adoption.uid, ..new.clone() };
    let trashed = trash(&*driver, &owned).await;
    driver.restore(&trashed, &new.image.name).await.unwrap();
    assert_belongs(&*driver, &new.image, adoption.uid, "out of the trash").await;
    driver.snapshot_rollback(&at(&new.image, "one")).await.unwrap();
    let trashed = trash(&*driver, &owned).await;
    driver.purge(&trashed).await.unwrap();
    // One that is gone is left alone.
    driver.give_back(&adoption).await.unwrap();
    let error = driver.adopt(&adoption).await.unwrap_err();
    assert!(matches!(error, ImageError::NoImage { .. }), "{error:?}");
    super::suite::assert_nothing(h, &owned).await;
    assert_eq!(h.names(&new.uid.to_string()).await, [""; 0]);
}

/// An image that carries no volume, as an operator makes one.
async fn nobodys(h: &dyn Harness) -> NewImage {
    let (driver, new) = (h.driver(), made(h, "nobodys").await);
    let Adoptable { id, .. } = driver.adoptable(&new.image).await.unwrap();
    let made = Adoption { image: new.image.clone(), image_id: id, uid: new.uid, former: None };
    driver.give_back(&made).await.unwrap();
    assert_eq!(driver.find(&new.image).await.unwrap().expect("it").uid, None);
    new
}

pub async fn an_image_of_nobody_is_adopted_and_given_back(h: &impl Harness) {
    let (driver, new) = (h.driver(), nobodys(h).await);
    let adoption = adoption(&*driver, &new.image).await;
    assert_eq!(adoption.former, None);
    let id = driver.adopt(&adoption).await.unwrap();
    let found = driver.find(&new.image).await.unwrap().expect("it");
    assert_eq!((found.uid, &found.id), (Some(adoption.uid), &id));
    driver.give_back(&adoption).await.unwrap();
    let found = driver.find(&new.image).await.unwrap().expect("it");
    assert_eq!((found.uid, &found.id), (None, &adoption.image_id));
    driver.adopt(&adoption).await.unwrap();
    driver.snapshot_create(&at(&new.image, "one")).await.unwrap();
    assert_belongs(&*driver, &new.image, adoption.uid, "of nobody").await;
}

pub async fn what_cannot_be_adopted_is_left_alone(h: &impl Harness) {
    let (driver, new) = (h.driver(), new_image(h.pool(), "blank"));
    let error = driver.adoptable(&new.image).await.unwrap_err();
    assert!(matches!(error, ImageError::NoImage { .. }), "{error:?}");
    h.add_foreign(&new.image).await;
    let error = driver.adoptable(&new.image).await.unwrap_err();
    assert!(matches!(error, ImageError::NoFilesystem { .. }), "{error:?}");
    h.assert_foreign(&new.image).await;
    let lost = new_image("nonesuch".parse().unwrap(), "lost");
    let error = driver.adoptable(&lost.image).await.unwrap_err();
    assert!(matches!(error, ImageError::NoPool { .. }), "{error:?}");

    let (new, adoption) = left_behind(h).await;
    for other in [
        Adoption { former: None, ..adoption.clone() },
        Adoption { former: Some(Uuid::new_v4()), ..adoption.clone() },
        Adoption { image_id: "0123456789ab".to_owned(), ..adoption.clone() },
    ] {
        let error = driver.adopt(&other).await.unwrap_err();
        assert!(matches!(error, ImageError::Foreign { .. }), "{error:?}");
        driver.give_back(&other).await.unwrap();
    }
    assert_belongs(&*driver, &new.image, new.uid, "of another").await;
    let user = h.open(&new.image).await;
    let watchers = driver.find(&new.image).await.unwrap().expect("it").watchers;
    let errors = [
        driver.adoptable(&new.image).await.err().unwrap(),
        driver.adopt(&adoption).await.err().unwrap(),
    ];
    for error in errors {
        assert_eq!(error.kind(), Kind::InUse);
        let ImageError::InUse { watchers: named, .. } = error else { panic!("{error:?}") };
        assert_eq!(named, watchers);
    }
    drop(user);
    until("the user to be gone", || async { driver.adopt(&adoption).await.ok() }).await;
    // Whoever has it open now is not in the way of one that goes on, or back.
    let _user = h.open(&new.image).await;
    driver.adopt(&adoption).await.unwrap();
    driver.give_back(&adoption).await.unwrap();
    assert_belongs(&*driver, &new.image, new.uid, "in use").await;
}

pub async fn adopt_with_every_step_broken(h: &impl Harness) {
    for fault in FAULTS {
        for goes_on in [true, false] {
            let effects = each(h, fault, async |h, case: Case| {
                let (new, adoption) = left_behind(h).await;
                let (answer, reached) = with_fault(&case, case.driver.adopt(&adoption)).await;
                let text = case.text();
                assert_eq!(answer.is_err(), reached, "{text}");
                case.faults.revive();
                drop(case);
                let driver = h.driver();
                let owner = if goes_on {
                    driver.adopt(&adoption).await.unwrap();
                    adoption.uid
                } else {
                    driver.give_back(&adoption).await.unwrap();
                    new.uid
                };
                assert_belongs(&*driver, &new.image, owner, &text).await;
                reached
            })
            .await;
            assert!(effects >= 1);
        }
    }
}

pub async fn give_back_with_every_step_broken(h: &impl Harness) {
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let (new, adoption) = left_behind(h).await;
            h.driver().adopt(&adoption).await.unwrap();
            let (answer, reached) = with_fault(&case, case.driver.give_back(&adoption)).await;
            let text = case.text();
            assert_eq!(answer.is_err(), reached, "{text}");
            case.faults.revive();
            drop(case);
            let driver = h.driver();
            driver.give_back(&adoption).await.unwrap();
            assert_belongs(&*driver, &new.image, new.uid, &text).await;
            reached
        })
        .await;
        assert!(effects >= 1);
    }
}

pub async fn all_images_are_listed(h: &impl Harness) {
    let (driver, kept, thrown) = (h.driver(), made(h, "kept").await, made(h, "thrown").await);
    let foreign = new_image(h.pool(), "foreign");
    h.add_foreign(&foreign.image).await;
    let (breakable, faults) = h.breakable();
    let half = new_image(h.pool(), "half");
    faults.break_nth(1, volstorage::fake::Fault::Dies);
    breakable.create(&half).await.unwrap_err();
    faults.revive();
    let trashed = trash(&*driver, &thrown).await;
    let bps = |limit| RateLimits { write_bps: NonZeroU64::new(limit), ..RateLimits::default() };
    driver.limit(&kept.image, &bps(7 << 20)).await.unwrap();
    let stock = driver.stock().await.unwrap();
    assert!(stock.pools.contains(&h.pool()));
    let image = |name: &str| stock.images.iter().find(|one| one.name == name).cloned();
    let found = image(&kept.image.name).expect("the image");
    assert_eq!((found.uid, found.size, &found.pool), (Some(kept.uid), Some(8 << 20), &h.pool()));
    assert_eq!(found.id, driver.find(&kept.image).await.unwrap().expect("it").id);
    assert_eq!(found.limits, h.limits(&kept.image).await);
    let nobodys = image(&foreign.image.name).expect("the foreign one");
    assert_eq!((nobodys.uid, nobodys.limits), (None, None));
    assert_eq!(image(&thrown.image.name), None);
    assert!(!stock.images.iter().any(|one| one.name.contains(&half.uid.to_string())));
    let gone = stock.trash.iter().find(|one| one.id == trashed.id).expect("in the trash");
    assert_eq!((gone.uid, &gone.pool), (Some(thrown.uid), &h.pool()));
}

pub async fn an_image_is_inspected(h: &impl Harness) {
    let (driver, new) = (h.driver(), made(h, "inspected").await);
    let inspect = async |image: &ImageName| driver.inspect(image).await.unwrap();
    assert_eq!(inspect(&new.image).await, Some(Inspection::default()));
    driver.snapshot_create(&at(&new.image, "one")).await.unwrap();
    let open = h.open(&new.image).await;
    let found = inspect(&new.image).await.expect("the image");
    assert_eq!(found.snapshots, ["one".parse().unwrap()]);
    assert_eq!(found.watchers, driver.find(&new.image).await.unwrap().expect("it").watchers);
    assert!(!found.watchers.is_empty());
    drop(open);
    until("it is closed", async || {
        inspect(&new.image).await.filter(|found| found.watchers.is_empty())
    })
    .await;
    let foreign = new_image(h.pool(), "foreign").image;
    assert_eq!(inspect(&foreign).await, None);
    h.add_foreign(&foreign).await;
    assert_eq!(inspect(&foreign).await, Some(Inspection::default()));
    let nowhere = ImageName { pool: "nowhere".parse().unwrap(), ..foreign };
    assert_eq!(inspect(&nowhere).await, None);
}
