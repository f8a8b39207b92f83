//! The `Status` of `docker volume inspect`, put together from what is known.

use volapi::snapshots::Schedule;
use volapi::volumes::{Image, Volume};
use volcore::limit::{RateLimitOptions, RateLimits};
use volcore::options::{Access, OptionSet};

use crate::app::Plugin;
use crate::app::volumes::{Look, Seen};
use crate::docker::protocol::Status;
use crate::host::uses::{Held, Phase};

impl Plugin {
    /// What Docker shows of a volume.
    pub async fn status(&self, look: &Look) -> Status {
        let mut status = match &look.seen {
            Seen::Fresh(volume) => fresh(volume),
            Seen::Cached(brief, error) => Status {
                state: brief.as_ref().map(|brief| brief.state.as_str().to_owned()),
                health: Some(format!("the control plane does not answer: {error}")),
                source: Some("cache".to_owned()),
                ..Status::default()
            },
        };
        if let Some(held) = &look.held {
            let limits = match &look.seen {
                Seen::Fresh(volume) => &volume.options.rate_limit,
                Seen::Cached(..) => &held.limits,
            };
            self.add_held(&mut status, held, limits).await;
        }
        status
    }

    async fn add_held(&self, status: &mut Status, held: &Held, limits: &RateLimitOptions) {
        if status.holder.is_none() && held.phase == Phase::Mounted {
            status.holder = Some(self.me.host.to_string());
        }
        if let Some(mapping) = &held.mapping {
            status.access = Some(mapping.access.to_string());
            if mapping.access == Access::Kernel && !self.driver.holds_limits(Access::Kernel) {
                let place = "access kernel on a host without cgroup v2";
                status.rate_limit = Some(show_limits(&RateLimits::from(limits), Some(place)));
            }
        }
        if held.phase == Phase::Mounted {
            match self.driver.space(&held.target).await {
                Ok(space) => status.used = Some(space.used),
                Err(error) => status.health = Some(volapi::problem::chain(&error)),
            }
            if let Err(error) = self.driver.serves(&held.source).await {
                status.health = Some(format!("failed: {}", volapi::problem::chain(&error)));
            }
        }
        if held.phase == Phase::Fenced {
            let lost = "it was taken from this host, which was given up; containers that use it here get errors, and have to \
                        be stopped";
            status.health = Some(lost.to_owned());
        }
        if held.phase == Phase::Leaving {
            status.health = Some("it is being unmounted on this host".to_owned());
        }
        if held.last_error.is_some() {
            status.last_error.clone_from(&held.last_error);
        }
    }
}

fn fresh(volume: &Volume) -> Status {
    let OptionSet { pool, size, filesystem, rate_limit, access, .. } = &volume.options;
    let image = match &volume.image {
        Image::Rbd { image, .. } => image.clone(),
        Image::File { path } => path.display().to_string(),
    };
    let schedule = volume.schedule.as_ref();
    let not_taken = schedule.and_then(|schedule| schedule.last_error.as_ref());
    let not_taken = not_taken
        .map(|error| format!("no snapshot was taken at {:.0}: {}", error.at, error.reason));
    let limits = RateLimits::from(rate_limit);
    let access = match (access, &volume.image) {
        (Some(Access::Auto) | None, Image::File { .. }) => Access::Fuse,
        (access, _) => access.unwrap_or_default(),
    };
    let unenforced = match (&volume.image, access) {
        (Image::File { .. }, _) => Some("local files"),
        (Image::Rbd { .. }, _) => None,
    };
    Status {
        state: Some(volume.state.as_str().to_owned()),
        holder: volume.mount.as_ref().map(|mount| mount.holder.host.to_string()),
        holder_since: volume.mount.as_ref().map(|mount| mount.holder.since),
        size: size.map(|size| size.to_string()),
        used: None,
        filesystem: filesystem.as_ref().map(ToString::to_string),
        pool: pool.as_ref().map(ToString::to_string),
        image: Some(image),
        access: Some(access.to_string()),
        snapshots: Some(schedule.map_or_else(|| "off".to_owned(), show_schedule)),
        last_snapshot: schedule.and_then(|schedule| schedule.last),
        next_snapshot: schedule.and_then(|schedule| schedule.next),
        rate_limit: Some(show_limits(&limits, unenforced)),
        health: Some("ok".to_owned()),
        last_error: volume.last_error.clone().or(not_taken),
        source: Some("volmaster".to_owned()),
    }
}

/// `every 30m, keep 20`.
fn show_schedule(schedule: &Schedule) -> String {
    let Schedule { frequency, keep, retention, .. } = schedule;
    let kept = keep.map(|keep| keep.to_string()).or(retention.map(|tiers| tiers.to_string()));
    format!("every {frequency}, keep {}", kept.unwrap_or_default())
}

/// The limits that are set, and where nothing holds them.
fn show_limits(limits: &RateLimits, unenforced: Option<&str>) -> String {
    let RateLimits { write_iops, read_iops, write_bps, read_bps } = limits;
    let named = [
        ("write-iops", write_iops),
        ("read-iops", read_iops),
        ("write-bps", write_bps),
        ("read-bps", read_bps),
    ];
    let set = named.iter().filter_map(|(name, limit)| limit.map(|limit| format!("{name} {limit}")));
    let shown: Vec<String> = set.collect();
    match (shown.is_empty(), unenforced) {
        (true, _) => "none".to_owned(),
        (false, None) => shown.join(", "),
        (false, Some(place)) => {
            format!("{} (not enforced with {place} in this version)", shown.join(", "))
        }
    }
}
