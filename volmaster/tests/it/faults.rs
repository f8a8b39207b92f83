//! Break every step, do every step twice, die after every step: whatever happened, what is left is
//! nothing or a whole volume, once the reconcilers have run.

use std::sync::Arc;
use std::time::Duration;

use volcore::claim::{ClaimAsk, Reached};
use volcore::name::VolumeId;
use volmaster::app::mounts::{Granted, ReleaseAsk, mount_claim, mount_release, mount_sync};
use volmaster::app::tenants::{tenant_sync, tenant_upload};
use volmaster::app::volumes::{
    Creation, RemoveAsk, VolumeError, volume_create, volume_remove, volume_sync,
};
use volmaster::app::{App, LoopName};
use volmaster::background::{self, Seen};
use volstorage::faults::Fault as ImageFault;
use volstore::memory::Fault as StoreFault;

use crate::mortal::{Hang, Mortal, When};
use crate::stage::{Stage, no_options, volume};

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Wrong {
    Commit(StoreFault),
    Read,
    Image(ImageFault),
    Death(When),
}

pub const EVERYTHING: [Wrong; 9] = [
    Wrong::Commit(StoreFault::Before),
    Wrong::Commit(StoreFault::RequestLost),
    Wrong::Commit(StoreFault::ReplyLost),
    Wrong::Read,
    Wrong::Image(ImageFault::Fails),
    Wrong::Image(ImageFault::AnswerLost),
    Wrong::Image(ImageFault::Dies),
    Wrong::Death(When::Before),
    Wrong::Death(When::After),
];

/// One process, in which the `nth` effect of a sort goes wrong.
pub struct Run {
    stage: Stage,
    mortal: Mortal,
    pub app: Arc<App>,
    wrong: Wrong,
    nth: u64,
    before: (u64, u64),
}

impl Run {
    pub async fn arm(stage: &Stage, wrong: Wrong, nth: usize) -> Run {
        let mortal = Mortal::new(stage);
        let app = mortal.app(stage);
        Run::arm_on(stage, mortal, app, wrong, nth).await
    }

    /// The same with a process that has been there for a while.
    pub async fn arm_on(
        stage: &Stage,
        mortal: Mortal,
        app: Arc<App>,
        wrong: Wrong,
        nth: usize,
    ) -> Run {
        // So that the mirrors have made their reads before they are counted.
        volume_sync(&app).await.unwrap();
        mount_sync(&app).await.unwrap();
        tenant_sync(&app).await.unwrap();
        background::once(&app, LoopName::Trash, &mut Seen::default()).await.unwrap();
        let faults = stage.store.faults();
        let before = (faults.commits(), faults.reads());
        let count = nth as u64;
        match wrong {
            Wrong::Commit(fault) => faults.on_commit(count, fault),
            Wrong::Read => faults.on_read(count),
            Wrong::Image(fault) => stage.images.faults().break_nth(nth, fault),
            Wrong::Death(when) => mortal.die_at(nth, when),
        }
        Run { stage: stage.clone(), mortal, app, wrong, nth: count, before }
    }

    /// Ends the process; whether anything went wrong in it.
    pub async fn end(self) -> bool {
        let faults = self.stage.store.faults();
        let fired = match self.wrong {
            Wrong::Commit(_) => faults.commits() - self.before.0 >= self.nth,
            Wrong::Read => faults.reads() - self.before.1 >= self.nth,
            Wrong::Image(_) => !self.stage.images.faults().is_ahead(),
            Wrong::Death(_) => self.mortal.is_dead(),
        };
        self.mortal.hang(Hang::All);
        faults.clear();
        self.stage.images.faults().revive();
        fired
    }
}

/// An operation under test.
type Outcome = Result<(), String>;

async fn create(app: &App) -> Outcome {
    let made = volume_create(app, &volume("t/v"), &no_options()).await;
    made.map(drop).map_err(|error| volapi::problem::chain(&error))
}

async fn remove(app: &App) -> Outcome {
    match volume_remove(app, &volume("t/v"), RemoveAsk::default()).await {
        Ok(_) | Err(VolumeError::NotFound { .. }) => Ok(()),
        Err(error) => Err(volapi::problem::chain(&error)),
    }
}

/// A volume with a past: it has been claimed, so that it has an epoch.
async fn used_volume(stage: &Stage) {
    let app = stage.app();
    create(&app).await.unwrap();
    mount_claim(&app, &volume("t/v"), ask("h1")).await.unwrap();
    mount_release(&app, &volume("t/v"), &ReleaseAsk::Force).await.unwrap();
}

pub fn ask(host: &str) -> ClaimAsk {
    ClaimAsk {
        host: host.parse().unwrap(),
        boot: format!("boot-of-{host}").parse().unwrap(),
        instance: None,
        epoch: None,
        state: Reached::Claimed,
        mounts: ["m1".parse().unwrap()].into(),
        clients: vec![],
    }
}

