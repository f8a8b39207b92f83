//! Retention: exactly the newest stay, and whatever a user has made.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep};
use volcore::name::SnapshotName;
use volcore::snapshot::Slot;
use volcore::spec::Retention;

use crate::stand_in::{Fault, StandIn};
use crate::takes::{secs, supervise};

fn name(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn exactly_the_newest_are_kept_and_those_of_users() {
    let master = StandIn::new();
    let ids: Vec<_> =
        (1..=20).map(|keep| master.create(&format!("v{keep}"), "10s", keep)).collect();
    let users = [name("before-upgrade"), name("auto"), name("x-auto-2026-11-21T100000Z")];
    for id in &ids {
        master.state().volume(id).snapshots.extend(users.clone());
    }
    let running = [supervise(&master), supervise(&master)];
    for _ in 0..50 {
        sleep(Duration::from_millis(9700)).await;
        let mut state = master.state();
        for (keep, id) in (1..).zip(&ids) {
            let volume = state.volume(id);
            let slots = volume.slots_taken();
            let names: Vec<SnapshotName> = slots.iter().map(|slot| slot.name()).collect();
            // Never fewer than are to be kept, and at most what was taken a moment ago too many.
            let kept = volume.scheduled();
            assert!(kept.len() >= names.len().min(keep), "{id}: {kept:?}");
            assert!(kept.len() <= keep + 1, "{id}: {kept:?}");
            let newest = &names[names.len() - kept.len()..];
            assert_eq!(kept, newest.iter().map(SnapshotName::as_str).collect::<Vec<_>>());
            assert!(users.iter().all(|user| volume.snapshots.contains(user)), "{id}");
        }
    }
    {
        let state = master.state();
        let (removed, asked) = (
            state.volumes.values().map(|volume| volume.removed.len()).sum::<usize>(),
            state.calls("snapshot_remove"),
        );
        assert!(removed > 700, "{removed}");
        assert!(asked <= 2 * removed, "{asked} calls for {removed} removals");
    }
    for running in running {
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_keep_holds_for_the_next_snapshot_and_at_the_start() {
    let master = StandIn::new();
    let id = master.create("v", "1m", 30);
    let running = supervise(&master);
    sleep(secs(1200)).await;
    let taken = master.state().volume(&id).scheduled().len();
    assert!(taken >= 20, "{taken}");
    let next = || {
        let state = master.state();
        let slots = state.volumes[&id].slots_taken();
        secs(61)
            - Duration::try_from(state.now().duration_since(slots[slots.len() - 1].at())).unwrap()
    };
    // Fewer: the next one makes them go, however many.
    master.state().volume(&id).retention = Retention::Keep(5);
    sleep(next() + secs(3)).await;
    assert_eq!(master.state().volume(&id).scheduled().len(), 5);
    // More: a change in the last moment before a snapshot saves the oldest.
    sleep(next() - Duration::from_millis(1100)).await;
    master.state().volume(&id).retention = Retention::Keep(30);
    sleep(secs(10)).await;
    assert_eq!(master.state().volume(&id).scheduled().len(), 6);
    running.stop().await;
    // A supervisor looks at all when it starts.
    master.state().volume(&id).retention = Retention::Keep(2);
    let running = supervise(&master);
    sleep(secs(2)).await;
    assert_eq!(master.state().volume(&id).scheduled().len(), 2);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn volumes_whose_removals_hang_delay_no_other() {
    for fault in [Fault::Frozen, Fault::Hangs] {
        let master = StandIn::new();
        let slots =
            ["080000", "083000", "090000"].map(|at| name(&format!("auto-2026-11-21T{at}Z")));
        let ids: Vec<_> = (0..200).map(|n| master.create(&format!("v{n:03}"), "24h", 1)).collect();
        for id in &ids {
            let mut state = master.state();
            let volume = state.volume(id);
            volume.snapshots.extend(slots.clone());
            volume.last = slots[2].slot();
        }
        // By name, so that a pass comes to them first.
        ids[..60].iter().for_each(|id| master.set_fault(id, fault));
        let (began, running) = (Instant::now(), supervise(&master));
        while ids[60..].iter().any(|id| master.state().volume(id).snapshots.len() > 1) {
            sleep(Duration::from_millis(100)).await;
            assert!(began.elapsed() < secs(60), "beside {fault:?}");
        }
        println!("140 beside 60 with {fault:?}: {:?}", began.elapsed());
        ids[..60].iter().for_each(|id| master.set_fault(id, Fault::None));
        master.state().volumes.values_mut().for_each(|volume| volume.is_busy = false);
        sleep(secs(200)).await;
        // A day's slot may have been taken meanwhile.
        assert!(ids.iter().all(|id| master.state().volume(id).scheduled().len() == 1));
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_of_volmaster_that_was_wrong_costs_no_snapshot() {
    let master = StandIn::new();
    let id = master.create("v", "1h", 3);
    let running = supervise(&master);
    sleep(secs(4 * 3600)).await;
    // For a while it is two days ahead.
    master.state().offset = SignedDuration::from_hours(48);
    sleep(secs(60)).await;
    let absurd: Vec<Slot> = master.state().volume(&id).slots_taken();
    master.state().offset = SignedDuration::ZERO;
    sleep(secs(4 * 3600)).await;
    {
        let mut state = master.state();
        let volume = state.volume(&id);
        let taken = volume.slots_taken();
        let ahead = absurd[absurd.len() - 1].name();
        assert!(volume.snapshots.contains(&ahead), "nobody can tell that it is not the newest");
        let kept: Vec<&str> =
            volume.scheduled().into_iter().filter(|kept| *kept != ahead.as_str()).collect();
        let newest: Vec<SnapshotName> =
            taken[taken.len() - 3..].iter().map(|slot| slot.name()).collect();
        assert_eq!(kept, newest.iter().map(SnapshotName::as_str).collect::<Vec<_>>());
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_leaves_no_snapshot_too_many() {
    let master = StandIn::new();
    let id = master.create("v", "1m", 2);
    master.set_fault(&id, Fault::LosesReplies);
    let running = supervise(&master);
    sleep(secs(185)).await;
    let next = master.state().now();
    let last = *master.state().volume(&id).slots_taken().last().unwrap();
    sleep(secs(55) - Duration::try_from(next.duration_since(last.at())).unwrap()).await;
    assert_eq!(master.state().volume(&id).scheduled().len(), 2);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn all_are_looked_at_every_ten_minutes() {
    let master = StandIn::new();
    let id = master.create("v", "24h", 3);
    let running = supervise(&master);
    sleep(secs(60)).await;
    let slots = ["070000", "080000", "090000"].map(|at| name(&format!("auto-2026-11-21T{at}Z")));
    master.state().volume(&id).snapshots.extend(slots);
    master.state().volume(&id).retention = Retention::Keep(1);
    sleep(secs(530)).await;
    let (before, lists) = {
        let mut state = master.state();
        (state.volume(&id).scheduled().len(), state.calls("schedule_list"))
    };
    assert!(before >= 3 && lists <= 2, "{before} snapshots, {lists} lists");
    sleep(secs(20)).await;
    assert_eq!(master.state().volume(&id).scheduled().len(), 1);
    running.stop().await;
}
