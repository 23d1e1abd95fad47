//! Stores that events are delivered to, behind the trait [`Sink`].
//!
//! The spool numbers every event over all apps: its position, 1, 2, 3, .. A sink batch is a range of positions. It is
//! frozen with a dedup token before it is first sent, so that a repetition after a crash is identical and the store can
//! recognise it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::config::{self, SinkKind};
use crate::record::{Event, Record};
use crate::telemetry::SinkMetrics;

pub(crate) mod clickhouse;
#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod days;
pub(crate) mod elasticsearch;
pub(crate) mod http;
pub(crate) mod kafka;
pub(crate) mod sqlite;

pub(crate) use crate::config::EMBEDDED;

/// One batch of stored events as the spool keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    /// Position of its first event.
    pub first: u64,
    /// JSON of a [`Record`].
    pub json: String,
}

/// Delivery to a sink: the events at the positions `first..=last`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SinkBatch {
    /// Position of the first event.
    pub first: u64,
    /// Position of the last event.
    pub last: u64,
    /// Dedup token of this batch; the same for every attempt to deliver it.
    pub dedup_token: String,
    /// Records that hold the events, in order. The first and the last may hold events outside of the range too.
    pub records: Vec<StoredRecord>,
}

/// Stored record that cannot be read, because the spool is damaged or was written by another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptRecord {
    /// Position of its first event.
    pub first: u64,
    /// What is wrong with the record.
    pub reason: String,
}

impl fmt::Display for CorruptRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the spool's record at position {} cannot be read: {}", self.first, self.reason)
    }
}

impl SinkBatch {
    /// Returns the batch without its events after `last`, with a dedup token of its own.
    #[must_use]
    pub(crate) fn truncated_to(&self, last: u64) -> Self {
        let records = self.records.iter().filter(|record| record.first <= last).cloned().collect();
        Self { first: self.first, last, dedup_token: format!("{}-{last}", self.first), records }
    }

    /// Returns the position of the last event of the batch in the record that begins at `first`.
    #[must_use]
    pub(crate) fn last_position_in(&self, first: u64) -> u64 {
        let next = self.records.iter().find(|record| record.first > first);
        next.map_or(self.last, |next| (next.first - 1).min(self.last))
    }

    /// Calls `visit` for each record, in order, with the events that belong to the batch and the position of the first
    /// of these.
    ///
    /// # Errors
    /// The first error of `visit`, or [`CorruptRecord`].
    pub(crate) fn for_each_record<E: From<CorruptRecord>>(
        &self,
        mut visit: impl FnMut(&Record<'_>, u64, &[Event<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        for stored in &self.records {
            let record: Record<'_> = serde_json::from_str(&stored.json)
                .map_err(|error| CorruptRecord { first: stored.first, reason: error.to_string() })?;
            let (at, events) = events_in_range(stored.first, &record.events, self.first, self.last);
            if !events.is_empty() {
                visit(&record, at, events)?;
            }
        }
        Ok(())
    }
}

/// Returns those of `events` that lie in `first..=last`, and the position of the first of them. `events` begin at the
/// position `start`.
pub(crate) fn events_in_range<T>(start: u64, events: &[T], first: u64, last: u64) -> (u64, &[T]) {
    let count = events.len() as u64;
    let skip = first.saturating_sub(start).min(count);
    let end = (last + 1).saturating_sub(start).min(count).max(skip);
    let to_index = |n: u64| usize::try_from(n).unwrap_or(events.len());
    (start + skip, &events[to_index(skip)..to_index(end)])
}

/// Event that the store refuses for good. It becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PermanentFailure {
    /// Position of the event.
    pub position: u64,
    /// Reason, in the store's words.
    pub reason: String,
}

/// Event that needs a resource which the store lacks and is slow to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceNeed {
    /// Position of the event.
    pub position: u64,
    /// Name of the resource. Once created it serves every event that needs it.
    pub resource: String,
    /// How unusual the resource is. Those that current traffic needs come first.
    pub distance: u64,
}

/// Result of a delivery: every event is durable in the store, except those refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Events that the store refused for good.
    pub refused: Vec<PermanentFailure>,
}

/// Returns why the store refuses the one event of a delivery for good, or `None` if the store took it.
///
/// # Errors
/// Any error that the event did not cause.
pub(crate) fn permanent_failure_of_one(result: Result<Delivered, SinkError>) -> Result<Option<String>, SinkError> {
    match result {
        Ok(delivered) => Ok(delivered.refused.into_iter().next().map(|refusal| refusal.reason)),
        Err(SinkError::Permanent { message } | SinkError::TooLarge { message }) => Ok(Some(message)),
        Err(SinkError::CorruptRecord(record)) => Ok(Some(record.to_string())),
        Err(error) => Err(error),
    }
}

