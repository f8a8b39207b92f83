//! `volcli trash …` and `volcli volume restore`

use std::collections::BTreeMap;

use volapi::trash::{RestoreTrash, Trashed};
use volapi::volumes::Volume;
use volcore::name::VolumeId;

use super::Context;
use super::removal::{Pace, Words, exit, fates, show};
use super::volumes::shape;
use crate::args::TrashId;
use crate::failure::{Exit, Failure};
use crate::output::{self, say};
use crate::plan::{Care, Purge, Waiting};
use crate::progress::Step;
use crate::rows::{bytes, date};

pub async fn list(context: &Context) -> Result<Exit, Failure> {
    output::list(&context.backend.master()?.trash_list().await?, context.format)?;
    Ok(Exit::Done)
}

pub async fn get(context: &Context, id: &TrashId) -> Result<Exit, Failure> {
    output::one(&context.backend.master()?.trash_get(id.as_str()).await?, context.format)?;
    Ok(Exit::Done)
}

pub async fn restore(
    context: &Context,
    id: &TrashId,
    body: &RestoreTrash,
) -> Result<Exit, Failure> {
    let work = context.backend.master()?.trash_restore(id.as_str(), body);
    let volume = context.progress.during(id, Step::Restore, work).await?;
    restored(context, &volume, id.as_str())
}

fn restored(context: &Context, volume: &Volume, id: &str) -> Result<Exit, Failure> {
    say(format_args!("volume {}: restored from {id} in the trash; {}", volume.id(), shape(volume)));
    output::result(volume, context.format)?;
    Ok(Exit::Done)
}

/// `volcli volume restore`: the one in the trash that had this name, of several the one that was removed last.
pub async fn restore_volume(
    context: &Context,
    id: &VolumeId,
    which: Option<&TrashId>,
    body: &RestoreTrash,
) -> Result<Exit, Failure> {
    let client = context.backend.master()?;
    let chosen = match which {
        Some(which) => {
            let found = client.trash_get(which.as_str()).await?;
            if found.volume != *id {
                let (asked, was) = (id.clone(), found.volume);
                return Err(Failure::OtherTrash { id: found.id, was, asked });
            }
            found
        }
        None => newest(id, client.trash_list().await?)?,
    };
    let work = client.trash_restore(&chosen.id, body);
    let volume = context.progress.during(id, Step::Restore, work).await?;
    restored(context, &volume, &chosen.id)
}

/// The one that was removed last of those that can be restored. Where there was a choice, it is told.
fn newest(id: &VolumeId, trash: Vec<Trashed>) -> Result<Trashed, Failure> {
    let mut found: Vec<Trashed> = trash.into_iter().filter(|one| one.volume == *id).collect();
    if found.is_empty() {
        return Err(Failure::NotInTrash { volume: id.clone() });
    }
    found.sort_by_key(|one| one.removed_at);
    let count = found.len();
    let (able, unable): (Vec<Trashed>, Vec<Trashed>) =
        found.into_iter().partition(|one| one.restorable);
    let Some(chosen) = able.into_iter().next_back() else {
        return Err(Failure::NotRestorable { volume: id.clone() });
    };
    if count > 1 {
        say(format_args!(
            "volume {id}: {count} of this name are in the trash; this is {}, removed at {}, the last that can be \
             restored. For another give --id, see `volcli trash list -o table`",
            chosen.id,
            date(&chosen.removed_at)
        ));
    }
    for newer in unable.iter().filter(|one| one.removed_at > chosen.removed_at) {
        say(format_args!(
            "volume {id}: {}, removed later at {}, cannot be restored",
            newer.id,
            date(&newer.removed_at)
        ));
    }
    Ok(chosen)
}

/// What is in the trash is read first: ids alone tell nobody what would be gone.
pub async fn purge(
    context: &Context,
    which: &Purge,
    care: Care,
    waiting: Waiting,
) -> Result<Exit, Failure> {
    let client = context.backend.master()?;
    let trash: BTreeMap<String, Trashed> =
        client.trash_list().await?.into_iter().map(|one| (one.id.clone(), one)).collect();
    let ids: Vec<String> = match which {
        Purge::These(ids) => ids.iter().map(ToString::to_string).collect(),
        Purge::All => trash.keys().cloned().collect(),
    };
    if ids.is_empty() {
        say("the trash is empty");
    }
    let known: Vec<&Trashed> = ids.iter().filter_map(|id| trash.get(id)).collect();
    let sizes = known.iter().filter_map(|one| one.size);
    let all = bytes(sizes.fold(0, u64::saturating_add));
    let question = |names: &str| {
        let known: Vec<String> = known.iter().map(|one| what(one)).collect();
        let all = if known.is_empty() {
            names.to_owned()
        } else {
            format!("{} ({all} in all)", known.join("; "))
        };
        format!("Purge {all}? This data is gone for good.")
    };
    let words = Words { noun: "trash", result: "purged", question: &question, pace: Pace::Long };
    let remove = async |id: &String| {
        match client.trash_purge(id).await {
            Ok(()) => {}
            // Somebody else was faster; nobody asked for this one by its id.
            Err(error) if *which == Purge::All && error.is_not_found() => {
                return Ok("is gone already".to_owned());
            }
            Err(error) => return Err(error.into()),
        }
        let was = trash.get(id).map_or_else(String::new, |one| format!("{}, is ", what(one)));
        Ok(format!("{was}purged; its space is freed in the background"))
    };
    let look = async |id: &String| {
        let found = client.trash_get(id).await?;
        let size = found
            .size
            .map_or_else(|| "its space".to_owned(), |size| format!("up to {}", bytes(size)));
        Ok(format!("{}, would be purged, and {size} freed", what(&found)))
    };
    let fates = fates(&words, &ids, care, remove, look).await?;
    if (waiting, care == Care::DryRun) == (Waiting::Wait, false) {
        let purged = ids.iter().zip(&fates).filter(|(_, fate)| fate.is_done());
        freed(context, &purged.map(|(id, _)| id).collect::<Vec<_>>()).await?;
    }
    show(context, &words, &fates)?;
    if care == Care::DryRun && known.len() > 1 {
        say(format_args!("trash: in all, up to {all} would be freed"));
    }
    Ok(exit(&fates, &ids))
}

/// Waits until these are gone from the trash.
async fn freed(context: &Context, ids: &[&String]) -> Result<(), Failure> {
    let client = context.backend.master()?;
    let mut task = context.progress.begin("trash", Step::Purge);
    loop {
        let there = task.during(client.trash_list()).await?;
        let left = there.iter().filter(|one| ids.contains(&&one.id)).count();
        if left == 0 {
            return Ok(());
        }
        let percent = 100 * (ids.len() - left) / ids.len();
        task.at(u8::try_from(percent).ok(), None)?;
        task.pause(None).await?;
    }
}

fn what(one: &Trashed) -> String {
    format!("volume {}, removed at {}", one.volume, date(&one.removed_at))
}
