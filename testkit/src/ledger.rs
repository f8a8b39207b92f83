//! Whether what was synced is there, and nothing else: containers write numbered records on a volume, one after the
//! other, each synced before it is acknowledged outside of the volume.
//!
//! [`check`] is a pure function of what is on the volume and of what was acknowledged. A record has the epoch of the
//! claim under which it was written, so that one that a fenced host brought to the disk afterwards shows. A
//! [`Ledger`] starts the containers and keeps their acknowledgements.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

mod writer;

pub use writer::{FILE, Ledger, Made, Run};

/// The bytes of a record. A power of two, so that none lies in two blocks of a file system, and none can be torn
/// by anything but an error.
pub const RECORD: usize = 64;
/// The prime of the FNV hash for 64 bits. A shell can multiply, and needs no further process for it.
const PRIME: i64 = 1_099_511_628_211;

/// A record as it is on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number; the first is 1.
    pub seq: u64,
    /// Of the claim under which it was written.
    pub epoch: u64,
    /// The sum of the record before it; 0 in the first.
    pub prev: i64,
    /// Of the three above.
    pub sum: i64,
}

impl Record {
    /// A whole one.
    pub fn new(seq: u64, epoch: u64, prev: i64) -> Record {
        let mix = |sum: i64, with: u64| (sum ^ with.cast_signed()).wrapping_mul(PRIME) & i64::MAX;
        Record { seq, epoch, prev, sum: mix(mix(prev, seq), epoch) }
    }

    /// A record that is whole, from its bytes.
    fn parse(bytes: &[u8]) -> Option<Record> {
        let text = str::from_utf8(bytes).ok()?.strip_suffix(" end\n")?;
        let mut words = text.split_whitespace();
        let seq = words.next()?.parse().ok()?;
        let epoch = words.next()?.parse().ok()?;
        let prev = words.next()?.parse().ok()?;
        let sum = words.next()?.parse().ok()?;
        let record = Record { seq, epoch, prev, sum };
        (words.next().is_none() && record == Record::new(seq, epoch, prev)).then_some(record)
    }
}

impl fmt::Display for Record {
    /// As it is written: [`RECORD`] bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { seq, epoch, prev, sum } = self;
        writeln!(f, "{seq:10} {epoch:8} {prev:19} {sum:19} end")
    }
}

/// What one container has acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Of the claim that it wrote under.
    pub epoch: u64,
    /// Number and sum of each record, in the order of the acknowledgements.
    pub acked: Vec<(u64, i64)>,
}

/// Something that must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The bytes from here on are no whole record.
    Torn {
        /// Where in the file.
        at: usize,
    },
    /// It was acknowledged, and is not there.
    Lost {
        /// Its number.
        seq: u64,
        /// Of whoever acknowledged it.
        epoch: u64,
    },
    /// It was acknowledged, and another is there under its number.
    Replaced {
        /// Its number.
        seq: u64,
        /// Of whoever acknowledged it.
        epoch: u64,
        /// Of what is there.
        by: u64,
    },
    /// It is there twice.
    Double {
        /// Its number.
        seq: u64,
    },
    /// It was acknowledged twice.
    AckedTwice {
        /// Its number.
        seq: u64,
    },
    /// It comes after a later one, or before the ones that belong between, or was acknowledged so.
    Reordered {
        /// Its number.
        seq: u64,
        /// That of the one before it.
        after: u64,
    },
    /// It does not follow from the record before it.
    Unchained {
        /// Its number.
        seq: u64,
    },
    /// It was written under an epoch, and comes after a record of a later one.
    Stale {
        /// Its number.
        seq: u64,
        /// Its epoch.
        epoch: u64,
        /// The later one.
        after: u64,
    },
}

/// What is wrong with a file, given what each of its writers has acknowledged.
pub fn check(file: &[u8], runs: &[Acks]) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let records = read(file, &mut wrong);
    follow(&records, &mut wrong);
    let mut there = BTreeMap::new();
    for record in &records {
        there.entry(record.seq).or_insert(*record);
    }
    let mut met = BTreeSet::new();
    for run in runs {
        let mut last = None;
        for &(seq, sum) in &run.acked {
            match there.get(&seq) {
                None => wrong.push(Violation::Lost { seq, epoch: run.epoch }),
                Some(record) if (record.epoch, record.sum) != (run.epoch, sum) => {
                    wrong.push(Violation::Replaced { seq, epoch: run.epoch, by: record.epoch });
                }
                Some(_) => {}
            }
            match last {
                Some(after) if seq != after + 1 => wrong.push(Violation::Reordered { seq, after }),
                _ => {}
            }
            if !met.insert(seq) {
                wrong.push(Violation::AckedTwice { seq });
            }
            last = Some(seq);
        }
    }
    wrong
}

/// The records that are whole.
fn read(file: &[u8], wrong: &mut Vec<Violation>) -> Vec<Record> {
    let chunks = file.chunks(RECORD).enumerate();
    chunks
        .filter_map(|(number, bytes)| {
            let record = Record::parse(bytes);
            if record.is_none() {
                wrong.push(Violation::Torn { at: number * RECORD });
            }
            record
        })
        .collect()
}

