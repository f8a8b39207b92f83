//! The machine's side of storage on Linux: [`LinuxHost`], the [`HostDriver`] of a volplugin.
//!
//! An image of Ceph is reached through the kernel's rbd (`kernel`), `rbd-nbd` (`nbd`), or
//! a server of ours with a loop device over its file (`fuse`); a local file through a loop device. Then
//! its file system is mounted.
//!
//! # What is true at any time
//!
//! * Before anything is mapped it is written down (`ledger`), and that is removed last. So
//!   a process that dies at any step leaves what `map` and `unmap` find and put right.
//! * Loop devices detach themselves when nobody has them open (`loops`). [`LinuxHost`] has them open
//!   from `map` to `mount`; then the mount keeps them. So after `unmount` the device is gone, and
//!   `unmap` takes away what is left; to mount again, map again.
//! * A device is compared with what was written down before it is mounted: its number may have
//!   become another image's meanwhile.
//! * Nothing is asked of another volume's file system or FUSE server: one that hangs harms nobody else.
//!
//! Dropping a call stops waiting and leaves things as they are, as a death would.
//!
//! A server serves on when volplugin ends. A service manager must not kill it either:
//! for systemd, `KillMode=process`.

mod abandon;
mod attach;
mod freezing;
mod fuse;
mod growth;
mod identity;
mod inventory;
mod kernel;
mod ledger;
mod limits;
mod lock;
mod loops;
mod mountinfo;
mod mounting;
mod mounts;
mod nbd;
mod node;
mod probe;
mod process_table;

use std::collections::HashMap;
use std::error::Error;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::OnceCell;
use volcore::limit::RateLimits;
use volcore::options::Access;

use crate::blocking::{self, Blocked};
use crate::faults::{Broken, Faults};
use crate::host::{
    Frozen, Grown, HostDriver, HostError, Inventory, MapRequest, Mapping, MountRequest, Mounted,
    Space, Undone,
};
use crate::image::ImageSource;
use crate::process::{Ending, ProcessError, Program, Run};
use ledger::Ledger;

/// Where a host keeps things, and how it reaches Ceph.
#[derive(Clone, Debug)]
pub struct LinuxHostConfig {
    /// FUSE mounts and the record of what is mapped, e.g. `/var/lib/volplugin/map`. Each host has
    /// its own.
    pub map_root: PathBuf,
    /// Nothing is mounted for volumes outside of this folder.
    pub mount_root: PathBuf,
    /// Ceph's configuration.
    pub ceph_conf: PathBuf,
    /// The name to log in with, without `client.`.
    pub ceph_user: String,
    /// What serves an image of access `fuse`.
    pub server: ServerCommand,
    /// How long things may take.
    pub deadlines: Deadlines,
}

/// The program that runs [`serve::main`](crate::serve::main), and the arguments that come before those for it.
#[derive(Clone, Debug)]
pub struct ServerCommand {
    /// Its absolute path.
    pub program: PathBuf,
    /// Such as `serve`.
    pub args: Vec<OsString>,
}

/// How long each operation may take in all. A mount that has to map and unmap too stays inside Docker's
/// 120 s, an unmount inside 60 s.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Making a server ready, which is to log in at a cluster.
    pub ready: Duration,
    /// Mapping. A client that died without a word keeps the lock of its image for 30 s
    /// (`osd_client_watch_timeout`), and that is waited for.
    pub map: Duration,
    /// Unmapping, and undoing a map that failed.
    pub unmap: Duration,
    /// Mounting, with the repair before it, and growing after it.
    pub mount: Duration,
    /// Unmounting, and looking at what is there.
    pub unmount: Duration,
    /// Growing what is mounted.
    pub grow: Duration,
    /// Freezing what is mounted, with what has to be written out before, and thawing what was left frozen.
    pub freeze: Duration,
    /// How long, of these, to wait for what is in use to become free, and for a device to follow its image.
    pub release: Duration,
    /// How long, of these, a server may take to close its image. One that is killed instead leaves its
    /// lock behind, and volmaster has to break that.
    pub close: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            ready: Duration::from_secs(15),
            map: Duration::from_secs(45),
            unmap: Duration::from_secs(25),
            mount: Duration::from_secs(40),
            unmount: Duration::from_secs(20),
            grow: Duration::from_secs(30),
            freeze: Duration::from_secs(10),
            release: Duration::from_secs(5),
            close: Duration::from_secs(15),
        }
    }
}

/// Maps and mounts on this machine, as root. Clones are the same host.
#[derive(Clone, Debug)]
pub struct LinuxHost {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: LinuxHostConfig,
    ledger: Ledger,
    programs: Programs,
    /// Servers that are ready to open their image.
    readied: Mutex<HashMap<ImageSource, fuse::Readied>>,
    /// What keeps devices attached until they are mounted.
    held: Mutex<HashMap<ImageSource, OwnedFd>>,
    /// What `auto` is on this machine, once it was asked for.
    auto: OnceCell<Access>,
    login: kernel::LastLogin,
    faults: Faults,
}

