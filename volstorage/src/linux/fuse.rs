//! `rbd-fuse`: shows one image as a file, for a loop device (rbd-fuse(8)).
//!
//! Seen with 16.2: without a monitor it hangs before it has mounted anything, and exits with 0 after
//! 300 s. With one it mounts, exits with 0, and connects a second time in the background: a missing
//! pool then ends the server, and a missing image is a folder without the file. So only a look at the
//! file tells, and when there is none, `rbd info` tells why.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::process_table::{self, Handle, ProcessId};
use super::{Operation, Shared, failed, mountinfo, mounts, name_of};
use crate::host::{HostError, Mode};
use crate::image::ImageSource;
use crate::process::{Ending, ProcessError};

/// The type of its mounts.
pub(super) const FILESYSTEM: &str = "fuse.rbd-fuse";

/// The server's name.
pub(super) const PROGRAM: &str = "rbd-fuse";

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It is unmounted, closes the image, and ends by itself.
    Orderly,
    /// It does not answer: it is cut off, and has less time to end.
    Abort,
}

impl Operation<'_> {
    /// Starts a server and waits until it shows the image.
    pub(super) async fn fuse_start(
        &self,
        pool: &str,
        image: &str,
        mode: Mode,
    ) -> Result<(), HostError> {
        const EFFECT: &str = "start rbd-fuse";
        let config = &self.shared.config;
        let source = ImageSource::Rbd { pool: pool.to_owned(), image: image.to_owned() };
        let folder = config.map_root.join(pool).join(image);
        // Where it takes too long, it is the cluster that does not answer.
        let ceph = config.ceph_conf.display();
        let action = format!("map {pool}/{image} from ceph ({ceph}) with rbd-fuse");
        let make = {
            let folder = folder.clone();
            move |shared: &Shared| {
                let action = format!("make the folder {}", folder.display());
                shared.faults.effect("make the map's folder", || {
                    mounts::make_folder(&folder, &shared.config.map_root).map_err(failed(action))
                })
            }
        };
        self.call(action.clone(), make).await?;
        self.shared.faults.alive(EFFECT)?;
        let server = self
            .run(&self.shared.programs.rbd_fuse)
            .arg("-c")
            .arg(&config.ceph_conf)
            .args(["-p", pool, "-r", image])
            .args(if mode == Mode::ReadOnly { &["-o", "ro"][..] } else { &[] })
            .env("CEPH_ARGS", format!("--id {}", config.ceph_user));
        // The folder is last: that is how the server is found again.
        server.arg(&folder).daemon().await.map_err(self.program_failed(action.clone()))?;
        self.shared.faults.effect(EFFECT, || Ok::<_, HostError>(()))?;
        let file = folder.join(image);
        let look = move |_: &Shared| Ok(file.metadata());
        match self.call(action.clone(), look).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(&source, failed(action)(error)).await),
        }
    }

    /// Why an image is not shown, as far as `rbd` knows.
    async fn explain(&self, source: &ImageSource, otherwise: HostError) -> HostError {
        let image = name_of(source);
        match self.rbd(&["info", "--format", "json", &image]).output().await {
            Err(ProcessError::Failed { ending: Ending::Exit(libc::ENOENT), .. }) => {
                HostError::NoImage { image }
            }
            Err(error @ ProcessError::Failed { .. }) => {
                self.program_failed(format!("map {image}"))(error)
            }
            // It says that all is well, or is not installed.
            Ok(_) | Err(_) => otherwise,
        }
    }

    /// Unmounts an image's folder and waits until its server has ended, so that its watch and lock
    /// are gone too; says whether there was something.
    pub(super) async fn fuse_stop(
        &self,
        source: &ImageSource,
        server: Option<ProcessId>,
        manner: Manner,
    ) -> Result<bool, HostError> {
        let Some(folder) = self.shared.fuse_folder(source) else { return Ok(false) };
        let action = format!("unmount {}", folder.display());
        let find = {
            let folder = folder.clone();
            move |shared: &Shared| {
                shared.faults.alive("unmount rbd-fuse")?;
                let mounted = mountinfo::at(&folder).map_err(failed("read the mounts"))?;
                let mounted = !mounted.is_empty();
                // A folder that is mounted is not looked at: its server may hang.
                let trace = mounted || folder.exists();
                let server = server.or_else(|| trace.then(|| shared.server(&folder)).flatten());
                Ok((mounted, server.and_then(ProcessId::open)))
            }
        };
        let (mounted, server) = self.call(action.clone(), find).await?;
        if mounted {
            self.fuse_unmount(&folder, manner).await?;
        }
        if let Some(server) = &server {
            self.see_end(server, &folder, manner).await?;
        }
        self.call(action, move |shared| {
            let remove = || mounts::remove_folders(&folder, &shared.config.map_root);
            let action = format!("remove {}", folder.display());
            let removed = shared
                .faults
                .effect("remove the map's folder", || remove().map_err(failed(action)))?;
            Ok(mounted || removed)
        })
        .await
    }
}

