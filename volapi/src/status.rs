//! The state of a volmaster and of what stands behind it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether a part works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// What it is, e.g. `etcd at http://127.0.0.1:2379`.
    pub what: String,
    /// Whether it answers.
    pub ok: bool,
    /// What it said, or why it does not answer.
    pub detail: String,
}

/// What a background reconciler has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Loop {
    /// Its name.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// When the last run ended (RFC 3339), if one has.
    pub last_run: Option<String>,
    /// What is pending, one line each, at most 20.
    pub pending: Vec<String>,
    /// Why the last run failed, if it did.
    pub last_error: Option<String>,
}

/// How the snapshots on schedule do, of all volumes together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Schedules {
    /// How many volumes have a schedule.
    pub volumes: u64,
    /// How many are due now.
    pub due: u64,
    /// For how many milliseconds the longest due one has been so: minutes say that no volsupervisor runs.
    pub lag_ms: u64,
    /// How many snapshots were taken, of the volumes that there are.
    pub taken: u64,
    /// How many slots went by without one.
    pub missed: u64,
    /// How many attempts failed.
    pub failed: u64,
    /// The volumes whose last attempt failed, with the reason, at most 20.
    pub failing: Vec<String>,
    /// When the next one is due (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The version of the volmaster that answers.
    pub version: String,
    /// The metadata store.
    pub store: Part,
    /// The images.
    pub images: Part,
    /// How many volumes there are.
    pub volumes: u64,
    /// How many of them are being made or removed.
    pub pending: u64,
    /// How many are claimed.
    pub mounts: u64,
    /// How many hosts have a live session.
    pub hosts: u64,
    /// The snapshots on schedule.
    #[serde(default)]
    pub schedules: Schedules,
    /// The background work of this volmaster.
    pub loops: Vec<Loop>,
}

/// `GET /healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`, or why not.
    pub status: String,
}
