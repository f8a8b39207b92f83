//! Orders to freeze: obeyed in the volume's turn, thawed whatever goes wrong, and never said to be what they were not.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use volapi::hosts::{Order, OrderState};
use volplugin::app::Plugin;
use volplugin::background::orders;
use volstorage::fake::Fault;
use volstorage::host::HostDriver;

use crate::faults::Dockerd;
use crate::support::{Fault as MasterFault, World, id};

async fn mounted() -> (World, Arc<Plugin>, Dockerd) {
    let world = World::new();
    world.create("t/v").await;
    let (plugin, docker) = (world.start(), Dockerd::alive());
    docker.mount(&plugin, "t/v", "m1").await.unwrap();
    (world, plugin, docker)
}

impl World {
    async fn create(&self, volume: &str) {
        use volplugin::master::Master;
        let within = Duration::from_secs(1);
        self.master.volume_create(&id(volume), Default::default(), within).await.unwrap();
    }

    fn order(&self) {
        let uid = self.master.state().volumes[&id("t/v")].uid;
        let order = Order {
            id: Uuid::new_v4(),
            volume: id("t/v"),
            uid,
            asked_at: Timestamp::UNIX_EPOCH,
            state: OrderState::Asked,
        };
        self.master.state().orders.push(order);
        self.master.state().orders_at += 1;
    }

    fn told(&self, state: OrderState) {
        self.master.state().orders.last_mut().unwrap().state = state;
        self.master.state().orders_at += 1;
    }

    fn state_of_order(&self) -> OrderState {
        self.master.state().orders.last().unwrap().state.clone()
    }

    async fn wait(&self, what: &str, mut holds: impl FnMut(&World) -> bool) {
        for _ in 0..4000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("waited for {what}: {:?}, frozen {:?}", self.state_of_order(), self.host.frozen());
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_frozen_until_told_and_nothing_is_unmounted_meanwhile() {
    let (world, plugin, docker) = mounted().await;
    tokio::spawn(orders::run(Arc::clone(&plugin)));
    for _ in 0..2 {
        world.order();
        world.wait("the freeze", |world| world.state_of_order() == OrderState::Frozen).await;
        assert_eq!(world.host.frozen().len(), 1);
        world.told(OrderState::Thaw);
        world.wait("the thaw", |world| world.host.frozen().is_empty()).await;
        let is_over = |world: &World| {
            matches!(world.state_of_order(), OrderState::Thawed { by_itself: false, .. })
        };
        world.wait("the report", is_over).await;
        world.master.state().orders.clear();
    }
    world.order();
    world.wait("the freeze", |world| world.state_of_order() == OrderState::Frozen).await;
    let began = tokio::time::Instant::now();
    // Nobody ends it: Docker's Unmount waits for the bound, and no longer.
    docker.unmount(&plugin, "t/v", "m1").await.unwrap();
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(matches!(world.state_of_order(), OrderState::Thawed { by_itself: true, .. }));
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_gone_is_over() {
    let (world, plugin, _docker) = mounted().await;
    tokio::spawn(orders::run(Arc::clone(&plugin)));
    world.order();
    world.wait("the freeze", |world| world.state_of_order() == OrderState::Frozen).await;
    world.master.state().orders.clear();
    world.master.state().orders_at += 1;
    let began = tokio::time::Instant::now();
    while !world.host.frozen().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_breaks_it_is_thawed_and_not_said_to_have_been_frozen() {
    let host = [Fault::Fails, Fault::AnswerLost, Fault::Dies].map(|fault| (Some(fault), None));
    let master = [1, 2].into_iter().flat_map(|nth| {
        [MasterFault::Lost, MasterFault::AnswerLost].map(|fault| (None, Some((nth, fault))))
    });
    for (of_host, of_master) in host.into_iter().chain(master) {
        let (world, plugin, _docker) = mounted().await;
        let running = tokio::spawn(orders::run(Arc::clone(&plugin)));
        if let Some(fault) = of_host {
            world.host.faults().break_nth(1, fault);
        }
        world.master.state().calls = 0;
        world.master.state().fault = of_master;
        world.order();
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if world.state_of_order() == OrderState::Frozen && !world.host.frozen().is_empty() {
                world.told(OrderState::Thaw);
            }
        }
        let what = format!("{of_host:?} {of_master:?}: {:?}", world.state_of_order());
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(world.host.frozen().len(), 0, "{what}");
        let said_well =
            matches!(world.state_of_order(), OrderState::Thawed { by_itself: false, .. });
        let only_the_last_report = matches!(of_master, Some((2, _)));
        assert!(!said_well || only_the_last_report, "{what}");
        running.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_where_nothing_is_held_and_what_was_left_frozen_is_thawed() {
    let (world, plugin, docker) = mounted().await;
    assert_eq!(plugin.follow_orders(None).await.unwrap(), Some(0));
    let target = world.host.mounted().remove(0);
    world.host.leave_frozen(&target);
    assert_eq!(world.host.thaw_all().await.unwrap(), [target]);
    docker.unmount(&plugin, "t/v", "m1").await.unwrap();
    assert_eq!(plugin.follow_orders(None).await.unwrap(), None);
    assert_eq!(world.master.state().asked_for_orders, 1);
}
