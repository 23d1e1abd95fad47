//! Acknowledged events survive every end of the process.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::{
    Collector, CollectorFixture, READ, agent, assert_adds_up, batch, events, eventually, exported, gzip, try_post,
};

const SENDERS: usize = 8;

fn ids(batch: &Value) -> impl Iterator<Item = String> {
    batch["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned())
}

/// Every batch that was sent, and whether a receipt for it came.
#[derive(Default)]
struct Sent {
    batches: Mutex<Vec<(Value, bool)>>,
    acknowledged: AtomicUsize,
}

/// Sends from several threads until `stop` says so for the number of acknowledged batches, then does `then`, and waits
/// until the senders have noticed.
fn under_load(collector: Collector, sent: &Sent, enough: usize, then: impl FnOnce(Collector)) {
    let stop = AtomicBool::new(false);
    let url = collector.url.clone();
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                let agent = agent();
                while !stop.load(Ordering::Relaxed) {
                    let batch = batch(events(20));
                    let body = gzip(batch.to_string().as_bytes());
                    let answer = try_post(&agent, &url, "demo", &[], &body);
                    let acknowledged = answer.is_ok_and(|answer| answer.status == 200 && answer.counts() == (20, 0, 0));
                    sent.batches.lock().unwrap().push((batch, acknowledged));
                    if acknowledged {
                        sent.acknowledged.fetch_add(1, Ordering::Relaxed);
                    } else {
                        break;
                    }
                }
            });
        }
        eventually("enough batches are acknowledged", || sent.acknowledged.load(Ordering::Relaxed) >= enough);
        then(collector);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_under_load_again_and_again() {
    // So few IDs in memory that parts of the dedup index are written and merged all the time.
    let site = CollectorFixture::new("[limits]\ndedup_fresh_ids = 150\n");
    let sent = Sent::default();
    for round in 1..=4 {
        let collector = site.start();
        under_load(collector, &sent, round * 60, Collector::kill_9);
        let ledger = site.ledger();
        assert_adds_up(&ledger);
        let acknowledged = sent.acknowledged.load(Ordering::Relaxed);
        assert!(
            ledger["stored"].as_u64().unwrap() as usize >= acknowledged * 20,
            "{ledger}, {acknowledged} batches acknowledged"
        );
    }
    let collector = site.start();
    eventually("the embedded store has everything", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    let stored: BTreeSet<String> = exported(&site).into_iter().collect();
    let batches = sent.batches.lock().unwrap();
    for (batch, _) in batches.iter().filter(|(_, acknowledged)| *acknowledged) {
        assert!(ids(batch).all(|id| stored.contains(&id)), "an acknowledged event is missing");
    }
    // As a client would: everything without a receipt is sent again.
    for (batch, _) in batches.iter().filter(|(_, acknowledged)| !acknowledged) {
        let (stored, duplicate, rejected) = collector.send(batch).counts();
        assert_eq!((stored as usize + duplicate, rejected), (20, 0));
        assert!(stored == 0 || duplicate == 0, "a batch is stored as a whole or not at all");
    }
    // A client that lost its receipts sends everything again.
    for (batch, _) in batches.iter() {
        assert_eq!(collector.send(batch).counts(), (0, 20, 0));
    }
    assert!(std::fs::read_dir(site.data().join("dedup")).unwrap().count() > 0, "parts were written");
    assert_eq!(collector.metric("subway_dedup_lost_parts{app=\"demo\"}"), 0);
    assert_eq!(collector.metric("subway_dedup_ids{app=\"demo\"}"), batches.len() as u64 * 20);
    let ledger = collector.ledger();
    assert_adds_up(&ledger);
    assert!(collector.terminate().success());
    let mut expected: Vec<String> = batches.iter().flat_map(|(batch, _)| ids(batch)).collect();
    expected.sort();
    assert_eq!(exported(&site), expected, "each event is there exactly once");
    assert_eq!(ledger["stored"].as_u64().unwrap() as usize, expected.len());
    let lost = batches.iter().filter(|(_, acknowledged)| !acknowledged).count();
    println!(
        "{} batches sent over 4 kills, {lost} without a receipt, {} events, none lost, none twice",
        batches.len(),
        expected.len()
    );
}

#[test]
fn a_drain_under_load_answers_what_was_accepted_and_ends_in_time() {
    for signal in ["-TERM", "-INT"] {
        let site = CollectorFixture::new("");
        let sent = Sent::default();
        under_load(site.start(), &sent, 40, |mut collector| {
            let began = Instant::now();
            collector.signal(signal);
            let status = collector.wait();
            assert!(status.success(), "{signal}: {status}");
            assert!(began.elapsed() < Duration::from_secs(10), "{signal}: {:?}", began.elapsed());
        });
        let ledger = site.ledger();
        assert_adds_up(&ledger);
        let acknowledged = sent.acknowledged.load(Ordering::Relaxed);
        assert_eq!(
            ledger["stored"].as_u64().unwrap() as usize,
            acknowledged * 20,
            "{signal}: what was stored was answered"
        );
    }
}

#[test]
fn a_drain_does_not_wait_for_those_who_do_not_finish() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    let idle = std::net::TcpStream::connect(collector.address()).unwrap();
    let mut slow = std::net::TcpStream::connect(collector.address()).unwrap();
    let head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-subway-key: demo\r\ncontent-length: 100\r\n\r\n{";
    std::io::Write::write_all(&mut slow, head).unwrap();
    eventually("both are connected", || collector.metric("subway_open_connections") >= 2);
    let began = Instant::now();
    assert!(collector.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop((idle, slow));
}

#[test]
fn what_a_question_finds_is_delivered_in_the_ledger_too_right_then_and_after_a_crash() {
    let site = CollectorFixture::new("");
    for round in 1..=5 {
        let collector = site.start();
        assert_eq!(collector.send(&batch(events(3))).counts(), (3, 0, 0));
        let found = collector.get("/v1/apps/demo/events", Some(READ)).json()["events"].as_array().unwrap().len();
        assert_eq!(found, 3 * round);
        let sink = serde_json::json!({"delivered": 3 * round, "dead": 0, "pending": 0});
        assert_eq!(collector.metric("subway_sink_pending_events{sink=\"embedded\"}"), 0);
        assert_eq!(collector.ledger()["sinks"]["embedded"], sink);
        collector.kill_9();
        assert_eq!(site.ledger()["sinks"]["embedded"], sink);
        assert_adds_up(&site.ledger());
    }
}

#[cfg(unix)]
#[test]
fn the_files_of_the_data_directory_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let site = CollectorFixture::new("");
    // In a directory that other users can open, created by another program.
    std::fs::create_dir(site.data()).unwrap();
    std::fs::set_permissions(site.data(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let collector = site.start();
    assert_eq!(collector.send(&batch(events(1))).counts(), (1, 0, 0));
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(site.data()).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let meta = file.metadata().unwrap();
        let mode = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{name}");
        names.insert(name);
    }
    for name in [
        "lock",
        "config-path",
        "control.sock",
        "spool.db",
        "spool.db-wal",
        "spool.db-shm",
        "store.db",
        "store.db-wal",
        "store.db-shm",
    ] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
}
