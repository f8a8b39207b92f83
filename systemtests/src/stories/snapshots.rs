//! The way back: snapshots, clones, rollbacks, the trash.

use std::time::Duration;

use testkit::{Story, Suite};

use super::{WRITER, lines_in, writes_on};

/// Takes the hash of what is in `/data`, names and all.
const HASH: &str = "cd /data && find . -type f | sort | xargs sha256sum | sha256sum";
/// Writes some files, and as much of one that it has no pattern.
const FILL: &str = "dd if=/dev/urandom of=/data/file bs=1M count=6 2>/dev/null && mkdir /data/sub && echo old >/data/sub/note && sync";
/// Changes all of them, and adds one.
const CHANGE: &str = "dd if=/dev/urandom of=/data/file bs=1M count=5 2>/dev/null && echo new >/data/sub/note && touch /data/later && sync";

/// What a snapshot has is byte for byte what was there: cloned, rolled back, and out of the trash, on every file system;
/// and a clone is mounted beside its source on one host.
pub fn data_comes_back(suite: &Suite) {
    let story = Story::beside(suite, "back");
    for (filesystem, size) in [("ext4", "20MB"), ("xfs", "300MB"), ("btrfs", "128MB")] {
        comes_back(&story, filesystem, size);
    }
    story.until_nothing_is_left();
}

fn comes_back(story: &Story<'_>, filesystem: &str, size: &str) {
    let h1 = story.suite.h1();
    let options = format!("--opt filesystem={filesystem} --opt size={size} --opt on-remove=trash");
    let volume = story.create(filesystem, &options);
    let data = format!("-v {volume}:/data");
    h1.run(&data, FILL).ok();
    let old = h1.run(&data, HASH).ok().to_owned();
    story.volcli(&format!("snapshot create {volume} before")).ok();
    h1.run(&data, CHANGE).ok();
    let new = h1.run(&data, HASH).ok().to_owned();
    assert_ne!(old, new);

    let clone = story.volume(&format!("{filesystem}-clone"));
    story.volcli(&format!("snapshot clone {volume}@before {clone}")).ok();
    let as_is = story.volume(&format!("{filesystem}-as-is"));
    h1.docker(&format!("volume create -d volplugin --opt from={volume} {as_is}")).ok();
    assert_eq!(h1.run(&format!("-v {clone}:/data"), HASH).ok(), old, "{clone}");
    assert_eq!(h1.run(&format!("-v {as_is}:/data"), HASH).ok(), new, "{as_is}");
    let all = format!("-v {volume}:/a -v {clone}:/b -v {as_is}:/c");
    let notes = h1.run(&all, "cat /a/sub/note /b/sub/note /c/sub/note && echo mine >/b/mine");
    assert_eq!(notes.lines(), ["new", "old", "new"], "{filesystem}: all three on one host");

    let beside = h1.start(&format!("hold-{filesystem}"), &data, "sleep 1000");
    let refused = story.volcli(&format!("snapshot rollback {volume}@before --yes"));
    refused.refused_with(&["in use", "h1"]);
    beside.remove();
    story.until_unused();
    story.volcli(&format!("snapshot rollback {volume}@before --yes")).ok();
    assert_eq!(h1.run(&data, HASH).ok(), old, "{volume} after the rollback");
    story.until_unused();

    h1.docker(&format!("volume rm {volume}")).ok();
    h1.docker(&format!("volume inspect {volume}")).refused_with(&["o such volume"]);
    story.volcli(&format!("volume restore {volume}")).ok();
    assert_eq!(h1.run(&data, HASH).ok(), old, "{volume} out of the trash");
    let listed = story.volcli(&format!("snapshot list {volume}"));
    assert_eq!(listed.lines(), ["before"], "with its snapshot");
    story.until_unused();
    for volume in [&clone, &as_is, &volume] {
        story.volcli(&format!("volume remove {volume} --yes")).ok();
    }
    story.volcli("trash purge --all --yes").ok();
}

/// Of a volume that is frozen for its snapshots: what the container has written before is in them, also what it has not
/// synced, and it writes on.
pub fn what_is_written_to_is_frozen(suite: &Suite) {
    in_its_snapshots(&Story::beside(suite, "frozen"), FREEZE, WRITER, 0);
}

/// Of any other: what it has synced.
pub fn what_is_synced_is_in_a_snapshot(suite: &Suite) {
    in_its_snapshots(&Story::beside(suite, "synced"), "", SYNCER, 1);
}

