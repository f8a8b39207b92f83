//! Creating a volume: intent, image, commit; and taking that up where somebody left off.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;
use volcore::name::VolumeId;
use volcore::options::OptionSet;
use volcore::policy::Tenant;
use volcore::spec::VolumeSpec;
use volcore::volume::{CreateDecision, Flattening, ImageFit, Volume, VolumeState};
use volstorage::image::{Created, Discarded, ImageError, NewImage};
use volstore::records::{Trash, TrashKind, Versioned};
use volstore::store::{Commit, Expect, StoreError};

use super::clone::{self, CloneError};
use super::{
    CREATE_BOUND, LATE_BOUND, Mode, TAKE_UP_WAITING, VolumeError, finish_remove, moved, note_error,
};
use crate::app::{App, LoopName};

/// How long a wait for somebody else's work goes on without a look at the store.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a create came to. Either way the volume is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// This call has made it.
    Created(Volume),
    /// It was there, or somebody else has made it meanwhile.
    Unchanged(Volume),
}

/// Creates a volume, or finds that it is there.
///
/// Two round trips to the store before the image is made (both records at once; the intent), one
/// after it. Whoever asks for a volume that is being made waits for it.
pub async fn volume_create(
    app: &App,
    id: &VolumeId,
    asked: &OptionSet,
) -> Result<Creation, VolumeError> {
    let end = Instant::now() + CREATE_BOUND;
    loop {
        let (volume, tenant) = tokio::join!(app.records.volume(id), app.records.tenant(&id.tenant));
        let volume = volume?;
        let decision = volcore::volume::volume_create(volume.as_ref().map(|v| &v.value), asked)?;
        match (decision, volume) {
            (CreateDecision::Unchanged, Some(volume)) => {
                return Ok(Creation::Unchanged(volume.value));
            }
            (CreateDecision::Await, Some(volume)) => {
                if abandoned(&volume.value, app.now(), TAKE_UP_WAITING) && !app.in_hand.has(id) {
                    if let Some(taken) = take_up(app, &volume).await? {
                        return finish_create(app, taken).await.map(Creation::Created);
                    }
                } else if Instant::now() >= end {
                    return Err(still_creating(volume.value));
                } else {
                    app.volume_changed(id, volume.at, LOOK_AGAIN).await;
                }
            }
            (CreateDecision::New | CreateDecision::Unchanged | CreateDecision::Await, _) => {
                let tenant =
                    tenant?.ok_or_else(|| VolumeError::NoTenant { tenant: id.tenant.clone() })?;
                if let Some(intent) = begin(app, id, asked, &tenant).await? {
                    return finish_create(app, intent).await.map(Creation::Created);
                }
                if Instant::now() >= end {
                    return Err(VolumeError::Contended { volume: id.clone() });
                }
            }
        }
    }
}

fn still_creating(volume: Volume) -> VolumeError {
    let since = match volume.state {
        VolumeState::Creating { since }
        | VolumeState::RollingBack { since, .. }
        | VolumeState::Restoring { since, .. }
        | VolumeState::Adopting { since, .. }
        | VolumeState::GivingBack { since, .. }
        | VolumeState::Removing { since, .. } => since,
        VolumeState::Ready { .. } => volume.created_at,
    };
    VolumeError::StillCreating { volume: volume.id, since }
}

/// Stores the intent; `None` where somebody else was faster.
async fn begin(
    app: &App,
    id: &VolumeId,
    asked: &OptionSet,
    tenant: &Versioned<Tenant>,
) -> Result<Option<Versioned<Volume>>, VolumeError> {
    let (policy, pool) = (&tenant.value.policy, &app.default_pool);
    let spec = match &asked.from {
        None => VolumeSpec::freeze(policy, asked.clone(), pool),
        Some(origin) => {
            let source = clone::origin(app, id, origin).await?;
            VolumeSpec::freeze_clone(policy, asked.clone(), pool, origin, &source.spec)
        }
    };
    let spec = spec.map_err(|source| VolumeError::Spec { volume: id.clone(), source })?;
    let now = app.now();
    let volume = Volume {
        id: id.clone(),
        uid: Uuid::new_v4(),
        spec,
        policy_revision: tenant.value.revision,
        created_at: now,
        state: VolumeState::Creating { since: now },
        flattening: Flattening::NotAsked,
        last_error: None,
    };
    let changes = app
        .records
        .changes()
        .put_volume(&volume, Expect::Absent)
        .check_tenant(&id.tenant, Expect::At(tenant.at));
    Ok(match app.records.commit(changes).await? {
        Commit::Done(at) => Some(Versioned { value: volume, at }),
        Commit::Conflict => None,
    })
}

