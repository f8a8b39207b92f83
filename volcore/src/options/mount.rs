//! Options for mount: which are none, and which do not go together, as far as that can be said without a kernel.
//!
//! [`MountOption`] is the form of one. What a policy or a new volume may say is [`check`]'s, which is stricter: what is
//! stored already stays readable.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kernel takes the options of a file system in one page, and volplugin adds one of its own.
const LONGEST: usize = 4000;

/// One option for `mount(8)`, such as `noatime` or `commit=30`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MountOption(String);

impl MountOption {
    /// The option as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the `=`.
    fn key(&self) -> &str {
        self.0.split_once('=').map_or(&self.0, |(key, _)| key)
    }
}

impl FromStr for MountOption {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        // These change what is mounted or where, which is not the policy's to say.
        let barred =
            ["bind", "rbind", "move", "remount", "loop", "rw", "ro", "defaults", "user", "users"];
        let readable = text.chars().all(|c| {
            c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '=' | '.' | ':' | '/' | '+' | '%')
        });
        if text.is_empty() || text.len() > 200 || !readable {
            return Err("a mount option is 1 to 200 letters, digits and _-=.:/+%");
        }
        if barred.contains(&text) || text.starts_with("loop=") || text.starts_with("offset=") {
            return Err(
                "bind, move, remount, loop, rw and ro are not for a policy to set (use sharing: read-only)",
            );
        }
        Ok(MountOption(text.to_owned()))
    }
}

impl TryFrom<String> for MountOption {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl From<MountOption> for String {
    fn from(option: MountOption) -> String {
        option.0
    }
}

/// Mount options with which no volume could be mounted, or not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountOptionError {
    /// One that is not for a policy to set.
    #[error("mount option {option:?} cannot be used: {reason}")]
    Barred {
        /// Which.
        option: String,
        /// Why.
        reason: &'static str,
    },
    /// Two that say different things.
    #[error("mount options {first:?} and {second:?} contradict each other; give one of them")]
    Contradiction {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// More than the kernel takes.
    #[error("the mount options have {length} characters in all, and the kernel takes {LONGEST}")]
    TooLong {
        /// How many.
        length: usize,
    },
}

/// Whether a volume can be mounted with these, as far as that can be said without its file system.
///
/// # Errors
/// What is wrong with the first that is.
pub fn check(options: &[MountOption]) -> Result<(), MountOptionError> {
    for (at, option) in options.iter().enumerate() {
        if let Some(reason) = barred(option) {
            return Err(MountOptionError::Barred { option: option.0.clone(), reason });
        }
        if let Some(other) = options[..at].iter().find(|other| contradict(other, option)) {
            let (first, second) = (other.0.clone(), option.0.clone());
            return Err(MountOptionError::Contradiction { first, second });
        }
    }
    let length = options.iter().map(|option| option.0.len() + 1).sum();
    if length > LONGEST { Err(MountOptionError::TooLong { length }) } else { Ok(()) }
}

/// Why an option is not for a policy to set; `None` for those that are.
fn barred(option: &MountOption) -> Option<&'static str> {
    match option.key() {
        "bind" | "rbind" | "move" | "remount" | "loop" | "offset" | "sizelimit" | "rw" | "ro" => {
            Some("what is mounted, and how, is volplugin's to say (use sharing: read-only)")
        }
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "unbindable"
        | "runbindable" => Some("how mounts are shared is the container engine's to say"),
        "noload" | "norecovery" | "nologreplay" | "rescue" => {
            Some("it leaves out the journal, and volplugin sets it where a volume is read-only")
        }
        "device" | "logdev" | "rtdev" | "journal_dev" | "journal_path" => {
            Some("it names a device or file of the host")
        }
        "errors" | "fatal_errors" if option.0.ends_with("=panic") => {
            Some("it stops the whole host when one volume is damaged")
        }
        "auto" | "noauto" | "nofail" | "_netdev" | "owner" | "group" | "nouser" | "user"
        | "users" | "defaults" | "comment" | "helper" | "uhelper" => Some(FSTAB),
        key if key.starts_with("x-") || key.starts_with("X-") => Some(FSTAB),
        _ => None,
    }
}

const FSTAB: &str = "it is one for /etc/fstab, which the kernel does not know";

/// Whether two options say different things: `commit=5` and `commit=30`, `discard` and `nodiscard`.
fn contradict(one: &MountOption, other: &MountOption) -> bool {
    const TIMES: [&str; 4] = ["atime", "noatime", "relatime", "strictatime"];
    let denies = |yes: &str, no: &str| no.strip_prefix("no") == Some(yes);
    let both = |words: &[&str]| words.contains(&one.key()) && words.contains(&other.key());
    one != other
        && (one.key() == other.key()
            || denies(one.key(), other.key())
            || denies(other.key(), one.key())
            || both(&TIMES)
            || both(&["sync", "async"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        let options: Vec<MountOption> =
            text.split(' ').map(|option| option.parse().unwrap()).collect();
        check(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for text in [
            "",
            " ",
            "noatime,discard",
            "no atime",
            "noatime\n",
            "noatime\0",
            "\u{1b}[0m",
            "bind",
            "remount",
            "loop=/dev/loop0",
            "rw",
        ] {
            assert!(text.parse::<MountOption>().is_err(), "{text:?}");
        }
        assert!("x".repeat(201).parse::<MountOption>().is_err());
    }

    #[test]
    fn usual_options_go_together() {
        for text in [
            "noatime nodiratime",
            "noatime lazytime discard commit=30 errors=remount-ro data=ordered",
            "nosuid nodev noexec",
            "noatime noatime",
            "compress=zstd:3 space_cache=v2 subvol=/data",
        ] {
            checked(text).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_mounted_so_is_named() {
        for (text, expected) in [
            ("noatime remount=1", "what is mounted"),
            ("sizelimit=4096", "what is mounted"),
            ("rshared", "container engine"),
            ("noload", "journal"),
            ("rescue=all", "journal"),
            ("journal_path=/etc/passwd", "device or file of the host"),
            ("errors=panic", "stops the whole host"),
            ("nofail", "/etc/fstab"),
            ("x-systemd.automount", "/etc/fstab"),
            ("noatime strictatime", "\"noatime\" and \"strictatime\" contradict"),
            ("nosuid discard suid", "\"nosuid\" and \"suid\" contradict"),
            ("sync async", "contradict"),
            ("commit=5 commit=30", "\"commit=5\" and \"commit=30\" contradict"),
        ] {
            let error = checked(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let long = vec!["x=".to_owned() + &"y".repeat(198); 21].join(" ");
        assert!(checked(&long).unwrap_err().contains("the kernel takes 4000"));
    }
}
