//! Every parser of a single text: it reads or refuses, never panics, and what it shows reads back.
#![no_main]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use volcore::duration::{self, Frequency};
use volcore::format::FormatCommand;
use volcore::name::{HostName, MountId, TenantName, VolumeId, VolumeName};
use volcore::options::{KEYS, MountOption, OptionSet, Tiers};
use volcore::size::Size;

fn shown_reads_back<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "{text:?}");
    }
}

fuzz_target!(|text: &str| {
    shown_reads_back::<Size>(text);
    shown_reads_back::<TenantName>(text);
    shown_reads_back::<VolumeName>(text);
    shown_reads_back::<HostName>(text);
    shown_reads_back::<MountId>(text);
    shown_reads_back::<VolumeId>(text);
    shown_reads_back::<Tiers>(text);
    shown_reads_back::<Frequency>(text);
    shown_reads_back::<FormatCommand>(text);
    if let Ok(read) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::show(read)), Ok(read));
    }
    let _ = text.parse::<MountOption>();
    for key in KEYS {
        let given = BTreeMap::from([(key.to_owned(), text.to_owned())]);
        let _ = OptionSet::from_driver_options(&given);
    }
});
