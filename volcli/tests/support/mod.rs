//! A volmaster that keeps everything in memory: the routes, statuses and error bodies of the real
//! one, with state, so that a sequence of commands can be followed.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its server has failed")]

mod doctor;
mod snapshots;
mod trash;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use volapi::Problem;
use volapi::doctor::Finding;
use volapi::routes;
use volapi::volumes::{AdoptVolume, CreateVolume, SetVolume};
use volcore::Kind;
use volcore::live::LiveChange;
use volcore::policy::TenantPolicy;
use volcore::size::Size;

const WHEN: &str = "2026-01-02T03:04:05Z";
const UID: &str = "6f9619ff-8b86-4011-b42d-00c04fc964ff";

/// What the fake knows.
#[derive(Debug, Default)]
pub struct Data {
    /// The uploads of each tenant.
    pub uploads: BTreeMap<String, Vec<Value>>,
    /// The tenants that are not deleted.
    pub tenants: BTreeMap<String, Value>,
    /// The volumes.
    pub volumes: BTreeMap<String, Value>,
    /// The snapshots, `tenant/volume@snapshot`.
    pub snapshots: BTreeMap<String, Value>,
    /// The schedules of volumes.
    pub schedules: BTreeMap<String, Value>,
    /// What is in the trash.
    pub trash: BTreeMap<String, Value>,
    /// Whether the answer to the next snapshot that is taken is lost.
    pub lose_snapshot: bool,
    /// How many removals are refused still before a holder lets go.
    pub lets_go_after: Option<usize>,
    /// What the doctor finds.
    pub findings: Vec<Finding>,
    /// Images without a volume, and their sizes.
    pub images: BTreeMap<String, String>,
    /// Who holds what.
    pub mounts: BTreeMap<String, Value>,
    /// The sessions.
    pub hosts: BTreeMap<String, Value>,
    /// What a volume that is flattened says when it is looked at, one after the other; then it is flat.
    pub flattening: VecDeque<Value>,
    /// How often the trash is listed as it was before what is purged is gone.
    pub freed_after: usize,
    /// What is purged and not gone yet.
    pub purged: Vec<String>,
    /// How long an answer to what is said to take long takes.
    pub slow: Duration,
    /// The settings.
    pub session_ttl: Option<String>,
    /// Why the images do not take limits.
    pub limits_fail: Option<&'static str>,
    /// Whether the images answer.
    pub images_down: bool,
    /// The requests that came, `METHOD path?query agent`.
    pub requests: Vec<String>,
}

/// A running fake. It ends with the test's runtime.
pub struct Fake {
    /// Where it listens.
    pub url: String,
    /// What it knows.
    pub data: Shared,
    _runtime: tokio::runtime::Runtime,
}

type Shared = Arc<Mutex<Data>>;

