//! What of a volume can be changed while it lives: its size, its limits and its snapshots. Everything else is frozen when it
//! is created, because an image, a file system or hosts were made to fit it.

use std::collections::BTreeMap;

use crate::kind::Kind;
use crate::limit::RateLimits;
use crate::options::{KEYS, OptionError, OptionSet};
use crate::policy::ScheduleError;
use crate::size::Size;
use crate::spec::VolumeSpec;

/// The driver options that can be changed, in the order in which they are listed.
pub const LIVE: [&str; 10] = [
    "size",
    "snapshots",
    "snapshots.frequency",
    "snapshots.keep",
    "snapshot.retention",
    "snapshot.freeze",
    "rate-limit.write.iops",
    "rate-limit.read.iops",
    "rate-limit.write.bps",
    "rate-limit.read.bps",
];

/// A change: live options only, and of these what is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveChange(OptionSet);

/// Driver options that make no change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// It is settled when the volume is created.
    #[error("option {key} cannot be changed by set: {}; set changes {}", frozen(key), LIVE.join(", "))]
    Frozen {
        /// Which option.
        key: &'static str,
    },
    /// It is no option, or its value does not fit it.
    #[error(transparent)]
    Option(#[from] OptionError),
}

/// A change that does not fit the volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LiveRefusal {
    /// A schedule is spoken of, and there is none.
    #[error("{key} says nothing while snapshots are off: set snapshots=true with it")]
    SnapshotsOff {
        /// Which option.
        key: &'static str,
    },
    /// What is on it might be cut off.
    #[error("its size is {there}, and volumes only grow: {asked} is less")]
    Shrinks {
        /// How large it is.
        there: Size,
        /// What was asked for.
        asked: Size,
    },
    /// What comes of it is no schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

impl LiveRefusal {
    /// Always the caller's to change.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// Why an option is frozen, and the way out.
fn frozen(key: &str) -> &'static str {
    match key {
        "pool" => "the image is in that pool; create another volume in the other one",
        "filesystem" => "it is on the image already; create another volume with the other one",
        "ephemeral" | "on-remove" => {
            "what becomes of the data was settled when it was created; `volcli volume remove` removes the volume all the same"
        }
        "from" => "the data of another volume was copied when it was created; clone that one again",
        "access" | "mount-options" | "map-options" | "sharing" => {
            "hosts use the volume as it was created; create another volume that has it"
        }
        _ => "it is settled when the volume is created; create another volume that has it",
    }
}

impl LiveChange {
    /// Reads driver options. Those that are frozen are refused by name, before any value is looked at.
    pub fn from_driver_options(given: &BTreeMap<String, String>) -> Result<Self, LiveError> {
        let frozen = |key: &&&str| given.contains_key(**key) && !LIVE.contains(*key);
        if let Some(key) = KEYS.iter().find(frozen) {
            return Err(LiveError::Frozen { key });
        }
        Ok(LiveChange(OptionSet::from_driver_options(given)?))
    }
}

