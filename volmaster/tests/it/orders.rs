//! Snapshots of what is written to: they are taken while its file system is frozen, or not at all, whatever goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use uuid::Uuid;
use volcore::Kind;
use volcore::name::{HostName, SnapshotName};
use volcore::options::OptionSet;
use volcore::order::{FREEZE_BOUND, OrderState, Report, Thawed, ThawedBy};
use volmaster::app::hosts::{SessionAsk, host_session};
use volmaster::app::mounts::{ReleaseAsk, mount_claim, mount_release};
use volmaster::app::orders::{host_order_list, host_order_report};
use volmaster::app::schedules::{schedule_due, schedule_sync, schedules};
use volmaster::app::snapshots::{SnapshotError, Taking, snapshot_create};
use volmaster::app::volumes::{volume_create, volume_get};
use volmaster::app::{App, Failing};

use crate::faults::{EVERYTHING, Run, ask, within};
use crate::stage::{Stage, image, volume};

const WORD: Thawed = Thawed { held_ms: 7, by: ThawedBy::Word };

/// How a host obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// As it is told.
    Well,
    /// It cannot.
    Cannot,
    /// It freezes, and its bound is over before it is told to thaw.
    TooShort,
    /// It freezes, and dies.
    DiesFrozen,
    /// It says nothing.
    Silent,
}

