//! Snapshots and schedules of the volmaster in memory.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use volapi::routes;
use volapi::snapshots::{CreateSnapshot, SnapshotKind};
use volcore::Kind;

use super::{Data, Fake, Shared, WHEN, found, gone, items, refuse, reply, text};

impl Fake {
    /// Gives a volume a schedule, and a snapshot that was taken by it.
    pub fn schedule(&self, id: &str, last_error: Option<&str>) {
        let mut schedule = json!({
            "volume": id, "frequency": "30m", "keep": 20, "freeze": false, "last": WHEN,
            "next": "2026-01-02T03:34:05Z", "taken": 7, "missed": 1, "failed": 0
        });
        if let Some(reason) = last_error {
            schedule["failed"] = 2.into();
            schedule["last-error"] = json!({"at": WHEN, "reason": reason});
        }
        let mut data = self.data.lock().unwrap();
        data.schedules.insert(id.to_owned(), schedule);
        data.take(id, "auto-2026-01-02T030405Z");
    }
}

impl Data {
    fn take(&mut self, id: &str, name: &str) -> Value {
        let kind = SnapshotKind::of(&name.parse().unwrap());
        let snapshot = json!({
            "volume": id, "name": name, "kind": kind, "created_at": WHEN, "size": 10 << 20
        });
        self.snapshots.insert(format!("{id}@{name}"), snapshot.clone());
        snapshot
    }

    /// What `status` says of schedules.
    pub fn schedules_state(&self) -> Value {
        let failing = self.schedules.values().filter(|one| !one["last-error"].is_null());
        let failing = failing
            .map(|one| format!("{}: {}", text(one, "volume"), text(&one["last-error"], "reason")));
        let failing: Vec<String> = failing.collect();
        json!({
            "volumes": self.schedules.len(), "due": failing.len(), "lag-ms": failing.len() * 90_000,
            "taken": 7, "missed": 1, "failed": 2 * failing.len(), "failing": failing,
            "next": "2026-01-02T03:34:05Z"
        })
    }
}

pub fn router() -> Router<Shared> {
    Router::new()
        .route(routes::SNAPSHOTS, get(snapshot_list).post(snapshot_create))
        .route(routes::SNAPSHOT, get(snapshot_get).delete(snapshot_remove))
        .route(routes::SNAPSHOT_ROLLBACK, post(snapshot_rollback))
        .route(routes::SCHEDULES, get(schedule_list))
}

type OfVolume = Path<(String, String)>;
type OfSnapshot = Path<(String, String, String)>;

async fn snapshot_list(
    State(data): State<Shared>,
    Path((t, v)): OfVolume,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let (id, data) = (format!("{t}/{v}"), data.lock().unwrap());
    if !data.volumes.contains_key(&id) {
        return refuse(Kind::NotFound, format!("volume {id} does not exist"));
    }
    let usage = query.get("usage").is_some_and(|usage| usage == "true");
    let of_volume = data.snapshots.values().filter(|one| text(one, "volume") == id);
    let shown: Vec<Value> = of_volume
        .cloned()
        .map(|mut one| {
            if usage {
                one["used"] = 1_234_567.into();
            }
            one
        })
        .collect();
    items(shown.iter())
}

async fn snapshot_create(
    State(data): State<Shared>,
    Path((t, v)): OfVolume,
    body: Bytes,
) -> Response {
    let CreateSnapshot { name } = serde_json::from_slice(&body).unwrap();
    let (id, mut data) = (format!("{t}/{v}"), data.lock().unwrap());
    if !data.volumes.contains_key(&id) {
        return refuse(Kind::NotFound, format!("volume {id} does not exist"));
    }
    match data.snapshots.get(&format!("{id}@{name}")) {
        Some(there) => reply(200, there.clone()),
        None => {
            let taken = data.take(&id, name.as_str());
            if std::mem::take(&mut data.lose_snapshot) {
                return refuse(Kind::Unavailable, "the store has lost its leader");
            }
            reply(201, taken)
        }
    }
}

async fn snapshot_get(State(data): State<Shared>, Path((t, v, s)): OfSnapshot) -> Response {
    let data = data.lock().unwrap();
    found(&format!("snapshot {s} of volume {t}/{v}"), data.snapshots.get(&format!("{t}/{v}@{s}")))
}

async fn snapshot_remove(State(data): State<Shared>, Path((t, v, s)): OfSnapshot) -> Response {
    let removed = data.lock().unwrap().snapshots.remove(&format!("{t}/{v}@{s}"));
    gone(&format!("snapshot {s} of volume {t}/{v}"), removed)
}

async fn snapshot_rollback(State(data): State<Shared>, Path((t, v, s)): OfSnapshot) -> Response {
    let (id, data) = (format!("{t}/{v}"), data.lock().unwrap());
    if data.mounts.contains_key(&id) {
        return refuse(
            Kind::InUse,
            format!("volume {id} is in use: host h1 holds it since {WHEN}"),
        );
    }
    if data.images_down {
        return refuse(Kind::Unavailable, "ceph cannot be reached".to_owned());
    }
    if !data.snapshots.contains_key(&format!("{id}@{s}")) {
        return refuse(Kind::NotFound, format!("snapshot {s} of volume {id} does not exist"));
    }
    reply(200, data.volumes[&id].clone())
}

async fn schedule_list(
    State(data): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let data = data.lock().unwrap();
    let of_tenant = |one: &&Value| {
        let of = |tenant: &String| text(one, "volume").starts_with(&format!("{tenant}/"));
        query.get("tenant").is_none_or(of)
    };
    items(data.schedules.values().filter(of_tenant))
}
