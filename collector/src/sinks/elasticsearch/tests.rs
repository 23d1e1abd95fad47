//! The sink on real servers.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use subway_servers::{Elastic, available};

use super::*;
use crate::query::elasticsearch::{ElasticsearchReader, row};
use crate::query::{CountQuery, EventsQuery, Filter, Measure, Reader};
use crate::sinks::{StoredRecord, conformance};

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// A part of a real store that nobody else uses.
pub(crate) struct Store {
    server: &'static Elastic,
    pub(crate) settings: Settings,
}

impl Store {
    pub(crate) fn new(server: &'static Elastic, more: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { server, settings: Settings::of_test(&server.url(), &prefix, more) }
    }

    fn elasticsearch(more: &str) -> Option<Self> {
        Some(Self::new(available(subway_servers::Elasticsearch::shared())?, more))
    }

    fn prefix(&self) -> &str {
        self.settings.index_prefix()
    }

    pub(crate) async fn sink(&self) -> Elasticsearch {
        let zones = [("a".to_owned(), "Asia/Shanghai".to_owned())];
        let sink = Elasticsearch::new("es", &self.settings, &Settings::delivery_of_test(), &zones).unwrap();
        sink.prepare().await.unwrap();
        sink
    }

    pub(crate) fn reader(&self) -> ElasticsearchReader {
        ElasticsearchReader::new(&self.settings).unwrap()
    }

    fn get(&self, path: &str) -> Value {
        self.server.get(path).unwrap().json().unwrap()
    }

    fn post(&self, path: &str, body: Value) -> Value {
        self.server.post(path, &body.to_string()).unwrap().json().unwrap()
    }

    fn put(&self, path: &str, body: Value) -> Value {
        self.server.put(path, &body.to_string()).unwrap().json().unwrap()
    }

