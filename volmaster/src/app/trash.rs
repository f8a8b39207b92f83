//! The trash: removed volumes whose images are still there.

use std::sync::Arc;

use volapi::trash::Trashed;
use volcore::Kind;
use volcore::name::{TenantName, VolumeId};
use volcore::volume::{Volume, VolumeState};
use volstore::cache::Mirror;
use volstore::records::{Trash, TrashKind, Versioned};
use volstore::store::{Commit, Expect, StoreError};

use super::volumes::{VolumeError, finish_restore, volume_sync};
use super::{App, Failing, ListError, LoopName, catch_up, store_kind};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;

/// Why something in the trash was not shown, restored or purged.
#[derive(Debug, thiserror::Error)]
pub enum TrashError {
    /// There is nothing of that id.
    #[error("{id} is not in the trash; `volcli trash list` shows what is")]
    NotFound {
        /// The id.
        id: String,
    },
    /// Its space is being freed.
    #[error("{id} (volume {volume}) cannot be restored any more: its space is being freed")]
    Purging {
        /// The id.
        id: String,
        /// The volume that it was.
        volume: VolumeId,
    },
    /// There is a volume of that name.
    #[error(
        "volume {volume} exists: restore {id} under another name (`volcli trash restore {id} --as tenant/volume`), or \
         remove that volume first"
    )]
    Exists {
        /// The id.
        id: String,
        /// The volume that is there.
        volume: VolumeId,
    },
    /// The tenant that it is to belong to does not exist.
    #[error(
        "tenant {tenant} does not exist: upload its policy with `volcli tenant upload {tenant} < policy.json`"
    )]
    NoTenant {
        /// Which.
        tenant: TenantName,
    },
    /// The volume could not be restored.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Others are faster, time and again.
    #[error("{id} in the trash is being changed by others; try again")]
    Contended {
        /// The id.
        id: String,
    },
    /// It is not known what there is.
    #[error(transparent)]
    List(#[from] ListError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for TrashError {
    fn kind(&self) -> Kind {
        match self {
            TrashError::NotFound { .. } | TrashError::NoTenant { .. } => Kind::NotFound,
            TrashError::Purging { .. } | TrashError::Exists { .. } => Kind::Conflict,
            TrashError::Contended { .. } => Kind::Busy,
            TrashError::Volume(error) => error.kind(),
            TrashError::List(error) => error.kind(),
            TrashError::Store(error) => store_kind(error),
        }
    }
}

/// As it is shown; `None` for what is only looked out for, and is nothing that anybody could get back.
fn shown(trash: &Trash) -> Option<Trashed> {
    let TrashKind::Image { pool, id, name, purge_after, purging } = &trash.kind else {
        return None;
    };
    Some(Trashed {
        id: trash.id(),
        volume: trash.volume.clone(),
        removed_at: trash.since,
        purge_after: *purge_after,
        pool: pool.to_string(),
        image: name.clone(),
        image_id: id.clone(),
        size: trash.kept.as_ref().map(|kept| kept.spec.size.bytes()),
        restorable: trash.kept.is_some() && !purging,
    })
}

/// Lists what is in the trash, what was removed last first.
pub async fn trash_list(app: &App) -> Result<Vec<Trashed>, TrashError> {
    catch_up(app, &app.mirrors.trash, None::<&Mirror<Trash>>).await?;
    let all: Vec<Arc<Trash>> = app
        .mirrors
        .trash
        .read(|view| view.records().values().map(|kept| kept.record.clone()).collect());
    let mut listed: Vec<Trashed> = all.iter().filter_map(|trash| shown(trash)).collect();
    listed.sort_by(|one, other| (other.removed_at, &one.id).cmp(&(one.removed_at, &other.id)));
    Ok(listed)
}

async fn found(app: &App, id: &str) -> Result<Versioned<Trash>, TrashError> {
    let not_found = || TrashError::NotFound { id: id.chars().take(80).collect() };
    // The ids are ours: what has another form is in no key.
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(not_found());
    }
    let found = app.records.trash(id).await?.filter(|found| shown(&found.value).is_some());
    found.ok_or_else(not_found)
}

