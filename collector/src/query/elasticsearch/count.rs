//! Counts per bucket.

use serde_json::{Value, json};

use super::pages::CompositePager;
use super::{ElasticsearchReader, conditions, event_time_range};
use crate::query::{CountQuery, Counts, Filter, Measure, ReadError};
use crate::sinks::elasticsearch::names;

/// Largest integer that floating-point numbers represent exactly, 2^53. The store parses the boundaries of ranges as
/// such numbers.
const MAX_EXACT_INTEGER: i64 = 1 << 53;

impl ElasticsearchReader {
    pub(super) async fn read_count(&self, query: &CountQuery) -> Result<Counts, ReadError> {
        let (Some(from), Some(to)) = (query.bounds.first().copied(), query.bounds.last().copied()) else {
            return Ok(Counts { buckets: Vec::new(), total: 0 });
        };
        match query.measure {
            Measure::Events => {
                let indices = names::covering(&self.prefix, Some(from), Some(to));
                let mut conditions = conditions(&query.app, &query.filter);
                conditions.push(event_time_range(Some(from), Some(to)));
                let buckets = self.ranges(&indices, "event_time", conditions, &query.bounds, false).await?;
                let total = buckets.iter().sum();
                Ok(Counts { buckets, total })
            }
            Measure::Installs => self.distinct("install_id", query).await,
            Measure::Users => self.distinct("user_id", query).await,
            Measure::Sessions => self.distinct("session_id", query).await,
            Measure::NewInstalls | Measure::InstallsSeen => {
                let before = if self.counts_are_complete().await? {
                    self.first_times(query).await?
                } else {
                    self.first_times_of_events(query).await?
                };
                Ok(first_seen_counts(query.measure, &before))
            }
        }
    }

    /// Returns whether the index of installs has the first time of every one.
    pub(super) async fn counts_are_complete(&self) -> Result<bool, ReadError> {
        let users = names::users(&self.prefix);
        let path = format!("/{users}/_mapping?filter_path=*.mappings._meta");
        let answer = self.server.ask(reqwest::Method::GET, &path, None).await.map_err(super::read_error)?;
        match answer.status {
            200 => {
                let value: Value =
                    serde_json::from_slice(&answer.body).map_err(|error| ReadError::Failed(error.to_string()))?;
                Ok(value[&users]["mappings"]["_meta"]["complete"] == true)
            }
            404 => Ok(false),
            _ => Err(ReadError::Failed(answer.message())),
        }
    }

    /// Counts the documents with `field` in each of the ranges of `bounds`, preceded by everything before the first if
    /// `before` is set.
    async fn ranges(
        &self,
        indices: &str,
        field: &str,
        conditions: Vec<Value>,
        bounds: &[i64],
        before: bool,
    ) -> Result<Vec<u64>, ReadError> {
        self.refresh(indices).await?;
        let bound = |bound: i64| bound.clamp(-MAX_EXACT_INTEGER, MAX_EXACT_INTEGER);
        let mut ranges: Vec<Value> =
            bounds.windows(2).map(|pair| json!({"from": bound(pair[0]), "to": bound(pair[1])})).collect();
        if let Some(first) = bounds.first().filter(|_| before) {
            ranges.insert(0, json!({"to": bound(*first)}));
        }
        let count = ranges.len();
        let body = json!({"size": 0, "track_total_hits": false, "timeout": "10s", "query": {"bool": {"filter": conditions}},
            "aggs": {"ranges": {"range": {"field": field, "ranges": ranges}}}});
        let answer = self.search(indices, &body).await?;
        // The response is in the order of the boundaries, whatever the order of the request.
        let Some(buckets) = answer["aggregations"]["ranges"]["buckets"].as_array() else { return Ok(vec![0; count]) };
        if buckets.len() != count {
            return Err(ReadError::Failed(format!("{} ranges were asked for, {} came", count, buckets.len())));
        }
        Ok(buckets.iter().map(|bucket| bucket["doc_count"].as_u64().unwrap_or(0)).collect())
    }

    /// Counts the installs whose first time lies before the first bucket, and in each, from the index of installs.
    async fn first_times(&self, query: &CountQuery) -> Result<Vec<u64>, ReadError> {
        let indices = format!("{}*", names::users(&self.prefix));
        let conditions = vec![json!({"term": {"app_key": query.app}})];
        self.ranges(&indices, "first_time", conditions, &query.bounds, true).await
    }

    /// Counts the same from the events.
    async fn first_times_of_events(&self, query: &CountQuery) -> Result<Vec<u64>, ReadError> {
        let indices = names::covering(&self.prefix, None, None);
        self.refresh(&indices).await?;
        let mut conditions = conditions(&query.app, &Filter::default());
        conditions.push(event_time_range(None, query.bounds.last().copied()));
        let mut pager =
            CompositePager::new(self, &indices, conditions, &[json!({"value": {"terms": {"field": "install_id"}}})]);
        pager.with_aggregations(json!({"first": {"min": {"field": "event_time"}}}));
        let mut counts = vec![0; query.bounds.len()];
        while let Some(page) = pager.next_page().await? {
            for bucket in page.buckets()? {
                let first = bucket.first.map_or(i64::MIN, |first| first.value as i64);
                // The number of boundaries at or before it; 0 is before the first bucket.
                if let Some(count) = counts.get_mut(query.bounds.partition_point(|bound| *bound <= first)) {
                    *count += 1;
                }
            }
        }
        pager.close();
        Ok(counts)
    }

