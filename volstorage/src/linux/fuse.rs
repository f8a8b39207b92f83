//! The server of one image ([`serve`](crate::serve)): shows it as a file, for a loop device.
//!
//! It is started in two steps. Connected, it says by which addresses the cluster knows it, and waits; only when it is told to
//! open does it take the image's lock, and can it write. Between the two it is kept in `Shared`, with the pipes to it: it ends
//! when they are closed, so a process that dies in between leaves nothing that could write.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use tokio::time::timeout;

use super::ledger::{Record, remove_file};
use super::process_table::{self, Handle, ProcessId};
use super::{Operation, Shared, failed, mountinfo, mounts, name_of};
use crate::host::{HostError, Mapping};
use crate::image::ImageSource;
use crate::process::{Run, Service};
use crate::serve::{self, OPEN, Wanted, Word};

/// The type of its mounts.
pub(super) const FILESYSTEM: &str = "fuse.volplugin";

/// The server's name.
pub(super) const PROGRAM: &str = serve::PROGRAM;

/// What the package is called that has it.
pub(super) const PACKAGE: &str = "volplugin";

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It is unmounted, closes the image, and ends by itself.
    Orderly,
    /// It does not answer: it is cut off, and has less time to end.
    Abort,
}

/// A server that is connected and waits for the word to open.
#[derive(Debug)]
pub(super) struct Readied {
    service: Service,
    server: Option<ProcessId>,
    /// What is on record of it.
    pub record: Record,
}

impl Readied {
    /// Whether it still waits.
    pub fn is_there(&self) -> bool {
        self.server.is_some_and(|server| server.open().is_some())
    }

    /// Its process.
    pub fn server(&self) -> Option<ProcessId> {
        self.server
    }
}

impl Operation<'_> {
    /// Starts a server and waits until it is connected. The record is written already.
    pub(super) async fn fuse_start(
        &self,
        record: Record,
        (pool, image): (&str, &str),
    ) -> Result<Readied, HostError> {
        const EFFECT: &str = "start the server";
        let folder = self.shared.config.map_root.join(pool).join(image);
        let action = self.fuse_action(&record.source);
        let make = {
            let (folder, source) = (folder.clone(), record.source.clone());
            move |shared: &Shared| {
                // Of a server before; whoever reads it takes it for this one's.
                let mark = shared.ledger.mark(&source);
                remove_file(&mark).map_err(failed("remove the mark of a server before"))?;
                let action = format!("make the folder {}", folder.display());
                shared.faults.effect("make the map's folder", || {
                    mounts::make_folder(&folder, &shared.config.map_root).map_err(failed(action))
                })
            }
        };
        self.call(action.clone(), make).await?;
        self.shared.faults.alive(EFFECT)?;
        let run = self.server_of(&record, (pool, image))?.arg(&folder);
        let log = self.shared.ledger.log(&record.source);
        let mut service = run.service(&log).map_err(self.program_failed(action.clone()))?;
        let server = ProcessId::running(service.pid());
        self.shared.faults.effect(EFFECT, || Ok::<_, HostError>(()))?;
        match self.hear(&mut service, &record.source).await? {
            Word::Connected { clients } => {
                Ok(Readied { service, server, record: record.by(clients) })
            }
            word => Err(self.refused(&record.source, word).await),
        }
    }

    /// The command that serves an image, but for the folder: that is last, and how the server is found again.
    fn server_of(&self, record: &Record, (pool, image): (&str, &str)) -> Result<Run, HostError> {
        let config = &self.shared.config;
        let wanted = Wanted {
            conf: config.ceph_conf.clone(),
            user: config.ceph_user.clone(),
            pool: pool.to_owned(),
            image: image.to_owned(),
            mode: record.mode,
            mark: self.shared.ledger.mark(&record.source),
        };
        let wanted = serde_json::to_string(&wanted)
            .map_err(failed(format!("tell a server what {pool}/{image} is")))?;
        Ok(self.run(&self.shared.programs.server).args(&config.server.args).arg(wanted))
    }

    /// Has a server open the image, and waits until it shows it; then attaches a loop device to that.
    pub(super) async fn fuse_open(&self, readied: Readied) -> Result<Mapping, HostError> {
        const EFFECT: &str = "open the image";
        let Readied { mut service, server, record } = readied;
        self.shared.faults.alive(EFFECT)?;
        // One that does not listen any more has said why.
        service.say(OPEN).await.ok();
        match self.hear(&mut service, &record.source).await? {
            Word::Ready => {}
            word => return Err(self.refused(&record.source, word).await),
        }
        self.shared.faults.effect(EFFECT, || Ok::<_, HostError>(()))?;
        self.attach(record, server).await
    }

    /// What a server says next.
    async fn hear(&self, service: &mut Service, source: &ImageSource) -> Result<Word, HostError> {
        let action = self.fuse_action(source);
        let line = match timeout(self.left(), service.hear()).await {
            Ok(line) => line.map_err(failed(&*action))?,
            // Another may have the lock, or the cluster does not answer.
            Err(_elapsed) => {
                return Err(self.within_breath().blame_lock(source, self.late(action)).await);
            }
        };
        let Some(line) = line else {
            let log = self.shared.ledger.log(source);
            return Err(failed(action)(format!(
                "{PROGRAM} has ended; it may have said why in {}",
                log.display()
            )));
        };
        serde_json::from_str(&line).map_err(failed(action))
    }

    /// The error of a server that does not serve.
    async fn refused(&self, source: &ImageSource, word: Word) -> HostError {
        let image = name_of(source);
        match word {
            Word::NoImage => HostError::NoImage { image },
            Word::Locked { holders } => {
                let busy = HostError::Busy { what: format!("image {image}"), holders };
                self.blame_lock(source, busy).await
            }
            Word::Failed { reason } => {
                let error = failed(self.fuse_action(source))(reason);
                self.blame_lock(source, error).await
            }
            word @ (Word::Connected { .. } | Word::Ready) => {
                failed(self.fuse_action(source))(format!("{PROGRAM} said {word:?} out of turn"))
            }
        }
    }

    /// Where it takes too long, it is the cluster that does not answer.
    fn fuse_action(&self, source: &ImageSource) -> String {
        let ceph = self.shared.config.ceph_conf.display();
        format!("map {} from ceph ({ceph}) with {PROGRAM}", name_of(source))
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
                shared.faults.alive("unmount the server")?;
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
            if !mounted {
                // It has not come so far, and would only wait.
                server.terminate();
            }
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
                shared.faults.effect("unmount the server", unmount)
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
        let action = format!("wait for the end of {PROGRAM} for {}", folder.display());
        let deadlines = self.shared.config.deadlines;
        let patience = match manner {
            Manner::Orderly => deadlines.close.min(self.left().saturating_sub(LAST_BREATH)),
            Manner::Abort => deadlines.release,
        };
        self.shared.faults.alive("wait for the end of the server")?;
        if server.wait(patience).await.map_err(failed(&*action))? {
            return Ok(());
        }
        tracing::warn!(folder = %folder.display(), ?patience, "a server does not end, and is killed");
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
