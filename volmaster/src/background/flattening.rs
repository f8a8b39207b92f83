//! Flattens the volumes of which that was asked, a few at a time, whoever has begun it.

use std::sync::Arc;

use tokio::task::JoinHandle;
use volcore::volume::{Flattening, Volume};
use volstorage::image::ImageError;

use super::{LoopError, Pass};
use crate::app::volumes::{VolumeError, finish_flatten, volume_sync};
use crate::app::{App, LoopName};

/// How many volumes are begun in one pass; those that find no place wait for one.
const BATCH: usize = 256;

pub(super) async fn pass(app: &Arc<App>) -> Result<Pass, LoopError> {
    volume_sync(app).await?;
    let asked: Vec<Arc<Volume>> = app.mirrors.volumes.read(|view| {
        let all = view.records().values().map(|kept| &kept.record);
        all.filter(|volume| volume.to_be_flattened().is_some()).cloned().collect()
    });
    let cell = app.loops.of(LoopName::Flattening);
    cell.keep(&asked.iter().map(|volume| volume.uid).collect::<Vec<_>>());
    let due = asked.iter().filter(|volume| cell.is_due(volume.uid)).take(BATCH);
    let tasks = due.filter_map(|volume| begin(app, volume)).collect();
    Ok(Pass { pending: asked.iter().map(|volume| line(volume)).collect(), tasks })
}

fn line(volume: &Volume) -> String {
    let id = &volume.id;
    match &volume.flattening {
        Flattening::Pending { since, reason } => {
            let reason = reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{id} waits to be flattened since {since:.0}{reason}")
        }
        Flattening::UnderWay { since } => format!("{id} is being flattened, since {since:.0}"),
        Flattening::NotAsked | Flattening::Done => format!("{id} is flattened"),
    }
}

/// The drivers bound how long it takes. At a shutdown it is left where it is: the record says that it is to be gone on with.
fn begin(app: &Arc<App>, volume: &Volume) -> Option<JoinHandle<()>> {
    let running = app.loops.of(LoopName::Flattening).begin(volume.uid)?;
    let (app, id, uid) = (app.clone(), volume.id.clone(), volume.uid);
    let tracker = app.tasks.clone();
    Some(tracker.spawn(async move {
        let work = async {
            let _place = running.place().await;
            finish_flatten(&app, &id, uid).await
        };
        // Both arms may be dropped: what is under way is found by the next who looks, and can be repeated.
        let done = tokio::select! {
            () = app.stop.cancelled() => return,
            done = work => done,
        };
        drop(running);
        match done {
            // So that what is shown as pending is.
            Ok(()) => app.loops.nudge(LoopName::Flattening),
            // Another volmaster is at it, or was until a moment ago: no failure, and it is looked again soon.
            Err(VolumeError::Image { source: ImageError::InUse { .. }, .. }) => {
                let cell = app.loops.of(LoopName::Flattening);
                cell.again(uid);
                cell.put_off(uid);
            }
            Err(error) => {
                app.loops.of(LoopName::Flattening).failed(uid);
                let error = volapi::problem::chain(&error);
                tracing::warn!(volume = %id, error, "a volume could not be flattened");
            }
        }
    }))
}
