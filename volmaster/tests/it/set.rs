//! Live changes: whatever breaks, dies or is done twice or at once, the image comes to have the limits of the record.

use std::sync::Arc;

use volcore::limit::RateLimits;
use volcore::live::LiveChange;
use volmaster::app::mounts::mount_claim;
use volmaster::app::status::status_get;
use volmaster::app::volumes::{
    RemoveAsk, Setting, VolumeError, volume_create, volume_remove, volume_set,
};
use volmaster::app::{App, Failing, LoopName};
use volmaster::background::{self, Seen};
use volstore::store::Store;

use crate::faults::{EVERYTHING, Run, Wrong, ask, broken_reconcilers, within};
use crate::mortal::{Hang, Mortal, When};
use crate::stage::{Stage, no_options, volume};

fn bps(value: &str) -> LiveChange {
    let options = [("rate-limit.write.bps".to_owned(), value.to_owned())].into();
    LiveChange::from_driver_options(&options).unwrap()
}

async fn set(app: &App, value: &str) -> Result<Setting, VolumeError> {
    volume_set(app, &volume("t/v"), &bps(value)).await
}

/// What the record and the image say.
async fn written(stage: &Stage) -> [Option<u64>; 2] {
    let limit = |limits: RateLimits| limits.write_bps.map(std::num::NonZeroU64::get);
    stage.limits(&volume("t/v")).await.map(limit)
}

async fn furnished() -> Stage {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    volume_create(&app, &volume("t/v"), &no_options()).await.unwrap();
    set(&app, "1").await.unwrap();
    stage.settle(&app).await;
    stage
}

#[tokio::test(start_paused = true)]
async fn a_change_whatever_goes_wrong() {
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("a change with {wrong:?} at {nth}");
            let stage = furnished().await;
            let run = Run::arm(&stage, wrong, nth).await;
            let outcome = within(set(&run.app, "2")).await;
            let fired = run.end().await;
            let app = stage.app();
            let [record, image] = written(&stage).await;
            match outcome {
                Some(Ok(Setting::Changed(shown) | Setting::Unchanged(shown))) => {
                    assert_eq!(record, Some(2), "{what} was said to have worked");
                    // An answer that was lost is an error, and may have been carried out.
                    let told = shown.last_error.is_some();
                    assert!(told || image == Some(2), "{what} is not in the image");
                }
                Some(Err(_)) | None => {}
            }
            stage.settle(&app).await;
            assert_eq!(written(&stage).await, [record, record], "{what}");
            let again = set(&app, "2").await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(written(&stage).await, [Some(2), Some(2)], "{what}, again: {again:?}");
            stage.settle(&app).await;
            assert_eq!(stage.left().await.len(), 2, "{what}: {:?}", stage.left().await);
            if !fired {
                assert!(nth > 1, "{wrong:?} never happens");
                break;
            }
        }
    }
}

