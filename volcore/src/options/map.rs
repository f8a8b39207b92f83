//! What a policy may say about mapping an image with the kernel's rbd.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One option of the kernel's rbd for mapping an image, such as `queue_depth=256` or `ms_mode=secure`
/// (rbd(8), "Kernel rbd options"). Only those that change neither what is mapped, nor by whom, nor
/// what keeps a second writer out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MapOption(String);

/// What may follow the `=` of a map option.
enum MapValue {
    Nothing,
    /// From one number to another.
    Number(u32, u32),
    /// Bytes, from a sector to an object.
    PowerOfTwo,
    OneOf(&'static [&'static str]),
    /// `type:name`, several of them joined by `|`.
    Location,
}

/// The map options that a policy may set.
const MAP_OPTIONS: [(&str, MapValue); 20] = [
    ("abort_on_full", MapValue::Nothing),
    ("alloc_size", MapValue::PowerOfTwo),
    ("cephx_require_signatures", MapValue::Nothing),
    ("cephx_sign_messages", MapValue::Nothing),
    ("compression_hint", MapValue::OneOf(&["none", "compressible", "incompressible"])),
    ("crc", MapValue::Nothing),
    ("crush_location", MapValue::Location),
    ("lock_on_read", MapValue::Nothing),
    ("ms_mode", MapValue::OneOf(&["legacy", "crc", "secure", "prefer-crc", "prefer-secure"])),
    ("nocephx_require_signatures", MapValue::Nothing),
    ("nocephx_sign_messages", MapValue::Nothing),
    ("nocrc", MapValue::Nothing),
    ("notcp_nodelay", MapValue::Nothing),
    ("notrim", MapValue::Nothing),
    ("osd_idle_ttl", MapValue::Number(1, 86_400)),
    ("osd_request_timeout", MapValue::Number(30, 86_400)),
    ("osdkeepalive", MapValue::Number(1, 3_600)),
    ("queue_depth", MapValue::Number(1, 65_536)),
    ("read_from_replica", MapValue::OneOf(&["no", "balance", "localize"])),
    ("rxbounce", MapValue::Nothing),
];

impl MapOption {
    /// The option as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn known() -> String {
        MAP_OPTIONS.map(|(name, _)| name).join(", ")
    }
}

impl FromStr for MapOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u32>().ok().filter(|_| digits)
        };
        let within = |text: &str, least: u32, most: u32| {
            number(text).is_some_and(|number| (least..=most).contains(&number))
        };
        let bytes = |text: &str| {
            within(text, 512, 4 << 20) && number(text).is_some_and(u32::is_power_of_two)
        };
        let located = |text: &str| {
            let plain = |part: &str| {
                let readable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
                !part.is_empty() && part.chars().all(readable)
            };
            text.len() <= 200
                && text
                    .split('|')
                    .all(|pair| pair.split_once(':').is_some_and(|(a, b)| plain(a) && plain(b)))
        };
        let Some((_, wanted)) = MAP_OPTIONS.iter().find(|(known, _)| *known == name) else {
            return Err(format!(
                "{shown:?} is no option of the kernel's rbd that a policy may set; those are {}",
                MapOption::known()
            ));
        };
        match (wanted, value) {
            (MapValue::Nothing, None) => Ok(()),
            (MapValue::Number(least, most), Some(value)) if within(value, *least, *most) => Ok(()),
            (MapValue::PowerOfTwo, Some(value)) if bytes(value) => Ok(()),
            (MapValue::OneOf(all), Some(value)) if all.contains(&value) => Ok(()),
            (MapValue::Location, Some(value)) if located(value) => Ok(()),
            (MapValue::Nothing, _) => Err(format!("{name} takes no value")),
            (MapValue::Number(least, most), _) => {
                Err(format!("{shown:?}: {name}= takes a whole number from {least} to {most}"))
            }
            (MapValue::PowerOfTwo, _) => {
                Err(format!("{shown:?}: {name}= takes a power of two from 512 to 4194304"))
            }
            (MapValue::OneOf(all), _) => {
                Err(format!("{shown:?}: {name}= takes one of {}", all.join(", ")))
            }
            (MapValue::Location, _) => {
                Err(format!("{shown:?}: {name}= takes type:name, several joined by |"))
            }
        }
        .map(|()| MapOption(text.to_owned()))
    }
}

impl TryFrom<String> for MapOption {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MapOption> for String {
    fn from(option: MapOption) -> String {
        option.0
    }
}
