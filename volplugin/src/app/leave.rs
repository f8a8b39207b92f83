//! Giving a volume back: unmount, unmap, release the claim, forget the record. In this order,
//! so that no other host can write before this one has stopped.

use volcore::name::VolumeId;
use volstorage::host::HostError;

use crate::app::{Plugin, within};
use crate::host::uses::{Held, Phase, Use, UsesError};
use crate::master::MasterError;

/// How far giving back came. The record stays on disk, and the reconciler goes on.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// It is still mounted or mapped.
    #[error("{}", volapi::problem::chain(source))]
    Host {
        /// Why.
        source: HostError,
    },
    /// It is unmounted and unmapped; the claim still stands at volmaster.
    #[error("its claim could not be released: {source}")]
    Claim {
        /// Why.
        source: MasterError,
    },
    /// The records on disk cannot be written.
    #[error(transparent)]
    Uses(#[from] UsesError),
}

impl Plugin {
    /// This host has lost a volume: it was given up, and somebody else may have it. What is here of it can write nothing
    /// any more; it is taken away, from under whoever still has it open. The caller has the volume's turn.
    pub(crate) async fn lose(&self, mut held: Held) {
        let id = held.volume.clone();
        tracing::error!(
            volume = %id, epoch = held.epoch, uses = held.uses.len(),
            "this host has lost the volume: its containers get errors, and what they had not synced is lost"
        );
        held.phase = Phase::Fenced;
        if let Err(error) = self.uses.put(&held) {
            tracing::warn!(volume = %id, %error, "record not written");
        }
        match self.leave(held).await {
            Ok(()) => tracing::info!(volume = %id, "nothing is left of it here"),
            Err(error) => tracing::warn!(volume = %id, %error, "something is left of it here"),
        }
    }

    /// Gives a volume back. The caller has the volume's turn. Idempotent.
    pub(crate) async fn leave(&self, mut held: Held) -> Result<(), LeaveError> {
        if held.phase != Phase::Leaving && held.phase != Phase::Fenced {
            held.phase = Phase::Leaving;
            held.uses.clear();
            self.uses.put(&held)?;
        }
        if let Err(error) = self.leave_steps(&held).await {
            held.last_error = Some(error.to_string());
            self.uses.put(&held)?;
            return Err(error);
        }
        self.uses.remove(&held.volume)?;
        Ok(())
    }

    async fn leave_steps(&self, held: &Held) -> Result<(), LeaveError> {
        let host = |source| LeaveError::Host { source };
        if held.phase == Phase::Fenced {
            self.driver.abandon(&held.source, &held.target).await.map_err(host)?;
        }
        self.driver.unmount(&held.target).await.map_err(host)?;
        self.driver.unmap(&held.source).await.map_err(host)?;
        self.release(&held.volume, held).await.map_err(|source| LeaveError::Claim { source })
    }

    async fn release(&self, id: &VolumeId, held: &Held) -> Result<(), MasterError> {
        match self.master.mount_release(id, &self.me.host, &held.boot, within::RELEASE).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Drops the uses that are over, when no container has the volume mounted any more:
    /// no Unmount will come for them. Where that cannot be found out, they stay.
    pub(crate) async fn drop_dead_uses(&self, held: &mut Held) {
        self.drop_uses(held, Use::is_over).await;
    }

    /// Drops these uses, when no container has the volume mounted any more.
    pub(crate) async fn drop_uses(&self, held: &mut Held, which: impl Fn(&Use) -> bool) {
        if !held.uses.values().any(&which) {
            return;
        }
        let Some(mapping) = &held.mapping else { return };
        match self.driver.users(&mapping.device, &held.target).await {
            Ok(users) if users.is_empty() => {
                held.uses.retain(|_, one| !which(one));
                held.told = false;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(volume = %held.volume, %error, "cannot tell which containers use the volume");
            }
        }
    }
}
