//! Snapshots on schedule, clones and removals, against the same by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testkit::supervisor::Clock;
use testkit::{Suite, poll};
use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::options::Access;
use volcore::snapshot::{Slots, snapshot_expired};
use volcore::spec::Retention;
use volcore::volume::ImageName;
use volstorage::ceph::Cluster;
use volstorage::fake::image::FakeImages;
use volstorage::image::{ImageDriver, ImageSnapshot, NewImage, SnapshotUsage};

use crate::bare::{Mapped, admin, sh, timed};
use crate::table::{Table, Times, ms, ratio};
use crate::volumes::{call, policy, sixteen};

/// How many volumes are due at once.
const DUE: usize = 1_000;
/// How many snapshots are taken one after the other, for the baseline.
const SERIAL: u32 = 20;
/// How often a clone and a removal are measured.
const ROUNDS: usize = 10;

/// A thousand volumes that are due at once, against one snapshot after the other; and the same with one whose holder
/// stands still.
pub fn thousand(suite: &Suite, table: &mut Table) {
    policy(suite, "10MB", "mkfs.ext4 -q -m0 %");
    let every_minute = json!({
        "snapshots": "true", "snapshots.frequency": "1m", "snapshots.keep": "2",
    });
    sixteen(DUE, |number| {
        let name = format!("s{number}");
        let body = json!({ "tenant": "bench", "name": name, "options": every_minute });
        suite.master().send("POST", "/v1/volumes", &body).ok();
    });
    let serial = serial(suite);
    let all = taken(suite, DUE);
    let folder = suite.dir.join("frozen");
    let held = Mapped::map(suite.ceph().conf(), "bench.s0", &folder);
    // Whoever has written has the lock, so that the snapshot is asked of him.
    sh(&format!(
        "dd if=/dev/zero of={} bs=4k count=1 oflag=direct seek=2 2>/dev/null",
        held.device()
    ));
    let server = sh(&format!("pgrep -f '[r]bd-fuse .*{}'", folder.display()));
    sh(&format!("kill -STOP {server}"));
    let others = taken(suite, DUE - 1);
    sh(&format!("kill -CONT {server}"));
    held.unmap();
    let extrapolated = serial * u32::try_from(DUE).unwrap_or(u32::MAX) / SERIAL;
    let by_hand =
        format!("{} for {SERIAL}, {:.0} s extrapolated", ms(serial), extrapolated.as_secs_f64());
    table.row(
        "Snapshots of 1,000 volumes that are due at once",
        "≤ 12 s",
        format!("{:.1} s", all.as_secs_f64()),
        by_hand.clone(),
        "rbd_snap_create, one after the other",
    );
    table.row(
        "The same, the holder of one stands still: the other 999",
        "≤ 14 s",
        format!("{:.1} s", others.as_secs_f64()),
        by_hand,
        "rbd_snap_create, one after the other",
    );
    sixteen(DUE, |number| {
        suite.master().send("DELETE", &format!("/v1/volumes/bench/s{number}"), &Value::Null).ok();
    });
}

/// Waits until all are due, and measures how long a supervisor that begins then takes for so many of them.
fn taken(suite: &Suite, count: usize) -> Duration {
    let status = || suite.master().get("/v1/status")["schedules"].clone();
    poll::until("all volumes to be due", Duration::from_secs(200), || {
        let due = status()["due"].as_u64();
        if due == Some(DUE as u64) { Ok(()) } else { Err(format!("{due:?}")) }
    });
    let before = status()["taken"].as_u64().unwrap_or(0);
    let began = Instant::now();
    let supervisor = suite.supervisor("supervisor", Clock::Right);
    // A volume is due again after a minute, so that nothing is counted twice before that.
    poll::until("the snapshots", Duration::from_secs(55), || {
        let now = status()["taken"].as_u64().unwrap_or(0) - before;
        if now >= count as u64 { Ok(()) } else { Err(now) }
    });
    let took = began.elapsed();
    supervisor.stop();
    took
}

/// How long it takes to snapshot some images, one after the other.
fn serial(suite: &Suite) -> Duration {
    let cluster = Cluster::connect(&admin(suite.ceph().conf())).expect("a connection");
    let pool = cluster.pool("rbd").expect("the pool");
    let (took, ()) = timed(|| {
        for number in 0..SERIAL {
            let image = pool.open_image(&format!("bench.s{number}")).expect("an image");
            image.create_snapshot("serial").expect("a snapshot");
        }
    });
    for number in 0..SERIAL {
        let image = pool.open_image(&format!("bench.s{number}")).expect("an image");
        image.remove_snapshot("serial").expect("a removal");
    }
    took
}

