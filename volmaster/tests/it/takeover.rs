//! A host is gone: its volumes go to others, once, and what it still does reaches nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use volcore::Kind;
use volcore::claim::{Claim, ClaimAsk, HoldState, Reached};
use volcore::name::{HostName, VolumeId};
use volmaster::app::hosts::{SessionAsk, WhileLive, host_fence, host_get, host_session};
use volmaster::app::mounts::{Granted, ReleaseAsk, mount_claim, mount_release};
use volmaster::app::volumes::volume_create;
use volmaster::app::{App, Failing, LoopName, presence};
use volmaster::background::{self, Seen};
use volstorage::fake::Fault;

use crate::faults::{EVERYTHING, Run, within};
use crate::mortal::{Hang, Mortal};
use crate::stage::{Stage, image, no_options, volume};

/// Longer than the time to live of a session.
const LONG: Duration = Duration::from_secs(11);

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn instance(name: &str) -> Uuid {
    Uuid::from_u128(u128::from(name.bytes().fold(7_u64, |sum, byte| sum * 31 + u64::from(byte))))
}

/// What a host asks for that has a session.
fn ask(name: &str, client: &str) -> ClaimAsk {
    ClaimAsk {
        host: host(name),
        boot: format!("boot-of-{name}").parse().unwrap(),
        instance: Some(instance(name)),
        epoch: None,
        state: Reached::Claimed,
        mounts: ["m1".parse().unwrap()].into(),
        clients: vec![client.to_owned()],
    }
}

async fn open(app: &App, name: &str) {
    let (instance, boot) = (instance(name), format!("boot-of-{name}").parse().unwrap());
    host_session(app, &host(name), &SessionAsk { instance, boot, version: "0".into() })
        .await
        .unwrap();
}

