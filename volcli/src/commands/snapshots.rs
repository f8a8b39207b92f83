//! `volcli snapshot …` and `volcli schedule …`

use volapi::snapshots::{CreateSnapshot, SnapshotQuery};
use volclient::Outcome;
use volcore::name::{TenantName, VolumeId};

use super::Context;
use super::removal::{Pace, Words, each};
use super::volumes::refuse_held;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, say};
use crate::plan::{Care, SnapshotId};
use crate::progress::Step;
use crate::rows::date;

/// Whether it is there is read first. Where the answer to a create is lost it is sent again, and then finds the
/// snapshot that it has taken itself, which must not be told as one from before.
pub async fn create(context: &Context, id: &SnapshotId) -> Result<Exit, Failure> {
    let client = context.backend.master()?;
    let SnapshotId { volume, snapshot } = id;
    match client.snapshot_get(volume, snapshot).await {
        Ok(there) => {
            return Err(Failure::SnapshotThere { id: id.clone(), since: there.created_at });
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let body = CreateSnapshot { name: snapshot.clone() };
    let (_, taken) = client.snapshot_create(volume, &body).await?;
    say(format_args!("snapshot {id}: taken at {}", date(&taken.created_at)));
    output::changed(&taken, context.format)?;
    Ok(Exit::Done)
}

pub async fn get(context: &Context, id: &SnapshotId) -> Result<Exit, Failure> {
    let found = context.backend.master()?.snapshot_get(&id.volume, &id.snapshot).await?;
    output::one(&found, context.format)?;
    Ok(Exit::Done)
}

/// What each takes up costs some milliseconds, and names do not need it.
pub async fn list(context: &Context, id: &VolumeId) -> Result<Exit, Failure> {
    let usage = match context.format {
        None | Some(Format::Name) => false,
        Some(Format::Table | Format::Json | Format::Yaml) => true,
    };
    let found = context.backend.master()?.snapshot_list(id, SnapshotQuery { usage }).await?;
    output::list(&found, context.format)?;
    Ok(Exit::Done)
}

pub async fn remove(context: &Context, ids: &[SnapshotId], care: Care) -> Result<Exit, Failure> {
    let words = Words::removal("snapshot", &|names| {
        format!("Remove {names}? Only clones keep the data of that time.")
    });
    let client = context.backend.master()?;
    let remove = async |id: &SnapshotId| {
        client.snapshot_remove(&id.volume, &id.snapshot).await?;
        Ok("removed; clones of it keep their data".to_owned())
    };
    let look = async |id: &SnapshotId| {
        let found = client.snapshot_get(&id.volume, &id.snapshot).await?;
        Ok(format!("would be removed; it was taken at {}", date(&found.created_at)))
    };
    each(context, &words, ids, care, remove, look).await
}

pub async fn rollback(context: &Context, id: &SnapshotId, care: Care) -> Result<Exit, Failure> {
    let words = Words {
        noun: "snapshot",
        result: "rolled back",
        question: &|names| {
            format!(
                "Give volume {} the data of {names}? What was written since is lost.",
                id.volume
            )
        },
        pace: Pace::Long,
    };
    let client = context.backend.master()?;
    let remove = async |id: &SnapshotId| {
        let work = client.snapshot_rollback(&id.volume, &id.snapshot);
        let done = context.progress.during(&id.volume, Step::Rollback, work).await;
        done.map_err(|failure| match failure {
            Failure::Client(error) if error.outcome() == Outcome::Unknown => {
                Failure::RollbackUnknown { id: id.clone(), source: Box::new(error) }
            }
            failure => failure,
        })?;
        Ok(format!("volume {} is rolled back to it", id.volume))
    };
    let look = async |id: &SnapshotId| {
        let found = client.snapshot_get(&id.volume, &id.snapshot).await?;
        let volume = client.volume_get(&id.volume).await?;
        refuse_held(&id.volume, volume.mount.as_ref(), "rolled back")?;
        Ok(format!(
            "volume {} would be rolled back to it; what was written since {} would be lost",
            id.volume,
            date(&found.created_at)
        ))
    };
    each(context, &words, std::slice::from_ref(id), care, remove, look).await
}

pub async fn schedules(context: &Context, tenant: Option<&TenantName>) -> Result<Exit, Failure> {
    let schedules = context.backend.master()?.schedule_list(tenant).await?;
    output::list(&schedules, context.format)?;
    Ok(Exit::Done)
}
