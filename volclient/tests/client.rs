//! The client against small servers that answer, refuse, hang, hang up and talk nonsense.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its servers has failed")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use volapi::hosts::{FenceHost, OpenSession, OrderState, OrdersQuery, ReportOrder};
use volapi::mounts::{ClaimMount, ClaimState, ReleaseQuery};
use volapi::snapshots::{CreateSnapshot, SnapshotQuery};
use volapi::trash::RestoreTrash;
use volapi::volumes::{AdoptVolume, CreateVolume, RemoveQuery, SetVolume, State as VolumeState};
use volapi::{Global, Problem, routes};
use volclient::{BriefItems, Client, ClientError, Creation, MasterUrl, Options, Outcome};
use volcore::Kind;
use volcore::name::{HostName, SnapshotName, TenantName, VolumeId};

async fn serve(router: Router) -> MasterUrl {
    serve_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), router)
}

fn serve_on(listener: TcpListener, router: Router) -> MasterUrl {
    let url = url(listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn url(address: SocketAddr) -> MasterUrl {
    format!("http://{address}").parse().unwrap()
}

/// An address that nobody listens on, nor gets while the socket is there.
fn deaf() -> (TcpSocket, MasterUrl) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = url(socket.local_addr().unwrap());
    (socket, url)
}

/// An address where nobody listens, until the process ends.
async fn nobody() -> MasterUrl {
    let (socket, url) = deaf();
    Box::leak(Box::new(socket));
    url
}

/// A master that takes connections and requests, and never answers.
async fn hanging() -> MasterUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    url
}

/// A master that hangs up on the first requests, one for each member, then answers with the text.
async fn losing(losses: usize, then: &'static str) -> (MasterUrl, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url(listener.local_addr().unwrap());
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            while let Ok(1..) = stream.read(&mut request).await {
                if count.fetch_add(1, Ordering::SeqCst) < losses {
                    break;
                }
                stream.write_all(then.as_bytes()).await.unwrap();
            }
        }
    });
    (url, seen)
}

fn client(masters: &[&MasterUrl]) -> Client {
    Client::new(masters.iter().map(|url| (*url).clone()).collect(), Options::default()).unwrap()
}

fn id() -> VolumeId {
    "t/v".parse().unwrap()
}

fn problem(kind: Kind, detail: &str) -> Response {
    let body = serde_json::to_vec(&Problem::new(kind, detail, "r1")).unwrap();
    let status = StatusCode::from_u16(kind.status()).unwrap();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}

fn answering(kind: Kind, detail: &'static str) -> Router {
    Router::new().fallback(any(async move || problem(kind, detail)))
}

fn volume() -> Value {
    json!({
        "tenant": "t", "name": "v", "uid": uuid(), "state": "ready",
        "created_at": "2026-01-02T03:04:05Z", "policy_revision": 1,
        "image": {"driver": "file", "path": "/img/t.v"},
        "options": {"size": "10 MiB"}, "format": "mkfs.ext4 -m0 %"
    })
}

fn uuid() -> &'static str {
    "6f9619ff-8b86-4011-b42d-00c04fc964ff"
}

