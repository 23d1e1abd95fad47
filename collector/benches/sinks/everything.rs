//! All sinks at once: what they cost ingest, and how far each is behind.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subway_servers::{ClickHouse, Elasticsearch, Kafka};

use crate::collector::{Collector, LOOK, positions};
use crate::http::{Connection, send_all};
use crate::load;

/// Batches of one round at full speed; 100 events each.
const BATCHES: usize = 1500;
/// Rounds; those with all sinks, which take longest, only twice.
const ROUNDS: usize = 4;
/// Connections at full speed.
const CONNECTIONS: usize = 32;
/// Events per second while the lag is measured: what two cores bear with all servers on them.
const PACE: usize = 2000;
/// How long the lag is measured.
const SECONDS: usize = 30;

pub(crate) fn run() -> anyhow::Result<Value> {
    let (clickhouse, elasticsearch, kafka) = (ClickHouse::start()?, Elasticsearch::start()?, Kafka::start()?);
    let sinks = format!(
        "[[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"{}\"\n[[sink]]\nname = \"es\"\nkind = \"elasticsearch\"\nurl = \"{}\"\n\
         [[sink]]\nname = \"kafka\"\nkind = \"kafka\"\nurl = \"{}\"\n",
        clickhouse.url(),
        elasticsearch.url(),
        kafka.bootstrap()
    );
    let dead = "[[sink]]\nname = \"dead\"\nkind = \"clickhouse\"\nurl = \"http://127.0.0.1:1\"\n";
    let bodies = load::bodies(BATCHES);
    // Several times, every second time the other way round, so that neither profits from coming first.
    let mut rounds = [("embedded", ""), ("dead", dead), ("all", &sinks)];
    let mut rates: Vec<(&str, Speed)> = Vec::new();
    for round in 0..ROUNDS {
        for (name, sinks) in &rounds {
            if *name == "all" && round > 1 {
                continue;
            }
            let names: &[&str] = if *name == "all" { &["embedded", "ch", "es", "kafka"] } else { &["embedded"] };
            rates.push((name, full_speed(&bodies, sinks, names)));
            clickhouse.query("DROP DATABASE IF EXISTS subway")?;
            let _ = elasticsearch.delete("/subway-*")?;
        }
        rounds.reverse();
    }
    let mean = |name: &str, figure: fn(&Speed) -> f64| {
        let of: Vec<f64> = rates.iter().filter(|(other, _)| *other == name).map(|(_, speed)| figure(speed)).collect();
        of.iter().sum::<f64>() / of.len() as f64
    };
    let speed = |name: &str| json!({"per_second": mean(name, |s| s.per_second), "per_cpu_second": mean(name, |s| s.per_cpu_second)});
    Ok(json!({
        "events": BATCHES * load::EVENTS,
        "ingest": {"embedded": speed("embedded"), "dead": speed("dead"), "all": speed("all")},
        "drained_seconds": mean("all", |s| s.drained),
        "pace": PACE,
        "lag_ms": lag(&sinks),
    }))
}

struct Speed {
    /// Events per second up to the last receipt.
    per_second: f64,
    /// Events per second of the collector's CPU time, with all deliveries.
    per_cpu_second: f64,
    /// Seconds from the last receipt until every sink has everything.
    drained: f64,
}

/// Sends everything as fast as it is taken.
fn full_speed(bodies: &[Vec<u8>], sinks: &str, names: &[&str]) -> Speed {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path(), sinks);
    let events = (bodies.len() * load::EVENTS) as u64;
    let (first, bodies) = bodies.split_first().unwrap();
    Connection::open(&collector.address).send(first);
    if sinks.contains("\"dead\"") {
        // Dead for long, not just dying: its worker does no more than to ask from time to time.
        collector.wait_until_down("dead");
    }
    collector.wait_for("embedded", load::EVENTS as u64);
    let before = collector.cpu();
    let began = Instant::now();
    send_all(bodies, &collector.address, CONNECTIONS);
    let (wall, sent) = (began.elapsed().as_secs_f64(), (bodies.len() * load::EVENTS) as f64);
    let began = Instant::now();
    for name in names {
        collector.wait_for(name, events);
    }
    let drained = began.elapsed().as_secs_f64();
    let cpu = collector.cpu() - before;
    Speed { per_second: sent / wall, per_cpu_second: sent / cpu, drained }
}

/// Sends at a steady pace. For each sink: how long after the receipt of an event the sink was past it, milliseconds.
fn lag(sinks: &str) -> Value {
    const NAMES: [&str; 4] = ["embedded", "ch", "es", "kafka"];
    let bodies = load::bodies(PACE * SECONDS / load::EVENTS);
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path(), sinks);
    let (began, done) = (Instant::now(), AtomicBool::new(false));
    let acknowledged = AtomicU64::new(0);
    // How many events were acknowledged when, and how far each sink was when.
    let (mut receipts, mut looks) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen: Vec<(Duration, [u64; 4])> = Vec::new();
            loop {
                let at = positions(&collector.address, NAMES);
                seen.push((began.elapsed(), at));
                let all = acknowledged.load(Ordering::Relaxed);
                let late = began.elapsed() > Duration::from_secs(SECONDS as u64 + 120);
                if late || done.load(Ordering::Relaxed) && at.iter().all(|at| *at >= all) {
                    return seen;
                }
                std::thread::sleep(LOOK);
            }
        });
        let mut connection = Connection::open(&collector.address);
        let pause = Duration::from_secs_f64(load::EVENTS as f64 / PACE as f64);
        for (n, body) in bodies.iter().enumerate() {
            std::thread::sleep((pause * n as u32).saturating_sub(began.elapsed()));
            connection.send(body);
            let count = ((n + 1) * load::EVENTS) as u64;
            acknowledged.store(count, Ordering::Relaxed);
            receipts.push((began.elapsed(), count));
        }
        done.store(true, Ordering::Relaxed);
        looks = watcher.join().unwrap();
    });
    let mut report = serde_json::Map::new();
    for (at, name) in NAMES.iter().enumerate() {
        let lags = receipts.iter().map(|(time, count)| {
            let passed = looks.iter().find(|(_, positions)| positions[at] >= *count);
            passed.map_or(f64::INFINITY, |(when, _)| when.saturating_sub(*time).as_secs_f64() * 1000.0)
        });
        let mut lags: Vec<f64> = lags.collect();
        lags.sort_by(f64::total_cmp);
        let percentile = |part: f64| lags[((lags.len() - 1) as f64 * part) as usize];
        report.insert((*name).to_owned(), json!({"p50": percentile(0.5), "p99": percentile(0.99)}));
    }
    Value::Object(report)
}
