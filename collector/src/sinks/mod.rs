//! Stores that events are delivered to, behind one trait.
//!
//! The spool gives every event a position: 1, 2, 3, .. over all apps. A batch for a sink is a range of positions, frozen
//! with a token before it is first sent, so that a repetition after a crash is identical and the store can recognise it.

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

/// What a sink is asked to deliver: the events at the positions `first..=last`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SinkBatch {
    /// Position of the first event.
    pub first: u64,
    /// Position of the last event.
    pub last: u64,
    /// Names this batch; the same for every attempt to deliver it.
    pub token: String,
    /// The records that hold the events, in order. The first and the last may hold others too.
    pub records: Vec<StoredRecord>,
}

/// A stored record that cannot be read: the spool is damaged or was written by something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Position of its first event.
    pub first: u64,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the spool's record at position {} cannot be read: {}", self.first, self.why)
    }
}

impl SinkBatch {
    /// The batch without its events after `last`, with a name of its own.
    #[must_use]
    pub(crate) fn up_to(&self, last: u64) -> Self {
        let records = self.records.iter().filter(|record| record.first <= last).cloned().collect();
        Self { first: self.first, last, token: format!("{}-{last}", self.first), records }
    }

    /// The position of the last event of the batch that is in the record that begins at `first`.
    #[must_use]
    pub(crate) fn end_of(&self, first: u64) -> u64 {
        let next = self.records.iter().find(|record| record.first > first);
        next.map_or(self.last, |next| (next.first - 1).min(self.last))
    }

    /// Calls `visit` for each record with those of its events that belong to the batch and the position of the first
    /// of these, in order.
    ///
    /// # Errors
    /// The first error of `visit`, or a record that cannot be read.
    pub(crate) fn for_each_record<E: From<Unreadable>>(
        &self,
        mut visit: impl FnMut(&Record<'_>, u64, &[Event<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        for stored in &self.records {
            let record: Record<'_> = serde_json::from_str(&stored.json)
                .map_err(|error| Unreadable { first: stored.first, why: error.to_string() })?;
            let (at, events) = within(stored.first, &record.events, self.first, self.last);
            if !events.is_empty() {
                visit(&record, at, events)?;
            }
        }
        Ok(())
    }
}

/// Those of `events`, which begin at position `start`, that lie in `first..=last`, and the position of the first of them.
pub(crate) fn within<T>(start: u64, events: &[T], first: u64, last: u64) -> (u64, &[T]) {
    let count = events.len() as u64;
    let skip = first.saturating_sub(start).min(count);
    let end = (last + 1).saturating_sub(start).min(count).max(skip);
    let to_index = |n: u64| usize::try_from(n).unwrap_or(events.len());
    (start + skip, &events[to_index(skip)..to_index(end)])
}

/// One event that the store will never take; it goes to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Position of the event.
    pub position: u64,
    /// Why, in the store's words.
    pub reason: String,
}

/// A batch was delivered: every event is in the store, durably, except those refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Events that the store refused one by one.
    pub refused: Vec<Refusal>,
}

/// What a delivery of a single event says of it: `None` if the store took it, or why the store will never take it.
///
/// # Errors
/// Whatever is not the event's own fault.
pub(crate) fn refusal_of_one(result: Result<Delivered, SinkError>) -> Result<Option<String>, SinkError> {
    match result {
        Ok(delivered) => Ok(delivered.refused.into_iter().next().map(|refusal| refusal.reason)),
        Err(SinkError::Refused { message } | SinkError::TooLarge { message }) => Ok(Some(message)),
        Err(SinkError::Unreadable(record)) => Ok(Some(record.to_string())),
        Err(error) => Err(error),
    }
}

/// A batch was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkError {
    /// The same batch may succeed later. `after_ms`: the store asked to be left alone for so long.
    Retryable {
        /// What happened.
        message: String,
        /// Milliseconds the store asked for, if it did.
        after_ms: Option<u64>,
    },
    /// The store took nothing of this batch because of what is in it: some event is one that it will never take. Only
    /// for errors that speak of a row or a document. What refuses everything (credentials, a missing table, read-only, no
    /// space) is [`SinkError::Retryable`].
    Refused {
        /// Why, in the store's words.
        message: String,
    },
    /// A record of this batch cannot be read, so no store can ever take its events; the store took nothing of the batch.
    Unreadable(Unreadable),
    /// The store took nothing of this batch because it is too large; a part of it may be taken.
    TooLarge {
        /// What the store said.
        message: String,
    },
    /// The store cannot be used as it is, whatever is sent: too old, or made by something else. Only a person can help.
    Unfit {
        /// What is wrong and what is needed.
        message: String,
    },
}

