//! The OpenTelemetry Collector doing the same durable job: events over HTTP, a queue on disk that is synchronised
//! before the answer, delivery to ClickHouse. Both feed the same server, one after the other.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use subway_servers::ClickHouse;

use crate::collector::Collector;
use crate::http::{Connection, send_all};
use crate::load::{self, cpu_seconds};
use crate::otlp;

/// Batches; 100 events each.
const BATCHES: usize = 1500;
const CONNECTIONS: usize = 32;
/// Sending, and delivering after it, each end after this time, wherever they are.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn run() -> anyhow::Result<Value> {
    let program = std::env::var("SUBWAY_OTEL").context("no OpenTelemetry Collector is given (SUBWAY_OTEL)")?;
    let server = ClickHouse::start()?;
    let ours = ours(&server)?;
    server.query("DROP DATABASE subway")?;
    let theirs = theirs(&program, &server)?;
    Ok(json!({"events": BATCHES * load::EVENTS, "ours": ours, "theirs": theirs}))
}

/// What one of the two did.
fn report(
    server: &ClickHouse,
    count: &str,
    began: Instant,
    sent: (usize, f64),
    cpu: impl Fn() -> f64,
) -> anyhow::Result<Value> {
    let (events, seconds) = (sent.0 * load::EVENTS, sent.1);
    let end = Instant::now() + LIMIT;
    let mut there = 0;
    while there < events as u64 && Instant::now() < end {
        // The table may not be there yet.
        there = server.query(count).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        std::thread::sleep(Duration::from_millis(50));
    }
    let all = began.elapsed().as_secs_f64();
    Ok(json!({
        "acknowledged": events,
        "acknowledged_per_second": events as f64 / seconds,
        "delivered": there,
        "delivered_per_second": there as f64 / all,
        "delivered_per_cpu_second": there as f64 / cpu(),
    }))
}

fn ours(server: &ClickHouse) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let sink = format!("[[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"{}\"\n", server.url());
    let collector = Collector::start(folder.path(), &sink);
    let bodies = load::bodies(BATCHES);
    let began = Instant::now();
    send_all(&bodies, &collector.address, CONNECTIONS);
    let sent = (BATCHES, began.elapsed().as_secs_f64());
    report(server, "SELECT count() FROM subway.ods_event", began, sent, || collector.cpu())
}

/// Killed on drop.
struct OtelCollector(Child);

impl Drop for OtelCollector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn theirs(program: &str, server: &ClickHouse) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let config = folder.path().join("config.yaml");
    std::fs::create_dir(folder.path().join("queue"))?;
    std::fs::write(&config, settings(&address, &server.url(), &folder.path().join("queue")))?;
    let log = std::fs::File::create(folder.path().join("log"))?;
    let otel = Command::new(program).arg("--config").arg(&config).stdout(Stdio::null()).stderr(log).spawn();
    let otel = OtelCollector(otel.with_context(|| program.to_owned())?);
    let end = Instant::now() + LIMIT;
    while std::net::TcpStream::connect(&address).is_err() {
        anyhow::ensure!(Instant::now() < end, "{}", std::fs::read_to_string(folder.path().join("log"))?);
        std::thread::sleep(Duration::from_millis(50));
    }
    let bodies = otlp::bodies(BATCHES);
    let next = AtomicUsize::new(0);
    let taken = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut connection = Connection::open(&address);
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if began.elapsed() > LIMIT {
                        return;
                    }
                    let headers = "content-type: application/x-protobuf\r\ncontent-encoding: gzip";
                    let answer = connection.post("/v1/logs", headers, body);
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let sent = (taken.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    let stat = format!("/proc/{}/stat", otel.0.id());
    let cpu = || std::fs::read_to_string(&stat).map_or(f64::NAN, |stat| cpu_seconds(&stat));
    report(server, "SELECT count() FROM otel.otel_logs", began, sent, cpu)
}

/// As durable as it can be (`fsync`, the queue before the answer), and as fast as its own documentation knows: large
/// batches, several consumers.
fn settings(address: &str, clickhouse: &str, queue: &Path) -> String {
    format!(
        "extensions:
  file_storage:
    directory: {}
    fsync: true
receivers:
  otlp:
    protocols:
      http:
        endpoint: {address}
exporters:
  clickhouse:
    endpoint: {clickhouse}
    database: otel
    create_schema: true
    async_insert: false
    timeout: 60s
    sending_queue:
      enabled: true
      storage: file_storage
      sizer: items
      queue_size: 100000000
      num_consumers: 4
      block_on_overflow: true
      batch:
        flush_timeout: 1s
        min_size: 10000
        max_size: 100000
    retry_on_failure:
      enabled: true
      max_elapsed_time: 0s
service:
  extensions: [file_storage]
  telemetry:
    logs:
      level: warn
    metrics:
      level: none
  pipelines:
    logs:
      receivers: [otlp]
      exporters: [clickhouse]
",
        queue.display()
    )
}
