//! Metrics of the deliveries of each sink.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::family::{counters, gauges, histograms};

const LABELS: &[&str] = &["sink"];

/// Metrics of one sink. Clones share their values.
#[derive(Clone, Debug)]
pub(crate) struct SinkMetrics {
    /// Events that the store took.
    pub(crate) delivered_events: IntCounter,
    /// Events that the store refused for good.
    pub(crate) dead_lettered_events: IntCounter,
    /// Attempts that failed and are repeated.
    pub(crate) delivery_errors: IntCounter,
    /// Batches split because the store did not take them whole.
    pub(crate) batch_splits: IntCounter,
    /// Events stored by the year, because they are far from their arrival.
    pub(crate) far_events: IntCounter,
    /// Indices that single days far away may have.
    pub(crate) old_day_indices: IntGauge,
    /// Words written without a dictionary, because it was full.
    pub(crate) overflow_words: IntCounter,
    /// 0 while failures in a row require a health check before the next delivery, else 1.
    pub(crate) up: IntGauge,
    /// From the beginning of an attempt to deliver a batch to its end, successful or not.
    pub(crate) delivery_duration: Histogram,
}

impl Default for SinkMetrics {
    /// Creates metrics that are shown nowhere.
    fn default() -> Self {
        Families::register(&Registry::new()).of("")
    }
}

/// Families with a member for each sink.
#[derive(Debug)]
pub(super) struct Families {
    delivered_events: IntCounterVec,
    dead_lettered_events: IntCounterVec,
    delivery_errors: IntCounterVec,
    batch_splits: IntCounterVec,
    far_events: IntCounterVec,
    old_day_indices: IntGaugeVec,
    overflow_words: IntCounterVec,
    up: IntGaugeVec,
    delivery_duration: HistogramVec,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        let counters = |name, help| counters(registry, name, help, LABELS);
        let gauges = |name, help| gauges(registry, name, help, LABELS);
        Self {
            delivered_events: counters("subway_sink_delivered_events_total", "Events that the store took."),
            dead_lettered_events: counters(
                "subway_sink_dead_lettered_events_total",
                "Events that the store refused for good.",
            ),
            delivery_errors: counters("subway_sink_delivery_errors_total", "Attempts that failed and are repeated."),
            batch_splits: counters(
                "subway_sink_batch_splits_total",
                "Batches split because the store did not take them whole.",
            ),
            far_events: counters(
                "subway_sink_far_events_total",
                "Events stored by the year: more than 400 days from their arrival.",
            ),
            old_day_indices: gauges(
                "subway_sink_old_day_indices",
                "Indices that single days far away may have (Elasticsearch).",
            ),
            overflow_words: counters(
                "subway_sink_overflow_words_total",
                "Words that found the dictionary of a block full (ClickHouse).",
            ),
            up: gauges("subway_sink_up", "0 if the sink has failed so often that its health is asked first, else 1."),
            delivery_duration: histograms(
                registry,
                "subway_sink_delivery_duration_seconds",
                "From the beginning of an attempt to deliver a batch to its end.",
                LABELS,
            ),
        }
    }

    pub(super) fn of(&self, sink: &str) -> SinkMetrics {
        let labels = &[sink];
        let metrics = SinkMetrics {
            delivered_events: self.delivered_events.with_label_values(labels),
            dead_lettered_events: self.dead_lettered_events.with_label_values(labels),
            delivery_errors: self.delivery_errors.with_label_values(labels),
            batch_splits: self.batch_splits.with_label_values(labels),
            far_events: self.far_events.with_label_values(labels),
            old_day_indices: self.old_day_indices.with_label_values(labels),
            overflow_words: self.overflow_words.with_label_values(labels),
            up: self.up.with_label_values(labels),
            delivery_duration: self.delivery_duration.with_label_values(labels),
        };
        metrics.up.set(1);
        metrics
    }
}
