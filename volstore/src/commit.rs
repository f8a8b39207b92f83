//! Commits whose outcome is known in the end: what to do after [`StoreError::Unknown`].
//!
//! Called for every commit that must not be reported as "perhaps". Works on any store.
//! Never guesses: what cannot be found out stays `Unknown`.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::key_of;
use crate::store::{Commit, Entry, Expect, Revision, Step, Store, StoreError};

/// How often the commit is sent, at most.
const ATTEMPTS: usize = 8;
/// The pause before the store is asked again; doubles each time.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Commits, and if no answer comes, reads the keys again to find out.
///
/// After [`StoreError::Unknown`], all keys of the steps are read again:
///
/// 1. Every put key holds our value, all at one revision that is not the expected one, and every
///    deleted key is absent: the commit happened. `Done` with that revision (of a commit that
///    only deletes: with the store's newest).
/// 2. Every expectation still holds: the commit did not happen so far. It is sent again. Should
///    the first one arrive late after all, the second meets a conflict, which leads back to 1.
/// 3. Anything else: `Conflict`. The commit did not happen, or it did and somebody has already
///    changed or deleted something of it: either way the caller must read before going on.
///
/// At most eight times, and for `patience` at most after the first answer failed; then the last
/// `Unknown` is returned. Any other answer to the first attempt is returned as it is.
///
/// The limits of this: somebody else who wrote exactly the same bytes to the same keys in the
/// meantime is taken for us, so where it matters who wrote, the value must say so (an instance,
/// a random id, an epoch). And a request that is still under way when this returns `Conflict` or
/// `Unknown` may yet arrive, if its expectations hold again by then; `Absent` can, `At` cannot.
pub async fn commit_certain(
    store: &dyn Store,
    steps: Vec<Step>,
    patience: Duration,
) -> Result<Commit, StoreError> {
    let doubt = match store.commit(steps.clone()).await {
        Err(error @ StoreError::Unknown { .. }) => error,
        answer => return answer,
    };
    tracing::debug!(error = %crate::store::chain(&doubt), "a commit is in doubt");
    let resolved = resolve(store, &steps, Instant::now() + patience).await;
    resolved.unwrap_or(Err(doubt))
}

/// `None` when it cannot be found out.
async fn resolve(
    store: &dyn Store,
    steps: &[Step],
    end: Instant,
) -> Option<Result<Commit, StoreError>> {
    let mut pause = PAUSE;
    let mut lease_ended = None;
    for _ in 1..ATTEMPTS {
        let found = read_again(store, steps, end, &mut pause).await?;
        match trace_of(steps, &found) {
            Trace::Written(revision) => return Some(Ok(Commit::Done(revision))),
            Trace::Deleted => return newest(store, end, &mut pause).await,
            Trace::Changed => return Some(Ok(Commit::Conflict)),
            Trace::None => {}
        }
        if let Some(error) = lease_ended {
            return Some(Err(error));
        }
        match store.commit(steps.to_vec()).await {
            Ok(Commit::Done(revision)) => return Some(Ok(Commit::Done(revision))),
            // It may be an earlier attempt of ours that is in the way.
            Ok(Commit::Conflict) => {}
            Err(error @ StoreError::LeaseEnded { .. }) => lease_ended = Some(error),
            Err(StoreError::Unknown { .. } | StoreError::Unavailable { .. }) => {
                wait(end, &mut pause).await?;
            }
            Err(other) => return Some(Err(other)),
        }
    }
    None
}

/// All keys of the steps, one by one: no snapshot is needed, because a key that moves on
/// between two reads either shows another revision or fails the next attempt.
async fn read_again(
    store: &dyn Store,
    steps: &[Step],
    end: Instant,
    pause: &mut Duration,
) -> Option<Vec<Option<Entry>>> {
    let mut found = Vec::with_capacity(steps.len());
    while found.len() < steps.len() {
        match store.get(key_of(&steps[found.len()])).await {
            Ok(entry) => found.push(entry),
            Err(_) => wait(end, pause).await?,
        }
    }
    Some(found)
}

async fn newest(
    store: &dyn Store,
    end: Instant,
    pause: &mut Duration,
) -> Option<Result<Commit, StoreError>> {
    loop {
        match store.revision().await {
            Ok(revision) => return Some(Ok(Commit::Done(revision))),
            Err(_) => wait(end, pause).await?,
        }
    }
}

