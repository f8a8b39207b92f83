use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { fast: 3, slow: 2, adrift: 4 };

fn id(number: u32) -> VolumeId {
    format!("t/v{number}").parse().unwrap()
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn offered(count: u32, now: Instant) -> Lanes<u32> {
    let mut lanes = Lanes::new(BOUNDS);
    for number in 0..count {
        assert!(lanes.offer(id(number), number, now));
    }
    lanes
}

fn begin(lanes: &mut Lanes<u32>, now: Instant) -> Vec<u32> {
    std::iter::from_fn(|| lanes.begin(now).map(|(_, number)| number)).collect()
}

fn let_go(lanes: &mut Lanes<u32>, now: Instant) -> Vec<VolumeId> {
    std::iter::from_fn(|| lanes.overdue(now)).collect()
}

#[test]
fn each_volume_once_in_order_and_as_many_as_there_are_places() {
    let now = Instant::now();
    let mut lanes = offered(5, now);
    assert!(!lanes.offer(id(0), 0, now), "it waits");
    assert_eq!(begin(&mut lanes, now), [0, 1, 2]);
    assert_eq!(lanes.crowd(), 2);
    assert!(!lanes.offer(id(0), 0, now), "it has begun");
    lanes.ended(&id(1), Ended::Well, now);
    assert!(lanes.offer(id(1), 1, now));
    assert_eq!(begin(&mut lanes, now), [3]);
    lanes.clear();
    assert_eq!((lanes.waiting(), lanes.crowd()), (0, 0));
    assert!(lanes.has(&id(3)) && !lanes.has(&id(4)));
}

#[test]
fn what_hangs_hands_its_place_back() {
    let now = Instant::now();
    let mut lanes = offered(12, now);
    assert_eq!(begin(&mut lanes, now), [0, 1, 2]);
    assert_eq!(lanes.next_overdue(), Some(now + PATIENCE));
    assert_eq!(let_go(&mut lanes, now + secs(2)), []);
    // Two go on in the slow lane; the third has no place there.
    let now = now + PATIENCE;
    assert_eq!(let_go(&mut lanes, now), [id(2)]);
    assert_eq!(begin(&mut lanes, now), [3, 4, 5]);
    assert_eq!(lanes.failures(&id(2)), 1);
    // It waits for the slow lane, and the others do not wait for it.
    assert!(lanes.offer(id(2), 2, now));
    lanes.ended(&id(3), Ended::Well, now);
    let now = now + secs(2);
    assert_eq!(begin(&mut lanes, now), [6]);
    lanes.ended(&id(0), Ended::Well, now);
    assert_eq!(begin(&mut lanes, now), [2]);
}

#[test]
fn when_everything_is_slow_not_everything_is_begun() {
    let mut now = Instant::now();
    let mut lanes = offered(40, now);
    let mut begun = 0;
    for _ in 0..10 {
        begun += begin(&mut lanes, now).len();
        now += PATIENCE;
        let_go(&mut lanes, now);
    }
    assert_eq!(begun, 3 + 2 + 4);
    // Whoever serves it has given up by then.
    begun += begin(&mut lanes, now + ADRIFT).len();
    assert_eq!(begun, 9);
    let_go(&mut lanes, now + ADRIFT);
    assert_eq!(begin(&mut lanes, now + ADRIFT).len(), 3);
}

#[test]
fn who_fails_rests_longer_each_time_and_others_do_not() {
    let mut now = Instant::now();
    let mut lanes = Lanes::new(BOUNDS);
    for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert!(lanes.offer(id(0), 0, now));
        assert_eq!(begin(&mut lanes, now), [0]);
        lanes.ended(&id(0), Ended::Badly, now);
        assert_eq!(lanes.rests_until(&id(0)), Some(now + secs(expected)));
        assert!(lanes.offer(id(0), 0, now));
        assert_eq!(lanes.next_rested(), Some(now + secs(expected)));
        lanes.offer(id(1), 1, now);
        assert_eq!(begin(&mut lanes, now + secs(expected) - Duration::from_millis(1)), [1]);
        lanes.ended(&id(1), Ended::Well, now);
        lanes.clear();
        now += secs(expected);
    }
    lanes.forgive_but(|_| false);
    assert_eq!(lanes.failures(&id(0)), 0);
}

