//! Taking a snapshot while nothing writes, where that is wanted or needed.
//!
//! What has to hold is [`volcore::order::snapshot_quiet`]'s to say. It is confirmed after the snapshot was taken and before
//! it is there: so none that was written into is ever passed off as one that was not, whoever dies.

use std::time::Duration;

use tokio::time::Instant;
use volcore::Kind;
use volcore::name::{HostName, VolumeId};
use volcore::order::{Capture, FREEZE_BOUND, Quiet, snapshot_quiet};
use volcore::volume::Volume;
use volstorage::image::{Confirmed, ImageError, ImageSnapshot, Snapped, SnapshotUsage, Verdict};
use volstore::store::StoreError;

use crate::app::orders::{self, FreezeError};
use crate::app::{App, Failing, store_kind};

/// Of the time that a file system is frozen for, so much is for telling its host that it is over.
const SPARE: Duration = Duration::from_millis(500);
/// How long what nobody holds may take to be copied.
const UNHELD: Duration = Duration::from_secs(3600);

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub enum QuietError {
    /// The image driver failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The file system was not frozen, or not for long enough.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// Somebody has begun to use it.
    #[error("volume {volume} was claimed while its snapshot was taken; try again")]
    Claimed {
        /// Which.
        volume: VolumeId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for QuietError {
    fn kind(&self) -> Kind {
        match self {
            QuietError::Image(error) => error.kind(),
            QuietError::Freeze(error) => error.kind(),
            QuietError::Claimed { .. } => Kind::Busy,
            QuietError::Store(error) => store_kind(error),
        }
    }
}

/// Takes a snapshot of a volume, and leaves none of that name if what has to hold does not.
pub(crate) async fn snapshot_quietly(
    app: &App,
    volume: &Volume,
    at: &ImageSnapshot,
) -> Result<Snapped, QuietError> {
    let claim = app.records.claim(&volume.id).await?.map(|claim| claim.value);
    let quiet = |capture| snapshot_quiet(volume, claim.as_ref(), capture);
    match quiet(app.images.capture()) {
        Quiet::Nothing => match app.images.snapshot_create(at).await {
            Err(ImageError::Kept { .. }) => {
                snapshot_while(app, volume, at, quiet(Capture::Unwritten)).await
            }
            taken => Ok(taken?),
        },
        quiet => snapshot_while(app, volume, at, quiet).await,
    }
}

/// Takes a snapshot while something holds.
async fn snapshot_while(
    app: &App,
    volume: &Volume,
    at: &ImageSnapshot,
    quiet: Quiet,
) -> Result<Snapped, QuietError> {
    match quiet {
        Quiet::Nothing => Ok(app.images.snapshot_create(at).await?),
        Quiet::Unheld => unheld(app, volume, at).await,
        Quiet::Frozen(host) => {
            let freeze = match turn(app, volume, at, &host).await? {
                Some(freeze) => freeze,
                None => return Ok(Snapped::Existed),
            };
            let taken = frozen(app, at, &freeze).await;
            orders::end(app, freeze).await;
            taken
        }
    }
}

/// Has the file system frozen, unless the snapshot is there: whoever had it frozen before may have taken it.
async fn turn(
    app: &App,
    volume: &Volume,
    at: &ImageSnapshot,
    host: &HostName,
) -> Result<Option<orders::Freeze>, QuietError> {
    let began = Instant::now();
    loop {
        let there = app.images.snapshot_list(&at.image, SnapshotUsage::Skip).await?;
        if there.iter().any(|found| found.name == at.snapshot) {
            return Ok(None);
        }
        match orders::freeze(app, volume, host).await {
            Err(FreezeError::Taken { .. }) if began.elapsed() < orders::TURN => {}
            frozen => return Ok(Some(frozen?)),
        }
    }
}

/// Takes a snapshot of what is frozen.
async fn frozen(
    app: &App,
    at: &ImageSnapshot,
    freeze: &orders::Freeze,
) -> Result<Snapped, QuietError> {
    let mut trouble = None;
    let confirm = async {
        match orders::thaw(app, freeze).await {
            Ok(thawed) => {
                tracing::info!(snapshot = %at, held_ms = thawed.held_ms, "its file system was frozen");
                Verdict::Keep
            }
            Err(error) => {
                trouble = Some(error.into());
                Verdict::Discard
            }
        }
    };
    let within = FREEZE_BOUND.saturating_sub(SPARE);
    let taken = app.images.snapshot_create_if(at, within, Box::pin(confirm)).await;
    outcome(taken, trouble)
}

/// Takes a snapshot of what nobody holds, and nobody has held meanwhile.
async fn unheld(app: &App, volume: &Volume, at: &ImageSnapshot) -> Result<Snapped, QuietError> {
    let id = &volume.id;
    // Whoever has come and gone meanwhile has left another epoch.
    let holds = async || -> Result<_, StoreError> {
        let (claim, epoch) = tokio::join!(app.records.claim(id), app.records.epoch(id));
        Ok((claim?.is_some(), epoch?.map(|epoch| epoch.value)))
    };
    let before = holds().await?;
    let mut trouble = None;
    let confirm = async {
        trouble = match holds().await {
            Ok(after) if !after.0 && after == before => return Verdict::Keep,
            Ok(_) => Some(QuietError::Claimed { volume: id.clone() }),
            Err(error) => Some(error.into()),
        };
        Verdict::Discard
    };
    let taken = app.images.snapshot_create_if(at, UNHELD, Box::pin(confirm)).await;
    outcome(taken, trouble)
}

fn outcome(
    taken: Result<Confirmed, ImageError>,
    trouble: Option<QuietError>,
) -> Result<Snapped, QuietError> {
    // What was not confirmed is the reason, whatever came of discarding it.
    match (trouble, taken) {
        (Some(trouble), _) => Err(trouble),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(Confirmed::Created)) => Ok(Snapped::Created),
        // Nothing is discarded that was confirmed.
        (None, Ok(Confirmed::Existed | Confirmed::Discarded)) => Ok(Snapped::Existed),
    }
}
