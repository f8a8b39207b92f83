//! The bodies of Docker's protocol, as they were recorded from dockerd.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What Docker asks for, by the path of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The handshake.
    Activate,
    /// Global or local volumes.
    Capabilities,
    /// Make a volume known, or find it.
    Create,
    /// Forget a volume.
    Remove,
    /// A container is about to use a volume.
    Mount,
    /// Where a volume is mounted.
    Path,
    /// A container has ended.
    Unmount,
    /// One volume.
    Get,
    /// All volumes.
    List,
}

impl Method {
    /// The method of a request path, if Docker has one there.
    pub fn from_path(path: &str) -> Option<Method> {
        Some(match path {
            "/Plugin.Activate" => Method::Activate,
            "/VolumeDriver.Capabilities" => Method::Capabilities,
            "/VolumeDriver.Create" => Method::Create,
            "/VolumeDriver.Remove" => Method::Remove,
            "/VolumeDriver.Mount" => Method::Mount,
            "/VolumeDriver.Path" => Method::Path,
            "/VolumeDriver.Unmount" => Method::Unmount,
            "/VolumeDriver.Get" => Method::Get,
            "/VolumeDriver.List" => Method::List,
            _ => return None,
        })
    }
}

/// The body of every request that has one; which members there are depends on the method.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Request {
    /// The volume.
    #[serde(default)]
    pub name: String,
    /// The driver options of a Create; Docker sends null for none.
    #[serde(default)]
    pub opts: Option<BTreeMap<String, String>>,
    /// The id of a use, for Mount and Unmount.
    #[serde(default, rename = "ID")]
    pub id: String,
}

/// A volume as Docker shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Its name, as Docker knows it.
    pub name: String,
    /// Where it is mounted here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<PathBuf>,
    /// When it was made; absent rather than empty (Docker refuses an empty one).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// What `docker volume inspect` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// The `Status` of a volume (DESIGN §7). Every member is always there; null is "not known".
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// `creating`, `ready` or `removing`.
    pub state: Option<String>,
    /// The host that holds it.
    pub holder: Option<String>,
    /// Since when.
    pub holder_since: Option<Timestamp>,
    /// Its size, e.g. `10 MiB`.
    pub size: Option<String>,
    /// Bytes used in its file system, where it is mounted here.
    pub used: Option<u64>,
    /// The file system.
    pub filesystem: Option<String>,
    /// The pool of its image.
    pub pool: Option<String>,
    /// The name or path of its image.
    pub image: Option<String>,
    /// How it is (to be) reached.
    pub access: Option<String>,
    /// Whether it is snapshotted on schedule, and how: `off`, or `every 30m, keep 20`.
    pub snapshots: Option<String>,
    /// When the last snapshot was taken.
    pub last_snapshot: Option<Timestamp>,
    /// When the next is due.
    pub next_snapshot: Option<Timestamp>,
    /// Its limits: `none`, or those that are set.
    pub rate_limit: Option<String>,
    /// `ok`, or what is wrong.
    pub health: Option<String>,
    /// Why the last step on it failed.
    pub last_error: Option<String>,
    /// Where this comes from: `volmaster`, or `cache` while volmaster cannot be reached.
    pub source: Option<String>,
}

/// The body of an answer. `Err` is there in all of them; empty is success.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reply {
    /// Where a volume is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<PathBuf>,
    /// One volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// All volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<Volume>>,
    /// What the driver can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// What this plugin implements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub implements: Option<[&'static str; 1]>,
    /// Why it was not done.
    pub err: String,
}

/// What the driver can do.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Capabilities {
    /// `global`: a volume is the same on every host.
    pub scope: &'static str,
}
