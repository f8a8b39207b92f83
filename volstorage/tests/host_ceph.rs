//! `LinuxHost` on a real Ceph, through servers of ours.
//!
//! One cluster serves the whole binary. Tests that freeze a part of it have it to themselves.

#![expect(clippy::unwrap_used, reason = "what helps a test panics as the test does")]

#[path = "host_support/ceph.rs"]
mod ceph;
mod host_support;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ceph::{CEPH, Frozen};
use host_support::{
    Bed, MIB, Way, break_every_step, down, map, may_grow_ext_online, mount, run, up,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};
use uuid::Uuid;
use volcore::Kind;
use volcore::options::Access;
use volcore::volume::ImageName;
use volstorage::ceph::ConnectOptions;
use volstorage::faults::Fault;
use volstorage::host::{Found, Grown, HostDriver, HostError, Mode, Undone};
use volstorage::image::{Flattened, ImageDriver, ImageError, ImageSource, Progress};
use volstorage::linux::LinuxHost;
use volstorage::rbd::RbdImages;
use volstorage::rbd::connection::{Connection, TIMEOUTS};

fn server(bed: &Bed) -> Pid {
    let servers = host_support::servers_below(bed.config.map_root.to_str().unwrap());
    assert_eq!(servers.len(), 1);
    Pid::from_raw(servers[0])
}

#[tokio::test]
async fn what_is_written_is_there_again() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.cycle").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let (host, target) = (bed.host(), bed.target("rbd/t.cycle"));
    let mapping = up(&host, &source, &target).await;
    assert_eq!(mapping.access, Access::Fuse);
    std::fs::write(target.join("kept"), "something").unwrap();
    assert_eq!(CEPH.watchers("t.cycle"), 1);
    // It serves on without us, in a session of its own, and the next process takes it over.
    assert_eq!(getsid(Some(server(&bed))).unwrap(), server(&bed));
    drop(host);
    let host = bed.host();
    let found = host.inventory().await.unwrap();
    let whole = Found { source: source.clone(), device: Some(mapping.device.clone()) };
    assert_eq!(found.mappings, [whole]);
    assert_eq!(found.mounts, [(mapping.device.clone(), target.clone())]);
    assert_eq!(host.map(&map(&source)).await.unwrap(), mapping);
    down(&host, &source, &target).await;
    bed.assert_clean();
    assert_eq!(CEPH.watchers("t.cycle"), 0);
    let mapping = up(&host, &source, &target).await;
    up(&host, &source, &target).await;
    assert_eq!(host.map(&map(&source)).await.unwrap(), mapping);
    assert_eq!(std::fs::read_to_string(target.join("kept")).unwrap(), "something");
    down(&host, &source, &target).await;
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Absent);
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Absent);
    bed.assert_clean();
}

#[tokio::test]
async fn every_step_may_break() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.broken").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    // On files every fault goes with every way.
    for (fault, thens) in [
        (Fault::Fails, &[Way::Down][..]),
        (Fault::AnswerLost, &[Way::Up]),
        (Fault::Dies, &[Way::Down, Way::Up]),
    ] {
        for &then in thens {
            let steps = break_every_step(&bed, &source, [Way::Up, then], fault).await;
            let wanted = [
                "write the record",
                "make the map's folder",
                "start the server",
                "open the image",
                "attach the loop device",
                "complete the record",
                "make the mount's folder",
                "mount",
            ];
            assert_eq!(steps, wanted);
            let steps = break_every_step(&bed, &source, [Way::Down, then], fault).await;
            let wanted = [
                "unmount",
                "remove the mount's folder",
                "unmount the server",
                "remove the map's folder",
                "remove the record",
            ];
            assert_eq!(steps, wanted);
        }
    }
}

