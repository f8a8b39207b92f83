//! The trash: what was removed comes back as it was, or goes for good, whatever breaks.

use volcore::duration::TrashRetention;
use volcore::global::Global;
use volcore::name::VolumeId;
use volcore::options::OptionSet;
use volcore::volume::{Disposal, VolumeState};
use volmaster::app::global::global_upload;
use volmaster::app::trash::{TrashError, trash_get, trash_list, trash_purge, trash_restore};
use volmaster::app::volumes::{RemoveAsk, volume_create, volume_get, volume_remove};
use volmaster::app::{App, Failing};

use crate::faults::{EVERYTHING, Run, within};
use crate::stage::{Stage, image, no_options, volume};

const DATA: &[u8] = b"kept";

/// `t/v`, removed and in the trash, with its id there.
async fn thrown_away() -> (Stage, String) {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    let options = [("size".to_owned(), "20MB".to_owned())].into();
    let options = OptionSet::from_driver_options(&options).unwrap();
    volume_create(&app, &volume("t/v"), &options).await.unwrap();
    stage.images.write(&image("t/v"), 0, DATA);
    volume_remove(&app, &volume("t/v"), RemoveAsk::With(Disposal::Trash)).await.unwrap();
    let id = trash_list(&app).await.unwrap().remove(0).id;
    (stage, id)
}

fn is_whole(stage: &Stage, id: &str) -> bool {
    let images = stage.images.images(&"rbd".parse().unwrap());
    let found = images.into_iter().find(|found| found.name == volume(id).image_name());
    found.is_some_and(|found| found.data.starts_with(DATA) && found.size == 20 << 20)
}

