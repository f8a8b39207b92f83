//! Drops what attempts to make images have left under temporary names.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;
use volcore::volume::VolumeState;
use volstorage::image::Unfinished;

use super::{LoopError, Pass};
use crate::app::App;
use crate::app::volumes::volume_sync;

/// The leavings of the last pass: only what is nobody's in two passes is dropped.
#[derive(Debug, Default)]
pub struct Seen(HashSet<String>);

pub(super) async fn pass(app: &Arc<App>, seen: &mut Seen) -> Result<Pass, LoopError> {
    // First the images, then the records: an attempt is made after its intent was stored, so that
    // one which is found here and is not there is over.
    let found = app.images.unfinished().await?;
    volume_sync(app).await?;
    let creating: HashSet<Uuid> = app.mirrors.volumes.read(|view| {
        let all = view.records().values().map(|kept| &kept.record);
        let creating = all.filter(|volume| matches!(volume.state, VolumeState::Creating { .. }));
        creating.map(|volume| volume.uid).collect()
    });
    let nobodys: Vec<Unfinished> =
        found.into_iter().filter(|left| !creating.contains(&left.uid)).collect();
    let mut now = HashSet::new();
    let mut failed = None;
    for left in &nobodys {
        let name = place(left);
        if seen.0.contains(&name) {
            match app.images.drop_unfinished(left).await {
                Ok(()) => {
                    tracing::info!(image = name, "an image that was never finished was dropped")
                }
                // The others are not the worse for it.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        now.insert(name);
    }
    seen.0 = now;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Pass { pending: nobodys.iter().map(place).collect(), tasks: Vec::new() }),
    }
}

fn place(left: &Unfinished) -> String {
    format!("{}/{}", left.pool, left.name)
}
