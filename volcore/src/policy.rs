//! A tenant's policy: the document that `volcli tenant upload` sends (DESIGN §4).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::FormatCommand;
use crate::name::{FilesystemName, TenantName};
use crate::options::{MOST_KEPT, MountOptionError, OnRemove, OptionSet};

/// The document. Unknown members are refused by serde, with name and position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TenantPolicy {
    /// What volumes get that say nothing else.
    pub default_options: OptionSet,
    /// The format command of each file system that volumes may have.
    #[serde(default = "default_filesystems")]
    pub filesystems: BTreeMap<FilesystemName, FormatCommand>,
}

/// What `filesystems` is when a policy does not say: `{"ext4": "mkfs.ext4 -m0 %"}`.
pub fn default_filesystems() -> BTreeMap<FilesystemName, FormatCommand> {
    let entry = ("ext4".parse(), "mkfs.ext4 -m0 %".parse());
    match entry {
        (Ok(name), Ok(command)) => BTreeMap::from([(name, command)]),
        (Err(_), _) | (_, Err(_)) => BTreeMap::new(),
    }
}

/// A tenant as the suite knows it: the newest policy and which upload it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Who.
    pub name: TenantName,
    /// Counts uploads from 1, and goes on counting over a deletion.
    pub revision: u64,
    /// When this revision was uploaded.
    pub uploaded_at: Timestamp,
    /// What was uploaded.
    pub policy: TenantPolicy,
}

/// A policy whose members fit each other's types but not each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// `default-options.filesystem` names no entry of `filesystems`.
    #[error("default-options.filesystem is {filesystem}, which is not among filesystems ({known})")]
    UnknownFilesystem {
        /// The one that is named.
        filesystem: FilesystemName,
        /// Those that there are.
        known: String,
    },
    /// The map is there, and empty.
    #[error("filesystems is empty: name at least one, such as {{\"ext4\": \"mkfs.ext4 -m0 %\"}}")]
    NoFilesystem,
    /// The schedule does not hold together.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// `ephemeral` and `on-remove` say different things.
    #[error(transparent)]
    Removal(#[from] RemovalError),
    /// No file system could be mounted so.
    #[error("default-options.mount-options: {0}")]
    Mount(#[from] MountOptionError),
    /// More than an image should have.
    #[error("default-options.snapshot.keep is {keep}: keep at most {MOST_KEPT}")]
    KeepsTooMany {
        /// How many.
        keep: u32,
    },
    /// It would make every volume a clone.
    #[error(
        "default-options.from: a policy clones nothing; give from with the volume that is to be a clone"
    )]
    Clones,
}

/// A snapshot schedule that does not hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Snapshots are on, without a frequency.
    #[error("snapshots is true, so snapshot.frequency is needed, such as \"30m\"")]
    NoFrequency,
    /// Snapshots are on, and nothing says how many to keep.
    #[error("snapshots is true, so snapshot.keep (at least 1) or snapshot.retention is needed")]
    NoRetention,
    /// Zero would delete what was just taken.
    #[error("snapshot.keep is 0: keep at least 1, or set snapshots to false")]
    KeepNothing,
    /// Both ways of saying what to keep.
    #[error("snapshot.keep and snapshot.retention exclude each other")]
    KeepAndRetention,
}

/// `ephemeral` and `on-remove` say different things.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "ephemeral: {ephemeral} and on-remove: {on_remove} contradict each other; give one of them"
)]
pub struct RemovalError {
    /// The one.
    pub ephemeral: bool,
    /// The other.
    pub on_remove: OnRemove,
}

impl TenantPolicy {
    /// Checks the policy as a whole, so that what is stored can always be used.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.filesystems.is_empty() {
            return Err(PolicyError::NoFilesystem);
        }
        if let Some(filesystem) = &self.default_options.filesystem
            && !self.filesystems.contains_key(filesystem)
        {
            return Err(PolicyError::UnknownFilesystem {
                filesystem: filesystem.clone(),
                known: self.known_filesystems(),
            });
        }
        if self.default_options.from.is_some() {
            return Err(PolicyError::Clones);
        }
        self.default_options.removal()?;
        self.default_options.mountable()?;
        self.default_options.schedule()?;
        if let Some(keep) = self.default_options.snapshot.keep.filter(|keep| *keep > MOST_KEPT) {
            return Err(PolicyError::KeepsTooMany { keep });
        }
        Ok(())
    }

    /// The names of the file systems, for messages.
    pub fn known_filesystems(&self) -> String {
        self.filesystems.keys().map(FilesystemName::as_str).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TenantPolicy, String> {
        let policy: TenantPolicy = serde_json::from_str(text).map_err(|error| error.to_string())?;
        policy.check().map_err(|error| error.to_string())?;
        Ok(policy)
    }

    #[test]
    fn the_policy_of_the_design_document_is_read() {
        let policy = parse(
            r#"{
              "default-options": {
                "pool": "rbd", "size": "10MB", "filesystem": "ext4", "ephemeral": false,
                "snapshots": true, "snapshot": { "frequency": "30m", "keep": 20 },
                "rate-limit": { "write-iops": 1000, "read-iops": 1000, "write-bps": 100000000, "read-bps": 100000000 }
              },
              "filesystems": { "btrfs": "mkfs.btrfs %", "ext4": "mkfs.ext4 -m0 %" }
            }"#,
        )
        .unwrap();
        assert_eq!(policy.default_options.size.unwrap().to_string(), "10 MiB");
        assert_eq!(policy.known_filesystems(), "btrfs, ext4");
    }

    #[test]
    fn an_empty_policy_gets_ext4() {
        let policy = parse(r#"{"default-options": {}}"#).unwrap();
        assert_eq!(policy.known_filesystems(), "ext4");
    }

    #[test]
    fn errors_name_the_member() {
        let table = [
            (r#"{}"#, "missing field `default-options`"),
            (r#"{"default-options": {"sise": "1GB"}}"#, "unknown field `sise`"),
            (r#"{"default-options": {"size": "1XB"}}"#, "\"1XB\""),
            (r#"{"default-options": {"filesystem": "xfs"}}"#, "is xfs, which is not among"),
            (r#"{"default-options": {"snapshots": true}}"#, "snapshot.frequency is needed"),
            (
                r#"{"default-options": {"snapshots": true, "snapshot": {"frequency": "1m"}}}"#,
                "snapshot.keep",
            ),
            (r#"{"default-options": {"snapshot": {"keep": 0}}}"#, "keep is 0"),
            (r#"{"default-options": {"snapshot": {"keep": 10001}}}"#, "keep at most 10000"),
            (r#"{"default-options": {"ephemeral": true, "on-remove": "keep"}}"#, "contradict"),
            (r#"{"default-options": {"mount-options": ["noatime,rw"]}}"#, "a mount option is"),
            (
                r#"{"default-options": {"mount-options": ["errors=panic"]}}"#,
                "\"errors=panic\" cannot",
            ),
            (r#"{"default-options": {}, "filesystems": {}}"#, "filesystems is empty"),
            (r#"{"default-options": {}, "filesystems": {"ext4": "mkfs.ext4"}}"#, "has no %"),
            (r#"{"default-options": {"snapshot": {"frequency": "0s"}}}"#, "out of range"),
        ];
        for (text, expected) in table {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
