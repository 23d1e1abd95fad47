//! Several collectors, one Kafka, ClickHouse behind it, as docs/scaling.md says: every event is there once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "helpers of tests fail the test; other targets use the rest"
)]

#[path = "write_path/support.rs"]
mod support;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use subway_servers::{ClickHouse, Kafka, available};
use support::{Collector, CollectorFixture, batch, event};

/// A restart of the broker, and ClickHouse's rejoining of the group, take some seconds each.
const TIMEOUT: Duration = Duration::from_secs(90);

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < TIMEOUT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The statements of docs/scaling.md, for this broker.
fn statements(brokers: &str) -> Vec<String> {
    let page = include_str!("../../docs/scaling.md");
    let blocks = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .flat_map(|block| block.split(";\n"))
        .filter(|statement| !statement.trim().is_empty())
        .map(|statement| statement.replace("kafka:9092", brokers))
        .collect()
}

/// Messages in the topic.
fn messages(brokers: &str) -> u64 {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let metadata = consumer.fetch_metadata(Some("subway-events"), TIMEOUT).unwrap();
    let partitions = metadata.topics()[0].partitions().iter();
    partitions.map(|p| consumer.fetch_watermarks("subway-events", p.id(), TIMEOUT).unwrap().1.cast_unsigned()).sum()
}

fn pending(collector: &Collector) -> u64 {
    collector.ledger()["sinks"]["kafka"]["pending"].as_u64().unwrap()
}

/// Sends `batch`; every event of it is then stored, or was before.
fn send(collector: &Collector, batch: &Value) {
    let (stored, duplicate, rejected) = collector.send(batch).counts();
    assert_eq!((stored as usize + duplicate, rejected), (batch["events"].as_array().unwrap().len(), 0));
}

#[test]
fn two_collectors_and_one_kafka_bring_every_event_to_clickhouse_once() {
    let Some(kafka) = available(Kafka::start()) else { return };
    let Some(store) = available(ClickHouse::start()) else { return };
    let brokers = kafka.bootstrap();
    let sink = format!(
        "[[sink]]\nname = \"kafka\"\nkind = \"kafka\"\nurl = \"{brokers}\"\npartitions = 4\nrequest_timeout_ms = 3000\n"
    );
    let sites = [CollectorFixture::new(&sink), CollectorFixture::new(&sink)];
    let mut first = sites[0].start();
    let second = sites[1].start();
    send(&first, &batch(vec![event()]));
    wait_for("the topic", || pending(&first) == 0);
    for statement in statements(&brokers) {
        store.query(&statement).unwrap();
    }

    let batches: Vec<Value> = (0..60).map(|_| batch((0..50).map(|_| event()).collect())).collect();
    let mut last = None;
    for (n, batch) in batches.iter().enumerate() {
        match n {
            20 => {
                // In the middle of what it delivers: the same batch goes out again after the start.
                first.kill_9();
                first = sites[0].start();
            }
            40 => kafka.kill(),
            _ => {}
        }
        send([&first, &second][n % 2], batch);
        if n % 5 == 0 {
            // The answer was lost, and the client repeats at the other collector.
            send([&second, &first][n % 2], batch);
        }
        if n == 50 {
            kafka.restart().unwrap();
        }
        last = Some(batch);
    }
    // And at the same one, which knows them.
    assert_eq!(first.send(last.unwrap()).counts().0 + second.send(last.unwrap()).counts().0, 50);
    wait_for("the deliveries", || pending(&first) == 0 && pending(&second) == 0);

    let ids: HashSet<&str> = batches
        .iter()
        .flat_map(|batch| batch["events"].as_array().unwrap())
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    let (sent, events) = (messages(&brokers), ids.len() as u64 + 1);
    assert!(sent >= events + 12 * 50, "the repetitions at the other collector are in Kafka: {sent}");
    let number = |sql: &str| store.query(sql).unwrap().trim().parse::<u64>().unwrap();
    wait_for("ClickHouse's reader", || number("SELECT sum(num_messages_read) FROM system.kafka_consumers") >= sent);
    wait_for("ClickHouse's inserts", || number("SELECT count() FROM subway.ods_event FINAL") >= events);
    assert_eq!(number("SELECT count() FROM subway.ods_event FINAL"), events);
    assert_eq!(number("SELECT uniqExact(event_id) FROM subway.ods_event"), events);
    assert_eq!(number("SELECT count() FROM subway.kafka_error"), 0);
    let found = store.query("SELECT toString(event_id) FROM subway.ods_event FINAL").unwrap();
    let found: HashSet<&str> = found.lines().collect();
    assert!(ids.is_subset(&found));
    let columns = "theme, code, toUnixTimestamp64Milli(ts) AS t, props, app_key";
    let row = store.query(&format!("SELECT DISTINCT {columns} FROM subway.ods_event FORMAT TSV")).unwrap();
    assert_eq!(row, "view\tpage_view\t1431835511000\t{\"k\":\"v\"}\tdemo\n");
}
