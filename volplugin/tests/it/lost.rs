//! A host that was given up: it mounts nothing, learns what it has lost, and leaves nothing of that behind.

use std::time::Duration;

use jiff::Timestamp;
use volcore::claim::{Claim, HoldState, Holder};
use volplugin::app::Plugin;
use volplugin::background::reconcile::{self, SETTLED};
use volplugin::host::standing::{Moment, Standing};
use volplugin::host::uses::Phase;
use volplugin::master::Master;
use volstorage::fake::Fault;

use crate::faults::Dockerd;
use crate::support::{World, id};

const WITHIN: Duration = Duration::from_secs(1);

async fn world() -> World {
    let world = World::new();
    world.master.state().in_ceph = true;
    world.master.volume_create(&id("t/v"), Default::default(), WITHIN).await.unwrap();
    world
}

impl World {
    /// Gives the volume to h2, as volmaster does when h1 was silent.
    fn take_over(&self) -> Claim {
        let mut state = self.master.state();
        let epoch = state.epochs[&id("t/v")] + 1;
        let holder = Holder {
            host: "h2".parse().unwrap(),
            boot: "boot-h2".parse().unwrap(),
            instance: None,
            state: HoldState::Mounted,
            mounts: ["theirs".parse().unwrap()].into(),
            clients: vec!["10.0.0.2:0/22".into()],
            since: Timestamp::UNIX_EPOCH,
        };
        let claim = Claim { volume: id("t/v"), epoch, holders: vec![holder] };
        state.epochs.insert(id("t/v"), epoch);
        state.claims.insert(id("t/v"), claim.clone());
        claim
    }

    fn claim(&self) -> Option<Claim> {
        self.master.state().claims.get(&id("t/v")).cloned()
    }

    fn is_clean(&self, plugin: &Plugin) -> bool {
        plugin.uses.list().is_empty()
            && self.host.mapped().is_empty()
            && self.host.mounted().is_empty()
    }
}

#[tokio::test]
async fn what_was_taken_over_is_given_up_within_a_second() {
    let world = world().await;
    let (plugin, docker) = (world.start(), Dockerd::alive());
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    plugin.follow_changes().await.unwrap();
    assert!(!world.is_clean(&plugin), "nobody has taken it");
    let theirs = world.take_over();
    world.host.faults().revive();
    plugin.follow_changes().await.unwrap();
    assert!(world.is_clean(&plugin));
    assert_eq!(world.host.faults().effects()[..2], ["kill the server", "detach the mount"]);
    assert_eq!(world.claim(), Some(theirs), "the claim of the other host stands");
    // Docker's own end of it comes later, and the host may go on with other volumes.
    docker.unmount(&plugin, "t/v", "m1").await.unwrap();
    docker.mount(&plugin, "t/v", "m2").await.unwrap_err();
    world.master.volume_create(&id("t/w"), Default::default(), WITHIN).await.unwrap();
    docker.mount(&plugin, "t/w", "m3").await.unwrap();
}

#[tokio::test]
async fn a_claim_that_was_cleared_is_not_taken_again_by_who_had_lost_it() {
    let world = world().await;
    let (plugin, docker) = (world.start(), Dockerd::alive());
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    world.master.state().claims.clear();
    // One more container of the same host.
    docker.mount(&plugin, "t/v", "m2").await.unwrap_err();
    assert!(world.is_clean(&plugin) && world.claim().is_none());
    docker.mount(&plugin, "t/v", "m2").await.unwrap();
    assert_eq!(world.claim().unwrap().epoch, 2);
}

#[tokio::test]
async fn what_containers_still_use_is_never_said_to_be_mounted() {
    let world = world().await;
    let (plugin, docker) = (world.start(), Dockerd::alive());
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    let target = plugin.uses.mountpoint(&id("t/v")).unwrap();
    world.host.set_users(&target, &["sh (7)"]);
    world.take_over();
    plugin.follow_changes().await.unwrap();
    let held = plugin.uses.get(&id("t/v")).unwrap();
    assert_eq!(held.phase, Phase::Fenced);
    assert_eq!(plugin.uses.mountpoint(&id("t/v")), None);
    assert!(world.host.mounted().is_empty(), "new containers do not see it");
    let refused = docker.mount(&plugin, "t/v", "m2").await.unwrap_err();
    assert!(refused.to_string().contains("still being unmounted"), "{refused}");
    // After a restart, too.
    let plugin = world.start();
    reconcile::pass(&plugin, SETTLED).await;
    assert_eq!(plugin.uses.get(&id("t/v")).unwrap().phase, Phase::Fenced);
    world.host.set_users(&target, &[]);
    reconcile::pass(&plugin, SETTLED).await;
    assert!(world.is_clean(&plugin));
}

#[tokio::test]
async fn a_server_that_was_fenced_off_is_noticed_without_volmaster() {
    let world = world().await;
    let (plugin, docker) = (world.start(), Dockerd::alive());
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    let held = plugin.uses.get(&id("t/v")).unwrap();
    world.host.fence(&held.source);
    reconcile::pass(&plugin, SETTLED).await;
    assert!(world.is_clean(&plugin));
    assert!(world.claim().is_none());
}

/// Whatever fails or dies on the way: the next passes leave nothing.
#[tokio::test]
async fn giving_up_whatever_goes_wrong() {
    for fault in [Fault::Fails, Fault::AnswerLost, Fault::Dies] {
        for nth in 1.. {
            let world = world().await;
            let (plugin, docker) = (world.start(), Dockerd::alive());
            docker.mount(&plugin, "t/v", "m1").await.unwrap();
            let theirs = world.take_over();
            world.host.faults().break_nth(nth, fault);
            plugin.follow_changes().await.unwrap();
            let fired = !world.host.faults().is_ahead();
            world.host.faults().revive();
            let plugin = world.start();
            assert_eq!(plugin.uses.mountpoint(&id("t/v")), None, "{fault:?} at {nth}");
            reconcile::pass(&plugin, SETTLED).await;
            assert!(world.is_clean(&plugin), "{fault:?} at {nth}");
            assert_eq!(world.claim().as_ref(), Some(&theirs), "{fault:?} at {nth}");
            if !fired {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_session_nothing_is_mounted_anew() {
    let world = world().await;
    let (mut plugin, docker) = (world.start(), Dockerd::alive());
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    let lapsed = Standing::default();
    std::sync::Arc::get_mut(&mut plugin).unwrap().standing = lapsed;
    world.master.volume_create(&id("t/w"), Default::default(), WITHIN).await.unwrap();
    let refused = docker.mount(&plugin, "t/w", "m2").await.unwrap_err();
    assert!(refused.to_string().contains("has no session"), "{refused}");
    assert!(!world.master.state().claims.contains_key(&id("t/w")));
    // What runs goes on, and so does who joins it.
    docker.mount(&plugin, "t/v", "m3").await.unwrap();
    plugin.standing.granted(Moment::now(), "10s".parse().unwrap());
    docker.mount(&plugin, "t/w", "m2").await.unwrap();
}
