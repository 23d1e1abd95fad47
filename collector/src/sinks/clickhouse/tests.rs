use serde_json::{Value, json};
use subway_servers::{ClickHouse as Server, OldClickHouse, available};

use super::test_support::{Database, batch, event};
use super::*;
use crate::record::{self, ColumnKind};
use crate::sinks::conformance;

struct Store(Database);

#[async_trait]
impl conformance::Subject for Store {
    async fn open(&self) -> Box<dyn Sink> {
        Box::new(Opened(self.0.prepared("").await))
    }

    async fn contents(&self) -> Vec<Value> {
        let select: Vec<String> = record::all()
            .map(|column| match (column.name, column.kind) {
                (name, ColumnKind::Time | ColumnKind::NullableTime) => {
                    format!("toUnixTimestamp64Milli(t.{name}) AS {name}")
                }
                (name, _) => name.into(),
            })
            .collect();
        let lines = self.0.run(&format!(
            "SELECT {} FROM {{db}}.ods_event AS t FINAL FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0",
            select.join(", ")
        ));
        let row = |line: &str| serde_json::from_str(line).unwrap();
        lines.lines().map(row).collect()
    }

    fn keeps_order(&self) -> bool {
        false
    }
}

struct Opened(Arc<dyn Sink>);

#[async_trait]
impl Sink for Opened {
    fn name(&self) -> &str {
        self.0.name()
    }
    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        self.0.deliver(batch).await
    }
    async fn health(&self) -> Result<(), SinkError> {
        self.0.health().await
    }
}

fn is_retryable<T: std::fmt::Debug>(result: &Result<T, SinkError>, says: &str) -> bool {
    matches!(result, Err(SinkError::Retryable { message, .. }) if message.contains(says))
}

#[tokio::test]
async fn conforms_as_a_sink() {
    let Some(server) = available(Server::shared()) else { return };
    conformance::run(|| Store(Database::new(server))).await;
}

/// The view sums, so it counts a row twice that it gets twice.
const SUMMING_VIEW: &str = "CREATE MATERIALIZED VIEW {db}.per_code ENGINE = SummingMergeTree ORDER BY code \
    SETTINGS non_replicated_deduplication_window = 100 AS SELECT code, count() AS events FROM {db}.ods_event GROUP BY code";

#[tokio::test]
async fn a_batch_sent_again_doubles_neither_rows_nor_the_sums_behind_them_even_over_a_kill_of_the_server() {
    let Some(server) = available(Server::start()) else { return };
    let server: &'static Server = Box::leak(Box::new(server));
    let database = Database::new(server);
    let sink = database.prepared("").await;
    database.run(SUMMING_VIEW);
    // Two days: two partitions, each a block of its own to the server.
    let events: Vec<_> = (1..=500).map(|n| event(n, 86_400_000 * (n as i64 % 2))).collect();
    let sums = || database.run("SELECT sum(events) FROM {db}.per_code");
    for _ in 0..3 {
        assert_eq!(sink.deliver(batch(1, &events)).await, Ok(Delivered::default()));
    }
    assert_eq!((database.run("SELECT count() FROM {db}.ods_event"), sums()), ("500\n".into(), "500\n".into()));
    server.kill();
    let dead = sink.deliver(batch(1, &events)).await;
    assert!(is_retryable(&dead, ""), "{dead:?}");
    assert!(is_retryable(&sink.health().await, ""));
    server.restart().unwrap();
    assert_eq!(sink.prepare().await, Ok(()));
    assert_eq!(sink.deliver(batch(1, &events)).await, Ok(Delivered::default()));
    assert_eq!((database.run("SELECT count() FROM {db}.ods_event"), sums()), ("500\n".into(), "500\n".into()));
    assert_eq!(sink.deliver(batch(501, &[event(501, 5)])).await, Ok(Delivered::default()));
    assert_eq!((database.delivered(), sums()), (501, "501\n".into()));
    server.kill();
}

#[tokio::test]
async fn halves_of_a_batch_that_was_there_already_collapse() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let sink = database.prepared("").await;
    let events: Vec<_> = (1..=100).map(|n| event(n, 86_400_000 * n as i64 / 20)).collect();
    sink.deliver(batch(1, &events)).await.unwrap();
    sink.deliver(batch(1, &events[..50])).await.unwrap();
    sink.deliver(batch(51, &events[50..])).await.unwrap();
    assert_eq!(database.delivered(), 100);
}

