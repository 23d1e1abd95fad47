//! Questions about stored events, and the [`Reader`] that every store answers them through.
//!
//! A question is small and exact, so that one definition means the same number on every store: a measure, a filter and
//! the boundaries of the buckets. What the product metrics mean is said in [`crate::metrics`]; which calendar the
//! boundaries come from is no concern of a reader.

use std::fmt;

use async_trait::async_trait;
use subway_protocol::Theme;

use crate::row::Row;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) mod oracle;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Events.
    Events,
    /// Distinct installs among the events.
    Installs,
    /// Distinct users among the events; events without a user do not count.
    Users,
    /// Distinct sessions among the events; events without a session do not count.
    Sessions,
    /// Installs whose first event, of whatever theme and by event time, lies in the bucket. Takes no filter.
    NewInstalls,
    /// Installs whose first event lies before the end of the bucket, however long ago. Takes no filter.
    InstallsSeen,
}

/// Which events take part. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this theme.
    pub theme: Option<Theme>,
    /// Only this event code.
    pub code: Option<String>,
}

/// One question for numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountQuery {
    /// Key of the app.
    pub app: String,
    /// What is counted.
    pub measure: Measure,
    /// Which events take part.
    pub filter: Filter,
    /// Boundaries of the buckets, milliseconds since the epoch, strictly increasing, two or more. Bucket `i` holds the
    /// events with `bounds[i] <= event_time < bounds[i + 1]`.
    pub bounds: Vec<i64>,
}

/// The answer to a [`CountQuery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// One number per bucket.
    pub buckets: Vec<u64>,
    /// The same measure over the whole range, as if it were one bucket.
    pub total: u64,
}

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
    /// At most so many events.
    pub limit: usize,
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
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Busy(why) | ReadError::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ReadError {}

/// Answers questions from one store.
///
/// Every answer is consistent in itself: all its numbers come from one state of the store. An app that the store has
/// never seen is an app without events.
#[async_trait]
pub trait Reader: Send + Sync {
    /// Counts per bucket and over the whole range.
    async fn count(&self, query: CountQuery) -> Result<Counts, ReadError>;
    /// The newest events by event time; of events at the same millisecond the later stored comes first.
    async fn newest(&self, query: EventsQuery) -> Result<Vec<Row<'static>>, ReadError>;
    /// When the app's first and last event happened; `None` without events.
    async fn extent(&self, app: &str) -> Result<Option<Extent>, ReadError>;
}
