//! Giving up an image that has become another host's.
//!
//! First whoever could still write is ended, because all that follows waits for nobody then: requests to a device without
//! its server fail at once. The file system is shut down so that it writes nothing out any more, be it to a device whose
//! client is fenced off: what it would write is older than what the other host has written. Steps that fail are reported,
//! and do not keep the others from being done.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use volcore::options::Access;

use super::kernel::Removal;
use super::ledger::Record;
use super::process_table::ProcessId;
use super::{Operation, Shared, failed, mountinfo, name_of};
use crate::host::{HostError, Undone};
use crate::image::ImageSource;

/// How long the file system may take to shut down, and a server that was killed to end.
const BRIEFLY: Duration = Duration::from_secs(5);

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`, `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written out.
const NO_LOG_FLUSH: u32 = 2;

nix::ioctl_read!(
    /// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`, which are the same.
    go_down,
    b'X',
    125,
    u32
);

/// What there is to give up.
struct Remains {
    target: PathBuf,
    record: Option<Record>,
    server: Option<ProcessId>,
    /// Where a server shows the image, if it does.
    shown: Option<PathBuf>,
    mounted: bool,
}

impl Operation<'_> {
    pub(super) async fn abandon(
        &self,
        source: &ImageSource,
        target: &Path,
    ) -> Result<Undone, HostError> {
        let image = name_of(source);
        let action = format!("give up {image}");
        let look = {
            let (source, target) = (source.clone(), target.to_owned());
            move |shared: &Shared| shared.remains(&source, &target)
        };
        let remains = self.call(action.clone(), look).await?;
        let mut first_error = None;
        let mut note = |done: Result<bool, HostError>| {
            done.unwrap_or_else(|error| {
                let cause: &dyn std::error::Error = &error;
                tracing::warn!(image, cause, "an image cannot be given up as a whole yet");
                first_error.get_or_insert(error);
                false
            })
        };
        let mut any = note(self.end_server(&remains).await);
        if remains.mounted {
            self.shut_down(&remains.target).await;
            any |= note(self.unmount_lazily(&remains.target, "detach the mount").await);
        }
        if let Some(shown) = &remains.shown {
            any |= note(self.unmount_lazily(shown, "detach the server's mount").await);
        }
        any |= note(self.drop_device(source, &remains).await);
        match first_error {
            Some(error) => Err(error),
            None if any => Ok(Undone::Done),
            None => Ok(Undone::Absent),
        }
    }

    /// Kills what serves the image, and waits until it is gone.
    async fn end_server(&self, remains: &Remains) -> Result<bool, HostError> {
        const EFFECT: &str = "kill the server";
        let Some(server) = remains.server.and_then(ProcessId::open) else { return Ok(false) };
        self.shared.faults.effect(EFFECT, || {
            server.kill();
            Ok::<_, HostError>(())
        })?;
        let pid = remains.server.map(ProcessId::pid).unwrap_or_default();
        let action = format!("wait for the end of process {pid}");
        if server.wait(BRIEFLY.min(self.left())).await.map_err(failed(&*action))? {
            return Ok(true);
        }
        Err(self.late(action))
    }

    /// Has the file system write nothing out any more. One that knows no such thing gets errors from its device.
    async fn shut_down(&self, target: &Path) {
        const EFFECT: &str = "shut the file system down";
        let brief = Operation { ends: self.ends.min(std::time::Instant::now() + BRIEFLY), ..*self };
        let path = target.to_owned();
        let shut = move |shared: &Shared| {
            let action = format!("{EFFECT} on {}", path.display());
            shared.faults.effect(EFFECT, || shut_down(&path).map_err(failed(action)))
        };
        if let Err(error) = brief.call(EFFECT, shut).await {
            let (target, cause) = (target.display(), &error as &dyn std::error::Error);
            tracing::warn!(%target, cause, "a file system was not shut down; its device gives it errors");
        }
    }

    async fn unmount_lazily(&self, at: &Path, effect: &'static str) -> Result<bool, HostError> {
        let at = at.to_owned();
        let action = format!("unmount {}", at.display());
        self.call(action.clone(), move |shared| {
            shared.faults.effect(effect, || unmount_lazily(&at).map_err(failed(action)))
        })
        .await
    }

    /// Takes the device away; from those who still use it when they end.
    async fn drop_device(
        &self,
        source: &ImageSource,
        remains: &Remains,
    ) -> Result<bool, HostError> {
        let Some(record) = &remains.record else { return Ok(false) };
        match (record.access, &record.nbd, record.attached) {
            (Access::Kernel, _, _) => self.kernel_unmap(source, Removal::Forced).await,
            (Access::Nbd, Some(nbd), _) => self.nbd_disconnect(nbd).await,
            (_, _, Some(attached)) => {
                let file = self.shared.file(source);
                let action = format!("detach {}", attached.device().display());
                self.call(action.clone(), move |shared| {
                    if !attached.is_there(&file) {
                        return Ok(false);
                    }
                    let clear = || attached.clear(&file).map_err(failed(action));
                    shared.faults.effect("detach the loop device", clear)?;
                    // One that is in use goes when it is not any more, and was told so before.
                    Ok(!attached.is_there(&file))
                })
                .await
            }
            _ => Ok(false),
        }
    }
}

impl Shared {
    fn remains(&self, source: &ImageSource, target: &Path) -> Result<Remains, HostError> {
        self.faults.alive("give up an image")?;
        let target = self.target(target)?;
        self.let_go(source);
        let readied = self.take_readied(source).and_then(|readied| readied.server());
        let record = self.ledger.read(source).map_err(failed("read the record"))?;
        let folder = self.fuse_folder(source);
        let is_mounted = |at: &Path| mountinfo::at(at).map(|mounts| !mounts.is_empty());
        let mounted = is_mounted(&target).map_err(failed("read the mounts"))?;
        let shown = match folder {
            Some(folder) if is_mounted(&folder).map_err(failed("read the mounts"))? => Some(folder),
            Some(_) | None => None,
        };
        let recorded = record.as_ref().and_then(|record| record.server);
        let server = readied.or(recorded).or_else(|| self.server(&self.fuse_folder(source)?));
        Ok(Remains { target, record, server, shown, mounted })
    }
}

fn shut_down(target: &Path) -> io::Result<()> {
    let opened = File::open(target)?;
    let mut flags = NO_LOG_FLUSH;
    // SAFETY: the descriptor is open, and the number is read by the kernel, whatever the request's name says.
    match unsafe { go_down(opened.as_raw_fd(), &raw mut flags) } {
        // A file system without it, or one that is down already.
        Ok(_) | Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EIO) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Unmounts all that is mounted on a folder, for those who still use it when they end; says whether there was anything.
fn unmount_lazily(at: &Path) -> io::Result<bool> {
    let mut any = false;
    while !mountinfo::at(at)?.is_empty() {
        match umount2(at, MntFlags::MNT_DETACH | MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => any = true,
            Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(any)
}
