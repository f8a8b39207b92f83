//! Volumes at the plugin's socket, against the same steps by hand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Host, Suite};
use volstorage::ceph::{CephError, Cluster, Features, Pool, TrashForce};

use crate::bare::{Mapped, admin, sh, timed};
use crate::table::{Table, Times, ms, ratio};

/// How often each way is measured, in turn with the other.
const ROUNDS: usize = 40;

/// Those that the suite gives its images (DESIGN §9).
const FEATURES: Features = Features::from_bits(
    Features::LAYERING.bits()
        | Features::EXCLUSIVE_LOCK.bits()
        | Features::OBJECT_MAP.bits()
        | Features::FAST_DIFF.bits()
        | Features::DEEP_FLATTEN.bits(),
);

/// Uploads a policy with this size for the tenant `bench`.
pub fn policy(suite: &Suite, size: &str, format: &str) {
    let policy = json!({
        "default-options": { "size": size, "filesystem": "ext4", "ephemeral": true },
        "filesystems": { "ext4": format },
    });
    suite.volcli_with_stdin("tenant upload bench", &policy.to_string()).ok();
}

/// Calls the plugin; a refusal ends the bench.
pub fn call(host: &Host, method: &str, body: &Value) -> Duration {
    let (took, answer) = timed(|| host.plugin_call(&format!("VolumeDriver.{method}"), body));
    answer.ok();
    took
}

fn name(number: usize) -> Value {
    json!({ "Name": format!("bench/v{number}"), "ID": format!("use{number}") })
}

/// Create at the socket against `rbd create`, map, `mkfs.ext4`, unmap.
pub fn ceph_create(suite: &Suite, table: &mut Table) {
    policy(suite, "1GB", "mkfs.ext4 -q -m0 %");
    let conf = suite.ceph().conf().to_owned();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        ours.push(call(suite.h1(), "Create", &name(round)));
        let image = format!("bare{round}");
        let folder = suite.dir.join("bare");
        let (took, ()) = timed(|| {
            sh(&format!("rbd -c {} create --size 1G rbd/{image}", conf.display()));
            let mapped = Mapped::map(&conf, &image, &folder);
            sh(&format!("mkfs.ext4 -q -m0 {}", mapped.device()));
            mapped.unmap();
        });
        bare.push(took);
    }
    let (ours, bare) = (Times::from(ours), Times::from(bare));
    table.row(
        "Create at the plugin socket, Ceph, 1 GiB ext4",
        "≤ 30 ms p50, ≥ 5 × faster",
        format!("{ours} ({} faster)", ratio(&bare, &ours)),
        bare.to_string(),
        "rbd create, rbd-fuse + losetup, mkfs.ext4, unmap",
    );
}

/// Mount and Unmount of existing volumes against the bare steps on an image like theirs.
pub fn ceph_mount(suite: &Suite, table: &mut Table) {
    policy(suite, "1GB", "mkfs.ext4 -q -m0 %");
    let conf = suite.ceph().conf().to_owned();
    call(suite.h1(), "Create", &name(0));
    call(suite.h1(), "Create", &name(1));
    let folder = suite.dir.join("bare");
    let target = suite.dir.join("bare-mnt");
    let (mut up, mut down, mut bare_up, mut bare_down) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        up.push(call(suite.h1(), "Mount", &name(0)));
        down.push(call(suite.h1(), "Unmount", &name(0)));
        let (took, mapped) = timed(|| {
            let mapped = Mapped::map(&conf, "bench.v1", &folder);
            sh(&format!("mkdir -p {0} && mount {1} {0}", target.display(), mapped.device()));
            mapped
        });
        bare_up.push(took);
        let (took, ()) = timed(|| {
            sh(&format!("umount {}", target.display()));
            mapped.unmap();
        });
        bare_down.push(took);
    }
    for (what, ours, bare, against) in [
        ("Mount of an existing volume, fuse access", up, bare_up, "rbd-fuse, losetup, mount"),
        ("Unmount, fuse access", down, bare_down, "umount, losetup -d, umount of FUSE"),
    ] {
        let (ours, bare) = (Times::from(ours), Times::from(bare));
        table.row(
            what,
            "≤ 1.3 ×",
            format!("{ours} ({})", ratio(&ours, &bare)),
            bare.to_string(),
            against,
        );
    }
}