#[tokio::test]
async fn several_hosts_read_one_image() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.shared").await;
    let beds = [Bed::with_ceph(&CEPH.conf), Bed::with_ceph(&CEPH.conf)];
    let target = |bed: &Bed| bed.target("rbd/t.shared");
    for bed in &beds {
        let mut request = map(&source);
        request.mode = Mode::ReadOnly;
        let mapping = bed.host().map(&request).await;
        // The process has ended, and its device with it: nothing was mounted yet.
        assert!(mapping.is_ok());
        let host = bed.host();
        let mapping = host.map(&request).await.unwrap();
        let mut request = mount(&target(bed));
        request.mode = Mode::ReadOnly;
        host.mount(&mapping, &request).await.unwrap();
        std::fs::write(target(bed).join("x"), "x").unwrap_err();
    }
    for bed in &beds {
        down(&bed.host(), &source, &target(bed)).await;
        bed.assert_clean();
    }
}

#[tokio::test]
async fn what_is_missing_is_not_found() {
    let _part = CEPH.whole.read().await;
    let bed = Bed::with_ceph(&CEPH.conf);
    for (pool, image) in [("rbd", "t.missing"), ("nopool", "t.missing")] {
        let source = ImageSource::Rbd { pool: pool.to_owned(), image: image.to_owned() };
        let error = bed.host().map(&map(&source)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
        assert_eq!(error.to_string(), format!("image {pool}/{image} does not exist"));
        bed.assert_clean();
    }
}

#[tokio::test]
async fn accesses_that_this_kernel_lacks_are_refused() {
    let _part = CEPH.whole.read().await;
    let bed = Bed::with_ceph(&CEPH.conf);
    for (access, sign) in [(Access::Kernel, "/sys/bus/rbd"), (Access::Nbd, "/sys/block/nbd0")] {
        if Path::new(sign).exists() {
            continue;
        }
        let source = ImageSource::Rbd { pool: "rbd".to_owned(), image: "any".to_owned() };
        let mut request = map(&source);
        request.access = access;
        let error = bed.host().map(&request).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("this kernel has neither"), "{error}");
        bed.assert_clean();
    }
}

#[tokio::test]
async fn a_server_that_was_killed_leaves_nothing() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.killed").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let (host, target) = (bed.host(), bed.target("rbd/t.killed"));
    // Mapped only.
    host.map(&map(&source)).await.unwrap();
    kill(server(&bed), Signal::SIGKILL).unwrap();
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Done);
    bed.assert_clean();
    // It died with the lock, which is waited for while Ceph takes it for alive, and we may not break it.
    let error = host.map(&map(&source)).await.unwrap_err();
    let HostError::Locked { image, holders } = &error else { panic!("{error:?}") };
    assert_eq!(image, "rbd/t.killed");
    assert!(holders[0].starts_with("client."), "{holders:?}");
    bed.assert_clean();
    CEPH.fence("t.killed");
    // Mapped again over the remains.
    host.map(&map(&source)).await.unwrap();
    kill(server(&bed), Signal::SIGKILL).unwrap();
    CEPH.fence("t.killed");
    let mapping = host.map(&map(&source)).await.unwrap();
    host.mount(&mapping, &mount(&target)).await.unwrap();
    std::fs::write(target.join("kept"), "something").unwrap();
    std::fs::File::open(target.join("kept")).unwrap().sync_all().unwrap();
    std::fs::File::open(&target).unwrap().sync_all().unwrap();
    host.serves(&source).await.unwrap();
    // Mounted, which makes it impossible to map again before it is unmounted.
    let pid = server(&bed);
    kill(pid, Signal::SIGKILL).unwrap();
    gone(&host, &source, pid).await;
    let error = host.map(&map(&source)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error:?}");
    down(&host, &source, &target).await;
    bed.assert_clean();
    // For as long as the dead client seems to live, the lock is waited for.
    does_not_answer(&impatient(&CEPH.conf), &source).await;
    CEPH.fence("t.killed");
    up(&host, &source, &target).await;
    assert_eq!(std::fs::read_to_string(target.join("kept")).unwrap(), "something");
    down(&host, &source, &target).await;
    bed.assert_clean();
}

/// It is said which server is gone, once the kernel has ended it.
async fn gone(host: &LinuxHost, source: &ImageSource, pid: Pid) {
    let begin = Instant::now();
    let error = loop {
        match host.serves(source).await {
            Err(error) => break error,
            Ok(()) => assert!(begin.elapsed() < Duration::from_secs(10), "{pid} still runs"),
        }
    };
    let text = error.to_string();
    let expected = format!("volplugin-serve (pid {pid}) of image rbd/t.killed is gone");
    assert!(text.starts_with(&expected), "{text}");
}

