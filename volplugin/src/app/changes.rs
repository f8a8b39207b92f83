//! What is changed while a volume is mounted: the limits that this host holds itself, and the size. Both follow what
//! volmaster says. librbd's limits are none of this host's business, and images are made larger by volmaster: what
//! follows here is the device and the file system on it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use volcore::limit::{RateLimitOptions, RateLimits};
use volcore::name::VolumeId;
use volcore::options::Sharing;
use volstorage::host::{Grown, HostError};

use crate::app::{Plugin, within};
use crate::host::uses::{Held, Phase};
use crate::master::MasterError;

/// After a failure to grow it is tried again so late: what it fails by is seldom over in a second, and every attempt
/// runs a program.
pub const AGAIN: Duration = Duration::from_secs(10);

/// The volumes that could not grow a short while ago.
#[derive(Debug, Default)]
pub struct Stunted {
    since: Mutex<HashMap<VolumeId, Instant>>,
}

impl Stunted {
    fn note(&self, id: &VolumeId) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.insert(id.clone(), Instant::now());
    }

    fn is(&self, id: &VolumeId) -> bool {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|_, since| since.elapsed() < AGAIN);
        since.contains_key(id)
    }
}

impl Plugin {
    /// Brings what is mounted here to what volmaster says. Asks nobody where nothing is.
    pub async fn follow_changes(&self) -> Result<(), MasterError> {
        // Read before volmaster is asked: a record that is written meanwhile may say something newer than its answer.
        let held: Vec<Held> =
            self.uses.list().into_iter().filter(|held| self.is_here(held)).collect();
        if held.is_empty() {
            return Ok(());
        }
        let all = self.master.host_limit_list(&self.me.host, within::LOOK).await?;
        for known in held {
            let same = |(volume, uid)| volume == &known.volume && uid == known.uid;
            let now = all.iter().find(|one| same((&one.volume, one.uid)));
            if known.sharing != Sharing::ReadOnly && now.map(|now| now.epoch) != known.epoch {
                self.follow_loss(&known).await;
            }
            let Some(now) = now else { continue };
            if self.limits_are_here(&known)
                && RateLimits::from(&now.rate_limit) != RateLimits::from(&known.limits)
            {
                self.follow_limit(&known, &now.rate_limit).await;
            }
            // A volmaster of before says nothing, which is 0. Read-only nothing can grow.
            if now.size > known.size
                && known.sharing != Sharing::ReadOnly
                && !self.stunted.is(&known.volume)
            {
                self.follow_size(&known, now.size).await;
            }
        }
        Ok(())
    }

    /// Somebody else may have been given the volume: asks, if nothing has happened to it since `known` was read.
    async fn follow_loss(&self, known: &Held) {
        let Some(_turn) = self.locks.try_lock(&known.volume) else { return };
        let held = self.uses.get(&known.volume).filter(|held| self.is_here(held));
        let Some(mut held) = held.filter(|held| held.told && held.epoch == known.epoch) else {
            return;
        };
        let before = held.clone();
        match self.tell(&mut held).await {
            Err(error) if error.is_lost() => self.lose(held).await,
            Ok(()) => self.put_changed(&held, &before),
            Err(error) => {
                tracing::debug!(volume = %held.volume, %error, "it is not known who has it");
            }
        }
    }

    /// Whether it is mounted here.
    fn is_here(&self, held: &Held) -> bool {
        held.phase == Phase::Mounted && held.boot == self.me.boot
    }

    /// Whether it is mounted here in a way of which this host holds the limits.
    fn limits_are_here(&self, held: &Held) -> bool {
        let access = held.mapping.as_ref().map(|mapping| mapping.access);
        self.is_here(held) && access.is_some_and(|access| self.driver.holds_limits(access))
    }

    /// Sets other limits, if nothing has happened to the volume since `known` was read; else the next look does.
    async fn follow_limit(&self, known: &Held, limits: &RateLimitOptions) {
        let id = &known.volume;
        let Some(_turn) = self.locks.try_lock(id) else { return };
        let held = self.uses.get(id).filter(|held| self.limits_are_here(held));
        let unchanged = |held: &Held| held.uid == known.uid && held.limits == known.limits;
        let Some(mut held) = held.filter(unchanged) else { return };
        let Some(mapping) = &held.mapping else { return };
        let before = held.clone();
        // The record follows the device: whoever dies in between finds that they differ, and sets them again.
        match self.driver.limit(mapping, &RateLimits::from(limits)).await {
            Ok(()) => {
                tracing::info!(volume = %id, ?limits, "limits changed");
                held.limits = limits.clone();
                held.last_error = None;
            }
            Err(error) => held.failed("the limits could not be changed yet", &error),
        }
        self.put_changed(&held, &before);
    }

    /// Grows what is mounted, if nothing has happened to the volume since `known` was read; else the next look does.
    async fn follow_size(&self, known: &Held, size: u64) {
        let id = &known.volume;
        let Some(_turn) = self.locks.try_lock(id) else { return };
        let held = self.uses.get(id).filter(|held| self.is_here(held));
        let unchanged = |held: &Held| held.uid == known.uid && held.size == known.size;
        let Some(mut held) = held.filter(unchanged) else { return };
        let Some(mapping) = &held.mapping else { return };
        let before = held.clone();
        // The record follows here, too: growing what has grown already does nothing.
        match self.driver.grow(mapping, &held.target, size).await {
            Ok(grown) => {
                if let Grown::Larger(size) = grown {
                    tracing::info!(volume = %id, size, "the file system has grown");
                }
                // Of a size that is no whole number of sectors the device has less.
                held.size = size.max(grown.device());
                held.last_error = None;
            }
            Err(error) => {
                self.stunted.note(id);
                held.failed("the file system could not grow yet", &error);
            }
        }
        self.put_changed(&held, &before);
    }

    fn put_changed(&self, held: &Held, before: &Held) {
        if held != before
            && let Err(error) = self.uses.put(held)
        {
            tracing::warn!(volume = %held.volume, %error, "record not written");
        }
    }
}

impl Held {
    /// Notes why a change did not come about; says so when it is news.
    fn failed(&mut self, what: &'static str, error: &HostError) {
        let error = volapi::problem::chain(error);
        if self.last_error.as_ref() != Some(&error) {
            tracing::warn!(volume = %self.volume, error, what);
        }
        self.last_error = Some(error);
    }
}
