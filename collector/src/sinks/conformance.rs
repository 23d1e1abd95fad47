//! Conformance suite for sinks: every event arrives exactly once and whole, whatever was tried before.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Delivered, Sink, SinkBatch, StoredRecord};
use crate::record::Record;
use crate::row::Row;

/// Store under test, empty at first.
#[async_trait]
pub(crate) trait Subject {
    /// Opens the sink on the store, as after a start of the collector. The store keeps what was delivered before.
    async fn open(&self) -> Box<dyn Sink>;
    /// Returns every event in the store in the form of [`flat`], in the order of delivery if the store keeps one.
    ///
    /// A log has no keys by which it could recognise a repetition. For one, this is what its readers keep: the first of
    /// each `(app_key, event_id)`.
    async fn contents(&self) -> Vec<Value>;
    /// Returns whether the store keeps the order.
    fn keeps_order(&self) -> bool;
}

/// Runs the whole suite, each part on a fresh store.
pub(crate) async fn run<S: Subject>(fresh: impl Fn() -> S) {
    one_batch_arrives_whole(&fresh()).await;
    every_column_arrives(&fresh()).await;
    a_batch_sent_again_changes_nothing(&fresh()).await;
    a_batch_sent_again_after_a_restart_changes_nothing(&fresh()).await;
    batches_may_cut_records_anywhere(&fresh()).await;
    a_batch_that_overlaps_the_last_adds_only_what_is_new(&fresh()).await;
    hostile_texts_arrive_as_they_are(&fresh()).await;
    values_at_the_edge_arrive_as_they_are(&fresh()).await;
    apps_with_equal_identifiers_stay_apart(&fresh()).await;
    a_big_batch_arrives_whole(&fresh()).await;
    an_unreadable_record_is_refused_and_leaves_nothing(&fresh()).await;
    a_healthy_store_says_so(&fresh()).await;
}

/// Parses the JSON of a [`Row`] and keeps its properties as text, because Rust types cannot hold every number and text
/// in them.
pub(crate) fn flat(line: &str) -> Value {
    let fields: std::collections::BTreeMap<String, &serde_json::value::RawValue> = serde_json::from_str(line).unwrap();
    let value = |name: &str, raw: &str| match name {
        "props" | "common" => json!(raw),
        _ => serde_json::from_str(raw).unwrap(),
    };
    fields.iter().map(|(name, raw)| (name.clone(), value(name, raw.get()))).collect()
}

/// Values that JSON allows and that stores and languages handle badly.
pub(crate) mod edge {
    use serde_json::Value;

    /// Event codes that an app may choose.
    pub(crate) const CODES: [&str; 8] = [
        "下单",
        "Order Completed",
        "a\"b\\c'd",
        "' OR 1=1 --",
        "{x:String}",
        "%_*?",
        "\u{1F600}\u{feff}",
        "页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页页",
    ];

