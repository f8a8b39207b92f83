//! A UUID of its own for the file system of a clone.
//!
//! A clone begins as a copy, UUID included. xfs refuses a second mount of one UUID, btrfs may take one device for the
//! other, and tools that look for a UUID find two. So before a clone is mounted for writing its file system gets the
//! UUID that the volume has. There is no state but the superblock: what it says decides, so that a step which was
//! interrupted is taken again, and a clone that was rolled back to before it is changed once more.

mod block;
mod btrfs;
mod xfs;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use uuid::Uuid;

use super::probe::{EXT_OFFSET, Filesystem};
use super::{Operation, Shared, failed};
use crate::host::HostError;

/// Why a file system is not one whose UUID is changed here.
type Unfit = &'static str;

/// What came of an attempt.
enum Stamped {
    /// It has the UUID.
    Done,
    /// Its log has to be replayed first. Nothing was written.
    Dirty,
    /// It is not to be touched. Nothing was written.
    Unfit(Unfit),
}

const EFFECT: &str = "set the file system's UUID";

impl Operation<'_> {
    /// Gives the file system on a device this UUID. An ext file system has been repaired before.
    pub(super) async fn identify(
        &self,
        device: &Path,
        filesystem: Filesystem,
        uuid: Uuid,
    ) -> Result<(), HostError> {
        self.shared.faults.alive(EFFECT)?;
        match filesystem {
            Filesystem::Ext(_) => self.identify_ext(device, uuid).await?,
            Filesystem::Xfs => self.identify_xfs(device, uuid).await?,
            Filesystem::Btrfs => self.stamp(device, uuid, btrfs::stamp).await?.or_unfit(device)?,
        }
        tracing::info!(device = %device.display(), %uuid, "the clone's file system has a UUID of its own");
        if filesystem == Filesystem::Btrfs {
            let device = device.to_owned();
            let forget = move |_: &Shared| {
                btrfs::forget(&device);
                Ok(())
            };
            self.call("forget a device of btrfs", forget).await?;
        }
        Ok(())
    }

    async fn identify_xfs(&self, device: &Path, uuid: Uuid) -> Result<(), HostError> {
        match self.stamp(device, uuid, xfs::stamp).await? {
            Stamped::Dirty => {}
            stamped => return stamped.or_unfit(device),
        }
        let (action, path) = (format!("replay the log of {}", device.display()), device.to_owned());
        let replay = {
            let action = action.clone();
            move |shared: &Shared| {
                let replay = || xfs::replay(&path).map_err(failed(action));
                shared.faults.effect("replay the log", replay)
            }
        };
        self.call(action.clone(), replay).await?;
        // A child process that another call has just begun keeps the descriptor until it runs its program.
        let path = device.to_owned();
        if !self.until(action.clone(), move |_| Ok(!xfs::is_mounted(&path))).await? {
            return Err(failed(action)("it is still mounted for that"));
        }
        self.stamp(device, uuid, xfs::stamp).await?.or_unfit(device)
    }

    async fn stamp(
        &self,
        device: &Path,
        uuid: Uuid,
        stamp: fn(&File, Uuid) -> io::Result<Stamped>,
    ) -> Result<Stamped, HostError> {
        let (action, device) = (action(device), device.to_owned());
        let work = {
            let action = action.clone();
            move |shared: &Shared| {
                let stamp = || stamp(&block::open(&device)?, uuid);
                shared.faults.effect(EFFECT, || stamp().map_err(failed(action)))
            }
        };
        self.call(action, work).await
    }

    /// `tune2fs` writes superblocks only, once the seed of the checksums is kept apart from the UUID (Linux 4.4);
    /// else it would have to read everything.
    async fn identify_ext(&self, device: &Path, uuid: Uuid) -> Result<(), HostError> {
        let path = device.to_owned();
        let look = move |_: &Shared| needs_seed(&path).map_err(failed("read the superblock"));
        let needs_seed = self.call(action(device), look).await?;
        let tune = self.run(&self.shared.programs.tune2fs);
        let tune = tune.args(if needs_seed { &["-O", "metadata_csum_seed"][..] } else { &[] });
        let tune = tune.args(["-U", &uuid.to_string()]).arg(device).output().await;
        tune.map_err(self.program_failed(action(device)))?;
        self.shared.faults.effect(EFFECT, || Ok(()))
    }
}

fn action(device: &Path) -> String {
    format!("{EFFECT} on {}", device.display())
}

impl Stamped {
    fn or_unfit(self, device: &Path) -> Result<(), HostError> {
        let reason = match self {
            Stamped::Done => return Ok(()),
            Stamped::Dirty => "its log does not end with an unmount, although it was replayed",
            Stamped::Unfit(reason) => reason,
        };
        Err(failed(action(device))(reason))
    }
}

/// Whether the checksums of an ext file system begin with its UUID.
fn needs_seed(device: &Path) -> io::Result<bool> {
    const METADATA_CSUM: u32 = 0x400;
    const CSUM_SEED: u32 = 0x2000;
    let mut features = [0; 8];
    File::open(device)?.read_exact_at(&mut features, EXT_OFFSET as u64 + 0x60)?;
    let [a, b, c, d, rest @ ..] = features;
    let (incompatible, read_only) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(rest));
    Ok(read_only & METADATA_CSUM != 0 && incompatible & CSUM_SEED == 0)
}
