//! A host is dead, frozen, cut off or declared dead: its volumes run elsewhere within seconds, and nothing that
//! it still does reaches the disk.
//!
//! A container writes a ledger on h1 (see `testkit::ledger`); another one goes on with it on h2, under the next epoch.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::fault::{Cut, Fault};
use testkit::ledger::{FILE, Ledger, Run};
use testkit::suite::Size;
use testkit::wire::{Layout, Lines};
use testkit::{Host, Story, Suite, poll};

static WIRE: LazyLock<Suite> = LazyLock::new(|| {
    Suite::on_wire("t", Layout { size: Size::of(2, 3), members: 1, lines: Lines::Direct })
});

/// What a session lasts unless the operator says something else (DESIGN §8), and how long a takeover takes then: 3 s as a
/// rule, and some more on a machine that is busy with other things.
const UNANNOUNCED: Duration = Duration::from_secs(10 + 6);
/// The same when the operator says that the host is dead; 1 s as a rule.
const ANNOUNCED: Duration = Duration::from_millis(4_000);
/// A host that is back has cleaned up after this time: a reconciler's pause, twice, and what hangs meanwhile.
const CLEAN: Duration = Duration::from_secs(60);
/// How long a refusal by a live holder takes at the plugin's socket, in the median.
const REFUSAL: Duration = Duration::from_millis(50);

/// A volume with a writer on h1.
fn written_on_h1(story: &Story<'_>, name: &str) -> (Ledger, Run) {
    let ledger = Ledger::of(&story.create(name, ""), &WIRE.dir.join("ledgers"));
    let run = ledger.start(&WIRE, WIRE.h1());
    (ledger, run)
}

/// Starts the next writer as soon as the volume is to be had there, and looks that nothing is missing. Gives how long that took.
#[track_caller]
fn taken_over(ledger: &Ledger, by: &Host, begin: Instant) -> (Run, Duration) {
    let what = format!("{} to be had on {}", ledger.volume(), by.label());
    let run = poll::until(&what, Duration::from_secs(60), || ledger.try_start(by));
    let took = begin.elapsed();
    let told = format!("the epoch of {}", ledger.volume());
    let epoch = poll::until(&told, Duration::from_secs(20), || ledger.tell_epoch(&WIRE, &run));
    ledger.writes_on(&run);
    is_whole(ledger, by);
    println!("{}: had on {} after {took:.2?}, epoch {epoch}", ledger.volume(), by.label());
    (run, took)
}

#[track_caller]
fn is_whole(ledger: &Ledger, host: &Host) {
    let wrong =
        ledger.check(|| host.read_on(&ledger.image(), FILE)).expect("the ledger can be read");
    assert_eq!(wrong, [], "the ledger of {}", ledger.volume());
}

/// Waits until nothing of a volume is left on a host that has lost it.
#[track_caller]
fn cleans_up(host: &Host, ledger: &Ledger) {
    let what = format!("{} to have nothing left of {}", host.label(), ledger.volume());
    poll::until(&what, CLEAN, || {
        let image = ledger.image();
        let (mounts, paths) = (host.writable(&image), host.data_paths(&image));
        let left = format!("mounts {mounts:?}, processes {paths:?}");
        if mounts.is_empty() && paths.is_empty() { Ok(()) } else { Err(left) }
    });
}

/// A host that was fenced takes other volumes at once.
#[track_caller]
fn takes_others(story: &Story<'_>, host: &Host, name: &str) {
    let other = Ledger::of(&story.create(name, ""), &WIRE.dir.join("ledgers"));
    let begin = Instant::now();
    let run = other.start(&WIRE, host);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:.1?}");
    host.docker(&format!("rm -f {}", run.container)).ok();
}

/// Ends all writers, and looks that nothing is left of the story.
#[track_caller]
fn ends(story: &Story<'_>, names: &[impl AsRef<str>]) {
    for host in &WIRE.hosts {
        for container in host.docker("ps -aq").lines() {
            host.docker(&format!("rm -f {container}")).ok();
        }
    }
    story.until_unused();
    for name in names {
        WIRE.h1().docker(&format!("volume rm {}", story.volume(name.as_ref()))).ok();
    }
    story.until_nothing_is_left();
}

