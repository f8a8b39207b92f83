//! `VolumeDriver.Mount`: a container is about to use a volume.
//!
//! In this order: the intent on disk, the claim at volmaster, who will serve the image, the
//! mapping, the mount, the state at volmaster, the use on disk. Between them volmaster is told of
//! the addresses that can write as soon as they are known, so that it can fence them: a server's
//! before it opens the image, the kernel's before anything is mounted. Each step is idempotent, so
//! that Docker's retries and a restart in the middle come to the same end. A failure undoes what
//! was done; what cannot be undone now stays on disk as [`Phase::Leaving`] for the reconciler.
//!
//! Nothing is made ready before the claim is granted: whoever is refused would wait for that, and
//! it is taken away again for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use volapi::mounts::{ClaimMount, ClaimState};
use volapi::volumes::{Image, State, Volume};
use volcore::limit::RateLimits;
use volcore::name::{HostName, MountId, VolumeId};
use volcore::options::{Access, Sharing};
use volstorage::host::{HostError, MapRequest, Mapping, Mode, MountRequest, Mounted};
use volstorage::image::ImageSource;

use crate::app::{NoTurn, Plugin, within};
use crate::docker::peer::Caller;
use crate::host::uses::{Held, Phase, Use, UsesError, VERSION};
use crate::master::MasterError;

/// Why a volume is not mounted. Nothing is left behind, or is being cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Something else on the volume takes too long.
    #[error(transparent)]
    NoTurn(#[from] NoTurn),
    /// Volmaster refuses, or cannot be reached.
    #[error("could not mount volume {volume}")]
    Master {
        /// Which.
        volume: VolumeId,
        /// Its answer.
        #[source]
        source: MasterError,
    },
    /// The volume cannot be used now.
    #[error("volume {volume} is {state}; it cannot be mounted now")]
    NotReady {
        /// Which.
        volume: VolumeId,
        /// Its state.
        state: &'static str,
    },
    /// One container uses it already, and the policy allows one.
    #[error(
        "volume {volume} is in use by another container on this host since {since:.0}, and its policy says \
         sharing: container; it is free when that container has stopped"
    )]
    OneContainer {
        /// Which.
        volume: VolumeId,
        /// Since when.
        since: Timestamp,
    },
    /// The last use of it is not yet cleaned up.
    #[error("volume {volume} is still being unmounted from its last use: {reason}")]
    StillLeaving {
        /// Which.
        volume: VolumeId,
        /// Why it takes so long.
        reason: String,
    },
    /// Others may have been told that this host is gone.
    #[error(
        "could not mount volume {volume}: host {host} has no session with volmaster, which has not answered for longer than \
         a session lives; see the log of volplugin for why"
    )]
    NoSession {
        /// Which.
        volume: VolumeId,
        /// This host.
        host: HostName,
    },
    /// This machine cannot map or mount it.
    #[error("could not mount volume {volume}")]
    Host {
        /// Which.
        volume: VolumeId,
        /// Why.
        #[source]
        source: HostError,
    },
    /// The records on disk cannot be written.
    #[error(transparent)]
    Uses(#[from] UsesError),
}

impl Held {
    /// Notes what came of mapping and mounting it.
    fn mounted(&mut self, mapping: Mapping, mounted: Mounted) {
        let Mounted { fills, flaw } = mounted;
        self.mapping = Some(mapping);
        self.last_error = match (flaw, fills) {
            (Some(flaw), _) => Some(volapi::problem::chain(&flaw)),
            (None, Some(_)) => None,
            // Read-only, nothing was tried.
            (None, None) => self.last_error.take(),
        };
        self.size = fills.unwrap_or(self.size);
    }

    /// Notes whether Docker will be told of this Mount.
    fn answer(&mut self, use_id: &MountId, caller: &Caller) {
        if let Some(one) = self.uses.get_mut(use_id) {
            one.answered = caller.waits();
        }
    }
}

