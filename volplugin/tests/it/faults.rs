//! Break every step, do every step twice, die after every step: mounting and unmounting over a
//! fake volmaster and a fake host, each with a fault plan, and records on a real disk.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{Fault as MasterFault, World, id};
use tokio::sync::oneshot;
use volplugin::app::Plugin;
use volplugin::background::reconcile::{self, BEGUN, SETTLED};
use volplugin::docker::peer::{Caller, Peer};
use volplugin::host::uses::Phase;
use volplugin::master::Master;
use volstorage::fake::Fault;

const WITHIN: Duration = Duration::from_secs(1);

/// A dockerd that waits for its answer.
pub struct Dockerd {
    peer: Option<Peer>,
}

impl Dockerd {
    /// One that runs: this process.
    pub fn alive() -> Dockerd {
        let (here, there) = tokio::net::UnixStream::pair().unwrap();
        let peer = Peer::of(&here);
        drop(there);
        assert!(peer.is_some());
        Dockerd { peer }
    }

    /// One that has ended.
    fn dead() -> Dockerd {
        Dockerd { peer: Some(Peer { pid: i32::MAX, started: 1 }) }
    }

    pub async fn mount(
        &self,
        plugin: &Arc<Plugin>,
        volume: &str,
        use_id: &str,
    ) -> Result<(), String> {
        let (answer, _waits) = oneshot::channel();
        let caller = Caller::new(self.peer, answer);
        let mounted = plugin.mount(&id(volume), use_id.parse().unwrap(), &caller).await;
        mounted.map(drop).map_err(|error| volapi::problem::chain(&error))
    }

    pub async fn unmount(
        &self,
        plugin: &Arc<Plugin>,
        volume: &str,
        use_id: &str,
    ) -> Result<(), String> {
        let unmounted = plugin.unmount(&id(volume), &use_id.parse().unwrap()).await;
        unmounted.map_err(|error| volapi::problem::chain(&error))
    }
}

async fn world_with(volume: &str) -> World {
    world_of(volume, Images::Files).await
}

/// Where images are: those of Ceph have servers, which are known before they open them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Images {
    Files,
    Ceph,
}

async fn world_of(volume: &str, images: Images) -> World {
    let world = World::new();
    world.master.state().in_ceph = images == Images::Ceph;
    world.master.volume_create(&id(volume), Default::default(), WITHIN).await.unwrap();
    world
}

impl World {
    /// What is left anywhere; empty when all is clean.
    fn left(&self, plugin: &Plugin) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(self.host.mapped().iter().map(|source| format!("mapped {source:?}")));
        left.extend(self.host.mounted().iter().map(|target| format!("mounted {target:?}")));
        left.extend(self.master.state().claims.keys().map(|id| format!("claimed {id}")));
        left.extend(plugin.uses.list().iter().map(|held| format!("held {held:?}")));
        left
    }

    fn heal(&self) {
        self.host.faults().revive();
        let mut state = self.master.state();
        state.fault = None;
        state.calls = 0;
    }

    /// Mounted once, claimed by this host, with one use.
    fn assert_whole(&self, plugin: &Plugin, context: &str) {
        let held = plugin.uses.get(&id("t/v")).unwrap_or_else(|| panic!("{context}: no record"));
        assert_eq!(held.phase, Phase::Mounted, "{context}");
        assert_eq!(held.uses.len(), 1, "{context}");
        assert_eq!((self.host.mapped().len(), self.host.mounted().len()), (1, 1), "{context}");
        let state = self.master.state();
        assert_eq!(state.claims[&id("t/v")].holders[0].host.as_str(), "h1", "{context}");
    }
}

/// Where a fault may be, the host's effects and volmaster's calls in turn.
fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for nth in 1..=6 {
        for fault in [Fault::Fails, Fault::AnswerLost, Fault::Dies] {
            plans.push(Plan::Host(nth, fault));
        }
        for fault in [MasterFault::Lost, MasterFault::AnswerLost] {
            plans.push(Plan::Master(nth, fault));
        }
    }
    plans
}

