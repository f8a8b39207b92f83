//! What is not as it should be is told, with the way out; what is proven is mended, and nothing else, whatever breaks,
//! dies or changes meanwhile.

use std::num::NonZeroU64;
use std::time::Duration;

use uuid::Uuid;
use volapi::doctor::{Doctor, Finding, Remedy};
use volcore::limit::RateLimits;
use volcore::options::OptionSet;
use volcore::snapshot::SnapshotLog;
use volcore::volume::Disposal;
use volmaster::app::doctor::{doctor_fix, doctor_get};
use volmaster::app::hosts::{SessionAsk, host_session};
use volmaster::app::mounts::{ReleaseAsk, mount_claim, mount_release};
use volmaster::app::snapshots::snapshot_create;
use volmaster::app::trash::{trash_list, trash_restore};
use volmaster::app::volumes::{RemoveAsk, volume_create, volume_flatten, volume_remove};
use volmaster::app::{App, Failing};
use volstorage::faults::Fault;
use volstorage::image::{Discarded, ImageDriver, TrashedImage};
use volstore::store::{Expect, Step, Store};

use crate::faults::{EVERYTHING, Run, Wrong, ask, within};
use crate::mortal::Mortal;
use crate::stage::{Stage, image, no_options, volume};

fn lines(doctor: &Doctor) -> String {
    let line = |found: &Finding| {
        let Finding { kind, object, text, remedy, help } = found;
        format!("{} {object}: {text}; {}: {help}\n", kind.as_str(), remedy.as_str())
    };
    doctor.findings.iter().map(line).collect()
}

async fn told(app: &App) -> String {
    lines(&doctor_get(app).await.unwrap())
}

async fn create(app: &App, id: &str) {
    volume_create(app, &volume(id), &no_options()).await.unwrap();
}

async fn forget(app: &App, id: &str) {
    volume_remove(app, &volume(id), RemoveAsk::MetadataOnly).await.unwrap();
}

/// Moves the image of a volume to the trash of its pool by hand.
async fn throw_by_hand(stage: &Stage, id: &str) -> TrashedImage {
    let there = stage.images.find(&image(id)).await.unwrap().unwrap();
    let thrown = stage.images.discard(&image(id), Some(&there.id), Uuid::nil()).await.unwrap();
    let Discarded::Trashed(trashed) = thrown else { panic!("{thrown:?}") };
    trashed
}

/// Removes it for good.
async fn remove_by_hand(stage: &Stage, id: &str) {
    let trashed = throw_by_hand(stage, id).await;
    stage.images.purge(&trashed).await.unwrap();
}

/// Removes the record of a volume and nothing else, as somebody does who knows the store and not the suite.
async fn strike_out(stage: &Stage, id: &str) {
    let records = stage.records();
    let found = records.volume(&volume(id)).await.unwrap().unwrap();
    let changes = records.changes().delete_volume(&volume(id), found.at);
    records.commit(changes).await.unwrap();
}

