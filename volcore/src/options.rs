//! Options of a volume: as a policy's `default-options`, and as the `--opt k=v` of
//! Docker and `volcli`. Both are the same [`OptionSet`]; the second is laid over the first.

mod map;
mod mount;
mod origin;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::duration::Frequency;
use crate::limit::RateLimitOptions;
use crate::name::{FilesystemName, PoolName};
use crate::size::{self, Size};

pub use map::MapOption;
pub(crate) use mount::check as check_mount_options;
pub use mount::{MountOption, MountOptionError};
pub use origin::Origin;

/// How a host reaches the image (DESIGN §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// The best that the host has.
    #[default]
    Auto,
    /// The kernel's rbd.
    #[serde(alias = "kernelspace")]
    Kernel,
    /// `rbd-nbd`.
    Nbd,
    /// A FUSE file and a loop device over it.
    #[serde(alias = "userspace")]
    Fuse,
}

/// Who may use a volume at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Any number of containers on one host.
    #[default]
    Host,
    /// One container.
    Container,
    /// Any number of hosts, each mounting read-only.
    ReadOnly,
}

/// What `docker volume rm` does with the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRemove {
    /// The volume stays, data and all; `volcli volume remove` deletes it.
    #[default]
    Keep,
    /// The data is deleted.
    Delete,
    /// The image is moved to the trash.
    Trash,
}

macro_rules! written {
    ($type:ident, $what:literal, $($text:literal => $value:ident),+; $($alias:literal => $aliased:ident),*) => {
        impl $type {
            /// The value as it is written in policies and options.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$value => $text),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, &'static str> {
                match text {
                    $($text => Ok($type::$value),)+
                    $($alias => Ok($type::$aliased),)*
                    _ => Err($what),
                }
            }
        }
    };
}

written!(Access, "it is auto, kernel, nbd or fuse",
    "auto" => Auto, "kernel" => Kernel, "nbd" => Nbd, "fuse" => Fuse;
    "kernelspace" => Kernel, "userspace" => Fuse);
written!(Sharing, "it is host, container or read-only",
    "host" => Host, "container" => Container, "read-only" => ReadOnly;);
written!(OnRemove, "it is keep, delete or trash",
    "keep" => Keep, "delete" => Delete, "trash" => Trash;);

/// Options as they are written in a list.
fn joined<'a>(options: impl Iterator<Item = &'a str>) -> String {
    options.collect::<Vec<_>>().join(",")
}

/// How many snapshots of which age are kept, e.g. `24h7d4w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tiers {
    /// Hourly ones.
    pub hours: u32,
    /// Daily ones.
    pub days: u32,
    /// Weekly ones.
    pub weeks: u32,
}

impl FromStr for Tiers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const RULE: &str =
            "a retention is like 24h7d4w: how many hourly, daily and weekly ones to keep";
        let mut tiers = Tiers { hours: 0, days: 0, weeks: 0 };
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(RULE)?;
            let count: u32 = rest[..digits].parse().map_err(|_| RULE)?;
            let tier = match rest.as_bytes()[digits] {
                b'h' => &mut tiers.hours,
                b'd' => &mut tiers.days,
                b'w' => &mut tiers.weeks,
                _ => return Err(RULE),
            };
            if *tier != 0 || !(1..=10_000).contains(&count) {
                return Err(RULE);
            }
            *tier = count;
            rest = &rest[digits + 1..];
        }
        if text.is_empty() { Err(RULE) } else { Ok(tiers) }
    }
}

impl fmt::Display for Tiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, unit) in [(self.hours, 'h'), (self.days, 'd'), (self.weeks, 'w')] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Tiers {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl From<Tiers> for String {
    fn from(tiers: Tiers) -> String {
        tiers.to_string()
    }
}

/// The largest `snapshots.keep` that is taken: a year of one every hour is less, and an image with more snapshots is slow
/// to open. Records and policies that were stored before this bound may have more, and are read.
pub const MOST_KEPT: u32 = 10_000;

/// The snapshot part of the options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SnapshotOptions {
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency: Option<Frequency>,
    /// How many of the newest to keep, from 1 to [`MOST_KEPT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    /// Which to keep by age, instead of `keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Tiers>,
    /// Whether the file system is frozen around a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<bool>,
}

