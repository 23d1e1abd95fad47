//! The dedup index under the spool's own writer: 5,000 IDs a commit, each on disk before the next, with 1, 10 and 100
//! million seen. Prints one JSON object; `cargo xtask bench dedup` makes a table of it.
//!
//! Rates are of the run's own stretches, so that their ratio holds on a noisy machine; beside them the same in CPU
//! seconds of the thread that commits. `SUBWAY_DEDUP_IDS` makes the run shorter.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subway_collector::spool::{Spool, SpoolSettings};
use subway_protocol::Id;

#[path = "../common/ids.rs"]
mod ids;
#[path = "../common/load.rs"]
#[allow(dead_code)]
mod load;

use ids::{GROUP, ordered, random, see};

/// IDs of a stretch that is measured.
const STRETCH: u64 = 1_000_000;
/// Seen IDs at which a stretch begins.
const MARKS: [u64; 4] = [0, 1_000_000, 10_000_000, 100_000_000];
/// Groups looked up again, to see what a duplicate costs.
const AGAIN: u64 = 40;

/// CPU seconds of the thread that commits.
fn writer_cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    stats.filter(|stat| stat.contains("(spool-writer)")).map(|stat| load::cpu_seconds(&stat)).sum()
}

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn disk(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let size = |file: std::fs::DirEntry| match file.metadata() {
        Ok(meta) if meta.is_dir() => disk(&file.path()),
        Ok(meta) => meta.len(),
        // Merged away meanwhile.
        Err(_) => 0,
    };
    files.map(size).sum()
}

/// Runs groups of the IDs `numbers` and gives the times of their commits.
fn run(spool: &Spool, numbers: std::ops::Range<u64>, id: fn(u64) -> Id, new: u64) -> Vec<Duration> {
    let mut times = Vec::new();
    for start in numbers.step_by(GROUP as usize) {
        let ids = (start..start + GROUP).map(id).collect();
        let begin = Instant::now();
        assert_eq!(see(spool, 1, ids), new);
        times.push(begin.elapsed());
    }
    times
}

fn stretch(spool: &Spool, numbers: std::ops::Range<u64>, id: fn(u64) -> Id, new: u64) -> Value {
    let ids = (numbers.end - numbers.start) as f64;
    let cpu = writer_cpu();
    let mut times = run(spool, numbers, id, new);
    let cpu = writer_cpu() - cpu;
    let wall: f64 = times.iter().map(Duration::as_secs_f64).sum();
    times.sort_unstable();
    let millis = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    json!({"ids_per_second": ids / wall, "ids_per_cpu_second": ids / cpu, "p50_ms": millis(0.5), "p99_ms": millis(0.99), "max_ms": millis(1.0)})
}

fn pattern(id: fn(u64) -> Id, max_ids: u64) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), &SpoolSettings::default(), Arc::default()).unwrap();
    let (mut at, mut rows) = (0, Vec::new());
    let mut all = Vec::new();
    for mark in MARKS.into_iter().filter(|mark| *mark <= max_ids) {
        all.extend(run(&spool, at..mark.max(at), id, GROUP));
        at = mark.max(at);
        let mut row = stretch(&spool, at..at + STRETCH, id, GROUP);
        at += STRETCH;
        row["seen"] = mark.into();
        row["rss_bytes"] = rss().into();
        row["disk_bytes_per_id"] = (disk(folder.path()) as f64 / at as f64).into();
        rows.push(row);
    }
    all.sort_unstable();
    let between = all.get(all.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let longest = all.last().map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let again = stretch(&spool, at / 3..at / 3 + AGAIN * GROUP, id, 0);
    spool.close();
    json!({"rows": rows, "between_p99_ms": between, "between_max_ms": longest, "again": again})
}

fn main() {
    let max_ids = std::env::var("SUBWAY_DEDUP_IDS").ok().and_then(|ids| ids.parse().ok()).unwrap_or(u64::MAX);
    println!("{}", json!({"ordered": pattern(ordered, max_ids), "random": pattern(random, max_ids)}));
}
