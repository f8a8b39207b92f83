//! `volcli trash …`

use super::names::once;
use super::volumes::restoration;
use super::{Action, Purge, UsageError, Waiting, care};
use crate::args::TrashCommand;

pub(super) fn action(command: TrashCommand) -> Result<Action, UsageError> {
    Ok(match command {
        TrashCommand::List => Action::TrashList,
        TrashCommand::Get { id } => Action::TrashGet(id),
        TrashCommand::Restore { id, becomes } => {
            Action::TrashRestore(id, restoration(becomes.as_deref())?)
        }
        TrashCommand::Purge { ids, all, wait, removal } => {
            let which = if all { Purge::All } else { Purge::These(once(ids)) };
            let waiting = if wait { Waiting::Wait } else { Waiting::Detach };
            Action::TrashPurge(which, care(removal), waiting)
        }
    })
}