/// A record of a version to come, or one that is damaged.
async fn scribble(stage: &Stage, id: &str) {
    let key = stage.records().keys().volume(&volume(id));
    let (value, expect) = (br#"{"v":2}"#.to_vec(), Expect::Absent);
    stage.store.commit(vec![Step::Put { key, value, expect, lease: None }]).await.unwrap();
}

fn limits(bps: u64) -> RateLimits {
    RateLimits { write_bps: NonZeroU64::new(bps), ..RateLimits::default() }
}

/// Something that people have to decide on, of every sort.
#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_told_and_changes_nothing() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    for id in ["t/whole", "t/orphan", "t/replaced", "t/held", "t/thrown", "t/large", "t/binned"] {
        create(&app, id).await;
    }
    for id in ["t/gone", "t/moved", "t/open", "t/damaged", "t/lost"] {
        create(&app, id).await;
    }
    stage.images.add_foreign(&image("t/foreign"));
    assert_eq!(told(&app).await, "");

    forget(&app, "t/orphan").await;
    forget(&app, "t/binned").await;
    throw_by_hand(&stage, "t/binned").await;
    let trash = RemoveAsk::With(Disposal::Trash);
    volume_remove(&app, &volume("t/thrown"), trash).await.unwrap();
    mount_claim(&app, &volume("t/held"), ask("h1")).await.unwrap();
    stage.images.add_foreign(&image("t/replaced"));
    stage.images.change(&image("t/large"), |image| image.size = 15 << 20);
    remove_by_hand(&stage, "t/gone").await;
    let moved = throw_by_hand(&stage, "t/moved").await;
    stage.images.restore(&moved, "t.elsewhere").await.unwrap();
    throw_by_hand(&stage, "t/lost").await;
    stage.images.watch(&image("t/open"), "10.0.0.9:0/1");
    stage.images.faults().break_nth(1, Fault::Fails);
    volume_create(&app, &volume("t/stuck"), &no_options()).await.unwrap_err();
    stage.images.faults().revive();
    stage.pass(Duration::from_secs(60));
    let mortal = Mortal::new(&stage);
    mortal.break_image(image("t/damaged"));
    let app = mortal.app(&stage);
    let before = stage.left().await;
    insta::assert_snapshot!(told(&app).await, @r"
    image-unreadable t/damaged: its image rbd/t.damaged could not be looked at: could not look at image rbd/t.damaged: its header is damaged; operator: see to what is said there, and look again
    orphan-image rbd/t.orphan: the image was made for a volume that is no more; operator: `volcli volume adopt t/orphan --opt pool=rbd` makes it a volume again
    orphan-trash rbd/t.binned: the trash of the pool has it (id fake0007), and no record knows of it; operator: `mv -n /fake/rbd/.trash/fake0007 /fake/rbd/t.binned` brings it back, to be adopted; `rm /fake/rbd/.trash/fake0007` frees its space
    image-missing t/gone: its image rbd/t.gone is not there; operator: bring it back under that name, or forget the volume with `volcli volume force-remove t/gone`
    image-missing t/lost: its image rbd/t.lost is not there; operator: it is in the trash of its pool: `mv -n /fake/rbd/.trash/fake0012 /fake/rbd/t.lost`, or forget the volume with `volcli volume force-remove t/lost`
    image-missing t/moved: its image rbd/t.moved is not there; operator: it has another name now: `mv -n /fake/rbd/t.elsewhere /fake/rbd/t.moved`, or forget the volume with `volcli volume force-remove t/moved`
    image-replaced t/replaced: another image has the name of its image rbd/t.replaced; operator: put its own back in that place, or forget the volume with `volcli volume force-remove t/replaced`; that leaves the image alone
    size-differs t/large: the record says 10 MiB, and image rbd/t.large has 15728640 bytes; operator: `volcli volume resize t/large 15MiB` makes both the same
    stuck-volume t/stuck: the volume is creating since 1970-01-01T02:00:00Z: the store cannot be reached while trying to make the draft: fault plan: make the draft failed; operator: it is tried again in the background; `volcli status` shows the attempts
    open-without-claim t/open: nobody has claimed it, and its image rbd/t.open is open: 10.0.0.9:0/1; operator: unmount it, then `losetup -d 10.0.0.9:0/1`
    claim-of-silent-host t/held: host h1 holds it since 1970-01-01T02:00:00Z, and has no live session; operator: only if that host is gone for good: `volcli mount force-remove t/held` fences it and clears its claim
    ");
    assert_eq!(stage.left().await, before);
    let fixed = doctor_fix(&app).await.unwrap();
    assert_eq!((lines(&fixed), fixed.fixed), (told(&app).await, 0));
    assert_eq!(stage.left().await, before);

    stage.images.go_down();
    for error in [doctor_get(&app).await.unwrap_err(), doctor_fix(&app).await.unwrap_err()] {
        assert_eq!(error.kind(), volcore::Kind::Unavailable);
    }
}

