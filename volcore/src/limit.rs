//! Rate limits of a volume (DESIGN §11).

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// Limits as they are written in a policy or an option: absent says nothing, zero takes a limit away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RateLimitOptions {
    /// Write operations per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<u64>,
    /// Read operations per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<u64>,
    /// Bytes written per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bps: Option<u64>,
    /// Bytes read per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bps: Option<u64>,
}

impl RateLimitOptions {
    /// These limits, with those of `over` in their place where `over` says something.
    pub fn overlaid(self, over: RateLimitOptions) -> RateLimitOptions {
        let RateLimitOptions { write_iops, read_iops, write_bps, read_bps } = over;
        RateLimitOptions {
            write_iops: write_iops.or(self.write_iops),
            read_iops: read_iops.or(self.read_iops),
            write_bps: write_bps.or(self.write_bps),
            read_bps: read_bps.or(self.read_bps),
        }
    }
}

/// The limits that hold for a volume; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Write operations per second.
    pub write_iops: Option<NonZeroU64>,
    /// Read operations per second.
    pub read_iops: Option<NonZeroU64>,
    /// Bytes written per second.
    pub write_bps: Option<NonZeroU64>,
    /// Bytes read per second.
    pub read_bps: Option<NonZeroU64>,
}

impl RateLimits {
    /// True where nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == RateLimits::default()
    }
}

impl From<&RateLimitOptions> for RateLimits {
    fn from(options: &RateLimitOptions) -> RateLimits {
        let RateLimitOptions { write_iops, read_iops, write_bps, read_bps } = options;
        let limit = |value: &Option<u64>| value.and_then(NonZeroU64::new);
        RateLimits {
            write_iops: limit(write_iops),
            read_iops: limit(read_iops),
            write_bps: limit(write_bps),
            read_bps: limit(read_bps),
        }
    }
}

impl From<&RateLimits> for RateLimitOptions {
    fn from(limits: &RateLimits) -> RateLimitOptions {
        let RateLimits { write_iops, read_iops, write_bps, read_bps } = limits;
        let option = |limit: &Option<NonZeroU64>| limit.map(NonZeroU64::get);
        RateLimitOptions {
            write_iops: option(write_iops),
            read_iops: option(read_iops),
            write_bps: option(write_bps),
            read_bps: option(read_bps),
        }
    }
}