/// What is in the log of a writer before a snapshot is taken is in the snapshot, but for so many lines.
fn in_its_snapshots(story: &Story<'_>, options: &str, writer: &str, unsure: u64) {
    let h1 = story.suite.h1();
    let volume = story.create("db", options);
    let data = format!("-v {volume}:/data");
    let container = h1.start(&format!("writer-{}", story.tenant), &data, writer);
    let mut last = 0;
    for name in ["one", "two"] {
        let written = writes_on(&container, last + unsure);
        story.volcli(&format!("snapshot create {volume}@{name}")).ok();
        let clone = story.volume(name);
        story.volcli(&format!("snapshot clone {volume}@{name} {clone}")).ok();
        last = lines_in(&h1.run(&format!("-v {clone}:/data"), "cat /data/log"));
        let sure = written - unsure;
        assert!(last >= sure, "{volume}@{name} has {last} lines, {sure} were sure before");
        writes_on(&container, last);
    }
    story.volcli(&format!("snapshot remove {volume}@one --yes")).ok();
    assert_eq!(story.volcli(&format!("snapshot list {volume}")).lines(), ["two"]);
    writes_on(&container, last);
    container.remove();
    story.until_unused();
    story.volcli(&format!("snapshot rollback {volume}@two --yes")).ok();
    assert_eq!(lines_in(&h1.run(&data, "cat /data/log")), last, "{volume} is what it was at two");
    story.until_unused();
    for name in ["db", "one", "two"] {
        story.volcli(&format!("volume remove {} --yes", story.volume(name))).ok();
    }
    story.until_nothing_is_left();
}

/// Leaves a log as [`WRITER`] does; all lines of it but the last are on the disk.
const SYNCER: &str =
    "i=0; while :; do i=$((i+1)); seq $i >/data/next; sync; mv /data/next /data/log; sync; done";

/// The options of a volume that is frozen for its snapshots.
const FREEZE: &str = "--opt snapshots=true --opt snapshots.frequency=1h --opt snapshots.keep=3 --opt snapshot.freeze=true";

/// A volume grows under a running container, and while nobody uses it, and never shrinks.
pub fn a_volume_grows(suite: &Suite) {
    let story = Story::beside(suite, "grow");
    let h1 = suite.h1();
    for (filesystem, size, larger, largest) in [
        ("ext4", "20MB", "60MB", "100MB"),
        ("xfs", "300MB", "400MB", "500MB"),
        ("btrfs", "128MB", "256MB", "384MB"),
    ] {
        let volume =
            story.create(filesystem, &format!("--opt filesystem={filesystem} --opt size={size}"));
        let data = format!("-v {volume}:/data");
        let container = h1.start(&format!("grow-{filesystem}"), &data, "sleep 1000");
        let megabytes = || -> u64 {
            let shown = container.sh("df -m /data | tail -n 1 | awk '{ print $2 }'");
            shown.ok().parse().expect("a number")
        };
        let before = megabytes();
        story.volcli(&format!("volume resize {volume} {larger}")).ok();
        if filesystem == "ext4" && !may_administer_resources() {
            // As on this machine, in a container with few rights: it says so, and grows below.
            let refused = Duration::from_secs(20);
            testkit::poll::until("why it does not grow", refused, || {
                let shown = h1.volume_status(&volume)["last-error"].to_string();
                if shown.contains("CAP_SYS_RESOURCE") { Ok(()) } else { Err(shown) }
            });
            container.remove();
            story.until_unused();
            let shown = h1.run(&data, "df -m /data | tail -n 1 | awk '{ print $2 }'");
            assert!(shown.ok().parse::<u64>().expect("a number") > before + 30, "{shown}");
            h1.docker(&format!("volume rm {volume}")).ok();
            continue;
        }
        testkit::poll::until("the file system to grow", Duration::from_secs(20), || {
            let now = megabytes();
            if now > before + 30 { Ok(()) } else { Err(now) }
        });
        container.remove();
        story.until_unused();
        story.volcli(&format!("volume resize {volume} {largest}")).ok();
        let shown = h1.run(&data, "df -m /data | tail -n 1 | awk '{ print $2 }'");
        assert!(shown.ok().parse::<u64>().expect("a number") > before + 60, "{filesystem}");
        story.volcli(&format!("volume resize {volume} {size}")).refused_with(&["only grow"]);
        h1.docker(&format!("volume rm {volume}")).ok();
    }
    story.until_nothing_is_left();
}

/// Whether this process has `CAP_SYS_RESOURCE`, which growing a mounted ext4 takes.
fn may_administer_resources() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << 24) != 0)
}
