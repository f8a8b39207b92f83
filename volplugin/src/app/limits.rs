//! Limits that are changed while a volume is mounted: those that this host holds itself follow what volmaster says.
//! librbd's are none of this host's business.

use volcore::limit::{RateLimitOptions, RateLimits};

use crate::app::{Plugin, within};
use crate::host::uses::{Held, Phase};
use crate::master::MasterError;

impl Plugin {
    /// Brings the limits that this host holds to what volmaster says. Asks nobody where it holds none.
    pub async fn follow_limits(&self) -> Result<(), MasterError> {
        // Read before volmaster is asked: a record that is written meanwhile may say something newer than its answer.
        let held: Vec<Held> =
            self.uses.list().into_iter().filter(|held| self.limits_are_here(held)).collect();
        if held.is_empty() {
            return Ok(());
        }
        let all = self.master.host_limit_list(&self.me.host, within::LOOK).await?;
        for known in held {
            let same = |(volume, uid)| volume == &known.volume && uid == known.uid;
            if let Some(now) = all.iter().find(|one| same((&one.volume, one.uid)))
                && RateLimits::from(&now.rate_limit) != RateLimits::from(&known.limits)
            {
                self.follow_limit(&known, &now.rate_limit).await;
            }
        }
        Ok(())
    }

    /// Whether it is mounted here in a way of which this host holds the limits.
    fn limits_are_here(&self, held: &Held) -> bool {
        let access = held.mapping.as_ref().map(|mapping| mapping.access);
        held.phase == Phase::Mounted
            && held.boot == self.me.boot
            && access.is_some_and(|access| self.driver.holds_limits(access))
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
            Err(error) => {
                let error = volapi::problem::chain(&error);
                if held.last_error.as_ref() != Some(&error) {
                    tracing::warn!(volume = %id, error, "the limits could not be changed yet");
                }
                held.last_error = Some(error);
            }
        }
        if held != before
            && let Err(error) = self.uses.put(&held)
        {
            tracing::warn!(volume = %id, %error, "record not written");
        }
    }
}