#[derive(Debug)]
struct Programs {
    server: Program,
    rbd: Program,
    rbd_nbd: Program,
    ceph_conf: Program,
    modprobe: Program,
    e2fsck: Program,
    tune2fs: Program,
    resize2fs: Program,
    xfs_growfs: Program,
    btrfs: Program,
}

impl LinuxHost {
    /// A host. Does nothing yet.
    pub fn new(config: LinuxHostConfig) -> LinuxHost {
        LinuxHost::with_faults(config, Faults::default())
    }

    /// A host whose effects break as planned, for tests of what a crash leaves.
    pub fn with_faults(mut config: LinuxHostConfig, faults: Faults) -> LinuxHost {
        // Programs are run in another folder.
        config.ceph_conf = std::path::absolute(&config.ceph_conf).unwrap_or(config.ceph_conf);
        // The kernel shows paths without links in them, and they are compared with these.
        config.map_root = resolved(&config.map_root);
        config.mount_root = resolved(&config.mount_root);
        let programs = Programs {
            server: Program::at(fuse::PROGRAM, fuse::PACKAGE, config.server.program.clone()),
            rbd: Program::find("rbd", "ceph-common"),
            rbd_nbd: Program::find("rbd-nbd", "rbd-nbd"),
            ceph_conf: Program::find("ceph-conf", "ceph-common"),
            modprobe: Program::find("modprobe", "kmod"),
            e2fsck: Program::find("e2fsck", "e2fsprogs"),
            tune2fs: Program::find("tune2fs", "e2fsprogs"),
            resize2fs: Program::find("resize2fs", "e2fsprogs"),
            xfs_growfs: Program::find("xfs_growfs", "xfsprogs"),
            btrfs: Program::find("btrfs", "btrfs-progs"),
        };
        // No pool has a name that begins with a dot.
        let ledger = Ledger::new(config.map_root.join(".records"));
        let (readied, held, auto) = (Mutex::default(), Mutex::default(), OnceCell::new());
        let login = kernel::LastLogin::default();
        let shared = Shared { config, ledger, programs, readied, held, auto, login, faults };
        LinuxHost { shared: Arc::new(shared) }
    }

    fn deadlines(&self) -> Deadlines {
        self.shared.config.deadlines
    }

    /// The mount root without links in it, as the inventory shows it.
    pub fn mount_root(&self) -> &Path {
        &self.shared.config.mount_root
    }

    /// An operation that begins now.
    fn within(&self, deadline: Duration) -> Operation<'_> {
        Operation { shared: &self.shared, ends: Instant::now() + deadline, deadline }
    }
}

/// One operation of [`HostDriver`], and the time by which it is over.
#[derive(Clone, Copy)]
struct Operation<'a> {
    shared: &'a Arc<Shared>,
    ends: Instant,
    deadline: Duration,
}

impl Operation<'_> {
    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// Runs a call that may block.
    async fn call<T: Send + 'static>(
        &self,
        action: impl Into<String>,
        work: impl FnOnce(&Shared) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, HostError> {
        let shared = self.shared.clone();
        match blocking::run(action, self.left(), move || work(&shared)).await {
            Ok(result) => result,
            Err(Blocked::Deadline { action, .. } | Blocked::Crowded { action, .. }) => {
                Err(self.late(action))
            }
            Err(Blocked::Cut { action, source }) => Err(failed(action)(source)),
        }
    }

    /// Asks again and again until the answer is yes, for as long as `release` says.
    /// What is waited for takes less than a millisecond mostly, and some of them rarely.
    async fn until(
        &self,
        action: impl Into<String>,
        mut ask: impl FnMut(&Shared) -> Result<bool, HostError> + Send + 'static,
    ) -> Result<bool, HostError> {
        let ends = self.ends.min(Instant::now() + self.shared.config.deadlines.release);
        self.call(action, move |shared| {
            let mut pause = Duration::from_micros(200);
            while !ask(shared)? {
                if Instant::now() + pause >= ends {
                    return Ok(false);
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
            Ok(true)
        })
        .await
    }

    /// The same, for a last question when the time is over.
    fn within_breath(self) -> Self {
        const BREATH: Duration = Duration::from_secs(2);
        Operation { ends: Instant::now() + BREATH, ..self }
    }

    /// A program that has to end in time.
    fn run(&self, program: &Program) -> Run {
        Run::new(program, self.left())
    }

    /// The error of a program that was to do `action`.
    fn program_failed(&self, action: impl Into<String>) -> impl FnOnce(ProcessError) -> HostError {
        move |error| match error {
            ProcessError::Failed { ending: Ending::Deadline(_), .. } => self.late(action.into()),
            error => failed(action)(error),
        }
    }

    fn late(&self, action: String) -> HostError {
        HostError::Deadline { action, seconds: self.deadline.as_secs() }
    }
}

impl Shared {
    fn hold(&self, source: &ImageSource, device: OwnedFd) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(source.clone(), device);
    }

    /// Takes the server that is ready for an image.
    fn take_readied(&self, source: &ImageSource) -> Option<fuse::Readied> {
        self.readied.lock().unwrap_or_else(PoisonError::into_inner).remove(source)
    }

    /// Keeps a server until its image is mapped.
    fn keep_readied(&self, readied: fuse::Readied) {
        let source = readied.record.source.clone();
        self.readied.lock().unwrap_or_else(PoisonError::into_inner).insert(source, readied);
    }

    fn let_go(&self, source: &ImageSource) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(source);
        // Closing may be what detaches the device: not under the lock.
        drop(held);
    }
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(real), _, _) => real,
        (Err(_), Some(parent), Some(name)) => resolved(parent).join(name),
        (Err(_), _, _) => path,
    }
}

