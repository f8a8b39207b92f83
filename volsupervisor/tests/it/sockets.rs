//! The same over sockets: the stand-in behind HTTP, in a runtime of its own that can be killed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Json, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use volapi::snapshots::CreateSnapshot;
use volapi::{Problem, routes};
use volclient::{Client, Creation, MasterUrl, Options};
use volcore::name::{SnapshotName, VolumeId};
use volsupervisor::supervisor;

use crate::stand_in::{Fault, Refused, StandIn};

/// A process, as it were, that serves a stand-in.
pub struct Server {
    master: StandIn,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    pub fn start(master: &StandIn) -> Server {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Server { master: master.clone(), address: any, runtime: None };
        server.start_again();
        server
    }

    pub fn url(&self) -> MasterUrl {
        format!("http://{}", self.address).parse().unwrap()
    }

    pub fn start_again(&mut self) {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let router = router(self.master.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        self.runtime = Some(runtime);
    }

    /// Connections break, and what was under way is not done.
    pub fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(1));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn router(master: StandIn) -> Router {
    Router::new()
        .route(routes::SCHEDULES_DUE, get(async |State(m): State<StandIn>| Json(m.due())))
        .route(
            routes::SCHEDULES,
            get(async |State(m): State<StandIn>| Json(json!({"items": m.schedules()}))),
        )
        .route(routes::SNAPSHOTS, get(list).post(create))
        .route(routes::SNAPSHOT, delete(remove))
        .with_state(master)
}

fn volume(tenant: &str, volume: &str) -> VolumeId {
    format!("{tenant}/{volume}").parse().unwrap()
}

async fn list(State(m): State<StandIn>, Path((tenant, name)): Path<(String, String)>) -> Response {
    let id = volume(&tenant, &name);
    match m.names(&id).await {
        Ok(names) => {
            let items: Vec<_> = names.iter().map(|name| snapshot(&id, name)).collect();
            Json(json!({"items": items})).into_response()
        }
        Err(refused) => problem(refused),
    }
}

async fn create(
    State(m): State<StandIn>,
    Path((tenant, name)): Path<(String, String)>,
    Json(body): Json<CreateSnapshot>,
) -> Response {
    let id = volume(&tenant, &name);
    // It outlives the connection.
    let work = tokio::spawn({
        let (id, name) = (id.clone(), body.name.clone());
        async move { m.take(&id, &name).await }
    });
    match work.await.unwrap() {
        // The connection breaks, without the words of a panic.
        Ok((_, true)) => std::panic::resume_unwind(Box::new("the answer is lost")),
        Ok((creation, false)) => {
            let status = match creation {
                Creation::Created => StatusCode::CREATED,
                Creation::Unchanged => StatusCode::OK,
            };
            (status, Json(snapshot(&id, &body.name))).into_response()
        }
        Err(refused) => problem(refused),
    }
}

async fn remove(
    State(m): State<StandIn>,
    Path((tenant, name, snapshot)): Path<(String, String, SnapshotName)>,
) -> Response {
    let id = volume(&tenant, &name);
    match tokio::spawn(async move { m.remove(&id, &snapshot).await }).await.unwrap() {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refused) => problem(refused),
    }
}

fn snapshot(volume: &VolumeId, name: &SnapshotName) -> serde_json::Value {
    json!({
        "volume": volume, "name": name, "kind": "scheduled", "size": 1,
        "created_at": "2026-11-21T10:00:00Z",
    })
}

fn problem((kind, detail): Refused) -> Response {
    let status = StatusCode::from_u16(kind.status()).unwrap();
    let body = serde_json::to_vec(&Problem::new(kind, detail, "r1")).unwrap();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}

/// A supervisor with a thread of its own, as the process has it.
fn supervise(masters: Vec<MasterUrl>) -> (CancellationToken, std::thread::JoinHandle<()>) {
    let stop = CancellationToken::new();
    let told = stop.clone();
    let client = Arc::new(Client::new(masters, Options::default()).unwrap());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(supervisor::run(client, 128, told));
    });
    (stop, thread)
}

fn until(what: &str, within: u64, is_so: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(within), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

#[test]
fn a_thousand_volumes_two_supervisors_two_masters_one_of_them_killed_now_and_then() {
    let master = StandIn::new();
    let mut servers = [Server::start(&master), Server::start(&master)];
    let masters: Vec<MasterUrl> = servers.iter().map(Server::url).collect();
    let ids: Vec<_> = (0..1000).map(|n| master.create(&format!("v{n}"), "5s", 2)).collect();
    for (number, id) in ids.iter().enumerate() {
        match number % 50 {
            0..10 => master.set_fault(id, Fault::Hangs),
            10 => master.set_fault(id, Fault::LosesReplies),
            _ => {}
        }
    }
    let well = || ids.iter().enumerate().filter(|(number, _)| number % 50 >= 10).map(|(_, id)| id);
    let supervisors = [supervise(masters.clone()), supervise(masters.into_iter().rev().collect())];
    let all = |count: usize| {
        let mut state = master.state();
        well().all(|id| state.volume(id).slots_taken().len() >= count)
    };
    let took = until("the first slot of 800", 30, || all(1));
    println!("800 beside 200 that hang, over HTTP: {took:?}");
    for round in 0..4 {
        servers[round % 2].kill();
        std::thread::sleep(Duration::from_secs(2));
        servers[round % 2].start_again();
        std::thread::sleep(Duration::from_secs(2));
    }
    // Both at once.
    servers.iter_mut().for_each(Server::kill);
    std::thread::sleep(Duration::from_secs(6));
    servers.iter_mut().for_each(Server::start_again);
    let took = until("five slots of 800", 30, || all(5));
    println!("after volmasters were killed six times: {took:?}");
    let began = Instant::now();
    supervisors.iter().for_each(|(stop, _)| stop.cancel());
    for (_, thread) in supervisors {
        thread.join().unwrap();
    }
    println!("the end: {:?}", began.elapsed());
    let mut state = master.state();
    for id in well() {
        let volume = state.volume(id);
        let slots = volume.slots_taken();
        assert!(volume.snapshots.contains(&slots[slots.len() - 1].name()), "the newest of {id}");
        assert!(
            volume.snapshots.contains(&slots[slots.len() - 2].name()),
            "the one before, of {id}"
        );
    }
}
