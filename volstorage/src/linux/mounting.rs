//! The mounting half of [`LinuxHost`]: what is looked at before a mount, in which order, and what
//! is cleaned up after an unmount.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use volcore::limit::RateLimits;
use volcore::options::Access;

use super::mounts::{At, Job, Unmounted, Whose};
use super::probe::{Ext, Filesystem, Superblock};
use super::{
    Operation, Shared, failed, kernel, limits, mountinfo, mounts, name_of, probe, process_table,
    resolved,
};
use crate::host::{HostError, Mapping, Mode, MountRequest, Mounted, Space, Undone};

/// How much of what a program said goes into an error.
const SAID: usize = 500;

impl Operation<'_> {
    pub(super) async fn mount(
        &self,
        mapping: &Mapping,
        request: &MountRequest,
    ) -> Result<Mounted, HostError> {
        let look = {
            let (mapping, request) = (mapping.clone(), request.clone());
            move |shared: &Shared| shared.look(&mapping, &request)
        };
        let action = format!("look at {}", mapping.device.display());
        let mut flaw = None;
        if let Some(job) = self.call(action, look).await? {
            if job.filesystem.name() != request.filesystem {
                let (found, expected) = (job.filesystem.name(), &request.filesystem);
                tracing::info!(device = %job.device.display(), expected, found, "another file system");
            }
            match self.mount_new(job).await {
                Ok(found) => flaw = found,
                Err(error) if request.mode == Mode::ReadOnly => return Err(error),
                Err(error) => return Err(self.blame_lock(&mapping.source, error).await),
            }
        }
        if let Err(error) = self.limit(mapping, &request.limits).await {
            // A volume without its limits is better than none, and its status tells.
            let (image, error) = (name_of(&mapping.source), &error as &dyn std::error::Error);
            tracing::warn!(image, error, "the limits of a volume are not held");
        }
        let mounted = self.fill(mapping, request, flaw).await;
        // From now on the mount keeps the device.
        let source = mapping.source.clone();
        let action = format!("close {}", mapping.device.display());
        let close = move |shared: &Shared| {
            shared.let_go(&source);
            Ok(())
        };
        self.call(action, close).await.map(|()| mounted)
    }

    /// Grows what is mounted to its device.
    async fn fill(
        &self,
        mapping: &Mapping,
        request: &MountRequest,
        flaw: Option<HostError>,
    ) -> Mounted {
        if request.mode == Mode::ReadOnly {
            return Mounted { fills: None, flaw };
        }
        match self.grow(mapping, &request.target, 0).await {
            Ok(grown) => Mounted { fills: Some(grown.device()), flaw },
            Err(error) => {
                let (image, cause) = (name_of(&mapping.source), &error as &dyn std::error::Error);
                tracing::warn!(image, cause, "mounted smaller than its image");
                Mounted { fills: None, flaw: Some(flaw.unwrap_or(error)) }
            }
        }
    }

    /// Sets the limits where nobody else holds them.
    pub(super) async fn limit(
        &self,
        mapping: &Mapping,
        limits: &RateLimits,
    ) -> Result<(), HostError> {
        if mapping.access != Access::Kernel {
            return Ok(());
        }
        let action = format!("set the limits of {}", mapping.device.display());
        let (mapping, limits) = (mapping.clone(), *limits);
        let set = {
            let action = action.clone();
            move |shared: &Shared| {
                if !shared.is_mapped(&mapping)? {
                    let image = name_of(&mapping.source);
                    let device = mapping.device.display();
                    return Err(failed(action)(format!(
                        "{image} is not mapped to {device} any more"
                    )));
                }
                shared.faults.effect("set the limits", || {
                    limits::set(&mapping.device, &limits).map_err(failed(action))
                })
            }
        };
        self.call(action, set).await
    }

    /// Mounts what is not mounted; gives the flaw that it has then.
    async fn mount_new(&self, mut job: Job) -> Result<Option<HostError>, HostError> {
        let mut flaw = None;
        if job.mode == Mode::ReadWrite {
            if job.filesystem == Filesystem::Ext(Ext::Preen) {
                self.repair(&job.device).await?;
            }
            if let (Whose::Shared, Some(uuid)) = (job.uuid, job.identity) {
                match self.identify(&job.device, job.filesystem, uuid).await {
                    Ok(()) => job.uuid = Whose::Own,
                    // The kernel may take its device for that of the other one.
                    Err(error) if job.filesystem == Filesystem::Btrfs => return Err(error),
                    Err(error) => flaw = Some(error),
                }
            }
            if let Err(error) = self.grow_unmounted(&job.device, job.filesystem).await {
                flaw = flaw.or(Some(error));
            }
        }
        if let Some(flaw) = &flaw {
            let (device, cause) = (job.device.display(), flaw as &dyn std::error::Error);
            tracing::warn!(%device, cause, "mounted all the same");
        }
        let action = format!("mount {} on {}", job.device.display(), job.target.display());
        self.call(action, move |shared| shared.mount_job(&job)).await.map(|()| flaw)
    }

    /// Lets e2fsck replay the journal and repair what it can without asking: milliseconds for a
    /// journal, longer only when errors were found or there is none.
    async fn repair(&self, device: &Path) -> Result<(), HostError> {
        const EFFECT: &str = "repair the file system";
        self.shared.faults.alive(EFFECT)?;
        let check = self.run(&self.shared.programs.e2fsck).arg("-p").arg(device).any_exit();
        let action = format!("{EFFECT} on {}", device.display());
        let output = check.output().await.map_err(self.program_failed(action))?;
        let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), output.stderr);
        let said = tail(said.trim());
        match output.code {
            // 1: errors were corrected.
            0 | 1 => {
                tracing::info!(device = %device.display(), said, "repaired before mounting");
                self.shared.faults.effect(EFFECT, || Ok(()))
            }
            code => Err(HostError::Unmountable {
                device: device.display().to_string(),
                reason: format!(
                    "e2fsck -p could not repair it (exit status {code}: {said}); run e2fsck by hand"
                ),
            }),
        }
    }

    pub(super) async fn unmount(&self, target: &Path) -> Result<Undone, HostError> {
        let action = format!("unmount {}", target.display());
        let given = target.to_owned();
        let find = move |shared: &Shared| {
            let target = shared.target(&given)?;
            let mounted = mountinfo::at(&target).map_err(failed("read the mounts"))?;
            for mount in mounted.iter().filter(|mount| kernel::is_device(&mount.source)) {
                // Nobody is slowed down by the limits of a device that is not used any more.
                if let Err(error) = limits::set(&mount.source, &RateLimits::default()) {
                    let device = mount.source.display();
                    tracing::warn!(%device, %error, "the limits of a device stay until it goes");
                }
            }
            Ok((target, !mounted.is_empty()))
        };
        let (target, mounted) = self.call(action.clone(), find).await?;
        if mounted {
            let attempt = {
                let (target, action) = (target.clone(), action.clone());
                move |shared: &Shared| shared.unmount(&target, &action)
            };
            if !self.until(action.clone(), attempt).await? {
                let what = target.display().to_string();
                let holders =
                    self.call(action, move |_| Ok(process_table::mount_holders(&target))).await?;
                return Err(HostError::Busy { what, holders });
            }
        }
        self.call(format!("remove {}", target.display()), move |shared| {
            let remove = || mounts::remove_folders(&target, &shared.config.mount_root);
            let action = format!("remove {}", target.display());
            let removed = shared
                .faults
                .effect("remove the mount's folder", || remove().map_err(failed(action)))?;
            Ok(if mounted || removed { Undone::Done } else { Undone::Absent })
        })
        .await
    }

    pub(super) async fn measure(&self, target: &Path) -> Result<Space, HostError> {
        let action = format!("measure {}", target.display());
        let target = target.to_owned();
        self.call(action.clone(), move |shared| {
            let target = shared.target(&target)?;
            if mountinfo::at(&target).map_err(failed("read the mounts"))?.is_empty() {
                return Err(failed(action)("nothing is mounted there"));
            }
            let stat = statvfs(&target).map_err(failed(action))?;
            let unit = stat.fragment_size();
            let size = unit * stat.blocks();
            Ok(Space { size, used: size - unit * stat.blocks_free() })
        })
        .await
    }
}