fn json_body(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn volumes_there() -> Router {
    Router::new().route(routes::VOLUME, get(async || json_body(200, volume())))
}

fn snapshot() -> Value {
    json!({
        "volume": "t/v", "name": "s", "kind": "manual", "created_at": "2026-01-02T03:04:05Z",
        "size": 7
    })
}

fn trashed() -> Value {
    json!({
        "id": "6f", "volume": "t/v", "removed_at": "2026-01-02T03:04:05Z", "pool": "rbd",
        "image": "t.v", "image_id": "10ab", "restorable": true
    })
}

/// What a master says to each operation.
fn reply(operation: &str) -> Response {
    let tenant = json!({
        "name": "t", "revision": 1, "uploaded_at": "2026-01-02T03:04:05Z",
        "policy": {"default-options": {"size": "10MB"}}
    });
    let mount = json!({
        "volume": "t/v", "epoch": 1, "host": "h", "boot_id": "b", "state": "claimed",
        "mount_ids": [], "clients": [], "since": "2026-01-02T03:04:05Z"
    });
    let host = json!({
        "host": "h", "state": "live", "volumes": [], "fences": [], "instance_id": uuid(), "boot_id": "b",
        "since": "2026-01-02T03:04:05Z", "version": "0", "ttl": "10s"
    });
    let part = json!({"what": "x", "ok": true, "detail": ""});
    match operation {
        "tenant_list" | "tenant_revision_list" => json_body(200, json!({"items": [tenant]})),
        "tenant_get" | "tenant_revision_get" => json_body(200, tenant),
        "tenant_upload" => json_body(201, tenant),
        "volume_list" => json_body(200, json!({"items": [volume()]})),
        "volume_get" | "volume_set" | "snapshot_rollback" | "trash_restore" => {
            json_body(200, volume())
        }
        "snapshot_list" => json_body(200, json!({"items": [snapshot()]})),
        "snapshot_get" => json_body(200, snapshot()),
        "snapshot_create" => json_body(201, snapshot()),
        "schedule_list" => json_body(
            200,
            json!({"items": [{
                "volume": "t/v", "frequency": "30m", "keep": 20, "freeze": false,
                "taken": 7, "missed": 0, "failed": 0
            }]}),
        ),
        "schedule_due" => json_body(200, json!({"items": [], "next_ms": 7})),
        "trash_list" => json_body(200, json!({"items": [trashed()]})),
        "trash_get" => json_body(200, trashed()),
        "doctor_get" | "doctor_fix" => json_body(
            200,
            json!({
                "findings": [], "total": 0, "fixed": 0, "volumes": 7, "images": 8,
                "foreign_images": 1
            }),
        ),
        "volume_create" | "volume_adopt" => json_body(201, volume()),
        "volume_flatten" => json_body(200, volume()),
        "volume_remove" => json_body(200, json!({"volume": "t/v", "left_behind": "rbd/t.v"})),
        "mount_list" => json_body(200, json!({"items": [mount]})),
        "mount_get" | "mount_claim" => json_body(200, mount),
        "host_list" => json_body(200, json!({"items": [host]})),
        "host_limit_list" => json_body(
            200,
            json!({"items": [{
                "volume": "t/v", "uid": uuid(), "rate-limit": {"write-bps": 1},
            }]}),
        ),
        "host_order_list" => json_body(
            200,
            json!({"at": 7, "items": [{
                "id": uuid(), "volume": "t/v", "uid": uuid(), "asked_at": "2026-11-21T00:00:00Z",
                "state": {"is": "of a version to come", "more": 1},
            }]}),
        ),
        "host_get" | "host_session" => json_body(200, host),
        "host_fence" => json_body(200, json!({"host": "h", "fenced": [], "pending": []})),
        "global_get" | "global_upload" => json_body(200, json!({"session-ttl": "10s"})),
        "status_get" => json_body(
            200,
            json!({
                "version": "0", "store": part, "images": part, "volumes": 1, "pending": 0,
                "mounts": 0, "hosts": 0, "loops": []
            }),
        ),
        "healthz" | "readyz" => json_body(200, json!({"status": "ok"})),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

type Seen = Arc<Mutex<BTreeSet<String>>>;

/// A master with every route of the table, which keeps a note of the operations that were asked for.
fn whole_api(seen: Seen) -> Router {
    async fn handle(State(seen): State<Seen>, path: MatchedPath, request: Request) -> Response {
        let route = routes::ROUTES
            .iter()
            .find(|route| route.path == path.as_str() && route.method == request.method().as_str());
        let operation = route.expect("the method is in the table").operation;
        assert!(request.headers().contains_key("x-request-id"));
        seen.lock().unwrap().insert(operation.to_owned());
        reply(operation)
    }
    let paths: BTreeSet<&str> = routes::ROUTES.iter().map(|route| route.path).collect();
    let handler: MethodRouter<Seen> = any(handle);
    paths
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, handler.clone()))
        .with_state(seen)
}

#[tokio::test]
async fn every_operation_has_its_method() {
    let seen = Seen::default();
    let client = client(&[&serve(whole_api(seen.clone())).await]);
    let (tenant, host): (TenantName, HostName) = ("t".parse().unwrap(), "h".parse().unwrap());
    let policy = serde_json::from_str(r#"{"default-options": {"size": "10MB"}}"#).unwrap();

    assert_eq!(client.tenant_list().await.unwrap().len(), 1);
    assert_eq!(client.tenant_get(&tenant).await.unwrap().revision, 1);
    assert_eq!(client.tenant_upload(&tenant, &policy).await.unwrap().0, Creation::Created);
    client.tenant_delete(&tenant).await.unwrap();
    assert_eq!(client.tenant_revision_list(&tenant).await.unwrap().len(), 1);
    assert_eq!(client.tenant_revision_get(&tenant, 1).await.unwrap().revision, 1);

    assert_eq!(client.volume_list(None).await.unwrap()[0].id(), id());
    let body = CreateVolume { tenant, name: "v".parse().unwrap(), options: [].into() };
    assert_eq!(client.volume_create(&body).await.unwrap().0, Creation::Created);
    assert_eq!(client.doctor_get().await.unwrap().volumes, 7);
    assert_eq!(client.doctor_fix().await.unwrap().images, 8);
    let adopted = client.volume_adopt(&id(), &AdoptVolume::default()).await.unwrap();
    assert_eq!((adopted.0, adopted.1.id()), (Creation::Created, id()));
    assert_eq!(client.volume_get(&id()).await.unwrap().state, VolumeState::Ready);
    assert_eq!(client.volume_flatten(&id()).await.unwrap().id(), id());
    let change = SetVolume { options: [].into() };
    assert_eq!(client.volume_set(&id(), &change).await.unwrap().id(), id());
    let removed = client.volume_remove(&id(), RemoveQuery::default()).await.unwrap();
    assert_eq!(removed.left_behind.as_deref(), Some("rbd/t.v"));

    snapshots_and_trash(&client).await;

    let boot_id = "b".parse().unwrap();
    let claim = ClaimMount {
        host: host.clone(),
        boot_id,
        instance_id: None,
        epoch: Some(1),
        state: ClaimState::Claimed,
        mount_ids: [].into(),
        clients: vec![],
    };
    assert_eq!(client.mount_list(None).await.unwrap()[0].epoch, 1);
    assert_eq!(client.mount_get(&id()).await.unwrap().holder.host, host);
    assert_eq!(client.mount_claim(&id(), &claim).await.unwrap().0, Creation::Unchanged);
    client.mount_release(&id(), &ReleaseQuery::default()).await.unwrap();

    assert_eq!(client.host_list().await.unwrap()[0].host, host);
    assert_eq!(client.host_get(&host).await.unwrap().host, host);
    let limits = client.host_limit_list(&host).await.unwrap();
    assert_eq!(limits[0].rate_limit.write_bps, Some(1));
    let orders = client.host_order_list(&host, OrdersQuery::default()).await.unwrap();
    assert_eq!((orders.at, &orders.items[0].state), (7, &OrderState::Unknown));
    client.host_order_report(&host, orders.items[0].id, &ReportOrder::Frozen).await.unwrap();
    client.host_forget(&host).await.unwrap();
    let fenced = client.host_fence(&host, FenceHost { force: true }).await.unwrap();
    assert_eq!(fenced.host, host);
    let session = OpenSession {
        instance_id: uuid().parse().unwrap(),
        boot_id: "b".parse().unwrap(),
        version: "0".into(),
    };
    let granted = client.host_session(&host, &session).await.unwrap();
    assert_eq!(granted.ttl.get(), Duration::from_secs(10));

    assert_eq!(client.global_get().await.unwrap(), Global::default());
    assert_eq!(client.global_upload(&Global::default()).await.unwrap(), Global::default());
    assert_eq!(client.status_get().await.unwrap().volumes, 1);
    assert_eq!(client.healthz().await.unwrap().status, "ok");
    assert_eq!(client.readyz().await.unwrap().status, "ok");

    let mut all: BTreeSet<String> =
        routes::ROUTES.iter().map(|route| route.operation.to_owned()).collect();
    for for_people_and_scrapers in ["openapi_get", "metrics", "root"] {
        all.remove(for_people_and_scrapers);
    }
    assert_eq!(*seen.lock().unwrap(), all);
}

async fn snapshots_and_trash(client: &Client) {
    let (id, name): (VolumeId, SnapshotName) = (id(), "s".parse().unwrap());
    let all = client.snapshot_list(&id, SnapshotQuery::default()).await.unwrap();
    assert_eq!(all[0].full_name(), "t/v@s");
    let body = CreateSnapshot { name: name.clone() };
    assert_eq!(client.snapshot_create(&id, &body).await.unwrap().0, Creation::Created);
    assert_eq!(client.snapshot_get(&id, &name).await.unwrap().size, 7);
    client.snapshot_remove(&id, &name).await.unwrap();
    assert_eq!(client.snapshot_rollback(&id, &name).await.unwrap().id(), id);
    assert_eq!(client.schedule_list(None).await.unwrap()[0].taken, 7);
    assert_eq!(client.schedule_due().await.unwrap().next_ms, Some(7));

    assert_eq!(client.trash_list().await.unwrap()[0].id, "6f");
    assert_eq!(client.trash_get("6f").await.unwrap().volume, id);
    client.trash_purge("6f").await.unwrap();
    assert_eq!(client.trash_restore("6f", &RestoreTrash::default()).await.unwrap().id(), id);
}

#[tokio::test]
async fn the_next_master_is_asked_where_nobody_listens_and_remembered() {
    let ((socket, dead), alive) = (deaf(), serve(volumes_there()).await);
    let client = client(&[&dead, &alive]);
    assert_eq!(client.volume_get(&id()).await.unwrap().id(), id());
    // The dead one may come to life as something else: it is not asked as long as the other answers.
    serve_on(socket.listen(16).unwrap(), answering(Kind::Internal, "not me"));
    assert_eq!(client.volume_get(&id()).await.unwrap().id(), id());
}

#[tokio::test]
async fn nobody_anywhere_is_unreachable_and_certainly_not_done() {
    let (one, two) = (nobody().await, nobody().await);
    let error = client(&[&one, &two]).volume_get(&id()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::NotDone));
    assert!(!error.is_not_found());
    let chain = volapi::problem::chain(&error);
    for part in [&one.to_string(), &two.to_string(), "onnection refused", "volume t/v"] {
        assert!(chain.contains(part), "{part} is not in: {chain}");
    }
}

#[tokio::test]
async fn unavailable_goes_on_to_the_next_and_is_told_when_all_say_so() {
    let cut_off = serve(answering(Kind::Unavailable, "etcd does not answer")).await;
    let alive = serve(volumes_there()).await;
    assert!(client(&[&cut_off, &alive]).volume_get(&id()).await.is_ok());

    let error = client(&[&cut_off, &nobody().await]).volume_get(&id()).await.unwrap_err();
    assert_eq!(error.problem().unwrap().detail, "etcd does not answer");
    assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::Unknown));
}