/// Of everything that is mended one, beside a volume that nothing is wrong with.
async fn broken() -> Stage {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    for id in ["t/whole", "t/small", "t/limits", "t/thrown", "t/claimed"] {
        create(&app, id).await;
    }
    stage.images.write(&image("t/whole"), 0, b"data");
    snapshot_create(&app, &volume("t/whole"), &"mine".parse().unwrap()).await.unwrap();
    mount_claim(&app, &volume("t/whole"), ask("h1")).await.unwrap();
    session(&app, "h1").await;

    stage.images.change(&image("t/small"), |image| {
        image.size = 5 << 20;
        image.limits = limits(7);
    });
    stage.images.change(&image("t/limits"), |image| image.limits = limits(7));
    let trash = RemoveAsk::With(Disposal::Trash);
    volume_remove(&app, &volume("t/thrown"), trash).await.unwrap();
    let thrown = trash_list(&app).await.unwrap().remove(0);
    let (pool, name) = ("rbd".parse().unwrap(), thrown.image);
    stage.images.purge(&TrashedImage { pool, id: thrown.image_id, name }).await.unwrap();
    mount_claim(&app, &volume("t/claimed"), ask("h2")).await.unwrap();
    strike_out(&stage, "t/claimed").await;
    remove_by_hand(&stage, "t/claimed").await;
    let records = stage.records();
    let log = SnapshotLog::new(Uuid::from_u128(7));
    for id in ["t/nobody", "t/small"] {
        let changes = records.changes().put_snapshot_log(&volume(id), &log, Expect::Absent);
        records.commit(changes).await.unwrap();
    }
    // The clone has its snapshot and its draft.
    clone_dies(&stage, 2).await;
    forget(&app, "t/copy").await;
    stage
}

/// Has whoever clones `t/whole` die at an effect.
async fn clone_dies(stage: &Stage, nth: usize) {
    let from = [("from".to_owned(), "t/whole".to_owned())].into();
    let from = OptionSet::from_driver_options(&from).unwrap();
    mount_release(&stage.app(), &volume("t/whole"), &ReleaseAsk::Force).await.unwrap();
    let run = Run::arm(stage, Wrong::Image(Fault::Dies), nth).await;
    within(volume_create(&run.app, &volume("t/copy"), &from)).await;
    assert!(run.end().await);
}

async fn session(app: &App, host: &str) {
    let boot = format!("boot-of-{host}").parse().unwrap();
    let ask = SessionAsk { instance: Uuid::from_u128(1), boot, version: "0".to_owned() };
    host_session(app, &host.parse().unwrap(), &ask).await.unwrap();
}

fn snapshots(stage: &Stage, id: &str) -> Vec<String> {
    let images = stage.images.images(&"rbd".parse().unwrap());
    let found = images.into_iter().find(|found| found.name == volume(id).image_name()).unwrap();
    found.snapshots.into_iter().map(|it| it.name.to_string()).collect()
}

/// Nothing is left of what was wrong, and nothing else has gone.
async fn check(what: &str, stage: &Stage) {
    let expected = [
        "volumes/t/limits",
        "volumes/t/small",
        "volumes/t/whole",
        "epochs/t/whole",
        "image t.limits",
        "image t.small",
        "image t.whole",
    ];
    assert_eq!(stage.left().await, expected, "{what}");
    assert_eq!(snapshots(stage, "t/whole"), ["mine"], "{what}");
    for id in ["t/limits", "t/small"] {
        let [wanted, has] = stage.limits(&volume(id)).await;
        assert_eq!(wanted, has, "{what}: {id}");
    }
    let images = stage.images.images(&"rbd".parse().unwrap());
    assert!(images.iter().all(|image| image.size == 10 << 20), "{what}");
    assert!(images.iter().any(|image| image.data == b"data"), "{what}");
    assert_eq!(told(&stage.app()).await, "", "{what}");
}

