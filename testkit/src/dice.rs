//! Chance that is the same in every run with the same seed: splitmix64 (Steele, Lea, Flood 2014).

use std::sync::atomic::{AtomicU64, Ordering};

/// The step of the sequence, from the paper.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A sequence of numbers that several threads may draw from.
#[derive(Debug, Default)]
pub struct Dice(AtomicU64);

impl Dice {
    /// The sequence of a seed.
    pub fn of(seed: u64) -> Dice {
        Dice(AtomicU64::new(seed))
    }

    /// Begins that of another seed.
    pub fn seed(&self, seed: u64) {
        self.0.store(seed, Ordering::Relaxed);
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below a bound, which is not 0.
    pub fn below(&self, bound: u64) -> u64 {
        // The bounds here are small, so that the remainder favours nobody.
        self.next() % bound
    }

    /// One of several.
    #[track_caller]
    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        let count = u64::try_from(of.len()).expect("few enough");
        &of[usize::try_from(self.below(count)).expect("below their number")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_paper() {
        let dice = Dice::of(1_234_567);
        let first = [dice.next(), dice.next(), dice.next()];
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn all_of_a_few_are_picked() {
        let dice = Dice::of(0);
        let mut seen: Vec<_> = (0..50).map(|_| *dice.pick(&['a', 'b', 'c'])).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, ['a', 'b', 'c']);
    }
}
