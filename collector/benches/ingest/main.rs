//! Durable ingest of the real binary over HTTP, against the serial limit: one thread that inflates, parses and commits the
//! same bytes to SQLite and does nothing else. Prints one JSON object; `cargo xtask bench` makes a table of it.
//!
//! Both are measured in one run and in CPU seconds, so that their ratio holds on a noisy machine: events per CPU second of
//! the collector (all its threads, and without the thread that feeds the embedded store) against events per CPU second of
//! the serial loop.
#![allow(clippy::unwrap_used)]

mod collector;
#[path = "../common/http.rs"]
mod http;
#[path = "../common/load.rs"]
mod load;
mod serial;

/// Batches of one round; 100 events each.
const BATCHES: usize = 3_000;
/// Connections that send at once.
const CONNECTIONS: usize = 32;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let bodies = load::bodies(BATCHES);
    let serial = serial::run(&bodies, folder.path());
    let ingest = collector::run(&bodies, folder.path(), CONNECTIONS);
    let events = (BATCHES * load::EVENTS) as f64;
    let report = serde_json::json!({
        "events": events,
        "event_bytes": load::event(123_456, 50).len(),
        "gzip_bytes_per_batch": bodies.iter().map(Vec::len).sum::<usize>() / bodies.len(),
        "serial_per_cpu_second": events / serial.cpu,
        "serial_per_second": events / serial.wall,
        "ingest_per_second": events / ingest.wall,
        "ingest_per_cpu_second": events / ingest.cpu,
        "ingest_path_per_cpu_second": events / (ingest.cpu - ingest.embedded_cpu),
        "commits": ingest.commits,
        "spool_bytes_per_event": ingest.disk[0] as f64 / events,
        "dedup_bytes_per_event": ingest.disk[1] as f64 / events,
        "store_bytes_per_event": ingest.disk[2] as f64 / events,
    });
    println!("{report}");
}
