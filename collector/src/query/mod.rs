//! Questions about stored events, and the [`Reader`] that every store answers them through.
//!
//! What the product metrics mean, and which calendar their buckets follow, is said in [`crate::metrics`], whose words are
//! this room's too; a reader only counts between boundaries.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::config::{Config, Kind};
pub use crate::metrics::{
    CountQuery, Counts, Filter, InvalidParameter, Measure, Metric, MetricRequest, Parameters, parse_time, utc,
};
use crate::row::Row;
use crate::sinks::SinkError;

pub mod clickhouse;
pub mod elasticsearch;
mod nowhere;
pub mod sqlite;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) mod oracle;

/// One question for events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// Key of the app.
    pub app: String,
    /// Events at or after this time, milliseconds since the epoch.
    pub from: Option<i64>,
    /// Events before this time, milliseconds since the epoch.
    pub to: Option<i64>,
    /// Which events take part.
    pub filter: Filter,
    /// Only this install.
    pub install_id: Option<String>,
    /// Only this user.
    pub user_id: Option<String>,
    /// Only events that come after this place in the list.
    pub after: Option<Mark>,
    /// At most so many events.
    pub limit: usize,
}

/// A place in the list of the newest events: by time, and within a millisecond by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Event time, milliseconds since the epoch.
    pub event_time: i64,
    /// Position in the spool.
    pub position: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.event_time, self.position)
    }
}

impl std::str::FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (event_time, position) = text.split_once('.').unwrap_or((text, ""));
        let place =
            Self { event_time: event_time.parse().map_err(|_| ())?, position: position.parse().map_err(|_| ())? };
        // No store counts further.
        if i64::try_from(place.position).is_ok() { Ok(place) } else { Err(()) }
    }
}

/// An event of the list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its position in the spool.
    pub position: u64,
    /// The event.
    pub row: Row<'static>,
}

impl Listed {
    /// Where it stands.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { event_time: self.row.event.event_time, position: self.position }
    }
}

/// Times of the first and the last event of an app, milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The earliest event time.
    pub first: i64,
    /// The latest event time.
    pub last: i64,
}

/// Why a store could not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
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
pub trait Freshness: Send + Sync {
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
pub trait Reader: Send + Sync {
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
pub fn open(config: &Config, data_dir: &Path) -> Result<Arc<dyn Reader>, SinkError> {
    let Some(name) = &config.reading else { return Ok(Arc::new(nowhere::Nowhere)) };
    let sink = config.sinks.iter().find(|sink| sink.name == *name);
    match sink.map(|sink| (&sink.kind, &sink.delivery)) {
        Some((Kind::ClickHouse(settings), delivery)) => clickhouse::open(settings, delivery),
        Some((Kind::Elasticsearch(settings), delivery)) => elasticsearch::open(settings, delivery),
        Some((Kind::Kafka(_), _)) | None => Ok(Arc::new(sqlite::StoreReader::new(data_dir))),
    }
}