/// The image, for errors.
fn name_of(source: &ImageSource) -> String {
    match source {
        ImageSource::Rbd { pool, image } => format!("{pool}/{image}"),
        ImageSource::File { path } => path.display().to_string(),
    }
}

/// `could not {action}`, because of `source`.
fn failed<E: Into<Box<dyn Error + Send + Sync>>>(
    action: impl Into<String>,
) -> impl FnOnce(E) -> HostError {
    move |source| HostError::Failed { action: action.into(), source: source.into() }
}

impl From<Broken> for HostError {
    fn from(broken: Broken) -> HostError {
        HostError::Failed { action: broken.effect.to_owned(), source: Box::new(broken) }
    }
}

#[async_trait]
impl HostDriver for LinuxHost {
    async fn ready(&self, request: &MapRequest) -> Result<Vec<String>, HostError> {
        self.ready_image(request).await
    }

    async fn map(&self, request: &MapRequest) -> Result<Mapping, HostError> {
        self.map_image(request).await
    }

    async fn unmap(&self, source: &ImageSource) -> Result<Undone, HostError> {
        self.unmap_image(source).await
    }

    async fn abandon(&self, source: &ImageSource, target: &Path) -> Result<Undone, HostError> {
        self.within(self.deadlines().unmap).abandon(source, target).await
    }

    async fn mount(&self, mapping: &Mapping, request: &MountRequest) -> Result<Mounted, HostError> {
        self.within(self.deadlines().mount).mount(mapping, request).await
    }

    async fn unmount(&self, target: &Path) -> Result<Undone, HostError> {
        self.within(self.deadlines().unmount).unmount(target).await
    }

    async fn inventory(&self) -> Result<Inventory, HostError> {
        let look = self.within(self.deadlines().unmount);
        look.call("look for mapped images and mounts", inventory::take).await
    }

    async fn users(&self, device: &Path, target: &Path) -> Result<Vec<String>, HostError> {
        let (device, target) = (device.to_owned(), target.to_owned());
        let action = format!("look for other users of {}", device.display());
        let look = self.within(self.deadlines().unmount);
        let users = move |shared: &Shared| {
            let target = shared.target(&target)?;
            Ok(process_table::namespaces_with(&device, Some(&target)))
        };
        look.call(action, users).await
    }

    async fn serves(&self, source: &ImageSource) -> Result<(), HostError> {
        let source = source.clone();
        let action = format!("look for what serves {}", name_of(&source));
        let look = self.within(self.deadlines().unmount);
        look.call(action, move |shared| shared.is_served(&source)).await
    }

    async fn space(&self, target: &Path) -> Result<Space, HostError> {
        self.within(self.deadlines().unmount).measure(target).await
    }

    async fn grow(&self, mapping: &Mapping, target: &Path, size: u64) -> Result<Grown, HostError> {
        self.within(self.deadlines().grow).grow(mapping, target, size).await
    }

    async fn freeze(
        &self,
        mapping: &Mapping,
        target: &Path,
        bound: Duration,
    ) -> Result<Box<dyn Frozen>, HostError> {
        self.within(self.deadlines().freeze).freeze(mapping, target, bound).await
    }

    async fn thaw_all(&self) -> Result<Vec<PathBuf>, HostError> {
        self.within(self.deadlines().freeze).thaw_all().await
    }

    async fn limit(&self, mapping: &Mapping, limits: &RateLimits) -> Result<(), HostError> {
        self.within(self.deadlines().unmount).limit(mapping, limits).await
    }

    fn holds_limits(&self, access: Access) -> bool {
        match access {
            Access::Kernel => limits::are_possible(),
            Access::Auto | Access::Nbd | Access::Fuse => false,
        }
    }
}
