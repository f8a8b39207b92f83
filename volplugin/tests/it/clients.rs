//! Volmaster knows by which addresses a host can write before it can.

use std::time::Duration;

use crate::faults::Dockerd;
use crate::support::{Fault as MasterFault, World, id};
use volcore::options::Access;
use volplugin::background::reconcile::{self, SETTLED};
use volplugin::master::Master;
use volstorage::fake::Fault;
use volstorage::host::HostDriver;

const WITHIN: Duration = Duration::from_secs(1);

/// A world whose images are Ceph's.
async fn world(access: Option<Access>) -> World {
    let world = World::new();
    world.master.state().in_ceph = true;
    world.master.state().access = access;
    world.master.volume_create(&id("t/v"), Default::default(), WITHIN).await.unwrap();
    world
}

impl World {
    /// The addresses in the claim.
    fn clients(&self) -> Vec<String> {
        self.master.state().claims[&id("t/v")].holders[0].clients.clone()
    }

    /// Breaks this call to volmaster, counted from now.
    fn lose(&self, nth: usize) {
        let mut state = self.master.state();
        (state.calls, state.fault) = (0, Some((nth, MasterFault::Lost)));
    }
}

/// The calls of a mount before the one that tells the addresses: the volume, the claim.
const BEFORE: usize = 2;

#[tokio::test]
async fn a_server_opens_its_image_only_when_it_is_in_the_claim() {
    let world = world(None).await;
    let (plugin, docker) = (world.start(), Dockerd::alive());
    world.lose(BEFORE + 1);
    docker.mount(&plugin, "t/v", "m1").await.unwrap_err();
    let effects = world.host.faults().effects();
    assert_eq!(effects, ["make ready", "unmap"], "nobody was told, so nothing was opened");
    assert!(world.host.mapped().is_empty());
    world.master.state().fault = None;
    reconcile::pass(&plugin, SETTLED).await;
    // Whoever dies in opening it is known.
    world.host.faults().break_nth(2, Fault::Dies);
    docker.mount(&plugin, "t/v", "m1").await.unwrap_err();
    assert_eq!(world.host.faults().effects(), ["make ready", "map"]);
    assert_eq!(world.clients().len(), 1);
    world.host.faults().revive();
    reconcile::pass(&plugin, SETTLED).await;
    docker.mount(&plugin, "t/v", "m2").await.unwrap();
    let held = plugin.uses.get(&id("t/v")).unwrap();
    assert_eq!(held.clients, world.clients());
    assert_eq!(held.clients, held.mapping.unwrap().clients);
}

#[tokio::test]
async fn what_the_kernel_maps_is_mounted_only_when_its_client_is_in_the_claim() {
    let world = world(Some(Access::Kernel)).await;
    let (plugin, docker) = (world.start(), Dockerd::alive());
    world.lose(BEFORE + 1);
    docker.mount(&plugin, "t/v", "m1").await.unwrap_err();
    assert_eq!(world.host.faults().effects(), ["map", "unmap"]);
    world.master.state().fault = None;
    reconcile::pass(&plugin, SETTLED).await;
    docker.mount(&plugin, "t/v", "m2").await.unwrap();
    assert_eq!(world.clients().len(), 1);
}

/// One that is mapped anew, because somebody has taken it away, has another client.
#[tokio::test]
async fn another_server_is_told_before_it_opens_the_image() {
    let world = world(None).await;
    let (plugin, docker) = (world.start(), Dockerd::alive());
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    let (held, clients) = (plugin.uses.get(&id("t/v")).unwrap(), world.clients());
    world.host.unmount(&held.target).await.unwrap();
    world.host.unmap(&held.source).await.unwrap();
    world.host.faults().revive();
    world.lose(1);
    docker.mount(&plugin, "t/v", "m2").await.unwrap_err();
    assert_eq!(world.host.faults().effects(), ["make ready"]);
    assert_eq!(plugin.uses.get(&id("t/v")).unwrap().uses.len(), 1);
    world.master.state().fault = None;
    docker.mount(&plugin, "t/v", "m2").await.unwrap();
    assert_ne!(world.clients(), clients);
    assert_eq!(world.clients(), plugin.uses.get(&id("t/v")).unwrap().clients);
}

#[tokio::test]
async fn who_is_refused_starts_nothing() {
    let world = world(None).await;
    let docker = Dockerd::alive();
    docker.mount(&world.start(), "t/v", "m1").await.unwrap();
    let effects = world.host.faults().effects();
    let folder = tempfile::tempdir().unwrap();
    let other = world.start_as("h2", folder.path());
    docker.mount(&other, "t/v", "m2").await.unwrap_err();
    assert_eq!(world.host.faults().effects(), effects);
}
