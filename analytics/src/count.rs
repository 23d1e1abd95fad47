//! Count query: what a metric needs from a store. It is small and exact, so that one definition means the same number
//! on every store.

use subway_protocol::Theme;

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
    /// Installs whose first event, of any theme and by event time, lies in the bucket. Takes no filter.
    NewInstalls,
    /// Installs whose first event lies before the end of the bucket, at any time. Takes no filter.
    InstallsSeen,
}

/// Filter of events. Empty fields match all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this theme.
    pub theme: Option<Theme>,
    /// Only this event code.
    pub code: Option<String>,
}

/// Query for counts per bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountQuery {
    /// Key of the app.
    pub app: String,
    /// What is counted.
    pub measure: Measure,
    /// Filter of events.
    pub filter: Filter,
    /// Boundaries of the buckets in milliseconds since the epoch, strictly increasing, two or more. Bucket `i` contains
    /// the events with `bounds[i] <= event_time < bounds[i + 1]`.
    pub bounds: Vec<i64>,
}

/// Answer to a [`CountQuery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// One number per bucket.
    pub buckets: Vec<u64>,
    /// The same measure over the whole range, as if it were one bucket.
    pub total: u64,
}