/// How long a second host waits for its refusal while the first one uses the volume.
pub fn refusal(suite: &Suite, table: &mut Table) {
    call(suite.h1(), "Create", &name(0));
    call(suite.h1(), "Mount", &name(0));
    let times = Times::of(ROUNDS, |_| {
        let (took, answer) = timed(|| suite.h2().plugin_call("VolumeDriver.Mount", &name(0)));
        assert!(answer.err().contains("host h1 holds it"), "{}", answer.err());
        took
    });
    call(suite.h1(), "Unmount", &name(0));
    table.row("Refusal of a second host", "≤ 50 ms", times.to_string(), "–".to_owned(), "–");
}

/// The whole life of a volume on files.
pub fn file_life(suite: &Suite, table: &mut Table) {
    policy(suite, "100MB", "mkfs.ext4 -q -m0 %");
    let folder = suite.dir.join("bare-file");
    let target = suite.dir.join("bare-mnt");
    let (folder, target) = (folder.display(), target.display());
    sh(&format!("mkdir -p {folder} {target}"));
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let body = name(round);
        let steps = ["Create", "Mount", "Unmount", "Remove"];
        ours.push(steps.iter().map(|step| call(suite.h1(), step, &body)).sum());
        let (took, ()) = timed(|| {
            sh(&format!("truncate -s 100M {folder}/v && mkfs.ext4 -q -m0 {folder}/v"));
            let device = sh(&format!("losetup -f --show --direct-io=on {folder}/v"));
            sh(&format!("mount {device} {target}"));
            sh(&format!("umount {target} && losetup -d {device}"));
            sh(&format!("rm {folder}/v"));
        });
        bare.push(took);
    }
    let (ours, bare) = (Times::from(ours), Times::from(bare));
    table.row(
        "Create + Mount + Unmount + Remove, files",
        "≤ 60 ms p50",
        format!("{ours} ({})", ratio(&ours, &bare)),
        bare.to_string(),
        "truncate, mkfs.ext4, losetup, mount, umount, losetup -d, rm",
    );
}

/// A thousand creates, sixteen at a time, against librbd alone.
pub fn ceph_parallel(suite: &Suite, table: &mut Table) {
    const COUNT: usize = 1_000;
    for (what, format, goal) in [
        ("1,000 creates, 16 at a time, without format", "printf V 1<>%", "≥ 150 per s"),
        ("1,000 creates, 16 at a time, with ext4", "mkfs.ext4 -q -m0 %", "figure"),
    ] {
        policy(suite, "1GB", format);
        let tag = if format.starts_with("mkfs") { "f" } else { "r" };
        let master = suite.master();
        let ours = sixteen(COUNT, |number| {
            let body = json!({ "tenant": "bench", "name": format!("{tag}{number}") });
            master.send("POST", "/v1/volumes", &body).ok();
        });
        let cluster = Cluster::connect(&admin(suite.ceph().conf())).expect("Ceph answers");
        let pool = Arc::new(cluster.pool("rbd").expect("the pool is there"));
        let bare = sixteen(COUNT, |number| {
            pool.create(&format!("librbd-{tag}{number}"), 1 << 30, FEATURES)
                .expect("librbd creates");
        });
        table.row(
            what,
            goal,
            per_second(COUNT, ours),
            per_second(COUNT, bare),
            "rbd_create by librbd alone",
        );
        sixteen(COUNT, |number| {
            remove_image(&pool, &format!("librbd-{tag}{number}")).expect("librbd removes");
        });
        sixteen(COUNT, |number| {
            master.send("DELETE", &format!("/v1/volumes/bench/{tag}{number}"), &Value::Null).ok();
        });
    }
}

fn remove_image(pool: &Pool, name: &str) -> Result<(), CephError> {
    let id = pool.open_image_read_only(name).and_then(|image| image.id())?;
    pool.trash_add(&id, name, Duration::ZERO)?;
    pool.unlink(name, &id)?;
    pool.unlist(&id, name)?;
    pool.trash_remove(&id, TrashForce::IgnoreDeferment)
}

#[expect(clippy::cast_precision_loss, reason = "a count of a thousand")]
fn per_second(count: usize, took: Duration) -> String {
    format!("{:.0} per s ({} in all)", count as f64 / took.as_secs_f64(), ms(took))
}

/// Does something so many times from sixteen threads, and says how long that took.
pub fn sixteen(count: usize, act: impl Fn(usize) + Sync) -> Duration {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let done =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(number)));
                    if done.is_err() {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(number);
                        return;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failed.is_none(), "number {failed:?} failed");
    began.elapsed()
}
