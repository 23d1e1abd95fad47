//! Tests on a real broker.

use std::collections::{BTreeMap, HashSet};

use rdkafka::ClientConfig;
use rdkafka::admin::AlterConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use subway_servers::{Kafka as Broker, available};

use super::*;
use crate::config::{Config, SinkKind};
use crate::sinks::StoredRecord;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns a topic, or a prefix of topics, of its own.
fn topic() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!("t{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

/// Opens the sink with a configuration; `more` are lines of its table.
fn sink(brokers: &str, topic: &str, more: &str) -> Kafka {
    let text = format!(
        "[[app]]\nkey = \"demo\"\ntimezone = \"UTC\"\n[[sink]]\nname = \"k\"\nkind = \"kafka\"\nurl = \"{brokers}\"\ntopic = \"{topic}\"\n\
         partitions = 3\n{more}"
    );
    let sink = Config::parse(&text).unwrap().sinks.remove(0);
    let SinkKind::Kafka(settings) = &sink.kind else { panic!("another kind") };
    Kafka::open(&sink.name, settings, &sink.delivery).unwrap()
}

async fn prepared(brokers: &str, topic: &str, more: &str) -> Kafka {
    let sink = sink(brokers, topic, more);
    sink.prepare().await.unwrap();
    sink
}

struct Read {
    partition: i32,
    key: String,
    value: Value,
    headers: BTreeMap<String, String>,
}

/// Reads everything in a topic, partition by partition.
fn read(brokers: &str, topic: &str) -> Vec<Read> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "tests")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let (mut list, mut left) = (TopicPartitionList::new(), 0);
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT).unwrap();
        left += high - low;
        list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut out = Vec::new();
    while left > 0 {
        let message = consumer.poll(TIMEOUT).expect("the broker gives what it has").unwrap();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        out.push(Read {
            partition: message.partition(),
            key: text(message.key()),
            value: crate::sinks::conformance::flat(&text(message.payload())),
            headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
        });
        left -= 1;
    }
    out.sort_by_key(|read| read.partition);
    out
}

/// Returns what a consumer has that drops duplicates.
fn distinct(messages: Vec<Read>) -> Vec<Value> {
    let mut seen = HashSet::new();
    let values = messages.into_iter().map(|read| read.value);
    values.filter(|row| seen.insert((row["app_key"].to_string(), row["event_id"].to_string()))).collect()
}

struct Log {
    broker: &'static Broker,
    topic: String,
}

#[async_trait]
impl crate::sinks::conformance::Subject for Log {
    async fn open(&self) -> Box<dyn Sink> {
        Box::new(prepared(&self.broker.bootstrap(), &self.topic, "").await)
    }

    async fn contents(&self) -> Vec<Value> {
        distinct(read(&self.broker.bootstrap(), &self.topic))
    }

