//! Volumes that become larger while they are mounted, and clones: what this host does to the file system.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;
use volplugin::app::Plugin;
use volplugin::app::changes::AGAIN;
use volplugin::background::changes;
use volplugin::host::uses::Held;
use volplugin::master::Master;
use volstorage::fake::Fault;
use volstorage::host::{HostDriver, MapRequest, Mode, MountRequest};
use volstorage::image::ImageSource;

use crate::faults::Dockerd;
use crate::support::{World, id};

const MIB: u64 = 1 << 20;

fn source() -> ImageSource {
    ImageSource::File { path: "/images/rbd/t.v".into() }
}

/// A volume of 10 MiB with these options, which nobody has mounted.
async fn world_with(options: &[(&str, &str)]) -> World {
    let world = World::new();
    let options = options.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    let options = options.collect();
    world.master.volume_create(&id("t/v"), options, Duration::from_secs(1)).await.unwrap();
    world
}

async fn mounted(options: &[(&str, &str)]) -> (World, Arc<Plugin>, Dockerd) {
    let world = world_with(options).await;
    let (plugin, docker) = (world.start(), Dockerd::alive());
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    (world, plugin, docker)
}

impl World {
    /// Makes the volume larger: the record says so first, then the image is.
    fn resize(&self, mib: u64) {
        self.promise(mib);
        self.host.set_size(&source(), mib * MIB);
    }

    fn promise(&self, mib: u64) {
        self.master.set(&id("t/v"), "size", &format!("{mib}MB"));
    }

    /// The file system's size.
    fn has(&self) -> u64 {
        self.host.filesystem_size(&source()) / MIB
    }
}

fn record(plugin: &Plugin) -> Held {
    plugin.uses.get(&id("t/v")).unwrap()
}

