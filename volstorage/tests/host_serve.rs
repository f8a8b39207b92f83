//! The servers of images: one writes alone, everybody knows who before it does, and it stops when it is fenced off.

#![expect(clippy::unwrap_used, reason = "what helps a test panics as the test does")]

#[path = "host_support/ceph.rs"]
mod ceph;
mod host_support;

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ceph::{CEPH, Frozen};
use host_support::{Bed, MIB, down, map, mount, run, servers_below, up, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use volcore::Kind;
use volstorage::faults::{Fault, Faults};
use volstorage::host::{Found, HostDriver, HostError, MapRequest, Mode, Undone};
use volstorage::image::ImageSource;
use volstorage::linux::LinuxHost;

fn servers(bed: &Bed) -> Vec<i32> {
    servers_below(bed.config.map_root.to_str().unwrap())
}

/// The addresses of those who have locked an image.
fn owners(name: &str) -> Vec<String> {
    let locks = CEPH.rbd(&["lock", "ls", "--format", "json", name]);
    let locks: serde_json::Value = serde_json::from_str(&locks).unwrap();
    let address = |lock: &serde_json::Value| lock["address"].as_str().unwrap().to_owned();
    locks.as_array().unwrap().iter().map(address).collect()
}

fn ceph(args: &[&str]) {
    run("ceph", &[&["-c", CEPH.conf.to_str().unwrap()], args].concat());
}

/// The file that a server shows.
fn shown(bed: &Bed, name: &str) -> PathBuf {
    bed.config.map_root.join("rbd").join(name).join(name)
}

#[tokio::test]
async fn one_host_writes_alone() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.alone").await;
    let beds = [Bed::with_ceph(&CEPH.conf), Bed::with_ceph(&CEPH.conf)];
    let target = |bed: &Bed| bed.target("rbd/t.alone");
    let [one, other] = beds.each_ref().map(Bed::host);
    let mapping = up(&one, &source, &target(&beds[0])).await;
    let begin = Instant::now();
    let error = other.map(&map(&source)).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let HostError::Busy { what, holders } = &error else { panic!("{error:?}") };
    assert_eq!((what.as_str(), holders), ("image rbd/t.alone", &mapping.clients));
    beds[1].assert_clean();
    // Who only reads is let in, as others may be who read.
    let read_only = MapRequest { mode: Mode::ReadOnly, ..map(&source) };
    assert_eq!(other.ready(&read_only).await.unwrap().len(), 1);
    other.map(&read_only).await.unwrap();
    assert_eq!(other.unmap(&source).await.unwrap(), Undone::Done);
    std::fs::write(target(&beds[0]).join("kept"), "something").unwrap();
    down(&one, &source, &target(&beds[0])).await;
    up(&other, &source, &target(&beds[1])).await;
    assert_eq!(std::fs::read_to_string(target(&beds[1]).join("kept")).unwrap(), "something");
    down(&other, &source, &target(&beds[1])).await;
    beds.iter().for_each(Bed::assert_clean);
}

#[tokio::test]
async fn who_will_write_is_known_before() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.known").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let host = bed.host();
    let clients = host.ready(&map(&source)).await.unwrap();
    assert_eq!(clients.len(), 1);
    assert_eq!(host.ready(&map(&source)).await.unwrap(), clients);
    // Nothing is opened yet.
    assert_eq!((CEPH.watchers("t.known"), owners("t.known")), (0, vec![]));
    let half = Found { source: source.clone(), device: None };
    assert_eq!(host.inventory().await.unwrap().mappings, [half]);
    assert_eq!(servers(&bed).len(), 1);
    let mapping = host.map(&map(&source)).await.unwrap();
    assert_eq!((&mapping.clients, &owners("t.known")), (&clients, &clients));
    assert_eq!(host.ready(&map(&source)).await.unwrap(), clients);
    // So it is after a restart, too.
    host.mount(&mapping, &mount(&bed.target("rbd/t.known"))).await.unwrap();
    drop(host);
    let host = bed.host();
    assert_eq!(host.ready(&map(&source)).await.unwrap(), clients);
    assert_eq!(host.map(&map(&source)).await.unwrap(), mapping);
    down(&host, &source, &bed.target("rbd/t.known")).await;
    bed.assert_clean();
    assert_eq!(owners("t.known"), [""; 0]);
}

