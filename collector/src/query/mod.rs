//! Queries on stored events, and the trait [`Reader`] through which every store answers them.
//!
//! [`subway_analytics`] defines the product metrics and the calendar of their buckets. A reader only counts between
//! boundaries.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
pub(crate) use subway_analytics::{
    CountQuery, Counts, EventsQuery, Filter, InvalidParameter, Measure, Metric, MetricRequest, Parameters, SortKey,
    TimeRange, parse_time, utc,
};

use crate::config::{Config, SinkKind};
use crate::row::Row;
use crate::sinks::SinkError;

pub(crate) mod clickhouse;
pub(crate) mod elasticsearch;
mod no_store;
pub(crate) mod sqlite;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) mod oracle;

/// Event of a list, with its position.
#[derive(Clone, Debug)]
pub(crate) struct ListedEvent {
    /// Position in the spool.
    pub position: u64,
    /// The event.
    pub row: Row<'static>,
}

impl ListedEvent {
    /// Returns the sort key, from which the next page continues.
    #[must_use]
    pub(crate) fn sort_key(&self) -> SortKey {
        SortKey { event_time: self.row.event.event_time, position: self.position }
    }
}

/// Reason why a store did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The query takes too long, or too many are running. A smaller query, or the same one later, may succeed.
    Busy(String),
    /// The store cannot be read.
    Failed(String),
    /// The configuration has no store that can be queried. Waiting does not help.
    NoStore(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Busy(why) | ReadError::Failed(why) | ReadError::NoStore(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ReadError {}

/// Read barrier: lets a query see what was acknowledged before it came ("read your writes").
#[async_trait]
pub(crate) trait ReadBarrier: Send + Sync {
    /// Waits, for a bounded time, until the store has every event acknowledged before the call.
    async fn wait(&self);
    /// Returns the arrival time before which the store may lack events, because the spool had deleted them or they were
    /// dropped. Milliseconds since the epoch; `None` if it gets every event.
    fn complete_from(&self) -> Option<i64>;
    /// Returns the position up to which every event is in the store.
    fn position(&self) -> u64;
}

/// Reads events and counts from one store.
///
/// All numbers of an answer come from one state of the store. An app that the store has never seen has no events.
///
/// The tests of this module hold a minimal implementation, `EmptyReader`. What every implementation must answer is in
/// `query::conformance`, which each of them runs.
#[async_trait]
pub(crate) trait Reader: Send + Sync {
    /// Counts per bucket and over the whole range.
    async fn count(&self, query: CountQuery) -> Result<Counts, ReadError>;
    /// Returns the newest events by event time. Among events of the same millisecond the later stored comes first.
    async fn newest(&self, query: EventsQuery) -> Result<Vec<ListedEvent>, ReadError>;
    /// Returns the times of the app's first and last event; `None` without events.
    async fn time_range(&self, app: &str) -> Result<Option<TimeRange>, ReadError>;
    /// Returns the event time from which the store has every event of the app, in milliseconds since the epoch; `None`
    /// if it has all.
    ///
    /// With `installs`, for metrics that count installs by their first event, which a store may keep longer.
    async fn complete_from(&self, _app: &str, _installs: bool) -> Result<Option<i64>, ReadError> {
        Ok(None)
    }
}

/// Opens the reader of the sink that the configuration names for reading. The embedded store is in `data_dir`.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the settings of the store cannot be used.
pub(crate) fn open(config: &Config, data_dir: &Path) -> Result<Arc<dyn Reader>, SinkError> {
    let Some(name) = &config.query_source else { return Ok(Arc::new(no_store::NoStoreReader)) };
    let sink = config.sinks.iter().find(|sink| sink.name == *name);
    match sink.map(|sink| (&sink.kind, &sink.delivery)) {
        Some((SinkKind::ClickHouse(settings), delivery)) => clickhouse::open(settings, delivery),
        Some((SinkKind::Elasticsearch(settings), delivery)) => elasticsearch::open(settings, delivery),
        Some((SinkKind::Kafka(_), _)) | None => Ok(Arc::new(sqlite::StoreReader::new(data_dir))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minimal reader: a store that has never seen an event.
    struct EmptyReader;

    #[async_trait]
    impl Reader for EmptyReader {
        async fn count(&self, query: CountQuery) -> Result<Counts, ReadError> {
            Ok(Counts { buckets: vec![0; query.bounds.len() - 1], total: 0 })
        }

        async fn newest(&self, _: EventsQuery) -> Result<Vec<ListedEvent>, ReadError> {
            Ok(Vec::new())
        }

        async fn time_range(&self, _: &str) -> Result<Option<TimeRange>, ReadError> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn a_minimal_reader_has_every_bucket_of_a_query() {
        let (measure, filter) = (Measure::Events, Filter::default());
        let query = CountQuery { app: "a".to_owned(), measure, filter, bounds: vec![0, 10, 20] };
        assert_eq!(EmptyReader.count(query).await, Ok(Counts { buckets: vec![0, 0], total: 0 }));
        assert_eq!(EmptyReader.complete_from("a", false).await, Ok(None), "by default a reader has every event");
    }
}
