//! Snapshots past the holder of the lock, against a real Ceph cluster. The holder is librbd here, which keeps an object
//! map in its memory and follows the header as the kernel does.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use more of it")]
mod ceph_support;

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ceph_support::{CEPH, FEATURES, MIB, command, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use volstorage::ceph::{Image, Obstacle, PastLock, Snapshot, SnapshotKind, Timeouts};

/// Bytes of one object.
const OBJECT: u64 = 4 * MIB;

fn tool(program: &str, args: &[&str]) -> String {
    let output = command(Path::new(program)).arg("-c").arg(&CEPH.conf).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn rbd(args: &[&str]) -> String {
    tool("rbd", args)
}

fn object_maps(open: &Image) -> Vec<String> {
    let prefix = format!("rbd_object_map.{}", open.id().unwrap());
    let mut found: Vec<String> = tool("rados", &["-p", "rbd", "ls"])
        .lines()
        .filter(|name| name.starts_with(&prefix))
        .map(str::to_owned)
        .collect();
    found.sort();
    found
}

/// An image of 32 MiB, and two clients that have it open: one holds the lock, having written the object 0.
fn held(name: &str) -> (Image, Image) {
    CEPH.pool().create(name, 8 * OBJECT, FEATURES).unwrap();
    let holder = CEPH.connect(Timeouts::default());
    let holder = holder.pool("rbd").unwrap().open_image(name).unwrap();
    holder.write_at(0, b"before").unwrap();
    holder.flush().unwrap();
    assert!(holder.is_lock_owner().unwrap());
    (holder, CEPH.pool().open_image(name).unwrap())
}

fn snapshot(open: &Image, name: &str) -> Option<Snapshot> {
    open.snapshots().unwrap().into_iter().find(|there| there.name == name)
}

fn names(open: &Image) -> Vec<String> {
    open.snapshots().unwrap().into_iter().map(|it| it.name).collect()
}

fn read(image: &str, snapshot: &str, object: u64) -> Vec<u8> {
    let open = CEPH.pool().open_snapshot(image, snapshot).unwrap();
    let mut found = vec![0; 6];
    open.read_at(object * OBJECT, &mut found).unwrap();
    found
}

/// All object maps are what the objects are, and valid.
fn check_maps(image: &str, snapshots: &[&str]) {
    for at in [None].into_iter().chain(snapshots.iter().copied().map(Some)) {
        let spec = at.map_or(format!("rbd/{image}"), |at| format!("rbd/{image}@{at}"));
        let checked = rbd(&["object-map", "check", &spec]);
        assert!(!checked.contains("error"), "{spec}: {checked}");
        let info = rbd(&["info", &spec]);
        assert!(!info.contains("invalid"), "{info}");
    }
}

fn used(image: &str, at: &str, since: Option<&str>) -> u64 {
    CEPH.pool().open_snapshot(image, at).unwrap().usage_since(since).unwrap().used
}

#[test]
fn what_was_written_before_is_in_it_and_nothing_else() {
    let (holder, other) = held("t.past");
    assert_eq!(other.create_snapshot_past_lock("one").unwrap(), PastLock::Done);
    assert!(holder.is_lock_owner().unwrap(), "it was not asked for the lock");
    assert_eq!(other.create_snapshot_past_lock("one").unwrap(), PastLock::Moot);
    holder.write_at(0, b"after!").unwrap();
    holder.write_at(OBJECT, b"second").unwrap();
    holder.flush().unwrap();
    assert_eq!(other.create_snapshot_past_lock("two").unwrap(), PastLock::Done);
    holder.discard(0, 2 * OBJECT).unwrap();
    holder.write_at(2 * OBJECT, b"third!").unwrap();
    holder.flush().unwrap();
    assert_eq!(names(&other), ["one", "two"]);
    assert_eq!(read("t.past", "one", 0), b"before");
    assert_eq!(read("t.past", "one", 1), [0; 6]);
    assert_eq!(read("t.past", "two", 0), b"after!");
    assert_eq!(read("t.past", "two", 1), b"second");
    assert_eq!((used("t.past", "one", None), used("t.past", "two", None)), (OBJECT, 2 * OBJECT));
    assert!(used("t.past", "two", Some("one")) >= OBJECT, "what has changed counts as changed");
    drop(holder);
    check_maps("t.past", &["one", "two"]);

    // As librbd leaves it, and as the kernel finds it: objects that were not written since the last snapshot.
    other.create_snapshot("three").unwrap();
    let holder = CEPH.connect(Timeouts::default());
    let holder = holder.pool("rbd").unwrap().open_image("t.past").unwrap();
    holder.write_at(3 * OBJECT, b"fourth").unwrap();
    holder.flush().unwrap();
    for name in ["one", "three", "two"] {
        let there = snapshot(&other, name).unwrap();
        assert_eq!(other.remove_snapshot_past_lock(&there).unwrap(), PastLock::Done, "{name}");
        assert_eq!(other.remove_snapshot_past_lock(&there).unwrap(), PastLock::Moot, "{name}");
    }
    assert!(holder.is_lock_owner().unwrap());
    assert_eq!(names(&other), [""; 0]);
    assert_eq!(object_maps(&other).len(), 1, "only the image's own is left");
    // Nothing counts as unchanged since a snapshot that is gone.
    assert_eq!(holder.usage_since(None).unwrap().used, 2 * OBJECT);
    drop((holder, other));
    check_maps("t.past", &[]);
    rbd(&["rm", "rbd/t.past"]);
}

#[test]
fn a_clone_keeps_what_was_removed() {
    let (holder, other) = held("t.cloned");
    other.create_snapshot_past_lock("one").unwrap();
    let pool = CEPH.pool();
    pool.clone_image("t.cloned", "one", &pool, "t.clone", FEATURES).unwrap();
    let there = snapshot(&other, "one").unwrap();
    assert!(other.is_cloned(&there).unwrap());
    assert_eq!(other.remove_snapshot_past_lock(&there).unwrap(), PastLock::Done);
    holder.write_at(0, b"after!").unwrap();
    holder.flush().unwrap();
    let left = other.snapshots().unwrap();
    assert_eq!(left.iter().map(|it| it.kind).collect::<Vec<_>>(), [SnapshotKind::Trash]);
    let clone = pool.open_image("t.clone").unwrap();
    let mut found = [0; 6];
    clone.read_at(0, &mut found).unwrap();
    assert_eq!(&found, b"before");
    drop(clone);
    // librbd goes on with it: the last clone takes it along.
    drop(holder);
    rbd(&["rm", "rbd/t.clone"]);
    assert_eq!(names(&other), [""; 0]);
    drop(other);
    check_maps("t.cloned", &[]);
    rbd(&["rm", "rbd/t.cloned"]);
}

/// The map is written last: whoever dies before leaves a snapshot without one.
#[test]
fn what_a_dead_one_has_left_goes_without_harm() {
    for past_lock in [true, false] {
        let (holder, other) = held("t.left");
        other.create_snapshot_past_lock("half").unwrap();
        let half = snapshot(&other, "half").unwrap();
        let map = format!("rbd_object_map.{}.{:016x}", other.id().unwrap(), half.id);
        assert!(object_maps(&other).contains(&map));
        tool("rados", &["-p", "rbd", "rm", &map]);
        holder.write_at(OBJECT, b"second").unwrap();
        holder.flush().unwrap();
        if past_lock {
            assert_eq!(other.remove_snapshot_past_lock(&half).unwrap(), PastLock::Done);
        } else {
            other.remove_snapshot_by_id(&half).unwrap();
        }
        assert_eq!(names(&other), [""; 0]);
        drop((holder, other));
        check_maps("t.left", &[]);
        rbd(&["rm", "rbd/t.left"]);
    }
}

#[test]
fn what_is_written_to_gets_none() {
    let (holder, other) = held("t.busy");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // The object comes and goes.
            while !is_over.load(Ordering::Acquire) {
                holder.write_at(7 * OBJECT, b"x").unwrap();
                holder.flush().unwrap();
                holder.discard(7 * OBJECT, OBJECT).unwrap();
            }
        });
        // By chance it may look the same twice.
        wait_for("a snapshot to be refused", || {
            match other.create_snapshot_past_lock("one").unwrap() {
                PastLock::Refused(Obstacle::Written) => Ok(()),
                other_end => {
                    if let Some(there) = snapshot(&other, "one") {
                        other.remove_snapshot_past_lock(&there).unwrap();
                    }
                    Err(format!("{other_end:?}"))
                }
            }
        });
        is_over.store(true, Ordering::Release);
    });
    assert_eq!(names(&other), [""; 0]);
    assert_eq!(object_maps(&other).len(), 1);
    assert_eq!(other.create_snapshot_past_lock("one").unwrap(), PastLock::Done);
    // What was not written since counts as written.
    holder.write_at(0, b"after!").unwrap();
    holder.flush().unwrap();
    drop((holder, other));
    check_maps("t.busy", &["one"]);
    rbd(&["snap", "rm", "rbd/t.busy@one"]);
    rbd(&["rm", "rbd/t.busy"]);
}

