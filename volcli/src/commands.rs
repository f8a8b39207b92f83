//! Carries out a plan: one file for each resource.

mod doctor;
mod global;
mod hosts;
mod man;
mod mounts;
mod removal;
mod snapshots;
mod status;
mod tenants;
mod this_host;
mod trash;
mod volumes;
mod wait;

use crate::backend::Backend;
use crate::failure::{Exit, Failure};
use crate::output::Format;
use crate::plan::{Action, Plan};
use crate::progress::Progress;

/// What every command has at hand.
struct Context {
    backend: Backend,
    format: Option<Format>,
    progress: Progress,
}

/// Carries out a plan.
pub async fn run(plan: Plan) -> Result<Exit, Failure> {
    let Plan { reach, format, patience, action } = plan;
    let progress = Progress::new(format, patience);
    let context = Context { backend: Backend::new(reach).await?, format, progress };
    match action {
        Action::TenantUpload(tenant, source) => tenants::upload(&context, &tenant, &source).await,
        Action::TenantUploadRevision(tenant, revision) => {
            tenants::upload_revision(&context, &tenant, revision).await
        }
        Action::TenantCheck(tenant, source) => tenants::check(&tenant, &source),
        Action::TenantGet(tenant) => tenants::get(&context, &tenant).await,
        Action::TenantList => tenants::list(&context).await,
        Action::TenantDelete(tenants, care) => tenants::delete(&context, &tenants, care).await,
        Action::TenantHistory(tenant) => tenants::history(&context, &tenant).await,
        Action::TenantRevision(tenant, revision) => {
            tenants::revision(&context, &tenant, revision).await
        }
        Action::TenantDiff(tenant, older, newer) => {
            tenants::diff(&context, &tenant, older, newer).await
        }
        Action::VolumeCreate(body) => volumes::create(&context, &body).await,
        Action::SnapshotClone(body, waiting) => volumes::clone_flat(&context, &body, waiting).await,
        Action::VolumeFlatten(id, waiting) => volumes::flatten(&context, &id, waiting).await,
        Action::VolumeAdopt(id, body) => volumes::adopt(&context, &id, &body).await,
        Action::VolumeGet(id) => volumes::get(&context, &id).await,
        Action::VolumeSet(id, body) => volumes::set(&context, &id, &body).await,
        Action::VolumeList(tenant) => volumes::list(&context, tenant.as_ref()).await,
        Action::VolumeRemove(ids, care, wait) => volumes::remove(&context, &ids, care, wait).await,
        Action::VolumeForceRemove(ids, care) => volumes::force_remove(&context, &ids, care).await,
        Action::VolumeRestore(id, which, body) => {
            trash::restore_volume(&context, &id, which.as_ref(), &body).await
        }
        Action::SnapshotCreate(id) => snapshots::create(&context, &id).await,
        Action::SnapshotGet(id) => snapshots::get(&context, &id).await,
        Action::SnapshotList(id) => snapshots::list(&context, &id).await,
        Action::SnapshotRemove(ids, care) => snapshots::remove(&context, &ids, care).await,
        Action::SnapshotRollback(id, care) => snapshots::rollback(&context, &id, care).await,
        Action::ScheduleList(tenant) => snapshots::schedules(&context, tenant.as_ref()).await,
        Action::TrashList => trash::list(&context).await,
        Action::TrashGet(id) => trash::get(&context, &id).await,
        Action::TrashRestore(id, body) => trash::restore(&context, &id, &body).await,
        Action::TrashPurge(which, care, waiting) => {
            trash::purge(&context, &which, care, waiting).await
        }
        Action::MountList(tenant) => mounts::list(&context, tenant.as_ref()).await,
        Action::MountGet(id) => mounts::get(&context, &id).await,
        Action::MountForceRemove(ids, care, holders) => {
            mounts::force_remove(&context, &ids, care, holders).await
        }
        Action::HostList => hosts::list(&context).await,
        Action::HostGet(host) => hosts::get(&context, &host).await,
        Action::HostFence(hosts, care) => hosts::fence(&context, &hosts, care).await,
        Action::HostForget(hosts, care) => hosts::forget(&context, &hosts, care).await,
        Action::GlobalGet => global::get(&context).await,
        Action::GlobalUpload(source) => global::upload(&context, &source).await,
        Action::Status => status::show(&context).await,
        Action::Doctor => doctor::show(&context).await,
        Action::DoctorFix => doctor::fix(&context).await,
        Action::Completion(shell) => man::completion(shell),
        Action::Man(dir) => man::pages(dir.as_deref()),
    }
}
