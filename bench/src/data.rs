//! What goes through a mapped image: our server and a loop device against `rbd-fuse` and one, in turns.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use testkit::Suite;
use volcore::options::Access;
use volstorage::host::{HostDriver, MapRequest, Mode};
use volstorage::image::ImageSource;
use volstorage::linux::{Deadlines, LinuxHost, LinuxHostConfig, ServerCommand};

use crate::bare::{Mapped, sh, timed};
use crate::table::Table;

/// How often each way is measured, in turn with the other; the median counts.
const ROUNDS: usize = 5;
/// What is read and written one after the other, in bytes.
const SEQUENTIAL: u64 = 512 << 20;
/// So much at a time.
const LARGE: usize = 1 << 20;
/// What is written here and there, each time with a flush.
const SMALL: usize = 4 << 10;
/// How many of them one thread writes.
const WRITES: u64 = 400;
/// The larger number of threads that do so at a time.
const THREADS: u64 = 16;
/// `O_DIRECT` as x86 has it.
const O_DIRECT: i32 = 0o40000;

/// Memory that a device takes as it is.
struct Aligned {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let memory = vec![0x5a; len + SMALL];
        let from = memory.as_ptr().align_offset(SMALL);
        Aligned { memory, from, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}

fn open(device: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(O_DIRECT);
    options.open(device).expect("the device opens")
}

/// What one round came to.
#[derive(Clone, Copy)]
struct Figures {
    write: Duration,
    read: Duration,
    alone: Duration,
    together: Duration,
}

fn measure(device: &Path) -> Figures {
    let (write, ()) = timed(|| {
        let (file, mut data) = (open(device), Aligned::new(LARGE));
        for offset in (0..SEQUENTIAL).step_by(LARGE) {
            file.write_all_at(data.bytes(), offset).expect("the device takes a write");
        }
        file.sync_all().expect("the device flushes");
    });
    let (read, ()) = timed(|| {
        let (file, mut data) = (open(device), Aligned::new(LARGE));
        for offset in (0..SEQUENTIAL).step_by(LARGE) {
            file.read_exact_at(data.bytes(), offset).expect("the device reads");
        }
    });
    let (alone, ()) = timed(|| here_and_there(device, 0));
    let began = Instant::now();
    thread::scope(|scope| {
        for number in 0..THREADS {
            scope.spawn(move || here_and_there(device, number));
        }
    });
    Figures { write, read, alone, together: began.elapsed() }
}

/// Small writes, each flushed, at places that are the same in every run.
fn here_and_there(device: &Path, seed: u64) {
    let (file, mut data) = (open(device), Aligned::new(SMALL));
    let mut place = seed;
    for _ in 0..WRITES {
        place =
            place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = (place >> 33) % (SEQUENTIAL / SMALL as u64) * SMALL as u64;
        file.write_all_at(data.bytes(), offset).expect("the device takes a write");
        file.sync_data().expect("the device flushes");
    }
}

/// Reads and writes of both.
pub fn throughput(suite: &Suite, table: &mut Table) {
    let conf = suite.ceph().conf().to_owned();
    for image in ["data-ours", "data-bare"] {
        sh(&format!("rbd -c {} create --size 1G rbd/{image}", conf.display()));
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let host = LinuxHost::new(LinuxHostConfig {
        map_root: suite.dir.join("data-map"),
        mount_root: suite.dir.join("data-mnt"),
        ceph_conf: conf.clone(),
        ceph_user: "volplugin".to_owned(),
        server: ServerCommand { program: volplugin(), args: vec!["serve".into()] },
        deadlines: Deadlines::default(),
    });
    let source = ImageSource::Rbd { pool: "rbd".to_owned(), image: "data-ours".to_owned() };
    let (access, mode, options) = (Access::Fuse, Mode::ReadWrite, Vec::new());
    let request = MapRequest { source: source.clone(), access, mode, options };
    let mapping = runtime.block_on(host.map(&request)).expect("the image is mapped");
    let bare = Mapped::map(&conf, "data-bare", &suite.dir.join("data-bare"));
    // The first time objects are made.
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    measure(&mapping.device);
    measure(Path::new(bare.device()));
    for _ in 0..ROUNDS {
        ours.push(measure(&mapping.device));
        theirs.push(measure(Path::new(bare.device())));
    }
    bare.unmap();
    runtime.block_on(host.unmap(&source)).expect("the image is unmapped");
    rows(table, &ours, &theirs);
}

fn volplugin() -> PathBuf {
    let bench = std::env::current_exe().expect("this program");
    bench.with_file_name("volplugin")
}

/// What a figure is, how it is computed from a time, and which time it is.
type Row = (&'static str, fn(f64) -> String, fn(&Figures) -> Duration);

fn rows(table: &mut Table, ours: &[Figures], theirs: &[Figures]) {
    let rows: [Row; 4] = [
        ("1 MiB direct writes, one after the other, fuse access", megabytes, |round| round.write),
        ("1 MiB direct reads, one after the other, fuse access", megabytes, |round| round.read),
        ("4 KiB direct writes, each flushed, 1 thread, fuse access", one, |round| round.alone),
        ("4 KiB direct writes, each flushed, 16 threads, fuse access", many, |round| {
            round.together
        }),
    ];
    for (what, figure, pick) in rows {
        let median = |rounds: &[Figures]| {
            let mut times: Vec<Duration> = rounds.iter().map(pick).collect();
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64()
        };
        let (suite, baseline) = (median(ours), median(theirs));
        let shown = format!("{} ({:.2} × as fast)", figure(suite), baseline / suite);
        table.row(what, "≥ 1.0 × as fast", shown, figure(baseline), "rbd-fuse, losetup");
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown without digits")]
fn megabytes(seconds: f64) -> String {
    format!("{:.0} MB/s", SEQUENTIAL as f64 / 1e6 / seconds)
}

#[expect(clippy::cast_precision_loss, reason = "some hundreds")]
fn one(seconds: f64) -> String {
    format!("{:.0} per s", WRITES as f64 / seconds)
}

#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn many(seconds: f64) -> String {
    format!("{:.0} per s", (WRITES * THREADS) as f64 / seconds)
}
