//! Reader of Elasticsearch and OpenSearch. Every number is exact, none is estimated.
//!
//! Additive measures are counted by ranges. Distinct values are counted by paging over every value together with its
//! time cell, at one point in time of the store.

mod count;
mod pages;
pub(crate) mod row;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{CountQuery, Counts, EventsQuery, Filter, ListedEvent, ReadError, Reader, TimeRange};
use crate::config::{Delivery, Elasticsearch as Settings};
use crate::sinks::SinkError;
use crate::sinks::days::{DAY_MS, day_of};
use crate::sinks::elasticsearch::names;
use crate::sinks::elasticsearch::server::Server;

/// Limit for one query. A range that takes longer should be split. Tests share a small node with others.
const DEADLINE: Duration = Duration::from_secs(if cfg!(test) { 120 } else { 10 });
/// Maximum concurrent queries. The console sends eight at once, and each is a search over every shard.
const MAX_CONCURRENT_QUERIES: usize = 4;
/// Maximum events in one response of the store: its `index.max_result_window`.
const MAX_RESULT_WINDOW: usize = 10_000;
/// Options of index names in a path. A pattern may match nothing, but what it matches must be open, because a response
/// without a closed index would be wrong.
pub(super) const INDEX_OPTIONS: &str = "ignore_unavailable=false&allow_no_indices=true&expand_wildcards=open,closed";

/// Opens a reader without sending anything. Blocks while certificates are read.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the settings cannot be used.
pub(crate) fn open(settings: &Settings, _delivery: &Delivery) -> Result<Arc<dyn Reader>, SinkError> {
    Ok(Arc::new(ElasticsearchReader::new(settings)?))
}

/// Reads the store, with a few concurrent queries, each with a deadline.
pub(crate) struct ElasticsearchReader {
    server: Server,
    prefix: String,
    /// Days for which the sink keeps events; 0 for no limit.
    retention_days: i64,
    permits: Semaphore,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    hits: Hits<'a>,
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(borrow, rename = "_source")]
    source: &'a RawValue,
    /// Time and position.
    sort: (i64, u64),
}

impl ElasticsearchReader {
    /// # Errors
    /// [`SinkError::Misconfigured`] if the settings cannot be used.
    pub(crate) fn new(settings: &Settings) -> Result<Self, SinkError> {
        Ok(Self {
            // The query has the deadline itself; this limit comes after it.
            server: Server::new(settings, 2 * DEADLINE)?,
            prefix: settings.index_prefix().to_owned(),
            retention_days: i64::try_from(settings.retention_days).unwrap_or(i64::MAX),
            permits: Semaphore::new(MAX_CONCURRENT_QUERIES),
        })
    }

    /// Runs `work` when there is a permit, within the deadline.
    async fn run<T>(&self, work: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
        let all = async {
            let _permit = self.permits.acquire().await.map_err(|error| ReadError::Failed(error.to_string()))?;
            work.await
        };
        tokio::time::timeout(DEADLINE, all).await.unwrap_or_else(|_| Err(query_too_long()))
    }

    /// Refreshes the indices, which makes delivered events visible.
    async fn refresh(&self, indices: &str) -> Result<(), ReadError> {
        self.post(&format!("/{indices}/_refresh?{INDEX_OPTIONS}&filter_path=_shards"), &Value::Null).await.map(|_| ())
    }

    /// Sends a request and returns the body of a successful response.
    async fn post(&self, path: &str, body: &Value) -> Result<bytes::Bytes, ReadError> {
        let body = (!body.is_null()).then_some(body);
        let answer = self.server.ask(Method::POST, path, body).await.map_err(read_error)?;
        match answer.status {
            200 => Ok(answer.body),
            429 | 503 => Err(ReadError::Busy(answer.message())),
            _ => Err(ReadError::Failed(answer.message())),
        }
    }

    /// Returns the JSON of a search's response, unless the store gave up before the end.
    async fn search(&self, indices: &str, body: &Value) -> Result<Value, ReadError> {
        let path = format!(
            "/{indices}/_search?{INDEX_OPTIONS}&allow_partial_search_results=false&filter_path=timed_out,aggregations"
        );
        let body = self.post(&path, body).await?;
        let value: Value = serde_json::from_slice(&body).map_err(|error| ReadError::Failed(error.to_string()))?;
        if value["timed_out"] == true { Err(query_too_long()) } else { Ok(value) }
    }