/// A clone of a volume of 10 GiB against `rbd clone`, and the removal of one of 1 TiB against `rbd trash mv`.
pub fn clone_and_remove(suite: &Suite, table: &mut Table) {
    policy(suite, "10GB", "mkfs.ext4 -q -m0 %");
    let conf = suite.ceph().conf().display().to_string();
    call(suite.h1(), "Create", &json!({ "Name": "bench/big" }));
    suite.volcli("snapshot create bench/big before").ok();
    sh(&format!("rbd -c {conf} snap protect rbd/bench.big@before"));
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let options = json!({ "from": "bench/big@before" });
        let body = json!({ "Name": format!("bench/clone{round}"), "Opts": options });
        ours.push(call(suite.h1(), "Create", &body));
        let line = format!("rbd -c {conf} clone rbd/bench.big@before rbd/bare-clone{round}");
        bare.push(timed(|| sh(&line)).0);
    }
    let (ours, bare) = (Times::from(ours), Times::from(bare));
    table.row(
        "Clone of a volume of 10 GiB, at the plugin socket",
        "≤ 150 ms",
        format!("{ours} ({})", ratio(&ours, &bare)),
        bare.to_string(),
        "rbd clone",
    );
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS / 2 {
        let name = format!("bench/tera{round}");
        call(suite.h1(), "Create", &json!({ "Name": name, "Opts": { "size": "1TB" } }));
        ours.push(timed(|| suite.h1().docker(&format!("volume rm {name}")).ok().to_owned()).0);
        sh(&format!("rbd -c {conf} create --size 1T rbd/bare-tera{round}"));
        bare.push(timed(|| sh(&format!("rbd -c {conf} trash mv rbd/bare-tera{round}"))).0);
    }
    let (ours, bare) = (Times::from(ours), Times::from(bare));
    table.row(
        "docker volume rm of a volume of 1 TiB",
        "≤ 120 ms",
        format!("{ours} ({})", ratio(&ours, &bare)),
        bare.to_string(),
        "rbd trash mv",
    );
}

/// What deciding on retention costs, for 10,000 volumes with 20 snapshots each, in the fake.
pub fn retention(table: &mut Table) {
    const VOLUMES: usize = 10_000;
    const SNAPSHOTS: u32 = 20;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let images = Arc::new(FakeImages::new(["rbd".parse().expect("a pool")]));
    let now = Timestamp::now();
    let frequency = "30m".parse().expect("a frequency");
    let image = |number: usize| ImageName {
        pool: "rbd".parse().expect("a pool"),
        name: format!("bench.v{number}"),
    };
    runtime.block_on(async {
        for number in 0..VOLUMES {
            let uid = Uuid::new_v4();
            let new = NewImage {
                image: image(number),
                uid,
                size: "10MB".parse().expect("a size"),
                format: "mkfs.ext4 %".parse().expect("a command"),
                access: Access::Auto,
                limits: RateLimits::default(),
            };
            images.create(&new).await.expect("an image");
            let slots = Slots::new(uid, Timestamp::UNIX_EPOCH, frequency);
            for age in (0..SNAPSHOTS).rev() {
                let at = now - SignedDuration::from_mins(i64::from(age) * 30);
                let snapshot = slots.latest(at).expect("a slot").name();
                let at = ImageSnapshot { image: image(number), snapshot };
                images.snapshot_create(&at).await.expect("a snapshot");
            }
        }
    });
    let before = cpu();
    let gone = runtime.block_on(async {
        let mut gone = 0;
        for number in 0..VOLUMES {
            let image = image(number);
            let listed = images.snapshot_list(&image, SnapshotUsage::Skip).await.expect("a list");
            let names = listed.iter().map(|snapshot| &snapshot.name);
            for name in snapshot_expired(Retention::Keep(SNAPSHOTS - 1), names, now) {
                let at = ImageSnapshot { image: image.clone(), snapshot: name.clone() };
                images.snapshot_remove(&at).await.expect("a removal");
                gone += 1;
            }
        }
        gone
    });
    assert_eq!(gone, VOLUMES, "one of each goes");
    table.row(
        "Retention pass, 10,000 volumes × 20 snapshots, in the fake",
        "≤ 2 s of CPU",
        ms(cpu() - before),
        "–".to_owned(),
        "–",
    );
}

/// The processor's time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("this process");
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number");
    Duration::from_nanos(nanos)
}