    /// Common properties.
    pub(crate) const COMMON: [&str; 3] =
        [r#"{"\ud800":1e999}"#, r#"{"channel":"qr"}"#, r#"{"n":18446744073709551617}"#];

    /// Properties.
    pub(crate) fn properties() -> Vec<String> {
        let long = "x".repeat(30_000);
        let mut all: Vec<String> = [
            r#"{"\ud800":"\udfff\ud800x","element_id":"buy"}"#,
            r#"{"half":"\ud83d","whole":"\ud83d\ude00","turned":"\ude00\ud83d"}"#,
            r#"{"a":1e999,"b":-1e999,"c":[1E+400]}"#,
            r#"{"n":18446744073709551617,"m":-9223372036854775809,"exact":9007199254740993}"#,
            r#"{"d":3.141592653589793238462643383279,"i":123456789012345678901234567890}"#,
            r#"{"\u0000":"\u0000"}"#,
            // A value that a store refuses, beside one that breaks the quotation in its answer.
            r#"{"\u0000":"\ud83d"}"#,
            r#"{"a":"\ud83d","a":1}"#,
            r#"{"a":1,"a":2,"b":{"c":1,"c":{}}}"#,
            r#"{"":"","e":[],"o":{},"none":null}"#,
            "{\"\u{1F600}\":\"\\ud83d\\ude00\",\"页\":\"面\"}",
            r#"{".":1,"a.b":2,"a":{"b":3},"..":4}"#,
            r#"{"l":[1,"2",null,[true,{"x":1e400}]],"zero":-0.0,"small":1e-999}"#,
            "{}",
        ]
        .map(str::to_owned)
        .to_vec();
        all.push(format!("{{\"v\":\"{long}\"}}"));
        all.push(format!("{{\"{}\":1}}", &long[..128]));
        all.push(format!("{}1{}", "{\"d\":".repeat(8), "}".repeat(8)));
        all
    }

    /// Returns the event with these properties, as text.
    pub(crate) fn with_props(event: &Value, props: &str) -> String {
        let event = event.to_string();
        format!("{},\"props\":{props}}}", event.trim_end_matches('}'))
    }
}

/// Returns a record of `count` events of `app`. The first has the position `first`.
fn record(app: &str, first: u64, count: u64) -> StoredRecord {
    let events: Vec<Value> = (first..first + count)
        .map(|position| {
            json!({"event_id": format!("00000000-0000-7000-8000-{position:012x}"), "seq": position, "theme": "view", "code": "page_view",
                "event_time": 1_000_000 - position, "ts": position, "user_id": format!("u{}", position % 3),
                "session_id": format!("00000000-0000-7000-9000-{:012x}", position % 4), "props": {"n": position}})
        })
        .collect();
    let record = json!({"app_key": app, "batch_id": format!("00000000-0000-7000-a000-{first:012x}"),
        "install_id": "00000000-0000-7000-b000-000000000001", "received_at": 7, "context": {"platform": "jd"},
        "common": {"channel": "qr"}, "events": events});
    StoredRecord { first, json: record.to_string() }
}

fn batch(first: u64, last: u64, records: &[StoredRecord]) -> Arc<SinkBatch> {
    Arc::new(SinkBatch { first, last, dedup_token: format!("token-{first}-{last}"), records: records.to_vec() })
}

/// Returns what the store must hold after the events up to `last` of `records`.
fn expected(records: &[StoredRecord], last: u64) -> Vec<Value> {
    let mut out = Vec::new();
    for stored in records {
        let record: Record<'_> = serde_json::from_str(&stored.json).unwrap();
        let kept = record.events.iter().zip(stored.first..).take_while(|(_, position)| *position <= last);
        out.extend(kept.map(|(event, _)| flat(&serde_json::to_string(&Row::new(&record, event)).unwrap())));
    }
    out
}

async fn assert_holds(subject: &impl Subject, mut expected: Vec<Value>) {
    let mut found = subject.contents().await;
    if !subject.keeps_order() {
        let id = |row: &Value| (row["app_key"].to_string(), row["event_id"].to_string());
        found.sort_by_key(id);
        expected.sort_by_key(id);
    }
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
}

async fn deliver(sink: &dyn Sink, batch: Arc<SinkBatch>) {
    assert_eq!(sink.deliver(batch).await, Ok(Delivered::default()));
}

async fn one_batch_arrives_whole(subject: &impl Subject) {
    let records = [record("a", 1, 3), record("a", 4, 2)];
    let sink = subject.open().await;
    deliver(&*sink, batch(1, 5, &records)).await;
    assert_holds(subject, expected(&records, 5)).await;
}

async fn a_batch_sent_again_changes_nothing(subject: &impl Subject) {
    let records = [record("a", 1, 3)];
    let sink = subject.open().await;
    for _ in 0..3 {
        deliver(&*sink, batch(1, 3, &records)).await;
    }
    assert_holds(subject, expected(&records, 3)).await;
}

/// The crash between delivery and the advance of the spool's cursor.
async fn a_batch_sent_again_after_a_restart_changes_nothing(subject: &impl Subject) {
    let records = [record("a", 1, 3), record("a", 4, 1)];
    deliver(&*subject.open().await, batch(1, 3, &records[..1])).await;
    let sink = subject.open().await;
    deliver(&*sink, batch(1, 3, &records[..1])).await;
    deliver(&*sink, batch(4, 4, &records[1..])).await;
    assert_holds(subject, expected(&records, 4)).await;
}

async fn batches_may_cut_records_anywhere(subject: &impl Subject) {
    let records = [record("a", 1, 4), record("b", 5, 4)];
    let sink = subject.open().await;
    deliver(&*sink, batch(1, 2, &records[..1])).await;
    deliver(&*sink, batch(3, 5, &records)).await;
    deliver(&*sink, batch(6, 6, &records[1..])).await;
    assert_holds(subject, expected(&records, 6)).await;
    deliver(&*sink, batch(7, 8, &records[1..])).await;
    assert_holds(subject, expected(&records, 8)).await;
}

/// Batches of a sink with a position are not frozen, so a repetition may be split differently.
async fn a_batch_that_overlaps_the_last_adds_only_what_is_new(subject: &impl Subject) {
    let records = [record("a", 1, 4), record("a", 5, 4)];
    let sink = subject.open().await;
    if sink.position().await == Ok(None) {
        return;
    }
    deliver(&*sink, batch(1, 6, &records)).await;
    deliver(&*sink, batch(1, 4, &records[..1])).await;
    deliver(&*sink, batch(3, 8, &records)).await;
    assert_holds(subject, expected(&records, 8)).await;
    assert_eq!(subject.open().await.position().await, Ok(Some(8)));
}

/// Every declared column has a value of its own.
async fn every_column_arrives(subject: &impl Subject) {
    let records = [StoredRecord { first: 1, json: crate::record::samples::record() }];
    deliver(&*subject.open().await, batch(1, 1, &records)).await;
    assert_holds(subject, expected(&records, 1)).await;
}

async fn hostile_texts_arrive_as_they_are(subject: &impl Subject) {
    let texts = [
        "'; DROP TABLE event; --",
        "\u{0}",
        "\\N",
        "\"",
        "\t\r\n",
        "页面\u{1F600}",
        "{}",
        "NULL",
        "\u{2028}\u{feff}",
        "%s${A}`",
    ];
    let events: Vec<Value> = texts
        .iter()
        .zip(1..)
        .map(|(text, position)| {
            json!({"event_id": format!("00000000-0000-7000-8000-{position:012x}"), "seq": position, "theme": "custom", "code": "c", "event_time": 5,
                "ts": 5, "boot": text, "user_id": text, "session_id": text, "page_path": text, "page_title": text, "page_referrer": text,
                "props": {*text: [text, {"deep": text}], "big": 1e300, "small": -0.0, "none": null}})
        })
        .collect();
    let mut context = serde_json::Map::new();
    for column in crate::record::Context::COLUMNS {
        context.insert(column.name.to_owned(), json!(texts[0]));
    }
    let json = json!({"app_key": texts[0], "batch_id": texts[5], "install_id": texts[6], "received_at": 0, "context": context,
        "common": {"t": texts}, "events": events});
    let records = [StoredRecord { first: 1, json: json.to_string() }];
    let last = texts.len() as u64;
    deliver(&*subject.open().await, batch(1, last, &records)).await;
    assert_holds(subject, expected(&records, last)).await;
}

/// Lone surrogates, numbers out of range, duplicate names: the collector must not change properties.
async fn values_at_the_edge_arrive_as_they_are(subject: &impl Subject) {
    let events: Vec<String> = edge::properties()
        .iter()
        .zip(1..)
        .map(|(props, position)| {
            let code = edge::CODES[position % edge::CODES.len()];
            let event = json!({"event_id": format!("00000000-0000-7000-8000-{position:012x}"), "seq": position, "theme": "click", "code": code,
                "event_time": 5, "ts": 5});
            edge::with_props(&event, props)
        })
        .collect();
    let mut records = Vec::new();
    let mut first = 1;
    for (common, events) in edge::COMMON.iter().zip(events.chunks(events.len().div_ceil(edge::COMMON.len()))) {
        let json = format!(
            r#"{{"app_key":"a","batch_id":"b","install_id":"i","received_at":7,"common":{common},"events":[{}]}}"#,
            events.join(",")
        );
        records.push(StoredRecord { first, json });
        first += events.len() as u64;
    }
    let sink = subject.open().await;
    for _ in 0..2 {
        deliver(&*sink, batch(1, first - 1, &records)).await;
    }
    assert_holds(subject, expected(&records, first - 1)).await;
}

/// The same event, install, user and session identifiers in two apps are different things.
async fn apps_with_equal_identifiers_stay_apart(subject: &impl Subject) {
    let mut second = record("b", 1, 3);
    second.first = 4;
    let records = [record("a", 1, 3), second];
    deliver(&*subject.open().await, batch(1, 6, &records)).await;
    assert_holds(subject, expected(&records, 6)).await;
}

async fn a_big_batch_arrives_whole(subject: &impl Subject) {
    let records: Vec<StoredRecord> = (0..40).map(|n| record("a", 1 + n * 500, 500)).collect();
    deliver(&*subject.open().await, batch(1, 20_000, &records)).await;
    assert_holds(subject, expected(&records, 20_000)).await;
}

async fn an_unreadable_record_is_refused_and_leaves_nothing(subject: &impl Subject) {
    let broken = StoredRecord { first: 4, json: "{\"app_key\":".to_owned() };
    let sink = subject.open().await;
    let result = sink.deliver(batch(1, 4, &[record("a", 1, 3), broken])).await;
    assert!(matches!(&result, Err(super::SinkError::CorruptRecord(record)) if record.first == 4), "{result:?}");
    assert_holds(subject, Vec::new()).await;
    let records = [record("a", 1, 3)];
    deliver(&*sink, batch(1, 3, &records)).await;
    assert_holds(subject, expected(&records, 3)).await;
}

async fn a_healthy_store_says_so(subject: &impl Subject) {
    assert_eq!(subject.open().await.health().await, Ok(()));
}
