//! Volmaster is away for a while, and comes back.

use std::time::Duration;

use volplugin::app::volumes::Seen;
use volplugin::master::Master;

use crate::support::{World, id};

/// Docker may ask all the time: what it is told from the cache meanwhile does not put off the next question.
#[tokio::test(start_paused = true)]
async fn a_rest_ends_although_docker_asks_all_the_time() {
    let world = World::new();
    world.master.volume_create(&id("t/v"), Default::default(), Duration::ZERO).await.unwrap();
    let plugin = world.start();
    let is_fresh = async || matches!(plugin.get(&id("t/v")).await.unwrap().seen, Seen::Fresh(_));
    assert!(is_fresh().await);
    world.master.state().down = true;
    assert!(!is_fresh().await);
    world.master.state().down = false;
    let mut asked = 0;
    while !is_fresh().await {
        asked += 1;
        assert!(asked < 10, "it is never asked again");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(asked > 1, "it is given a rest");
}
