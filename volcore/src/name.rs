//! Names: parsed once at the edge, valid ever after.
//!
//! The rules are DESIGN §3. Every name is a newtype whose only way in is
//! `FromStr` (serde uses it too), so that a name that exists can be put into a
//! key, a path or an image name without another check.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A name that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: {rule}")]
pub struct NameError {
    /// Which sort of name, e.g. `tenant name`.
    pub what: &'static str,
    /// What was given, cut to 80 characters.
    pub given: String,
    /// The rule, in words.
    pub rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, given: &str, rule: &'static str) -> Self {
        NameError { what, given: given.chars().take(80).collect(), rule }
    }
}

/// The characters a sort of name may have, and how many.
struct Rule {
    first: fn(char) -> bool,
    rest: fn(char) -> bool,
    longest: usize,
}

impl Rule {
    fn holds(&self, text: &str) -> bool {
        let mut chars = text.chars();
        chars.next().is_some_and(self.first) && chars.all(self.rest) && text.len() <= self.longest
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $first:expr, $rest:expr, $longest:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let rule = Rule { first: $first, rest: $rest, longest: $longest };
                if rule.holds(text) {
                    Ok($name(text.to_owned()))
                } else {
                    Err(NameError::new($what, text, $rule))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

fn alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn dotted(c: char) -> bool {
    word(c) || c == '.'
}

name!(
    /// A tenant. It has no dot, so that `<tenant>.<volume>` maps back one to one.
    TenantName, "tenant name", alphanumeric, word, 63,
    "1 to 63 letters, digits, '_' or '-', the first a letter or digit"
);
name!(
    /// A volume within its tenant.
    VolumeName, "volume name", alphanumeric, dotted, 127,
    "1 to 127 letters, digits, '_', '.' or '-', the first a letter or digit"
);
name!(
    /// A snapshot of a volume.
    SnapshotName, "snapshot name", alphanumeric, dotted, 127,
    "1 to 127 letters, digits, '_', '.' or '-', the first a letter or digit"
);
name!(
    /// A Ceph pool, or a folder below the image root of the file driver.
    PoolName, "pool name", alphanumeric, dotted, 127,
    "1 to 127 letters, digits, '_', '.' or '-', the first a letter or digit"
);
name!(
    /// A Docker host, as given by `--host-label`.
    HostName, "host name", alphanumeric, dotted, 253,
    "1 to 253 letters, digits, '_', '.' or '-', the first a letter or digit"
);
name!(
    /// A file system, as named in a policy and given to `mount -t`.
    FilesystemName, "file system name", alphanumeric, dotted, 32,
    "1 to 32 letters, digits, '_', '.' or '-', the first a letter or digit"
);
name!(
    /// The opaque id that Docker gives one use of a volume
    /// (<https://docs.docker.com/engine/extend/plugins_volume/#volumedrivermount>).
    MountId, "mount id", dotted, dotted, 128,
    "1 to 128 letters, digits, '_', '.' or '-'"
);
name!(
    /// A machine's boot, as in `/proc/sys/kernel/random/boot_id`.
    BootId, "boot id", alphanumeric, word, 64,
    "1 to 64 letters, digits, '_' or '-'"
);

impl SnapshotName {
    /// How the names of snapshots on schedule begin (DESIGN §10).
    pub(crate) const SCHEDULED: &str = "auto-";
    /// How the names of those begin that are taken for clones.
    const FOR_CLONE: &str = "clone-";

    /// The name of the one that is taken of a volume in order to clone it as it is, for the time that this takes.
    pub fn for_clone(uid: Uuid) -> SnapshotName {
        SnapshotName(format!("{}{}", SnapshotName::FOR_CLONE, uid.simple()))
    }

    /// The clone that a snapshot of this name is taken for; `None` where it is not one that
    /// [`for_clone`](Self::for_clone) gives.
    pub fn clone_uid(&self) -> Option<Uuid> {
        let uid = self.0.strip_prefix(SnapshotName::FOR_CLONE)?.parse().ok()?;
        (SnapshotName::for_clone(uid) == *self).then_some(uid)
    }

    /// The name of the one for a moment; `moment` is a time after RFC 3339 without the colons, in which every
    /// character is one that a name may have.
    pub(crate) fn scheduled(moment: &str) -> SnapshotName {
        SnapshotName(format!("{}{moment}", SnapshotName::SCHEDULED))
    }
}

/// A volume with its tenant, written `tenant/volume`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId {
    /// Whose it is.
    pub tenant: TenantName,
    /// Which of theirs.
    pub volume: VolumeName,
}

/// A text that names no volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeIdError {
    /// There is no tenant in the name, and no default tenant.
    #[error(
        "volume {given:?} names no tenant: write it as tenant/volume, or start volplugin with --default-tenant"
    )]
    NoTenant {
        /// What was given, cut to 80 characters.
        given: String,
    },
    /// One of the two parts breaks its rule.
    #[error(transparent)]
    Part(#[from] NameError),
}

