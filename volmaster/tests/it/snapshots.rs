//! Snapshots, rollbacks, clones and growth: whatever breaks, dies or is done twice, data is what it was before or what
//! was asked for, and nothing is left behind.

use std::collections::BTreeMap;

use volcore::Kind;
use volcore::live::LiveChange;
use volcore::name::{SnapshotName, VolumeId};
use volcore::options::OptionSet;
use volcore::volume::VolumeState;
use volmaster::app::mounts::{MountError, ReleaseAsk, mount_claim, mount_release};
use volmaster::app::schedules::{schedule_due, schedule_sync, schedules};
use volmaster::app::snapshots::{
    SnapshotError, Taking, snapshot_create, snapshot_list, snapshot_remove, snapshot_rollback,
};
use volmaster::app::volumes::{
    RemoveAsk, VolumeError, volume_create, volume_get, volume_remove, volume_set,
};
use volmaster::app::{App, Failing};
use volstorage::fake::image::FakeImage;
use volstorage::image::SnapshotUsage;

use crate::faults::{EVERYTHING, Run, Wrong, ask, broken_reconcilers, within};
use crate::mortal::{Hang, Mortal};
use crate::stage::{Stage, image, no_options, volume};

const OLD: &[u8] = b"old";
const NEW: &[u8] = b"new";

fn name(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

fn options(pairs: &[(&str, &str)]) -> OptionSet {
    OptionSet::from_driver_options(&map(pairs)).unwrap()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// An operation under test; what it says.
fn text<T>(outcome: Result<T, impl Failing>) -> Result<(), String> {
    outcome.map(drop).map_err(|error| volapi::problem::chain(&error))
}

/// The image of a volume, if it is there.
fn found(stage: &Stage, id: &str) -> Option<FakeImage> {
    let images = stage.images.images(&"rbd".parse().unwrap());
    images.into_iter().find(|found| found.name == volume(id).image_name())
}

fn data(stage: &Stage, id: &str) -> Vec<u8> {
    found(stage, id).unwrap().data[..3].to_vec()
}

fn snapshots(stage: &Stage, id: &str) -> Vec<String> {
    let found = found(stage, id).unwrap().snapshots;
    found.into_iter().map(|snapshot| snapshot.name.to_string()).collect()
}

/// `t/v`, which had `OLD` on it at snapshot `before`, and has `NEW` now.
async fn furnished(made: &OptionSet) -> Stage {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    volume_create(&app, &volume("t/v"), made).await.unwrap();
    stage.images.write(&image("t/v"), 0, OLD);
    snapshot_create(&app, &volume("t/v"), &name("before")).await.unwrap();
    stage.images.write(&image("t/v"), 0, NEW);
    stage
}

/// Runs an operation with everything going wrong at every step, and `check`s what is left when the reconcilers have
/// run; then once more, when it has to work.
async fn whatever_goes_wrong(
    what: &str,
    made: &OptionSet,
    operation: impl AsyncFn(&App) -> Result<(), String>,
    check: impl AsyncFn(&Stage, bool) -> Result<(), String>,
) {
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("{what} with {wrong:?} at {nth}");
            let stage = furnished(made).await;
            let run = Run::arm(&stage, wrong, nth).await;
            let outcome = within(operation(&run.app)).await;
            let fired = run.end().await;
            let app = stage.app();
            stage.settle(&app).await;
            let is_done = matches!(outcome, Some(Ok(())));
            if let Err(why) = check(&stage, is_done).await {
                panic!("{what} ({outcome:?}): {why}");
            }
            // And again, as whoever asked for it will do.
            operation(&app).await.unwrap_or_else(|error| panic!("{what}, again: {error}"));
            stage.settle(&app).await;
            if let Err(why) = check(&stage, true).await {
                panic!("{what}, again: {why}");
            }
            if !fired {
                assert!(is_done, "{what}: {outcome:?}");
                // What changes snapshots alone writes no record.
                assert!(nth > 1 || !matches!(wrong, Wrong::Image(_)), "{wrong:?} never happens");
                break;
            }
        }
    }
}

/// What has to hold, or what is there instead.
fn holds(condition: bool, instead: impl std::fmt::Debug) -> Result<(), String> {
    if condition { Ok(()) } else { Err(format!("{instead:?}")) }
}

