//! `volcli volume …`

use std::collections::BTreeMap;

use volapi::trash::RestoreTrash;
use volapi::volumes::{AdoptVolume, CreateVolume, SetVolume};
use volcore::live::LiveChange;
use volcore::name::VolumeId;
use volcore::options::{OptionSet, Origin};

use super::names::{one, pair, some, volume_id};
use super::{Action, UsageError, Waiting, care};
use crate::args::VolumeCommand;

pub(super) fn action(command: VolumeCommand) -> Result<Action, UsageError> {
    Ok(match command {
        VolumeCommand::Create { volume, options } => {
            Action::VolumeCreate(creation(one(volume)?, options, None)?)
        }
        VolumeCommand::Adopt { volume, options } => adoption(one(volume)?, options)?,
        VolumeCommand::Set { volume, changes } => set(&volume, &changes)?,
        VolumeCommand::Resize { volume, size, older: None } => resize(volume_id(&volume)?, size)?,
        VolumeCommand::Resize { volume, size: name, older: Some(size) } => {
            resize(pair(&volume, &name)?, size)?
        }
        VolumeCommand::Flatten { volume, no_wait: true } => {
            Action::VolumeFlatten(one(volume)?, Waiting::Detach)
        }
        VolumeCommand::Flatten { volume, no_wait: false } => {
            Action::VolumeFlatten(one(volume)?, Waiting::Wait)
        }
        VolumeCommand::Get { volume } => Action::VolumeGet(one(volume)?),
        VolumeCommand::List { tenant } => Action::VolumeList(Some(tenant)),
        VolumeCommand::ListAll => Action::VolumeList(None),
        VolumeCommand::Remove { volumes, removal, wait } => {
            Action::VolumeRemove(some(&volumes.volumes)?, care(removal), wait)
        }
        VolumeCommand::ForceRemove { volumes, removal } => {
            Action::VolumeForceRemove(some(&volumes.volumes)?, care(removal))
        }
        VolumeCommand::Restore { volume, becomes, id } => {
            Action::VolumeRestore(one(volume)?, id, restoration(becomes.as_deref())?)
        }
    })
}

/// The options are checked here as volmaster will check them, so that a slip costs no round trip.
pub(super) fn creation(
    id: VolumeId,
    pairs: Vec<(String, String)>,
    from: Option<Origin>,
) -> Result<CreateVolume, UsageError> {
    let mut options = BTreeMap::new();
    if let Some(from) = from {
        if pairs.iter().any(|(key, _)| key == "from") {
            return Err(UsageError::FromTwice { from: from.to_string() });
        }
        options.insert("from".to_owned(), from.to_string());
    }
    for (key, value) in pairs {
        if options.insert(key.clone(), value).is_some() {
            return Err(UsageError::OptionTwice { key });
        }
    }
    let read = OptionSet::from_driver_options(&options)?;
    if read.from.is_some_and(|from| from.volume == id) {
        return Err(UsageError::OntoItself { volume: id.to_string() });
    }
    let VolumeId { tenant, volume } = id;
    Ok(CreateVolume { tenant, name: volume, options })
}

/// An image that is adopted was cloned from nothing here, and so no `from` is taken.
fn adoption(id: VolumeId, pairs: Vec<(String, String)>) -> Result<Action, UsageError> {
    let CreateVolume { options, .. } = creation(id.clone(), pairs, None)?;
    if options.contains_key("from") {
        return Err(UsageError::FromAdopted);
    }
    Ok(Action::VolumeAdopt(id, AdoptVolume { options }))
}

/// What a volume from the trash becomes.
pub(super) fn restoration(becomes: Option<&str>) -> Result<RestoreTrash, UsageError> {
    Ok(RestoreTrash { volume: becomes.map(volume_id).transpose()? })
}

/// A second argument that is no change is the name of the volume, as in older versions.
fn set(first: &str, rest: &[String]) -> Result<Action, UsageError> {
    let (id, pairs) = match rest {
        [name, pairs @ ..] if !first.contains('/') && !name.contains('=') => {
            (pair(first, name)?, pairs)
        }
        pairs => (volume_id(first)?, pairs),
    };
    let mut options = BTreeMap::new();
    for given in pairs {
        let (key, value) = given
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| UsageError::NoPair { given: given.clone() })?;
        if options.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(UsageError::ChangeTwice { key: key.to_owned() });
        }
    }
    if options.is_empty() {
        return Err(UsageError::NoChange);
    }
    change(id, options)
}

fn resize(id: VolumeId, size: String) -> Result<Action, UsageError> {
    change(id, [("size".to_owned(), size)].into())
}

fn change(id: VolumeId, options: BTreeMap<String, String>) -> Result<Action, UsageError> {
    LiveChange::from_driver_options(&options)?;
    Ok(Action::VolumeSet(id, SetVolume { options }))
}
