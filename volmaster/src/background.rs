//! Reconcilers: they finish what was begun and clean up what was left, whoever has left it.
//!
//! Periodic and nudged, without input, idempotent. Two volmasters may run them on one store at the
//! same time: every commit has a precondition, every call of the image driver can be repeated.

mod fencing;
mod flattening;
mod trash;
mod unfinished;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use volcore::Kind;
use volstorage::image::ImageError;
use volstore::store::StoreError;

use crate::app::snapshots::SnapshotError;
use crate::app::volumes::VolumeError;
use crate::app::{App, Failing, ListError, LoopName, presence, store_kind};

pub use unfinished::Seen;

/// How often a reconciler runs that nobody nudges.
const PERIOD: Duration = Duration::from_secs(5);
/// How often what is left of attempts to make images is looked for.
const UNFINISHED_PERIOD: Duration = Duration::from_secs(60);
/// How many lines of what is pending are shown.
const SHOWN: usize = 20;

/// Why a reconciler got nowhere.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// It does not know what there is.
    #[error(transparent)]
    List(#[from] ListError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A volume could not be finished.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A volume could not be rolled back.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The image driver failed.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl Failing for LoopError {
    fn kind(&self) -> Kind {
        match self {
            LoopError::List(error) => error.kind(),
            LoopError::Store(error) => store_kind(error),
            LoopError::Volume(error) => error.kind(),
            LoopError::Snapshot(error) => error.kind(),
            LoopError::Image(error) => error.kind(),
        }
    }
}

/// What one run found and began.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// One line for each object that is pending.
    pending: Vec<String>,
    /// The work on objects. It goes on by itself: a slow object delays no other, and not the next run.
    tasks: Vec<JoinHandle<()>>,
}

/// Starts all reconcilers. They end with [`App::shutdown`].
pub fn start(app: &Arc<App>) {
    app.tasks.spawn(presence::run(app.clone()));
    for name in LoopName::ALL {
        app.tasks.spawn(run(app.clone(), name));
    }
}

/// Runs one reconciler once, and waits for what it began.
pub async fn once(app: &Arc<App>, name: LoopName, seen: &mut Seen) -> Result<(), LoopError> {
    let tasks = pass(app, name, seen).await?;
    for task in tasks {
        // One that was cut short has said so itself.
        task.await.unwrap_or_default();
    }
    Ok(())
}

async fn run(app: Arc<App>, name: LoopName) {
    let mut seen = Seen::default();
    let period = match name {
        LoopName::Volumes | LoopName::Trash | LoopName::Flattening | LoopName::Fencing => PERIOD,
        LoopName::Unfinished => UNFINISHED_PERIOD,
    };
    loop {
        // Each arm may be dropped: a pass is idempotent, and a nudge that is lost is made up for by time.
        tokio::select! {
            () = app.stop.cancelled() => return,
            outcome = pass(&app, name, &mut seen) => drop(outcome),
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = app.loops.of(name).nudge.notified() => {}
            () = tokio::time::sleep(period) => {}
        }
    }
}

async fn pass(
    app: &Arc<App>,
    name: LoopName,
    seen: &mut Seen,
) -> Result<Vec<JoinHandle<()>>, LoopError> {
    let outcome = match name {
        LoopName::Volumes => volumes::pass(app).await,
        LoopName::Trash => trash::pass(app).await,
        LoopName::Flattening => flattening::pass(app).await,
        LoopName::Fencing => fencing::pass(app).await,
        LoopName::Unfinished => unfinished::pass(app, seen).await,
    };
    let (shown, tasks) = match outcome {
        Ok(Pass { mut pending, tasks }) => {
            pending.truncate(SHOWN);
            (Ok(pending), Ok(tasks))
        }
        Err(error) => (Err(volapi::problem::chain(&error)), Err(error)),
    };
    let is_news = app.loops.of(name).ran(format!("{:.0}", app.now()), shown);
    if let (Err(error), true) = (&tasks, is_news) {
        let error = volapi::problem::chain(error);
        tracing::warn!(name = name.as_str(), error, "a reconciler got nowhere");
    }
    tasks
}