impl SnapshotOptions {
    fn is_empty(&self) -> bool {
        *self == SnapshotOptions::default()
    }
}

fn no_limits(limits: &RateLimitOptions) -> bool {
    *limits == RateLimitOptions::default()
}

/// What a policy or a user says about a volume; what is absent is said by the layer below.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OptionSet {
    /// Where the image is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// How large it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Which of the policy's file systems is put on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<FilesystemName>,
    /// Shorthand for `on-remove`: true is `delete`, false is `keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<bool>,
    /// What `docker volume rm` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_remove: Option<OnRemove>,
    /// Whether it is snapshotted on schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<bool>,
    /// The schedule.
    #[serde(default, skip_serializing_if = "SnapshotOptions::is_empty")]
    pub snapshot: SnapshotOptions,
    /// The limits.
    #[serde(default, skip_serializing_if = "no_limits")]
    pub rate_limit: RateLimitOptions,
    /// How hosts reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Options for mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_options: Option<Vec<MountOption>>,
    /// Options for mapping with the kernel's rbd; the other ways to reach an image have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_options: Option<Vec<MapOption>>,
    /// Who may use it at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// What it is cloned from. A policy says nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Origin>,
}

/// A driver option that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No such key.
    #[error("unknown option {key:?}; the options are {}", KEYS.join(", "))]
    Unknown {
        /// The key as given, cut to 80 characters.
        key: String,
    },
    /// The key exists, the value does not fit it.
    #[error("option {key}={value:?}: {reason}")]
    Value {
        /// Which option.
        key: &'static str,
        /// The value as given, cut to 80 characters.
        value: String,
        /// What it should be.
        reason: String,
    },
}

/// Every driver option (DESIGN §4), in the order in which they are listed.
pub const KEYS: [&str; 19] = [
    "pool",
    "size",
    "filesystem",
    "ephemeral",
    "on-remove",
    "snapshots",
    "snapshots.frequency",
    "snapshots.keep",
    "snapshot.retention",
    "snapshot.freeze",
    "rate-limit.write.iops",
    "rate-limit.read.iops",
    "rate-limit.write.bps",
    "rate-limit.read.bps",
    "access",
    "mount-options",
    "map-options",
    "sharing",
    "from",
];

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("it is true or false"),
    }
}

fn parse_count(text: &str) -> Result<u64, &'static str> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let count = digits.then(|| text.parse().ok()).flatten();
    count.ok_or("it is a whole number, 0 for no limit")
}

/// Zero is read: what is wrong with it is said with the rest of the schedule.
fn parse_keep(text: &str) -> Result<u32, &'static str> {
    let keep = text.parse().ok().filter(|keep| *keep <= MOST_KEPT);
    keep.ok_or("it is a whole number from 1 to 10000")
}

fn parse_rate(text: &str) -> Result<u64, &'static str> {
    size::parse_bytes(text, 1)
        .map_err(|_| "it is bytes per second, such as 100000000 or 100MB; 0 for no limit")
}

impl OptionSet {
    /// Reads driver options. Unknown keys are refused by name, and so are the underscored
    /// spellings: one way to write a thing.
    pub fn from_driver_options(given: &BTreeMap<String, String>) -> Result<Self, OptionError> {
        let mut set = OptionSet::default();
        let cut = |text: &str| text.chars().take(80).collect();
        for (key, value) in given {
            let key = *KEYS
                .iter()
                .find(|known| *known == key)
                .ok_or_else(|| OptionError::Unknown { key: cut(key) })?;
            set.put(key, value).map_err(|reason| OptionError::Value {
                key,
                value: cut(value),
                reason,
            })?;
        }
        Ok(set)
    }

