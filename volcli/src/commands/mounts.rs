//! `volcli mount …`

use volapi::mounts::Mount;
use volcore::name::{TenantName, VolumeId};

use super::Context;
use super::removal::{Words, each};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::plan::Care;
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

/// Who held it is read first: after the removal nobody knows any more.
pub async fn force_remove(
    context: &Context,
    ids: &[VolumeId],
    care: Care,
) -> Result<Exit, Failure> {
    let fences = context.backend.fences();
    let words = Words::removal("mount", &|names| {
        format!(
            "Clear {names}? Containers that still use it there lose what they have not synced, and on local \
             files or with --etcd may destroy the data."
        )
    });
    let remove = async |id: &VolumeId| {
        let mount = standing(context, id).await?;
        if mount.is_some() || fences {
            context.backend.mount_force_remove(id).await?;
        }
        Ok(match (mount, fences) {
            (None, false) => NOBODY.to_owned(),
            (None, true) => {
                "nobody held it; on Ceph, clients that had its image open or locked are fenced"
                    .to_owned()
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
                "nobody holds it; on Ceph, clients that have its image open or locked would be fenced"
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