fn in_both(plan: Plan) -> [(Plan, Images); 2] {
    [(plan, Images::Files), (plan, Images::Ceph)]
}

#[derive(Clone, Copy, Debug)]
enum Plan {
    Host(usize, Fault),
    Master(usize, MasterFault),
}

impl Plan {
    fn arm(self, world: &World) {
        match self {
            Plan::Host(nth, fault) => world.host.faults().break_nth(nth, fault),
            Plan::Master(nth, fault) => {
                let mut state = world.master.state();
                state.calls = 0;
                state.fault = Some((nth, fault));
            }
        }
    }

    /// Whether the fault was reached at all.
    fn was_reached(self, world: &World) -> bool {
        match self {
            Plan::Host(..) => !world.host.faults().is_ahead(),
            Plan::Master(nth, _) => world.master.state().calls >= nth,
        }
    }
}

/// A mount that fails leaves nothing, now or after one pass; one that succeeds is whole. Then the
/// same call again succeeds, as Docker's next `docker run` would.
#[tokio::test]
async fn break_every_step_of_a_mount() {
    let mut reached = 0;
    for (plan, images) in plans().into_iter().flat_map(in_both) {
        let world = world_of("t/v", images).await;
        let plugin = world.start();
        let docker = Dockerd::alive();
        plan.arm(&world);
        let mounted = docker.mount(&plugin, "t/v", "m1").await;
        reached += usize::from(plan.was_reached(&world));
        world.heal();
        reconcile::pass(&plugin, SETTLED).await;
        let context = format!("{plan:?} {images:?}: {mounted:?}");
        if mounted.is_ok() {
            world.assert_whole(&plugin, &context);
        } else {
            assert_eq!(world.left(&plugin), [""; 0], "{context}");
        }
        docker
            .mount(&plugin, "t/v", "m2")
            .await
            .unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    assert!(reached >= 25, "the plans reach the steps: {reached}");
}

/// An unmount that fails is finished by one pass; none leaves anything.
#[tokio::test]
async fn break_every_step_of_an_unmount() {
    let mut reached = 0;
    for (plan, images) in plans().into_iter().flat_map(in_both) {
        let world = world_of("t/v", images).await;
        let plugin = world.start();
        let docker = Dockerd::alive();
        docker.mount(&plugin, "t/v", "m1").await.unwrap();
        plan.arm(&world);
        let unmounted = docker.unmount(&plugin, "t/v", "m1").await;
        reached += usize::from(plan.was_reached(&world));
        world.heal();
        reconcile::pass(&plugin, SETTLED).await;
        assert_eq!(world.left(&plugin), [""; 0], "{plan:?} {images:?}: {unmounted:?}");
    }
    assert!(reached >= 12, "the plans reach the steps: {reached}");
}

/// The process dies after each step of a mount. Its successor either gets the same call again from
/// Docker, and finishes, or does not, and cleans up.
#[tokio::test]
async fn die_after_every_step_of_a_mount() {
    for (repeats, images) in [true, false]
        .into_iter()
        .flat_map(|repeats| [(repeats, Images::Files), (repeats, Images::Ceph)])
    {
        for nth in 1..=4 {
            let world = world_of("t/v", images).await;
            let docker = Dockerd::alive();
            world.host.faults().break_nth(nth, Fault::Dies);
            let plugin = world.start();
            // What the dying process still says or writes down after the effect is the test's fault
            // plan speaking, not its death: volmaster cannot be reached any more either.
            let dying = async {
                let mounted = docker.mount(&plugin, "t/v", "m1").await;
                (mounted, world.host.faults().is_ahead())
            };
            let (mounted, ahead) = dying.await;
            drop(plugin);
            world.heal();
            let next = world.start();
            let context = format!("step {nth}, repeats {repeats}, {images:?}: {mounted:?}");
            if repeats && !ahead {
                docker.mount(&next, "t/v", "m1").await.unwrap_or_else(|e| panic!("{context}: {e}"));
                reconcile::pass(&next, Duration::ZERO).await;
                world.assert_whole(&next, &context);
                docker.unmount(&next, "t/v", "m1").await.unwrap();
            } else if mounted.is_ok() {
                docker.unmount(&next, "t/v", "m1").await.unwrap();
            }
            reconcile::pass(&next, SETTLED).await;
            assert_eq!(world.left(&next), [""; 0], "{context}");
        }
    }
}

/// The same, dying between the record on disk and the next effect: every prefix of the steps,
/// made by hand.
#[tokio::test]
async fn a_record_without_its_effects_is_given_back() {
    let world = world_with("t/v").await;
    let docker = Dockerd::alive();
    let plugin = world.start();
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    let whole = plugin.uses.get(&id("t/v")).unwrap();
    docker.unmount(&plugin, "t/v", "m1").await.unwrap();
    for phase in [Phase::Mounting, Phase::Leaving] {
        let mut record = whole.clone();
        record.phase = phase;
        plugin.uses.put(&record).unwrap();
        let next = world.start();
        reconcile::pass(&next, SETTLED).await;
        assert_eq!(world.left(&next), [""; 0], "{phase:?}");
    }
}

#[tokio::test]
async fn two_containers_share_and_either_may_stop_first() {
    for (first, second) in [("m1", "m2"), ("m2", "m1")] {
        let world = world_with("t/v").await;
        let plugin = world.start();
        let docker = Dockerd::alive();
        docker.mount(&plugin, "t/v", "m1").await.unwrap();
        docker.mount(&plugin, "t/v", "m2").await.unwrap();
        assert_eq!(world.master.state().claims[&id("t/v")].holders[0].mounts.len(), 2);
        docker.unmount(&plugin, "t/v", first).await.unwrap();
        assert_eq!(world.host.mounted().len(), 1);
        docker.unmount(&plugin, "t/v", second).await.unwrap();
        assert_eq!(world.left(&plugin), [""; 0]);
    }
}

#[tokio::test]
async fn a_second_host_is_refused_by_name_and_leaves_nothing() {
    let world = world_with("t/v").await;
    let (docker, h1) = (Dockerd::alive(), world.start());
    docker.mount(&h1, "t/v", "m1").await.unwrap();
    let mapped = world.host.mapped();
    let folder = tempfile::tempdir().unwrap();
    let h2 = world.start_as("h2", folder.path());
    let refused = docker.mount(&h2, "t/v", "m2").await.unwrap_err();
    assert!(refused.contains("host h1 holds it since"), "{refused}");
    assert!(h2.uses.list().is_empty());
    assert_eq!(world.host.mapped(), mapped);
}

#[tokio::test]
async fn a_killed_dockerd_sends_no_unmount_and_its_uses_end_with_its_containers() {
    let world = world_with("t/v").await;
    let plugin = world.start();
    Dockerd::dead().mount(&plugin, "t/v", "m1").await.unwrap();
    let target = world.host.mounted()[0].clone();
    world.host.set_users(&target, &["sh (1234)"]);
    reconcile::pass(&plugin, SETTLED).await;
    assert_eq!(plugin.uses.list().len(), 1, "its container lives");
    // The next dockerd starts the container again, which has the use of its own.
    Dockerd::alive().mount(&plugin, "t/v", "m2").await.unwrap();
    world.host.set_users(&target, &[]);
    Dockerd::alive().unmount(&plugin, "t/v", "m2").await.unwrap();
    assert_eq!(world.left(&plugin), [""; 0]);
}

#[tokio::test]
async fn an_unmount_that_came_while_nobody_was_here_is_made_up_for() {
    let world = world_with("t/v").await;
    let plugin = world.start();
    let docker = Dockerd::alive();
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    let target = world.host.mounted()[0].clone();
    // It was mounted in this volplugin's life, so its Unmount will reach it.
    reconcile::pass(&plugin, BEGUN).await;
    assert_eq!(plugin.uses.list().len(), 1);
    let mut record = plugin.uses.get(&id("t/v")).unwrap();
    for one in record.uses.values_mut() {
        one.since -= Duration::from_secs(600);
    }
    plugin.uses.put(&record).unwrap();
    let next = world.start();
    reconcile::pass(&next, SETTLED).await;
    assert_eq!(next.uses.list().len(), 1, "its container may be about to begin");
    world.host.set_users(&target, &["sh (1234)"]);
    reconcile::pass(&next, BEGUN).await;
    assert_eq!(next.uses.list().len(), 1, "its container lives");
    world.host.set_users(&target, &[]);
    reconcile::pass(&next, BEGUN).await;
    assert_eq!(world.left(&next), [""; 0]);
}

#[tokio::test]
async fn the_next_dockerd_mounts_again_under_the_same_id_and_unmounts_once() {
    let world = world_with("t/v").await;
    let plugin = world.start();
    Dockerd::dead().mount(&plugin, "t/v", "m1").await.unwrap();
    Dockerd::alive().mount(&plugin, "t/v", "m1").await.unwrap();
    Dockerd::alive().unmount(&plugin, "t/v", "m1").await.unwrap();
    assert_eq!(world.left(&plugin), [""; 0]);
}

#[tokio::test]
async fn after_a_reboot_everything_is_given_back() {
    let world = world_with("t/v").await;
    let docker = Dockerd::alive();
    docker.mount(&world.start(), "t/v", "m1").await.unwrap();
    world.host.reboot();
    let mut record = world.start().uses.get(&id("t/v")).unwrap();
    record.boot = "boot-before".parse().unwrap();
    let next = world.start();
    // The claim is the former boot's too.
    world.master.state().claims.get_mut(&id("t/v")).unwrap().holders[0].boot = record.boot.clone();
    next.uses.put(&record).unwrap();
    reconcile::pass(&next, Duration::ZERO).await;
    assert_eq!(world.left(&next), [""; 0]);
}

#[tokio::test]
async fn what_has_no_record_is_taken_away_unless_it_is_used() {
    let world = world_with("t/v").await;
    let docker = Dockerd::alive();
    docker.mount(&world.start(), "t/v", "m1").await.unwrap();
    let lost = tempfile::tempdir().unwrap();
    let next = world.start_as("h1", lost.path());
    let target = world.host.mounted()[0].clone();
    world.host.set_users(&target, &["sh (1234)"]);
    reconcile::pass(&next, SETTLED).await;
    assert_eq!(world.host.mounted().len(), 1, "a container has it");
    assert_eq!(world.master.state().claims.len(), 1, "so that no other host may write");
    world.host.set_users(&target, &[]);
    reconcile::pass(&next, SETTLED).await;
    assert_eq!(world.left(&next), [""; 0]);
}

#[tokio::test]
async fn while_volmaster_is_away_containers_come_and_go() {
    let world = world_with("t/v").await;
    let plugin = world.start();
    let docker = Dockerd::alive();
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    world.master.state().down = true;
    docker.mount(&plugin, "t/v", "m2").await.unwrap();
    docker.unmount(&plugin, "t/v", "m1").await.unwrap();
    docker.unmount(&plugin, "t/v", "m2").await.unwrap();
    assert!(world.host.mounted().is_empty() && world.host.mapped().is_empty());
    let refused = docker.mount(&plugin, "t/v", "m3").await.unwrap_err();
    assert!(refused.contains("cannot be reached"), "{refused}");
    world.master.state().down = false;
    reconcile::pass(&plugin, SETTLED).await;
    assert_eq!(world.left(&plugin), [""; 0]);
    docker.mount(&plugin, "t/v", "m4").await.unwrap();
}