/// Whether nobody seems to be working on a volume in `creating` any more. To be wrong is harmless:
/// two attempts for one volume come to the same end.
pub(crate) fn abandoned(volume: &Volume, now: Timestamp, after: Duration) -> bool {
    match volume.state {
        VolumeState::Creating { since } => {
            volume.last_error.is_some() || now.duration_since(since) > signed(after)
        }
        VolumeState::Ready { .. }
        | VolumeState::RollingBack { .. }
        | VolumeState::Restoring { .. }
        | VolumeState::Adopting { .. }
        | VolumeState::GivingBack { .. }
        | VolumeState::Removing { .. } => false,
    }
}

pub(super) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// Says in the record that the work is taken up now; `None` where the record has changed.
pub(crate) async fn take_up(
    app: &App,
    volume: &Versioned<Volume>,
) -> Result<Option<Versioned<Volume>>, VolumeError> {
    let taken = moved(&volume.value, VolumeState::Creating { since: app.now() });
    let changes = app.records.changes().put_volume(&taken, Expect::At(volume.at));
    Ok(match app.records.commit(changes).await? {
        Commit::Done(at) => Some(Versioned { value: taken, at }),
        Commit::Conflict => None,
    })
}

/// Makes the image of a volume whose intent is stored, and commits it.
pub(crate) async fn finish_create(
    app: &App,
    intent: Versioned<Volume>,
) -> Result<Volume, VolumeError> {
    let _held = app.in_hand.hold(&intent.value.id);
    let began = Instant::now();
    let made = match &intent.value.spec.from {
        None => app.images.create(&new_image(&intent.value)).await.map_err(CloneError::Image),
        Some(origin) => clone::make(app, &intent.value, origin).await,
    };
    let volume = &intent.value.id;
    tracing::debug!(%volume, took = ?began.elapsed(), ok = made.is_ok(), "the image driver answered");
    match made {
        Ok(Created::Created { image_id } | Created::AlreadyOurs { image_id }) => {
            publish(app, intent, image_id).await
        }
        Err(CloneError::Image(source)) => {
            undo(app, &intent, &source, Leavings::of(&source)).await;
            Err(VolumeError::Image { action: "create", volume: intent.value.id, source })
        }
        Err(CloneError::Origin(error)) => {
            undo(app, &intent, &error, Leavings::NONE).await;
            Err(error)
        }
        // It is not known what the store has: the reconciler goes on.
        Err(CloneError::Store(error)) => Err(error.into()),
    }
}

fn new_image(volume: &Volume) -> NewImage {
    NewImage {
        image: volume.image(),
        uid: volume.uid,
        size: volume.spec.size,
        format: volume.spec.format.clone(),
        access: volume.spec.access,
        limits: volume.spec.rate_limits,
    }
}

/// Commits that the image is complete.
async fn publish(
    app: &App,
    intent: Versioned<Volume>,
    image_id: String,
) -> Result<Volume, VolumeError> {
    let Versioned { value: volume, mut at } = intent;
    let made = VolumeState::Ready { image_id: image_id.clone(), fit: ImageFit::Fits };
    let ready = moved(&volume, made);
    // Each round follows a change that somebody else has made to this record.
    for _ in 0..10 {
        let changes = app.records.changes().put_volume(&ready, Expect::At(at));
        if let Commit::Done(_) = app.records.commit(changes).await? {
            return Ok(ready);
        }
        let found = app.records.volume(&volume.id).await?;
        match found.filter(|found| found.value.uid == volume.uid) {
            None => {
                withdraw(app, &volume, &image_id).await;
                return Err(VolumeError::RemovedMeanwhile { volume: volume.id });
            }
            Some(found) => match found.value.state {
                VolumeState::Ready { .. }
                | VolumeState::RollingBack { .. }
                | VolumeState::Restoring { .. }
                | VolumeState::Adopting { .. }
                | VolumeState::GivingBack { .. } => return Ok(found.value),
                VolumeState::Creating { .. } => at = found.at,
                VolumeState::Removing { .. } => {
                    // The remover may have looked for the image before it was there.
                    let done = finish_remove(app, found, Mode::Background).await;
                    if done.is_ok() {
                        withdraw(app, &volume, &image_id).await;
                    }
                    return Err(VolumeError::RemovedMeanwhile { volume: volume.id });
                }
            },
        }
    }
    Err(VolumeError::Contended { volume: volume.id })
}

