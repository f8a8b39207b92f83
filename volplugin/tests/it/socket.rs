//! Docker's protocol through a real socket, with requests as dockerd sends them.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::support::World;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use volplugin::docker::server::serve;
use volplugin::docker::socket::{PluginSocket, SocketError};

struct Served {
    world: World,
    path: PathBuf,
    stop: CancellationToken,
}

impl Served {
    async fn new() -> Served {
        let world = World::new();
        let plugin = world.start();
        let folder = world.folder.path().join("plugins");
        let socket = PluginSocket::bind(&folder, "volplugin").unwrap();
        let path = socket.path().to_owned();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            serve(&socket, Arc::clone(&plugin), TaskTracker::new(), stopped).await;
        });
        Served { world, path, stop }
    }

    /// Sends bytes as they are and reads until the other end closes.
    async fn raw(&self, request: Vec<u8>) -> String {
        let path = self.path.clone();
        let exchange = move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            // A server that refuses early may close before everything is written.
            let _ = stream.write_all(&request);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8(answer).unwrap()
        };
        tokio::task::spawn_blocking(exchange).await.unwrap()
    }

    /// A request as dockerd writes it: an empty Host, no Content-Type.
    async fn post(&self, method: &str, body: &str) -> (u16, Value) {
        let request = format!(
            "POST /{method} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\nAccept: \
             application/vnd.docker.plugins.v1.2+json\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = self.raw(request.into_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer with a head");
        assert!(
            head.to_lowercase().contains("content-type: application/vnd.docker.plugins.v1.1+json"),
            "{head}"
        );
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_volume_as_docker_sees_it() {
    let served = Served::new().await;
    let (status, body) = served.post("Plugin.Activate", "").await;
    assert_eq!((status, body), (200, json!({"Implements": ["VolumeDriver"], "Err": ""})));
    let (_, body) = served.post("VolumeDriver.Capabilities", "").await;
    assert_eq!(body["Capabilities"]["Scope"], "global");

    let (status, body) = served.post("VolumeDriver.Get", r#"{"Name":"t/v"}"#).await;
    assert_eq!(status, 500);
    assert_eq!(body["Err"], "volume t/v does not exist");
    let (status, body) = served.post("VolumeDriver.Create", r#"{"Name":"t/v","Opts":null}"#).await;
    assert_eq!((status, body), (200, json!({"Err": ""})));

    let (_, body) = served.post("VolumeDriver.Mount", r#"{"Name":"t/v","ID":"m1"}"#).await;
    assert_eq!(body, json!({"Mountpoint": "/mnt/volplugin/rbd/t.v", "Err": ""}));
    let (_, body) = served.post("VolumeDriver.Path", r#"{"Name":"t/v"}"#).await;
    assert_eq!(body["Mountpoint"], "/mnt/volplugin/rbd/t.v");
    let (_, body) = served.post("VolumeDriver.Get", r#"{"Name":"t/v"}"#).await;
    let volume = &body["Volume"];
    assert_eq!(volume["Name"], "t/v");
    assert_eq!(volume["Mountpoint"], "/mnt/volplugin/rbd/t.v");
    assert_eq!(volume["CreatedAt"], "1970-01-01T00:00:00Z");
    let mut keys: Vec<&str> =
        volume["Status"].as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = [
        "access",
        "filesystem",
        "health",
        "holder",
        "holder-since",
        "image",
        "last-error",
        "last-snapshot",
        "next-snapshot",
        "pool",
        "rate-limit",
        "size",
        "snapshots",
        "source",
        "state",
        "used",
    ];
    assert_eq!(keys, expected);
    assert_eq!(volume["Status"]["holder"], "h1");
    assert_eq!(volume["Status"]["health"], "ok");
    let source = served.world.host.mapped().remove(0);
    served.world.host.kill_server(&source);
    let (_, body) = served.post("VolumeDriver.Get", r#"{"Name":"t/v"}"#).await;
    let health = body["Volume"]["Status"]["health"].as_str().unwrap();
    assert!(health.starts_with("failed: volplugin-serve (pid 1) of image "), "{health}");
    assert!(health.contains("is gone"), "{health}");

    let (_, body) = served.post("VolumeDriver.List", "{}").await;
    assert_eq!(
        body["Volumes"],
        json!([{"Name": "t/v", "Mountpoint": "/mnt/volplugin/rbd/t.v", "CreatedAt": "1970-01-01T00:00:00Z"}])
    );
    for _ in 0..2 {
        let (_, body) = served.post("VolumeDriver.Unmount", r#"{"Name":"t/v","ID":"m1"}"#).await;
        assert_eq!(body, json!({"Err": ""}));
    }
    assert!(served.world.master.state().claims.is_empty());
    let (_, body) = served.post("VolumeDriver.Remove", r#"{"Name":"t/v"}"#).await;
    assert_eq!(body, json!({"Err": ""}));
    assert_eq!(served.world.master.state().volumes.len(), 1, "on-remove is keep");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_answered_with_what_is_wrong() {
    let served = Served::new().await;
    let table = [
        ("VolumeDriver.Mount", "{", 400, "is not the JSON that Docker sends"),
        ("VolumeDriver.Mount", r#"{"Name":5}"#, 400, "is not the JSON that Docker sends"),
        ("VolumeDriver.Mount", r#"{"Name":"t/v"}"#, 400, "no usable ID"),
        ("VolumeDriver.Mount", r#"{"Name":"t/v","ID":"a/b"}"#, 400, "no usable ID"),
        ("VolumeDriver.Create", r#"{"Name":"db"}"#, 500, "--default-tenant"),
        ("VolumeDriver.Create", r#"{"Name":"../v"}"#, 500, "tenant name"),
        (
            "VolumeDriver.Create",
            r#"{"Name":"t/v","Opts":{"sise":"1"}}"#,
            500,
            "unknown option \"sise\"",
        ),
        (
            "VolumeDriver.Mount",
            r#"{"Name":"t/none","ID":"m"}"#,
            500,
            "volume t/none does not exist",
        ),
        ("VolumeDriver.Snapshot", "{}", 404, "not part of Docker's volume plugin protocol"),
    ];
    for (method, body, status, expected) in table {
        let (got, answer) = served.post(method, body).await;
        let err = answer["Err"].as_str().unwrap();
        assert!(got == status && err.contains(expected), "{method} {body}: {got} {err}");
    }
    let get = served
        .raw(b"GET /VolumeDriver.List HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n".to_vec())
        .await;
    assert!(get.starts_with("HTTP/1.1 405") && get.to_lowercase().contains("allow: post"), "{get}");
    let huge = format!("{{\"Name\":\"{}\"}}", "x".repeat(2 << 20));
    let (status, _) = served.post("VolumeDriver.Create", &huge).await;
    assert_eq!(status, 413);
    assert!(served.world.master.state().volumes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nothing_more_is_cut_off_and_disturbs_nobody() {
    let served = Served::new().await;
    let slow = served
        .raw(b"POST /VolumeDriver.List HTTP/1.1\r\nHost: \r\nContent-Length: 10\r\n\r\n{".to_vec());
    let mut slow = pin!(slow);
    let (status, _) = tokio::select! {
        biased;
        answer = &mut slow => panic!("it came first: {answer}"),
        other = served.post("VolumeDriver.List", "{}") => other,
    };
    assert_eq!(status, 200);
    let answer = slow.await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_the_cache_answers_and_the_unknown_is_not_denied() {
    let served = Served::new().await;
    served.post("VolumeDriver.Create", r#"{"Name":"t/v"}"#).await;
    served.world.master.state().down = true;
    let (status, body) = served.post("VolumeDriver.Get", r#"{"Name":"t/v"}"#).await;
    assert_eq!(status, 200);
    assert_eq!(body["Volume"]["Status"]["source"], "cache");
    let request = b"POST /VolumeDriver.Get HTTP/1.1\r\nHost: \r\nContent-Length: 14\r\n\r\n{\"Name\":\"t/x\"}".to_vec();
    assert_eq!(served.raw(request).await, "", "closed without an answer");
    // No whole list was ever seen.
    let request =
        b"POST /VolumeDriver.List HTTP/1.1\r\nHost: \r\nContent-Length: 2\r\n\r\n{}".to_vec();
    assert_eq!(served.raw(request).await, "", "closed without an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_private_and_a_stale_one_is_replaced() {
    let served = Served::new().await;
    let mode = std::fs::metadata(&served.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let folder = served.path.parent().unwrap();
    assert!(matches!(PluginSocket::bind(folder, "volplugin"), Err(SocketError::Served { .. })));
    let stale = folder.join("other.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let replaced = PluginSocket::bind(folder, "other").unwrap();
    drop(replaced);
    assert!(!stale.exists(), "removed on exit");
    let long = folder.join("x".repeat(100));
    assert!(matches!(PluginSocket::bind(&long, "p"), Err(SocketError::TooLong { .. })));
}

/// `docker cp` mounts and unmounts under the id of the container that runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_mounted_twice_is_free_after_two_unmounts() {
    let served = Served::new().await;
    served.post("VolumeDriver.Create", r#"{"Name":"t/v"}"#).await;
    for _ in 0..2 {
        let (_, body) = served.post("VolumeDriver.Mount", r#"{"Name":"t/v","ID":"m1"}"#).await;
        assert_eq!(body, json!({"Mountpoint": "/mnt/volplugin/rbd/t.v", "Err": ""}));
    }
    for left in [1, 0] {
        let (_, body) = served.post("VolumeDriver.Unmount", r#"{"Name":"t/v","ID":"m1"}"#).await;
        assert_eq!(body, json!({"Err": ""}));
        assert_eq!(served.world.master.state().claims.len(), left);
    }
}

/// Docker keeps its connections, and would repeat a call without its body if one were closed under it.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_and_half_a_head_is_not_waited_for() {
    const LIST: &[u8] =
        b"POST /VolumeDriver.List HTTP/1.1\r\nHost: \r\nContent-Length: 2\r\n\r\n{}";
    let served = Served::new().await;
    let mut stream = tokio::net::UnixStream::connect(&served.path).await.unwrap();
    let mut answer = [0; 1024];
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
        stream.write_all(LIST).await.unwrap();
        let read = stream.read(&mut answer).await.unwrap();
        assert!(
            answer[..read].starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    let begin = tokio::time::Instant::now();
    stream.write_all(&LIST[..20]).await.unwrap();
    assert_eq!(stream.read(&mut answer).await.unwrap(), 0, "it is closed");
    assert!(begin.elapsed() >= Duration::from_secs(10));
    served.stop.cancel();
}
