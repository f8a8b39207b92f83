//! The kernel's rbd, through the files of its bus in sysfs.
//!
//! Run on a Linux 6.1 guest (`make test-vm`); the kernel that the rest is developed on has no rbd.
//!
//! `exclusive` keeps other writers out, where the lock alone passes to and fro. `noshare` gives the
//! mapping a client of its own, so that fencing it does not fence the host's other images. The
//! timeouts are there because the kernel waits for ever by default: `lock_timeout` for a lock that a
//! dead client has left (30 s until Ceph knows), `mount_timeout` for monitors. `osd_request_timeout` is
//! how long a cluster may be away before what is mounted gets errors: long, because a file system that
//! got one has to be repaired, but not for ever, because otherwise nothing could be unmounted any more.
//! `alloc_size` is the size of an object: the kernel cuts what is discarded at its multiples and drops the rest. At those
//! of the default (64 KiB) no object is discarded as a whole, so that it stays, emptied, and counts in `rbd du`.
//!
//! `rbd map` does the same, after it has connected to the cluster itself to look at things that the
//! kernel looks at again, which takes several times as long. The key goes into the kernel's keyring, not
//! onto a command line and not into sysfs; it is there while the kernel takes it over, for one process.

mod device;
mod features;
mod log;
mod login;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::timeout;
use volcore::options::{Access, MapOption};

use super::{Operation, Shared, failed, node, process_table};
use crate::host::{HostError, MapRequest, Mapping, Mode};
use crate::image::ImageSource;
use crate::process::{Key, LAST_BREATH, Run, WriteError, write};
pub(super) use device::{Device, devices, find, is_device};
use log::KernelLog;
pub(super) use login::LastLogin;
use login::{Login, Protocol, Secret};

const BUS: &str = "/sys/bus/rbd";
/// The features that the kernel's rbd knows, in hexadecimal.
const FEATURES: &str = "/sys/bus/rbd/supported_features";

/// The options of every mapping; those of a policy come after them, and the last one counts.
const OPTIONS: &str = "noshare,mount_timeout=20,osd_request_timeout=300,alloc_size=4194304";
/// Those of one that writes.
const WRITE: &str = "exclusive,lock_timeout=35";
/// How long Ceph is asked why a mapping failed.
const BLAME: Duration = Duration::from_secs(5);
/// How much sooner a write to the bus is given up than the operation that it is part of: it has ended, or will never,
/// before anything is undone.
const MARGIN: Duration = LAST_BREATH.saturating_add(Duration::from_secs(1));

/// Whether a device is taken away from whoever uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is busy then.
    Unused,
    /// They get errors (`force` of the kernel's bus, Linux 4.9).
    Forced,
}

impl Removal {
    /// What follows the number.
    fn word(self) -> &'static str {
        match self {
            Removal::Unused => "",
            Removal::Forced => " force",
        }
    }
}

/// A mapping that is asked of the kernel.
struct Wanted {
    login: Arc<Login>,
    user: String,
    pool: String,
    image: String,
    mode: Mode,
    options: Vec<MapOption>,
}

impl Wanted {
    fn name(&self) -> String {
        format!("{}/{}", self.pool, self.image)
    }

    fn protocol(&self) -> Protocol {
        let mut modes =
            self.options.iter().filter_map(|option| option.as_str().strip_prefix("ms_mode="));
        if modes.next_back().is_none_or(|mode| mode == "legacy") {
            Protocol::V1
        } else {
            Protocol::V2
        }
    }

    /// What is written to the bus: monitors, options, pool, image, snapshot.
    fn line(&self, monitors: &str, key: Option<&Secret>) -> String {
        let user = &self.user;
        let mut options = vec![format!("name={user}")];
        if key.is_some() {
            options.push(format!("key={}", key_name(user)));
        }
        options.push(OPTIONS.to_owned());
        options.push(if self.mode == Mode::ReadOnly { "ro" } else { WRITE }.to_owned());
        // The last word counts.
        options.extend(self.options.iter().map(|option| option.as_str().to_owned()));
        format!("{monitors} {} {} {} -", options.join(","), self.pool, self.image)
    }

