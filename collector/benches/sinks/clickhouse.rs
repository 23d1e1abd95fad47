//! ClickHouse: the sink against a loader of the same rows in the same table, as many an insert.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subway_servers::ClickHouse;

use crate::collector::{Collector, backlog};
use crate::{bulk, load};

/// Batches of the backlog; 100 events each.
const BATCHES: usize = 5000;
/// Rows in one insert: the sink's default.
const ROWS: u64 = 100_000;
/// How long to wait for ClickHouse's merges between two measurements.
const MERGES: Duration = Duration::from_secs(60);

pub(crate) fn run() -> anyhow::Result<Value> {
    let server = ClickHouse::start()?;
    let events = (BATCHES * load::EVENTS) as u64;
    let folder = backlog(&load::bodies(BATCHES), "ch", "clickhouse", "http://127.0.0.1:1");
    let sink = format!("[[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"{}\"\n", server.url());
    let collector = Collector::start(folder.path(), &sink);
    let sink_rate = collector.drain_rate("ch", events);
    let cpu = collector.cpu();
    drop(collector);
    let count: u64 = server.query("SELECT count() FROM subway.ods_event FINAL")?.trim().parse()?;
    assert_eq!(count, events, "every event is in the store once");

    // The very rows that the sink wrote, read back into a table of the same make.
    server.query("CREATE TABLE subway.copy AS subway.ods_event ENGINE = MergeTree ORDER BY position")?;
    server.query("INSERT INTO subway.copy SELECT * FROM subway.ods_event FINAL")?;
    let mut rates = serde_json::Map::new();
    for format in ["RowBinary", "JSONEachRow"] {
        let bodies: Vec<(Vec<u8>, u64)> = (0..events / ROWS).map(|n| (rows(&server, format, n * ROWS), ROWS)).collect();
        quiet(&server)?;
        server.query("TRUNCATE TABLE subway.ods_event")?;
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url =
            format!("{}/?async_insert=0&query=INSERT%20INTO%20subway.ods_event%20FORMAT%20{format}", server.url());
        let rate = bulk::rate(&bodies, |body| {
            let mut answer = agent.post(&url).send(&body[..]).unwrap();
            assert_eq!(answer.status(), 200, "{}", answer.body_mut().read_to_string().unwrap());
        });
        let count: u64 = server.query("SELECT count() FROM subway.ods_event")?.trim().parse()?;
        assert_eq!(count, events);
        rates.insert(format.to_owned(), json!(rate));
    }
    Ok(
        json!({"events": events, "sink_per_second": sink_rate, "collector_cpu_seconds": cpu, "loader_per_second": rates}),
    )
}

/// One insert's body: the rows after the first `skip`.
fn rows(server: &ClickHouse, format: &str, skip: u64) -> Vec<u8> {
    let sql = format!(
        "SELECT * FROM subway.copy WHERE position > {skip} AND position <= {} ORDER BY position FORMAT {format}",
        skip + ROWS
    );
    let mut answer = ureq::post(server.url()).send(sql.as_bytes()).unwrap();
    answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap()
}

/// Waits until ClickHouse has nothing to do.
fn quiet(server: &ClickHouse) -> anyhow::Result<()> {
    let began = Instant::now();
    while server.query("SELECT count() FROM system.merges")?.trim() != "0" && began.elapsed() < MERGES {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
