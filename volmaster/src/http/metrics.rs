//! Counters in the OpenMetrics text format.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::app::LoopName;
use crate::app::status::Counts;

/// The bounds of the latency histogram, in seconds.
const BOUNDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    operation: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoopLabel {
    name: &'static str,
}

/// What is counted here; the rest is read where it is when somebody asks.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    latency: Family<Operation, Histogram, fn() -> Histogram>,
    volumes: Gauge,
    pending: Gauge,
    mounts: Gauge,
    loop_runs: Family<LoopLabel, Gauge>,
    loop_failures: Family<LoopLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("volmaster"),
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(BOUNDS)),
            volumes: Gauge::default(),
            pending: Gauge::default(),
            mounts: Gauge::default(),
            loop_runs: Family::default(),
            loop_failures: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Requests by operation and status", metrics.requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time to the answer by operation",
            metrics.latency.clone(),
        );
        registry.register("volumes", "Volumes", metrics.volumes.clone());
        registry.register(
            "volumes_pending",
            "Volumes being made or removed",
            metrics.pending.clone(),
        );
        registry.register("mounts", "Volumes that are claimed", metrics.mounts.clone());
        registry.register("loop_runs", "Runs of a reconciler", metrics.loop_runs.clone());
        registry.register(
            "loop_failures",
            "Failures of a reconciler, or of one object in it",
            metrics.loop_failures.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Counts a request.
    pub(super) fn request(&self, operation: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&Request { operation, status }).inc();
        self.latency.get_or_create(&Operation { operation }).observe(took.as_secs_f64());
    }

    /// Everything as text.
    pub(super) fn text(
        &self,
        counts: Counts,
        loops: &[(LoopName, u64, u64)],
    ) -> Result<String, fmt::Error> {
        let Counts { volumes, pending, mounts } = counts;
        self.volumes.set(signed(volumes));
        self.pending.set(signed(pending));
        self.mounts.set(signed(mounts));
        for (name, runs, failures) in loops {
            let label = LoopLabel { name: name.as_str() };
            self.loop_runs.get_or_create(&label).set(signed(*runs));
            self.loop_failures.get_or_create(&label).set(signed(*failures));
        }
        let mut written = String::new();
        text::encode(&mut written, &self.registry)?;
        Ok(written)
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
