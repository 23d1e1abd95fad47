//! Durable ingest of the real binary over HTTP, against the serial limit: one thread that inflates, parses and commits
//! the same bytes to SQLite and does nothing else. Prints one JSON object; `cargo xtask bench` makes a table of it.
//!
//! Both are measured in one run and in CPU seconds, so that their ratio holds on a noisy machine: events per CPU second
//! of the collector (all its threads, and without the thread that feeds the embedded store) against events per CPU
//! second of the serial loop. `SUBWAY_SEEN_IDS`: how many random IDs the app has sent before.
#![allow(clippy::unwrap_used)]

mod collector;
#[path = "../common/http.rs"]
mod http;
#[path = "../common/ids.rs"]
#[allow(dead_code)]
mod ids;
#[path = "../common/load.rs"]
mod load;
mod serial;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use subway_collector::spool::{Spool, SpoolSettings};

/// Batches of one round; 100 events each.
const BATCHES: usize = 3_000;
/// Connections that send at once.
const CONNECTIONS: usize = 32;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let bodies = load::bodies(BATCHES);
    let seen = std::env::var("SUBWAY_SEEN_IDS").ok().and_then(|ids| ids.parse().ok()).unwrap_or(0);
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    fill(&data, seen);
    let serial = serial::run(&bodies, folder.path());
    let ingest = collector::run(&bodies, folder.path(), CONNECTIONS);
    let events = (BATCHES * load::EVENTS) as f64;
    let report = serde_json::json!({
        "events": events,
        "seen_ids": seen,
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

/// Lets the app have sent `seen` random IDs.
fn fill(data: &Path, seen: u64) {
    let spool = Spool::open(data, &SpoolSettings::default(), Arc::default()).unwrap();
    let app = spool.app_numbers(vec!["demo".into()]).unwrap()["demo"];
    for start in (0..seen).step_by(ids::GROUP as usize) {
        let new = ids::see(&spool, app, (start..start + ids::GROUP).map(ids::random).collect());
        assert_eq!(new, ids::GROUP);
    }
    if seen > 0 {
        settle(&spool, app, &data.join("dedup"));
    }
    spool.close();
}

/// Waits until the parts of the dedup index are merged: no file of its folder has changed for two seconds. The thread
/// that commits takes up a merge with the next commit, hence the empty ones.
fn settle(spool: &Spool, app: i64, folder: &Path) {
    let files = || {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap());
        let size = |file: std::fs::DirEntry| (file.file_name(), file.metadata().map_or(0, |meta| meta.len()));
        files.map(size).collect::<BTreeSet<_>>()
    };
    let (mut before, mut since) = (files(), Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(50));
        ids::see(spool, app, Vec::new());
        let now = files();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}
