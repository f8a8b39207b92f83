//! What a volume is made of, frozen at its creation: policy and options merged.

use crate::duration::Frequency;
use crate::filesystem::FilesystemKind;
use crate::format::FormatCommand;
use crate::kind::Kind;
use crate::limit::RateLimits;
use crate::name::{FilesystemName, PoolName};
use crate::options::{
    Access, MapOption, MountOption, MountOptionError, OnRemove, OptionSet, Origin, Sharing,
    SnapshotOptions, Tiers, check_mount_options,
};
use crate::policy::{RemovalError, ScheduleError, TenantPolicy};
use crate::size::Size;
use crate::volume::ImageName;

/// Everything that decides how a volume is made, mounted, limited and removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Where the image is.
    pub pool: PoolName,
    /// How large it is.
    pub size: Size,
    /// The file system on it.
    pub filesystem: FilesystemName,
    /// The command that made the file system.
    pub format: FormatCommand,
    /// What `docker volume rm` does.
    pub on_remove: OnRemove,
    /// The schedule, when it is snapshotted.
    pub schedule: Option<Schedule>,
    /// The limits.
    pub rate_limits: RateLimits,
    /// How hosts reach it.
    pub access: Access,
    /// Options for mount.
    pub mount_options: Vec<MountOption>,
    /// Options for mapping with the kernel's rbd.
    pub map_options: Vec<MapOption>,
    /// Who may use it at the same time.
    pub sharing: Sharing,
    /// What it was cloned from.
    pub from: Option<Origin>,
}

/// An image that was there before its volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundImage {
    /// Which.
    pub image: ImageName,
    /// How large it is.
    pub bytes: u64,
    /// What is on it.
    pub filesystem: FilesystemKind,
}

/// When snapshots are taken and which are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How often.
    pub frequency: Frequency,
    /// Which are kept.
    pub retention: Retention,
    /// Whether the file system is frozen around each.
    pub freeze: bool,
}

/// Which scheduled snapshots are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// The newest so many, at least one.
    Keep(u32),
    /// By age.
    Tiers(Tiers),
}

