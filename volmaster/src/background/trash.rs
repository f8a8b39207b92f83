//! Frees the space of removed volumes, and looks out for images that come too late.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use volcore::volume::ImageName;
use volstorage::image::{Discarded, ImageError, TrashedImage};
use volstore::cache::Mirror;
use volstore::records::{Trash, TrashKind, Versioned};
use volstore::store::{Commit, Expect};

use super::{LoopError, Pass};
use crate::app::{App, LoopName, catch_up};

/// How many records are begun in one pass.
const BATCH: usize = 256;

pub(super) async fn pass(app: &Arc<App>) -> Result<Pass, LoopError> {
    catch_up(app, &app.mirrors.trash, None::<&Mirror<Trash>>).await?;
    let now = app.now();
    let due: Vec<Arc<Trash>> = app.mirrors.trash.read(|view| {
        let all = view.records().values().map(|kept| &kept.record);
        all.filter(|trash| is_due(trash, now)).cloned().collect()
    });
    let cell = app.loops.of(LoopName::Trash);
    cell.keep(&due.iter().map(|trash| trash.uid).collect::<Vec<_>>());
    let tasks = due.iter().filter(|trash| cell.is_due(trash.uid)).take(BATCH);
    let tasks = tasks.filter_map(|trash| begin(app, trash)).collect();
    Ok(Pass { pending: due.iter().map(|trash| line(trash)).collect(), tasks })
}

/// What is kept until somebody purges it is none of this loop's business.
fn is_due(trash: &Trash, now: Timestamp) -> bool {
    match &trash.kind {
        TrashKind::Image { purge_after, .. } => purge_after.is_some_and(|after| after <= now),
        TrashKind::Late { .. } => true,
    }
}

fn line(trash: &Trash) -> String {
    match &trash.kind {
        TrashKind::Image { pool, id, name, .. } => {
            format!(
                "image {id} (once {name}) of pool {pool} is to be purged since {:.0}",
                trash.since
            )
        }
        TrashKind::Late { pool, name, until } => {
            format!("image {pool}/{name} of a removed volume is looked out for until {until:.0}")
        }
    }
}

fn begin(app: &Arc<App>, trash: &Trash) -> Option<JoinHandle<()>> {
    let running = app.loops.of(LoopName::Trash).begin(trash.uid)?;
    let (app, trash) = (app.clone(), trash.clone());
    let tracker = app.tasks.clone();
    Some(tracker.spawn(async move {
        let _place = running.place().await;
        if let Err(error) = purge(&app, trash.clone()).await {
            app.loops.of(LoopName::Trash).failed(trash.uid);
            let error = volapi::problem::chain(&error);
            tracing::warn!(volume = %trash.volume, error, "what was removed could not be purged");
        }
    }))
}

async fn purge(app: &App, trash: Trash) -> Result<(), LoopError> {
    let Some(trash) = begun(app, trash).await? else { return Ok(()) };
    let finished = match trash.kind.clone() {
        TrashKind::Image { pool, id, name, .. } => {
            free(app, &TrashedImage { pool, id, name }).await?;
            true
        }
        TrashKind::Late { pool, name, until } => {
            let over = until <= app.now();
            match app.images.discard(&ImageName { pool, name }, None, trash.uid).await {
                Ok(Discarded::Trashed(trashed)) => free(app, &trashed).await?,
                Ok(Discarded::Absent)
                | Err(ImageError::NoPool { .. } | ImageError::Foreign { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            over
        }
    };
    if finished && let Some(found) = app.records.trash(&trash.id()).await? {
        let changes = app.records.changes().delete_trash(&trash.id(), found.at);
        // A conflict says that another volmaster has deleted it.
        app.records.commit(changes).await?;
        // So that what is shown as pending is.
        app.loops.nudge(LoopName::Trash);
    }
    Ok(())
}

/// Says in the record that it may be purged from now on, where it could have been restored until now; `None` where it
/// was changed since it was listed.
async fn begun(app: &App, trash: Trash) -> Result<Option<Trash>, LoopError> {
    if trash.kept.is_none() {
        return Ok(Some(trash));
    }
    let Some(Versioned { value: mut found, at }) = app.records.trash(&trash.id()).await? else {
        return Ok(None);
    };
    if !is_due(&found, app.now()) {
        return Ok(None);
    }
    match &mut found.kind {
        TrashKind::Image { purging, .. } if !*purging => *purging = true,
        TrashKind::Image { .. } | TrashKind::Late { .. } => return Ok(Some(found)),
    }
    let changes = app.records.changes().put_trash(&found, Expect::At(at));
    Ok(match app.records.commit(changes).await? {
        Commit::Done(_) => Some(found),
        Commit::Conflict => None,
    })
}

/// With the pool went the image.
async fn free(app: &App, trashed: &TrashedImage) -> Result<(), LoopError> {
    match app.images.purge(trashed).await {
        Ok(_) | Err(ImageError::NoPool { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