#[test]
fn a_host_dies_unannounced() {
    let story = Story::alone(&WIRE, "dies");
    let (h1, h2) = (WIRE.h1(), WIRE.h2());
    let (ledger, run) = written_on_h1(&story, "db");
    let claim = story.volcli(&format!("mount get {}", ledger.volume())).json();
    assert_eq!((&claim["host"], &claim["state"]), (&json!("h1"), &json!("mounted")), "{claim}");
    let clients = claim["clients"].to_string();
    assert!(clients.contains("10.77.0.11:"), "who can write is on record: {claim}");
    // To power a simulated host off takes seconds. It is not heard of any more when its volplugin is gone.
    h1.plugin_kill();
    let begin = Instant::now();
    h1.power_off();
    let (next, took) = taken_over(&ledger, h2, begin);
    assert!(took <= UNANNOUNCED, "{took:.1?}");
    assert!(next.acks().epoch > run.acks().epoch);
    h1.power_on();
    h1.docker_start();
    takes_others(&story, h1, "other");
    cleans_up(h1, &ledger);
    ledger.writes_on(&next);
    is_whole(&ledger, h2);
    ends(&story, &["db", "other"]);
}

#[test]
fn a_host_is_declared_dead() {
    let story = Story::alone(&WIRE, "declared");
    let (h1, h2) = (WIRE.h1(), WIRE.h2());
    let (ledger, _) = written_on_h1(&story, "db");
    h1.power_off();
    let begin = Instant::now();
    story.volcli("host fence h1 --yes").ok();
    let (next, took) = taken_over(&ledger, h2, begin);
    assert!(took <= ANNOUNCED, "{took:.1?}");
    h1.power_on();
    h1.docker_start();
    takes_others(&story, h1, "other");
    ledger.writes_on(&next);
    ends(&story, &["db", "other"]);
}

#[test]
fn nobody_is_fenced_by_mistake() {
    let story = Story::alone(&WIRE, "mistake");
    let (ledger, run) = written_on_h1(&story, "db");
    story.volcli("host fence nobody --yes").refused_with(&["nobody"]);
    story.volcli("host fence h1").refused_with(&["--yes"]);
    story.volcli("host fence").refused();
    let before = run.acks().epoch;
    ledger.writes_on(&run);
    assert_eq!(ledger.tell_epoch(&WIRE, &run), Ok(before), "it has the volume still");
    let blocked = WIRE.ceph().ceph("osd blocklist ls");
    assert!(!blocked.stdout.contains("10.77.0.11:"), "{blocked}");
    is_whole(&ledger, WIRE.h1());
    ends(&story, &["db"]);
}

/// It does not know what has happened meanwhile, and goes on writing. In each case a volume is taken over by h2.
fn comes_back_from(name: &str, fault: Fault) {
    let story = Story::alone(&WIRE, name);
    let (h1, h2) = (WIRE.h1(), WIRE.h2());
    let (ledger, run) = written_on_h1(&story, "db");
    let begin = Instant::now();
    fault.inject(&WIRE);
    let (next, took) = taken_over(&ledger, h2, begin);
    assert!(took <= UNANNOUNCED, "{took:.1?}");
    fault.heal(&WIRE);
    // What the old writer had under way when it was stopped is either on the disk or was not acknowledged.
    poll::until("the old writer to fail", CLEAN, || run.failed_at().ok_or_else(|| run.said()));
    ledger.writes_on(&next);
    is_whole(&ledger, h2);
    cleans_up(h1, &ledger);
    takes_others(&story, h1, "other");
    // Nothing that h1 kept may come to the disk later: the volume is looked at by a host that has not seen it yet.
    h2.docker(&format!("rm -f {}", next.container)).ok();
    let (last, _) = taken_over(&ledger, WIRE.h3(), Instant::now());
    ledger.writes_on(&last);
    is_whole(&ledger, WIRE.h3());
    ends(&story, &["db", "other"]);
}

#[test]
fn a_host_comes_back_from_a_freeze() {
    comes_back_from("freeze", Fault::HostFrozen(0));
}

#[test]
fn a_host_comes_back_from_a_cut_cable() {
    comes_back_from("cable", Fault::Cut(Cut::Host(0)));
}

/// It can write all the time; only volmaster does not hear of it.
#[test]
fn a_host_comes_back_to_its_volmasters() {
    comes_back_from("silent", Fault::Cut(Cut::HostFromMasters(0)));
}

/// What each of some hosts is told when all ask for all of these volumes at once: a row for each volume.
fn ask_at_once(
    story: &Story<'_>,
    hosts: &[&Host],
    names: &[String],
    method: &str,
    id: &str,
) -> Vec<Vec<String>> {
    let ask = |host: &Host, name: &String| {
        host.plugin_call(method, &json!({ "Name": story.volume(name), "ID": id })).err()
    };
    let ask = &ask;
    thread::scope(|scope| {
        let row = |name| {
            let asking = hosts.iter().map(|&host| scope.spawn(move || ask(host, name)));
            asking.collect::<Vec<_>>()
        };
        let rows: Vec<_> = names.iter().map(row).collect();
        let told = |row: Vec<thread::ScopedJoinHandle<'_, String>>| {
            row.into_iter().map(|call| call.join().expect("no panic")).collect()
        };
        rows.into_iter().map(told).collect()
    })
}