impl Shared {
    /// The target as the kernel shows it, if it is one. Does not look into the mount itself.
    pub(super) fn target(&self, given: &Path) -> Result<PathBuf, HostError> {
        let target = given
            .parent()
            .zip(given.file_name())
            .map(|(parent, name)| resolved(parent).join(name))
            .filter(|target| mounts::is_below(target, &self.config.mount_root));
        target.ok_or_else(|| {
            let root = self.config.mount_root.display();
            failed(format!("use {} for a mount", given.display()))(format!(
                "it is not below {root}"
            ))
        })
    }

    /// What is to be mounted where; `None` if it is there already.
    fn look(&self, mapping: &Mapping, request: &MountRequest) -> Result<Option<Job>, HostError> {
        let device = mapping.device.as_path();
        let target = self.target(&request.target)?;
        let busy = |what| Err(HostError::Busy { what, holders: Vec::new() });
        if !self.is_mapped(mapping)? {
            let image = name_of(&mapping.source);
            return Err(failed(format!("mount {image} from {}", device.display()))(
                "it is not mapped to that device any more; map it again",
            ));
        }
        match mounts::at(&target, device).map_err(failed("read the mounts"))? {
            At::Nothing => {}
            At::Device(mode) if mode == request.mode => return Ok(None),
            At::Device(_) => {
                return busy(format!("{} (mounted in the other mode)", target.display()));
            }
            At::Other(other) => {
                return busy(format!("{} (as a mount of {})", target.display(), other.display()));
            }
        }
        match probe::probe(device).map_err(failed(format!("read {}", device.display())))? {
            Some(Superblock { filesystem, uuid }) => Ok(Some(Job {
                device: device.to_owned(),
                target,
                filesystem,
                options: request.options.clone(),
                mode: request.mode,
                identity: request.identity,
                uuid: match request.identity {
                    Some(identity) if identity != uuid => Whose::Shared,
                    Some(_) | None => Whose::Own,
                },
            })),
            None => Err(HostError::Unmountable {
                device: device.display().to_string(),
                reason: format!(
                    "no file system was found on it (image {}); it was left as it is",
                    name_of(&mapping.source)
                ),
            }),
        }
    }

