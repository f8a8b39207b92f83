//! Which faults come when: a pure function of a seed and a number.

use std::time::Duration;

use testkit::dice::Dice;
use testkit::fault::{Blow, Cut, Fault, Line, Who};

/// Hosts, volmasters and members of etcd that there are.
pub const HOSTS: usize = 3;
/// See [`HOSTS`].
pub const MASTERS: usize = 2;
/// See [`HOSTS`].
pub const MEMBERS: usize = 3;
/// The volumes of an act.
pub const VOLUMES: usize = 6;
/// After so many injections all volumes are looked at from elsewhere and removed, and there are new ones.
pub const ACT: usize = 25;
/// At most so many faults at once.
const AT_ONCE: u64 = 3;
/// So many volumes move in a round.
const MOVES: usize = 2;
/// A fault lasts so long, at least and at most.
const HOLD_MS: (u64, u64) = (300, 5_500);

/// A volume, counted from 0, moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub volume: usize,
    /// From which host.
    pub from: usize,
    /// To which.
    pub to: usize,
}

/// Faults that come together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The number of the first injection, from 1.
    pub first: usize,
    /// What is injected, in this order. None is healed in the way of another.
    pub faults: Vec<Fault>,
    /// For how long.
    pub hold: Duration,
    /// What moves meanwhile.
    pub moves: Vec<Move>,
    /// Where each volume is to be afterwards.
    pub homes: [usize; VOLUMES],
}

impl Round {
    /// In which act it is, from 1.
    pub fn act(&self) -> usize {
        (self.first - 1) / ACT + 1
    }
}

/// One fault of each kind; chance says what it happens to.
const KINDS: &[fn(&Dice) -> Fault] = &[
    |dice| Fault::Process(Who::Plugin(host(dice)), Blow::Stop),
    |dice| Fault::Process(Who::Plugin(host(dice)), Blow::Kill),
    |dice| Fault::Process(Who::DataPath(host(dice)), Blow::Stop),
    |dice| Fault::Process(Who::Docker(host(dice)), Blow::Stop),
    |dice| Fault::Process(Who::Docker(host(dice)), Blow::Kill),
    |dice| Fault::Process(Who::Master(master(dice)), Blow::Stop),
    |dice| Fault::Process(Who::Master(master(dice)), Blow::Kill),
    |dice| Fault::Process(Who::Etcd(member(dice)), Blow::Stop),
    |dice| Fault::Process(Who::Etcd(member(dice)), Blow::Kill),
    |_| Fault::Process(Who::AllOfEtcd, Blow::Stop),
    |_| Fault::Process(Who::AllOfEtcd, Blow::Kill),
    |_| Fault::Process(Who::Osd, Blow::Stop),
    |_| Fault::Process(Who::Osd, Blow::Kill),
    |_| Fault::Process(Who::Mon, Blow::Stop),
    |_| Fault::Process(Who::Mon, Blow::Kill),
    |dice| Fault::Cut(Cut::Host(host(dice))),
    |dice| Fault::Cut(Cut::HostFromCeph(host(dice))),
    |dice| Fault::Cut(Cut::HostFromMasters(host(dice))),
    |dice| Fault::Cut(Cut::HostFromMaster(host(dice), master(dice))),
    |dice| Fault::Cut(Cut::MasterMute(master(dice), host(dice))),
    |dice| Fault::Cut(Cut::MasterFromEtcd(master(dice))),
    |dice| Fault::HostFrozen(host(dice)),
    |dice| Fault::MasterClock(master(dice), step(dice)),
    |dice| Fault::PluginClock(host(dice), step(dice)),
    |dice| Fault::RepliesLost(Line::ToMaster(master(dice)), dice.next()),
    |dice| Fault::RepliesLost(Line::ToEtcd(master(dice)), dice.next()),
    |_| Fault::Compaction,
    |_| Fault::LeaderMoved,
    |dice| Fault::Process(Who::DataPath(host(dice)), Blow::Kill),
    |dice| Fault::PowerOff(host(dice)),
];

fn below(dice: &Dice, bound: usize) -> usize {
    usize::try_from(dice.below(u64::try_from(bound).expect("few"))).expect("below a few")
}

fn host(dice: &Dice) -> usize {
    below(dice, HOSTS)
}

fn master(dice: &Dice) -> usize {
    below(dice, MASTERS)
}