/// The reconciler itself breaks and dies at every step, after every death of a change.
#[tokio::test(start_paused = true)]
async fn its_reconciler_whatever_goes_wrong() {
    for death in [When::Before, When::After] {
        for wrong in EVERYTHING {
            for nth in 1.. {
                let stage = furnished().await;
                let run = Run::arm(&stage, Wrong::Death(death), 1).await;
                within(set(&run.app, "2")).await;
                run.end().await;
                let fired = broken_reconcilers(&stage, wrong, nth).await;
                stage.settle(&stage.app()).await;
                let expected = if death == When::Before { Some(1) } else { Some(2) };
                let what = format!("{death:?}, then {wrong:?} at {nth}");
                assert_eq!(written(&stage).await, [expected, expected], "{what}");
                if !fired {
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_again_writes_nothing() {
    let stage = furnished().await;
    let app = stage.app();
    let before = stage.store.revision().await.unwrap();
    assert!(matches!(set(&app, "1").await.unwrap(), Setting::Unchanged(_)));
    assert_eq!(stage.store.revision().await.unwrap(), before);
    // The image is asked nothing either.
    stage.images.go_down();
    assert!(matches!(set(&app, "1").await.unwrap(), Setting::Unchanged(_)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_images_is_made_up_for() {
    let stage = furnished().await;
    let app = stage.app();
    stage.images.go_down();
    let Setting::Changed(shown) = set(&app, "2").await.unwrap() else { panic!() };
    insta::assert_snapshot!(shown.last_error.unwrap(), @"the fake cluster cannot be reached while trying to resize image rbd/t.v: the fake was told so");
    assert_eq!(written(&stage).await, [Some(2), Some(1)]);
    background::once(&app, LoopName::Volumes, &mut Seen::default()).await.unwrap();
    let pending = status_get(&app).await.loops.remove(0).pending;
    insta::assert_snapshot!(pending.join("\n"), @"t/v waits for its image to have the size and the limits of 1970-01-01T02:00:35Z: the fake cluster cannot be reached while trying to resize image rbd/t.v: the fake was told so");
    stage.images.come_up();
    // Whoever asks again has it at once, and it stays noted until nobody can be at it.
    let Setting::Unchanged(shown) = set(&app, "2").await.unwrap() else { panic!() };
    assert_eq!((shown.last_error, written(&stage).await), (None, [Some(2), Some(2)]));
    stage.settle(&app).await;
    let settled = stage.records().volume(&volume("t/v")).await.unwrap().unwrap().value;
    assert_eq!(settled.last_error, None);
}

/// A size that no image can have is refused before it is stored: it could never be taken back.
#[tokio::test(start_paused = true)]
async fn an_impossible_size_is_refused_and_stored_nowhere() {
    let stage = furnished().await;
    let app = stage.app();
    let before = stage.store.revision().await.unwrap();
    let change = |size: &str| {
        let options = [("size", size), ("rate-limit.write.bps", "2")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        LiveChange::from_driver_options(&options.into()).unwrap()
    };
    let error = volume_set(&app, &volume("t/v"), &change("900TB")).await.unwrap_err();
    assert_eq!(error.kind(), volcore::Kind::Invalid);
    insta::assert_snapshot!(volapi::problem::chain(&error), @"could not resize volume t/v: image rbd/t.v is too large to be made: the largest image in the fake has 128 TiB");
    volume_set(&app, &volume("t/v"), &change("900TB")).await.unwrap_err();
    assert_eq!(stage.store.revision().await.unwrap(), before);
    assert_eq!(written(&stage).await, [Some(1), Some(1)]);
    // The largest there is, and what else was asked with it.
    volume_set(&app, &volume("t/v"), &change("128TB")).await.unwrap();
    stage.settle(&app).await;
    let found = stage.records().volume(&volume("t/v")).await.unwrap().unwrap().value;
    assert_eq!((found.spec.size.bytes(), found.last_error), (128 << 40, None));
    assert_eq!(written(&stage).await, [Some(2), Some(2)]);
}

/// One is slow at the image: another's later change is not lost behind it.
#[tokio::test(start_paused = true)]
async fn who_comes_late_to_the_image_writes_what_the_record_says() {
    for dies in [false, true] {
        let stage = furnished().await;
        let slow = Mortal::new(&stage);
        let (first, second) = (slow.app(&stage), stage.app());
        let gate = slow.gate_limit();
        let setting = tokio::spawn(async move { set(&first, "2").await });
        gate.reached().await;
        set(&second, "3").await.unwrap();
        assert_eq!(written(&stage).await, [Some(3), Some(3)]);
        if dies {
            // Right after its late write: nobody is left who would look again but the reconciler.
            slow.hang(Hang::All);
            gate.open();
            let late = async || written(&stage).await == [Some(3), Some(2)];
            while !late().await {
                tokio::task::yield_now().await;
            }
            setting.abort();
        } else {
            gate.open();
            setting.await.unwrap().unwrap();
            assert_eq!(written(&stage).await, [Some(3), Some(3)]);
        }
        stage.settle(&second).await;
        assert_eq!(written(&stage).await, [Some(3), Some(3)], "dies: {dies}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_end_as_one() {
    let stage = Stage::new().await;
    let apps = [stage.app(), stage.app()];
    volume_create(&apps[0], &volume("t/v"), &no_options()).await.unwrap();
    let one = |n: usize| {
        let app = apps[n % 2].clone();
        tokio::spawn(async move { set(&app, &(n + 1).to_string()).await })
    };
    let all: Vec<_> = (0..16).map(one).collect();
    for one in all {
        match one.await.unwrap() {
            Ok(_) => {}
            Err(error) => assert!(matches!(error, VolumeError::Contended { .. }), "{error}"),
        }
    }
    let [record, image] = written(&stage).await;
    assert_eq!(record, image);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_ready_is_changed() {
    let stage = furnished().await;
    let app: Arc<App> = stage.app();
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
    set(&app, "5").await.unwrap();
    let slow = Mortal::new(&stage);
    let making = slow.app(&stage);
    let gate = slow.gate_images();
    let create =
        tokio::spawn(async move { volume_create(&making, &volume("t/w"), &no_options()).await });
    gate.reached().await;
    let error = volume_set(&app, &volume("t/w"), &bps("5")).await.unwrap_err();
    insta::assert_snapshot!(error, @"volume t/w is creating; only a volume that is ready can be changed");
    assert_eq!(error.kind(), volcore::Kind::Busy);
    gate.open();
    create.await.unwrap().unwrap();
    volume_remove(&app, &volume("t/w"), RemoveAsk::default()).await.unwrap();
    let error = volume_set(&app, &volume("t/w"), &bps("5")).await.unwrap_err();
    assert_eq!(error.kind(), volcore::Kind::NotFound);
}

/// A removal that comes to nothing leaves what was pending pending.
#[tokio::test(start_paused = true)]
async fn a_removal_that_is_refused_loses_no_change() {
    let stage = furnished().await;
    let slow = Mortal::new(&stage);
    let (first, second) = (slow.app(&stage), stage.app());
    let gate = slow.gate_limit();
    let setting = tokio::spawn(async move { set(&first, "2").await });
    gate.reached().await;
    slow.hang(Hang::All);
    stage.images.watch(&crate::stage::image("t/v"), "10.0.0.9:0/1");
    volume_remove(&second, &volume("t/v"), RemoveAsk::default()).await.unwrap_err();
    setting.abort();
    stage.settle(&second).await;
    assert_eq!(written(&stage).await, [Some(2), Some(2)]);
}
