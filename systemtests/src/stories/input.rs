//! Input that no Docker and no volcli would send.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::http::{self, NoAnswer, Stream};
use testkit::{Story, Suite};

const LIMIT: Duration = Duration::from_secs(30);

/// The plugin's socket answers everything with a status and an `Err`, and serves on.
pub fn the_plugin_socket_takes_no_nonsense(suite: &Suite) {
    let story = Story::beside(suite, "socket");
    let h1 = suite.h1();
    let send = |head: &str, body: &[u8]| {
        let mut stream = h1.plugin_connect().expect("it listens");
        http::send(&mut stream, &http::whole(head, body), LIMIT).expect("an answer")
    };
    let post = |method: &str, body: &[u8]| send(&format!("POST /{method} HTTP/1.1\r\nHost:"), body);

    let wrong_method = send("GET /VolumeDriver.List HTTP/1.1\r\nHost:", b"");
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, Some("POST")));
    assert_ne!(wrong_method.err(), "");
    assert_eq!(post("VolumeDriver.Nonsense", b"").status, 404);
    assert_eq!(post("", b"").status, 404);
    for body in ["{", "[]", "\"x\"", "{\"Name\": 5}", "{\"Opts\": {\"size\": 5}}", "\u{1}\u{2}"] {
        let answer = post("VolumeDriver.Create", body.as_bytes());
        assert!(answer.status >= 400, "{body}: {answer}");
        assert_ne!(answer.err(), "", "{body}");
    }
    let huge = json!({ "Name": story.volume("x"), "Opts": { "size": "1".repeat(2 << 20) } });
    let answer = post("VolumeDriver.Create", huge.to_string().as_bytes());
    assert_eq!(answer.status, 413, "{answer}");

    let names = ["", "/", "a/", "/b", "a/b/c", "../x", "a/..", "a/ b", "ä/b", "plain"];
    for name in names.map(str::to_owned).into_iter().chain([format!("a/{}", "x".repeat(200))]) {
        for method in ["Create", "Mount", "Remove", "Get"] {
            let body = json!({ "Name": name, "ID": "1" });
            let answer = h1.plugin_call(&format!("VolumeDriver.{method}"), &body);
            assert_ne!(answer.err(), "", "{method} {name:?}: {answer}");
        }
    }
    let volume = story.create("db", "");
    for id in ["", "../../x", "a b"] {
        let answer = h1.plugin_call("VolumeDriver.Mount", &json!({ "Name": volume, "ID": id }));
        assert_ne!(answer.err(), "", "ID {id:?}: {answer}");
    }
    assert_eq!(story.in_use(), [""; 0], "nothing came of it");
    let unknown = json!({ "Name": volume, "ID": "never-seen" });
    assert_eq!(
        h1.plugin_call("VolumeDriver.Unmount", &unknown).err(),
        "",
        "Docker may repeat itself"
    );
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// A client that does not send what it announced is cut off, and meanwhile in nobody's way.
pub fn a_slow_client_is_cut_off(suite: &Suite) {
    let story = Story::beside(suite, "slow");
    let h1 = suite.h1();
    let mut half_a_head = h1.plugin_connect().expect("it listens");
    half_a_head.write_all(b"POST /VolumeDriver.Li").expect("written");
    let mut half_a_body = h1.plugin_connect().expect("it listens");
    let head = "POST /VolumeDriver.Create HTTP/1.1\r\nHost:\r\nContent-Length: 100\r\n\r\n{\"Na";
    half_a_body.write_all(head.as_bytes()).expect("written");
    let mut to_master = suite.master().connect().expect("it listens");
    to_master.write_all(b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Le").expect("written");

    let begin = Instant::now();
    let volume = story.create("db", "");
    h1.docker(&format!("volume rm {volume}")).ok();
    assert!(begin.elapsed() < Duration::from_secs(9), "others are served meanwhile");

    half_a_body.bound(LIMIT);
    let answer = http::read(&mut half_a_body, begin).expect("an answer");
    assert_eq!(answer.status, 408, "{answer}");
    for (who, stream) in
        [("volplugin", &mut half_a_head as &mut dyn Stream), ("volmaster", &mut to_master)]
    {
        stream.bound(LIMIT);
        match http::read(stream, begin) {
            Ok(answer) => assert_eq!(answer.status, 408, "{who}: {answer}"),
            Err(NoAnswer::Closed) => {}
            Err(NoAnswer::Silent) => panic!("{who} waits for ever"),
        }
    }
    story.until_nothing_is_left();
}

/// Volmaster answers everything with a problem that names what is wrong.
pub fn volmaster_takes_no_nonsense(suite: &Suite) {
    let story = Story::beside(suite, "rest");
    let master = suite.master();
    let volumes = "/v1/volumes";
    let tenant = format!("/v1/tenants/{}", story.tenant);
    let t = &story.tenant;
    let policy = |options: Value| json!({ "default-options": options });
    let table = [
        ("POST", volumes, json!({}), 400, "tenant"),
        ("POST", volumes, json!([1]), 400, ""),
        ("POST", volumes, json!({ "tenant": "a b", "name": "v" }), 400, "a b"),
        ("POST", volumes, json!({ "tenant": t, "name": "a/b" }), 400, "a/b"),
        ("POST", volumes, json!({ "tenant": t, "name": "v", "more": 1 }), 400, "more"),
        ("POST", volumes, json!({ "tenant": t, "name": "v", "options": { "x": "1" } }), 400, "x"),
        (
            "POST",
            volumes,
            json!({ "tenant": t, "name": "v", "options": { "size": "-1" } }),
            400,
            "-1",
        ),
        ("POST", volumes, json!({ "tenant": "nobody", "name": "v" }), 404, "nobody"),
        ("PUT", &tenant, policy(json!({ "size": "1XB" })), 400, "1XB"),
        (
            "PUT",
            &tenant,
            policy(json!({ "snapshot": { "frequency": "1 fortnight" } })),
            400,
            "fortnight",
        ),
        ("PUT", &tenant, json!({ "default-options": {}, "defaults": {} }), 400, "defaults"),
        ("PUT", &tenant, json!({}), 400, "default-options"),
        ("PUT", "/v1/tenants/a.b", policy(json!({})), 400, "a.b"),
        ("GET", "/v1/volumes?limit=0", Value::Null, 400, "limit"),
        ("GET", "/v1/volumes?colour=red", Value::Null, 400, "colour"),
        ("GET", "/v1/volumes/a%20b/c", Value::Null, 400, "a b"),
        ("GET", "/v1/volumes/nobody/nothing", Value::Null, 404, "nobody/nothing"),
        ("GET", "/v1/mounts/nobody/nothing", Value::Null, 404, "nobody/nothing"),
        ("GET", "/v1/nothing", Value::Null, 404, ""),
        ("PATCH", "/v1/status", Value::Null, 405, ""),
        ("DELETE", volumes, Value::Null, 405, ""),
    ];
    for (method, path, body, status, word) in table {
        let answer = master.send(method, path, &body);
        let context = format!("{method} {path} {body}: {answer}");
        assert_eq!(answer.status, status, "{context}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{context}");
        let problem = answer.json();
        for member in ["type", "title", "detail", "kind", "request_id"] {
            assert!(problem[member].is_string(), "{member} is missing: {context}");
        }
        assert_eq!(problem["status"], status, "{context}");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(word)), "{context}");
    }
    raw_requests(suite);
    let left = story.volcli(&format!("volume list {}", story.tenant));
    assert_eq!(left.ok(), "", "nothing came of it");
    assert_eq!(master.get(&tenant)["revision"], 1, "no bad policy was taken");
}

/// Bodies and types that are not what they say.
fn raw_requests(suite: &Suite) {
    let send = |head: &str, body: &[u8]| {
        let mut stream = suite.master().connect().expect("it listens");
        http::send(&mut stream, &http::whole(head, body), LIMIT).expect("an answer")
    };
    let post = "POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Type:";
    for (kind, body, statuses) in [
        ("application/json", "{", &[400][..]),
        ("application/json", "", &[400]),
        ("text/plain", "{\"tenant\":\"a\",\"name\":\"b\"}", &[415, 400]),
    ] {
        let answer = send(&format!("{post} {kind}"), body.as_bytes());
        assert!(statuses.contains(&answer.status), "{kind} {body:?}: {answer}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer}");
    }
    let huge = send(&format!("{post} application/json"), &vec![b' '; 20 << 20]);
    assert!(huge.json()["detail"].as_str().is_some_and(|text| text.contains("larger")), "{huge}");
    assert_eq!(huge.status, 400, "{huge}");
    assert_eq!(huge.header("content-type"), Some("application/problem+json"), "{huge}");
}
