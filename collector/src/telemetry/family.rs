//! Families of metrics, created and registered in one step.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Upper bounds of the buckets of a histogram, seconds: from a commit of a fast disk to one that clients give up on.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Registers the result of a constructor of the library.
///
/// # Panics
/// If a name is invalid or registered already. All names are constants of this layer, and its tests create every one.
#[expect(clippy::expect_used, reason = "the names are constants, and every start would show it")]
pub(super) fn registered<C: Collector + Clone + 'static>(registry: &Registry, created: prometheus::Result<C>) -> C {
    let collector = created.expect("a name, a help and labels of a metric");
    registry.register(Box::new(collector.clone())).expect("a name that no other metric has");
    collector
}

pub(super) fn counter(to: &Registry, name: &str, help: &str) -> IntCounter {
    registered(to, IntCounter::new(name, help))
}

pub(super) fn counters(to: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(to, IntCounterVec::new(Opts::new(name, help), labels))
}

pub(super) fn gauge(to: &Registry, name: &str, help: &str) -> IntGauge {
    registered(to, IntGauge::new(name, help))
}

pub(super) fn gauges(to: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(to, IntGaugeVec::new(Opts::new(name, help), labels))
}

pub(super) fn histogram(to: &Registry, name: &str, help: &str) -> Histogram {
    registered(to, Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec())))
}

pub(super) fn histograms(to: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    registered(to, HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), labels))
}
