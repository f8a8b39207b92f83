//! Hosts, volmasters, etcd and Ceph with addresses of their own: each can be cut off from each other one, and
//! what is written goes on and is there.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::fault::{Blow, Cut, Fault, Line, Who};
use testkit::ledger::{FILE, Ledger};
use testkit::master::Master;
use testkit::suite::Size;
use testkit::wire::{Layout, Lines};
use testkit::{Host, Story, Suite, poll};

static WIRE: LazyLock<Suite> = LazyLock::new(|| {
    Suite::on_wire("w", Layout { size: Size::of(2, 3), members: 3, lines: Lines::Lossy })
});

/// Looks at the ledger where it is mounted.
#[track_caller]
fn is_whole(ledger: &Ledger, host: &Host) {
    let wrong =
        ledger.check(|| host.read_on(&ledger.image(), FILE)).expect("the ledger can be read");
    assert_eq!(wrong, [], "the ledger of {}", ledger.volume());
}

#[test]
fn a_volume_lives_on_one_host_and_moves_to_another() {
    let story = Story::beside(&WIRE, "wired");
    let ledger = Ledger::of(&story.create("db", ""), &WIRE.dir.join("ledgers"));
    let (h1, h2) = (WIRE.h1(), WIRE.h2());
    let run = ledger.start(&WIRE, h1);
    let refused = ledger.try_start(h2).expect_err("h1 holds it");
    assert!(refused.contains("h1"), "{refused}");
    let watchers = WIRE.ceph().rbd(&format!("status rbd/{}", ledger.image()));
    assert!(watchers.ok().contains(&format!("{}:", h1_address())), "its own address: {watchers}");
    is_whole(&ledger, h1);
    h1.docker(&format!("rm -f {}", run.container)).ok();
    let second = ledger.start(&WIRE, h2);
    assert!(second.acks().epoch > run.acks().epoch, "{second:?}");
    is_whole(&ledger, h2);
    let mounted: Vec<_> =
        WIRE.hosts.iter().map(|host| host.writable(&ledger.image()).len()).collect();
    assert_eq!(mounted, [0, 1, 0]);
    h2.docker(&format!("rm -f {}", second.container)).ok();
    story.until_unused();
    h1.docker(&format!("volume rm {}", ledger.volume())).ok();
    story.until_nothing_is_left();
}

fn h1_address() -> String {
    testkit::place::address_of(1).to_string()
}

/// Whether a host reaches a volmaster.
fn reaches(host: &Host, master: &Master) -> bool {
    host.exec(&format!("curl -sf --max-time 1 {}/healthz", master.url())).is_ok()
}

/// The day that a process sees, from a time stamp.
fn day(stamp: &str) -> &str {
    stamp.get(..10).unwrap_or_default()
}

#[test]
fn each_fault_does_what_it_says_and_nothing_else() {
    let story = Story::alone(&WIRE, "said");
    let (m1, m2) = (&WIRE.masters[0], &WIRE.masters[1]);
    let seen = || {
        let pairs = [(WIRE.h1(), m1), (WIRE.h1(), m2), (WIRE.h2(), m1), (WIRE.h2(), m2)];
        pairs.map(|(host, master)| reaches(host, master))
    };
    for (cut, expected) in [
        (Cut::HostFromMasters(1), [true, true, false, false]),
        (Cut::HostFromMaster(1, 1), [true, true, true, false]),
        (Cut::MasterMute(0, 1), [true, true, false, true]),
        (Cut::HostFromCeph(1), [true; 4]),
        (Cut::Host(0), [false, false, true, true]),
    ] {
        Fault::Cut(cut).inject(&WIRE);
        assert_eq!(seen(), expected, "{cut}");
        Fault::Cut(cut).heal(&WIRE);
        poll::until(&format!("the end of {cut}"), Duration::from_secs(20), || {
            poll::holds(seen() == [true; 4], "somebody is cut off")
        });
    }
    let ready = |master: &Master| master.send("GET", "/readyz", &Value::Null).status == 200;
    let fault = Fault::Cut(Cut::MasterFromEtcd(1));
    fault.inject(&WIRE);
    poll::until("volmaster 2 to miss etcd", Duration::from_secs(60), || {
        poll::holds(!ready(m2), "it is ready")
    });
    assert!(ready(m1), "volmaster 1 misses nothing");
    fault.heal(&WIRE);
    ready_again();

    let fault = Fault::RepliesLost(Line::ToMaster(0), 3);
    fault.inject(&WIRE);
    let proxy = &WIRE.wire().to_masters[0];
    let url = format!("http://{}/healthz", proxy.address());
    let answered = (0..20).filter(|_| WIRE.h1().exec(&format!("curl -sf {url}")).is_ok()).count();
    assert!((5..20).contains(&answered) && proxy.lost() > 0, "{answered} of 20");
    fault.heal(&WIRE);
    clocks_are_off(&story);
    story.until_nothing_is_left();
}

