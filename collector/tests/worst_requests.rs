//! What the worst request there is for each limit makes of the collector's memory, and how long another app's events wait
//! behind it, with every store attached. `--nocapture` prints the table.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "helpers of tests fail the test; other targets use the rest"
)]

#[path = "write_path/support.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use subway_servers::{ClickHouse, Elastic, Elasticsearch, Kafka, available};
use support::{Collector, CollectorFixture, READ, agent, gzip, id, try_post};

/// The most by which one request may raise the resident memory, MiB.
const MAX_MIB: u64 = 128;
/// The longest that another app's request may wait for its answer, and its event for its way into every store.
const MAX_ANSWER: Duration = Duration::from_secs(10);
const MAX_DELIVERY: Duration = Duration::from_secs(60);
/// The longest that an event of another app may be on its way into Elasticsearch, also behind one request that spreads its
/// events over 1,000 days: each day within 400 of the arrival is an index there, which takes it some tenths of a second, once.
const MAX_BEHIND_DAYS: Duration = Duration::from_secs(15);
/// How long the stores may need for what the request itself has become.
const TIMEOUT: Duration = Duration::from_secs(600);
const DAYS: &str = "1,000 days";
const DAY_MS: i64 = 86_400_000;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn event(number: usize) -> Map<String, Value> {
    let event = json!({"id": id(), "seq": number + 1, "theme": "click", "code": "c", "ts": now()});
    event.as_object().unwrap().clone()
}

/// A batch of 1,000 events, each changed by `change`.
fn events(change: impl Fn(usize, &mut Map<String, Value>)) -> Value {
    let events: Vec<Value> = (0..1000)
        .map(|number| {
            let mut event = event(number);
            change(number, &mut event);
            event.into()
        })
        .collect();
    json!({"v": 1, "batch_id": id(), "install_id": id(), "sent_at": now(), "events": events})
}

fn with(mut batch: Value, name: &str, value: Value) -> Value {
    batch[name] = value;
    batch
}

/// A batch in whose text the placeholder is replaced by `text`.
fn spliced(batch: &Value, text: &str) -> String {
    batch.to_string().replace("\"HERE\"", text)
}

fn one(field: &str) -> Value {
    with(with(events(|_, _| {}), "events", json!([event(0)])), field, json!("HERE"))
}

/// A text of so many bytes that no other number has.
fn text(bytes: usize, number: usize) -> String {
    format!("{number:-<bytes$}")
}

fn props(event: &mut Map<String, Value>, props: Value) {
    event.insert("props".into(), props);
}