impl Fake {
    /// Starts one.
    pub fn start() -> Fake {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let data = Shared::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = router(data.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Fake { url, data, _runtime: runtime }
    }

    /// Lets a host hold a volume.
    pub fn hold(&self, id: &str, host: &str) {
        let mount = json!({
            "volume": id, "epoch": 3, "host": host, "boot_id": "b1", "state": "mounted",
            "mount_ids": ["m1", "m2"], "clients": [], "since": WHEN
        });
        self.data.lock().unwrap().mounts.insert(id.to_owned(), mount);
    }

    /// Gives a host a session.
    pub fn session(&self, host: &str) {
        let session = json!({
            "host": host, "state": "live", "volumes": ["t/a"], "fences": [],
            "instance_id": UID, "boot_id": "b1", "since": WHEN, "version": "0.1.0"
        });
        self.data.lock().unwrap().hosts.insert(host.to_owned(), session);
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.data.lock().unwrap().requests.clone()
    }
}

fn router(data: Shared) -> Router {
    Router::new()
        .route(routes::TENANTS, get(tenant_list))
        .route(routes::TENANT, get(tenant_get).put(tenant_upload).delete(tenant_delete))
        .route(routes::TENANT_REVISIONS, get(tenant_revision_list))
        .route(routes::TENANT_REVISION, get(tenant_revision_get))
        .route(routes::VOLUMES, get(volume_list).post(volume_create))
        .route(routes::VOLUME, get(volume_get).patch(volume_set).delete(volume_remove))
        .route(routes::VOLUME_ADOPT, post(volume_adopt))
        .merge(doctor::router())
        .route(routes::VOLUME_FLATTEN, post(volume_flatten))
        .merge(snapshots::router())
        .merge(trash::router())
        .route(routes::MOUNTS, get(mount_list))
        .route(routes::MOUNT, get(mount_get).delete(mount_release))
        .route(routes::HOSTS, get(host_list))
        .route(routes::HOST, get(host_get).delete(host_forget))
        .route(routes::HOST_FENCE, post(host_fence))
        .route(routes::GLOBAL, get(global_get).put(global_upload))
        .route(routes::STATUS, get(status_get))
        .layer(axum::middleware::from_fn_with_state(data.clone(), note))
        .with_state(data)
}

async fn note(
    State(data): State<Shared>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let agent = request.headers()[header::USER_AGENT].to_str().unwrap();
    let line = format!("{} {} {agent}", request.method(), request.uri());
    data.lock().unwrap().requests.push(line);
    next.run(request).await
}

/// Takes as long as was said.
async fn slow(data: &Shared) {
    let takes = data.lock().unwrap().slow;
    tokio::time::sleep(takes).await;
}

fn reply(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn refuse(kind: Kind, detail: impl Into<String>) -> Response {
    let body = serde_json::to_vec(&Problem::new(kind, detail, "req-1")).unwrap();
    let status = StatusCode::from_u16(kind.status()).unwrap();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}

fn found(what: &str, value: Option<&Value>) -> Response {
    match value {
        Some(value) => reply(200, value.clone()),
        None => refuse(Kind::NotFound, format!("{what} does not exist")),
    }
}

fn gone(what: &str, value: Option<Value>) -> Response {
    match value {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => refuse(Kind::NotFound, format!("{what} does not exist")),
    }
}

fn items<'a>(values: impl Iterator<Item = &'a Value>) -> Response {
    reply(200, json!({"items": values.collect::<Vec<_>>()}))
}

async fn tenant_list(State(data): State<Shared>) -> Response {
    items(data.lock().unwrap().tenants.values())
}

async fn tenant_get(State(data): State<Shared>, Path(t): Path<String>) -> Response {
    found(&format!("tenant {t}"), data.lock().unwrap().tenants.get(&t))
}

async fn tenant_upload(
    State(data): State<Shared>,
    Path(t): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    let policy: TenantPolicy = serde_json::from_slice(&body).unwrap();
    policy.check().unwrap();
    let policy = serde_json::to_value(policy).unwrap();
    let mut data = data.lock().unwrap();
    if let Some(newest) = data.tenants.get(&t)
        && newest["policy"] == policy
    {
        return reply(200, newest.clone());
    }
    let revision = data.uploads.get(&t).map_or(0, Vec::len) + 1;
    let status = if data.tenants.contains_key(&t) { 200 } else { 201 };
    let tenant = json!({"name": t, "revision": revision, "uploaded_at": WHEN, "policy": policy});
    data.uploads.entry(t.clone()).or_default().push(tenant.clone());
    data.tenants.insert(t, tenant.clone());
    reply(status, tenant)
}

async fn tenant_delete(State(data): State<Shared>, Path(t): Path<String>) -> Response {
    gone(&format!("tenant {t}"), data.lock().unwrap().tenants.remove(&t))
}

async fn tenant_revision_list(State(data): State<Shared>, Path(t): Path<String>) -> Response {
    match data.lock().unwrap().uploads.get(&t) {
        Some(uploads) => items(uploads.iter()),
        None => refuse(Kind::NotFound, format!("tenant {t} does not exist")),
    }
}

async fn tenant_revision_get(
    State(data): State<Shared>,
    Path((t, n)): Path<(String, usize)>,
) -> Response {
    let data = data.lock().unwrap();
    let upload = data.uploads.get(&t).and_then(|uploads| uploads.get(n.wrapping_sub(1)));
    found(&format!("revision {n} of tenant {t}"), upload)
}

async fn volume_list(
    State(data): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let data = data.lock().unwrap();
    let wanted = |volume: &&Value| {
        query.get("tenant").is_none_or(|tenant| volume["tenant"].as_str() == Some(tenant))
    };
    let volumes = data.volumes.values().filter(wanted);
    if query.get("view").is_some_and(|view| view == "brief") {
        let brief = |volume: &Value| {
            let id = format!("{}/{}", text(volume, "tenant"), text(volume, "name"));
            json!({"volume": id, "state": volume["state"], "created_at": WHEN})
        };
        return reply(200, json!({"items": volumes.map(brief).collect::<Vec<_>>()}));
    }
    items(volumes)
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap()
}

fn volume(tenant: &str, name: &str, size: &str) -> Value {
    json!({
        "tenant": tenant, "name": name, "uid": UID, "state": "ready", "created_at": WHEN,
        "policy_revision": 1,
        "image": {"driver": "rbd", "pool": "rbd", "image": format!("{tenant}.{name}")},
        "options": {"pool": "rbd", "size": size, "filesystem": "ext4"},
        "format": "mkfs.ext4 -m0 %"
    })
}

async fn volume_create(State(data): State<Shared>, body: Bytes) -> Response {
    let CreateVolume { tenant, name, options } = serde_json::from_slice(&body).unwrap();
    let (id, mut data) = (format!("{tenant}/{name}"), data.lock().unwrap());
    if !data.tenants.contains_key(tenant.as_str()) {
        return refuse(
            Kind::NotFound,
            format!("tenant {tenant} does not exist; upload a policy for it first"),
        );
    }
    let size = options.get("size").map_or("10 MiB", String::as_str);
    if let Some(volume) = data.volumes.get(&id) {
        let there = text(&volume["options"], "size");
        if size != there {
            let detail =
                format!("volume {id} exists with other options: size is {there}, asked for {size}");
            return refuse(Kind::Conflict, detail);
        }
        return reply(200, volume.clone());
    }
    if let Some(from) = options.get("from") {
        let there = if from.contains('@') { &data.snapshots } else { &data.volumes };
        if !there.contains_key(from) {
            return refuse(Kind::NotFound, format!("{from} does not exist"));
        }
    }
    let mut volume = volume(tenant.as_str(), name.as_str(), size);
    if let Some(from) = options.get("from") {
        volume["options"]["from"] = from.as_str().into();
        volume["parent"] = from.as_str().into();
    }
    data.volumes.insert(id, volume.clone());
    reply(201, volume)
}

async fn volume_adopt(
    State(data): State<Shared>,
    Path((t, v)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let AdoptVolume { options } = serde_json::from_slice(&body).unwrap();
    let (id, mut data) = (format!("{t}/{v}"), data.lock().unwrap());
    if let Some(volume) = data.volumes.get(&id) {
        return reply(200, volume.clone());
    }
    let pool = options.get("pool").map_or("rbd", String::as_str);
    let Some(size) = data.images.remove(&format!("{pool}/{t}.{v}")) else {
        return refuse(
            Kind::NotFound,
            format!("there is no image {pool}/{t}.{v} that volume {id} could adopt"),
        );
    };
    let mut volume = volume(&t, &v, &size);
    volume["image"]["pool"] = pool.into();
    data.volumes.insert(id, volume.clone());
    reply(201, volume)
}

async fn volume_get(State(data): State<Shared>, Path((t, v)): Path<(String, String)>) -> Response {
    let (id, mut data) = (format!("{t}/{v}"), data.lock().unwrap());
    let next = data.flattening.pop_front();
    if let Some(Value::Object(volume)) = data.volumes.get_mut(&id)
        && volume.contains_key("flattening")
    {
        match next {
            Some(next) => drop(volume.insert("flattening".to_owned(), next)),
            None => drop((volume.remove("flattening"), volume.remove("parent"))),
        }
    }
    let volume = data.volumes.get(&id).cloned().map(|mut volume| {
        if let Some(mount) = data.mounts.get(&id) {
            volume["mount"] = mount.clone();
        }
        if let Some(schedule) = data.schedules.get(&id) {
            volume["schedule"] = schedule.clone();
        }
        volume
    });
    found(&format!("volume {id}"), volume.as_ref())
}

async fn volume_flatten(
    State(data): State<Shared>,
    Path((t, v)): Path<(String, String)>,
) -> Response {
    let (id, mut data) = (format!("{t}/{v}"), data.lock().unwrap());
    if let Some(volume) = data.volumes.get_mut(&id)
        && volume.get("parent").is_some()
    {
        volume["flattening"] = json!({"since": WHEN, "under_way": false});
    }
    found(&format!("volume {id}"), data.volumes.get(&id))
}

async fn volume_set(
    State(data): State<Shared>,
    Path((t, v)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let SetVolume { options } = serde_json::from_slice(&body).unwrap();
    slow(&data).await;
    LiveChange::from_driver_options(&options).unwrap();
    let (id, mut data) = (format!("{t}/{v}"), data.lock().unwrap());
    let error = data.limits_fail;
    let Some(volume) = data.volumes.get_mut(&id) else {
        return refuse(Kind::NotFound, format!("volume {id} does not exist"));
    };
    for (key, value) in options {
        if key == "size" {
            let (there, asked): (Size, Size) =
                (text(&volume["options"], "size").parse().unwrap(), value.parse().unwrap());
            if asked < there {
                let detail = format!(
                    "volume {id}: its size is {there}, and volumes only grow: {asked} is less"
                );
                return refuse(Kind::Invalid, detail);
            }
            volume["options"]["size"] = asked.to_string().into();
            continue;
        }
        let member = key.strip_prefix("rate-limit.").unwrap().replace('.', "-");
        volume["options"]["rate-limit"][member] = match value.as_str() {
            "0" => Value::Null,
            value => value.parse::<u64>().unwrap().into(),
        };
    }
    let mut shown = volume.clone();
    shown["last_error"] = error.into();
    reply(200, shown)
}

async fn volume_remove(
    State(data): State<Shared>,
    Path((t, v)): Path<(String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let (id, mut data) = (format!("{t}/{v}"), data.lock().unwrap());
    if let Some(left) = data.lets_go_after.as_mut() {
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => drop(data.mounts.remove(&id)),
        }
    }
    if let Some(mount) = data.mounts.get(&id) {
        let detail =
            format!("volume {id} is in use: host {} holds it since {WHEN}", text(mount, "host"));
        return refuse(Kind::InUse, detail);
    }
    let Some(volume) = data.volumes.remove(&id) else {
        return refuse(Kind::NotFound, format!("volume {id} does not exist"));
    };
    if volume["options"]["on-remove"] == "trash" {
        let left = data.throw_away(&id, volume);
        return reply(200, json!({"volume": id, "left_behind": left}));
    }
    if query.get("metadata-only").is_some_and(|only| only == "true") {
        return reply(200, json!({"volume": id, "left_behind": format!("image rbd/{t}.{v}")}));
    }
    reply(200, json!({"volume": id}))
}

async fn mount_list(
    State(data): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let data = data.lock().unwrap();
    let wanted = |mount: &&Value| {
        let of = |tenant: &String| text(mount, "volume").starts_with(&format!("{tenant}/"));
        query.get("tenant").is_none_or(of)
    };
    items(data.mounts.values().filter(wanted))
}

async fn mount_get(State(data): State<Shared>, Path((t, v)): Path<(String, String)>) -> Response {
    let id = format!("{t}/{v}");
    match data.lock().unwrap().mounts.get(&id) {
        Some(mount) => reply(200, mount.clone()),
        None => refuse(Kind::NotFound, format!("nobody holds volume {id}")),
    }
}

async fn mount_release(
    State(data): State<Shared>,
    Path((t, v)): Path<(String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    assert_eq!(query.get("force").map(String::as_str), Some("true"));
    data.lock().unwrap().mounts.remove(&format!("{t}/{v}"));
    StatusCode::NO_CONTENT.into_response()
}

async fn host_list(State(data): State<Shared>) -> Response {
    items(data.lock().unwrap().hosts.values())
}

async fn host_get(State(data): State<Shared>, Path(host): Path<String>) -> Response {
    found(&format!("host {host}"), data.lock().unwrap().hosts.get(&host))
}

async fn host_forget(State(data): State<Shared>, Path(host): Path<String>) -> Response {
    gone(&format!("host {host}"), data.lock().unwrap().hosts.remove(&host))
}

async fn host_fence(State(data): State<Shared>, Path(host): Path<String>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let mut data = data.lock().unwrap();
    let Some(known) = data.hosts.get_mut(&host) else {
        return refuse(Kind::NotFound, format!("host {host} is not known"));
    };
    if known["state"] == "live" && body["force"] != true {
        return refuse(Kind::InUse, format!("host {host} lives"));
    }
    known["state"] = json!("silent");
    let fence = json!({"volume": "t/a", "epoch": 3, "clients": ["10.0.0.1:0/7"], "since": WHEN});
    reply(200, json!({"host": host, "fenced": [fence], "pending": []}))
}

async fn global_get(State(data): State<Shared>) -> Response {
    let ttl = data.lock().unwrap().session_ttl.clone();
    reply(200, json!({"session-ttl": ttl.as_deref().unwrap_or("10s")}))
}

async fn global_upload(State(data): State<Shared>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    data.lock().unwrap().session_ttl = body["session-ttl"].as_str().map(str::to_owned);
    reply(200, body)
}

async fn status_get(State(data): State<Shared>) -> Response {
    let data = data.lock().unwrap();
    let part =
        |what: &str, ok: bool, detail: &str| json!({"what": what, "ok": ok, "detail": detail});
    reply(
        200,
        json!({
            "version": "0.1.0",
            "store": part("etcd at http://e:2379", true, "answers in 1 ms"),
            "images": part("rbd", !data.images_down, if data.images_down { "timed out" } else { "" }),
            "volumes": data.volumes.len(), "pending": 0, "mounts": data.mounts.len(),
            "hosts": data.hosts.len(), "schedules": data.schedules_state(),
            "loops": [{"name": "reconcile", "runs": 7, "last_run": WHEN, "pending": [], "last_error": null}]
        }),
    )
}
