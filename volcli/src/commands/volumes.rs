//! `volcli volume …`

use std::time::Duration;

use volapi::mounts::Mount;
use volapi::volumes::{AdoptVolume, CreateVolume, SetVolume, Volume};
use volclient::Creation;
use volcore::live::LIVE;
use volcore::name::{TenantName, VolumeId};
use volcore::options::OnRemove;

use super::Context;
use super::removal::{Pace, Words, each};
use super::wait::Wait;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, say};
use crate::plan::{Care, Waiting};
use crate::progress::Step;
use crate::rows::{date, image};

pub async fn create(context: &Context, body: &CreateVolume) -> Result<Exit, Failure> {
    let volume = made(context, body).await?;
    output::changed(&volume, context.format)?;
    Ok(Exit::Done)
}

/// `snapshot clone --flatten`: asked again where it was there, so that whoever has died after the first is made up for.
pub async fn clone_flat(
    context: &Context,
    body: &CreateVolume,
    waiting: Waiting,
) -> Result<Exit, Failure> {
    let id = made(context, body).await?.id();
    flatten(context, &id, waiting).await
}

pub async fn flatten(context: &Context, id: &VolumeId, waiting: Waiting) -> Result<Exit, Failure> {
    let client = context.backend.master()?;
    let mut task = context.progress.begin(id, Step::Flatten);
    let asked = task.during(client.volume_flatten(id)).await?;
    let mut volume = asked.clone();
    let mut told = None;
    while let (Some(flattening), Waiting::Wait) = (volume.flattening.take(), waiting) {
        if flattening.reason.is_some() && flattening.reason != told {
            told.clone_from(&flattening.reason);
            let reason = told.as_deref().unwrap_or_default();
            task.say(format_args!("volume {id}: not yet, and tried again: {reason}"));
        }
        task.pause(told.as_deref()).await?;
        volume = task.during(client.volume_get(id)).await?;
        if let Some(flattening) = &volume.flattening {
            task.at(flattening.percent, flattening.reason.as_deref())?;
        }
    }
    if waiting == Waiting::Detach {
        volume = asked.clone();
    }
    drop(task);
    let done = match (&volume.flattening, asked.parent) {
        (Some(_), _) => {
            format!("is flattened in the background; `volcli volume get {id}` shows how far it is")
        }
        (None, Some(parent)) => format!("flattened, it shares no data with {parent} any more"),
        (None, None) => "flat, it shares no data with another".to_owned(),
    };
    say(format_args!("volume {id}: {done}"));
    output::result(&volume, context.format)?;
    Ok(Exit::Done)
}

/// Makes a volume, and tells of it.
async fn made(context: &Context, body: &CreateVolume) -> Result<Volume, Failure> {
    let client = context.backend.master()?;
    let id = VolumeId::new(body.tenant.clone(), body.name.clone());
    let work = client.volume_create(body);
    let (creation, volume) = match body.options.contains_key("from") {
        true => context.progress.during(id, Step::Clone, work).await?,
        false => work.await?,
    };
    let done = match (creation, body.options.get("from")) {
        (Creation::Created, None) => "created".to_owned(),
        (Creation::Created, Some(from)) => format!("created as a clone of {from}"),
        (Creation::Unchanged, None) => "unchanged, it was there".to_owned(),
        (Creation::Unchanged, Some(from)) => {
            format!("unchanged, it was there already as a clone of {from}")
        }
    };
    say(format_args!("volume {}: {done}; {}", volume.id(), shape(&volume)));
    Ok(volume)
}

pub async fn adopt(context: &Context, id: &VolumeId, body: &AdoptVolume) -> Result<Exit, Failure> {
    let (creation, volume) = context.backend.master()?.volume_adopt(id, body).await?;
    let done = match creation {
        Creation::Created => "adopted, with all that is on its image",
        Creation::Unchanged => "unchanged, it was there",
    };
    say(format_args!("volume {id}: {done}; {}", shape(&volume)));
    if let Some(error) = &volume.last_error {
        say(format_args!(
            "volume {id}: its image gets its limits as soon as it can; for now: {error}"
        ));
    }
    output::changed(&volume, context.format)?;
    Ok(Exit::Done)
}

/// What a volume is, in a few words.
pub(super) fn shape(volume: &Volume) -> String {
    let mut words = Vec::new();
    words.extend(volume.options.size.map(|size| size.to_string()));
    words.extend(volume.options.filesystem.as_ref().map(ToString::to_string));
    words.push(format!("image {}", image(&volume.image)));
    words.join(", ")
}

