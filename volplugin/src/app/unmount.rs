//! `VolumeDriver.Unmount`: a container that used a volume has ended.

use volcore::name::{MountId, VolumeId};

use crate::app::leave::LeaveError;
use crate::app::{NoTurn, Plugin};
use crate::host::uses::{Phase, UsesError};

/// Why a volume could not be unmounted now. The reconciler goes on with it.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Something else on the volume takes too long.
    #[error(transparent)]
    NoTurn(#[from] NoTurn),
    /// It is still mounted or mapped.
    #[error(
        "volume {volume} could not be unmounted yet; it is tried again in the background: {source}"
    )]
    StillThere {
        /// Which.
        volume: VolumeId,
        /// Why.
        source: LeaveError,
    },
    /// The records on disk cannot be written.
    #[error(transparent)]
    Uses(#[from] UsesError),
}

impl Plugin {
    /// Ends one use; the last one unmounts, unmaps and releases. An unknown use is success, as
    /// Docker repeats itself.
    pub async fn unmount(&self, id: &VolumeId, use_id: &MountId) -> Result<(), UnmountError> {
        let _turn = self.turn(id).await?;
        let Some(mut held) = self.uses.get(id) else { return Ok(()) };
        match held.uses.remove(use_id).map(|one| one.once_less()) {
            None if !held.uses.is_empty() => return Ok(()),
            None | Some(None) => {}
            Some(Some(one)) => {
                held.uses.insert(use_id.clone(), one);
                self.uses.put(&held)?;
                return Ok(());
            }
        }
        if !held.uses.is_empty() {
            self.drop_dead_uses(&mut held).await;
        }
        if held.uses.is_empty() {
            return match self.leave(held).await {
                Ok(()) => Ok(()),
                // The data is safe and the device gone; only volmaster does not know yet.
                Err(LeaveError::Claim { source }) => {
                    tracing::warn!(volume = %id, %source, "the claim is released later");
                    self.nudge.notify_one();
                    Ok(())
                }
                Err(source) => {
                    self.nudge.notify_one();
                    Err(UnmountError::StillThere { volume: id.clone(), source })
                }
            };
        }
        held.told = held.phase == Phase::Mounted && self.tell(&mut held).await.is_ok();
        self.uses.put(&held)?;
        Ok(())
    }
}
