//! Every step of mapping, mounting and back is broken, on local files.

mod host_support;

use host_support::{Bed, Way, break_every_step};
use volstorage::faults::Fault;

async fn broken(ways: [Way; 2]) {
    let bed = Bed::new();
    let source = bed.ext4("t.v");
    for fault in [Fault::Fails, Fault::AnswerLost, Fault::Dies] {
        let steps = break_every_step(&bed, &source, ways, fault).await;
        let wanted: &[&str] = match ways[0] {
            Way::Up => &[
                "write the record",
                "attach the loop device",
                "complete the record",
                "make the mount's folder",
                "mount",
            ],
            Way::Down => &["unmount", "remove the mount's folder", "remove the record"],
        };
        assert_eq!(steps, wanted);
    }
}

#[tokio::test]
async fn the_way_up_then_down() {
    broken([Way::Up, Way::Down]).await;
}

#[tokio::test]
async fn the_way_up_then_up() {
    broken([Way::Up, Way::Up]).await;
}

#[tokio::test]
async fn the_way_down_then_down() {
    broken([Way::Down, Way::Down]).await;
}

#[tokio::test]
async fn the_way_down_then_up() {
    broken([Way::Down, Way::Up]).await;
}
