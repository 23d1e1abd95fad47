//! Questions about stored events, and the [`Reader`] that every store answers them through.
//!
//! What the product metrics mean, and which calendar their buckets follow, is said in [`subway_analytics`], whose words are
//! this room's too; a reader only counts between boundaries.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
pub(crate) use subway_analytics::{
    CountQuery, Counts, EventsQuery, Extent, Filter, InvalidParameter, Mark, Measure, Metric, MetricRequest,
    Parameters, parse_time, utc,
};

use crate::config::{Config, SinkKind};
use crate::row::Row;
use crate::sinks::SinkError;

pub(crate) mod clickhouse;
pub(crate) mod elasticsearch;
mod nowhere;
pub(crate) mod sqlite;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) mod oracle;

/// An event of the list.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Its position in the spool.
    pub position: u64,
    /// The event.
    pub row: Row<'static>,
}

impl Listed {
    /// Where it stands.
    #[must_use]
    pub(crate) fn mark(&self) -> Mark {
        Mark { event_time: self.row.event.event_time, position: self.position }
    }
}

/// Why a store could not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The answer would take longer than a reader may take, or too many others ask. Asking for less, or later, may work.
    Busy(String),
    /// The store cannot be read.
    Failed(String),
    /// No store that there is can be asked, and no waiting will mend that.
    Nowhere(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Busy(why) | ReadError::Failed(why) | ReadError::Nowhere(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ReadError {}

/// Knows whether the store that answers questions has what was acknowledged before they were asked.
#[async_trait]
pub(crate) trait Freshness: Send + Sync {
    /// Waits, for a bounded time, until it has.
    async fn catch_up(&self);
    /// What that store never got, because it was gone before or was given up, arrived before this time, milliseconds since
    /// the epoch; `None`: it gets everything.
    fn complete_from(&self) -> Option<i64>;
    /// Every event up to this position is in the store.
    fn position(&self) -> u64;
}

/// Answers questions from one store.
///
/// Every answer is consistent in itself: all its numbers come from one state of the store. An app that the store has
/// never seen is an app without events.
#[async_trait]
pub(crate) trait Reader: Send + Sync {
    /// Counts per bucket and over the whole range.
    async fn count(&self, query: CountQuery) -> Result<Counts, ReadError>;
    /// The newest events by event time; of events at the same millisecond the later stored comes first.
    async fn newest(&self, query: EventsQuery) -> Result<Vec<Listed>, ReadError>;
    /// When the app's first and last event happened; `None` without events.
    async fn extent(&self, app: &str) -> Result<Option<Extent>, ReadError>;
    /// From which event time on the store has every event of the app, milliseconds since the epoch; `None`: it has all.
    /// `installs`: asked for what counts installs by their first event, which a store may remember longer.
    async fn complete_from(&self, _app: &str, _installs: bool) -> Result<Option<i64>, ReadError> {
        Ok(None)
    }
}

/// The reader of the sink that the configuration names for reading. `data_dir`: where the embedded store is.
///
/// # Errors
/// [`SinkError::Unfit`] if the settings of the store cannot be used.
pub(crate) fn open(config: &Config, data_dir: &Path) -> Result<Arc<dyn Reader>, SinkError> {
    let Some(name) = &config.query_source else { return Ok(Arc::new(nowhere::Nowhere)) };
    let sink = config.sinks.iter().find(|sink| sink.name == *name);
    match sink.map(|sink| (&sink.kind, &sink.delivery)) {
        Some((SinkKind::ClickHouse(settings), delivery)) => clickhouse::open(settings, delivery),
        Some((SinkKind::Elasticsearch(settings), delivery)) => elasticsearch::open(settings, delivery),
        Some((SinkKind::Kafka(_), _)) | None => Ok(Arc::new(sqlite::StoreReader::new(data_dir))),
    }
}