/// A holder that has not heard of a snapshot writes into it.
#[test]
fn a_holder_that_stands_still_gets_none() {
    let pool = CEPH.pool();
    pool.create("t.still", 8 * OBJECT, FEATURES).unwrap();
    let mut bench = command(Path::new("rbd"));
    let bench = bench.arg("-c").arg(&CEPH.conf).args(["bench", "--io-type", "write"]);
    let bench = bench.args(["--io-total", "1T", "--io-threads", "1", "rbd/t.still"]);
    let mut child = bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let other = pool.open_image("t.still").unwrap();
    wait_for("the holder to have the lock", || match other.lock_owners() {
        Ok(owners) if owners.len() == 1 => Ok(()),
        owners => Err(format!("{owners:?}")),
    });
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGSTOP).unwrap();
    let taken = other.create_snapshot_past_lock("one").unwrap();
    assert_eq!(taken, PastLock::Refused(Obstacle::Unheard));
    assert_eq!(names(&other), [""; 0]);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(other);
    wait_for("its watch to end", || {
        let status = rbd(&["status", "rbd/t.still"]);
        if status.contains("none") { Ok(()) } else { Err(status) }
    });
    rbd(&["rm", "rbd/t.still"]);
}

#[test]
fn without_a_holder_librbd_is_the_one_to_ask() {
    CEPH.pool().create("t.free", 8 * OBJECT, FEATURES).unwrap();
    let open = CEPH.pool().open_image("t.free").unwrap();
    let taken = open.create_snapshot_past_lock("one").unwrap();
    assert_eq!(taken, PastLock::Refused(Obstacle::Unheld));
    drop(open);
    rbd(&["feature", "enable", "rbd/t.free", "journaling"]);
    let open = CEPH.pool().open_image("t.free").unwrap();
    let taken = open.create_snapshot_past_lock("one").unwrap();
    assert_eq!(taken, PastLock::Refused(Obstacle::Features));
    assert_eq!(names(&open), [""; 0]);
    drop(open);
    rbd(&["rm", "rbd/t.free"]);
}
