//! The kernel's rbd and rbd-nbd, on a host with a kernel that has them (`scripts/guest`), beside one without.
//!
//! Run by `make test-vm`: each `docker run` takes seconds there, because the host is emulated.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use systemtests::stories::crashes::{self, Victim};
use systemtests::stories::{WRITER, containers, filesystems, life, lines_in, snapshots, writes_on};
use testkit::ceph::Ceph;
use testkit::suite::Size;
use testkit::supervisor::{Clock, Supervisor};
use testkit::{Story, Suite, poll};

static CEPH: LazyLock<Arc<Ceph>> =
    LazyLock::new(|| Arc::new(Ceph::up(&testkit::bed::Testbed::here().folder("ceph"))));
static KERNEL: LazyLock<Suite> =
    LazyLock::new(|| Suite::with_guest("kernel", &CEPH, Size::of(1, 2)));

/// What a container sees mounted on `/data`.
const MOUNTED: &str = "grep ' /data ' /proc/mounts";

// -- The same as everywhere.

#[test]
fn a_volume_lives_its_life() {
    life::a_volume_lives_its_life(&KERNEL);
}

#[test]
fn every_file_system_works() {
    filesystems::every_file_system_works(&KERNEL);
}

#[test]
fn two_containers_share_and_either_may_stop_first() {
    containers::two_containers_share_and_either_may_stop_first(&KERNEL);
}

#[test]
fn a_killed_container_leaves_nothing() {
    containers::a_killed_container_leaves_nothing(&KERNEL);
}

#[test]
fn docker_is_restarted() {
    crashes::docker_is_restarted(&KERNEL);
}

#[test]
fn volplugin_dies() {
    crashes::volplugin_dies(&KERNEL);
}

#[test]
fn both_die() {
    crashes::both_die(&KERNEL, Victim::Plugin, Victim::Plugin);
}

// -- What only this host can show.

