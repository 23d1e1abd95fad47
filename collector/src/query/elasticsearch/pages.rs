//! Pages over every distinct combination of some values, at one point in time of the store.

use std::borrow::Cow;

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{ElasticsearchReader, INDEX_OPTIONS, ReadError, query_too_long, read_error};
use crate::sinks::elasticsearch::server::Distribution;

/// Combinations in one page. Each page scans all matching events again, so there should be few; the store allows 65,535
/// (`search.max_buckets`). Small in tests, so that they turn pages.
const PAGE_BUCKETS: usize = if cfg!(test) { 50 } else { 30_000 };
/// Time for which the store keeps the point in time after each page: longer than the limit of a query.
const KEEP_ALIVE: &str = "20s";

/// Pager over a composite aggregation.
///
/// Most queries end with their first page, which one search answers from one state of the store. Only a longer one
/// needs a point in time, of which a store allows few, one for each shard (OpenSearch: 300 in a node).
pub(super) struct CompositePager<'a> {
    reader: &'a ElasticsearchReader,
    indices: String,
    /// Point in time with the distribution of the store, from the second page on.
    point_in_time: Option<(String, Distribution)>,
    body: Value,
    done: bool,
}

/// One page of buckets.
pub(super) struct Page(Bytes);

#[derive(Deserialize)]
struct PageResponse<'a> {
    timed_out: bool,
    #[serde(borrow, default)]
    aggregations: Option<Aggregations<'a>>,
}

#[derive(Deserialize)]
struct Aggregations<'a> {
    #[serde(borrow)]
    pager: Composite<'a>,
}

#[derive(Deserialize)]
struct Composite<'a> {
    #[serde(borrow, default)]
    after_key: Option<&'a RawValue>,
    #[serde(borrow)]
    buckets: Vec<Bucket<'a>>,
}

/// Bucket of one combination.
#[derive(Deserialize)]
pub(super) struct Bucket<'a> {
    #[serde(borrow)]
    pub(super) key: Key<'a>,
    /// Earliest time, if the query aggregates it.
    #[serde(default)]
    pub(super) first: Option<First>,
}

#[derive(Deserialize)]
pub(super) struct Key<'a> {
    #[serde(borrow)]
    pub(super) value: Cow<'a, str>,
    /// Start of the time cell.
    #[serde(default)]
    pub(super) time: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct First {
    pub(super) value: f64,
}

impl Page {
    pub(super) fn buckets(&self) -> Result<Vec<Bucket<'_>>, ReadError> {
        Ok(self.read()?.aggregations.map(|all| all.pager.buckets).unwrap_or_default())
    }

    fn read(&self) -> Result<PageResponse<'_>, ReadError> {
        serde_json::from_slice(&self.0).map_err(|error| ReadError::Failed(error.to_string()))
    }
}

impl<'a> CompositePager<'a> {
    /// Creates a pager over the combinations of `sources` among the events in `indices` that meet `conditions`.
    pub(super) fn new(
        reader: &'a ElasticsearchReader,
        indices: &str,
        conditions: Vec<Value>,
        sources: &[Value],
    ) -> Self {
        let body = json!({"size": 0, "track_total_hits": false, "timeout": "10s", "query": {"bool": {"filter": conditions}},
            "aggs": {"pager": {"composite": {"size": PAGE_BUCKETS, "sources": sources}}}});
        Self { reader, indices: indices.to_owned(), point_in_time: None, body, done: false }
    }

    /// Adds `aggs` to each combination.
    pub(super) fn with_aggregations(&mut self, aggs: Value) {
        self.body["aggs"]["pager"]["aggs"] = aggs;
    }

    /// Returns the next page; `None` at the end.
    pub(super) async fn next_page(&mut self) -> Result<Option<Page>, ReadError> {
        if self.done {
            return Ok(None);
        }
        if self.point_in_time.is_none() {
            let (page, after) = self.fetch(&format!("/{}/_search?{INDEX_OPTIONS}&", self.indices)).await?;
            if after.is_none() {
                self.done = true;
                return Ok(Some(page));
            }
            self.open_point_in_time().await?;
        }
        let (page, after) = self.fetch("/_search?").await?;
        match after {
            Some(after) => self.body["aggs"]["pager"]["composite"]["after"] = after,
            None => self.done = true,
        }
        Ok(Some(page))
    }

    /// Fetches a page, and returns it with the key after which the next begins, if there is one.
    async fn fetch(&self, path: &str) -> Result<(Page, Option<Value>), ReadError> {
        let path = format!("{path}allow_partial_search_results=false&filter_path=timed_out,aggregations");
        let page = Page(self.reader.post(&path, &self.body).await?);
        let answer = page.read()?;
        if answer.timed_out {
            return Err(query_too_long());
        }
        let after = match answer.aggregations {
            Some(all) if all.pager.buckets.len() == PAGE_BUCKETS => all.pager.after_key,
            _ => None,
        };
        let after = after.map(|after| serde_json::from_str(after.get())).transpose();
        let after = after.map_err(|error| ReadError::Failed(error.to_string()))?;
        Ok((page, after))
    }

    async fn open_point_in_time(&mut self) -> Result<(), ReadError> {
        let flavour = self.reader.server.distribution().await.map_err(read_error)?;
        let (path, name) = match flavour {
            Distribution::Elasticsearch => ("_pit", "id"),
            Distribution::OpenSearch => ("_search/point_in_time", "pit_id"),
        };
        let path = format!("/{}/{path}?keep_alive={KEEP_ALIVE}&{INDEX_OPTIONS}", self.indices);
        let answer = self.reader.post(&path, &Value::Null).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| ReadError::Failed(error.to_string()))?;
        let point_in_time = answer[name].as_str().unwrap_or_default().to_owned();
        self.body["pit"] = json!({"id": point_in_time, "keep_alive": KEEP_ALIVE});
        self.point_in_time = Some((point_in_time, flavour));
        Ok(())
    }

    /// Closes the point in time without waiting. If that fails, the store closes it after its keep-alive time.
    pub(super) fn close(self) {
        let Some((point_in_time, flavour)) = self.point_in_time else { return };
        let (path, body) = match flavour {
            Distribution::Elasticsearch => ("/_pit", json!({"id": point_in_time})),
            Distribution::OpenSearch => ("/_search/point_in_time", json!({"pit_id": [point_in_time]})),
        };
        let server = self.reader.server.clone();
        tokio::spawn(async move { server.ask(Method::DELETE, path, Some(&body)).await });
    }
}
