//! A walk over every distinct combination of some values, page by page, at one point in time of the store.

use std::borrow::Cow;

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{ElasticsearchReader, OPTIONS, ReadError, read_error, too_long};
use crate::sinks::elasticsearch::server::Distribution;

/// Combinations in one page. Each page goes over all matching events again, so there should be few; the store allows 65,535
/// (`search.max_buckets`). Few in tests, so that they turn pages.
const PAGE: usize = if cfg!(test) { 50 } else { 30_000 };
/// How long the store keeps the point in time after each page: longer than a question may take.
const KEEP_ALIVE: &str = "20s";

/// The walk. Most end with their first page, which one search answers from one state of the store; only a longer one needs a
/// point in time, of which a store allows few, one for each shard (OpenSearch: 300 in a node).
pub(super) struct Walk<'a> {
    reader: &'a ElasticsearchReader,
    indices: String,
    /// The point in time and whose it is, from the second page on.
    point: Option<(String, Distribution)>,
    body: Value,
    done: bool,
}

/// One page of the answer.
pub(super) struct Page(Bytes);

#[derive(Deserialize)]
struct Answer<'a> {
    timed_out: bool,
    #[serde(borrow, default)]
    aggregations: Option<Aggregations<'a>>,
}

#[derive(Deserialize)]
struct Aggregations<'a> {
    #[serde(borrow)]
    walk: Composite<'a>,
}

#[derive(Deserialize)]
struct Composite<'a> {
    #[serde(borrow, default)]
    after_key: Option<&'a RawValue>,
    #[serde(borrow)]
    buckets: Vec<Bucket<'a>>,
}

/// One combination.
#[derive(Deserialize)]
pub(super) struct Bucket<'a> {
    #[serde(borrow)]
    pub(super) key: Key<'a>,
    /// The earliest time, if it was asked for.
    #[serde(default)]
    pub(super) first: Option<First>,
}

#[derive(Deserialize)]
pub(super) struct Key<'a> {
    #[serde(borrow)]
    pub(super) value: Cow<'a, str>,
    /// Where the cell that holds the time begins.
    #[serde(default)]
    pub(super) time: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct First {
    pub(super) value: f64,
}

impl Page {
    pub(super) fn buckets(&self) -> Result<Vec<Bucket<'_>>, ReadError> {
        Ok(self.read()?.aggregations.map(|all| all.walk.buckets).unwrap_or_default())
    }

    fn read(&self) -> Result<Answer<'_>, ReadError> {
        serde_json::from_slice(&self.0).map_err(|error| ReadError::Failed(error.to_string()))
    }
}

impl<'a> Walk<'a> {
    /// Begins a walk over the combinations of `sources` among the events in `indices` that meet `conditions`.
    pub(super) fn over(
        reader: &'a ElasticsearchReader,
        indices: &str,
        conditions: Vec<Value>,
        sources: &[Value],
    ) -> Self {
        let body = json!({"size": 0, "track_total_hits": false, "timeout": "10s", "query": {"bool": {"filter": conditions}},
            "aggs": {"walk": {"composite": {"size": PAGE, "sources": sources}}}});
        Self { reader, indices: indices.to_owned(), point: None, body, done: false }
    }

    /// Asks for `aggs` of each combination too.
    pub(super) fn with(&mut self, aggs: Value) {
        self.body["aggs"]["walk"]["aggs"] = aggs;
    }

    /// The next page; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, ReadError> {
        if self.done {
            return Ok(None);
        }
        if self.point.is_none() {
            let (page, after) = self.ask(&format!("/{}/_search?{OPTIONS}&", self.indices)).await?;
            if after.is_none() {
                self.done = true;
                return Ok(Some(page));
            }
            self.open_point().await?;
        }
        let (page, after) = self.ask("/_search?").await?;
        match after {
            Some(after) => self.body["aggs"]["walk"]["composite"]["after"] = after,
            None => self.done = true,
        }
        Ok(Some(page))
    }

    /// A page, and after which combination the next begins, if there may be one.
    async fn ask(&self, path: &str) -> Result<(Page, Option<Value>), ReadError> {
        let path = format!("{path}allow_partial_search_results=false&filter_path=timed_out,aggregations");
        let page = Page(self.reader.ask(&path, &self.body).await?);
        let answer = page.read()?;
        if answer.timed_out {
            return Err(too_long());
        }
        let after = match answer.aggregations {
            Some(all) if all.walk.buckets.len() == PAGE => all.walk.after_key,
            _ => None,
        };
        let after = after.map(|after| serde_json::from_str(after.get())).transpose();
        let after = after.map_err(|error| ReadError::Failed(error.to_string()))?;
        Ok((page, after))
    }

    async fn open_point(&mut self) -> Result<(), ReadError> {
        let distribution = self.reader.server.distribution().await.map_err(read_error)?;
        let (path, name) = match distribution {
            Distribution::Elasticsearch => ("_pit", "id"),
            Distribution::OpenSearch => ("_search/point_in_time", "pit_id"),
        };
        let path = format!("/{}/{path}?keep_alive={KEEP_ALIVE}&{OPTIONS}", self.indices);
        let answer = self.reader.ask(&path, &Value::Null).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| ReadError::Failed(error.to_string()))?;
        let point = answer[name].as_str().unwrap_or_default().to_owned();
        self.body["pit"] = json!({"id": point, "keep_alive": KEEP_ALIVE});
        self.point = Some((point, distribution));
        Ok(())
    }

    /// Lets the store forget the point in time. Nobody waits for it; the store forgets by itself after a while.
    pub(super) fn end(self) {
        let Some((point, distribution)) = self.point else { return };
        let (path, body) = match distribution {
            Distribution::Elasticsearch => ("/_pit", json!({"id": point})),
            Distribution::OpenSearch => ("/_search/point_in_time", json!({"pit_id": [point]})),
        };
        let server = self.reader.server.clone();
        tokio::spawn(async move { server.ask(Method::DELETE, path, Some(&body)).await });
    }
}