/// `None` when there is no time left.
async fn wait(end: Instant, pause: &mut Duration) -> Option<()> {
    if Instant::now() + *pause > end {
        return None;
    }
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
    Some(())
}

/// What the keys show of a commit.
#[derive(Debug, PartialEq, Eq)]
enum Trace {
    /// All that it writes, at this revision.
    Written(Revision),
    /// All that it deletes is gone, and it writes nothing.
    Deleted,
    /// Nothing: everything is as it was expected.
    None,
    /// Something else.
    Changed,
}

fn trace_of(steps: &[Step], found: &[Option<Entry>]) -> Trace {
    let pairs = || steps.iter().zip(found);
    if pairs().all(|(step, found)| holds(step, found.as_ref())) {
        return Trace::None;
    }
    let gone = pairs().all(|(step, found)| !matches!(step, Step::Delete { .. }) || found.is_none());
    let written: Vec<Option<Revision>> =
        pairs().filter_map(|(step, found)| put_revision(step, found.as_ref())).collect();
    let writes_nothing = !steps.iter().any(|step| matches!(step, Step::Put { .. }));
    let deletes_nothing = !steps.iter().any(|step| matches!(step, Step::Delete { .. }));
    match written.first() {
        Some(Some(revision)) if gone && written.iter().all(|r| r == &Some(*revision)) => {
            Trace::Written(*revision)
        }
        None if writes_nothing && gone && !deletes_nothing => Trace::Deleted,
        _ => Trace::Changed,
    }
}

fn holds(step: &Step, found: Option<&Entry>) -> bool {
    let at = |revision: &Revision| found.is_some_and(|entry| entry.revision == *revision);
    match step {
        Step::Put { expect, .. } | Step::Check { expect, .. } => match expect {
            Expect::Absent => found.is_none(),
            Expect::At(revision) => at(revision),
        },
        Step::Delete { at: revision, .. } => at(revision),
    }
}