pub async fn set(context: &Context, id: &VolumeId, body: &SetVolume) -> Result<Exit, Failure> {
    let work = context.backend.master()?.volume_set(id, body);
    let volume = context.progress.during(id, Step::Set, work).await?;
    let options = volume.options.to_driver_options();
    let live = LIVE.iter().filter_map(|key| Some(format!("{key}={}", options.get(key)?)));
    say(format_args!("volume {id}: {}", live.collect::<Vec<_>>().join(" ")));
    if let Some(error) = &volume.last_error {
        say(format_args!(
            "volume {id}: this is stored, and its image gets it as soon as it can; for now: {error}"
        ));
    }
    output::result(&volume, context.format)?;
    Ok(Exit::Done)
}

pub async fn get(context: &Context, id: &VolumeId) -> Result<Exit, Failure> {
    output::one(&context.backend.volume_get(id).await?, context.format)?;
    Ok(Exit::Done)
}

/// Names need no more than a brief list, which is an order of magnitude quicker.
pub async fn list(context: &Context, tenant: Option<&TenantName>) -> Result<Exit, Failure> {
    let none = match context.format {
        None | Some(Format::Name) => {
            let volumes = context.backend.volume_list_brief(tenant).await?;
            output::list(&volumes, context.format)?;
            volumes.is_empty()
        }
        Some(Format::Table | Format::Json | Format::Yaml) => {
            let volumes = context.backend.volume_list(tenant).await?;
            output::list(&volumes, context.format)?;
            volumes.is_empty()
        }
    };
    if let Some(tenant) = tenant.filter(|_| none)
        && context.backend.tenant_get(tenant).await.is_err_and(|error| error.is_not_found())
    {
        say(format_args!(
            "there is no tenant {tenant}; `volcli tenant list` shows those there are"
        ));
    }
    Ok(Exit::Done)
}

/// Why something cannot be done to a volume that is held.
pub(super) fn refuse_held(
    id: &VolumeId,
    mount: Option<&Mount>,
    done: &'static str,
) -> Result<(), Failure> {
    let Some(mount) = mount else { return Ok(()) };
    let holders: Vec<String> = mount
        .holders()
        .map(|holder| format!("host {} holds it since {}", holder.host, date(&holder.since)))
        .collect();
    Err(Failure::WouldRefuse { what: format!("volume {id}"), done, why: holders.join(", ") })
}

/// With a time to wait, a volume that is held is tried again until its holder has let go or the time is over.
pub async fn remove(
    context: &Context,
    ids: &[VolumeId],
    care: Care,
    wait: Option<Duration>,
) -> Result<Exit, Failure> {
    let question = |names: &str| format!("Remove {names} and the data on it?");
    let words = Words { pace: Pace::Long, ..Words::removal("volume", &question) };
    let wait = Wait::new(wait);
    let client = context.backend.master()?;
    let remove = async |id: &VolumeId| {
        let mut task = context.progress.begin(id, Step::Remove);
        let removed = wait.volume_remove(client, id, &mut task).await?;
        drop(task);
        Ok(match removed.left_behind {
            None => "removed, with its data".to_owned(),
            Some(left) => format!("removed; left behind: {left}"),
        })
    };
    let look = async |id: &VolumeId| {
        let volume = client.volume_get(id).await?;
        refuse_held(id, volume.mount.as_ref(), "removed")?;
        let data = match volume.options.on_remove {
            Some(OnRemove::Trash) => "its image would be moved to the trash",
            Some(OnRemove::Keep | OnRemove::Delete) | None => "its data would be deleted",
        };
        Ok(format!("would be removed ({}), and {data}", shape(&volume)))
    };
    each(context, &words, ids, care, remove, look).await
}

pub async fn force_remove(
    context: &Context,
    ids: &[VolumeId],
    care: Care,
) -> Result<Exit, Failure> {
    let words = Words::removal("volume", &|names| {
        format!("Forget {names}, and leave the data where it is?")
    });
    let remove = async |id: &VolumeId| {
        let removed = context.backend.volume_force_remove(id).await?;
        let left = removed.left_behind.unwrap_or_else(|| "nothing that is known".to_owned());
        Ok(format!("forgotten; left behind: {left}"))
    };
    let look = async |id: &VolumeId| {
        let volume = context.backend.volume_get(id).await?;
        refuse_held(id, volume.mount.as_ref(), "removed")?;
        Ok(format!("would be forgotten; left behind: image {}", image(&volume.image)))
    };
    each(context, &words, ids, care, remove, look).await
}
