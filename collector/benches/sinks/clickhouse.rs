//! ClickHouse: the sink against a loader of the same rows in the same table, as many an insert.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subway_servers::ClickHouse;

use crate::bulk::Sum;
use crate::collector::{Backlog, Collector};
use crate::{bulk, load};

/// Batches of the backlog; 100 events each.
const BATCHES: usize = 4000;
/// Rows in one insert: the sink's default.
const ROWS: u64 = 100_000;
/// How long to wait for ClickHouse's merges between two measurements.
const MERGES: Duration = Duration::from_secs(60);

/// How often everything is measured, in turns, so that a disturbance meets both sides.
const ROUNDS: usize = 2;
/// What loaders send.
const FORMATS: [&str; 2] = ["RowBinary", "JSONEachRow"];

pub(crate) fn run() -> anyhow::Result<Value> {
    let server = ClickHouse::start()?;
    let events = (BATCHES * load::EVENTS) as u64;
    let backlog = Backlog::fill(&load::bodies(BATCHES), "ch", "clickhouse");
    let sink = format!("[[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"{}\"\n", server.url());
    let (mut sink_sum, mut loaders, mut bodies) = (Sum::default(), [Sum::default(); 2], Vec::new());
    let count =
        || -> anyhow::Result<u64> { Ok(server.query("SELECT count() FROM subway.ods_event FINAL")?.trim().parse()?) };
    for _ in 0..ROUNDS {
        let folder = backlog.copy();
        let collector = Collector::start(folder.path(), &sink);
        collector.drain("ch", events, server.pid(), &mut sink_sum);
        drop(collector);
        anyhow::ensure!(count()? == events, "every event is in the store once");
        if bodies.is_empty() {
            // The very rows that the sink wrote.
            bodies = FORMATS.map(|format| inserts(&server, format, events)).into();
        }
        for ((format, bodies), sum) in FORMATS.iter().zip(&bodies).zip(&mut loaders) {
            empty(&server)?;
            load(&server, format, bodies, sum);
            anyhow::ensure!(count()? == events, "the loader's rows are there");
        }
        empty(&server)?;
    }
    let loaders: serde_json::Map<String, Value> =
        FORMATS.iter().zip(loaders).map(|(format, sum)| ((*format).to_owned(), sum.report())).collect();
    Ok(json!({"events": events, "sink": sink_sum.report(), "loader": loaders}))
}

fn load(server: &ClickHouse, format: &str, bodies: &[(Vec<u8>, u64)], sum: &mut Sum) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let insert = format!("INSERT%20INTO%20subway.ods_event%20FORMAT%20{format}");
    let url = format!("{}/?async_insert=0&query={insert}", server.url());
    bulk::load(bodies, server.pid(), sum, |body| {
        let mut answer = agent.post(&url).send(&body[..]).unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.body_mut().read_to_string().unwrap());
    });
}

/// The bodies that bring every row.
fn inserts(server: &ClickHouse, format: &str, events: u64) -> Vec<(Vec<u8>, u64)> {
    (0..events / ROWS).map(|n| (rows(server, format, n * ROWS), ROWS)).collect()
}

/// One insert's body: the rows after the first `skip`.
fn rows(server: &ClickHouse, format: &str, skip: u64) -> Vec<u8> {
    let sql = format!(
        "SELECT * FROM subway.ods_event FINAL WHERE position > {skip} AND position <= {} ORDER BY position FORMAT {format}",
        skip + ROWS
    );
    let mut answer = ureq::post(server.url()).send(sql.as_bytes()).unwrap();
    answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap()
}

/// Empties the table and waits until ClickHouse has nothing to do.
fn empty(server: &ClickHouse) -> anyhow::Result<()> {
    server.query("TRUNCATE TABLE subway.ods_event")?;
    let began = Instant::now();
    while server.query("SELECT count() FROM system.merges")?.trim() != "0" && began.elapsed() < MERGES {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
