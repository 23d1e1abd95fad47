//! Real stores behind proxies that inject faults, and collectors in front of them.

use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subway_servers::{ClickHouse, Elastic, Elasticsearch, Kafka, Proxy, available};

use super::support::{ADMIN, Collector, CollectorFixture, READ, agent, gzip, id, try_post};

/// How long anything may take before a test gives up: a store that was killed has to start again.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(150);

/// The stores of this test process. Tests take turns, because a store that one kills is missing for the others.
pub(crate) struct Stores {
    pub(crate) clickhouse: ClickHouse,
    pub(crate) elastic: Elastic,
    pub(crate) kafka: Kafka,
}

impl Stores {
    fn start() -> anyhow::Result<Self> {
        std::thread::scope(|scope| {
            let elastic = scope.spawn(Elasticsearch::start);
            let kafka = scope.spawn(Kafka::start);
            let clickhouse = ClickHouse::start()?;
            let joined = "a store's thread ended";
            Ok(Self {
                clickhouse,
                elastic: elastic.join().map_err(|_| anyhow::anyhow!(joined))??,
                kafka: kafka.join().map_err(|_| anyhow::anyhow!(joined))??,
            })
        })
    }
}

/// The stores, for one test alone.
pub(crate) fn stores() -> Option<MutexGuard<'static, Stores>> {
    static STORES: OnceLock<Result<Mutex<Stores>, String>> = OnceLock::new();
    let stores = STORES.get_or_init(|| Stores::start().map(Mutex::new).map_err(|error| format!("{error:#}")));
    let stores = available(stores.as_ref().map_err(|error| anyhow::anyhow!("{error}")))?;
    Some(stores.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A message, of which the properties may hold numbers that no type here takes.
#[derive(serde::Deserialize)]
struct Message {
    event_id: String,
}

/// A site whose collector writes to all stores, each under names of its own; ClickHouse and Elasticsearch through
/// proxies.
pub(crate) struct StoresFixture<'a> {
    pub(crate) stores: &'a Stores,
    pub(crate) name: String,
    pub(crate) site: CollectorFixture,
    pub(crate) ch: Proxy,
    pub(crate) es: Proxy,
    pub(crate) listen: String,
    pub(crate) collector: Option<Collector>,
}

fn host(url: &str) -> &str {
    url.strip_prefix("http://").unwrap_or(url)
}

impl<'a> StoresFixture<'a> {
    /// `more` goes to the end of the configuration, `every` into each sink.
    pub(crate) fn new(stores: &'a Stores, name: &str, every: &str, more: &str) -> Self {
        let ch = Proxy::to(host(&stores.clickhouse.url())).unwrap();
        let es = Proxy::to(host(&stores.elastic.url())).unwrap();
        let name = format!("{name}_{}", std::process::id());
        let sinks = format!(
            "[[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"{}\"\ndatabase = \"{name}\"\n{every}\n\
             [[sink]]\nname = \"es\"\nkind = \"elasticsearch\"\nurl = \"{}\"\nindex_prefix = \"{name}\"\n{every}\n\
             [[sink]]\nname = \"kafka\"\nkind = \"kafka\"\nurl = \"{}\"\ntopic = \"{name}\"\n{every}\n{more}",
            ch.url(),
            es.url(),
            stores.kafka.bootstrap()
        );
        let site = CollectorFixture::new(&sinks);
        // Fixed over restarts, so that the senders find it again.
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self { stores, name, site, ch, es, listen, collector: None }
    }

    /// Quick settings: short waits, so that tests do not wait.
    pub(crate) fn quick(stores: &'a Stores, name: &str) -> Self {
        Self::new(
            stores,
            name,
            "linger_ms = 100\nretry_initial_backoff_ms = 50\nretry_max_backoff_ms = 500\nrequest_timeout_ms = 10000",
            "",
        )
    }

    pub(crate) fn start(&mut self) {
        let mut arguments = self.site.serve();
        let at = arguments.iter().position(|word| word == "--listen").unwrap();
        arguments[at + 1] = self.listen.clone();
        self.collector = Some(Collector::spawn(Command::new(super::support::BINARY).args(arguments)));
    }