#[tokio::test]
async fn what_is_only_ready_is_undone() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.undone").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let host = bed.host();
    host.ready(&map(&source)).await.unwrap();
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Done);
    bed.assert_clean();
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Absent);
    // Another mode is another server.
    let clients = host.ready(&map(&source)).await.unwrap();
    let read_only = MapRequest { mode: Mode::ReadOnly, ..map(&source) };
    assert_ne!(host.ready(&read_only).await.unwrap(), clients);
    assert_eq!(servers(&bed).len(), 1);
    host.unmap(&source).await.unwrap();
    bed.assert_clean();
    // One that dies before it has said who will write takes its server along.
    host.ready(&map(&source)).await.unwrap();
    drop(host);
    wait_for("the end of a server that nobody speaks to", || servers(&bed).is_empty());
    let host = bed.host();
    host.map(&map(&source)).await.unwrap();
    host.unmap(&source).await.unwrap();
    bed.assert_clean();
    // One that was killed is made anew.
    host.ready(&map(&source)).await.unwrap();
    kill(Pid::from_raw(servers(&bed)[0]), Signal::SIGKILL).unwrap();
    wait_for("its end", || servers(&bed).is_empty());
    let clients = host.ready(&map(&source)).await.unwrap();
    let mapping = host.map(&map(&source)).await.unwrap();
    assert_eq!(mapping.clients, clients);
    host.unmap(&source).await.unwrap();
    bed.assert_clean();
}

/// Whoever dies while something is made ready, or fails, leaves what the next one finds.
#[tokio::test]
async fn making_ready_may_break_at_every_step() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.step").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    for fault in [Fault::Fails, Fault::AnswerLost, Fault::Dies] {
        for then_up in [false, true] {
            for n in 1.. {
                let faults = Faults::counting();
                let host = bed.breaking(&faults);
                faults.break_nth(n, fault);
                let ready = host.ready(&map(&source)).await;
                let (over, steps) = (faults.is_ahead(), faults.effects());
                if ready.is_err() && fault != Fault::Dies {
                    bed.assert_clean();
                }
                drop(host);
                let host = bed.host();
                let seen = host.inventory().await.unwrap();
                assert!(!seen.mappings.is_empty() || servers(&bed).is_empty(), "{fault:?} {n}");
                if then_up {
                    let clients = host.ready(&map(&source)).await.unwrap();
                    assert_eq!(host.map(&map(&source)).await.unwrap().clients, clients);
                }
                host.unmap(&source).await.unwrap();
                bed.assert_clean();
                if over {
                    let wanted = ["write the record", "make the map's folder", "start the server"];
                    assert_eq!(steps, wanted);
                    break;
                }
            }
        }
    }
}