    fn keeps_order(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_as_a_sink() {
    let Some(broker) = available(Broker::shared()) else { return };
    crate::sinks::conformance::run(|| Log { broker, topic: topic() }).await;
}

/// Returns a record of `install` with the positions `first..first + count`.
fn record(install: &str, first: u64, count: u64, more: impl Fn(u64) -> Value) -> StoredRecord {
    let events: Vec<Value> = (first..first + count)
        .map(|position| {
            let mut event = json!({"event_id": format!("e{position}"), "seq": position, "theme": "view", "code": "c", "event_time": 1, "ts": 1});
            event.as_object_mut().unwrap().extend(more(position).as_object().unwrap().clone());
            event
        })
        .collect();
    let record = json!({"app_key": "demo", "batch_id": "b", "install_id": install, "received_at": 7, "events": events});
    StoredRecord { first, json: record.to_string() }
}

fn nothing(_: u64) -> Value {
    json!({})
}

fn batch(records: Vec<StoredRecord>, last: u64) -> Arc<SinkBatch> {
    let first = records[0].first;
    Arc::new(SinkBatch { first, last, dedup_token: format!("token-{first}-{last}"), records })
}

#[tokio::test]
async fn the_key_is_the_install_and_an_install_keeps_its_order() {
    let Some(broker) = available(Broker::shared()) else { return };
    let topic = topic();
    let sink = prepared(&broker.bootstrap(), &topic, "").await;
    for round in 0..3 {
        let first = 1 + round * 600;
        let records = (0..60).map(|n| record(&format!("i{}", n % 7), first + n * 10, 10, nothing)).collect();
        assert_eq!(sink.deliver(batch(records, first + 599)).await, Ok(Delivered::default()));
    }
    let (mut last, mut partitions) = (BTreeMap::new(), BTreeMap::new());
    for message in read(&broker.bootstrap(), &topic) {
        assert_eq!(message.key, message.value["install_id"]);
        let seq = message.value["seq"].as_u64().unwrap();
        assert_eq!(message.headers["subway-position"], seq.to_string());
        let round = 1 + (seq - 1) / 600 * 600;
        assert_eq!(message.headers["subway-batch"], format!("token-{round}-{}", round + 599));
        assert!(last.insert(message.key.clone(), seq) < Some(seq), "{} was overtaken", message.key);
        let partition = *partitions.entry(message.key).or_insert(message.partition);
        assert_eq!(partition, message.partition);
    }
    assert_eq!(last.len(), 7);
    assert!(partitions.values().collect::<HashSet<_>>().len() > 1);
}

#[tokio::test]
async fn each_theme_can_have_a_topic_of_its_own() {
    let Some(broker) = available(Broker::shared()) else { return };
    let topic = topic();
    let sink = prepared(&broker.bootstrap(), &topic, "topic_per_theme = true\n").await;
    let themes = subway_protocol::Theme::ALL.map(|theme| theme.as_str());
    let theme = |position: u64| json!({"theme": themes[position as usize % themes.len()]});
    let events = 4 * themes.len() as u64;
    assert_eq!(sink.deliver(batch(vec![record("i", 1, events, theme)], events)).await, Ok(Delivered::default()));
    for theme in themes {
        let found = read(&broker.bootstrap(), &format!("{topic}-{theme}"));
        assert_eq!(found.len(), 4, "{theme}");
        assert!(found.iter().all(|message| message.value["theme"] == theme));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_no_poison_and_is_not_made_against_the_will() {
    let Some(broker) = available(Broker::shared()) else { return };
    let topic = topic();
    let strict = sink(&broker.bootstrap(), &topic, "manage_schema = false\nrequest_timeout_ms = 1500\n");
    let named = |result: Result<(), SinkError>| match result {
        Err(SinkError::Retryable { message, .. }) => assert!(message.contains(&topic), "{message}"),
        other => panic!("{other:?}"),
    };
    named(strict.prepare().await);
    named(strict.health().await);
    // The producer requests the metadata of a topic when it sends to it, and most brokers then create it. So nothing is
    // delivered before the sink is prepared.
    named(strict.prepare().await);
    let events = batch(vec![record("i", 1, 9, nothing)], 9);
    prepared(&broker.bootstrap(), &topic, "").await;
    assert_eq!(strict.prepare().await, Ok(()));
    assert_eq!(strict.health().await, Ok(()));
    assert_eq!(strict.deliver(events).await, Ok(Delivered::default()));
    assert_eq!(distinct(read(&broker.bootstrap(), &topic)).len(), 9);
}

/// Returns a text of so many bytes that does not compress.
fn noise(bytes: usize) -> String {
    let mut state = 88_172_645_463_325_252u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + u8::try_from(state % 60).unwrap() + u8::from(!state.is_multiple_of(60)))
    })
    .map(|c| if matches!(c, '"' | '\\') { 'x' } else { c })
    .take(bytes)
    .collect()
}

#[tokio::test]
async fn an_event_too_large_is_refused_and_costs_no_neighbour() {
    let Some(broker) = available(Broker::shared()) else { return };
    let topic = topic();
    let sink = prepared(&broker.bootstrap(), &topic, "message_bytes = 131072\n").await;
    let large = |position: u64| if position == 5 { json!({"props": {"p": "x".repeat(140_000)}}) } else { json!({}) };
    let delivered = sink.deliver(batch(vec![record("i", 1, 9, large)], 9)).await.unwrap();
    assert_eq!(delivered.refused.iter().map(|refusal| refusal.position).collect::<Vec<_>>(), [5]);
    assert!(delivered.refused[0].reason.contains("too large"), "{delivered:?}");
    assert_eq!(read(&broker.bootstrap(), &topic).len(), 8);
    let alone = sink.deliver(batch(vec![record("i", 5, 1, large)], 5)).await;
    assert!(matches!(alone, Err(SinkError::Permanent { .. })), "{alone:?}");
}

async fn limit(sink: &Kafka, topic: &str, bytes: u32) {
    let bytes = bytes.to_string();
    let change = AlterConfig::new(rdkafka::admin::ResourceSpecifier::Topic(topic)).set("max.message.bytes", &bytes);
    let changed = sink.topics.admin().unwrap().alter_configs([&change], &rdkafka::admin::AdminOptions::new()).await;
    changed.unwrap().remove(0).unwrap();
}

#[tokio::test]
async fn when_the_broker_refuses_a_whole_request_only_the_guilty_event_is_given_up() {
    let Some(broker) = available(Broker::shared()) else { return };
    let topic = topic();
    let sink = prepared(&broker.bootstrap(), &topic, "compression = \"none\"\n").await;
    limit(&sink, &topic, 5000).await;
    let large = |position: u64| if position == 50 { json!({"props": {"p": noise(6000)}}) } else { json!({}) };
    let delivered = sink.deliver(batch(vec![record("i", 1, 100, large)], 100)).await.unwrap();
    assert_eq!(delivered.refused.iter().map(|refusal| refusal.position).collect::<Vec<_>>(), [50]);
    assert_eq!(distinct(read(&broker.bootstrap(), &topic)).len(), 99);
}

#[tokio::test]
async fn a_topic_that_takes_less_than_the_largest_message_is_named_at_the_start() {
    let Some(broker) = available(Broker::shared()) else { return };
    let topic = topic();
    let sink = prepared(&broker.bootstrap(), &topic, "").await;
    limit(&sink, &topic, 5000).await;
    match sink.prepare().await {
        Err(SinkError::Misconfigured { message }) => {
            assert!(message.contains(&topic) && message.contains("5000") && message.contains("1048588"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_a_failure_that_may_pass() {
    let sink = sink("127.0.0.1:1", "t", "request_timeout_ms = 500\n");
    let prepared = sink.prepare().await;
    // The error names the library's reason, not only the timeout.
    assert!(prepared.as_ref().is_err_and(|error| error.to_string().contains("refused")), "{prepared:?}");
    for result in
        [prepared, sink.health().await, sink.deliver(batch(vec![record("i", 1, 9, nothing)], 9)).await.map(drop)]
    {
        assert!(matches!(result, Err(SinkError::Retryable { .. })), "{result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_in_the_middle_of_deliveries_costs_nothing() {
    let Some(broker) = available(Broker::start()) else { return };
    const BATCHES: u64 = 30;
    const EVENTS: u64 = 1000;
    let (topic, url) = (topic(), broker.bootstrap());
    let sink = prepared(&url, &topic, "request_timeout_ms = 2000\n").await;
    let (mut failures, mut restarted) = (0, None);
    for n in 0..BATCHES {
        let first = 1 + n * EVENTS;
        let batch = batch(vec![record(&format!("i{n}"), first, EVENTS, nothing)], first + EVENTS - 1);
        if n == BATCHES / 2 {
            let delivering = sink.deliver(Arc::clone(&batch));
            let killing = async { broker.kill() };
            failures += u32::from(tokio::join!(delivering, killing).0.is_err());
            // Until the library has given up the messages in its queue.
            while failures < 2 {
                let r = sink.deliver(Arc::clone(&batch)).await;
                failures += u32::from(r.is_err());
            }
            let began = std::time::Instant::now();
            broker.restart().unwrap();
            restarted = Some(began);
        }
        while let Err(error) = sink.deliver(Arc::clone(&batch)).await {
            assert!(matches!(error, SinkError::Retryable { .. }), "{error:?}");
            assert!(restarted.is_some_and(|began| began.elapsed() < TIMEOUT), "{error:?}");
        }
    }
    let rows = distinct(read(&url, &topic));
    assert_eq!(rows.len() as u64, BATCHES * EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_ends_a_delivery_in_time_and_gets_the_same_batch_again() {
    let Some(broker) = available(Broker::start()) else { return };
    let (topic, url) = (topic(), broker.bootstrap());
    let sink = prepared(&url, &topic, "request_timeout_ms = 1000\n").await;
    let first = batch(vec![record("i", 1, 100, nothing)], 100);
    let second = batch(vec![record("i", 101, 100, nothing)], 200);
    assert_eq!(sink.deliver(first).await, Ok(Delivered::default()));
    broker.pause().unwrap();
    let began = std::time::Instant::now();
    let hung = sink.deliver(Arc::clone(&second)).await;
    assert!(matches!(hung, Err(SinkError::Retryable { .. })), "{hung:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    broker.resume().unwrap();
    let began = std::time::Instant::now();
    while let Err(error) = sink.deliver(Arc::clone(&second)).await {
        assert!(began.elapsed() < TIMEOUT, "{error:?}");
    }
    assert_eq!(distinct(read(&url, &topic)).len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(unsafe_code, reason = "the library's own way to make a producer fail for good is a function in C")]
async fn a_producer_that_cannot_go_on_is_replaced() {
    let Some(broker) = available(Broker::shared()) else { return };
    let topic = topic();
    let sink = prepared(&broker.bootstrap(), &topic, "").await;
    let events = batch(vec![record("i", 1, 9, nothing)], 9);
    let code = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    let producer = sink.producer_slot.get().unwrap();
    // SAFETY: the pointer is that of a live producer, and the text ends with a zero.
    unsafe { rdkafka::bindings::rd_kafka_test_fatal_error(producer.native_ptr(), code, c"a test".as_ptr()) };
    drop(producer);
    let failed = sink.deliver(Arc::clone(&events)).await;
    assert!(matches!(failed, Err(SinkError::Retryable { .. })), "{failed:?}");
    assert_eq!(sink.deliver(events).await, Ok(Delivered::default()));
}
