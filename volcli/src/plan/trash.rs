//! `volcli trash …`

use super::names::once;
use super::volumes::restoration;
use super::{Action, Purge, UsageError, care};
use crate::args::TrashCommand;

pub(super) fn action(command: TrashCommand) -> Result<Action, UsageError> {
    Ok(match command {
        TrashCommand::List => Action::TrashList,
        TrashCommand::Get { id } => Action::TrashGet(id),
        TrashCommand::Restore { id, becomes } => {
            Action::TrashRestore(id, restoration(becomes.as_deref())?)
        }
        TrashCommand::Purge { ids: _, all: true, removal } => {
            Action::TrashPurge(Purge::All, care(removal))
        }
        TrashCommand::Purge { ids, all: false, removal } => {
            Action::TrashPurge(Purge::These(once(ids)), care(removal))
        }
    })
}