async fn is_fenced(host: &LinuxHost, source: &ImageSource) {
    let begin = Instant::now();
    let error = loop {
        match host.serves(source).await {
            Err(error) => break error,
            Ok(()) => assert!(begin.elapsed() < Duration::from_secs(10), "it does not notice"),
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(error, HostError::Fenced { .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::Busy);
}

/// Where nobody answers, that is said in time, and nothing is left.
#[tokio::test]
async fn making_ready_ends_inside_its_deadline() {
    let conf = {
        let _part = CEPH.whole.read().await;
        std::fs::read_to_string(&CEPH.conf).unwrap()
    };
    let lines = conf.lines().map(|line| match line.starts_with("mon host") {
        true => "mon host = [v1:127.0.0.1:1]",
        false => line,
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ceph.conf");
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let mut bed = Bed::with_ceph(&file);
    bed.config.deadlines.ready = Duration::from_secs(2);
    let source = ImageSource::Rbd { pool: "rbd".to_owned(), image: "t.any".to_owned() };
    let begin = Instant::now();
    let error = bed.host().ready(&map(&source)).await.unwrap_err();
    assert!(matches!(error, HostError::Deadline { seconds: 2, .. }), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    bed.assert_clean();
}

/// Reads past all caches.
fn read_device(device: &Path) -> std::io::Result<usize> {
    let mut memory = vec![0u8; 8192];
    let aligned = memory.as_ptr().align_offset(4096);
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(device)?;
    opened.read_at(&mut memory[aligned..aligned + 4096], 0)
}

#[tokio::test]
async fn an_idle_server_notices_that_it_was_fenced_off() {
    let _part = CEPH.whole.read().await;
    for mode in [Mode::ReadWrite, Mode::ReadOnly] {
        let source = CEPH.image("t.fenced").await;
        let bed = Bed::with_ceph(&CEPH.conf);
        let (host, target) = (bed.host(), bed.target("rbd/t.fenced"));
        let mapping = host.map(&MapRequest { mode, ..map(&source) }).await.unwrap();
        let mut request = mount(&target);
        request.mode = mode;
        host.mount(&mapping, &request).await.unwrap();
        host.serves(&source).await.unwrap();
        assert_eq!(read_device(&mapping.device).unwrap(), 4096);
        ceph(&["osd", "blocklist", "add", &mapping.clients[0]]);
        is_fenced(&host, &source).await;
        let error = read_device(&mapping.device).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert_eq!(host.abandon(&source, &target).await.unwrap(), Undone::Done);
        assert_eq!(host.abandon(&source, &target).await.unwrap(), Undone::Absent);
        // Also of one that has been ended it is known why.
        is_fenced(&host, &source).await;
        host.unmount(&target).await.unwrap();
        assert_eq!(host.unmap(&source).await.unwrap(), Undone::Done);
        bed.assert_clean();
        host.serves(&source).await.unwrap();
        // Whoever comes next has it, with another client.
        CEPH.fence("t.fenced");
        up(&host, &source, &target).await;
        down(&host, &source, &target).await;
        bed.assert_clean();
        CEPH.rbd(&["rm", "--no-progress", "t.fenced"]);
    }
}

#[tokio::test]
async fn a_lock_that_was_broken_is_missed() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.broken").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let (host, target) = (bed.host(), bed.target("rbd/t.broken"));
    up(&host, &source, &target).await;
    let locks = CEPH.rbd(&["lock", "ls", "--format", "json", "t.broken"]);
    let locks: serde_json::Value = serde_json::from_str(&locks).unwrap();
    let [id, locker] = ["id", "locker"].map(|field| locks[0][field].as_str().unwrap());
    // By somebody who fences nobody.
    let without = "--rbd-blocklist-on-break-lock=false";
    CEPH.rbd(&["lock", "rm", without, "t.broken", id, locker]);
    is_fenced(&host, &source).await;
    host.abandon(&source, &target).await.unwrap();
    host.unmount(&target).await.unwrap();
    host.unmap(&source).await.unwrap();
    bed.assert_clean();
}

/// Containers that have the file system mounted keep it, and its device; they get errors, and nothing waits for them.
#[tokio::test]
async fn what_is_in_use_is_given_up_all_the_same() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.used").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let (host, target) = (bed.host(), bed.target("rbd/t.used"));
    let mapping = up(&host, &source, &target).await;
    let mut file = File::create(target.join("file")).unwrap();
    file.write_all(b"before").unwrap();
    file.sync_all().unwrap();
    // Not written out yet, and never will be.
    std::fs::write(target.join("late"), "after").unwrap();
    assert_eq!(host.abandon(&source, &target).await.unwrap(), Undone::Done);
    assert!(servers(&bed).is_empty());
    file.write_all(b"after").and_then(|()| file.sync_all()).unwrap_err();
    assert_eq!(host.abandon(&source, &target).await.unwrap(), Undone::Absent);
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    // The record stays, with the device.
    let found = Found { source: source.clone(), device: Some(mapping.device.clone()) };
    assert_eq!(host.inventory().await.unwrap().mappings, [found]);
    let error = host.unmap(&source).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error:?}");
    drop(file);
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Done);
    bed.assert_clean();
    CEPH.fence("t.used");
    up(&host, &source, &target).await;
    assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "before");
    assert!(!target.join("late").exists());
    down(&host, &source, &target).await;
    bed.assert_clean();
}

#[tokio::test]
async fn giving_up_may_break_at_every_step() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.given").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let target = bed.target("rbd/t.given");
    for fault in [Fault::Fails, Fault::AnswerLost, Fault::Dies] {
        for n in 1.. {
            up(&bed.host(), &source, &target).await;
            let faults = Faults::counting();
            let host = bed.breaking(&faults);
            faults.break_nth(n, fault);
            host.abandon(&source, &target).await.ok();
            let (over, steps) = (faults.is_ahead(), faults.effects());
            drop(host);
            let host = bed.host();
            host.abandon(&source, &target).await.unwrap();
            assert!(servers(&bed).is_empty(), "{fault:?} {n}");
            host.unmount(&target).await.unwrap();
            host.unmap(&source).await.unwrap();
            bed.assert_clean();
            CEPH.fence("t.given");
            if over {
                let wanted = [
                    "kill the server",
                    "shut the file system down",
                    "detach the mount",
                    "detach the server's mount",
                ];
                assert_eq!(steps, wanted, "the device went with its mount");
                break;
            }
        }
    }
}

