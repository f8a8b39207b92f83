//! Clients that are slow, go away or wait for what hangs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use volmaster::http::Limits;

use crate::client::read;
use crate::mortal::{Hang, Mortal};
use crate::stage::{Stage, until};

fn short() -> Limits {
    // Long enough for what is not slow, also on a loaded machine.
    let short = Duration::from_secs(2);
    Limits { head: short, body: short, read: short, change: short }
}

#[tokio::test]
async fn a_slow_head_ends_the_connection() {
    let stage = Stage::new().await;
    let served = stage.serve_app(stage.app(), short()).await;
    let mut stream = TcpStream::connect(served.client.address).await.unwrap();
    stream.write_all(b"GET /v1 HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes)).await;
    ended.expect("the connection is ended").unwrap();
}

#[tokio::test]
async fn a_slow_body_is_refused() {
    let stage = Stage::new().await;
    let served =
        stage.serve_app(stage.app(), Limits { change: Duration::from_secs(60), ..short() }).await;
    let mut stream = TcpStream::connect(served.client.address).await.unwrap();
    let head = "POST /v1/volumes HTTP/1.1\r\nhost: x\r\nx-request-id: test\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(60), read(&mut stream)).await.unwrap();
    insta::assert_snapshot!(answer.shown(), @r#"
    400 application/problem+json
    {"type":"urn:volplugin:problem:invalid","title":"the request is not valid","status":400,"detail":"the body did not arrive within 2s","kind":"invalid","request_id":"test"}
    "#);
}

#[tokio::test]
async fn a_hung_store_or_cluster_hangs_no_client() {
    let stage = Stage::new().await;
    let mortal = Mortal::new(&stage);
    let served = stage.serve_app(mortal.app(&stage), short()).await;
    let client = &served.client;
    client.get("/v1/volumes").await.expect(200);
    mortal.hang(Hang::Images);
    let began = Instant::now();
    let body = r#"{"tenant": "t", "name": "v"}"#;
    let answer = client.post("/v1/volumes", body).await;
    insta::assert_snapshot!(answer.shown(), @r#"
    503 application/problem+json
    {"type":"urn:volplugin:problem:unavailable","title":"a part that is needed cannot be reached","status":503,"detail":"no answer from the store or the images within 2s; what was begun goes on, ask again","kind":"unavailable","request_id":"test"}
    "#);
    assert!(began.elapsed() < Duration::from_secs(30));
    mortal.hang(Hang::All);
    client.get("/v1/volumes/t/v").await.expect(503);
    client.get("/healthz").await.expect(200);
}

#[tokio::test]
async fn a_create_outlives_its_client() {
    let stage = Stage::new().await;
    let mortal = Mortal::new(&stage);
    let served = stage.serve_app(mortal.app(&stage), Limits::default()).await;
    let gate = mortal.gate_images();
    let mut stream = TcpStream::connect(served.client.address).await.unwrap();
    let body = r#"{"tenant": "t", "name": "v"}"#;
    let head = format!(
        "POST /v1/volumes HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    gate.reached().await;
    drop(stream);
    // Somebody else asks meanwhile, and waits for it.
    let client = served.client;
    let reads = stage.store.faults().reads();
    let second = tokio::spawn(async move { client.post("/v1/volumes", body).await });
    until("the second to have read the volume", || stage.store.faults().reads() > reads).await;
    gate.open();
    let answer = tokio::time::timeout(Duration::from_secs(60), second).await.unwrap().unwrap();
    answer.expect(200);
    let app = Arc::clone(&served.app);
    assert!(app.shutdown(Duration::from_secs(60)).await);
    assert!(stage.is_complete(&"t/v".parse().unwrap()).await);
}