#[tokio::test]
async fn any_other_answer_is_final() {
    let refusing = serve(answering(Kind::InUse, "held by h1")).await;
    let client = client(&[&refusing, &serve(volumes_there()).await]);
    let error = client.volume_get(&id()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (Kind::InUse, "held by h1".to_owned()));
    assert_eq!(error.outcome(), Outcome::NotDone);
    assert_eq!((error.operation(), error.subject()), ("volume_get", "volume t/v"));
}

#[tokio::test]
async fn a_master_that_hangs_leaves_time_for_the_next() {
    let client = client(&[&hanging().await, &serve(volumes_there()).await]);
    let limited = client.within(Duration::from_secs(4));
    let begun = Instant::now();
    assert!(limited.volume_get(&id()).await.is_ok());
    let first = begun.elapsed();
    assert!(first >= Duration::from_secs(2) && first < Duration::from_secs(4), "{first:?}");
    let begun = Instant::now();
    assert!(limited.volume_get(&id()).await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(2), "the hanging one was asked again");
}

#[tokio::test]
async fn the_deadline_holds() {
    let client = client(&[&hanging().await]);
    let begun = Instant::now();
    let error = client.within(Duration::from_millis(200)).volume_get(&id()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(matches!(error, ClientError::Deadline { .. }), "{error:?}");
    assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::Unknown));

    let endless = self::client(&[&serve(volumes_there()).await]).within(Duration::MAX);
    assert!(endless.volume_get(&id()).await.is_ok());

    let over = client.until(tokio::time::Instant::now()).volume_get(&id()).await.unwrap_err();
    assert_eq!(over.outcome(), Outcome::NotDone, "no time, so nothing was sent");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let created = "HTTP/1.1 204 No Content\r\n\r\n";
    let (master, seen) = losing(1, created).await;
    client(&[&master]).tenant_delete(&"t".parse().unwrap()).await.unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 2);

    let (master, seen) = losing(usize::MAX, created).await;
    let error = client(&[&master]).tenant_delete(&"t".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(seen.load(Ordering::SeqCst), 2, "once more, not for ever");
}