/// Options that make no volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither the policy nor the options say how large.
    #[error("no size: give --opt size=10GB, or set default-options.size in the tenant's policy")]
    NoSize,
    /// The file system is not in the policy.
    #[error("file system {filesystem} is not in the tenant's policy (it has {known})")]
    UnknownFilesystem {
        /// The one that was asked for.
        filesystem: FilesystemName,
        /// Those that there are.
        known: String,
    },
    /// A clone has the file system of what it is cloned from.
    #[error(
        "{origin} has file system {there}, and so has a clone of it: leave filesystem={asked} out"
    )]
    OtherFilesystem {
        /// What was to be cloned.
        origin: Origin,
        /// What is on it.
        there: FilesystemName,
        /// What was asked for.
        asked: FilesystemName,
    },
    /// A clone is at least as large as what it is cloned from.
    #[error("{origin} has {there}, and a clone of it has at least as much: {asked} is less")]
    SmallerThanOrigin {
        /// What was to be cloned.
        origin: Origin,
        /// How large it is.
        there: Size,
        /// What was asked for.
        asked: Size,
    },
    /// An image that is adopted is no clone of the suite's.
    #[error("an image that is adopted was cloned from nothing here: leave from={origin} out")]
    AdoptedClone {
        /// What it was to be cloned from.
        origin: Origin,
    },
    /// An image that is adopted has a size already.
    #[error(
        "image {image} has {there}, and is adopted as it is: leave size={asked} out, and make the volume larger \
         afterwards (`volcli volume resize`)"
    )]
    AdoptedSize {
        /// The image.
        image: ImageName,
        /// How large it is.
        there: Size,
        /// What was asked for.
        asked: Size,
    },
    /// No volume has the size of the image.
    #[error("image {image} has {bytes} bytes: the smallest volume has 1 MiB, the largest 1 EiB")]
    NoVolumeSize {
        /// The image.
        image: ImageName,
        /// How large it is.
        bytes: u64,
    },
    /// An image that is adopted has a file system already.
    #[error(
        "image {image} has {there} on it, and the volume would have file system {asked}: give the one of the tenant's \
         policy that is {there} (--opt filesystem={there}); an image that is adopted is never formatted"
    )]
    AdoptedFilesystem {
        /// The image.
        image: ImageName,
        /// What is on it.
        there: FilesystemKind,
        /// What the volume would have.
        asked: FilesystemName,
    },
    /// The policy has no file system at all.
    #[error("the tenant's policy has no file system: upload it again with filesystems")]
    NoFilesystem,
    /// The schedule does not hold together.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// `ephemeral` and `on-remove` say different things.
    #[error(transparent)]
    Removal(#[from] RemovalError),
    /// No file system could be mounted so.
    #[error(transparent)]
    Mount(#[from] MountOptionError),
}

impl SpecError {
    /// Always the caller's to change.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl OptionSet {
    /// What the two spellings of removal say together.
    pub(crate) fn removal(&self) -> Result<OnRemove, RemovalError> {
        match (self.ephemeral, self.on_remove) {
            (None, None) => Ok(OnRemove::default()),
            (None, Some(on_remove)) => Ok(on_remove),
            (Some(true), None) => Ok(OnRemove::Delete),
            (Some(false), None) => Ok(OnRemove::Keep),
            (Some(ephemeral), Some(on_remove)) => {
                if ephemeral == (on_remove == OnRemove::Delete) {
                    Ok(on_remove)
                } else {
                    Err(RemovalError { ephemeral, on_remove })
                }
            }
        }
    }

    /// Whether the mount options are such that a volume can be mounted with them.
    pub(crate) fn mountable(&self) -> Result<(), MountOptionError> {
        check_mount_options(self.mount_options.as_deref().unwrap_or_default())
    }

    /// What the snapshot options say together; `None` where snapshots are off.
    pub(crate) fn schedule(&self) -> Result<Option<Schedule>, ScheduleError> {
        let SnapshotOptions { frequency, keep, retention, freeze } = &self.snapshot;
        let retention = match (keep, retention) {
            (Some(0), _) => return Err(ScheduleError::KeepNothing),
            (Some(_), Some(_)) => return Err(ScheduleError::KeepAndRetention),
            (Some(keep), None) => Some(Retention::Keep(*keep)),
            (None, Some(tiers)) => Some(Retention::Tiers(*tiers)),
            (None, None) => None,
        };
        if self.snapshots != Some(true) {
            return Ok(None);
        }
        Ok(Some(Schedule {
            frequency: frequency.ok_or(ScheduleError::NoFrequency)?,
            retention: retention.ok_or(ScheduleError::NoRetention)?,
            freeze: freeze.unwrap_or(false),
        }))
    }
}

impl VolumeSpec {
    /// Merges a policy with the options of one volume and freezes the result.
    pub fn freeze(
        policy: &TenantPolicy,
        options: OptionSet,
        default_pool: &PoolName,
    ) -> Result<VolumeSpec, SpecError> {
        let mut merged = policy.default_options.clone().overlaid(options);
        merged.pool.get_or_insert_with(|| default_pool.clone());
        merged.mountable()?;
        let filesystem = merged
            .filesystem
            .clone()
            .or_else(|| default_filesystem(policy))
            .ok_or(SpecError::NoFilesystem)?;
        let format =
            policy.filesystems.get(&filesystem).ok_or_else(|| SpecError::UnknownFilesystem {
                filesystem: filesystem.clone(),
                known: policy.known_filesystems(),
            })?;
        VolumeSpec::thaw(merged, default_pool.clone(), filesystem, format.clone())
    }

    /// Merges a policy with the options of a volume that is cloned from another, and freezes the result: size and file
    /// system come from there, not from the policy.
    pub fn freeze_clone(
        policy: &TenantPolicy,
        options: OptionSet,
        default_pool: &PoolName,
        origin: &Origin,
        source: &VolumeSpec,
    ) -> Result<VolumeSpec, SpecError> {
        if let Some(asked) = options.filesystem.clone().filter(|asked| *asked != source.filesystem)
        {
            let (origin, there) = (origin.clone(), source.filesystem.clone());
            return Err(SpecError::OtherFilesystem { origin, there, asked });
        }
        let size = options.size.unwrap_or(source.size);
        if size < source.size {
            let (origin, there) = (origin.clone(), source.size);
            return Err(SpecError::SmallerThanOrigin { origin, there, asked: size });
        }
        let mut merged = policy.default_options.clone().overlaid(options);
        merged.size = Some(size);
        merged.from = Some(origin.clone());
        merged.mountable()?;
        let (filesystem, format) = (source.filesystem.clone(), source.format.clone());
        VolumeSpec::thaw(merged, default_pool.clone(), filesystem, format)
    }

    /// The pool of a volume with these options.
    pub fn pool(policy: &TenantPolicy, options: &OptionSet, default_pool: &PoolName) -> PoolName {
        let pool = options.pool.as_ref().or(policy.default_options.pool.as_ref());
        pool.unwrap_or(default_pool).clone()
    }

    /// Merges a policy with the options of a volume whose image is there, and freezes the result: size and file system
    /// are the image's own.
    pub fn freeze_adopted(
        policy: &TenantPolicy,
        options: OptionSet,
        default_pool: &PoolName,
        found: &FoundImage,
    ) -> Result<VolumeSpec, SpecError> {
        let FoundImage { image, bytes, filesystem } = found.clone();
        if let Some(origin) = options.from {
            return Err(SpecError::AdoptedClone { origin });
        }
        let there = Size::from_bytes(bytes)
            .map_err(|_| SpecError::NoVolumeSize { image: image.clone(), bytes })?;
        if let Some(asked) = options.size.filter(|asked| *asked != there) {
            return Err(SpecError::AdoptedSize { image, there, asked });
        }
        let options = OptionSet { size: Some(there), ..options };
        let spec = VolumeSpec::freeze(policy, options, default_pool)?;
        let kind = FilesystemKind::of(&spec.filesystem, &spec.format);
        if kind.is_some_and(|kind| kind != filesystem) {
            let asked = spec.filesystem;
            return Err(SpecError::AdoptedFilesystem { image, there: filesystem, asked });
        }
        Ok(spec)
    }

    /// Puts a spec together from complete options, as they are stored.
    pub fn thaw(
        options: OptionSet,
        default_pool: PoolName,
        filesystem: FilesystemName,
        format: FormatCommand,
    ) -> Result<VolumeSpec, SpecError> {
        Ok(VolumeSpec {
            on_remove: options.removal()?,
            schedule: options.schedule()?,
            pool: options.pool.unwrap_or(default_pool),
            size: options.size.ok_or(SpecError::NoSize)?,
            filesystem,
            format,
            rate_limits: RateLimits::from(&options.rate_limit),
            access: options.access.unwrap_or_default(),
            mount_options: options.mount_options.unwrap_or_default(),
            map_options: options.map_options.unwrap_or_default(),
            sharing: options.sharing.unwrap_or_default(),
            from: options.from,
        })
    }

    /// The spec as complete options: every member is set, but for limits and a schedule that are off.
    pub fn to_options(&self) -> OptionSet {
        let VolumeSpec {
            pool,
            size,
            filesystem,
            format: _,
            on_remove,
            schedule,
            rate_limits,
            access,
            mount_options,
            map_options,
            sharing,
            from,
        } = self;
        let snapshot = match schedule {
            None => SnapshotOptions::default(),
            Some(Schedule { frequency, retention, freeze }) => SnapshotOptions {
                frequency: Some(*frequency),
                keep: match retention {
                    Retention::Keep(keep) => Some(*keep),
                    Retention::Tiers(_) => None,
                },
                retention: match retention {
                    Retention::Keep(_) => None,
                    Retention::Tiers(tiers) => Some(*tiers),
                },
                freeze: Some(*freeze),
            },
        };
        OptionSet {
            pool: Some(pool.clone()),
            size: Some(*size),
            filesystem: Some(filesystem.clone()),
            ephemeral: Some(*on_remove == OnRemove::Delete),
            on_remove: Some(*on_remove),
            snapshots: Some(schedule.is_some()),
            snapshot,
            rate_limit: rate_limits.into(),
            access: Some(*access),
            mount_options: Some(mount_options.clone()),
            map_options: Some(map_options.clone()),
            sharing: Some(*sharing),
            from: from.clone(),
        }
    }

    /// Where the given options differ from this spec, in the order of their keys. Empty options differ nowhere.
    pub fn differences(&self, asked: &OptionSet) -> Vec<Difference> {
        let here = self.to_options().to_driver_options();
        let off = |key: &str| if key.starts_with("rate-limit") { "0" } else { "unset" };
        asked
            .to_driver_options()
            .into_iter()
            .filter_map(|(key, asked)| {
                let existing = here.get(key).cloned().unwrap_or_else(|| off(key).to_owned());
                (existing != asked).then_some(Difference { key, existing, asked })
            })
            .collect()
    }
}

/// ext4 unless the policy has none, then its first by name.
fn default_filesystem(policy: &TenantPolicy) -> Option<FilesystemName> {
    let ext4 = policy.filesystems.keys().find(|name| name.as_str() == "ext4");
    ext4.or_else(|| policy.filesystems.keys().next()).cloned()
}

/// One option in which an existing volume differs from what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {existing}, asked for {asked}")]
pub struct Difference {
    /// Which option.
    pub key: &'static str,
    /// What the volume has.
    pub existing: String,
    /// What was asked for.
    pub asked: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> TenantPolicy {
        serde_json::from_str(text).unwrap()
    }

    fn options(pairs: &[(&str, &str)]) -> OptionSet {
        let map =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        OptionSet::from_driver_options(&map).unwrap()
    }

    fn freeze(policy: &TenantPolicy, pairs: &[(&str, &str)]) -> Result<VolumeSpec, SpecError> {
        VolumeSpec::freeze(policy, options(pairs), &"rbd".parse().unwrap())
    }

    #[test]
    fn options_lie_over_the_policy() {
        let policy = policy(
            r#"{"default-options": {"size": "10MB", "snapshots": true, "snapshot": {"frequency": "1h", "keep": 2}}}"#,
        );
        let spec = freeze(&policy, &[("size", "1GB"), ("snapshots.keep", "5")]).unwrap();
        assert_eq!(spec.size.to_string(), "1 GiB");
        assert_eq!(spec.pool.as_str(), "rbd");
        assert_eq!(spec.filesystem.as_str(), "ext4");
        assert_eq!(spec.schedule.unwrap().retention, Retention::Keep(5));
        let thawed = VolumeSpec::thaw(
            spec.to_options(),
            "other".parse().unwrap(),
            spec.filesystem.clone(),
            spec.format.clone(),
        );
        assert_eq!(thawed.unwrap(), spec);
    }

    #[test]
    fn what_is_missing_is_named() {
        let policy = policy(r#"{"default-options": {}}"#);
        assert_eq!(freeze(&policy, &[]).unwrap_err(), SpecError::NoSize);
        let error = freeze(&policy, &[("size", "1GB"), ("filesystem", "xfs")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "file system xfs is not in the tenant's policy (it has ext4)"
        );
        let error = freeze(&policy, &[("size", "1GB"), ("mount-options", "nosuid,suid")]);
        assert!(matches!(error, Err(SpecError::Mount(_))), "{error:?}");
    }

    #[test]
    fn a_clone_has_the_size_and_the_file_system_of_its_origin() {
        let policy = policy(
            r#"{"default-options": {"size": "10MB", "filesystem": "ext4", "pool": "fast"},
                "filesystems": {"ext4": "mkfs.ext4 %", "xfs": "mkfs.xfs %"}}"#,
        );
        let source = freeze(&policy, &[("size", "1GB"), ("filesystem", "xfs")]).unwrap();
        let origin: Origin = "t/v@before".parse().unwrap();
        let clone = |pairs: &[(&str, &str)]| {
            let pool = "rbd".parse().unwrap();
            VolumeSpec::freeze_clone(&policy, options(pairs), &pool, &origin, &source)
        };
        let same = clone(&[]).unwrap();
        assert_eq!(same, VolumeSpec { from: Some(origin.clone()), ..source.clone() });
        let shown = same.to_options().to_driver_options();
        assert_eq!(shown["from"], "t/v@before");
        assert!(same.differences(&options(&[("from", "t/v@before")])).is_empty());
        assert_eq!(clone(&[("size", "2GB")]).unwrap().size.to_string(), "2 GiB");
        let error = clone(&[("size", "100MB")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "t/v@before has 1 GiB, and a clone of it has at least as much: 100 MiB is less"
        );
        let error = clone(&[("filesystem", "ext4")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "t/v@before has file system xfs, and so has a clone of it: leave filesystem=ext4 out"
        );
    }

    #[test]
    fn an_adopted_image_stays_what_it_is() {
        let policy = policy(
            r#"{"default-options": {"size": "10MB", "pool": "fast"},
                "filesystems": {"ext4": "mkfs.ext4 %", "xfs": "mkfs.xfs %", "own": "/opt/format %"}}"#,
        );
        let adopt = |pairs: &[(&str, &str)], bytes, filesystem| {
            let image = ImageName { pool: "fast".parse().unwrap(), name: "t.v".to_owned() };
            let found = FoundImage { image, bytes, filesystem };
            let pool = "rbd".parse().unwrap();
            assert_eq!(VolumeSpec::pool(&policy, &options(pairs), &pool).as_str(), "fast");
            VolumeSpec::freeze_adopted(&policy, options(pairs), &pool, &found)
        };
        let ext = |pairs: &[(&str, &str)]| adopt(pairs, 1 << 30, FilesystemKind::Ext4);
        let spec = ext(&[]).unwrap();
        assert_eq!((spec.size.to_string().as_str(), spec.pool.as_str()), ("1 GiB", "fast"));
        assert_eq!(ext(&[("size", "1GB")]).unwrap(), spec);
        assert_eq!(
            ext(&[("size", "2GB")]).unwrap_err().to_string(),
            "image fast/t.v has 1 GiB, and is adopted as it is: leave size=2 GiB out, and make the volume larger \
             afterwards (`volcli volume resize`)"
        );
        assert_eq!(
            ext(&[("filesystem", "xfs")]).unwrap_err().to_string(),
            "image fast/t.v has ext4 on it, and the volume would have file system xfs: give the one of the tenant's \
             policy that is ext4 (--opt filesystem=ext4); an image that is adopted is never formatted"
        );
        // What a command of the policy's own makes nobody knows.
        ext(&[("filesystem", "own")]).unwrap();
        adopt(&[("filesystem", "xfs")], 1 << 30, FilesystemKind::Xfs).unwrap();
        for bytes in [0, 4096, u64::MAX] {
            let error = adopt(&[], bytes, FilesystemKind::Ext4).unwrap_err();
            assert_eq!(
                error,
                SpecError::NoVolumeSize {
                    image: ImageName { pool: "fast".parse().unwrap(), name: "t.v".to_owned() },
                    bytes
                }
            );
        }
        let error = ext(&[("from", "t/w")]).unwrap_err();
        assert!(matches!(error, SpecError::AdoptedClone { .. }), "{error}");
    }

    #[test]
    fn differences_name_the_option() {
        let policy = policy(r#"{"default-options": {"size": "10MB"}}"#);
        let spec = freeze(&policy, &[]).unwrap();
        assert!(spec.differences(&options(&[])).is_empty());
        assert!(
            spec.differences(&options(&[("size", "10M"), ("rate-limit.read.iops", "0")]))
                .is_empty()
        );
        let differences = spec.differences(&options(&[("size", "20MB")]));
        assert_eq!(differences[0].to_string(), "size is 10 MiB, asked for 20 MiB");
    }
}