/// Reason why a batch was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkError {
    /// A later attempt with the same batch may succeed.
    Retryable {
        /// What happened.
        message: String,
        /// Pause that the store asked for, in milliseconds.
        after_ms: Option<u64>,
    },
    /// The store took nothing of this batch, because it refuses some event for good.
    ///
    /// Only for errors that name a row or a document. An error that refuses everything (credentials, a missing table,
    /// read-only, no space) is [`SinkError::Retryable`].
    Permanent {
        /// Reason, in the store's words.
        message: String,
    },
    /// A record of this batch cannot be read, so no store can take its events. The store took nothing of the batch.
    CorruptRecord(CorruptRecord),
    /// The store took nothing of this batch because it is too large. A part of it may succeed.
    TooLarge {
        /// Reason, in the store's words.
        message: String,
    },
    /// The store cannot be used, whatever is sent: it is too old, or another program made it. An operator has to change
    /// it.
    Misconfigured {
        /// What is wrong, and what is needed.
        message: String,
    },
}

impl SinkError {
    /// Creates a [`SinkError::Retryable`] without a pause.
    #[must_use]
    pub fn retryable(message: impl Into<String>) -> Self {
        SinkError::Retryable { message: message.into(), after_ms: None }
    }

    /// Creates a [`SinkError::Permanent`].
    #[must_use]
    pub fn permanent(message: impl Into<String>) -> Self {
        SinkError::Permanent { message: message.into() }
    }

    /// Creates a [`SinkError::Misconfigured`].
    #[must_use]
    pub fn misconfigured(message: impl Into<String>) -> Self {
        SinkError::Misconfigured { message: message.into() }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkError::Retryable { message, .. }
            | SinkError::Permanent { message }
            | SinkError::TooLarge { message }
            | SinkError::Misconfigured { message } => f.write_str(message),
            SinkError::CorruptRecord(record) => record.fmt(f),
        }
    }
}

impl std::error::Error for SinkError {}

impl From<CorruptRecord> for SinkError {
    fn from(unreadable: CorruptRecord) -> Self {
        SinkError::CorruptRecord(unreadable)
    }
}

/// Store that events are delivered to.
///
/// The tests of this module hold a minimal implementation, `MemorySink`. What every implementation must do is in
/// `sinks::conformance`, which each of them runs.
#[async_trait]
pub(crate) trait Sink: Send + Sync {
    /// Returns the name from the configuration. The spool keeps the cursor under it.
    fn name(&self) -> &str;

    /// Returns the position up to which the store has the events, if it stores that position in the transactions that
    /// hold the events.
    ///
    /// The batches of such a sink are not frozen: it recognises any repeated range, however it was split.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn position(&self) -> Result<Option<u64>, SinkError> {
        Ok(None)
    }

    /// Moves [`Sink::position`] to `to`, because the events up to it will never come. Called only for a sink that has
    /// a position.
    ///
    /// # Errors
    /// If the store cannot be written.
    async fn skip(&self, _to: u64) -> Result<(), SinkError> {
        Ok(())
    }

    /// Checks that the store can be used, and creates what is missing in it.
    ///
    /// Called before the first delivery, and again each time the sink was down. It is idempotent.
    ///
    /// # Errors
    /// [`SinkError::Misconfigured`] if an operator has to change the store; [`SinkError::Retryable`] if it
    /// cannot be reached.
    async fn prepare(&self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Returns the position of the last event of `batch` that fits into one delivery, at least that of the first.
    ///
    /// Called once for each batch, before it is frozen. It must not access the store.
    ///
    /// # Errors
    /// If a record cannot be read.
    fn batch_end(&self, batch: &SinkBatch) -> Result<u64, CorruptRecord> {
        Ok(batch.last)
    }

    /// Returns the events of `batch` that need a resource which the store lacks and is slow to create. Can be empty for a
    /// batch that needs at most `max_resources` of them.
    ///
    /// These events may be delivered later than their neighbours (docs/adr/0013), so only a sink that takes events in
    /// any order may return some. Called before each batch is frozen; must not access the store.
    ///
    /// # Errors
    /// If a record cannot be read.
    fn needs(&self, _batch: &SinkBatch, _max_resources: usize) -> Result<Vec<ResourceNeed>, CorruptRecord> {
        Ok(Vec::new())
    }

    /// Writes the events of the batch to the store.
    ///
    /// When it returns `Ok`, each event is durable there exactly once, however often this batch was sent before and
    /// wherever an earlier attempt ended. When it returns [`SinkError::Permanent`], [`SinkError::CorruptRecord`] or
    /// [`SinkError::TooLarge`], nothing of the batch counts as taken: its parts are sent again as batches with dedup
    /// tokens of their own.
    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError>;

    /// Checks that the store would accept a batch now. Called while deliveries fail, before [`Sink::prepare`].
    async fn health(&self) -> Result<(), SinkError>;
}

