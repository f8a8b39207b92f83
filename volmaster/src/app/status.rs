//! The state of this volmaster and of what stands behind it.

use std::fmt;
use std::time::Duration;

use volapi::status::{Part, Status};
use volcore::Kind;
use volcore::volume::VolumeState;
use volstore::cache::{Health, Mirror};

use super::schedules::schedules;
use super::{App, Failing};

/// How long the store and the images have for an answer.
const BOUND: Duration = Duration::from_secs(2);

/// A part that is needed does not answer.
#[derive(Debug, thiserror::Error)]
#[error("not ready: {}", show(.parts))]
pub struct NotReady {
    /// The parts that do not answer.
    pub parts: Vec<Part>,
}

fn show(parts: &[Part]) -> String {
    let one = |part: &Part| format!("{}: {}", part.what, part.detail);
    parts.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl Failing for NotReady {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}

/// Whether the store and the images answer.
pub async fn readyz(app: &App) -> Result<(), NotReady> {
    let (store, images) = tokio::join!(store_part(app), images_part(app));
    let parts: Vec<Part> = [store, images].into_iter().filter(|part| !part.ok).collect();
    if parts.is_empty() { Ok(()) } else { Err(NotReady { parts }) }
}

/// Shows the state of this volmaster. Never fails: what does not answer is said in it.
pub async fn status_get(app: &App) -> Status {
    let hosts = tokio::time::timeout(BOUND, app.records.sessions());
    let (mut store, images, hosts) = tokio::join!(store_part(app), images_part(app), hosts);
    let counts = counts(app);
    if store.ok {
        store.detail = mirrors_detail(app);
    }
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store,
        images,
        volumes: counts.volumes,
        pending: counts.pending,
        mounts: counts.mounts,
        hosts: hosts.ok().and_then(Result::ok).map_or(0, |hosts| hosts.len() as u64),
        schedules: schedules(app),
        loops: app.loops.shown(),
    }
}

/// What the mirrors hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Volumes in all.
    pub volumes: u64,
    /// Those that are being made or removed.
    pub pending: u64,
    /// Claims.
    pub mounts: u64,
}

/// Counts what the mirrors hold, which may be older than the store.
pub fn counts(app: &App) -> Counts {
    let (volumes, pending) = app.mirrors.volumes.read(|view| {
        let is_pending = |state: &VolumeState| !matches!(state, VolumeState::Ready { .. });
        let pending = view.records().values().filter(|kept| is_pending(&kept.record.state));
        (view.len() as u64, pending.count() as u64)
    });
    Counts { volumes, pending, mounts: app.mirrors.mounts.read(|view| view.len() as u64) }
}

async fn store_part(app: &App) -> Part {
    let store = app.records.store();
    part(store.describe(), async { store.revision().await.map(|at| format!("revision {}", at.0)) })
        .await
}

async fn images_part(app: &App) -> Part {
    part("images".to_owned(), app.images.check()).await
}

async fn part<E: std::error::Error + 'static>(
    what: String,
    answer: impl Future<Output = Result<String, E>>,
) -> Part {
    let (ok, detail) = match tokio::time::timeout(BOUND, answer).await {
        Ok(Ok(detail)) => (true, detail),
        Ok(Err(error)) => (false, volapi::problem::chain(&error)),
        Err(_) => (false, format!("no answer within {BOUND:?}")),
    };
    Part { what, ok, detail }
}

/// How the mirrors do: what follows the store, and which records cannot be read.
fn mirrors_detail(app: &App) -> String {
    let mut lines = Vec::new();
    mirror_lines(&mut lines, "tenants", &app.mirrors.tenants);
    mirror_lines(&mut lines, "volumes", &app.mirrors.volumes);
    mirror_lines(&mut lines, "mounts", &app.mirrors.mounts);
    mirror_lines(&mut lines, "trash", &app.mirrors.trash);
    mirror_lines(&mut lines, "schedules", &app.mirrors.logs);
    if lines.is_empty() {
        format!("revision {}", app.mirrors.volumes.revision().0)
    } else {
        lines.join("; ")
    }
}

fn mirror_lines<T: Send + Sync + 'static>(
    lines: &mut Vec<String>,
    what: impl fmt::Display,
    mirror: &Mirror<T>,
) {
    let status = mirror.status();
    match status.health {
        Health::Live => {}
        Health::Loading { error } => {
            let error = error.unwrap_or_else(|| "no answer yet".to_owned());
            lines.push(format!("the list of {what} is not loaded yet: {error}"));
        }
        Health::Stale { since, error } => {
            lines.push(format!("the list of {what} is {}s old: {error}", since.as_secs()));
        }
    }
    let broken = status.undecodable.into_values().take(5);
    lines.extend(broken.map(|broken| broken.reason));
}
