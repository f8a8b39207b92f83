//! The life of a volume: created, listed, looked at, used, removed.

use std::time::Duration;

use serde_json::json;
use testkit::story::policy;
use testkit::{Story, Suite};

/// The first thing that anybody does.
pub fn a_volume_lives_its_life(suite: &Suite) {
    let story = Story::beside(suite, "life");
    let h1 = suite.h1();
    let volume = story.create("db", "");
    assert!(h1.volume_names().contains(&volume), "docker volume ls shows it");

    h1.run(&format!("-v {volume}:/data"), "echo kept >/data/file").ok();
    let read = h1.run(&format!("-v {volume}:/data"), "cat /data/file; df -k /data | tail -n 1");
    let lines = read.lines();
    assert_eq!(lines[0], "kept", "another container reads what the first has written");
    let size: u64 = lines[1].split_whitespace().nth(1).and_then(|k| k.parse().ok()).expect("df");
    assert!((10_000..=20_480).contains(&size), "it has the policy's 20 MB: {read}");
    story.until_unused();

    h1.docker(&format!("volume rm {volume}")).ok();
    assert!(!h1.volume_names().contains(&volume), "docker volume ls does not show it any more");
    h1.docker(&format!("volume inspect {volume}")).refused_with(&["o such volume"]);
    story.until_nothing_is_left();
}