    /// Index, identity and source of every document in the indices that `end` names after the prefix, sorted by both.
    fn documents(&self, end: &str) -> Vec<(String, String, Value)> {
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
                rows.push(serde_json::to_value(row::read(hit.source.get()).unwrap()).unwrap());
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

/// One event: its ID's number, its time, and what else it has.
fn event(id: u64, time: i64, more: Value) -> Value {
    let mut event = json!({"event_id": format!("00000000-0000-7000-8000-{id:012x}"), "seq": id, "theme": "view", "code": "v", "event_time": time, "ts": 1});
    event.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    event
}

/// A batch of one record that begins at `first`.
fn batch(app: &str, install: &str, first: u64, events: &[Value]) -> Arc<SinkBatch> {
    let events: Vec<String> = events.iter().map(Value::to_string).collect();
    batch_of_text(app, install, first, &events)
}

fn batch_of_text(app: &str, install: &str, first: u64, events: &[String]) -> Arc<SinkBatch> {
    let json = format!(
        r#"{{"app_key":"{app}","batch_id":"b","install_id":"{install}","received_at":7,"events":[{}]}}"#,
        events.join(",")
    );
    let last = first + events.len() as u64 - 1;
    Arc::new(SinkBatch { first, last, token: "t".into(), records: vec![StoredRecord { first, json }] })
}

#[tokio::test]
async fn a_document_that_the_store_refuses_is_named_and_its_neighbours_arrive() {
    let Some(store) = Store::elasticsearch("") else { return };
    let sink = store.sink().await;
    let good = |id| event(id, DAY, json!({}));
    // The store knows no date so long ago.
    let poison = |id| event(id, i64::MIN, json!({"user_id": "only here", "code": "follow"}));
    let delivered = sink.deliver(batch("a", "i", 1, &[good(1), poison(2), good(3)])).await.unwrap();
    assert_eq!(delivered.refused.len(), 1);
    assert_eq!(delivered.refused[0].position, 2);
    assert!(delivered.refused[0].reason.contains("event_time"), "{}", delivered.refused[0].reason);
    assert_eq!(store.documents("ods-*").len(), 2);
    assert_eq!(store.documents("followers*"), [], "what was refused is not counted");

    let result = sink.deliver(batch("a", "i", 4, &[poison(4), poison(5)])).await;
    assert!(matches!(&result, Err(SinkError::Refused { message }) if message.contains("event_time")), "{result:?}");
}

async fn properties_that_cannot_be_fields_are_kept_exactly(store: Store) {
    let sink = store.sink().await;
    let key = "k".repeat(40_000);
    let deep = format!("{}1{}", "{\"d\":".repeat(30), "}".repeat(30));
    let mut events = Vec::new();
    let props = [
        "{\"\\u0000\":1}".to_owned(),
        "{\"a\":1,\"a\":2}".to_owned(),
        format!("{{\"{key}\":1}}"),
        format!("{{\"v\":\"{key}\"}}"),
        deep,
        "{\"\":{\"\":1},\".\":2,\"a.b\":3,\"a\":{\"b\":4}}".to_owned(),
        "{\"big\":1e300,\"zero\":-0.0,\"long\":12345678901234567890123,\"none\":null,\"mixed\":[1,[\"x\",{}]]}"
            .to_owned(),
    ];
    for (props, id) in props.iter().zip(1..) {
        let text = event(id, DAY, json!({})).to_string();
        events.push(format!("{},\"props\":{props}}}", &text[..text.len() - 1]));
    }
    assert_eq!(sink.deliver(batch_of_text("a", "i", 1, &events)).await, Ok(Delivered::default()));
    // Sent again, they are recognised in whichever form they are there.
    assert_eq!(sink.deliver(batch_of_text("a", "i", 1, &events)).await, Ok(Delivered::default()));
    let query = EventsQuery { app: "a".into(), limit: 100, ..EventsQuery::default() };
    let rows = store.reader().newest(query).await.unwrap();
    let found: Vec<&str> = rows.iter().rev().map(|row| row.props.as_ref().unwrap().get()).collect();
    assert_eq!(found, props);
}

#[tokio::test]
async fn properties_that_elasticsearch_cannot_index_are_kept_exactly() {
    let Some(store) = Store::elasticsearch("") else { return };
    properties_that_cannot_be_fields_are_kept_exactly(store).await;
}

#[tokio::test]
async fn properties_that_opensearch_cannot_index_are_kept_exactly() {
    let Some(server) = available(subway_servers::OpenSearch::shared()) else { return };
    properties_that_cannot_be_fields_are_kept_exactly(Store::new(server, "")).await;
}

#[tokio::test]
async fn an_event_lies_in_the_index_of_its_day_under_its_id_in_no_other() {
    let Some(store) = Store::elasticsearch("") else { return };
    let sink = store.sink().await;
    let events = [event(1, 1_431_907_199_999, json!({})), event(2, 1_431_907_200_000, json!({}))];
    for _ in 0..3 {
        assert_eq!(sink.deliver(batch("a", "i", 1, &events)).await, Ok(Delivered::default()));
    }
    let prefix = store.prefix();
    let places: Vec<_> = store.documents("ods-*").into_iter().map(|(index, id, _)| (index, id)).collect();
    assert_eq!(
        places,
        [
            (format!("{prefix}-ods-2015.05.17"), "00000000-0000-7000-8000-000000000001".to_owned()),
            (format!("{prefix}-ods-2015.05.18"), "00000000-0000-7000-8000-000000000002".to_owned())
        ]
    );
    let index = format!("{prefix}-ods-2015.05.17");
    let mapping = store.get(&format!("/{index}/_mapping"));
    let properties = &mapping[&index]["mappings"]["properties"];
    assert_eq!(
        (&properties["props"]["type"], &properties["app_key"]["type"]),
        (&json!("flattened"), &json!("keyword"))
    );
    let template = store.get(&format!("/_index_template/{prefix}-ods"));
    assert_eq!(template["index_templates"][0]["index_template"]["version"], 1);
}

#[tokio::test]
async fn equal_ids_of_two_apps_stay_two_events_however_often_they_are_sent() {
    let Some(store) = Store::elasticsearch("") else { return };
    let sink = store.sink().await;
    for _ in 0..3 {
        for (app, first) in [("a", 1), ("b", 2), ("c", 3)] {
            let batch = batch(app, "i", first, &[event(1, DAY, json!({}))]);
            assert_eq!(sink.deliver(batch).await, Ok(Delivered::default()));
        }
    }
    let id = "00000000-0000-7000-8000-000000000001";
    let found: Vec<_> =
        store.documents("ods-*").into_iter().map(|(_, id, source)| (id, source["app_key"].clone())).collect();
    assert_eq!(found, [(id.to_owned(), json!("a")), (format!("b|{id}"), json!("b")), (format!("c|{id}"), json!("c"))]);
}

#[tokio::test]
async fn only_the_events_that_were_not_taken_are_sent_again() {
    let Some(store) = Store::elasticsearch("exact_counts = false") else { return };
    let (sink, prefix) = (store.sink().await, store.prefix().to_owned());
    sink.deliver(batch("a", "i", 1, &[event(1, DAY, json!({})), event(2, 2 * DAY, json!({}))])).await.unwrap();
    let full = |full: Value| {
        store.put(&format!("/{prefix}-ods-1970.01.02/_settings"), json!({"index.blocks.read_only_allow_delete": full}))
    };
    // As a node does with its indices when its disk is full: every write is answered 429.
    full(json!(true));
    let next = batch("a", "i", 3, &[event(3, DAY, json!({})), event(4, 2 * DAY, json!({})), event(5, DAY, json!({}))]);
    let (delivered, ()) = tokio::join!(sink.deliver(next), async {
        while store.documents("ods-1970.01.03").len() < 2 {
            tokio::task::yield_now().await;
        }
        full(Value::Null);
    });
    assert_eq!(delivered, Ok(Delivered::default()));
    assert_eq!(store.documents("ods-*").len(), 5);
    let stats = store.get(&format!("/{prefix}-ods-1970.01.03/_stats/indexing"));
    let indexing = &stats["_all"]["primaries"]["indexing"];
    assert_eq!((&indexing["index_total"], &indexing["index_failed"]), (&json!(2), &json!(0)), "{indexing}");
}

#[tokio::test]
async fn an_index_that_takes_nothing_is_no_poison() {
    let Some(store) = Store::elasticsearch("") else { return };
    let (sink, prefix) = (store.sink().await, store.prefix().to_owned());
    sink.deliver(batch("a", "i", 1, &[event(1, DAY, json!({})), event(2, 2 * DAY, json!({}))])).await.unwrap();
    let next = batch("a", "i", 3, &[event(3, DAY, json!({})), event(4, 2 * DAY, json!({}))]);
    let index = format!("/{prefix}-ods-1970.01.02");
    let block = |block: bool| store.put(&format!("{index}/_settings"), json!({"index.blocks.write": block}));
    block(true);
    let result = sink.deliver(Arc::clone(&next)).await;
    assert!(matches!(&result, Err(SinkError::Retryable { message, .. }) if message.contains("blocked")), "{result:?}");
    block(false);
    store.post(&format!("{index}/_close"), json!({}));
    let result = sink.deliver(Arc::clone(&next)).await;
    assert!(
        matches!(&result, Err(SinkError::Retryable { message, .. }) if message.contains("index_closed")),
        "{result:?}"
    );
    let query = EventsQuery { app: "a".into(), limit: 9, ..EventsQuery::default() };
    assert!(store.reader().newest(query.clone()).await.is_err(), "an answer without a closed index would be wrong");
    store.post(&format!("{index}/_open"), json!({}));
    assert_eq!(sink.deliver(next).await, Ok(Delivered::default()));
    assert_eq!(store.reader().newest(query).await.unwrap().len(), 4);
}

#[tokio::test]
async fn documents_that_count_equal_what_is_counted_by_hand() {
    use std::collections::{BTreeMap, BTreeSet};
    let Some(store) = Store::elasticsearch("follow_code = \"sub\"\nunfollow_code = \"unsub\"") else { return };
    let sink = store.sink().await;
    let (mut visitors, mut firsts) = (BTreeSet::new(), BTreeMap::<_, i64>::new());
    let mut followers = BTreeMap::<_, (i64, u64, bool)>::new();
    // A walk through all combinations; 7919 is prime, so times come in no order.
    for first in 1..=40u64 {
        let (app, install) = (["a", "b"][first as usize % 2], format!("i{}", first % 7));
        let events: Vec<Value> = (0..6u64)
            .map(|n| {
                let number = first * 6 + n;
                let time = (number as i64 * 7919 % 997) * DAY / 199;
                let (theme, user) = (["view", "custom"][number as usize % 2], format!("u{}", number % 5));
                let code = ["v", "sub", "v", "unsub", "v"][number as usize % 5];
                // Clocks of the app a are eight hours ahead.
                let local = if app == "a" { time + 8 * 3_600_000 } else { time };
                if theme == "view" {
                    visitors.insert(format!("{app}|{}|{install}", names::date(local.div_euclid(DAY))));
                }
                let earliest = firsts.entry(format!("{app}|{install}")).or_insert(time);
                *earliest = time.min(*earliest);
                if code != "v" {
                    let word = (time, number, code == "sub");
                    let latest = followers.entry(format!("{app}|{user}")).or_insert(word);
                    *latest = word.max(*latest);
                }
                event(number, time, json!({"theme": theme, "code": code, "user_id": user}))
            })
            .collect();
        let batch = batch(app, &install, first * 6, &events);
        for _ in 0..1 + first % 3 {
            assert_eq!(sink.deliver(Arc::clone(&batch)).await, Ok(Delivered::default()));
        }
        if first == 20 {
            // A new process remembers nothing; what it writes again changes nothing.
            let again = store.sink().await;
            assert_eq!(again.deliver(Arc::clone(&batch)).await, Ok(Delivered::default()));
        }
    }
    let ids = |end: &str| store.documents(end).into_iter().map(|(_, id, _)| id).collect::<BTreeSet<_>>();
    assert_eq!(ids("uv-*"), visitors);
    let found: BTreeMap<_, i64> = store
        .documents("users")
        .into_iter()
        .map(|(_, id, source)| (id, source["first_time"].as_i64().unwrap()))
        .collect();
    assert_eq!(found, firsts);
    let found: BTreeMap<_, bool> =
        store.documents("followers").into_iter().map(|(_, id, source)| (id, source["following"] == true)).collect();
    assert_eq!(found, followers.into_iter().map(|(id, word)| (id, word.2)).collect());
}

#[tokio::test]
async fn documents_that_count_are_not_read_if_they_lack_what_came_before_them() {
    let Some(mut store) = Store::elasticsearch("exact_counts = false") else { return };
    let at = |id: u64, time: i64| batch("a", &format!("i{id}"), id, &[event(id, time, json!({}))]);
    store.sink().await.deliver(at(1, 5)).await.unwrap();
    store.settings = Settings::of_test(&store.server.url(), store.prefix(), "");
    store.sink().await.deliver(at(2, 15)).await.unwrap();
    let query = CountQuery {
        app: "a".into(),
        measure: Measure::InstallsSeen,
        filter: Filter::default(),
        bounds: vec![0, 10, 20],
    };
    assert_eq!(store.documents("users").len(), 1);
    assert_eq!(store.reader().count(query).await.unwrap().buckets, [1, 2]);
}

#[tokio::test]
async fn retention_deletes_only_what_is_old_and_its_own() {
    let Some(store) = Store::elasticsearch("retention_days = 30") else { return };
    let (sink, prefix) = (store.sink().await, store.prefix().to_owned());
    let today = names::day_of(crate::clock::now());
    let on = |id: u64, day: i64| event(id, day * DAY + 5, json!({}));
    for other in
        [format!("{prefix}-ods-2001.01.01-copy"), format!("{prefix}x-ods-2001.01.01"), format!("{prefix}-ods-latest")]
    {
        store.put(&format!("/{other}"), json!({}));
    }
    let events = [on(1, today - 400), on(2, today - 31), on(3, today - 30), on(4, today), on(5, today + 2)];
    assert_eq!(sink.deliver(batch("b", "i", 1, &events)).await, Ok(Delivered::default()));
    let left: Vec<String> = store.documents("ods-*").into_iter().map(|(index, _, _)| index).collect();
    assert_eq!(left, [today - 30, today, today + 2].map(|day| names::ods(&prefix, day)));
    for kept in
        [format!("{prefix}-ods-2001.01.01-copy"), format!("{prefix}x-ods-2001.01.01"), format!("{prefix}-ods-latest")]
    {
        assert_eq!(store.server.get(&format!("/{kept}")).unwrap().status, 200, "{kept}");
    }
    assert_eq!(store.documents("uv-*").len(), 4, "a month is kept as long as one of its days");
    assert_eq!(store.documents("users").len(), 1);
}

#[tokio::test]
async fn a_schema_of_the_operator_is_checked_and_not_made() {
    let Some(mut store) = Store::elasticsearch("manage_schema = false") else { return };
    let delivery = Settings::delivery_of_test();
    let sink = Elasticsearch::new("es", &store.settings, &delivery, &[]).unwrap();
    let result = sink.prepare().await;
    assert!(matches!(&result, Err(SinkError::Unfit { message }) if message.contains("app_key")), "{result:?}");
    let theirs = store.settings.clone();
    store.settings = Settings::of_test(&store.server.url(), store.prefix(), "");
    store.sink().await;
    store.settings = theirs;
    assert_eq!(sink.prepare().await, Ok(()));
    assert_eq!(store.sink().await.health().await, Ok(()));
}

#[tokio::test]
async fn a_newer_template_is_left_as_it_is() {
    let Some(store) = Store::elasticsearch("") else { return };
    let (_, prefix) = (store.sink().await, store.prefix());
    let path = format!("/_index_template/{prefix}-ods");
    let newer = json!({"index_patterns": [format!("{prefix}-ods-*")], "priority": 300, "version": 99, "template": {"mappings": {"dynamic": false}}});
    store.put(&path, newer);
    store.sink().await;
    assert_eq!(store.get(&path)["index_templates"][0]["index_template"]["version"], 99);
}

#[test]
fn a_batch_is_cut_where_it_would_make_too_many_indices() {
    let settings = Settings::of_test("http://127.0.0.1:1", "p", "");
    let sink = Elasticsearch::new("es", &settings, &Settings::delivery_of_test(), &[]).unwrap();
    let on = |id: u64, day: i64| event(id, day * DAY, json!({}));
    let events: Vec<Value> = (0..120).map(|n| on(n, (n as i64) / 2)).collect();
    assert_eq!(sink.cut(&batch("a", "i", 11, &events)), Ok(11 + 2 * DAYS as u64 - 1));
    assert_eq!(sink.cut(&batch("a", "i", 11, &events[..7])), Ok(17));
    // Days that came before may come again.
    let again: Vec<Value> = (0..120).map(|n| on(n, (n as i64) % DAYS as i64)).collect();
    assert_eq!(sink.cut(&batch("a", "i", 1, &again)), Ok(120));
}