/// A name, a body, and the answer to it.
type Case = (&'static str, String, u16);

/// What goes to the limits of a batch, or far beyond them.
fn batches() -> Vec<Case> {
    let mib8 = 8 * 1024 * 1024 - 2000;
    let long = json!({"k": "x".repeat(32 * 1024 - 8)});
    let texts: Value =
        ["version", "name", "platform", "app", "os", "os_version", "brand", "model", "screen", "language", "timezone"]
            .map(|name| (name.to_owned(), json!("t".repeat(2048))))
            .into_iter()
            .collect::<Map<_, _>>()
            .into();
    let mut context = with(events(|_, _| {}), "network", json!("n".repeat(2048)));
    for name in ["app", "sdk", "host", "device"] {
        context[name] = texts.clone();
    }
    vec![
        ("an ordinary batch", events(|_, _| {}).to_string(), 200),
        ("common at its limit", with(events(|_, _| {}), "common", long).to_string(), 200),
        ("common of 8 MiB", spliced(&one("common"), &format!("{{\"k\":\"{}\"}}", "x".repeat(mib8))), 400),
        ("common of 8 MiB, deep", spliced(&one("common"), &format!("{{\"k\":{}", "[".repeat(mib8))), 400),
        ("every text of the context", context.to_string(), 200),
        ("8 MiB of nothing", " ".repeat(mib8) + &events(|_, _| {}).to_string()[..1000], 400),
        ("an unknown field of 8 MiB", spliced(&one("unknown"), &format!("[{}1]", "1,".repeat(mib8 / 2 - 4))), 200),
        ("8 MiB of elements", spliced(&one("events"), &format!("[{}1]", "1,".repeat(mib8 / 2 - 4))), 413),
        (
            "a wrong name of 8 MiB",
            spliced(&one("ledger"), &format!("{{\"dropped\":{{\"{}\":\"no\"}}}}", "x".repeat(mib8))),
            400,
        ),
        ("a wrong field of 8 MiB", spliced(&one("v"), &format!("\"{}\"", "x".repeat(mib8))), 400),
    ]
}

/// What goes to the limits of each of 1,000 events.
fn thousands() -> Vec<Case> {
    vec![
        ("8 KiB in each event", events(|n, event| props(event, json!({"k": text(7900, n)}))).to_string(), 200),
        (
            "150 properties of its own in each event",
            events(|n, event| {
                props(event, (0..150).map(|at| (format!("{n}-{at}"), json!(at))).collect::<Map<_, _>>().into())
            })
            .to_string(),
            200,
        ),
        (
            "nested arrays in each event",
            spliced(
                &events(|_, event| props(event, json!({"k": "HERE"}))),
                &format!("[{}0]", "[[[[[]]]]],".repeat(700)),
            ),
            200,
        ),
        (
            "60 long names in each event",
            events(|n, event| {
                props(event, (0..60).map(|at| (text(128, n * 100 + at), json!(1))).collect::<Map<_, _>>().into());
            })
            .to_string(),
            200,
        ),
        (
            "codes, pages, users, sessions of their own",
            events(|n, event| {
                event.insert("code".into(), json!(text(128, n)));
                event.insert("user_id".into(), json!(text(1500, n)));
                event.insert("session".into(), json!({"id": text(1500, n)}));
                event.insert(
                    "page".into(),
                    json!({"path": text(1500, n), "title": text(1500, n), "referrer": text(1500, n)}),
                );
            })
            .to_string(),
            200,
        ),
        (
            "escapes and names twice, 8 KiB in each event",
            spliced(
                &events(|_, event| props(event, json!("HERE"))),
                &format!("{{\"a\":1,\"a\":\"{}\"}}", "\\u0000".repeat(1300)),
            ),
            200,
        ),
        (
            "1,000 events rejected",
            events(|n, event| {
                let name = text(128, n);
                props(event, json!({&name: {&name: {&name: {&name: {&name: {&name: {&name: {&name: {&name: 1}}}}}}}}}));
            })
            .to_string(),
            200,
        ),
        (
            DAYS,
            events(|n, event| drop(event.insert("true_ts".into(), json!(now() - DAY_MS * n as i64)))).to_string(),
            200,
        ),
    ]
}

/// A line of /proc/PID/status, MiB.
fn mib(collector: &Collector, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", collector.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().split(' ').next().unwrap().parse::<u64>().unwrap() / 1024
}

/// How many events are stored, and how many of them every store has.
fn progress(collector: &Collector) -> (u64, u64) {
    let ledger = collector.ledger();
    let sinks = ledger["sinks"].as_object().unwrap();
    assert_eq!(sinks.len(), 4, "{ledger}");
    for (name, sink) in sinks {
        assert_eq!(sink["dead"], 0, "{name}: {ledger}");
    }
    let delivered = sinks.values().map(|sink| sink["delivered"].as_u64().unwrap()).min().unwrap();
    (ledger["stored"].as_u64().unwrap(), delivered)
}

/// Sends events of another app until told to stop, each once Elasticsearch has the one before; the longest way there.
fn follower(url: &str, elastic: &Elastic, stop: &AtomicBool) -> Duration {
    let (agent, mut longest) = (agent(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let (event, began) = (event(0), Instant::now());
        let batch = json!({"v": 1, "batch_id": id(), "install_id": id(), "sent_at": now(), "events": [event]});
        assert_eq!(try_post(&agent, url, "other", &[], batch.to_string().as_bytes()).unwrap().status, 200);
        let day = jiff::Timestamp::from_millisecond(event["ts"].as_i64().unwrap()).unwrap().strftime("%Y.%m.%d");
        let path = format!("/subway-ods-{day}/_doc/{}", event["id"].as_str().unwrap());
        while elastic.get(&path).unwrap().status != 200 {
            assert!(began.elapsed() < TIMEOUT, "an event of another app never came: {path}");
            std::thread::sleep(Duration::from_millis(20));
        }
        longest = longest.max(began.elapsed());
    }
    longest
}

/// Waits until every store has what is stored now; how long that took.
fn settle(collector: &Collector) -> Duration {
    let (began, (stored, _)) = (Instant::now(), progress(collector));
    while progress(collector).1 < stored {
        assert!(began.elapsed() < TIMEOUT, "the stores never caught up: {}", collector.ledger());
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// Sends events of another app until told to stop; the longest wait for an answer.
fn bystander(url: &str, stop: &AtomicBool) -> Duration {
    let (agent, mut longest) = (agent(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let batch = json!({"v": 1, "batch_id": id(), "install_id": id(), "sent_at": now(), "events": [event(0)]});
        let began = Instant::now();
        let answer = try_post(&agent, url, "other", &[], batch.to_string().as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        longest = longest.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    longest
}

#[test]
fn no_request_takes_more_memory_than_its_share_or_holds_up_another_app() {
    let Some(clickhouse) = available(ClickHouse::start()) else { return };
    let Some(elastic) = available(Elasticsearch::start()) else { return };
    let Some(kafka) = available(Kafka::start()) else { return };
    let config = format!(
        "[[app]]\nkey = \"other\"\ntimezone = \"UTC\"\nread_token = \"{READ}\"\n\
         [[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"{}\"\n\
         [[sink]]\nname = \"es\"\nkind = \"elasticsearch\"\nurl = \"{}\"\n\
         [[sink]]\nname = \"kafka\"\nkind = \"kafka\"\nurl = \"{}\"\n",
        clickhouse.url(),
        elastic.url(),
        kafka.bootstrap()
    );
    println!(
        "| request | as sent, KiB | answer | RSS before, MiB | peak | after | others' answer, ms | others' way into Elasticsearch, ms | all delivered after, ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let (mut worst, mut everything) = (0, 0);
    for (name, body, status) in batches().into_iter().chain(thousands()) {
        let sent = gzip(body.as_bytes());
        assert!(body.len() <= 8 * 1024 * 1024 && sent.len() <= 1024 * 1024, "{name}: {} {}", body.len(), sent.len());
        // Each has a collector of its own: what an earlier one has left would hide what this one takes.
        let site = CollectorFixture::new(&config);
        let collector = site.start();
        // What is made once: connections, threads, tables, indices, caches.
        for _ in 0..2 {
            collector.send(&events(|_, _| {})).counts();
            settle(&collector);
        }
        // Resets the peak.
        std::fs::write(format!("/proc/{}/clear_refs", collector.id()), "5").unwrap();
        let before = mib(&collector, "VmRSS");
        let stop = AtomicBool::new(false);
        let (answer, longest, behind, delivered) = std::thread::scope(|scope| {
            let others = scope.spawn(|| bystander(&collector.url, &stop));
            let follower = scope.spawn(|| follower(&collector.url, &elastic, &stop));
            let answer = collector.post("demo", &[], &sent);
            let delivered = settle(&collector);
            stop.store(true, Ordering::Relaxed);
            (answer, others.join().unwrap(), follower.join().unwrap(), delivered)
        });
        let left = settle(&collector);
        everything += progress(&collector).0;
        assert_eq!(elastic.count("subway-ods-*").unwrap(), everything, "{name}: {}", collector.ledger());
        let (peak, after) = (mib(&collector, "VmHWM"), mib(&collector, "VmRSS"));
        println!(
            "| {name} | {} | {} | {before} | {peak} | {after} | {} | {} | {} |",
            sent.len() / 1024,
            answer.status,
            longest.as_millis(),
            behind.as_millis(),
            (delivered + left).as_millis()
        );
        assert_eq!(answer.status, status, "{name}: {}", &answer.text[..answer.text.len().min(500)]);
        assert!(answer.text.len() < 1024 * 1024, "{name}: an answer of {} bytes", answer.text.len());
        worst = worst.max(peak - before);
        assert!(peak - before <= MAX_MIB, "{name}: from {before} to {peak} MiB");
        assert!(longest < MAX_ANSWER && behind < MAX_BEHIND_DAYS, "{name}: {longest:?}, {behind:?}");
        assert!(name == DAYS || delivered < MAX_DELIVERY, "{name}: {delivered:?}");
    }
    println!("the most: {worst} MiB");
}