/// The volume is gone, and its image has come into being after that. Should this process die in here,
/// the remover's [`TrashKind::Late`] record sees to it; after this it has nothing to look for.
async fn withdraw(app: &App, volume: &Volume, image_id: &str) {
    let image = volume.image();
    let done = match app.images.discard(&image, Some(image_id), volume.uid).await {
        Ok(Discarded::Trashed(trashed)) => app.images.purge(&trashed).await.map(drop),
        Ok(Discarded::Absent) | Err(ImageError::Foreign { .. }) => Ok(()),
        Err(error) => Err(error),
    };
    match done {
        Ok(()) if is_first_attempt(volume) => drop_late(app, volume).await,
        Ok(()) => {}
        Err(error) => {
            let error = volapi::problem::chain(&error);
            tracing::warn!(%image, error, "the image of a removed volume is not discarded yet");
        }
    }
    app.loops.nudge(LoopName::Trash);
}

/// Whether nobody else can have taken up the making of this volume's image.
fn is_first_attempt(volume: &Volume) -> bool {
    matches!(volume.state, VolumeState::Creating { since } if since == volume.created_at)
}

/// The only attempt is over: nothing will come any more. Where this fails, the record's time runs out.
async fn drop_late(app: &App, volume: &Volume) {
    let id = volume.uid.simple().to_string();
    let dropped = async {
        if let Some(found) = app.records.trash(&id).await?
            && let TrashKind::Late { .. } = found.value.kind
        {
            app.records.commit(app.records.changes().delete_trash(&id, found.at)).await?;
        }
        Ok::<(), StoreError>(())
    };
    if let Err(error) = dropped.await {
        let (volume, error) = (&volume.id, volapi::problem::chain(&error));
        tracing::debug!(%volume, error, "the look-out for a late image runs on");
    }
}

/// What an attempt that failed may have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leavings {
    /// Whether an image of it may be there now.
    now: Known,
    /// Whether one may come to be there: somebody may be making it still.
    later: bool,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nothing.
    No,
    /// Perhaps; discarding it finds out.
    Perhaps,
    /// Nobody can say now.
    Unknown,
}

impl Leavings {
    const NONE: Leavings = Leavings { now: Known::No, later: false };

    fn of(error: &ImageError) -> Leavings {
        match error {
            ImageError::NoPool { .. }
            | ImageError::Foreign { .. }
            | ImageError::Format { .. }
            | ImageError::TooLarge { .. }
            | ImageError::NoImage { .. }
            | ImageError::NoFilesystem { .. }
            | ImageError::NoFeature { .. }
            | ImageError::NoSnapshot { .. }
            | ImageError::Shrinks { .. }
            | ImageError::Slow { .. }
            | ImageError::NoSpace { .. } => Leavings::NONE,
            ImageError::InUse { .. }
            | ImageError::Held { .. }
            | ImageError::Kept { .. }
            | ImageError::HasClones { .. }
            | ImageError::NotInTrash { .. }
            | ImageError::Denied { .. }
            | ImageError::Failed { .. } => Leavings { now: Known::Perhaps, later: true },
            ImageError::Unreachable { .. } => Leavings { now: Known::Unknown, later: true },
        }
    }
}

/// Takes the intent back, where it is proven that no image is left; else says in it what happened.
async fn undo(
    app: &App,
    intent: &Versioned<Volume>,
    error: &(dyn std::error::Error + Send + Sync + 'static),
    leavings: Leavings,
) {
    let volume = &intent.value;
    let clean = match leavings.now {
        Known::No => true,
        Known::Perhaps => {
            let discarded = app.images.discard(&volume.image(), None, volume.uid).await;
            // What has the name now is not this volume's, and is left alone.
            matches!(discarded, Ok(_) | Err(ImageError::Foreign { .. }))
        }
        Known::Unknown => false,
    };
    if !clean || clone::drop_temporary(app, volume).await.is_err() {
        return note_error(app, intent, error).await;
    }
    let mut changes = app.records.changes().delete_volume(&volume.id, intent.at);
    let first_try = is_first_attempt(volume) && !abandoned(volume, app.now(), TAKE_UP_WAITING);
    // Others may be making the image too, or an image was found that is only in the trash so far.
    if !first_try || leavings.later {
        changes = changes.put_trash(&late(app, volume), Expect::Absent);
    }
    match app.records.commit(changes).await {
        Ok(Commit::Done(_)) => app.loops.nudge(LoopName::Trash),
        // Somebody has taken it up, or removes it.
        Ok(Commit::Conflict) => {}
        Err(error) => {
            let (volume, error) = (&volume.id, volapi::problem::chain(&error));
            tracing::warn!(%volume, error, "the intent of a failed create could not be taken back yet");
        }
    }
}

/// The record that looks after an image which may still come into being.
pub(super) fn late(app: &App, volume: &Volume) -> Trash {
    let since = app.now();
    let image = volume.image();
    let until = since.checked_add(signed(LATE_BOUND)).unwrap_or(Timestamp::MAX);
    Trash {
        volume: volume.id.clone(),
        uid: volume.uid,
        since,
        kind: TrashKind::Late { pool: image.pool, name: image.name, until },
        kept: None,
    }
}