/// Whatever the access, and without anything of limits.
#[tokio::test]
async fn growth_is_followed_within_two_seconds() {
    for access in ["fuse", "nbd", "kernel"] {
        let (world, plugin, docker) = mounted(&[("access", access)]).await;
        let following = tokio::spawn(changes::run(Arc::clone(&plugin)));
        for mib in [20, 30] {
            world.resize(mib);
            let changed = Instant::now();
            while world.has() != mib {
                assert!(changed.elapsed() < Duration::from_secs(2), "{access}: {mib}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        following.abort();
        let before = world.host.faults().effects();
        plugin.follow_changes().await.unwrap();
        assert_eq!(world.host.faults().effects(), before, "it is done once");
        assert_eq!(record(&plugin).size, 30 * MIB);
        docker.unmount(&plugin, "t/v", "m1").await.unwrap();
    }
}

#[tokio::test]
async fn nobody_is_asked_where_nothing_is_mounted() {
    let (world, plugin, docker) = mounted(&[]).await;
    plugin.follow_changes().await.unwrap();
    docker.unmount(&plugin, "t/v", "m1").await.unwrap();
    plugin.follow_changes().await.unwrap();
    assert_eq!(world.master.state().asked_for_changes, 1);
}

#[tokio::test]
async fn a_volmaster_of_before_changes_nothing() {
    let (world, plugin, _docker) = mounted(&[]).await;
    world.master.state().silent_of_sizes = true;
    world.resize(20);
    let before = record(&plugin);
    plugin.follow_changes().await.unwrap();
    assert_eq!((world.has(), record(&plugin)), (10, before));
}

#[tokio::test]
async fn a_record_of_before_is_read_and_caught_up() {
    let (world, plugin, docker) = mounted(&[]).await;
    let path = world.folder.path().join("held/t/v.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["size"], 10 * MIB);
    assert!(json.get("identity").is_none());
    json.as_object_mut().unwrap().remove("size");
    std::fs::write(&path, json.to_string()).unwrap();
    drop(plugin);
    world.resize(20);
    let next = world.start();
    assert_eq!(record(&next).size, 0);
    next.follow_changes().await.unwrap();
    assert_eq!((world.has(), record(&next).size), (20, 20 * MIB));
    docker.unmount(&next, "t/v", "m1").await.unwrap();
}

#[tokio::test]
async fn what_grew_while_nobody_was_here_is_found_at_the_next_look_or_mount() {
    let (world, plugin, docker) = mounted(&[]).await;
    drop(plugin);
    world.resize(20);
    let next = world.start();
    next.follow_changes().await.unwrap();
    assert_eq!(world.has(), 20);
    docker.unmount(&next, "t/v", "m1").await.unwrap();
    world.resize(30);
    docker.mount(&next, "t/v", "m2").await.unwrap();
    assert_eq!((world.has(), record(&next).size), (30, 30 * MIB));
    next.follow_changes().await.unwrap();
    let effects = world.host.faults().effects();
    let grown = effects.iter().filter(|effect| **effect == "grow the file system").count();
    assert_eq!(grown, 2);
}

/// Fails, does it without an answer, or dies: the volume stays what it is, and a later look sets it right.
#[tokio::test(start_paused = true)]
async fn a_failure_to_grow_is_shown_and_hurts_nobody() {
    for fault in [Fault::Fails, Fault::AnswerLost, Fault::Dies] {
        let (world, plugin, docker) = mounted(&[]).await;
        world.resize(20);
        world.host.faults().break_nth(1, fault);
        plugin.follow_changes().await.unwrap();
        assert!(!world.host.faults().is_ahead(), "{fault:?} was reached");
        assert!(record(&plugin).last_error.unwrap().contains("grow the file system"), "{fault:?}");
        world.host.faults().revive();
        // It is not tried every second.
        plugin.follow_changes().await.unwrap();
        assert_eq!(record(&plugin).size, 10 * MIB, "{fault:?}");
        docker.mount(&plugin, "t/v", "m2").await.unwrap();
        docker.unmount(&plugin, "t/v", "m2").await.unwrap();
        tokio::time::advance(AGAIN).await;
        plugin.follow_changes().await.unwrap();
        let held = record(&plugin);
        assert_eq!((world.has(), held.size, held.last_error), (20, 20 * MIB, None), "{fault:?}");
        docker.unmount(&plugin, "t/v", "m1").await.unwrap();
    }
}

/// The record of the volume is stored before its image has grown.
#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_so_large_yet_is_waited_for() {
    let (world, plugin, _docker) = mounted(&[]).await;
    world.promise(20);
    plugin.follow_changes().await.unwrap();
    let said = record(&plugin).last_error.unwrap();
    assert!(said.contains("should have 20971520 bytes"), "{said}");
    world.host.set_size(&source(), 20 * MIB);
    tokio::time::advance(AGAIN).await;
    plugin.follow_changes().await.unwrap();
    assert_eq!((world.has(), record(&plugin).last_error), (20, None));
}

#[tokio::test]
async fn a_mount_that_cannot_grow_succeeds_and_says_so() {
    for fault in [Fault::Fails, Fault::AnswerLost] {
        let world = world_with(&[]).await;
        world.resize(20);
        let (plugin, docker) = (world.start(), Dockerd::alive());
        world.host.faults().break_nth(3, fault);
        docker.mount(&plugin, "t/v", "m1").await.unwrap();
        let held = record(&plugin);
        assert!(held.last_error.unwrap().contains("grow the file system"), "{fault:?}");
        assert_eq!(held.size, 0);
        plugin.follow_changes().await.unwrap();
        let held = record(&plugin);
        assert_eq!((world.has(), held.size, held.last_error), (20, 20 * MIB, None), "{fault:?}");
        docker.unmount(&plugin, "t/v", "m1").await.unwrap();
    }
}

#[tokio::test]
async fn what_is_mounted_read_only_stays_as_it_is() {
    let (world, plugin, _docker) = mounted(&[("sharing", "read-only")]).await;
    world.resize(20);
    plugin.follow_changes().await.unwrap();
    assert_eq!((world.has(), record(&plugin).last_error), (10, None));
}

/// A volume in the middle of something else, or another of its name, does not grow by mistake.
#[tokio::test]
async fn only_the_volume_that_is_meant_grows() {
    let (world, plugin, _docker) = mounted(&[]).await;
    world.resize(20);
    let turn = plugin.locks.lock(&id("t/v")).await;
    plugin.follow_changes().await.unwrap();
    assert_eq!(world.has(), 10);
    drop(turn);
    let mut held = record(&plugin);
    let uid = std::mem::replace(&mut held.uid, Uuid::from_u128(9));
    plugin.uses.put(&held).unwrap();
    plugin.follow_changes().await.unwrap();
    assert_eq!(world.has(), 10);
    held.uid = uid;
    plugin.uses.put(&held).unwrap();
    plugin.follow_changes().await.unwrap();
    assert_eq!(world.has(), 20);
}

#[tokio::test]
async fn a_clone_has_a_uuid_of_its_own_whoever_mounts_it() {
    let world = world_with(&[("from", "t/origin@before")]).await;
    let uid = world.master.state().volumes[&id("t/v")].uid;
    let (plugin, docker) = (world.start(), Dockerd::alive());
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    assert_eq!(world.host.identity(&source()), uid);
    assert_eq!(record(&plugin).identity, Some(uid));
    drop(plugin);
    // No volmaster, nothing mounted any more, an image from before: what is known is on disk.
    world.master.state().down = true;
    world.host.reboot();
    world.host.set_identity(&source(), Uuid::nil());
    let next = world.start();
    docker.mount(&next, "t/v", "m2").await.unwrap();
    assert_eq!(world.host.identity(&source()), uid);
}

/// A death at any step of the mount of a clone, and the same call again.
#[tokio::test]
async fn a_clone_that_was_mounted_in_several_attempts_has_its_uuid() {
    for fault in [Fault::Fails, Fault::AnswerLost, Fault::Dies] {
        for nth in 1..=3 {
            let world = world_with(&[("from", "t/origin")]).await;
            let uid = world.master.state().volumes[&id("t/v")].uid;
            let docker = Dockerd::alive();
            world.host.faults().break_nth(nth, fault);
            docker.mount(&world.start(), "t/v", "m1").await.unwrap_err();
            world.host.restart();
            let next = world.start();
            docker.mount(&next, "t/v", "m1").await.unwrap();
            assert_eq!(world.host.identity(&source()), uid, "{fault:?} at {nth}");
            docker.unmount(&next, "t/v", "m1").await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_no_clone_keeps_its_uuid() {
    let (world, plugin, _docker) = mounted(&[]).await;
    assert_eq!((world.host.identity(&source()), record(&plugin).identity), (Uuid::nil(), None));
    // Nor does one that is mounted read-only get another.
    let host = &world.host;
    let read_only = ImageSource::File { path: "/images/rbd/t.clone".into() };
    let map = MapRequest {
        source: read_only.clone(),
        access: Default::default(),
        mode: Mode::ReadOnly,
        options: Vec::new(),
    };
    let mapping = host.map(&map).await.unwrap();
    let mount = MountRequest {
        target: "/mnt/volplugin/rbd/t.clone".into(),
        filesystem: "xfs".to_owned(),
        options: Vec::new(),
        mode: Mode::ReadOnly,
        limits: Default::default(),
        identity: Some(Uuid::from_u128(7)),
    };
    host.mount(&mapping, &mount).await.unwrap();
    assert_eq!(host.identity(&read_only), Uuid::nil());
}
