//! `LinuxHost` and images that have become larger, while they are mounted and before.

#![expect(clippy::unwrap_used, reason = "what helps a test panics as the test does")]

mod host_support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use host_support::{Bed, MIB, down, map, may_grow_ext_online, mount, path_of, run, up};
use volstorage::faults::{Fault, Faults};
use volstorage::host::{Grown, HostDriver, Mapping, Mode};
use volstorage::image::ImageSource;

const FILESYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];
const GROW: &str = "grow the file system";

fn set_size(source: &ImageSource, bytes: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path_of(source)).unwrap();
    file.set_len(bytes).unwrap();
}

fn check(filesystem: &str, source: &ImageSource) {
    let path = path_of(source).to_str().unwrap();
    match filesystem {
        "xfs" => run("xfs_repair", &["-n", path]),
        "btrfs" => run("btrfs", &["check", "-q", path]),
        _ => run("e2fsck", &["-f", "-n", path]),
    };
}

/// Writes one file after the other, synced, until it is dropped; then all have to be what was written.
struct Writer {
    target: std::path::PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Writer {
    fn start(target: &Path) -> Writer {
        let (over, folder) = (Arc::new(AtomicBool::new(false)), target.to_owned());
        let told = over.clone();
        let write = move || {
            let mut written = 0_usize;
            // Once at least: growing may be over before this thread has begun.
            while written == 0 || !told.load(Ordering::Relaxed) {
                let path = folder.join(format!("{}", written % 100));
                std::fs::write(&path, written.to_le_bytes().repeat(1000)).unwrap();
                std::fs::File::open(&path).unwrap().sync_all().unwrap();
                written += 1;
            }
            written
        };
        Writer { target: target.to_owned(), over, thread: Some(std::thread::spawn(write)) }
    }

    fn stop(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let written = self.thread.take().unwrap().join().unwrap();
        assert!(written > 0);
        for number in written.saturating_sub(100)..written {
            let found = std::fs::read(self.target.join(format!("{}", number % 100))).unwrap();
            assert!(found == number.to_le_bytes().repeat(1000), "{number}");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

#[tokio::test]
async fn what_is_mounted_grows_under_a_writer() {
    for filesystem in FILESYSTEMS {
        let bed = Bed::new();
        let source = bed.formatted("t.v", filesystem);
        let (faults, target) = (Faults::counting(), bed.target("v"));
        let host = bed.breaking(&faults);
        let mapping = up(&host, &source, &target).await;
        faults.revive();
        let had = path_of(&source).metadata().unwrap().len();
        let before = host.space(&target).await.unwrap().size;
        assert_eq!(host.grow(&mapping, &target, had).await.unwrap(), Grown::AsItWas(had));
        assert_eq!(faults.effects(), [""; 0], "{filesystem}: there was nothing to do");
        let writer = Writer::start(&target);
        for factor in [2, 5] {
            set_size(&source, factor * had);
            let begun = Instant::now();
            let grown = host.grow(&mapping, &target, factor * had).await;
            if filesystem == "ext4" && !may_grow_ext_online() {
                let error = format!("{:?}", grown.unwrap_err());
                assert!(error.contains("CAP_SYS_RESOURCE"), "{error}");
                continue;
            }
            assert_eq!(grown.unwrap(), Grown::Larger(factor * had), "{filesystem}");
            println!("{filesystem}: {factor} times as large after {:?}", begun.elapsed());
            let now = host.space(&target).await.unwrap().size;
            assert!(now > before + (factor - 1) * had * 8 / 10, "{filesystem}: {before}, {now}");
            // And that was that, also for a process that was just started.
            faults.revive();
            let again = bed.host().grow(&mapping, &target, factor * had).await.unwrap();
            assert_eq!(again, Grown::AsItWas(factor * had));
            let again = host.grow(&mapping, &target, 0).await.unwrap();
            assert_eq!((again, faults.effects()), (Grown::AsItWas(factor * had), vec![]));
        }
        writer.stop();
        down(&host, &source, &target).await;
        check(filesystem, &source);
        up(&host, &source, &target).await;
        let now = host.space(&target).await.unwrap().size;
        assert!(now > before + 4 * had * 8 / 10, "{filesystem}: {before}, {now}");
        down(&host, &source, &target).await;
        check(filesystem, &source);
        bed.assert_clean();
    }
}

#[tokio::test]
async fn what_has_grown_meanwhile_grows_when_it_is_mounted() {
    for filesystem in FILESYSTEMS {
        let bed = Bed::new();
        let source = bed.formatted("t.v", filesystem);
        let (host, target) = (bed.host(), bed.target("v"));
        up(&host, &source, &target).await;
        std::fs::write(target.join("kept"), "something").unwrap();
        down(&host, &source, &target).await;
        let size = 3 * path_of(&source).metadata().unwrap().len();
        set_size(&source, size);
        let mapping = host.map(&map(&source)).await.unwrap();
        let mounted = host.mount(&mapping, &mount(&target)).await.unwrap();
        assert!(mounted.flaw.is_none(), "{filesystem}: {:?}", mounted.flaw);
        assert_eq!(mounted.fills, Some(size));
        let space = host.space(&target).await.unwrap().size;
        assert!(space > size * 8 / 10, "{filesystem}: {space}");
        assert_eq!(std::fs::read_to_string(target.join("kept")).unwrap(), "something");
        down(&host, &source, &target).await;
        check(filesystem, &source);
        bed.assert_clean();
    }
}

/// Whatever becomes of growing, the volume is mounted, and the next attempt goes on.
#[tokio::test]
async fn a_mount_that_cannot_grow_is_a_mount() {
    for filesystem in FILESYSTEMS {
        for fault in [Fault::Fails, Fault::AnswerLost] {
            let bed = Bed::new();
            let source = bed.formatted("t.v", filesystem);
            let (faults, target) = (Faults::counting(), bed.target("v"));
            let host = bed.breaking(&faults);
            let size = 3 * path_of(&source).metadata().unwrap().len();
            set_size(&source, size);
            let mapping = host.map(&map(&source)).await.unwrap();
            // Making the folder and mounting come before, where it grows while it is mounted.
            let offline = filesystem == "ext4" && !may_grow_ext_online();
            faults.break_nth(if offline { 1 } else { 3 }, fault);
            let mounted = host.mount(&mapping, &mount(&target)).await.unwrap();
            let context = format!("{filesystem}: {fault:?}: {:?}", mounted.flaw);
            assert!(mounted.flaw.is_some() && !faults.is_ahead(), "{context}");
            assert!(faults.effects().contains(&GROW) || fault == Fault::Fails, "{context}");
            std::fs::write(target.join("kept"), "something").unwrap();
            host.unmount(&target).await.unwrap();
            let mapping = host.map(&map(&source)).await.unwrap();
            let mounted = host.mount(&mapping, &mount(&target)).await.unwrap();
            assert_eq!((mounted.flaw.is_none(), mounted.fills), (true, Some(size)), "{context}");
            down(&host, &source, &target).await;
            check(filesystem, &source);
            bed.assert_clean();
        }
    }
}

#[tokio::test]
async fn only_what_is_meant_and_may_be_written_grows() {
    let mut bed = Bed::new();
    bed.config.deadlines.release = Duration::from_millis(200);
    let (one, other) = (bed.formatted("one", "btrfs"), bed.formatted("other", "btrfs"));
    let (host, targets) = (bed.host(), [bed.target("one"), bed.target("other")]);
    let mapping = up(&host, &one, &targets[0]).await;
    let of_other = up(&host, &other, &targets[1]).await;
    let had = path_of(&one).metadata().unwrap().len();
    // The image is not so large.
    let error = host.grow(&mapping, &targets[0], had + MIB).await.unwrap_err();
    let said = format!("{error:?}");
    assert!(said.contains(&format!("should have {} bytes", had + MIB)), "{said}");
    // Parts of a sector are nobody's.
    set_size(&one, had + 511);
    assert_eq!(host.grow(&mapping, &targets[0], had + 511).await.unwrap().device(), had);
    // Another's folder, another's device, no folder of this host.
    set_size(&one, 2 * had);
    for (mapping, target) in [
        (mapping.clone(), targets[1].clone()),
        (Mapping { device: of_other.device.clone(), ..mapping.clone() }, targets[0].clone()),
        (Mapping { source: other.clone(), ..mapping.clone() }, targets[0].clone()),
        (mapping.clone(), bed.target("none")),
        (mapping.clone(), "/".into()),
    ] {
        let error = host.grow(&mapping, &target, 0).await.unwrap_err();
        assert!(host.space(&targets[0]).await.unwrap().size < had + MIB, "{error:?}");
    }
    down(&host, &one, &targets[0]).await;
    host.grow(&mapping, &targets[0], 0).await.unwrap_err();
    down(&host, &other, &targets[1]).await;
    let mut request = map(&one);
    request.mode = Mode::ReadOnly;
    let mapping = host.map(&request).await.unwrap();
    let mut request = mount(&targets[0]);
    request.mode = Mode::ReadOnly;
    let mounted = host.mount(&mapping, &request).await.unwrap();
    assert!(mounted.fills.is_none() && mounted.flaw.is_none());
    let grown = host.grow(&mapping, &targets[0], 2 * had).await.unwrap();
    assert_eq!(grown, Grown::AsItWas(2 * had));
    assert!(host.space(&targets[0]).await.unwrap().size < had + MIB);
    down(&host, &one, &targets[0]).await;
    bed.assert_clean();
}

/// What a device has beyond, and a file system cannot use, is no reason to run its tool again and again.
#[tokio::test]
async fn a_rest_that_cannot_be_used_is_left() {
    for (filesystem, sizes) in [
        ("ext4", [128 * MIB, 129 * MIB, 128 * MIB + 4096]),
        ("xfs", [400 * MIB, 400 * MIB + 63 * 4096, 400 * MIB + 4095]),
        ("btrfs", [300 * MIB, 300 * MIB + 4096, 300 * MIB + 512]),
    ] {
        let mut largest = 0;
        for size in sizes {
            let bed = Bed::new();
            let source = bed.formatted("t.v", filesystem);
            if filesystem == "ext4" {
                run("mkfs.ext4", &["-q", "-F", "-b4096", path_of(&source).to_str().unwrap()]);
            }
            let target = bed.target("v");
            up(&bed.host(), &source, &target).await;
            down(&bed.host(), &source, &target).await;
            set_size(&source, size);
            up(&bed.host(), &source, &target).await;
            let now = bed.host().space(&target).await.unwrap().size;
            largest = largest.max(now);
            assert!(largest - now < 64 << 10, "{filesystem}: {largest}, {now}");
            down(&bed.host(), &source, &target).await;
            let faults = Faults::counting();
            let host = bed.breaking(&faults);
            let mapping = up(&host, &source, &target).await;
            host.grow(&mapping, &target, size).await.unwrap();
            assert!(!faults.effects().contains(&GROW), "{filesystem}: {size}");
            down(&host, &source, &target).await;
            bed.assert_clean();
        }
    }
}

#[tokio::test]
async fn a_small_btrfs_that_cannot_grow_says_so() {
    let bed = Bed::new();
    let source = bed.formatted("t.v", "btrfs");
    set_size(&source, 200 * MIB);
    let (host, target) = (bed.host(), bed.target("v"));
    let mapping = host.map(&map(&source)).await.unwrap();
    let mounted = host.mount(&mapping, &mount(&target)).await.unwrap();
    let flaw = format!("{:?}", mounted.flaw.unwrap());
    assert!(flaw.contains("256 MiB"), "{flaw}");
    down(&host, &source, &target).await;
    bed.assert_clean();
}
