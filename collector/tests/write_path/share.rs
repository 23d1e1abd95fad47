//! One app's flood fills its own share of the spool and no more.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::support::{
    Collector, CollectorFixture, READ, TestResponse, agent, assert_adds_up, batch, events, eventually, exported,
    try_post,
};

/// Bytes of JSON in the spool: some fifty batches of the flood.
const CAP: u64 = 1_000_000;
/// More than one batch of the flood is as JSON in the spool: so far can an app be beyond its share.
const BATCH: u64 = 40_000;
/// Far more batches than there is room for.
const FLOOD: usize = 1_000;

/// A second app, a spool of [`CAP`], and `more`.
fn site(more: &str) -> CollectorFixture {
    CollectorFixture::new(&format!(
        "[[app]]\nkey = \"other\"\ntimezone = \"UTC\"\nread_token = \"{READ}\"\n[limits]\nspool_max_bytes = {CAP}\n{more}"
    ))
}

/// A sink that nothing listens for.
fn dead_sink(when_full: &str) -> String {
    format!(
        "[[sink]]\nname = \"dead\"\nkind = \"clickhouse\"\nurl = \"http://127.0.0.1:9\"\nwhen_full = \"{when_full}\"\n"
    )
}

fn flood(collector: &Collector) -> TestResponse {
    collector.post("demo", &[], batch(events(100)).to_string().as_bytes())
}

/// What the other app sends meanwhile; every batch is taken.
fn small_traffic(collector: &Collector, batches: u64) -> u64 {
    for _ in 0..batches {
        let answer = collector.post("other", &[], batch(events(2)).to_string().as_bytes());
        assert_eq!(answer.counts(), (2, 0, 0), "{answer:?}");
    }
    2 * batches
}

fn bytes_of(collector: &Collector, app: &str) -> u64 {
    collector.metric(&format!("subway_spool_app_bytes{{app=\"{app}\"}}"))
}

/// Sends for one app from several threads until each of them is refused; gives the number of events taken.
fn flood_until_refused(collector: &Collector) -> u64 {
    let taken = std::sync::atomic::AtomicU64::new(0);
    let endless = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let agent = agent();
                for _ in 0..FLOOD {
                    let body = batch(events(100)).to_string();
                    let answer = try_post(&agent, &collector.url, "demo", &[], body.as_bytes()).unwrap();
                    if answer.status != 200 {
                        return;
                    }
                    taken.fetch_add(100, Ordering::Relaxed);
                }
                endless.store(true, Ordering::Relaxed);
            });
        }
    });
    assert!(!endless.load(Ordering::Relaxed), "nobody is ever refused");
    taken.into_inner()
}

fn assert_share_is_used_up(collector: &Collector) {
    let refused = flood(collector);
    assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"));
    let problem = refused.problem();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("this app's share of the spool is used up"), "{problem}");
    let (limit, got) = (problem["limit"].as_u64().unwrap(), problem["got"].as_u64().unwrap());
    assert!(got > limit && detail.contains(&limit.to_string()) && detail.contains(&got.to_string()), "{problem}");
    assert_eq!(bytes_of(collector, "demo"), got);
    assert_eq!(collector.metric("subway_spool_share_bytes"), limit);
    assert!(collector.metric("subway_requests_over_share_total") >= 1);
    assert_eq!(collector.get("/health/ready", None).status, 200, "others are still let in");
}

/// What the metrics say of each app, and that it adds up.
fn figures(collector: &Collector) -> [u64; 2] {
    let figures = ["demo", "other"].map(|app| bytes_of(collector, app));
    assert_eq!(collector.metric("subway_spool_bytes"), figures.iter().sum::<u64>());
    assert_eq!(bytes_of(collector, "signed"), 0, "an app with none is shown too");
    figures
}

#[test]
fn a_flood_is_refused_at_its_share_and_others_are_let_in_across_kills_until_nothing_waits() {
    let site = site(&dead_sink("block"));
    let collector = site.start();
    let mut stored = small_traffic(&collector, 1) + flood_until_refused(&collector);
    assert_share_is_used_up(&collector);
    let max_ids = CAP * 8 / 9 + BATCH;
    let demo = bytes_of(&collector, "demo");
    assert!((CAP / 2..max_ids).contains(&demo), "many senders at once get no more than one: {demo}");
    stored += small_traffic(&collector, 10);
    let before = figures(&collector);
    collector.kill_9();
    let collector = site.start();
    assert_eq!(figures(&collector), before, "exact after a crash");
    assert_share_is_used_up(&collector);
    stored += small_traffic(&collector, 10);
    let before = figures(&collector);
    assert!(collector.terminate().success());
    let collector = site.start();
    assert_eq!(figures(&collector), before, "and after a restart");
    assert_share_is_used_up(&collector);
    assert_eq!(collector.ledger()["stored"], stored);
    assert!(collector.terminate().success());
    // The dead sink holds back nothing any more.
    let path = site.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace(&dead_sink("block"), "");
    std::fs::write(&path, text).unwrap();
    let collector = site.start();
    eventually("everything drains", || collector.metric("subway_spool_bytes") == 0);
    assert_eq!(figures(&collector), [0, 0]);
    assert_eq!(flood(&collector).counts(), (100, 0, 0), "the flooder is let in again");
}

#[test]
fn once_the_store_is_back_everything_drains_and_the_flooder_is_let_in_again() {
    let site = site("");
    let collector = site.start();
    let mut stored = small_traffic(&collector, 1);
    eventually("nothing waits", || collector.metric("subway_spool_bytes") == 0);
    // The embedded store cannot write while another connection does.
    let store = rusqlite::Connection::open(site.data().join("store.db")).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    stored += flood_until_refused(&collector);
    assert_share_is_used_up(&collector);
    stored += small_traffic(&collector, 10);
    store.execute_batch("ROLLBACK").unwrap();
    drop(store);
    eventually("the store has everything", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    eventually("the spool is empty", || collector.metric("subway_spool_bytes") == 0);
    assert_eq!(figures(&collector), [0, 0]);
    assert_eq!(flood(&collector).counts(), (100, 0, 0));
    assert_adds_up(&collector.ledger());
    eventually("and so is the rest", || collector.ledger()["sinks"]["embedded"]["pending"] == 0);
    assert_eq!(exported(&site).len() as u64, stored + 100);
}

#[test]
fn a_sink_that_sheds_lets_every_app_through() {
    let site = site(&dead_sink("drop_oldest"));
    let collector = site.start();
    let shed = |ledger: &Value| ledger["sinks"]["dead"].get("shed").and_then(Value::as_u64).unwrap_or(0);
    let mut stored = 0;
    while shed(&collector.ledger()) < 5_000 {
        let body = batch(events(100)).to_string();
        // In a spool this small the other sink is now and then behind too, and what it lacks is not given up.
        eventually("the flooder is let through", || collector.post("demo", &[], body.as_bytes()).status == 200);
        stored += 100 + small_traffic(&collector, 1);
        assert!(stored < 200_000, "nothing is shed: {}", collector.ledger());
    }
    eventually("what the apps have adds up once nothing moves", || {
        collector.metric("subway_spool_bytes") == bytes_of(&collector, "demo") + bytes_of(&collector, "other")
    });
    let ledger = collector.ledger();
    assert_adds_up(&ledger);
    assert_eq!(ledger["stored"], stored);
    eventually("the other sink misses nothing", || collector.ledger()["sinks"]["embedded"]["delivered"] == stored);
}
