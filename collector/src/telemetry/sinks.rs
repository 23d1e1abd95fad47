//! What is counted of each sink's deliveries.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Histogram, head};

/// The counters of one sink. They begin at 0 with the process.
#[derive(Debug, Default)]
pub struct SinkCounts {
    events: AtomicU64,
    refused: AtomicU64,
    failures: AtomicU64,
    cuts: AtomicU64,
    far: AtomicU64,
    old_indices: AtomicU64,
    overflow_words: AtomicU64,
    down: AtomicBool,
    /// From the beginning of an attempt to deliver a batch to its end, whatever that is.
    pub delivery_seconds: Histogram,
}

impl SinkCounts {
    /// So many events were taken by the store.
    pub fn delivered(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// So many events were refused for good.
    pub fn refused(&self, events: u64) {
        self.refused.fetch_add(events, Ordering::Relaxed);
    }

    /// An attempt failed and will be repeated.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A batch was cut because the store did not take it whole.
    pub fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// So many events were stored by the year, because they are far from their arrival.
    pub fn far(&self, events: u64) {
        self.far.fetch_add(events, Ordering::Relaxed);
    }

    /// So many indices may exist of single days that are far away.
    pub fn set_old_indices(&self, indices: u64) {
        self.old_indices.store(indices, Ordering::Relaxed);
    }

    /// So many words were written without a dictionary, because it was full.
    pub fn overflowed(&self, words: u64) {
        self.overflow_words.fetch_add(words, Ordering::Relaxed);
    }

    /// The sink counts as down, or does so no longer.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }
}

/// One family of figures: its name, its type, its help, and where the figure of a sink is.
type Family = (&'static str, &'static str, &'static str, fn(&SinkCounts) -> u64);

/// The families of every sink, except the histogram.
pub(super) const FAMILIES: [Family; 8] = [
    ("subway_sink_delivered_events_total", "counter", "Events that the store took.", |sink| {
        sink.events.load(Ordering::Relaxed)
    }),
    ("subway_sink_refused_events_total", "counter", "Events that the store refused for good.", |sink| {
        sink.refused.load(Ordering::Relaxed)
    }),
    ("subway_sink_failures_total", "counter", "Attempts that failed and are repeated.", |sink| {
        sink.failures.load(Ordering::Relaxed)
    }),
    ("subway_sink_cuts_total", "counter", "Batches cut because the store did not take them whole.", |sink| {
        sink.cuts.load(Ordering::Relaxed)
    }),
    (
        "subway_sink_far_events_total",
        "counter",
        "Events stored by the year: more than 400 days from their arrival.",
        |sink| sink.far.load(Ordering::Relaxed),
    ),
    ("subway_sink_old_day_indices", "gauge", "Indices that single days far away may have (Elasticsearch).", |sink| {
        sink.old_indices.load(Ordering::Relaxed)
    }),
    (
        "subway_sink_overflow_words_total",
        "counter",
        "Words that found a block's dictionary full (ClickHouse).",
        |sink| sink.overflow_words.load(Ordering::Relaxed),
    ),
    ("subway_sink_down", "gauge", "1 if the sink has failed so often that its health is asked first.", |sink| {
        u64::from(sink.down.load(Ordering::Relaxed))
    }),
];

const SECONDS: &str = "subway_sink_delivery_seconds";
const SECONDS_HELP: &str = "From the beginning of an attempt to deliver a batch to its end.";

/// The counters of all sinks, by name.
#[derive(Debug, Default)]
pub(super) struct Sinks(Mutex<BTreeMap<String, Arc<SinkCounts>>>);

impl Sinks {
    pub(super) fn of(&self, name: &str) -> Arc<SinkCounts> {
        let mut sinks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sinks.entry(name.to_owned()).or_default())
    }

    pub(super) fn write(&self, out: &mut String) {
        let sinks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = "";
        for (name, kind, help, figure) in FAMILIES {
            for (sink, counts) in sinks.iter() {
                head(out, &mut family, name, help, kind);
                let _ = writeln!(out, "{name}{{sink=\"{sink}\"}} {}", figure(counts));
            }
        }
        for (sink, counts) in sinks.iter() {
            head(out, &mut family, SECONDS, SECONDS_HELP, "histogram");
            counts.delivery_seconds.write(out, SECONDS, &format!("sink=\"{sink}\""));
        }
    }
}

#[cfg(test)]
impl SinkCounts {
    /// Every figure with the name of its family.
    pub(crate) fn figures(&self) -> Vec<(&'static str, u64)> {
        FAMILIES.iter().map(|(name, _, _, figure)| (*name, figure(self))).collect()
    }
}
