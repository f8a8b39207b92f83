//! `volstorage::ceph` against a Ceph cluster that does not do what it should: nothing waits without a bound.
//!
//! These tests disturb the cluster, so they have one of their own, and take turns.

mod ceph_support;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ceph_support::{CEPH, FEATURES, MIB, command, script, wait_for};
use serde_json::{Value, json};
use volstorage::ceph::{CephError, Cluster, ConnectOptions, Timeouts, TrashForce};

const ONE_SECOND: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    monitor: Duration::from_secs(1),
    osd: Duration::from_secs(1),
};

fn take_turns() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A daemon that stands still until this is dropped.
struct Frozen(&'static str);

impl Frozen {
    fn freeze(daemon: &'static str) -> Self {
        Self::signal("stop", daemon);
        Self(daemon)
    }

    fn signal(what: &str, daemon: &str) {
        let dir = CEPH.conf.parent().unwrap_or(Path::new("/"));
        let status =
            command(&script()).arg(what).arg(dir).arg(daemon).status().expect("scripts/ceph runs");
        assert!(status.success(), "scripts/ceph {what} {daemon}");
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        Self::signal("cont", self.0);
    }
}

/// What a loaded machine adds to a bound. Without the bound it would be ten seconds, thirty, or for ever.
const SLACK: Duration = Duration::from_secs(5);

/// The error of a call that is to time out, and to do so after `timeouts` times a second.
fn timed_out<T>(timeouts: u64, call: impl FnOnce() -> Result<T, CephError>) {
    let begin = Instant::now();
    let error = call().err().expect("an error");
    let took = begin.elapsed();
    assert!(error.is_timed_out(), "{error:?}");
    assert!(took < Duration::from_secs(timeouts) + SLACK, "{error}: {took:?}");
}

#[test]
fn frozen_osd_is_a_timeout() {
    let _turn = take_turns();
    let cluster = CEPH.connect(ONE_SECOND);
    let pool = cluster.pool("rbd").unwrap();
    pool.create("t.frozen", 16 * MIB, FEATURES).unwrap();
    let image = pool.open_image("t.frozen").unwrap();
    image.write_extents([(0, vec![1u8; 4096])]).unwrap();

    let frozen = Frozen::freeze("osd");
    timed_out(1, || image.read_at(0, &mut [0; 16]));
    timed_out(1, || image.write_extents([(0, vec![2u8; 4096])]));
    timed_out(1, || pool.create("t.other", MIB, FEATURES));
    timed_out(1, || pool.open_image("t.frozen"));
    timed_out(1, || pool.trash_add("1234", "t.frozen", Duration::ZERO));
    let begin = Instant::now();
    drop(image);
    assert!(begin.elapsed() < 5 * ONE_SECOND.osd + SLACK, "{:?}", begin.elapsed());
    drop(frozen);

    // Afterwards the same client works as before. A lone OSD that stood still for longer than its read lease (16 s) lets
    // some requests wait for ever; being marked down, which it denies, makes it start afresh.
    restart_osd();
    wait_for("the image to be there", || {
        pool.open_image_read_only("t.frozen").map_err(|error| error.to_string())
    });
}

#[test]
fn frozen_monitor_is_a_timeout() {
    let _turn = take_turns();
    let cluster = CEPH.connect(ONE_SECOND);
    let pool = cluster.pool("rbd").unwrap();

    let frozen = Frozen::freeze("mon");
    timed_out(1, || cluster.mon_command(&json!({"prefix": "osd dump"})));
    timed_out(1, || cluster.wait_for_latest_osd_map());
    timed_out(1, || cluster.pool("unheard-of"));
    let options = ConnectOptions {
        key: None,
        conf: CEPH.conf.clone(),
        user: "admin".to_owned(),
        timeouts: ONE_SECOND,
    };
    timed_out(1, || Cluster::connect(&options));
    // What needs no monitor goes on.
    assert_eq!(cluster.pool("rbd").unwrap().id(), pool.id());
    pool.create("t.meanwhile", MIB, FEATURES).unwrap();
    drop(frozen);

    wait_for("the monitor to answer", || {
        cluster.mon_command(&json!({"prefix": "osd dump"})).map_err(|error| error.to_string())
    });
    assert!(cluster.pool("unheard-of").unwrap_err().is_pool_not_found());
}

#[test]
fn full_cluster_is_an_error_at_once() {
    let _turn = take_turns();
    let cluster = CEPH.cluster();
    let pool = CEPH.pool();
    pool.create("t.full", 64 * MIB, FEATURES).unwrap();
    let image = pool.open_image("t.full").unwrap();
    image.write_extents([(0, vec![1u8; 4096])]).unwrap();
    set_ratios([("nearfull", 0.0001), ("backfillfull", 0.0002), ("full", 0.0003)]);
    wait_for_full(true);

    let begin = Instant::now();
    let error = image.write_extents([(32 * MIB, vec![1u8; 4096])]).unwrap_err();
    assert!(error.is_no_space(), "{error:?}");
    let error = pool.create("t.second", MIB, FEATURES).unwrap_err();
    assert!(error.is_no_space(), "{error:?}");
    assert!(!pool.list().unwrap().iter().any(|entry| entry.name == "t.second"));
    // What makes room still works.
    let id = image.id().unwrap();
    image.close().unwrap();
    pool.trash_add(&id, "t.full", Duration::ZERO).unwrap();
    pool.unlink("t.full", &id).unwrap();
    pool.unlist(&id, "t.full").unwrap();
    pool.trash_remove(&id, TrashForce::RespectDeferment).unwrap();
    // A call that waits for room would time out, after 30 s.
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());

    set_ratios([("full", 0.95), ("backfillfull", 0.90), ("nearfull", 0.85)]);
    wait_for_full(false);
    cluster.wait_for_latest_osd_map().unwrap();
    pool.create("t.second", MIB, FEATURES).unwrap();
}