/// Waits a while for an operation; a dead process never answers.
pub async fn within<T>(operation: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(200), operation).await.ok()
}

fn check(what: &str, left: &[String]) {
    assert!(left.is_empty(), "{what} leaves {left:?}");
}

#[tokio::test(start_paused = true)]
async fn create_whatever_goes_wrong() {
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("a create with {wrong:?} at {nth}");
            let stage = Stage::new().await.paused();
            let run = Run::arm(&stage, wrong, nth).await;
            let outcome = within(create(&run.app)).await;
            let fired = run.end().await;
            let app = stage.app();
            stage.settle(&app).await;
            if stage.is_complete(&volume("t/v")).await {
                assert_eq!(stage.left().await.len(), 2, "{what}: {:?}", stage.left().await);
            } else {
                assert!(!matches!(outcome, Some(Ok(()))), "{what} was said to have worked");
                check(&what, &stage.left().await);
            }
            // And again, as whoever asked for it will do.
            create(&app).await.unwrap_or_else(|error| panic!("{what}, again: {error}"));
            assert!(stage.is_complete(&volume("t/v")).await, "{what}, again");
            if !fired {
                assert!(matches!(outcome, Some(Ok(()))), "{what}: {outcome:?}");
                assert!(nth > 1, "{wrong:?} never happens");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn remove_whatever_goes_wrong() {
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("a remove with {wrong:?} at {nth}");
            let stage = Stage::new().await.paused();
            used_volume(&stage).await;
            let run = Run::arm(&stage, wrong, nth).await;
            let outcome = within(remove(&run.app)).await;
            let fired = run.end().await;
            let app = stage.app();
            stage.settle(&app).await;
            if stage.is_complete(&volume("t/v")).await {
                assert!(!matches!(outcome, Some(Ok(()))), "{what} was said to have worked");
            } else {
                check(&what, &stage.left().await);
            }
            remove(&app).await.unwrap_or_else(|error| panic!("{what}, again: {error}"));
            stage.settle(&app).await;
            check(&format!("{what}, again,"), &stage.left().await);
            if !fired {
                assert!(matches!(outcome, Some(Ok(()))), "{what}: {outcome:?}");
                assert!(nth > 1, "{wrong:?} never happens");
                break;
            }
        }
    }
}

/// The reconcilers themselves break and die in turn, at every step, after every death of a create
/// and of a remove.
#[tokio::test(start_paused = true)]
async fn reconcilers_whatever_goes_wrong() {
    let deaths = [Wrong::Image(ImageFault::Dies), Wrong::Death(When::After)];
    for first in [true, false] {
        for death in deaths {
            for nth in 1.. {
                let mut any = false;
                for wrong in EVERYTHING {
                    for second in 1.. {
                        let stage = Stage::new().await.paused();
                        if !first {
                            used_volume(&stage).await;
                        }
                        let run = Run::arm(&stage, death, nth).await;
                        match first {
                            true => drop(within(create(&run.app)).await),
                            false => drop(within(remove(&run.app)).await),
                        }
                        any |= run.end().await;
                        if !broken_reconcilers(&stage, wrong, second).await {
                            break;
                        }
                        let app = stage.app();
                        stage.settle(&app).await;
                        let whole = stage.is_complete(&volume("t/v")).await;
                        let left = stage.left().await;
                        let what = format!(
                            "create: {first}, {death:?} at {nth}, then {wrong:?} at {second}"
                        );
                        assert!(
                            if whole { left.len() <= 3 } else { left.is_empty() },
                            "{what}: {left:?}"
                        );
                    }
                }
                if !any {
                    break;
                }
            }
        }
    }
}