    pub(crate) fn kill_9(&mut self) {
        self.collector.take().unwrap().kill_9();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub(crate) fn ledger(&self) -> Value {
        self.collector.as_ref().unwrap().ledger()
    }

    pub(crate) fn sink(&self, name: &str) -> (u64, u64, u64) {
        let ledger = self.ledger();
        let sink = &ledger["sinks"][name];
        let n = |key: &str| sink[key].as_u64().unwrap();
        (n("delivered"), n("dead"), n("pending"))
    }

    /// Waits until the sinks have everything; returns how long that took.
    pub(crate) fn settled(&self, names: &[&str]) -> Duration {
        let began = Instant::now();
        while names.iter().any(|name| self.sink(name).2 > 0) {
            assert!(began.elapsed() < TIMEOUT, "not settled: {}", self.ledger());
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed()
    }

    /// What ClickHouse has, by its own query.
    pub(crate) fn in_clickhouse(&self) -> u64 {
        let sql = format!("SELECT count() FROM {}.ods_event FINAL", self.name);
        self.stores.clickhouse.query(&sql).unwrap().trim().parse().unwrap()
    }

    /// What Elasticsearch has, by its own query.
    pub(crate) fn in_elasticsearch(&self) -> u64 {
        let indices = format!("{}-ods-*", self.name);
        self.stores.elastic.post(&format!("/{indices}/_refresh"), "").unwrap().ok().unwrap();
        self.stores.elastic.count(&indices).unwrap()
    }

    /// Records in the Kafka topic, and different events among them.
    pub(crate) fn in_kafka(&self) -> (u64, u64) {
        let records = self.stores.kafka.consume_all(&self.name).unwrap();
        let ids: std::collections::BTreeSet<String> =
            records.iter().map(|(_, value)| serde_json::from_str::<Message>(value).unwrap().event_id).collect();
        (records.len() as u64, ids.len() as u64)
    }

    /// Every store has what the ledger says, each event once.
    pub(crate) fn assert_exactly_once(&self, sent: u64) -> String {
        let ledger = self.ledger();
        super::support::assert_adds_up(&ledger);
        assert_eq!(ledger["stored"], sent, "{ledger}");
        let (ch, es, kafka) = (self.sink("ch"), self.sink("es"), self.sink("kafka"));
        assert_eq!((self.in_clickhouse(), ch.2), (ch.0, 0), "ClickHouse, {ledger}");
        assert_eq!((self.in_elasticsearch(), es.2), (es.0, 0), "Elasticsearch, {ledger}");
        let (records, events) = self.in_kafka();
        assert_eq!((events, kafka.2), (kafka.0, 0), "Kafka, {ledger}");
        format!(
            "{sent} events; dead: ch {}, es {}; Kafka has {} records more than events",
            ch.1,
            es.1,
            records - events
        )
    }
}

/// Sends from several threads, as the SDK does: a batch goes again until its receipt comes.
pub(crate) struct Load {
    pub(crate) sent: AtomicU64,
    stop: AtomicBool,
}

const SENDERS: usize = 4;
const BATCH: usize = 50;
/// The events' times lie in three days, UTC.
const FIRST_MS: i64 = 1_431_820_800_000;
const DAY_MS: i64 = 86_400_000;

/// A batch of events over three days.
pub(crate) fn three_days(count: usize) -> Value {
    let install = id();
    let events: Vec<Value> = (0..count)
        .map(|n| {
            let time = FIRST_MS + (n as i64 % 3) * DAY_MS + n as i64;
            json!({"id": id(), "seq": n + 1, "theme": "view", "code": "page_view", "ts": time, "true_ts": time,
                "page": {"path": "pages/index"}, "props": {"n": n}})
        })
        .collect();
    json!({"v": 1, "batch_id": id(), "install_id": install, "sent_at": FIRST_MS + 3 * DAY_MS, "events": events})
}

impl Load {
    /// Runs `during` while events are sent to `url`; returns how many were acknowledged.
    pub(crate) fn run(url: &str, during: impl FnOnce(&Load)) -> u64 {
        let load = Load { sent: AtomicU64::new(0), stop: AtomicBool::new(false) };
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| load.send(url));
            }
            during(&load);
            load.stop.store(true, Ordering::Relaxed);
        });
        load.sent.into_inner()
    }

    fn send(&self, url: &str) {
        let agent = agent();
        while !self.stop.load(Ordering::Relaxed) {
            let body = gzip(three_days(BATCH).to_string().as_bytes());
            let began = Instant::now();
            // Until the receipt comes, also after the end: nothing may be left in between.
            while !try_post(&agent, url, "demo", &[], &body).is_ok_and(|answer| answer.status == 200) {
                assert!(began.elapsed() < TIMEOUT, "a batch was never acknowledged");
                std::thread::sleep(Duration::from_millis(20));
            }
            self.sent.fetch_add(BATCH as u64, Ordering::Relaxed);
            // Some thousand events a second: a store that restarts for half a minute is not buried.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until so many events more are acknowledged.
    pub(crate) fn more(&self, events: u64) {
        let enough = self.sent.load(Ordering::Relaxed) + events;
        let began = Instant::now();
        while self.sent.load(Ordering::Relaxed) < enough {
            assert!(began.elapsed() < TIMEOUT, "the load stands still");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A row of the fault table.
pub(crate) fn row(fault: &str, times: u64, outcome: &str, recovered: Duration) {
    println!("| {fault} | {times} | {outcome} | {:.1} s |", recovered.as_secs_f64());
}

/// The answers of every metric and interval, and the newest events, for a comparison between stores.
pub(crate) fn answers(collector: &Collector) -> Vec<Value> {
    let mut out = Vec::new();
    for metric in ["pv", "uv", "users", "new_users", "cumulative_users", "sessions", "events"] {
        for interval in ["hour", "day", "week", "month", "year", "total"] {
            let path = format!("/v1/apps/demo/metrics/{metric}?from=2015-05-16&to=2015-05-22&interval={interval}");
            let answer = collector.get(&path, Some(READ));
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            out.push(answer.json());
        }
    }
    let newest = collector.get("/v1/apps/demo/events?limit=100", Some(READ));
    assert_eq!(newest.status, 200, "{newest:?}");
    out.push(newest.json());
    assert_eq!(collector.get("/v1/admin/ledger", Some(ADMIN)).status, 200);
    out
}