/// Somebody may have written since the first arrived.
#[tokio::test]
async fn a_rollback_that_may_have_arrived_is_not_sent_again() {
    let name: SnapshotName = "s".parse().unwrap();
    let there = || serve(Router::new().fallback(any(async || json_body(200, volume()))));
    let client_of = |first: &MasterUrl, second: &MasterUrl| {
        client(&[first, second]).patient(Duration::from_secs(5)).within(Duration::from_secs(5))
    };

    let (losing, seen) = losing(usize::MAX, "").await;
    let error =
        client_of(&losing, &there().await).snapshot_rollback(&id(), &name).await.unwrap_err();
    assert_eq!((error.outcome(), seen.load(Ordering::SeqCst)), (Outcome::Unknown, 1));

    let unavailable = serve(answering(Kind::Unavailable, "ceph is away")).await;
    let error =
        client_of(&unavailable, &there().await).snapshot_rollback(&id(), &name).await.unwrap_err();
    assert_eq!((error.outcome(), error.to_string().as_str()), (Outcome::Unknown, "ceph is away"));

    let proxy = serve(Router::new().fallback(any(async || StatusCode::BAD_GATEWAY))).await;
    let error =
        client_of(&proxy, &there().await).snapshot_rollback(&id(), &name).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);

    // Where nobody took it, the next is asked.
    let nobody = nobody().await;
    client_of(&nobody, &there().await).snapshot_rollback(&id(), &name).await.unwrap();
}

