//! How each thing of the API looks in lists and tables.

use serde::Serialize;
use volapi::hosts::Host;
use volapi::mounts::{Mount, MountHolder, MountState};
use volapi::status::{Loop, Part, Status};
use volapi::tenants::Tenant;
use volapi::volumes::{Image, Volume, VolumeBrief};
use volcore::global::Global;

use crate::output::Row;

/// A date without fractions of a second.
pub fn date(at: &jiff::Timestamp) -> String {
    format!("{at:.0}")
}

/// Where an image is.
pub fn image(image: &Image) -> String {
    match image {
        Image::Rbd { pool, image } => format!("{pool}/{image}"),
        Image::File { path } => path.display().to_string(),
    }
}

/// What may be absent.
fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn hosts(mount: &Mount) -> String {
    mount.holders().map(|holder| holder.host.as_str()).collect::<Vec<_>>().join(",")
}

impl Row for Tenant {
    const COLUMNS: &'static [&'static str] =
        &["TENANT", "REVISION", "UPLOADED", "SIZE", "FILESYSTEM", "SNAPSHOTS"];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let options = &self.policy.default_options;
        vec![
            self.name.to_string(),
            self.revision.to_string(),
            date(&self.uploaded_at),
            or_dash(options.size),
            options.filesystem.as_ref().map_or("ext4", AsRef::as_ref).to_owned(),
            match (options.snapshots, options.snapshot.frequency) {
                (Some(true), Some(frequency)) => format!("every {frequency}"),
                _ => "no".to_owned(),
            },
        ]
    }
}

/// An upload in a tenant's history: its name is its number.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Upload(pub Tenant);

impl Row for Upload {
    const COLUMNS: &'static [&'static str] = &["REVISION", "UPLOADED"];

    fn name(&self) -> String {
        self.0.revision.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.0.revision.to_string(), date(&self.0.uploaded_at)]
    }
}

impl Row for Volume {
    const COLUMNS: &'static [&'static str] =
        &["VOLUME", "STATE", "SIZE", "FILESYSTEM", "IMAGE", "HELD BY", "CREATED"];

    fn name(&self) -> String {
        self.id().to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.id().to_string(),
            self.state.as_str().to_owned(),
            or_dash(self.options.size),
            or_dash(self.options.filesystem.as_ref()),
            image(&self.image),
            or_dash(self.mount.as_ref().map(hosts)),
            date(&self.created_at),
        ]
    }
}

impl Row for VolumeBrief {
    const COLUMNS: &'static [&'static str] = &["VOLUME", "STATE", "CREATED"];

    fn name(&self) -> String {
        self.volume.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.name(), self.state.as_str().to_owned(), date(&self.created_at)]
    }
}

impl Row for Mount {
    const COLUMNS: &'static [&'static str] =
        &["VOLUME", "HELD BY", "STATE", "USES", "SINCE", "EPOCH"];

    fn name(&self) -> String {
        self.volume.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let all = |show: fn(&MountHolder) -> String| {
            self.holders().map(show).collect::<Vec<_>>().join(",")
        };
        let state = |holder: &MountHolder| match holder.state {
            MountState::Claimed => "claimed".to_owned(),
            MountState::Mounted => "mounted".to_owned(),
        };
        vec![
            self.volume.to_string(),
            hosts(self),
            all(state),
            all(|holder| holder.mount_ids.len().to_string()),
            all(|holder| date(&holder.since)),
            self.epoch.to_string(),
        ]
    }
}

impl Row for Host {
    const COLUMNS: &'static [&'static str] = &["HOST", "VERSION", "SINCE", "BOOT"];

    fn name(&self) -> String {
        self.host.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.host.to_string(),
            self.version.clone(),
            date(&self.since),
            self.boot_id.to_string(),
        ]
    }
}

impl Row for Global {
    const COLUMNS: &'static [&'static str] = &["SESSION-TTL"];

    fn name(&self) -> String {
        "global".to_owned()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.session_ttl.to_string()]
    }
}

/// One line of `volcli status`.
#[derive(Debug, Serialize)]
pub struct StatusLine {
    part: String,
    state: &'static str,
    detail: String,
}

impl Row for StatusLine {
    const COLUMNS: &'static [&'static str] = &["PART", "STATE", "DETAIL"];

    fn name(&self) -> String {
        self.part.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.part.clone(), self.state.to_owned(), self.detail.clone()]
    }
}

/// The lines of `volcli status`.
pub fn status_lines(status: &Status) -> Vec<StatusLine> {
    let Status { version, store, images, volumes, pending, mounts, hosts, loops } = status;
    let line = |part: &str, state, detail| StatusLine { part: part.to_owned(), state, detail };
    let counts = format!("{volumes} volumes ({pending} pending), {mounts} mounted, {hosts} hosts");
    let mut lines = vec![
        line("volmaster", "ok", format!("version {version}: {counts}")),
        line("store", ok(store.ok), part_detail(store)),
        line("images", ok(images.ok), part_detail(images)),
    ];
    lines.extend(
        loops.iter().map(|task| line(&task.name, ok(task.last_error.is_none()), loop_detail(task))),
    );
    lines
}

fn ok(ok: bool) -> &'static str {
    if ok { "ok" } else { "FAILED" }
}

fn part_detail(part: &Part) -> String {
    let Part { what, ok: _, detail } = part;
    if detail.is_empty() { what.clone() } else { format!("{what}: {detail}") }
}

fn loop_detail(task: &Loop) -> String {
    let Loop { name: _, runs, last_run, pending, last_error } = task;
    let mut told = match last_run {
        Some(at) => format!("{runs} runs, last {at}"),
        None => format!("{runs} runs"),
    };
    if !pending.is_empty() {
        told.push_str(&format!(", pending: {}", pending.join("; ")));
    }
    if let Some(error) = last_error {
        told.push_str(&format!(", failed: {error}"));
    }
    told
}
