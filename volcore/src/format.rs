//! The format command of a policy: `mkfs.ext4 -m0 %`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A POSIX shell command in which `%` stands for the device path and `%%` for a
/// literal `%` (DESIGN §4). At least one `%` is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FormatCommand(String);

/// A text that is no format command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatCommandError {
    /// It names no device.
    #[error("format command {given:?} has no % for the device, as in \"mkfs.ext4 -m0 %\"")]
    NoDevice {
        /// What was given, cut to 120 characters.
        given: String,
    },
    /// It is longer than 4096 bytes or has a NUL in it.
    #[error("format command is longer than 4096 bytes or has a NUL byte in it")]
    Unusable,
}

impl FormatCommand {
    /// The command for this device. The path is put in as it is: callers give paths
    /// of their own making, free of characters that a shell would read.
    pub fn for_device(&self, device: &str) -> String {
        let pieces: Vec<String> =
            self.0.split("%%").map(|piece| piece.replace('%', device)).collect();
        pieces.join("%")
    }

    /// The command as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FormatCommand {
    type Err = FormatCommandError;

    fn from_str(text: &str) -> Result<Self, FormatCommandError> {
        if text.len() > 4096 || text.contains('\0') {
            return Err(FormatCommandError::Unusable);
        }
        if !text.split("%%").any(|piece| piece.contains('%')) {
            return Err(FormatCommandError::NoDevice { given: text.chars().take(120).collect() });
        }
        Ok(FormatCommand(text.to_owned()))
    }
}

impl TryFrom<String> for FormatCommand {
    type Error = FormatCommandError;

    fn try_from(text: String) -> Result<Self, FormatCommandError> {
        text.parse()
    }
}

impl From<FormatCommand> for String {
    fn from(command: FormatCommand) -> String {
        command.0
    }
}

impl fmt::Display for FormatCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_goes_where_the_percent_is() {
        let command: FormatCommand = "mkfs.ext4 -m0 %".parse().unwrap();
        assert_eq!(command.for_device("/dev/loop7"), "mkfs.ext4 -m0 /dev/loop7");
        let command: FormatCommand = "mkfs.x -L 100%% % && echo %".parse().unwrap();
        assert_eq!(command.for_device("/d"), "mkfs.x -L 100% /d && echo /d");
        let command: FormatCommand = "a %%% b".parse().unwrap();
        assert_eq!(command.for_device("/d"), "a %/d b");
    }

    #[test]
    fn a_command_without_a_device_is_refused() {
        for bad in ["", "mkfs.ext4 /dev/sda", "echo 100%%"] {
            assert!(bad.parse::<FormatCommand>().is_err(), "{bad:?}");
        }
    }
}
