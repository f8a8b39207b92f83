//! What users and operators go through, each told as a function of a running suite.
//!
//! Every story has a tenant of its own, and ends with nothing of it left anywhere.

pub mod cli;
pub mod containers;
pub mod crashes;
pub mod filesystems;
pub mod input;
pub mod life;
pub mod limits;
pub mod many;
pub mod outages;
pub mod schedules;
pub mod snapshots;

use testkit::host::Container;
use testkit::{Outcome, poll};

use std::time::Duration;

/// Writes 1, 2, 3 … to `/data/log`, each on a line, for ever.
pub const WRITER: &str = "i=$(wc -l </data/log 2>/dev/null || echo 0); while :; do i=$((i+1)); echo $i >>/data/log; sleep 0.02; done";

/// How many lines a writer has written; panics if one is missing, doubled or garbled.
#[track_caller]
pub fn lines_in(log: &Outcome) -> u64 {
    let lines = log.lines();
    for (line, expected) in lines.iter().zip(1u64..) {
        assert_eq!(line.parse(), Ok(expected), "the log has a gap: {log}");
    }
    lines.len() as u64
}

/// Waits until a writer has written more than so many lines, and gives how many there are.
#[track_caller]
pub fn writes_on(container: &Container<'_>, beyond: u64) -> u64 {
    let what = format!("{} to write on", container.name());
    poll::until(&what, Duration::from_secs(30), || {
        let count = lines_in(&container.sh("cat /data/log"));
        if count > beyond { Ok(count) } else { Err(format!("{count} lines")) }
    })
}
