//! A file system that becomes as large as its image, under whoever uses it.
//!
//! First the device: the kernel's rbd follows the image by itself, if the image can become larger at all: with
//! `exclusive` nobody changes the size of an image that is mapped so. A network block device is told the image's size. A
//! loop device is told to look at its file again, and the server shows the image's present size to whoever asks for
//! the file's. Then the file system, by its own tool. Whether there is anything to do is found out without running one
//! (`geometry`).

mod geometry;

use std::path::{Path, PathBuf};

use volcore::options::Access;

use super::probe::Filesystem;
use super::{Operation, Shared, failed, loops, mountinfo, name_of};
use crate::host::{Grown, HostError, Mapping};
use crate::process::Run;
use geometry::Geometry;

const EFFECT: &str = "grow the file system";
/// Devices have whole sectors; an image's last part of one is not used.
const SECTOR: u64 = 512;

/// A mounted file system and its device.
struct Mounted {
    device: PathBuf,
    target: PathBuf,
    filesystem: String,
    /// The device's bytes.
    size: u64,
    /// The file system's and what it could have, where it is smaller; `None` where nothing can be done.
    room: Option<Geometry>,
}

impl Operation<'_> {
    /// Grows what is mounted, once the device has `size` bytes.
    pub(super) async fn grow(
        &self,
        mapping: &Mapping,
        target: &Path,
        size: u64,
    ) -> Result<Grown, HostError> {
        self.grow_device(mapping, size).await?;
        let action = format!("look at what is mounted on {}", target.display());
        let look = {
            let (mapping, target) = (mapping.clone(), target.to_owned());
            move |shared: &Shared| shared.look_at_room(&mapping, &target)
        };
        let mounted = self.call(action.clone(), look).await?;
        let Some(before) = mounted.room else { return Ok(Grown::AsItWas(mounted.size)) };
        if before.filesystem == "ext4" && !may_grow_ext_online() {
            return Err(failed(format!("grow the file system on {}", mounted.device.display()))(
                "growing a mounted ext4 takes the capability CAP_SYS_RESOURCE, which volplugin does not have here; \
                 it will be so large at the next mount",
            ));
        }
        let run = self.grower(&mounted);
        self.run_grower(&mounted.device, run).await?;
        let (mapping, target) = (mapping.clone(), target.to_owned());
        let after = self.call(action, move |shared| shared.look_at_room(&mapping, &target)).await?;
        Ok(match after.room {
            Some(after) if after.size <= before.size => Grown::AsItWas(mounted.size),
            _ => {
                let (device, size) = (mounted.device.display(), mounted.size);
                tracing::info!(%device, size, "the file system has grown");
                Grown::Larger(size)
            }
        })
    }

    /// Grows an ext file system that is not mounted, where it cannot be done when it is: that takes a whole check before.
    pub(super) async fn grow_unmounted(
        &self,
        device: &Path,
        filesystem: Filesystem,
    ) -> Result<(), HostError> {
        if filesystem.name() != "ext4" || may_grow_ext_online() {
            return Ok(());
        }
        let path = device.to_owned();
        let look = move |_: &Shared| {
            let read = || geometry::ext(&path, device_size(&path)?);
            read().map_err(failed(format!("read {}", path.display())))
        };
        let look = self.call(format!("read {}", device.display()), look);
        if look.await?.is_full() {
            return Ok(());
        }
        // What is left of the deadline is for the mount.
        let check = Run::new(&self.shared.programs.e2fsck, self.left() / 2);
        let check = check.args(["-f", "-p"]).arg(device).or_exit(&[1]).output().await;
        check.map_err(self.program_failed(format!("check {}", device.display())))?;
        let grower = self.run(&self.shared.programs.resize2fs).arg(device);
        self.run_grower(device, grower).await
    }

    fn grower(&self, mounted: &Mounted) -> Run {
        let programs = &self.shared.programs;
        match mounted.filesystem.as_str() {
            "xfs" => self.run(&programs.xfs_growfs).arg("-d").arg(&mounted.target),
            "btrfs" => {
                let resize = self.run(&programs.btrfs).args(["filesystem", "resize", "max"]);
                resize.arg(&mounted.target)
            }
            _ => self.run(&programs.resize2fs).arg(&mounted.device),
        }
    }

    async fn run_grower(&self, device: &Path, run: Run) -> Result<(), HostError> {
        self.shared.faults.alive(EFFECT)?;
        let action = format!("{EFFECT} on {}", device.display());
        run.output().await.map_err(self.program_failed(action))?;
        self.shared.faults.effect(EFFECT, || Ok(()))
    }

    /// Brings a device to the size of its image, and waits until it has `size`.
    async fn grow_device(&self, mapping: &Mapping, size: u64) -> Result<(), HostError> {
        let action = format!("grow {}", mapping.device.display());
        let grow = {
            let (mapping, action) = (mapping.clone(), action.clone());
            move |shared: &Shared| shared.follow_image(&mapping, size).map_err(failed(&*action))
        };
        let look = {
            let (mapping, action) = (mapping.clone(), action.clone());
            move |shared: &Shared| match shared.is_mapped(&mapping)? {
                true => Ok(()),
                false => Err(failed(action)(format!(
                    "{} is not mapped to it any more",
                    name_of(&mapping.source)
                ))),
            }
        };
        self.call(action.clone(), look).await?;
        if mapping.access == Access::Nbd {
            self.nbd_follow(mapping, size).await?;
        }
        if self.until(action.clone(), grow).await? {
            return Ok(());
        }
        let has = device_size(&mapping.device).map_err(failed(&*action))?;
        Err(failed(action)(format!(
            "image {} should have {size} bytes, and its device shows {has} of them; if the image is larger, \
             volplugin sees so at the next mount",
            name_of(&mapping.source)
        )))
    }
}

