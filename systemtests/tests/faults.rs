//! What stands behind the suite is away: Ceph is full, frozen or dead, etcd is dead.

use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use systemtests::stories::outages::{self, docker_goes_on_in_an_outage};
use systemtests::stories::{WRITER, lines_in, writes_on};
use testkit::bed::Testbed;
use testkit::ceph::Ceph;
use testkit::suite::Size;
use testkit::{Story, Suite, poll};

/// Ceph is made to fail here, so nobody else uses it.
static ON_CEPH: LazyLock<Suite> = LazyLock::new(|| {
    let ceph = Arc::new(Ceph::up(&Testbed::here().folder("ceph")));
    Suite::cluster("c", &ceph, Size::of(1, 1))
});
/// Etcd is made to fail here.
static ON_ETCD: LazyLock<Suite> = LazyLock::new(|| Suite::on_etcd("e", Size::of(2, 1)));

/// The bounds of DESIGN §7, inside Docker's own.
const CREATE: Duration = Duration::from_secs(110);
const UNMOUNT: Duration = Duration::from_secs(50);

#[test]
fn a_full_pool_is_told_and_gets_better() {
    let story = Story::alone(&ON_CEPH, "full");
    let (ceph, h1) = (ON_CEPH.ceph(), ON_CEPH.h1());
    ceph.pool("small");
    let volume = story.create("db", "--opt pool=small");
    h1.run(
        &format!("-v {volume}:/data"),
        "dd if=/dev/urandom of=/data/file bs=1M count=4 && sync /data/file",
    )
    .ok();
    ceph.quota("small", 1 << 20, true);
    let begin = Instant::now();
    let refused = story.try_create("more", "--opt pool=small");
    refused.refused_with(&["full"]);
    assert!(begin.elapsed() < CREATE, "{refused}");
    assert_eq!(story.volcli("volume list full").lines(), [&*volume], "no record is left of it");
    story.create("elsewhere", "");

    ceph.quota("small", 0, false);
    story.create("more", "--opt pool=small");
    for name in ["db", "more", "elsewhere"] {
        h1.docker(&format!("volume rm {}", story.volume(name))).ok();
    }
    story.until_nothing_is_left();
}

#[test]
fn ceph_is_frozen_for_a_while() {
    let story = Story::alone(&ON_CEPH, "frozen");
    let (ceph, h1) = (ON_CEPH.ceph(), ON_CEPH.h1());
    let [used, idle, old, ends] =
        ["used", "idle", "old", "ends"].map(|name| story.create(name, ""));
    let container = h1.start("frozen-used", &format!("-v {used}:/data"), WRITER);
    let ending = h1.start("frozen-ends", &format!("-v {ends}:/data"), WRITER);
    let (written, also) = (writes_on(&container, 0), writes_on(&ending, 0));
    let frozen = ceph.freeze();
    let call = |method: &str, body: serde_json::Value, limit: Duration| {
        let answer = h1.plugin_call(&format!("VolumeDriver.{method}"), &body);
        let err = answer.err();
        println!("{method}: {err} ({} ms)", answer.took.as_millis());
        assert!(answer.took < limit, "{method} took {} s", answer.took.as_secs());
        assert!(err.contains("ceph ("), "{method} says what is wrong: {err}");
    };
    thread::scope(|scope| {
        let new = json!({ "Name": story.volume("new"), "Opts": null });
        scope.spawn(|| call("Create", new, CREATE));
        scope.spawn(|| call("Mount", json!({ "Name": idle, "ID": "frozen" }), CREATE));
        scope.spawn(|| call("Remove", json!({ "Name": old }), UNMOUNT));
        // This container's process may itself wait for the disk, so Docker may not see its end yet.
        scope.spawn(|| {
            let killed = h1.docker("kill frozen-ends");
            assert!(killed.took < UNMOUNT + Duration::from_secs(15), "{killed}");
        });
        // What needs no Ceph is answered meanwhile.
        let begin = Instant::now();
        assert!(h1.volume_names().contains(&idle));
        assert_eq!(h1.volume_status(&idle)["state"], "ready");
        assert!(begin.elapsed() < Duration::from_secs(20), "{} s", begin.elapsed().as_secs());
    });
    frozen.thaw();
    until_ready(&ON_CEPH);
    story.create("new", "");
    let read = h1.run(&format!("-v {idle}:/data"), "echo back >/data/file && cat /data/file");
    assert_eq!(read.ok(), "back");
    let written = writes_on(&container, written);
    container.remove();
    poll::until("the container's end", Duration::from_secs(60), || {
        poll::holds(!ending.runs(), "Docker says that it runs")
    });
    story.until_unused();
    ending.remove();
    for (volume, lines) in [(&used, written), (&ends, also)] {
        let log = h1.run(&format!("-v {volume}:/data"), "cat /data/log");
        assert!(lines_in(&log) >= lines, "nothing is lost of {volume}");
    }
    for name in ["used", "idle", "old", "ends", "new"] {
        let body = json!({ "Name": story.volume(name) });
        poll::until("the volume's removal", Duration::from_secs(60), || {
            let err = h1.plugin_call("VolumeDriver.Remove", &body).err();
            if err.is_empty() { Ok(()) } else { Err(err) }
        });
    }
    story.until_nothing_is_left();
}

