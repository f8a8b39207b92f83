//! The data in a sparse file, piece by piece.
//!
//! Holes are skipped by asking the file system (`SEEK_DATA`), and what is data but zero by looking.
//! One window of the file is in memory at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// What is looked at for being zero as a whole.
const BLOCK: usize = 4096;

/// How much is read at a time; no piece is longer. Windows begin at multiples of this, so that no
/// piece crosses the boundary between two objects of an image (4 MiB by default).
const WINDOW: u64 = 1 << 20;

/// Zeros between two pieces that are written along, because a request costs more than they do.
const GAP: usize = 32 << 10;

/// The pieces of a file that are not zero, in their order, as (offset, data). Ends after an error.
#[derive(Debug)]
pub struct Pieces {
    file: File,
    len: u64,
    /// Everything before this was looked at.
    seen: u64,
    found: VecDeque<(u64, Vec<u8>)>,
}

impl Pieces {
    /// The pieces of this file. Blocking, as is the iterator.
    ///
    /// # Errors
    /// When its length cannot be read.
    pub fn of(file: File) -> io::Result<Pieces> {
        let len = file.metadata()?.len();
        Ok(Pieces { file, len, seen: 0, found: VecDeque::new() })
    }

    /// How many bytes there are to look at. Blocking.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn bytes(mut self) -> io::Result<u64> {
        let mut bytes = 0;
        while let Some(extent) = self.extent()? {
            bytes += extent.end - extent.start;
            self.seen = extent.end;
        }
        Ok(bytes)
    }

    /// Looks at windows until there is a piece.
    fn search(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        while self.found.is_empty() {
            let Some(extent) = self.extent()? else { return Ok(None) };
            let end = extent.end.min((extent.start / WINDOW + 1) * WINDOW);
            let mut window = vec![0; usize::try_from(end - extent.start).unwrap_or(0)];
            self.file.read_exact_at(&mut window, extent.start)?;
            self.seen = end;
            for run in runs(&window) {
                let start = extent.start + run.start as u64;
                self.found.push_back((start, window[run].to_vec()));
            }
        }
        Ok(self.found.pop_front())
    }

    /// The next range that is not a hole.
    fn extent(&mut self) -> io::Result<Option<Range<u64>>> {
        let at = |offset: u64| i64::try_from(offset).map_err(io::Error::other);
        if self.seen >= self.len {
            return Ok(None);
        }
        let start = match lseek(self.file.as_fd(), at(self.seen)?, Whence::SeekData) {
            Err(Errno::ENXIO) => return Ok(None),
            start => start?.unsigned_abs().max(self.seen),
        };
        let end = lseek(self.file.as_fd(), at(start)?, Whence::SeekHole)?.unsigned_abs();
        Ok((start < end.min(self.len)).then_some(start..end.min(self.len)))
    }
}

impl Iterator for Pieces {
    type Item = io::Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.search().transpose();
        if let Some(Err(_)) = found {
            self.seen = self.len;
        }
        found
    }
}

/// The runs of blocks that are not zero, those that are close together joined.
fn runs(window: &[u8]) -> Vec<Range<usize>> {
    static ZERO: [u8; BLOCK] = [0; BLOCK];
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (n, block) in window.chunks(BLOCK).enumerate() {
        if block == &ZERO[..block.len()] {
            continue;
        }
        let (start, end) = (n * BLOCK, n * BLOCK + block.len());
        match runs.last_mut() {
            Some(last) if start - last.end <= GAP => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(file: &File) -> Vec<(u64, Vec<u8>)> {
        Pieces::of(file.try_clone().unwrap()).unwrap().collect::<io::Result<_>>().unwrap()
    }

    #[test]
    fn holes_and_zeros_are_no_data() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(pieces(&file), []);
        file.write_all_at(&[0; 1 << 20], 5 << 30).unwrap();
        assert_eq!(pieces(&file), []);
        file.write_all_at(b"x", (7 << 30) + 5000).unwrap();
        let got = pieces(&file);
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].0, got[0].1.len(), got[0].1[904]), ((7 << 30) + 4096, 4096, b'x'));
    }

    #[test]
    fn the_last_block_may_be_short() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096 + 7).unwrap();
        file.write_all_at(b"end", 4096 + 4).unwrap();
        assert_eq!(pieces(&file), [(4096, b"\0\0\0\0end".to_vec())]);
    }

    #[test]
    fn pieces_end_at_windows() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 3 << 20], 1 << 19).unwrap();
        let lens: Vec<_> = pieces(&file).iter().map(|(at, data)| (*at, data.len())).collect();
        let mib = 1 << 20;
        assert_eq!(
            lens,
            [(1 << 19, 1 << 19), (mib, 1 << 20), (2 * mib, 1 << 20), (3 * mib, 1 << 19)]
        );
    }

    #[test]
    fn close_runs_are_joined() {
        let mut window = vec![0; 1 << 20];
        for at in [0, BLOCK + GAP, 3 * BLOCK + 2 * GAP] {
            window[at] = 1;
        }
        assert_eq!(runs(&window), [0..2 * BLOCK + GAP, 3 * BLOCK + 2 * GAP..4 * BLOCK + 2 * GAP]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_blank_image_with_the_pieces_equals_the_file(
            len in 1u64..4 << 20,
            writes in prop::collection::vec((0u64..4 << 20, 1usize..50_000, any::<u8>()), 0..8),
        ) {
            let file = tempfile::tempfile().unwrap();
            let mut want = vec![0; usize::try_from(len).unwrap()];
            for (at, size, byte) in writes {
                let at = at % len;
                let size = size.min(usize::try_from(len - at).unwrap());
                let at = usize::try_from(at).unwrap();
                want[at..at + size].fill(byte);
                file.write_all_at(&want[at..at + size], at as u64).unwrap();
            }
            file.set_len(len).unwrap();
            let mut got = vec![0; want.len()];
            let mut end = 0;
            for (at, data) in pieces(&file) {
                prop_assert!(at >= end, "in order, no overlap");
                let at = usize::try_from(at).unwrap();
                got[at..at + data.len()].copy_from_slice(&data);
                end = (at + data.len()) as u64;
            }
            prop_assert!(got == want);
        }
    }
}