fn name(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

fn host() -> HostName {
    "h1".parse().unwrap()
}

async fn session(app: &App) {
    let ask = SessionAsk {
        instance: Uuid::from_u128(1),
        boot: "boot-of-h1".parse().unwrap(),
        version: "0".to_owned(),
    };
    host_session(app, &host(), &ask).await.unwrap();
}

/// The volume `t/v`, with these options, held by `h1`, which has a session.
async fn held(options: &[(&str, &str)]) -> Stage {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    let pairs = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let options = OptionSet::from_driver_options(&pairs.collect()).unwrap();
    volume_create(&app, &volume("t/v"), &options).await.unwrap();
    session(&app).await;
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
    stage
}

const FROZEN: [(&str, &str); 4] = [
    ("snapshots", "1"),
    ("snapshots.frequency", "1h"),
    ("snapshots.keep", "3"),
    ("snapshot.freeze", "true"),
];

/// A schedule that does not ask for it.
const PLAIN: [(&str, &str); 0] = [];

/// A volume that is written to by who keeps the lock, as the kernel's rbd does: no snapshot is taken but while it is frozen.
async fn kept() -> Stage {
    let stage = held(&PLAIN).await;
    stage.images.change(&image("t/v"), |image| image.keeps_lock = true);
    stage
}

/// Writes to the image as a host does whose file system is not frozen, and obeys.
fn obey(stage: &Stage, manner: Manner) -> tokio::task::JoinHandle<()> {
    obey_counting(stage, manner).0
}

/// The same, and how often it has frozen.
fn obey_counting(stage: &Stage, manner: Manner) -> (tokio::task::JoinHandle<()>, Arc<AtomicUsize>) {
    let (stage, app, count) = (stage.clone(), stage.app(), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    let host = tokio::spawn(async move {
        let mut after = None;
        let mut frozen: Option<(Uuid, tokio::time::Instant)> = None;
        let mut renewed = tokio::time::Instant::now();
        for round in 0_u64.. {
            let wait = Duration::from_millis(100);
            let Ok((orders, at)) = host_order_list(&app, &host(), after, wait).await else {
                continue;
            };
            after = Some(at);
            if renewed.elapsed() > Duration::from_secs(2) {
                session(&app).await;
                renewed = tokio::time::Instant::now();
            }
            if frozen.is_none_or(|(_, since)| since.elapsed() > FREEZE_BOUND) {
                // Alive, so what is in the image is torn.
                let torn = [b'x', u8::try_from(round % 250).unwrap()];
                stage.images.write(&image("t/v"), 0, &torn);
            }
            for order in orders {
                let report = async |report| {
                    host_order_report(&app, &host(), order.id, report).await.ok();
                };
                match (&order.state, manner) {
                    (_, Manner::Silent) => {}
                    (OrderState::Asked, Manner::Cannot) => {
                        report(Report::Failed { reason: "its disk is gone".to_owned() }).await;
                    }
                    (OrderState::Asked, _) => {
                        counted.fetch_add(1, Ordering::Relaxed);
                        stage.images.write(&image("t/v"), 0, b"ok");
                        frozen = Some((order.id, tokio::time::Instant::now()));
                        report(Report::Frozen).await;
                        if manner == Manner::TooShort {
                            frozen = None;
                            let by = ThawedBy::Itself;
                            report(Report::Thawed(Thawed { held_ms: 9, by })).await;
                        }
                        if manner == Manner::DiesFrozen {
                            return;
                        }
                    }
                    (OrderState::Thaw, _) if frozen.is_some_and(|(id, _)| id == order.id) => {
                        frozen = None;
                        report(Report::Thawed(WORD)).await;
                    }
                    _ => {}
                }
            }
        }
    });
    (host, count)
}

fn snapshots(stage: &Stage) -> Vec<(String, Vec<u8>)> {
    let found = stage.images.images(&"rbd".parse().unwrap());
    let found = found.into_iter().find(|found| found.name == volume("t/v").image_name()).unwrap();
    found.snapshots.into_iter().map(|it| (it.name.to_string(), it.data[..2].to_vec())).collect()
}

fn told(error: &SnapshotError) -> String {
    volapi::problem::chain(error)
}

async fn take(app: &App, snapshot: &str) -> Result<Taking, SnapshotError> {
    snapshot_create(app, &volume("t/v"), &name(snapshot)).await
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_frozen_and_what_is_not_needs_no_host() {
    let stage = held(&FROZEN).await;
    let app = stage.app();
    let host = obey(&stage, Manner::Well);
    for round in 0..3 {
        let taken = take(&app, &format!("s{round}")).await.unwrap();
        assert!(matches!(taken, Taking::Created(_)));
    }
    assert!(matches!(take(&app, "s0").await.unwrap(), Taking::Unchanged(_)));
    assert!(snapshots(&stage).iter().all(|(_, data)| data == b"ok"), "{:?}", snapshots(&stage));
    assert_eq!(stage.keys("orders/").await, [""; 0]);
    host.abort();
    mount_release(&app, &volume("t/v"), &ReleaseAsk::Force).await.unwrap();
    take(&app, "unheld").await.unwrap();
    assert_eq!(snapshots(&stage).len(), 4);
}

/// Whoever asks for it, and whatever the schedule says.
#[tokio::test(start_paused = true)]
async fn what_keeps_its_lock_is_frozen() {
    let stage = kept().await;
    let app = stage.app();
    let host = obey(&stage, Manner::Well);
    for expected in ["created", "unchanged"] {
        let taken = match take(&app, "mine").await.unwrap() {
            Taking::Created(_) => "created",
            Taking::Unchanged(_) => "unchanged",
        };
        assert_eq!(taken, expected);
    }
    assert_eq!(snapshots(&stage), [("mine".to_owned(), b"ok".to_vec())]);
    host.abort();
    let cannot = obey(&stage, Manner::Cannot);
    let error = take(&app, "other").await.unwrap_err();
    assert!(told(&error).contains("its disk is gone"), "{}", told(&error));
    assert_eq!(snapshots(&stage).len(), 1);
    cannot.abort();
}

/// Several at once, of as many volmasters: one after the other, and once for each snapshot.
#[tokio::test(start_paused = true)]
async fn one_order_at_a_time() {
    let stage = held(&FROZEN).await;
    let (_host, freezes) = obey_counting(&stage, Manner::Well);
    let takes = (0..6).map(|number| {
        let app = stage.app();
        tokio::spawn(async move { take(&app, &format!("s{}", number % 2)).await })
    });
    for taken in takes.collect::<Vec<_>>() {
        taken.await.unwrap().unwrap();
    }
    assert_eq!(snapshots(&stage).len(), 2);
    assert!(snapshots(&stage).iter().all(|(_, data)| data == b"ok"));
    assert_eq!(freezes.load(Ordering::Relaxed), 2, "nothing is frozen for what is there");
}

#[tokio::test(start_paused = true)]
async fn without_a_freeze_there_is_no_snapshot() {
    for copying in [Duration::ZERO, Duration::from_secs(1)] {
        let options = if copying.is_zero() { &FROZEN[..] } else { &[] };
        for manner in [Manner::Cannot, Manner::TooShort, Manner::DiesFrozen, Manner::Silent] {
            let stage = held(options).await;
            stage.images.set_copying(copying);
            let app = stage.app();
            let host = obey(&stage, manner);
            let error = take(&app, "mine").await.unwrap_err();
            assert_eq!(error.kind(), Kind::Busy, "{manner:?}: {}", told(&error));
            let says = match manner {
                Manner::Cannot => {
                    "host h1 could not freeze the file system of volume t/v: its disk is gone"
                }
                Manner::Silent => {
                    "host h1 has not frozen the file system of volume t/v within 10 s"
                }
                _ => "host h1 did not keep the file system of volume t/v frozen until",
            };
            assert!(told(&error).contains(says), "{manner:?}: {}", told(&error));
            assert_eq!(snapshots(&stage), [], "{manner:?}");
            assert_eq!(stage.keys("orders/").await, [""; 0], "{manner:?}");
            host.abort();
            // And then it works.
            session(&app).await;
            let _host = obey(&stage, Manner::Well);
            take(&app, "mine").await.unwrap();
            assert_eq!(snapshots(&stage), [("mine".to_owned(), b"ok".to_vec())], "{manner:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_made_while_nothing_writes_or_not_at_all() {
    // Whatever the policy says.
    let stage = held(&[]).await;
    stage.images.set_copying(Duration::from_secs(2));
    let app = stage.app();
    let _host = obey(&stage, Manner::Well);
    take(&app, "s1").await.unwrap();
    assert_eq!(snapshots(&stage), [("s1".to_owned(), b"ok".to_vec())]);
    // It would take longer than that.
    stage.images.set_copying(Duration::from_secs(60));
    let error = take(&app, "s2").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    insta::assert_snapshot!(told(&error), @"could not take snapshot s2 of volume t/v: could not take snapshot rbd/t.v@s2: it is a copy, and was not finished within 4.5s, for which the file system of what is in use can be frozen; stop the containers that use it, or put the images on a file system that shares data between files (xfs or btrfs), where a copy takes no time");
    assert_eq!((snapshots(&stage).len(), stage.keys("orders/").await.len()), (1, 0));
    // Nobody holds it: there is time.
    mount_release(&app, &volume("t/v"), &ReleaseAsk::Force).await.unwrap();
    take(&app, "s3").await.unwrap();
    // Unless somebody comes meanwhile, even if he goes again.
    let taking = {
        let app = stage.app();
        tokio::spawn(async move { take(&app, "s4").await })
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
    mount_release(&app, &volume("t/v"), &ReleaseAsk::Force).await.unwrap();
    let error = taking.await.unwrap().unwrap_err();
    insta::assert_snapshot!(told(&error), @"could not take snapshot s4 of volume t/v: volume t/v was claimed while its snapshot was taken; try again");
    assert_eq!(snapshots(&stage).len(), 2);
}

/// A clone of what is in use is made of a snapshot, too.
#[tokio::test(start_paused = true)]
async fn what_is_cloned_is_frozen() {
    let stage = held(&[]).await;
    stage.images.set_copying(Duration::from_secs(1));
    let app = stage.app();
    let from = [("from".to_owned(), "t/v".to_owned())].into();
    let from = OptionSet::from_driver_options(&from).unwrap();
    let host = obey(&stage, Manner::Cannot);
    let error = volume_create(&app, &volume("t/c"), &from).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    volume_get(&app, &volume("t/c")).await.unwrap_err();
    host.abort();
    let _host = obey(&stage, Manner::Well);
    volume_create(&app, &volume("t/c"), &from).await.unwrap();
    let images = stage.images.images(&"rbd".parse().unwrap());
    let clone = images.iter().find(|found| found.name == "t.c").unwrap();
    assert_eq!(&clone.data[..2], b"ok");
    assert_eq!(snapshots(&stage), []);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_away_is_named_and_the_schedule_tells() {
    let stage = held(&FROZEN).await;
    let app = stage.app();
    tokio::time::sleep(Duration::from_secs(60)).await;
    stage.pass(Duration::from_secs(3600));
    schedule_sync(&app).await.unwrap();
    let due = schedule_due(&app).items.remove(0).name;
    let error = take(&app, due.as_str()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    insta::assert_snapshot!(told(&error).replace(due.as_str(), "auto"), @"could not take snapshot auto of volume t/v: host h1 holds volume t/v and has no live session, so that its file system cannot be frozen there; if that host is gone for good, `volcli mount force-remove t/v` clears its claim");
    schedule_sync(&app).await.unwrap();
    assert_eq!((schedules(&app).failed, schedules(&app).failing.len()), (1, 1));
    session(&app).await;
    let _host = obey(&stage, Manner::Well);
    take(&app, due.as_str()).await.unwrap();
    assert_eq!(snapshots(&stage), [(due.to_string(), b"ok".to_vec())]);
}

/// Breaks, loses answers and dies at every step: a snapshot that is there was frozen, and the next attempt works.
#[tokio::test(start_paused = true)]
async fn taking_frozen_whatever_goes_wrong() {
    for (wrong, keeps_lock) in EVERYTHING.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        for nth in 1.. {
            let what = format!("{wrong:?} at {nth}, the lock kept: {keeps_lock}");
            let stage = if keeps_lock { kept().await } else { held(&FROZEN).await };
            let host = obey(&stage, Manner::Well);
            let run = Run::arm(&stage, wrong, nth).await;
            let outcome = within(take(&run.app, "mine")).await;
            let fired = run.end().await;
            let there = snapshots(&stage);
            assert!(there.iter().all(|(_, data)| data == b"ok"), "{what}: {there:?}");
            if matches!(outcome, Some(Ok(_))) {
                assert_eq!(there.len(), 1, "{what}");
            }
            // What the dead has ordered ends with its lease.
            tokio::time::sleep(Duration::from_secs(30)).await;
            let app = stage.app();
            session(&app).await;
            take(&app, "mine").await.unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
            assert_eq!(snapshots(&stage), [("mine".to_owned(), b"ok".to_vec())], "{what}");
            assert_eq!(stage.keys("orders/").await, [""; 0], "{what}");
            host.abort();
            if !fired {
                break;
            }
        }
    }
}

/// A list that waits answers with the change, and a volmaster that is told to stop keeps nobody waiting.
#[tokio::test(start_paused = true)]
async fn a_list_waits_for_a_change() {
    let stage = held(&FROZEN).await;
    let apps: [Arc<App>; 2] = [stage.app(), stage.app()];
    let minute = Duration::from_secs(60);
    let (none, at) = host_order_list(&apps[0], &host(), None, minute).await.unwrap();
    assert_eq!(none, []);
    let began = tokio::time::Instant::now();
    let (_, same) = host_order_list(&apps[0], &host(), Some(at), minute).await.unwrap();
    assert_eq!((same, began.elapsed() >= minute), (at, true));
    let taking = {
        let app = Arc::clone(&apps[1]);
        tokio::spawn(async move { take(&app, "mine").await })
    };
    session(&apps[0]).await;
    let (orders, _) = host_order_list(&apps[0], &host(), Some(at), minute).await.unwrap();
    assert_eq!(orders[0].state, OrderState::Asked);
    let id = orders[0].id;
    let early = host_order_report(&apps[0], &host(), id, Report::Thawed(WORD)).await;
    insta::assert_snapshot!(early.unwrap_err(), @"the order for volume t/v is asked; that cannot be reported now");
    let others = host_order_report(&apps[0], &"h2".parse().unwrap(), id, Report::Frozen).await;
    assert_eq!(others.unwrap_err().kind(), Kind::NotFound);
    taking.await.unwrap().unwrap_err();
    let waiting = {
        let app = Arc::clone(&apps[0]);
        tokio::spawn(async move {
            host_order_list(&app, &host(), Some(u64::MAX), Duration::from_secs(1 << 20)).await
        })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    apps[0].shutdown(Duration::from_secs(1)).await;
    waiting.await.unwrap().unwrap();
}
