//! Names of volumes and snapshots, in one argument or in the several of older versions.

use std::fmt;

use volcore::name::{SnapshotName, VolumeId, VolumeIdError};

use super::UsageError;
use crate::args::OneVolume;

/// A snapshot of a volume, written `tenant/volume@snapshot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotId {
    /// Of which volume.
    pub volume: VolumeId,
    /// Which of its snapshots.
    pub snapshot: SnapshotName,
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.volume, self.snapshot)
    }
}

pub(super) fn one(given: OneVolume) -> Result<VolumeId, UsageError> {
    match given.name {
        None => volume_id(&given.volume),
        Some(name) => pair(&given.volume, &name),
    }
}

/// Two arguments of which the first has no slash are a tenant and a volume, as in older versions.
pub(super) fn some(given: &[String]) -> Result<Vec<VolumeId>, UsageError> {
    match given {
        [tenant, volume] if !tenant.contains('/') => Ok(vec![pair(tenant, volume)?]),
        _ => Ok(once(given.iter().map(|name| volume_id(name)).collect::<Result<_, _>>()?)),
    }
}

/// `tenant volume`; `tenant tenant/volume` is read too, because lists print full names.
pub(super) fn pair(tenant: &str, volume: &str) -> Result<VolumeId, UsageError> {
    let mixed = || UsageError::Mixed { first: tenant.to_owned(), second: volume.to_owned() };
    if tenant.contains('/') {
        return Err(mixed());
    }
    match volume.split_once('/') {
        None => Ok(VolumeId::new(tenant.parse()?, volume.parse()?)),
        Some((again, volume)) if again == tenant => {
            Ok(VolumeId::new(tenant.parse()?, volume.parse()?))
        }
        Some(_) => Err(mixed()),
    }
}

pub(super) fn volume_id(text: &str) -> Result<VolumeId, UsageError> {
    text.parse().map_err(|error| match error {
        VolumeIdError::NoTenant { given } => UsageError::NoTenant { given },
        VolumeIdError::Part(error) => UsageError::Name(error),
    })
}

/// `tenant/volume@snapshot`.
fn snapshot_id(text: &str) -> Result<SnapshotId, UsageError> {
    let (volume, snapshot) = text.split_once('@').ok_or_else(|| no_snapshot(&[text]))?;
    Ok(SnapshotId { volume: volume_id(volume)?, snapshot: snapshot.parse()? })
}

/// A snapshot in one argument; in two, where the first is the volume, or the tenant; or in three.
pub(super) fn one_snapshot(given: &[&str]) -> Result<SnapshotId, UsageError> {
    match given {
        [whole] => snapshot_id(whole),
        [named, second] if named.contains('@') => {
            let (first, second) = ((*named).to_owned(), (*second).to_owned());
            Err(UsageError::SnapshotTwice { first, second })
        }
        [volume, snapshot] if volume.contains('/') => {
            Ok(SnapshotId { volume: volume_id(volume)?, snapshot: snapshot.parse()? })
        }
        [tenant, rest] => {
            let (volume, snapshot) = rest.split_once('@').ok_or_else(|| no_snapshot(given))?;
            Ok(SnapshotId { volume: pair(tenant, volume)?, snapshot: snapshot.parse()? })
        }
        [tenant, volume, snapshot] if !tenant.contains(['/', '@']) => {
            Ok(SnapshotId { volume: pair(tenant, volume)?, snapshot: snapshot.parse()? })
        }
        _ => Err(no_snapshot(given)),
    }
}

/// Snapshots of one argument each, or one of several arguments as in [`one_snapshot`].
pub(super) fn some_snapshots(given: &[String]) -> Result<Vec<SnapshotId>, UsageError> {
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let whole = |name: &&str| name.contains('@');
    let is_one = match given[..] {
        [first, second] => !whole(&first) && (!first.contains('/') || !whole(&second)),
        [_, _, _] => !given.iter().any(whole),
        _ => false,
    };
    if is_one {
        return Ok(vec![one_snapshot(&given)?]);
    }
    Ok(once(given.into_iter().map(snapshot_id).collect::<Result<_, _>>()?))
}

fn no_snapshot(given: &[&str]) -> UsageError {
    UsageError::NoSnapshot { given: given.join(" ") }
}

/// Each name once, in the order given: to remove a thing twice is to fail the second time.
pub(super) fn once<T: PartialEq>(names: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(names.len());
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}