#[tokio::test(start_paused = true)]
async fn what_is_proven_is_mended() {
    let stage = broken().await;
    let app = stage.app();
    insta::assert_snapshot!(hide(&told(&app).await), @r"
    size-differs t/small: the record says 10 MiB, and image rbd/t.small has 5242880 bytes, and other limits; fix: `volcli doctor --fix` gives the image what the record says
    limits-differ t/limits: the record says no limits, and image rbd/t.limits has write.bps=7; fix: `volcli doctor --fix` gives the image what the record says
    claim-without-volume t/claimed: somebody holds it, and there is no such volume; fix: `volcli doctor --fix` clears the claim
    trash-without-image ID: volume t/thrown was removed, and its image rbd/t.thrown (id fake0004) is not in the trash; fix: `volcli doctor --fix` drops the record
    log-without-volume t/nobody: it is the log of the schedule of a volume that is no more; fix: `volcli doctor --fix` drops the log
    log-without-volume t/small: it is the log of the schedule of a volume that is no more; fix: `volcli doctor --fix` drops the log
    unfinished-image rbd/.new.ID.ID.t.copy: an attempt to make an image has left it, and nobody goes on with it; fix: `volcli doctor --fix` removes it
    left-snapshot t/whole@clone-ID: it was taken for a clone, which does not need it any more; fix: `volcli doctor --fix` removes the snapshot
    ");
    let fixed = doctor_fix(&app).await.unwrap();
    insta::assert_snapshot!(hide(&lines(&fixed)), @r"
    size-differs t/small: the record says 10 MiB, and image rbd/t.small has 5242880 bytes, and other limits; fixed: the image has what the record says
    limits-differ t/limits: the record says no limits, and image rbd/t.limits has write.bps=7; fixed: the image has what the record says
    claim-without-volume t/claimed: somebody holds it, and there is no such volume; fixed: the claim was cleared
    trash-without-image ID: volume t/thrown was removed, and its image rbd/t.thrown (id fake0004) is not in the trash; fixed: the record was dropped
    log-without-volume t/nobody: it is the log of the schedule of a volume that is no more; fixed: the log was dropped
    log-without-volume t/small: it is the log of the schedule of a volume that is no more; fixed: the log was dropped
    unfinished-image rbd/.new.ID.ID.t.copy: an attempt to make an image has left it, and nobody goes on with it; fixed: it was removed
    left-snapshot t/whole@clone-ID: it was taken for a clone, which does not need it any more; fixed: the snapshot was removed
    ");
    assert_eq!((fixed.total, fixed.fixed), (8, 8));
    check("mended", &stage).await;
    let again = doctor_fix(&app).await.unwrap();
    assert_eq!((again.total, again.fixed), (0, 0));
    // What was mended stays so, and is what it was.
    stage.settle(&app).await;
    check("settled", &stage).await;
}

/// Puts a mark in the place of what is chosen by chance: uids, and attempts to make images.
fn hide(text: &str) -> String {
    let is_id = |part: &str, len| {
        part.len() == len && part.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-')
    };
    let hidden = |word: &str| {
        let parts = word.split_inclusive(['.', ':', ' ', ';']);
        let part = |part: &str| {
            let core = part.trim_end_matches(['.', ':', ' ', ';']);
            let (first, id) = core.split_at(core.find("clone-").map_or(0, |at| at + 6));
            if [8, 32, 36].iter().any(|len| is_id(id, *len)) {
                format!("{first}ID{}", &part[core.len()..])
            } else {
                part.to_owned()
            }
        };
        parts.map(part).collect::<String>()
    };
    text.split_inclusive(' ').map(hidden).collect()
}

#[tokio::test(start_paused = true)]
async fn mending_whatever_goes_wrong() {
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("mending with {wrong:?} at {nth}");
            let stage = broken().await;
            let run = Run::arm(&stage, wrong, nth).await;
            let outcome = within(doctor_fix(&run.app)).await;
            let fired = run.end().await;
            // What was said to be mended is.
            if let Some(Ok(doctor)) = outcome {
                let left = told(&stage.app()).await;
                let fixed = doctor.findings.iter().filter(|found| found.remedy == Remedy::Fixed);
                for found in fixed {
                    let line = format!("{} {}:", found.kind.as_str(), found.object);
                    assert!(!left.contains(&line), "{what}: {line}");
                }
                assert!(left.lines().count() as u64 <= doctor.total - doctor.fixed, "{what}");
                assert!(fired || doctor.total == doctor.fixed, "{what}: {doctor:?}");
            }
            doctor_fix(&stage.app()).await.unwrap();
            // What is left is an image that did not take what it should have, with a note of that in its record.
            for line in told(&stage.app()).await.lines() {
                assert!(line.starts_with("stuck-volume t/"), "{what}: {line}");
            }
            stage.settle(&stage.app()).await;
            check(&what, &stage).await;
            if !fired {
                assert!(nth > 1, "{wrong:?} never happens");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_at_once_mend_the_same() {
    for round in 0..8 {
        let stage = broken().await;
        let (one, other) = (stage.app(), stage.app());
        let late = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            doctor_fix(&other).await
        };
        let (first, second) = tokio::join!(doctor_fix(&one), late);
        for doctor in [first.unwrap(), second.unwrap()] {
            assert_eq!(doctor.total, doctor.fixed, "{}", lines(&doctor));
        }
        check("two at once", &stage).await;
    }
}

/// Whoever is about to mend is overtaken: what he saw does not hold any more, and he leaves it alone.
#[tokio::test(start_paused = true)]
async fn what_changes_just_then_is_left_alone() {
    // The host is back.
    let stage = Stage::new().await.paused();
    let app = stage.app();
    create(&app, "t/whole").await;
    create(&app, "t/v").await;
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
    strike_out(&stage, "t/v").await;
    let fixed = overtaken(&stage, async || session(&app, "h1").await).await;
    assert_eq!((fixed.total, fixed.fixed), (2, 0), "{}", lines(&fixed));
    assert!(stage.records().claim(&volume("t/v")).await.unwrap().is_some());
    assert!(stage.records().epoch(&volume("t/v")).await.unwrap().is_some());

    // There is a volume of that name again.
    let stage = Stage::new().await.paused();
    let app = stage.app();
    create(&app, "t/whole").await;
    create(&app, "t/v").await;
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
    strike_out(&stage, "t/v").await;
    remove_by_hand(&stage, "t/v").await;
    let fixed = overtaken(&stage, async || create(&app, "t/v").await).await;
    assert_eq!((fixed.total, fixed.fixed), (1, 0), "{}", lines(&fixed));
    assert!(stage.records().claim(&volume("t/v")).await.unwrap().is_some());

    // The volume that a log is of is back.
    let stage = Stage::new().await.paused();
    let app = stage.app();
    create(&app, "t/v").await;
    let records = stage.records();
    let uid = records.volume(&volume("t/v")).await.unwrap().unwrap().value.uid;
    let trash = RemoveAsk::With(Disposal::Trash);
    volume_remove(&app, &volume("t/v"), trash).await.unwrap();
    let log = SnapshotLog::new(uid);
    let changes = records.changes().put_snapshot_log(&volume("t/v"), &log, Expect::Absent);
    records.commit(changes).await.unwrap();
    let id = trash_list(&app).await.unwrap().remove(0).id;
    let restored = async || drop(trash_restore(&app, &id, None).await.unwrap());
    let fixed = overtaken(&stage, restored).await;
    assert_eq!((fixed.total, fixed.fixed), (1, 0), "{}", lines(&fixed));
    assert!(lines(&fixed).contains("somebody has changed it meanwhile"), "{}", lines(&fixed));
    assert!(records.snapshot_log(&volume("t/v")).await.unwrap().is_some());
    assert_eq!(told(&app).await, "");

    // The record of a volume changes.
    let stage = Stage::new().await.paused();
    let app = stage.app();
    create(&app, "t/v").await;
    stage.images.change(&image("t/v"), |image| image.limits = limits(7));
    let fixed = overtaken(&stage, async || {
        volume_remove(&app, &volume("t/v"), RemoveAsk::default()).await.unwrap();
    })
    .await;
    assert_eq!((fixed.total, fixed.fixed), (1, 0), "{}", lines(&fixed));
    assert_eq!(stage.keys("volumes/").await, [""; 0]);
}

/// What looked wrong once only, or was another thing the first time, may be a moment's.
#[tokio::test(start_paused = true)]
async fn what_did_not_look_the_same_twice_is_left_alone() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    for id in ["t/both", "t/rewritten", "t/later"] {
        create(&app, id).await;
    }
    let spoil = |id: &str| stage.images.change(&image(id), |image| image.limits = limits(7));
    spoil("t/both");
    spoil("t/rewritten");
    let slow = Mortal::new(&stage);
    // The end of the first look, and the beginning of the second.
    let (first, second) = (slow.gate_unfinished(2), slow.gate_unfinished(3));
    let late = slow.app(&stage);
    let mending = tokio::spawn(async move { doctor_fix(&late).await });
    first.reached().await;
    let records = stage.records();
    let found = records.volume(&volume("t/rewritten")).await.unwrap().unwrap();
    let changes = records.changes().put_volume(&found.value, Expect::At(found.at));
    records.commit(changes).await.unwrap();
    first.open();
    second.reached().await;
    spoil("t/later");
    second.open();
    let fixed = mending.await.unwrap().unwrap();
    insta::assert_snapshot!(lines(&fixed), @r"
    limits-differ t/later: the record says no limits, and image rbd/t.later has write.bps=7; fix: `volcli doctor --fix` gives the image what the record says
    limits-differ t/rewritten: the record says no limits, and image rbd/t.rewritten has write.bps=7; fix: `volcli doctor --fix` gives the image what the record says
    limits-differ t/both: the record says no limits, and image rbd/t.both has write.bps=7; fixed: the image has what the record says
    ");
    let fixed = doctor_fix(&app).await.unwrap();
    assert_eq!((fixed.total, fixed.fixed), (2, 2), "{}", lines(&fixed));
}

/// Mends as somebody whose first commit is held up until something else has happened.
async fn overtaken(stage: &Stage, meanwhile: impl AsyncFnOnce()) -> Doctor {
    let slow = Mortal::new(stage);
    let (app, gate) = (slow.app(stage), slow.gate_commit());
    let mending = tokio::spawn(async move { doctor_fix(&app).await });
    gate.reached().await;
    meanwhile().await;
    gate.open();
    mending.await.unwrap().unwrap()
}

/// What may be somebody's is told, or not even that, and stays.
#[tokio::test(start_paused = true)]
async fn what_is_not_proven_is_left_alone() {
    // A clone that is being made: its draft and its snapshot are needed, by whoever goes on with it.
    let stage = Stage::new().await.paused();
    let app = stage.app();
    create(&app, "t/whole").await;
    clone_dies(&stage, 2).await;
    let left = stage.left().await;
    assert_eq!(told(&app).await, "");
    assert_eq!(doctor_fix(&app).await.unwrap().total, 0);
    assert_eq!((stage.left().await, snapshots(&stage, "t/whole").len()), (left, 1));
    stage.settle(&app).await;
    assert!(stage.is_complete(&volume("t/copy")).await);
    assert_eq!(snapshots(&stage, "t/whole").len(), 0);

    // One that was removed meanwhile: its maker may not know of it for a minute.
    forget(&app, "t/copy").await;
    remove_by_hand(&stage, "t/copy").await;
    clone_dies(&stage, 2).await;
    stage.images.faults().break_nth(1, Fault::Fails);
    volume_remove(&app, &volume("t/copy"), RemoveAsk::default()).await.ok();
    stage.images.faults().revive();
    volume_remove(&app, &volume("t/copy"), RemoveAsk::default()).await.ok();
    assert_eq!(stage.keys("trash/").await.len(), 1, "it is looked out for");
    assert_eq!(doctor_fix(&app).await.unwrap().fixed, 0);

    // What somebody has taken out of the trash by hand can still be restored.
    let stage = Stage::new().await.paused();
    let app = stage.app();
    create(&app, "t/whole").await;
    create(&app, "t/v").await;
    let trash = RemoveAsk::With(Disposal::Trash);
    volume_remove(&app, &volume("t/v"), trash).await.unwrap();
    let thrown = trash_list(&app).await.unwrap().remove(0);
    let (pool, name) = ("rbd".parse().unwrap(), thrown.image);
    let trashed = TrashedImage { pool, id: thrown.image_id, name };
    stage.images.restore(&trashed, "t.v").await.unwrap();
    let fixed = doctor_fix(&app).await.unwrap();
    assert_eq!((fixed.total, fixed.fixed), (1, 0), "{}", lines(&fixed));
    assert!(lines(&fixed).contains("`volcli trash restore"), "{}", lines(&fixed));
    trash_restore(&app, &thrown.id, None).await.unwrap();
    assert_eq!(told(&app).await, "");

    // A storage in which nothing is that the records speak of: it is another, or is not there now.
    let stage = Stage::new().await.paused();
    let app = stage.app();
    for id in ["t/thrown", "t/v"] {
        create(&app, id).await;
    }
    let trash = RemoveAsk::With(Disposal::Trash);
    volume_remove(&app, &volume("t/thrown"), trash).await.unwrap();
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
    strike_out(&stage, "t/v").await;
    let mut elsewhere = stage.clone();
    elsewhere.images = Stage::bare().images;
    let fixed = doctor_fix(&elsewhere.app()).await.unwrap();
    assert_eq!((fixed.total, fixed.fixed), (2, 0), "{}", lines(&fixed));
    let id = trash_list(&app).await.unwrap().remove(0).id;
    trash_restore(&app, &id, None).await.unwrap();
    // Here the image of the claim is there, and open.
    stage.images.watch(&image("t/v"), "10.0.0.9:0/1");
    let fixed = doctor_fix(&app).await.unwrap();
    assert_eq!(fixed.fixed, 0, "{}", lines(&fixed));
    stage.images.unwatch(&image("t/v"), "10.0.0.9:0/1");
    session(&app, "h1").await;
    assert_eq!(doctor_fix(&app).await.unwrap().fixed, 0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let fixed = doctor_fix(&app).await.unwrap();
    assert_eq!(fixed.fixed, 1, "{}", lines(&fixed));
    assert!(lines(&fixed).contains("orphan-image rbd/t.v"), "{}", lines(&fixed));
}

/// Whoever flattens a clone has it open for long.
#[tokio::test(start_paused = true)]
async fn a_clone_that_is_flattened_is_open_for_a_reason() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    create(&app, "t/v").await;
    let from = OptionSet::from_driver_options(&[("from".to_owned(), "t/v".to_owned())].into());
    volume_create(&app, &volume("t/clone"), &from.unwrap()).await.unwrap();
    stage.images.watch(&image("t/clone"), "10.0.0.9:0/1");
    assert!(told(&app).await.starts_with("open-without-claim t/clone"));
    volume_flatten(&app, &volume("t/clone")).await.unwrap();
    assert_eq!(told(&app).await, "");
    stage.settle(&app).await;
    assert!(told(&app).await.starts_with("open-without-claim t/clone"));
}

/// As long as there is a record that nobody here can read, what may be its own stays.
#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_read_are_respected() {
    let stage = broken().await;
    let app = stage.app();
    for id in ["t/copy", "t/claimed", "t/nobody"] {
        scribble(&stage, id).await;
    }
    let left = hide(&told(&app).await);
    insta::assert_snapshot!(left, @r"
    record-unreadable /volplugin/volumes/t/claimed: the record at /volplugin/volumes/t/claimed cannot be read: it has version 2, this program reads version 1 at line 1 column 7; operator: a newer volmaster may have written it: update this one; until all records can be read, what may belong to them is not mended
    record-unreadable /volplugin/volumes/t/copy: the record at /volplugin/volumes/t/copy cannot be read: it has version 2, this program reads version 1 at line 1 column 7; operator: a newer volmaster may have written it: update this one; until all records can be read, what may belong to them is not mended
    record-unreadable /volplugin/volumes/t/nobody: the record at /volplugin/volumes/t/nobody cannot be read: it has version 2, this program reads version 1 at line 1 column 7; operator: a newer volmaster may have written it: update this one; until all records can be read, what may belong to them is not mended
    size-differs t/small: the record says 10 MiB, and image rbd/t.small has 5242880 bytes, and other limits; fix: `volcli doctor --fix` gives the image what the record says
    limits-differ t/limits: the record says no limits, and image rbd/t.limits has write.bps=7; fix: `volcli doctor --fix` gives the image what the record says
    trash-without-image ID: volume t/thrown was removed, and its image rbd/t.thrown (id fake0004) is not in the trash; fix: `volcli doctor --fix` drops the record
    log-without-volume t/small: it is the log of the schedule of a volume that is no more; fix: `volcli doctor --fix` drops the log
    unfinished-image rbd/.new.ID.ID.t.copy: an attempt to make an image has left it, and nobody goes on with it; operator: `volcli doctor --fix` mends it when all records can be read
    left-snapshot t/whole@clone-ID: it was taken for a clone, which does not need it any more; operator: `volcli doctor --fix` mends it when all records can be read
    ");
    let fixed = doctor_fix(&app).await.unwrap();
    assert_eq!(fixed.fixed, 4, "{}", lines(&fixed));
    assert_eq!(snapshots(&stage, "t/whole").len(), 2);
    assert!(stage.records().claim(&volume("t/claimed")).await.unwrap().is_some());
    assert!(stage.records().snapshot_log(&volume("t/nobody")).await.unwrap().is_some());
}

/// Ten thousand volumes, of which some hundreds are wrong.
#[tokio::test(start_paused = true)]
async fn ten_thousand_volumes_are_looked_at() {
    const VOLUMES: usize = 10_000;
    const WRONG: usize = 1_500;
    let stage = Stage::new().await.paused();
    let app = stage.app();
    for number in 0..VOLUMES {
        create(&app, &format!("t/v{number}")).await;
    }
    for number in 0..WRONG {
        let image = image(&format!("t/v{number}"));
        stage.images.change(&image, |image| image.limits = limits(7));
    }
    // In real time: the test's own stands.
    let began = std::time::Instant::now();
    let doctor = doctor_get(&app).await.unwrap();
    let looking = began.elapsed();
    assert_eq!((doctor.volumes, doctor.images), (VOLUMES as u64, VOLUMES as u64));
    assert_eq!((doctor.findings.len(), doctor.total, doctor.fixed), (1000, WRONG as u64, 0));
    let began = std::time::Instant::now();
    let doctor = doctor_fix(&app).await.unwrap();
    let mending = began.elapsed();
    assert_eq!((doctor.findings.len(), doctor.fixed), (1000, WRONG as u64));
    assert_eq!(told(&app).await, "");
    println!(
        "{VOLUMES} volumes are looked at in {looking:.1?}, and {WRONG} mended in {mending:.1?}"
    );
    let bound = Duration::from_secs(30);
    assert!(looking < bound && mending < 3 * bound, "{looking:?}, {mending:?}");
}