impl Plugin {
    /// Mounts a volume for one more use, and says where.
    pub async fn mount(
        &self,
        id: &VolumeId,
        use_id: MountId,
        caller: &Caller,
    ) -> Result<PathBuf, MountError> {
        let _turn = self.turn(id).await?;
        match self.uses.get(id) {
            None => {}
            Some(held) if held.phase == Phase::Mounted && held.boot == self.me.boot => {
                return self.mount_once_more(held, use_id, caller).await;
            }
            // This very call died here before: go on with it.
            Some(held) if held.phase == Phase::Mounting && held.uses.contains_key(&use_id) => {}
            Some(held) => {
                self.leave(held).await.map_err(|reason| MountError::StillLeaving {
                    volume: id.clone(),
                    reason: reason.to_string(),
                })?;
            }
        }
        self.mount_first(id, use_id, caller).await
    }

    /// The volume is mounted here: note one more use.
    async fn mount_once_more(
        &self,
        mut held: Held,
        use_id: MountId,
        caller: &Caller,
    ) -> Result<PathBuf, MountError> {
        let id = held.volume.clone();
        if !held.uses.contains_key(&use_id) {
            self.drop_dead_uses(&mut held).await;
        }
        let other =
            held.uses.iter().find(|(other, _)| **other != use_id).map(|(_, other)| other.since);
        if let (Sharing::Container, Some(since)) = (held.sharing, other) {
            return Err(MountError::OneContainer { volume: id, since });
        }
        let before = held.uses.get(&use_id).cloned();
        let one_more = match &before {
            Some(before) => before.once_more(caller.dockerd),
            None => Use::new(caller.dockerd),
        };
        // Quick while it is mapped and mounted, and puts it right where an operator has unmounted it.
        self.map_and_mount(&mut held).await?;
        held.uses.insert(use_id.clone(), one_more);
        held.told = false;
        self.uses.put(&held)?;
        match self.tell(&mut held).await {
            Ok(()) => held.told = true,
            // The host holds the volume whatever volmaster knows of this use; the reconciler tells it later.
            Err(error) if error.is_unknown() => self.nudge.notify_one(),
            Err(source) if source.is_lost() => {
                self.lose(held).await;
                return Err(MountError::Master { volume: id, source });
            }
            Err(source) => {
                match before {
                    Some(before) => held.uses.insert(use_id, before),
                    None => held.uses.remove(&use_id),
                };
                self.uses.put(&held)?;
                return Err(MountError::Master { volume: id, source });
            }
        }
        held.answer(&use_id, caller);
        self.uses.put(&held)?;
        Ok(held.target)
    }

    /// Nothing of the volume is here: take it.
    async fn mount_first(
        &self,
        id: &VolumeId,
        use_id: MountId,
        caller: &Caller,
    ) -> Result<PathBuf, MountError> {
        let refused = |source| MountError::Master { volume: id.clone(), source };
        if !self.standing.wait(within::SESSION).await {
            return Err(MountError::NoSession { volume: id.clone(), host: self.me.host.clone() });
        }
        let volume = self.master.volume_get(id, within::CLAIM).await.map_err(refused)?;
        if volume.state != State::Ready {
            return Err(MountError::NotReady { volume: id.clone(), state: volume.state.as_str() });
        }
        let mut held = self.intent(id, &volume, use_id.clone(), Use::new(caller.dockerd));
        self.uses.put(&held)?;
        if let Err(source) = self.tell(&mut held).await {
            if source.is_unknown() {
                // The claim may stand.
                self.undo(held).await;
            } else {
                self.uses.remove(id)?;
            }
            return Err(refused(source));
        }
        if let Err(error) = self.map_and_mount(&mut held).await {
            self.undo(held).await;
            return Err(error);
        }
        held.phase = Phase::Mounted;
        held.told = match self.tell(&mut held).await {
            Ok(()) => true,
            Err(error) if error.is_unknown() => {
                self.nudge.notify_one();
                false
            }
            Err(source) if source.is_lost() => {
                // The claim was taken away in between: this host may not write.
                self.lose(held).await;
                return Err(refused(source));
            }
            Err(source) => {
                self.undo(held).await;
                return Err(refused(source));
            }
        };
        held.answer(&use_id, caller);
        if let Err(error) = self.uses.put(&held) {
            self.undo(held).await;
            return Err(error.into());
        }
        Ok(held.target)
    }

