//! Etcd, Ceph, two volmasters and three Docker hosts.

use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use serde_json::json;
use systemtests::stories::crashes::{self, Victim};
use systemtests::stories::{
    WRITER, cli, containers, filesystems, life, limits, many, schedules, snapshots, writes_on,
};
use testkit::ceph::Ceph;
use testkit::suite::Size;
use testkit::{Cmd, Host, Story, Suite, poll};

static CEPH: LazyLock<Arc<Ceph>> =
    LazyLock::new(|| Arc::new(Ceph::up(&testkit::bed::Testbed::here().folder("ceph"))));
/// For stories that others may run beside.
static CALM: LazyLock<Suite> = LazyLock::new(|| Suite::cluster("calm", &CEPH, Size::of(2, 3)));
/// For stories in which something is killed.
static ROUGH: LazyLock<Suite> = LazyLock::new(|| Suite::cluster("rough", &CEPH, Size::of(2, 2)));
/// The same again: for the story of a lost host, which has to wait for half a minute, and more.
static LOST: LazyLock<Suite> = LazyLock::new(|| Suite::cluster("lost", &CEPH, Size::of(1, 2)));

// -- The same as on one machine.

#[test]
fn a_volume_lives_its_life() {
    life::a_volume_lives_its_life(&CALM);
}

#[test]
fn inspect_says_how_it_stands() {
    life::inspect_says_how_it_stands(&CALM);
}

#[test]
fn two_tenants_do_not_meet() {
    life::two_tenants_do_not_meet(&CALM);
}

#[test]
fn two_containers_share_and_either_may_stop_first() {
    containers::two_containers_share_and_either_may_stop_first(&CALM);
}

#[test]
fn a_killed_container_leaves_nothing() {
    containers::a_killed_container_leaves_nothing(&CALM);
}

#[test]
fn content_of_the_image_is_copied_up() {
    containers::content_of_the_image_is_copied_up(&CALM);
}

#[test]
fn every_file_system_works() {
    filesystems::every_file_system_works(&CALM);
}

#[test]
fn a_format_command_that_fails_leaves_nothing() {
    filesystems::a_format_command_that_fails_leaves_nothing(&CALM);
}

#[test]
fn fifty_volumes_come_and_go_at_once() {
    many::fifty_volumes_come_and_go_at_once(&CALM);
}

#[test]
fn volcli_ends_as_it_says() {
    cli::volcli_ends_as_it_says(&CALM);
}

#[test]
fn data_comes_back() {
    snapshots::data_comes_back(&CALM);
}

#[test]
fn what_is_written_to_is_frozen() {
    snapshots::what_is_written_to_is_frozen(&CALM);
}

#[test]
fn what_is_synced_is_in_a_snapshot() {
    snapshots::what_is_synced_is_in_a_snapshot(&CALM);
}

#[test]
fn a_schedule_is_kept() {
    schedules::a_schedule_is_kept(&CALM);
}

#[test]
fn a_schedule_changes() {
    schedules::a_schedule_changes(&CALM);
}

#[test]
fn a_volume_grows() {
    snapshots::a_volume_grows(&CALM);
}

#[test]
fn docker_is_restarted() {
    crashes::docker_is_restarted(&ROUGH);
}

#[test]
fn volplugin_dies() {
    crashes::volplugin_dies(&ROUGH);
}

#[test]
fn docker_then_volplugin_die() {
    crashes::both_die(&ROUGH, Victim::Docker, Victim::Plugin);
}

#[test]
fn volplugin_then_docker_die() {
    crashes::both_die(&LOST, Victim::Plugin, Victim::Docker);
}

#[test]
fn dockerd_dies() {
    crashes::dockerd_dies(&LOST);
}

