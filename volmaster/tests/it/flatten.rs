//! Flattening: whatever breaks, dies or is done twice or at once, a clone comes to have its data itself, and what it was
//! cloned from can go; nobody is kept waiting by it.

use std::sync::Arc;
use std::time::Duration;

use volcore::Kind;
use volcore::name::SnapshotName;
use volcore::options::OptionSet;
use volcore::volume::{Disposal, Flattening, Volume};
use volmaster::app::mounts::mount_claim;
use volmaster::app::snapshots::{snapshot_create, snapshot_rollback};
use volmaster::app::status::status_get;
use volmaster::app::trash::{trash_list, trash_restore};
use volmaster::app::volumes::{RemoveAsk, volume_create, volume_flatten, volume_remove};
use volmaster::app::{App, Failing, LoopName};
use volmaster::background::{self, Seen};
use volmaster::http::Limits;
use volstore::store::Store;

use crate::faults::{EVERYTHING, Run, Wrong, ask, broken_reconcilers, within};
use crate::mortal::{Hang, Mortal, When};
use crate::stage::{Stage, image, no_options, volume};

const DATA: &[u8] = b"data";

fn before() -> SnapshotName {
    "before".parse().unwrap()
}

async fn clone(app: &App, name: &str) {
    let options = [("from".to_owned(), "t/v@before".to_owned())].into();
    let options = OptionSet::from_driver_options(&options).unwrap();
    volume_create(app, &volume(name), &options).await.unwrap();
}

/// `t/v` with a snapshot, and `t/c`, a clone of that.
async fn furnished() -> Stage {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    volume_create(&app, &volume("t/v"), &no_options()).await.unwrap();
    stage.images.write(&image("t/v"), 0, DATA);
    snapshot_create(&app, &volume("t/v"), &before()).await.unwrap();
    clone(&app, "t/c").await;
    stage
}

async fn flatten(app: &App) -> Result<Volume, String> {
    let done = volume_flatten(app, &volume("t/c")).await;
    done.map_err(|error| volapi::problem::chain(&error))
}

async fn once(app: &Arc<App>) {
    background::once(app, LoopName::Flattening, &mut Seen::default()).await.unwrap();
}

async fn record(stage: &Stage, name: &str) -> Volume {
    stage.records().volume(&volume(name)).await.unwrap().unwrap().value
}

/// Whether the record says that it is flat; the image has to say the same, and to have its data.
async fn is_flat(stage: &Stage, what: &str) -> bool {
    let images = stage.images.images(&"rbd".parse().unwrap());
    let found = images.into_iter().find(|found| found.name == "t.c").unwrap();
    assert!(found.data.starts_with(DATA), "{what}: its data is lost");
    let record = record(stage, "t/c").await;
    let is_flat = record.flattening == Flattening::Done;
    assert_eq!(is_flat, found.parent.is_none(), "{what}: {record:?}");
    assert_eq!(is_flat, record.parent().is_none(), "{what}: {record:?}");
    is_flat
}

/// What `t/c` was cloned from can go, with its data.
async fn the_source_goes(stage: &Stage, what: &str) {
    let app = stage.app();
    volume_remove(&app, &volume("t/v"), RemoveAsk::With(Disposal::Delete)).await.unwrap();
    stage.settle(&app).await;
    assert_eq!(stage.left().await, ["volumes/t/c", "image t.c"], "{what}");
    assert!(is_flat(stage, what).await);
}

#[tokio::test(start_paused = true)]
async fn a_flattening_whatever_goes_wrong() {
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("flattening with {wrong:?} at {nth}");
            let stage = furnished().await;
            let run = Run::arm(&stage, wrong, nth).await;
            let asked = within(flatten(&run.app)).await;
            let pass = async {
                let mut seen = Seen::default();
                let once = background::once(&run.app, LoopName::Flattening, &mut seen);
                once.await.unwrap_or_default();
            };
            within(pass).await;
            let fired = run.end().await;
            let app = stage.app();
            stage.settle(&app).await;
            let flat = is_flat(&stage, &what).await;
            assert!(flat || !matches!(asked, Some(Ok(_))), "{what} was said to have worked");
            flatten(&app).await.unwrap_or_else(|why| panic!("{what}, again: {why}"));
            stage.settle(&app).await;
            assert!(is_flat(&stage, &what).await, "{what}, again");
            the_source_goes(&stage, &what).await;
            if !fired {
                assert!(nth > 1, "{wrong:?} never happens");
                break;
            }
        }
    }
}

