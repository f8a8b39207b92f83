//! A host in a folder, and what it leaves on the machine.
//!
//! Everything that a test maps and mounts is below its own folder, so it is found again and taken
//! away, also when the test panics. It is looked for by other means than the driver's own.

#![expect(clippy::unwrap_used, reason = "what helps a test panics as the test does")]
#![expect(dead_code, reason = "each test binary uses a part of this")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use volcore::limit::RateLimits;
use volcore::options::Access;
use volstorage::faults::{Fault, Faults};
use volstorage::host::{HostDriver, MapRequest, Mapping, Mode, MountRequest, Undone};
use volstorage::image::ImageSource;
use volstorage::linux::{Deadlines, LinuxHost, LinuxHostConfig, ServerCommand};

use volstorage::serve::PROGRAM;

pub const MIB: u64 = 1 << 20;

/// One host's folders.
pub struct Bed {
    folder: tempfile::TempDir,
    pub config: LinuxHostConfig,
}

impl Bed {
    /// A host without Ceph.
    pub fn new() -> Bed {
        Bed::with_ceph(Path::new("/nonexistent/ceph.conf"))
    }

    pub fn with_ceph(conf: &Path) -> Bed {
        let folder = tempfile::Builder::new().prefix("volplugin-host-").tempdir().unwrap();
        let config = LinuxHostConfig {
            map_root: folder.path().join("map"),
            mount_root: folder.path().join("mnt"),
            ceph_conf: conf.to_owned(),
            ceph_user: "volplugin".to_owned(),
            server: ServerCommand {
                program: env!("CARGO_BIN_EXE_serve-image").into(),
                args: Vec::new(),
            },
            deadlines: Deadlines {
                release: Duration::from_secs(2),
                close: Duration::from_secs(5),
                ..Deadlines::default()
            },
        };
        Bed { folder, config }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn target(&self, name: &str) -> PathBuf {
        self.config.mount_root.join(name)
    }

    /// The driver, as after a start of the process.
    pub fn host(&self) -> LinuxHost {
        LinuxHost::new(self.config.clone())
    }

    pub fn breaking(&self, faults: &Faults) -> LinuxHost {
        LinuxHost::with_faults(self.config.clone(), faults.clone())
    }

    /// A sparse file without a file system.
    pub fn blank(&self, name: &str, size: u64) -> ImageSource {
        let path = self.path(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        ImageSource::File { path }
    }

    pub fn ext4(&self, name: &str) -> ImageSource {
        let source = self.blank(name, 64 * MIB);
        run("mkfs.ext4", &["-q", "-F", "-m0", path_of(&source).to_str().unwrap()]);
        source
    }

    /// A file with this file system.
    pub fn formatted(&self, name: &str, filesystem: &str) -> ImageSource {
        let (size, mkfs): (u64, &[&str]) = match filesystem {
            "xfs" => (320, &["mkfs.xfs", "-q"]),
            "btrfs" => (128, &["mkfs.btrfs", "-q"]),
            _ => (64, &["mkfs.ext4", "-q", "-F", "-m0"]),
        };
        let source = self.blank(name, size * MIB);
        run(mkfs[0], &[&mkfs[1..], &[path_of(&source).to_str().unwrap()]].concat());
        source
    }

    /// A copy of a file as it is now, holes and all.
    pub fn copy(&self, source: &ImageSource, name: &str) -> ImageSource {
        let path = self.path(name);
        let paths = [path_of(source), &path].map(|path| path.to_str().unwrap());
        // Whoever has it mounted may write meanwhile, and a copy of two moments is none of a crash.
        for _ in 0..100 {
            run("cp", &[&["--sparse=always"], &paths[..]].concat());
            if try_run("cmp", &[&["-s"], &paths[..]].concat()).status.success() {
                return ImageSource::File { path };
            }
        }
        panic!("{} does not come to rest", paths[0])
    }

    /// All that is left on the machine of what was done below the folder.
    pub fn leftovers(&self) -> Vec<String> {
        let folder = self.folder.path().to_str().unwrap();
        let mut left = mounts_below(folder);
        left.extend(loops_below(folder).into_iter().map(|(device, _)| device));
        left.extend(servers_below(folder).into_iter().map(|pid| format!("{PROGRAM} {pid}")));
        for root in [&self.config.map_root, &self.config.mount_root] {
            left.extend(entries(root));
        }
        left
    }

    /// Fails if anything is left.
    pub fn assert_clean(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left over: {left:#?}");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let folder = self.folder.path().to_str().unwrap();
        for pid in servers_below(folder) {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
        let lazily = nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::MNT_FORCE;
        for target in mounts_below(folder).iter().rev() {
            nix::mount::umount2(target.as_str(), lazily).ok();
        }
        for (device, _) in loops_below(folder) {
            try_run("losetup", &["-d", &device]);
        }
    }
}

pub fn path_of(source: &ImageSource) -> &Path {
    match source {
        ImageSource::File { path } => path,
        ImageSource::Rbd { .. } => panic!("not a file"),
    }
}

pub fn map(source: &ImageSource) -> MapRequest {
    MapRequest {
        source: source.clone(),
        access: Access::Auto,
        mode: Mode::ReadWrite,
        options: Vec::new(),
    }
}

pub fn mount(target: &Path) -> MountRequest {
    MountRequest {
        target: target.to_owned(),
        filesystem: "ext4".to_owned(),
        options: Vec::new(),
        mode: Mode::ReadWrite,
        limits: RateLimits::default(),
        identity: None,
    }
}

/// Whether this machine lets root grow a mounted ext4; in a container it may not.
pub fn may_grow_ext_online() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & (1 << CAP_SYS_RESOURCE) != 0
}

/// Maps and mounts.
pub async fn up(host: &LinuxHost, source: &ImageSource, target: &Path) -> Mapping {
    let mapping = host.map(&map(source)).await.unwrap();
    host.mount(&mapping, &mount(target)).await.unwrap();
    mapping
}

/// Unmounts and unmaps what is there.
pub async fn down(host: &LinuxHost, source: &ImageSource, target: &Path) {
    assert_eq!(host.unmount(target).await.unwrap(), Undone::Done);
    assert_eq!(host.unmap(source).await.unwrap(), Undone::Done);
}

/// Which way is broken, and which is gone afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// Breaks every step of the way up or down in one way. What fails on the way up has undone itself;
/// what died is taken up again, or down, by a process that was just started. Gives the steps.
pub async fn break_every_step(
    bed: &Bed,
    source: &ImageSource,
    [broken, then]: [Way; 2],
    fault: Fault,
) -> Vec<&'static str> {
    let target = bed.target("pool/broken");
    let host = bed.host();
    up(&host, source, &target).await;
    std::fs::write(target.join("kept"), "something").unwrap();
    down(&host, source, &target).await;
    for n in 1.. {
        let faults = Faults::counting();
        let host = bed.breaking(&faults);
        if broken == Way::Down {
            up(&host, source, &target).await;
        }
        faults.break_nth(n, fault);
        match broken {
            Way::Up => match host.map(&map(source)).await {
                Ok(mapping) => drop(host.mount(&mapping, &mount(&target)).await),
                Err(_) if fault == Fault::Dies => {}
                Err(_) => bed.assert_clean(),
            },
            Way::Down => {
                host.unmount(&target).await.ok();
                host.unmap(source).await.ok();
            }
        }
        let (over, steps) = (faults.is_ahead(), faults.effects());
        // Closes what the process had open, as its end would.
        drop(host);
        let host = bed.host();
        let step = steps.get(n - 1).copied().unwrap_or_default();
        let seen = host.inventory().await.unwrap();
        let mapped = seen.mappings.iter().any(|found| found.source == *source);
        let left = bed.leftovers();
        assert!(mapped || left.iter().all(|it| !it.contains("/dev/")), "{step}: {left:?} unseen");
        if then == Way::Up {
            up(&host, source, &target).await;
            let inside = target.join("kept").metadata();
            assert!(inside.is_ok(), "{fault:?} at {step}: {inside:?}");
        }
        host.unmount(&target).await.unwrap();
        host.unmap(source).await.unwrap();
        let left = bed.leftovers();
        assert!(left.is_empty(), "{fault:?} at {step}, then {then:?}: {left:#?}");
        if over {
            return steps;
        }
    }
    unreachable!("there is an end to all steps")
}

#[expect(clippy::disallowed_methods, reason = "tests run the system's tools themselves")]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

pub fn try_run(program: &str, args: &[&str]) -> Output {
    command(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Runs a program that has to succeed; gives its output.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = try_run(program, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Polls until the condition holds; panics with `what` when that takes too long.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let entries =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let is_content = |path: &PathBuf| {
        !path.ends_with(".records") || std::fs::read_dir(path).unwrap().next().is_some()
    };
    entries.filter(is_content).map(|path| path.display().to_string()).collect()
}

/// Mount points, the newest last.
pub fn mounts_below(folder: &str) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let targets = mounts.lines().map(|line| line.split(' ').nth(4).unwrap());
    targets.filter(|target| target.starts_with(folder)).map(str::to_owned).collect()
}

/// Loop devices and their files.
pub fn loops_below(folder: &str) -> Vec<(String, String)> {
    let devices = std::fs::read_dir("/sys/block").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        Some((format!("/dev/{}", entry.file_name().to_str()?), file.trim().to_owned()))
    });
    devices.filter(|(_, file)| file.starts_with(folder)).collect()
}

/// Running servers of images.
pub fn servers_below(folder: &str) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let serves = |pid: &i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(PROGRAM) && line.split('\0').any(|word| word.starts_with(folder))
    };
    pids.filter(serves).collect()
}