/// Fifteen volumes.
fn many(story: &Story<'_>) -> Vec<String> {
    let names: Vec<_> = (0..15).map(|number| format!("v{number}")).collect();
    names.iter().for_each(|name| drop(story.create(name, "")));
    names
}

/// Ends the uses of an ID, which some of these hosts have.
#[track_caller]
fn give_back(story: &Story<'_>, hosts: &[&Host], names: &[String], id: &str) {
    let ended = ask_at_once(story, hosts, names, "VolumeDriver.Unmount", id).concat();
    assert!(ended.iter().all(String::is_empty), "{ended:?}");
}

/// Exactly one in each row was granted, and the others are told that it is in use.
#[track_caller]
fn one_wins_each(told: &[Vec<String>], what: &str) {
    for (number, row) in told.iter().enumerate() {
        let won = row.iter().filter(|err| err.is_empty()).count();
        assert_eq!(won, 1, "{what}, v{number}: {row:?}");
        let lost = row.iter().filter(|err| !err.is_empty());
        lost.for_each(|err| assert!(err.contains("in use"), "{what}, v{number}: {err}"));
    }
}

#[test]
fn three_hosts_ask_for_fifteen_volumes_at_once() {
    let story = Story::alone(&WIRE, "fifteen");
    let names = many(&story);
    let hosts: Vec<_> = WIRE.hosts.iter().collect();
    for round in 0..20 {
        let id = format!("round-{round}");
        one_wins_each(&ask_at_once(&story, &hosts, &names, "VolumeDriver.Mount", &id), &id);
        give_back(&story, &hosts, &names, &id);
    }
    ends(&story, &names);
}

/// A host dies with fifteen volumes, and both others want all of them: one gets each, with the next epoch.
#[test]
fn two_hosts_take_fifteen_volumes_over_at_once() {
    let story = Story::alone(&WIRE, "heirs");
    let names = many(&story);
    let held = ask_at_once(&story, &[WIRE.h1()], &names, "VolumeDriver.Mount", "held").concat();
    assert!(held.iter().all(String::is_empty), "{held:?}");
    let epoch = |name: &String| {
        let claim = story.volcli(&format!("mount get {}", story.volume(name))).json();
        claim["epoch"].as_u64().expect("an epoch")
    };
    let before: Vec<_> = names.iter().map(epoch).collect();
    let begin = Instant::now();
    WIRE.h1().power_off();
    let heirs = [WIRE.h2(), WIRE.h3()];
    // Whoever has a volume would be granted it again, so nobody asks for that any more.
    let mut wanted = names.clone();
    poll::until("the heirs to have everything", Duration::from_secs(60), || {
        let told = ask_at_once(&story, &heirs, &wanted, "VolumeDriver.Mount", "heir");
        let won: Vec<_> =
            told.iter().map(|row| row.iter().filter(|err| err.is_empty()).count()).collect();
        assert!(won.iter().all(|&won| won <= 1), "two have one volume: {told:?}");
        let mut lost = won.iter().map(|&won| won == 0);
        wanted.retain(|_| lost.next().unwrap_or(true));
        if wanted.is_empty() { Ok(()) } else { Err(format!("{told:?}")) }
    });
    println!("fifteen volumes taken over after {:.1?}", begin.elapsed());
    assert!(begin.elapsed() < 2 * UNANNOUNCED, "{:.1?}", begin.elapsed());
    for (name, old) in names.iter().zip(before) {
        assert_eq!(epoch(name), old + 1, "one grant of {name}");
    }
    give_back(&story, &heirs, &names, "heir");
    WIRE.h1().power_on();
    WIRE.h1().docker_start();
    ends(&story, &names);
}

#[test]
fn a_live_holder_is_named_at_once() {
    let story = Story::alone(&WIRE, "alive");
    let (ledger, run) = written_on_h1(&story, "db");
    let body = json!({ "Name": ledger.volume(), "ID": "second" });
    let mut took: Vec<_> = (0..15)
        .map(|_| {
            let refused = WIRE.h2().plugin_call("VolumeDriver.Mount", &body);
            assert!(refused.err().contains("h1"), "{refused}");
            refused.took
        })
        .collect();
    took.sort_unstable();
    println!("refused after {:.1?} (median), {:.1?} (slowest)", took[7], took[14]);
    assert!(took[7] <= REFUSAL, "{took:?}");
    ledger.writes_on(&run);
    ends(&story, &["db"]);
}