/// Runs the reconcilers for two minutes with a fault in them; whether it came to pass.
pub async fn broken_reconcilers(stage: &Stage, wrong: Wrong, nth: usize) -> bool {
    let run = Run::arm(stage, wrong, nth).await;
    let mut seen = Seen::default();
    for _ in 0..24 {
        for name in LoopName::ALL {
            // It may fail or never end: that is what this is about.
            drop(within(background::once(&run.app, name, &mut seen)).await);
        }
        if run.mortal.is_dead() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    run.end().await
}

#[tokio::test(start_paused = true)]
async fn a_format_command_that_fails_leaves_nothing() {
    let stage = Stage::new().await.paused();
    let policy = r#"{"default-options": {"size": "10MB"}, "filesystems": {"ext4": "echo no such disk >&2; exit 3 %"}}"#;
    let app = stage.app();
    tenant_upload(&app, &"t".parse().unwrap(), serde_json::from_str(policy).unwrap())
        .await
        .unwrap();
    insta::assert_snapshot!(create(&app).await.unwrap_err(), @"could not create volume t/v: format command `echo no such disk >&2; exit 3 /fake/scratch` failed with exit status 3: no such disk");
    check("a failed format", &stage.left().await);
    for wrong in EVERYTHING {
        for nth in 1.. {
            let run = Run::arm(&stage, wrong, nth).await;
            let outcome = within(create(&run.app)).await;
            assert!(!matches!(outcome, Some(Ok(()))));
            let fired = run.end().await;
            stage.settle(&stage.app()).await;
            check(&format!("a failed format with {wrong:?} at {nth}"), &stage.left().await);
            if !fired {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_definite_is_taken_back_and_said() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    stage.images.add_foreign(&crate::stage::image("t/v"));
    insta::assert_snapshot!(create(&app).await.unwrap_err(), @"could not create volume t/v: image rbd/t.v exists already and was not made for this volume; it was left as it is (rename or remove it, or choose another volume name)");
    assert_eq!(stage.left().await, ["image t.v"]);
    let stage = Stage::new().await.paused();
    let app = stage.app();
    stage.images.set_full(&"rbd".parse().unwrap(), true);
    insta::assert_snapshot!(create(&app).await.unwrap_err(), @"could not create volume t/v: no space left to create image rbd/t.v: the fake was told so");
    check("a full pool", &stage.left().await);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_for_by_the_record() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    stage.images.go_down();
    insta::assert_snapshot!(create(&app).await.unwrap_err(), @"could not create volume t/v: the fake cluster cannot be reached while trying to create image rbd/t.v: the fake was told so");
    let found = stage.records().volume(&volume("t/v")).await.unwrap().unwrap();
    insta::assert_snapshot!(found.value.last_error.unwrap(), @"the fake cluster cannot be reached while trying to create image rbd/t.v: the fake was told so");
    stage.images.come_up();
    // Whoever asks again takes the work up at once.
    let made = volume_create(&app, &volume("t/v"), &no_options()).await.unwrap();
    assert!(matches!(made, Creation::Created(_)));

    stage.images.go_down();
    remove(&app).await.unwrap_err();
    let busy = create(&app).await.unwrap_err();
    insta::assert_snapshot!(busy, @"volume t/v is being removed; try again when that is done");
    stage.images.come_up();
    remove(&app).await.unwrap();
    stage.settle(&app).await;
    check("an outage", &stage.left().await);
}

#[tokio::test(start_paused = true)]
async fn an_image_in_use_makes_the_volume_ready_again() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    create(&app).await.unwrap();
    stage.images.watch(&crate::stage::image("t/v"), "10.0.0.9:0/1");
    insta::assert_snapshot!(remove(&app).await.unwrap_err(), @"could not remove volume t/v: image rbd/t.v is in use by 10.0.0.9:0/1");
    assert!(stage.is_complete(&volume("t/v")).await);
    stage.images.unwatch(&crate::stage::image("t/v"), "10.0.0.9:0/1");
    remove(&app).await.unwrap();
}

/// The record stays, says why in words of removing, and can be got rid of.
#[tokio::test(start_paused = true)]
async fn a_replaced_image_is_left_alone_and_the_way_out_is_said() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    create(&app).await.unwrap();
    stage.images.add_foreign(&crate::stage::image("t/v"));
    insta::assert_snapshot!(remove(&app).await.unwrap_err(), @"could not remove volume t/v: image rbd/t.v is not the one that was made for it, and was left as it is; `volcli volume force-remove t/v` forgets the volume and leaves that image alone");
    let found = stage.records().volume(&volume("t/v")).await.unwrap().unwrap();
    assert_eq!(found.value.state.as_str(), "removing");
    insta::assert_snapshot!(found.value.last_error.unwrap(), @"could not remove volume t/v: image rbd/t.v is not the one that was made for it, and was left as it is; `volcli volume force-remove t/v` forgets the volume and leaves that image alone");
    volume_remove(&app, &volume("t/v"), RemoveAsk::MetadataOnly).await.unwrap();
    assert_eq!(stage.left().await, ["image t.v"]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whatever_goes_wrong() {
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("a claim with {wrong:?} at {nth}");
            let stage = Stage::new().await.paused();
            let app = stage.app();
            create(&app).await.unwrap();
            let run = Run::arm(&stage, wrong, nth).await;
            let id: VolumeId = volume("t/v");
            let outcome = within(mount_claim(&run.app, &id, ask("h1"))).await;
            let fired = run.end().await;
            let taken = stage.records().claim(&id).await.unwrap();
            if let Some(Ok(_)) = outcome {
                assert!(taken.is_some(), "{what} was said to have worked");
            }
            let again = mount_claim(&app, &id, ask("h1")).await.unwrap();
            let (Granted::Claimed(claim) | Granted::Renewed(claim)) = again;
            assert_eq!(claim.epoch, 1, "{what}");
            mount_claim(&app, &id, ask("h2")).await.unwrap_err();
            mount_release(&app, &id, &ReleaseAsk::Force).await.unwrap();
            remove(&app).await.unwrap();
            stage.settle(&app).await;
            check(&what, &stage.left().await);
            if !fired {
                break;
            }
        }
    }
}
