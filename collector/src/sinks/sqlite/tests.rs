use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::query::sqlite::StoreReader;
use crate::query::{CountQuery, EventsQuery, Filter, Measure, ReadError, Reader};
use crate::sinks::StoredRecord;

struct Store {
    dir: TempDir,
}

impl Store {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
}

#[async_trait]
impl crate::sinks::conformance::Subject for Store {
    async fn open(&self) -> Box<dyn Sink> {
        Box::new(EmbeddedSink::open(self.dir.path()).unwrap())
    }

    async fn contents(&self) -> Vec<Value> {
        let (rows, mut out, mut position) = (StoredRows::open(self.dir.path()).unwrap(), Vec::new(), 0);
        loop {
            let keep = |row: &crate::row::Row<'_>| {
                out.push(crate::sinks::conformance::flat(&serde_json::to_string(row).unwrap()));
                Ok::<(), DbError>(())
            };
            match rows.read_after(position, 7, keep).unwrap() {
                same if same == position => return out,
                next => position = next,
            }
        }
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn conforms_as_a_sink() {
    crate::sinks::conformance::run(Store::new).await;
}

struct Filled {
    sink: EmbeddedSink,
    reader: StoreReader,
    _dir: TempDir,
}

impl Filled {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { sink: EmbeddedSink::open(dir.path()).unwrap(), reader: StoreReader::new(dir.path()), _dir: dir }
    }
}

#[async_trait]
impl crate::query::conformance::Subject for Filled {
    async fn deliver(&self, batch: SinkBatch) {
        self.sink.deliver(Arc::new(batch)).await.unwrap();
    }

    fn reader(&self) -> &dyn Reader {
        &self.reader
    }
}

#[tokio::test]
async fn conforms_as_a_reader() {
    crate::query::conformance::run(&Filled::new()).await;
}

fn one_event(first: u64) -> Arc<SinkBatch> {
    let json = json!({"app_key": "demo", "batch_id": "b", "install_id": "i", "received_at": 1, "events": [
        {"event_id": format!("e{first}"), "seq": first, "theme": "view", "code": "c", "event_time": first, "ts": 1}]});
    let records = vec![StoredRecord { first, json: json.to_string() }];
    Arc::new(SinkBatch { first, last: first, dedup_token: String::new(), records })
}

#[tokio::test]
async fn the_position_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let sink = EmbeddedSink::open(dir.path()).unwrap();
    for first in 1..=3 {
        sink.deliver(one_event(first)).await.unwrap();
    }
    assert_eq!(sink.position().await, Ok(Some(3)));
    drop(sink);
    assert_eq!(EmbeddedSink::open(dir.path()).unwrap().position().await, Ok(Some(3)));
}

#[tokio::test]
async fn a_failed_transaction_leaves_caches_that_tell_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let sink = EmbeddedSink::open(dir.path()).unwrap();
    let mut broken = (*one_event(1)).clone();
    broken.records.push(StoredRecord { first: 2, json: "?".into() });
    broken.last = 2;
    assert!(sink.deliver(Arc::new(broken)).await.is_err());
    // The app, words, context and install made in the failed transaction do not exist; using their numbers would lose
    // the event from every join.
    sink.deliver(one_event(1)).await.unwrap();
    let query = EventsQuery { app: "demo".into(), limit: 9, ..EventsQuery::default() };
    assert_eq!(StoreReader::new(dir.path()).newest(query).await.unwrap().len(), 1);
}

#[tokio::test]
async fn time_zones_are_kept_for_export() {
    let dir = tempfile::tempdir().unwrap();
    let sink = EmbeddedSink::open(dir.path()).unwrap();
    let apps = |zone: &str| vec![("demo".to_owned(), zone.to_owned())];
    sink.set_timezones(&apps("UTC")).unwrap();
    sink.deliver(one_event(1)).await.unwrap();
    sink.set_timezones(&apps("Asia/Shanghai")).unwrap();
    assert_eq!(StoredRows::open(dir.path()).unwrap().timezones().unwrap(), apps("Asia/Shanghai"));
}

#[tokio::test]
async fn a_query_past_its_deadline_is_given_up_and_the_next_is_answered() {
    let filled = Filled::new();
    let events: Vec<Value> = (1..=50_000)
        .map(|n| json!({"event_id": format!("e{n}"), "seq": n, "theme": "view", "code": "c", "event_time": n, "ts": 1}))
        .collect();
    let json =
        json!({"app_key": "demo", "batch_id": "b", "install_id": "i", "received_at": 1, "events": events}).to_string();
    let batch = SinkBatch {
        first: 1,
        last: 50_000,
        dedup_token: String::new(),
        records: vec![StoredRecord { first: 1, json }],
    };
    filled.sink.deliver(Arc::new(batch)).await.unwrap();
    let query = CountQuery {
        app: "demo".into(),
        measure: Measure::Events,
        filter: Filter::default(),
        bounds: vec![0, 100_000],
    };
    let hurried = StoreReader::with_deadline(filled._dir.path(), Duration::ZERO);
    assert!(matches!(hurried.count(query.clone()).await, Err(ReadError::Busy(_))));
    assert_eq!(filled.reader.count(query).await.unwrap().total, 50_000);
}

#[test]
fn every_query_is_answered_by_searching_the_key() {
    let dir = tempfile::tempdir().unwrap();
    drop(EmbeddedSink::open(dir.path()).unwrap());
    let connection = crate::db::open_reader(&dir.path().join(FILE), MIGRATIONS).unwrap();
    for sql in [
        "SELECT count(*) FROM event_1 WHERE app = 1 AND theme = 1 AND code = 1 AND event_time >= 1 AND event_time < 2",
        "SELECT event_time, install FROM event_1 WHERE app = 1 AND event_time >= 1 AND event_time < 2",
        "SELECT event_time, session FROM event_1 WHERE app = 1 AND event_time >= 1 AND session <> 0",
    ] {
        let plan: String = connection.query_row(&format!("EXPLAIN QUERY PLAN {sql}"), [], |row| row.get(3)).unwrap();
        assert!(plan.contains("USING PRIMARY KEY (app=?"), "{sql}: {plan}");
    }
}

#[tokio::test]
async fn a_panic_while_writing_costs_only_its_own_batch() {
    let dir = tempfile::tempdir().unwrap();
    let sink = EmbeddedSink::open(dir.path()).unwrap();
    let result: Result<(), SinkError> = sink.run(|_| panic!("a fault")).await;
    assert!(matches!(result, Err(SinkError::Retryable { .. })));
    sink.deliver(one_event(1)).await.unwrap();
    assert_eq!(sink.position().await, Ok(Some(1)));
}
