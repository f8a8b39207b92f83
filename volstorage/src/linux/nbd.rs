//! `rbd-nbd`: librbd in a process of its own behind the kernel's nbd (rbd-nbd(8)).
//!
//! Run on a Linux 6.1 guest (`make test-vm`). The device is the kernel's choice (`--try-netlink`), so two
//! that map at the same time do not choose the same one; and it has a cookie, by which it is known again
//! after its number was used for another image. What Linux and rbd-nbd 16.2 do not do is done here:
//!
//! * They disconnect a device that is mounted. So it is claimed first, which fails while a file system
//!   has it, in whatever mount namespace.
//! * A device does not follow its image when that becomes larger. So it is told to (`resize`).
//! * A device whose rbd-nbd was killed stays, refuses everything, and is on no list. The record of the
//!   mapping knows it, and it is disconnected with the mapping.

mod resize;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use volcore::options::Access;

use super::growth::device_size;
use super::ledger::Record;
use super::process_table::{self, ProcessId};
use super::{Operation, Shared, failed, name_of, node};
use crate::host::{HostError, Mapping, Mode};
use crate::image::ImageSource;
use crate::process::Run;

const BLOCK: &str = "/sys/block";
const EXCLUSIVE: &str = "--exclusive";
const READ_ONLY: &str = "--read-only";

/// A device that serves one mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NbdId {
    /// `/dev/nbdN`.
    pub device: PathBuf,
    /// What nobody else's device has; empty where the kernel knows none (before Linux 5.14).
    cookie: String,
}

impl NbdId {
    /// Whether the device is still the one of this mapping, be it that nobody serves it any more.
    pub fn is_there(&self) -> bool {
        let folder = Path::new(BLOCK).join(self.device.file_name().unwrap_or_default());
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let connected = read("size").trim() != "0";
        connected && (self.cookie.is_empty() || read("backend").trim() == self.cookie)
    }

    /// Makes the device larger.
    fn resize(&self, bytes: u64) -> io::Result<()> {
        let name = self.device.to_str().and_then(|device| device.strip_prefix("/dev/nbd"));
        let number = name.and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| io::Error::other("not a network block device"))?;
        resize::resize(number, &self.cookie, bytes)
    }

    /// Fails while a file system has the device.
    fn claim(&self) -> io::Result<()> {
        let claim = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&self.device);
        claim.map(drop)
    }

    fn mapping(&self, source: &ImageSource, clients: Vec<String>) -> Mapping {
        Mapping {
            source: source.clone(),
            device: self.device.clone(),
            access: Access::Nbd,
            clients,
        }
    }
}

/// One line of `rbd-nbd list-mapped --format json`.
#[derive(Debug, Deserialize)]
struct Listed {
    /// The process; a text before 16, then a number.
    id: serde_json::Value,
    pool: String,
    #[serde(default)]
    namespace: String,
    image: String,
    #[serde(default)]
    snap: String,
    device: PathBuf,
    #[serde(default)]
    cookie: String,
}

impl Listed {
    fn found(self) -> Found {
        let server = self.id.as_i64().and_then(|pid| ProcessId::running(i32::try_from(pid).ok()?));
        (NbdId { device: self.device, cookie: self.cookie }, server)
    }
}

/// What `rbd info --format json` says of an image's size.
#[derive(Debug, Deserialize)]
struct Sized {
    size: u64,
}

/// Whether an rbd-nbd was started as this host starts it: one that keeps no second writer out is somebody else's.
fn is_ours(server: ProcessId) -> bool {
    server.has_argument(EXCLUSIVE) || server.has_argument(READ_ONLY)
}

/// A device and its rbd-nbd.
type Found = (NbdId, Option<ProcessId>);

/// The device of an image.
fn find(list: &[u8], pool: &str, image: &str) -> Result<Option<Listed>, serde_json::Error> {
    // Nothing mapped is no output at all.
    if list.trim_ascii().is_empty() {
        return Ok(None);
    }
    let list: Vec<Listed> = serde_json::from_slice(list)?;
    let is = |found: &Listed| {
        (found.pool.as_str(), found.image.as_str()) == (pool, image)
            && found.namespace.is_empty()
            && matches!(found.snap.as_str(), "" | "-")
    };
    Ok(list.into_iter().find(is))
}

