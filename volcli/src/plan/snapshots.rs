//! `volcli snapshot …`

use volcore::options::Origin;

use super::names::{SnapshotId, one, one_snapshot, some_snapshots, volume_id};
use super::volumes::creation;
use super::{Action, UsageError, Waiting, care};
use crate::args::{OneSnapshot, SnapshotCommand};

pub(super) fn action(command: SnapshotCommand) -> Result<Action, UsageError> {
    Ok(match command {
        SnapshotCommand::Create { snapshot } => Action::SnapshotCreate(new(&snapshot)?),
        SnapshotCommand::Get { snapshot } => Action::SnapshotGet(id(&snapshot)?),
        SnapshotCommand::List { volume } => Action::SnapshotList(one(volume)?),
        SnapshotCommand::Remove { snapshots, removal } => {
            Action::SnapshotRemove(some_snapshots(&snapshots)?, care(removal))
        }
        SnapshotCommand::Clone { origin, volume, options, flatten, no_wait } => {
            let from = self::origin(origin)?;
            let body = creation(volume_id(&volume)?, options, Some(from))?;
            match (flatten, no_wait) {
                (false, _) => Action::VolumeCreate(body),
                (true, true) => Action::SnapshotClone(body, Waiting::Detach),
                (true, false) => Action::SnapshotClone(body, Waiting::Wait),
            }
        }
        SnapshotCommand::Rollback { snapshot, removal } => {
            Action::SnapshotRollback(id(&snapshot)?, care(removal))
        }
    })
}

fn id(given: &OneSnapshot) -> Result<SnapshotId, UsageError> {
    let OneSnapshot { first, second, third } = given;
    let given: Vec<&str> = [Some(first), second.as_ref(), third.as_ref()]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    one_snapshot(&given)
}

/// A user may not give the names that the suite gives: retention, or the doctor, would remove the snapshot.
fn new(given: &OneSnapshot) -> Result<SnapshotId, UsageError> {
    let id = id(given)?;
    if id.snapshot.is_reserved() || id.snapshot.clone_uid().is_some() {
        return Err(UsageError::Reserved { snapshot: id.snapshot.to_string() });
    }
    Ok(id)
}

fn origin(given: String) -> Result<Origin, UsageError> {
    given.parse().map_err(|reason| UsageError::Origin { given, reason })
}
