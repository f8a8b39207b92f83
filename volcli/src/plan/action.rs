//! Everything that can be done.

use std::path::PathBuf;
use std::time::Duration;

use volapi::trash::RestoreTrash;
use volapi::volumes::{AdoptVolume, CreateVolume, SetVolume};
use volcore::name::{HostName, TenantName, VolumeId};

use super::{Care, Purge, SnapshotId, Source, Waiting};
use crate::args::TrashId;

/// What happens to those who hold what is cleared by force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holders {
    /// They are cut off first.
    Fence,
    /// Nothing.
    Leave,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// `tenant upload`
    TenantUpload(TenantName, Source),
    /// `tenant upload --from-revision`
    TenantUploadRevision(TenantName, u64),
    /// `tenant upload --check`
    TenantCheck(TenantName, Source),
    /// `tenant get`
    TenantGet(TenantName),
    /// `tenant list`
    TenantList,
    /// `tenant delete`
    TenantDelete(Vec<TenantName>, Care),
    /// `tenant history`
    TenantHistory(TenantName),
    /// `tenant history` with a number
    TenantRevision(TenantName, u64),
    /// `tenant history --diff`
    TenantDiff(TenantName, u64, u64),
    /// `volume create`, and `snapshot clone`
    VolumeCreate(CreateVolume),
    /// `volume adopt`
    VolumeAdopt(VolumeId, AdoptVolume),
    /// `snapshot clone --flatten`
    SnapshotClone(CreateVolume, Waiting),
    /// `volume flatten`
    VolumeFlatten(VolumeId, Waiting),
    /// `volume get`
    VolumeGet(VolumeId),
    /// `volume set`, and `volume resize`
    VolumeSet(VolumeId, SetVolume),
    /// `volume list`, or `list-all` without a tenant
    VolumeList(Option<TenantName>),
    /// `volume remove`, and how long holders are waited for
    VolumeRemove(Vec<VolumeId>, Care, Option<Duration>),
    /// `volume force-remove`
    VolumeForceRemove(Vec<VolumeId>, Care),
    /// `volume restore`
    VolumeRestore(VolumeId, Option<TrashId>, RestoreTrash),
    /// `snapshot create`
    SnapshotCreate(SnapshotId),
    /// `snapshot get`
    SnapshotGet(SnapshotId),
    /// `snapshot list`
    SnapshotList(VolumeId),
    /// `snapshot remove`
    SnapshotRemove(Vec<SnapshotId>, Care),
    /// `snapshot rollback`
    SnapshotRollback(SnapshotId, Care),
    /// `schedule list`
    ScheduleList(Option<TenantName>),
    /// `trash list`
    TrashList,
    /// `trash get`
    TrashGet(TrashId),
    /// `trash restore`
    TrashRestore(TrashId, RestoreTrash),
    /// `trash purge`
    TrashPurge(Purge, Care, Waiting),
    /// `mount list`
    MountList(Option<TenantName>),
    /// `mount get`
    MountGet(VolumeId),
    /// `mount force-remove`
    MountForceRemove(Vec<VolumeId>, Care, Holders),
    /// `host list`
    HostList,
    /// `host get`
    HostGet(HostName),
    /// `host fence`
    HostFence(Vec<HostName>, Care),
    /// `host forget`
    HostForget(Vec<HostName>, Care),
    /// `global get`
    GlobalGet,
    /// `global upload`
    GlobalUpload(Source),
    /// `status`
    Status,
    /// `doctor`
    Doctor,
    /// `doctor --fix`
    DoctorFix,
    /// `completion`
    Completion(clap_complete::Shell),
    /// `man`
    Man(Option<PathBuf>),
}

impl Action {
    /// Whether it is metadata alone, so that it can be done without a volmaster (DESIGN §12).
    pub(super) fn works_on_etcd(&self) -> bool {
        match self {
            Action::TenantUpload(..)
            | Action::TenantUploadRevision(..)
            | Action::TenantCheck(..)
            | Action::TenantGet(_)
            | Action::TenantList
            | Action::TenantDelete(..)
            | Action::TenantHistory(_)
            | Action::TenantRevision(..)
            | Action::TenantDiff(..)
            | Action::VolumeGet(_)
            | Action::VolumeList(_)
            | Action::VolumeForceRemove(..)
            | Action::MountList(_)
            | Action::MountGet(_)
            | Action::MountForceRemove(..)
            | Action::Completion(_)
            | Action::Man(_) => true,
            Action::VolumeCreate(_)
            | Action::SnapshotClone(..)
            | Action::VolumeFlatten(..)
            | Action::VolumeAdopt(..)
            | Action::VolumeSet(..)
            | Action::VolumeRemove(..)
            | Action::VolumeRestore(..)
            | Action::SnapshotCreate(_)
            | Action::SnapshotGet(_)
            | Action::SnapshotList(_)
            | Action::SnapshotRemove(..)
            | Action::SnapshotRollback(..)
            | Action::ScheduleList(_)
            | Action::TrashList
            | Action::TrashGet(_)
            | Action::TrashRestore(..)
            | Action::TrashPurge(..)
            | Action::HostList
            | Action::HostGet(_)
            | Action::HostFence(..)
            | Action::HostForget(..)
            | Action::GlobalGet
            | Action::GlobalUpload(_)
            | Action::Doctor
            | Action::DoctorFix
            | Action::Status => false,
        }
    }
}
