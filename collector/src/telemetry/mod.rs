//! Metrics of the collector, as `GET /metrics` shows them. The fields of [`Telemetry`] and the constants of [`gauges`]
//! are the complete list.
//!
//! Counters begin at 0 with the process, except those of the embedded store ([`StoreMetrics`]), which are totals since
//! it was created. Figures that must be exact over restarts are in the ledger.

mod family;
pub(crate) mod gauges;
mod sinks;
mod store;

use std::time::Duration;

use prometheus::{Encoder, Histogram, IntCounter, IntCounterVec, Registry, TextEncoder};
use subway_protocol::RejectReason;
use subway_protocol::codec::server::ProblemCode;

pub(crate) use gauges::Gauges;
pub(crate) use sinks::SinkMetrics;
pub(crate) use store::StoreMetrics;

use crate::limit::LimitKind;
use family::{counter, counters, histogram};

/// Content type of [`Telemetry::render`].
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Metrics of one collector.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    requests: IntCounterVec,
    requests_rejected: IntCounterVec,
    requests_rate_limited: IntCounterVec,
    events: IntCounterVec,
    config_reloads: IntCounterVec,
    sinks: sinks::Families,
    /// Bytes of ingestion bodies as sent.
    pub(crate) body_bytes: IntCounter,
    /// Bytes of ingestion bodies after decompression.
    pub(crate) decompressed_bytes: IntCounter,
    /// Events stored.
    pub(crate) stored_events: IntCounter,
    /// Events seen before.
    pub(crate) duplicate_events: IntCounter,
    /// Stored events whose time was moved because the device's clock was off.
    pub(crate) clock_corrected_events: IntCounter,
    /// Commits of the spool that reached the disk.
    pub(crate) commits: IntCounter,
    /// Commits of the spool that failed; none of their events is stored.
    pub(crate) commit_failures: IntCounter,
    /// Connections accepted.
    pub(crate) connections: IntCounter,
    /// Connections rejected because there were too many.
    pub(crate) connections_rejected: IntCounter,
    /// TLS handshakes that failed or took too long.
    pub(crate) handshake_failures: IntCounter,
    /// Clocks of installs that were evicted because others came.
    pub(crate) install_clocks_evicted: IntCounter,
    /// Requests rejected because their app's share of the spool was used up.
    pub(crate) requests_over_share: IntCounter,
    /// Figures of the embedded store.
    pub(crate) store: StoreMetrics,
    /// From the beginning of a transaction of the spool to its commit on disk.
    pub(crate) commit_duration: Histogram,
    /// From the first byte of an ingestion request to its answer.
    pub(crate) ingest_duration: Histogram,
}

impl Default for Telemetry {
    fn default() -> Self {
        let registry = Registry::new();
        let to = &registry;
        let events = counters(to, "subway_events_total", "Events of accepted requests.", &["outcome", "reason"]);
        let telemetry = Self {
            requests: counters(to, "subway_requests_total", "Requests answered, by status.", &["status"]),
            requests_rejected: counters(to, "subway_requests_rejected_total", "Requests rejected, by code.", &["code"]),
            requests_rate_limited: counters(
                to,
                "subway_requests_rate_limited_total",
                "Requests rejected because a client or an app asked too often, by limit.",
                &["limit"],
            ),
            config_reloads: counters(to, "subway_config_reloads_total", "Reloads, by result.", &["result"]),
            sinks: sinks::Families::register(to),
            body_bytes: counter(to, "subway_body_bytes_total", "Bytes of ingestion bodies as sent."),
            decompressed_bytes: counter(
                to,
                "subway_decompressed_bytes_total",
                "Bytes of ingestion bodies after decompression.",
            ),
            stored_events: events.with_label_values(&["stored", ""]),
            duplicate_events: events.with_label_values(&["duplicate", ""]),
            events,
            clock_corrected_events: counter(
                to,
                "subway_clock_corrected_events_total",
                "Stored events whose time was moved because the clock of the device was off.",
            ),
            commits: counter(to, "subway_spool_commits_total", "Commits of the spool that reached the disk."),
            commit_failures: counter(to, "subway_spool_commit_failures_total", "Commits of the spool that failed."),
            connections: counter(to, "subway_connections_total", "Connections accepted."),
            connections_rejected: counter(
                to,
                "subway_connections_rejected_total",
                "Connections rejected because there were too many.",
            ),
            handshake_failures: counter(
                to,
                "subway_tls_handshake_failures_total",
                "TLS handshakes that failed or took too long.",
            ),
            install_clocks_evicted: counter(
                to,
                "subway_install_clocks_evicted_total",
                "Clocks of installs that were evicted because others came.",
            ),
            requests_over_share: counter(
                to,
                "subway_requests_over_share_total",
                "Requests rejected because the share of their app in the spool was used up.",
            ),
            store: StoreMetrics::new(to.clone()),
            commit_duration: histogram(
                to,
                "subway_spool_commit_duration_seconds",
                "From the beginning of a transaction of the spool to its commit on disk.",
            ),
            ingest_duration: histogram(
                to,
                "subway_ingest_duration_seconds",
                "From the first byte of an ingestion request to its answer.",
            ),
            registry,
        };
        telemetry.show_zeros();
        telemetry
    }
}

impl Telemetry {
    /// Creates the members of the families whose labels are known, so that a rate over them has a beginning.
    fn show_zeros(&self) {
        let build = family::gauges(&self.registry, "subway_build_info", "1, with the version.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for code in ProblemCode::ALL {
            self.requests_rejected.with_label_values(&[code.as_str()]);
        }
        for reason in RejectReason::ALL {
            self.events.with_label_values(&["rejected", reason.as_str()]);
        }
        for limit in LimitKind::ALL {
            self.requests_rate_limited.with_label_values(&[limit.as_str()]);
        }
        for result in ["applied", "refused"] {
            self.config_reloads.with_label_values(&[result]);
        }
        for status in ["200", "500", "503"] {
            self.requests.with_label_values(&[status]);
        }
    }

    /// Counts an answered request.
    pub(crate) fn count_request(&self, status: u16) {
        self.requests.with_label_values(&[status.to_string().as_str()]).inc();
    }

    /// Counts a request that was rejected with a problem.
    pub(crate) fn count_problem(&self, code: ProblemCode) {
        self.requests_rejected.with_label_values(&[code.as_str()]).inc();
    }

    /// Counts a request over a rate limit.
    pub(crate) fn count_rate_limited(&self, limit: LimitKind) {
        self.requests_rate_limited.with_label_values(&[limit.as_str()]).inc();
    }

    /// Counts an event that was rejected.
    pub(crate) fn count_rejected_event(&self, reason: RejectReason) {
        self.events.with_label_values(&["rejected", reason.as_str()]).inc();
    }

    /// Counts a reload of the configuration.
    pub(crate) fn count_reload(&self, applied: bool) {
        self.config_reloads.with_label_values(&[if applied { "applied" } else { "refused" }]).inc();
    }

    /// Returns the metrics of the sink `name`.
    #[must_use]
    pub(crate) fn sink(&self, name: &str) -> SinkMetrics {
        self.sinks.of(name)
    }

    /// Renders everything, `gauges` included, in the Prometheus text format 0.0.4.
    #[must_use]
    pub(crate) fn render(&self, gauges: &Gauges) -> String {
        let mut families = self.registry.gather();
        families.extend(gauges.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::with_capacity(32 * 1024);
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(%error, "the metrics cannot be rendered");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Records a duration.
pub(crate) fn observe(histogram: &Histogram, time: Duration) {
    histogram.observe(time.as_secs_f64());
}

#[cfg(test)]
mod tests;