fn member(dice: &Dice) -> usize {
    below(dice, MEMBERS)
}

/// A step of a clock in seconds: a minute, an hour, a day, a month, to either side.
fn step(dice: &Dice) -> i64 {
    *dice.pick(&[60, 3_600, 86_400, 30 * 86_400]) * dice.pick(&[1, -1])
}

/// The faults of a campaign: each kind comes once before any comes twice.
fn faults(dice: &Dice, count: usize) -> Vec<Fault> {
    let mut drawn = Vec::new();
    while drawn.len() < count {
        let mut deck = KINDS.to_vec();
        while !deck.is_empty() {
            drawn.push(deck.swap_remove(below(dice, deck.len()))(dice));
        }
    }
    drawn.truncate(count);
    drawn
}

/// The rounds of a campaign of so many injections.
pub fn rounds(seed: u64, count: usize) -> Vec<Round> {
    let dice = Dice::of(seed);
    let faults = faults(&dice, count);
    let mut homes: [usize; VOLUMES] = std::array::from_fn(|volume| volume % HOSTS);
    let mut rounds = Vec::new();
    let mut next = 0;
    while next < faults.len() {
        let first = next;
        let width = 1 + below(&dice, usize::try_from(AT_ONCE).expect("few"));
        // No round is in two acts, and no two faults of a round have one subject.
        let fits = |at: usize| {
            at < faults.len()
                && at / ACT == first / ACT
                && faults[first..at].iter().all(|fault| fault.subject() != faults[at].subject())
        };
        next += 1;
        while next - first < width && fits(next) {
            next += 1;
        }
        let mut moves: Vec<Move> = Vec::new();
        while moves.len() < MOVES {
            let volume = below(&dice, VOLUMES);
            if moves.iter().all(|earlier| earlier.volume != volume) {
                let from = homes[volume];
                let to = (from + 1 + below(&dice, HOSTS - 1)) % HOSTS;
                homes[volume] = to;
                moves.push(Move { volume, from, to });
            }
        }
        let hold = HOLD_MS.0 + dice.below(HOLD_MS.1 - HOLD_MS.0);
        let (first, faults) = (first + 1, faults[first..next].to_vec());
        rounds.push(Round { first, faults, hold: Duration::from_millis(hold), moves, homes });
    }
    rounds
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_has_one_plan_and_another_seed_another() {
        let plan = rounds(7, 100);
        assert_eq!(plan, rounds(7, 100));
        assert_ne!(plan, rounds(8, 100));
    }

    #[test]
    fn every_injection_is_in_one_round_and_none_is_in_two_acts() {
        for seed in 0..50 {
            let plan = rounds(seed, 137);
            let mut next = 1;
            for round in &plan {
                assert_eq!(round.first, next);
                next += round.faults.len();
                assert!((1..=3).contains(&round.faults.len()));
                assert_eq!((next - 2) / ACT + 1, round.act(), "{round:?}");
                for (number, fault) in round.faults.iter().enumerate() {
                    let others = &round.faults[..number];
                    assert!(others.iter().all(|other| other.subject() != fault.subject()));
                }
            }
            assert_eq!(next, 138);
        }
    }

    #[test]
    fn a_longer_campaign_begins_like_a_shorter_one() {
        let (short, long) = (rounds(3, 50), rounds(3, 100));
        let faults =
            |plan: &[Round]| plan.iter().flat_map(|round| round.faults.clone()).collect::<Vec<_>>();
        assert_eq!(faults(&short), faults(&long)[..50]);
    }

    #[test]
    fn every_kind_comes_before_any_comes_again() {
        let kinds = KINDS.len();
        let plan = rounds(1, 2 * kinds);
        let drawn: Vec<_> = plan.iter().flat_map(|round| &round.faults).collect();
        for deck in drawn.chunks(kinds) {
            let met: BTreeSet<_> = deck.iter().map(|fault| fault.kind()).collect();
            assert_eq!(met.len(), kinds, "{met:?}");
        }
    }

    #[test]
    fn volumes_move_from_where_they_are() {
        let mut homes: [usize; VOLUMES] = std::array::from_fn(|volume| volume % HOSTS);
        for round in rounds(5, 300) {
            for Move { volume, from, to } in round.moves {
                assert!(homes[volume] == from && from != to && to < HOSTS);
                homes[volume] = to;
            }
            assert_eq!(homes, round.homes);
        }
    }
}