/// The reconciler itself breaks and dies at every step, after whoever asked has died.
#[tokio::test(start_paused = true)]
async fn its_reconciler_whatever_goes_wrong() {
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("asked for, then {wrong:?} at {nth}");
            let stage = furnished().await;
            let run = Run::arm(&stage, Wrong::Death(When::After), 1).await;
            within(flatten(&run.app)).await;
            run.end().await;
            let fired = broken_reconcilers(&stage, wrong, nth).await;
            stage.settle(&stage.app()).await;
            assert!(is_flat(&stage, &what).await, "{what}");
            the_source_goes(&stage, &what).await;
            if !fired {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_again_writes_nothing_and_what_is_no_clone_has_nothing_to_copy() {
    let stage = furnished().await;
    let app = stage.app();
    for name in ["t/c", "t/v"] {
        volume_flatten(&app, &volume(name)).await.unwrap();
        let asked = stage.store.revision().await.unwrap();
        volume_flatten(&app, &volume(name)).await.unwrap();
        assert_eq!(stage.store.revision().await.unwrap(), asked, "{name} was asked for already");
        stage.settle(&app).await;
        assert_eq!(record(&stage, name).await.flattening, Flattening::Done);
        let done = stage.store.revision().await.unwrap();
        assert_eq!(volume_flatten(&app, &volume(name)).await.unwrap().flattening, Flattening::Done);
        stage.settle(&app).await;
        assert_eq!(stage.store.revision().await.unwrap(), done, "{name} is flat already");
    }
    let error = volume_flatten(&app, &volume("t/none")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

/// Held or not, it is flattened; two volmasters at it at once end as one does.
#[tokio::test(start_paused = true)]
async fn two_at_once_end_as_one() {
    let stage = furnished().await;
    let slow = Mortal::new(&stage);
    let (first, second) = (slow.app(&stage), stage.app());
    mount_claim(&second, &volume("t/c"), ask("h1")).await.unwrap();
    let gate = slow.gate_flatten();
    flatten(&first).await.unwrap();
    let work = tokio::spawn(async move { once(&first).await });
    gate.reached().await;
    flatten(&second).await.unwrap();
    once(&second).await;
    assert!(is_flat(&stage, "by the second").await);
    gate.open();
    work.await.unwrap();
    assert!(is_flat(&stage, "by both").await);
}

/// What another does is no failure of one's own, stays under way, and is looked at again soon.
#[tokio::test(start_paused = true)]
async fn what_another_copies_is_left_to_him() {
    let stage = furnished().await;
    let second = Mortal::new(&stage);
    let app = second.app(&stage);
    second.flattened_elsewhere(true);
    flatten(&app).await.unwrap();
    for _ in 0..20 {
        once(&app).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let found = record(&stage, "t/c").await;
    assert!(matches!(found.flattening, Flattening::UnderWay { .. }), "{found:?}");
    assert_eq!(found.last_error, None);
    let shown = status_get(&app).await.loops;
    let shown = shown.iter().find(|found| found.name == "flattening").unwrap();
    assert_eq!((shown.last_error.as_ref(), shown.pending.len()), (None, 1));
    // He has died of it.
    second.flattened_elsewhere(false);
    once(&app).await;
    assert!(is_flat(&stage, "after him").await);
}

/// Copying under way keeps a removal and a rollback away, and nothing else.
#[tokio::test(start_paused = true)]
async fn while_data_is_copied() {
    let stage = furnished().await;
    let slow = Mortal::new(&stage);
    let (copying, app) = (slow.app(&stage), stage.app());
    let served = stage.serve_app(copying.clone(), Limits::default()).await;
    snapshot_create(&app, &volume("t/c"), &before()).await.unwrap();
    let gate = slow.gate_flatten();
    flatten(&copying).await.unwrap();
    let work = tokio::spawn(async move { once(&copying).await });
    gate.reached().await;
    for disposal in [Disposal::Delete, Disposal::Trash] {
        let removal = volume_remove(&app, &volume("t/c"), RemoveAsk::With(disposal)).await;
        let error = removal.unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        insta::allow_duplicates! {
            insta::assert_snapshot!(error, @"volume t/c is being flattened, since 1970-01-01T02:00:00Z; it can be removed when that is done, see `volcli volume get t/c`");
        }
    }
    let error = snapshot_rollback(&app, &volume("t/c"), &before()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    insta::assert_snapshot!(error, @"volume t/c is being flattened, since 1970-01-01T02:00:00Z; it can be rolled back when that is done, see `volcli volume get t/c`");
    // The volmaster that does it knows how far it is.
    let shown = served.client.get("/v1/volumes/t/c").await.expect(200).json();
    insta::assert_snapshot!(shown["flattening"], @r#"{"percent":100,"since":"1970-01-01T02:00:00Z","under_way":true}"#);
    snapshot_create(&app, &volume("t/c"), &"during".parse().unwrap()).await.unwrap();
    gate.open();
    work.await.unwrap();
    let shown = served.client.post("/v1/volumes/t/c/flatten", "").await.expect(200).json();
    assert!(shown.get("flattening").is_none(), "{shown}");
    snapshot_rollback(&app, &volume("t/c"), &before()).await.unwrap();
    stage.settle(&app).await;
    assert!(is_flat(&stage, "rolled back").await);
    volume_remove(&app, &volume("t/c"), RemoveAsk::With(Disposal::Delete)).await.unwrap();
}

/// What died while it copied holds up a removal only until somebody else has gone on with it.
#[tokio::test(start_paused = true)]
async fn whoever_dies_while_it_copies_is_followed() {
    let stage = furnished().await;
    let slow = Mortal::new(&stage);
    let (dying, app) = (slow.app(&stage), stage.app());
    let gate = slow.gate_flatten();
    flatten(&dying).await.unwrap();
    let work = tokio::spawn(async move { once(&dying).await });
    gate.reached().await;
    slow.hang(Hang::All);
    work.abort();
    assert!(matches!(record(&stage, "t/c").await.flattening, Flattening::UnderWay { .. }));
    volume_remove(&app, &volume("t/c"), RemoveAsk::default()).await.unwrap_err();
    stage.settle(&app).await;
    assert!(is_flat(&stage, "by the next").await);
    volume_remove(&app, &volume("t/c"), RemoveAsk::default()).await.unwrap();
}

/// What cannot be flattened says why, is tried again, and stands in nobody's way.
#[tokio::test(start_paused = true)]
async fn what_waits_says_why_and_is_removed_and_restored() {
    let stage = furnished().await;
    let app = stage.app();
    stage.images.faults().break_nth(1, volstorage::faults::Fault::Fails);
    flatten(&app).await.unwrap();
    once(&app).await;
    once(&app).await;
    let pending = status_get(&app).await.loops;
    let pending = &pending.iter().find(|found| found.name == "flattening").unwrap().pending;
    insta::assert_snapshot!(pending.join("\n"), @"t/c waits to be flattened since 1970-01-01T02:00:00Z: the store cannot be reached while trying to flatten: fault plan: flatten failed");
    let Flattening::Pending { reason: Some(reason), .. } = record(&stage, "t/c").await.flattening
    else {
        panic!("{:?}", record(&stage, "t/c").await);
    };
    insta::assert_snapshot!(reason, @"the store cannot be reached while trying to flatten: fault plan: flatten failed");
    volume_remove(&app, &volume("t/c"), RemoveAsk::With(Disposal::Trash)).await.unwrap();
    // In the trash nothing is copied.
    once(&app).await;
    let id = trash_list(&app).await.unwrap().remove(0).id;
    let restored = trash_restore(&app, &id, None).await.unwrap();
    assert!(matches!(restored.flattening, Flattening::Pending { .. }), "{restored:?}");
    assert!(!is_flat(&stage, "restored").await);
    stage.settle(&app).await;
    assert!(is_flat(&stage, "restored, and gone on with").await);
    // And what was flat is flat when it comes back.
    volume_remove(&app, &volume("t/c"), RemoveAsk::With(Disposal::Trash)).await.unwrap();
    let id = trash_list(&app).await.unwrap().remove(0).id;
    assert_eq!(trash_restore(&app, &id, None).await.unwrap().flattening, Flattening::Done);
}

/// A few at a time, and beside all other work; asking again has it tried at once.
#[tokio::test(start_paused = true)]
async fn many_hold_nobody_up() {
    let stage = furnished().await;
    let slow = Mortal::new(&stage);
    let app = slow.app(&stage);
    background::start(&app);
    let mut gates = Vec::new();
    for n in 0..6 {
        let name = format!("t/c{n}");
        clone(&app, &name).await;
        gates.push(slow.gate_flatten());
    }
    for n in 0..6 {
        volume_flatten(&app, &volume(&format!("t/c{n}"))).await.unwrap();
    }
    let under_way = || async {
        let mut count = 0;
        for n in 0..6 {
            let found = record(&stage, &format!("t/c{n}")).await.flattening;
            count += usize::from(matches!(found, Flattening::UnderWay { .. }));
        }
        count
    };
    // The last gate is the first to be reached.
    gates.pop().unwrap().reached().await;
    gates.pop().unwrap().reached().await;
    volume_create(&app, &volume("t/new"), &no_options()).await.unwrap();
    snapshot_create(&app, &volume("t/new"), &before()).await.unwrap();
    volume_remove(&app, &volume("t/new"), RemoveAsk::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(under_way().await, 2);
    // A shutdown waits for none of them, and the next goes on.
    assert!(app.shutdown(Duration::from_secs(5)).await, "it was waited for");
    slow.hang(Hang::All);
    let next = stage.app();
    stage.settle(&next).await;
    assert_eq!(under_way().await, 0);
    let images = stage.images.images(&"rbd".parse().unwrap());
    let clones = images.iter().filter(|image| image.name.starts_with("t.c") && image.name != "t.c");
    assert!(clones.clone().all(|image| image.parent.is_none()));
    assert_eq!(clones.count(), 6);
}