/// Whether each follows from the one before it.
fn follow(records: &[Record], wrong: &mut Vec<Violation>) {
    let mut met = BTreeSet::new();
    let mut last = Record { seq: 0, epoch: 0, prev: 0, sum: 0 };
    let mut epoch = 0;
    for &record in records {
        let Record { seq, .. } = record;
        if record.epoch < epoch {
            wrong.push(Violation::Stale { seq, epoch: record.epoch, after: epoch });
        }
        if !met.insert(seq) {
            wrong.push(Violation::Double { seq });
        } else if seq != last.seq + 1 {
            wrong.push(Violation::Reordered { seq, after: last.seq });
        } else if record.prev != last.sum {
            wrong.push(Violation::Unchained { seq });
        }
        epoch = epoch.max(record.epoch);
        last = record;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many records of each epoch, one after the other.
    fn written(epochs: &[(u64, u64)]) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for &(epoch, count) in epochs {
            for _ in 0..count {
                let last = records.last().map_or((0, 0), |last| (last.seq, last.sum));
                records.push(Record::new(last.0 + 1, epoch, last.1));
            }
        }
        records
    }

    fn file(records: &[Record]) -> Vec<u8> {
        records.iter().map(Record::to_string).collect::<String>().into_bytes()
    }

    fn acks(records: &[Record], epoch: u64) -> Acks {
        let acked = records.iter().filter(|record| record.epoch == epoch);
        Acks { epoch, acked: acked.map(|record| (record.seq, record.sum)).collect() }
    }

    fn good() -> (Vec<Record>, Vec<Acks>) {
        let records = written(&[(1, 3), (2, 4)]);
        let runs = vec![acks(&records, 1), acks(&records, 2)];
        (records, runs)
    }

    #[test]
    fn a_record_has_its_size_and_is_read_as_it_was_written() {
        for record in [Record::new(1, 1, 0), Record::new(9_999_999_999, 99_999_999, i64::MAX)] {
            let bytes = record.to_string().into_bytes();
            assert_eq!((bytes.len(), Record::parse(&bytes)), (RECORD, Some(record)));
        }
    }

    #[test]
    fn what_is_well_is_well() {
        let (records, mut runs) = good();
        assert_eq!(check(&file(&records), &runs), []);
        assert_eq!(check(b"", &[]), []);
        // The last ones were synced, and the acknowledgement was not written any more.
        runs[0].acked.pop();
        runs[1].acked.pop();
        assert_eq!(check(&file(&records), &runs), []);
    }

    #[test]
    fn what_is_lost_is_found() {
        let (records, runs) = good();
        let lost = Violation::Lost { seq: 7, epoch: 2 };
        assert_eq!(check(&file(&records[..6]), &runs), [lost]);
        let mut holed = records.clone();
        holed.remove(3);
        let found = check(&file(&holed), &runs);
        let expected =
            [Violation::Reordered { seq: 5, after: 3 }, Violation::Lost { seq: 4, epoch: 2 }];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_was_lost_and_written_again_is_found() {
        let (_, runs) = good();
        // The one that took over did not see the last record of the one before.
        let again = written(&[(1, 2), (2, 5)]);
        let found = check(&file(&again), &runs);
        assert!(found.contains(&Violation::Replaced { seq: 3, epoch: 1, by: 2 }), "{found:?}");
        let mut both = runs;
        both[1] = acks(&again, 2);
        let found = check(&file(&again), &both);
        assert!(found.contains(&Violation::AckedTwice { seq: 3 }), "{found:?}");
    }

    #[test]
    fn what_is_torn_is_found() {
        let (records, runs) = good();
        for (at, torn) in [(64 + 20, 64), (0, 0), (7 * 64 - 1, 6 * 64)] {
            let mut bytes = file(&records);
            bytes[at] ^= 1;
            let found = check(&bytes, &runs);
            assert_eq!(found[0], Violation::Torn { at: torn }, "{found:?}");
        }
        let bytes = file(&records);
        let found = check(&bytes[..bytes.len() - 10], &runs);
        assert_eq!(found, [Violation::Torn { at: 6 * 64 }, Violation::Lost { seq: 7, epoch: 2 }]);
        let zeros = [&bytes[..], &[0; 64]].concat();
        assert_eq!(check(&zeros, &runs), [Violation::Torn { at: 7 * 64 }]);
    }

    #[test]
    fn what_is_out_of_order_is_found() {
        let (records, runs) = good();
        let mut swapped = records.clone();
        swapped.swap(4, 5);
        assert!(check(&file(&swapped), &runs).contains(&Violation::Reordered { seq: 6, after: 4 }));
        let mut early = runs;
        early[1].acked.swap(1, 2);
        let found = check(&file(&records), &early);
        assert!(found.contains(&Violation::Reordered { seq: 6, after: 4 }), "{found:?}");
    }

    #[test]
    fn what_is_there_twice_is_found() {
        let (mut records, runs) = good();
        let last = records[6];
        records.push(last);
        assert_eq!(check(&file(&records), &runs), [Violation::Double { seq: 7 }]);
    }

    #[test]
    fn what_a_fenced_writer_wrote_is_found() {
        let (mut records, runs) = good();
        let last = records[6];
        // It comes after the others, as if nobody had been there in between.
        records.push(Record::new(8, 1, last.sum));
        assert_eq!(
            check(&file(&records), &runs),
            [Violation::Stale { seq: 8, epoch: 1, after: 2 }]
        );
        // Or in the place where it would have been: over what its successor wrote.
        let (mut records, runs) = good();
        let third = records[2];
        records[3] = Record::new(4, 1, third.sum);
        let found = check(&file(&records), &runs);
        assert_eq!(
            found,
            [Violation::Unchained { seq: 5 }, Violation::Replaced { seq: 4, epoch: 2, by: 1 }]
        );
    }
}
