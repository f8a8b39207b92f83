//! Waiting for a condition, with a text that says what is waited for and how it stands.
//!
//! The only place of the tests that sleeps.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Looks at a condition until it holds, and gives what it gave. Until then it says why it does not
/// hold; the last such text is in the panic when the deadline passes.
#[track_caller]
pub fn until<T, S: Display>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, S>,
) -> T {
    match wait(deadline, &mut look) {
        Ok(value) => value,
        Err(status) => panic!("waited {} s for {what}, in vain: {status}", deadline.as_secs_f32()),
    }
}

/// The same, for whoever goes on when the deadline passes: with the last status.
pub fn wait<T, S: Display>(
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, S>,
) -> Result<T, S> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(2);
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(status) if Instant::now() >= end => return Err(status),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(100));
    }
}

/// A bool as a condition.
pub fn holds(condition: bool, otherwise: &str) -> Result<(), &str> {
    if condition { Ok(()) } else { Err(otherwise) }
}
