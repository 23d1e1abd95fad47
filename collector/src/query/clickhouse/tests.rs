use serde_json::json;
use subway_servers::{ClickHouse, available};

use super::*;
use crate::query::conformance;
use crate::sinks::clickhouse::test_support::Database;
use crate::sinks::{SinkBatch, StoredRecord};

struct Filled {
    database: Database,
    reader: ClickHouseReader,
}

impl Filled {
    async fn new(server: &'static ClickHouse) -> Self {
        let database = Database::new(server);
        database.prepared("").await;
        let reader = ClickHouseReader::new(&database.settings(""), DEADLINE).unwrap();
        Self { database, reader }
    }

    async fn store(&self, first: u64, token: &str, events: &[serde_json::Value]) {
        let json =
            json!({"app_key": "a", "batch_id": "b", "install_id": "i", "received_at": 9, "events": events}).to_string();
        let last = first + events.len() as u64 - 1;
        let batch = SinkBatch { first, last, dedup_token: token.into(), records: vec![StoredRecord { first, json }] };
        conformance::Subject::deliver(self, batch).await;
    }
}

#[async_trait]
impl conformance::Subject for Filled {
    async fn deliver(&self, batch: SinkBatch) {
        self.database.open("").deliver(Arc::new(batch)).await.unwrap();
    }

    fn reader(&self) -> &dyn Reader {
        &self.reader
    }
}

fn event(n: u64, time: i64) -> serde_json::Value {
    json!({"event_id": format!("00000000-0000-7000-8000-{n:012x}"), "seq": n, "theme": "view", "code": "c", "event_time": time, "ts": time,
        "user_id": "u", "session_id": "s"})
}

#[tokio::test]
async fn conforms_as_a_reader() {
    let Some(server) = available(ClickHouse::shared()) else { return };
    conformance::run(&Filled::new(server).await).await;
}

#[tokio::test]
async fn an_event_that_was_delivered_under_two_tokens_is_counted_once() {
    let Some(server) = available(ClickHouse::shared()) else { return };
    let filled = Filled::new(server).await;
    filled.database.run("SYSTEM STOP MERGES {db}.ods_event");
    let events: Vec<_> = (1..=9).map(|n| event(n, 10 * n as i64)).collect();
    for token in ["whole", "again"] {
        filled.store(1, token, &events).await;
    }
    filled.store(1, "a half", &events[..4]).await;
    assert_eq!(filled.database.run("SELECT count() FROM {db}.ods_event"), "22\n", "the repetitions must be there");
    let query =
        CountQuery { app: "a".into(), measure: Measure::Events, filter: Filter::default(), bounds: vec![0, 50, 100] };
    let counts = filled.reader.count(query).await.unwrap();
    assert_eq!((counts.buckets, counts.total), (vec![4, 5], 9));
    let query = EventsQuery { app: "a".into(), limit: 5, ..EventsQuery::default() };
    let times: Vec<i64> =
        filled.reader.newest(query).await.unwrap().iter().map(|listed| listed.row.event.event_time).collect();
    assert_eq!(times, [90, 80, 70, 60, 50]);
}

#[tokio::test]
async fn as_many_buckets_as_may_be_asked_for_are_one_query() {
    let Some(server) = available(ClickHouse::shared()) else { return };
    let filled = Filled::new(server).await;
    let events: Vec<_> = (0..1000).map(|n| event(n, 1_700_000_000_000 + 3_600_000 * n as i64)).collect();
    filled.store(1, "t", &events).await;
    let bounds: Vec<i64> = (0..=10_000).map(|n| 1_700_000_000_000 + 3_600_000 * n).collect();
    for measure in [Measure::Events, Measure::Installs, Measure::NewInstalls, Measure::InstallsSeen] {
        let query = CountQuery { app: "a".into(), measure, filter: Filter::default(), bounds: bounds.clone() };
        let counts = filled.reader.count(query).await.unwrap();
        assert_eq!(counts.buckets.len(), 10_000);
        let (sum, total) = match measure {
            Measure::Events => (1000, 1000),
            Measure::Installs => (1000, 1),
            Measure::NewInstalls => (1, 1),
            _ => (10_000, 1),
        };
        assert_eq!((counts.buckets.iter().sum::<u64>(), counts.total), (sum, total), "{measure:?}");
    }
}