impl VolumeSpec {
    /// This spec after a change. A size only grows. A limit of zero takes that limit away; what is said of retention replaces what was
    /// said of it before; snapshots that are switched off forget their schedule.
    pub fn changed(&self, change: &LiveChange) -> Result<VolumeSpec, LiveRefusal> {
        let merged = self.to_options().overlaid(change.0.clone());
        if merged.snapshots != Some(true) {
            // What is wrong however the volume is comes first.
            if change.0.snapshot.keep == Some(0) {
                return Err(ScheduleError::KeepNothing.into());
            }
            let asked = change.0.to_driver_options();
            if let Some(key) =
                asked.into_keys().find(|key| key.starts_with("snapshot") && *key != "snapshots")
            {
                return Err(LiveRefusal::SnapshotsOff { key });
            }
        }
        let size = merged.size.unwrap_or(self.size);
        if size < self.size {
            return Err(LiveRefusal::Shrinks { there: self.size, asked: size });
        }
        Ok(VolumeSpec {
            size,
            schedule: merged.schedule()?,
            rate_limits: RateLimits::from(&merged.rate_limit),
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::TenantPolicy;
    use crate::spec::Retention;

    fn spec(options: &[(&str, &str)]) -> VolumeSpec {
        let policy: TenantPolicy =
            serde_json::from_str(r#"{"default-options": {"size": "10MB"}}"#).unwrap();
        let options = OptionSet::from_driver_options(&map(options)).unwrap();
        VolumeSpec::freeze(&policy, options, &"rbd".parse().unwrap()).unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn change(pairs: &[(&str, &str)]) -> LiveChange {
        LiveChange::from_driver_options(&map(pairs)).unwrap()
    }

    const HOURLY: [(&str, &str); 3] =
        [("snapshots", "true"), ("snapshots.frequency", "1h"), ("snapshots.keep", "20")];

    #[test]
    fn every_option_is_live_or_frozen_with_its_reason() {
        for key in KEYS {
            let read = LiveChange::from_driver_options(&map(&[(key, "?")]));
            match read.unwrap_err() {
                LiveError::Option(_) => assert!(LIVE.contains(&key), "{key}"),
                error @ LiveError::Frozen { .. } => {
                    assert!(!LIVE.contains(&key), "{key}");
                    assert!(
                        error.to_string().starts_with(&format!("option {key} cannot")),
                        "{error}"
                    );
                }
            }
        }
        assert!(LIVE.iter().all(|key| KEYS.contains(key)));
        let error = LiveChange::from_driver_options(&map(&[("sise", "1GB")])).unwrap_err();
        assert!(error.to_string().starts_with("unknown option \"sise\""), "{error}");
        let pool = LiveChange::from_driver_options(&map(&[("pool", "fast")])).unwrap_err();
        assert_eq!(
            pool.to_string(),
            "option pool cannot be changed by set: the image is in that pool; create another volume in the other one; \
             set changes size, snapshots, snapshots.frequency, snapshots.keep, snapshot.retention, snapshot.freeze, \
             rate-limit.write.iops, rate-limit.read.iops, rate-limit.write.bps, rate-limit.read.bps"
        );
    }

    /// What was stored before there was a bound is read, changed otherwise, and brought below it.
    #[test]
    fn a_keep_above_the_bound_lives_on() {
        let mut options = spec(&HOURLY).to_options();
        options.snapshot.keep = Some(4_000_000_000);
        let stored = serde_json::to_string(&options).unwrap();
        let spec = spec(&HOURLY);
        let (pool, format) = (spec.pool.clone(), spec.format.clone());
        let options = serde_json::from_str(&stored).unwrap();
        let thawed = VolumeSpec::thaw(options, pool, spec.filesystem.clone(), format).unwrap();
        let keeps = |spec: &VolumeSpec| spec.schedule.unwrap().retention;
        let grown = thawed.changed(&change(&[("size", "20MB")])).unwrap();
        assert_eq!(keeps(&grown), Retention::Keep(4_000_000_000));
        let fewer = grown.changed(&change(&[("snapshots.keep", "10000")])).unwrap();
        assert_eq!(keeps(&fewer), Retention::Keep(10_000));
        let more = LiveChange::from_driver_options(&map(&[("snapshots.keep", "10001")]));
        assert_eq!(
            more.unwrap_err().to_string(),
            "option snapshots.keep=\"10001\": it is a whole number from 1 to 10000"
        );
    }

    #[test]
    fn a_volume_only_grows() {
        let spec = spec(&[]);
        let grown = spec.changed(&change(&[("size", "20MB")])).unwrap();
        assert_eq!(grown.size.to_string(), "20 MiB");
        assert_eq!(grown.changed(&change(&[("size", "20MB")])).unwrap(), grown);
        let error = grown.changed(&change(&[("size", "10MB")])).unwrap_err();
        assert_eq!(error.to_string(), "its size is 20 MiB, and volumes only grow: 10 MiB is less");
    }

    #[test]
    fn limits_are_set_replaced_and_taken_away_one_by_one() {
        let spec = spec(&[("rate-limit.write.bps", "1MB"), ("rate-limit.read.iops", "100")]);
        let changed = spec.changed(&change(&[("rate-limit.write.bps", "2MB")])).unwrap();
        let shown = changed.to_options().to_driver_options();
        assert_eq!(shown["rate-limit.write.bps"], "2097152");
        assert_eq!(shown["rate-limit.read.iops"], "100");
        let cleared = changed.changed(&change(&[("rate-limit.write.bps", "0")])).unwrap();
        assert_eq!(cleared.rate_limits.write_bps, None);
        assert_eq!(cleared.rate_limits.read_iops, spec.rate_limits.read_iops);
        assert_eq!(cleared.changed(&LiveChange::default()).unwrap(), cleared);
    }

    #[test]
    fn the_rules_of_a_schedule_hold_for_what_comes_of_it() {
        let (off, on) = (spec(&[]), spec(&HOURLY));
        for (spec, asked, refusal) in [
            (&off, &[("snapshots", "true")][..], Some("snapshot.frequency is needed")),
            (&off, &HOURLY[..2], Some("snapshot.keep (at least 1)")),
            (&off, &HOURLY, None),
            (
                &off,
                &[("snapshots.keep", "3")],
                Some("snapshots.keep says nothing while snapshots are off"),
            ),
            (&on, &[("snapshots.keep", "0")], Some("keep is 0")),
            (&off, &[("snapshots.keep", "0")], Some("keep is 0: keep at least 1")),
            (
                &on,
                &[("snapshots.keep", "3"), ("snapshot.retention", "24h")],
                Some("exclude each other"),
            ),
            (
                &on,
                &[("snapshots", "false"), ("snapshot.freeze", "1")],
                Some("snapshot.freeze says nothing"),
            ),
            (&on, &[("snapshots", "false")], None),
            (&on, &[("snapshots.frequency", "30m")], None),
        ] {
            let changed = spec.changed(&change(asked)).map_err(|error| error.to_string());
            match (refusal, changed) {
                (None, Ok(_)) => {}
                (Some(expected), Err(said)) => assert!(said.contains(expected), "{said}"),
                (_, changed) => panic!("{asked:?}: {changed:?}"),
            }
        }
        let tiers = on.changed(&change(&[("snapshot.retention", "24h7d")])).unwrap();
        let shown = tiers.to_options().to_driver_options();
        assert_eq!(shown["snapshot.retention"], "24h7d");
        assert!(!shown.contains_key("snapshots.keep"), "it says what to keep in its place");
        let off = tiers.changed(&change(&[("snapshots", "0")])).unwrap();
        assert_eq!(off.schedule, None);
    }

    fn values() -> impl Strategy<Value = BTreeMap<String, String>> {
        let number = || prop_oneof![Just("0"), Just("1"), Just("7"), Just("20MB"), Just("x")];
        let one = prop_oneof![
            (Just("snapshots"), prop_oneof![Just("true"), Just("false")]),
            (Just("snapshots.frequency"), prop_oneof![Just("30m"), Just("1h"), Just("x")]),
            (Just("snapshots.keep"), number()),
            (Just("snapshot.retention"), prop_oneof![Just("24h"), Just("7d")]),
            (Just("snapshot.freeze"), prop_oneof![Just("1"), Just("0")]),
            (Just("rate-limit.write.iops"), number()),
            (Just("rate-limit.read.bps"), number()),
        ];
        prop::collection::vec(one, 0..6).prop_map(|pairs| map(&pairs))
    }

    proptest! {
        /// Whatever is asked: what comes of it can be stored and read again, says what was asked, differs in
        /// nothing that is frozen, and comes of the same change again.
        #[test]
        fn a_change_is_whole_and_idempotent(on: bool, first in values(), second in values()) {
            let mut spec = if on { spec(&HOURLY) } else { spec(&[]) };
            for asked in [first, second] {
                let Ok(change) = LiveChange::from_driver_options(&asked) else { continue };
                let Ok(changed) = spec.changed(&change) else { continue };
                let thawed = VolumeSpec::thaw(
                    changed.to_options(),
                    "other".parse().unwrap(),
                    changed.filesystem.clone(),
                    changed.format.clone(),
                );
                prop_assert_eq!(&thawed.unwrap(), &changed);
                prop_assert_eq!(changed.changed(&change), Ok(changed.clone()));
                prop_assert_eq!(changed.differences(&change.0), vec![]);
                let frozen = VolumeSpec {
                    schedule: spec.schedule,
                    rate_limits: spec.rate_limits,
                    ..changed.clone()
                };
                prop_assert_eq!(frozen, spec);
                spec = changed;
            }
        }
    }
}