    /// Has the kernel map it. Blocks.
    fn map(&self, deadline: Duration) -> Result<(), HostError> {
        let action = || format!("map {} with the kernel's rbd", self.name());
        let key = self.login.key(&self.user).map_err(failed(action()))?;
        let monitors = self.login.addresses(self.protocol()).map_err(failed(action()))?;
        let line = self.line(&monitors, key.as_ref());
        let name = key_name(&self.user);
        let key = key.as_ref().map(|Secret(payload)| Key { sort: "ceph", name: &name, payload });
        let log = KernelLog::from_now_on();
        match write(&bus("add"), line.as_bytes(), key.as_ref(), deadline) {
            Ok(()) => Ok(()),
            Err(WriteError::Refused(Errno::ENOENT)) if bus("add").exists() => {
                Err(HostError::NoImage { image: self.name() })
            }
            Err(error) => Err(failed(action())(Refusal { error, said: log.said(), monitors })),
        }
    }
}

/// The name of a user's key in the kernel's keyring.
fn key_name(user: &str) -> String {
    format!("client.{user}")
}

/// The file of the bus that adds or removes; one of the two kinds is there (`single_major` of the module).
fn bus(what: &str) -> std::path::PathBuf {
    let single = Path::new(BUS).join(format!("{what}_single_major"));
    if single.exists() { single } else { Path::new(BUS).join(what) }
}

/// The kernel does not map an image.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", hint(error, monitors), said.as_ref().map(|said| format!("; the kernel said: {said}")).unwrap_or_default())]
struct Refusal {
    error: WriteError,
    said: Option<String>,
    monitors: String,
}

fn hint(error: &WriteError, monitors: &str) -> String {
    let hint = match error {
        WriteError::Refused(Errno::ETIMEDOUT | Errno::EIO) | WriteError::Deadline(_) => {
            format!(" (do the monitors {monitors} answer, and the OSDs?)")
        }
        WriteError::Refused(Errno::EINVAL) => {
            " (are the volume's map-options what this kernel takes?)".to_owned()
        }
        WriteError::Refused(Errno::EPERM | Errno::EACCES) => {
            " (is the user's key the cluster's, and do its capabilities include the pool?)"
                .to_owned()
        }
        WriteError::Refused(_) | WriteError::Key(_) | WriteError::Child(_) => String::new(),
    };
    format!("{error}{hint}")
}

