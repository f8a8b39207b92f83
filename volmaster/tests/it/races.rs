//! Many at once, on one volmaster and on two over one store.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use volcore::Kind;
use volcore::claim::{ClaimAsk, Reached};
use volmaster::app::mounts::{Granted, mount_claim};
use volmaster::app::volumes::{Creation, RemoveAsk, VolumeError, volume_create, volume_remove};
use volmaster::app::{App, Failing};

use crate::mortal::{Hang, Mortal};
use crate::stage::{Stage, no_options, until, volume};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_volume_asked_for_by_many_is_made_once() {
    let stage = Stage::new().await;
    let apps = [stage.app(), stage.app()];
    let ask = |n: usize| {
        let app = apps[n % 2].clone();
        tokio::spawn(async move { volume_create(&app, &volume("t/v"), &no_options()).await })
    };
    let asked: Vec<_> = (0..32).map(ask).collect();
    let mut created = 0;
    let mut uids = std::collections::BTreeSet::new();
    for one in asked {
        match one.await.unwrap().unwrap() {
            Creation::Created(volume) => {
                created += 1;
                uids.insert(volume.uid);
            }
            Creation::Unchanged(volume) => {
                uids.insert(volume.uid);
            }
        }
    }
    assert_eq!((created, uids.len()), (1, 1));
    assert!(stage.is_complete(&volume("t/v")).await);
    assert_eq!(stage.left().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn created_and_removed_at_once_nothing_is_left() {
    let stage = Stage::new().await;
    let apps = [stage.app(), stage.app()];
    let mut tasks = Vec::new();
    for n in 0..50 {
        let id = volume(&format!("t/v{n}"));
        for creates in [true, false, true, false] {
            let (app, id) = (apps[usize::from(creates == (n % 3 == 0))].clone(), id.clone());
            tasks.push(tokio::spawn(async move {
                let error = match creates {
                    true => volume_create(&app, &id, &no_options()).await.err(),
                    false => volume_remove(&app, &id, RemoveAsk::default()).await.err(),
                };
                // Losing is no fault, but it has to be said as what it is.
                if let Some(error) = error {
                    let kind = error.kind();
                    let fair = matches!(kind, Kind::NotFound | Kind::Busy | Kind::Conflict);
                    assert!(fair, "{}", volapi::problem::chain(&error));
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..50 {
        match volume_remove(&apps[0], &volume(&format!("t/v{n}")), RemoveAsk::default()).await {
            Ok(_) | Err(VolumeError::NotFound { .. }) => {}
            Err(error) => panic!("{}", volapi::problem::chain(&error)),
        }
    }
    stage.settle(&apps[0]).await;
    assert_eq!(stage.left().await, [""; 0]);
}

/// A remove in the middle of a create, on another volmaster: the image that comes into being after
/// its volume is gone goes too, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_comes_too_late_goes_too() {
    let stage = Stage::new().await;
    let slow = Mortal::new(&stage);
    let (first, second) = (slow.app(&stage), stage.app());
    let gate = slow.gate_images();
    let creating = {
        let first = first.clone();
        tokio::spawn(async move { volume_create(&first, &volume("t/v"), &no_options()).await })
    };
    gate.reached().await;
    volume_remove(&second, &volume("t/v"), RemoveAsk::default()).await.unwrap();
    // The name is free; nothing of the new one is taken for the old one's.
    volume_create(&second, &volume("t/w"), &no_options()).await.unwrap();
    gate.open();
    let error = creating.await.unwrap().unwrap_err();
    insta::assert_snapshot!(error, @"volume t/v was removed while it was being made");
    assert_eq!(stage.left().await, ["volumes/t/w", "image t.w"]);
}

/// The same, but its maker dies before it can see to that: the record of the removal does.
#[tokio::test(start_paused = true)]
async fn an_image_that_comes_too_late_goes_even_if_its_maker_died() {
    let stage = Stage::new().await.paused();
    let slow = Mortal::new(&stage);
    let (first, second) = (slow.app(&stage), stage.app());
    let gate = slow.gate_images();
    tokio::spawn(async move { volume_create(&first, &volume("t/v"), &no_options()).await });
    gate.reached().await;
    volume_remove(&second, &volume("t/v"), RemoveAsk::default()).await.unwrap();
    assert_eq!(stage.left().await.len(), 1, "the look-out: {:?}", stage.left().await);
    slow.hang(Hang::All);
    gate.open();
    let pool = "rbd".parse().unwrap();
    until("the image to come", || !stage.images.images(&pool).is_empty()).await;
    stage.settle(&second).await;
    assert_eq!(stage.left().await, [""; 0]);
}

fn ask(host: usize) -> ClaimAsk {
    ClaimAsk {
        host: format!("h{host}").parse().unwrap(),
        boot: format!("b{host}").parse().unwrap(),
        instance: None,
        epoch: None,
        state: Reached::Claimed,
        mounts: ["m".parse().unwrap()].into(),
        clients: vec![],
    }
}

/// A claim that was granted by what it read, and a removal that has begun since.
#[tokio::test]
async fn a_claim_does_not_outrun_a_removal() {
    let stage = Stage::new().await;
    let slow = Mortal::new(&stage);
    let (first, second) = (slow.app(&stage), stage.app());
    volume_create(&second, &volume("t/v"), &no_options()).await.unwrap();
    let gate = slow.gate_commit();
    let claim = tokio::spawn(async move { mount_claim(&first, &volume("t/v"), ask(1)).await });
    gate.reached().await;
    volume_remove(&second, &volume("t/v"), RemoveAsk::default()).await.unwrap();
    gate.open();
    assert_eq!(claim.await.unwrap().unwrap_err().kind(), Kind::NotFound);
    stage.settle(&second).await;
    assert_eq!(stage.left().await, [""; 0]);
}

/// And the other way round.
#[tokio::test]
async fn a_removal_does_not_outrun_a_claim() {
    let stage = Stage::new().await;
    let slow = Mortal::new(&stage);
    let (first, second) = (slow.app(&stage), stage.app());
    volume_create(&second, &volume("t/v"), &no_options()).await.unwrap();
    let gate = slow.gate_commit();
    let remove =
        tokio::spawn(
            async move { volume_remove(&first, &volume("t/v"), RemoveAsk::default()).await },
        );
    gate.reached().await;
    mount_claim(&second, &volume("t/v"), ask(1)).await.unwrap();
    gate.open();
    assert_eq!(remove.await.unwrap().unwrap_err().kind(), Kind::InUse);
    assert!(stage.is_complete(&volume("t/v")).await);
}

/// Making an image takes so long that another volmaster takes it up too: both come to one end.
#[tokio::test]
async fn a_create_that_was_taken_up_succeeds_for_both() {
    let stage = Stage::new().await;
    let makers = [Mortal::new(&stage), Mortal::new(&stage)];
    let gates = [makers[0].gate_images(), makers[1].gate_images()];
    let mut asked = Vec::new();
    for (maker, gate) in makers.iter().zip(&gates) {
        let app = maker.app(&stage);
        asked.push(tokio::spawn(async move {
            volume_create(&app, &volume("t/v"), &no_options()).await
        }));
        gate.reached().await;
        stage.pass(Duration::from_secs(11));
    }
    for (gate, asked) in gates.iter().zip(asked) {
        gate.open();
        asked.await.unwrap().unwrap();
    }
    assert!(stage.is_complete(&volume("t/v")).await);
    assert_eq!(stage.left().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_hosts_one_gets_the_volume() {
    let stage = Stage::new().await;
    let apps = [stage.app(), stage.app()];
    volume_create(&apps[0], &volume("t/v"), &no_options()).await.unwrap();
    let claim = |host: usize| {
        let app: Arc<App> = apps[host % 2].clone();
        tokio::spawn(async move { mount_claim(&app, &volume("t/v"), ask(host)).await })
    };
    let claims: Vec<_> = (0..20).map(claim).collect();
    let mut winners = Vec::new();
    for claim in claims {
        match claim.await.unwrap() {
            Ok(Granted::Claimed(claim)) => winners.push(claim),
            Ok(Granted::Renewed(claim)) => panic!("{claim:?}"),
            Err(error) => assert_eq!(error.kind(), Kind::InUse, "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    let stored = stage.records().claim(&volume("t/v")).await.unwrap().unwrap().value;
    assert_eq!((&stored, stored.epoch), (&winners[0], 1));
}

#[tokio::test]
async fn what_one_volmaster_did_another_shows_at_once() {
    let stage = Stage::new().await;
    let (a, b) = (stage.serve().await, stage.serve().await);
    for n in 0..50 {
        let body = json!({"tenant": "t", "name": format!("v{n}")}).to_string();
        a.client.post("/v1/volumes", &body).await.expect(201);
        let list = b.client.get("/v1/volumes?view=brief").await.expect(200).json();
        assert_eq!(list["items"].as_array().unwrap().len(), n + 1);
    }
    stage.store.cut_watches();
    a.client.delete("/v1/volumes/t/v7").await.expect(200);
    let list = b.client.get("/v1/volumes?view=brief").await.expect(200).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 49);
}