    fn put(&mut self, key: &'static str, value: &str) -> Result<(), String> {
        fn read<T: FromStr<Err: fmt::Display>>(value: &str) -> Result<Option<T>, String> {
            value.parse().map(Some).map_err(|error: T::Err| error.to_string())
        }
        fn by<T>(
            parse: fn(&str) -> Result<T, &'static str>,
            value: &str,
        ) -> Result<Option<T>, String> {
            parse(value).map(Some).map_err(str::to_owned)
        }
        match key {
            "pool" => self.pool = read(value)?,
            "size" => self.size = read(value)?,
            "filesystem" => self.filesystem = read(value)?,
            "ephemeral" => self.ephemeral = by(parse_bool, value)?,
            "on-remove" => self.on_remove = read(value)?,
            "snapshots" => self.snapshots = by(parse_bool, value)?,
            "snapshots.frequency" => self.snapshot.frequency = read(value)?,
            "snapshots.keep" => self.snapshot.keep = by(parse_keep, value)?,
            "snapshot.retention" => self.snapshot.retention = read(value)?,
            "snapshot.freeze" => self.snapshot.freeze = by(parse_bool, value)?,
            "rate-limit.write.iops" => self.rate_limit.write_iops = by(parse_count, value)?,
            "rate-limit.read.iops" => self.rate_limit.read_iops = by(parse_count, value)?,
            "rate-limit.write.bps" => self.rate_limit.write_bps = by(parse_rate, value)?,
            "rate-limit.read.bps" => self.rate_limit.read_bps = by(parse_rate, value)?,
            "access" => self.access = read(value)?,
            "mount-options" => {
                // An empty list takes back what the policy says.
                let options = value.split(',').filter(|_| !value.is_empty()).map(str::parse);
                self.mount_options = Some(options.collect::<Result<_, _>>()?);
            }
            "map-options" => {
                let options: Result<Vec<MapOption>, _> =
                    value.split(',').filter(|_| !value.is_empty()).map(str::parse).collect();
                self.map_options = Some(options?);
            }
            "sharing" => self.sharing = read(value)?,
            "from" => self.from = read(value)?,
            // Not reached: the arms are the keys, as a test sees.
            _ => return Err("it is not read by this version".to_owned()),
        }
        Ok(())
    }