/// A volume that is written through the kernel on one host is read through FUSE on another, and back.
#[test]
fn a_volume_moves_between_the_kernel_and_fuse() {
    let story = Story::beside(&KERNEL, "moves");
    let (h1, h2) = (KERNEL.h1(), KERNEL.h2());
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    let first = h1.run(&option, &format!("echo one >/data/file && {MOUNTED}"));
    assert!(first.ok().starts_with("/dev/rbd"), "h1 maps with its kernel: {first}");
    story.until_unused();
    let second = h2.run(&option, &format!("echo two >>/data/file && {MOUNTED}"));
    assert!(second.ok().starts_with("/dev/loop"), "h2 maps with FUSE: {second}");
    story.until_unused();
    assert_eq!(h1.run(&option, "cat /data/file").lines(), ["one", "two"]);
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// The kernel keeps the lock that librbd takes snapshots with. Frozen or not, what was synced before is in them.
#[test]
fn what_the_kernel_maps_has_snapshots() {
    snapshots::what_is_written_to_is_frozen(&KERNEL);
    snapshots::what_is_synced_is_in_a_snapshot(&KERNEL);
}

#[test]
fn a_schedule_is_kept_under_the_kernel() {
    let story = Story::beside(&KERNEL, "schedule");
    let supervisor = KERNEL.supervisor("under-the-kernel", Clock::Right);
    let every = "--opt snapshots=true --opt snapshots.frequency=10s --opt snapshots.keep=2";
    let volume = story.create("db", every);
    let container = KERNEL.h1().start("schedule", &format!("-v {volume}:/data"), WRITER);
    let written = writes_on(&container, 0);
    let before = story.get("db")["schedule"]["taken"].as_u64().expect("a number");
    let shown = poll::until("four slots to be taken", Duration::from_secs(90), || {
        let shown = story.get("db")["schedule"].clone();
        let taken = shown["taken"].as_u64().expect("a number");
        if taken >= before + 4 { Ok(shown) } else { Err(shown.to_string()) }
    });
    assert_eq!((&shown["missed"], &shown["failed"]), (&json!(0), &json!(0)), "{shown}");
    writes_on(&container, written);
    supervisor.stop();
    Supervisor::once(&KERNEL.master_urls()).ok();
    assert_eq!(story.volcli(&format!("snapshot list {volume}")).lines().len(), 2);
    // What was taken and removed past the holder of the lock is whole.
    let image = format!("rbd/{}", story.image("db"));
    let all = CEPH.rbd(&format!("snap ls --all --format json {image}")).json();
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    let info = CEPH.rbd(&format!("info --format json {image}")).json();
    assert_eq!(info["flags"], json!([]), "{info}");
    container.remove();
    story.until_unused();
    story.volcli(&format!("volume remove {volume} --yes")).ok();
    story.until_nothing_is_left();
}

/// While one host has it mapped, another is told who that is.
#[test]
fn a_second_host_is_refused_with_the_holders_name() {
    let story = Story::beside(&KERNEL, "refused");
    let (h1, h2) = (KERNEL.h1(), KERNEL.h2());
    let volume = story.create("db", "");
    let container = h1.start("refused", &format!("-v {volume}:/data"), WRITER);
    let written = writes_on(&container, 0);
    assert_eq!(h1.volume_status(&volume)["access"], "kernel");
    h2.run(&format!("-v {volume}:/data"), "true").refused_with(&[&volume, "h1"]);
    // Nor does Ceph let anybody write behind the suite's back.
    let locks = CEPH.rbd(&format!("lock ls --format json rbd/{}", story.image("db"))).json();
    assert_eq!(locks.as_array().map(Vec::len), Some(1), "{locks}");
    writes_on(&container, written);
    container.remove();
    story.until_unused();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// The plug is pulled under a writer. After the next start its data are there, and its claim is not.
#[test]
fn the_host_is_rebooted_under_a_writer() {
    let story = Story::alone(&KERNEL, "reboot");
    let h1 = KERNEL.h1();
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    let container = h1.start("reboot", &option, WRITER);
    writes_on(&container, 0);
    container.sh("sync").ok();
    let synced = lines_in(&container.sh("cat /data/log"));
    container.sh("sync").ok();
    h1.power_off();
    h1.power_on();
    h1.docker_start();
    poll::until("the claim of the host's last life to go", Duration::from_secs(60), || {
        let left = story.in_use();
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    });
    h1.docker("rm -f reboot").ok();
    // The kernel of its last life has left its lock, which went with the claim.
    let log = h1.run(&option, "cat /data/log");
    assert!(log.lines().len() as u64 >= synced, "{synced} lines were synced: {log}");
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// What is deleted in the file system is given back to Ceph.
#[test]
fn discard_reaches_the_image() {
    let story = Story::beside(&KERNEL, "discard");
    let h1 = KERNEL.h1();
    let volume = story.create("db", "--opt size=200MB");
    let image = format!("rbd/{}", story.image("db"));
    let used = || {
        let usage = CEPH.rbd(&format!("du --format json {image}")).json();
        usage["images"][0]["used_size"].as_u64().expect("the size")
    };
    let container = h1.start("discard", &format!("-v {volume}:/data"), "sleep 1000");
    container.sh("dd if=/dev/zero of=/data/big bs=1M count=64 && sync").ok();
    let full = used();
    assert!(full > 64 << 20, "{full} bytes are used");
    container.sh("rm /data/big && sync").ok();
    let target = format!("/mnt/volplugin/rbd/{}", story.image("db"));
    h1.exec(&format!("fstrim {target}")).ok();
    let trimmed = used();
    // ext4 of this size has something of its own in every second object.
    assert!(trimmed + (24 << 20) < full, "{full} bytes before, {trimmed} after");
    container.remove();
    story.until_unused();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// A limit holds for containers while the volume is mounted, follows a change, and is nobody's afterwards.
#[test]
fn a_limit_is_held_by_the_cgroup() {
    let story = Story::beside(&KERNEL, "limit");
    let h1 = KERNEL.h1();
    let volume = story.create("db", "--opt size=100MB --opt rate-limit.write.bps=2000000");
    let container = h1.start("limit", &format!("-v {volume}:/data"), "sleep 1000");
    let held = || h1.exec("cat /sys/fs/cgroup/docker/io.max").ok().to_owned();
    assert!(held().contains("wbps=2000000"), "{}", held());
    let holds = |limit: f64| {
        let dd = container.sh(
            "cut -d ' ' -f 1 /proc/uptime; dd if=/dev/zero of=/data/big bs=64k count=160 oflag=direct; \
             cut -d ' ' -f 1 /proc/uptime",
        );
        let times: Vec<f64> = dd.lines().iter().map(|time| time.parse().expect("a time")).collect();
        let rate = f64::from(160 * 65_536) / (times[1] - times[0]);
        assert!((0.85..1.15).contains(&(rate / limit)), "{rate} bytes per second: {dd}");
    };
    holds(2_000_000.0);
    assert!(
        h1.volume_status(&volume)["rate-limit"]
            .as_str()
            .is_some_and(|text| text == "write-bps 2000000")
    );
    story.volcli(&format!("volume set {volume} rate-limit.write.bps=1000000")).ok();
    // Two seconds, and some for looking at an emulated host.
    poll::until("the change to be in force", Duration::from_secs(4), || {
        let held = held();
        if held.contains("wbps=1000000") { Ok(()) } else { Err(held) }
    });
    holds(1_000_000.0);
    assert_eq!(h1.volume_status(&volume)["rate-limit"], "write-bps 1000000");
    container.remove();
    story.until_unused();
    assert!(!held().contains("wbps=1000000"), "{}", held());
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// An image with a feature that the kernel does not know: the answer names it, and what helps.
#[test]
fn a_feature_that_the_kernel_lacks_is_named() {
    let story = Story::beside(&KERNEL, "feature");
    let h1 = KERNEL.h1();
    let volume = story.create("db", "");
    let image = format!("rbd/{}", story.image("db"));
    CEPH.rbd(&format!("feature enable {image} journaling")).ok();
    let refused = h1.run(&format!("-v {volume}:/data"), "true");
    refused.refused_with(&["journaling", &format!("rbd feature disable {image} journaling")]);
    story.until_unused();
    CEPH.rbd(&format!("feature disable {image} journaling")).ok();
    h1.run(&format!("-v {volume}:/data"), "true").ok();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// What somebody else has mapped is neither used nor taken away: it would keep no second writer out.
#[test]
fn a_mapping_of_somebody_else_is_left_alone() {
    let story = Story::beside(&KERNEL, "foreign");
    let h1 = KERNEL.h1();
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    let image = format!("rbd/{}", story.image("db"));
    let rbd = format!("rbd -c {} --id volplugin", CEPH.conf().display());
    let device = h1.sh(&format!("{rbd} map -o noudev {image}")).ok().to_owned();
    h1.run(&option, "true").refused_with(&[&image, &device, "not by volplugin"]);
    assert!(h1.sh("cat /sys/bus/rbd/devices/*/name").ok().contains(&story.image("db")));
    h1.sh(&format!("{rbd} unmap -o noudev {device}")).ok();
    h1.run(&option, "true").ok();
    story.until_unused();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// The policy's options for mapping are the kernel's; what it would not know is refused before.
#[test]
fn map_options_reach_the_kernel() {
    let story = Story::beside(&KERNEL, "options");
    let h1 = KERNEL.h1();
    for (option, said) in [
        ("nonsense=1", "those are abort_on_full, alloc_size"),
        ("share", "no option of the kernel's rbd that a policy may set"),
        ("queue_depth=many", "a whole number"),
    ] {
        let refused = story.try_create("bad", &format!("--opt map-options={option}"));
        refused.refused_with(&["map-options", said]);
    }
    let volume = story.create("db", "--opt map-options=queue_depth=64,notrim");
    let container = h1.start("options", &format!("-v {volume}:/data"), WRITER);
    let written = writes_on(&container, 0);
    let mapped = h1.sh("cat /sys/bus/rbd/devices/*/config_info").ok().to_owned();
    let line = mapped.lines().find(|line| line.contains("options.db")).expect("it is mapped");
    assert!(line.contains("queue_depth=64,notrim"), "{line}");
    assert!(line.contains(",exclusive,") && !line.contains("secret"), "{line}");
    writes_on(&container, written);
    container.remove();
    story.until_unused();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// Without its key, or without an answer, a mount fails in time, says why, and leaves nothing; the next one works.
#[test]
fn what_keeps_the_kernel_from_ceph_is_named() {
    let story = Story::alone(&KERNEL, "kept-away");
    let h1 = KERNEL.h1();
    let keyring = CEPH.conf().with_file_name("ceph.client.volplugin.keyring");
    let away = keyring.with_extension("away");
    for access in ["kernel", "nbd"] {
        let volume = story.create(access, &format!("--opt access={access}"));
        let option = format!("-v {volume}:/data");
        std::fs::rename(&keyring, &away).expect("the keyring can be moved");
        let refused = h1.run(&option, "true");
        std::fs::rename(&away, &keyring).expect("and back");
        refused.refused_with(&["no key of client.volplugin", "ceph.client.volplugin.keyring"]);
        story.until_unused();

        let frozen = CEPH.freeze();
        let begun = Instant::now();
        let refused = h1.run(&option, "true");
        let took = begun.elapsed();
        frozen.thaw();
        refused.refused_with(&[&format!("rbd/kept-away.{access}"), "monitors 127.0.0.1"]);
        assert!(took < Duration::from_secs(100), "{took:?}");
        h1.run(&option, "true").ok();
        story.until_unused();
        h1.docker(&format!("volume rm {volume}")).ok();
    }
    story.until_nothing_is_left();
}

/// Does something to so many volumes, in the order of their numbers, one for each caller at a time.
fn for_each<C: Send>(
    callers: &mut [C],
    count: usize,
    act: impl Fn(&mut C, usize) -> String + Sync,
) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for caller in callers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    assert_eq!(act(caller, number), "", "v{number}");
                }
            });
        }
    });
}

/// Three hundred volumes are mapped and unmapped, one after the other; then forty are mapped at once, and are there at
/// the same time: their minor numbers go beyond 255, because each device takes sixteen.
#[test]
fn many_volumes_are_mapped() {
    const MANY: usize = 300;
    const AT_ONCE: usize = 40;
    let story = Story::alone(&KERNEL, "many");
    let (h1, h2) = (KERNEL.h1(), KERNEL.h2());
    let body = |number: usize| {
        let name = story.volume(&format!("v{number}"));
        json!({ "Name": name, "ID": "many", "Opts": { "size": "4MB" } })
    };
    let mut makers = [h2; 8];
    for_each(&mut makers, MANY, |h2, number| {
        h2.plugin_call("VolumeDriver.Create", &body(number)).err()
    });
    let count = |script: &str| h1.sh(script).ok().parse::<usize>().expect("a number");
    let devices = || count("ls /sys/bus/rbd/devices | wc -l");
    let calm = devices();
    for_each(&mut [h1.plugin_caller()], MANY, |caller, number| {
        let mounted = caller.call("VolumeDriver.Mount", &body(number)).err();
        mounted + &caller.call("VolumeDriver.Unmount", &body(number)).err()
    });
    assert_eq!(devices(), calm);

    // A connection on which nothing happens is closed, so whoever waits says something now and then.
    const NOW_AND_THEN: Duration = Duration::from_secs(3);
    let (mapped, seen, changed) = (AtomicUsize::new(0), Mutex::new(false), Condvar::new());
    // One after the other until each has been answered: the guest's network loses connections that come all at once.
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let mut caller = h1.plugin_caller();
            caller.call("VolumeDriver.Capabilities", &Value::Null).ok();
            caller
        })
        .collect();
    thread::scope(|scope| {
        for (number, mut caller) in callers.into_iter().enumerate() {
            let (mapped, seen, changed, body) = (&mapped, &seen, &changed, &body);
            scope.spawn(move || {
                assert_eq!(caller.call("VolumeDriver.Mount", &body(number)).err(), "", "v{number}");
                mapped.fetch_add(1, Ordering::Relaxed);
                let mut all_seen = seen.lock().expect("nobody has panicked with it");
                while !*all_seen {
                    drop(all_seen);
                    caller.call("VolumeDriver.Capabilities", &Value::Null).ok();
                    let waiting = seen.lock().expect("nobody has panicked with it");
                    let waited = changed.wait_timeout_while(waiting, NOW_AND_THEN, |seen| !*seen);
                    all_seen = waited.expect("nobody has panicked with it").0;
                }
                drop(all_seen);
                assert_eq!(
                    caller.call("VolumeDriver.Unmount", &body(number)).err(),
                    "",
                    "v{number}"
                );
            });
        }
        let all_mapped = poll::wait(Duration::from_secs(200), || {
            poll::holds(mapped.load(Ordering::Relaxed) == AT_ONCE, "not all are mapped")
        });
        let there = (devices(), count("grep -c ' /mnt/volplugin/.*/many[.]v' /proc/mounts"));
        let minor = count("sort -rn /sys/bus/rbd/devices/*/minor | head -1");
        *seen.lock().expect("nobody has panicked with it") = true;
        changed.notify_all();
        assert_eq!((all_mapped, there), (Ok(()), (calm + AT_ONCE, AT_ONCE)));
        assert!(minor > 255, "{minor}");
    });
    assert_eq!(devices(), calm);
    story.until_unused();
    for_each(&mut makers, MANY, |h2, number| {
        h2.plugin_call("VolumeDriver.Remove", &body(number)).err()
    });
    story.until_nothing_is_left();
}

