//! SIGKILL, repeatedly, while thousands of events per second are tracked against a real collector, which is killed as
//! well from time to time. Afterwards every event that the SDK reported as persisted is on the collector exactly once,
//! and the client's ledger balances to the event.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use subway_mobile::{Config, Settings, Subway, Theme, TrackEvent};
use support::collector::{Collector, export};
use tempfile::TempDir;

const KILLS: u64 = 30;
/// The collector is killed with every n-th run of the client.
const COLLECTOR_KILL: u64 = 5;
/// Events per second that a child tracks, in bursts of a millisecond.
const RATE: u64 = 8_000;
const ACCEPTED: u64 = 0;
const PERSISTED: u64 = 8;

fn config(dir: &Path, address: &str) -> Config {
    Config {
        data_dir: Some(dir.join("sdk").to_str().unwrap().to_owned()),
        settings: Settings {
            queue_rows: 1_000_000,
            queue_bytes: 1 << 30,
            flush_interval: Duration::from_millis(50),
            ..Settings::default()
        },
        ..Config::new(address, "demo")
    }
}

/// Numbers that survive SIGKILL: a file of two, written in place.
struct Counters(File);

impl Counters {
    fn open(dir: &Path) -> Self {
        let path = dir.join("counters");
        Self(File::options().create(true).truncate(false).read(true).write(true).open(path).unwrap())
    }

    fn set(&self, at: u64, number: u64) {
        self.0.write_all_at(&number.to_le_bytes(), at).unwrap();
    }

    fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        match self.0.read_exact_at(&mut bytes, at) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => 0,
        }
    }
}

/// Runs the child: tracks numbered events until it is killed. One thread tracks, another waits for persistence.
#[test]
#[ignore = "run by the test below as a child process"]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var("KILL_DIR") else { return };
    let dir = Path::new(&dir);
    let first: u64 = std::env::var("KILL_FIRST").unwrap().parse().unwrap();
    let subway = Subway::open(config(dir, &std::env::var("KILL_ADDRESS").unwrap())).unwrap();
    let counters = Arc::new(Counters::open(dir));
    let accepted = Arc::new(AtomicU64::new(0));
    std::thread::spawn({
        let (subway, counters, accepted) = (subway.clone(), counters.clone(), accepted.clone());
        move || {
            loop {
                let before = accepted.load(Ordering::SeqCst);
                if before > 0 && subway.persist_and_wait(Duration::from_secs(10)) {
                    counters.set(PERSISTED, before);
                }
            }
        }
    });
    let start = Instant::now();
    for number in first.. {
        let event = TrackEvent::new(Theme::View, "numbered").with_props(&serde_json::json!({"n": number}));
        subway.track(event).unwrap();
        counters.set(ACCEPTED, number);
        accepted.store(number, Ordering::SeqCst);
        let due = Duration::from_millis((number - first) * 1000 / RATE);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

fn spawn_child(dir: &Path, address: &str, first: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child_that_is_killed", "--exact", "--ignored", "--nocapture"])
        .envs([("KILL_DIR", dir.to_str().unwrap()), ("KILL_ADDRESS", address), ("KILL_FIRST", &first.to_string())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// One run of the client: numbers it was to track, had accepted, had reported as persisted.
#[derive(Debug)]
struct Life {
    first: u64,
    accepted: u64,
    persisted: u64,
}

fn live_and_be_killed(dir: &Path, address: &str, first: u64, millis: u64) -> Life {
    let counters = Counters::open(dir);
    let mut child = spawn_child(dir, address, first);
    while counters.get(ACCEPTED) < first {
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        std::thread::yield_now();
    }
    // The time of the kill is deliberately arbitrary.
    std::thread::sleep(Duration::from_millis(millis));
    child.kill().unwrap();
    child.wait().unwrap();
    Life { first, accepted: counters.get(ACCEPTED), persisted: counters.get(PERSISTED) }
}

#[test]
fn every_persisted_event_arrives_exactly_once_over_many_kills() {
    let dir = TempDir::new().unwrap();
    let store = dir.path().join("collector");
    let mut collector = Collector::start(&store, None);
    let address = collector.address.clone();
    let mut lives: Vec<Life> = Vec::new();
    let mut collector_kills = 0;
    let mut random = getrandom_u64();
    for life in 1..=KILLS {
        // The event after the last accepted one can be in the store, although the call did not return.
        let first = lives.last().map_or(1, |last| last.accepted + 2);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let millis = (random >> 33) % 200;
        if life.is_multiple_of(COLLECTOR_KILL) {
            collector_kills += 1;
            let (life, restarted) = std::thread::scope(|scope| {
                let client = scope.spawn(|| live_and_be_killed(dir.path(), &address, first, 200 + millis));
                std::thread::sleep(Duration::from_millis(100 + millis));
                collector.kill();
                let restarted = Collector::start(&store, Some(&address));
                (client.join().unwrap(), restarted)
            });
            collector = restarted;
            lives.push(life);
        } else {
            lives.push(live_and_be_killed(dir.path(), &address, first, millis));
        }
    }
    let subway = Subway::open(config(dir.path(), &address)).unwrap();
    assert!(subway.flush_and_wait(Duration::from_secs(120)), "{:?}", subway.ledger());
    let ledger = subway.ledger();
    subway.close(Duration::ZERO);
    drop(collector);
    judge(&lives, collector_kills, &ledger, &store);
}

fn judge(lives: &[Life], collector_kills: u64, ledger: &subway_mobile::Ledger, store: &Path) {
    let mut copies: BTreeMap<u64, u64> = BTreeMap::new();
    for event in export(store) {
        let props = &event["props"];
        let number = props["n"].as_u64().or_else(|| {
            let props: serde_json::Value = serde_json::from_str(props.as_str()?).ok()?;
            props["n"].as_u64()
        });
        *copies.entry(number.unwrap()).or_default() += 1;
    }
    let twice: Vec<u64> = copies.iter().filter(|(_, count)| **count > 1).map(|(number, _)| *number).collect();
    let (mut tracked, mut persisted, mut lost, mut lossy) = (0, 0, Vec::new(), 0);
    for life in lives {
        let missing = |from: u64, to: u64| (from..=to).filter(|number| !copies.contains_key(number)).count() as u64;
        let broken = missing(life.first, life.persisted);
        assert_eq!(broken, 0, "events that were called persisted are missing: {life:?}");
        tracked += life.accepted + 1 - life.first;
        persisted += (life.persisted + 1).saturating_sub(life.first);
        lost.push(missing(life.first, life.accepted));
        lossy += u64::from(lost.last() != Some(&0));
    }
    println!(
        "{} kills of the client, {collector_kills} of the collector; {tracked} events accepted, {persisted} known to be \
         persisted, {} on the collector; accepted but not yet persisted when killed: {} in all, {} at most, in {lossy} \
         kills; {ledger:?}",
        lives.len(),
        copies.len(),
        lost.iter().sum::<u64>(),
        lost.iter().max().unwrap(),
    );
    assert_eq!(twice, [0; 0], "events that arrived twice");
    assert!(tracked > 500 * KILLS / 30, "the children must have tracked something: {tracked}");
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.queued, ledger.dropped_total()), (0, 0), "{ledger:?}");
    assert_eq!(ledger.acked, copies.len() as u64, "the client knows exactly what the collector has");
}

fn getrandom_u64() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let seed = RandomState::new().hash_one(0);
    println!("seed of the kill times: {seed}");
    seed
}