#[test]
fn who_was_slow_begins_in_the_slow_lane_until_it_ends_well() {
    let now = Instant::now();
    let mut lanes = offered(1, now);
    begin(&mut lanes, now);
    let_go(&mut lanes, now + secs(4));
    lanes.ended(&id(0), Ended::Badly, now + secs(30));
    let now = now + secs(31);
    lanes.offer(id(0), 0, now);
    assert_eq!(begin(&mut lanes, now), [0]);
    assert_eq!(lanes.next_overdue(), None, "it has handed its place back already");
    lanes.ended(&id(0), Ended::Well, now);
    lanes.offer(id(0), 0, now);
    begin(&mut lanes, now);
    assert_eq!(lanes.next_overdue(), Some(now + PATIENCE));
}

#[derive(Clone, Debug)]
enum Op {
    Offer(u32),
    Well(usize),
    Badly(usize),
    Clear,
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0u32..20).prop_map(Op::Offer),
        3 => (0usize..8).prop_map(Op::Well),
        2 => (0usize..8).prop_map(Op::Badly),
        1 => Just(Op::Clear),
        3 => (0u64..5000).prop_map(Op::Pass),
    ];
    proptest::collection::vec(op, 1..300)
}

proptest! {
    /// Whatever happens: a volume has one piece of work at most, places are not overbooked, nobody is begun who rests,
    /// and whoever waits with a place free and no failure is begun at once.
    #[test]
    fn places_hold(ops in ops()) {
        let mut now = Instant::now();
        let mut lanes: Lanes<u32> = Lanes::new(BOUNDS);
        let mut begun: BTreeSet<u32> = BTreeSet::new();
        for op in ops {
            let nth = |begun: &BTreeSet<u32>, n: usize| begun.iter().nth(n % begun.len().max(1)).copied();
            match op {
                Op::Offer(number) => {
                    let had = lanes.has(&id(number));
                    prop_assert_eq!(lanes.offer(id(number), number, now), !had);
                }
                Op::Well(n) | Op::Badly(n) => if let Some(number) = nth(&begun, n) {
                    let ended = if matches!(op, Op::Well(_)) { Ended::Well } else { Ended::Badly };
                    lanes.ended(&id(number), ended, now);
                    begun.remove(&number);
                }
                Op::Clear => lanes.clear(),
                Op::Pass(millis) => now += Duration::from_millis(millis),
            }
            while let Some(gone) = lanes.overdue(now) {
                let number = gone.volume.as_str()[1..].parse().unwrap();
                prop_assert!(begun.remove(&number), "it had begun");
            }
            while let Some((volume, number)) = lanes.begin(now) {
                prop_assert_eq!(&volume, &id(number));
                prop_assert!(begun.insert(number), "one at a time");
                prop_assert!(lanes.rests_until(&volume).is_none_or(|until| until <= now));
            }
            let [fast, slow] = [Lane::Fast, Lane::Slow].map(|lane| lanes.occupied(lane));
            prop_assert!(fast <= BOUNDS.fast && slow <= BOUNDS.slow);
            prop_assert_eq!(fast + slow, begun.len());
            prop_assert!(lanes.adrift.len() <= BOUNDS.adrift);
            prop_assert!(lanes.crowd() == 0 || fast == BOUNDS.fast);
            prop_assert_eq!(lanes.waiting(), lanes.fast.len() + lanes.slow.len() + lanes.resting.len());
            prop_assert!(lanes.next_overdue().is_none_or(|at| at > now));
            prop_assert!(lanes.next_rested().is_none_or(|at| at > now));
        }
    }
}
