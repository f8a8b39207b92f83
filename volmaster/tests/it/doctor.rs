//! What is not as it should be is told, with the way out; what is in order is not.

use std::time::Duration;

use volcore::volume::Disposal;
use volmaster::app::doctor::doctor_get;
use volmaster::app::mounts::mount_claim;
use volmaster::app::volumes::{RemoveAsk, volume_create, volume_remove};
use volmaster::app::{App, Failing};

use crate::faults::ask;
use crate::stage::{Stage, image, no_options, volume};

async fn told(app: &App) -> String {
    let doctor = doctor_get(app).await.unwrap();
    let line = |found: &volapi::doctor::Finding| {
        format!("{} {}: {}; {}\n", found.kind.as_str(), found.object, found.text, found.help)
    };
    doctor.findings.iter().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_told_and_changes_nothing() {
    let stage = Stage::new().await.paused();
    let app = stage.app();
    for id in ["t/whole", "t/missing", "t/replaced", "t/left", "t/held", "t/thrown", "t/small"] {
        volume_create(&app, &volume(id), &no_options()).await.unwrap();
    }
    stage.images.add_foreign(&image("t/foreign"));
    assert_eq!(told(&app).await, "");
    let trash = RemoveAsk::With(Disposal::Trash);
    volume_remove(&app, &volume("t/missing"), RemoveAsk::MetadataOnly).await.unwrap();
    volume_remove(&app, &volume("t/thrown"), trash).await.unwrap();
    mount_claim(&app, &volume("t/held"), ask("h1")).await.unwrap();
    stage.images.add_foreign(&image("t/replaced"));
    stage.images.change(&image("t/small"), |image| image.size = 5 << 20);
    stage.pass(Duration::from_secs(60));
    let before = stage.left().await;
    insta::assert_snapshot!(told(&app).await, @r"
    orphan-image rbd/t.missing: the image was made for a volume that is no more; `volcli volume adopt t/missing --opt pool=rbd` makes it a volume again
    image-replaced t/replaced: another image has the name of its image rbd/t.replaced; put its own back in that place, or forget the volume with `volcli volume force-remove t/replaced`; that leaves the image alone
    size-differs t/small: the record says 10 MiB, and image rbd/t.small has 5242880 bytes; `volcli volume resize t/small SIZE` makes both the same
    claim-of-silent-host t/held: host h1 holds it since 1970-01-01T02:00:00Z, and has no live session; only if that host is gone for good: `volcli mount force-remove t/held` fences it and clears its claim
    ");
    assert_eq!(stage.left().await, before);
    stage.images.go_down();
    assert_eq!(doctor_get(&app).await.unwrap_err().kind(), volcore::Kind::Unavailable);
}
