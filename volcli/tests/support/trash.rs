//! The trash of the volmaster in memory.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use volapi::routes;
use volapi::trash::RestoreTrash;
use volcore::Kind;

use super::{Data, Fake, Shared, found, gone, items, refuse, reply, text};

impl Fake {
    /// Puts a volume into the trash that was removed at this hour.
    pub fn throw_away(&self, trash_id: &str, id: &str, hour: u32, restorable: bool) {
        let entry = json!({
            "id": trash_id, "volume": id, "removed_at": format!("2026-01-02T{hour:02}:04:05Z"),
            "purge_after": "2026-02-02T03:04:05Z", "pool": "rbd", "image": id.replace('/', "."),
            "image_id": "10ab", "size": 10 << 20, "restorable": restorable
        });
        self.data.lock().unwrap().trash.insert(trash_id.to_owned(), entry);
    }
}

impl Data {
    /// Puts a removed volume into the trash, and says where it is.
    pub fn throw_away(&mut self, id: &str, volume: Value) -> String {
        let trash_id = format!("id{}", self.trash.len());
        let entry = json!({
            "id": trash_id, "volume": id, "removed_at": "2026-01-02T03:04:05Z", "pool": "rbd",
            "image": id.replace('/', "."), "image_id": "10ab", "restorable": true, "was": volume
        });
        self.trash.insert(trash_id.clone(), entry);
        format!("{trash_id} in the trash")
    }
}

pub fn router() -> Router<Shared> {
    Router::new()
        .route(routes::TRASH, get(trash_list))
        .route(routes::TRASHED, get(trash_get).delete(trash_purge))
        .route(routes::TRASH_RESTORE, post(trash_restore))
}

async fn trash_list(State(data): State<Shared>) -> Response {
    let mut data = data.lock().unwrap();
    match data.freed_after.checked_sub(1) {
        Some(left) if !data.purged.is_empty() => data.freed_after = left,
        _ => {
            for id in std::mem::take(&mut data.purged) {
                data.trash.remove(&id);
            }
        }
    }
    items(data.trash.values())
}

async fn trash_get(State(data): State<Shared>, Path(id): Path<String>) -> Response {
    found(&format!("{id} in the trash"), data.lock().unwrap().trash.get(&id))
}

async fn trash_purge(State(data): State<Shared>, Path(id): Path<String>) -> Response {
    let mut data = data.lock().unwrap();
    let found = data.trash.get(&id).cloned();
    match (found.is_some(), data.freed_after) {
        (true, 1..) => data.purged.push(id.clone()),
        _ => drop(data.trash.remove(&id)),
    }
    gone(&format!("{id} in the trash"), found)
}

async fn trash_restore(
    State(data): State<Shared>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let RestoreTrash { volume } = serde_json::from_slice(&body).unwrap();
    let mut data = data.lock().unwrap();
    let Some(entry) = data.trash.get(&id).cloned() else {
        return refuse(Kind::NotFound, format!("{id} in the trash does not exist"));
    };
    let becomes = volume.map_or_else(|| text(&entry, "volume").to_owned(), |id| id.to_string());
    if data.volumes.contains_key(&becomes) {
        return refuse(
            Kind::Conflict,
            format!("volume {becomes} exists; restore under another name"),
        );
    }
    data.trash.remove(&id);
    let (tenant, name) = becomes.split_once('/').unwrap();
    let volume = super::volume(tenant, name, "10 MiB");
    data.volumes.insert(becomes.clone(), volume.clone());
    reply(200, volume)
}
