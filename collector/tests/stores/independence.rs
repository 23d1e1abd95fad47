//! One sink's trouble is no other's.

use std::time::{Duration, Instant};

use super::lab::{Load, StoresFixture, row, stores};

#[test]
fn a_store_that_is_down_for_long_delays_no_other_and_catches_up() {
    let Some(stores) = stores() else { return };
    let mut lab = StoresFixture::quick(&stores, "down");
    lab.start();
    // It takes connections and never answers: the worst way to be down.
    lab.es.blackhole();
    let minutes = std::env::var("SUBWAY_DOWN_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let mut lags = Vec::new();
    let sent = Load::run(&lab.url(), |load| {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(minutes) {
            let head = lab.ledger()["stored"].as_u64().unwrap();
            let asked = Instant::now();
            for sink in ["embedded", "ch", "kafka"] {
                while lab.sink(sink).0 < head {
                    assert!(asked.elapsed() < Duration::from_secs(60), "{sink} waits for the store that is down");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            lags.push(asked.elapsed());
            load.more(200);
        }
    });
    assert_eq!(lab.sink("es").0, 0);
    lags.sort();
    let p99 = lags[lags.len() * 99 / 100];
    lab.settled(&["embedded", "ch", "kafka"]);
    lab.es.pass();
    let recovered = lab.settled(&["es"]);
    let outcome = lab.assert_exactly_once(sent);
    let outcome = format!("{outcome}; down {minutes} s, the others' lag p99 {:.2} s", p99.as_secs_f64());
    row("Elasticsearch never answers", 1, &outcome, recovered);
}

#[test]
fn a_full_spool_sheds_for_the_sink_that_may_and_takes_everything_for_the_others() {
    let Some(stores) = stores() else { return };
    let mut lab = StoresFixture::new(
        &stores,
        "shed",
        "linger_ms = 50\nretry_initial_backoff_ms = 50\nretry_max_backoff_ms = 200\nrequest_timeout_ms = 2000\nbatch_events = 500\nwhen_full = \"drop_oldest\"",
        "[limits]\nspool_max_bytes = 1000000\n",
    );
    lab.start();
    lab.es.refuse();
    let sent = Load::run(&lab.url(), |load| {
        while lab.ledger()["sinks"]["es"]["shed"].as_u64().unwrap_or(0) < 3000 {
            load.more(500);
        }
    });
    lab.es.pass();
    let recovered = lab.settled(&["embedded", "ch", "es", "kafka"]);
    let outcome = lab.assert_exactly_once(sent);
    let (delivered, dead, _) = lab.sink("es");
    assert_eq!(lab.ledger()["sinks"]["es"]["shed"], dead);
    assert_eq!(delivered + dead, sent);
    assert_eq!(lab.sink("embedded").0, sent);
    let list = lab.site.command(&["dead-letters", "list"]);
    assert!(list.contains("the spool was full") && list.contains("\"es\""), "{list}");
    row("spool full, policy shed", 1, &format!("{outcome}; shed {dead} for Elasticsearch alone"), recovered);
}

#[test]
fn a_full_spool_blocks_clients_by_default_until_the_store_is_back() {
    let Some(stores) = stores() else { return };
    let mut lab = StoresFixture::new(
        &stores,
        "block",
        "linger_ms = 50\nretry_initial_backoff_ms = 50\nretry_max_backoff_ms = 200\nrequest_timeout_ms = 2000",
        "[limits]\nspool_max_bytes = 300000\n",
    );
    lab.start();
    lab.ch.refuse();
    let mut acknowledged = 0;
    let refused = loop {
        let batch = super::lab::three_days(50);
        let answer = lab.collector.as_ref().unwrap().send(&batch);
        match answer.status {
            200 => acknowledged += 50,
            _ => break answer,
        }
        assert!(acknowledged < 1_000_000, "the spool never fills");
    };
    assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"));
    lab.ch.pass();
    let back = Instant::now();
    while lab.collector.as_ref().unwrap().get("/health/ready", None).status != 200 {
        assert!(back.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let recovered = back.elapsed();
    lab.settled(&["embedded", "ch", "es", "kafka"]);
    let outcome = lab.assert_exactly_once(acknowledged);
    row("spool full, policy block", 1, &outcome, recovered);
}

#[test]
fn a_sink_that_is_added_later_gets_everything_since_the_beginning() {
    let Some(stores) = stores() else { return };
    let mut lab = StoresFixture::quick(&stores, "late");
    let path = lab.site.dir.path().join("config.toml");
    let full = std::fs::read_to_string(&path).unwrap();
    let (without, _) = full.split_once("[[sink]]").unwrap();
    std::fs::write(&path, without).unwrap();
    lab.start();
    let early = Load::run(&lab.url(), |load| load.more(2000));
    lab.settled(&["embedded"]);
    assert!(lab.collector.take().unwrap().terminate().success());
    std::fs::write(&path, &full).unwrap();
    lab.start();
    let later = Load::run(&lab.url(), |load| load.more(500));
    let recovered = lab.settled(&["embedded", "ch", "es", "kafka"]);
    let outcome = lab.assert_exactly_once(early + later);
    row("sink added after the spool was trimmed", 1, &outcome, recovered);
}
