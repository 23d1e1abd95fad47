//! Measures how long `track()` blocks its caller while the driver stores everything on disk and uploads run. Prints one
//! line of JSON.
//!
//! `cargo run --release --package subway-mobile --example bench_track`
//!
//! Calls come at a steady rate that the disk can follow. Rejected calls return sooner and would improve the figures, so
//! a single one fails the run. The network is simulated by a delay and a receipt; the disk is real.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subway_mobile::clock::SystemClock;
use subway_mobile::core::UploadRequest;
use subway_mobile::transport::{Reply, Transport};
use subway_mobile::{Config, Page, Settings, Subway, Theme, TrackEvent};

const WARM_UP: usize = 10_000;
const CALLS: usize = 200_000;
/// Calls per second, in bursts of a millisecond.
const RATE: u64 = 20_000;
/// Single calls, for which the parked driver must be woken: the most expensive ones.
const SINGLE_CALLS: usize = 500;
/// Response time of a collector nearby.
const ROUND_TRIP: Duration = Duration::from_millis(2);

struct Receipts;

impl Transport for Receipts {
    fn send(&self, upload: &UploadRequest) -> Reply {
        std::thread::sleep(ROUND_TRIP);
        let receipt = json!({"batch_id": upload.batch_id.text(), "server_time": 0, "stored": upload.events,
            "duplicate": [], "rejected": []});
        Reply::Answer { status: 200, retry_after_ms: None, body: receipt.to_string() }
    }
}

fn event(number: usize) -> TrackEvent {
    let page = Page { path: "pages/goods/detail".into(), title: "Goods".into(), ..Page::default() };
    TrackEvent::new(Theme::Click, "add_to_cart")
        .with_props(&json!({"sku": number, "name": "a thing of some kind", "price": 12.5, "tags": ["new", "sale"]}))
        .with_page(page)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("subway-bench-{}", std::process::id()));
    let config = Config {
        data_dir: Some(dir.to_string_lossy().into_owned()),
        settings: Settings { queue_rows: 1_000_000, queue_bytes: 1 << 30, batch_events: 1000, ..Settings::default() },
        ..Config::new("http://127.0.0.1:1", "bench")
    };
    let subway = Subway::open_with(&config, Arc::new(Receipts), Arc::new(SystemClock::new()))?;
    let events: Vec<TrackEvent> = (0..WARM_UP + CALLS).map(event).collect();
    let mut nanos = Vec::with_capacity(events.len());
    let start = Instant::now();
    for (number, event) in events.into_iter().enumerate() {
        let before = Instant::now();
        subway.track(event)?;
        nanos.push(before.elapsed().as_nanos() as u64);
        let due = Duration::from_nanos(number as u64 * 1_000_000_000 / RATE);
        if number.is_multiple_of((RATE / 1000) as usize) {
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let mut single = Vec::new();
    for number in 0..SINGLE_CALLS {
        // Everything is persisted, so the driver parks.
        subway.persist_and_wait(Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(3));
        let event = event(number);
        let before = Instant::now();
        subway.track(event)?;
        single.push(before.elapsed().as_nanos() as u64);
    }
    let persisted = subway.persist_and_wait(Duration::from_secs(60));
    let ended = subway.flush_and_wait(Duration::from_secs(120));
    let ledger = subway.ledger();
    subway.close(Duration::ZERO);
    std::fs::remove_dir_all(&dir)?;
    if !(persisted && ended && ledger.balances() && ledger.dropped_total() == 0) {
        return Err(format!("the events did not all arrive: {ledger:?}").into());
    }
    println!("{}", report(&mut nanos[WARM_UP..], seconds, &mut single));
    Ok(())
}

fn report(nanos: &mut [u64], seconds: f64, single: &mut [u64]) -> Value {
    nanos.sort_unstable();
    single.sort_unstable();
    let of = |nanos: &[u64], share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize];
    let at = |share: f64| of(nanos, share);
    json!({
        "calls": nanos.len(),
        "per_second": ((nanos.len() + WARM_UP) as f64 / seconds).round(),
        "p50_ns": at(0.5),
        "p99_ns": at(0.99),
        "p999_ns": at(0.999),
        "max_ns": at(1.0),
        "single_p50_ns": of(single, 0.5),
        "single_p99_ns": of(single, 0.99),
    })
}