    async fn read_newest(&self, query: &EventsQuery) -> Result<Vec<ListedEvent>, ReadError> {
        let indices = names::covering(&self.prefix, query.from, query.to);
        self.refresh(&indices).await?;
        let mut conditions = conditions(&query.app, &query.filter);
        let more = [("install_id", &query.install_id), ("user_id", &query.user_id)];
        conditions.extend(more.iter().filter_map(|(name, id)| id.as_ref().map(|id| json!({"term": {*name: id}}))));
        conditions.push(event_time_range(query.from, query.to));
        let path = format!("/{indices}/_search?{INDEX_OPTIONS}&allow_partial_search_results=false");
        let (mut rows, mut after) = (Vec::new(), query.after);
        while rows.len() < query.limit {
            let size = (query.limit - rows.len()).min(MAX_RESULT_WINDOW);
            let mut body = json!({"size": size, "track_total_hits": false, "timeout": "10s", "query": {"bool": {"filter": conditions}},
                "sort": [{"event_time": {"order": "desc", "unmapped_type": "date"}}, {"position": {"order": "desc", "unmapped_type": "long"}}]});
            if let Some(after) = after {
                body["search_after"] = json!([after.event_time, after.position]);
            }
            let answer = self.post(&path, &body).await?;
            let page: Page<'_> =
                serde_json::from_slice(&answer).map_err(|error| ReadError::Failed(error.to_string()))?;
            for hit in &page.hits.hits {
                let row = row::read(hit.source.get()).map_err(|error| ReadError::Failed(error.to_string()))?;
                rows.push(ListedEvent { position: hit.sort.1, row });
            }
            if page.hits.hits.len() < size {
                break;
            }
            after = rows.last().map(ListedEvent::sort_key);
        }
        Ok(rows)
    }

    async fn read_time_range(&self, app: &str) -> Result<Option<TimeRange>, ReadError> {
        let indices = names::covering(&self.prefix, None, None);
        self.refresh(&indices).await?;
        let body = json!({"size": 0, "track_total_hits": false, "timeout": "10s", "query": {"bool": {"filter": [{"term": {"app_key": app}}]}},
            "aggs": {"first": {"min": {"field": "event_time"}}, "last": {"max": {"field": "event_time"}}}});
        let answer = self.search(&indices, &body).await?;
        // Times below 2^53 are exact as floating-point numbers.
        let time = |name: &str| answer["aggregations"][name]["value"].as_f64().map(|value| value as i64);
        Ok(time("first").zip(time("last")).map(|(first, last)| TimeRange { first, last }))
    }
}

#[async_trait]
impl Reader for ElasticsearchReader {
    async fn count(&self, query: CountQuery) -> Result<Counts, ReadError> {
        self.run(self.read_count(&query)).await
    }

    async fn newest(&self, query: EventsQuery) -> Result<Vec<ListedEvent>, ReadError> {
        self.run(self.read_newest(&query)).await
    }

    async fn time_range(&self, app: &str) -> Result<Option<TimeRange>, ReadError> {
        self.run(self.read_time_range(app)).await
    }

    /// Returns the oldest day (UTC) whose index the sink's retention keeps. The documents that count installs are never
    /// deleted.
    async fn complete_from(&self, _app: &str, installs: bool) -> Result<Option<i64>, ReadError> {
        if self.retention_days == 0 || installs && self.run(self.counts_are_complete()).await? {
            return Ok(None);
        }
        Ok(Some(day_of(crate::clock::now()).saturating_sub(self.retention_days).saturating_mul(DAY_MS)))
    }
}

/// Returns the conditions of a query on `app`.
fn conditions(app: &str, filter: &Filter) -> Vec<Value> {
    let mut conditions = vec![json!({"term": {"app_key": app}})];
    if let Some(theme) = filter.theme {
        conditions.push(json!({"term": {"theme": theme.as_str()}}));
    }
    if let Some(code) = &filter.code {
        conditions.push(json!({"term": {"code": code}}));
    }
    conditions
}

/// Returns the condition `from <= event_time < to`.
fn event_time_range(from: Option<i64>, to: Option<i64>) -> Value {
    let mut range = serde_json::Map::new();
    range.insert("format".into(), json!("epoch_millis"));
    let ends = [("gte", from), ("lt", to)];
    range.extend(ends.into_iter().filter_map(|(name, end)| end.map(|end| (name.to_owned(), json!(end)))));
    if range.len() == 1 { json!({"match_all": {}}) } else { json!({"range": {"event_time": range}}) }
}

fn query_too_long() -> ReadError {
    ReadError::Busy("the query takes too long; use a shorter range or wider buckets".into())
}

fn read_error(error: SinkError) -> ReadError {
    ReadError::Failed(error.to_string())
}