#[tokio::test]
async fn not_found_after_a_lost_removal_is_success() {
    let gone = serve(answering(Kind::NotFound, "volume t/v does not exist")).await;
    let error = client(&[&gone]).volume_remove(&id(), RemoveQuery::default()).await.unwrap_err();
    assert!(error.is_not_found(), "the first answer counts");

    let (losing, _) = losing(usize::MAX, "").await;
    let removed = client(&[&losing, &gone]).volume_remove(&id(), RemoveQuery::default()).await;
    assert_eq!(removed.unwrap().volume, id());
    // Reading is not removing.
    let error = client(&[&losing, &gone]).volume_get(&id()).await.unwrap_err();
    assert!(error.is_not_found());
}

#[tokio::test]
async fn patience_outlasts_a_restart() {
    let (socket, down) = deaf();
    // This one says in which round the client is.
    let rounds = Arc::new(AtomicUsize::new(0));
    let counting = {
        let rounds = rounds.clone();
        any(async move || {
            rounds.fetch_add(1, Ordering::SeqCst);
            problem(Kind::Unavailable, "etcd does not answer")
        })
    };
    let client = client(&[&down, &serve(Router::new().fallback(counting)).await]);
    assert!(client.volume_get(&id()).await.is_err());
    let before = rounds.load(Ordering::SeqCst);
    let patient = client.patient(Duration::from_secs(60)).within(Duration::from_secs(60));
    let waiting = tokio::spawn(async move { patient.volume_get(&id()).await });
    while rounds.load(Ordering::SeqCst) < before + 3 {
        assert!(!waiting.is_finished(), "it asks again");
        tokio::task::yield_now().await;
    }
    serve_on(socket.listen(16).unwrap(), volumes_there());
    assert_eq!(waiting.await.unwrap().unwrap().id(), id());
}

