//! Settings of the whole suite, kept in the store (`volcli global get|upload`).

use serde::{Deserialize, Serialize};

use crate::duration::{SessionTtl, TrashRetention};

/// The settings that every volmaster and every host follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Global {
    /// How long a host's session lives without being renewed (DESIGN §8).
    #[serde(default)]
    pub session_ttl: SessionTtl,
    /// How long volumes that were removed with `on-remove: trash` can be restored.
    #[serde(default)]
    pub trash_retention: TrashRetention,
}
