//! Sizes in bytes, read and shown as in DESIGN §3.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const MIB: u64 = 1 << 20;

/// The size of a volume in bytes: from 1 MiB to 1 EiB, a multiple of 4096
/// (the block size of every file system here).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It does not read as a number with a unit.
    #[error("size {given:?} is not a number with a unit such as 10MB, 512MiB or 2T")]
    Unreadable {
        /// What was given, cut to 40 characters.
        given: String,
    },
    /// It reads, but no volume can have it.
    #[error("size {given:?} is out of range: the smallest volume has 1 MiB, the largest 1 EiB")]
    OutOfRange {
        /// What was given, cut to 40 characters.
        given: String,
    },
}

/// Reads a count of bytes; a bare number counts in units of `bare` bytes.
/// Units are powers of 1024, as in Ceph.
pub(crate) fn parse_bytes(text: &str, bare: u64) -> Result<u64, SizeError> {
    let unreadable = || SizeError::Unreadable { given: text.chars().take(40).collect() };
    // The library also reads an empty prefix, signs and separators; only what the
    // design names is let through.
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == ' ');
    if !plain || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(unreadable());
    }
    parse_size::Config::new()
        .with_binary()
        .with_default_factor(bare)
        .parse_size(text)
        .map_err(|_| unreadable())
}

impl Size {
    /// The smallest volume.
    pub const SMALLEST: Size = Size(MIB);
    /// The largest volume.
    pub const LARGEST: Size = Size(1 << 60);

    /// A size of at least this many bytes, rounded up to a multiple of 4096.
    pub fn from_bytes(bytes: u64) -> Result<Size, SizeError> {
        let rounded = bytes.checked_next_multiple_of(4096).map(Size);
        match rounded {
            Some(size) if (Size::SMALLEST..=Size::LARGEST).contains(&size) => Ok(size),
            Some(_) | None => Err(SizeError::OutOfRange { given: bytes.to_string() }),
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Size, SizeError> {
        let given: String = text.chars().take(40).collect();
        Size::from_bytes(parse_bytes(text.trim(), MIB)?)
            .map_err(|_| SizeError::OutOfRange { given })
    }
}

impl fmt::Display for Size {
    /// The largest unit that shows the size exactly: `10 MiB`, `1536 MiB`, `4100 KiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        let mut count = self.0 / 1024;
        let mut unit = 0;
        while count.is_multiple_of(1024) && unit + 1 < units.len() {
            count /= 1024;
            unit += 1;
        }
        f.pad(&format!("{count} {}", units[unit]))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    /// Reads a text, or a bare number of MB.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"10MB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Size, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_powers_of_1024_and_bare_numbers_are_megabytes() {
        let table = [
            ("10MB", "10 MiB"),
            ("10", "10 MiB"),
            ("10M", "10 MiB"),
            ("10MiB", "10 MiB"),
            ("2048KB", "2 MiB"),
            ("1.5G", "1536 MiB"),
            ("2 TB", "2 TiB"),
            ("1048577B", "1028 KiB"),
        ];
        for (given, shown) in table {
            assert_eq!(given.parse::<Size>().unwrap().to_string(), shown, "{given}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in
            ["", "MB", "-1MB", "0", "1B", "10XB", "10MB;", "1e40", "99999999999TB", "2EiB", "٣MB"]
        {
            assert!(bad.parse::<Size>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(blocks in 256u64..(1 << 48)) {
            let size = Size::from_bytes(blocks * 4096).unwrap();
            prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            if let Ok(size) = text.parse::<Size>() {
                prop_assert!(size.bytes() % 4096 == 0);
            }
        }
    }
}