#[tokio::test]
async fn a_server_that_does_not_end_is_ended() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.stuck").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let (host, target) = (bed.host(), bed.target("rbd/t.stuck"));
    up(&host, &source, &target).await;
    host.unmount(&target).await.unwrap();
    kill(server(&bed), Signal::SIGSTOP).unwrap();
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Done);
    bed.assert_clean();
}

#[tokio::test]
async fn a_hung_unmount_is_reported_and_not_mistaken_for_done() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.hung").await;
    let mut bed = Bed::with_ceph(&CEPH.conf);
    bed.config.deadlines.unmount = Duration::from_secs(1);
    let (host, target) = (bed.host(), bed.target("rbd/t.hung"));
    up(&host, &source, &target).await;
    std::fs::write(target.join("kept"), "something").unwrap();
    let server = server(&bed);
    kill(server, Signal::SIGSTOP).unwrap();
    let error = host.unmount(&target).await.unwrap_err();
    assert!(matches!(error, HostError::Deadline { seconds: 1, .. }), "{error:?}");
    // The kernel shows the mount no longer, and still writes to the device.
    host.unmount(&target).await.unwrap();
    let error = host.unmap(&source).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error:?}");
    kill(server, Signal::SIGCONT).unwrap();
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Done);
    bed.assert_clean();
    up(&host, &source, &target).await;
    assert_eq!(std::fs::read_to_string(target.join("kept")).unwrap(), "something");
    down(&host, &source, &target).await;
    bed.assert_clean();
}

#[tokio::test]
async fn a_mount_without_record_is_found_and_taken_away() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.lost").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    bed.host().map(&map(&source)).await.unwrap();
    std::fs::remove_dir_all(bed.config.map_root.join(".records")).unwrap();
    let host = bed.host();
    let half = Found { source: source.clone(), device: None };
    assert_eq!(host.inventory().await.unwrap().mappings, [half]);
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Done);
    bed.assert_clean();
}

/// A bed whose deadline for a map is short enough for a test.
fn impatient(conf: &Path) -> Bed {
    let mut bed = Bed::with_ceph(conf);
    bed.config.deadlines.map = Duration::from_secs(3);
    bed
}

