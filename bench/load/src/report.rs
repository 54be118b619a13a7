//! What a run found.

use hdrhistogram::Histogram;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) figures: Option<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// All of one window of time.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Messages, deliveries or whole sessions, each checked.
    pub(crate) operations: u64,
    pub(crate) secs: f64,
    pub(crate) server_cpu_s: f64,
    pub(crate) load_cpu_s: f64,
    /// What the kernel's own threads took on the server's core, and on the load's.
    pub(crate) server_softirq_cpu_s: f64,
    pub(crate) load_softirq_cpu_s: f64,
    pub(crate) others_cpu_s: f64,
    pub(crate) latency_us: Latency,
    /// Of those that sit idle, or that stall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes_per_session: Option<f64>,
    /// Of the others, with sessions that stall and before there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ratio: Option<f64>,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// What is counted while it runs.
pub(crate) struct Tally {
    pub(crate) operations: u64,
    latency_ns: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        let latency_ns = Histogram::new_with_bounds(1_000, 60_000_000_000, 2);
        let latency_ns = latency_ns.unwrap_or_else(|_| unreachable!("constant bounds in order"));
        Tally { operations: 0, latency_ns }
    }

    pub(crate) fn count(&mut self, operations: u64, latency_ns: u64) {
        self.operations += operations;
        let latency_ns = latency_ns.min(self.latency_ns.high());
        if self.latency_ns.record_n(latency_ns, operations).is_err() {
            unreachable!("it is within the bounds");
        }
    }

    pub(crate) fn clear(&mut self) {
        self.operations = 0;
        self.latency_ns.reset();
    }

    pub(crate) fn latency(&self) -> Latency {
        let at = |quantile| self.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        Latency { p50: at(0.5), p99: at(0.99), max: self.latency_ns.max() as f64 / 1e3 }
    }
}