impl Operation<'_> {
    /// Whether the kernel has nbd, or a module of it, and `rbd-nbd` is installed.
    pub(super) async fn nbd_is_possible(&self) -> Result<(), HostError> {
        let refuse = |reason: String| Err(HostError::NoAccess { access: Access::Nbd, reason });
        if let Err(error) = self.shared.programs.rbd_nbd.path() {
            return refuse(error.to_string());
        }
        if Path::new("/sys/block/nbd0").exists() || self.has_module("nbd").await {
            return Ok(());
        }
        refuse(
            "this kernel has neither nbd nor a module of that name; install one that has (Debian: \
             linux-image-amd64), or use access fuse"
                .to_owned(),
        )
    }

    fn rbd_nbd(&self) -> Run {
        let config = &self.shared.config;
        self.run(&self.shared.programs.rbd_nbd)
            .arg("-c")
            .arg(&config.ceph_conf)
            .args(["--id", &config.ceph_user])
    }

    pub(super) async fn nbd_map(&self, record: Record) -> Result<Mapping, HostError> {
        let source = record.source.clone();
        let name = name_of(&source);
        let action = format!("map {name} with rbd-nbd");
        let kind = match record.mode {
            Mode::ReadWrite => EXCLUSIVE,
            Mode::ReadOnly => READ_ONLY,
        };
        let found = match self.nbd_find(&source).await? {
            // One of this host whose record was not completed.
            Some(found) if found.1.is_some_and(|server| server.has_argument(kind)) => found,
            Some((nbd, _)) => {
                let device = nbd.device.display();
                return Err(failed(action)(format!(
                    "it is mapped already, as {device}, and not by volplugin: whoever did that has to unmap it \
                     (`rbd-nbd unmap {device}`)"
                )));
            }
            None => {
                let missing = self.missing().await;
                let map = self.rbd_nbd().args(["map", kind, "--try-netlink", &name]).daemon().await;
                if let Err(error) = map {
                    if let Some(reason) =
                        missing.key.filter(|_| error.to_string().contains("keyring"))
                    {
                        return Err(failed(action)(reason));
                    }
                    // It says 1, whatever is the matter.
                    if self.is_missing(&name).await {
                        return Err(HostError::NoImage { image: name });
                    }
                    let error = match self.program_failed(action)(error) {
                        HostError::Deadline { action, seconds } => HostError::Deadline {
                            action: format!(
                                "{action} (do the monitors {} answer, and the OSDs?)",
                                missing.monitors
                            ),
                            seconds,
                        },
                        error => error,
                    };
                    return Err(self.blame_lock(&source, error).await);
                }
                self.nbd_find(&source).await?.ok_or_else(|| {
                    failed(action)("rbd-nbd reports success, and its list does not show the image")
                })?
            }
        };
        let (nbd, server) = found;
        // With `--exclusive` it has the lock before it is on the list.
        let clients = match record.mode {
            Mode::ReadWrite => self.lock_owners(&name).await?,
            Mode::ReadOnly => Vec::new(),
        };
        self.call(format!("record {name}"), move |shared| {
            let action = format!("make {}", nbd.device.display());
            node::make(&nbd.device).map_err(failed(action))?;
            let record = record.by(clients.clone()).on_nbd(nbd.clone(), server);
            shared.write(&record, "complete the record")?;
            Ok(nbd.mapping(&source, clients))
        })
        .await
    }

    async fn nbd_find(&self, source: &ImageSource) -> Result<Option<Found>, HostError> {
        let ImageSource::Rbd { pool, image } = source else { return Ok(None) };
        let action = "list what rbd-nbd has mapped";
        let list = self.rbd_nbd().args(["list-mapped", "--format", "json"]).output().await;
        let list = list.map_err(self.program_failed(action))?;
        let found = find(&list.stdout, pool, image).map_err(failed(action))?;
        Ok(found.map(Listed::found))
    }

    /// Takes the device away, and waits for its rbd-nbd to end: then it has given up its lock.
    pub(super) async fn nbd_unmap(
        &self,
        source: &ImageSource,
        recorded: Option<Found>,
    ) -> Result<(), HostError> {
        let found = match recorded {
            Some(recorded) => Some(recorded),
            None => self.nbd_find(source).await?.filter(|(_, server)| server.is_some_and(is_ours)),
        };
        let Some((found, server)) = found else { return Ok(()) };
        let device = found.device.display().to_string();
        let action = format!("unmap {device}");
        if found.is_there() {
            let claim = {
                let (found, action) = (found.clone(), action.clone());
                move |_: &Shared| match found.claim() {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(found.busy()),
                    claimed => claimed.map_err(failed(action)),
                }
            };
            self.call(action.clone(), claim).await?;
            let unmap = self.rbd_nbd().arg("unmap").arg(&found.device).output().await;
            unmap.map(drop).map_err(self.program_failed(action.clone()))?;
            let gone = found.clone();
            if !self.until(action.clone(), move |_| Ok(!gone.is_there())).await? {
                return Err(failed(action)("it is still connected"));
            }
        }
        let Some(server) = server.and_then(ProcessId::open) else { return Ok(()) };
        if server.wait(self.left().min(self.shared.config.deadlines.close)).await.unwrap_or(true) {
            return Ok(());
        }
        server.kill();
        tracing::warn!(device, "rbd-nbd did not end, and was killed: it leaves its lock");
        Ok(())
    }

    /// Has the kernel take the device away although a file system has it. Its rbd-nbd was killed.
    pub(super) async fn nbd_disconnect(&self, nbd: &NbdId) -> Result<bool, HostError> {
        if !nbd.is_there() {
            return Ok(false);
        }
        let unmap = self.rbd_nbd().arg("unmap").arg(&nbd.device).output().await;
        let action = format!("disconnect {}", nbd.device.display());
        unmap.map(|_| true).map_err(self.program_failed(action))
    }

    /// Makes the device as large as its image, for which it waits until that has `size` bytes.
    pub(super) async fn nbd_follow(&self, mapping: &Mapping, size: u64) -> Result<(), HostError> {
        const PAUSE: Duration = Duration::from_millis(200);
        let name = name_of(&mapping.source);
        let action = format!("grow {}", mapping.device.display());
        let ends = Instant::now() + self.shared.config.deadlines.release;
        while device_size(&mapping.device).map_err(failed(&*action))? < size {
            let info = self.rbd(&["info", "--format", "json", &name]).output().await;
            let info = info.map_err(self.program_failed(action.clone()))?;
            let Sized { size: bytes } =
                serde_json::from_slice(&info.stdout).map_err(failed(&*action))?;
            if bytes >= size {
                let (source, action_of) = (mapping.source.clone(), action.clone());
                let resize = move |shared: &Shared| {
                    let record = shared.ledger.read(&source).map_err(failed(&*action_of))?;
                    let nbd = record.and_then(|record| record.nbd).filter(NbdId::is_there);
                    let resize = || nbd.map_or(Ok(()), |nbd| nbd.resize(bytes));
                    shared.faults.effect("grow the device", || resize().map_err(failed(action_of)))
                };
                return self.call(action, resize).await;
            }
            if Instant::now() + PAUSE >= ends {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Whether Ceph says that there is no such image.
    async fn is_missing(&self, name: &str) -> bool {
        let info = self.rbd(&["info", "--format", "json", name]).any_exit().output().await;
        info.is_ok_and(|info| info.code == libc::ENOENT)
    }
}

impl NbdId {
    fn busy(&self) -> HostError {
        HostError::Busy {
            what: self.device.display().to_string(),
            holders: process_table::device_holders(&self.device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let list = br#"[{"id":"4711","pool":"rbd","namespace":"","image":"t.w","snap":"-","device":"/dev/nbd0"},
            {"id":"4712","pool":"rbd","namespace":"","image":"t.v","snap":"day","device":"/dev/nbd1"},
            {"id":"4713","pool":"rbd","namespace":"","image":"t.v","snap":"","device":"/dev/nbd2","cookie":"cc96"}]"#;
        let found = |list: &[u8], image: &str| {
            find(list, "rbd", image).map(|found| found.map(|found| (found.device, found.cookie)))
        };
        let wanted = ("/dev/nbd2".into(), "cc96".to_owned());
        assert_eq!(found(list, "t.v").unwrap(), Some(wanted));
        assert_eq!(found(list, "t.x").unwrap(), None);
        assert_eq!(found(b"\n", "t.v").unwrap(), None);
        assert!(found(b"nonsense", "t.v").is_err());
    }
}