    fn intent(&self, id: &VolumeId, volume: &Volume, use_id: MountId, one_more: Use) -> Held {
        let pool = volume.options.pool.as_ref().map_or("default", |pool| pool.as_str());
        Held {
            v: VERSION,
            volume: id.clone(),
            uid: volume.uid,
            boot: self.me.boot.clone(),
            phase: Phase::Mounting,
            epoch: None,
            source: image_source(&volume.image),
            target: self.mount_root.join(pool).join(id.image_name()),
            access: match volume.options.access {
                None | Some(Access::Auto) => self.access,
                Some(access) => access,
            },
            filesystem: volume
                .options
                .filesystem
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            mount_options: volume.options.mount_options.clone().unwrap_or_default(),
            map_options: volume.options.map_options.clone().unwrap_or_default(),
            limits: volume.options.rate_limit.clone(),
            identity: volume.options.from.as_ref().map(|_| volume.uid),
            size: 0,
            sharing: volume.options.sharing.unwrap_or_default(),
            mapping: None,
            clients: Vec::new(),
            uses: BTreeMap::from([(use_id, one_more)]),
            told: false,
            last_error: None,
        }
    }

    /// Maps and mounts, and has volmaster know who can write before he can.
    async fn map_and_mount(&self, held: &mut Held) -> Result<(), MountError> {
        let volume = held.volume.clone();
        let failed = |source| MountError::Host { volume: volume.clone(), source };
        let mode = match held.sharing {
            Sharing::ReadOnly => Mode::ReadOnly,
            Sharing::Host | Sharing::Container => Mode::ReadWrite,
        };
        let map = MapRequest {
            source: held.source.clone(),
            access: held.access,
            mode,
            options: held.map_options.clone(),
        };
        let clients = self.driver.ready(&map).await.map_err(failed)?;
        self.introduce(held, clients).await?;
        let mapping = self.driver.map(&map).await.map_err(failed)?;
        self.introduce(held, mapping.clients.clone()).await?;
        // A host that stood still on the way here may have been given up.
        if held.phase == Phase::Mounting && !self.standing.stands() {
            return Err(MountError::NoSession { volume, host: self.me.host.clone() });
        }
        let mount = MountRequest {
            target: held.target.clone(),
            filesystem: held.filesystem.clone(),
            options: held.mount_options.clone(),
            mode,
            limits: RateLimits::from(&held.limits),
            identity: held.identity,
        };
        let mounted = self.driver.mount(&mapping, &mount).await.map_err(failed)?;
        held.mounted(mapping, mounted);
        Ok(())
    }

    /// Tells volmaster who can write from now on, where it does not know.
    async fn introduce(&self, held: &mut Held, clients: Vec<String>) -> Result<(), MountError> {
        if clients.is_empty() || held.clients == clients {
            return Ok(());
        }
        held.clients = clients;
        self.uses.put(held)?;
        let told = self.tell(held).await;
        told.map_err(|source| MountError::Master { volume: held.volume.clone(), source })
    }

    /// Tells volmaster what is held: this is the claim, and its renewal.
    pub(crate) async fn tell(&self, held: &mut Held) -> Result<(), MasterError> {
        let state = match held.phase {
            Phase::Mounting | Phase::Leaving | Phase::Fenced => ClaimState::Claimed,
            Phase::Mounted => ClaimState::Mounted,
        };
        let claim = ClaimMount {
            host: self.me.host.clone(),
            boot_id: self.me.boot.clone(),
            instance_id: Some(self.me.instance),
            epoch: held.epoch,
            state,
            mount_ids: held.uses.keys().cloned().collect::<BTreeSet<_>>(),
            clients: match &held.mapping {
                // A record from before addresses were known so soon.
                Some(mapping) if held.clients.is_empty() => mapping.clients.clone(),
                Some(_) | None => held.clients.clone(),
            },
        };
        let granted = self.master.mount_claim(&held.volume, claim, within::CLAIM).await?;
        held.epoch = Some(granted.epoch);
        Ok(())
    }

    /// Undoes a mount that failed; what cannot be undone now is left to the reconciler.
    async fn undo(&self, held: Held) {
        let id = held.volume.clone();
        if let Err(error) = self.leave(held).await {
            tracing::warn!(volume = %id, %error, "a failed mount could not be undone yet; it is tried again");
            self.nudge.notify_one();
        }
    }
}

fn image_source(image: &Image) -> ImageSource {
    match image {
        Image::Rbd { pool, image } => ImageSource::Rbd { pool: pool.clone(), image: image.clone() },
        Image::File { path } => ImageSource::File { path: path.clone() },
    }
}
