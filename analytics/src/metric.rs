//! Product metrics: what each counts, its parameters, and its buckets.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use subway_protocol::Theme;

use crate::calendar::{Buckets, Interval, buckets, utc};
use crate::count::{CountQuery, Counts, Filter, Measure};
use crate::parameters::{InvalidParameter, Parameters, range};

/// Maximum buckets in one answer. A year of hours is 8,784; a chart cannot show more points, and the answer stays below
/// 600 KB.
pub const MAX_BUCKETS: usize = 10_000;

subway_protocol::named_enum! {
    /// Product metric.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Metric {
        /// Page views: events of theme view.
        Pv = "pv",
        /// Visitors: distinct installs with a view.
        Uv = "uv",
        /// Distinct user IDs.
        Users = "users",
        /// Installs whose first event lies in the bucket.
        NewUsers = "new_users",
        /// Installs first seen before the bucket's end.
        CumulativeUsers = "cumulative_users",
        /// Distinct session IDs.
        Sessions = "sessions",
        /// Events.
        Events = "events",
    }
}

impl Metric {
    /// Returns what a reader has to count.
    fn measure(self) -> Measure {
        match self {
            Metric::Pv | Metric::Events => Measure::Events,
            Metric::Uv => Measure::Installs,
            Metric::Users => Measure::Users,
            Metric::NewUsers => Measure::NewInstalls,
            Metric::CumulativeUsers => Measure::InstallsSeen,
            Metric::Sessions => Measure::Sessions,
        }
    }

    /// Returns the filter of events, from the filter of the request.
    fn filter(self, theme: Option<Theme>, code: Option<String>) -> Result<Filter, InvalidParameter> {
        let refuse =
            |field: &str, why: &str, got: &str| InvalidParameter::new(field, format!("{} {why}", self.as_str()), got);
        match self {
            Metric::Pv | Metric::Uv => match theme {
                None | Some(Theme::View) => Ok(Filter { theme: Some(Theme::View), code }),
                Some(other) => Err(refuse("theme", "counts events of theme view only", other.as_str())),
            },
            Metric::NewUsers | Metric::CumulativeUsers => {
                let why = "goes by the first event of an install, of any theme, and takes no filter";
                match (theme, code) {
                    (None, None) => Ok(Filter::default()),
                    (Some(theme), _) => Err(refuse("theme", why, theme.as_str())),
                    (None, Some(code)) => Err(refuse("code", why, &code)),
                }
            }
            Metric::Users | Metric::Sessions | Metric::Events => Ok(Filter { theme, code }),
        }
    }
}

/// Parsed request for one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRequest {
    /// The metric.
    pub metric: Metric,
    /// Width of the buckets.
    pub interval: Interval,
    /// Start of each bucket on the calendar, milliseconds since the epoch.
    pub starts: Vec<i64>,
    /// Query for the reader.
    pub query: CountQuery,
}

impl MetricRequest {
    /// Parses the decoded parameters `pairs` of a request for `metric` of `app`, whose calendar is that of `zone`.
    ///
    /// # Errors
    /// If a parameter is unknown, cannot be parsed, or needs more than [`MAX_BUCKETS`].
    pub fn parse(
        metric: Metric,
        app: &str,
        pairs: &[(String, String)],
        zone: &TimeZone,
        now: Timestamp,
    ) -> Result<Self, InvalidParameter> {
        let parameters = Parameters::new(pairs, &["from", "to", "interval", "theme", "code"])?;
        let interval = match parameters.get("interval") {
            None => Interval::Day,
            Some(text) => Interval::parse(text).ok_or_else(|| {
                InvalidParameter::new(
                    "interval",
                    format!("intervals are {}", Interval::ALL.map(Interval::as_str).join(", ")),
                    text,
                )
            })?,
        };
        let filter = metric.filter(parameters.theme()?, parameters.code()?)?;
        let (from, to) = range(&parameters, zone, now)?;
        let Buckets { starts, bounds } = buckets(zone, interval, from, to, MAX_BUCKETS).map_err(|got| {
            let detail = format!(
                "the range has too many buckets of one {}; use a wider interval or a shorter range",
                interval.as_str()
            );
            InvalidParameter::limit_exceeded("interval", detail, MAX_BUCKETS as u64, got)
        })?;
        let query = CountQuery { app: app.to_owned(), measure: metric.measure(), filter, bounds };
        Ok(Self { metric, interval, starts, query })
    }

    /// Returns the answer to the request: the `series` with the start of every bucket, from the reader's counts.
    #[must_use]
    pub fn series(&self, counts: &Counts) -> Vec<(String, u64)> {
        self.starts.iter().map(|start| utc(*start)).zip(counts.buckets.iter().copied()).collect()
    }
}