impl Operation<'_> {
    /// Whether the kernel has rbd, or a module of it.
    pub(super) async fn kernel_is_possible(&self) -> Result<(), HostError> {
        if Path::new(BUS).exists() || self.has_module("rbd").await {
            return Ok(());
        }
        let reason = "this kernel has neither rbd nor a module of that name; install one that has (Debian: \
             linux-image-amd64), or use access nbd or fuse";
        Err(HostError::NoAccess { access: Access::Kernel, reason: reason.to_owned() })
    }

    pub(super) async fn has_module(&self, name: &str) -> bool {
        let dry_run = self.run(&self.shared.programs.modprobe);
        dry_run.args(["--dry-run", "--quiet", name]).output().await.is_ok()
    }

    /// A call of `rbd` with the host's configuration and user.
    pub(super) fn rbd(&self, args: &[&str]) -> Run {
        let config = &self.shared.config;
        self.run(&self.shared.programs.rbd)
            .arg("-c")
            .arg(&config.ceph_conf)
            .args(["--id", &config.ceph_user])
            .args(args)
    }

    pub(super) async fn kernel_map(
        &self,
        (pool, image): (&str, &str),
        request: &MapRequest,
    ) -> Result<Mapping, HostError> {
        let source = &request.source;
        if let Some(found) = self.kernel_find(source).await? {
            return Ok(found.mapping(source.clone()));
        }
        self.load_module().await?;
        let wanted = Wanted {
            login: self.login().await?,
            user: self.shared.config.ceph_user.clone(),
            pool: pool.to_owned(),
            image: image.to_owned(),
            mode: request.mode,
            options: request.options.clone(),
        };
        let (name, deadline) = (wanted.name(), self.left().saturating_sub(MARGIN));
        let action = format!("map {name} with the kernel's rbd");
        let mapped = self.call(action.clone(), move |_| wanted.map(deadline)).await;
        if let Err(error) = mapped {
            return Err(self.blame(source, &name, error).await);
        }
        let found = self.kernel_find(source).await?.ok_or_else(|| {
            failed(action)(format!(
                "the kernel reports success, and {} does not show it",
                device::DEVICES
            ))
        })?;
        let (action, path) = (format!("make {}", found.path.display()), found.path.clone());
        self.call(action.clone(), move |_| node::make(&path).map_err(failed(action))).await?;
        Ok(found.mapping(source.clone()))
    }

    /// Minors of one major, because there are no more than 256 majors.
    async fn load_module(&self) -> Result<(), HostError> {
        if Path::new(BUS).exists() {
            return Ok(());
        }
        let load = self.run(&self.shared.programs.modprobe).args(["rbd", "single_major=Y"]);
        load.output().await.map(drop).map_err(self.program_failed("load the kernel's module rbd"))
    }

    /// The error of a mapping that failed, or a better one.
    async fn blame(&self, source: &ImageSource, name: &str, error: HostError) -> HostError {
        if matches!(error, HostError::NoImage { .. }) {
            return error;
        }
        // A cluster that answers does so at once, and one that does not has said all there is to say.
        match timeout(BLAME, self.unknown_features(name)).await {
            Ok(Some(reason)) => HostError::NoAccess { access: Access::Kernel, reason },
            Ok(None) => self.blame_lock(source, error).await,
            Err(_elapsed) => error,
        }
    }

    /// What the kernel lacks that the image has, and what helps.
    async fn unknown_features(&self, image: &str) -> Option<String> {
        let known = std::fs::read_to_string(FEATURES).ok()?;
        let info = self.rbd(&["info", "--format", "json", image]).output().await.ok()?;
        features::lacking(known.trim(), &info.stdout, image)
    }

    async fn kernel_find(&self, source: &ImageSource) -> Result<Option<Device>, HostError> {
        let source = source.clone();
        self.call("list the kernel's rbd devices", move |_: &Shared| {
            find(&source).map_err(failed("list the kernel's rbd devices"))
        })
        .await
    }

    /// Takes the image's devices away, though `manner` says whether also from whoever uses them; says whether there were any.
    pub(super) async fn kernel_unmap(
        &self,
        source: &ImageSource,
        manner: Removal,
    ) -> Result<bool, HostError> {
        let mut any = false;
        while let Some(found) = self.kernel_find(source).await? {
            any = true;
            let (action, path) = (format!("unmap {}", found.path.display()), found.path.clone());
            let deadline = self.left().saturating_sub(MARGIN);
            let remove = {
                let action = action.clone();
                move |_: &Shared| {
                    let line = format!("{}{}", found.number(), manner.word());
                    match write(&bus("remove"), line.as_bytes(), None, deadline) {
                        Err(WriteError::Refused(Errno::EBUSY)) => Err(HostError::Busy {
                            what: path.display().to_string(),
                            holders: process_table::device_holders(&path),
                        }),
                        // Somebody else has removed it.
                        Err(WriteError::Refused(Errno::ENOENT)) => Ok(()),
                        done => done.map_err(failed(action)),
                    }
                }
            };
            self.call(action, remove).await?;
        }
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_the_bus_has_no_secret() {
        let login: Login = Login::for_tests("10.0.0.1,[v2:10.0.0.2:3300/0,v1:10.0.0.2:6789/0]");
        let mut wanted = Wanted {
            login: Arc::new(login),
            user: "host".to_owned(),
            pool: "rbd".to_owned(),
            image: "t.v".to_owned(),
            mode: Mode::ReadWrite,
            options: vec!["queue_depth=256".parse().unwrap()],
        };
        let line = |wanted: &Wanted| {
            let monitors = wanted.login.addresses(wanted.protocol()).unwrap();
            wanted.line(&monitors, Some(&Secret(b"very secret".to_vec())))
        };
        assert_eq!(
            line(&wanted),
            "10.0.0.1:6789,10.0.0.2:6789 name=host,key=client.host,noshare,mount_timeout=20,\
             osd_request_timeout=300,alloc_size=4194304,exclusive,lock_timeout=35,queue_depth=256 rbd t.v -"
        );
        wanted.mode = Mode::ReadOnly;
        wanted.options = vec!["ms_mode=secure".parse().unwrap()];
        assert_eq!(
            line(&wanted),
            "10.0.0.1:3300,10.0.0.2:3300 name=host,key=client.host,noshare,mount_timeout=20,\
             osd_request_timeout=300,alloc_size=4194304,ro,ms_mode=secure rbd t.v -"
        );
    }
}
