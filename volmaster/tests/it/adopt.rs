//! Adopting images that are there: whatever breaks, dies or is done twice, an image is a volume's or what it was before.

use uuid::Uuid;
use volcore::Kind;
use volcore::live::LiveChange;
use volcore::options::OptionSet;
use volcore::volume::VolumeState;
use volmaster::app::mounts::mount_claim;
use volmaster::app::snapshots::{snapshot_create, snapshot_list};
use volmaster::app::volumes::{
    Creation, RemoveAsk, VolumeError, volume_adopt, volume_create, volume_get, volume_remove,
    volume_set,
};
use volmaster::app::{App, Failing};
use volstorage::fake::image::FakeImage;
use volstorage::faults::Fault;
use volstorage::image::SnapshotUsage;

use crate::faults::{EVERYTHING, Run, Wrong, ask, broken_reconcilers, within};
use crate::mortal::{Mortal, When};
use crate::stage::{Stage, image, no_options, volume};

fn options(pairs: &[(&str, &str)]) -> OptionSet {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    OptionSet::from_driver_options(&pairs.collect()).unwrap()
}

/// The image of a volume that was forgotten, with a snapshot and data; and what it was, for comparison.
async fn left_behind() -> (Stage, FakeImage) {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    volume_create(&app, &volume("t/v"), &options(&[("size", "20MB")])).await.unwrap();
    stage.images.write(&image("t/v"), 0, b"kept");
    snapshot_create(&app, &volume("t/v"), &"before".parse().unwrap()).await.unwrap();
    volume_remove(&app, &volume("t/v"), RemoveAsk::MetadataOnly).await.unwrap();
    let was = there(&stage);
    (stage, was)
}

fn there(stage: &Stage) -> FakeImage {
    stage.images.images(&"rbd".parse().unwrap()).remove(0)
}

async fn adopt(app: &App) -> Result<Creation, VolumeError> {
    volume_adopt(app, &volume("t/v"), &no_options()).await
}

/// Either nobody has it and it is what it was, or the volume is there, and the image is its own and whole.
async fn check(what: &str, stage: &Stage, was: &FakeImage) -> bool {
    let left = stage.left().await;
    let is = there(stage);
    let Some(found) = stage.records().volume(&volume("t/v")).await.unwrap() else {
        assert_eq!(left, ["image t.v"], "{what}");
        assert_eq!(is, *was, "{what}");
        return false;
    };
    assert!(matches!(found.value.state, VolumeState::Ready { .. }), "{what}: {found:?}");
    assert_eq!(left, ["volumes/t/v", "image t.v"], "{what}");
    assert_eq!(is, FakeImage { uid: Some(found.value.uid), ..was.clone() }, "{what}");
    assert_ne!(is.uid, was.uid, "{what}");
    assert_eq!(found.value.spec.size.to_string(), "20 MiB", "{what}");
    true
}

#[tokio::test(start_paused = true)]
async fn adopting_whatever_goes_wrong() {
    for carries in [true, false] {
        for wrong in EVERYTHING {
            for nth in 1.. {
                let what = format!("adopting (uid: {carries}) with {wrong:?} at {nth}");
                let (stage, mut was) = left_behind().await;
                if !carries {
                    stage.images.change(&image("t/v"), |image| image.uid = None);
                    was.uid = None;
                }
                let run = Run::arm(&stage, wrong, nth).await;
                let outcome = within(adopt(&run.app)).await;
                let fired = run.end().await;
                let app = stage.app();
                stage.settle(&app).await;
                let done = check(&what, &stage, &was).await;
                assert!(done || !matches!(outcome, Some(Ok(_))), "{what} was said to have worked");
                // And again, as whoever asked for it will do.
                adopt(&app).await.unwrap_or_else(|error| panic!("{what}, again: {error}"));
                stage.settle(&app).await;
                assert!(check(&what, &stage, &was).await, "{what}, again");
                let again = adopt(&app).await.unwrap();
                assert!(matches!(again, Creation::Unchanged(_)), "{what}: {again:?}");
                if !fired {
                    assert!(matches!(outcome, Some(Ok(_))), "{what}: {outcome:?}");
                    assert!(nth > 1, "{wrong:?} never happens");
                    break;
                }
            }
        }
    }
}

/// The reconcilers break and die at every step after a death in the middle, going on and going back.
#[tokio::test(start_paused = true)]
async fn its_reconcilers_whatever_goes_wrong() {
    for goes_back in [false, true] {
        for death in [Wrong::Image(Fault::Dies), Wrong::Death(When::After)] {
            for wrong in EVERYTHING {
                for nth in 1.. {
                    let what = format!("back: {goes_back}, {death:?}, then {wrong:?} at {nth}");
                    let (stage, was) = left_behind().await;
                    let run = Run::arm(&stage, death, 1).await;
                    within(adopt(&run.app)).await;
                    assert!(run.end().await);
                    if goes_back {
                        let mortal = Mortal::new(&stage);
                        let app = mortal.app(&stage);
                        mortal.die_at(1, When::After);
                        let id = volume("t/v");
                        within(volume_remove(&app, &id, RemoveAsk::default())).await;
                        assert!(mortal.is_dead());
                    }
                    let fired = broken_reconcilers(&stage, wrong, nth).await;
                    stage.settle(&stage.app()).await;
                    let done = check(&what, &stage, &was).await;
                    assert!(!(goes_back && done), "{what}");
                    if !fired {
                        assert!(done || goes_back, "{what}");
                        break;
                    }
                }
            }
        }
    }
}

