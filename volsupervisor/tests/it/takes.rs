//! Takes: every slot once, nobody waits for others, no burst.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use volcore::Kind;
use volcore::name::VolumeId;
use volsupervisor::supervisor;

use crate::stand_in::{Fault, StandIn};

pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// One more supervisor.
pub fn supervise(master: &StandIn) -> Running {
    let stop = CancellationToken::new();
    let task = tokio::spawn(supervisor::run(Arc::new(master.clone()), 128, stop.clone()));
    Running { stop, task }
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

pub fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn millis(count: i64) -> SignedDuration {
    SignedDuration::from_millis(count)
}

fn volumes(master: &StandIn, count: usize, prefix: &str, frequency: &str) -> Vec<VolumeId> {
    (0..count).map(|number| master.create(&format!("{prefix}{number}"), frequency, 1000)).collect()
}

#[tokio::test(start_paused = true)]
async fn two_supervisors_take_every_slot_once_and_on_time() {
    let master = StandIn::new();
    master.state().latency = secs(1);
    let (slow, quick) = (volumes(&master, 40, "m", "1m"), volumes(&master, 40, "t", "10s"));
    let running = [supervise(&master), supervise(&master)];
    // The first slot is made up for, and takes its second.
    sleep(secs(600)).await;
    {
        let mut state = master.state();
        for (ids, expected) in [(slow, 10), (quick, 60)] {
            for id in ids {
                let volume = state.volume(&id);
                let slots = volume.slots_taken();
                assert!((expected..=expected + 1).contains(&slots.len()), "{id}: {}", slots.len());
                for pair in slots.windows(2) {
                    let apart = pair[1].at().duration_since(pair[0].at());
                    assert_eq!(
                        apart.unsigned_abs(),
                        volume.frequency.get(),
                        "{id} has missed none"
                    );
                }
                let late = volume.taken[1..].iter().map(|(_, late)| *late).max().unwrap();
                assert!(late < millis(1200), "{id}: {late:?} late");
            }
        }
        let taken: usize = state.volumes.values().map(|volume| volume.taken.len()).sum();
        let asked = state.calls("snapshot_create");
        assert!(asked <= 2 * taken, "{asked} calls for {taken} snapshots");
    }
    for running in running {
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_hangs_delays_no_other() {
    for fault in [Fault::Hangs, Fault::Frozen, Fault::Fails(Kind::Internal), Fault::Slow(secs(40))]
    {
        let master = StandIn::new();
        let well = volumes(&master, 30, "v", "10s");
        let ill = volumes(&master, 3, "ill", "10s");
        ill.iter().for_each(|id| master.set_fault(id, fault));
        let running = supervise(&master);
        sleep(secs(300)).await;
        {
            let mut state = master.state();
            for id in &well {
                let volume = state.volume(id);
                assert!(volume.slots_taken().len() >= 30, "{id} beside {fault:?}");
                let late = volume.taken[1..].iter().map(|(_, late)| *late).max().unwrap();
                assert!(late < millis(200), "{id} beside {fault:?}: {late:?} late");
            }
            for id in &ill {
                let asked = state.volume(id).asked;
                assert!(
                    (3..25).contains(&asked),
                    "{id} with {fault:?} was asked for {asked} times"
                );
            }
        }
        // It is well again, and is taken when it has rested; nothing is made up for but the last slot.
        ill.iter().for_each(|id| master.set_fault(id, Fault::None));
        master.state().volumes.values_mut().for_each(|volume| volume.is_busy = false);
        sleep(secs(140)).await;
        for id in &ill {
            let taken = master.state().volume(id).slots_taken().len();
            assert!((5..=22).contains(&taken), "{id} after {fault:?}: {taken}");
        }
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_that_hang_do_not_starve_eight_hundred() {
    for fault in [Fault::Hangs, Fault::Frozen] {
        let master = StandIn::new();
        master.state().latency = secs(1);
        // Theirs are the oldest slots, so that they come first.
        let ill = volumes(&master, 200, "ill", "1h");
        sleep(secs(1)).await;
        let well = volumes(&master, 800, "v", "1m");
        ill.iter().for_each(|id| master.set_fault(id, fault));
        let (began, running) = (Instant::now(), supervise(&master));
        let all =
            |master: &StandIn| well.iter().all(|id| !master.state().volume(id).taken.is_empty());
        while !all(&master) {
            sleep(Duration::from_millis(100)).await;
            assert!(began.elapsed() < secs(20), "{:?}", master.state().calls);
        }
        println!("800 beside 200 with {fault:?}: {:?}", began.elapsed());
        sleep(secs(300)).await;
        {
            let mut state = master.state();
            assert!(state.most_changing < 128 + 64 + 200, "{} at a time", state.most_changing);
            for id in &well {
                let volume = state.volume(id);
                assert!(volume.slots_taken().len() >= 5, "{id}");
                // Once it is known who hangs, nobody feels it.
                let late = volume.taken[2..].iter().map(|(_, late)| *late).max().unwrap();
                assert!(late < millis(3500), "{id}: {late:?} late");
            }
        }
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_each_is_made_up_for_once() {
    let master = StandIn::new();
    let ids = volumes(&master, 100, "v", "1m");
    let running = [supervise(&master), supervise(&master)];
    sleep(secs(120)).await;
    master.state().is_down = true;
    sleep(secs(7200)).await;
    let before: Vec<usize> =
        ids.iter().map(|id| master.state().volume(id).slots_taken().len()).collect();
    let questions = master.state().calls("schedule_due");
    master.state().is_down = false;
    sleep(secs(3)).await;
    for (id, before) in ids.iter().zip(&before) {
        let mut state = master.state();
        let volume = state.volume(id);
        let since = volume.slots_taken().len() - before;
        // The last slot, and for a few the next one, which has begun meanwhile.
        assert!((1..=2).contains(&since), "{id}: {since}");
        assert!(volume.latest() < SignedDuration::from_secs(64), "{id}: {:?}", volume.latest());
    }
    assert!(master.state().calls("schedule_due") > questions);
    for running in running {
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn volmasters_that_restart_lose_no_slot() {
    let master = StandIn::new();
    let ids = volumes(&master, 50, "v", "10s");
    let running = [supervise(&master), supervise(&master)];
    for _ in 0..20 {
        sleep(secs(25)).await;
        master.state().is_down = true;
        sleep(secs(3)).await;
        master.state().is_down = false;
    }
    sleep(secs(10)).await;
    for id in ids {
        let slots = master.state().volume(&id).slots_taken();
        let span = slots[slots.len() - 1].at().duration_since(slots[0].at());
        assert_eq!(slots.len() as i64, span.as_secs() / 10 + 1, "{id} has missed none");
    }
    for running in running {
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_and_clocks_that_jump_repeat_nothing() {
    let master = StandIn::new();
    let ids = volumes(&master, 10, "v", "10s");
    ids[..5].iter().for_each(|id| master.set_fault(id, Fault::LosesReplies));
    let running = [supervise(&master), supervise(&master)];
    let mut gone = 0;
    for hours in [0, -1, 0, 3, 0, 40, 0] {
        master.state().offset = SignedDuration::from_hours(hours);
        sleep(secs(60)).await;
        gone += 60;
    }
    for id in &ids {
        let slots = master.state().volume(id).slots_taken();
        // None while the clock is behind what was taken; and never more than one for each period that went by.
        assert!((6..=gone / 10 + 7).contains(&slots.len()), "{id}: {}", slots.len());
    }
    for running in running {
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_idle_asks_once_a_second_and_sees_what_is_new_within_one() {
    let master = StandIn::new();
    let running = supervise(&master);
    sleep(secs(100)).await;
    let questions = master.state().calls("schedule_due");
    assert!((95..=101).contains(&questions), "{questions}");
    assert_eq!(master.state().calls("schedule_list"), 1);
    let id = master.create("v", "1h", 3);
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(master.state().volume(&id).taken.len(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn at_the_end_nothing_new_is_begun_and_what_is_under_way_is_waited_for() {
    let master = StandIn::new();
    let ids = volumes(&master, 3, "v", "1h");
    master.set_fault(&ids[0], Fault::Slow(secs(8)));
    let running = supervise(&master);
    sleep(secs(1)).await;
    let began = Instant::now();
    running.stop().await;
    assert_eq!(master.state().volume(&ids[0]).taken.len(), 1);
    assert!(began.elapsed() < secs(8), "{:?}", began.elapsed());

    let hung = StandIn::new();
    let id = hung.create("v", "1h", 3);
    hung.set_fault(&id, Fault::Hangs);
    let running = supervise(&hung);
    sleep(secs(1)).await;
    let began = Instant::now();
    running.stop().await;
    assert_eq!(began.elapsed(), secs(10));
}

#[tokio::test(start_paused = true)]
async fn once_does_what_is_due_and_says_how_much_of_it() {
    let once = async |master: &StandIn| supervisor::once(Arc::new(master.clone()), 4).await;
    let nothing = StandIn::new();
    assert_eq!(once(&nothing).await.unwrap().exit_code(), 0);

    let master = StandIn::new();
    let ids = volumes(&master, 50, "v", "1h");
    assert_eq!(once(&master).await.unwrap().exit_code(), 0);
    assert!(ids.iter().all(|id| master.state().volume(id).taken.len() == 1));
    sleep(secs(3600)).await;
    ids[..9].iter().for_each(|id| master.set_fault(id, Fault::Frozen));
    let tally = once(&master).await.unwrap();
    assert_eq!((tally.failed, tally.exit_code()), (9, 3));
    assert!(ids[9..].iter().all(|id| master.state().volume(id).taken.len() == 2));
    master.state().is_down = true;
    assert!(once(&master).await.is_err());
}
