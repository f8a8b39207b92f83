//! `LinuxHost` and file systems that are frozen: whoever dies, they are thawed, and a copy that is made meanwhile is whole.

#![expect(clippy::unwrap_used, reason = "what helps a test panics as the test does")]

mod host_support;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use host_support::{Bed, command, down, map, mount, path_of, run, up, wait_for};
use volcore::order::ThawedBy;
use volstorage::host::{HostDriver, HostError};
use volstorage::image::ImageSource;

const FILESYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];
const BOUND: Duration = Duration::from_secs(5);

/// Writes all the time, as a database with a log does: a number goes to `log`, synced, and then to `data`, synced.
/// So whoever finds a number in `data` finds it, or a later one, in `log`.
struct Writer {
    over: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    fn start(folder: &Path) -> Writer {
        let (over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count, folder) = (over.clone(), written.clone(), folder.to_owned());
        let write = move || {
            let files = ["log", "data"].map(|name| File::create(folder.join(name)).unwrap());
            for number in 1_u64.. {
                for file in &files {
                    file.write_all_at(&number.to_le_bytes().repeat(1024), 0).unwrap();
                    file.sync_all().unwrap();
                }
                // Names come and go, so that the journal has something to do.
                let name = folder.join(format!("name-{}", number % 16));
                std::fs::write(&name, number.to_le_bytes()).unwrap();
                std::fs::remove_file(folder.join(format!("name-{}", (number + 8) % 16))).ok();
                count.store(number, Ordering::SeqCst);
                if told.load(Ordering::SeqCst) {
                    return;
                }
            }
        };
        let writer = Writer { over, written, thread: Some(std::thread::spawn(write)) };
        writer.wait_for_more();
        writer
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// It goes on: it has written something since.
    fn wait_for_more(&self) {
        let before = self.written();
        wait_for("the writer to go on", || self.written() > before);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.thread.take().map(|thread| thread.join().ok());
    }
}

/// The numbers that `log` and `data` have.
fn numbers(folder: &Path) -> [u64; 2] {
    ["log", "data"].map(|name| {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let first: [u8; 8] = bytes[..8].try_into().unwrap();
        assert!(bytes == first.repeat(1024), "{name} is torn");
        u64::from_le_bytes(first)
    })
}

fn check(filesystem: &str, source: &ImageSource) {
    let path = path_of(source).to_str().unwrap();
    match filesystem {
        "xfs" => run("xfs_repair", &["-n", path]),
        "btrfs" => run("btrfs", &["check", "-q", path]),
        _ => run("e2fsck", &["-f", "-n", path]),
    };
}

/// Copies slowly enough for a writer to get in between.
fn copy_slowly(source: &ImageSource, to: &Path) {
    let (from, to) = (File::open(path_of(source)).unwrap(), File::create(to).unwrap());
    let len = from.metadata().unwrap().len();
    to.set_len(len).unwrap();
    let mut piece = vec![0; 4 << 20];
    for at in (0..len).step_by(piece.len()) {
        let got = from.read_at(&mut piece, at).unwrap();
        if piece[..got].iter().any(|byte| *byte != 0) {
            to.write_all_at(&piece[..got], at).unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn a_copy_of_what_is_frozen_is_whole_and_the_writer_goes_on() {
    for filesystem in FILESYSTEMS {
        let bed = Bed::new();
        let source = bed.formatted("t.v", filesystem);
        let (host, target) = (bed.host(), bed.target("v"));
        let mapping = up(&host, &source, &target).await;
        let writer = Writer::start(&target);
        let mut copies = Vec::new();
        for round in 0..2 {
            let frozen = host.freeze(&mapping, &target, BOUND).await.unwrap();
            let before = writer.written();
            let copy = bed.path(&format!("copy-{round}"));
            copy_slowly(&source, &copy);
            assert!(writer.written() <= before + 1, "{filesystem}: it has written");
            let thawed = frozen.thaw().await;
            assert_eq!(thawed.by, ThawedBy::Word, "{filesystem}");
            writer.wait_for_more();
            copies.push((ImageSource::File { path: copy }, before));
        }
        drop(writer);
        let [log, data] = numbers(&target);
        assert_eq!(log, data);
        down(&host, &source, &target).await;
        check(filesystem, &source);
        for (copy, before) in copies {
            // XFS leaves something in its log on purpose, so that whoever mounts it looks after open files.
            if filesystem != "xfs" {
                check(filesystem, &copy);
            }
            up(&host, &copy, &target).await;
            let [log, data] = numbers(&target);
            assert!(log == data || log == data + 1, "{filesystem}: {log} {data}");
            assert!(log >= before && log <= before + 2, "{filesystem}: {log} {before}");
            down(&host, &copy, &target).await;
            check(filesystem, &copy);
        }
        bed.assert_clean();
    }
}

#[tokio::test]
async fn a_freeze_has_an_end() {
    let bed = Bed::new();
    let source = bed.ext4("t.v");
    let (host, target) = (bed.host(), bed.target("v"));
    let mapping = up(&host, &source, &target).await;
    let writer = Writer::start(&target);
    // By itself.
    let mut frozen = host.freeze(&mapping, &target, Duration::from_millis(300)).await.unwrap();
    let began = Instant::now();
    let again = host.freeze(&mapping, &target, BOUND).await.err().unwrap();
    assert!(volapi_chain(&again).contains("it is frozen already"), "{again:?}");
    frozen.over().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let thawed = frozen.thaw().await;
    assert_eq!(thawed.by, ThawedBy::Itself);
    assert!((200..1500).contains(&thawed.held_ms), "{thawed:?}");
    writer.wait_for_more();
    // By being dropped.
    drop(host.freeze(&mapping, &target, BOUND).await.unwrap());
    writer.wait_for_more();
    // By somebody else.
    let frozen = host.freeze(&mapping, &target, BOUND).await.unwrap();
    run("fsfreeze", &["--unfreeze", target.to_str().unwrap()]);
    writer.wait_for_more();
    assert_eq!(frozen.thaw().await.by, ThawedBy::Itself);
    // What somebody else has frozen stays so.
    run("fsfreeze", &["--freeze", target.to_str().unwrap()]);
    let refused = host.freeze(&mapping, &target, BOUND).await.err().unwrap();
    assert!(matches!(refused, HostError::Failed { .. }));
    tokio::time::sleep(Duration::from_millis(50)).await;
    run("fsfreeze", &["--unfreeze", target.to_str().unwrap()]);
    drop(writer);
    down(&host, &source, &target).await;
    bed.assert_clean();
}

fn volapi_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

#[tokio::test]
async fn nothing_but_our_own_mounts_is_frozen() {
    let bed = Bed::new();
    let source = bed.ext4("t.v");
    let (host, target) = (bed.host(), bed.target("v"));
    let mapping = host.map(&map(&source)).await.unwrap();
    // Not mounted: below the folder is the root's file system.
    std::fs::create_dir_all(&target).unwrap();
    let refused = host.freeze(&mapping, &target, BOUND).await.err().unwrap();
    assert!(volapi_chain(&refused).contains("is not mounted there"), "{refused:?}");
    for outside in [Path::new("/"), Path::new("/tmp"), bed.config.mount_root.as_path()] {
        assert!(host.freeze(&mapping, outside, BOUND).await.is_err(), "{outside:?}");
    }
    std::fs::remove_dir(&target).unwrap();
    host.mount(&mapping, &mount(&target)).await.unwrap();
    // Another's device.
    let mut other = mapping.clone();
    other.device = "/dev/loop-none".into();
    assert!(host.freeze(&other, &target, BOUND).await.is_err());
    assert_eq!(host.thaw_all().await.unwrap(), [""; 0].map(PathBuf::from));
    down(&host, &source, &target).await;
}

/// The process that is to die: this test's binary, run for this test alone, freezes what it is told to and waits.
#[tokio::test]
async fn a_process_that_freezes() {
    let Ok(said) = std::env::var("FREEZE_CHILD") else { return };
    let [root, path, device]: [&str; 3] = said.split('|').collect::<Vec<_>>().try_into().unwrap();
    let mut bed = Bed::new();
    bed.config.map_root = Path::new(root).join("map");
    bed.config.mount_root = Path::new(root).join("mnt");
    let target = bed.target("v");
    let host = bed.host();
    let mapping = host.map(&map(&ImageSource::File { path: path.into() })).await.unwrap();
    assert_eq!(mapping.device, Path::new(device));
    let _frozen = host.freeze(&mapping, &target, BOUND).await.unwrap();
    println!("frozen by {}", std::process::id());
    std::io::stdout().flush().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// Whoever is killed while a file system is frozen, it is thawed within its bound, or by the next start.
#[tokio::test]
async fn whoever_is_killed_the_writer_goes_on() {
    for killed in ["parent", "child", "both"] {
        let bed = Bed::new();
        let source = bed.ext4("t.v");
        let (host, target) = (bed.host(), bed.target("v"));
        let mapping = up(&host, &source, &target).await;
        let writer = Writer::start(&target);
        let root = bed.config.mount_root.parent().unwrap().display().to_string();
        let (path, device) = (path_of(&source).display(), mapping.device.display());
        let this = std::env::current_exe().unwrap();
        let mut process = command(this.to_str().unwrap())
            .args(["--exact", "a_process_that_freezes", "--nocapture"])
            .env("FREEZE_CHILD", format!("{root}|{path}|{device}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let pid = lines
            .map_while(Result::ok)
            .find_map(|line| line.split("frozen by ").nth(1)?.trim().parse::<i32>().ok())
            .unwrap();
        let guard = guard_of(pid);
        let began = Instant::now();
        let before = writer.written();
        std::thread::sleep(Duration::from_millis(200));
        assert!(writer.written() <= before + 1, "it is frozen");
        if killed != "parent" {
            stop_and_kill(&[guard, pid][..if killed == "both" { 2 } else { 1 }]);
        } else {
            stop_and_kill(&[pid]);
        }
        if killed == "both" {
            std::thread::sleep(Duration::from_millis(300));
            assert!(writer.written() <= before + 1, "nobody was left to thaw it");
            assert_eq!(host.thaw_all().await.unwrap(), std::slice::from_ref(&target));
        }
        writer.wait_for_more();
        assert!(began.elapsed() < BOUND, "{killed}: {:?}", began.elapsed());
        eprintln!("{killed} killed: the writer went on after {:?}", began.elapsed());
        process.kill().ok();
        process.wait().unwrap();
        drop(writer);
        wait_for("the child's end", || !Path::new(&format!("/proc/{guard}/fd/0")).exists());
        down(&host, &source, &target).await;
        bed.assert_clean();
    }
}

/// The child of a process that keeps something frozen.
fn guard_of(pid: i32) -> i32 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children = threads.map(|task| {
        std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default()
    });
    children.collect::<String>().split_whitespace().next().unwrap().parse().unwrap()
}

/// Kills them as if at one moment: stopped, nobody sees the other's end.
fn stop_and_kill(pids: &[i32]) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    if pids.len() > 1 {
        for pid in pids {
            kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap();
        }
        // A thread that is running takes a moment to stop, and would see the end of the other in it.
        wait_for("all of them to stand still", || pids.iter().all(|pid| is_stopped(*pid)));
    }
    for pid in pids {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
    }
}

/// Whether every thread of a process stands still.
fn is_stopped(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map_while(Result::ok).all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}