async fn does_not_answer(bed: &Bed, source: &ImageSource) {
    let begun = Instant::now();
    let error = bed.host().map(&map(source)).await.unwrap_err();
    assert!(matches!(error, HostError::Deadline { seconds: 3, .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    bed.assert_clean();
}

#[tokio::test]
async fn a_cluster_that_is_not_there_ends_inside_the_deadline() {
    let _part = CEPH.whole.read().await;
    let conf = std::fs::read_to_string(&CEPH.conf).unwrap();
    let lines = conf.lines().map(|line| match line.starts_with("mon host") {
        true => "mon host = [v1:127.0.0.1:1]",
        false => line,
    });
    let wrong = lines.collect::<Vec<_>>().join("\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ceph.conf");
    std::fs::write(&file, wrong + "\n").unwrap();
    let source = ImageSource::Rbd { pool: "rbd".to_owned(), image: "any".to_owned() };
    does_not_answer(&impatient(&file), &source).await;
}

#[tokio::test]
async fn a_frozen_monitor_or_osd_ends_inside_the_deadline() {
    let source = {
        let _part = CEPH.whole.read().await;
        CEPH.image("t.frozen").await
    };
    let _whole = CEPH.whole.write().await;
    let bed = impatient(&CEPH.conf);
    for daemon in ["mon", "osd"] {
        let frozen = Frozen::new(daemon);
        does_not_answer(&bed, &source).await;
        drop(frozen);
    }
    let target = bed.target("rbd/t.frozen");
    up(&bed.host(), &source, &target).await;
    down(&bed.host(), &source, &target).await;
    bed.assert_clean();
}

/// The ways to reach an image that this machine has, and in which it can grow: the kernel's rbd with `exclusive` lets
/// nobody change an image's size.
fn growing() -> Vec<Access> {
    let nbd = Path::new("/sys/block/nbd0").exists().then_some(Access::Nbd);
    nbd.into_iter().chain([Access::Fuse]).collect()
}

const FILESYSTEMS: [(&str, &str, &[&str]); 3] = [
    ("ext4", "64M", &["mkfs.ext4", "-q", "-m0"]),
    ("xfs", "320M", &["mkfs.xfs", "-q"]),
    ("btrfs", "256M", &["mkfs.btrfs", "-q", "-f"]),
];

#[tokio::test]
async fn what_is_mounted_grows_with_its_image() {
    let _part = CEPH.whole.read().await;
    for (filesystem, size, mkfs) in FILESYSTEMS {
        if filesystem == "ext4" && !may_grow_ext_online() {
            continue;
        }
        for access in growing() {
            let name = format!("t.grows-{filesystem}-{access}");
            let source = CEPH.formatted(&name, size, mkfs).await;
            let mut bed = Bed::with_ceph(&CEPH.conf);
            bed.config.deadlines.release = Duration::from_secs(20);
            let (host, target) = (bed.host(), bed.target(&format!("rbd/{name}")));
            let mut request = map(&source);
            request.access = access;
            let mapping = host.map(&request).await.unwrap();
            host.mount(&mapping, &mount(&target)).await.unwrap();
            let before = host.space(&target).await.unwrap().size;
            for size in [512 * MIB, 768 * MIB] {
                // It is asked for before the image has it, and waited for.
                let (grown, ()) = tokio::join!(host.grow(&mapping, &target, size), async {
                    let megabytes = format!("{}M", size / MIB);
                    let name = name.clone();
                    let resize = move || {
                        drop(CEPH.rbd(&["resize", "--no-progress", "-s", &megabytes, &name]))
                    };
                    tokio::task::spawn_blocking(resize).await.unwrap();
                });
                assert_eq!(grown.unwrap(), Grown::Larger(size), "{filesystem} {access}");
                let now = host.space(&target).await.unwrap().size;
                assert!(now > before && now > size * 8 / 10, "{filesystem} {access}: {now}");
                let again = host.grow(&mapping, &target, size).await.unwrap();
                assert_eq!(again, Grown::AsItWas(size));
            }
            // What is beyond the former end is the image's, too.
            let content = (0..=255_u8).collect::<Vec<_>>().repeat(300 * 4096);
            std::fs::write(target.join("large"), &content).unwrap();
            std::fs::File::open(target.join("large")).unwrap().sync_all().unwrap();
            down(&host, &source, &target).await;
            let info: serde_json::Value =
                serde_json::from_str(&CEPH.rbd(&["info", "--format", "json", &name])).unwrap();
            assert_eq!(info["size"], 768 * MIB, "{filesystem} {access}");
            up(&host, &source, &target).await;
            assert!(std::fs::read(target.join("large")).unwrap() == content);
            down(&host, &source, &target).await;
            bed.assert_clean();
            CEPH.rbd(&["rm", "--no-progress", &name]);
        }
    }
}

/// Cloned under a writer, asked to be larger, and mounted beside its source.
#[tokio::test]
async fn a_clone_is_mounted_beside_its_source() {
    let _part = CEPH.whole.read().await;
    for (filesystem, size, mkfs) in FILESYSTEMS {
        let names = ["origin", "clone"].map(|what| format!("t.{what}-{filesystem}"));
        let source = CEPH.formatted(&names[0], size, mkfs).await;
        let bed = Bed::with_ceph(&CEPH.conf);
        let (host, targets) = (bed.host(), names.each_ref().map(|name| bed.target(name)));
        up(&host, &source, &targets[0]).await;
        std::fs::write(targets[0].join("kept"), "something").unwrap();
        std::fs::File::open(targets[0].join("kept")).unwrap().sync_all().unwrap();
        std::fs::File::open(&targets[0]).unwrap().sync_all().unwrap();
        let snapshot = format!("{}@now", names[0]);
        CEPH.rbd(&["snap", "create", "--no-progress", &snapshot]);
        CEPH.rbd(&["clone", "--rbd-default-clone-format", "2", &snapshot, &names[1]]);
        CEPH.rbd(&["resize", "--no-progress", "-s", "512M", &names[1]]);
        let clone = ImageSource::Rbd { pool: "rbd".to_owned(), image: names[1].clone() };
        let mapping = host.map(&map(&clone)).await.unwrap();
        let mut request = mount(&targets[1]);
        let uid = Uuid::new_v4();
        request.identity = Some(uid);
        let mounted = host.mount(&mapping, &request).await.unwrap();
        assert!(mounted.flaw.is_none(), "{filesystem}: {:?}", mounted.flaw);
        assert_eq!(mounted.fills, Some(512 * MIB));
        let shown = ["-p", "-s", "UUID", "-o", "value", mapping.device.to_str().unwrap()];
        assert_eq!(run("blkid", &shown).trim(), uid.to_string());
        assert_eq!(std::fs::read_to_string(targets[1].join("kept")).unwrap(), "something");
        assert!(host.space(&targets[1]).await.unwrap().size > 400 * MIB, "{filesystem}");
        down(&host, &source, &targets[0]).await;
        down(&host, &clone, &targets[1]).await;
        bed.assert_clean();
    }
}

/// What a client leaves that dies when it has said in the object map that it writes an object, and has not written it:
/// librbd's own flattening takes the object for copied.
#[tokio::test]
async fn a_clone_is_flattened_after_somebody_died_while_it_wrote() {
    let _part = CEPH.whole.read().await;
    let folder = tempfile::tempdir().unwrap();
    let [original, flat] = ["original", "flat"].map(|name| folder.path().join(name));
    let content: Vec<u8> = (0..=250_u8).collect::<Vec<_>>().repeat(64 << 10);
    std::fs::write(&original, &content).unwrap();
    let images = images(folder.path());
    for snapshots in [0, 1] {
        CEPH.rbd(&["import", "--no-progress", original.to_str().unwrap(), "t.original"]);
        CEPH.rbd(&["snap", "create", "--no-progress", "t.original@now"]);
        let clone = ["clone", "--rbd-default-clone-format", "2", "t.original@now", "t.torn"];
        CEPH.rbd(&clone);
        for _ in 0..snapshots {
            CEPH.rbd(&["snap", "create", "--no-progress", "t.torn@before"]);
        }
        let info: serde_json::Value =
            serde_json::from_str(&CEPH.rbd(&["info", "--format", "json", "t.torn"])).unwrap();
        let conf = CEPH.conf.to_str().unwrap();
        let rados = |args: &[&str]| run("rados", &[&["-c", conf, "-p", "rbd"], args].concat());
        // The map of the snapshot as it was before: it is told last.
        let map_of_it = format!("rbd_object_map.{}.", info["id"].as_str().unwrap());
        let listed = rados(&["ls"]);
        let maps: Vec<&str> = listed.lines().filter(|line| line.starts_with(&map_of_it)).collect();
        assert_eq!(maps.len(), snapshots);
        let kept = folder.path().join("map");
        for map in &maps {
            rados(&["get", map, kept.to_str().unwrap()]);
        }
        let write = ["bench", "--io-type", "write", "--io-size", "4K", "--io-total", "4K"];
        CEPH.rbd(&[&write[..], &["--io-pattern", "seq", "t.torn"]].concat());
        for map in &maps {
            rados(&["put", map, kept.to_str().unwrap()]);
        }
        let object = format!("{}.{:016x}", info["block_name_prefix"].as_str().unwrap(), 0);
        rados(&["rm", &object]);
        let progress = Progress::default();
        let image = ImageName { pool: "rbd".parse().unwrap(), name: "t.torn".to_owned() };
        assert_eq!(images.flatten(&image, &progress).await.unwrap(), Flattened::Flattened);
        let mut names = vec!["t.torn"];
        names.extend((snapshots > 0).then_some("t.torn@before"));
        for name in names {
            std::fs::remove_file(&flat).unwrap_or_default();
            CEPH.rbd(&["export", "--no-progress", name, flat.to_str().unwrap()]);
            assert!(std::fs::read(&flat).unwrap() == content, "{name} with {snapshots} snapshots");
        }
        for name in ["t.torn", "t.original"] {
            CEPH.rbd(&["snap", "purge", "--no-progress", name]);
            CEPH.rbd(&["rm", "--no-progress", name]);
        }
    }
}

fn images(scratch: &Path) -> RbdImages {
    let options = ConnectOptions {
        key: None,
        conf: CEPH.conf.clone(),
        user: "admin".to_owned(),
        timeouts: TIMEOUTS,
    };
    RbdImages::new(Connection::new(options), scratch).unwrap()
}

/// A clone gets all of its data itself while containers write on it; then what it was cloned from can go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_is_flattened_while_it_is_written_to() {
    let _part = CEPH.whole.read().await;
    let names = ["source", "flat"].map(|what| format!("t.{what}"));
    let source = CEPH.formatted(&names[0], "128M", &["mkfs.ext4", "-q", "-m0"]).await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let (host, targets) = (bed.host(), names.each_ref().map(|name| bed.target(name)));
    let content = (0..=250_u8).collect::<Vec<_>>().repeat(200 << 10);
    up(&host, &source, &targets[0]).await;
    std::fs::write(targets[0].join("kept"), &content).unwrap();
    down(&host, &source, &targets[0]).await;
    let snapshot = format!("{}@now", names[0]);
    CEPH.rbd(&["snap", "create", "--no-progress", &snapshot]);
    CEPH.rbd(&["clone", "--rbd-default-clone-format", "2", &snapshot, &names[1]]);
    let info = |name: &str| -> serde_json::Value {
        serde_json::from_str(&CEPH.rbd(&["info", "--format", "json", name])).unwrap()
    };
    assert_eq!(info(&names[1])["parent"]["image"], names[0].as_str());

    let clone = ImageSource::Rbd { pool: "rbd".to_owned(), image: names[1].clone() };
    up(&host, &clone, &targets[1]).await;
    let written = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (written, done, file) = (written.clone(), done.clone(), targets[1].join("new"));
        std::thread::spawn(move || {
            let mut file = std::fs::File::create(file).unwrap();
            while !done.load(Ordering::SeqCst) {
                file.write_all(b"written while it was flattened\n").unwrap();
                file.sync_all().unwrap();
                written.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    let scratch = tempfile::tempdir().unwrap();
    let images = images(scratch.path());
    let image = ImageName { pool: "rbd".parse().unwrap(), name: names[1].clone() };
    let progress = Progress::default();
    let (flat, at_once) =
        tokio::join!(images.flatten(&image, &progress), images.flatten(&image, &progress));
    // Of two at once one does it, and the other is told so, or that it is done.
    let count =
        [&flat, &at_once].into_iter().filter(|done| matches!(done, Ok(Flattened::Flattened)));
    assert_eq!(count.count(), 1, "{flat:?}, {at_once:?}");
    for one in [flat, at_once] {
        assert!(matches!(one, Ok(_) | Err(ImageError::InUse { .. })), "{one:?}");
    }
    let (copied, total) = progress.get();
    assert!(total > 0 && copied == total, "{copied} of {total}");
    let so_far = written.load(Ordering::SeqCst);
    assert!(so_far > 0, "nobody wrote meanwhile");
    done.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    assert!(info(&names[1]).get("parent").is_none(), "{}", info(&names[1]));
    assert_eq!(images.flatten(&image, &progress).await.unwrap(), Flattened::AlreadyFlat);

    CEPH.rbd(&["snap", "purge", "--no-progress", &names[0]]);
    CEPH.rbd(&["rm", "--no-progress", &names[0]]);
    down(&host, &clone, &targets[1]).await;
    up(&host, &clone, &targets[1]).await;
    assert!(std::fs::read(targets[1].join("kept")).unwrap() == content, "what it was cloned with");
    let new = std::fs::read_to_string(targets[1].join("new")).unwrap();
    assert_eq!(new.lines().count(), written.load(Ordering::SeqCst));
    down(&host, &clone, &targets[1]).await;
    bed.assert_clean();
    CEPH.rbd(&["rm", "--no-progress", &names[1]]);
}
