//! `Create`, `Remove`, `Get`, `Path` and `List`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use volapi::volumes::{State, Volume, VolumeBrief};
use volcore::name::VolumeId;
use volcore::volume::docker_remove;

use crate::app::leave::LeaveError;
use crate::app::{NoTurn, Plugin, within};
use crate::host::uses::{Held, Phase};
use crate::master::{Briefs, MasterError};

/// Why a volume was not created or removed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Something else on the volume takes too long.
    #[error(transparent)]
    NoTurn(#[from] NoTurn),
    /// Volmaster refuses, or cannot be reached.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// It is still mounted or mapped here.
    #[error("volume {volume} is still being unmounted on this host: {source}")]
    StillHere {
        /// Which.
        volume: VolumeId,
        /// Why.
        source: LeaveError,
    },
}

/// Why nothing is said of a volume.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Volmaster said that there is none.
    #[error("volume {volume} does not exist")]
    NotFound {
        /// Which.
        volume: VolumeId,
    },
    /// It is not there yet, or will never be: Docker must not take it for one that is there, because
    /// then it does not ask for its creation again, which goes on with it or says why it fails.
    #[error("volume {volume} is being created")]
    Creating {
        /// Which.
        volume: VolumeId,
    },
    /// Nothing is known: Docker must not take this for "no such volume".
    #[error("nothing is known of it while volmaster cannot be reached")]
    Unknown(#[source] MasterError),
}

/// What is known of a volume.
#[derive(Debug)]
pub struct Look {
    /// All of it, from volmaster; or what the cache has.
    pub seen: Seen,
    /// What is held of it here.
    pub held: Option<Held>,
}

/// Where the knowledge comes from.
#[derive(Debug)]
pub enum Seen {
    /// Volmaster, now.
    Fresh(Box<Volume>),
    /// The cache, for the given reason.
    Cached(Option<VolumeBrief>, MasterError),
}

/// A volume in a list.
#[derive(Debug)]
pub struct Listed {
    /// Its name, as Docker knows it.
    pub name: String,
    /// Where it is mounted here.
    pub mountpoint: Option<PathBuf>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Plugin {
    /// Creates a volume, or finds it.
    pub async fn create(
        &self,
        id: &VolumeId,
        options: BTreeMap<String, String>,
    ) -> Result<(), ChangeError> {
        let volume = self.master.volume_create(id, options, within::CREATE).await?;
        self.cache.insert(brief(&volume));
        Ok(())
    }

    /// Does what the volume's `on-remove` says. A volume that is gone already is success.
    pub async fn remove(&self, id: &VolumeId) -> Result<(), ChangeError> {
        let _turn = self.turn(id).await?;
        let volume = match self.master.volume_get(id, within::CLAIM).await {
            Ok(volume) => volume,
            Err(error) if error.is_not_found() => {
                self.cache.remove(id);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(held) = self.uses.get(id)
            && held.uses.is_empty()
        {
            let left = self.leave(held).await;
            left.map_err(|source| ChangeError::StillHere { volume: id.clone(), source })?;
        }
        let Some(disposal) = docker_remove(volume.options.on_remove.unwrap_or_default()) else {
            tracing::info!(volume = %id, "docker volume rm: on-remove is keep, so the volume and its data stay");
            return Ok(());
        };
        match self.master.volume_remove(id, disposal, within::REMOVE).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        self.cache.remove(id);
        Ok(())
    }

    /// What is known of a volume.
    pub async fn get(&self, id: &VolumeId) -> Result<Look, LookError> {
        let held = self.uses.get(id);
        let error = if self.cache.rests() {
            MasterError::Unreachable { detail: "it did not answer a moment ago".to_owned() }
        } else {
            match self.master.volume_get(id, within::LOOK).await {
                Ok(volume) => {
                    self.cache.reached(true);
                    self.cache.insert(brief(&volume));
                    if volume.state == State::Creating {
                        return Err(LookError::Creating { volume: id.clone() });
                    }
                    return Ok(Look { seen: Seen::Fresh(Box::new(volume)), held });
                }
                Err(error) if error.is_not_found() => {
                    self.cache.reached(true);
                    self.cache.remove(id);
                    return Err(LookError::NotFound { volume: id.clone() });
                }
                Err(error) => {
                    self.cache.reached(false);
                    error
                }
            }
        };
        let brief = self.cache.get(id);
        if brief.is_none() && held.is_none() {
            return Err(LookError::Unknown(error));
        }
        Ok(Look { seen: Seen::Cached(brief, error), held })
    }

    /// Where a volume is mounted here; `None` where it is not. Never asks anybody.
    pub fn path(&self, id: &VolumeId) -> Option<PathBuf> {
        self.uses.mountpoint(id)
    }

    /// All volumes, by the names that Docker knows.
    pub async fn list(&self) -> Result<Vec<Listed>, LookError> {
        let volumes = match self.refresh().await {
            Ok(volumes) => volumes,
            Err(error) => self.cache.list().ok_or(LookError::Unknown(error))?,
        };
        let mut mounted: BTreeMap<VolumeId, PathBuf> = self
            .uses
            .list()
            .into_iter()
            .filter(|held| held.phase == Phase::Mounted)
            .map(|held| (held.volume, held.target))
            .collect();
        let listed = volumes.values().map(|brief| Listed {
            name: self.docker_name(&brief.volume),
            mountpoint: mounted.remove(&brief.volume),
            created_at: brief.created_at,
        });
        Ok(listed.collect())
    }

    /// Brings the cache up to date and gives it.
    pub(crate) async fn refresh(
        &self,
    ) -> Result<std::sync::Arc<BTreeMap<VolumeId, VolumeBrief>>, MasterError> {
        if self.cache.rests() {
            return Err(MasterError::Unreachable {
                detail: "it did not answer a moment ago".to_owned(),
            });
        }
        let tag = self.cache.tag();
        let answer = self.master.volume_list(tag.as_deref(), within::LOOK).await;
        self.cache.reached(answer.as_ref().map_or_else(|error| !error.is_unknown(), |_| true));
        match answer? {
            Briefs::List { tag, volumes } => Ok(self.cache.replace(tag, volumes)),
            Briefs::Unchanged => self.cache.list().ok_or_else(|| MasterError::Unreachable {
                detail: "it says that nothing has changed, and nothing is known".to_owned(),
            }),
        }
    }

    fn docker_name(&self, id: &VolumeId) -> String {
        match &self.default_tenant {
            Some(tenant) if *tenant == id.tenant => id.volume.to_string(),
            Some(_) | None => id.to_string(),
        }
    }
}

fn brief(volume: &Volume) -> VolumeBrief {
    VolumeBrief { volume: volume.id(), state: volume.state, created_at: volume.created_at }
}
