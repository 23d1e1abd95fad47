//! Measures the cost of retention and of a flood of codes as ratios of one run: `cargo test --release -p
//! subway-collector --lib sqlite::speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::sinks::StoredRecord;

/// Events of one batch, and batches of one delivery.
const EVENTS: u64 = 50;
const BATCHES: u64 = 100;

/// Deliveries of one measurement.
const DELIVERIES: u64 = 60;

/// Returns the `number`th delivery of an app, as clients send it; with `fresh` every code and context is new.
fn delivery(app: &str, number: u64, fresh: bool) -> SinkBatch {
    let first = number * EVENTS * BATCHES + 1;
    let records = (0..BATCHES).map(|batch| {
        let start = first + batch * EVENTS;
        let events: Vec<_> = (start..start + EVENTS)
            .map(|n| {
                let code = if fresh { format!("code {n}") } else { format!("code {}", n % 40) };
                json!({"event_id": format!("0198c0de-0000-7000-8000-{n:012x}"), "seq": n, "theme": "view", "code": code,
                    "event_time": n, "ts": n, "mono": n, "boot": "b7f1", "session_id": format!("0198c0de-0000-7000-8001-{:012x}", n / 20),
                    "page_path": "pages/index", "page_title": "Home", "props": {"k": "v", "n": n}})
            })
            .collect();
        let model = if fresh { format!("model {start}") } else { "model".to_owned() };
        let json = json!({"app_key": app, "batch_id": "b", "install_id": format!("0198c0de-0000-7000-8002-{:012x}", start % 5000),
            "received_at": 1, "context": {"model": model, "os": "iOS"}, "events": events});
        StoredRecord { first: start, json: json.to_string() }
    });
    SinkBatch { first, last: first + EVENTS * BATCHES - 1, dedup_token: String::new(), records: records.collect() }
}

async fn take(sink: &EmbeddedSink, batches: Vec<SinkBatch>) -> Duration {
    let began = Instant::now();
    for batch in batches {
        sink.deliver(Arc::new(batch)).await.unwrap();
    }
    began.elapsed()
}

fn batches(app: &str, numbers: std::ops::Range<u64>, fresh: bool) -> Vec<SinkBatch> {
    numbers.map(|number| delivery(app, number, fresh)).collect()
}

#[tokio::test]
#[ignore = "measures"]
async fn a_store_at_its_limit_takes_almost_as_much_as_one_that_grows() {
    let events = DELIVERIES * EVENTS * BATCHES;
    let (free, limited) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let growing = EmbeddedSink::open(free.path()).unwrap();
    let settings = Embedded { retention_bytes: 24 * 1024 * 1024, ..Embedded::default() };
    let bounded = EmbeddedSink::open_with(limited.path(), &settings, Arc::default()).unwrap();
    let (mut without, mut with) = (Duration::ZERO, Duration::ZERO);
    // Alternates, so that noise of the machine affects both.
    for number in 0..DELIVERIES {
        without += take(&growing, batches("demo", number..number + 1, false)).await;
        with += take(&bounded, batches("demo", number..number + 1, false)).await;
        let began = Instant::now();
        while bounded.run_retention_step_at(1).await.unwrap() {}
        with += began.elapsed();
    }
    let left = crate::db::open_reader(&limited.path().join(FILE), MIGRATIONS).unwrap();
    let deleted: u64 = left.query_row("SELECT sum(deleted_events) FROM app", [], |row| row.get(0)).unwrap();
    println!(
        "{events} events, {deleted} of them deleted: {:.2} of the speed without retention",
        without.as_secs_f64() / with.as_secs_f64()
    );
    assert!(deleted > events / 4);
}

#[tokio::test]
#[ignore = "measures"]
async fn a_flood_of_codes_and_contexts_in_one_app_does_not_slow_another() {
    let settings = Embedded { codes_per_app: 1000, contexts_per_app: 1000, ..Embedded::default() };
    let (quiet, flooded) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alone = EmbeddedSink::open_with(quiet.path(), &settings, Arc::default()).unwrap();
    let beside = EmbeddedSink::open_with(flooded.path(), &settings, Arc::default()).unwrap();
    let (mut without, mut with, mut flood) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for number in 0..DELIVERIES / 2 {
        // The same load, but everything that one app sends is new.
        take(&alone, batches("other", 2 * number..2 * number + 1, false)).await;
        without += take(&alone, batches("demo", 2 * number + 1..2 * number + 2, false)).await;
        flood += take(&beside, batches("other", 2 * number..2 * number + 1, true)).await;
        with += take(&beside, batches("demo", 2 * number + 1..2 * number + 2, false)).await;
    }
    println!(
        "beside a flood: {:.2} of the speed; the flood itself takes {:.2} times as long",
        without.as_secs_f64() / with.as_secs_f64(),
        flood.as_secs_f64() / without.as_secs_f64()
    );
}
