//! How each thing of the API looks in lists and tables.

use std::time::Duration;

use serde::Serialize;
use volapi::doctor::{Doctor, Finding};
use volapi::hosts::{Host, HostSession, HostState};
use volapi::mounts::{Mount, MountHolder, MountState};
use volapi::snapshots::{Schedule, Snapshot};
use volapi::status::{Loop, Part, Schedules, Status};
use volapi::tenants::Tenant;
use volapi::trash::Trashed;
use volapi::volumes::{Flattening, Image, Volume, VolumeBrief};
use volcore::duration;
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

/// A count of bytes in the largest unit that it fills, such as `10 MiB` or `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut unit, mut index) = (1_u64, 0);
    while count / unit >= 1024 {
        unit <<= 10;
        index += 1;
    }
    let (whole, rest) = (count / unit, u128::from(count % unit));
    match rest * 10 / u128::from(unit) {
        0 => format!("{whole} {}", UNITS[index]),
        tenths => format!("{whole}.{tenths} {}", UNITS[index]),
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
        &["VOLUME", "STATE", "SIZE", "FILESYSTEM", "IMAGE", "HELD BY", "CREATED", "SNAPSHOTS"];

    fn name(&self) -> String {
        self.id().to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.id().to_string(),
            standing(self),
            or_dash(self.options.size),
            or_dash(self.options.filesystem.as_ref()),
            image(&self.image),
            or_dash(self.mount.as_ref().map(hosts)),
            date(&self.created_at),
            or_dash(self.schedule.as_ref().map(scheduled)),
        ]
    }
}

/// A volume's state, and whether it is flattened.
fn standing(volume: &Volume) -> String {
    let state = volume.state.as_str();
    match &volume.flattening {
        None => state.to_owned(),
        Some(Flattening { percent: Some(percent), .. }) => {
            format!("{state}, flattening {percent} %")
        }
        Some(Flattening { under_way: true, .. }) => format!("{state}, flattening"),
        Some(Flattening { under_way: false, .. }) => format!("{state}, to be flattened"),
    }
}

/// A volume's schedule in a few words.
fn scheduled(schedule: &Schedule) -> String {
    let mut told = format!("every {}, {}", schedule.frequency, kept(schedule));
    for (what, at) in [("last", &schedule.last), ("next", &schedule.next)] {
        told.extend(at.iter().map(|at| format!(", {what} {}", date(at))));
    }
    if let Some(failure) = &schedule.last_error {
        told.push_str(&format!(", FAILED: {}", failure.reason));
    }
    told
}

/// How many snapshots of a schedule are kept, or which.
fn kept(schedule: &Schedule) -> String {
    match (schedule.keep, schedule.retention) {
        (_, Some(tiers)) => format!("keeps {tiers}"),
        (Some(count), None) => format!("keeps {count}"),
        (None, None) => "keeps all".to_owned(),
    }
}

impl Row for Schedule {
    const COLUMNS: &'static [&'static str] =
        &["VOLUME", "FREQUENCY", "KEEP", "LAST", "NEXT", "TAKEN", "MISSED", "FAILED", "LAST ERROR"];

    fn name(&self) -> String {
        self.volume.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.volume.to_string(),
            self.frequency.to_string(),
            or_dash(
                self.retention.map(|tiers| tiers.to_string()).or(self.keep.map(|n| n.to_string())),
            ),
            or_dash(self.last.as_ref().map(date)),
            or_dash(self.next.as_ref().map(date)),
            self.taken.to_string(),
            self.missed.to_string(),
            self.failed.to_string(),
            or_dash(
                self.last_error
                    .as_ref()
                    .map(|error| format!("{}: {}", date(&error.at), error.reason)),
            ),
        ]
    }
}

impl Row for Snapshot {
    const COLUMNS: &'static [&'static str] = &["NAME", "KIND", "TAKEN", "SIZE", "USED"];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.kind.as_str().to_owned(),
            date(&self.created_at),
            bytes(self.size),
            or_dash(self.used.map(bytes)),
        ]
    }
}

