//! Durations in Go's notation, plus days and weeks (DESIGN §3).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It does not read as numbers with units.
    #[error("duration {given:?} is not like 30m, 1h30m, 500ms, 1d or 2w")]
    Unreadable {
        /// What was given, cut to 40 characters.
        given: String,
    },
    /// It reads, but is out of the range that the place allows.
    #[error("{what} {given:?} is out of range: at least {least}, at most {most}")]
    OutOfRange {
        /// What the duration is for, e.g. `snapshot frequency`.
        what: &'static str,
        /// What was given.
        given: String,
        /// The smallest that is allowed.
        least: &'static str,
        /// The largest that is allowed.
        most: &'static str,
    },
}

/// Reads a duration. Months and years are refused: they have no fixed length.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let unreadable = || DurationError::Unreadable { given: text.chars().take(40).collect() };
    let units = text.split(|c: char| !c.is_alphabetic()).filter(|unit| !unit.is_empty());
    for unit in units {
        if !["ns", "us", "µs", "μs", "ms", "s", "m", "h", "d", "w"].contains(&unit) {
            return Err(unreadable());
        }
    }
    humantime::parse_duration(text).map_err(|_| unreadable())
}

/// Shows a duration as [`parse`] reads it: `30m`, `1h30m`, `1d`, `500ms`, `0s`.
pub fn show(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut shown = String::new();
    let units: [(u128, &str); 7] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    for (nanos, unit) in units {
        if rest >= nanos {
            shown.push_str(&format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    if shown.is_empty() { "0s".to_owned() } else { shown }
}

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $what:literal, $least:literal, $most:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Duration);

        impl $name {
            /// The duration.
            pub fn get(self) -> Duration {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = DurationError;

            fn from_str(text: &str) -> Result<Self, DurationError> {
                let duration = parse(text)?;
                let out_of_range = || DurationError::OutOfRange {
                    what: $what,
                    given: text.to_owned(),
                    least: $least,
                    most: $most,
                };
                if duration < parse($least)? || duration > parse($most)? {
                    return Err(out_of_range());
                }
                Ok($name(duration))
            }
        }

        impl TryFrom<String> for $name {
            type Error = DurationError;

            fn try_from(text: String) -> Result<Self, DurationError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(duration: $name) -> String {
                show(duration.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&show(self.0))
            }
        }
    };
}

bounded!(
    /// How often a volume is snapshotted.
    Frequency, "snapshot frequency", "1s", "366d"
);
bounded!(
    /// How long a host's session lives without being renewed. etcd's shortest lease is 2 s.
    SessionTtl, "session-ttl", "2s", "1h"
);

impl Default for SessionTtl {
    /// Ten seconds (DESIGN §8).
    fn default() -> Self {
        SessionTtl(Duration::from_secs(10))
    }
}

bounded!(
    /// How long a removed volume is kept in the trash before its space is freed.
    TrashRetention, "trash-retention", "0s", "3660d"
);

impl Default for TrashRetention {
    /// A day.
    fn default() -> Self {
        TrashRetention(Duration::from_secs(24 * 3600))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_notation_days_and_weeks() {
        let table = [
            ("30m", "30m"),
            ("1h30m", "1h30m"),
            ("500ms", "500ms"),
            ("90m", "1h30m"),
            ("2w", "14d"),
        ];
        for (given, shown) in table {
            assert_eq!(show(parse(given).unwrap()), shown, "{given}");
        }
        assert_eq!(show(Duration::ZERO), "0s");
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in
            ["", "m", "10", "-1s", "1M", "1y", "1month", "10 parsecs", "99999999999999999999w"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["0s", "500ms", "367d"] {
            assert!(bad.parse::<Frequency>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&show(duration)).unwrap(), duration);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