/// Lets time pass in which this volmaster is there, and these hosts are heard of.
async fn pass(apps: &[&Arc<App>], time: Duration, heard: &[&str]) {
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        for app in apps {
            presence::beat(app).await.unwrap();
        }
        for name in heard {
            open(apps[0], name).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Who has the lock of `t/v`.
fn owner(stage: &Stage) -> Option<String> {
    let images = stage.images.images(&"rbd".parse().unwrap());
    images.into_iter().find(|image| image.name == "t.v").unwrap().owner
}

/// A volume that h1 holds, which has not been heard of for longer than a session lives. `h2` asks for it.
async fn silent(stage: &Stage, app: &Arc<App>) -> VolumeId {
    let id = volume("t/v");
    volume_create(app, &id, &no_options()).await.unwrap();
    open(app, "h1").await;
    mount_claim(app, &id, ask("h1", "10.0.0.1:0/11")).await.unwrap();
    stage.images.lock_for(&image("t/v"), "10.0.0.1:0/11");
    pass(&[app], LONG, &["h2"]).await;
    id
}

fn granted(claim: Granted) -> Claim {
    match claim {
        Granted::Claimed(claim) => claim,
        Granted::Renewed(claim) => panic!("it was not granted anew: {claim:?}"),
    }
}

fn clients<const N: usize>(of: [&str; N]) -> BTreeSet<String> {
    of.iter().map(|client| (*client).to_owned()).collect()
}

async fn reconcile(app: &Arc<App>) {
    background::once(app, LoopName::Fencing, &mut Seen::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_loses_its_volume_to_the_next() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    let id = silent(&stage, &app).await;
    let new = granted(mount_claim(&app, &id, ask("h2", "10.0.0.2:0/22")).await.unwrap());
    assert_eq!((new.epoch, new.holders.len(), new.holders[0].host.as_str()), (2, 1, "h2"));
    assert_eq!(stage.images.blocklist(), clients(["10.0.0.1:0/11"]));
    assert_eq!(owner(&stage), None, "its lock is broken");

    // The old host comes back: its renewal is refused, and what it opens is another client.
    open(&app, "h1").await;
    let late = ClaimAsk { epoch: Some(1), ..ask("h1", "10.0.0.1:0/11") };
    let refused = mount_claim(&app, &id, late).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Precondition, "{refused}");
    let refused = mount_claim(&app, &id, ask("h1", "10.0.0.1:0/12")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::InUse);

    // As long as it has not said that nothing is left there, it is kept out.
    reconcile(&app).await;
    assert_eq!(stage.images.blocklist().len(), 1);
    let known = host_get(&app, &host("h1")).await.unwrap();
    assert_eq!((known.volumes.len(), known.fences.len()), (0, 1));
    let (h1, boot) = (host("h1"), "boot-of-h1".parse().unwrap());
    mount_release(&app, &id, &ReleaseAsk::Holder { host: h1, boot }).await.unwrap();
    assert_eq!(stage.images.blocklist(), clients([]));
    assert!(host_get(&app, &host("h1")).await.unwrap().fences.is_empty());
    let stands = stage.records().claim(&id).await.unwrap().unwrap().value;
    assert_eq!(stands, new, "the release took nothing from the new holder");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_heard_of_loses_nothing() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    let id = silent(&stage, &app).await;
    open(&app, "h1").await;
    let refused = mount_claim(&app, &id, ask("h2", "10.0.0.2:0/22")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::InUse);
    assert!(refused.to_string().contains("host h1 holds it since"), "{refused}");
    // One that never had a session cannot have lost it.
    let mute = ClaimAsk { instance: None, ..ask("h3", "10.0.0.3:0/33") };
    volume_create(&app, &volume("t/w"), &no_options()).await.unwrap();
    mount_claim(&app, &volume("t/w"), mute).await.unwrap();
    pass(&[&app], LONG, &["h2"]).await;
    mount_claim(&app, &volume("t/w"), ask("h2", "10.0.0.2:0/23")).await.unwrap_err();
    assert_eq!(stage.images.blocklist(), clients([]));
}

/// After an outage of etcd, or of all volmasters, every session has lapsed.
#[tokio::test(start_paused = true)]
async fn a_volmaster_that_was_away_gives_nobody_up() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    let id = silent(&stage, &app).await;
    // It stood still; when it goes on, it does not know that yet.
    tokio::time::sleep(LONG).await;
    open(&app, "h2").await;
    let refused = mount_claim(&app, &id, ask("h2", "10.0.0.2:0/22")).await.unwrap_err();
    assert!(refused.to_string().contains("has not been there for long enough"), "{refused}");
    // Nor does one that has just begun, nor one whose store was away.
    let fresh = stage.app();
    presence::beat(&fresh).await.unwrap();
    presence::beat(&app).await.unwrap();
    for app in [&fresh, &app] {
        mount_claim(app, &id, ask("h2", "10.0.0.2:0/22")).await.unwrap_err();
    }
    assert_eq!(stage.images.blocklist(), clients([]));
    pass(&[&app], LONG, &["h2"]).await;
    granted(mount_claim(&app, &id, ask("h2", "10.0.0.2:0/22")).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn of_many_who_ask_one_gets_it_and_the_host_is_fenced_once() {
    let stage = Stage::new().await.paused();
    let apps = [stage.app(), stage.app()];
    let id = silent(&stage, &apps[0]).await;
    let names: Vec<String> = (0..500).map(|n| format!("c{n}")).collect();
    for name in &names {
        open(&apps[0], name).await;
    }
    let mut heard: Vec<&str> = names.iter().map(String::as_str).collect();
    heard.push("h2");
    pass(&[&apps[0], &apps[1]], LONG, &heard).await;
    let asked: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let (app, id, ask) =
                (apps[n % 2].clone(), id.clone(), ask(name, &format!("10.0.1.1:0/{}", n + 1)));
            tokio::spawn(async move { mount_claim(&app, &id, ask).await })
        })
        .collect();
    let mut winners = Vec::new();
    for one in asked {
        match one.await.unwrap() {
            Ok(claim) => winners.push(granted(claim)),
            Err(error) => assert!(matches!(error.kind(), Kind::InUse | Kind::Busy), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(winners[0].epoch, 2);
    let effects = stage.images.faults().effects();
    assert_eq!(effects.iter().filter(|effect| **effect == "fence the clients").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rebooted_host_gets_its_volume_back_and_is_let_in_again() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    let id = silent(&stage, &app).await;
    let boot = "second-boot".parse().unwrap();
    let session = SessionAsk { instance: instance("h1"), boot, version: "0".into() };
    host_session(&app, &host("h1"), &session).await.unwrap();
    let again = ClaimAsk { boot: session.boot.clone(), ..ask("h1", "10.0.0.1:0/12") };
    let new = granted(mount_claim(&app, &id, again).await.unwrap());
    assert_eq!(new.epoch, 2);
    assert_eq!(stage.images.blocklist(), clients(["10.0.0.1:0/11"]));
    reconcile(&app).await;
    assert_eq!(stage.images.blocklist(), clients([]));
    assert!(stage.records().fences(None).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_host_is_fenced_on_demand() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    let ids = ["t/a", "t/b", "t/c"].map(volume);
    open(&app, "h1").await;
    open(&app, "h2").await;
    for (n, id) in ids.iter().enumerate() {
        volume_create(&app, id, &no_options()).await.unwrap();
        let (name, client) = if n == 2 { ("h2", "10.0.0.2:0/22") } else { ("h1", "10.0.0.1:0/1") };
        mount_claim(&app, id, ask(name, &format!("{client}{n}"))).await.unwrap();
    }
    // Whose client it is that has the lock, though nothing was recorded of it.
    stage.images.lock_for(&image("t/a"), "10.0.0.1:0/99");
    let refused = host_fence(&app, &host("nobody"), WhileLive::Fence).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound, "{refused}");
    let refused = host_fence(&app, &host("h1"), WhileLive::Refuse).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::InUse, "{refused}");
    assert_eq!(stage.images.blocklist(), clients([]));
    let came = host_fence(&app, &host("h1"), WhileLive::Fence).await.unwrap();
    assert_eq!((came.fenced.len(), came.pending.len()), (2, 0), "{came:?}");
    let expected = clients(["10.0.0.1:0/10", "10.0.0.1:0/11", "10.0.0.1:0/99"]);
    assert_eq!(stage.images.blocklist(), expected);
    for id in &ids[..2] {
        assert!(stage.records().claim(id).await.unwrap().is_none());
        // What is free again is not renewed by the one who has lost it.
        open(&app, "h1").await;
        let late = ClaimAsk { epoch: Some(1), ..ask("h1", "10.0.0.1:0/10") };
        assert_eq!(mount_claim(&app, id, late).await.unwrap_err().kind(), Kind::Precondition);
    }
    assert!(stage.records().claim(&ids[2]).await.unwrap().is_some(), "of another host");
    let again = host_fence(&app, &host("h1"), WhileLive::Fence).await.unwrap();
    assert!(again.fenced.is_empty() && again.pending.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_others_write_with_is_not_fenced() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    let id = silent(&stage, &app).await;
    volume_create(&app, &volume("t/w"), &no_options()).await.unwrap();
    mount_claim(&app, &volume("t/w"), ask("h2", "10.0.0.2:0/22")).await.unwrap();
    stage.images.change(&image("t/v"), |image| image.owner = Some("10.0.0.2:0/22".into()));
    let refused = mount_claim(&app, &id, ask("h2", "10.0.0.2:0/23")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::InUse);
    assert!(refused.to_string().contains("t/w"), "{refused}");
    assert_eq!(stage.images.blocklist(), clients([]));
}

/// The process that served the image was killed, and its host has cleaned up.
#[tokio::test(start_paused = true)]
async fn the_lock_that_a_host_has_left_goes_with_its_claim() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    let id = silent(&stage, &app).await;
    let (h1, boot) = (host("h1"), "boot-of-h1".parse().unwrap());
    mount_release(&app, &id, &ReleaseAsk::Holder { host: h1, boot }).await.unwrap();
    assert_eq!(owner(&stage), None);
    assert_eq!(stage.images.blocklist(), clients([]));
    // Not that of whoever was let in since.
    mount_claim(&app, &id, ask("h2", "10.0.0.2:0/22")).await.unwrap();
    stage.images.lock_for(&image("t/v"), "10.0.0.3:0/33");
    let (h2, boot) = (host("h2"), "boot-of-h2".parse().unwrap());
    mount_release(&app, &id, &ReleaseAsk::Holder { host: h2, boot }).await.unwrap();
    assert_eq!(owner(&stage).as_deref(), Some("10.0.0.3:0/33"));
}

/// Whatever fails or dies at any step: nobody is let in before the old clients are cut off, and the next one who
/// asks, or the reconciler, comes to the end.
#[tokio::test(start_paused = true)]
async fn a_takeover_whatever_goes_wrong() {
    for wrong in EVERYTHING {
        for nth in 1.. {
            let what = format!("a takeover with {wrong:?} at {nth}");
            let stage = Stage::new().await.paused();
            let app = stage.app();
            let id = silent(&stage, &app).await;
            let mortal = Mortal::new(&stage);
            let second = mortal.app(&stage);
            pass(&[&app, &second], LONG, &["h2"]).await;
            let run = Run::arm_on(&stage, mortal, second, wrong, nth).await;
            let outcome = within(mount_claim(&run.app, &id, ask("h2", "10.0.0.2:0/22"))).await;
            let fired = run.end().await;
            let stands = stage.records().claim(&id).await.unwrap().unwrap().value;
            let is_new = stands.holders[0].host == host("h2");
            if let Some(Ok(_)) = outcome {
                assert!(is_new, "{what} was said to have worked");
            }
            if is_new {
                let fenced = stage.images.blocklist();
                assert_eq!(fenced, clients(["10.0.0.1:0/11"]), "{what} let somebody in");
                assert_eq!(owner(&stage), None, "{what}");
            }
            // One that has died is given up after a while, like a host.
            pass(&[&app], LONG, &["h2"]).await;
            let again = mount_claim(&app, &id, ask("h2", "10.0.0.2:0/22")).await.unwrap();
            let (Granted::Claimed(claim) | Granted::Renewed(claim)) = again;
            assert_eq!((claim.epoch, claim.holders.len()), (2, 1), "{what}");
            assert_eq!(stage.images.blocklist(), clients(["10.0.0.1:0/11"]), "{what}");
            if !fired {
                break;
            }
        }
    }
}

/// The volmaster that has begun is gone, and nobody asks any more.
#[tokio::test(start_paused = true)]
async fn what_was_begun_is_finished_by_any() {
    let stage = Stage::new().await.paused();
    let slow = Mortal::new(&stage);
    let (first, second) = (slow.app(&stage), stage.app());
    let id = silent(&stage, &second).await;
    pass(&[&first, &second], LONG, &["h2"]).await;
    // The first is that the clients are fenced, the second that the lock is broken.
    stage.images.faults().break_nth(2, Fault::Fails);
    mount_claim(&first, &id, ask("h2", "10.0.0.2:0/22")).await.unwrap_err();
    let stands = stage.records().claim(&id).await.unwrap().unwrap().value;
    assert!(matches!(stands.holders[0].state, HoldState::Fencing(_)), "{stands:?}");
    // As long as the first lives, it is its own to finish.
    reconcile(&second).await;
    assert_eq!(stage.records().claim(&id).await.unwrap().unwrap().value, stands);
    slow.hang(Hang::All);
    pass(&[&second], LONG, &[]).await;
    reconcile(&second).await;
    assert!(stage.records().claim(&id).await.unwrap().is_none());
    assert_eq!(owner(&stage), None);
    open(&second, "h3").await;
    let next = granted(mount_claim(&second, &id, ask("h3", "10.0.0.3:0/33")).await.unwrap());
    assert_eq!(next.epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn by_force_with_and_without_fencing() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    let id = silent(&stage, &app).await;
    mount_release(&app, &id, &ReleaseAsk::Unsafe).await.unwrap();
    assert_eq!(stage.images.blocklist(), clients([]));
    assert!(stage.records().claim(&id).await.unwrap().is_none());
    // Nobody holds it, and the lock of whoever did is in the way.
    mount_release(&app, &id, &ReleaseAsk::Force).await.unwrap();
    assert_eq!(stage.images.blocklist(), clients(["10.0.0.1:0/11"]));
    assert_eq!(owner(&stage), None);
    open(&app, "h1").await;
    mount_claim(&app, &id, ask("h1", "10.0.0.1:0/12")).await.unwrap();
    for _ in 0..2 {
        mount_release(&app, &id, &ReleaseAsk::Force).await.unwrap();
    }
    assert_eq!(stage.images.blocklist(), clients(["10.0.0.1:0/11", "10.0.0.1:0/12"]));
}

#[tokio::test]
async fn what_the_routes_say() {
    let stage = Stage::new().await;
    let serving = stage.serve().await;
    let client = &serving.client;
    client.post("/v1/volumes", &json!({"tenant": "t", "name": "v"}).to_string()).await.expect(201);
    let session = json!({"instance_id": instance("h1"), "boot_id": "b1", "version": "0"});
    client.put("/v1/hosts/h1/session", &session.to_string()).await.expect(200);
    let claim = |epoch: Option<u64>| {
        json!({
            "host": "h1", "boot_id": "b1", "instance_id": instance("h1"), "epoch": epoch,
            "clients": ["10.0.0.1:0/11"],
        })
        .to_string()
    };
    client.put("/v1/mounts/t/v", &claim(None)).await.expect(201);
    client.put("/v1/mounts/t/v", &claim(Some(1))).await.expect(200);
    client.put("/v1/mounts/t/v", &claim(Some(2))).await.expect(412);
    // That would be every client of that machine.
    let machine = r#"{"host": "h1", "boot_id": "b1", "clients": ["10.0.0.1:0/0"]}"#;
    client.put("/v1/mounts/t/v", machine).await.expect(400);
    let hosts = client.get("/v1/hosts").await.expect(200).json();
    assert_eq!(hosts["items"][0]["state"], "live");
    assert_eq!(hosts["items"][0]["volumes"], json!(["t/v"]));
    assert_eq!(hosts["items"][0]["boot_id"], "b1");
    client.post("/v1/hosts/h1/fence", "{}").await.expect(409);
    client.post("/v1/hosts/h9/fence", "{}").await.expect(404);
    client.post("/v1/hosts/h1/fence", r#"{"farce": true}"#).await.expect(400);
    let fenced = client.post("/v1/hosts/h1/fence", r#"{"force": true}"#).await.expect(200).json();
    assert_eq!(fenced["fenced"][0]["clients"], json!(["10.0.0.1:0/11"]));
    let silent = client.get("/v1/hosts/h1").await.expect(200).json();
    assert_eq!((&silent["state"], &silent["fences"][0]["epoch"]), (&json!("silent"), &json!(1)));
    assert!(silent.get("boot_id").is_none());
    client.delete("/v1/mounts/t/v?unsafe=true").await.expect(400);
}
