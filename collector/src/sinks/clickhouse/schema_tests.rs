use subway_servers::{ClickHouse as Server, available};

use super::test_support::{Database, batch, event};
use super::*;

const DAY: i64 = 86_400_000;

fn unfolded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn applying_the_schema_twice_does_nothing_the_second_time_and_two_may_apply_it_at_once() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let (settings, delivery) = database.configured("ttl_days = 30\nprops_json = true");
    let (one, other) = tokio::join!(apply(&settings, &delivery), apply(&settings, &delivery));
    assert!(one.unwrap().len() + other.unwrap().len() >= 4);
    assert_eq!(apply(&settings, &delivery).await, Ok(Vec::new()));
    let [.., (latest, ..)] = schema::MIGRATIONS;
    let version = database.run("SELECT max(version) FROM {db}.schema_version WHERE object = 'ods_event'");
    assert_eq!(version, format!("{latest}\n"));
    let views = database
        .run("SELECT count() FROM system.tables WHERE database = '{db}' AND engine = 'View' AND name LIKE 'dwd\\_%'");
    assert_eq!(views, format!("{}\n", subway_protocol::Theme::ALL.len()));
    let table = database.run("SELECT engine_full FROM system.tables WHERE database = '{db}' AND name = 'ods_event'");
    for part in [
        "ReplacingMergeTree(received_at)",
        "toYYYYMM(event_time), toYear(event_time))",
        "ORDER BY (app_key, event_time, event_id)",
        "+ toIntervalDay(30)",
        "non_replicated_deduplication_window = 10000",
        "fsync_after_insert = 1",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[tokio::test]
async fn a_database_of_an_older_collector_is_migrated_and_keeps_its_rows() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let (settings, delivery) = database.configured("");
    let [(version, _, first), ..] = schema::MIGRATIONS;
    for statement in schema::version_table(&settings).iter().chain(&schema::render(first, &settings)) {
        database.run(statement);
    }
    database.run("ALTER TABLE {db}.ods_event DROP COLUMN time_source, DROP COLUMN unverified");
    database.run(&schema::record_version(&settings, version));
    database.run(
        "INSERT INTO {db}.ods_event (app_key, event_time, event_id, theme, code) \
        VALUES ('a', 5, '0198c0de-0000-7000-8000-000000000001', 'view', 'c')",
    );
    let done = apply(&settings, &delivery).await.unwrap();
    let later = schema::MIGRATIONS.iter().skip(1);
    let steps =
        later.map(|(version, name, _)| format!("migration {version} ({name}) of {}.ods_event", database.name()));
    assert_eq!(done, steps.collect::<Vec<_>>());
    assert_eq!(database.run("SELECT time_source, unverified FROM {db}.ods_event"), "\tfalse\n");
    assert_eq!(database.run("SELECT count() FROM {db}.dwd_view"), "1\n");
}

#[tokio::test]
async fn a_table_that_is_gone_is_made_again_only_when_somebody_asks_for_it() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let sink = database.prepared("").await;
    database.run("DROP TABLE {db}.ods_event SYNC");
    assert!(sink.health().await.is_err());
    assert!(
        matches!(sink.prepare().await, Err(SinkError::Retryable { message, .. }) if message.contains("schema apply"))
    );
    let (settings, delivery) = database.configured("");
    assert!(!apply(&settings, &delivery).await.unwrap().is_empty());
    assert_eq!(sink.prepare().await, Ok(()));
    assert_eq!(sink.deliver(batch(1, &[event(1, 1)])).await, Ok(Delivered::default()));
    assert_eq!(database.delivered(), 1);
}

#[tokio::test]
async fn a_sink_that_may_not_manage_the_schema_changes_nothing_and_says_what_is_missing() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let sink = database.open("manage_schema = false");
    let says = |result: Result<(), SinkError>, what: &str| {
        assert!(matches!(&result, Err(SinkError::Retryable { message, .. }) if message.contains(what)), "{result:?}");
    };
    says(sink.prepare().await, "schema apply");
    assert_eq!(database.run("SELECT count() FROM system.databases WHERE name = '{db}'"), "0\n");
    let (settings, delivery) = database.configured("manage_schema = false");
    assert!(!apply(&settings, &delivery).await.unwrap().is_empty());
    assert_eq!(sink.prepare().await, Ok(()));
    database.run("ALTER TABLE {db}.ods_event DROP COLUMN boot");
    says(sink.prepare().await, "boot");
}