impl SinkError {
    /// May succeed later.
    #[must_use]
    pub fn retryable(message: impl Into<String>) -> Self {
        SinkError::Retryable { message: message.into(), after_ms: None }
    }

    /// Will never succeed.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        SinkError::Refused { message: message.into() }
    }

    /// Will succeed when somebody has changed the store.
    #[must_use]
    pub fn unfit(message: impl Into<String>) -> Self {
        SinkError::Unfit { message: message.into() }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkError::Retryable { message, .. }
            | SinkError::Refused { message }
            | SinkError::TooLarge { message }
            | SinkError::Unfit { message } => f.write_str(message),
            SinkError::Unreadable(record) => record.fmt(f),
        }
    }
}

impl std::error::Error for SinkError {}

impl From<Unreadable> for SinkError {
    fn from(unreadable: Unreadable) -> Self {
        SinkError::Unreadable(unreadable)
    }
}

/// A store that events are delivered to.
#[async_trait]
pub(crate) trait Sink: Send + Sync {
    /// The name from the configuration; the spool keeps the cursor under it.
    fn name(&self) -> &str;

    /// Up to which position the store has the events, if it remembers that itself, in the transactions that hold them.
    /// The batches of such a sink need not be frozen: any range it is sent again is recognised, however it was cut.
    ///
    /// # Errors
    /// If the store cannot be asked.
    async fn position(&self) -> Result<Option<u64>, SinkError> {
        Ok(None)
    }

    /// The events after [`Sink::position`] up to `to` will never come. Asked only of a sink that remembers its position, which
    /// is `to` afterwards.
    ///
    /// # Errors
    /// If the store cannot be written.
    async fn skip(&self, _to: u64) -> Result<(), SinkError> {
        Ok(())
    }

    /// Makes sure that the store can be used, and makes there what is missing. Called before the first delivery, and
    /// again after each time the sink was down. Doing it twice is fine.
    ///
    /// # Errors
    /// [`SinkError::Unfit`] if the store can never be used as it is; [`SinkError::Retryable`] if it cannot be reached now.
    async fn prepare(&self) -> Result<(), SinkError> {
        Ok(())
    }

    /// How much of `batch` may go in one delivery: the position of its last event, at least that of its first. Asked once
    /// for each batch, before it is frozen; must not touch the store.
    ///
    /// # Errors
    /// If a record cannot be read.
    fn cut(&self, batch: &SinkBatch) -> Result<u64, Unreadable> {
        Ok(batch.last)
    }

    /// Brings the events of the batch into the store. When it returns `Ok` they are durable there, each exactly once,
    /// however often this batch was sent before and wherever an earlier attempt broke off. When it returns
    /// [`SinkError::Refused`], [`SinkError::Unreadable`] or [`SinkError::TooLarge`] nothing of the batch counts as taken: its parts are sent again
    /// as batches with tokens of their own.
    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError>;

    /// Whether the store could take a batch now. Asked while deliveries fail, before [`Sink::prepare`].
    async fn health(&self) -> Result<(), SinkError>;
}

/// Stored events that the spool no longer has.
pub(crate) trait History: Send + Sync {
    /// The events after the position `after` up to `to`, each in a record of its own, in order and without a gap: at most
    /// `events` of them and about `bytes` of JSON, but at least one if the next event is there. Blocks.
    ///
    /// # Errors
    /// What went wrong, as a sentence.
    fn records(&self, after: u64, to: u64, events: u64, bytes: u64) -> Result<Vec<StoredRecord>, String>;

    /// Up to which position the events after `after` were deleted or never taken; `None` if the next event is there, or is
    /// to come. Blocks.
    ///
    /// # Errors
    /// What went wrong, as a sentence.
    fn missing(&self, after: u64) -> Result<Option<u64>, String>;
}

/// Opens a configured sink. Nothing is sent yet; that the store can be used is found out by [`Sink::prepare`]. Blocks on
/// reading certificates. `zones`: the apps' time zones, key and IANA name. `counted`: where the sink counts what it meets.
///
/// # Errors
/// [`SinkError::Unfit`] if the settings cannot be used.
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
    use super::*;

    #[test]
    fn a_batch_may_begin_and_end_inside_of_a_record() {
        let events = [10, 11, 12, 13];
        assert_eq!(within(10, &events, 1, 99), (10, &events[..]));
        assert_eq!(within(10, &events, 11, 12), (11, &events[1..3]));
        assert_eq!(within(10, &events, 13, 99), (13, &events[3..]));
        assert_eq!(within(10, &events, 1, 9).1, &[] as &[i32]);
        assert_eq!(within(10, &events, 14, 99).1, &[] as &[i32]);
    }
}
