//! Snapshots on schedule: taken once for each slot, whatever happens to those who take them.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::supervisor::{Clock, Supervisor};
use testkit::{Story, Suite, poll};

const EVERY_TWO_SECONDS: &str =
    "--opt snapshots=true --opt snapshots.frequency=2s --opt snapshots.keep=5";

/// The names of a volume's snapshots, the oldest first.
fn snapshots(story: &Story<'_>, volume: &str) -> Vec<String> {
    let listed = story.volcli(&format!("snapshot list {volume}"));
    listed.lines().iter().map(|line| (*line).to_owned()).collect()
}

/// What came of a volume's schedule.
fn schedule(story: &Story<'_>, name: &str) -> Value {
    story.get(name)["schedule"].clone()
}

fn count(schedule: &Value, of: &str) -> u64 {
    schedule[of].as_u64().expect("a number")
}

/// The second of the day of the slot that a snapshot was taken for: `auto-2026-11-21T203007Z`.
fn second(name: &str) -> i64 {
    let time = name.strip_prefix("auto-").and_then(|moment| moment.split_once('T'));
    let time = time.and_then(|(_, time)| time.strip_suffix('Z')).expect("a slot");
    let part = |at: usize| time[at..at + 2].parse::<i64>().expect("a number");
    part(0) * 3600 + part(2) * 60 + part(4)
}

/// Two supervisors, one of them killed ten times and one with a clock that is an hour ahead: after a minute the newest
/// five slots are there, none was missed, and none was taken twice.
pub fn a_schedule_is_kept(suite: &Suite) {
    let story = Story::beside(suite, "kept");
    let mortal = suite.supervisor("mortal", Clock::Right);
    let wrong = suite.supervisor("wrong", Clock::OffBy(3600));
    let volumes = ["one", "two", "three"].map(|name| story.create(name, EVERY_TWO_SECONDS));
    story.volcli(&format!("snapshot create {} mine", volumes[0])).ok();
    let end = Instant::now() + Duration::from_secs(60);
    for _ in 0..10 {
        thread::sleep(Duration::from_secs(5));
        mortal.kill();
        mortal.start_again();
    }
    thread::sleep(end.saturating_duration_since(Instant::now()));
    // What is under way when they are told to stop is waited for.
    mortal.stop();
    wrong.stop();
    for name in ["one", "two", "three"] {
        let volume = story.volume(name);
        let came = schedule(&story, name);
        let left = snapshots(&story, &volume);
        let slots: Vec<i64> =
            left.iter().filter(|name| *name != "mine").map(|name| second(name)).collect();
        let steps: BTreeSet<i64> =
            slots.windows(2).map(|pair| (pair[1] - pair[0]).rem_euclid(86_400)).collect();
        assert_eq!((count(&came, "missed"), count(&came, "failed")), (0, 0), "{volume}: {came}");
        assert!((28..=32).contains(&count(&came, "taken")), "{volume}: {came}");
        assert_eq!(steps, BTreeSet::from([2]), "{volume} has {left:?}");
        // What was just taken may not have pushed out another yet.
        assert!((5..=7).contains(&slots.len()), "{volume} has {left:?}");
        assert_eq!(left.contains(&"mine".to_owned()), name == "one", "a user's snapshot stays");
    }
    // Whoever comes next finishes what was left.
    Supervisor::once(&suite.master_urls()).ok();
    for volume in &volumes {
        let left = snapshots(&story, volume);
        assert_eq!(left.iter().filter(|name| *name != "mine").count(), 5, "{left:?}");
        story.volcli(&format!("volume remove {volume} --yes")).ok();
    }
    story.until_nothing_is_left();
}

/// A tenant that is removed leaves its schedules working, and a volume whose schedule changes keeps what it has, as its
/// new retention says.
pub fn a_schedule_changes(suite: &Suite) {
    let story = Story::beside(suite, "changes");
    let supervisor = suite.supervisor("changes-supervisor", Clock::Right);
    let volume = story.create("db", EVERY_TWO_SECONDS);
    let patience = Duration::from_secs(40);
    poll::until("five snapshots", patience, || {
        let left = snapshots(&story, &volume);
        if left.len() >= 5 { Ok(()) } else { Err(format!("{left:?}")) }
    });
    story.volcli(&format!("tenant delete {} --yes", story.tenant)).ok();
    let taken = count(&schedule(&story, "db"), "taken");
    poll::until("two more after the tenant went", patience, || {
        let now = count(&schedule(&story, "db"), "taken");
        if now > taken + 1 { Ok(()) } else { Err(now) }
    });
    let before = snapshots(&story, &volume);
    story.volcli(&format!("volume set {volume} snapshots.frequency=1h snapshots.keep=3")).ok();
    let shown = story.get("db");
    assert_eq!(
        shown["options"]["snapshot"],
        json!({"frequency": "1h", "keep": 3, "freeze": false})
    );
    // The slot of the hour is before those that were taken; the old ones are what is kept, the newest three of them.
    supervisor.stop();
    Supervisor::once(&suite.master_urls()).ok();
    let left = snapshots(&story, &volume);
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.iter().all(|name| *name >= before[0]), "{left:?} of {before:?}");
    story.volcli(&format!("volume set {volume} snapshots=false")).ok();
    Supervisor::once(&suite.master_urls()).ok();
    assert_eq!(snapshots(&story, &volume), left, "without a schedule nothing is removed");
    story.volcli(&format!("volume remove {volume} --yes")).ok();
    story.until_nothing_is_left();
}