/// What waits for a cluster that does not answer, or for a server that stands still, is let go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_what_was_given_up() {
    let source = {
        let _part = CEPH.whole.read().await;
        CEPH.image("t.waits").await
    };
    let _whole = CEPH.whole.write().await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let (host, target) = (bed.host(), bed.target("rbd/t.waits"));
    for osd in [true, false] {
        up(&host, &source, &target).await;
        let file = target.join("file");
        let frozen = osd.then(|| Frozen::new("osd"));
        if !osd {
            kill(Pid::from_raw(servers(&bed)[0]), Signal::SIGSTOP).unwrap();
        }
        let (begun, wait) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            let mut file = File::create(file)?;
            begun.send(()).unwrap();
            file.write_all(&[1; 1 << 20])?;
            file.sync_all()
        });
        wait.recv_timeout(Duration::from_secs(30)).ok();
        let begin = Instant::now();
        assert_eq!(host.abandon(&source, &target).await.unwrap(), Undone::Done);
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        writer.join().unwrap().unwrap_err();
        drop(frozen);
        host.unmount(&target).await.unwrap();
        host.unmap(&source).await.unwrap();
        bed.assert_clean();
        CEPH.fence("t.waits");
    }
}

#[tokio::test]
async fn the_file_is_the_image() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.file").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let host = bed.host();
    host.map(&map(&source)).await.unwrap();
    let path = shown(&bed, "t.file");
    let names = std::fs::read_dir(path.parent().unwrap()).unwrap();
    assert_eq!(names.count(), 1);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 64 * MIB);
    // Requests of any size and place, around the ends of objects and of the largest request.
    let content: Vec<u8> = (0..=250u8).collect::<Vec<_>>().repeat(20_000);
    for offset in [0, 4 * MIB - 777, 8 * MIB - 1] {
        file.write_all_at(&content, offset).unwrap();
        let mut read = vec![0; content.len()];
        file.read_exact_at(&mut read, offset).unwrap();
        assert!(read == content, "at {offset}");
    }
    // To the byte, whether holes or zeros are asked for.
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    for (mode, from) in [(libc::FALLOC_FL_PUNCH_HOLE, 1000), (libc::FALLOC_FL_ZERO_RANGE, 90_001)] {
        // SAFETY: the descriptor is open.
        let done = unsafe { libc::fallocate(file.as_raw_fd(), mode | keep, from, 70_001) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        let from = usize::try_from(from).unwrap();
        let mut read = vec![1; 200_000];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read[from..from + 70_001].iter().all(|byte| *byte == 0));
        assert_eq!(read[from - 1], content[from - 1]);
        assert_eq!(read[from + 70_001], content[from + 70_001]);
    }
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, 4096) }, -1);
    // The end is the image's.
    let refused = |error: std::io::Error| error.raw_os_error().unwrap();
    assert_eq!(refused(file.write_all_at(b"more", 64 * MIB - 2).unwrap_err()), libc::EFBIG);
    assert_eq!(refused(file.set_len(1).unwrap_err()), libc::EPERM);
    file.seek(SeekFrom::Start(64 * MIB - 2)).unwrap();
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0, 0]);
    CEPH.rbd(&["resize", "--no-progress", "-s", "128M", "t.file"]);
    wait_for("the new size", || file.metadata().unwrap().len() == 128 * MIB);
    file.write_all_at(b"more", 64 * MIB - 2).unwrap();
    file.sync_all().unwrap();
    drop(file);
    host.unmap(&source).await.unwrap();
    bed.assert_clean();
}

