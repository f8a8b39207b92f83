//! `volcli tenant …`

use super::names::once;
use super::{Action, care, source};
use crate::args::TenantCommand;

pub(super) fn action(command: TenantCommand) -> Action {
    match command {
        TenantCommand::Upload { tenant, from_revision: Some(revision), .. } => {
            Action::TenantUploadRevision(tenant, revision)
        }
        TenantCommand::Upload { tenant, file, check: true, from_revision: None } => {
            Action::TenantCheck(tenant, source(file))
        }
        TenantCommand::Upload { tenant, file, check: false, from_revision: None } => {
            Action::TenantUpload(tenant, source(file))
        }
        TenantCommand::Get { tenant } => Action::TenantGet(tenant),
        TenantCommand::List => Action::TenantList,
        TenantCommand::Delete { tenants, removal } => {
            Action::TenantDelete(once(tenants), care(removal))
        }
        TenantCommand::History { tenant, revision, diff } => match (revision, diff.as_slice()) {
            (_, [older, newer]) => Action::TenantDiff(tenant, *older, *newer),
            (Some(revision), _) => Action::TenantRevision(tenant, revision),
            (None, _) => Action::TenantHistory(tenant),
        },
    }
}