impl VolumeId {
    /// Puts the two parts together.
    pub fn new(tenant: TenantName, volume: VolumeName) -> Self {
        VolumeId { tenant, volume }
    }

    /// Reads a name as Docker gives it: a plain name belongs to the default tenant, if there is one.
    pub fn from_docker(name: &str, default: Option<&TenantName>) -> Result<Self, VolumeIdError> {
        match (name.split_once('/'), default) {
            (Some((tenant, volume)), _) => Ok(VolumeId::new(tenant.parse()?, volume.parse()?)),
            (None, Some(tenant)) => Ok(VolumeId::new(tenant.clone(), name.parse()?)),
            (None, None) => Err(VolumeIdError::NoTenant { given: name.chars().take(80).collect() }),
        }
    }

    /// The name of the image behind the volume: `<tenant>.<volume>`.
    pub fn image_name(&self) -> String {
        format!("{}.{}", self.tenant, self.volume)
    }

    /// The volume whose image has this name; `None` where no volume could have it.
    pub fn from_image_name(image: &str) -> Option<Self> {
        let (tenant, volume) = image.split_once('.')?;
        Some(VolumeId::new(tenant.parse().ok()?, volume.parse().ok()?))
    }
}

impl FromStr for VolumeId {
    type Err = VolumeIdError;

    fn from_str(text: &str) -> Result<Self, VolumeIdError> {
        VolumeId::from_docker(text, None)
    }
}

impl TryFrom<String> for VolumeId {
    type Error = VolumeIdError;

    fn try_from(text: String) -> Result<Self, VolumeIdError> {
        text.parse()
    }
}

impl From<VolumeId> for String {
    fn from(id: VolumeId) -> String {
        id.to_string()
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.tenant, self.volume))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_of_the_rules() {
        assert!("a".parse::<TenantName>().is_ok());
        assert!("a".repeat(63).parse::<TenantName>().is_ok());
        for bad in ["", "-a", "_a", ".a", "a.b", "a/b", "a b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<TenantName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(127).parse::<VolumeName>().is_ok());
        for bad in ["", "-a", ".", "..", "a/b", "a@b", "a\n", "a\0", &"a".repeat(128)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_plain_name_needs_a_default_tenant() {
        let error = VolumeId::from_docker("db", None).unwrap_err();
        assert!(error.to_string().contains("--default-tenant"), "{error}");
        let tenant = "t".parse().unwrap();
        assert_eq!(VolumeId::from_docker("db", Some(&tenant)).unwrap().to_string(), "t/db");
        assert!(VolumeId::from_docker("a/b/c", Some(&tenant)).is_err());
    }

    proptest! {
        #[test]
        fn image_names_map_back(tenant in "[A-Za-z0-9][A-Za-z0-9_-]{0,62}", volume in "[A-Za-z0-9][A-Za-z0-9_.-]{0,126}") {
            let id: VolumeId = format!("{tenant}/{volume}").parse().unwrap();
            prop_assert_eq!(VolumeId::from_image_name(&id.image_name()), Some(id.clone()));
            prop_assert_eq!(id.to_string().parse::<VolumeId>().unwrap(), id);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            if let Ok(id) = text.parse::<VolumeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
