//! Limits that change under a mounted volume, where this host holds them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use volcore::limit::RateLimits;
use volplugin::app::Plugin;
use volplugin::background::{changes, reconcile};
use volplugin::master::Master;
use volstorage::fake::Fault;
use volstorage::image::ImageSource;

use crate::faults::Dockerd;
use crate::support::{World, id};

const KEY: &str = "rate-limit.write.bps";

fn source() -> ImageSource {
    ImageSource::File { path: "/images/rbd/t.v".into() }
}

/// A volume with a limit of 1, mounted with this access.
async fn mounted(access: &str) -> (World, Arc<Plugin>, Dockerd) {
    let world = World::new();
    let options = [("access", access), (KEY, "1")];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    world.master.volume_create(&id("t/v"), options, Duration::from_secs(1)).await.unwrap();
    let (plugin, docker) = (world.start(), Dockerd::alive());
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    (world, plugin, docker)
}

impl World {
    /// What this host holds writers to.
    fn held_to(&self) -> Option<u64> {
        let RateLimits { write_bps, .. } = self.host.limits(&source());
        write_bps.map(std::num::NonZeroU64::get)
    }
}

#[tokio::test]
async fn a_change_reaches_the_host_within_two_seconds() {
    let (world, plugin, _docker) = mounted("kernel").await;
    assert_eq!(world.held_to(), Some(1));
    let following = tokio::spawn(changes::run(Arc::clone(&plugin)));
    for (value, expected) in [("2MB", Some(2 << 20)), ("0", None), ("7", Some(7))] {
        world.master.set(&id("t/v"), KEY, value);
        let changed = Instant::now();
        while world.held_to() != expected {
            assert!(changed.elapsed() < Duration::from_secs(2), "{value}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    following.abort();
}

#[tokio::test]
async fn a_restart_keeps_the_change() {
    let (world, plugin, docker) = mounted("kernel").await;
    world.master.set(&id("t/v"), KEY, "2");
    plugin.follow_changes().await.unwrap();
    drop(plugin);
    // No volmaster: what is known is on disk.
    world.master.state().down = true;
    let next = world.start();
    docker.mount(&next, "t/v", "m2").await.unwrap();
    assert_eq!(world.held_to(), Some(2));
    // What was changed while nobody was here is found at the next look.
    world.master.state().down = false;
    world.master.set(&id("t/v"), KEY, "3");
    let next = world.start();
    next.follow_changes().await.unwrap();
    assert_eq!(world.held_to(), Some(3));
}

#[tokio::test]
async fn an_outage_of_the_control_plane_changes_nothing() {
    let (world, plugin, docker) = mounted("kernel").await;
    world.master.state().down = true;
    world.master.set(&id("t/v"), KEY, "2");
    plugin.follow_changes().await.unwrap_err();
    assert_eq!(world.held_to(), Some(1));
    docker.mount(&plugin, "t/v", "m2").await.unwrap();
    docker.unmount(&plugin, "t/v", "m2").await.unwrap();
    world.master.state().down = false;
    plugin.follow_changes().await.unwrap();
    assert_eq!(world.held_to(), Some(2));
}

#[tokio::test]
async fn limits_that_others_hold_are_left_to_them() {
    let (world, plugin, _docker) = mounted("fuse").await;
    world.master.set(&id("t/v"), KEY, "2");
    plugin.follow_changes().await.unwrap();
    assert_eq!(world.held_to(), None);
}

/// Fails, does it without an answer, or dies: the next look sets it right, the record with it.
#[tokio::test]
async fn whatever_goes_wrong_the_next_look_sets_it_right() {
    for fault in [Fault::Fails, Fault::AnswerLost, Fault::Dies] {
        let (world, plugin, docker) = mounted("kernel").await;
        world.master.set(&id("t/v"), KEY, "2");
        world.host.faults().break_nth(1, fault);
        plugin.follow_changes().await.unwrap();
        assert!(!world.host.faults().is_ahead(), "{fault:?} was reached");
        let held = plugin.uses.get(&id("t/v")).unwrap();
        assert!(held.last_error.is_some(), "{fault:?}");
        world.host.faults().revive();
        let next = world.start();
        next.follow_changes().await.unwrap();
        next.follow_changes().await.unwrap();
        let held = next.uses.get(&id("t/v")).unwrap();
        let recorded = (held.limits.write_bps, held.last_error);
        assert_eq!((world.held_to(), recorded), (Some(2), (Some(2), None)), "{fault:?}");
        assert_eq!(world.host.faults().effects(), ["set the limits"], "{fault:?}: once");
        docker.unmount(&next, "t/v", "m1").await.unwrap();
    }
}

/// Another volume of that name, or another device, is not limited by what was meant for this one.
#[tokio::test]
async fn only_the_volume_that_is_meant_is_limited() {
    let (world, plugin, _docker) = mounted("kernel").await;
    world.master.set(&id("t/v"), KEY, "2");
    let mut record = plugin.uses.get(&id("t/v")).unwrap();
    let uid = std::mem::replace(&mut record.uid, uuid::Uuid::from_u128(9));
    plugin.uses.put(&record).unwrap();
    plugin.follow_changes().await.unwrap();
    assert_eq!(world.held_to(), Some(1));
    record.uid = uid;
    let device = record
        .mapping
        .as_mut()
        .map(|mapping| std::mem::replace(&mut mapping.device, "/dev/fake9".into()));
    plugin.uses.put(&record).unwrap();
    plugin.follow_changes().await.unwrap();
    assert_eq!(world.held_to(), Some(1));
    let said = plugin.uses.get(&id("t/v")).unwrap().last_error.unwrap();
    assert!(said.contains("not mapped to it any more"), "{said}");
    record.mapping.as_mut().unwrap().device = device.unwrap();
    plugin.uses.put(&record).unwrap();
    // In the middle of something else: the next look does it.
    let turn = plugin.locks.lock(&id("t/v")).await;
    plugin.follow_changes().await.unwrap();
    assert_eq!(world.held_to(), Some(1));
    drop(turn);
    plugin.follow_changes().await.unwrap();
    reconcile::pass(&plugin, Duration::ZERO).await;
    assert_eq!(world.held_to(), Some(2));
}