#[tokio::test]
async fn what_the_time_to_live_may_have_deleted_is_said() {
    let Some(server) = available(ClickHouse::shared()) else { return };
    let filled = Filled::new(server).await;
    let today = day_of(crate::clock::now());
    assert_eq!(filled.reader.complete_from("a", false).await, Ok(None));
    let sink = filled.database.prepared("ttl_days = 30").await;
    // The last event that is certainly deleted, the first that is certainly kept.
    let edge = (today - 29) * DAY_MS;
    let events = [event(1, edge - DAY_MS - 1), event(2, edge), event(3, today * DAY_MS)];
    sink.deliver(crate::sinks::clickhouse::test_support::batch(1, &events)).await.unwrap();
    filled.database.run("OPTIMIZE TABLE {db}.ods_event FINAL");
    // The table decides, not the settings.
    for installs in [false, true] {
        assert_eq!(filled.reader.complete_from("a", installs).await, Ok(Some(edge)));
    }
    let left = filled.database.run("SELECT toUnixTimestamp64Milli(event_time) FROM {db}.ods_event ORDER BY event_time");
    assert_eq!(left, format!("{edge}\n{}\n", today * DAY_MS));
    // The effect of another program's expression is unknown.
    filled
        .database
        .run("ALTER TABLE {db}.ods_event MODIFY TTL toDateTime(event_time) + toIntervalDay(5) DELETE WHERE code = 'x'");
    assert_eq!(filled.reader.complete_from("a", false).await, Ok(None));
}

#[tokio::test]
async fn values_are_values_whatever_they_hold() {
    let Some(server) = available(ClickHouse::shared()) else { return };
    let filled = Filled::new(server).await;
    let users = ["' OR 1=1 --", "\\N", "a\tb", "\\", "\n", "{x:String}", "\u{0}", "\u{9875}", "%27"];
    for (user, n) in users.iter().zip(1..) {
        let mut event = event(n, 5);
        event["user_id"] = json!(user);
        filled.store(n, &n.to_string(), &[event]).await;
    }
    for user in users {
        let query = EventsQuery { app: "a".into(), user_id: Some(user.into()), limit: 99, ..EventsQuery::default() };
        let found = filled.reader.newest(query).await.unwrap();
        assert_eq!(found.iter().map(|listed| listed.row.event.user_id.as_ref()).collect::<Vec<_>>(), [user]);
    }
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_refused_as_busy() {
    let Some(server) = available(ClickHouse::shared()) else { return };
    let mut filled = Filled::new(server).await;
    // Makes the table slow to read.
    filled.database.run("CREATE VIEW {db}.slow AS SELECT *, sleepEachRow(0.1) AS s FROM {db}.ods_event WHERE s = 0");
    filled.store(1, "t", &(0..100).map(|n| event(n, n as i64)).collect::<Vec<_>>()).await;
    filled.reader.deadline = Duration::from_millis(300);
    filled.reader.table = format!("{}.slow", filled.database.name());
    let query = EventsQuery { app: "a".into(), limit: 5, ..EventsQuery::default() };
    let result = filled.reader.newest(query).await;
    assert!(matches!(result, Err(ReadError::Busy(_))), "{result:?}");
}

#[tokio::test]
async fn a_missing_table_and_a_dead_server_are_failures_that_say_so() {
    let Some(server) = available(ClickHouse::shared()) else { return };
    let database = Database::new(server);
    let reader = ClickHouseReader::new(&database.settings(""), DEADLINE).unwrap();
    let result = reader.time_range("a").await;
    assert!(matches!(&result, Err(ReadError::Failed(why)) if why.contains("does not exist")), "{result:?}");
    let settings = Settings::for_test("url = 'http://127.0.0.1:1'").0;
    let result = ClickHouseReader::new(&settings, DEADLINE).unwrap().time_range("a").await;
    assert!(matches!(result, Err(ReadError::Failed(_))), "{result:?}");
}