/// Source of stored events that the spool no longer has. A new sink is filled from it.
pub(crate) trait BackfillSource: Send + Sync {
    /// Reads the events after the position `after` up to `to`, each in a record of its own, in order and without a gap.
    ///
    /// Returns at most `events` of them and about `bytes` of JSON, but at least one if the next event is there. Blocks.
    ///
    /// # Errors
    /// What went wrong, as a sentence.
    fn records(&self, after: u64, to: u64, events: u64, bytes: u64) -> Result<Vec<StoredRecord>, String>;

    /// Returns the position up to which the events after `after` were deleted or never stored; `None` if the next event
    /// is there or still to come. Blocks.
    ///
    /// # Errors
    /// What went wrong, as a sentence.
    fn missing(&self, after: u64) -> Result<Option<u64>, String>;
}

/// Opens a configured sink without sending anything. [`Sink::prepare`] checks the store.
///
/// `zones` are the apps' time zones, key and IANA name. `metrics` counts what the sink meets. Blocks while certificates
/// are read.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the settings cannot be used.
pub(crate) fn open(
    sink: &config::SinkConfig,
    zones: &[(String, String)],
    metrics: SinkMetrics,
) -> Result<Arc<dyn Sink>, SinkError> {
    match &sink.kind {
        SinkKind::ClickHouse(settings) => clickhouse::open(&sink.name, settings, &sink.delivery, metrics),
        SinkKind::Elasticsearch(settings) => elasticsearch::open(&sink.name, settings, &sink.delivery, zones, metrics),
        SinkKind::Kafka(settings) => kafka::open(&sink.name, settings, &sink.delivery),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Minimal sink: keeps event IDs in memory and takes each position once.
    #[derive(Default)]
    struct MemorySink(Mutex<Vec<(u64, String)>>);

    #[async_trait]
    impl Sink for MemorySink {
        fn name(&self) -> &str {
            "memory"
        }

        async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
            let mut stored = self.0.lock().map_err(|error| SinkError::retryable(error.to_string()))?;
            batch.for_each_record(|_, first, events| {
                let rows = (first..).zip(events).map(|(position, event)| (position, event.event_id.to_string()));
                stored.extend(rows);
                Ok::<(), SinkError>(())
            })?;
            stored.sort();
            stored.dedup();
            Ok(Delivered::default())
        }

        async fn health(&self) -> Result<(), SinkError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_minimal_sink_takes_a_repeated_batch_once() {
        let json = r#"{"app_key":"a","batch_id":"b","install_id":"i","received_at":1,"events":[
            {"event_id":"e","seq":1,"theme":"view","code":"c","event_time":1,"ts":1}]}"#;
        let records = vec![StoredRecord { first: 7, json: json.to_owned() }];
        let batch = Arc::new(SinkBatch { first: 7, last: 7, dedup_token: "t".to_owned(), records });
        let sink = MemorySink::default();
        for _ in 0..2 {
            assert_eq!(sink.deliver(Arc::clone(&batch)).await, Ok(Delivered::default()));
        }
        assert_eq!(*sink.0.lock().unwrap(), [(7, "e".to_owned())]);
    }

    #[test]
    fn a_batch_may_begin_and_end_inside_of_a_record() {
        let events = [10, 11, 12, 13];
        assert_eq!(events_in_range(10, &events, 1, 99), (10, &events[..]));
        assert_eq!(events_in_range(10, &events, 11, 12), (11, &events[1..3]));
        assert_eq!(events_in_range(10, &events, 13, 99), (13, &events[3..]));
        assert_eq!(events_in_range(10, &events, 1, 9).1, &[] as &[i32]);
        assert_eq!(events_in_range(10, &events, 14, 99).1, &[] as &[i32]);
    }
}