/// A view runs with the settings of the insert that feeds it.
#[tokio::test]
async fn the_settings_that_exactness_rests_on_are_in_force_whatever_the_server_has() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let sink = database.prepared("").await;
    let wanted = [
        ("insert_deduplicate", "true"),
        ("insert_deduplication_token", "id-1-3"),
        ("deduplicate_blocks_in_dependent_materialized_views", "true"),
        ("deduplicate_insert", "enable"),
        ("materialized_views_ignore_errors", "false"),
        ("async_insert", "false"),
        ("optimize_on_insert", "false"),
        ("max_insert_block_size", UNLIMITED_ROWS),
        ("min_insert_block_size_rows", UNLIMITED_ROWS),
        ("min_insert_block_size_bytes", UNLIMITED_BYTES),
        ("max_insert_block_size_bytes", "0"),
        ("use_strict_insert_block_limits", "false"),
        ("max_partitions_per_insert_block", SERVER_MAX_PARTITIONS),
        ("distributed_foreground_insert", "true"),
    ];
    let seen = wanted.map(|(name, _)| format!("toString(getSetting('{name}')) AS {name}")).join(", ");
    database.run(&format!(
        "CREATE MATERIALIZED VIEW {{db}}.seen ENGINE = MergeTree ORDER BY tuple() AS SELECT count() AS events, {seen} FROM {{db}}.ods_event"
    ));
    sink.deliver(batch(1, &[event(1, 1), event(2, 2), event(3, 3)])).await.unwrap();
    let seen: Value = serde_json::from_str(&database.run("SELECT * FROM {db}.seen FORMAT JSONEachRow")).unwrap();
    for (name, value) in wanted {
        assert_eq!(seen[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_row_that_the_table_will_never_take_is_refused_in_the_servers_words_and_nothing_is_stored() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let sink = database.prepared("").await;
    database.run("ALTER TABLE {db}.ods_event ADD CONSTRAINT no_seven CHECK seq != 7");
    let events: Vec<_> = (1..=10).map(|n| event(n, 86_400_000 * n as i64)).collect();
    let refused = sink.deliver(batch(1, &events)).await;
    assert!(matches!(&refused, Err(SinkError::Permanent { message }) if message.contains("no_seven")), "{refused:?}");
    assert_eq!(database.delivered(), 0);
    assert_eq!(sink.deliver(batch(1, &events[..6])).await, Ok(Delivered::default()));
    assert!(matches!(sink.deliver(batch(7, &events[6..7])).await, Err(SinkError::Permanent { .. })));
    assert_eq!(sink.deliver(batch(8, &events[7..])).await, Ok(Delivered::default()));
    assert_eq!(database.delivered(), 9);
}

#[tokio::test]
async fn a_view_that_refuses_a_row_refuses_the_row() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let sink = database.prepared("").await;
    database.run(
        "CREATE MATERIALIZED VIEW {db}.strict ENGINE = MergeTree ORDER BY tuple() AS \
         SELECT throwIf(seq = 2, 'not this one') AS fine FROM {db}.ods_event",
    );
    let refused = sink.deliver(batch(1, &[event(1, 1), event(2, 2)])).await;
    assert!(
        matches!(&refused, Err(SinkError::Permanent { message }) if message.contains("not this one")),
        "{refused:?}"
    );
    assert_eq!(sink.deliver(batch(1, &[event(1, 1)])).await, Ok(Delivered::default()));
    assert_eq!(database.run("SELECT count() FROM {db}.strict"), "1\n");
}

#[tokio::test]
async fn what_the_table_could_not_give_back_is_refused_with_its_position() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let sink = database.prepared("").await;
    let mut odd = event(2, 2);
    odd["event_id"] = json!("00000000-0000-7000-8000-00000000000A");
    for (bad, says) in [(odd, "event_id"), (event(2, -1), "event_time"), (event(2, 253_402_300_800_000), "event_time")]
    {
        let refused = sink.deliver(batch(1, &[event(1, 1), bad])).await;
        let expected = |message: &str| message.contains("position 2") && message.contains(says);
        assert!(matches!(&refused, Err(SinkError::Permanent { message }) if expected(message)), "{refused:?}");
    }
    assert_eq!(database.delivered(), 0);
}

