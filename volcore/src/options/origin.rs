//! What a volume is cloned from: the option `from`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{SnapshotName, VolumeId};

/// A volume, or one of its snapshots, written `tenant/volume` or `tenant/volume@snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin {
    /// The volume.
    pub volume: VolumeId,
    /// Which of its snapshots; as it is when it is cloned where this is absent.
    pub snapshot: Option<SnapshotName>,
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (volume, snapshot) = match text.split_once('@') {
            Some((volume, snapshot)) => (volume, Some(snapshot)),
            None => (text, None),
        };
        if !volume.contains('/') {
            return Err("it is tenant/volume or tenant/volume@snapshot".to_owned());
        }
        let volume = volume.parse().map_err(|error| format!("{error}"))?;
        let snapshot = snapshot.map(str::parse).transpose().map_err(|error| format!("{error}"))?;
        Ok(Origin { volume, snapshot })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}@{snapshot}", self.volume),
            None => write!(f, "{}", self.volume),
        }
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> String {
        origin.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_it_is_written() {
        for text in ["t/v", "t/v@before", "t/v.w@auto-2026-11-21T203007Z"] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), text);
        }
        for (bad, why) in [
            ("v", "tenant/volume"),
            ("v@s", "tenant/volume"),
            ("t/v@", "snapshot name"),
            ("t/v@s@s", "snapshot name"),
            ("t/@s", "volume name"),
            ("", "tenant/volume"),
        ] {
            let error = bad.parse::<Origin>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