/// The limits of an image, which librbd follows live.
#[tokio::test]
async fn a_limit_is_felt_while_it_is_mapped() {
    const LIMIT: &str = "rbd_qos_write_bps_limit";
    let _part = CEPH.whole.read().await;
    let source = CEPH.image("t.limited").await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let host = bed.host();
    host.map(&map(&source)).await.unwrap();
    let file = OpenOptions::new().write(true).open(shown(&bed, "t.limited")).unwrap();
    let write = || {
        let begin = Instant::now();
        file.write_all_at(&[3; 1 << 20], 0).unwrap();
        file.sync_all().unwrap();
        begin.elapsed()
    };
    let slow = Duration::from_secs(1);
    wait_for("a write without a limit", || write() < slow);
    CEPH.rbd(&["config", "image", "set", "rbd/t.limited", LIMIT, "262144"]);
    wait_for("a write to feel the limit", || write() > slow);
    CEPH.rbd(&["config", "image", "remove", "rbd/t.limited", LIMIT]);
    wait_for("a write not to feel it any more", || write() < slow);
    drop(file);
    host.unmap(&source).await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn what_is_deleted_is_given_back() {
    let _part = CEPH.whole.read().await;
    let source = CEPH.formatted("t.trim", "256M", &["mkfs.ext4", "-q", "-m0"]).await;
    let bed = Bed::with_ceph(&CEPH.conf);
    let (host, target) = (bed.host(), bed.target("rbd/t.trim"));
    up(&host, &source, &target).await;
    let used = || {
        let text = CEPH.rbd(&["du", "--format", "json", "t.trim"]);
        let du: serde_json::Value = serde_json::from_str(&text).unwrap();
        du["images"][0]["used_size"].as_u64().unwrap()
    };
    let before = used();
    std::fs::write(target.join("large"), vec![7; 64 << 20]).unwrap();
    File::open(target.join("large")).unwrap().sync_all().unwrap();
    let full = used();
    assert!(full >= before + 48 * MIB, "{full} after {before}");
    std::fs::remove_file(target.join("large")).unwrap();
    // What was freed counts as free when the journal says so.
    run("sync", &["-f", target.to_str().unwrap()]);
    run("fstrim", &[target.to_str().unwrap()]);
    // Objects of which a part is used stay.
    assert!(used() + 32 * MIB <= full, "{} of {full}", used());
    down(&host, &source, &target).await;
    bed.assert_clean();
}