/// For a put: where our value stands, if it does.
fn put_revision(step: &Step, found: Option<&Entry>) -> Option<Option<Revision>> {
    let Step::Put { value, expect, .. } = step else { return None };
    let ours = found.filter(|e| e.value == *value && *expect != Expect::At(e.revision));
    Some(ours.map(|entry| entry.revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;
    use crate::memory::{Fault, MemoryStore};
    use crate::store::Key;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn key(id: &str) -> Key {
        Keys::default().volume(&id.parse().unwrap())
    }

    fn put(id: &str, value: &str, expect: Expect) -> Step {
        Step::Put { key: key(id), value: value.into(), expect, lease: None }
    }

    async fn certain(store: &MemoryStore, steps: Vec<Step>) -> Result<Commit, StoreError> {
        commit_certain(store, steps, PATIENCE).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_is_done() {
        let store = MemoryStore::new();
        store.faults().on_commit(1, Fault::ReplyLost);
        let steps = vec![put("t/a", "1", Expect::Absent), put("t/b", "1", Expect::Absent)];
        assert_eq!(certain(&store, steps).await.unwrap(), Commit::Done(Revision(1)));
        assert_eq!(store.faults().commits(), 1, "it was not sent again");

        store.faults().on_commit(1, Fault::ReplyLost);
        let steps = vec![
            put("t/a", "1", Expect::At(Revision(1))),
            Step::Delete { key: key("t/b"), at: Revision(1) },
            Step::Check { key: key("t/c"), expect: Expect::Absent },
        ];
        assert_eq!(certain(&store, steps).await.unwrap(), Commit::Done(Revision(2)));

        store.faults().on_commit(1, Fault::ReplyLost);
        let steps = vec![Step::Delete { key: key("t/a"), at: Revision(2) }];
        assert_eq!(certain(&store, steps).await.unwrap(), Commit::Done(Revision(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_request_is_sent_again() {
        let store = MemoryStore::new();
        for nth in 1..ATTEMPTS as u64 {
            store.faults().on_commit(nth, Fault::RequestLost);
        }
        let steps = vec![put("t/a", "1", Expect::Absent)];
        assert_eq!(certain(&store, steps).await.unwrap(), Commit::Done(Revision(1)));
        assert_eq!(store.faults().commits(), ATTEMPTS as u64);
        // The same bytes as before are not mistaken for the new ones.
        store.faults().on_commit(1, Fault::RequestLost);
        let steps = vec![put("t/a", "1", Expect::At(Revision(1)))];
        assert_eq!(certain(&store, steps).await.unwrap(), Commit::Done(Revision(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_request_may_find_a_conflict() {
        let store = MemoryStore::new();
        certain(&store, vec![put("t/a", "theirs", Expect::Absent)]).await.unwrap();
        store.faults().on_commit(1, Fault::RequestLost);
        let steps = vec![put("t/a", "ours", Expect::Absent), put("t/b", "ours", Expect::Absent)];
        assert_eq!(certain(&store, steps).await.unwrap(), Commit::Conflict);
    }

    #[tokio::test(start_paused = true)]
    async fn checks_alone_are_repeated() {
        let store = MemoryStore::new();
        store.faults().on_commit(1, Fault::ReplyLost);
        let steps = vec![Step::Check { key: key("t/a"), expect: Expect::Absent }];
        assert_eq!(certain(&store, steps).await.unwrap(), Commit::Done(Revision(0)));
        store.faults().on_commit(1, Fault::ReplyLost);
        let steps = vec![Step::Check { key: key("t/a"), expect: Expect::At(Revision(7)) }];
        assert_eq!(certain(&store, steps).await.unwrap(), Commit::Conflict);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_after_the_loss_is_waited_for() {
        let store = MemoryStore::new();
        store.faults().on_commit(1, Fault::ReplyLost);
        let outage = store.faults().clone();
        for nth in 1..=5 {
            outage.on_read(nth);
        }
        let steps = vec![put("t/a", "1", Expect::Absent)];
        assert_eq!(certain(&store, steps).await.unwrap(), Commit::Done(Revision(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_found_out_stays_unknown() {
        let store = MemoryStore::new();
        store.faults().on_commit(1, Fault::ReplyLost);
        for nth in 1..=1000 {
            store.faults().on_read(nth);
        }
        let began = Instant::now();
        let steps = vec![put("t/a", "1", Expect::Absent)];
        match certain(&store, steps).await {
            Err(StoreError::Unknown { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() <= PATIENCE);
        assert!(began.elapsed() > PATIENCE - LONGEST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn certain_failures_are_handed_on() {
        let store = MemoryStore::new();
        store.faults().on_commit(1, Fault::Before);
        match certain(&store, vec![put("t/a", "1", Expect::Absent)]).await {
            Err(StoreError::Unavailable { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(store.faults().commits(), 1);
        let lease = store.lease_grant(PATIENCE).await.unwrap();
        store.lease_revoke(lease).await.unwrap();
        store.faults().on_commit(1, Fault::RequestLost);
        let step = Step::Put {
            key: key("t/a"),
            value: vec![],
            expect: Expect::Absent,
            lease: Some(lease),
        };
        match certain(&store, vec![step]).await {
            Err(StoreError::LeaseEnded { .. }) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn traces() {
        let entry = |id: &str, value: &str, revision| {
            Some(Entry { key: key(id), value: value.into(), revision: Revision(revision) })
        };
        let steps = [
            put("t/a", "1", Expect::Absent),
            put("t/b", "1", Expect::At(Revision(3))),
            Step::Delete { key: key("t/c"), at: Revision(3) },
        ];
        let trace = |found: [Option<Entry>; 3]| trace_of(&steps, &found);
        let (b, c) = (entry("t/b", "0", 3), entry("t/c", "0", 3));
        assert_eq!(trace([None, b.clone(), c.clone()]), Trace::None);
        let (a1, b1) = (entry("t/a", "1", 9), entry("t/b", "1", 9));
        assert_eq!(trace([a1.clone(), b1.clone(), None]), Trace::Written(Revision(9)));
        // Two revisions, a key come back, a value overtaken, a key gone: somebody else was here.
        assert_eq!(trace([a1.clone(), entry("t/b", "1", 8), None]), Trace::Changed);
        assert_eq!(trace([a1.clone(), b1.clone(), entry("t/c", "0", 10)]), Trace::Changed);
        assert_eq!(trace([a1, entry("t/b", "2", 10), None]), Trace::Changed);
        assert_eq!(trace([None, b1, None]), Trace::Changed);
        assert_eq!(trace([None, b, None]), Trace::Changed);
    }
}