/// Waits until volmaster has found its servers again: a monitor that was stopped elects itself anew.
fn until_ready(suite: &Suite) {
    poll::until("volmaster to be ready", Duration::from_secs(60), || {
        let answer = suite.master().send("GET", "/readyz", &serde_json::Value::Null);
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
}

#[test]
fn ceph_is_dead_for_a_while() {
    let story = Story::alone(&ON_CEPH, "dead");
    let (ceph, h1) = (ON_CEPH.ceph(), ON_CEPH.h1());
    until_ready(&ON_CEPH);
    let idle = story.create("idle", "");
    ceph.kill();
    let refused = story.try_create("new", "");
    refused.refused_with(&["eph"]);
    assert!(refused.took < CREATE, "{refused}");
    ceph.start();
    until_ready(&ON_CEPH);
    story.create("new", "");
    h1.run(&format!("-v {idle}:/data"), "echo back >/data/file").ok();
    for name in ["idle", "new"] {
        h1.docker(&format!("volume rm {}", story.volume(name))).ok();
    }
    story.until_nothing_is_left();
}

#[test]
fn etcd_is_dead_for_a_while() {
    let story = Story::alone(&ON_ETCD, "no-etcd");
    let h1 = ON_ETCD.h1();
    let (used, idle) = (story.create("used", ""), story.create("idle", ""));
    let container = h1.start("no-etcd", &format!("-v {used}:/data"), WRITER);
    let written = writes_on(&container, 0);
    assert!(h1.volume_names().contains(&idle));
    ON_ETCD.etcd().kill();
    let written = writes_on(&container, written);
    let refused = story.try_create("new", "");
    refused.refused_with(&["etcd"]);
    assert!(refused.took < CREATE, "{refused}");
    let mount = h1.try_start("no-etcd-2", &format!("-v {idle}:/data"), "true");
    mount.refused_with(&["etcd"]);
    h1.docker("rm -f no-etcd-2").ok();
    let status = story.volcli("status -o json");
    assert_eq!(status.code(), 1, "{status}");
    let written = writes_on(&container, written);
    docker_goes_on_in_an_outage(h1, &used, &idle);

    ON_ETCD.etcd().start();
    poll::until("the first create that works", Duration::from_secs(60), || {
        let outcome = story.try_create("new", "");
        if outcome.is_ok() { Ok(()) } else { Err(outcome) }
    });
    story.until_unused();
    h1.docker("start no-etcd").ok();
    writes_on(&container, written);
    container.remove();
    for name in ["used", "idle", "new"] {
        h1.docker(&format!("volume rm {}", story.volume(name))).ok();
    }
    story.until_nothing_is_left();
}

#[test]
fn both_volmasters_are_down_for_a_while() {
    outages::volmaster_is_down_for_a_while(&ON_ETCD);
}

/// A volmaster that hangs, with its connections standing, costs time and no more.
#[test]
fn a_frozen_volmaster_is_passed_over() {
    let story = Story::alone(&ON_ETCD, "hung");
    let h1 = ON_ETCD.h1();
    for (number, master) in ON_ETCD.masters.iter().enumerate() {
        master.freeze();
        let begin = Instant::now();
        let volume = story.create(&format!("v{number}"), "");
        h1.run(&format!("-v {volume}:/data"), "echo >/data/file").ok();
        assert!(begin.elapsed() < Duration::from_secs(100), "{} s", begin.elapsed().as_secs());
        assert!(h1.volume_names().contains(&volume));
        master.thaw();
        h1.docker(&format!("volume rm {volume}")).ok();
    }
    story.until_nothing_is_left();
}