impl Shared {
    /// Has a loop device take over the size of its file; says whether the device has at least `size` bytes.
    fn follow_image(&self, mapping: &Mapping, size: u64) -> std::io::Result<bool> {
        let mut has = device_size(&mapping.device)?;
        if mapping.access == Access::Fuse
            && let Some(number) = loops::number(&mapping.device)
        {
            // Asking for the file's size is what makes the server, and the kernel's FUSE, notice.
            let file = self.file(&mapping.source).metadata()?.len();
            if file / SECTOR > has / SECTOR {
                self.faults.alive("grow the loop device").map_err(std::io::Error::other)?;
                loops::follow(number)?;
                has = device_size(&mapping.device)?;
            }
        }
        Ok(has / SECTOR >= size / SECTOR)
    }

    fn look_at_room(&self, mapping: &Mapping, target: &Path) -> Result<Mounted, HostError> {
        let target = self.target(target)?;
        let action = format!("look at what is mounted on {}", target.display());
        let mounted = mountinfo::at(&target).map_err(failed("read the mounts"))?.pop();
        let Some(mount) = mounted.filter(|mount| mount.source == mapping.device) else {
            return Err(failed(action)(format!("it is not {}", mapping.device.display())));
        };
        let look = || {
            let size = device_size(&mapping.device)?;
            let geometry = match mount.filesystem.as_str() {
                _ if mount.read_only => None,
                "xfs" => Some(geometry::xfs(&target, size)?),
                "btrfs" => Some(geometry::btrfs(&target, size)?),
                _ => Some(geometry::ext(&mapping.device, size)?),
            };
            Ok((size, geometry.filter(|geometry| !geometry.is_full())))
        };
        let (size, room) = look().map_err(|error: std::io::Error| failed(action)(error))?;
        let (device, filesystem) = (mapping.device.clone(), mount.filesystem.clone());
        Ok(Mounted { device, target, filesystem, size, room })
    }
}

/// The bytes of a device, as the kernel has them. Asks the device nothing.
pub(super) fn device_size(device: &Path) -> std::io::Result<u64> {
    let name = device.file_name().unwrap_or_default();
    let text = std::fs::read_to_string(Path::new("/sys/block").join(name).join("size"))?;
    text.trim().parse().map(|sectors: u64| sectors * SECTOR).map_err(std::io::Error::other)
}

/// Whether this process may have the kernel grow a mounted ext4 (`ext4_resize_begin`): root in a container may not.
fn may_grow_ext_online() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    effective.is_some_and(|effective| effective & (1 << CAP_SYS_RESOURCE) != 0)
}
