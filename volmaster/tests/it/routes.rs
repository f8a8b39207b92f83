//! Every route, used as it is meant.

use serde_json::{Value, json};
use volapi::routes::ROUTES;
use volstore::store::Store;

use crate::stage::{POLICY, Stage};

const CREATE: &str = r#"{"tenant": "t", "name": "v"}"#;
const CLAIM: &str = r#"{"host": "h1", "boot_id": "b1", "mount_ids": ["m1"]}"#;
const INSTANCE: &str = "00000000-0000-0000-0000-000000000001";

/// An answer without what differs from run to run.
fn steady(mut value: Value) -> Value {
    fn visit(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match name.as_str() {
                        "uid" | "created_at" | "uploaded_at" | "since" | "id" | "removed_at"
                        | "purge_after" | "last" | "next" => *value = json!("…"),
                        _ => visit(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(visit),
            _ => {}
        }
    }
    visit(&mut value);
    value
}

fn lines(value: Value) -> String {
    serde_json::to_string_pretty(&steady(value)).unwrap()
}

#[tokio::test]
async fn every_route_of_the_table_is_served() {
    let served = Stage::new().await.serve().await;
    for route in ROUTES {
        let path = route
            .path
            .replace("{tenant}", "x")
            .replace("{volume}", "y")
            .replace("{host}", "h")
            .replace("{snapshot}", "s")
            .replace("{id}", "0")
            .replace("{revision}", "1");
        let answer = served.client.send(route.method, &path, &[], "").await;
        let known = answer.status != 405 && !answer.text().contains("there is no path");
        assert!(known, "{} {}: {}", route.method, route.path, answer.text());
        if route.method == "GET" {
            let head = served.client.send("HEAD", &path, &[], "").await;
            assert_eq!((head.status, head.text().as_str()), (answer.status, ""), "{path}");
        }
        // The operation is counted under the name that the table gives it.
        let metrics = served.client.get("/metrics").await.text();
        let counted = format!("operation=\"{}\"", route.operation);
        assert!(route.operation == "metrics" || metrics.contains(&counted), "{counted}");
    }
}

#[tokio::test]
async fn tenants() {
    let served = Stage::bare().serve().await;
    let client = &served.client;
    let other = r#"{"default-options": {"size": "20MB"}}"#;
    let first = client.put("/v1/tenants/t", POLICY).await.expect(201);
    insta::assert_snapshot!(lines(first.json()), @r#"
    {
      "name": "t",
      "policy": {
        "default-options": {
          "size": "10 MiB"
        },
        "filesystems": {
          "ext4": "mkfs.ext4 -m0 %"
        }
      },
      "revision": 1,
      "uploaded_at": "…"
    }
    "#);
    assert_eq!(client.put("/v1/tenants/t", POLICY).await.expect(200).json()["revision"], 1);
    assert_eq!(client.put("/v1/tenants/t", other).await.expect(200).json()["revision"], 2);
    assert_eq!(client.get("/v1/tenants/t").await.expect(200).json()["revision"], 2);
    let revisions = client.get("/v1/tenants/t/revisions").await.expect(200).json();
    assert_eq!(revisions["items"].as_array().unwrap().len(), 2);
    let one = client.get("/v1/tenants/t/revisions/1").await.expect(200).json();
    assert_eq!(one, first.json());

    client.put("/v1/tenants/s", POLICY).await.expect(201);
    let list = client.get("/v1/tenants").await.expect(200).json();
    let names: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
    assert_eq!(names, ["s", "t"]);

    assert_eq!(client.delete("/v1/tenants/t").await.expect(204).text(), "");
    client.delete("/v1/tenants/t").await.expect(404);
    client.get("/v1/tenants/t").await.expect(404);
    client.get("/v1/tenants/t/revisions/2").await.expect(200);
    // Its uploads go on being counted.
    assert_eq!(client.put("/v1/tenants/t", POLICY).await.expect(201).json()["revision"], 3);
}

#[tokio::test]
async fn volumes() {
    let stage = Stage::new().await;
    let served = stage.serve().await;
    let client = &served.client;
    let made = client.post("/v1/volumes", CREATE).await.expect(201);
    insta::assert_snapshot!(lines(made.json()), @r#"
    {
      "created_at": "…",
      "format": "mkfs.ext4 -m0 %",
      "image": {
        "driver": "file",
        "path": "/fake/rbd/t.v"
      },
      "name": "v",
      "options": {
        "access": "auto",
        "ephemeral": false,
        "filesystem": "ext4",
        "map-options": [],
        "mount-options": [],
        "on-remove": "keep",
        "pool": "rbd",
        "sharing": "host",
        "size": "10 MiB",
        "snapshots": false
      },
      "policy_revision": 1,
      "state": "ready",
      "tenant": "t",
      "uid": "…"
    }
    "#);
    let again = client.post("/v1/volumes", CREATE).await.expect(200);
    assert_eq!(again.json(), made.json());
    assert_eq!(client.get("/v1/volumes/t/v").await.expect(200).json(), made.json());
    let other = r#"{"tenant": "t", "name": "v", "options": {"size": "1GB"}}"#;
    insta::assert_snapshot!(client.post("/v1/volumes", other).await.shown(), @r#"
    409 application/problem+json
    {"type":"urn:volplugin:problem:conflict","title":"it exists with another content","status":409,"detail":"volume t/v exists with other options: size is 10 MiB, asked for 1 GiB","kind":"conflict","request_id":"test"}
    "#);

    let list = client.get("/v1/volumes").await.expect(200).json();
    assert_eq!(list, json!({"items": [made.json()]}));
    let brief = client.get("/v1/volumes?view=brief").await.expect(200).json();
    insta::assert_snapshot!(steady(brief), @r#"{"items":[{"created_at":"…","state":"ready","volume":"t/v"}]}"#);

    client.put("/v1/mounts/t/v", CLAIM).await.expect(201);
    assert_eq!(client.get("/v1/volumes/t/v").await.json()["mount"]["host"], "h1");
    assert_eq!(client.get("/v1/volumes").await.json()["items"][0]["mount"]["host"], "h1");
    let refused = client.delete("/v1/volumes/t/v").await.expect(409);
    assert_eq!(refused.json()["kind"], "in_use");
    client.delete("/v1/mounts/t/v?host=h1&boot_id=b1").await.expect(204);

    let removed = client.delete("/v1/volumes/t/v").await.expect(200);
    assert_eq!(removed.json(), json!({"volume": "t/v"}));
    client.get("/v1/volumes/t/v").await.expect(404);
    insta::assert_snapshot!(client.delete("/v1/volumes/t/v").await.shown(), @r#"
    404 application/problem+json
    {"type":"urn:volplugin:problem:not_found","title":"not found","status":404,"detail":"volume t/v does not exist","kind":"not_found","request_id":"test"}
    "#);
    stage.settle(&served.app).await;
    assert_eq!(stage.left().await, [""; 0]);
}

#[tokio::test]
async fn volumes_are_changed() {
    let stage = Stage::new().await;
    let served = stage.serve().await;
    let client = &served.client;
    client.post("/v1/volumes", CREATE).await.expect(201);
    client.put("/v1/mounts/t/v", CLAIM).await.expect(201);
    let limits = r#"{"options": {"rate-limit.write.bps": "2MB", "rate-limit.read.iops": "100"}}"#;
    let changed = client.patch("/v1/volumes/t/v", limits).await.expect(200).json();
    assert_eq!(
        changed["options"]["rate-limit"],
        json!({"write-bps": 2 << 20, "read-iops": 100}),
        "{changed}"
    );
    assert_eq!(changed["mount"]["host"], "h1", "it is held meanwhile");
    assert_eq!(client.get("/v1/volumes/t/v").await.json(), changed);
    let held = client.get("/v1/hosts/h1/limits").await.expect(200).json();
    insta::assert_snapshot!(steady(held), @r#"{"items":[{"epoch":1,"rate-limit":{"read-iops":100,"write-bps":2097152},"size":10485760,"uid":"…","volume":"t/v"}]}"#);
    assert_eq!(client.get("/v1/hosts/h2/limits").await.expect(200).json(), json!({"items": []}));

    // The same again writes nothing.
    let revision = stage.store.revision().await.unwrap();
    assert_eq!(client.patch("/v1/volumes/t/v", limits).await.expect(200).json(), changed);
    assert_eq!(
        client.patch("/v1/volumes/t/v", r#"{"options": {}}"#).await.expect(200).json(),
        changed
    );
    assert_eq!(stage.store.revision().await.unwrap(), revision);

    let schedule =
        r#"{"options": {"snapshots": "true", "snapshots.frequency": "1h", "snapshots.keep": "3"}}"#;
    let scheduled = client.patch("/v1/volumes/t/v", schedule).await.expect(200).json();
    assert_eq!(scheduled["options"]["snapshot"]["frequency"], "1h", "{scheduled}");
    let none = r#"{"options": {"rate-limit.write.bps": "0", "rate-limit.read.iops": "0", "snapshots": "false"}}"#;
    let cleared = client.patch("/v1/volumes/t/v", none).await.expect(200).json();
    assert_eq!(cleared["options"]["rate-limit"], Value::Null, "{cleared}");
    insta::assert_snapshot!(client.patch("/v1/volumes/t/x", limits).await.shown(), @r#"
    404 application/problem+json
    {"type":"urn:volplugin:problem:not_found","title":"not found","status":404,"detail":"volume t/x does not exist","kind":"not_found","request_id":"test"}
    "#);
}

#[tokio::test]
async fn removals_leave_behind_what_they_are_told_to() {
    let stage = Stage::new().await;
    let served = stage.serve().await;
    let client = &served.client;
    client.post("/v1/volumes", CREATE).await.expect(201);
    let removed = client.delete("/v1/volumes/t/v?metadata-only=true").await.expect(200).json();
    assert_eq!(removed, json!({"volume": "t/v", "left_behind": "image /fake/rbd/t.v"}));
    assert_eq!(stage.left().await, ["image t.v"]);
    // What is left behind is never formatted over.
    let taken = client.post("/v1/volumes", CREATE).await.expect(409);
    insta::assert_snapshot!(taken.shown(), @r#"
    409 application/problem+json
    {"type":"urn:volplugin:problem:conflict","title":"it exists with another content","status":409,"detail":"could not create volume t/v: image rbd/t.v exists already and was not made for this volume; it was left as it is (rename or remove it, or choose another volume name)","kind":"conflict","request_id":"test"}
    "#);
    assert_eq!(stage.left().await, ["image t.v"]);

    let trashed = r#"{"tenant": "t", "name": "w", "options": {"on-remove": "trash"}}"#;
    client.post("/v1/volumes", trashed).await.expect(201);
    let removed = client.delete("/v1/volumes/t/w").await.expect(200).json();
    let left = removed["left_behind"].as_str().unwrap();
    assert!(left.starts_with("image fake") && left.ends_with("in the trash of pool rbd"), "{left}");
    for name in volmaster::app::LoopName::ALL {
        volmaster::background::once(&served.app, name, &mut Default::default()).await.unwrap();
    }
    let left = stage.left().await;
    assert_eq!(left.len(), 3, "record, image, and the image left behind: {left:?}");
    client.post("/v1/volumes", trashed).await.expect(201);
    let removed = client.delete("/v1/volumes/t/w?disposal=delete").await.expect(200).json();
    assert_eq!(removed, json!({"volume": "t/w"}));
}

#[tokio::test]
async fn mounts() {
    let served = Stage::new().await.serve().await;
    let client = &served.client;
    client.post("/v1/volumes", CREATE).await.expect(201);
    insta::assert_snapshot!(client.get("/v1/mounts/t/v").await.shown(), @r#"
    404 application/problem+json
    {"type":"urn:volplugin:problem:not_found","title":"not found","status":404,"detail":"volume t/v is not in use by any host","kind":"not_found","request_id":"test"}
    "#);
    let granted = client.put("/v1/mounts/t/v", CLAIM).await.expect(201);
    insta::assert_snapshot!(lines(granted.json()), @r#"
    {
      "boot_id": "b1",
      "clients": [],
      "epoch": 1,
      "host": "h1",
      "mount_ids": [
        "m1"
      ],
      "since": "…",
      "state": "claimed",
      "volume": "t/v"
    }
    "#);
    assert_eq!(client.put("/v1/mounts/t/v", CLAIM).await.expect(200).json(), granted.json());
    let more = CLAIM.replace("\"m1\"", "\"m1\", \"m2\"").replace('}', r#", "state": "mounted"}"#);
    let renewed = client.put("/v1/mounts/t/v", &more).await.expect(200).json();
    assert_eq!((&renewed["epoch"], &renewed["state"]), (&json!(1), &json!("mounted")));
    assert_eq!(client.get("/v1/mounts/t/v").await.expect(200).json(), renewed);
    assert_eq!(client.get("/v1/mounts").await.expect(200).json(), json!({"items": [renewed]}));
    assert_eq!(client.get("/v1/mounts?tenant=x").await.expect(200).json(), json!({"items": []}));

    let other = CLAIM.replace("h1", "h2").replace("b1", "b2");
    let refused = client.put("/v1/mounts/t/v", &other).await.expect(409);
    insta::assert_snapshot!(refused.shown(), @r#"
    409 application/problem+json
    {"type":"urn:volplugin:problem:in_use","title":"it is in use","status":409,"detail":"volume t/v is in use: host h1 holds it since 1970-01-01T02:00:00Z; it is free when the containers that use it there have stopped. If that host is gone for good, `volcli mount force-remove t/v` clears its claim","kind":"in_use","request_id":"test"}
    "#);
    // Another boot's release, and one for nothing, change nothing.
    client.delete("/v1/mounts/t/v?host=h1&boot_id=b9").await.expect(204);
    client.delete("/v1/mounts/t/x?host=h1&boot_id=b9").await.expect(204);
    client.get("/v1/mounts/t/v").await.expect(200);
    client.delete("/v1/mounts/t/v?host=h1&boot_id=b1").await.expect(204);
    client.get("/v1/mounts/t/v").await.expect(404);
    // The epoch goes on over a time without any holder.
    assert_eq!(client.put("/v1/mounts/t/v", &other).await.expect(201).json()["epoch"], 2);
    client.delete("/v1/mounts/t/v?force=true").await.expect(204);
    assert_eq!(client.put("/v1/mounts/t/v", CLAIM).await.expect(201).json()["epoch"], 3);
    insta::assert_snapshot!(client.put("/v1/mounts/t/x", CLAIM).await.shown(), @r#"
    404 application/problem+json
    {"type":"urn:volplugin:problem:not_found","title":"not found","status":404,"detail":"volume t/x does not exist","kind":"not_found","request_id":"test"}
    "#);
}

#[tokio::test]
async fn hosts() {
    let stage = Stage::new().await;
    let served = stage.serve().await;
    let client = &served.client;
    let ask = |instance: &str, boot: &str, version: &str| {
        json!({"instance_id": instance, "boot_id": boot, "version": version}).to_string()
    };
    let opened = client.put("/v1/hosts/h1/session", &ask(INSTANCE, "b1", "1")).await.expect(200);
    insta::assert_snapshot!(lines(opened.json()), @r#"
    {
      "boot_id": "b1",
      "host": "h1",
      "instance_id": "00000000-0000-0000-0000-000000000001",
      "since": "…",
      "ttl": "10s",
      "version": "1"
    }
    "#);
    stage.pass(std::time::Duration::from_secs(3));
    // Another volmaster renews the same lease; since when stays.
    let second = stage.serve().await;
    let renewed = ask(INSTANCE, "b1", "2");
    let renewed = second.client.put("/v1/hosts/h1/session", &renewed).await.expect(200).json();
    assert_eq!((&renewed["since"], &renewed["version"]), (&opened.json()["since"], &json!("2")));
    let list = client.get("/v1/hosts").await.expect(200).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    client.get("/v1/hosts/h1").await.expect(200);

    let other = client.put("/v1/hosts/h1/session", &ask(INSTANCE, "b2", "2")).await.expect(409);
    let refusal = other.json();
    assert_eq!(refusal["kind"], "busy");
    let said = refusal["detail"].as_str().unwrap();
    assert!(said.starts_with("host label h1 is in use by another machine"), "{said}");
    // A claim of another boot under this label is not believed.
    client.post("/v1/volumes", CREATE).await.expect(201);
    let claim = CLAIM.replace("b1", "b2");
    let refused = client.put("/v1/mounts/t/v", &claim).await.expect(409).json();
    assert_eq!(refused["kind"], "conflict");

    client.delete("/v1/hosts/h1").await.expect(204);
    client.delete("/v1/hosts/h1").await.expect(404);
    insta::assert_snapshot!(client.get("/v1/hosts/h1").await.shown(), @r#"
    404 application/problem+json
    {"type":"urn:volplugin:problem:not_found","title":"not found","status":404,"detail":"host h1 is not known: it has no live session, and neither holds nor has lost a volume","kind":"not_found","request_id":"test"}
    "#);
    client.put("/v1/hosts/h1/session", &ask(INSTANCE, "b2", "2")).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn a_session_lapses_when_it_is_not_renewed() {
    let stage = Stage::new().await;
    let served = stage.serve().await;
    let body = json!({"instance_id": INSTANCE, "boot_id": "b1", "version": "1"}).to_string();
    let client = served.client;
    client.put("/v1/global", r#"{"session-ttl": "4s"}"#).await.expect(200);
    let opened = client.put("/v1/hosts/h1/session", &body).await.expect(200).json();
    assert_eq!(opened["ttl"], "4s");
    for _ in 0..5 {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let renewed = client.put("/v1/hosts/h1/session", &body).await.expect(200).json();
        assert_eq!(renewed["since"], opened["since"]);
    }
    // A new time to live holds from the next renewal on; the session stands.
    client.put("/v1/global", r#"{"session-ttl": "1m"}"#).await.expect(200);
    let longer = client.put("/v1/hosts/h1/session", &body).await.expect(200).json();
    assert_eq!((&longer["ttl"], &longer["since"]), (&json!("1m"), &opened["since"]));
    tokio::time::sleep(std::time::Duration::from_secs(50)).await;
    client.get("/v1/hosts/h1").await.expect(200);
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    client.get("/v1/hosts/h1").await.expect(404);
    let opened_anew = client.put("/v1/hosts/h1/session", &body).await.expect(200).json();
    assert_ne!(opened_anew["since"], opened["since"]);
}

#[tokio::test]
async fn settings_and_status() {
    let stage = Stage::new().await;
    let served = stage.serve().await;
    let client = &served.client;
    let defaults = json!({"session-ttl": "10s", "trash-retention": "1d"});
    assert_eq!(client.get("/v1/global").await.expect(200).json(), defaults);
    let body = r#"{"session-ttl": "30s"}"#;
    assert_eq!(client.put("/v1/global", body).await.expect(200).json()["session-ttl"], "30s");
    assert_eq!(client.get("/v1/global").await.expect(200).json()["session-ttl"], "30s");

    client.post("/v1/volumes", CREATE).await.expect(201);
    client.get("/v1/volumes").await.expect(200);
    let status = client.get("/v1/status").await.expect(200).json();
    assert_eq!(status["volumes"], 1);
    assert_eq!(status["images"]["ok"], true);
    assert_eq!(status["loops"].as_array().unwrap().len(), 5);
    assert_eq!(client.get("/healthz").await.expect(200).json(), json!({"status": "ok"}));
    assert_eq!(client.get("/readyz").await.expect(200).json(), json!({"status": "ok"}));
    let root = client.get("/v1").await.expect(200).json();
    assert_eq!(root["openapi"], "/v1/openapi.json");
    let document = client.get("/v1/openapi.json").await.expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let metrics = client.get("/metrics").await.expect(200);
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let created = r#"volmaster_requests_total{operation="volume_create",status="201"} 1"#;
    assert!(metrics.text().contains(created), "{}", metrics.text());
    assert!(metrics.text().contains("volmaster_volumes 1"), "{}", metrics.text());

    stage.images.go_down();
    insta::assert_snapshot!(client.get("/readyz").await.shown(), @r#"
    503 application/problem+json
    {"type":"urn:volplugin:problem:unavailable","title":"a part that is needed cannot be reached","status":503,"detail":"not ready: images: the fake cluster cannot be reached while trying to look at the cluster: the fake was told so","kind":"unavailable","request_id":"test"}
    "#);
    client.get("/healthz").await.expect(200);
    stage.images.come_up();
    stage.store.faults().go_down();
    client.get("/readyz").await.expect(503);
    let status = client.get("/v1/status").await.expect(200).json();
    assert_eq!(status["store"]["ok"], false);
    for path in ["/v1/volumes", "/v1/volumes/t/v", "/v1/mounts", "/v1/tenants/t", "/v1/global"] {
        assert_eq!(client.get(path).await.expect(503).json()["kind"], "unavailable", "{path}");
    }
    stage.store.faults().come_back();
    client.get("/v1/volumes").await.expect(200);
}

#[tokio::test]
async fn lists_come_in_pages_and_are_not_sent_twice() {
    let stage = Stage::new().await;
    let served = stage.serve().await;
    let client = &served.client;
    client.put("/v1/tenants/u", POLICY).await.expect(201);
    for id in ["t/a", "t/b", "t/c", "u/a"] {
        let (tenant, name) = id.split_once('/').unwrap();
        let body = json!({"tenant": tenant, "name": name}).to_string();
        client.post("/v1/volumes", &body).await.expect(201);
    }
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["volume"].as_str().unwrap().to_owned()).collect()
    };
    let page = client.get("/v1/volumes?view=brief&limit=2").await.expect(200).json();
    assert_eq!(names(&page), ["t/a", "t/b"]);
    assert_eq!(page["continue"], "t/b");
    let page = client.get("/v1/volumes?view=brief&limit=2&continue=t/b").await.expect(200).json();
    assert_eq!(names(&page), ["t/c", "u/a"]);
    assert_eq!(page["continue"], Value::Null);
    let page = client.get("/v1/volumes?view=brief&tenant=u").await.expect(200).json();
    assert_eq!(names(&page), ["u/a"]);

    let first = client.get("/v1/volumes?view=brief").await.expect(200);
    let etag = first.header("etag").unwrap();
    let known = format!("if-none-match: {etag}");
    let again = client.send("GET", "/v1/volumes?view=brief", &[&known], "").await.expect(304);
    assert_eq!((again.text(), again.header("etag")), (String::new(), Some(etag.clone())));
    // Another volmaster gives the same list the same etag.
    let second = stage.serve().await;
    second.client.send("GET", "/v1/volumes?view=brief", &[&known], "").await.expect(304);
    // A claim changes the full list, not the brief one.
    let full = client.get("/v1/volumes").await.expect(200).header("etag").unwrap();
    client.put("/v1/mounts/t/a", CLAIM).await.expect(201);
    client.send("GET", "/v1/volumes?view=brief", &[&known], "").await.expect(304);
    let known_full = format!("if-none-match: {full}");
    client.send("GET", "/v1/volumes", &[&known_full], "").await.expect(200);
    client.delete("/v1/volumes/t/b").await.expect(200);
    let changed = client.send("GET", "/v1/volumes?view=brief", &[&known], "").await.expect(200);
    assert_ne!(changed.header("etag").unwrap(), etag);
}

#[tokio::test]
async fn snapshots_and_clones() {
    let stage = Stage::new().await;
    let served = stage.serve().await;
    let client = &served.client;
    client.post("/v1/volumes", CREATE).await.expect(201);
    let all = "/v1/volumes/t/v/snapshots";
    let taken = client.post(all, r#"{"name": "before"}"#).await.expect(201);
    insta::assert_snapshot!(steady(taken.json()), @r#"{"created_at":"…","kind":"manual","name":"before","size":10485760,"volume":"t/v"}"#);
    assert_eq!(client.post(all, r#"{"name": "before"}"#).await.expect(200).json(), taken.json());
    let one = "/v1/volumes/t/v/snapshots/before";
    assert_eq!(client.get(one).await.expect(200).json(), taken.json());
    assert_eq!(client.get(all).await.expect(200).json(), json!({"items": [taken.json()]}));
    let counted = client.get(&format!("{all}?usage=true")).await.expect(200).json();
    assert_eq!(counted["items"][0]["name"], "before");
    client.get(&format!("{all}?usage=yes")).await.expect(400);
    let rolled = client.post(&format!("{one}/rollback"), "").await.expect(200).json();
    assert_eq!(rolled["state"], "ready");
    let clone = r#"{"tenant": "t", "name": "c", "options": {"from": "t/v@before"}}"#;
    let made = client.post("/v1/volumes", clone).await.expect(201).json();
    assert_eq!(made["options"]["from"], "t/v@before");
    client.delete(one).await.expect(204);
    client.delete(one).await.expect(404);
    client.get(one).await.expect(404);
    client.post(&format!("{one}/rollback"), "").await.expect(404);
    client.get("/v1/volumes/t/x/snapshots").await.expect(404);
    assert_eq!(client.get("/v1/schedules/due").await.expect(200).json(), json!({"items": []}));
}

#[tokio::test]
async fn schedules() {
    let stage = Stage::new().await;
    let served = stage.serve().await;
    let client = &served.client;
    let options = r#"{"snapshots": "1", "snapshots.frequency": "1m", "snapshots.keep": "3"}"#;
    let create = format!(r#"{{"tenant": "t", "name": "v", "options": {options}}}"#);
    client.post("/v1/volumes", &create).await.expect(201);
    stage.pass(std::time::Duration::from_secs(120));
    let due = client.get("/v1/schedules/due").await.expect(200).json();
    let name = due["items"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!(due["items"][0]["volume"], "t/v");
    let status = client.get("/v1/status").await.expect(200).json();
    assert_eq!(status["schedules"]["due"], 1);
    let take = json!({"name": name}).to_string();
    let taken = client.post("/v1/volumes/t/v/snapshots", &take).await.expect(201).json();
    assert_eq!((&taken["kind"], &taken["name"]), (&json!("scheduled"), &json!(name)));
    client.post("/v1/volumes/t/v/snapshots", &take).await.expect(200);
    let listed = client.get("/v1/schedules").await.expect(200).json();
    assert_eq!(listed["items"][0]["taken"], 1);
    insta::assert_snapshot!(steady(listed), @r#"{"items":[{"failed":0,"freeze":false,"frequency":"1m","keep":3,"last":"…","missed":0,"next":"…","taken":1,"volume":"t/v"}]}"#);
    let shown = client.get("/v1/volumes/t/v").await.expect(200).json();
    assert_eq!(shown["schedule"]["taken"], 1);
    client.get("/v1/schedules?tenant=nobody").await.expect(200);
    client.get("/v1/schedules?limit=0").await.expect(400);
}

#[tokio::test]
async fn the_trash() {
    let stage = Stage::new().await;
    let served = stage.serve().await;
    let client = &served.client;
    client.post("/v1/volumes", CREATE).await.expect(201);
    let removed = client.delete("/v1/volumes/t/v?disposal=trash").await.expect(200).json();
    assert!(removed["left_behind"].as_str().unwrap().contains("in the trash"), "{removed}");
    let listed = client.get("/v1/trash").await.expect(200).json();
    insta::assert_snapshot!(steady(listed.clone()), @r#"{"items":[{"id":"…","image":"t.v","image_id":"fake0001","pool":"rbd","purge_after":"…","removed_at":"…","restorable":true,"size":10485760,"volume":"t/v"}]}"#);
    let one = format!("/v1/trash/{}", listed["items"][0]["id"].as_str().unwrap());
    assert_eq!(client.get(&one).await.expect(200).json(), listed["items"][0]);
    let back = client.post(&format!("{one}/restore"), r#"{"volume": "t/w"}"#).await.expect(200);
    assert_eq!((&back.json()["name"], &back.json()["state"]), (&json!("w"), &json!("ready")));
    // Asked again after an answer that was lost, it is the same.
    let again = client.post(&format!("{one}/restore"), "{}").await.expect(200);
    assert_eq!(again.json()["name"], "w");
    client.delete(&one).await.expect(404);
    client.delete("/v1/volumes/t/w?disposal=trash").await.expect(200);
    let again = client.get("/v1/trash").await.expect(200).json();
    let one = format!("/v1/trash/{}", again["items"][0]["id"].as_str().unwrap());
    client.delete(&one).await.expect(204);
}
