//! Query for events, the newest first, and the sort keys of its pages.

use std::fmt;

use crate::count::Filter;

/// Query for events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// Key of the app.
    pub app: String,
    /// Events at or after this time, milliseconds since the epoch.
    pub from: Option<i64>,
    /// Events before this time, milliseconds since the epoch.
    pub to: Option<i64>,
    /// Filter of events.
    pub filter: Filter,
    /// Only this install.
    pub install_id: Option<String>,
    /// Only this user.
    pub user_id: Option<String>,
    /// Only events after this sort key in the list.
    pub after: Option<SortKey>,
    /// Maximum number of events.
    pub limit: usize,
}

/// Sort key of the list of the newest events: time, and within a millisecond position. The next page continues after
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// Event time, milliseconds since the epoch.
    pub event_time: i64,
    /// Position in the spool.
    pub position: u64,
}

impl fmt::Display for SortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.event_time, self.position)
    }
}

impl std::str::FromStr for SortKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (event_time, position) = text.split_once('.').unwrap_or((text, ""));
        let place =
            Self { event_time: event_time.parse().map_err(|_| ())?, position: position.parse().map_err(|_| ())? };
        // No store has larger positions.
        if i64::try_from(place.position).is_ok() { Ok(place) } else { Err(()) }
    }
}

/// Times of the first and the last event of an app, milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// Earliest event time.
    pub first: i64,
    /// Latest event time.
    pub last: i64,
}
