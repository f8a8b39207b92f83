//! What every store refuses before it does anything, so that all three refuse the same.
//!
//! Called by the implementations of `commit` and `lease_grant`. Knows etcd's default
//! limits; never talks to a store.

use std::collections::HashSet;
use std::time::Duration;

use crate::store::{Key, MAX_COMMIT, MAX_STEPS, MAX_VALUE, MIN_TTL, Step};

/// What a step costs in an etcd request besides its key (twice: compare and operation) and value.
const STEP_OVERHEAD: usize = 64;

/// Why these steps can never be committed, if so.
pub(crate) fn refusal(steps: &[Step]) -> Option<String> {
    if steps.is_empty() {
        return Some("there are no steps".to_owned());
    }
    if steps.len() > MAX_STEPS {
        return Some(format!("{} steps are more than {MAX_STEPS}", steps.len()));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = steps.iter().map(key_of).find(|key| !seen.insert(*key)) {
        return Some(format!("{twice} appears in more than one step"));
    }
    if let Some((key, size)) =
        steps.iter().filter_map(value_size).find(|(_, size)| *size > MAX_VALUE)
    {
        return Some(format!("the value for {key} has {size} bytes, more than {MAX_VALUE}"));
    }
    let weight = weight(steps);
    (weight > MAX_COMMIT).then(|| format!("the commit has {weight} bytes, more than {MAX_COMMIT}"))
}

/// The size of a commit as etcd will see it, rounded up.
pub(crate) fn weight(steps: &[Step]) -> usize {
    let one = |step: &Step| {
        let value = value_size(step).map_or(0, |(_, size)| size);
        value + 2 * key_of(step).as_str().len() + STEP_OVERHEAD
    };
    steps.iter().map(one).sum()
}

/// The key that a step is about.
pub(crate) fn key_of(step: &Step) -> &Key {
    match step {
        Step::Put { key, .. } | Step::Delete { key, .. } | Step::Check { key, .. } => key,
    }
}

/// What a commit does, in a few words, for messages.
pub(crate) fn action(steps: &[Step]) -> String {
    let verb = |step: &Step| match step {
        Step::Put { .. } => "write",
        Step::Delete { .. } => "delete",
        Step::Check { .. } => "check",
    };
    match steps {
        [] => "commit nothing".to_owned(),
        [one] => format!("{} {}", verb(one), key_of(one)),
        [first, rest @ ..] => format!("{} {} and {} more", verb(first), key_of(first), rest.len()),
    }
}

/// A lease's time to live in whole seconds.
pub(crate) fn ttl_seconds(ttl: Duration) -> u64 {
    let up = u64::from(ttl.subsec_nanos() > 0);
    (ttl.as_secs() + up).max(MIN_TTL.as_secs())
}

fn value_size(step: &Step) -> Option<(&Key, usize)> {
    match step {
        Step::Put { key, value, .. } => Some((key, value.len())),
        Step::Delete { .. } | Step::Check { .. } => None,
    }
}