/// Whoever is late finds the volume made, or the image given back, and spoils neither.
#[tokio::test(start_paused = true)]
async fn two_at_once_and_one_who_changes_his_mind() {
    for removes in [false, true] {
        let (stage, was) = left_behind().await;
        let slow = Mortal::new(&stage);
        let (late, gate) = (slow.app(&stage), slow.gate_images());
        let first = tokio::spawn(async move { adopt(&late).await });
        gate.reached().await;
        let app = stage.app();
        if removes {
            let removal = volume_remove(&app, &volume("t/v"), RemoveAsk::default()).await.unwrap();
            assert_eq!(removal.left.to_string(), "image /fake/rbd/t.v");
        } else {
            adopt(&app).await.unwrap();
        }
        gate.open();
        let outcome = first.await.unwrap();
        assert_eq!(outcome.is_err(), removes, "{outcome:?}");
        stage.settle(&app).await;
        assert_eq!(check("two at once", &stage, &was).await, !removes);
    }
    // One who fails when another has made it a volume, which is in use by now, is not in its way.
    let (stage, was) = left_behind().await;
    let slow = Mortal::new(&stage);
    let (late, gate) = (slow.app(&stage), slow.gate_images());
    let first = tokio::spawn(async move { adopt(&late).await });
    gate.reached().await;
    let app = stage.app();
    adopt(&app).await.unwrap();
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
    stage.images.faults().break_nth(1, Fault::Fails);
    gate.open();
    assert!(matches!(first.await.unwrap(), Ok(Creation::Created(_))));
    stage.images.faults().revive();
    let uid = there(&stage).uid;
    assert!(uid.is_some() && uid != was.uid);
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_adopted_volume_is_one_like_any_other() {
    let (stage, was) = left_behind().await;
    let app = stage.app();
    let asked = options(&[("rate-limit.write.bps", "2MB"), ("size", "20MB")]);
    let adopted = volume_adopt(&app, &volume("t/v"), &asked).await.unwrap();
    let Creation::Created(adopted) = adopted else { panic!("{adopted:?}") };
    assert_eq!(adopted.last_error, None);
    let [wanted, has] = stage.limits(&volume("t/v")).await;
    assert_eq!((wanted, wanted.write_bps.is_some()), (has, true));
    let again = volume_adopt(&app, &volume("t/v"), &asked).await.unwrap();
    assert!(matches!(again, Creation::Unchanged(_)), "{again:?}");
    let other = volume_adopt(&app, &volume("t/v"), &options(&[("size", "1GB")])).await;
    insta::assert_snapshot!(other.unwrap_err(), @"volume t/v exists with other options: size is 20 MiB, asked for 1 GiB; what is live can be changed with `volcli volume set` and `volcli volume resize`");
    let listed = snapshot_list(&app, &volume("t/v"), SnapshotUsage::Skip).await.unwrap();
    assert_eq!(listed.len(), 1, "its snapshots stay");
    let larger = [("size".to_owned(), "30MB".to_owned())].into();
    let larger = LiveChange::from_driver_options(&larger).unwrap();
    volume_set(&app, &volume("t/v"), &larger).await.unwrap();
    assert_eq!((there(&stage).size, there(&stage).id), (30 << 20, was.id));
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
    volume_remove(&app, &volume("t/v"), RemoveAsk::default()).await.unwrap_err();
    let release = volmaster::app::mounts::ReleaseAsk::Force;
    volmaster::app::mounts::mount_release(&app, &volume("t/v"), &release).await.unwrap();
    volume_remove(&app, &volume("t/v"), RemoveAsk::default()).await.unwrap();
    stage.settle(&app).await;
    assert!(stage.left().await.is_empty(), "{:?}", stage.left().await);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_adopted_is_left_alone_and_named() {
    let (stage, was) = left_behind().await;
    let app = stage.app();
    let refused = async |id: &str, pairs: &[(&str, &str)]| {
        let error = volume_adopt(&app, &volume(id), &options(pairs)).await.unwrap_err();
        (error.kind(), volapi::problem::chain(&error))
    };
    let no_image = refused("t/x", &[]).await;
    insta::assert_snapshot!(no_image.1, @"there is no image rbd/t.x that volume t/x could adopt: rename the one that is meant (`rbd rename rbd/NAME rbd/t.x`), or name its pool (--opt pool=POOL)");
    assert_eq!(no_image.0, Kind::NotFound);
    let no_pool = refused("t/v", &[("pool", "ssd")]).await;
    assert_eq!(no_pool.0, Kind::Invalid, "{}", no_pool.1);
    insta::assert_snapshot!(refused("u/v", &[]).await.1, @"tenant u does not exist: upload its policy with `volcli tenant upload u < policy.json`");
    insta::assert_snapshot!(refused("t/v", &[("size", "1GB")]).await.1, @"no image can be adopted for volume t/v: image rbd/t.v has 20 MiB, and is adopted as it is: leave size=1 GiB out, and make the volume larger afterwards (`volcli volume resize`)");
    insta::assert_snapshot!(refused("t/v", &[("from", "t/w")]).await.1, @"no image can be adopted for volume t/v: an image that is adopted was cloned from nothing here: leave from=t/w out");

    stage.images.watch(&image("t/v"), "10.0.0.9:0/1");
    let in_use = refused("t/v", &[]).await;
    assert_eq!(in_use.0, Kind::InUse);
    insta::assert_snapshot!(in_use.1, @"could not adopt an image for volume t/v: image rbd/t.v is in use by 10.0.0.9:0/1");
    stage.images.unwatch(&image("t/v"), "10.0.0.9:0/1");

    stage.images.add_foreign(&image("t/blank"));
    insta::assert_snapshot!(refused("t/blank", &[]).await.1, @"could not adopt an image for volume t/blank: image rbd/t.blank carries no file system that is known (ext4, xfs, btrfs): it may be blank, partitioned or encrypted; it was left as it is, for an image that is adopted is never formatted");
    stage.images.change(&image("t/blank"), |image| {
        image.format = Some("mkfs.xfs %".parse().unwrap());
        image.lacks_lock = true;
    });
    insta::assert_snapshot!(refused("t/blank", &[]).await.1, @"could not adopt an image for volume t/blank: image rbd/t.blank lacks the feature exclusive-lock; `rbd feature enable rbd/t.blank exclusive-lock` gives it that");
    stage.images.change(&image("t/blank"), |image| image.lacks_lock = false);
    insta::assert_snapshot!(refused("t/blank", &[]).await.1, @"no image can be adopted for volume t/blank: image rbd/t.blank has xfs on it, and the volume would have file system ext4: give the one of the tenant's policy that is xfs (--opt filesystem=xfs); an image that is adopted is never formatted");

    // It is the image of a volume that is there, which somebody has renamed.
    volume_create(&app, &volume("t/w"), &no_options()).await.unwrap();
    let owner = volume_get(&app, &volume("t/w")).await.unwrap().0.uid;
    stage.images.change(&image("t/blank"), |image| image.uid = Some(owner));
    let anothers = refused("t/blank", &[]).await;
    assert_eq!(anothers.0, Kind::Conflict);
    insta::assert_snapshot!(anothers.1, @"image rbd/t.blank cannot be adopted for volume t/blank: it is the image of volume t/w, and was left as it is; `volcli volume force-remove t/w` forgets that volume and leaves the image");

    assert_eq!(stage.keys("volumes/").await, ["volumes/t/w"]);
    let images = stage.images.images(&"rbd".parse().unwrap());
    assert_eq!(images.iter().find(|image| image.name == "t.v"), Some(&was));
}

/// An outage in the middle is waited for by the record, and nobody gets at the volume meanwhile.
#[tokio::test(start_paused = true)]
async fn an_adoption_that_does_not_end_keeps_everybody_out() {
    let (stage, was) = left_behind().await;
    let slow = Mortal::new(&stage);
    let (late, gate) = (slow.app(&stage), slow.gate_images());
    let first = tokio::spawn(async move { adopt(&late).await });
    gate.reached().await;
    stage.images.go_down();
    gate.open();
    assert_eq!(first.await.unwrap().unwrap_err().kind(), Kind::Unavailable);
    let app = stage.app();
    let claim = mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap_err();
    insta::assert_snapshot!(claim, @"volume t/v is adopting; it cannot be mounted now");
    let (shown, _) = volume_get(&app, &volume("t/v")).await.unwrap();
    assert!(shown.last_error.is_some_and(|error| error.contains("cannot be reached")));
    volume_remove(&app, &volume("t/v"), RemoveAsk::default()).await.unwrap_err();
    let create = volume_create(&app, &volume("t/v"), &no_options()).await.unwrap_err();
    insta::assert_snapshot!(create, @"volume t/v is being removed; try again when that is done");
    let again = adopt(&app).await.unwrap_err();
    insta::assert_snapshot!(again, @"volume t/v is giving-back, and has an image of its own; see `volcli volume get t/v`");
    stage.images.come_up();
    stage.settle(&app).await;
    assert!(!check("an outage", &stage, &was).await);
    let adopted = adopt(&app).await.unwrap();
    assert!(matches!(adopted, Creation::Created(volume) if volume.uid != Uuid::nil()));
}