    /// The set as driver options, each in its one canonical spelling.
    pub fn to_driver_options(&self) -> BTreeMap<&'static str, String> {
        let OptionSet {
            pool,
            size,
            filesystem,
            ephemeral,
            on_remove,
            snapshots,
            snapshot: SnapshotOptions { frequency, keep, retention, freeze },
            rate_limit: RateLimitOptions { write_iops, read_iops, write_bps, read_bps },
            access,
            mount_options,
            map_options,
            sharing,
            from,
        } = self;
        fn text<T: fmt::Display>(value: &Option<T>) -> Option<String> {
            value.as_ref().map(T::to_string)
        }
        let mounts = mount_options.as_ref();
        let mounts = mounts.map(|options| joined(options.iter().map(MountOption::as_str)));
        let maps = map_options.as_ref();
        let maps = maps.map(|options| joined(options.iter().map(MapOption::as_str)));
        let all = [
            ("pool", text(pool)),
            ("size", text(size)),
            ("filesystem", text(filesystem)),
            ("ephemeral", text(ephemeral)),
            ("on-remove", text(on_remove)),
            ("snapshots", text(snapshots)),
            ("snapshots.frequency", text(frequency)),
            ("snapshots.keep", text(keep)),
            ("snapshot.retention", text(retention)),
            ("snapshot.freeze", text(freeze)),
            ("rate-limit.write.iops", text(write_iops)),
            ("rate-limit.read.iops", text(read_iops)),
            ("rate-limit.write.bps", text(write_bps)),
            ("rate-limit.read.bps", text(read_bps)),
            ("access", text(access)),
            ("mount-options", mounts),
            ("map-options", maps),
            ("sharing", text(sharing)),
            ("from", text(from)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// This set, with what `over` says in its place. A layer that speaks of removal or of
    /// retention speaks of it alone: the two spellings of the layer below do not shine through.
    pub fn overlaid(self, over: OptionSet) -> OptionSet {
        let removal = over.ephemeral.is_some() || over.on_remove.is_some();
        let retention = over.snapshot.keep.is_some() || over.snapshot.retention.is_some();
        let (ephemeral, on_remove) = if removal {
            (over.ephemeral, over.on_remove)
        } else {
            (self.ephemeral, self.on_remove)
        };
        let (keep, tiers) = if retention {
            (over.snapshot.keep, over.snapshot.retention)
        } else {
            (self.snapshot.keep, self.snapshot.retention)
        };
        OptionSet {
            pool: over.pool.or(self.pool),
            size: over.size.or(self.size),
            filesystem: over.filesystem.or(self.filesystem),
            ephemeral,
            on_remove,
            snapshots: over.snapshots.or(self.snapshots),
            snapshot: SnapshotOptions {
                frequency: over.snapshot.frequency.or(self.snapshot.frequency),
                keep,
                retention: tiers,
                freeze: over.snapshot.freeze.or(self.snapshot.freeze),
            },
            rate_limit: self.rate_limit.overlaid(over.rate_limit),
            access: over.access.or(self.access),
            mount_options: over.mount_options.or(self.mount_options),
            map_options: over.map_options.or(self.map_options),
            sharing: over.sharing.or(self.sharing),
            from: over.from.or(self.from),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_key_is_read_and_written_back() {
        let given = options(&[
            ("pool", "fast"),
            ("size", "2GB"),
            ("filesystem", "xfs"),
            ("ephemeral", "T"),
            ("on-remove", "delete"),
            ("snapshots", "1"),
            ("snapshots.frequency", "90m"),
            ("snapshots.keep", "3"),
            ("snapshot.retention", "24h7d4w"),
            ("snapshot.freeze", "False"),
            ("rate-limit.write.iops", "100"),
            ("rate-limit.read.iops", "0"),
            ("rate-limit.write.bps", "10MB"),
            ("rate-limit.read.bps", "1000000"),
            ("access", "kernelspace"),
            ("mount-options", "noatime,commit=30"),
            ("map-options", "queue_depth=256,ms_mode=secure,notrim,crush_location=rack:a|zone:b"),
            ("sharing", "read-only"),
            ("from", "t/v@before"),
        ]);
        let set = OptionSet::from_driver_options(&given).unwrap();
        let written = set.to_driver_options();
        assert_eq!(written.len(), KEYS.len());
        assert_eq!(written["size"], "2 GiB");
        assert_eq!(written["snapshots.frequency"], "1h30m");
        assert_eq!(written["rate-limit.write.bps"], "10485760");
        assert_eq!(written["access"], "kernel");
        let again = written.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert_eq!(OptionSet::from_driver_options(&again).unwrap(), set);
    }

    #[test]
    fn bad_options_are_named() {
        let error = OptionSet::from_driver_options(&options(&[("sise", "1GB")])).unwrap_err();
        assert!(
            error.to_string().starts_with("unknown option \"sise\"; the options are pool, size")
        );
        let error = OptionSet::from_driver_options(&options(&[("from", "v@s")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "option from=\"v@s\": it is tenant/volume or tenant/volume@snapshot"
        );
        for (key, value) in [
            ("size", ""),
            ("ephemeral", "yes"),
            ("snapshots.keep", "-1"),
            ("snapshots.keep", "10001"),
            ("snapshots.keep", "4000000000"),
            ("access", "magic"),
            ("mount-options", "bind"),
            ("mount-options", "a b"),
            ("map-options", "nonsense"),
            ("map-options", "exclusive"),
            ("map-options", "secret=AQ=="),
            ("map-options", "queue_depth"),
            ("map-options", "queue_depth=0"),
            ("map-options", "alloc_size=3"),
            ("map-options", "osd_request_timeout=1"),
            ("map-options", "notrim=1"),
            ("map-options", "ms_mode=fast"),
            ("map-options", "crush_location=rack"),
            ("mount-options", "noatime,,discard"),
            ("mount-options", "noatime,"),
            ("rate-limit.read.iops", "+5"),
            ("snapshot.retention", "24h24h"),
            ("snapshot.retention", "7"),
        ] {
            let error = OptionSet::from_driver_options(&options(&[(key, value)])).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn a_layer_that_speaks_of_removal_speaks_alone() {
        let base = OptionSet { on_remove: Some(OnRemove::Trash), ..OptionSet::default() };
        let over = OptionSet { ephemeral: Some(true), ..OptionSet::default() };
        let merged = base.overlaid(over);
        assert_eq!((merged.on_remove, merged.ephemeral), (None, Some(true)));
    }

    proptest! {
        #[test]
        fn any_options_are_read_or_refused(key in prop::sample::select(&KEYS[..]), value in "\\PC{0,30}") {
            let given = options(&[(key, &value)]);
            if let Ok(set) = OptionSet::from_driver_options(&given) {
                let again = set.to_driver_options().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
                prop_assert_eq!(OptionSet::from_driver_options(&again).unwrap(), set);
            }
        }
    }
}
