//! Definitions of every number: the calendar of an app, the metrics, and the query to a store.
//!
//! A metric is defined here, once, and every store answers the same [`CountQuery`], so a number does not depend on the
//! store. Begin with [`MetricRequest`] (what a client requests) and [`CountQuery`] (what a store has to count for it).
//! `docs/metrics.md` explains the metrics; a test compares the names.
//!
//! # Architecture invariants
//! No IO, no clock (the present is an argument), no randomness, no SQL that is run: the collector's `query` has the
//! readers, which read from a store. Time zones come from the database that `jiff` bundles.

mod calendar;
mod count;
mod events;
mod metric;
mod parameters;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use calendar::{Buckets, Interval, buckets, utc};
pub use count::{CountQuery, Counts, Filter, Measure};
pub use events::{EventsQuery, SortKey, TimeRange};
pub use metric::{MAX_BUCKETS, Metric, MetricRequest};
pub use parameters::{InvalidParameter, Parameters, parse_time};