fn clocks_are_off(story: &Story<'_>) {
    let faults = [Fault::MasterClock(1, 86_400), Fault::PluginClock(1, -2 * 86_400)];
    faults.iter().for_each(|fault| fault.inject(&WIRE));
    poll::until("volmaster 2 to be off by a day", Duration::from_secs(20), || {
        let made = [0, 1].map(|number| {
            let body = json!({ "tenant": story.tenant, "name": format!("v{number}") });
            let path = format!("/v1/volumes/{}/v{number}", story.tenant);
            WIRE.masters[number].send("POST", "/v1/volumes", &body).ok();
            let made = WIRE.masters[number].get(&path)["created_at"].as_str().map(str::to_owned);
            story.volcli(&format!("volume remove {}/v{number} --yes", story.tenant)).ok();
            made.unwrap_or_default()
        });
        if day(&made[0]) < day(&made[1]) { Ok(()) } else { Err(format!("{made:?}")) }
    });
    poll::until("volplugin of h2 to be off by two days", Duration::from_secs(20), || {
        let log = |host: &Host| {
            host.volume_names();
            let log = std::fs::read_to_string(host.plugin_log()).unwrap_or_default();
            log.lines().last().unwrap_or_default().to_owned()
        };
        let logs = [WIRE.h1(), WIRE.h2()].map(log);
        if day(&logs[0]) > day(&logs[1]) { Ok(()) } else { Err(format!("{logs:?}")) }
    });
    faults.iter().for_each(|fault| fault.heal(&WIRE));
}

/// What takes away the control plane, in whole or in part: who writes does not notice.
const UNFELT: &[Fault] = &[
    Fault::Process(Who::Plugin(0), Blow::Stop),
    Fault::Process(Who::Plugin(0), Blow::Kill),
    Fault::Process(Who::Docker(0), Blow::Stop),
    Fault::Process(Who::Master(0), Blow::Stop),
    Fault::Process(Who::Master(1), Blow::Kill),
    Fault::Process(Who::Etcd(0), Blow::Stop),
    Fault::Process(Who::Etcd(0), Blow::Kill),
    Fault::Process(Who::AllOfEtcd, Blow::Kill),
    Fault::Process(Who::AllOfEtcd, Blow::Stop),
    Fault::Process(Who::Mon, Blow::Stop),
    Fault::Cut(Cut::HostFromMasters(0)),
    Fault::Cut(Cut::HostFromMaster(0, 1)),
    Fault::Cut(Cut::MasterMute(0, 0)),
    Fault::Cut(Cut::MasterFromEtcd(0)),
    Fault::MasterClock(1, 3_600),
    Fault::PluginClock(0, -3_600),
    Fault::RepliesLost(Line::ToMaster(0), 1),
    Fault::RepliesLost(Line::ToEtcd(1), 2),
    Fault::Compaction,
    Fault::LeaderMoved,
];

/// What stops the data itself for a while: who writes waits.
const WAITED_FOR: &[Fault] = &[
    Fault::Process(Who::DataPath(0), Blow::Stop),
    Fault::Process(Who::Osd, Blow::Stop),
    Fault::Process(Who::Osd, Blow::Kill),
    Fault::Cut(Cut::Host(0)),
    Fault::Cut(Cut::HostFromCeph(0)),
    Fault::HostFrozen(0),
];

