//! The sink on real servers.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use subway_servers::{Elastic, available};

use super::*;
use crate::query::Reader;
use crate::query::elasticsearch::{ElasticsearchReader, row};
use crate::sinks::{StoredRecord, conformance};

/// Milliseconds of a day.
pub(super) const DAY: i64 = 86_400_000;

/// Part of a real store that no other test uses.
pub(super) struct Store {
    pub(super) server: &'static Elastic,
    pub(super) settings: Settings,
}

impl Store {
    pub(super) fn new(server: &'static Elastic, more: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { server, settings: Settings::of_test(&server.url(), &prefix, more) }
    }

    pub(super) fn elasticsearch(more: &str) -> Option<Self> {
        Some(Self::new(available(subway_servers::Elasticsearch::shared())?, more))
    }

    pub(super) fn prefix(&self) -> &str {
        self.settings.index_prefix()
    }

    pub(super) async fn sink(&self) -> Elasticsearch {
        let zones = [("a".to_owned(), "Asia/Shanghai".to_owned())];
        let sink = Elasticsearch::new("es", &self.settings, &Settings::delivery_of_test(), &zones).unwrap();
        sink.prepare().await.unwrap();
        sink
    }

    pub(super) fn reader(&self) -> ElasticsearchReader {
        ElasticsearchReader::new(&self.settings).unwrap()
    }

    pub(super) fn get(&self, path: &str) -> Value {
        self.server.get(path).unwrap().json().unwrap()
    }

    pub(super) fn post(&self, path: &str, body: Value) -> Value {
        self.server.post(path, &body.to_string()).unwrap().json().unwrap()
    }

    pub(super) fn put(&self, path: &str, body: Value) -> Value {
        self.server.put(path, &body.to_string()).unwrap().json().unwrap()
    }

    /// Returns index, ID and source of every document in the indices that `end` names after the prefix, sorted by
    /// both.
    pub(super) fn documents(&self, end: &str) -> Vec<(String, String, Value)> {
        let prefix = self.prefix();
        self.server.post(&format!("/{prefix}-{end}/_refresh"), "").unwrap();
        let found = self.post(&format!("/{prefix}-{end}/_search"), json!({"size": 10000}));
        let hits = found["hits"]["hits"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut all: Vec<_> =
            hits.iter().map(|hit| (text(&hit["_index"]), text(&hit["_id"]), hit["_source"].clone())).collect();
        all.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        all
    }
}

#[async_trait]
impl conformance::Subject for Store {
    async fn open(&self) -> Box<dyn Sink> {
        Box::new(self.sink().await)
    }

    async fn contents(&self) -> Vec<Value> {
        let prefix = self.prefix();
        self.server.post(&format!("/{prefix}-ods-*/_refresh"), "").unwrap();
        let (mut rows, mut after) = (Vec::new(), json!(0));
        loop {
            let body = json!({"size": 5000, "sort": ["position"], "search_after": [after]});
            let answer = self.server.post(&format!("/{prefix}-ods-*/_search"), &body.to_string()).unwrap();
            #[derive(Deserialize)]
            struct Hit {
                #[serde(rename = "_source")]
                source: Box<serde_json::value::RawValue>,
                sort: Vec<Value>,
            }
            #[derive(Deserialize)]
            struct Hits {
                hits: Vec<Hit>,
            }
            #[derive(Deserialize)]
            struct Found {
                hits: Hits,
            }
            let found: Found = serde_json::from_str(&answer.body).unwrap();
            let Some(last) = found.hits.hits.last() else { return rows };
            after = last.sort[0].clone();
            for hit in found.hits.hits {
                let row = row::read(hit.source.get()).unwrap();
                rows.push(conformance::flat(&serde_json::to_string(&row).unwrap()));
            }
        }
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn conforms_as_a_sink() {
    let Some(server) = available(subway_servers::Elasticsearch::shared()) else { return };
    conformance::run(|| Store::new(server, "")).await;
}

#[tokio::test]
async fn conforms_as_a_sink_on_opensearch_and_uncompressed() {
    let Some(server) = available(subway_servers::OpenSearch::shared()) else { return };
    conformance::run(|| Store::new(server, "compression = \"none\"\nbulk_bytes = 100000")).await;
}

struct Reading {
    store: Store,
    sink: Elasticsearch,
    reader: ElasticsearchReader,
}

impl Reading {
    async fn new(store: Store) -> Self {
        Self { sink: store.sink().await, reader: store.reader(), store }
    }
}

#[async_trait]
impl crate::query::conformance::Subject for Reading {
    async fn deliver(&self, batch: SinkBatch) {
        assert_eq!(self.sink.deliver(Arc::new(batch)).await, Ok(Delivered::default()));
    }

    fn reader(&self) -> &dyn Reader {
        &self.reader
    }
}

#[tokio::test]
async fn conforms_as_a_reader() {
    let Some(store) = Store::elasticsearch("") else { return };
    crate::query::conformance::run(&Reading::new(store).await).await;
}

#[tokio::test]
async fn conforms_as_a_reader_without_documents_that_count() {
    let Some(store) = Store::elasticsearch("exact_counts = false") else { return };
    let reading = Reading::new(store).await;
    crate::query::conformance::run(&reading).await;
    assert_eq!(reading.store.documents("users*"), []);
}

#[tokio::test]
async fn conforms_as_a_reader_on_opensearch() {
    let Some(server) = available(subway_servers::OpenSearch::shared()) else { return };
    crate::query::conformance::run(&Reading::new(Store::new(server, "exact_counts = false")).await).await;
}

/// Creates an event: its ID's number, its time, and its other fields.
pub(super) fn event(id: u64, time: i64, more: Value) -> Value {
    let mut event = json!({"event_id": format!("00000000-0000-7000-8000-{id:012x}"), "seq": id, "theme": "view", "code": "v", "event_time": time, "ts": 1});
    event.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    event
}

/// Creates a batch of one record that begins at `first` and arrived with the last of its events.
pub(super) fn batch(app: &str, install: &str, first: u64, events: &[Value]) -> Arc<SinkBatch> {
    let arrived = events.iter().filter_map(|event| event["event_time"].as_i64()).max().unwrap_or(7).max(7);
    let events: Vec<String> = events.iter().map(Value::to_string).collect();
    batch_of_text((app, install, arrived), first, &events)
}

pub(super) fn batch_of_text(
    (app, install, arrived): (&str, &str, i64),
    first: u64,
    events: &[String],
) -> Arc<SinkBatch> {
    let json = format!(
        r#"{{"app_key":"{app}","batch_id":"b","install_id":"{install}","received_at":{arrived},"events":[{}]}}"#,
        events.join(",")
    );
    let last = first + events.len() as u64 - 1;
    Arc::new(SinkBatch { first, last, dedup_token: "t".into(), records: vec![StoredRecord { first, json }] })
}
