//! Finishes what a volmaster began to fence that is gone or had no answer, and ends fences when nobody is left whom
//! they keep out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use volcore::claim::Claim;
use volcore::host::Session;
use volcore::name::{HostName, VolumeId};
use volcore::takeover;
use volstore::cache::Mirror;

use super::{LoopError, Pass};
use crate::app::{App, catch_up, fencing};

/// How long one volume may take before it counts as failed.
const BOUND: Duration = Duration::from_secs(60);
/// How many are begun in one pass.
const BATCH: usize = 256;

pub(super) async fn pass(app: &Arc<App>) -> Result<Pass, LoopError> {
    catch_up(app, &app.mirrors.mounts, None::<&Mirror<Claim>>).await?;
    let fenced: Vec<Arc<Claim>> = app.mirrors.mounts.read(|view| {
        let all = view.records().values().map(|kept| &kept.record);
        all.filter(|claim| claim.fencing().is_some()).cloned().collect()
    });
    let mut pending: Vec<_> = fenced.iter().map(|claim| line(claim)).collect();
    let tasks = fenced.iter().take(BATCH).map(|claim| begin(app, claim.volume.clone()));
    let mut tasks: Vec<_> = tasks.collect();
    let (sessions, fences) = tokio::join!(app.records.sessions(), app.records.fences(None));
    let sessions: BTreeMap<HostName, Session> =
        sessions?.into_iter().map(|leased| (leased.session.host.clone(), leased.session)).collect();
    for fence in fences?.into_iter().take(BATCH) {
        if takeover::is_over(&fence.value, sessions.get(&fence.value.host)) {
            pending.push(format!(
                "{} has booted again since it lost {}",
                fence.value.host, fence.value.volume
            ));
            let app = app.clone();
            tasks.push(app.tasks.clone().spawn(async move {
                let ended = tokio::time::timeout(BOUND, fencing::unfence(&app, &fence)).await;
                say(ended, &fence.value.volume, "a fence could not be ended");
            }));
        }
    }
    Ok(Pass { pending, tasks })
}

fn line(claim: &Claim) -> String {
    let since = claim.fencing().map(|fencing| format!(" since {:.0}", fencing.since));
    format!("{} is being taken from its holder{}", claim.volume, since.unwrap_or_default())
}

fn begin(app: &Arc<App>, id: VolumeId) -> JoinHandle<()> {
    let app = app.clone();
    app.tasks.clone().spawn(async move {
        let finished = tokio::time::timeout(BOUND, fencing::finish(&app, &id)).await;
        say(finished, &id, "a holder could not be fenced");
    })
}

fn say(
    came: Result<Result<(), fencing::FenceError>, tokio::time::error::Elapsed>,
    volume: &VolumeId,
    what: &str,
) {
    let error = match came {
        Ok(Ok(())) => return,
        Ok(Err(error)) => volapi::problem::chain(&error),
        Err(_) => format!("not finished within {BOUND:?}"),
    };
    tracing::warn!(%volume, error, "{what}");
}