/// The process between the image and its device dies: the container gets errors, as from a broken
/// disk, and when it has ended nothing is left.
#[test]
fn the_server_of_an_image_dies() {
    let story = Story::alone(&LOST, "fuse-dies");
    let h1 = LOST.h1();
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    let container =
        h1.start("fuse-dies", &option, "echo kept >/data/file; sync /data/file; sleep 1000");
    poll::until("the file to be stored", Duration::from_secs(30), || {
        let read = container.sh("cat /data/file");
        if read.is_ok() { Ok(()) } else { Err(read) }
    });
    let pattern = format!("^volplugin-serve .*{}", story.image("db"));
    let server = Cmd::new("pgrep").args(["-f", &pattern]).run().ok().to_owned();
    Cmd::new("kill").args(["-9", &server]).run().ok();
    container.sh("echo more >/data/more; sync /data/more").refused();
    container.remove();
    story.until_unused();
    // Its lock has outlived it, and went with the claim.
    assert_eq!(h1.run(&option, "cat /data/file").ok(), "kept", "what was synced is there");
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

// -- Several hosts.

#[test]
fn the_same_volume_from_every_host_at_once() {
    many::the_same_volume_from_every_host_at_once(&CALM);
}

#[test]
fn what_one_host_has_written_another_reads() {
    let story = Story::beside(&CALM, "follow");
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    for (number, host) in CALM.hosts.iter().enumerate() {
        let seen =
            host.run(&option, &format!("cat /data/* 2>/dev/null; echo {number} >/data/{number}"));
        let expected: Vec<String> = (0..number).map(|number| number.to_string()).collect();
        assert_eq!(seen.lines(), expected, "on {}", host.label());
    }
    CALM.h1().docker(&format!("volume rm {volume}")).ok();
    for host in &CALM.hosts {
        assert!(!host.volume_names().contains(&volume), "{} knows it is gone", host.label());
    }
    story.until_nothing_is_left();
}

#[test]
fn a_second_host_is_refused_at_once_and_told_who_has_it() {
    let story = Story::beside(&CALM, "taken");
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    let container = CALM.h1().start("taken", &option, WRITER);
    let h2 = CALM.h2();
    h2.try_start("taken-2", &option, "true").refused_with(&["h1", "since", &volume]);
    let mut times: Vec<Duration> = (0..15)
        .map(|number| {
            let body = json!({ "Name": volume, "ID": format!("taken-{number}") });
            let answer = h2.plugin_call("VolumeDriver.Mount", &body);
            let err = answer.err();
            assert!(err.contains("h1"), "it names the holder: {err}");
            answer.took
        })
        .collect();
    times.sort();
    let median = times[times.len() / 2];
    println!(
        "refused after {} ms (median), {} ms (slowest)",
        median.as_millis(),
        times[14].as_millis()
    );
    assert!(median < Duration::from_millis(50), "refused after {times:?}");
    let status = h2.volume_status(&volume);
    assert_eq!(status["holder"], "h1", "{status}");
    writes_on(&container, 0);
    container.remove();
    // Now it is free.
    h2.docker("start taken-2").ok();
    h2.docker("rm -f taken-2").ok();
    CALM.h1().docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// They ask at the same time, again and again: exactly one gets it.
#[test]
fn two_hosts_race_and_one_wins() {
    let story = Story::beside(&CALM, "race");
    let volume = story.create("db", "");
    for round in 0..8 {
        let body = json!({ "Name": volume, "ID": format!("race-{round}") });
        let mut errors = thread::scope(|scope| {
            let asking = [CALM.h2(), CALM.h3()]
                .map(|host| scope.spawn(|| host.plugin_call("VolumeDriver.Mount", &body).err()));
            asking.map(|call| call.join().expect("no panic"))
        });
        errors.sort();
        let [won, lost] = &errors;
        assert!(won.is_empty() && lost.contains("in use"), "round {round}: {errors:?}");
        for host in [CALM.h2(), CALM.h3()] {
            assert_eq!(host.plugin_call("VolumeDriver.Unmount", &body).err(), "");
        }
    }
    CALM.h1().docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

#[test]
fn several_hosts_read_a_shared_volume_and_none_writes() {
    let story = Story::beside(&CALM, "readers");
    let volume = story.create("db", "--opt sharing=read-only");
    let option = format!("-v {volume}:/data");
    let readers: Vec<_> =
        CALM.hosts.iter().map(|h| h.start("readers", &option, "sleep 1000")).collect();
    for reader in &readers {
        reader.sh("ls /data").ok();
        reader.sh("touch /data/file").refused_with(&["ead-only"]);
    }
    let mount = story.volcli(&format!("mount get {volume}")).json();
    let holders = [&mount["host"], &mount["others"][0]["host"], &mount["others"][1]["host"]];
    let mut holders: Vec<_> = holders.iter().map(|host| host.as_str().expect("a host")).collect();
    holders.sort_unstable();
    assert_eq!(holders, ["h1", "h2", "h3"]);
    readers.into_iter().for_each(testkit::host::Container::remove);
    story.until_unused();
    CALM.h1().docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

#[test]
fn a_host_that_is_gone_for_good_is_cleared_by_force() {
    let story = Story::alone(&LOST, "gone");
    let (h1, h2) = (LOST.h1(), LOST.h2());
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    let container = h2.start(
        "gone",
        &option,
        &format!("{} & wait", WRITER.replace("sleep 0.02", "sync /data/log")),
    );
    writes_on(&container, 0);
    h2.power_off();
    h1.try_start("gone-2", &option, "true").refused_with(&["h2", "mount force-remove"]);
    h1.docker("rm -f gone-2").ok();
    // The dead writer still has Ceph's lock, and hosts have no right to break it: volmaster does.
    story.volcli(&format!("mount force-remove {volume} --yes")).ok();
    let log = h1.run(&option, "echo >>/data/file && sync /data/file && cat /data/log");
    assert!(log.lines().len() > 1, "what was synced is there");
    h2.power_on();
    h2.docker_start();
    container.remove();
    story.until_unused();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

// -- Images.

#[test]
fn the_image_is_what_the_policy_says() {
    let story = Story::beside(&CALM, "image");
    let volume = story.create("db", "--opt size=64MB");
    let info = CALM.ceph().rbd(&format!("info --format json rbd/{}", story.image("db"))).json();
    assert_eq!(info["size"], 64 << 20, "{info}");
    let features = info["features"].as_array().expect("features");
    for feature in ["layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"] {
        assert!(features.contains(&feature.into()), "{feature} is missing: {info}");
    }
    CALM.h1().docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

#[test]
fn the_pool_is_chosen_by_option() {
    let story = Story::beside(&CALM, "pool");
    let h1 = CALM.h1();
    CALM.ceph().pool("fast");
    let volume = story.create("db", "--opt pool=fast");
    assert!(CALM.ceph().images("fast").contains(&story.image("db")));
    assert!(!CALM.ceph().images("rbd").contains(&story.image("db")));
    assert_eq!(h1.volume_status(&volume)["pool"], "fast");
    let option = format!("-v {volume}:/data");
    let container = h1.start("pool", &option, "echo fast >/data/file; sleep 1000");
    let inspected = h1.docker(&format!("volume inspect {volume}")).json();
    let mountpoint = format!("/mnt/volplugin/fast/{}", story.image("db"));
    assert_eq!(inspected[0]["Mountpoint"], mountpoint);
    container.remove();

    let missing = story.try_create("lost", "--opt pool=nowhere");
    missing.refused_with(&["nowhere"]);
    assert!(missing.took < Duration::from_secs(10), "{missing}");
    assert_eq!(story.volcli("volume list pool").lines(), [&*volume], "no record is left of it");
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

#[test]
fn limits_change_under_a_writer() {
    limits::limits_change_under_a_writer(&CALM);
}

// -- Two volmasters.

#[test]
fn one_of_two_volmasters_is_enough() {
    let story = Story::alone(&ROUGH, "replicas");
    let (h1, h2) = (ROUGH.h1(), ROUGH.h2());
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    let container = h1.start("replicas", &option, WRITER);
    for (number, master) in ROUGH.masters.iter().enumerate() {
        master.kill();
        let name = format!("v{number}");
        let create = json!({ "Name": story.volume(&name), "Opts": null });
        assert_eq!(h2.plugin_call("VolumeDriver.Create", &create).err(), "");
        let refused = h2.plugin_call("VolumeDriver.Mount", &json!({ "Name": volume, "ID": "x" }));
        assert!(refused.err().contains("h1"), "{refused}");
        h1.run(&format!("-v {}:/data", story.volume(&name)), "echo >/data/file").ok();
        assert!(h2.volume_names().contains(&story.volume(&name)));
        h1.docker(&format!("volume rm {}", story.volume(&name))).ok();
        master.start_again();
    }
    writes_on(&container, 0);
    container.remove();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// While both serve, and one is killed in the middle of it.
#[test]
fn calls_go_on_while_a_volmaster_is_killed() {
    let story = Story::alone(&ROUGH, "killed-master");
    let call = |host: &Host, method: &str, number: usize| {
        let body = json!({ "Name": story.volume(&format!("v{number}")), "Opts": null });
        host.plugin_call(method, &body).err()
    };
    for method in ["VolumeDriver.Create", "VolumeDriver.Remove"] {
        thread::scope(|scope| {
            let host = |number: usize| &ROUGH.hosts[number % 2];
            let calls: Vec<_> = (0..20)
                .map(|number| scope.spawn(move || call(host(number), method, number)))
                .collect();
            poll::until("the first calls to end", Duration::from_secs(60), || {
                let ended = calls.iter().filter(|call| call.is_finished()).count();
                poll::holds(ended > 3, "too few have ended")
            });
            ROUGH.master().kill();
            for (number, call) in calls.into_iter().enumerate() {
                assert_eq!(call.join().expect("no panic"), "", "{method} v{number}");
            }
        });
        ROUGH.master().start_again();
    }
    story.until_nothing_is_left();
}

/// Without any volmaster an operator works straight on etcd.
#[test]
fn volcli_works_on_etcd_alone() {
    let story = Story::alone(&ROUGH, "direct");
    let h1 = ROUGH.h1();
    let volume = story.create("db", "");
    let container = h1.start("direct", &format!("-v {volume}:/data"), WRITER);
    ROUGH.masters.iter().for_each(testkit::master::Master::kill);
    let volcli = |line: &str| ROUGH.volcli_direct(line);
    assert_eq!(volcli("volume list direct").lines(), [&*volume]);
    assert_eq!(volcli(&format!("volume get {volume}")).json()["state"], "ready");
    assert!(volcli("tenant list").lines().contains(&"direct"));
    assert_eq!(volcli("mount list").lines(), [&*volume]);
    assert_eq!(volcli(&format!("mount get {volume}")).json()["host"], "h1");
    let used = volcli(&format!("volume force-remove {volume} --yes"));
    assert_eq!(used.code(), 1, "it is held: {used}");
    writes_on(&container, 0);
    ROUGH.masters.iter().for_each(testkit::master::Master::start_again);
    container.remove();
    story.until_unused();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}
