//! Takes and removals together: for ever, or once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::master::{Master, MasterError};
use crate::removals::Removals;
use crate::takes::Takes;

/// At the end, what is under way has so long to finish. What does not goes on in volmaster.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// How much of what there was to do was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// So many calls did what they should.
    pub done: u64,
    /// So many did not.
    pub failed: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, is_done: bool) {
        if is_done { self.done += 1 } else { self.failed += 1 }
    }

    /// 0: all was done; 1: nothing; 3: a part (DESIGN §12).
    pub fn exit_code(self) -> u8 {
        match self {
            Tally { failed: 0, .. } => 0,
            Tally { done: 0, .. } => 1,
            Tally { .. } => 3,
        }
    }
}

/// Takes what is due and removes what is not kept, until told to stop; then waits for what is under way.
pub async fn run(master: Arc<dyn Master>, most: usize, stop: CancellationToken) {
    let (tell, taken) = mpsc::unbounded_channel();
    let (crowd, crowded) = watch::channel(None);
    let takes = Takes::new(Arc::clone(&master), most, tell, crowd);
    let removals = Removals::new(master, taken, crowded);
    tokio::join!(takes.run(stop.clone()), removals.run(stop));
}

/// Takes what is due now, and removes once what is not kept.
///
/// # Errors
/// When volmaster does not say what is due.
pub async fn once(master: Arc<dyn Master>, most: usize) -> Result<Tally, MasterError> {
    // Removals look at every volume afterwards, so that nobody has to be told.
    let (tell, taken) = mpsc::unbounded_channel();
    let (crowd, crowded) = watch::channel(None);
    let removals = Removals::new(Arc::clone(&master), taken, crowded);
    let takes = Takes::new(master, most, tell, crowd).once().await?;
    let removals = removals.once().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "it is not known which snapshots are to go");
        Tally { done: 0, failed: 1 }
    });
    tracing::info!(?takes, ?removals, "done");
    Ok(Tally { done: takes.done + removals.done, failed: takes.failed + removals.failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_suite() {
        for (done, failed, expected) in [(0, 0, 0), (7, 0, 0), (0, 2, 1), (5, 2, 3)] {
            assert_eq!(Tally { done, failed }.exit_code(), expected);
        }
    }
}
