//! A log through the real SDK and the real collector, every number compared with the oracle.

use std::io::Write;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tempfile::TempDir;

use super::check::{Reader, compare};
use super::collector::Collector;
use super::{Found, Options, Share, run, split};
use crate::test::build_collector;
use crate::tools;

fn example_log() -> PathBuf {
    tools::root().join("examples/data/access.log")
}

fn start(dir: &Path, listen: &str) -> Collector {
    Collector::start(&build_collector().unwrap(), dir, listen, Stdio::null()).unwrap()
}

fn reader(collector: &Collector) -> Reader {
    let token = collector.read_token().unwrap();
    Reader { base: collector.address.clone(), app: "demo".to_owned(), token }
}

fn assert_as_the_oracle_says(collector: &Collector, log: &Path) {
    let found = compare(&reader(collector), log).unwrap();
    assert_eq!(found.differences, [""; 0], "\n{}", found.table);
    assert!(found.compared > 300, "three days of hours, days and totals, four metrics: {}", found.compared);
}

#[test]
fn every_bucket_of_the_example_log_is_as_the_oracle_says() {
    let dir = TempDir::new().unwrap();
    let collector = start(dir.path(), "127.0.0.1:0");
    let summary = run(&Options::new(example_log(), &collector.address, "demo")).unwrap();
    assert_eq!(
        summary.to_string(),
        "replayed 4525 lines, 1988 views, 890 installs, 6513 events, 6513 acknowledged, 0 lost"
    );
    assert_as_the_oracle_says(&collector, &example_log());
}

#[test]
fn every_bucket_of_the_example_log_is_as_the_oracle_says_from_clickhouse_and_elasticsearch_too() {
    use subway_servers::{ClickHouse, Elasticsearch, available};
    let Some(clickhouse) = available(ClickHouse::start()) else { return };
    let Some(elastic) = available(Elasticsearch::start()) else { return };
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("config.toml");
    let read_from = |sink: &str| {
        let text = format!(
            "[[app]]\nkey = \"demo\"\ntimezone = \"Asia/Shanghai\"\n[query]\nsource = \"{sink}\"\n\
             [[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"{}\"\n\
             [[sink]]\nname = \"es\"\nkind = \"elasticsearch\"\nurl = \"{}\"\n",
            clickhouse.url(),
            elastic.url()
        );
        std::fs::write(&config, text).unwrap();
        let arguments = ["--config".as_ref(), config.as_os_str()];
        let data = dir.path().join("data");
        Collector::start_with(&build_collector().unwrap(), &data, "127.0.0.1:0", Stdio::null(), &arguments).unwrap()
    };
    let collector = read_from("ch");
    let summary = run(&Options::new(example_log(), &collector.address, "demo")).unwrap();
    assert_eq!((summary.played.acked, summary.played.lost), (6513, 0));
    assert_as_the_oracle_says(&collector, &example_log());
    drop(collector);
    assert_as_the_oracle_says(&read_from("es"), &example_log());
    assert_as_the_oracle_says(&read_from("embedded"), &example_log());
}

#[test]
fn a_collector_that_is_killed_meanwhile_costs_nothing_and_doubles_nothing() {
    let dir = TempDir::new().unwrap();
    let collector = start(dir.path(), "127.0.0.1:0");
    let address = collector.address.clone();
    let reader = reader(&collector);
    let replay = std::thread::spawn({
        let mut options = Options::new(example_log(), &address, "demo");
        options.target.parallel = 4;
        move || run(&options).unwrap()
    });
    let listen = address.strip_prefix("http://").unwrap().to_owned();
    let mut collector = collector;
    for at_least in [500, 2500] {
        let deadline = Instant::now() + Duration::from_secs(60);
        while reader.events_so_far().unwrap() < at_least {
            assert!(Instant::now() < deadline && !replay.is_finished(), "the replay must be under way");
            std::thread::yield_now();
        }
        collector.kill();
        collector = start(dir.path(), &listen);
    }
    let summary = replay.join().unwrap();
    assert_eq!((summary.played.acked, summary.played.lost), (6513, 0));
    assert_as_the_oracle_says(&collector, &example_log());
}

#[test]
fn a_collector_that_never_answers_makes_the_replay_give_up_and_count() {
    let log = TempDir::new().unwrap();
    let path = log.path().join("log");
    std::fs::write(&path, "1.2.3.4 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1\nrubbish\n").unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let mut options = Options::new(&path, &address, "demo");
    options.target.patience = Duration::from_millis(100);
    let summary = run(&options).unwrap();
    assert_eq!(summary.to_string(), "replayed 1 lines, 1 views, 1 installs, 2 events, 0 acknowledged, 2 lost");
    assert_eq!(summary.found.unreadable, 1);
}

#[test]
fn a_key_that_is_not_accepted_is_given_up_at_once() {
    let dir = TempDir::new().unwrap();
    let collector = start(dir.path(), "127.0.0.1:0");
    let summary = run(&Options::new(example_log(), &collector.address, "other")).unwrap();
    assert_eq!((summary.played.acked, summary.played.lost), (0, 6513));
}

#[test]
fn the_share_for_javascript_and_the_rest_make_the_whole() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("log.gz");
    let mut gzip = GzEncoder::new(std::fs::File::create(&log).unwrap(), Compression::fast());
    gzip.write_all(&std::fs::read(example_log()).unwrap()).unwrap();
    gzip.finish().unwrap();

    let every = NonZeroU64::new(4).unwrap();
    let out = dir.path().join("share.ndjson");
    let some = split(&log, Share::Every(every), &out).unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, some.lines + some.views);
    let installs: std::collections::BTreeSet<&str> =
        lines.iter().map(|line| line["install"].as_str().unwrap()).collect();
    assert_eq!((installs.len() as u64, some.installs), (223, 223), "every fourth of 890");
    assert_eq!(lines[0]["install"], "83.149.9.216");
    assert_eq!(lines[0]["trueTs"], 1_431_857_103_000_i64);

    let collector = start(&dir.path().join("data"), "127.0.0.1:0");
    let mut options = Options::new(&log, &collector.address, "demo");
    options.share = Share::AllBut(every);
    let rest = run(&options).unwrap().found;
    let sum = |a: Found, b: Found| (a.lines + b.lines, a.views + b.views, a.installs + b.installs);
    assert_eq!(sum(some, rest), (4525, 1988, 890));
}
