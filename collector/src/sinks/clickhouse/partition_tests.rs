//! Events of many days on a real server: how many parts they create, and whether they delay others.

use std::time::{Duration, Instant};

use subway_servers::{ClickHouse as Server, available};

use super::test_support::{Database, event};
use super::*;
use crate::sinks::StoredRecord;

const DAY: i64 = 86_400_000;
/// 2026-07-01, some time of the day: when everything here arrived.
const ARRIVED: i64 = 1_782_864_000_000 + 12_345;

/// Returns a record of `app` with an event for each of `days_ago`.
fn record(app: &str, first: u64, days_ago: impl Iterator<Item = i64>) -> StoredRecord {
    let events: Vec<_> = days_ago.zip(first..).map(|(days, n)| event(n, ARRIVED - days * DAY)).collect();
    let json = serde_json::json!({"app_key": app, "batch_id": "b", "install_id": "i", "received_at": ARRIVED, "events": events});
    StoredRecord { first, json: json.to_string() }
}

fn batch(records: Vec<StoredRecord>, last: u64) -> Arc<SinkBatch> {
    let first = records[0].first;
    Arc::new(SinkBatch { first, last, dedup_token: format!("id-{first}-{last}"), records })
}

/// Returns a thousand events, each of another day of twenty years.
fn hostile(first: u64) -> StoredRecord {
    record("bad", first, (0..1000).map(move |n| (n * 73 + first as i64 * 7) % 7301 - 1))
}

fn number(database: &Database, query: &str) -> u64 {
    database.run(query).trim().parse().unwrap()
}

/// Returns the number of inserts in a row; more by hand, with `SUBWAY_INSERTS`.
fn inserts() -> u64 {
    std::env::var("SUBWAY_INSERTS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

const PARTS: &str = "SELECT count() FROM system.parts WHERE database = '{db}' AND table = 'ods_event' AND active";

#[tokio::test]
async fn events_of_twenty_years_are_one_insert_of_few_parts_and_hold_up_nobody() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let sink = database.prepared("").await;
    database.run("SYSTEM STOP MERGES {db}.ods_event");
    let one = batch(vec![hostile(1)], 1000);
    assert_eq!(sink.batch_end(&one), Ok(1000));
    assert_eq!(sink.deliver(one).await, Ok(Delivered::default()));
    let parts = number(&database, PARTS);
    assert!((22..=36).contains(&parts), "{parts}");
    database.run("SYSTEM START MERGES {db}.ods_event");
    // Insert after insert, as fast as the server takes them, with an event of another app in each.
    let (mut next, mut slowest, began, inserts) = (1001, Duration::ZERO, Instant::now(), inserts());
    for _ in 0..inserts {
        let together = batch(vec![hostile(next), record("good", next + 1000, 0..1)], next + 1000);
        assert_eq!(sink.batch_end(&together), Ok(together.last));
        let sent = Instant::now();
        assert_eq!(sink.deliver(together).await, Ok(Delivered::default()));
        slowest = slowest.max(sent.elapsed());
        next += 1001;
    }
    let left = number(&database, PARTS);
    eprintln!(
        "{inserts} inserts of twenty years each: {parts} parts an insert, {left} parts at the end, {:?} in all, the slowest {slowest:?}",
        began.elapsed()
    );
    assert!(left < parts * inserts / 2, "{left} parts: merges do not keep up");
    assert_eq!(database.delivered(), next - 1);
    assert_eq!(number(&database, "SELECT count() FROM {db}.ods_event FINAL WHERE app_key = 'good'"), inserts);
    // The same events in other batches meet their copies in the same partitions.
    for first in [1u64, 501] {
        let mut again = SinkBatch::clone(&batch(vec![hostile(1)], 1000));
        (again.first, again.last, again.dedup_token) = (first, first + 499, format!("half {first}"));
        assert_eq!(sink.deliver(Arc::new(again)).await, Ok(Delivered::default()));
    }
    assert_eq!(database.delivered(), next - 1);
}

/// A partition key cannot be changed in place.
#[tokio::test]
async fn a_table_that_is_divided_by_days_works_on_and_can_be_moved() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let settings = database.settings("");
    let [(version, _, first), ..] = schema::MIGRATIONS;
    for statement in schema::version_table(&settings).iter().chain(&schema::render(first, &settings)) {
        database.run(&statement.replace(schema::PARTITION, "toYYYYMMDD(event_time)"));
    }
    database.run(&schema::record_version(&settings, version));
    let sink = database.prepared("").await;
    let many = batch(vec![hostile(1)], 1000);
    let cut = sink.batch_end(&many).unwrap();
    assert_eq!(cut, 50);
    let mut piece = SinkBatch::clone(&many);
    piece.last = cut;
    assert_eq!(sink.deliver(Arc::new(piece)).await, Ok(Delivered::default()));
    assert_eq!(number(&database, PARTS), 50);
    // As docs/operations/06-connect-a-store.md says.
    database.run("RENAME TABLE {db}.ods_event TO {db}.ods_event_by_day");
    let (settings, delivery) = database.configured("");
    assert!(!apply(&settings, &delivery).await.unwrap().is_empty());
    database.run(
        "INSERT INTO {db}.ods_event SELECT * FROM {db}.ods_event_by_day SETTINGS max_partitions_per_insert_block = 0",
    );
    assert_eq!(database.delivered(), 50);
    assert!(number(&database, PARTS) <= 36);
    let sink = database.prepared("").await;
    assert_eq!(sink.batch_end(&many), Ok(1000));
    assert_eq!(sink.deliver(many).await, Ok(Delivered::default()));
    assert_eq!(database.delivered(), 1000);
}