#[tokio::test]
async fn events_of_any_time_stay_for_their_time_to_live_and_no_longer() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let today = crate::clock::now() / DAY * DAY;
    // Far beyond what the seconds of a time to live can count.
    let kept = [today - 5 * DAY, today, 4_294_967_295_999, 4_294_967_296_000, 10_413_792_000_000, 253_402_300_799_999];
    let events: Vec<_> = [today - 40 * DAY, 0].iter().chain(&kept).zip(1..).map(|(time, n)| event(n, *time)).collect();
    let sink = database.prepared("ttl_days = 30").await;
    sink.deliver(batch(1, &events)).await.unwrap();
    database.run("OPTIMIZE TABLE {db}.ods_event FINAL");
    let left = database.run("SELECT toUnixTimestamp64Milli(event_time) AS t FROM {db}.ods_event ORDER BY t");
    assert_eq!(left.lines().map(|line| line.parse::<i64>().unwrap()).collect::<Vec<_>>(), kept);
    // Another value changes the existing table, 0 removes it, and no value leaves it alone.
    let ttl = || {
        database.run("SELECT extract(engine_full, 'toIntervalDay\\\\((\\\\d+)\\\\)') FROM system.tables WHERE database = '{db}' AND name = 'ods_event'")
    };
    for (keys, days) in [("ttl_days = 20000", "20000\n"), ("", "20000\n"), ("ttl_days = 0", "\n")] {
        database.prepared(keys).await;
        assert_eq!(ttl(), days);
    }
}

#[tokio::test]
async fn properties_can_be_asked_for_as_text_in_the_views_and_as_json() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let sink = database.prepared("props_json = true").await;
    let mut request = event(1, 5);
    request["theme"] = "network".into();
    request["props"] = serde_json::json!({"method": "GET", "status": 404, "cart": {"items": [1, 2]}});
    let mut click = event(2, 5);
    click["theme"] = "click".into();
    click["props"] = serde_json::json!({"element_id": "buy", "dataset": {"a": 1}});
    sink.deliver(batch(1, &[request, click])).await.unwrap();
    let found =
        database.run("SELECT method, status, bytes, JSONExtractInt(props, 'cart', 'items', 2) FROM {db}.dwd_network");
    assert_eq!(found, "GET\t404\t\\N\t2\n");
    assert_eq!(database.run("SELECT element_id, dataset FROM {db}.dwd_click"), "buy\t{\"a\":1}\n");
    assert_eq!(
        database.run("SELECT props_json.status, props_json.cart.items FROM {db}.ods_event WHERE theme = 'network'"),
        "404\t[1,2]\n"
    );
    // The same name twice is no reason to refuse an event.
    let mut twice = crate::sinks::SinkBatch::clone(&batch(3, &[event(3, 5)]));
    twice.records[0].json = twice.records[0].json.replace("{\"n\":3}", "{\"n\":3,\"n\":4,\"a\":{\"b\":1},\"a.b\":2}");
    assert!(twice.records[0].json.contains("a.b"));
    assert_eq!(sink.deliver(Arc::new(twice)).await, Ok(Delivered::default()));
    for theme in subway_protocol::Theme::ALL {
        database.run(&format!("SELECT * FROM {{db}}.dwd_{} FORMAT Null", theme.as_str()));
    }
}