// -- nbd

/// The same through rbd-nbd: the volume moves between the three ways to reach it.
#[test]
fn nbd_serves_a_volume() {
    let story = Story::beside(&KERNEL, "nbd");
    let (h1, h2) = (KERNEL.h1(), KERNEL.h2());
    let volume = story.create("db", "--opt access=nbd");
    let option = format!("-v {volume}:/data");
    let first = h1.run(&option, &format!("echo one >/data/file && {MOUNTED}"));
    assert!(first.ok().starts_with("/dev/nbd"), "h1 maps with rbd-nbd: {first}");
    story.until_unused();
    let container = h1.start("nbd", &option, WRITER);
    let written = writes_on(&container, 0);
    assert_eq!(h1.volume_status(&volume)["access"], "nbd");
    h2.run(&option, "true").refused_with(&[&volume, "h1"]);
    h1.plugin_kill();
    let written = writes_on(&container, written);
    h1.plugin_start();
    writes_on(&container, written);
    // A second container shares the device, and either may go first.
    assert_eq!(h1.run(&option, "cat /data/file").ok(), "one");
    container.remove();
    story.until_unused();
    assert_eq!(h1.sh("pgrep -c rbd-nbd || true").ok(), "0");
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// The rbd-nbd of a volume dies: its containers get errors, its status tells, and when they have ended nothing is left.
#[test]
fn rbd_nbd_dies() {
    let story = Story::alone(&KERNEL, "nbd-dies");
    let h1 = KERNEL.h1();
    let volume = story.create("db", "--opt access=nbd");
    let option = format!("-v {volume}:/data");
    let script = "echo kept >/data/file; sync /data/file; sleep 1000";
    let container = h1.start("nbd-dies", &option, script);
    poll::until("the file to be stored", Duration::from_secs(60), || {
        let read = container.sh("cat /data/file");
        if read.is_ok() { Ok(()) } else { Err(read) }
    });
    h1.sh("kill -9 $(pgrep rbd-nbd)").ok();
    container.sh("echo more >/data/more; sync /data/more").refused();
    let health = || h1.volume_status(&volume)["health"].as_str().unwrap_or_default().to_owned();
    poll::until("the status to tell", Duration::from_secs(30), || {
        let health = health();
        if health.contains("rbd-nbd") { Ok(()) } else { Err(health) }
    });
    // Nobody is given a mount that does not work.
    h1.run(&option, "true").refused_with(&["rbd-nbd (pid ", "is gone"]);
    container.remove();
    story.until_unused();
    // Its lock has outlived it, and went with the claim.
    assert_eq!(h1.run(&option, "cat /data/file").ok(), "kept", "what was synced is there");
    story.until_unused();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}