#[tokio::test(start_paused = true)]
async fn taking_one_by_hand_whatever_goes_wrong() {
    let take = async |app: &App| text(snapshot_create(app, &volume("t/v"), &name("mine")).await);
    whatever_goes_wrong("taking", &no_options(), take, async |stage, is_done| {
        let there = snapshots(stage, "t/v");
        holds(there == ["before", "mine"] || (!is_done && there == ["before"]), there)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn removing_one_whatever_goes_wrong() {
    let remove = async |app: &App| match snapshot_remove(app, &volume("t/v"), &name("before")).await
    {
        Err(SnapshotError::NotFound { .. }) => Ok(()),
        done => text(done),
    };
    whatever_goes_wrong("removing", &no_options(), remove, async |stage, is_done| {
        let there = snapshots(stage, "t/v");
        holds(there.is_empty() || (!is_done && there == ["before"]), there)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn rolling_back_whatever_goes_wrong() {
    let roll =
        async |app: &App| text(snapshot_rollback(app, &volume("t/v"), &name("before")).await);
    whatever_goes_wrong("rolling back", &no_options(), roll, async |stage, is_done| {
        let is = data(stage, "t/v");
        holds(is == OLD || (!is_done && is == NEW), is)?;
        let found = stage.records().volume(&volume("t/v")).await.unwrap().unwrap().value;
        holds(found.last_error.is_none(), found)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn cloning_whatever_goes_wrong() {
    for (from, expected) in [("t/v@before", OLD), ("t/v", NEW)] {
        let asked = options(&[("from", from), ("size", "20MB")]);
        let clone = async |app: &App| text(volume_create(app, &volume("t/c"), &asked).await);
        whatever_goes_wrong(
            &format!("cloning {from}"),
            &no_options(),
            clone,
            async |stage, is_done| {
                let there = snapshots(stage, "t/v");
                holds(there == ["before"], there)?;
                let clone = found(stage, "t/c");
                let record = stage.records().volume(&volume("t/c")).await.unwrap();
                match (&clone, &record) {
                    (Some(clone), Some(record)) => {
                        holds(clone.uid == Some(record.value.uid), record)?;
                        holds(clone.data.starts_with(expected) && clone.size == 20 << 20, clone)
                    }
                    (None, None) => holds(!is_done, "there is no clone"),
                    _ => holds(false, (&clone, &record)),
                }?;
                holds(stage.keys("trash/").await.is_empty(), stage.left().await)
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn growing_whatever_goes_wrong() {
    let larger = LiveChange::from_driver_options(&map(&[("size", "20MB")])).unwrap();
    let grow = async |app: &App| text(volume_set(app, &volume("t/v"), &larger).await);
    whatever_goes_wrong("growing", &no_options(), grow, async |stage, is_done| {
        let record = stage.records().volume(&volume("t/v")).await.unwrap().unwrap().value;
        let (size, image) = (record.spec.size.bytes(), found(stage, "t/v").unwrap().size);
        holds(size == image && (size == 20 << 20 || !is_done), (size, image))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn taking_on_schedule_whatever_goes_wrong() {
    let hourly =
        options(&[("snapshots", "1"), ("snapshots.frequency", "1h"), ("snapshots.keep", "3")]);
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("taking on schedule with {wrong:?} at {nth}");
            let stage = furnished(&hourly).await;
            // It was made just now: its first slot is in the hour to come.
            stage.pass(std::time::Duration::from_secs(3600));
            let app = stage.app();
            schedule_sync(&app).await.unwrap();
            let due = schedule_due(&app).items.remove(0).name;
            let take = async |app: &App| snapshot_create(app, &volume("t/v"), &due).await;
            let run = Run::arm(&stage, wrong, nth).await;
            within(take(&run.app)).await;
            let fired = run.end().await;
            take(&app).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            take(&app).await.unwrap();
            let there = snapshots(&stage, "t/v");
            assert_eq!(there.len(), 2, "{what}: {there:?}");
            assert_eq!(there[1], due.as_str());
            let log = stage.records().snapshot_log(&volume("t/v")).await.unwrap().unwrap().value;
            assert_eq!((log.taken, log.missed), (1, 0), "{what}");
            volume_remove(&app, &volume("t/v"), RemoveAsk::default()).await.unwrap();
            stage.settle(&app).await;
            assert!(stage.left().await.is_empty(), "{what}: {:?}", stage.left().await);
            if !fired {
                assert!(nth > 1, "{wrong:?} never happens");
                break;
            }
        }
    }
}

/// The reconcilers break and die at every step, after a death in the middle of a rollback or of a clone.
#[tokio::test(start_paused = true)]
async fn their_reconcilers_whatever_goes_wrong() {
    let asked = options(&[("from", "t/v")]);
    let mut broken = 0;
    for death in [1, 2] {
        for wrong in EVERYTHING {
            for nth in 1.. {
                let what = format!("death at {death}, then {wrong:?} at {nth}");
                let stage = furnished(&no_options()).await;
                for operation in ["roll back", "clone"] {
                    let mortal = Mortal::new(&stage);
                    let app = mortal.app(&stage);
                    mortal.die_at(death, crate::mortal::When::After);
                    if operation == "roll back" {
                        within(snapshot_rollback(&app, &volume("t/v"), &name("before"))).await;
                    } else {
                        within(volume_create(&app, &volume("t/c"), &asked)).await;
                    }
                }
                let fired = broken_reconcilers(&stage, wrong, nth).await;
                stage.settle(&stage.app()).await;
                assert_eq!(data(&stage, "t/v"), OLD, "{what}");
                assert_eq!(snapshots(&stage, "t/v"), ["before"], "{what}");
                if let Some(clone) = found(&stage, "t/c") {
                    assert!([OLD, NEW].contains(&&clone.data[..3]), "{what}: {clone:?}");
                    let record = stage.records().volume(&volume("t/c")).await.unwrap();
                    assert_eq!(record.map(|record| record.value.uid), clone.uid, "{what}");
                }
                if !fired {
                    break;
                }
                broken += 1;
            }
        }
    }
    assert!(broken > 20, "only {broken} steps of the reconcilers were broken");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_is_refused_where_somebody_may_write() {
    let stage = furnished(&no_options()).await;
    let app = stage.app();
    let roll = async || snapshot_rollback(&app, &volume("t/v"), &name("before")).await;
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
    let error = roll().await.unwrap_err();
    assert_eq!(error.kind(), Kind::InUse);
    assert!(error.to_string().contains("host h1 holds it since"), "{error}");
    mount_release(&app, &volume("t/v"), &ReleaseAsk::Force).await.unwrap();
    // Nobody has claimed it, and somebody has it open all the same: nothing has begun, and the volume is what it was.
    stage.images.watch(&image("t/v"), "10.0.0.9:0/1");
    let error = roll().await.unwrap_err();
    assert_eq!(error.kind(), Kind::InUse);
    assert_eq!(data(&stage, "t/v"), NEW);
    let (shown, _) = volume_get(&app, &volume("t/v")).await.unwrap();
    assert!(matches!(shown.state, VolumeState::Ready { .. }), "{shown:?}");
    stage.images.unwatch(&image("t/v"), "10.0.0.9:0/1");
    let error = snapshot_rollback(&app, &volume("t/v"), &name("nothing")).await.unwrap_err();
    insta::assert_snapshot!(error, @"volume t/v has no snapshot nothing; `volcli snapshot list t/v` shows those it has");
    roll().await.unwrap();
    assert_eq!(data(&stage, "t/v"), OLD);
}

/// While the image is a mixture nobody gets at it, and to roll back to another snapshot is a way out.
#[tokio::test(start_paused = true)]
async fn a_rollback_that_does_not_end_keeps_everybody_out() {
    let stage = furnished(&no_options()).await;
    let app = stage.app();
    snapshot_create(&app, &volume("t/v"), &name("other")).await.unwrap();
    stage.images.faults().break_nth(1, volstorage::faults::Fault::Fails);
    snapshot_rollback(&app, &volume("t/v"), &name("before")).await.unwrap_err();
    stage.images.faults().revive();
    let id: VolumeId = volume("t/v");
    let claim = mount_claim(&app, &id, ask("h1")).await.unwrap_err();
    assert!(matches!(claim, MountError::Refused(_)), "{claim}");
    insta::assert_snapshot!(claim, @"volume t/v is rolling-back; it cannot be mounted now");
    let remove = volume_remove(&app, &id, RemoveAsk::default()).await.unwrap_err();
    insta::assert_snapshot!(remove, @"volume t/v is being rolled back to snapshot before since 1970-01-01T02:00:00Z; it can be removed when that is done");
    let take = snapshot_create(&app, &id, &name("third")).await.unwrap_err();
    insta::assert_snapshot!(take, @"volume t/v is rolling-back; its snapshots can be reached when it is ready");
    let clone = volume_create(&app, &volume("t/c"), &options(&[("from", "t/v")])).await;
    insta::assert_snapshot!(clone.unwrap_err(), @"volume t/v is rolling-back; it can be cloned when it is ready");
    snapshot_rollback(&app, &id, &name("other")).await.unwrap();
    assert_eq!(data(&stage, "t/v"), NEW);
    mount_claim(&app, &id, ask("h1")).await.unwrap();
}

/// Two ask at once, and each is in the way of the other: what one has begun the other does not take back, and both are told
/// that it goes on.
#[tokio::test(start_paused = true)]
async fn of_two_that_roll_back_none_takes_back_what_the_other_does() {
    let stage = furnished(&no_options()).await;
    let roll = async |app: &App| snapshot_rollback(app, &volume("t/v"), &name("before")).await;
    let (first, second) = (Mortal::new(&stage), Mortal::new(&stage));
    stage.images.watch(&image("t/v"), "10.0.0.9:0/1");
    // The first has stored the intent and finds the image in use; before it can take that back …
    let (begins, intent) = (first.app(&stage), first.gate_commit());
    let begun = tokio::spawn(async move { roll(&begins).await });
    intent.reached().await;
    let back = first.gate_commit();
    intent.open();
    back.reached().await;
    // … the second goes on with it, and is at it still.
    second.hang(Hang::Images);
    assert!(within(roll(&second.app(&stage))).await.is_none());
    back.open();
    let error = begun.await.unwrap().unwrap_err();
    insta::assert_snapshot!(volapi::problem::chain(&error), @"volume t/v is being rolled back to snapshot before, which goes on by itself: `volcli volume get t/v` shows when it is done; this attempt did not finish it: image rbd/t.v is in use by 10.0.0.9:0/1");
    assert_eq!(error.kind(), Kind::InUse);
    let (shown, _) = volume_get(&stage.app(), &volume("t/v")).await.unwrap();
    assert!(matches!(shown.state, VolumeState::RollingBack { .. }), "{shown:?}");
    // Whoever asks now is told so too.
    let error = roll(&stage.app()).await.unwrap_err();
    assert!(error.to_string().contains("which goes on by itself"), "{error}");
    stage.images.unwatch(&image("t/v"), "10.0.0.9:0/1");
    stage.settle(&stage.app()).await;
    assert_eq!(data(&stage, "t/v"), OLD);
}

#[tokio::test(start_paused = true)]
async fn a_clone_lives_by_itself() {
    let stage = furnished(&no_options()).await;
    let app = stage.app();
    let asked = options(&[("from", "t/v@before")]);
    volume_create(&app, &volume("t/c"), &asked).await.unwrap();
    let again = volume_create(&app, &volume("t/c"), &asked).await.unwrap();
    assert!(matches!(again, volmaster::app::volumes::Creation::Unchanged(_)), "{again:?}");
    let other = volume_create(&app, &volume("t/c"), &options(&[("from", "t/v")])).await;
    insta::assert_snapshot!(other.unwrap_err(), @"volume t/c exists with other options: from is t/v@before, asked for t/v");
    let itself = volume_create(&app, &volume("t/d"), &options(&[("from", "t/d")])).await;
    insta::assert_snapshot!(itself.unwrap_err(), @"volume t/d cannot be cloned from itself: give the clone another name");
    let nothing = volume_create(&app, &volume("t/d"), &options(&[("from", "t/x")])).await;
    insta::assert_snapshot!(nothing.unwrap_err(), @"volume t/x does not exist");
    // What it was cloned from goes, and the space is freed when the clone does not need it any more.
    volume_remove(&app, &volume("t/v"), RemoveAsk::default()).await.unwrap();
    assert_eq!(data(&stage, "t/c"), OLD);
    volume_remove(&app, &volume("t/c"), RemoveAsk::default()).await.unwrap();
    stage.settle(&app).await;
    assert!(stage.left().await.is_empty(), "{:?}", stage.left().await);
}

#[tokio::test(start_paused = true)]
async fn bad_names_take_nothing() {
    let stage = furnished(&no_options()).await;
    let app = stage.app();
    let take = async |text: &str| snapshot_create(&app, &volume("t/v"), &name(text)).await;
    let again = take("before").await.unwrap();
    assert!(matches!(again, Taking::Unchanged(_)), "{again:?}");
    insta::assert_snapshot!(take("auto-mine").await.unwrap_err(), @"snapshot name auto-mine is none that volume t/v is due for: names that begin with auto- are kept for snapshots on schedule");
    insta::assert_snapshot!(take("auto-2026-11-21T203007Z").await.unwrap_err(), @"snapshot name auto-2026-11-21T203007Z is none that volume t/v is due for: names that begin with auto- are kept for snapshots on schedule");
    let clones = take("clone-0123456789abcdef0123456789abcdef").await.unwrap_err();
    insta::assert_snapshot!(clones, @"a snapshot cannot be called clone-0123456789abcdef0123456789abcdef: clone- with an id is kept for those that clones are made from");
    let nobody = snapshot_create(&app, &volume("t/x"), &name("mine")).await.unwrap_err();
    insta::assert_snapshot!(nobody, @"volume t/x does not exist");
    let listed = snapshot_list(&app, &volume("t/v"), SnapshotUsage::Skip).await.unwrap();
    assert_eq!(listed.len(), 1);
    let error = snapshot_remove(&app, &volume("t/v"), &name("befor")).await.unwrap_err();
    insta::assert_snapshot!(error, @"volume t/v has no snapshot befor; `volcli snapshot list t/v` shows those it has");
    let making = Mortal::new(&stage);
    let (first, gate) = (making.app(&stage), making.gate_images());
    let create =
        tokio::spawn(async move { volume_create(&first, &volume("t/w"), &no_options()).await });
    gate.reached().await;
    let error = snapshot_create(&app, &volume("t/w"), &name("mine")).await.unwrap_err();
    insta::assert_snapshot!(error, @"volume t/w is creating; its snapshots can be reached when it is ready");
    gate.open();
    create.await.unwrap().unwrap();
}

/// By the clock of volmaster, of any number of them, whoever asks: one snapshot for each slot.
#[tokio::test(start_paused = true)]
async fn what_is_due_is_taken_once() {
    let stage = furnished(&options(&[
        ("snapshots", "1"),
        ("snapshots.frequency", "10s"),
        ("snapshots.keep", "3"),
    ]))
    .await;
    let apps = [stage.app(), stage.app()];
    let due = async |app: &App| {
        schedule_sync(app).await.unwrap();
        schedule_due(app)
    };
    stage.pass(std::time::Duration::from_secs(10));
    for round in 1..=5 {
        let lists = [due(&apps[0]).await.items, due(&apps[1]).await.items];
        assert_eq!(lists[0], lists[1]);
        let wanted = &lists[0][0];
        assert_eq!((lists[0].len(), wanted.missed), (1, 0));
        let one = snapshot_create(&apps[0], &wanted.volume, &wanted.name).await.unwrap();
        let other = snapshot_create(&apps[1], &wanted.volume, &wanted.name).await.unwrap();
        assert!(matches!(one, Taking::Created(_)) && matches!(other, Taking::Unchanged(_)));
        assert_eq!(due(&apps[1]).await.items, []);
        assert!(due(&apps[1]).await.next_ms.is_some_and(|ms| ms <= 10_000));
        assert_eq!(schedules(&apps[0]).taken, round);
        stage.pass(std::time::Duration::from_secs(10));
    }
    // An outage of a minute is one snapshot.
    stage.pass(std::time::Duration::from_secs(60));
    let late = due(&apps[0]).await.items;
    assert_eq!((late.len(), late[0].missed), (1, 6));
    assert!(schedules(&apps[0]).lag_ms < 10_000, "{:?}", schedules(&apps[0]));
    // One that fails is told of, and taken later.
    stage.images.go_down();
    let error = snapshot_create(&apps[0], &late[0].volume, &late[0].name).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    schedule_sync(&apps[0]).await.unwrap();
    let told = schedules(&apps[0]);
    assert_eq!((told.failed, told.failing.len()), (1, 1), "{told:?}");
    stage.images.come_up();
    snapshot_create(&apps[0], &late[0].volume, &late[0].name).await.unwrap();
    schedule_sync(&apps[0]).await.unwrap();
    let told = schedules(&apps[0]);
    assert_eq!((told.taken, told.missed, told.failed, told.failing.len()), (6, 6, 1, 0));
    let VolumeError::NotFound { .. } = volume_get(&apps[0], &volume("t/none")).await.unwrap_err()
    else {
        panic!()
    };
}