/// No function of the server reads a text with a lone surrogate or 1e999 in it.
#[tokio::test]
async fn what_stands_beside_a_property_that_no_type_holds_is_read() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let sink = database.prepared("props_json = true").await;
    let props = [
        r#"{"\ud800":1,"element_id":"buy","amount":1.5,"currency":"CNY"}"#,
        r#"{"x":"\\ud800\udfff\\\ud83d\ude00\ud83d","element_id":"buy","amount":1.5,"currency":"CNY"}"#,
        r#"{"x":[1e999,-1E+400,0.12345678901234567890123],"element_id":"buy","amount":1.5,"currency":"CNY"}"#,
        r#"{"x":18446744073709551617,"y":-9223372036854775809,"element_id":"buy","amount":1.5,"currency":"CNY"}"#,
        r#"{ "x" : {"element_id":"no","n":12345678901234567890.5e7}, "element_id" : "buy", "amount" : 15e-1, "currency":"CNY"}"#,
        r#"{"n":9007199254740993,"element_id":"buy","amount":1.5,"currency":"CNY"}"#,
    ];
    let mut id = 0;
    for theme in ["click", "order"] {
        let events: Vec<String> = props
            .iter()
            .chain([&r#"{"element_id":"b\ud800uy","amount":1e999,"currency":"CN\udfffY"}"#])
            .map(|props| {
                id += 1;
                let mut event = event(id, 5);
                event.as_object_mut().unwrap().remove("props");
                event["theme"] = theme.into();
                crate::sinks::conformance::edge::with_props(&event, props)
            })
            .collect();
        let (count, first) = (events.len() as u64, id + 1 - events.len() as u64);
        let json = format!(
            r#"{{"app_key":"a","batch_id":"b","install_id":"i","received_at":9,"events":[{}]}}"#,
            events.join(",")
        );
        let records = vec![crate::sinks::StoredRecord { first, json }];
        let batch = SinkBatch { first, last: first + count - 1, dedup_token: theme.into(), records };
        assert_eq!(sink.deliver(Arc::new(batch)).await, Ok(Delivered::default()));
    }
    assert_eq!(database.run("SELECT DISTINCT element_id FROM {db}.dwd_click"), "buy\n");
    let orders = database.run("SELECT amount, currency, count() FROM {db}.dwd_order GROUP BY ALL ORDER BY amount");
    assert_eq!(orders, "1.5\tCNY\t6\n\\N\tCNY\t1\n");
    let typed = database.run("SELECT DISTINCT props_json.element_id::String FROM {db}.ods_event");
    assert_eq!(typed, "buy\n");
    // The text itself is what was sent.
    let kept =
        database.run("SELECT DISTINCT props FROM {db}.ods_event WHERE theme = 'click' ORDER BY position FORMAT TSVRaw");
    assert_eq!(kept.lines().take(props.len()).collect::<Vec<_>>(), props);
}

#[tokio::test]
async fn a_column_of_type_json_that_an_older_collector_made_reads_everything_too() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    database.prepared("").await;
    database.run("ALTER TABLE {db}.ods_event ADD COLUMN props_json JSON(max_dynamic_paths = 256) MATERIALIZED props");
    let (settings, delivery) = database.configured("props_json = true");
    assert_eq!(apply(&settings, &delivery).await, Ok(vec!["column props_json".to_owned()]));
    assert_eq!(apply(&settings, &delivery).await, Ok(Vec::new()));
    let mut event = event(1, 5);
    event["props"] = serde_json::json!({"big": 1});
    let mut beyond = SinkBatch::clone(&batch(1, &[event]));
    beyond.records[0].json = beyond.records[0].json.replace("{\"big\":1}", "{\"big\":1e999}");
    assert_eq!(database.open("").deliver(Arc::new(beyond)).await, Ok(Delivered::default()));
    assert_eq!(database.run("SELECT props_json.big FROM {db}.ods_event"), "1e999\n");
}

#[tokio::test]
async fn what_is_printed_for_a_cluster_is_what_the_server_can_read() {
    let Some(server) = available(Server::shared()) else { return };
    let database = Database::new(server);
    let keys = "cluster = 'main'\nreplicated = true\ninsert_quorum = 2\nttl_days = 90\nprops_json = true";
    let script = unfolded(&schema(&database.settings(keys)));
    for part in [
        "ON CLUSTER 'main'",
        "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', received_at)",
        "ENGINE = Distributed('main',",
        "ods_event_local ON CLUSTER",
        "replicated_deduplication_window_seconds = 2592000",
    ] {
        assert!(script.contains(part), "{part}: {script}");
    }
    for statement in schema(&database.settings(keys)).split(";\n").filter(|statement| !statement.trim().is_empty()) {
        database.run(&format!("EXPLAIN AST {statement}"));
    }
    // Without ON CLUSTER the server checks the whole definition before it misses its Keeper.
    let settings =
        database.settings("replicated = true\nzookeeper_path = '/tables/{database}/{table}'\nreplica_name = 'one'");
    let statements: Vec<String> =
        [schema::version_table(&settings), schema::render(schema::MIGRATIONS[0].2, &settings)].concat();
    database.run(&statements[0]);
    let answer = server.post("", statements[2].as_bytes()).unwrap();
    assert!(answer.body.contains("eeper"), "{}", answer.body);
}

#[test]
fn a_script_without_options_has_nothing_of_them() {
    let script = schema(&Settings::for_test("url = 'http://x'").0);
    for absent in ["CLUSTER", "Replicated", "Distributed", "TTL", "props_json", "{{"] {
        assert!(!script.contains(absent), "{absent}");
    }
    assert!(script.contains("CREATE TABLE IF NOT EXISTS subway.ods_event\n"));
}