    /// Counts distinct values of `field`, without the empty one.
    async fn distinct(&self, field: &str, query: &CountQuery) -> Result<Counts, ReadError> {
        let (from, to) = (query.bounds.first().copied(), query.bounds.last().copied());
        let indices = names::covering(&self.prefix, from, to);
        self.refresh(&indices).await?;
        let mut conditions = conditions(&query.app, &query.filter);
        conditions.push(event_time_range(from, to));
        conditions.push(json!({"bool": {"must_not": [{"term": {field: ""}}]}}));
        let mut sources = vec![json!({"value": {"terms": {"field": field}}})];
        let inner = &query.bounds[1..query.bounds.len() - 1];
        if let Some((width, offset)) = histogram_cells(inner, query.bounds[query.bounds.len() - 1] - query.bounds[0]) {
            sources.push(json!({"time": {"date_histogram":
                {"field": "event_time", "fixed_interval": format!("{width}ms"), "offset": format!("+{offset}ms")}}}));
        }
        let mut pager = CompositePager::new(self, &indices, conditions, &sources);
        let mut counter =
            DistinctCounter { buckets: vec![0; query.bounds.len() - 1], total: 0, value: None, bucket: 0 };
        while let Some(page) = pager.next_page().await? {
            for bucket in page.buckets()? {
                let at = bucket.key.time.map_or(0, |time| inner.partition_point(|bound| *bound <= time));
                counter.observe(&bucket.key.value, at);
            }
        }
        pager.close();
        Ok(Counts { buckets: counter.buckets, total: counter.total })
    }
}

/// Counts distinct values that come in order, each with its buckets in order.
struct DistinctCounter {
    buckets: Vec<u64>,
    total: u64,
    /// The last value, and the last bucket it was counted in.
    value: Option<String>,
    bucket: usize,
}

impl DistinctCounter {
    fn observe(&mut self, value: &str, bucket: usize) {
        let same = self.value.as_deref() == Some(value);
        if same && self.bucket == bucket {
            return;
        }
        if !same {
            self.total += 1;
            self.value = Some(value.to_owned());
        }
        self.bucket = bucket;
        self.buckets[bucket] += 1;
    }
}

/// Returns width and offset (milliseconds) of the widest equal cells that no boundary in `bounds` divides; `None`
/// without boundaries. `range` is the width of the whole range.
fn histogram_cells(bounds: &[i64], range: i64) -> Option<(i64, i64)> {
    let first = bounds.first()?;
    let width = bounds.windows(2).map(|pair| pair[1] - pair[0]).reduce(gcd).unwrap_or(range).max(1);
    Some((width, first.rem_euclid(width)))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Returns the counts, from the number of installs first seen before the first bucket and in each.
fn first_seen_counts(measure: Measure, before: &[u64]) -> Counts {
    let Some((earlier, inside)) = before.split_first() else { return Counts { buckets: Vec::new(), total: 0 } };
    if measure == Measure::NewInstalls {
        return Counts { buckets: inside.to_vec(), total: inside.iter().sum() };
    }
    let mut seen = *earlier;
    let buckets: Vec<u64> = inside
        .iter()
        .map(|new| {
            seen += new;
            seen
        })
        .collect();
    Counts { buckets, total: seen }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_end_at_every_boundary_and_are_as_wide_as_can_be() {
        assert_eq!(histogram_cells(&[], 10), None);
        assert_eq!(histogram_cells(&[7], 10), Some((10, 7)));
        assert_eq!(histogram_cells(&[10, 30, 90], 200), Some((20, 10)));
        assert_eq!(histogram_cells(&[-5, 10], 200), Some((15, 10)));
        assert_eq!(histogram_cells(&[3, 4, 9], 200), Some((1, 0)));
        let hour = 3_600_000;
        assert_eq!(histogram_cells(&[5 * hour, 6 * hour, 7 * hour], 9 * hour), Some((hour, 0)));
        // A day of 23 hours among days.
        assert_eq!(histogram_cells(&[5 * hour, 29 * hour, 52 * hour], 90 * hour), Some((hour, 0)));
    }

    #[test]
    fn a_value_counts_once_in_each_bucket_and_once_in_all() {
        let mut counter = DistinctCounter { buckets: vec![0; 3], total: 0, value: None, bucket: 0 };
        for (value, bucket) in [("a", 0), ("a", 0), ("a", 2), ("b", 2), ("b", 2), ("c", 0), ("c", 1)] {
            counter.observe(value, bucket);
        }
        assert_eq!((counter.buckets, counter.total), (vec![2, 1, 2], 3));
    }
}
