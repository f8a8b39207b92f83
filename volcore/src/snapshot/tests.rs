use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::options::Tiers;
use crate::spec::Retention;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn name(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

fn frequency(text: &str) -> Frequency {
    text.parse().unwrap()
}

fn slots(uid: u128, created: &str, every: &str) -> Slots {
    Slots::new(Uuid::from_u128(uid), at(created), frequency(every))
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(count.unsigned_abs())
}

#[test]
fn a_slot_is_named_after_its_time() {
    let slots = slots(7, "2026-11-21T00:00:00Z", "30m");
    let slot = slots.latest(at("2026-11-21T20:31:00Z")).unwrap();
    assert_eq!(slot.name().as_str(), "auto-2026-11-21T203007Z");
    assert_eq!(slot.name().slot(), Some(slot));
    assert!(slot.name().is_reserved());
    // What a user calls so is nobody's slot, and no user may call one so.
    let others = [
        "auto-",
        "auto-x",
        "auto-2026-11-21T20:30:07Z".split(':').next().unwrap(),
        "auto-2026-11-21T203007",
        "auto-2026-11-21T203007.Z",
        "auto-2026-11-21T203007.50Z",
        "auto-2026-13-21T203007Z",
        "auto-2026-11-21T203060Z",
        "auto-2026-1-21T203007Z",
        "auto-02026-11-21T203007Z",
        "auto-2026-11-21t203007Z",
    ];
    for other in others {
        assert_eq!(name(other).slot(), None, "{other}");
        assert!(name(other).is_reserved(), "{other}");
    }
    assert!(!name("before-auto-").is_reserved());
}

#[test]
fn odd_frequencies_have_names_too() {
    let slots = slots(0, "2026-11-21T00:00:00Z", "1500ms");
    let slot = slots.latest(at("2026-11-21T00:00:01.7Z")).unwrap();
    assert_eq!(slot.name().as_str(), "auto-2026-11-21T000001.5Z");
    assert_eq!(slot.name().slot(), Some(slot));
}

#[test]
fn there_is_no_slot_before_the_volume() {
    let slots = slots(0, "2026-11-21T10:00:01Z", "1h");
    assert_eq!(slots.latest(at("2026-11-21T10:59:59Z")), None);
    assert_eq!(snapshot_due(&slots, [], at("2026-11-21T10:59:59Z")), None);
    let first = snapshot_next(&slots, [], at("2026-11-21T00:00:00Z")).unwrap();
    assert_eq!(first.at(), at("2026-11-21T11:00:00Z"));
    assert_eq!(slots.latest(first.at()), Some(first));
    assert_eq!(snapshot_next(&slots, [], Timestamp::MAX), None);
    assert_eq!(slots.latest(Timestamp::MIN), None);
}

#[test]
fn an_outage_is_made_up_for_once() {
    let slots = slots(0, "2026-11-21T00:00:00Z", "10m");
    let last = slots.latest(at("2026-11-21T10:00:00Z")).unwrap();
    let now = at("2026-11-21T12:34:56Z");
    let due = snapshot_due(&slots, [last], now).unwrap();
    assert_eq!((due.slot.at(), due.missed), (at("2026-11-21T12:30:00Z"), 14));
    assert_eq!(snapshot_due(&slots, [last, due.slot], now), None);
    let next = snapshot_next(&slots, [last, due.slot], now).unwrap();
    assert_eq!(next.at(), at("2026-11-21T12:40:00Z"));
    let due = snapshot_due(&slots, [due.slot], next.at()).unwrap();
    assert_eq!((due.slot, due.missed), (next, 0));
}

#[test]
fn a_clock_that_was_never_right_stops_nothing() {
    let slots = slots(0, "2026-11-21T00:00:00Z", "1h");
    let now = at("2026-11-21T10:30:00Z");
    let absurd = Slot(at("2038-01-19T03:14:07Z"));
    assert_eq!(snapshot_due(&slots, [absurd], now).unwrap().slot.at(), at("2026-11-21T10:00:00Z"));
    assert_eq!(snapshot_next(&slots, [absurd], now).unwrap().at(), at("2026-11-21T11:00:00Z"));
    let names = [absurd.name(), Slot(at("2026-11-21T10:00:00Z")).name()];
    assert!(snapshot_expired(Retention::Keep(1), &names, now).is_empty());
}

#[test]
fn volumes_of_one_frequency_are_spread() {
    let created = at("2026-11-21T00:00:00Z");
    let now = at("2026-11-22T00:00:00Z");
    let at_once = (0..10_000).map(|_| {
        let slots = Slots::new(Uuid::new_v4(), created, frequency("30m"));
        slots.after(now).unwrap()
    });
    let different: BTreeSet<Slot> = at_once.collect();
    assert!(different.len() > 1700, "{} of 1800 seconds are used", different.len());
}

#[test]
fn tiers_keep_the_last_of_each_period() {
    let days = (1..=30).flat_map(|day| {
        (0..24).map(move |hour| Slot(at(&format!("2026-11-{day:02}T{hour:02}:30:00Z"))).name())
    });
    let mut names: Vec<SnapshotName> = days.collect();
    names.push(name("by-hand"));
    let retention = Retention::Tiers("3h2d2w".parse::<Tiers>().unwrap());
    let expired: BTreeSet<_> =
        snapshot_expired(retention, &names, at("2026-11-30T23:45:00Z")).into_iter().collect();
    let kept: Vec<&str> =
        names.iter().filter(|name| !expired.contains(name)).map(SnapshotName::as_str).collect();
    // The 30th is a Monday.
    assert_eq!(
        kept,
        [
            "auto-2026-11-29T233000Z",
            "auto-2026-11-30T213000Z",
            "auto-2026-11-30T223000Z",
            "auto-2026-11-30T233000Z",
            "by-hand"
        ]
    );
}

#[test]
fn ten_thousand_volumes_are_quick() {
    let (created, now) = (at("2026-11-01T00:00:00Z"), at("2026-11-21T00:00:00Z"));
    let begin = Instant::now();
    let mut removed = 0;
    for uid in 0..10_000 {
        let slots = Slots::new(Uuid::from_u128(uid), created, frequency("1h"));
        let mut slot = slots.latest(now).unwrap();
        let names: Vec<SnapshotName> = (0..20)
            .map(|_| {
                let name = slot.name();
                slot = slots.latest(slot.at() - seconds(1)).unwrap();
                name
            })
            .collect();
        let taken = names.iter().filter_map(SnapshotName::slot);
        assert_eq!(snapshot_due(&slots, taken, now), None);
        removed += snapshot_expired(Retention::Keep(10), &names, now).len();
        let tiers = Retention::Tiers(Tiers { hours: 8, days: 2, weeks: 1 });
        snapshot_expired(tiers, &names, now);
    }
    assert_eq!(removed, 100_000);
    // Far below the promised 2 s where it is optimised; a debug build on a busy machine has to pass too.
    assert!(begin.elapsed() < seconds(20), "{:?}", begin.elapsed());
}

/// What a clock does between two looks: goes on, is set back, or nobody looks for a while.
fn clock() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![8 => 0i64..4, 1 => Just(-3600i64), 1 => 0i64..20_000];
    proptest::collection::vec(step, 1..200)
}