impl Row for Trashed {
    const COLUMNS: &'static [&'static str] =
        &["ID", "VOLUME", "REMOVED", "PURGE AFTER", "SIZE", "RESTORABLE"];

    fn name(&self) -> String {
        self.id.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.volume.to_string(),
            date(&self.removed_at),
            self.purge_after.as_ref().map_or_else(|| "never".to_owned(), date),
            or_dash(self.size.map(bytes)),
            if self.restorable { "yes" } else { "no" }.to_owned(),
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
            MountState::Fencing => "fencing".to_owned(),
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
    const COLUMNS: &'static [&'static str] =
        &["HOST", "STATE", "VOLUMES", "LOST", "VERSION", "SINCE", "BOOT"];

    fn name(&self) -> String {
        self.host.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let state = match self.state {
            HostState::Live => "live",
            HostState::Silent => "silent",
        };
        let of = |show: fn(&HostSession) -> String| {
            self.session.as_ref().map_or_else(|| "-".to_owned(), show)
        };
        vec![
            self.host.to_string(),
            state.to_owned(),
            self.volumes.len().to_string(),
            self.fences.len().to_string(),
            of(|session| session.version.clone()),
            of(|session| date(&session.since)),
            of(|session| session.boot_id.to_string()),
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

impl Row for Finding {
    const COLUMNS: &'static [&'static str] = &["FINDING", "OBJECT", "WHAT", "REMEDY", "WAY OUT"];

    fn name(&self) -> String {
        self.object.clone()
    }

    fn cells(&self) -> Vec<String> {
        let Finding { kind, object, text, remedy, help } = self.clone();
        vec![kind.as_str().to_owned(), object, text, remedy.as_str().to_owned(), help]
    }
}

/// What `volcli doctor` comes to, in words.
pub struct Findings {
    /// How much was found.
    pub found: String,
    /// In what.
    pub compared: String,
}

impl Findings {
    /// Of an answer.
    pub fn of(doctor: &Doctor) -> Findings {
        let Doctor { findings, total, fixed, volumes, images, foreign_images } = doctor;
        let mut found = match total {
            0 => "nothing is wrong".to_owned(),
            1 => "1 finding".to_owned(),
            total if *total > findings.len() as u64 => {
                format!("{total} findings (the first {} are shown)", findings.len())
            }
            total => format!("{total} findings"),
        };
        match fixed {
            0 => {}
            fixed if fixed == total => found.push_str(", mended now,"),
            fixed => found.push_str(&format!(", {fixed} of them mended now,")),
        }
        let compared =
            format!("{volumes} volumes and {images} images ({foreign_images} of them foreign)");
        Findings { found, compared }
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
    let Status { version, store, images, volumes, pending, mounts, hosts, schedules, loops } =
        status;
    let line = |part: &str, state, detail| StatusLine { part: part.to_owned(), state, detail };
    let counts = format!("{volumes} volumes ({pending} pending), {mounts} mounted, {hosts} hosts");
    let mut lines = vec![
        line("volmaster", "ok", format!("version {version}: {counts}")),
        line("store", ok(store.ok), part_detail(store)),
        line("images", ok(images.ok), part_detail(images)),
        line("schedules", schedules_state(schedules), schedules_detail(schedules)),
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

/// So long may a snapshot be due before that is told: by then any volsupervisor that runs has come by.
const LATE_MS: u64 = 60_000;

fn schedules_state(schedules: &Schedules) -> &'static str {
    match schedules {
        Schedules { failing, .. } if !failing.is_empty() => "FAILED",
        Schedules { lag_ms, .. } if *lag_ms >= LATE_MS => "LATE",
        Schedules { .. } => "ok",
    }
}

fn schedules_detail(schedules: &Schedules) -> String {
    let Schedules { volumes, due, lag_ms, taken, missed, failed, failing, next } = schedules;
    if *volumes == 0 {
        return "no volume has one".to_owned();
    }
    let mut told =
        format!("{volumes} volumes, {due} due; {taken} taken, {missed} missed, {failed} failed");
    if let Some(next) = next {
        told.push_str(&format!("; next {next}"));
    }
    if *lag_ms >= LATE_MS {
        let lag = duration::show(Duration::from_secs(lag_ms / 1000));
        told.push_str(&format!("; late by {lag}, does a volsupervisor run?"));
    }
    if !failing.is_empty() {
        told.push_str(&format!("; failing: {}", failing.join("; ")));
    }
    told
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_largest_unit_that_they_fill() {
        for (count, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1_234_567, "1.1 MiB"),
            (10 << 20, "10 MiB"),
            (3 << 29, "1.5 GiB"),
            (1 << 60, "1 EiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
    }

    #[test]
    fn a_schedule_in_a_few_words() {
        let text = r#"{"volume": "t/v", "frequency": "1h", "retention": "24h7d", "freeze": true,
            "taken": 0, "missed": 0, "failed": 0}"#;
        let mut schedule: Schedule = serde_json::from_str(text).unwrap();
        assert_eq!(scheduled(&schedule), "every 1h, keeps 24h7d");
        assert_eq!(schedule.cells()[2..5], ["24h7d", "-", "-"]);
        schedule.retention = None;
        schedule.keep = Some(3);
        schedule.next = Some(jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(scheduled(&schedule), "every 1h, keeps 3, next 1970-01-01T00:00:00Z");
    }
}
