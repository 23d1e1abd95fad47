//! Measures rows per second beside a plain loader on the same server. By hand, as a release: `cargo test --release -p
//! subway-collector --lib clickhouse_speed -- --ignored --nocapture`.

use std::time::Instant;

use serde_json::{Value, json};
use subway_servers::{ClickHouse as Server, available};

use super::test_support::Database;
use super::*;
use crate::sinks::StoredRecord;

/// Rows of one batch, and number of batches.
const ROWS: u64 = 100_000;
const BATCHES: u64 = 5;

/// Returns the CPU seconds that a process has used; 0 where the system does not say.
fn processor_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or_default().split(' ').filter_map(|field| field.parse().ok()).collect();
    // After the name and the state's letter: fields 14 and 15 of proc(5), in hundredths.
    fields.get(10..12).map_or(0.0, |times| times.iter().sum::<f64>() / 100.0)
}

/// Stopwatch for wall and CPU time.
struct Watch<'a> {
    server: &'a Server,
    began: Instant,
    processor: f64,
}

impl<'a> Watch<'a> {
    fn processor(server: &Server) -> f64 {
        let server = server.pid().map(|pid| processor_seconds(&pid.to_string())).unwrap_or_default();
        processor_seconds("self") + server
    }

    fn start(server: &'a Server) -> Self {
        Self { server, began: Instant::now(), processor: Self::processor(server) }
    }

    fn stop(self, what: &str) {
        let rows = (ROWS * BATCHES) as f64;
        let processor = Self::processor(self.server) - self.processor;
        eprintln!(
            "{what}: {:.0} rows/s, {:.0} rows per second of processor",
            rows / self.began.elapsed().as_secs_f64(),
            rows / processor
        );
    }
}

fn record(first: u64) -> StoredRecord {
    let events: Vec<Value> = (first..first + 50)
            .map(|n| {
                let time = 1_795_000_000_000 + n as i64 * 5;
                json!({"event_time": time, "event_id": format!("0198c0de-0001-7000-8000-{:012x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16),
                    "seq": n, "theme": "view", "code": "page_view", "ts": time, "mono": n * 7, "boot": "b7f1", "user_id": format!("user {}", n % 700),
                    "session_id": format!("0198c0de-0002-7000-8000-{:012x}", n % 2000), "session_index": 3, "session_event": n % 100,
                    "page_path": format!("pages/{}", n % 30), "page_title": "Home", "page_referrer": "pages/list", "page_enter_ts": time,
                    "props": {"n": n, "button": "buy now", "price": n % 9973, "list": [1, 2, 3]}})
            })
            .collect();
    let json = json!({"app_key": "demo", "batch_id": format!("0198c0de-0003-7000-8000-{first:012x}"),
            "install_id": format!("0198c0de-0004-7000-8000-{:012x}", first % 1000), "received_at": 1_795_000_000_000_i64,
            "context": {"app_version": "1.2.0", "sdk_name": "subway-miniprogram", "sdk_version": "0.1.0", "platform": "jd", "host_app": "jdapp",
                "host_version": "13.0", "os": "iOS", "os_version": "17.1", "brand": "Apple", "model": format!("iPhone{}", first % 20),
                "screen": "390x844", "language": "zh-CN", "timezone": "Asia/Shanghai", "network": "wifi"},
            "common": {"channel": "qr"}, "events": events});
    StoredRecord { first, json: json.to_string() }
}

fn batches() -> Vec<Arc<SinkBatch>> {
    let batch = |at: u64| {
        let first = 1 + at * ROWS;
        let records = (0..ROWS / 50).map(|n| record(first + n * 50)).collect();
        Arc::new(SinkBatch { first, last: first + ROWS - 1, dedup_token: format!("t{at}"), records })
    };
    (0..BATCHES).map(batch).collect()
}

/// Inserts the same rows in the format and with the settings of plain loaders.
async fn plain_loader(server: &Server, database: &Database, settings: &Settings, batches: &[Arc<SinkBatch>]) {
    let (names, client) = (column_names(), Client::new(settings, Duration::from_secs(60)).unwrap());
    let mut prepared = Vec::new();
    for batch in batches {
        let (name, first, last) = (database.name(), batch.first, batch.last);
        let query =
            format!("SELECT {names} FROM {name}.ods_event WHERE position BETWEEN {first} AND {last} FORMAT RowBinary");
        prepared.push(client.run(&query, UrlParameters::default()).await.unwrap());
    }
    database.run("CREATE TABLE {db}.plain AS {db}.ods_event");
    let watch = Watch::start(server);
    for body in &prepared {
        let query = format!("INSERT INTO {}.plain ({names}) FORMAT RowBinary", database.name()).replace(' ', "%20");
        assert_eq!(server.post(&format!("async_insert=0&query={query}"), body).unwrap().status, 200);
    }
    watch.stop("plain loader, RowBinary");
}

#[tokio::test]
#[ignore = "measures, and says nothing about right and wrong"]
async fn clickhouse_speed() {
    let Some(server) = available(Server::start()) else { return };
    let server: &'static Server = Box::leak(Box::new(server));
    let batches = batches();
    let watch = Watch::start(server);
    assert!(batches.iter().all(|batch| partitions::batch_end(batch, PartitionScheme::Months) == Ok(batch.last)));
    watch.stop("cut");
    for compression in ["none", "lz4", "none", "lz4"] {
        let database = Database::new(server);
        let keys = format!("compression = '{compression}'");
        let (sink, settings) = (database.prepared(&keys).await, database.settings(&keys));
        let watch = Watch::start(server);
        let bytes: usize =
            batches.iter().map(|batch| encode::encode(batch, settings.compression).unwrap().body.len()).sum();
        watch.stop(&format!("{compression}: encode to {} bytes a row", bytes as u64 / (ROWS * BATCHES)));
        let watch = Watch::start(server);
        for batch in &batches {
            sink.deliver(Arc::clone(batch)).await.unwrap();
        }
        watch.stop(&format!("{compression}: encode and insert"));
        assert_eq!(database.delivered(), ROWS * BATCHES);
        plain_loader(server, &database, &settings, &batches).await;
    }
    server.kill();
}
