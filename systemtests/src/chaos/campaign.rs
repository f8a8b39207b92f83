//! The rounds of a campaign: a line for each injection, a file from which it goes on, and a sum at the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::fault::Fault;
use testkit::suite::Size;
use testkit::wire::{Layout, Lines};
use testkit::{Suite, poll};

use super::fleet::{Fleet, Moved};
use super::plan::{self, MASTERS, MEMBERS, Round};

/// A session lasts so long here, so that some hosts are taken over from before a fault is healed, and some are not.
const GLOBAL: &str = r#"{"session-ttl": "3s"}"#;
/// Whatever is asked for during a fault is granted within this time after it was healed.
const GRANTED: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// What chance follows from.
    pub seed: u64,
    /// How many injections there are.
    pub count: usize,
    /// The first injection; the ones before have been done.
    pub from: usize,
    /// Where it is written down how far it is.
    pub state: Option<PathBuf>,
}

/// What has come of it so far.
#[derive(Debug, Default)]
struct Tally {
    done: usize,
    kinds: BTreeMap<String, u64>,
    acked: u64,
    granted: Vec<Duration>,
    violations: Vec<String>,
}

impl Campaign {
    /// From the environment: `CHAOS_SEED`, `CHAOS_N`, `CHAOS_FROM`, `CHAOS_STATE` (a file). Where nothing is said, it
    /// is the short one that is part of the tests.
    #[track_caller]
    pub fn from_environment() -> Campaign {
        let number = |name: &str, otherwise: u64| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
            Err(_) => otherwise,
        };
        let count = |name, otherwise| usize::try_from(number(name, otherwise)).expect("few enough");
        let state = std::env::var_os("CHAOS_STATE").map(PathBuf::from);
        Campaign {
            seed: number("CHAOS_SEED", 1),
            count: count("CHAOS_N", 25),
            from: count("CHAOS_FROM", 1),
            state,
        }
    }

    /// Does it. Panics at the end if something was seen that must not be, and at once if something does not come back.
    #[track_caller]
    pub fn run(&self) {
        let begin = Instant::now();
        let size = Size::of(MASTERS, plan::HOSTS);
        let suite = Suite::on_wire(
            "x",
            Layout { size, members: MEMBERS.try_into().expect("few"), lines: Lines::Lossy },
        );
        suite.volcli_with_stdin("global upload", GLOBAL).ok();
        println!("chaos: seed {}, {} injections from {}", self.seed, self.count, self.from);
        let mut tally = self.earlier();
        let rounds = plan::rounds(self.seed, self.count);
        let rounds: Vec<_> = rounds.iter().filter(|round| round.first >= self.from).collect();
        for act in rounds.chunk_by(|one, other| one.act() == other.act()) {
            self.act(&suite, act, &mut tally);
        }
        tally.tell(begin.elapsed());
        assert_eq!(tally.violations, Vec::<String>::new(), "seed {}", self.seed);
    }

    #[track_caller]
    fn act(&self, suite: &Suite, rounds: &[&Round], tally: &mut Tally) {
        let (first, last) = (rounds[0], rounds[rounds.len() - 1]);
        let mut homes = first.homes;
        for moved in &first.moves {
            homes[moved.volume] = moved.from;
        }
        let begin = Instant::now();
        let fleet = Fleet::begin(suite, &format!("act{}", first.act()), &homes);
        println!("act {} begins after {:.1?}", first.act(), begin.elapsed());
        for round in rounds {
            self.round(suite, &fleet, round, tally);
            self.write_down(tally);
        }
        let begin = Instant::now();
        tally.acked += fleet.acked();
        tally.violations.extend(fleet.end(&last.homes));
        self.write_down(tally);
        println!("act {} ends: nothing is left after {:.1?}", first.act(), begin.elapsed());
    }

    #[track_caller]
    fn round(&self, suite: &Suite, fleet: &Fleet<'_>, round: &Round, tally: &mut Tally) {
        let (begin, before) = (Instant::now(), fleet.acked());
        round.faults.iter().for_each(|fault| fault.inject(suite));
        let injected = Instant::now();
        let (moved, healed) = thread::scope(|scope| {
            let moving: Vec<_> = round
                .moves
                .iter()
                .map(|&moved| scope.spawn(move || fleet.relocate(moved, round.hold + GRANTED)))
                .collect();
            // What is waited for is the end of the hold itself.
            let _ = poll::wait(round.hold, || Err::<(), _>("it lasts"));
            let mut faults = round.faults.clone();
            // Who stands still or is cut off is first, because others may need him to start.
            faults.sort_by_key(|&fault| starts_something(fault));
            faults.iter().for_each(|fault| fault.heal(suite));
            let moved = moving.into_iter().map(|moving| moving.join().expect("it moved"));
            (moved.collect::<Vec<_>>(), injected.elapsed())
        });
        let settled = fleet.settle(&round.homes);
        let ended = settled.unwrap_or_else(|what| {
            let stands = how_it_stands(suite);
            panic!("seed {}, {}: {what}\n{stands}", self.seed, said(round));
        });
        let mut wrong = fleet.violations();
        wrong.extend(fleet.helped());
        let acked = fleet.acked() - before;
        let fate = if wrong.is_empty() {
            "well".to_owned()
        } else {
            format!("WRONG: {}", wrong.join("; "))
        };
        for (number, fault) in round.faults.iter().enumerate() {
            let number = round.first + number;
            println!("seed {} {number}/{}: {fault}, for {:.1?}", self.seed, self.count, round.hold);
            *tally.kinds.entry(fault.kind().to_owned()).or_default() += 1;
            tally.done = number;
        }
        let seen = [moved.iter().map(told).collect(), ended].concat().join("; ");
        println!(
            "  {seen}; {acked} records; healed after {healed:.1?}, {fate} after {:.1?}",
            begin.elapsed()
        );
        tally
            .granted
            .extend(moved.iter().filter_map(|moved| moved.how.as_ref().ok().map(|how| how.0)));
        let prefix = format!("seed {}, {}", self.seed, said(round));
        tally.violations.extend(wrong.into_iter().map(|wrong| format!("{prefix}: {wrong}")));
    }

    fn write_down(&self, tally: &Tally) {
        let Some(file) = &self.state else { return };
        let Tally { done, kinds, acked, violations, .. } = tally;
        let state = json!({
            "seed": self.seed, "count": self.count, "done": done, "kinds": kinds, "acked": acked,
            "violations": violations,
        });
        let new = file.with_extension("new");
        fs::write(&new, format!("{state:#}\n")).expect("the state is written");
        fs::rename(new, file).expect("the state is kept");
    }

    /// What was written down before, if this goes on with it.
    #[track_caller]
    fn earlier(&self) -> Tally {
        let mut tally = Tally::default();
        let Some(text) = self.state.as_ref().and_then(|file| fs::read_to_string(file).ok()) else {
            return tally;
        };
        let state: Value = serde_json::from_str(&text).expect("a state that was written here");
        if self.from == 1 || state["seed"] != self.seed || state["count"] != self.count {
            return tally;
        }
        let kinds = state["kinds"].as_object().cloned().unwrap_or_default();
        tally.kinds =
            kinds.into_iter().filter_map(|(kind, count)| Some((kind, count.as_u64()?))).collect();
        tally.acked = state["acked"].as_u64().unwrap_or_default();
        let violations = state["violations"].as_array().cloned().unwrap_or_default();
        tally.violations =
            violations.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect();
        tally
    }
}