fn set_ratios(ratios: [(&str, f64); 3]) {
    for (name, ratio) in ratios {
        let command = json!({"prefix": format!("osd set-{name}-ratio"), "ratio": ratio});
        CEPH.cluster().mon_command(&command).expect("the monitor sets the ratio");
    }
}

/// Has the OSD marked down, and waits until it has noticed that and is back.
///
/// Until it has noticed, it answers as before, and nobody tells it: only a look at the map does, for which an OSD without
/// peers takes 30 s. Nor must anything change what counts as full before it is back: it would want the mark on it to
/// be set right first, and the monitor listens to no OSD that is down.
fn restart_osd() {
    for command in [
        json!({"prefix": "config set", "who": "osd", "name": "osd_mon_heartbeat_interval", "value": "1"}),
        json!({"prefix": "osd down", "ids": ["0"]}),
    ] {
        CEPH.cluster().mon_command(&command).expect("the monitor does it");
    }
    wait_for("the OSD to be back", || {
        let osd = &osd_dump()["osds"][0];
        let (up, down_at, up_from) = (&osd["up"], osd["down_at"].as_u64(), osd["up_from"].as_u64());
        if *up == 1 && up_from > down_at { Ok(()) } else { Err(osd.to_string()) }
    });
}

fn osd_dump() -> Value {
    CEPH.ask(&json!({"prefix": "osd dump", "format": "json"}))
}

/// Waits until pool and OSD are marked as full, or have no such mark any more, also none of a lesser degree.
fn wait_for_full(full: bool) {
    wait_for("the marks of pool and OSD", || {
        let dump = osd_dump();
        let pool = dump["pools"][0]["flags_names"].as_str().unwrap_or_default().split(',');
        let osd =
            dump["osds"][0]["state"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let marks: Vec<_> = pool.chain(osd).filter(|mark| mark.ends_with("full")).collect();
        let done = if full { marks == ["full", "full"] } else { marks.is_empty() };
        if done { Ok(()) } else { Err(dump["osds"][0].to_string()) }
    });
    CEPH.cluster().wait_for_latest_osd_map().expect("the map arrives");
}