    /// Whether the device is still this image's: numbers are used again.
    pub(super) fn is_mapped(&self, mapping: &Mapping) -> Result<bool, HostError> {
        let record = self.ledger.read(&mapping.source).map_err(failed("read the record"))?;
        let Some(record) = record else { return Ok(false) };
        Ok(match record.access {
            Access::Kernel => {
                let found = kernel::find(&mapping.source);
                let found = found.map_err(failed("list the kernel's rbd devices"))?;
                found.is_some_and(|found| found.path == mapping.device)
            }
            Access::Nbd => {
                record.nbd.is_some_and(|nbd| nbd.device == mapping.device && nbd.is_there())
            }
            Access::Auto | Access::Fuse => record.attached.is_some_and(|attached| {
                attached.device() == mapping.device
                    && attached.is_there(&self.file(&mapping.source))
            }),
        })
    }

    fn mount_job(&self, job: &Job) -> Result<(), HostError> {
        let root = &self.config.mount_root;
        let action = format!("make the folder {}", job.target.display());
        self.faults.effect("make the mount's folder", || {
            mounts::make_folder(&job.target, root).map_err(failed(action))
        })?;
        self.faults.effect("mount", || job.mount()).inspect_err(|_| {
            let remove = || mounts::remove_folders(&job.target, root);
            self.faults.effect("remove the mount's folder", || remove().map_err(failed(""))).ok();
        })
    }

    fn unmount(&self, target: &Path, action: &str) -> Result<bool, HostError> {
        let unmount = || mounts::unmount(target).map_err(failed(action));
        match self.faults.effect("unmount", unmount)? {
            Unmounted::Gone => Ok(true),
            Unmounted::Busy => Ok(false),
            Unmounted::Foreign(other) => Err(HostError::Busy {
                what: format!("{} (below a mount of {})", target.display(), other.display()),
                holders: Vec::new(),
            }),
        }
    }
}

/// The end of a text, at a character's boundary.
fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(SAID);
    text.get(text.ceil_char_boundary(start)..).unwrap_or_default()
}