/// What the servers say of themselves, for when something does not come back.
fn how_it_stands(suite: &Suite) -> String {
    let ready = suite.masters.iter().map(|master| {
        let answer = master.ask("/readyz", Duration::from_secs(5));
        format!("{}: {}", master.url(), answer.unwrap_or_default())
    });
    let etcd = suite.etcd().try_ctl("endpoint status");
    let ceph = suite.ceph().ceph("--connect-timeout 5 -s");
    ready.chain([etcd.to_string(), ceph.to_string()]).collect::<Vec<_>>().join("\n")
}

fn starts_something(fault: Fault) -> u8 {
    match fault.kind() {
        kind if kind.contains("OSD") || kind.contains("monitor") || kind.contains("etcd k") => 1,
        "volmaster killed" => 2,
        "volplugin killed" => 3,
        "dockerd killed" | "host powered off" => 4,
        _ => 0,
    }
}

/// The injections of a round, for messages.
fn said(round: &Round) -> String {
    let faults: Vec<_> = round.faults.iter().map(Fault::to_string).collect();
    format!("injection {}, {}", round.first, faults.join(" and "))
}

fn told(moved: &Moved) -> String {
    let (volume, from, to) = (moved.moved.volume, moved.moved.from + 1, moved.moved.to + 1);
    match &moved.how {
        Ok((took, refused)) => {
            format!("v{volume} h{from} to h{to} after {took:.1?}, {refused} refusals")
        }
        Err(why) => format!("v{volume} h{from} to h{to} never: {why}"),
    }
}

impl Tally {
    fn tell(&self, took: Duration) {
        println!(
            "chaos: {} injections after {:.0} s",
            self.kinds.values().sum::<u64>(),
            took.as_secs_f32()
        );
        for (kind, count) in &self.kinds {
            println!("{count:5} {kind}");
        }
        let mut granted = self.granted.clone();
        granted.sort_unstable();
        if let (Some(last), middle) = (granted.last(), granted.len() / 2) {
            println!(
                "{} moves, granted after {:.1?} in the median, {last:.1?} at most",
                granted.len(),
                granted[middle]
            );
        }
        println!("{} records acknowledged, {} violations", self.acked, self.violations.len());
        self.violations.iter().for_each(|violation| println!("  {violation}"));
    }
}