#[tokio::test(start_paused = true)]
async fn restoring_whatever_goes_wrong() {
    for to in ["t/v", "t/w"] {
        for wrong in EVERYTHING {
            for nth in 1.. {
                let what = format!("restoring to {to} with {wrong:?} at {nth}");
                let (stage, id) = thrown_away().await;
                let target: VolumeId = volume(to);
                let restore = async |app: &App| {
                    let done = trash_restore(app, &id, Some(target.clone())).await;
                    done.map_err(|error| volapi::problem::chain(&error))
                };
                let run = Run::arm(&stage, wrong, nth).await;
                let outcome = within(restore(&run.app)).await;
                let fired = run.end().await;
                let app = stage.app();
                stage.settle(&app).await;
                let listed = trash_list(&app).await.unwrap();
                assert_eq!(listed.is_empty(), is_whole(&stage, to), "{what}: {listed:?}");
                if matches!(outcome, Some(Ok(_))) {
                    assert!(listed.is_empty(), "{what} was said to have worked");
                }
                let restored = restore(&app).await.unwrap_or_else(|why| panic!("{what}: {why}"));
                assert!(matches!(restored.state, VolumeState::Ready { .. }), "{what}");
                assert!(is_whole(&stage, to), "{what}");
                assert_eq!(restored.spec.size.to_string(), "20 MiB");
                // Whoever gave no name finds it as well.
                let again = trash_restore(&app, &id, None).await.map(|volume| volume.id);
                assert_eq!(again.unwrap(), target, "{what}");
                volume_remove(&app, &target, RemoveAsk::With(Disposal::Delete)).await.unwrap();
                stage.settle(&app).await;
                assert!(stage.left().await.is_empty(), "{what}: {:?}", stage.left().await);
                if !fired {
                    assert!(nth > 1, "{wrong:?} never happens");
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn purging_whatever_goes_wrong() {
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("purging with {wrong:?} at {nth}");
            let (stage, id) = thrown_away().await;
            let purge = async |app: &App| match trash_purge(app, &id).await {
                Ok(()) | Err(TrashError::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            let run = Run::arm(&stage, wrong, nth).await;
            within(async {
                purge(&run.app).await.ok();
                let mut seen = volmaster::background::Seen::default();
                let trash = volmaster::app::LoopName::Trash;
                volmaster::background::once(&run.app, trash, &mut seen).await.ok();
            })
            .await;
            let fired = run.end().await;
            let app = stage.app();
            stage.settle(&app).await;
            purge(&app).await.unwrap_or_else(|why| panic!("{what}: {why}"));
            stage.settle(&app).await;
            assert!(stage.left().await.is_empty(), "{what}: {:?}", stage.left().await);
            if !fired {
                assert!(nth > 1, "{wrong:?} never happens");
                break;
            }
        }
    }
}

/// From the moment at which somebody may have begun to free the space there is no way back.
#[tokio::test(start_paused = true)]
async fn what_is_being_purged_is_not_restored() {
    let (stage, id) = thrown_away().await;
    let app = stage.app();
    trash_purge(&app, &id).await.unwrap();
    stage.images.faults().break_nth(1, volstorage::faults::Fault::Fails);
    let mut seen = volmaster::background::Seen::default();
    let trash = volmaster::app::LoopName::Trash;
    volmaster::background::once(&app, trash, &mut seen).await.unwrap();
    stage.images.faults().revive();
    assert!(!trash_get(&app, &id).await.unwrap().restorable);
    let error = trash_restore(&app, &id, None).await.unwrap_err();
    assert_eq!(error.kind(), volcore::Kind::Conflict);
    assert!(error.to_string().contains("cannot be restored any more"), "{error}");
    stage.settle(&app).await;
    assert!(stage.left().await.is_empty(), "{:?}", stage.left().await);
}

#[tokio::test(start_paused = true)]
async fn it_is_kept_for_as_long_as_the_settings_say() {
    let (stage, id) = thrown_away().await;
    let app = stage.app();
    stage.settle(&app).await;
    let kept = trash_get(&app, &id).await.unwrap();
    let day = jiff::SignedDuration::from_hours(24);
    assert_eq!(kept.purge_after, Some(kept.removed_at + day));
    stage.pass(std::time::Duration::from_secs(24 * 3600));
    stage.settle(&app).await;
    assert!(stage.left().await.is_empty(), "{:?}", stage.left().await);
    let trash_retention: TrashRetention = "0s".parse().unwrap();
    global_upload(&app, Global { trash_retention, ..Global::default() }).await.unwrap();
    volume_create(&app, &volume("t/v"), &no_options()).await.unwrap();
    volume_remove(&app, &volume("t/v"), RemoveAsk::With(Disposal::Trash)).await.unwrap();
    stage.settle(&app).await;
    assert!(stage.left().await.is_empty(), "{:?}", stage.left().await);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_way_is_named() {
    let (stage, id) = thrown_away().await;
    let app = stage.app();
    volume_create(&app, &volume("t/v"), &no_options()).await.unwrap();
    let restore = async |to: Option<&str>| trash_restore(&app, &id, to.map(volume)).await;
    let exists = restore(None).await.unwrap_err().to_string().replace(&id, "…");
    insta::assert_snapshot!(exists, @"volume t/v exists: restore … under another name (`volcli trash restore … --as tenant/volume`), or remove that volume first");
    insta::assert_snapshot!(restore(Some("nobody/v")).await.unwrap_err(), @"tenant nobody does not exist: upload its policy with `volcli tenant upload nobody < policy.json`");
    for nothing in ["", "x", "../x", &"0".repeat(32)] {
        let error = trash_restore(&app, nothing, None).await.unwrap_err();
        assert!(
            error.to_string().ends_with("is not in the trash; `volcli trash list` shows what is")
        );
    }
    // An image that is nobody's has the name: the volume stays in the trash.
    stage.images.add_foreign(&image("t/w"));
    let error = restore(Some("t/w")).await.unwrap_err();
    assert_eq!(error.kind(), volcore::Kind::Conflict);
    assert_eq!(trash_list(&app).await.unwrap().len(), 1);
    volume_get(&app, &volume("t/w")).await.unwrap_err();
    let back = trash_list(&app).await.unwrap().remove(0).id;
    trash_restore(&app, &back, Some(volume("t/x"))).await.unwrap();
    assert!(is_whole(&stage, "t/x"));
}
