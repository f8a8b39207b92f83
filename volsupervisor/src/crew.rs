//! The tasks that have a place in the lanes: begins them when it is their turn, and tells how they ended.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use volcore::name::VolumeId;

use crate::lanes::{Bounds, Ended, Lanes};

/// A piece of work under way.
pub type Work<R> = Pin<Box<dyn Future<Output = R> + Send>>;

type Worker<T, R> = Box<dyn Fn(&VolumeId, &T) -> Work<R> + Send>;

/// What a piece of work came to.
pub trait Verdict {
    /// What it says of the volume.
    fn ended(&self) -> Ended;
}

/// Work on volumes, each piece in a task of its own.
pub struct Crew<T, R> {
    /// Whose turn it is.
    pub lanes: Lanes<T>,
    work: Worker<T, R>,
    tasks: JoinSet<R>,
    begun: HashMap<Id, (VolumeId, T)>,
    aborts: HashMap<VolumeId, AbortHandle>,
}

/// Whether work that waits may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// As the places allow.
    Begin,
    /// What is under way goes on, and nothing is begun.
    Hold,
}

/// Something that has happened to a piece of work.
#[derive(Debug)]
pub enum Step<T, R> {
    /// It has ended.
    Ended(VolumeId, T, R),
    /// It hangs, or its task has broken: what it came to is not known, and nobody waits for it any more.
    LetGo(VolumeId, T),
}

impl<T, R: Verdict + Send + 'static> Crew<T, R> {
    /// Nobody, yet.
    pub fn new(
        bounds: Bounds,
        work: impl Fn(&VolumeId, &T) -> Work<R> + Send + 'static,
    ) -> Crew<T, R> {
        Crew {
            lanes: Lanes::new(bounds),
            work: Box::new(work),
            tasks: JoinSet::new(),
            begun: HashMap::new(),
            aborts: HashMap::new(),
        }
    }

    /// Queues work for a volume; `false` where there is some already.
    pub fn offer(&mut self, volume: VolumeId, item: T) -> bool {
        self.lanes.offer(volume, item, Instant::now())
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.begun.is_empty() && self.lanes.waiting() == 0
    }

    /// How many are under way.
    pub fn begun(&self) -> usize {
        self.begun.len()
    }

    /// Begins all whose turn it is.
    pub fn begin(&mut self) {
        while let Some((volume, item)) = self.lanes.begin(Instant::now()) {
            let abort = self.tasks.spawn((self.work)(&volume, &item));
            self.begun.insert(abort.id(), (volume.clone(), item));
            self.aborts.insert(volume, abort);
        }
    }

    /// What happens next; it waits for ever where nothing can. Cancel-safe: whatever it takes note of, it returns.
    pub async fn step(&mut self, turn: Turn) -> Step<T, R> {
        loop {
            if turn == Turn::Begin {
                self.begin();
            }
            if let Some(volume) = self.lanes.overdue(Instant::now())
                && let Some(abort) = self.aborts.remove(&volume)
                && let Some((_, item)) = self.begun.remove(&abort.id())
            {
                abort.abort();
                return Step::LetGo(volume, item);
            }
            let overdue = self.lanes.next_overdue();
            let rested = self.lanes.next_rested().filter(|_| turn == Turn::Begin);
            // Cancel-safe: join_next_with_id() is, and a sleep can begin again.
            let joined = tokio::select! {
                Some(joined) = self.tasks.join_next_with_id() => joined,
                () = until(overdue.into_iter().chain(rested).min()) => continue,
            };
            let id = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            // One that was let go is not known any more.
            let Some((volume, item)) = self.begun.remove(&id) else { continue };
            self.aborts.remove(&volume);
            let ended = joined.as_ref().map_or(Ended::Badly, |(_, result)| result.ended());
            self.lanes.ended(&volume, ended, Instant::now());
            return match joined {
                Ok((_, result)) => Step::Ended(volume, item, result),
                Err(_) => Step::LetGo(volume, item),
            };
        }
    }
}

/// Sleeps until a moment, or for ever.
pub async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