#[test]
fn who_writes_outlives_every_fault_that_leaves_the_host_alive() {
    let story = Story::alone(&WIRE, "outlived");
    let h1 = WIRE.h1();
    let ledger = Ledger::of(&story.create("db", ""), &WIRE.dir.join("ledgers"));
    let run = ledger.start(&WIRE, h1);
    for &fault in UNFELT {
        fault.inject(&WIRE);
        fault.inject(&WIRE);
        println!("{fault}: {} records", ledger.writes_on(&run));
        ledger.writes_on(&run);
        fault.heal(&WIRE);
        fault.heal(&WIRE);
        ready_again();
    }
    for &fault in WAITED_FOR {
        fault.inject(&WIRE);
        fault.inject(&WIRE);
        stands_still(&ledger, fault);
        fault.heal(&WIRE);
        fault.heal(&WIRE);
        ledger.writes_on(&run);
    }
    is_whole(&ledger, h1);
    ready_again();
    h1.docker(&format!("rm -f {}", run.container)).ok();
    story.until_unused();
    poll::until("the volume's removal", Duration::from_secs(60), || {
        let removed = h1.docker(&format!("volume rm {}", ledger.volume()));
        if removed.is_ok() { Ok(()) } else { Err(removed) }
    });
    story.until_nothing_is_left();
}

/// Nothing is acknowledged for a second, after what was under way.
#[track_caller]
fn stands_still(ledger: &Ledger, fault: Fault) {
    let mut last = (ledger.acked(), std::time::Instant::now());
    poll::until(&format!("{fault} to be felt"), Duration::from_secs(20), || {
        let acked = ledger.acked();
        if acked != last.0 {
            last = (acked, std::time::Instant::now());
        }
        poll::holds(last.1.elapsed() > Duration::from_secs(1), "records are acknowledged")
    });
    println!("{fault}: {} records", last.0);
}

fn ready_again() {
    for master in &WIRE.masters {
        poll::until("a volmaster to be ready", Duration::from_secs(60), || {
            let answer = master.send("GET", "/readyz", &Value::Null);
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        });
    }
}

/// What kills the writer, or what it writes on: it ends, nothing that it acknowledged is lost, and the next one goes on.
#[test]
fn who_dies_with_the_host_or_the_data_path_has_lost_nothing_that_was_synced() {
    let story = Story::alone(&WIRE, "died");
    let h3 = WIRE.h3();
    let ledger = Ledger::of(&story.create("db", ""), &WIRE.dir.join("ledgers"));
    for fault in [
        Fault::Process(Who::Docker(2), Blow::Kill),
        Fault::Process(Who::DataPath(2), Blow::Kill),
        Fault::PowerOff(2),
    ] {
        let run = ledger.start(&WIRE, h3);
        fault.inject(&WIRE);
        fault.inject(&WIRE);
        fault.heal(&WIRE);
        fault.heal(&WIRE);
        let begin = std::time::Instant::now();
        h3.docker(&format!("rm -f {}", run.container)).ok();
        let next = poll::until("the next writer", Duration::from_secs(90), || {
            let next = ledger.try_start(h3);
            // As long as a dead client's lock is broken by an operator only, it is one who reads what he is told.
            if next.as_ref().is_err_and(|why| why.contains("force-remove")) {
                story.volcli(&format!("mount force-remove {} --yes", ledger.volume())).ok();
            }
            next
        });
        let what = format!("the epoch after {fault}");
        poll::until(&what, Duration::from_secs(20), || ledger.tell_epoch(&WIRE, &next));
        println!("{fault}: {} records, on after {:.1?}", ledger.writes_on(&next), begin.elapsed());
        is_whole(&ledger, h3);
        h3.docker(&format!("rm -f {}", next.container)).ok();
        story.until_unused();
    }
    WIRE.h1().docker(&format!("volume rm {}", ledger.volume())).ok();
    story.until_nothing_is_left();
}
