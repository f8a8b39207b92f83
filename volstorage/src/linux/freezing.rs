//! Freezing what is mounted, and thawing what was left frozen.
//!
//! Nothing but the suite's own mounts is ever frozen: below the mount root, from a device that an image is mapped to, and
//! the folder that is opened is compared with the kernel's list of mounts.

use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use volcore::order::Thawed;

use super::mountinfo::Mount;
use super::{Operation, Shared, failed, mountinfo, mounts, name_of};
use crate::host::{Frozen, HostError, Mapping};
use crate::process::{self, Freeze};

/// What stands for a file system that a child keeps frozen.
struct ByChild(Freeze);

#[async_trait]
impl Frozen for ByChild {
    async fn over(&mut self) {
        self.0.over().await;
    }

    async fn thaw(self: Box<Self>) -> Thawed {
        self.0.thaw().await
    }
}

impl Operation<'_> {
    pub(super) async fn freeze(
        &self,
        mapping: &Mapping,
        target: &Path,
        bound: Duration,
    ) -> Result<Box<dyn Frozen>, HostError> {
        let action = format!("freeze {}", target.display());
        let open = {
            let (mapping, target, action) = (mapping.clone(), target.to_owned(), action.clone());
            move |shared: &Shared| shared.open_mount(&mapping, &target, &action)
        };
        let folder = self.call(action.clone(), open).await?;
        self.shared.faults.alive("freeze")?;
        match tokio::time::timeout(self.left(), process::freeze(folder, bound)).await {
            Ok(Ok(freeze)) => Ok(Box::new(ByChild(freeze))),
            Ok(Err(error)) if error.raw_os_error() == Some(libc::EBUSY) => {
                let path = target.display();
                Err(failed(action)(format!(
                    "it is frozen already; if nobody else is at it, `fsfreeze --unfreeze {path}` thaws it"
                )))
            }
            Ok(Err(error)) => Err(failed(action)(error)),
            Err(_elapsed) => Err(self.late(action)),
        }
    }

    pub(super) async fn thaw_all(&self) -> Result<Vec<PathBuf>, HostError> {
        let ours = |shared: &Shared| {
            let all = mountinfo::read().map_err(failed("read the mounts"))?;
            let is_ours = |mount: &Mount| {
                mounts::is_below(&mount.target, &shared.config.mount_root)
                    && mounts::is_image(&mount.source)
            };
            Ok(all.into_iter().filter(is_ours).collect::<Vec<_>>())
        };
        let mounts = self.call("look for what is frozen", ours).await?;
        // Side by side, as one that hangs must not keep the others frozen.
        let thaw = |mount: Mount| {
            let target = mount.target.clone();
            let action = format!("thaw {}", target.display());
            let thaw = {
                let action = action.clone();
                move |_: &Shared| {
                    let folder = open(&mount).map_err(failed(&*action))?;
                    process::thaw(&folder).map_err(failed(action))
                }
            };
            let shared = self.shared.clone();
            let (ends, deadline) = (self.ends, self.deadline);
            tokio::spawn(async move {
                let thawed = Operation { shared: &shared, ends, deadline }.call(action, thaw).await;
                (target, thawed)
            })
        };
        let tasks: Vec<_> = mounts.into_iter().map(thaw).collect();
        let (mut found, mut trouble) = (Vec::new(), None);
        for task in tasks {
            match task.await.map_err(failed("thaw what is mounted"))? {
                (target, Ok(true)) => found.push(target),
                (_, Ok(false)) => {}
                (_, Err(error)) => trouble = trouble.or(Some(error)),
            }
        }
        trouble.map_or(Ok(found), Err)
    }
}

impl Shared {
    /// Opens the folder of a mount, if it is this image's.
    fn open_mount(
        &self,
        mapping: &Mapping,
        target: &Path,
        action: &str,
    ) -> Result<OwnedFd, HostError> {
        let target = self.target(target)?;
        let mounted = mountinfo::at(&target).map_err(failed("read the mounts"))?.pop();
        let ours = mounted
            .filter(|mount| mount.source == mapping.device && mounts::is_image(&mount.source));
        let Some(mount) = ours else {
            let device = mapping.device.display();
            return Err(failed(action)(format!("{device} is not mounted there")));
        };
        if !self.is_mapped(mapping)? {
            let (image, device) = (name_of(&mapping.source), mapping.device.display());
            return Err(failed(action)(format!("{image} is not mapped to {device} any more")));
        }
        open(&mount).map_err(failed(action))
    }
}

/// Opens the folder of a mount, which has to be that mount's still.
fn open(mount: &Mount) -> std::io::Result<OwnedFd> {
    let mut options = std::fs::OpenOptions::new();
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NOATIME;
    let folder: OwnedFd = options.read(true).custom_flags(flags).open(&mount.target)?.into();
    let number = std::os::fd::AsRawFd::as_raw_fd(&folder);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    if id == Some(mount.id) {
        return Ok(folder);
    }
    Err(std::io::Error::other("something else is mounted there now"))
}