/// What `docker volume inspect` says, before, while and after a container uses the volume.
pub fn inspect_says_how_it_stands(suite: &Suite) {
    let story = Story::beside(suite, "inspect");
    let h1 = suite.h1();
    let volume = story.create("db", "--opt rate-limit.write.iops=500");
    let idle = h1.volume_status(&volume);
    let keys = [
        "state",
        "holder",
        "holder-since",
        "size",
        "used",
        "filesystem",
        "pool",
        "image",
        "access",
        "snapshots",
        "last-snapshot",
        "next-snapshot",
        "rate-limit",
        "health",
        "last-error",
        "source",
    ];
    for key in keys {
        assert!(idle.get(key).is_some(), "Status has {key}: {idle}");
    }
    assert_eq!(idle["state"], "ready", "{idle}");
    assert_eq!(idle["holder"], json!(null), "{idle}");
    assert_eq!(idle["size"], "20 MiB", "{idle}");
    assert_eq!(idle["filesystem"], "ext4", "{idle}");
    assert_eq!(idle["pool"], "rbd", "{idle}");
    assert_eq!(idle["health"], "ok", "{idle}");
    assert!(idle["rate-limit"].as_str().is_some_and(|text| text.contains("500")), "{idle}");
    assert!(idle["image"].as_str().is_some_and(|text| text.contains(&story.image("db"))), "{idle}");

    let script =
        "dd if=/dev/zero of=/data/file bs=1M count=4 2>/dev/null; sync /data/file; sleep 1000";
    let container = h1.start("inspect", &format!("-v {volume}:/data"), script);
    let used = testkit::poll::until("the written bytes", Duration::from_secs(30), || {
        let status = h1.volume_status(&volume);
        if status["used"].as_u64() >= Some(4 << 20) { Ok(status) } else { Err(status) }
    });
    assert_eq!(used["holder"], "h1", "{used}");
    assert!(used["holder-since"].is_string(), "{used}");
    let inspected = h1.docker(&format!("volume inspect {volume}")).json();
    let mountpoint = format!("/mnt/volplugin/rbd/{}", story.image("db"));
    assert_eq!(inspected[0]["Mountpoint"], mountpoint, "{inspected}");
    assert!(inspected[0]["CreatedAt"].is_string(), "{inspected}");

    container.remove();
    assert_eq!(h1.volume_status(&volume)["holder"], json!(null));
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// Every `--opt` of the design, and what comes of each.
pub fn every_option_is_taken(suite: &Suite) {
    let story = Story::beside(suite, "options");
    let options = "--opt pool=rbd --opt size=64MB --opt filesystem=ext4 --opt ephemeral=1 \
        --opt snapshots=true --opt snapshots.frequency=90m --opt snapshots.keep=3 \
        --opt snapshot.freeze=true --opt rate-limit.write.iops=100 --opt rate-limit.read.iops=200 \
        --opt rate-limit.write.bps=10MB --opt rate-limit.read.bps=20000000 --opt access=auto \
        --opt mount-options=noatime,nodiratime --opt sharing=container";
    let volume = story.create("all", options);
    let shown = story.volcli(&format!("volume get {volume}")).json();
    let expected = json!({
        "pool": "rbd", "size": "64 MiB", "filesystem": "ext4", "snapshots": true,
        "snapshot": { "frequency": "1h30m", "keep": 3, "freeze": true },
        "access": "auto", "mount-options": ["noatime", "nodiratime"], "sharing": "container",
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&shown["options"][key], value, "{key} in {shown}");
    }
    let limits = &shown["options"]["rate-limit"];
    assert_eq!(limits["write-iops"], 100, "{shown}");
    assert_eq!(limits["read-iops"], 200, "{shown}");
    assert_eq!(limits["write-bps"], 10 << 20, "{shown}");
    assert_eq!(limits["read-bps"], 20_000_000, "{shown}");

    let h1 = suite.h1();
    let mounts = h1.run(&format!("-v {volume}:/data"), "grep ' /data ' /proc/mounts");
    assert!(mounts.ok().contains("noatime"), "the mount options hold: {mounts}");
    h1.docker(&format!("volume rm {volume}")).ok();

    let trashed = story.create("trashed", "--opt on-remove=trash --opt snapshot.retention=24h7d4w");
    h1.docker(&format!("volume rm {trashed}")).ok();
    assert!(!h1.volume_names().contains(&trashed));
    let refused = story.try_create("bad", "--opt sise=1GB");
    refused.refused_with(&["unknown option", "sise", "size"]);
    story.try_create("bad", "--opt size=lots").refused_with(&["size", "lots"]);
    story.try_create("bad", "--opt ephemeral=maybe").refused_with(&["ephemeral", "maybe"]);
    story.try_create("bad", "--opt filesystem=zfs").refused_with(&["zfs", "btrfs, ext4, xfs"]);
    story.try_create("b@d", "").refused();
    let left = story.volcli(&format!("volume list {}", story.tenant));
    assert_eq!(left.ok(), "", "nothing came of what was refused");
    story.until_unused();
}

/// `ephemeral: false`: Docker's `rm` forgets nothing and deletes nothing.
pub fn a_volume_that_is_not_ephemeral_outlives_docker_rm(suite: &Suite) {
    let story = Story::beside(suite, "keep");
    let h1 = suite.h1();
    let volume = story.create("db", "--opt ephemeral=false");
    h1.run(&format!("-v {volume}:/data"), "echo kept >/data/file").ok();
    h1.docker(&format!("volume rm {volume}")).ok();
    assert_eq!(story.get("db")["state"], "ready");
    let read = h1.run(&format!("-v {volume}:/data"), "cat /data/file");
    assert_eq!(read.ok(), "kept");

    story.volcli(&format!("volume remove {volume} --yes")).ok();
    assert!(!h1.volume_names().contains(&volume));
    story.until_nothing_is_left();
}

/// Creating again is success, and a conflict when something else is asked for.
pub fn creating_again_finds_the_volume(suite: &Suite) {
    let story = Story::beside(suite, "again");
    let h1 = suite.h1();
    let volume = story.create("db", "--opt size=20MB");
    let uid = story.get("db")["uid"].clone();
    let create = |options: serde_json::Value| {
        let body = json!({ "Name": volume, "Opts": options });
        h1.plugin_call("VolumeDriver.Create", &body).err()
    };
    assert_eq!(create(json!(null)), "");
    assert_eq!(create(json!({})), "");
    assert_eq!(create(json!({ "size": "20480KiB" })), "", "the same size in other words");
    assert_eq!(story.get("db")["uid"], uid, "it is the same volume");
    let conflict = create(json!({ "size": "30MB" }));
    assert!(conflict.contains("20 MiB") && conflict.contains("30 MiB"), "{conflict}");
    let other = story.volcli(&format!("volume create {volume} --opt filesystem=xfs"));
    other.refused_with(&["xfs", "ext4"]);

    // A later upload changes no volume that is there.
    let mut larger = policy();
    larger["default-options"]["size"] = json!("40MB");
    story.upload(&larger);
    assert_eq!(create(json!(null)), "");
    assert_eq!(story.get("db")["options"]["size"], "20 MiB");
    story.create("new", "");
    assert_eq!(story.get("new")["options"]["size"], "40 MiB");
    h1.docker(&format!("volume rm {volume} {}", story.volume("new"))).ok();
    story.until_nothing_is_left();
}

/// The same volume name belongs to two tenants, each with its own data.
pub fn two_tenants_do_not_meet(suite: &Suite) {
    let (one, two) = (Story::beside(suite, "tenant-a"), Story::beside(suite, "tenant-b"));
    let h1 = suite.h1();
    let volumes = [one.create("db", ""), two.create("db", "")];
    for volume in &volumes {
        h1.run(&format!("-v {volume}:/data"), &format!("echo {volume} >/data/whose")).ok();
    }
    for volume in &volumes {
        let read = h1.run(&format!("-v {volume}:/data"), "cat /data/whose; ls /data | wc -l");
        assert_eq!(read.lines()[0], volume.as_str(), "{read}");
    }
    let mixed =
        h1.run(&format!("-v {}:/a -v {}:/b", volumes[0], volumes[1]), "cat /a/whose /b/whose");
    assert_eq!(mixed.lines(), [&*volumes[0], &*volumes[1]]);
    h1.docker(&format!("volume rm {} {}", volumes[0], volumes[1])).ok();
    one.until_nothing_is_left();
    two.until_nothing_is_left();
}

/// A name without a tenant is an error that says what to do, unless there is a default tenant.
pub fn a_plain_name_needs_a_default_tenant(suite: &Suite) {
    let story = Story::alone(suite, "plain");
    let h1 = suite.h1();
    let refused = h1.docker("volume create -d volplugin plain-db");
    refused.refused_with(&["plain-db", "tenant/volume", "--default-tenant"]);

    let mut second = h1.plugin_beside("forplain", "--default-tenant plain");
    h1.docker("volume create -d forplain plain-db").ok();
    assert_eq!(story.get("plain-db")["state"], "ready", "it is the tenant's");
    let names = h1.docker("volume ls -f driver=forplain --format {{.Name}}");
    assert!(names.lines().contains(&"plain-db"), "{names}");
    h1.run("-v plain-db:/data", "echo plain >/data/file").ok();
    // Docker makes a volume that it is asked to run with, where the driver is named.
    let made = h1.run("--volume-driver forplain -v plain-auto:/data", "echo made >/data/file");
    made.ok();
    assert_eq!(story.get("plain-auto")["state"], "ready");
    // The first plugin knows the same volume by its full name.
    let volume = story.volume("plain-db");
    let read = h1.run(&format!("--volume-driver volplugin -v {volume}:/data"), "cat /data/file");
    assert_eq!(read.ok(), "plain");
    h1.docker("volume rm plain-db plain-auto").ok();
    assert!(!h1.volume_names().contains(&volume), "it is gone under both names");
    story.until_nothing_is_left();
    // Docker would look for it for seconds at every `volume ls` now, until it starts anew.
    h1.docker_stop();
    assert!(second.terminate(Duration::from_secs(15)).success());
    h1.docker_start();
}