/// Shows what is in the trash.
pub async fn trash_get(app: &App, id: &str) -> Result<Trashed, TrashError> {
    let found = found(app, id).await?;
    shown(&found.value).ok_or_else(|| TrashError::NotFound { id: id.to_owned() })
}

/// Has the space of something in the trash freed, in the background.
pub async fn trash_purge(app: &App, id: &str) -> Result<(), TrashError> {
    for _ in 0..ROUNDS {
        let Versioned { value: mut trash, at } = found(app, id).await?;
        if let TrashKind::Image { purge_after, .. } = &mut trash.kind {
            *purge_after = Some(app.now());
        }
        let changes = app.records.changes().put_trash(&trash, Expect::At(at));
        if let Commit::Done(_) = app.records.commit(changes).await? {
            app.loops.nudge(LoopName::Trash);
            return Ok(());
        }
    }
    Err(TrashError::Contended { id: id.to_owned() })
}

/// Makes a removed volume a volume again, under its name or another. Asked again, after an answer that was lost, it finds
/// the volume that it made.
pub async fn trash_restore(
    app: &App,
    id: &str,
    volume: Option<VolumeId>,
) -> Result<Volume, TrashError> {
    for _ in 0..ROUNDS {
        let Versioned { value: trash, at } = match found(app, id).await {
            Ok(found) => found,
            Err(error @ TrashError::NotFound { .. }) => {
                return match restored(app, id, volume.as_ref()).await? {
                    Some(volume) => Ok(finish_restore(app, volume).await?),
                    None => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        let TrashKind::Image { pool, id: image_id, name, purging, .. } = trash.kind else {
            return Err(TrashError::NotFound { id: id.to_owned() });
        };
        let (Some(kept), false) = (trash.kept, purging) else {
            return Err(TrashError::Purging { id: id.to_owned(), volume: trash.volume });
        };
        let target = volume.clone().unwrap_or_else(|| trash.volume.clone());
        let (there, tenant) =
            tokio::join!(app.records.volume(&target), app.records.tenant(&target.tenant));
        if let Some(there) = there? {
            return Err(TrashError::Exists { id: id.to_owned(), volume: there.value.id });
        }
        // A volume outlives its tenant, but none is given to one that is not there.
        if tenant?.is_none() && target.tenant != trash.volume.tenant {
            return Err(TrashError::NoTenant { tenant: target.tenant });
        }
        let mut restoring = Volume {
            id: target,
            uid: trash.uid,
            spec: kept.spec,
            policy_revision: kept.policy_revision,
            created_at: kept.created_at,
            state: VolumeState::Restoring { since: app.now(), image_id, was: name },
            flattening: kept.flattening,
            last_error: None,
        };
        restoring.spec.pool = pool;
        let changes =
            app.records.changes().delete_trash(id, at).put_volume(&restoring, Expect::Absent);
        if let Commit::Done(at) = app.records.commit(changes).await? {
            return Ok(finish_restore(app, Versioned { value: restoring, at }).await?);
        }
    }
    Err(TrashError::Contended { id: id.to_owned() })
}

/// The volume that something in the trash has become: it has the uid that the trash knew it by.
async fn restored(
    app: &App,
    id: &str,
    volume: Option<&VolumeId>,
) -> Result<Option<Versioned<Volume>>, TrashError> {
    let is_it = |volume: &Volume| {
        volume.uid.simple().to_string() == id
            && matches!(volume.state, VolumeState::Ready { .. } | VolumeState::Restoring { .. })
    };
    let name = match volume {
        Some(volume) => volume.clone(),
        None => {
            volume_sync(app).await?;
            let found = app.mirrors.volumes.read(|view| {
                let mut all = view.records().values().map(|kept| &kept.record);
                all.find(|volume| is_it(volume)).map(|volume| volume.id.clone())
            });
            let Some(name) = found else { return Ok(None) };
            name
        }
    };
    Ok(app.records.volume(&name).await?.filter(|found| is_it(&found.value)))
}
