//! What is wrong with a request is said in its answer, and changes nothing.

use crate::stage::{POLICY, Stage};

/// The detail of a refusal.
async fn refusal(client: &crate::client::Client, method: &str, path: &str, body: &str) -> String {
    let headers: &[&str] = if body.is_empty() { &[] } else { &["content-type: application/json"] };
    let answer = client.send(method, path, headers, body).await.expect(400);
    assert_eq!(answer.header("content-type").unwrap(), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["kind"], "invalid");
    assert_eq!(problem["request_id"], "test");
    problem["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn names() {
    let served = Stage::new().await.serve().await;
    let client = &served.client;
    let get = async |path: &str| refusal(client, "GET", path, "").await;
    insta::assert_snapshot!(get("/v1/tenants/a.b").await, @r#"tenant name "a.b" is not valid: 1 to 63 letters, digits, '_' or '-', the first a letter or digit"#);
    insta::assert_snapshot!(get("/v1/volumes/t/-v").await, @r#"volume name "-v" is not valid: 1 to 127 letters, digits, '_', '.' or '-', the first a letter or digit"#);
    insta::assert_snapshot!(get("/v1/volumes/t%2Fu/v").await, @r#"tenant name "t/u" is not valid: 1 to 63 letters, digits, '_' or '-', the first a letter or digit"#);
    insta::assert_snapshot!(get("/v1/volumes/t/%ff").await, @"Invalid UTF-8 in `volume`");
    insta::assert_snapshot!(get("/v1/hosts/h%20").await, @r#"host name "h " is not valid: 1 to 253 letters, digits, '_', '.' or '-', the first a letter or digit"#);
    insta::assert_snapshot!(get("/v1/tenants/t/revisions/0").await, @"a revision is a whole number from 1 on");
    get("/v1/tenants/t/revisions/x").await;
    get("/v1/tenants/t/revisions/99999999999").await;
    get(&format!("/v1/volumes/t/{}", "v".repeat(128))).await;
    let create = async |body: &str| refusal(client, "POST", "/v1/volumes", body).await;
    insta::assert_snapshot!(create(r#"{"tenant": "t", "name": "../x"}"#).await, @r#"the body is not valid: volume name "../x" is not valid: 1 to 127 letters, digits, '_', '.' or '-', the first a letter or digit at line 1 column 31"#);
    create(r#"{"tenant": "", "name": "v"}"#).await;
}

#[tokio::test]
async fn policies() {
    let served = Stage::new().await.serve().await;
    let client = &served.client;
    let put = async |body: &str| refusal(client, "PUT", "/v1/tenants/t", body).await;
    insta::assert_snapshot!(put("").await, @"the body is not valid: EOF while parsing a value at line 1 column 0");
    insta::assert_snapshot!(put("{").await, @"the body is not valid: EOF while parsing an object at line 1 column 1");
    insta::assert_snapshot!(put("{}").await, @"the body is not valid: missing field `default-options` at line 1 column 2");
    insta::assert_snapshot!(put(r#"{"default-options": {"mount-options": ["noatime", "noload"]}}"#).await, @r#"the policy of tenant t is not valid: default-options.mount-options: mount option "noload" cannot be used: it leaves out the journal, and volplugin sets it where a volume is read-only"#);
    insta::assert_snapshot!(put(r#"{"default-options": {"sise": "10MB"}}"#).await, @"the body is not valid: unknown field `sise`, expected one of `pool`, `size`, `filesystem`, `ephemeral`, `on-remove`, `snapshots`, `snapshot`, `rate-limit`, `access`, `mount-options`, `map-options`, `sharing`, `from` at line 1 column 27");
    insta::assert_snapshot!(put(r#"{"default-options": {"size": "10 apples"}}"#).await, @r#"the body is not valid: size "10 apples" is not a number with a unit such as 10MB, 512MiB or 2T at line 1 column 40"#);
    insta::assert_snapshot!(put(r#"{"default-options": {"size": "1KB"}}"#).await, @r#"the body is not valid: size "1KB" is out of range: the smallest volume has 1 MiB, the largest 1 EiB at line 1 column 34"#);
    insta::assert_snapshot!(put(r#"{"default-options": {"size": 10.5}}"#).await, @r#"the body is not valid: invalid type: floating point `10.5`, expected a size such as "10MB" at line 1 column 33"#);
    insta::assert_snapshot!(put(r#"{"default-options": {"snapshots": true}}"#).await, @r#"the policy of tenant t is not valid: snapshots is true, so snapshot.frequency is needed, such as "30m""#);
    insta::assert_snapshot!(put(r#"{"default-options": {"snapshot": {"frequency": "1month"}}}"#).await, @r#"the body is not valid: duration "1month" is not like 30m, 1h30m, 500ms, 1d or 2w at line 1 column 56"#);
    insta::assert_snapshot!(put(r#"{"default-options": {"filesystem": "xfs"}}"#).await, @"the policy of tenant t is not valid: default-options.filesystem is xfs, which is not among filesystems (ext4)");
    insta::assert_snapshot!(put(r#"{"default-options": {}, "filesystems": {"ext4": "mkfs.ext4"}}"#).await, @r#"the body is not valid: format command "mkfs.ext4" has no % for the device, as in "mkfs.ext4 -m0 %" at line 1 column 60"#);
    insta::assert_snapshot!(put(&format!("{POLICY}x")).await, @"the body is not valid: trailing characters at line 1 column 38");
    assert_eq!(client.get("/v1/tenants/t").await.json()["revision"], 1);
}

#[tokio::test]
async fn options() {
    let served = Stage::new().await.serve().await;
    let client = &served.client;
    let create = async |options: &str| {
        let body = format!(r#"{{"tenant": "t", "name": "v", "options": {options}}}"#);
        refusal(client, "POST", "/v1/volumes", &body).await
    };
    insta::assert_snapshot!(create(r#"{"colour": "red"}"#).await, @r#"unknown option "colour"; the options are pool, size, filesystem, ephemeral, on-remove, snapshots, snapshots.frequency, snapshots.keep, snapshot.retention, snapshot.freeze, rate-limit.write.iops, rate-limit.read.iops, rate-limit.write.bps, rate-limit.read.bps, access, mount-options, map-options, sharing, from"#);
    insta::assert_snapshot!(create(r#"{"size": "tall"}"#).await, @r#"option size="tall": size "tall" is not a number with a unit such as 10MB, 512MiB or 2T"#);
    insta::assert_snapshot!(create(r#"{"ephemeral": "maybe"}"#).await, @r#"option ephemeral="maybe": it is true or false"#);
    insta::assert_snapshot!(create(r#"{"filesystem": "xfs"}"#).await, @"volume t/v cannot be made: file system xfs is not in the tenant's policy (it has ext4)");
    insta::assert_snapshot!(create(r#"{"from": "w"}"#).await, @r#"option from="w": it is tenant/volume or tenant/volume@snapshot"#);
    insta::assert_snapshot!(create(r#"{"from": "t/v"}"#).await, @"volume t/v cannot be cloned from itself: give the clone another name");
    insta::assert_snapshot!(create(r#"{"from": "t/v@before"}"#).await, @"volume t/v cannot be cloned from itself: give the clone another name");
    insta::assert_snapshot!(create(r#"{"mount-options": "noatime,,discard"}"#).await, @r#"option mount-options="noatime,,discard": a mount option is 1 to 200 letters, digits and _-=.:/+%"#);
    insta::assert_snapshot!(create(r#"{"mount-options": "nosuid,suid"}"#).await, @r#"volume t/v cannot be made: mount options "nosuid" and "suid" contradict each other; give one of them"#);
    insta::assert_snapshot!(create(r#"{"size": 10}"#).await, @"the body is not valid: invalid type: integer `10`, expected a string at line 1 column 51");
    insta::assert_snapshot!(create(r#"{"ephemeral": "true", "on-remove": "keep"}"#).await, @"volume t/v cannot be made: ephemeral: true and on-remove: keep contradict each other; give one of them");
    insta::assert_snapshot!(create(r#"{"pool": "nowhere"}"#).await, @"could not create volume t/v: pool nowhere does not exist; tell the fake to have one");
    client.get("/v1/volumes/t/v").await.expect(404);
    let nobody = r#"{"tenant": "nobody", "name": "v"}"#;
    insta::assert_snapshot!(client.post("/v1/volumes", nobody).await.shown(), @r#"
    404 application/problem+json
    {"type":"urn:volplugin:problem:not_found","title":"not found","status":404,"detail":"tenant nobody does not exist: upload its policy with `volcli tenant upload nobody < policy.json`","kind":"not_found","request_id":"test"}
    "#);
}

#[tokio::test]
async fn changes() {
    let served = Stage::new().await.serve().await;
    let client = &served.client;
    let create = r#"{"tenant": "t", "name": "v"}"#;
    let made = client.post("/v1/volumes", create).await.expect(201).json();
    let set = async |body: &str| refusal(client, "PATCH", "/v1/volumes/t/v", body).await;
    let options = async |options: &str| set(&format!(r#"{{"options": {options}}}"#)).await;
    insta::assert_snapshot!(set("{}").await, @"the body is not valid: missing field `options` at line 1 column 2");
    insta::assert_snapshot!(set(r#"{"options": {}, "size": "1GB"}"#).await, @"the body is not valid: unknown field `size`, expected `options` at line 1 column 22");
    insta::assert_snapshot!(options(r#"{"size": "1MB"}"#).await, @"volume t/v cannot be changed so: its size is 10 MiB, and volumes only grow: 1 MiB is less");
    insta::assert_snapshot!(options(r#"{"size": "2EiB"}"#).await, @r#"option size="2EiB": size "2EiB" is out of range: the smallest volume has 1 MiB, the largest 1 EiB"#);
    insta::assert_snapshot!(options(r#"{"rate-limit.write.bps": "1MB", "access": "fuse"}"#).await, @"option access cannot be changed by set: hosts use the volume as it was created; create another volume that has it; set changes size, snapshots, snapshots.frequency, snapshots.keep, snapshot.retention, snapshot.freeze, rate-limit.write.iops, rate-limit.read.iops, rate-limit.write.bps, rate-limit.read.bps");
    insta::assert_snapshot!(options(r#"{"from": "t/w"}"#).await, @"option from cannot be changed by set: the data of another volume was copied when it was created; clone that one again; set changes size, snapshots, snapshots.frequency, snapshots.keep, snapshot.retention, snapshot.freeze, rate-limit.write.iops, rate-limit.read.iops, rate-limit.write.bps, rate-limit.read.bps");
    insta::assert_snapshot!(options(r#"{"rate-limit.write.bps": "fast"}"#).await, @r#"option rate-limit.write.bps="fast": it is bytes per second, such as 100000000 or 100MB; 0 for no limit"#);
    insta::assert_snapshot!(options(r#"{"snapshots": "true"}"#).await, @r#"volume t/v cannot be changed so: snapshots is true, so snapshot.frequency is needed, such as "30m""#);
    insta::assert_snapshot!(options(r#"{"snapshots.keep": "3"}"#).await, @"volume t/v cannot be changed so: snapshots.keep says nothing while snapshots are off: set snapshots=true with it");
    let colour = options(r#"{"colour": "red"}"#).await;
    assert!(colour.starts_with(r#"unknown option "colour""#), "{colour}");
    assert_eq!(client.get("/v1/volumes/t/v").await.json(), made);
}

/// What needs no body takes an empty one, an empty object, and nothing that it would not heed.
#[tokio::test]
async fn bodies_that_nobody_asked_for() {
    let served = Stage::new().await.serve().await;
    let client = &served.client;
    client.post("/v1/volumes", r#"{"tenant": "t", "name": "v"}"#).await.expect(201);
    client.post("/v1/volumes/t/v/snapshots", r#"{"name": "s"}"#).await.expect(201);
    let roll_back = "/v1/volumes/t/v/snapshots/s/rollback";
    for path in ["/v1/volumes/t/v/flatten", roll_back] {
        let before = client.get("/v1/volumes/t/v").await.json();
        let unknown = refusal(client, "POST", path, r#"{"snapshot": "x"}"#).await;
        assert!(
            unknown.starts_with("the body is not valid: unknown field `snapshot`"),
            "{path}: {unknown}"
        );
        for wrong in ["[]", "x", "null", "{", " "] {
            let refused = refusal(client, "POST", path, wrong).await;
            assert!(refused.starts_with("the body is not valid: "), "{path} {wrong}: {refused}");
        }
        let text = client.send("POST", path, &["content-type: text/plain"], "{}").await;
        text.expect(400);
        assert_eq!(client.get("/v1/volumes/t/v").await.json(), before);
    }
    for body in ["", "{}"] {
        client.post(roll_back, body).await.expect(200);
        client.post("/v1/volumes/t/v/flatten", body).await.expect(200);
    }
}

#[tokio::test]
async fn bodies() {
    let served = Stage::new().await.serve().await;
    let client = &served.client;
    let create = async |body: &str| refusal(client, "POST", "/v1/volumes", body).await;
    insta::assert_snapshot!(create(r#"{"tenant": "t"}"#).await, @"the body is not valid: missing field `name` at line 1 column 15");
    insta::assert_snapshot!(create(r#"{"tenant": "t", "name": "v", "x": 1}"#).await, @"the body is not valid: unknown field `x`, expected one of `tenant`, `name`, `options` at line 1 column 32");
    insta::assert_snapshot!(create(r#" ["t", "v", {}]"#).await, @"the body is not valid: it is not an object of JSON");
    insta::assert_snapshot!(create("tenant=t&name=v").await, @"the body is not valid: it is not an object of JSON");
    create("\u{0}").await;
    let claim = async |body: &str| refusal(client, "PUT", "/v1/mounts/t/v", body).await;
    insta::assert_snapshot!(claim(r#"{"host": "h1"}"#).await, @"the body is not valid: missing field `boot_id` at line 1 column 14");
    insta::assert_snapshot!(claim(r#"{"host": "h1", "boot_id": "b", "state": "fencing"}"#).await, @"the body is not valid: unknown variant `fencing`, expected `claimed` or `mounted` at line 1 column 49");
    let session = async |body: &str| refusal(client, "PUT", "/v1/hosts/h/session", body).await;
    insta::assert_snapshot!(session(r#"{"instance_id": "x", "boot_id": "b", "version": "1"}"#).await, @"the body is not valid: UUID parsing failed: invalid character: found `x` at 0 at line 1 column 19");
    let global = async |body: &str| refusal(client, "PUT", "/v1/global", body).await;
    insta::assert_snapshot!(global(r#"{"session-ttl": "1s"}"#).await, @r#"the body is not valid: session-ttl "1s" is out of range: at least 2s, at most 1h at line 1 column 21"#);
    insta::assert_snapshot!(global(r#"{"session_ttl": "10s"}"#).await, @"the body is not valid: unknown field `session_ttl`, expected `session-ttl` or `trash-retention` at line 1 column 14");

    let huge = format!(
        r#"{{"tenant": "t", "name": "v", "options": {{"size": "{}"}}}}"#,
        "1".repeat(300_000)
    );
    insta::assert_snapshot!(create(&huge).await, @"the body is larger than 256 KiB");
    let announced = "POST /v1/volumes HTTP/1.1\r\nhost: x\r\nx-request-id: test\r\nconnection: close\r\n\
                     content-length: 99999999999\r\n\r\n";
    client.raw(announced).await.expect(400);
    let chunks = "10000\r\n".to_owned() + &"x".repeat(0x10000) + "\r\n";
    let chunked = "POST /v1/volumes HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    client.raw(&format!("{chunked}{}0\r\n\r\n", chunks.repeat(5))).await.expect(400);
    client.get("/v1/volumes/t/v").await.expect(404);
}

#[tokio::test]
async fn content_types() {
    let served = Stage::new().await.serve().await;
    let client = &served.client;
    let body = r#"{"tenant": "t", "name": "v"}"#;
    for wrong in
        ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx", "\u{fffd}"]
    {
        let header = format!("content-type: {wrong}");
        let answer = client.send("POST", "/v1/volumes", &[&header], body).await.expect(400);
        assert!(answer.text().contains("not application/json"), "{}", answer.text());
    }
    for right in
        ["content-type: application/json; charset=utf-8", "content-type: Application/JSON", "x: y"]
    {
        let answer = client.send("POST", "/v1/volumes", &[right], body).await;
        assert!(answer.status < 300, "{right}: {}", answer.text());
    }
}

#[tokio::test]
async fn queries() {
    let served = Stage::new().await.serve().await;
    let client = &served.client;
    let get = async |path: &str| refusal(client, "GET", path, "").await;
    insta::assert_snapshot!(get("/v1/volumes?limit=0").await, @"limit is 0: at least 1, at most 20000");
    insta::assert_snapshot!(get("/v1/volumes?limit=20001").await, @"limit is 20001: at least 1, at most 20000");
    insta::assert_snapshot!(get("/v1/volumes?limit=many").await, @"the query is not valid: limit: invalid digit found in string");
    insta::assert_snapshot!(get("/v1/volumes?colour=red").await, @"the query is not valid: colour: unknown field `colour`, expected one of `tenant`, `limit`, `continue`, `view`");
    insta::assert_snapshot!(get("/v1/volumes?view=wide").await, @"the query is not valid: view: unknown variant `wide`, expected `full` or `brief`");
    insta::assert_snapshot!(get("/v1/volumes?tenant=a.b").await, @r#"tenant cannot be looked for: tenant name "a.b" is not valid: 1 to 63 letters, digits, '_' or '-', the first a letter or digit"#);
    insta::assert_snapshot!(get("/v1/volumes?continue=x").await, @r#"continue="x" is not from an earlier page: volume "x" names no tenant: write it as tenant/volume, or start volplugin with --default-tenant"#);
    insta::assert_snapshot!(get("/v1/volumes/t/v?x=1").await, @"the query is not valid: unknown field `x`, there are none");
    get("/v1/volumes?limit=1&limit=2").await;
    get("/v1/tenants?tenant=t").await;
    get("/v1/mounts?limit=0").await;
    let delete = async |path: &str| refusal(client, "DELETE", path, "").await;
    insta::assert_snapshot!(delete("/v1/mounts/t/v").await, @"a release is by its holder (host and boot_id), or of the whole claim (force=true, with unsafe=true without fencing)");
    delete("/v1/mounts/t/v?host=h1").await;
    delete("/v1/mounts/t/v?host=h1&boot_id=b1&force=true").await;
    delete("/v1/mounts/t/v?force=yes").await;
    delete("/v1/volumes/t/v?metadata-only=true&disposal=trash").await;
    delete("/v1/volumes/t/v?force=true").await;
}

#[tokio::test]
async fn paths_methods_and_ids() {
    let served = Stage::new().await.serve().await;
    let client = &served.client;
    insta::assert_snapshot!(client.get("/v2").await.shown(), @r#"
    404 application/problem+json
    {"type":"urn:volplugin:problem:invalid","title":"not found","status":404,"detail":"there is no path /v2; /v1/openapi.json has them all","kind":"invalid","request_id":"test"}
    "#);
    client.get("/v1/volumes/").await.expect(404);
    client.get("/v1/volumes/t").await.expect(404);
    client.get("/v1/volumes/t/v/w").await.expect(404);
    let wrong = client.send("POST", "/v1/global", &[], "").await;
    insta::assert_snapshot!(wrong.shown(), @r#"
    405 application/problem+json
    {"type":"urn:volplugin:problem:invalid","title":"method not allowed","status":405,"detail":"/v1/global has no method POST","kind":"invalid","request_id":"test"}
    "#);
    assert_eq!(wrong.header("allow").unwrap(), "GET,HEAD,PUT");
    client.send("PATCH", "/v1/volumes", &[], "").await.expect(405);
    client.send("BREW", "/v1", &[], "").await.expect(405);

    let id = |answer: &crate::client::Answer| answer.header("x-request-id").unwrap();
    assert_eq!(id(&client.get("/v1").await), "test");
    let long = format!("x-request-id: {}", "a".repeat(65));
    for strange in [long.as_str(), "x-request-id: a b", "x-request-id: ", "x-request-id: \u{e4}"] {
        let made = id(&client.send("GET", "/v1", &[strange], "").await);
        assert_eq!(made.len(), 36, "{made}");
    }
    // What is no HTTP at all is answered by hyper, without a body.
    client.raw("nonsense\r\n\r\n").await.expect(400);
}