fn every() -> impl Strategy<Value = Frequency> {
    (1_000u64..10_000_000).prop_map(|millis| format!("{millis}ms").parse().unwrap())
}

fn moment() -> impl Strategy<Value = Timestamp> {
    (0i64..4_000_000_000).prop_map(|second| Timestamp::from_second(second).unwrap())
}

fn retention() -> impl Strategy<Value = Retention> {
    prop_oneof![
        (1u32..30).prop_map(Retention::Keep),
        (0u32..30, 0u32..10, 0u32..6)
            .prop_filter("something", |t| t.0 + t.1 + t.2 > 0)
            .prop_map(|(hours, days, weeks)| Retention::Tiers(Tiers { hours, days, weeks })),
    ]
}

proptest! {
    #[test]
    fn names_map_back(second in 0i64..250_000_000_000, nanos in 0i32..1_000_000_000) {
        let slot = Slot(Timestamp::new(second, nanos).unwrap());
        prop_assert_eq!(slot.name().slot(), Some(slot));
        prop_assert_eq!(slot.name().as_str().parse::<SnapshotName>(), Ok(slot.name()));
    }

    #[test]
    fn any_name_has_a_slot_or_none(text in "auto-[0-9T.Z-]{0,30}") {
        if let Some(slot) = name(&text).slot() {
            prop_assert_eq!(slot.name(), name(&text));
        }
    }

    #[test]
    fn slots_are_a_grid(uid: u128, created in moment(), every in every(), now in moment()) {
        let slots = Slots::new(Uuid::from_u128(uid), created, every);
        let next = slots.after(now).unwrap();
        prop_assert!(next.at() > now && next.at() >= created);
        prop_assert_eq!(slots.latest(next.at()), Some(next));
        if let Some(latest) = slots.latest(now) {
            prop_assert!(latest.at() <= now && latest.at() >= created);
            prop_assert_eq!(next.at().duration_since(latest.at()).unsigned_abs(), every.get());
        } else {
            prop_assert!(next.at().duration_since(created).unsigned_abs() < every.get());
        }
    }

    /// Several supervisors look at different times, with clocks that are set back by an hour, and stop for hours.
    #[test]
    fn no_slot_twice_and_never_a_burst(uid: u128, every in every(), steps in clock(), keep in 1u32..6) {
        let mut now = at("2026-11-21T00:00:00Z");
        let slots = Slots::new(Uuid::from_u128(uid), now, every);
        let (mut there, mut ever) = (Vec::<SnapshotName>::new(), BTreeSet::new());
        for step in steps {
            now = if step < 0 { now - seconds(step) } else { now + seconds(step) };
            let taken = || there.iter().filter_map(SnapshotName::slot);
            let last = taken().max();
            let next = snapshot_next(&slots, taken(), now).unwrap();
            prop_assert!(next.at() > now && last.is_none_or(|last| next > last));
            let due = snapshot_due(&slots, taken(), now);
            if let Some(Due { slot, missed }) = due {
                prop_assert!(slot.at() <= now && last.is_none_or(|last| slot > last));
                prop_assert!(ever.insert(slot), "{} was taken before", slot.name());
                if let Some(last) = last {
                    let gap = slot.at().duration_since(last.at()).unsigned_abs().as_nanos();
                    prop_assert_eq!(gap, every.get().as_nanos() * (u128::from(missed) + 1));
                }
                there.push(slot.name());
            } else if let Some(latest) = slots.latest(now) {
                prop_assert!(last.is_some_and(|last| last >= latest), "{} was skipped", latest.name());
            }
            let taken = || there.iter().filter_map(SnapshotName::slot);
            prop_assert_eq!(snapshot_due(&slots, taken(), now), None);
            let expired: BTreeSet<SnapshotName> =
                snapshot_expired(Retention::Keep(keep), &there, now).into_iter().cloned().collect();
            there.retain(|name| !expired.contains(name));
        }
    }

    #[test]
    fn retention_keeps_what_it_says(
        retention in retention(),
        taken in proptest::collection::btree_set(0i64..40_000_000, 0..100),
        by_hand in proptest::collection::btree_set("[a-z][a-z0-9-]{0,10}", 0..5),
    ) {
        let now = Timestamp::from_second(40_000_000).unwrap();
        let slot = |second: &i64| Slot(Timestamp::from_second(*second).unwrap()).name();
        let mut names: Vec<SnapshotName> = taken.iter().map(slot).collect();
        let newest = names.last().cloned();
        names.extend(by_hand.iter().map(|text| name(text)));
        let expired: Vec<SnapshotName> =
            snapshot_expired(retention, &names, now).into_iter().cloned().collect();
        prop_assert!(expired.iter().all(|name| name.slot().is_some()));
        prop_assert!(expired.is_sorted_by_key(SnapshotName::slot));
        prop_assert!(newest.is_none_or(|newest| !expired.contains(&newest)));
        let most = match retention {
            Retention::Keep(keep) => keep,
            Retention::Tiers(Tiers { hours, days, weeks }) => hours + days + weeks,
        } as usize;
        let kept = taken.len() - expired.len();
        prop_assert!(kept <= most.max(1));
        if let Retention::Keep(_) = retention {
            prop_assert_eq!(kept, taken.len().min(most));
        }
        // Those that are kept are kept again, in whatever order they are listed.
        names.retain(|name| !expired.contains(name));
        names.reverse();
        prop_assert!(snapshot_expired(retention, &names, now).is_empty());
    }
}