impl Operation<'_> {
    async fn fuse_unmount(&self, folder: &Path, manner: Manner) -> Result<(), HostError> {
        let action = format!("unmount {}", folder.display());
        let flags = match manner {
            Manner::Orderly => MntFlags::UMOUNT_NOFOLLOW,
            // Ends what waits for the server, too.
            Manner::Abort => MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_FORCE,
        };
        let attempt = {
            let (folder, action) = (folder.to_owned(), action.clone());
            move |shared: &Shared| {
                let unmount = || unmount(&folder, flags).map_err(failed(&*action));
                shared.faults.effect("unmount rbd-fuse", unmount)
            }
        };
        if self.until(action.clone(), attempt).await? {
            return Ok(());
        }
        let folder = folder.to_owned();
        self.call(action, move |_| match manner {
            Manner::Orderly => {
                let holders = process_table::mount_holders(&folder);
                Err(HostError::Busy { what: folder.display().to_string(), holders })
            }
            // It is cut off, so nobody can do anything with it any more.
            Manner::Abort => umount2(&folder, flags | MntFlags::MNT_DETACH)
                .map_err(failed(format!("unmount {}", folder.display()))),
        })
        .await
    }

    /// Waits until the server has ended, and ends it if it does not.
    async fn see_end(
        &self,
        server: &Handle,
        folder: &Path,
        manner: Manner,
    ) -> Result<(), HostError> {
        const LAST_BREATH: Duration = Duration::from_secs(3);
        let action = format!("wait for the end of rbd-fuse for {}", folder.display());
        let deadlines = self.shared.config.deadlines;
        let patience = match manner {
            Manner::Orderly => deadlines.close.min(self.left().saturating_sub(LAST_BREATH)),
            Manner::Abort => deadlines.release,
        };
        self.shared.faults.alive("wait for the end of rbd-fuse")?;
        if server.wait(patience).await.map_err(failed(&*action))? {
            return Ok(());
        }
        tracing::warn!(folder = %folder.display(), ?patience, "rbd-fuse does not end, and is killed");
        server.kill();
        if server.wait(LAST_BREATH).await.map_err(failed(&*action))? {
            return Ok(());
        }
        Err(self.late(action))
    }
}

/// Unmounts all that is mounted on a folder; says whether nothing is left.
fn unmount(folder: &Path, flags: MntFlags) -> io::Result<bool> {
    while !mountinfo::at(folder)?.is_empty() {
        match umount2(folder, flags) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(Errno::EBUSY) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

impl Shared {
    /// The folder in which an image of Ceph is shown; local files need none.
    pub(super) fn fuse_folder(&self, source: &ImageSource) -> Option<PathBuf> {
        match source {
            ImageSource::Rbd { pool, image } => Some(self.config.map_root.join(pool).join(image)),
            ImageSource::File { .. } => None,
        }
    }

    /// The process that serves a folder.
    pub(super) fn server(&self, folder: &Path) -> Option<ProcessId> {
        process_table::server(PROGRAM, folder)
    }
}