#[tokio::test]
async fn what_refuses_every_row_is_no_refusal_of_a_row() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let one = || batch(1, &[event(1, 1)]);
    let unmade = database.open("");
    assert!(is_retryable(&unmade.deliver(one()).await, "does not exist"));
    assert!(is_retryable(&unmade.health().await, "does not exist"));
    let sink = database.prepared("").await;
    database.run("ALTER TABLE {db}.ods_event MODIFY SETTING table_readonly = 1");
    let result = sink.deliver(one()).await;
    assert!(is_retryable(&result, "read"), "{result:?}");
    let result = sink.health().await;
    assert!(is_retryable(&result, "read"), "{result:?}");
    database.run("ALTER TABLE {db}.ods_event MODIFY SETTING table_readonly = 0");
    assert_eq!(sink.health().await, Ok(()));
    database.run("ALTER TABLE {db}.ods_event RENAME COLUMN boot TO run");
    let result = sink.deliver(one()).await;
    assert!(is_retryable(&result, "boot"), "{result:?}");
    database.run("ALTER TABLE {db}.ods_event RENAME COLUMN run TO boot");
    assert_eq!(sink.deliver(one()).await, Ok(Delivered::default()));
    let stranger = database.open("user = 'nobody'\npassword = 'wrong-password'");
    let result = stranger.deliver(one()).await;
    assert!(is_retryable(&result, ""), "{result:?}");
    assert!(!format!("{result:?}").contains("wrong-password"));
}

#[tokio::test]
async fn words_may_be_as_many_as_events_and_those_beyond_a_dictionary_are_counted() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let metrics = SinkMetrics::default();
    let (settings, delivery) = database.configured("compression = 'none'");
    let sink = open("ch", &settings, &delivery, metrics.clone()).unwrap();
    assert_eq!(sink.prepare().await, Ok(()));
    // The last batch has more texts than a block's dictionary, and each of them twice.
    for (first, count, words) in [(1u64, 200u64, 200), (1001, 900, 900), (10_001, 70_000, 35_000)] {
        let events: Vec<_> = (first..first + count)
            .map(|n| {
                let mut event = event(n, 86_400_000 * (n % 50) as i64);
                event["code"] = json!(format!("code{}", n % words));
                event
            })
            .collect();
        let batch = batch(first, &events);
        assert_eq!(sink.batch_end(&batch), Ok(batch.last));
        assert_eq!(sink.deliver(batch).await, Ok(Delivered::default()));
        let found = database.run(&format!(
            "SELECT count(), uniqExact(code), countIf(code = concat('code', toString(seq % {words}))) FROM {{db}}.ods_event FINAL WHERE seq >= {first}"
        ));
        assert_eq!(found, format!("{count}\t{words}\t{count}\n"));
    }
    assert_eq!(metrics.overflow_words.get(), 70_000 - 2 * 999, "the empty word is known too");
    // The column keeps its type in the part, whatever its dictionary had no room for.
    let parts = "SELECT count() FROM system.parts_columns WHERE database = '{db}' AND table = 'ods_event' AND column = 'code' \
        AND active AND type = 'LowCardinality(String)'";
    assert_ne!(database.run(parts), "0\n");
}

#[tokio::test]
async fn a_server_that_is_too_old_is_unfit_and_told_both_versions() {
    let Some(server) = available(OldClickHouse::start()) else { return };
    let (settings, delivery) = Settings::for_test(&format!("url = '{}'", server.url()));
    let sink = open("ch", &settings, &delivery, SinkMetrics::default()).unwrap();
    for _ in 0..2 {
        let unfit = sink.prepare().await;
        let says = |message: &str| message.contains("18.16") && message.contains("24.8");
        assert!(matches!(&unfit, Err(SinkError::Misconfigured { message }) if says(message)), "{unfit:?}");
    }
    let unfit = apply(&settings, &delivery).await;
    assert!(matches!(unfit, Err(SinkError::Misconfigured { .. })), "{unfit:?}");
}