#[tokio::test]
async fn nonsense_is_garbled_and_never_not_found() {
    let html = || (StatusCode::NOT_FOUND, Html("<html><h1>404\n not found</h1>")).into_response();
    let lookalike = || json_body(404, json!({"kind": "not_found", "detail": "nothing here"}));
    let other_status = || {
        let mut response = problem(Kind::NotFound, "x");
        *response.status_mut() = StatusCode::OK.max(StatusCode::GONE);
        response
    };
    let success = || Html("<html>welcome").into_response();
    let proxy = || (StatusCode::BAD_GATEWAY, "bad gateway").into_response();
    let unasked = || StatusCode::NOT_MODIFIED.into_response();
    type Nonsense = (fn() -> Response, Kind, &'static str);
    let table: [Nonsense; 6] = [
        (html, Kind::Internal, "404 not found"),
        (lookalike, Kind::Internal, "nothing here"),
        (other_status, Kind::Internal, "status 410"),
        (success, Kind::Internal, "welcome"),
        (proxy, Kind::Unavailable, "bad gateway"),
        (unasked, Kind::Internal, "status 304"),
    ];
    for (answer, kind, text) in table {
        let master = serve(Router::new().fallback(any(async move || answer()))).await;
        let error = client(&[&master]).volume_get(&id()).await.unwrap_err();
        assert!(matches!(error, ClientError::Garbled { .. }), "{error:?}");
        assert!(!error.is_not_found());
        assert_eq!(error.kind(), kind);
        let told = error.to_string();
        assert!(
            told.contains(text) && told.contains(&format!("{master}/v1/volumes/t/v")),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_stranger_among_the_masters_is_passed_over() {
    let welcome = Router::new().fallback(any(async || Html("<html>welcome")));
    for stranger in [Router::new(), welcome] {
        let client = client(&[&serve(stranger).await, &serve(volumes_there()).await]);
        assert!(client.volume_get(&id()).await.is_ok());
    }
}

#[tokio::test]
async fn brief_lists_are_read_page_by_page_and_not_twice() {
    async fn list(request: Request) -> Response {
        let query = request.uri().query().unwrap_or_default().to_owned();
        assert!(query.contains("view=brief"), "{query}");
        let known = request.headers().get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "\"7\"");
        if known {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        let item = |name: &str| json!({"volume": name, "state": "ready", "created_at": Timestamp::UNIX_EPOCH});
        let page = if query.contains("continue=t%26/a") {
            json!({"items": [item("t/b")]})
        } else {
            json!({"items": [item("t/a")], "continue": "t&/a"})
        };
        ([(header::ETAG, "\"7\"")], axum::Json(page)).into_response()
    }
    let client = client(&[&serve(Router::new().route(routes::VOLUMES, get(list))).await]);
    let first = client.volume_list_brief(None).await.unwrap();
    assert_eq!(first.etag.as_deref(), Some("\"7\""));
    let BriefItems::Items(items) = first.items else { panic!() };
    let names: Vec<String> = items.iter().map(|item| item.volume.to_string()).collect();
    assert_eq!(names, ["t/a", "t/b"]);
    let second = client.volume_list_brief(first.etag.as_deref()).await.unwrap();
    assert_eq!(second.items, BriefItems::NotModified);
    assert_eq!(second.etag.as_deref(), Some("\"7\""));
}

#[tokio::test]
async fn bodies_and_queries_arrive() {
    type Notes = Arc<Mutex<Vec<String>>>;
    async fn note(
        State(notes): State<Notes>,
        headers: HeaderMap,
        request: axum::http::Uri,
        body: Bytes,
    ) -> Response {
        let kind = headers.get(header::CONTENT_TYPE).map_or("-", |v| v.to_str().unwrap());
        let body = String::from_utf8_lossy(&body);
        notes.lock().unwrap().push(format!("{request} {kind} {body}"));
        problem(Kind::Invalid, "noted")
    }
    let notes = Notes::default();
    let client =
        client(&[&serve(Router::new().fallback(any(note)).with_state(notes.clone())).await]);
    let query = RemoveQuery { metadata_only: true, disposal: None };
    client.volume_remove(&id(), query).await.unwrap_err();
    let query = ReleaseQuery { host: Some("h".parse().unwrap()), ..ReleaseQuery::default() };
    client.mount_release(&id(), &query).await.unwrap_err();
    let body = CreateVolume {
        tenant: "t".parse().unwrap(),
        name: "v".parse().unwrap(),
        options: [("size".to_owned(), "1GB".to_owned())].into(),
    };
    client.volume_create(&body).await.unwrap_err();
    client.snapshot_list(&id(), SnapshotQuery { usage: true }).await.unwrap_err();
    let body = CreateSnapshot { name: "s".parse().unwrap() };
    client.snapshot_create(&id(), &body).await.unwrap_err();
    let body = RestoreTrash { volume: Some("t/w".parse().unwrap()) };
    client.trash_restore("6f", &body).await.unwrap_err();
    client.schedule_list(Some(&"t".parse().unwrap())).await.unwrap_err();
    assert_eq!(
        *notes.lock().unwrap(),
        [
            "/v1/volumes/t/v?metadata-only=true - ",
            "/v1/mounts/t/v?host=h - ",
            r#"/v1/volumes application/json {"tenant":"t","name":"v","options":{"size":"1GB"}}"#,
            "/v1/volumes/t/v/snapshots?usage=true - ",
            r#"/v1/volumes/t/v/snapshots application/json {"name":"s"}"#,
            r#"/v1/trash/6f/restore application/json {"volume":"t/w"}"#,
            "/v1/schedules?tenant=t - ",
        ]
    );
}
