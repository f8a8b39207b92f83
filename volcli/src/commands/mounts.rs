//! `volcli mount …`

use volapi::hosts::HostState;
use volapi::mounts::Mount;
use volcore::name::{HostName, TenantName, VolumeId};

use super::Context;
use super::removal::{Words, each, is_insisted};
use super::this_host;
use crate::backend::Backend;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::plan::{Care, Holders};
use crate::rows::date;

pub async fn list(context: &Context, tenant: Option<&TenantName>) -> Result<Exit, Failure> {
    output::list(&context.backend.mount_list(tenant).await?, context.format)?;
    Ok(Exit::Done)
}

pub async fn get(context: &Context, id: &VolumeId) -> Result<Exit, Failure> {
    output::one(&context.backend.mount_get(id).await?, context.format)?;
    Ok(Exit::Done)
}

const NOBODY: &str = "nobody holds it, there is nothing to clear";

fn holders(mount: &Mount) -> String {
    let one = |holder: &volapi::mounts::MountHolder| {
        format!("{} (since {})", holder.host, date(&holder.since))
    };
    mount.holders().map(one).collect::<Vec<_>>().join(", ")
}

/// The claim on a volume. Absent only where the volume is there and nobody holds it.
async fn standing(context: &Context, id: &VolumeId) -> Result<Option<Mount>, Failure> {
    match context.backend.mount_get(id).await {
        Ok(mount) => Ok(Some(mount)),
        Err(error) if error.is_not_found() => {
            context.backend.volume_get(id).await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Who lives loses nothing by mistake, and this machine nothing at all. Without a volmaster nobody knows who lives.
async fn refuse_living(context: &Context, mount: &Mount, care: Care) -> Result<(), Failure> {
    if let Some(holder) = mount.holders().find(|holder| this_host::is(&holder.host)) {
        return Err(Failure::ThisHost { host: holder.host.clone() });
    }
    let Backend::Master(client) = &context.backend else { return Ok(()) };
    if is_insisted(care) {
        return Ok(());
    }
    let live = client.host_list().await?;
    let lives = |host: &HostName| {
        live.iter().any(|known| known.host == *host && known.state == HostState::Live)
    };
    match mount.holders().find(|holder| lives(&holder.host)) {
        Some(holder) => {
            let (volume, host) = (mount.volume.clone(), holder.host.clone());
            Err(Failure::HolderLives { volume, host })
        }
        None => Ok(()),
    }
}

/// Who held it is read first: after the removal nobody knows any more.
pub async fn force_remove(
    context: &Context,
    ids: &[VolumeId],
    care: Care,
    holders_are: Holders,
) -> Result<Exit, Failure> {
    let fences = context.backend.fences() && holders_are == Holders::Fence;
    let words = Words::removal("mount", &|names| {
        format!(
            "Clear {names}? Containers that still use it there lose what they have not synced, and on local \
             files or with --etcd may destroy the data."
        )
    });
    let remove = async |id: &VolumeId| {
        let mount = standing(context, id).await?;
        if let Some(mount) = &mount {
            refuse_living(context, mount, care).await?;
        }
        if mount.is_some() || fences {
            context.backend.mount_force_remove(id, holders_are).await?;
        }
        Ok(match (mount, fences) {
            (None, false) => NOBODY.to_owned(),
            (None, true) => {
                "nobody held it; on Ceph, a client that had its image locked is fenced".to_owned()
            }
            (Some(mount), true) => {
                format!(
                    "cleared; it was held by {}. On Ceph, its clients are fenced from the image",
                    holders(&mount)
                )
            }
            (Some(mount), false) => format!(
                "cleared; it was held by {}, and is not fenced. If that host still runs, unmount the volume there \
                 before using it elsewhere",
                holders(&mount)
            ),
        })
    };
    let look = async |id: &VolumeId| {
        Ok(match (standing(context, id).await?, fences) {
            (None, false) => NOBODY.to_owned(),
            (None, true) => {
                "nobody holds it; on Ceph, a client that has its image locked would be fenced"
                    .to_owned()
            }
            (Some(mount), true) => {
                format!("would be fenced and cleared; it is held by {}", holders(&mount))
            }
            (Some(mount), false) => format!("would be cleared; it is held by {}", holders(&mount)),
        })
    };
    each(context, &words, ids, care, remove, look).await
}
